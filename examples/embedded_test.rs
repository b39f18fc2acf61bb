//! How an application that uses memberlist is tested: a whole cluster in one thread, over a network in
//! memory that can be cut and slowed down, on a clock that jumps.
//!
//! The application is small: the member that is on duty is the live one with the first name. The three
//! tests are what one would ask of it: that duty passes on when its holder dies, what happens to it in
//! a partition, and that a bad network does not make it wander.
//!
//! The clock is tokio's, paused: when all tasks wait it goes to the next timer at once, so minutes of
//! protocol take milliseconds. For that all must wait on tokio's timers and channels. What holds the
//! clock up or is not under it: real sockets, `std::thread::sleep`, `std::time::Instant`, work in
//! `spawn_blocking`, and so the notifications of a `Delegate`; tests take events by `subscribe`.
//!
//! ```text
//! cargo run --release --example embedded_test
//! cargo test -p memberlist-examples --example embedded_test
//! ```
//!
//! `start_paused` needs tokio's feature `test-util`; put it into your dev-dependencies.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use memberlist::memory::{LinkConfig, MemoryNetwork, MemoryTransport};
use memberlist::{Config, Event, Memberlist, NodeState, Subscription, Transport};
use tokio::time::{Instant, sleep, timeout};

// ---- the application -----------------------------------------------------------------------------

/// Who is on duty, as this node sees it. Generic over the transport, so that it runs on sockets in
/// production and in memory here.
fn on_duty<T: Transport>(node: &Memberlist<T>) -> Option<String> {
    node.members().first().map(|member| member.id().to_string())
}

// ---- what its tests share ------------------------------------------------------------------------

type Node = Memberlist<MemoryTransport>;

/// Of the paused clock: it costs nothing, so it can be generous.
const BOUND: Duration = Duration::from_secs(300);

/// Nodes of these names, joined, all of which know each other.
async fn cluster<const N: usize>(network: &MemoryNetwork, names: [&str; N]) -> [Node; N] {
    let mut nodes = Vec::new();
    for name in names {
        let transport = network.bind(SocketAddr::from(([10, 0, 0, 1], 0))).expect("a free port");
        let mut config = Config::lan(name);
        // Failed members are looked for at this interval; in production 30 seconds will do.
        config.protocol.reconnect_interval = Duration::from_secs(5);
        nodes.push(Memberlist::start(transport, config).await.expect("usable settings"));
    }
    for node in &nodes[1..] {
        node.join([nodes[0].addr().to_string()]).await.expect("the first node answers");
    }
    let all = nodes.iter().collect::<Vec<_>>();
    until("all know each other", || all.iter().all(|node| node.member_count() == N)).await;
    nodes.try_into().expect("as many nodes as names")
}

/// Waits on the paused clock: each look costs no time of the machine's.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + BOUND;
    while !holds() {
        assert!(Instant::now() < deadline, "this did not happen: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Takes events until the one that is wanted.
async fn expect(events: &mut Subscription, what: &str, wanted: impl Fn(&Event) -> bool) -> Event {
    let mut seen = Vec::new();
    let looking = async {
        while let Some(event) = events.next().await {
            if wanted(&event) {
                return Some(event);
            }
            seen.push(event);
        }
        None
    };
    match timeout(BOUND, looking).await {
        Ok(Some(event)) => event,
        _ => panic!("this did not happen: {what}; instead: {seen:#?}"),
    }
}

/// A subscription begins with a snapshot, made when the first event is asked for: from here on
/// everything counts.
async fn subscribe(node: &Node) -> Subscription {
    let mut events = node.subscribe();
    expect(&mut events, "a snapshot", |event| matches!(event, Event::Snapshot { .. })).await;
    events
}

fn is_about(event: &Event, name: &str) -> bool {
    matches!(event, Event::Joined(member) | Event::Left(member) if member.id().as_str() == name)
}

// ---- the tests -----------------------------------------------------------------------------------

async fn duty_passes_on_when_its_holder_dies() {
    let network = MemoryNetwork::new(1);
    let [ada, bob, eve] = cluster(&network, ["ada", "bob", "eve"]).await;
    assert_eq!(on_duty(&eve).as_deref(), Some("ada"));

    let mut events = subscribe(&eve).await;
    let began = Instant::now();
    // No farewell: as if its process had been killed.
    ada.shutdown().await;
    let died = expect(&mut events, "ada dies", |event| is_about(event, "ada")).await;
    assert!(matches!(&died, Event::Left(member) if member.state == NodeState::Dead), "{died:?}");
    until("bob takes over", || {
        [&bob, &eve].iter().all(|node| on_duty(node).as_deref() == Some("bob"))
    })
    .await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(60), "it took {took:?}");
}

async fn a_partition_has_two_on_duty_until_it_heals() {
    let network = MemoryNetwork::new(2);
    let [ada, bob, eve, joe] = cluster(&network, ["ada", "bob", "eve", "joe"]).await;
    let mut events = subscribe(&joe).await;

    network.partition(&[ada.addr(), bob.addr()], &[eve.addr(), joe.addr()]);
    until("each side buries the other", || {
        [&ada, &bob, &eve, &joe].iter().all(|node| node.member_count() == 2)
    })
    .await;
    // What gossip cannot give: one holder at any time. An application that needs it asks a quorum.
    assert_eq!(on_duty(&bob).as_deref(), Some("ada"));
    assert_eq!(on_duty(&eve).as_deref(), Some("eve"));

    network.heal();
    let gone = expect(&mut events, "joe loses ada", |event| is_about(event, "ada")).await;
    assert!(matches!(gone, Event::Left(_)), "{gone:?}");
    let back = expect(&mut events, "ada comes back", |event| is_about(event, "ada")).await;
    assert!(matches!(back, Event::Joined(_)), "{back:?}");
    until("ada is on duty everywhere", || {
        [&ada, &bob, &eve, &joe].iter().all(|node| on_duty(node).as_deref() == Some("ada"))
    })
    .await;
}

async fn a_lossy_network_does_not_move_duty() {
    let network = MemoryNetwork::new(3);
    let [ada, bob, eve] = cluster(&network, ["ada", "bob", "eve"]).await;
    let mut events = subscribe(&bob).await;
    network.set_default_link(LinkConfig {
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(30),
        loss: 0.1,
        ..LinkConfig::default()
    });
    // Not a wait for something: this much life, in which nothing is to happen.
    sleep(Duration::from_secs(600)).await;
    assert!(network.stats().packets_lost > 0, "{:?}", network.stats());
    for node in [ada, bob, eve] {
        assert_eq!(on_duty(&node).as_deref(), Some("ada"), "at {}", node.name());
        node.shutdown().await;
    }
    // After the shutdown the subscription gives what it still has, and then ends.
    while let Some(event) = events.next().await {
        assert!(!matches!(event, Event::Left(_)), "nobody was to be lost: {event:?}");
    }
}

/// Here the bodies run one after the other, on one clock; a panic makes the program fail.
#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() {
    let (real, virtual_clock) = (std::time::Instant::now(), Instant::now());
    duty_passes_on_when_its_holder_dies().await;
    say("duty passes on when its holder dies: ok");
    a_partition_has_two_on_duty_until_it_heals().await;
    say("a partition has two on duty until it heals: ok");
    a_lossy_network_does_not_move_duty().await;
    say("a lossy network does not move duty: ok");
    say(&format!("{:?} of the cluster's time in {:?}", virtual_clock.elapsed(), real.elapsed()));
}

fn say(line: &str) {
    // An error means that nobody reads.
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    #[tokio::test(start_paused = true)]
    async fn duty_passes_on_when_its_holder_dies() {
        super::duty_passes_on_when_its_holder_dies().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_partition_has_two_on_duty_until_it_heals() {
        super::a_partition_has_two_on_duty_until_it_heals().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_lossy_network_does_not_move_duty() {
        super::a_lossy_network_does_not_move_duty().await;
    }
}
