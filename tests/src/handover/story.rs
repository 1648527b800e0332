//! An upgrade as the supervisor tells it, with what the clients had counted at each turn.

use std::time::Instant;

use bumpless_control::reply::Outcome;
use bumpless_control::request::Request;
use bumpless_control::status::Phase;
use bumpless_shared::release::Release;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::control::{AskError, Control};
use crate::world::Result;

/// The beginning of a phase.
#[derive(Clone, Debug)]
pub struct Step {
    /// Which.
    pub phase: Phase,
    /// When the supervisor said so.
    pub at: Instant,
}

/// An upgrade that goes on.
pub struct Story {
    steps: mpsc::UnboundedReceiver<Step>,
    asked: JoinHandle<std::result::Result<Outcome, AskError>>,
}

impl Story {
    /// Asks for the upgrade.
    pub fn begin(control: Control, release: &Release) -> Story {
        let (sender, steps) = mpsc::unbounded_channel();
        let request =
            Request::Upgrade { version: Some(release.version.clone()), wait: true, rehearse: false };
        let asked = tokio::spawn(async move {
            let mut last = None;
            let told = |at, progress: bumpless_control::reply::Progress| {
                if last.as_ref() != Some(&progress.phase) {
                    last = Some(progress.phase.clone());
                    // Nobody may be listening any more.
                    let _ = sender.send(Step { phase: progress.phase, at });
                }
            };
            control.ask(&request, told).await
        });
        Story { steps, asked }
    }

    /// Waits for the next phase; `None` once the outcome is there.
    pub async fn next(&mut self) -> Option<Step> {
        self.steps.recv().await
    }

    /// Waits for this phase, and passes over those before it.
    ///
    /// # Errors
    /// The upgrade ended without it; the outcome in words.
    pub async fn until(&mut self, phase: Phase) -> Result<Step> {
        while let Some(step) = self.next().await {
            if step.phase == phase {
                return Ok(step);
            }
        }
        let outcome = (&mut self.asked).await??;
        Err(format!("the upgrade ended before {}: {outcome:?}", phase.as_str()).into())
    }

    /// Waits for the end; `None` where the supervisor went away without an answer. To be asked once.
    pub async fn ended(&mut self) -> Option<Outcome> {
        (&mut self.asked).await.ok()?.ok()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The supervisor went away.
    pub async fn outcome(self) -> Result<Outcome> {
        Ok(self.asked.await??)
    }
}
