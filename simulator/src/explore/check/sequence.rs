//! The events of a machine form a legal sequence, and what they add up to is its table.

use memberlist_protocol::{Event, NodeState};

use super::{Check, Scene, Verdict};
use crate::explore::truth::{Truth, member_of};
use crate::network::ProcessId;
use crate::process::Process;

pub(crate) struct Sequence;

impl Check for Sequence {
    fn name(&self) -> &'static str {
        "sequence"
    }

    fn happened(&mut self, scene: &Scene<'_>, process: &Process, event: &Event) -> Verdict {
        use NodeState::{Alive, Dead, Left, Suspect};
        let subject = match (member_of(event), event) {
            (Some(member), _) => member.id(),
            (None, Event::Reaped(name)) => name,
            _ => return Ok(()),
        };
        let Some(about) = scene.truth.process_of(subject) else {
            return Err(format!("n{} heard of {subject}, which does not exist", process.id));
        };
        let before = scene.truth.belief(process.id, about).and_then(|belief| belief.state);
        let after = member_of(event).map(|member| member.state);
        let legal = match event {
            Event::Joined(_) => matches!(before, None | Some(Dead | Left)) && after == Some(Alive),
            Event::Gone(member) => {
                matches!(before, Some(Alive | Suspect))
                    && matches!(after, Some(Dead | Left))
                    && member.death.as_ref().is_some_and(|d| d.left == (after == Some(Left)))
            }
            Event::Suspected(_) => before == Some(Alive) && after == Some(Suspect),
            Event::Cleared(_) => before == Some(Suspect) && after == Some(Alive),
            Event::Updated(_) | Event::Renewed(_) => {
                before.is_some_and(NodeState::is_live) && after == Some(Alive)
            }
            Event::Reaped(_) => before.is_some_and(NodeState::is_gone),
            _ => true,
        };
        if legal {
            return Ok(());
        }
        let kind = kind_of(event);
        Err(format!("n{} tells {kind} of {subject} ({before:?} -> {after:?})", process.id))
    }
}

/// Whether the table says of these what the events added up to.
pub(crate) fn table_matches(truth: &Truth, process: &Process, about: &[ProcessId]) -> Verdict {
    let Some(machine) = process.machine() else { return Ok(()) };
    for &about in about {
        let told = truth.belief(process.id, about).filter(|belief| belief.state.is_some());
        let known = machine.member(&format!("n{about}"));
        let told = told.map(|belief| (belief.state, belief.incarnation, belief.addr));
        let known = known.map(|member| (Some(member.state), member.incarnation, member.addr()));
        // A suspicion at a higher incarnation, a refutation of one's own and an update to the same
        // meta raise the incarnation without an event of their own about the member.
        let own = about == process.id;
        let equal = match (told, known) {
            (Some(told), Some(known)) => {
                told.0 == known.0 && told.2 == known.2 && (own || told.1 == known.1)
            }
            (None, None) => true,
            _ => false,
        };
        if !equal {
            return Err(format!(
                "n{} told {told:?} of n{about}, and its table says {known:?}",
                process.id
            ));
        }
    }
    Ok(())
}

fn kind_of(event: &Event) -> &'static str {
    match event {
        Event::Joined(_) => "a join",
        Event::Gone(_) => "a departure",
        Event::Suspected(_) => "a suspicion",
        Event::Cleared(_) => "the end of a suspicion",
        Event::Updated(_) => "an update",
        Event::Renewed(_) => "a renewal",
        Event::Reaped(_) => "the reaping",
        _ => "something",
    }
}
