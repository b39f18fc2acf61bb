//! More nodes join one seed than it has places for.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use memberlist::memory::{LinkConfig, MemoryNetwork, MemoryTransport};
use memberlist::net::NetTransport;
use memberlist::protocol::DropReason;
use memberlist::protocol::wire::Dialect;
use memberlist::protocol::wire::stream::{FrameNumber, MessageFrames, PushPullStart, preamble};
use memberlist::protocol::{ExchangeError, NodeId};
use memberlist::security::{Keyring, SecretKey};
use memberlist::transport::{Destination, OpenError, RecvError, SendError, Source};
use memberlist::{
    Builder, Config, Delegate, Encryption, JoinError, Memberlist, Transport, WireFormat,
};
use memberlist_tests::{Cluster, quick, within};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How many accepted streams there are, and were at most.
#[derive(Default)]
struct Counts {
    open: AtomicUsize,
    most: AtomicUsize,
}

/// Counts the streams that a node has accepted and not dropped.
struct Counting {
    inner: MemoryTransport,
    counts: Arc<Counts>,
}

struct Counted<S> {
    inner: S,
    counts: Option<Arc<Counts>>,
}

impl<S> Drop for Counted<S> {
    fn drop(&mut self) {
        if let Some(counts) = &self.counts {
            counts.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl Transport for Counting {
    type Stream = Counted<<MemoryTransport as Transport>::Stream>;

    fn advertise_addr(&self) -> SocketAddr {
        self.inner.advertise_addr()
    }

    async fn send_packet(&self, to: &Destination, packet: &[u8]) -> Result<(), SendError> {
        self.inner.send_packet(to, packet).await
    }

    fn poll_recv_packet(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<Result<(usize, Source), RecvError>> {
        self.inner.poll_recv_packet(cx, buf)
    }

    async fn open_stream(
        &self,
        to: &Destination,
        timeout: Duration,
    ) -> Result<Self::Stream, OpenError> {
        let inner = self.inner.open_stream(to, timeout).await?;
        Ok(Counted { inner, counts: None })
    }

    async fn accept_stream(&self) -> Result<(Self::Stream, Source), RecvError> {
        let (inner, source) = self.inner.accept_stream().await?;
        let open = self.counts.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.counts.most.fetch_max(open, Ordering::Relaxed);
        Ok((Counted { inner, counts: Some(Arc::clone(&self.counts)) }, source))
    }

    fn max_packet_bytes(&self, to: &Destination) -> usize {
        self.inner.max_packet_bytes(to)
    }

    fn close(&self) -> impl Future<Output = ()> + Send {
        self.inner.close()
    }
}

fn network() -> MemoryNetwork {
    let network = MemoryNetwork::new(1);
    let delay = Duration::from_millis(2);
    network.set_default_link(LinkConfig { delay, ..LinkConfig::default() });
    network
}

fn bind(network: &MemoryNetwork) -> MemoryTransport {
    network.bind("10.0.0.1:0".parse().unwrap()).unwrap()
}

/// Three hundred at the same moment, eight streams and four push/pulls at a time.
#[tokio::test(start_paused = true)]
async fn everybody_joins() {
    const CROWD: usize = 300;
    let (network, counts) = (network(), Arc::new(Counts::default()));
    let config = |name: &str| {
        let mut config = quick(name);
        // Many in one process: less talk among them.
        config.protocol.gossip_interval = Duration::from_secs(1);
        config.protocol.probe_interval = Duration::from_secs(30);
        config
    };
    let mut small = config("seed");
    small.max_inbound_streams = 8;
    small.protocol.max_push_pulls = 4;
    let transport = Counting { inner: bind(&network), counts: Arc::clone(&counts) };
    let seed = Memberlist::start(transport, small).await.unwrap();
    let mut joins = JoinSet::new();
    for i in 0..CROWD {
        let node = Memberlist::start(bind(&network), config(&format!("n{i}"))).await.unwrap();
        let to = seed.addr().to_string();
        joins.spawn(async move {
            let joined = node.join([to]).await.map(drop).map_err(|error| error.to_string());
            (node, joined)
        });
    }
    let began = Instant::now();
    let mut nodes = Vec::new();
    while let Some(joined) = joins.join_next().await {
        let (node, joined) = joined.unwrap();
        assert_eq!(joined, Ok(()), "{} after {:?}", node.name(), began.elapsed());
        nodes.push(node);
    }
    let took = began.elapsed();
    let (most, stats) = (counts.most.load(Ordering::Relaxed), seed.stats().await.unwrap());
    assert_eq!(nodes.len(), CROWD);
    // Served, turned away, and the one that is being looked at.
    assert!(most <= 8 + 2 * 8 + 1, "{most} streams at once");
    assert!(stats.joins_deferred > 0);
    assert_eq!(seed.streams_refused(), 0);
    assert!(took < Duration::from_secs(15), "{took:?}");
}

/// Its state takes long to send to who does not read it.
struct Large;

impl Delegate for Large {
    fn local_state(&self, _: bool) -> memberlist::Bytes {
        vec![1; 4 << 20].into()
    }
}

/// A seed with one place for push/pulls.
async fn small_seed(
    network: &MemoryNetwork,
    change: impl FnOnce(&mut Config),
) -> Memberlist<MemoryTransport> {
    let mut config = quick("seed");
    config.protocol.max_push_pulls = 1;
    config.protocol.compression = false;
    change(&mut config);
    Builder::new(config).delegate(Large).start(bind(network)).await.unwrap()
}

/// Takes the only place for as long as the stream lives: asks, and reads but the first byte.
async fn occupy(
    from: &MemoryTransport,
    seed: &Memberlist<MemoryTransport>,
    dialect: Dialect,
) -> impl AsyncRead + Send + Unpin + use<> {
    let patience = Duration::from_secs(5);
    let mut stream = from.open_stream(&seed.addr().into(), patience).await.unwrap();
    let start = PushPullStart { from: NodeId::new("idle").unwrap(), to: None, join: false };
    let mut question = MessageFrames::push_pull(dialect, start, [].into(), Default::default());
    let (mut bytes, mut number) = (Vec::new(), FrameNumber::default());
    preamble(dialect, &mut bytes);
    while question.next_record(&mut number, &mut bytes) {}
    stream.write_all(&bytes).await.unwrap();
    within("the beginning of the answer", stream.read_u8()).await.unwrap();
    stream
}

fn error_of<T>(joined: Result<T, JoinError>) -> ExchangeError {
    match joined {
        Err(JoinError::NoneReached(results)) => {
            results[0].attempts[0].result.as_ref().unwrap_err().clone()
        }
        _ => panic!("there was a place"),
    }
}

/// In Go's format there is no word for "later": who asks waits, and is refused when that took too long.
#[tokio::test(start_paused = true)]
async fn in_gos_format_one_waits_and_is_then_refused() {
    let network = network();
    let seed = small_seed(&network, |config| {
        config.protocol.wire_format = WireFormat::Hashicorp;
        config.protocol.stream_timeout = Duration::from_secs(9);
    })
    .await;
    let mut config = quick("go");
    config.protocol.wire_format = WireFormat::Hashicorp;
    config.protocol.stream_timeout = Duration::from_secs(10);
    let node = Memberlist::start(bind(&network), config).await.unwrap();
    let (idle, to) = (bind(&network), seed.addr().to_string());
    let held = occupy(&idle, &seed, Dialect::Hashicorp).await;

    let began = Instant::now();
    let error = error_of(node.join([&to]).await);
    let took = began.elapsed();
    assert!(matches!(&error, ExchangeError::Refused { message, .. } if message.contains("later")));
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(4), "{took:?}");
    let stats = seed.stats().await.unwrap();
    assert_eq!((stats.drops(DropReason::TooManyPushPulls), stats.joins_deferred), (1, 0));

    // Its turn comes while it waits.
    let leaves = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(held);
    };
    let (joined, ()) = tokio::join!(node.join([&to]), leaves);
    joined.unwrap();
}

fn key() -> SecretKey {
    SecretKey::from_bytes(&[7; 32]).unwrap()
}

/// A seed that stays busy is given up; under encryption its answer is as good as any other.
#[tokio::test(start_paused = true)]
async fn a_seed_that_stays_busy_is_given_up() {
    for encrypted in [false, true] {
        let network = network();
        let encryption = || encrypted.then(|| Encryption::new(Keyring::new(key())));
        let seed = small_seed(&network, |config| {
            // A thirtieth of it goes by in its line, each time.
            config.protocol.stream_timeout = Duration::from_secs(60);
            config.encryption = encryption().map(|mut encryption| {
                // So that the test can ask in the clear.
                encryption.verify_incoming = false;
                encryption
            });
        })
        .await;
        let idle = bind(&network);
        let held = occupy(&idle, &seed, Dialect::Native).await;
        let mut config = quick("node");
        config.encryption = encryption();
        let node = Memberlist::start(bind(&network), config).await.unwrap();
        let began = Instant::now();
        let error = error_of(node.join([seed.addr().to_string()]).await);
        assert!(matches!(error, ExchangeError::Busy { attempts: 2.., .. }), "{error}");
        // Three of its own timeouts, and what the last attempt takes.
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        drop(held);
    }
}

/// A join that is given up while it waits to ask again does not ask again.
#[tokio::test(start_paused = true)]
async fn a_join_that_is_given_up_asks_no_more() {
    let network = network();
    let seed = small_seed(&network, |_| {}).await;
    let idle = bind(&network);
    let node = Memberlist::start(bind(&network), quick("node")).await.unwrap();
    let _held = occupy(&idle, &seed, Dialect::Native).await;
    let asked = tokio::time::timeout(Duration::from_secs(1), node.join([seed.addr().to_string()]));
    asked.await.map(drop).unwrap_err();
    let before = node.stats().await.unwrap();
    assert!(before.joins_retried > 0, "it was told to come back");
    tokio::time::sleep(Duration::from_secs(30)).await;
    let after = node.stats().await.unwrap();
    assert_eq!((after.joins_retried, after.push_pulls), (before.joins_retried, before.push_pulls));
}

/// A stream for which there is no place is told so before its question is read to the end, which may be long,
/// under the key that it asked with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_turned_away_hears_of_it_whatever_it_says() {
    for encrypted in [false, true] {
        let cluster = Cluster::<NetTransport>::new();
        let encryption = || encrypted.then(|| Encryption::new(Keyring::new(key())));
        let config = |name: &str| {
            let mut config = quick(name);
            config.protocol.compression = false;
            config.encryption = encryption();
            config
        };
        let mut small = config("seed");
        small.max_inbound_streams = 1;
        small.protocol.stream_timeout = Duration::from_secs(60);
        let seed = cluster.start(Builder::new(small)).await;
        // It takes the only place, and says nothing.
        let held = TcpStream::connect(seed.addr()).await.unwrap();
        let mut long = config("long");
        long.protocol.stream_timeout = Duration::from_secs(1);
        let long = cluster.start(Builder::new(long).delegate(Large)).await;
        let mut short = config("short");
        short.protocol.stream_timeout = Duration::from_secs(1);
        let short = cluster.start(Builder::new(short)).await;
        let to = seed.addr().to_string();
        for node in [&long, &short] {
            let error = error_of(within("the end of the join", node.join([&to])).await);
            assert!(matches!(error, ExchangeError::Busy { .. }), "{}: {error}", node.name());
        }
        // A question that was not read is none of a join that is known.
        assert!(seed.stats().await.unwrap().joins_deferred > 0);
        assert!(seed.streams_refused() > 0);
        drop(held);
        for node in [&long, &short] {
            within("a join", node.join([&to])).await.unwrap();
        }
    }
}

/// A hostile seed whose busy answers are garbage, or lead nowhere, or never end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_seed_costs_a_bounded_number_of_attempts() {
    let record = |body: &[u8]| {
        let frame = [&[0, 0, 0, 0, 1, 23], body].concat();
        [&[0x4d, 1], &(frame.len() as u32).to_be_bytes()[..], &frame].concat()
    };
    let member = |ip: [u8; 4], port: u8| [&[1, b'x', 4], &ip[..], &[port]].concat();
    let naming = |member: Vec<u8>| record(&[vec![1, 1], member].concat());
    for (answer, says, most) in [
        (record(&[]), "bad busy answer", 1),
        (record(&[1, 200]), "more than four", 1),
        (naming(member([0; 4], 80)), "cannot be the address of a node", 1),
        (naming(member([127, 0, 0, 1], 0)), "cannot be the address of a node", 1),
        (naming(member([127, 0, 0, 1], 1)), "is busy", 10),
        (record(&[0, 0]), "is busy", 10),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let seed = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let (count, said) = (Arc::clone(&asked), answer.clone());
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let mut question = [0; 1024];
                let _ = stream.read(&mut question).await;
                let _ = stream.write_all(&said).await;
            }
        });
        let transport = NetTransport::bind_addr("127.0.0.1:0".parse().unwrap()).unwrap();
        let node = Memberlist::start(transport, quick("node")).await.unwrap();
        let error = error_of(within("the end of the join", node.join([&seed])).await).to_string();
        let refused = error.contains("refused");
        assert!(error.contains(says) || (says == "is busy" && refused), "{says}: {error}");
        let asked = asked.load(Ordering::Relaxed);
        assert!((1..=most).contains(&asked), "{says}: asked {asked} times");
        serving.abort();
    }
}
