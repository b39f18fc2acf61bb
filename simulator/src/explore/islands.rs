//! Who could find whom: the groups of members of which none knows where another is.
//!
//! Two processes that restarted at new addresses know nobody whom they did not meet since, and are
//! known to nobody: no protocol can find them. An operator lets such a group join again; this finds
//! the groups.

use memberlist_protocol::NodeState;

use super::truth::process_of;
use crate::network::ProcessId;
use crate::world::{Watch, World};

/// The members, grouped by who knows the present address of whom; the largest group first.
pub(crate) fn islands<W: Watch>(world: &World<W>) -> Vec<Vec<ProcessId>> {
    let count = world.processes().len();
    let mut group: Vec<usize> = (0..count).collect();
    for process in world.processes().iter().filter(|process| process.is_member()) {
        let Some(machine) = process.machine() else { continue };
        let records = machine.members().map(|m| (m.state, m.id().clone(), m.addr()));
        let buried = machine.tombstones().map(|t| (t.state, t.node.id.clone(), t.node.addr));
        for (state, name, addr) in records.chain(buried) {
            let Some(other) = process_of(&name) else { continue };
            let known = world.process(other);
            // Nobody looks for who has left.
            if state != NodeState::Left && known.is_member() && known.addr == addr {
                let (a, b) = (root(&group, process.id as usize), root(&group, other as usize));
                group[a.max(b)] = a.min(b);
            }
        }
    }
    let mut islands: Vec<Vec<ProcessId>> = vec![Vec::new(); count];
    for process in world.processes().iter().filter(|process| process.is_member()) {
        islands[root(&group, process.id as usize)].push(process.id);
    }
    islands.retain(|island| !island.is_empty());
    islands.sort_by_key(|island| std::cmp::Reverse(island.len()));
    islands
}

fn root(group: &[usize], mut of: usize) -> usize {
    while group[of] != of {
        of = group[of];
    }
    of
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use memberlist_protocol::Config;

    use super::*;
    use crate::network::{LinkModel, Network};

    #[test]
    fn a_process_that_moved_is_an_island_until_it_joins() {
        let network = Network::new(LinkModel::perfect(Duration::from_millis(1)));
        let mut world = World::new(1, network, ());
        world.add_cluster(4, &Config::lan());
        assert_eq!(islands(&world).len(), 1);
        world.restart(2, true);
        assert_eq!(islands(&world), [vec![0, 1, 3], vec![2]]);
        world.join(2, 0);
        world.run_for(Duration::from_secs(1));
        assert_eq!(islands(&world).len(), 1);
        // The same address is enough to be found.
        world.restart(1, false);
        assert_eq!(islands(&world).len(), 1);
    }
}
