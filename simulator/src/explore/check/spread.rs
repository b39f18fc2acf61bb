//! The death of a member that crashed in the calm is known to half of the members within the spread
//! bound, once the first has declared it.
//!
//! Everybody would find the crash by itself some time; this notices if nobody tells the others.

use std::collections::BTreeMap;

use memberlist_protocol::{Event, NodeState};

use super::{Check, Scene, Verdict};
use crate::explore::bounds;
use crate::network::ProcessId;
use crate::process::Process;
use crate::time::Time;

/// The deaths that are spreading, by whom they are of, and when they were first declared.
#[derive(Default)]
pub(crate) struct Spread {
    declared: BTreeMap<ProcessId, Time>,
}

impl Check for Spread {
    fn name(&self) -> &'static str {
        "spread"
    }

    fn happened(&mut self, scene: &Scene<'_>, process: &Process, event: &Event) -> Verdict {
        let Some(calm) = scene.calm.filter(|calm| calm.is_settled(scene.at)) else { return Ok(()) };
        let Event::Gone(member) = event else { return Ok(()) };
        let Some(about) = scene.truth.process_of(member.id()) else { return Ok(()) };
        let subject = scene.truth.subject(about);
        let crashed = !subject.up && !calm.is_untouched(subject);
        if crashed && member.state == NodeState::Dead && scene.truth.subject(process.id).is_member()
        {
            self.declared.entry(about).or_insert(scene.at);
        }
        Ok(())
    }

    fn stepped(&mut self, scene: &Scene<'_>, process: &Process) -> Verdict {
        let Some(calm) = scene.calm else { return Ok(()) };
        let Some((&about, &first)) = self.declared.iter().next() else { return Ok(()) };
        let subjects = scene.truth.subjects().filter(|(_, subject)| subject.is_member());
        let members: Vec<ProcessId> = subjects.map(|(id, _)| id).collect();
        let names = scene.truth.names();
        let bound = bounds::spread(process.config(), members.len(), names, calm.delay);
        if bound.is_some_and(|bound| scene.at - first <= bound) {
            return Ok(());
        }
        self.declared.remove(&about);
        let knows = |of: &&ProcessId| !scene.truth.sees(**of, about);
        let knowing = members.iter().filter(knows).count();
        if bound.is_none() || scene.truth.subject(about).up || 2 * knowing >= members.len() {
            return Ok(());
        }
        Err(format!(
            "{knowing} of {} members know that n{about} is dead, {:.2} s after the first declared it",
            members.len(),
            (scene.at - first).as_secs_f64()
        ))
    }
}
