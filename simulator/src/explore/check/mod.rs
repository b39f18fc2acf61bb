//! The invariants: one file each, evaluated at every transition of every machine.
//!
//! A checker sees the truth, the beliefs as they were before the transition, and the transition. It
//! says in words what is wrong; the first violation ends the run.

mod agreement;
mod authorship;
mod budget;
mod detection;
mod farewell;
mod incarnation;
mod limits;
#[cfg(test)]
mod planted;
mod quiet;
mod removal;
mod sequence;
mod spread;
mod stays_dead;

use std::net::SocketAddr;
use std::time::Duration;

use memberlist_protocol::Event;

pub use agreement::disagreement;

use super::truth::{Subject, Truth};
use crate::network::ProcessId;
use crate::process::Process;
use crate::time::Time;
use crate::world::Watch;

/// What a checker says: `Err` with the reason.
pub(crate) type Verdict = Result<(), String>;

/// When, and against what, a transition is judged.
pub(crate) struct Scene<'a> {
    pub(crate) at: Time,
    pub(crate) truth: &'a Truth,
    pub(crate) calm: Option<&'a Calm>,
}

/// Since when nothing disturbs, and how long things may take from then on.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Calm {
    /// The last fault ended then.
    pub since: Time,
    /// From then on no view may be wrong about a live member: the calm bound is over, or the views
    /// have agreed before.
    pub settled: Time,
    /// How long a crashed or departed member may still be taken for a live one.
    pub removal: Duration,
    /// The longest that a packet is on its way.
    pub delay: Duration,
}

impl Calm {
    /// Whether the views have settled. From then on only those change who were touched since.
    pub(crate) fn is_settled(&self, at: Time) -> bool {
        at > self.settled
    }

    /// Whether nobody has touched a process since the views settled.
    pub(crate) fn is_untouched(&self, subject: &Subject) -> bool {
        subject.since < self.settled
    }
}

/// One invariant.
pub(crate) trait Check: Send {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// A machine told something; the beliefs are those from before.
    fn happened(&mut self, scene: &Scene<'_>, process: &Process, event: &Event) -> Verdict {
        let _ = (scene, process, event);
        Ok(())
    }

    /// A machine has done what it had to do; the beliefs are those of now.
    fn stepped(&mut self, scene: &Scene<'_>, process: &Process) -> Verdict {
        let _ = (scene, process);
        Ok(())
    }

    /// A packet was sent.
    fn sent(&mut self, scene: &Scene<'_>, process: &Process, bytes: &[u8]) -> Verdict {
        let _ = (scene, process, bytes);
        Ok(())
    }
}

/// A broken invariant.
#[derive(Clone, PartialEq, Debug)]
pub struct Violation {
    /// Which.
    pub check: &'static str,
    /// When.
    pub at: Time,
    /// How.
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {:.3} s: {}", self.check, self.at.as_secs_f64(), self.what)
    }
}

/// All checkers, watching a world.
pub struct Checkers {
    truth: Truth,
    calm: Option<Calm>,
    checks: Vec<Box<dyn Check>>,
    violation: Option<Violation>,
}

impl Default for Checkers {
    fn default() -> Self {
        Self {
            truth: Truth::default(),
            calm: None,
            checks: vec![
                Box::new(sequence::Sequence),
                Box::new(farewell::Farewell),
                Box::new(incarnation::Incarnation),
                Box::new(authorship::Authorship),
                Box::new(limits::Limits),
                Box::new(budget::Budget),
                Box::new(quiet::Quiet),
                Box::new(detection::Detection::default()),
                Box::new(spread::Spread::default()),
                Box::new(stays_dead::StaysDead),
                Box::new(removal::Removal),
            ],
            violation: None,
        }
    }
}

impl Checkers {
    /// What is true and what is believed.
    pub fn truth(&self) -> &Truth {
        &self.truth
    }

    /// The first violation.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Tells that nothing disturbs any more, or that the views have settled.
    pub fn set_calm(&mut self, calm: Calm) {
        self.calm = Some(calm);
    }

    /// Reports a violation that was found from outside.
    pub fn report(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    /// Whether all that a process told adds up to its table.
    pub(crate) fn final_view(&self, process: &Process) -> Verdict {
        let everybody: Vec<ProcessId> = self.truth.subjects().map(|(id, _)| id).collect();
        sequence::table_matches(&self.truth, process, &everybody)
    }

    fn ask(&mut self, at: Time, mut ask: impl FnMut(&mut dyn Check, &Scene<'_>) -> Verdict) {
        if self.violation.is_some() {
            return;
        }
        let scene = Scene { at, truth: &self.truth, calm: self.calm.as_ref() };
        for check in &mut self.checks {
            if let Err(what) = ask(check.as_mut(), &scene) {
                self.violation = Some(Violation { check: check.name(), at, what });
                return;
            }
        }
    }
}

impl Watch for Checkers {
    fn happened(&mut self, at: Time, process: &Process, event: &Event) {
        self.truth.announced(process);
        self.ask(at, |check, scene| check.happened(scene, process, event));
        self.truth.happened(at, process, event);
    }

    fn stepped(&mut self, at: Time, process: &Process) {
        self.truth.announced(process);
        let touched = self.truth.take_touched(process.id);
        if let Err(what) = sequence::table_matches(&self.truth, process, &touched) {
            self.report(Violation { check: "sequence", at, what });
        }
        self.ask(at, |check, scene| check.stepped(scene, process));
    }

    fn sent(&mut self, at: Time, from: &Process, _: SocketAddr, bytes: &[u8]) {
        self.ask(at, |check, scene| check.sent(scene, from, bytes));
    }

    fn changed(&mut self, at: Time, process: &Process) {
        self.truth.changed(at, process);
    }
}
