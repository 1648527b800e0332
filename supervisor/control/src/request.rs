//! What can be asked.
//!
//! ```json
//! {"schema":1,"verb":"upgrade","version":"1.1.0","wait":true}
//! ```

use std::fmt;

use bumpless_shared::release::Version;
use serde::{Deserialize, Serialize};

use crate::schema::Schema;

/// One request; each connection carries one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How is the node? Answered by [`Answer::Status`](crate::reply::Answer::Status).
    Status,
    /// Look at the feed now instead of at the next check.
    Check,
    /// Go to a release.
    Upgrade {
        /// `None`: the newest that may run here.
        version: Option<Version>,
        /// Whether the outcome comes at the end, with progress before it, or at once.
        wait: bool,
        /// Whether it is rehearsed before the real probation, even if that is not configured.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        rehearse: bool,
    },
    /// What would `Upgrade` do, or `UpgradeFrom` with that folder? Nothing is changed, and the feed is not asked.
    DryRun {
        /// As in `Upgrade`.
        version: Option<Version>,
        /// As in `UpgradeFrom`; what is verified in it is kept nowhere.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        folder: Option<String>,
    },
    /// Go to a release with a folder, a stick for instance, as the feed for this one upgrade.
    UpgradeFrom {
        /// Its absolute path, as the supervisor sees it.
        folder: String,
        /// As in `Upgrade`.
        version: Option<Version>,
        /// As in `Upgrade`.
        wait: bool,
        /// As in `Upgrade`.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        rehearse: bool,
        /// Why what has expired is accepted this once; left out, it is not. For root alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        accept_stale: Option<String>,
    },
    /// What does this machine believe, and on whose word?
    Trust,
    /// Forget everything that was verified and begin anew with another root. For root alone.
    TrustReset {
        /// The root file's absolute path, as the supervisor sees it; its `.sigs` lie beside it.
        root: String,
    },
    /// In probation: back to the release before, at once. Otherwise: upgrade to the previous release.
    Rollback {
        /// As in `Upgrade`.
        wait: bool,
    },
    /// Start no upgrade until `Unhold`.
    Hold {
        /// For the person who finds it held.
        reason: String,
    },
    /// The opposite of `Hold`.
    Unhold,
    /// The newest things that happened, oldest first.
    History {
        /// At most so many.
        limit: u32,
    },
    /// Releases that are installed here or offered by the feed.
    Versions,
}

/// Who may ask it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Every local user.
    Everybody,
    /// Root, the supervisor's own user where that is not root, members of the group `bumpless`.
    Operators,
    /// Root.
    Root,
}

impl Request {
    /// Who may ask it.
    pub fn access(&self) -> Access {
        match self {
            Request::Status
            | Request::History { .. }
            | Request::Versions
            | Request::DryRun { folder: None, .. }
            | Request::Trust => Access::Everybody,
            Request::UpgradeFrom { accept_stale: Some(_), .. } | Request::TrustReset { .. } => Access::Root,
            // It has the supervisor read files of the asker's choice.
            Request::DryRun { folder: Some(_), .. }
            | Request::Check
            | Request::Upgrade { .. }
            | Request::UpgradeFrom { accept_stale: None, .. }
            | Request::Rollback { .. }
            | Request::Hold { .. }
            | Request::Unhold => Access::Operators,
        }
    }

    /// What to type, as far as it is always the same.
    pub fn words(&self) -> &'static str {
        match self {
            Request::UpgradeFrom { accept_stale: None, .. } => "upgrade --from",
            Request::UpgradeFrom { accept_stale: Some(_), .. } => "upgrade --accept-stale",
            Request::Trust => "trust show",
            Request::TrustReset { .. } => "trust reset",
            Request::DryRun { .. } => "upgrade --dry-run",
            Request::Status
            | Request::Check
            | Request::Upgrade { .. }
            | Request::Rollback { .. }
            | Request::Hold { .. }
            | Request::Unhold
            | Request::History { .. }
            | Request::Versions => self.verb(),
        }
    }

    /// The verb, as in JSON.
    pub fn verb(&self) -> &'static str {
        match self {
            Request::Status => "status",
            Request::Check => "check",
            Request::Upgrade { .. } => "upgrade",
            Request::DryRun { .. } => "dry_run",
            Request::UpgradeFrom { .. } => "upgrade_from",
            Request::Trust => "trust",
            Request::TrustReset { .. } => "trust_reset",
            Request::Rollback { .. } => "rollback",
            Request::Hold { .. } => "hold",
            Request::Unhold => "unhold",
            Request::History { .. } => "history",
            Request::Versions => "versions",
        }
    }

    /// Its line, without the end of line.
    pub fn line(&self) -> String {
        let envelope = Sent { schema: Schema, request: self };
        // Strings and numbers under fixed keys: there is nothing in a request that JSON cannot say.
        serde_json::to_string(&envelope).unwrap_or_default()
    }

    /// Reads a line.
    ///
    /// # Errors
    /// Not JSON, another schema, an unknown verb or field.
    pub fn parse(line: &[u8]) -> Result<Request, NotARequest> {
        let not = |error: serde_json::Error| NotARequest(error.to_string());
        let mut object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(line).map_err(not)?;
        let schema = object.remove("schema").unwrap_or_default();
        serde_json::from_value::<Schema>(schema).map_err(not)?;
        serde_json::from_value(object.into()).map_err(not)
    }
}

#[derive(Serialize)]
struct Sent<'a> {
    schema: Schema,
    #[serde(flatten)]
    request: &'a Request,
}

/// The line is not a request of this schema; the text says what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotARequest(String);

impl fmt::Display for NotARequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a request that this supervisor knows: {}; nothing was changed", self.0)
    }
}

impl std::error::Error for NotARequest {}
