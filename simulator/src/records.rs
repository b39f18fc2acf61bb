//! The records of members, kept once for all machines that have the same.
//!
//! Ten thousand machines know ten thousand members each; without sharing, their names, addresses
//! and meta would be stored a hundred million times.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use memberlist_protocol::{Application, Node, NodeId};

/// The newest record of each name. Every machine of a world has a copy of this handle.
#[derive(Clone, Default)]
pub(crate) struct SharedRecords(Arc<Mutex<HashMap<NodeId, Arc<Node>>>>);

impl Application for SharedRecords {
    fn share(&mut self, node: Node) -> Arc<Node> {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match newest.get(&node.id) {
            Some(known) if **known == node => Arc::clone(known),
            _ => {
                let node = Arc::new(node);
                newest.insert(node.id.clone(), Arc::clone(&node));
                node
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn equal_records_are_kept_once_and_others_are_not_confused() {
        let node = |meta: &'static str| {
            let id = NodeId::new("a").unwrap();
            let addr = ([10, 0, 0, 1], 7946).into();
            Node::new(id, addr, Bytes::from(meta), Default::default())
        };
        let (mut one, mut other) = (SharedRecords::default(), SharedRecords::default());
        other.clone_from(&one);
        let first = one.share(node("x"));
        assert!(Arc::ptr_eq(&first, &other.share(node("x"))));
        let second = other.share(node("y"));
        assert_eq!((&first.meta[..], &second.meta[..]), (&b"x"[..], &b"y"[..]));
        assert!(Arc::ptr_eq(&second, &one.share(node("y"))));
    }
}
