//! What is answered.
//!
//! ```json
//! {"schema":1,"progress":{"phase":"syncing","from":"1.0.0","to":"1.1.0","done":1,"total":2,"deadline":null,"text":"…"}}
//! {"schema":1,"outcome":{"result":"done","answer":{"upgraded":{"from":"1.0.0","to":"1.1.0","gap_ms":0.8}}}}
//! ```

use bumpless_shared::release::Version;
use serde::{Deserialize, Serialize};

use crate::Unix;
use crate::dry_run::DryRun;
use crate::history::Entry;
use crate::schema::Schema;
use crate::status::{Phase, Status};
use crate::trust::{RootShown, Trust};

/// One line of a reply: first any number of `Progress`, then one `Outcome`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It goes on.
    Progress(Progress),
    /// It ended; nothing follows.
    Outcome(Outcome),
}

/// Where an upgrade stands. Lines are left out where the reader is slow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What it is in.
    pub phase: Phase,
    /// The release that served when it began; `None` at the very first start.
    pub from: Option<Version>,
    /// The release that it goes to.
    pub to: Version,
    /// Bytes done in this phase, where it counts bytes.
    pub done: Option<u64>,
    /// Bytes to do in this phase, where known.
    pub total: Option<u64>,
    /// When the phase is given up.
    pub deadline: Option<Unix>,
    /// In words, where there is more to say than the phase says.
    pub text: Option<String>,
    /// Which of the three hand-overs of a rehearsal it is about; left out where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<u8>,
    /// Bytes per second in the last few seconds; left out where it is too early to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// Seconds that the rest of the phase takes at that rate; left out where nobody can say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    /// As asked.
    Done {
        /// What there is to say.
        answer: Answer,
    },
    /// Not begun: not allowed, held, another upgrade under way, not possible.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
    /// It is already as asked.
    NothingToDo {
        /// Which way.
        reason: String,
    },
    /// It was begun and could not be done; what served before serves on.
    Failed {
        /// What failed, what still works, what to do.
        reason: String,
    },
    /// The upgrade went past the cut, and back: the release before serves again.
    RolledBack {
        /// What serves again.
        from: Version,
        /// What failed.
        to: Version,
        /// Milliseconds in which nothing was served on the way back.
        gap_ms: Option<f64>,
        /// Why.
        reason: String,
    },
}

/// What a request that was done says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To `status`.
    Status(Box<Status>),
    /// To `check`.
    Checked(Checked),
    /// To `upgrade`, `upgrade_from` and `rollback` without waiting.
    Started(Move),
    /// To `upgrade` and `upgrade_from`, and to `rollback` after a commit: committed.
    Upgraded(Move),
    /// To `dry_run`.
    DryRun(Box<DryRun>),
    /// To `rollback` in probation: the release before serves again.
    WentBack(Move),
    /// To `hold`.
    Held {
        /// As given.
        reason: String,
    },
    /// To `unhold`.
    Unheld,
    /// To `history`, oldest first.
    History(Vec<Entry>),
    /// To `versions`, newest first.
    Versions(Vec<Listed>),
    /// To `trust`.
    Trust(Box<Trust>),
    /// To `trust_reset`: the root that stands now.
    TrustReset(RootShown),
}

/// What a look at the feed found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// The release that would be chosen now.
    pub found: Option<Version>,
    /// In words: what was found, or why nothing is chosen.
    pub text: String,
}

/// From one release to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Move {
    /// What served before; `None` at the very first start.
    pub from: Option<Version>,
    /// Where it goes or went.
    pub to: Version,
    /// Milliseconds in which nothing was served; `None` before it happened and where nothing could be.
    pub gap_ms: Option<f64>,
}

/// A release that is installed here or offered by the feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its name.
    pub release: Version,
    /// Of the bytes that run, 64 hexadecimal digits.
    pub sha256: bumpless_shared::digest::Digest,
    /// Whether it serves now.
    pub serving: bool,
    /// Whether it is installed.
    pub installed: bool,
    /// Whether the feed offers it.
    pub offered: bool,
    /// Whether a package of the system declares it; left out where none does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub packaged: bool,
    /// Why it is not chosen; `None` where it serves or could be chosen.
    pub why_not: Option<String>,
}

/// Exit code of `bumpless` for a wrong command line.
pub const EXIT_USAGE: u8 = 2;

/// Exit code of `bumpless` where no supervisor answers.
pub const EXIT_NO_SUPERVISOR: u8 = 7;

impl Outcome {
    /// Exit code of `bumpless`; frozen.
    pub fn exit_code(&self) -> u8 {
        match self {
            Outcome::Done { .. } => 0,
            Outcome::Refused { .. } => 3,
            Outcome::NothingToDo { .. } => 4,
            Outcome::Failed { .. } => 5,
            Outcome::RolledBack { .. } => 6,
        }
    }

    /// The outcome as an object of its own, as `bumpless --json` prints it: `status`, `history` and
    /// `versions` give what was asked for, everything else gives `result` and what belongs to it.
    pub fn object(&self) -> serde_json::Value {
        let mut object = serde_json::Map::new();
        object.insert("schema".into(), crate::schema::SCHEMA.into());
        match self {
            Outcome::Done { answer: Answer::Status(status) } => return json(status),
            Outcome::Done { answer: Answer::History(entries) } => {
                object.insert("history".into(), json(entries));
            }
            Outcome::Done { answer: Answer::Versions(versions) } => {
                object.insert("versions".into(), json(versions));
            }
            Outcome::Done { answer } => {
                object.insert("result".into(), "done".into());
                match json(answer) {
                    serde_json::Value::Object(fields) => object.extend(fields),
                    word => {
                        object.insert("answer".into(), word);
                    }
                }
            }
            Outcome::Refused { .. }
            | Outcome::NothingToDo { .. }
            | Outcome::Failed { .. }
            | Outcome::RolledBack { .. } => {
                if let serde_json::Value::Object(fields) = json(self) {
                    object.extend(fields);
                }
            }
        }
        object.into()
    }
}

fn json(value: &impl Serialize) -> serde_json::Value {
    // All our keys are strings, so this cannot fail; a null would be seen by the golden tests.
    serde_json::to_value(value).unwrap_or_default()
}

#[derive(Serialize, Deserialize)]
struct Line<T> {
    schema: Schema,
    #[serde(flatten)]
    reply: T,
}

impl Reply {
    /// Its line, without the end of line.
    pub fn line(&self) -> String {
        serde_json::to_string(&Line { schema: Schema, reply: self }).unwrap_or_default()
    }

    /// Reads a line.
    ///
    /// # Errors
    /// Not JSON, another schema, an outcome that this build does not know.
    pub fn parse(line: &[u8]) -> Result<Reply, serde_json::Error> {
        serde_json::from_slice::<Line<Reply>>(line).map(|line| line.reply)
    }
}
