//! Settings against each other: a node works with them, or says at its start which do not go together.

use memberlist::memory::{MemoryNetwork, MemoryTransport};
use memberlist::protocol::DropReason;
use memberlist::{Config, Encryption, InboundLabel, Memberlist, NodeState, StartError};
use memberlist_tests::keys::keyring;
use memberlist_tests::{quick, until};

type Node = Memberlist<MemoryTransport>;

fn bind(network: &MemoryNetwork) -> MemoryTransport {
    network.bind("10.0.0.1:0".parse().unwrap()).unwrap()
}

async fn started(config: Config) -> Result<Node, StartError> {
    Memberlist::start(bind(&MemoryNetwork::new(1)), config).await
}

/// Room for the longest meta that may be announced, and for what goes around packets.
fn with_layers(name: &str, label: usize, meta: usize) -> Config {
    let mut config = quick(name);
    config.label = "l".repeat(label);
    config.encryption = Some(Encryption::new(keyring(&[1])));
    config.protocol.max_meta_bytes = meta;
    config
}

/// Otherwise it would be told dead one day, and could not contradict.
#[tokio::test(start_paused = true)]
async fn a_node_that_could_not_announce_itself_is_not_started() {
    // 1,400 bytes, less 257 of label, 29 of seal, 128, and the name's 100.
    let (name, room) = ("c".repeat(100), 886);
    started(with_layers(&name, 255, room)).await.unwrap();
    let mut too_much = with_layers(&name, 255, room + 1);
    let error = started(too_much.clone()).await.unwrap_err();
    let StartError::Announcement { label: 257, sealing: 29, name: 100, .. } = error else {
        panic!("{error}")
    };
    for told in ["1401 bytes", "1400 (`protocol.max_packet_bytes`", "887 of meta", "`label`"] {
        assert!(error.to_string().contains(told), "{error}");
    }
    // Keys count before they are used: nothing tells when they are.
    let encryption = too_much.encryption.as_mut().unwrap();
    (encryption.encrypt_outgoing, encryption.verify_incoming) = (false, false);
    assert!(matches!(started(too_much.clone()).await, Err(StartError::Announcement { .. })));
    too_much.label.pop();
    started(too_much).await.unwrap();
}

/// With as much of everything as a start allows, a suspicion is contradicted.
#[tokio::test(start_paused = true)]
async fn the_longest_announcement_reaches_everybody() {
    let network = MemoryNetwork::new(1);
    let start = |name: &str| Memberlist::start(bind(&network), with_layers(name, 255, 886));
    let (a, b) = (start("a").await.unwrap(), start(&"c".repeat(100)).await.unwrap());
    b.join([a.addr().to_string()]).await.unwrap();
    b.update_meta(vec![7; 886]).await.unwrap();
    let seen = |state, meta| {
        a.member(b.name()).is_some_and(|m| m.state == state && m.node.meta.len() == meta)
    };
    until("the meta arrives", || seen(NodeState::Alive, 886)).await;
    network.block(a.addr(), b.addr());
    network.block(b.addr(), a.addr());
    until("it is suspected", || seen(NodeState::Suspect, 886)).await;
    network.heal();
    until("it contradicts", || seen(NodeState::Alive, 886)).await;
    assert_eq!(b.stats().await.unwrap().drops(DropReason::TooLargeToSend), 0);
}

#[tokio::test(start_paused = true)]
async fn a_label_that_is_checked_but_not_sent_is_an_error() {
    let mut config = quick("a");
    config.label_outgoing = false;
    started(config.clone()).await.unwrap();
    config.label = "blue".to_owned();
    let error = started(config.clone()).await.unwrap_err();
    assert!(error.to_string().contains("`label_outgoing`"), "{error}");
    config.inbound_label = InboundLabel::Optional;
    started(config).await.unwrap();
}
