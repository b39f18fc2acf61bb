//! Packets that no honest node sends.

use std::net::SocketAddr;
use std::time::Duration;

use memberlist::protocol::message::{Alive, Dead, Message, Ping, Suspect};
use memberlist::protocol::wire::{PacketWriter, Room};
use memberlist::protocol::{Dialect, DropReason, Versions};
use memberlist::{Event, NodeState, Stats};
use memberlist_tests::wait::until_async;
use memberlist_tests::{EventLog, agree, until};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::{check_growth, cluster, newcomer_joins, resident_kib};

const LARGEST_PACKET: usize = 65_507;
const FLOOD: Duration = Duration::from_secs(4);

fn packet(messages: &[Message<'_>], limit: usize) -> Vec<u8> {
    let room = Room { head: 0, tail: 0, max_packet_bytes: limit };
    let mut buf = Vec::new();
    let mut writer = PacketWriter::new(&mut buf, Dialect::Native, true, room);
    for message in messages {
        if !writer.push(message) {
            break;
        }
    }
    writer.finish();
    buf
}

fn random_bytes(rng: &mut StdRng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// One packet of garbage; the kinds take turns.
fn garbage(rng: &mut StdRng, turn: u32) -> Vec<u8> {
    let len = rng.random_range(1..1400);
    let ping = Message::Ping(Ping { sequence: turn, node: "n0", source: None, native: true });
    match turn % 12 {
        // Anything.
        0 => random_bytes(rng, len),
        // What Go nodes send first, without and with a label.
        1 => [vec![(turn / 12 % 14) as u8], random_bytes(rng, len)].concat(),
        2 => [vec![244, 5], random_bytes(rng, len)].concat(),
        // A right beginning: of another version, with unknown flags, with a wrong checksum.
        3 => [vec![0x4d, 2, 0], random_bytes(rng, len)].concat(),
        4 => [vec![0x4d, 1, 0x80], random_bytes(rng, len)].concat(),
        5 => [vec![0x4d, 1, 1], random_bytes(rng, len)].concat(),
        // Parts of kinds that nobody knows, parts longer than the packet, bodies of nothing.
        6 => vec![0x4d, 1, 0, 200, 3, 1, 2, 3, 201, 0],
        7 => vec![0x4d, 1, 0, 6, 0xff, 0xff, 0xff, 0xff, 0x0f, 1],
        8 => vec![0x4d, 1, 0, 6, 3, 0xff, 0xff, 0xff, 5, 0, 7, 1, 0xfb],
        // Parts of known kinds, too short to be an announcement, with nothing sensible in them.
        11 if turn % 24 == 11 => {
            let mut packet = vec![0x4d, 1, 0];
            for _ in 0..100 {
                packet.extend([rng.random_range(1..=9), 9]);
                packet.extend(random_bytes(rng, 9));
            }
            packet
        }
        // An honest packet cut short, and one with a bit turned over.
        9 => packet(&[ping], 1400)[..(turn / 12 % 9) as usize + 1].to_vec(),
        10 => {
            let mut bytes = packet(&[ping], 1400);
            let at = rng.random_range(0..bytes.len());
            bytes[at] ^= 1 << rng.random_range(0..8);
            bytes
        }
        // As large as a packet can be: now and then random, now and then full of questions.
        _ if turn % 240 == 23 => random_bytes(rng, LARGEST_PACKET),
        _ if turn % 240 == 143 => packet(&vec![ping; 10_000], LARGEST_PACKET),
        _ => Vec::new(),
    }
}

/// A flood of garbage costs nothing but the packets: the node answers its probes, counts what it
/// drops by reason, and does not grow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_garbage() {
    let (cluster, nodes) = cluster(5000, |_| {}).await;
    let all: Vec<_> = nodes.iter().collect();
    let log = EventLog::of(all[1]).await;
    let attacker = UdpSocket::bind((all[0].addr().ip(), 0)).await.unwrap();
    let memory = resident_kib();
    let before = all[0].stats().await.unwrap();

    let mut rng = StdRng::seed_from_u64(7);
    let (start, mut turn) = (Instant::now(), 0);
    while start.elapsed() < FLOOD {
        for _ in 0..20 {
            // A full socket is the attacker's problem.
            let _ = attacker.send_to(&garbage(&mut rng, turn), all[0].addr()).await;
            turn += 1;
        }
        // The flood is to be hostile, not to take the core that the victim runs on.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    agree(&all).await;
    let stats = all[0].stats().await.unwrap();
    let dropped = |reason| stats.drops(reason) - before.drops(reason);
    for reason in [
        DropReason::Truncated,
        DropReason::Malformed,
        DropReason::Checksum,
        DropReason::WrongFormat,
        DropReason::WrongVersion,
        DropReason::UnknownKind,
        DropReason::BadName,
        DropReason::TooManyAnswers,
    ] {
        assert!(dropped(reason) > 0, "none of {turn} packets was dropped as {}", reason.as_str());
    }
    let expected = u64::from(turn) / 4;
    assert!(stats.packets_received - before.packets_received > expected, "most were lost before");
    assert_eq!(log.count(|event| matches!(event, Event::Left(_) | Event::Joined(_))), 0);
    check_growth(memory);
    newcomer_joins(&cluster, &nodes).await;
}

fn alive<'a>(node: &'a str, addr: SocketAddr, incarnation: u32) -> Message<'a> {
    Message::Alive(Alive {
        incarnation,
        node,
        addr,
        wide_ipv4: false,
        meta: b"",
        versions: Versions::default(),
    })
}

/// Lies about members, told to everybody by somebody who can forge packets, are contradicted by
/// those they are about; claims from which nobody could recover are refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_news() {
    let (cluster, nodes) = cluster(5000, |config| {
        config.protocol.gossip_to_the_dead_time = Duration::from_secs(1);
    })
    .await;
    let all: Vec<_> = nodes.iter().collect();
    let liar = UdpSocket::bind((all[0].addr().ip(), 0)).await.unwrap();
    let thief = liar.local_addr().unwrap();
    let lies = |incarnation| {
        [
            Message::Suspect(Suspect { incarnation, node: "n1", from: "n2" }),
            Message::Dead(Dead { incarnation, node: "n1", from: "n2" }),
            Message::Dead(Dead { incarnation, node: "n2", from: "n2" }),
            Message::Dead(Dead { incarnation, node: "n0", from: "n1" }),
            alive("n1", thief, incarnation),
            alive("n2", thief, incarnation + 1),
        ]
    };
    for incarnation in [1, 2, 3, 1 << 10, u32::MAX - 1, 1 << 31, (1 << 31) - 1] {
        let packet = packet(&lies(incarnation), 1400);
        for node in &all {
            liar.send_to(&packet, node.addr()).await.unwrap();
        }
    }
    until_async("the lies were heard", || async {
        let stats: Stats = all[0].stats().await.unwrap();
        stats.refutations > 0
            && stats.drops(DropReason::IncarnationOutOfRange) > 0
            && stats.drops(DropReason::IncarnationJump) > 0
    })
    .await;
    // A farewell in its name and then an announcement elsewhere do move a member, until it is missed
    // there, forgotten, and believed again.
    agree(&all).await;
    assert!(all.iter().all(|node| node.own().unwrap().incarnation < 1 << 12));
    newcomer_joins(&cluster, &nodes).await;
}

/// A peer that invents members fills the table up to its limit and no further, and costs the real
/// ones nothing. In time the invented ones are found out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invented_members() {
    const LIMIT: usize = 40;
    let cluster = memberlist_tests::Cluster::<memberlist::net::NetTransport>::new();
    let nodes = cluster
        .joined_with(3, |config| {
            config.protocol.max_members = LIMIT;
            config.protocol.gossip_to_the_dead_time = Duration::from_millis(100);
            config.protocol.probe_interval = Duration::from_millis(100);
            config.protocol.probe_timeout = Duration::from_millis(50);
            config.protocol.suspicion_mult = 10;
        })
        .await;
    let all: Vec<_> = nodes.iter().collect();
    let liar = UdpSocket::bind((all[0].addr().ip(), 0)).await.unwrap();
    let nowhere = liar.local_addr().unwrap();
    for i in 0..1000 {
        let name = format!("invented {i}");
        liar.send_to(&packet(&[alive(&name, nowhere, 1)], 1400), all[0].addr()).await.unwrap();
        if i % 100 == 0 {
            // So that the socket's buffer holds them.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    until_async("the table was full", || async {
        all[0].stats().await.unwrap().drops(DropReason::TooManyMembers) > 100
    })
    .await;
    for node in &all {
        assert!(node.known_members().len() <= LIMIT);
        let real = |other: &&super::Node| node.member(other.name());
        assert!(all.iter().filter_map(real).all(|member| member.state != NodeState::Dead));
    }
    drop(liar);
    until("some of them are found out", || {
        let gone = |m: &&memberlist::Member| m.state.is_gone();
        all[0].known_members().iter().filter(gone).count() > 0
    })
    .await;
}
