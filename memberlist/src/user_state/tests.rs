use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use memberlist_transport::memory::MemoryNetwork;
use tokio::io::duplex;

use super::*;
use crate::delegate::Delegate;
use crate::events::{Capacity, NoticeStream, Others};

mod exchanges;
mod hostile;

/// An application that gives this state, which the test may change.
#[derive(Clone, Default)]
struct App(Arc<Mutex<Bytes>>);

impl App {
    fn set(&self, state: impl Into<Bytes>) {
        *self.0.lock().unwrap() = state.into();
    }
}

impl Delegate for App {
    fn local_state(&self, join: bool) -> Bytes {
        assert!(!join);
        self.0.lock().unwrap().clone()
    }
}

/// One side of exchanges, without a node.
struct Side {
    context: StreamContext,
    app: App,
    notices: NoticeStream,
}

impl Side {
    fn new(name: &str, state: impl Into<Bytes>) -> Self {
        Self::with_room(name, state, 40 << 20)
    }

    fn with_room(name: &str, state: impl Into<Bytes>, user_state_bytes: usize) -> Self {
        let (app, hub) = (App::default(), Arc::<Hub>::default());
        app.set(state);
        let others = Some(Others { pings: 0, user_state_bytes });
        let mut notices = hub.subscribe(Capacity { events: 8, others });
        // The snapshot that comes first.
        notices.try_next().unwrap();
        let mut context = StreamContext::testing(name, Default::default());
        context.delegate = Arc::new(app.clone());
        context.user_states = Arc::new(UserStates::new(hub));
        Self { context, app, notices }
    }

    /// What the delegate is told of since the last call.
    fn merged(&mut self) -> Vec<Bytes> {
        let notices = std::iter::from_fn(|| self.notices.try_next());
        let state = |notice| match notice {
            Notice::UserState { state, join: false, .. } => state,
            other => panic!("{other:?}"),
        };
        notices.map(state).collect()
    }

    fn held(&self, name: &str) -> Option<Digest> {
        self.context.user_states.held(&id(name))
    }

    /// A stream that this side opens.
    fn dial<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Channel<S> {
        Channel::dialled(stream, self.context.clone(), Dialect::Native, None)
    }
}

fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn peer(name: &str) -> Peer {
    Peer::named("10.0.0.1:7946".parse().unwrap(), id(name))
}

/// Of whom nothing is verified.
fn stranger() -> Peer {
    Peer::from("10.0.0.9:1234".parse::<SocketAddr>().unwrap())
}

fn request(body: impl Into<Bytes>) -> MessageFrames {
    MessageFrames::request(TOPIC, body.into())
}

/// Answers as a node does.
async fn answer<S>(stream: S, context: StreamContext, from: Peer) -> Result<(), StreamFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut channel = Channel::accepted(stream, context.clone());
    let StreamItem::Request { topic: TOPIC, body } = channel.receive().await? else { panic!() };
    let served = serve(&mut channel, &context, &from, &body).await;
    if let Err(StreamFault::Content(error)) = &served {
        channel.refuse(&error.to_string()).await?;
        channel.finish_refused().await?;
    }
    served.map(drop)
}

/// A delegate that panics over every state.
struct Panics;

impl Delegate for Panics {
    fn merge_remote_state(&self, _: Bytes, _: bool) {
        panic!("over a state (the test wants it so)");
    }
}

#[tokio::test]
async fn a_state_over_which_the_delegate_panics_may_come_again() {
    let Side { context, notices, .. } = Side::new("a", "");
    let states = Arc::clone(&context.user_states);
    let (peer, state) = (id("b"), Bytes::from_static(b"state"));
    let digest = Digest::of(&state).unwrap();
    assert!(states.merge(&peer, digest, state));
    assert_eq!(states.held(&peer), Some(digest));
    tokio::spawn(crate::observe::tell_notices(notices, Arc::new(Panics), Arc::clone(&states)));
    let forgotten = async {
        while states.held(&peer).is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), forgotten).await.expect("it is forgotten");
}

#[test]
fn the_oldest_is_forgotten() {
    let mut merged = Merged::default();
    let names: Vec<_> = (0..=MAX_REMEMBERED).map(|i| id(&i.to_string())).collect();
    for name in &names[..MAX_REMEMBERED] {
        merged.put(name, Digest::of(b"x"));
    }
    // Who is heard again is not the oldest any more.
    merged.put(&names[0], Digest::of(b"y"));
    merged.put(&names[MAX_REMEMBERED], None);
    assert_eq!((merged.digests.len(), merged.order.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
    assert!(merged.digests.contains_key(&names[0]));
    assert!(!merged.digests.contains_key(&names[1]));
}

#[test]
fn messages_come_back_and_garbage_does_not() {
    let digest = Digest::of(b"x");
    for (own, held) in [(None, None), (digest, None), (None, digest), (digest, digest)] {
        let (from, to) = (id("a"), id(&"b".repeat(255)));
        let question = Question { from, to, own, held };
        let bytes = question.encode();
        assert_eq!(Question::decode(&bytes).as_ref(), Ok(&question));
        (0..bytes.len()).for_each(|len| assert!(Question::decode(&bytes[..len]).is_err()));
        assert!(Question::decode(&[&bytes[..], &[0]].concat()).is_err());

        let answer = Answer { wanted: own.is_some(), follows: held.is_some(), own };
        let bytes = answer.encode();
        assert_eq!(Answer::decode(&bytes), Some(answer));
        (0..bytes.len()).for_each(|len| assert_eq!(Answer::decode(&bytes[..len]), None));
        assert_eq!(Answer::decode(&[&bytes[..], &[0]].concat()), None);
    }
    assert_eq!(Answer::decode(&[0, 2]), None);
    for name in [&[0][..], &[1, 0xff]] {
        assert!(Question::decode(&[name, &[1, b'b', 0, 0]].concat()).is_err());
    }
}

/// Another implementation must come to the same.
#[test]
fn a_digest_is_what_the_page_says() {
    let digest = Digest::of(b"state").unwrap();
    let hex: String = digest.0.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(include_str!("../../../docs/WIRE.md").contains(&hex), "{hex}");
    assert_eq!(Digest::of(b""), None);
}

#[test]
fn a_state_of_a_push_pull_counts_as_merged() {
    let mut b = Side::new("b", "of b");
    let states = Arc::clone(&b.context.user_states);
    let pushed = |state: &'static str| {
        let state = Bytes::from_static(state.as_bytes());
        states.merge_pushed(Some(id("a")), state, false).unwrap()
    };
    let (earlier, last) = (pushed("of a, earlier"), pushed("of a"));
    assert_eq!(b.held("a"), None, "until there is time for it");
    states.remember(last);
    // Late, and not the last any more.
    states.remember(earlier);
    assert_eq!(b.held("a"), Digest::of(b"of a"));
    assert_eq!(b.merged().len(), 2);
    assert!(states.merge(&id("a"), Digest::of(b"of a").unwrap(), "of a".into()));
    assert!(b.merged().is_empty(), "it was told of that");
    // A join comes before all others; what it brought is sent once more.
    assert!(states.merge_pushed(Some(id("a")), "of a".into(), true).is_none());
    assert_eq!(b.held("a"), None);
    b.notices.try_next().unwrap();
    // Nobody's, and what there is no room for.
    let mut full = Side::with_room("b", "", USER_STATE_ROOM);
    let states = Arc::clone(&full.context.user_states);
    assert!(states.merge_pushed(None, "whose?".into(), false).is_none());
    assert!(states.merge_pushed(Some(id("a")), "of a".into(), false).is_none());
    assert_eq!((full.held("a"), full.merged()), (None, vec![Bytes::from("whose?")]));
}

/// For one short state.
const USER_STATE_ROOM: usize = 200;
