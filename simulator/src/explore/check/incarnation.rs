//! Incarnations never go back, nor does the order of states at one incarnation; but where a name is
//! legally taken over by a new process at another address.

use memberlist_protocol::{Event, NodeState};

use super::{Check, Scene, Verdict};
use crate::explore::truth::{Belief, member_of};
use crate::process::Process;

pub(crate) struct Incarnation;

impl Check for Incarnation {
    fn name(&self) -> &'static str {
        "incarnation"
    }

    fn happened(&mut self, scene: &Scene<'_>, process: &Process, event: &Event) -> Verdict {
        let Some(member) = member_of(event) else { return Ok(()) };
        let known =
            (scene.truth.process_of(member.id())).and_then(|id| scene.truth.belief(process.id, id));
        let Some(known) = known else { return Ok(()) };
        let moved = known.addr != member.addr();
        let legal = match (known.state, moved) {
            (_, false) if forgotten(known, scene, process) => true,
            // Who leaves suspects nobody any more.
            (_, false) if has_left(process) && matches!(event, Event::Cleared(_)) => true,
            (_, false) => {
                let before = (known.incarnation, order(known.state.unwrap_or(NodeState::Dead)));
                let after = (member.incarnation, order(member.state));
                before < after || (before == after && known.state.is_some())
            }
            // Nothing is in the way of the new process once the old record was reaped.
            (None, true) => true,
            (Some(NodeState::Left), true) => member.incarnation > known.incarnation,
            (Some(NodeState::Dead), true) => {
                let reclaim = process.config().dead_node_reclaim_time;
                !reclaim.is_zero() && scene.at - known.since > reclaim
            }
            (Some(NodeState::Alive | NodeState::Suspect), true) => false,
        };
        if legal {
            return Ok(());
        }
        Err(format!(
            "n{} believed {} {:?} at {} in incarnation {}, now {} at {} in {}",
            process.id,
            member.id(),
            known.state,
            known.addr,
            known.incarnation,
            member.state,
            member.addr(),
            member.incarnation
        ))
    }
}

/// Whether a new process of that name need not go on from there: there may be no tombstone, or it does
/// not refuse any more; and who comes back from a farewell believes its seed instead.
fn forgotten(known: &Belief, scene: &Scene<'_>, process: &Process) -> bool {
    let config = process.config();
    let returned = scene.truth.subject(process.id).returned;
    known.state.is_none()
        && (returned.is_some_and(|returned| known.since <= returned)
            || config.max_tombstones < scene.truth.names()
            || scene.at - known.since > config.gossip_to_the_dead_time * 10)
}

fn has_left(process: &Process) -> bool {
    process.machine().is_some_and(|machine| machine.has_left())
}

/// At one incarnation dead beats suspect beats alive.
fn order(state: NodeState) -> u8 {
    match state {
        NodeState::Alive => 0,
        NodeState::Suspect => 1,
        NodeState::Dead | NodeState::Left => 2,
    }
}
