//! A case: a step, what goes wrong in it, and what the operator does beside it.

use std::fmt;

use super::fault::Fault;
use super::step::Step;

/// What the operator does at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Nothing.
    Nothing,
    /// Asks for a way back.
    Rollback,
    /// Asks for an upgrade to yet another release.
    Upgrade,
}

/// One case of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Its number, from 0.
    pub number: usize,
    /// Where it strikes.
    pub step: Step,
    /// What goes wrong.
    pub fault: Fault,
    /// What the operator does.
    pub beside: Beside,
}

impl Beside {
    /// All there are.
    pub const ALL: [Beside; 3] = [Beside::Nothing, Beside::Rollback, Beside::Upgrade];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Beside::Nothing => "nothing",
            Beside::Rollback => "rollback",
            Beside::Upgrade => "another upgrade",
        }
    }
}

impl Case {
    /// The whole matrix, in order.
    pub fn all() -> Vec<Case> {
        let mut all = Vec::new();
        for step in Step::ALL {
            for fault in Fault::ALL.into_iter().filter(|fault| fault.strikes_in(step)) {
                for beside in
                    Beside::ALL.into_iter().filter(|it| *it == Beside::Nothing || fault.with_operator())
                {
                    all.push(Case { number: all.len(), step, fault, beside });
                }
            }
        }
        all
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>4}  {:<24} {:<46}", self.number, self.step.name(), self.fault.name())?;
        match self.beside {
            Beside::Nothing => Ok(()),
            Beside::Rollback | Beside::Upgrade => write!(f, " operator: {}", self.beside.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_meets_every_fault_that_it_can_and_each_case_has_its_number() {
        let all = Case::all();
        assert!(all.iter().enumerate().all(|(number, case)| case.number == number));
        for step in Step::ALL {
            for fault in Fault::ALL {
                let there = all.iter().filter(|case| case.step == step && case.fault == fault).count();
                let operator = if fault.with_operator() { 3 } else { 1 };
                assert_eq!(there, if fault.strikes_in(step) { operator } else { 0 });
            }
        }
    }
}
