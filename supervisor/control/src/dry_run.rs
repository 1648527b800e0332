//! What an upgrade would do now. Nothing is changed by asking, and the feed is not asked: what is said is
//! said from the index that was verified last, and from the last look at the system's packages; or, of an upgrade
//! from a folder, from what is verified there at this moment, and kept nowhere.

use bumpless_shared::release::Version;
use serde::{Deserialize, Serialize};

use crate::Unix;
use crate::history::{Index, Source};
use crate::status::Refused;
use crate::word::words;

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DryRun {
    /// The version that is asked for; `None`: the newest that may run here.
    pub asked: Option<Version>,
    /// The folder that the upgrade would be from; left out where it is the feed and the packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// What serves; `None` where nothing was ever installed.
    pub from: Option<Version>,
    /// Where an upgrade would go; `None`: nowhere.
    pub to: Option<Version>,
    /// Why nowhere.
    pub why_not: Option<String>,
    /// What stands before the start of an upgrade to that release, if there is one.
    pub obstacles: Vec<Obstacle>,
    /// Every release of the index and of the system's packages, the newest first.
    pub releases: Vec<Considered>,
    /// Declarations of packages that are not believed; left out where each is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refused>,
    /// The index; `None` where none was verified: then packages alone offer something.
    pub index: Option<Index>,
    /// When its publisher last said that it is the newest.
    pub signed_at: Option<Unix>,
    /// The last look at the feed that went through; `None`: none since the supervisor's start.
    pub checked_at: Option<Unix>,
    /// Why the last look did not go through.
    pub feed_error: Option<String>,
}

/// Something that stands before the start of an upgrade.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obstacle {
    /// What it is.
    pub kind: Hurdle,
    /// Whom it stops.
    pub stops: Stops,
    /// In words.
    pub text: String,
}

words! {
    /// What can stand before a start.
    Hurdle {
        /// Another upgrade is under way, or nothing serves that could be upgraded.
        Busy = "busy",
        /// An operator holds upgrades.
        Hold = "hold",
        /// The disk is too full.
        Room = "room",
        /// Upgrades are begun by an operator only.
        Manual = "manual",
        /// The release failed here and is tried again later.
        Retry = "retry",
        /// The supervisor begins nothing by itself at this time.
        Time = "time",
    }
}

words! {
    /// Whom it stops.
    Stops {
        /// An operator, too.
        Everybody = "everybody",
        /// The supervisor alone: `bumpless upgrade` begins all the same.
        Supervisor = "supervisor",
    }
}

/// One release of the index or of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Considered {
    /// Its name.
    pub release: Version,
    /// Who offers it; left out by supervisors that knew feeds alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Whether it is where an upgrade would go.
    pub chosen: bool,
    /// This machine's place in its rollout, 0 to 999; 0 for a package, which has none.
    pub bucket: u16,
    /// From when on this machine may take it by itself; `None` where no stage reaches it.
    pub eligible_at: Option<Unix>,
    /// Why it is not chosen; `None` where it is.
    pub why_not: Option<String>,
}
