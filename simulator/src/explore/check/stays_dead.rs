//! No live and reachable member stays dead in anybody's view after the calm bound.

use super::{Check, Scene, Verdict};
use crate::process::Process;

pub(crate) struct StaysDead;

impl Check for StaysDead {
    fn name(&self) -> &'static str {
        "stays-dead"
    }

    fn stepped(&mut self, scene: &Scene<'_>, process: &Process) -> Verdict {
        let Some(calm) = scene.calm.filter(|calm| scene.at > calm.settled) else { return Ok(()) };
        if !scene.truth.subject(process.id).is_member() {
            return Ok(());
        }
        for (about, subject) in scene.truth.subjects() {
            if subject.is_member() && !scene.truth.sees(process.id, about) {
                let belief = scene.truth.belief(process.id, about).and_then(|b| b.state);
                return Err(format!(
                    "n{} takes the live n{about} for {belief:?}, {:.1} s into the calm",
                    process.id,
                    (scene.at - calm.since).as_secs_f64()
                ));
            }
        }
        Ok(())
    }
}
