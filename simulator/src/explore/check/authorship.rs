//! Nobody but the node itself raises its incarnation or says its farewell.

use memberlist_protocol::{Event, NodeState};

use super::{Check, Scene, Verdict};
use crate::explore::truth::member_of;
use crate::process::Process;

pub(crate) struct Authorship;

impl Check for Authorship {
    fn name(&self) -> &'static str {
        "authorship"
    }

    fn happened(&mut self, scene: &Scene<'_>, process: &Process, event: &Event) -> Verdict {
        let Some(member) = member_of(event) else { return Ok(()) };
        let about = scene.truth.process_of(member.id()).filter(|about| *about != process.id);
        let Some(about) = about else { return Ok(()) };
        let subject = scene.truth.subject(about);
        if member.incarnation > subject.highest_incarnation {
            return Err(format!(
                "n{} believes n{about} at incarnation {}, which itself never went above {}",
                process.id, member.incarnation, subject.highest_incarnation
            ));
        }
        if member.state == NodeState::Left && !subject.farewells.contains(&member.incarnation) {
            return Err(format!(
                "n{} believes that n{about} left at incarnation {}; it left at {:?}",
                process.id, member.incarnation, subject.farewells
            ));
        }
        Ok(())
    }
}
