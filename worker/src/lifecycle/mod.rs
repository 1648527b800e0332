//! What a worker is and what it may do next: one pure step per order or event, nothing else decides.
//!
//! ```text
//!  Born ─Start▶ Opening ─opened▶ Ready ─Go▶ Standby            Ready ─Go▶ Holding
//!                                             │ Yield of the prepared term      │
//!                                             ▼                                 │
//!   Ended ◀── Draining ◀─Drain── Frozen ◀─── Holding ◀──────────────────────────┘
//!                      (retired or │  ▲ Cut     ▲
//!                        for good) │  │         │
//!                                  └──┼─────────┘ Resume, once the peer's death is certain;
//!                                     │           or a Yield of a term that it prepared for
//! ```
//!
//! **Good path.** The holder is paired with a candidate, feeds it, gets `Cut`, waits for a moment,
//! yields and is frozen; the candidate prepared the term, takes it and holds. The frozen one relays
//! and watches until it is retired, drained and gone.
//!
//! **Who holds.** A worker comes to hold in exactly four ways: `Go` to one that was started to hold;
//! the `Yield` of the very term that it prepared; `Resume` by order; `Resume` by itself. The last two
//! need the peer's death, and death is an event of our own pidfd, never somebody's word. A worker
//! stops holding in one way: it sends `Yield`. So two can never hold, whatever is ordered, and a
//! test with random orders, kills and reorderings tries to show the opposite.
//!
//! **Terms.** An order that carries a term below the highest one seen is refused. A worker that was
//! frozen without a term to resume with (the way back) never holds again; a retired one only by order.
//!
//! **The supervisor is gone.** Who was not yet let in, or waits for its first term, exits. Everybody
//! else serves on and reconnects. Only a frozen worker may then act alone: it kills a silent holder
//! and resumes with the term that was reserved for it, unless it is retired.
//!
//! **Asked twice.** An order that was carried out is answered again and does nothing again.
//!
//! - [`state`]: the states. - [`input`]: what goes in and what comes out.
//! - [`orders`], [`events`]: every pair of input and state, written out.

pub mod events;
pub mod input;
#[cfg(test)]
mod model;
pub mod orders;
pub mod state;

use bumpless_shared::control::{Command, Incarnation, Order, Role, Term};

pub use input::{Action, Event, Peer};
pub use state::{Books, Cut, Fate, Frozen, Holding, Oath, Pairing, Standby, State, Taken, Unsent};

/// The channel to the supervisor, as far as decisions depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Control {
    /// Orders come and are obeyed.
    Open,
    /// Closed; nobody decides but the worker.
    Closed,
    /// A new supervisor was told who we are; nothing but its `Go` is obeyed.
    Introduced,
}

/// A worker's life so far.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Life {
    state: State,
    control: Control,
    incarnation: Option<Incarnation>,
    /// The highest term seen in anything of authority.
    seen: Term,
}

impl Default for Life {
    fn default() -> Self {
        Life { state: State::Born, control: Control::Open, incarnation: None, seen: 0 }
    }
}

impl Life {
    /// What it is now.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The incarnation whose orders count.
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation
    }

    /// What it is, in a new supervisor's words; `None` for one that would not come back to it.
    pub fn role(&self) -> Option<Role> {
        match &self.state {
            State::Holding(holding) => Some(Role::Holding { term: holding.term }),
            State::Frozen(Frozen { term, oath: Oath::Retired, .. }) => Some(Role::Retired { term: *term }),
            State::Frozen(frozen) => Some(Role::Frozen { term: frozen.term, resume: frozen.resume }),
            State::Draining { .. } => Some(Role::Draining),
            State::Born | State::Opening { .. } | State::Ready { .. } | State::Standby(_) | State::Ended => {
                None
            }
        }
    }

    /// An order arrived.
    ///
    /// The first order, or the first after a reconnection, says whose orders count from then on; a
    /// supervisor older than one already obeyed is ignored, and so is all but `Go` from a new one.
    pub fn order(mut self, order: Order) -> (Life, Vec<Action>) {
        match (self.control, self.incarnation) {
            (Control::Closed, _) => return (self, Vec::new()),
            (Control::Introduced, Some(known)) if order.incarnation < known => return (self, Vec::new()),
            (Control::Introduced, _) => match order.command {
                Command::Go { .. } => {
                    self.control = Control::Open;
                    self.incarnation = Some(order.incarnation);
                }
                _ => return (self, Vec::new()),
            },
            (Control::Open, Some(known)) if order.incarnation != known => return (self, Vec::new()),
            (Control::Open, _) => self.incarnation = Some(order.incarnation),
        }
        self.obey(order.command)
    }

    fn see(&mut self, term: Term) {
        self.seen = self.seen.max(term);
    }
}
