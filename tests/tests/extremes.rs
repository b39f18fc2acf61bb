//! Every setting that is a number or a time, at its extremes: a node works with it, or says at its start
//! that it cannot. A file of its own: panics of the whole process are counted.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use memberlist::memory::{MemoryNetwork, MemoryTransport};
use memberlist::{Builder, Config, Delegate, StartError};
use memberlist_tests::quick;

fn bind(network: &MemoryNetwork) -> MemoryTransport {
    network.bind("10.0.0.1:0".parse().unwrap()).unwrap()
}

/// A setting, and how it is set to one of some numbers.
type Setting = (&'static str, fn(&mut Config, u64));

macro_rules! counts {
    ($($($field:tt).+),+ $(,)?) => {
        [$((stringify!($($field).+), |config, n| {
            config.$($field).+ = n.try_into().unwrap_or(!0);
        })),+]
    };
}

macro_rules! times {
    ($($field:ident),+ $(,)?) => {
        [$((stringify!($field), |config, n| {
            config.protocol.$field = match n {
                u64::MAX => Duration::MAX,
                n => Duration::from_nanos(n),
            };
        })),+]
    };
}

fn settings() -> Vec<Setting> {
    let counts: [Setting; 25] = counts![
        default_port,
        join_concurrency,
        max_inbound_streams,
        max_buffered_stream_bytes,
        message_capacity,
        event_capacity,
        max_waiting_state_bytes,
        protocol.indirect_probes,
        protocol.suspicion_mult,
        protocol.suspicion_max_timeout_mult,
        protocol.awareness_max_multiplier,
        protocol.gossip_nodes,
        protocol.retransmit_mult,
        protocol.user_broadcast_share_percent,
        protocol.max_user_broadcasts,
        protocol.max_push_pulls,
        protocol.max_tombstones,
        protocol.max_packet_bytes,
        protocol.max_meta_bytes,
        protocol.max_members,
        protocol.max_relays,
        protocol.protocol_version,
        protocol.application_versions.0,
        protocol.application_versions.1,
        protocol.application_versions.2,
    ];
    let times: [Setting; 9] = times![
        probe_interval,
        probe_timeout,
        gossip_interval,
        gossip_to_the_dead_time,
        push_pull_interval,
        stream_timeout,
        dead_node_reclaim_time,
        reconnect_interval,
        reconnect_timeout,
    ];
    counts.into_iter().chain(times).collect()
}

struct App;

impl Delegate for App {
    fn local_state(&self, _: bool) -> memberlist::Bytes {
        vec![1; 1000].into()
    }
}

/// Two nodes do what nodes do, for a while, as far as these settings let them.
async fn live(change: impl Fn(&mut Config)) -> Result<(), StartError> {
    let network = MemoryNetwork::new(1);
    let config = |name: &str| {
        let mut config = quick(name);
        change(&mut config);
        config
    };
    let a = Builder::new(config("a")).delegate(App).start(bind(&network)).await?;
    let (builder, mut messages) = Builder::new(config("b")).messages();
    let b = builder.start(bind(&network)).await?;
    let patience = Duration::from_secs(2);
    let mut events = a.subscribe();
    // What comes of it is not the point: with some settings nothing can.
    let _ = tokio::time::timeout(patience, b.join([a.addr().to_string()])).await;
    let _ = tokio::time::timeout(patience, a.send_reliable("b", "hello")).await;
    let _ = tokio::time::timeout(patience, a.broadcast("hello")).await;
    let _ = tokio::time::timeout(patience, a.update_meta("m")).await;
    let _ = tokio::time::timeout(patience, a.ping("b")).await;
    let _ = tokio::time::timeout(patience, messages.next()).await;
    b.shutdown().await;
    let ended = tokio::time::timeout(patience, async { while events.next().await.is_some() {} });
    let _ = ended.await;
    a.stats().await.expect("the node's task is there");
    Ok(())
}

/// A panic in one of a node's tasks need not be seen by anybody else.
static PANICS: AtomicU32 = AtomicU32::new(0);

#[tokio::test(start_paused = true)]
async fn every_setting_at_its_extremes_works_or_is_an_error() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        before(info);
    }));
    for (name, set) in settings() {
        for number in [0, 1, u64::MAX] {
            let lived = tokio::spawn(live(move |config| set(config, number))).await;
            let lived = lived.unwrap_or_else(|_| panic!("{name} = {number} panics"));
            if let Err(error) = lived {
                let field = name.split('.').nth(1).unwrap_or(name);
                assert!(error.to_string().contains(field), "{name} = {number}: {error}");
            }
            assert_eq!(PANICS.load(Ordering::Relaxed), 0, "{name} = {number} panics in a task");
        }
    }
}
