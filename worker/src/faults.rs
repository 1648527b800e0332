//! What can be made to go wrong in a release, so that a test can see that nothing is lost by it.
//!
//! A plan is part of a release's stamp ([`crate::stamp`]): a faulty release is a release like any
//! other, signed, installed and watched. There is no other switch, and a release without a plan runs
//! through the same points and finds nothing to do.
//!
//! | field | what happens | where it is asked |
//! |---|---|---|
//! | `at_start` | the process ends, or never greets | [`Faults::at_start`] |
//! | `contract` | the greeting names this range of versions, whatever the description says | [`crate::stamp::Stamp::greets`] |
//! | `sync` | the snapshot is not read any further | [`Faults::at_sync`] |
//! | `after_cut` | the process ends, or stops for good, so long after it took over | [`Faults::at_cut`] |
//! | `answers` | gets are answered with altered content, or refused, after it took over | [`Faults::at_answer`] |
//! | `keeps` | writes are acknowledged and not stored, after it took over | [`Faults::at_write`] |
//! | `at` | at one step of the hand-over: it stops, ends, waits, or does something bad | [`Script`] |
//! | `lever` | the same at any step, whenever a harness wants it | [`lever`] |

mod gate;
mod harm;
pub mod lever;
mod plan;
mod script;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bumpless_shared::version::Range;
use nix::sys::signal::{Signal, raise};
use serde::{Deserialize, Serialize};

pub use harm::{Files, Harm};
pub use plan::{Deed, Does, Flood, Place, Planned, Role, Step, Wire};
pub use script::{GARBAGE, Script};

use crate::state::{Content, append_id};
use crate::wire::{Answer, Ask};

/// A plan; the default is that nothing goes wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// Before the greeting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_start: Option<AtStart>,
    /// While it takes in the snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync: Option<InSync>,
    /// After it took over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_cut: Option<AfterCut>,
    /// In what it answers after it took over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answers: Option<Answers>,
    /// What the greeting says, whatever the description says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contract: Option<Range>,
    /// What becomes of what it acknowledges after it took over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keeps: Option<Keeps>,
    /// What it does at which step; each once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub at: Vec<Planned>,
    /// The socket of a harness that holds it where it likes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lever: Option<PathBuf>,
}

/// What becomes of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keeps {
    /// They are acknowledged and stored nowhere.
    Nothing,
}

/// Before the greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AtStart {
    /// The process ends with a message.
    Die,
    /// It waits for ever.
    Hang,
}

/// While it takes in the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InSync {
    /// Nothing more is read after the first part.
    Stall,
}

/// After it took over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterCut {
    /// The process ends with a message after so many milliseconds.
    Die(u64),
    /// The process stops itself after so many milliseconds.
    Hang(u64),
}

/// In what it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answers {
    /// One bit of every content is another.
    Wrong,
    /// Every get is refused.
    Refuse,
}

impl Faults {
    /// The same plan, and at this step that.
    pub fn at(self, step: Step, place: Place, does: Does) -> Faults {
        self.at_as(Role::Any, step, place, does)
    }

    /// The same for a worker in this role alone.
    pub fn at_as(mut self, role: Role, step: Step, place: Place, does: Does) -> Faults {
        self.at.push(Planned { step, place, role, does });
        self
    }

    /// First thing in the process.
    pub fn at_start(&self) {
        match self.at_start {
            None => {}
            Some(AtStart::Die) => die("this release was made to die at its start"),
            Some(AtStart::Hang) => loop {
                std::thread::park();
            },
        }
    }

    /// Between two parts of the snapshot.
    pub async fn at_sync(&self) {
        match self.sync {
            None => {}
            Some(InSync::Stall) => std::future::pending().await,
        }
    }

    /// The moment it took over from another worker.
    pub fn at_cut(&self) {
        let (after, hang) = match self.after_cut {
            None => return,
            Some(AfterCut::Die(after)) => (after, false),
            Some(AfterCut::Hang(after)) => (after, true),
        };
        // A thread of its own: a fault is not delayed by what the runtime is busy with.
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(after));
            if !hang {
                die(&format!("this release was made to die {after} ms after it took over"));
            }
            stop();
        });
    }

    /// Before a write is carried out by a worker that took over; the answer, if it is not to be.
    pub fn at_write(&self, ask: &Ask, content: Option<&Arc<Content>>) -> Option<Answer> {
        match (self.keeps?, ask) {
            (Keeps::Nothing, Ask::Put { .. }) => Some(Answer::Stored { name: content?.name() }),
            (Keeps::Nothing, Ask::Append { log, nonce, content }) => {
                Some(Answer::Appended { id: append_id(log, nonce, content), index: 0 })
            }
            (Keeps::Nothing, Ask::Ping | Ask::Get { .. } | Ask::ReadLog { .. }) => None,
        }
    }

    /// Before an answer to a get leaves a worker that took over.
    pub fn at_answer(&self, answer: Answer) -> Answer {
        match (self.answers, answer) {
            (Some(Answers::Wrong), Answer::Content { mut content }) => {
                match content.first_mut() {
                    Some(byte) => *byte ^= 1,
                    None => content.push(0),
                }
                Answer::Content { content }
            }
            (Some(Answers::Refuse), _) => {
                Answer::Refused { reason: "this release was made to refuse reads".to_owned() }
            }
            (Some(Answers::Wrong) | None, answer) => answer,
        }
    }
}

fn stop() {
    if let Err(error) = raise(Signal::SIGSTOP) {
        die(&format!("this release was made to hang and could not: {error}"));
    }
}

fn die(why: &str) -> ! {
    eprintln!("bumpless-node: {why}");
    std::process::exit(70)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_plan_reads_back_from_its_json_and_an_unknown_fault_is_refused() {
        let plan = Faults { after_cut: Some(AfterCut::Die(2000)), ..Faults::default() };
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(text, r#"{"after_cut":{"die":2000}}"#);
        assert_eq!(serde_json::from_str::<Faults>(&text).unwrap(), plan);
        assert_eq!(serde_json::from_str::<Faults>("{}").unwrap(), Faults::default());
        let plan = Faults::default().at(Step::Take, Place::Before, Does::Do(Deed::Stop)).at_as(
            Role::Old,
            Step::Yield,
            Place::After,
            Does::Later(5, Deed::Harm(Files::Chunks, Harm::Delete)),
        );
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(
            text,
            r#"{"at":[{"step":"take","place":"before","role":"any","does":{"do":"stop"}},"#.to_owned()
                + r#"{"step":"yield","place":"after","role":"old","does":{"later":[5,{"harm":["chunks","delete"]}]}}]}"#
        );
        assert_eq!(serde_json::from_str::<Faults>(&text).unwrap(), plan);
        assert!(serde_json::from_str::<Faults>(r#"{"explode":1}"#).is_err());
    }

    #[test]
    fn wrong_answers_are_wrong_and_no_plan_changes_none() {
        let right = || Answer::Content { content: vec![1, 2] };
        assert_eq!(Faults::default().at_answer(right()), right());
        let wrong = Faults { answers: Some(Answers::Wrong), ..Faults::default() };
        assert_ne!(wrong.at_answer(right()), right());
        assert_eq!(wrong.at_answer(Answer::NotFound), Answer::NotFound);
    }
}
