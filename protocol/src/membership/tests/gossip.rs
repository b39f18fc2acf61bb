//! What goes into packets, when, and to whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::error::BroadcastError;
use crate::membership::gossip::Outgoing;
use crate::membership::{Priority, Relation, scale};
use crate::message::Broadcast;
use crate::stats::{PacketKind, Packets};
use crate::wire::{PacketReader, WireFormat};

fn broadcast(one: &mut One, payload: &[u8], priority: Priority) {
    one.machine.broadcast(payload, Relation::Unique, priority, one.now).unwrap();
}

/// The payloads of the user broadcasts in a packet.
fn broadcasts(sent: &Sent) -> Vec<Vec<u8>> {
    let payload = |message: &Message<'_>| match message {
        Message::Broadcast(broadcast) => Some(broadcast.payload.to_vec()),
        _ => None,
    };
    sent.messages().iter().filter_map(payload).collect()
}

/// One packet of gossip, filled as far as it goes.
fn one_packet(one: &mut One) -> Option<Sent> {
    one.machine.send_later(Outgoing::Gossip { to: Peer::named(addr(1), id(1)), eager: false });
    let at = one.elapsed();
    let mut sent = take_packets(&mut one.machine, at, one.room);
    assert!(sent.len() <= 1);
    sent.pop()
}

#[test]
fn no_tick_runs_while_nothing_is_queued() {
    let mut one = One::knowing(quiet(), 5);
    one.healthy = true;
    one.advance(secs(5));
    assert!(one.machine.gossip_timer.is_none());
    assert_eq!(one.machine.pending().timers, 1, "the next probe alone");
    assert_eq!(one.sent_first(MessageKind::Ping).len(), one.sent.len() + 5);

    one.receive(1, &[suspect("n2", 1, "n1")]);
    assert!(one.machine.gossip_timer.is_some());
    one.receive(1, &[Message::Alive(alive("n2", 2, 2))]);
    one.advance(secs(10));
    assert!(one.machine.gossip_timer.is_none());
    assert_eq!(one.queued().len(), 0);
}

#[test]
fn without_gossip_news_ride_on_pings_and_acks_alone() {
    for (interval, nodes) in [(Duration::ZERO, 3), (ms(200), 0)] {
        let mut config = quiet();
        (config.gossip_interval, config.gossip_nodes) = (interval, nodes);
        let mut one = One::knowing(config, 3);
        one.healthy = true;
        one.receive(1, &[dead("n2", 1, "n1")]);
        assert!(one.machine.gossip_timer.is_none());
        one.advance(secs(3));
        let sent = one.sent();
        assert!(sent.iter().all(|sent| sent.kinds() == [MessageKind::Ping, MessageKind::Dead]));
        assert_eq!(sent.len(), 3);
        one.receive(3, &[ping(1, "n3", 3)]);
        assert_eq!(one.sent()[0].kinds(), [MessageKind::Ack, MessageKind::Dead]);
    }
}

#[test]
fn news_is_sent_as_often_as_the_limit_says() {
    for others in [1, 3, 8, 9, 98, 120] {
        let mut one = One::knowing(quiet(), others);
        one.healthy = true;
        one.receive(1, &[Message::Alive(alive("new", 900, 1))]);
        one.advance(secs(20));
        let copies: Vec<_> =
            one.sent().into_iter().filter(|s| s.kinds().contains(&MessageKind::Alive)).collect();
        let limit = scale::news_limit(4, others + 2);
        assert_eq!(copies.len(), limit as usize, "{others}");
        assert!(one.queued().is_empty());
    }
}

fn ticks_only() -> Config {
    let mut config = quiet();
    config.eager_gossip_spacing = Duration::ZERO;
    config
}

#[test]
fn each_tick_tells_some_different_members() {
    let mut one = One::knowing(ticks_only(), 20);
    one.machine.config.probe_timeout = ms(999);
    one.receive(1, &[dead("n1", 1, "n1"), Message::Alive(alive("n2", 2, 2))]);
    one.advance(secs(1));
    let gossip: Vec<_> =
        one.sent().into_iter().filter(|sent| sent.kinds()[0] != MessageKind::Ping).collect();
    assert!(gossip.len() >= 6);
    for tick in gossip.chunks(3).take(2) {
        assert!(tick.iter().all(|sent| sent.at == tick[0].at));
        let mut told: Vec<_> = tick.iter().map(Sent::to_name).collect();
        told.sort_unstable();
        told.dedup();
        assert_eq!(told.len(), 3);
        // Neither to itself nor to who left.
        assert!(!told.contains(&"n0") && !told.contains(&"n1"));
    }
    assert_eq!(gossip[3].at - gossip[0].at, ms(200));
}

#[test]
fn the_first_tick_comes_at_a_random_time_within_the_interval() {
    let firsts: Vec<_> = (0..20)
        .map(|seed| {
            let mut net = Net::strangers(1, ticks_only(), seed);
            let machine = &mut net.hosts[0].machine;
            machine.testing_alive(&alive("n1", 1, 1), net.began);
            net.run(ms(999));
            net.log.iter().find(|(_, sent)| sent.kinds()[0] != MessageKind::Ping).unwrap().1.at
        })
        .collect();
    assert!(firsts.iter().all(|at| *at <= ms(200)), "{firsts:?}");
    let early = firsts.iter().filter(|at| **at < ms(100)).count();
    assert!((4..=16).contains(&early), "{early} of 20 in the first half");
}

#[test]
fn the_dead_are_told_for_a_while_and_who_left_is_not() {
    let mut config = quiet();
    config.probe_interval = Duration::ZERO;
    let mut one = One::knowing(config, 2);
    one.receive(1, &[dead("n1", 1, "n9"), dead("n2", 1, "n2")]);
    one.machine.testing_clear();
    let told = |one: &mut One| {
        one.machine.update_meta(Bytes::new(), one.now).unwrap();
        one.sent();
        one.advance(secs(2));
        let mut told: Vec<_> = one.sent().iter().map(|s| s.to_name().to_owned()).collect();
        told.dedup();
        told
    };
    assert_eq!(told(&mut one), ["n1"]);
    one.advance(secs(26));
    assert_eq!(told(&mut one), ["n1"], "after {:?}", one.elapsed());
    one.advance(secs(2));
    assert_eq!(told(&mut one), [""; 0], "after {:?}", one.elapsed());
    assert!(one.machine.gossip_timer.is_none(), "with nobody to tell there is no tick");
    // What waits is told to the next who comes.
    one.receive(3, &[Message::Alive(alive("n3", 3, 1))]);
    one.advance(secs(1));
    assert!(one.sent().iter().any(|sent| sent.kinds().len() == 2));
}

#[test]
fn only_the_first_answer_to_a_packet_carries_news() {
    let mut one = One::knowing(quiet(), 2);
    one.receive(1, &[dead("n2", 1, "n2")]);
    one.receive(1, &[ping(1, "n1", 1), ping(2, "n1", 1)]);
    let acks = one.sent_first(MessageKind::Ack);
    let parts: Vec<_> = acks.iter().map(|ack| ack.kinds().len()).collect();
    assert_eq!(parts, [2, 1]);
}

/// Keeps more news queued than any packet holds.
fn saturate(one: &mut One, round: u32) {
    for i in 1..=60 {
        let (node, meta) = (name(i), [b'm'; 100]);
        let news = Alive { meta: &meta, ..alive(&node, i, round + 2) };
        one.machine.testing_alive(&news, one.now);
    }
    one.events();
}

/// What a stream of packets was used for, in bytes and in sightings of one payload.
#[derive(Default, Debug)]
struct Used {
    news: usize,
    user: usize,
}

fn measure(sent: &Sent) -> Used {
    let mut used = Used::default();
    for message in sent.messages() {
        let mut encoded = Vec::new();
        Dialect::Native.encode(&message, &mut encoded);
        match message.kind() {
            MessageKind::Broadcast => used.user += encoded.len(),
            _ => used.news += encoded.len(),
        }
    }
    used
}

#[test]
fn user_broadcasts_get_their_share_and_no_more_while_news_wait() {
    let mut one = One::knowing(quiet(), 60);
    let mut used = Used::default();
    for round in 0..200 {
        saturate(&mut one, round);
        for _ in 0..10 {
            broadcast(&mut one, &[b'u'; 100], Priority::Normal);
        }
        let packet = one_packet(&mut one).unwrap();
        let this = measure(&packet);
        (used.news, used.user) = (used.news + this.news, used.user + this.user);
    }
    let percent = 100 * used.user / (used.user + used.news);
    assert!((22..=32).contains(&percent), "{percent} %");
}

#[test]
fn with_no_share_user_broadcasts_get_what_is_left() {
    let mut config = quiet();
    config.user_broadcast_share_percent = 0;
    let mut one = One::knowing(config, 60);
    broadcast(&mut one, &[b'u'; 300], Priority::High);
    for round in 0..30 {
        saturate(&mut one, round);
        assert_eq!(measure(&one_packet(&mut one).unwrap()).user, 0);
    }
    one.machine.news.prune(1, |_| {});
    assert!(measure(&one_packet(&mut one).unwrap()).user > 300);
}

#[test]
fn news_get_through_however_many_user_broadcasts_wait() {
    let mut one = One::knowing(quiet(), 5);
    for _ in 0..500 {
        broadcast(&mut one, &[b'u'; 200], Priority::High);
    }
    one.receive(1, &[suspect("n2", 1, "n1")]);
    let packet = one_packet(&mut one).unwrap();
    assert!(packet.kinds().contains(&MessageKind::Suspect));
    assert!(measure(&packet).user > 1000, "what news leave is theirs");
}

/// A member of a mixed cluster of which no other is known to read the native format. It has heard
/// broadcasts, which it would pass on.
fn among_go_nodes() -> One {
    let mut config = quiet();
    config.wire_format = WireFormat::Mixed;
    config.probe_interval = Duration::ZERO;
    let mut one = One::knowing(config, 30);
    for sequence in 1..=40 {
        let (origin, payload) = ("n1", [b'u'; 30].as_slice());
        let heard = Broadcast {
            origin,
            epoch: 1,
            sequence,
            hops: 0,
            priority: sequence as u8 % 3,
            payload,
        };
        one.receive(1, &[Message::Broadcast(heard)]);
    }
    one
}

#[test]
fn broadcasts_that_a_member_is_not_sent_take_no_room_from_its_news() {
    let mut one = among_go_nodes();
    for round in 2..10 {
        one.machine.testing_alive(&alive("n2", 2, round), one.now);
        one.machine.send_later(Outgoing::Gossip { to: Peer::named(addr(1), id(1)), eager: false });
        let mut packet = Vec::new();
        let sent = one.machine.poll_transmit(&mut packet, &mut |_| ROOM);
        assert!(sent.is_some(), "round {round}: no room for the news");
    }
}

#[test]
fn broadcasts_that_nobody_is_sent_do_not_wait() {
    let mut one = among_go_nodes();
    one.advance(secs(5));
    assert_eq!(one.machine.user.len(), 0);
    assert!(one.machine.gossip_timer.is_none());
}

/// Its origin sends a broadcast to every member of a mixed cluster. If all who pass it on did, it would
/// travel as often as there are pairs of members.
#[test]
fn broadcasts_are_passed_on_in_a_mixed_cluster_as_often_as_in_another() {
    let mut one = among_go_nodes();
    one.machine.members.get_mut("n1").unwrap().native = true;
    let passed_on: usize = (0..2000)
        .filter_map(|_| one_packet(&mut one))
        .map(|packet| broadcasts(&packet).len())
        .sum();
    let limit = scale::user_broadcast_limit(scale::news_limit(4, 31), 31);
    assert_eq!(passed_on, 40 * limit as usize);
}

/// Where the limit differs from peer to peer, packets are as large as each takes, and what is queued
/// fits all.
#[test]
fn what_is_queued_fits_the_smallest_packet() {
    let mut one = One::knowing(quiet(), 3);
    let before = one.machine.max_broadcast_bytes();
    one.machine.set_assured_packet_bytes(1100);
    let limit = one.machine.max_broadcast_bytes();
    assert_eq!(before - limit, one.machine.config().max_packet_bytes - 1100);
    let over = vec![1; limit + 1];
    let refused = one.machine.broadcast(&over, Relation::Unique, Priority::Normal, one.now);
    assert!(refused.is_err());
    broadcast(&mut one, &over[1..], Priority::Normal);
    one.machine.set_assured_packet_bytes(1000);
    assert_eq!(one.drops(DropReason::TooLargeToSend), 1);
    // More than the settings allow is not taken.
    one.machine.set_assured_packet_bytes(9000);
    assert_eq!(one.machine.max_broadcast_bytes(), before);
}

/// How many packets it takes under full load until a broadcast of the largest size goes out, while
/// small ones of that priority keep coming.
fn packets_until_the_largest(small: Option<Priority>) -> Option<u32> {
    let mut one = One::knowing(quiet(), 60);
    let largest = vec![b'L'; one.machine.max_broadcast_bytes() - 20];
    broadcast(&mut one, &largest, Priority::Normal);
    (0..100).find(|round| {
        saturate(&mut one, *round);
        for _ in 0..5 {
            if let Some(priority) = small {
                broadcast(&mut one, &[b's'; 60], priority);
            }
        }
        broadcasts(&one_packet(&mut one).unwrap()).contains(&largest)
    })
}

#[test]
fn large_user_broadcasts_are_not_starved_either() {
    assert!(packets_until_the_largest(None).unwrap() <= 8);
    assert!(packets_until_the_largest(Some(Priority::Normal)).unwrap() <= 8);
    assert!(packets_until_the_largest(Some(Priority::Low)).unwrap() <= 8);
}

#[test]
fn urgent_broadcasts_go_first() {
    let mut one = One::knowing(quiet(), 3);
    for (payload, priority) in
        [(b"low", Priority::Low), (b"mid", Priority::Normal), (b"top", Priority::High)]
    {
        let mut bytes = vec![0; 900];
        bytes[..3].copy_from_slice(payload);
        broadcast(&mut one, &bytes, priority);
    }
    let order: Vec<_> = (0..20)
        .filter_map(|_| one_packet(&mut one))
        .map(|sent| String::from_utf8(broadcasts(&sent)[0][..3].to_vec()).unwrap())
        .collect();
    let expected: Vec<_> = ["top", "mid", "low"].iter().flat_map(|p| [*p; 4]).collect();
    assert_eq!(order, expected);
}

#[test]
fn a_full_queue_drops_the_least_urgent() {
    let mut config = quiet();
    config.max_user_broadcasts = 3;
    let mut one = One::knowing(config, 3);
    for priority in [Priority::Low, Priority::High, Priority::Normal, Priority::Normal] {
        broadcast(&mut one, &[priority as u8], priority);
    }
    assert_eq!(one.drops(DropReason::BroadcastQueueFull), 1);
    assert_eq!(broadcasts(&one_packet(&mut one).unwrap()), [[0], [1], [1]]);

    let mut config = quiet();
    config.max_user_broadcasts = 0;
    let mut one = One::knowing(config, 1);
    let result = one.machine.broadcast(b"x", Relation::Unique, Priority::High, one.now);
    assert_eq!(result, Err(BroadcastError::Disabled));
}

#[test]
fn a_newer_broadcast_replaces_the_one_of_its_name() {
    let mut one = One::knowing(quiet(), 3);
    for (name, payload) in [("a", "1"), ("b", "2"), ("a", "3")] {
        let relation = Relation::Named(Arc::from(name));
        let payload = payload.as_bytes();
        one.machine.broadcast(payload, relation, Priority::Normal, one.now).unwrap();
    }
    let mut sent = broadcasts(&one_packet(&mut one).unwrap());
    sent.sort();
    assert_eq!(sent, [b"2", b"3"]);
}

#[test]
fn a_broadcast_reaches_every_application_once() {
    let mut net = Net::cluster(30, quiet(), 2);
    let sent = |net: &mut Net, i: usize, payload: &[u8]| {
        net.call(i, |machine, now| {
            machine.broadcast(payload, Relation::Unique, Priority::Normal, now).unwrap();
        });
    };
    sent(&mut net, 4, b"first");
    sent(&mut net, 4, b"second");
    sent(&mut net, 9, b"first");
    net.run(secs(10));
    for (i, host) in net.hosts.iter().enumerate() {
        let mut got: Vec<(String, &[u8])> = (host.events.iter())
            .filter_map(|(_, event)| match event {
                Event::UserMessage { origin: Some(origin), payload, .. } => {
                    Some((origin.to_string(), &payload[..]))
                }
                _ => None,
            })
            .collect();
        got.sort();
        let mut expected: Vec<(String, &[u8])> =
            vec![(name(4), b"first"), (name(4), b"second"), (name(9), b"first")];
        expected.retain(|(origin, _)| *origin != name(i));
        assert_eq!(got, expected, "at n{i}");
    }
    assert!(net.hosts.iter().all(|host| host.machine.queued_broadcasts() == (0, 0)));
}

#[test]
fn what_does_not_fit_a_packet_is_refused_at_once() {
    let broadcast = |one: &mut One, len: usize| {
        one.machine.broadcast(&vec![0; len], Relation::Unique, Priority::Normal, one.now)
    };
    for overhead in [0, 61] {
        let mut one = One::knowing(quiet(), 1);
        one.machine.set_outer_layers(overhead, false);
        one.room = Room { head: overhead, tail: 0, max_packet_bytes: 1400 };
        let limit = one.machine.max_user_message_bytes();
        one.machine.send(peer(1), vec![1; limit].into()).unwrap();
        one.drain();
        let sent = one.sent();
        assert_eq!(sent[0].messages(), [Message::User(&vec![1; limit])]);
        assert!(sent[0].bytes.len() + overhead >= 1400 - 1);
        let refused = one.machine.send(peer(1), vec![1; limit + 1].into());
        assert_eq!(refused, Err(BroadcastError::TooLarge { len: limit + 1, limit }));

        let limit = one.machine.max_broadcast_bytes();
        broadcast(&mut one, limit).unwrap();
        assert_eq!(broadcasts(&one_packet(&mut one).unwrap()), [vec![0; limit]]);
        let refused = broadcast(&mut one, limit + 1);
        assert_eq!(refused, Err(BroadcastError::TooLarge { len: limit + 1, limit }));
        assert_eq!(one.drops(DropReason::TooLargeToSend), 0);
    }
}

#[test]
fn a_message_arrives_with_its_sender() {
    let mut net = Net::cluster(2, quiet(), 1);
    net.call(0, |machine, _| machine.send(peer(1), Bytes::from_static(b"hello")).unwrap());
    net.run(ms(10));
    let payload = Bytes::from_static(b"hello");
    let expected = Event::UserMessage { from: addr(0), origin: None, payload };
    assert_eq!(net.hosts[1].events, [(ms(5), expected)]);
}

/// An application that has so many broadcasts of its own left, some too large.
struct Talker(Arc<AtomicUsize>);

impl Application for Talker {
    fn ack_payload(&mut self) -> Bytes {
        vec![0; 2000].into()
    }

    fn has_user_broadcasts(&mut self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    fn user_broadcasts(&mut self, overhead: usize, limit: usize) -> Vec<Bytes> {
        self.0.fetch_sub(1, Ordering::Relaxed);
        vec![vec![1; limit - overhead].into(), vec![2; limit].into()]
    }
}

#[test]
fn the_applications_own_broadcasts_fill_what_is_left() {
    let left = Arc::new(AtomicUsize::new(0));
    let mut one = One::with_app(quiet(), Talker(Arc::clone(&left)));
    one.know([1]);
    one.healthy = true;
    one.advance(secs(1));
    assert!(one.machine.gossip_timer.is_none());
    left.store(2, Ordering::Relaxed);
    one.machine.user_broadcasts_available(one.now);
    one.sent();
    one.advance(secs(1));
    assert_eq!(left.load(Ordering::Relaxed), 0);
    let sent = one.sent();
    let full = sent.iter().filter(|s| s.kinds().last() == Some(&MessageKind::User)).count();
    assert_eq!(full, 2);
    assert_eq!(one.drops(DropReason::TooLargeToSend), 2);
    assert!(one.machine.gossip_timer.is_none());
}

/// An application that fills its room with short broadcasts, once.
struct Stutterer(bool);

impl Application for Stutterer {
    fn has_user_broadcasts(&mut self) -> bool {
        self.0
    }

    fn user_broadcasts(&mut self, overhead: usize, limit: usize) -> Vec<Bytes> {
        self.0 = false;
        vec![Bytes::from_static(b"x"); limit / (overhead + 1)]
    }
}

/// A packet in Go's format has at most 255 parts.
#[test]
fn of_many_short_broadcasts_of_the_application_none_is_lost() {
    let mut config = quiet();
    config.wire_format = WireFormat::Hashicorp;
    config.max_packet_bytes = 3000;
    let mut one = One::with_app(config, Stutterer(true));
    one.know([1]);
    one.machine.send_later(Outgoing::Gossip { to: Peer::named(addr(1), id(1)), eager: false });
    let room = Room { max_packet_bytes: 3000, ..ROOM };
    let (mut packet, mut reader, mut arrived) = (Vec::new(), PacketReader::default(), 0);
    while one.machine.poll_transmit(&mut packet, &mut |_| room).is_some() {
        let read = reader.read(WireFormat::Hashicorp, &packet[room.head..]).unwrap();
        read.for_each(|message| arrived += usize::from(message == Ok(Message::User(b"x"))));
    }
    assert!(arrived > 400, "{arrived}");
    assert_eq!(one.drops(DropReason::TooLargeToSend), 0);
}

#[test]
fn an_ack_goes_out_even_if_its_payload_has_no_room() {
    let mut one = One::with_app(quiet(), Talker(Arc::default()));
    one.know([1]);
    one.receive(1, &[ping(3, "n1", 1)]);
    assert_eq!(one.sent()[0].messages(), [ack(3)]);
    assert_eq!(one.drops(DropReason::TooLargeToSend), 1);
}

/// Small clusters send to everybody: what rides on answers to one member is not the others'.
#[test]
fn in_a_small_cluster_everybody_is_told_however_often_one_asks() {
    let mut one = One::knowing(Config { push_pull_interval: Duration::ZERO, ..Config::local() }, 2);
    one.receive(1, &[Message::Alive(Alive { meta: b"new", ..alive("n1", 1, 2) })]);
    broadcast(&mut one, b"hello", Priority::Normal);
    for sequence in 0..5 {
        one.receive(1, &[ping(sequence, "n1", 1)]);
    }
    one.sent();
    one.advance(ms(300));
    let told: Vec<_> =
        (one.sent().iter()).filter(|sent| sent.to_name() == "n2").flat_map(Sent::kinds).collect();
    assert!(told.contains(&MessageKind::Broadcast), "{told:?}");
    assert!(told.contains(&MessageKind::Alive), "{told:?}");
    // And then it ends.
    one.advance(secs(2));
    assert_eq!(one.machine.queued_broadcasts().1, 0);
}

proptest! {
    /// Whatever the room, no packet exceeds it (the harness checks), each can be read, and what
    /// fits is sent.
    #[test]
    fn a_packet_never_exceeds_its_room(
        head in 0usize..200,
        tail in 0usize..100,
        limit in 0usize..1600,
        metas in prop::collection::vec(0usize..512, 0..20),
        payloads in prop::collection::vec((1usize..1300, 0u8..3), 0..10),
        checksum: bool,
    ) {
        let mut config = quiet();
        config.checksum = checksum;
        let mut one = One::knowing(config, 2);
        one.room = Room { head, tail, max_packet_bytes: limit };
        for (i, len) in metas.iter().enumerate() {
            let (node, meta) = (name(i + 10), vec![b'm'; *len]);
            one.machine.testing_alive(&Alive { meta: &meta, ..alive(&node, i + 10, 1) }, one.now);
        }
        for (len, priority) in &payloads {
            let priority =
                [Priority::High, Priority::Normal, Priority::Low][usize::from(*priority)];
            broadcast(&mut one, &vec![b'u'; *len], priority);
        }
        let smallest = one.queued().iter().map(|sent| sent.bytes.len()).min();
        let packet = one_packet(&mut one);
        if smallest.is_some_and(|len| head + len + tail <= limit.min(1400)) {
            prop_assert!(packet.is_some());
        }
        one.receive(1, &[ping(1, "n1", 1), ping(2, "n1", 1)]);
        let first = one.now;
        one.advance(secs(3));
        prop_assert!(one.now > first);
        for sent in one.sent() {
            prop_assert!(!sent.messages().is_empty());
        }
    }
}

#[test]
fn a_newer_broadcast_replaces_those_whose_payload_it_makes_pointless() {
    let mut one = One::knowing(quiet(), 3);
    let about = |key: u8| {
        Relation::Invalidating(Box::new(move |payload: &[u8]| payload.first() == Some(&key)))
    };
    for payload in [b"a1", b"b1", b"a2"] {
        let (relation, now) = (about(payload[0]), one.now);
        one.machine.broadcast(payload, relation, Priority::Normal, now).unwrap();
    }
    assert_eq!(one.machine.queued_broadcasts().1, 2);
}

#[test]
fn the_own_update_counts_as_known_when_several_show_the_same_view() {
    let config = Config { delta_sync: true, ..quiet() };
    let mut net = Net::cluster(6, config, 5);
    let converged = |net: &mut Net| {
        let events = std::mem::take(&mut net.hosts[0].events);
        let after = |(_, event): &(Duration, Event)| match event {
            Event::Converged { after } => Some(*after),
            _ => None,
        };
        events.iter().filter_map(after).collect::<Vec<_>>()
    };
    net.run(secs(5));
    assert_eq!(converged(&mut net), [], "nothing was announced");
    net.call(0, |machine, now| machine.update_meta("x".into(), now).unwrap());
    net.run(secs(10));
    let [after] = converged(&mut net)[..] else { panic!("once") };
    assert!(after > net.delay && after < secs(5), "{after:?}");
    // Who is cut off is told by nobody that he is heard.
    net.lose(|from, _, _| from == 0);
    net.call(0, |machine, now| machine.update_meta("y".into(), now).unwrap());
    net.run(secs(3));
    assert_eq!(converged(&mut net), []);
}

#[test]
fn packets_are_counted_by_what_they_are_for() {
    let mut net = Net::cluster(3, quiet(), 5);
    net.call(0, |machine, now| machine.update_meta("x".into(), now).unwrap());
    net.run(secs(5));
    let machine = &mut net.hosts[0].machine;
    let garbage = machine.handle_packet(&peer(1), b"?", net.now);
    assert!(garbage.is_err());
    let stats = *machine.stats();
    let sum = |of: &dyn Fn(PacketKind) -> Packets| {
        PacketKind::ALL.iter().fold((0, 0), |(packets, bytes), kind| {
            (packets + of(*kind).packets, bytes + of(*kind).bytes)
        })
    };
    let received = sum(&|kind| stats.packets_received_of(kind));
    assert_eq!(received, (stats.packets_received, stats.bytes_received));
    let sent = sum(&|kind| stats.packets_sent_of(kind));
    assert_eq!(sent, (stats.packets_sent, stats.bytes_sent));
    assert_eq!(stats.packets_received_of(PacketKind::Unreadable).packets, 1);
    for kind in [PacketKind::Ping, PacketKind::Ack, PacketKind::Gossip] {
        assert!(stats.packets_sent_of(kind).packets > 0, "{kind:?}");
    }
    assert_eq!(stats.packets_sent_of(PacketKind::User), Packets::default());
}

#[test]
fn gauges_tell_what_waits_and_for_how_long() {
    let mut one = One::knowing(
        Config { gossip_interval: secs(60), eager_gossip_spacing: Duration::ZERO, ..quiet() },
        4,
    );
    one.receive(2, &[suspect("n1", 1, "n2"), dead("n3", 1, "n2")]);
    one.machine.broadcast(b"x", Relation::Unique, Priority::Normal, one.now).unwrap();
    one.advance(ms(400));
    let gauges = one.machine.gauges(one.now);
    assert_eq!(gauges.members, [3, 1, 1, 0]);
    assert_eq!((gauges.news.items, gauges.user_broadcasts.items), (2, 1));
    assert_eq!((gauges.news.oldest, gauges.user_broadcasts.oldest), (ms(400), ms(400)));
    assert!(gauges.news.bytes > 0 && gauges.pending.timers > 0);
}
