//! Who crashed or left is removed from every view within the bound.

use super::{Check, Scene, Verdict};
use crate::process::Process;

pub(crate) struct Removal;

impl Check for Removal {
    fn name(&self) -> &'static str {
        "removal"
    }

    fn stepped(&mut self, scene: &Scene<'_>, process: &Process) -> Verdict {
        let Some(calm) = scene.calm else { return Ok(()) };
        if !scene.truth.subject(process.id).is_member() {
            return Ok(());
        }
        for (about, subject) in scene.truth.subjects() {
            let gone = !subject.up || subject.left;
            let since = subject.since.max(calm.since);
            if gone && scene.at - since > calm.removal && scene.truth.sees(process.id, about) {
                return Err(format!(
                    "n{} still takes n{about} for a member, {:.1} s after it went",
                    process.id,
                    (scene.at - since).as_secs_f64()
                ));
            }
        }
        Ok(())
    }
}
