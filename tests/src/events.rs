//! What a subscriber saw, and whether it may have happened.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memberlist::{Event, Memberlist, NodeState, Transport};
use tokio::task::JoinHandle;

use crate::wait::until;

/// Takes every event of a subscription as it comes.
pub struct EventLog {
    seen: Arc<Mutex<Vec<Event>>>,
    task: JoinHandle<()>,
}

impl Drop for EventLog {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl EventLog {
    /// Subscribes; returns when the first snapshot has come.
    pub async fn of<T: Transport>(node: &Memberlist<T>) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut events, to) = (node.subscribe(), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                to.lock().unwrap_or_else(PoisonError::into_inner).push(event);
            }
        });
        let log = Self { seen, task };
        until("the first snapshot", || !log.seen().is_empty()).await;
        log
    }

    fn seen(&self) -> MutexGuard<'_, Vec<Event>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything so far.
    pub fn all(&self) -> Vec<Event> {
        self.seen().clone()
    }

    /// How many events so far are like this.
    pub fn count(&self, like: impl Fn(&Event) -> bool) -> usize {
        self.seen().iter().filter(|event| like(event)).count()
    }

    /// The events so far, in words, without those about this node's own health, which depends on
    /// how busy the machine is.
    pub fn names(&self) -> Vec<String> {
        self.seen().iter().filter_map(name).collect()
    }

    /// Of whom it was said that they left or died.
    pub fn gone(&self) -> Vec<String> {
        let gone = |event: &Event| match event {
            Event::Left(member) => Some(member.id().to_string()),
            _ => None,
        };
        self.seen().iter().filter_map(gone).collect()
    }

    /// Whether all subscriptions have ended.
    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }
}

/// An event as a line.
pub fn name(event: &Event) -> Option<String> {
    Some(match event {
        Event::Snapshot { members, missed } => format!("snapshot of {}, {missed}", members.len()),
        Event::Joined(member) => format!("joined {}", member.id()),
        Event::Left(member) => format!("{} {}", member.state, member.id()),
        Event::Updated(member) => format!("updated {}", member.id()),
        Event::Suspected(member) => format!("suspected {}", member.id()),
        Event::Cleared(member) => format!("cleared {}", member.id()),
        Event::Forgotten(id) => format!("forgotten {id}"),
        Event::Conflict { existing, .. } => format!("conflict over {}", existing.id),
        Event::HealthChanged(_) | Event::Refuted { .. } => return None,
        other => format!("{other:?}"),
    })
}

/// Checks that these events can have happened in this order, beginning with a snapshot; gives the
/// states at their end.
///
/// # Panics
/// If they cannot.
pub fn check(events: &[Event]) -> BTreeMap<String, NodeState> {
    assert!(matches!(events.first(), Some(Event::Snapshot { missed: 0, .. })), "{events:?}");
    let mut states = BTreeMap::new();
    for (i, event) in events.iter().enumerate() {
        step(&mut states, event).unwrap_or_else(|known| {
            panic!("event {i}, {event:?}, cannot follow on {known:?}; all: {events:#?}")
        });
    }
    states
}

/// Applies an event; `Err` with what was known of the member if it is not possible.
fn step(states: &mut BTreeMap<String, NodeState>, event: &Event) -> Result<(), Option<NodeState>> {
    use NodeState::{Alive, Dead, Left, Suspect};
    let (member, possible_before, after): (_, &[Option<NodeState>], _) = match event {
        Event::Snapshot { members, .. } => {
            *states = members.iter().map(|m| (m.id().to_string(), m.state)).collect();
            return Ok(());
        }
        Event::Forgotten(id) => {
            let known = states.remove(id.as_str());
            return if matches!(known, Some(Dead | Left)) { Ok(()) } else { Err(known) };
        }
        Event::Joined(member) => (member, &[None, Some(Dead), Some(Left)], Alive),
        Event::Suspected(member) => (member, &[Some(Alive)], Suspect),
        Event::Cleared(member) => (member, &[Some(Suspect)], Alive),
        Event::Updated(member) => (member, &[Some(Alive)], Alive),
        Event::Left(member) => {
            let died = member.death.as_ref().is_some_and(|death| !death.left);
            (member, &[Some(Alive), Some(Suspect)], if died { Dead } else { Left })
        }
        _ => return Ok(()),
    };
    let known = states.insert(member.id().to_string(), member.state);
    let gone = member.state.is_gone();
    let right = possible_before.contains(&known) && member.state == after;
    if right && gone == member.death.is_some() { Ok(()) } else { Err(known) }
}
