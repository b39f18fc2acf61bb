//! Exchanges between two sides that do as they should.

use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};

use tokio::io::ReadBuf;

use super::*;
use crate::{Builder, Config, Memberlist, memory::MemoryTransport};

/// Counts what passes through it, both ways.
struct Counted<S> {
    stream: S,
    bytes: Arc<AtomicUsize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.bytes.fetch_add(buf.filled().len() - before, Ordering::Relaxed);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, data);
        if let Poll::Ready(Ok(len)) = wrote {
            self.bytes.fetch_add(len, Ordering::Relaxed);
        }
        wrote
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// One exchange that the first side begins; gives the bytes that it moved.
async fn moved(asker: &Side, answerer: &Side) -> (Result<(), ExchangeError>, usize) {
    let (near, far) = duplex(1 << 16);
    let bytes = Arc::<AtomicUsize>::default();
    let far = Counted { stream: far, bytes: Arc::clone(&bytes) };
    let answering = answer(far, answerer.context.clone(), stranger());
    let asking = async {
        let (mut channel, own) = (asker.dial(near), Own::ask(&asker.context).unwrap());
        ask(&mut channel, &asker.context, &peer(answerer.context.own.as_str()), own).await
    };
    let (asked, _) = tokio::join!(asking, answering);
    (asked, bytes.load(Ordering::Relaxed))
}

#[tokio::test(start_paused = true)]
async fn states_go_both_ways_once_and_again_when_they_change() {
    let (mut a, mut b) = (Side::new("a", "of a"), Side::new("b", "of b"));
    moved(&a, &b).await.0.unwrap();
    assert_eq!((a.merged(), b.merged()), (vec!["of b".into()], vec!["of a".into()]));
    // Whoever asks, nothing is left to be exchanged.
    moved(&a, &b).await.0.unwrap();
    moved(&b, &a).await.0.unwrap();
    assert!(a.merged().is_empty() && b.merged().is_empty());
    // What has changed goes there alone, whoever asks.
    a.app.set("of a, later");
    moved(&b, &a).await.0.unwrap();
    assert_eq!((a.merged(), b.merged()), (vec![], vec![Bytes::from("of a, later")]));
    b.app.set("of b, later");
    moved(&b, &a).await.0.unwrap();
    assert_eq!((a.merged(), b.merged()), (vec![Bytes::from("of b, later")], vec![]));
    // Also back to what it was before.
    a.app.set("of a");
    moved(&a, &b).await.0.unwrap();
    assert_eq!((a.merged(), b.merged()), (vec![], vec![Bytes::from("of a")]));
}

#[tokio::test(start_paused = true)]
async fn equal_and_empty_states_are_not_sent() {
    let state = vec![7; 50_000];
    let (mut a, mut b) = (Side::new("a", state.clone()), Side::new("b", state));
    let (asked, bytes) = moved(&a, &b).await;
    asked.unwrap();
    assert!(bytes < 150, "{bytes}");
    assert!(a.merged().is_empty() && b.merged().is_empty());
    b.app.set("");
    moved(&a, &b).await.0.unwrap();
    assert_eq!((a.merged().len(), b.merged().len()), (0, 1));
    // A peer that asks without a state is told what the other has, once.
    let (asked, bytes) = moved(&b, &a).await;
    asked.unwrap();
    assert!(bytes < 150, "{bytes}");
}

#[tokio::test(start_paused = true)]
async fn a_node_without_a_state_opens_no_stream() {
    let network = MemoryNetwork::new(1);
    let transport = network.bind("10.0.0.2:7946".parse().unwrap()).unwrap();
    let a = Side::new("a", "");
    let ended = exchange(&transport, &a.context, &peer("b")).await;
    assert_eq!(ended, Ok(StreamResponse::UserState));
    assert_eq!((network.stats().streams_opened, network.stats().streams_refused), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_application_that_panics_fails_the_exchange_on_both_sides() {
    struct Panicking;
    impl Delegate for Panicking {
        fn local_state(&self, _: bool) -> Bytes {
            panic!("no state (the test wants it so)")
        }
    }
    let (a, mut b) = (Side::new("a", "of a"), Side::new("b", ""));
    b.context.delegate = Arc::new(Panicking);
    let refused = moved(&a, &b).await.0;
    let Err(ExchangeError::Refused { message, .. }) = refused else { panic!("{refused:?}") };
    assert!(message.contains("panicked"), "{message}");
    let transport = MemoryNetwork::new(1).bind("10.0.0.2:7946".parse().unwrap()).unwrap();
    let failed = exchange(&transport, &b.context, &peer("a")).await;
    assert!(matches!(failed, Err(ExchangeError::Io { .. })), "{failed:?}");
}

#[tokio::test(start_paused = true)]
async fn what_finds_no_room_is_not_remembered_and_comes_again() {
    let (mut a, mut b) = (Side::new("a", "of a"), Side::with_room("b", "of b", 0));
    let refused = moved(&a, &b).await.0;
    let Err(ExchangeError::Refused { message, .. }) = refused else { panic!("{refused:?}") };
    assert!(message.contains("too many states"), "{message}");
    assert_eq!((b.held("a"), b.merged().len()), (None, 0));
    assert_eq!((a.held("b"), a.merged().len()), (Digest::of(b"of b"), 1), "that half is done");
    moved(&b, &a).await.0.unwrap();
    assert_eq!((b.held("a"), b.merged().len()), (None, 0));
    let dropped = &b.context.user_states.hub.dropped.user_states;
    assert_eq!(dropped.load(Ordering::Relaxed), 2, "it came twice");
}

#[tokio::test(start_paused = true)]
async fn as_much_as_the_limit_is_exchanged_and_more_is_not_offered() {
    let (mut a, mut b) = (Side::new("a", vec![1; 101]), Side::new("b", vec![2; 100]));
    for side in [&mut a, &mut b] {
        side.context.limits.max_user_bytes = 100;
    }
    let transport = MemoryNetwork::new(1).bind("10.0.0.2:7946".parse().unwrap()).unwrap();
    let failed = exchange(&transport, &a.context, &peer("b")).await;
    let Err(ExchangeError::Io { message, .. }) = failed else { panic!("{failed:?}") };
    assert!(message.contains("101 bytes of state, over 100"), "{message}");
    let refused = moved(&b, &a).await.0;
    assert!(matches!(refused, Err(ExchangeError::Refused { .. })), "{refused:?}");
    a.app.set(vec![1; 100]);
    moved(&a, &b).await.0.unwrap();
    assert_eq!((a.merged().len(), b.merged().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn over_a_network_100_kb_states_move_once() {
    let network = MemoryNetwork::new(1);
    let at = |addr: &str| network.bind(addr.parse().unwrap()).unwrap();
    let (near, far) = (at("10.0.0.1:7946"), at("10.0.0.2:7946"));
    let (mut a, mut b) = (Side::new("a", vec![1; 100_000]), Side::new("b", vec![2; 100_000]));
    let bytes = Arc::<AtomicUsize>::default();
    let (context, counter) = (b.context.clone(), Arc::clone(&bytes));
    let serving = tokio::spawn(async move {
        while let Ok((stream, source)) = far.accept_stream().await {
            let stream = Counted { stream, bytes: Arc::clone(&counter) };
            answer(stream, context.clone(), source.addr.into()).await.unwrap();
        }
    });
    let to = Peer::named("10.0.0.2:7946".parse().unwrap(), id("b"));
    let mut moved = Vec::new();
    for round in 0..3 {
        if round == 2 {
            a.app.set(vec![3; 100_000]);
        }
        assert_eq!(exchange(&near, &a.context, &to).await, Ok(StreamResponse::UserState));
        moved.push(bytes.swap(0, Ordering::Relaxed));
    }
    let [first, unchanged, one_changed] = moved[..] else { unreachable!() };
    assert!((200_000..200_500).contains(&first), "{first}");
    assert!(unchanged < 150, "{unchanged}");
    assert!((100_000..100_500).contains(&one_changed), "{one_changed}");
    assert_eq!((a.merged().len(), b.merged().len()), (1, 2));
    serving.abort();
}

/// An application that remembers what came, with the state of which it speaks at a join as well.
#[derive(Clone, Default)]
struct Stateful {
    own: Arc<Mutex<Bytes>>,
    seen: Arc<Mutex<Vec<Bytes>>>,
}

impl Stateful {
    fn new(state: impl Into<Bytes>) -> Self {
        Self { own: Arc::new(Mutex::new(state.into())), ..Self::default() }
    }

    fn seen(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

impl Delegate for Stateful {
    fn local_state(&self, _: bool) -> Bytes {
        self.own.lock().unwrap().clone()
    }

    fn merge_remote_state(&self, state: Bytes, _: bool) {
        self.seen.lock().unwrap().push(state);
    }
}

async fn start(network: &MemoryNetwork, name: &str, app: &Stateful) -> Memberlist<MemoryTransport> {
    let mut config = Config::lan(name);
    config.protocol.push_pull_interval = Duration::from_secs(5);
    let transport = network.bind("10.0.0.1:0".parse().unwrap()).unwrap();
    Builder::new(config).delegate(app.clone()).start(transport).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn nodes_tell_each_other_of_changes_at_their_turns() {
    let network = MemoryNetwork::new(1);
    let apps = [Stateful::new(vec![1; 100_000]), Stateful::new(vec![2; 100_000])];
    let a = start(&network, "a", &apps[0]).await;
    let b = start(&network, "b", &apps[1]).await;
    b.join([a.addr().to_string()]).await.unwrap();
    // Time for each to have shown its view, and for some turns.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before = (apps[0].seen(), apps[1].seen());
    assert!(a.stats().await.unwrap().user_state_exchanges > 0);
    *apps[0].own.lock().unwrap() = vec![3; 100_000].into();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(apps[1].seen.lock().unwrap().last(), Some(&vec![3; 100_000].into()));
    assert_eq!((apps[0].seen(), apps[1].seen()), (before.0, before.1 + 1));
    tokio::time::sleep(Duration::from_secs(300)).await;
    for node in [&a, &b] {
        let stats = node.stats().await.unwrap();
        assert!(stats.user_state_exchanges > 5 * stats.push_pulls, "{stats:?}");
        assert_eq!((stats.user_state_exchanges_failed, stats.push_pulls_failed), (0, 0));
    }
    // In 310 seconds, only the full push/pulls bring what was brought before: each node begins one in 50.
    let again = apps.iter().map(Stateful::seen).sum::<usize>() - before.0 - before.1 - 1;
    assert!((8..=2 * 2 * 7).contains(&again), "{again}");
    a.shutdown().await;
    b.shutdown().await;
}
