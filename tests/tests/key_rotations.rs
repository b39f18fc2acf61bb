//! Rotations in virtual time, most among members that are far from each other: others rotate, join,
//! give up and leave meanwhile. Every seed gives other delays and another moment.

use std::time::Duration;

use memberlist::memory::{MemoryNetwork, MemoryTransport};
use memberlist::security::Fingerprint;
use memberlist::transport::memory::LinkConfig;
use memberlist::{Config, Encryption, Keys, KeysError, Memberlist, NodeState};
use memberlist_tests::keys::{key, keyring, name};
use memberlist_tests::wait::until;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

type Node = Memberlist<MemoryTransport>;

fn keys(node: &Node) -> Keys<'_, MemoryTransport> {
    node.keys().unwrap()
}

fn held(node: &Node) -> Vec<Fingerprint> {
    keys(node).local().iter().map(|info| info.fingerprint).collect()
}

/// Each opens what the others seal.
fn check_nobody_is_cut_off(nodes: &[Node], what: &str) {
    let all: Vec<_> = nodes.iter().map(held).collect();
    let understood = |sealing: &Vec<_>| all.iter().all(|held| held.contains(&sealing[0]));
    assert!(all.iter().all(understood), "{what}: {all:?}");
}

/// How far members are from each other, in milliseconds at most, and how they are set for that.
type Distance = (u64, fn(&str) -> Config);
const FAR: Distance = (150, |name| Config::wan(name));
const NEAR: Distance = (3, |name| Config::lan(name));

struct Cluster {
    network: MemoryNetwork,
    nodes: Vec<Node>,
    rng: StdRng,
}

async fn start(network: &MemoryNetwork, (_, preset): Distance, name: &str, keys: &[u8]) -> Node {
    let mut config = preset(name);
    config.encryption = Some(Encryption::new(keyring(keys)));
    let transport = network.bind("10.0.0.1:0".parse().unwrap()).unwrap();
    Memberlist::start(transport, config).await.unwrap()
}

/// Members with these keys that know each other, with other delays on every way.
async fn cluster(distance: Distance, seed: u64, members: usize, keys: &[u8]) -> Cluster {
    let network = MemoryNetwork::new(seed);
    let mut nodes = Vec::new();
    for i in 0..members {
        nodes.push(start(&network, distance, &format!("n{i}"), keys).await);
    }
    for node in &nodes[1..] {
        node.join([nodes[0].addr().to_string()]).await.unwrap();
    }
    let agree = || nodes.iter().all(|node| node.alive_members().len() == members);
    until("they know each other", agree).await;
    let mut rng = StdRng::seed_from_u64(seed);
    let ms = Duration::from_millis;
    network.set_default_link(LinkConfig { delay: ms(distance.0 / 2), ..Default::default() });
    for from in &nodes {
        for to in &nodes {
            let delay = ms(rng.random_range(1..distance.0));
            let link = LinkConfig { delay, jitter: ms(distance.0 / 4), ..Default::default() };
            network.set_link(from.addr(), to.addr(), link);
        }
    }
    Cluster { network, nodes, rng }
}

#[tokio::test(start_paused = true)]
async fn two_rotations_at_once_cut_nobody_off() {
    for seed in 0..20 {
        // In half of them, both have been begun before: the keys are there already.
        let all: &[u8] = if seed % 2 == 0 { &[1] } else { &[1, 2, 3] };
        let Cluster { nodes, mut rng, network: _network } = cluster(FAR, seed, 4, all).await;
        let wait = Duration::from_millis(rng.random_range(0..8000));
        let (one, other) = (keys(&nodes[0]), keys(&nodes[3]));
        let late = async {
            tokio::time::sleep(wait).await;
            other.rotate_to(key(3)).await
        };
        let ended = tokio::join!(one.rotate_to(key(2)), late);
        check_nobody_is_cut_off(&nodes, &format!("seed {seed}, {ended:?}"));
    }
}

#[tokio::test(start_paused = true)]
async fn two_that_are_repeated_both_come_to_their_end() {
    async fn until_done(node: &Node, wait: u64) {
        tokio::time::sleep(Duration::from_millis(wait)).await;
        for _ in 0..30 {
            if keys(node).rotate().await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        panic!("in the other's way for ever");
    }
    for seed in 0..10 {
        let Cluster { nodes, mut rng, network: _network } = cluster(FAR, seed, 4, &[1]).await;
        let wait = rng.random_range(0..2000);
        tokio::join!(until_done(&nodes[0], 0), until_done(&nodes[3], wait));
        let primary = held(&nodes[0])[0];
        assert!(nodes.iter().all(|node| held(node) == [primary]), "seed {seed}");
    }
}

/// Through a member that does not rotate, so that who does hears of it late.
#[tokio::test(start_paused = true)]
async fn who_joins_during_a_rotation_is_brought_along() {
    for seed in 0..30 {
        let Cluster { network, mut nodes, mut rng } = cluster(NEAR, seed, 4, &[1]).await;
        // Shortly before the old key is removed.
        let wait = Duration::from_millis(rng.random_range(900..1100));
        let seed_addr = nodes[3].addr().to_string();
        let joining = async {
            tokio::time::sleep(wait).await;
            let joiner = start(&network, NEAR, "joiner", &[1]).await;
            joiner.join([seed_addr]).await.is_ok().then_some(joiner)
        };
        let rotator = keys(&nodes[0]);
        let (ended, joiner) = tokio::join!(rotator.rotate_to(key(2)), joining);
        tokio::time::sleep(Duration::from_secs(30)).await;
        nodes.extend(joiner);
        if ended.is_err() {
            keys(&nodes[0]).rotate_to(key(2)).await.unwrap();
        }
        check_nobody_is_cut_off(&nodes, &format!("seed {seed}, {wait:?}, {ended:?}"));
        assert!(nodes.iter().all(|node| held(node)[0] == name(2)), "seed {seed}, {wait:?}");
    }
}

/// What was sealed with the old key has time to arrive, also where nothing is probed.
#[tokio::test(start_paused = true)]
async fn the_old_key_stays_for_a_while() {
    let network = MemoryNetwork::new(1);
    let quiet = |name: &str| {
        let mut config = Config::lan(name);
        config.protocol.probe_interval = Duration::ZERO;
        config
    };
    let node = start(&network, (1, quiet), "n0", &[1]).await;
    let began = tokio::time::Instant::now();
    keys(&node).rotate_to(key(2)).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
}

/// Its rotation was dropped when some had its key; another has replaced all keys since.
#[tokio::test(start_paused = true)]
async fn a_key_that_was_given_up_does_not_come_back() {
    let Cluster { nodes, network: _network, .. } = cluster(FAR, 1, 4, &[1]).await;
    let has_begun = || nodes[1..].iter().any(|node| held(node).len() == 2);
    tokio::select! {
        _ = async { keys(&nodes[0]).rotate().await } => panic!("it is to be stopped before"),
        () = until("somebody has the new key", has_begun) => {}
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(held(&nodes[0]), [name(1)]);
    let begun = nodes[1..].iter().find_map(|node| held(node).get(1).copied()).unwrap();
    keys(&nodes[1]).rotate_to(key(9)).await.unwrap();
    assert!(nodes.iter().all(|node| held(node) == [name(9)]));
    let (again, _) = keys(&nodes[0]).rotate().await.unwrap();
    assert_ne!(again, begun);
}

/// It still runs, and would come back with the old key.
#[tokio::test(start_paused = true)]
async fn who_has_left_is_named_and_does_not_rotate() {
    let Cluster { nodes, network: _network, .. } = cluster(FAR, 1, 3, &[1]).await;
    nodes[2].leave(Duration::from_secs(30)).await.unwrap();
    for refused in [
        keys(&nodes[2]).rotate_to(key(2)).await.map(drop),
        keys(&nodes[2]).activate(name(1)).await.map(drop),
        keys(&nodes[2]).remove(name(1)).await.map(drop),
    ] {
        assert_eq!(refused, Err(KeysError::Left));
    }
    let left = || nodes[0].member("n2").is_some_and(|n2| n2.state == NodeState::Left);
    until("it has left", left).await;
    let report = keys(&nodes[0]).rotate_to(key(2)).await.unwrap();
    let absent: Vec<_> = report.absent.iter().map(|id| id.as_str()).collect();
    assert_eq!(absent, ["n2"]);
    // Also when it is not kept in the list any more.
    until("it is forgotten", || nodes[0].member("n2").is_none()).await;
    assert_eq!(keys(&nodes[0]).list().await.absent.len(), 1);
}
