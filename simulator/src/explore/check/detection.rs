//! A member that crashes in the calm is suspected by somebody within the detection bound.
//!
//! The removal bound is as long as it is since every member may have to find the crash by itself, with
//! the sickest health; this one notices if the cluster as a whole probes less than it should.

use std::collections::BTreeMap;

use memberlist_protocol::NodeState;

use super::{Check, Scene, Verdict};
use crate::explore::bounds;
use crate::explore::truth::Truth;
use crate::network::ProcessId;
use crate::process::Process;
use crate::time::Time;

/// The crashes in the calm that nobody has noticed yet, each with its time and what the sickest
/// member's health was then.
#[derive(Default)]
pub(crate) struct Detection {
    watched: BTreeMap<ProcessId, (Time, Option<u32>)>,
}

impl Check for Detection {
    fn name(&self) -> &'static str {
        "detection"
    }

    fn stepped(&mut self, scene: &Scene<'_>, process: &Process) -> Verdict {
        let Some(calm) = scene.calm.filter(|calm| calm.is_settled(scene.at)) else { return Ok(()) };
        for (about, subject) in scene.truth.subjects() {
            if subject.up || calm.is_untouched(subject) {
                continue;
            }
            let watch = self.watched.entry(about).or_insert((subject.since, None));
            if watch.0 != subject.since {
                *watch = (subject.since, None);
            }
            // Before anybody's probe of it has failed.
            let health = *watch.1.get_or_insert_with(|| sickest(scene.truth));
            let n = members(scene.truth).count() + 1;
            let bound = bounds::detection(process.config(), n, health);
            if bound.is_zero() || scene.at - subject.since <= bound {
                continue;
            }
            let believed = |of| scene.truth.belief(of, about).and_then(|belief| belief.state);
            if n > 1 && members(scene.truth).all(|of| believed(of) == Some(NodeState::Alive)) {
                return Err(format!(
                    "nobody suspects n{about}, {:.1} s after it crashed",
                    (scene.at - subject.since).as_secs_f64()
                ));
            }
        }
        Ok(())
    }
}

fn members(truth: &Truth) -> impl Iterator<Item = ProcessId> {
    truth.subjects().filter(|(_, subject)| subject.is_member()).map(|(id, _)| id)
}

fn sickest(truth: &Truth) -> u32 {
    members(truth).map(|id| truth.subject(id).health).max().unwrap_or(0)
}
