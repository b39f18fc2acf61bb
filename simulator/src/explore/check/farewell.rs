//! Who left stays left, until it says something newer or its name is legally taken over.

use memberlist_protocol::{Event, NodeState};

use super::{Check, Scene, Verdict};
use crate::process::Process;

pub(crate) struct Farewell;

impl Check for Farewell {
    fn name(&self) -> &'static str {
        "farewell"
    }

    fn happened(&mut self, scene: &Scene<'_>, process: &Process, event: &Event) -> Verdict {
        let Event::Joined(member) = event else { return Ok(()) };
        let known =
            (scene.truth.process_of(member.id())).and_then(|id| scene.truth.belief(process.id, id));
        let left = known.filter(|known| known.state == Some(NodeState::Left));
        match left {
            Some(left) if member.incarnation <= left.incarnation => Err(format!(
                "n{} takes {} back at incarnation {}; it left at {}",
                process.id,
                member.id(),
                member.incarnation,
                left.incarnation
            )),
            _ => Ok(()),
        }
    }
}
