//! The published view: what the handle's readers see of the members, kept up to date by events.
//!
//! Members stand in the order in which they came; what is sorted by name are their places, so that one
//! more costs little memory and moves little. Invariant: `by_name` has each place once.

use std::sync::Arc;

use memberlist_protocol::Member;

use crate::events::Event;

/// All known members.
#[derive(Debug, Default)]
pub(crate) struct View {
    members: Vec<Member>,
    /// Places in `members`, in the order of the names there.
    by_name: Vec<u32>,
    live: usize,
    /// All of them by name, made when somebody asks.
    list: Option<Arc<[Member]>>,
}

impl View {
    pub(crate) fn get(&self, name: &str) -> Option<&Member> {
        let at = self.rank(name).ok()?;
        Some(&self.members[self.by_name[at] as usize])
    }

    /// How many are alive or suspect.
    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// All by name, gone ones included.
    pub(crate) fn list(&mut self) -> Arc<[Member]> {
        let (members, by_name) = (&self.members, &self.by_name);
        let all = || by_name.iter().map(|&place| members[place as usize].clone()).collect();
        self.list.get_or_insert_with(all).clone()
    }

    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::Joined(member)
            | Event::Left(member)
            | Event::Updated(member)
            | Event::Suspected(member)
            | Event::Cleared(member) => self.put(member.clone()),
            Event::Forgotten(id) => self.remove(id.as_str()),
            Event::Snapshot { .. }
            | Event::Conflict { .. }
            | Event::HealthChanged(_)
            | Event::Refuted { .. } => {}
        }
    }

    /// Raises a member's incarnation.
    pub(crate) fn renew(&mut self, name: &str, incarnation: u32) {
        if let Ok(at) = self.rank(name) {
            self.list = None;
            self.members[self.by_name[at] as usize].incarnation = incarnation;
        }
    }

    fn put(&mut self, member: Member) {
        self.list = None;
        self.live += usize::from(member.state.is_live());
        match self.rank(member.id().as_str()) {
            Ok(at) => {
                let old = &mut self.members[self.by_name[at] as usize];
                self.live -= usize::from(old.state.is_live());
                *old = member;
            }
            Err(at) => {
                self.reserve();
                self.by_name.insert(at, self.members.len() as u32);
                self.members.push(member);
            }
        }
    }

    fn remove(&mut self, name: &str) {
        let Ok(at) = self.rank(name) else { return };
        self.list = None;
        // The last takes its place.
        let last = self.members.len() as u32 - 1;
        let moved = self.rank(self.members[last as usize].id().as_str());
        let place = self.by_name[at];
        if let Ok(moved) = moved {
            self.by_name[moved] = place;
        }
        self.by_name.remove(at);
        let removed = self.members.swap_remove(place as usize);
        self.live -= usize::from(removed.state.is_live());
    }

    /// Where in `by_name` the member of that name is, or would be.
    fn rank(&self, name: &str) -> Result<usize, usize> {
        self.by_name.binary_search_by(|&place| self.members[place as usize].id().as_str().cmp(name))
    }

    /// Makes room for another one, by eighths: memory that nothing uses is memory of every node.
    fn reserve(&mut self) {
        let len = self.members.len();
        if len == self.members.capacity() {
            self.members.reserve_exact(len / 8 + 16);
            self.by_name.reserve_exact(len / 8 + 16);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use bytes::Bytes;
    use memberlist_protocol::{Config, Membership, NodeId, NodeState};
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn member(name: &str) -> Member {
        let addr = "127.0.0.1:7946".parse().unwrap();
        let id = NodeId::new(name).unwrap();
        let app = Box::new(());
        Membership::new(Config::lan(), id, addr, Bytes::new(), 1, Instant::now(), app)
            .unwrap()
            .own()
    }

    proptest! {
        /// Beside a map of the names, which has the order of itself.
        #[test]
        fn the_view_is_what_a_sorted_map_would_be(
            steps in prop::collection::vec((0..4_u8, 0..12_u8, any::<u32>()), 0..200),
        ) {
            let (mut view, mut model) = (View::default(), BTreeMap::<String, Member>::new());
            for (step, name, incarnation) in steps {
                let name = format!("n{name}");
                let mut new = member(&name);
                new.incarnation = incarnation;
                match step {
                    0 => view.apply(&Event::Joined(new.clone())),
                    1 => {
                        new.state = NodeState::Dead;
                        view.apply(&Event::Left(new.clone()));
                    }
                    2 => view.apply(&Event::Forgotten(NodeId::new(&name).unwrap())),
                    _ => view.renew(&name, incarnation),
                }
                match (step, model.get_mut(&name)) {
                    (0 | 1, _) => _ = model.insert(name.clone(), new),
                    (2, _) => _ = model.remove(&name),
                    (_, Some(there)) => there.incarnation = incarnation,
                    (_, None) => {}
                }
                prop_assert_eq!(view.get(&name), model.get(&name));
                prop_assert!(view.list().iter().eq(model.values()));
                prop_assert_eq!(view.live(), model.values().filter(|m| m.state.is_live()).count());
            }
        }
    }
}
