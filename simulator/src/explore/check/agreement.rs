//! Views converge to equality: every member knows every member, where it is, in the same
//! incarnation, with the same meta, and suspects nobody; and it knows nobody else as a member.
//!
//! Unlike the other invariants this one may be broken on the way; it must hold in the end.

use memberlist_protocol::NodeState;

use crate::world::{Watch, World};

/// What keeps the members from agreeing, if they do not.
pub fn disagreement<W: Watch>(world: &World<W>) -> Option<String> {
    let members: Vec<_> = (world.processes().iter())
        .filter(|process| process.is_member())
        .filter_map(|process| Some((process, process.machine()?.own())))
        .collect();
    for (process, _) in &members {
        let machine = process.machine()?;
        for (other, own) in &members {
            let Some(seen) = machine.member(other.name.as_str()) else {
                return Some(format!("n{} does not know n{}", process.id, other.id));
            };
            let equal = seen.incarnation == own.incarnation && seen.node == own.node;
            if seen.state != NodeState::Alive || !equal {
                return Some(format!(
                    "n{} takes n{} for {} in incarnation {} at {}; it is in {} at {}",
                    process.id,
                    other.id,
                    seen.state,
                    seen.incarnation,
                    seen.addr(),
                    own.incarnation,
                    own.addr()
                ));
            }
        }
        if machine.live_members() != members.len() {
            let stranger = machine.members().find(|member| {
                member.state.is_live() && !members.iter().any(|(_, own)| own.id() == member.id())
            });
            let name = stranger.map(|member| member.id().to_string()).unwrap_or_default();
            return Some(format!("n{} takes {name} for a member", process.id));
        }
    }
    None
}
