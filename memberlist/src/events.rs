//! Events, and who is told of them.
//!
//! The node's task changes the view and appends to every subscriber's queue under one lock, which is
//! never held across a callback or an await. So a snapshot and the events after it always fit
//! together. It is held for one member, except for the list of all members: the first reader who
//! asks after a change copies it (two shared pointers a member), and the node's task waits that long;
//! further readers share it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use memberlist_protocol::{Member, Node, NodeId, NodeState};
use tokio::sync::Notify;

use crate::meter::{Meter, Stamp};
use crate::view::View;

/// What happened in the cluster, as this node sees it.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The state of things: first of all, and again after events were missed because the subscriber
    /// was slow. Events that follow apply to it.
    Snapshot {
        /// All known members, gone ones included, by name.
        members: Arc<[Member]>,
        /// How many events were missed since the last one that was seen.
        missed: u64,
    },
    /// A member is new, or back.
    Joined(Member),
    /// A member left or died; its [`death`](Member::death) says which and why.
    Left(Member),
    /// A member announced other meta or versions.
    Updated(Member),
    /// A member does not answer and is given its chance to.
    Suspected(Member),
    /// A suspected member is alive after all.
    Cleared(Member),
    /// A gone member was forgotten.
    Forgotten(NodeId),
    /// Two nodes claim one name. The existing one stays.
    Conflict {
        /// The member that has it.
        existing: Arc<Node>,
        /// The other claim.
        other: Box<Node>,
    },
    /// How far this node doubts itself has changed; 0 is healthy.
    HealthChanged(u32),
    /// This node was suspected or declared dead, and contradicted.
    Refuted {
        /// What was said of it.
        accusation: NodeState,
        /// By whom, if the news tells.
        by: Option<NodeId>,
        /// Its new incarnation.
        incarnation: u32,
    },
}

/// What the delegate's task is told beside events.
#[derive(Clone, Debug)]
pub(crate) enum Notice {
    Event(Event),
    PingCompleted {
        node: Arc<Node>,
        rtt: Duration,
        payload: Bytes,
    },
    /// With whose it is, if that is known.
    UserState {
        from: Option<NodeId>,
        state: Bytes,
        join: bool,
    },
}

/// What a waiting user state takes beside its bytes.
const USER_STATE_OVERHEAD_BYTES: usize = 128;

/// Notices for which there is memory while none waits.
const KEPT_NOTICES: usize = 8;

/// How much may wait for a subscriber.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    /// Events; a snapshot replaces them when there are more.
    pub(crate) events: usize,
    /// What nothing can replace, of which the newest is dropped and counted when there is more.
    pub(crate) others: Option<Others>,
}

/// How much may wait of what is no event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Others {
    pub(crate) pings: usize,
    pub(crate) user_state_bytes: usize,
}

/// The published view, and its subscribers.
#[derive(Debug)]
#[cfg_attr(test, derive(Default))]
pub(crate) struct Hub {
    state: Mutex<HubState>,
    pub(crate) dropped: Dropped,
    meter: Meter,
}

/// What was dropped because a subscriber was slow.
#[derive(Debug, Default)]
pub(crate) struct Dropped {
    pub(crate) pings: AtomicU64,
    pub(crate) user_states: AtomicU64,
}

#[derive(Debug, Default)]
struct HubState {
    view: View,
    subscribers: Vec<Arc<Queue>>,
    closed: bool,
}

/// One subscriber's queue.
#[derive(Debug)]
struct Queue {
    state: Mutex<QueueState>,
    notify: Notify,
    capacity: Capacity,
}

#[derive(Debug, Default)]
struct QueueState {
    waiting: VecDeque<(Stamp, Notice)>,
    /// What of each is in `waiting`.
    events: usize,
    pings: usize,
    user_state_bytes: usize,
    /// The next thing it gets is a snapshot.
    behind: bool,
    missed: u64,
    closed: bool,
    abandoned: bool,
}

/// A panic while one of these locks is held can only come from running out of memory; what they
/// guard is consistent wherever that can happen.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    pub(crate) fn new(meter: Meter) -> Self {
        Self { state: Mutex::default(), dropped: Dropped::default(), meter }
    }

    /// How many events wait for the slowest subscriber.
    pub(crate) fn waiting_events(&self) -> usize {
        let state = lock(&self.state);
        state.subscribers.iter().map(|queue| lock(&queue.state).events).max().unwrap_or(0)
    }

    /// All known members by name, gone ones included.
    pub(crate) fn members(&self) -> Arc<[Member]> {
        lock(&self.state).view.list()
    }

    pub(crate) fn member(&self, name: &str) -> Option<Member> {
        lock(&self.state).view.get(name).cloned()
    }

    pub(crate) fn live_count(&self) -> usize {
        lock(&self.state).view.live()
    }

    /// Applies an event and tells everybody; says whether everybody had room for it, who wants such.
    pub(crate) fn publish(&self, notice: Notice) -> bool {
        let mut state = lock(&self.state);
        if let Notice::Event(event) = &notice {
            state.view.apply(event);
        }
        let (mut abandoned, mut taken) = (false, true);
        for queue in &state.subscribers {
            match queue.push(&notice, &self.dropped) {
                Pushed::Taken => {}
                Pushed::Dropped => taken = false,
                Pushed::Abandoned => abandoned = true,
            }
        }
        if abandoned {
            state.subscribers.retain(|queue| !lock(&queue.state).abandoned);
        }
        taken
    }

    /// Raises a member's incarnation, of which there is nothing else to tell.
    pub(crate) fn renew(&self, name: &str, incarnation: u32) {
        lock(&self.state).view.renew(name, incarnation);
    }

    pub(crate) fn subscribe(self: &Arc<Self>, capacity: Capacity) -> NoticeStream {
        let mut state = lock(&self.state);
        let queue = Arc::new(Queue {
            state: Mutex::new(QueueState {
                behind: true,
                closed: state.closed,
                ..QueueState::default()
            }),
            notify: Notify::new(),
            capacity,
        });
        state.subscribers.push(Arc::clone(&queue));
        NoticeStream { hub: Arc::clone(self), queue }
    }

    /// Ends every subscription, after what it still has to get.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        for queue in state.subscribers.drain(..) {
            lock(&queue.state).closed = true;
            queue.notify.notify_one();
        }
    }
}

/// What became of a notice at one subscriber.
enum Pushed {
    /// It waits, or a snapshot replaces it, or this subscriber wants none of its kind.
    Taken,
    /// There was no room.
    Dropped,
    /// The subscriber is gone.
    Abandoned,
}

impl Queue {
    fn push(&self, notice: &Notice, dropped: &Dropped) -> Pushed {
        let mut state = lock(&self.state);
        if state.abandoned {
            return Pushed::Abandoned;
        }
        match (notice, self.capacity.others) {
            (Notice::Event(_), _) => state.push_event(notice, self.capacity.events),
            (_, None) => return Pushed::Taken,
            (_, Some(capacity)) => {
                if !state.push_other(notice, capacity, dropped) {
                    return Pushed::Dropped;
                }
            }
        }
        drop(state);
        self.notify.notify_one();
        Pushed::Taken
    }
}

impl QueueState {
    fn push_event(&mut self, event: &Notice, capacity: usize) {
        if self.behind && self.missed > 0 {
            self.missed += 1;
        } else if self.events >= capacity {
            self.missed += self.events as u64 + 1;
            self.drop_events();
            self.behind = true;
        } else if !self.behind {
            self.events += 1;
            self.waiting.push_back((Stamp::now(), event.clone()));
        }
    }

    /// Says whether there was room.
    fn push_other(&mut self, other: &Notice, capacity: Others, dropped: &Dropped) -> bool {
        match other {
            Notice::UserState { state, .. } => {
                let bytes = self.user_state_bytes + waiting_bytes(state);
                if bytes > capacity.user_state_bytes {
                    dropped.user_states.fetch_add(1, Ordering::Relaxed);
                    return false;
                }
                self.user_state_bytes = bytes;
            }
            Notice::PingCompleted { .. } if self.pings >= capacity.pings => {
                dropped.pings.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            Notice::PingCompleted { .. } => self.pings += 1,
            Notice::Event(_) => return false,
        }
        self.waiting.push_back((Stamp::now(), other.clone()));
        true
    }

    fn pop(&mut self, meter: &Meter) -> Option<Notice> {
        let (since, notice) = self.waiting.pop_front()?;
        if self.waiting.is_empty() {
            // A burst must not keep its memory for ever.
            self.waiting.shrink_to(KEPT_NOTICES);
        }
        match &notice {
            Notice::Event(_) => {
                self.events -= 1;
                meter.event_taken(since);
            }
            Notice::PingCompleted { .. } => self.pings -= 1,
            Notice::UserState { state, .. } => self.user_state_bytes -= waiting_bytes(state),
        }
        Some(notice)
    }

    /// Drops what a snapshot replaces.
    fn drop_events(&mut self) {
        self.waiting.retain(|(_, notice)| !matches!(notice, Notice::Event(_)));
        self.events = 0;
    }

    fn has_ended(&self) -> bool {
        self.closed && !self.behind && self.waiting.is_empty()
    }
}

fn waiting_bytes(user_state: &Bytes) -> usize {
    user_state.len() + USER_STATE_OVERHEAD_BYTES
}

/// The receiving end of a subscription, with notices.
#[derive(Debug)]
pub(crate) struct NoticeStream {
    hub: Arc<Hub>,
    queue: Arc<Queue>,
}

impl NoticeStream {
    pub(crate) async fn next(&mut self) -> Option<Notice> {
        loop {
            if let Some(notice) = self.try_next() {
                return Some(notice);
            }
            if lock(&self.queue.state).has_ended() {
                return None;
            }
            self.queue.notify.notified().await;
        }
    }

    /// The next notice, if there is one.
    pub(crate) fn try_next(&mut self) -> Option<Notice> {
        {
            let mut state = lock(&self.queue.state);
            if !state.behind {
                return state.pop(&self.hub.meter);
            }
        }
        self.snapshot()
    }

    /// A snapshot, if one is due. Events that wait are older than it, since both change under the
    /// hub's lock.
    fn snapshot(&self) -> Option<Notice> {
        let mut hub = lock(&self.hub.state);
        let mut state = lock(&self.queue.state);
        if !state.behind {
            return None;
        }
        state.behind = false;
        state.drop_events();
        let missed = std::mem::take(&mut state.missed);
        Some(Notice::Event(Event::Snapshot { members: hub.view.list(), missed }))
    }
}

impl Drop for NoticeStream {
    fn drop(&mut self) {
        lock(&self.queue.state).abandoned = true;
    }
}

/// A subscription to the events of a node; see [`Memberlist::subscribe`](crate::Memberlist::subscribe).
#[derive(Debug)]
pub struct Subscription(pub(crate) NoticeStream);

impl Subscription {
    /// The next event; `None` after the node was shut down and everything has been given out.
    ///
    /// Cancel safe: an event is lost only by taking it.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Notice::Event(event) = self.0.next().await? {
                return Some(event);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::member;

    fn events(events: usize) -> Capacity {
        Capacity { events, others: None }
    }

    fn user_state(state: &str) -> Notice {
        Notice::UserState { from: None, state: state.to_owned().into(), join: false }
    }

    fn ping() -> Notice {
        let (node, rtt) = (Arc::clone(&member("a").node), Duration::from_millis(1));
        Notice::PingCompleted { node, rtt, payload: Bytes::new() }
    }

    fn join(hub: &Hub, name: &str) {
        hub.publish(Notice::Event(Event::Joined(member(name))));
    }

    #[tokio::test]
    async fn a_subscriber_starts_with_a_snapshot_and_sees_everything_after_it() {
        let hub = Arc::new(Hub::default());
        join(&hub, "a");
        let mut first = Subscription(hub.subscribe(events(8)));
        let mut second = Subscription(hub.subscribe(events(8)));
        join(&hub, "b");
        for events in [&mut first, &mut second] {
            // "b" came before the snapshot was taken: it is in it, and does not come again.
            let Some(Event::Snapshot { members, missed: 0 }) = events.next().await else {
                panic!()
            };
            assert_eq!(members.len(), 2);
        }
        join(&hub, "c");
        for events in [&mut first, &mut second] {
            let Some(Event::Joined(member)) = events.next().await else { panic!() };
            assert_eq!(member.id().as_str(), "c");
        }
        hub.close();
        assert_eq!(first.next().await, None);
    }

    #[tokio::test]
    async fn a_slow_subscriber_is_told_and_gets_a_fresh_snapshot() {
        let hub = Arc::new(Hub::default());
        let mut events = Subscription(hub.subscribe(events(2)));
        assert!(matches!(events.next().await, Some(Event::Snapshot { missed: 0, .. })));
        for name in ["a", "b", "c", "d"] {
            join(&hub, name);
        }
        let Some(Event::Snapshot { members, missed }) = events.next().await else { panic!() };
        assert_eq!((members.len(), missed), (4, 4));
        join(&hub, "e");
        assert!(matches!(events.next().await, Some(Event::Joined(_))));
    }

    #[test]
    fn a_snapshot_replaces_events_only() {
        let hub = Arc::new(Hub::default());
        let others = Others { pings: 1, user_state_bytes: 1000 };
        let mut notices = hub.subscribe(Capacity { events: 2, others: Some(others) });
        hub.publish(user_state("before the first snapshot"));
        for name in ["a", "b", "c", "d"] {
            hub.publish(user_state(name));
            join(&hub, name);
        }
        let mut names = Vec::new();
        while let Some(notice) = notices.try_next() {
            names.push(match notice {
                Notice::Event(Event::Snapshot { members, missed }) => {
                    format!("{} members, {missed} missed", members.len())
                }
                Notice::UserState { state, .. } => String::from_utf8(state.to_vec()).unwrap(),
                other => panic!("{other:?}"),
            });
        }
        let first = "4 members, 0 missed";
        assert_eq!(names, [first, "before the first snapshot", "a", "b", "c", "d"]);
        assert_eq!(hub.dropped.user_states.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn pings_crowd_out_no_events_and_states_that_do_not_fit_are_counted() {
        let hub = Arc::new(Hub::default());
        let others = Others { pings: 2, user_state_bytes: 2 * (USER_STATE_OVERHEAD_BYTES + 10) };
        let mut notices = hub.subscribe(Capacity { events: 1, others: Some(others) });
        notices.try_next().unwrap();
        assert_eq!((0..5).filter(|_| hub.publish(ping())).count(), 2);
        assert_eq!((0..5).filter(|_| hub.publish(user_state("ten bytes."))).count(), 2);
        join(&hub, "a");
        let waiting: Vec<_> = std::iter::from_fn(|| notices.try_next()).collect();
        assert_eq!(waiting.len(), 2 + 2 + 1);
        assert!(matches!(waiting.last(), Some(Notice::Event(Event::Joined(_)))));
        let dropped = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        assert_eq!((dropped(&hub.dropped.pings), dropped(&hub.dropped.user_states)), (3, 3));
        // What was taken makes room.
        hub.publish(ping());
        hub.publish(user_state("ten bytes."));
        assert_eq!(std::iter::from_fn(|| notices.try_next()).count(), 2);
    }

    #[tokio::test]
    async fn the_view_counts_live_members_and_forgets() {
        let hub = Arc::new(Hub::default());
        join(&hub, "a");
        join(&hub, "b");
        join(&hub, "b");
        assert_eq!((hub.live_count(), hub.members().len()), (2, 2));
        let mut gone = member("b");
        gone.state = NodeState::Dead;
        hub.publish(Notice::Event(Event::Left(gone)));
        assert_eq!((hub.live_count(), hub.members().len()), (1, 2));
        hub.publish(Notice::Event(Event::Forgotten(NodeId::new("b").unwrap())));
        assert_eq!((hub.live_count(), hub.members().len()), (1, 1));
        assert!(hub.member("b").is_none());
    }

    #[tokio::test]
    async fn dropped_subscriptions_are_forgotten() {
        let hub = Arc::new(Hub::default());
        drop(hub.subscribe(events(2)));
        join(&hub, "a");
        assert!(lock(&hub.state).subscribers.is_empty());
    }
}
