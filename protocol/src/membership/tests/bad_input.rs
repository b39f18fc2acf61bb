//! What comes from strangers, from liars and from broken networks.

use proptest::prelude::*;

use super::*;
use crate::message::IndirectPing;
use crate::wire::WireFormat;

fn indirect(sequence: u32, target: usize, at: usize) -> Vec<u8> {
    let (node, target) = (name(target), addr(at));
    let source = Some(PingSource { node: "n1", addr: addr(1) });
    let request = IndirectPing { sequence, node: &node, target, nack: false, source };
    packet(&[Message::IndirectPing(request)])
}

/// The same messages without a checksum, for bytes to be changed.
fn unprotected(messages: &[Message<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let room = Room { head: 0, tail: 0, max_packet_bytes: 65_507 };
    let mut writer = PacketWriter::new(&mut bytes, Dialect::Native, false, room);
    assert!(messages.iter().all(|message| writer.push(message)));
    writer.finish();
    bytes
}

#[test]
fn a_packet_that_cannot_be_read_is_counted_and_changes_nothing() {
    let mut one = One::knowing(quiet(), 2);
    let before = one.beliefs();
    let good = packet(&[dead("n1", 1, "n2")]);
    let mut damaged = good.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let mut newer = good.clone();
    newer[1] += 1;
    let bad: [(&[u8], DropReason); 6] = [
        (&[], DropReason::Truncated),
        (&good[..2], DropReason::Truncated),
        (&damaged, DropReason::Checksum),
        (&newer, DropReason::WrongVersion),
        (b"\x07\x02", DropReason::WrongFormat),
        (b"\xf4\x03dc1", DropReason::WrongFormat),
    ];
    for (bytes, reason) in bad {
        let count = one.drops(reason);
        let error = one.machine.handle_packet(&peer(1), bytes, one.now).unwrap_err();
        assert_eq!((error.reason(), one.drops(reason)), (reason, count + 1));
    }
    assert_eq!(one.machine.stats().packets_received, 6);
    assert_eq!((one.beliefs(), one.events().len()), (before, 0));
    assert_eq!(one.machine.stats().drops_total(), 6);
}

#[test]
fn one_bad_message_does_not_spoil_the_others() {
    let mut one = One::knowing(quiet(), 3);
    let mut bytes = unprotected(&[dead("n1", 1, "n2")]);
    bytes.extend_from_slice(&[200, 3, 1, 2, 3]);
    bytes.extend_from_slice(&[7, 2, 1, 250]);
    bytes.extend_from_slice(&unprotected(&[dead("n2", 1, "n2")])[3..]);
    one.machine.handle_packet(&peer(3), &bytes, one.now).unwrap();
    assert_eq!((one.state(1), one.state(2)), (Some(NodeState::Dead), Some(NodeState::Left)));
    assert_eq!(one.drops(DropReason::UnknownKind), 1);
    assert_eq!(one.machine.stats().drops_total(), 2);
}

#[test]
fn a_ping_for_somebody_else_is_not_answered() {
    let mut one = One::knowing(quiet(), 2);
    let source = Some(PingSource { node: "n1", addr: addr(1) });
    let to = |node| Message::Ping(Ping { sequence: 1, node, source, native: true });
    one.receive(1, &[to("n2")]);
    assert_eq!((one.sent().len(), one.drops(DropReason::WrongNode)), (0, 1));
    one.receive(1, &[to(""), to("n0")]);
    assert_eq!(one.sent().len(), 2);
}

/// Sends its load with every ack.
struct Loaded;

impl Application for Loaded {
    fn ack_payload(&mut self) -> Bytes {
        Bytes::from_static(b"load")
    }
}

#[test]
fn an_answer_goes_to_a_members_address_or_back_to_where_it_was_asked() {
    let mut one = One::with_app(quiet(), Loaded);
    one.know(1..=2);
    let ask = |one: &mut One, from: usize, source: Option<(&str, usize)>| {
        let source = source.map(|(node, i)| PingSource { node, addr: addr(i) });
        one.receive(from, &[Message::Ping(Ping { sequence: 3, node: "n0", source, native: true })]);
        let sent = one.sent().remove(0);
        let Message::Ack(ack) = sent.messages()[0] else { panic!("no ack") };
        (sent.to.clone(), ack.payload.to_vec())
    };
    let member = (Peer::named(addr(1), id(1)), b"load".to_vec());
    assert_eq!(ask(&mut one, 1, Some(("n1", 1))), member);
    // From another port or interface: a member's own address is trusted, a victim's is not.
    assert_eq!(ask(&mut one, 9, Some(("n1", 1))), member);
    assert_eq!(ask(&mut one, 9, Some(("n1", 7))), (peer(9), vec![]));
    assert_eq!(ask(&mut one, 9, Some(("n9", 7))), (peer(9), vec![]));
    assert_eq!(ask(&mut one, 9, None), (peer(9), vec![]));
}

#[test]
fn more_pings_than_an_honest_packet_holds_are_not_answered() {
    let mut one = One::knowing(quiet(), 1);
    let ping = Message::Ping(Ping { sequence: 1, node: "", source: None, native: true });
    let pings = vec![ping; 100];
    one.receive(9, &pings);
    let limit = one.machine.answers_per_packet(Dialect::Native, packet(&pings).len()).left;
    assert_eq!(one.sent().len(), limit);
    assert_eq!(one.drops(DropReason::TooManyAnswers), 100 - limit as u64);
    // The next packet is another packet.
    one.receive(9, &[ping]);
    assert_eq!(one.sent().len(), 1);
}

#[test]
fn the_answers_to_a_packet_are_not_many_times_its_bytes() {
    let mut one = One::knowing(quiet(), 60);
    for i in 1..=60 {
        let (node, meta) = (name(i), [b'm'; 200]);
        one.machine.testing_alive(&Alive { meta: &meta, ..alive(&node, i, 2) }, one.now);
    }
    one.sent();
    let question =
        packet(&[Message::Ping(Ping { sequence: 1, node: "", source: None, native: true }); 200]);
    one.machine.handle_packet(&peer(9), &question, one.now).unwrap();
    one.drain();
    let answered: usize = one.sent().iter().map(|sent| sent.bytes.len()).sum();
    assert!(answered < 3 * 1400, "{answered} bytes for {}", question.len());
}

/// A few dozen bytes that a forged source sends, compressed.
#[cfg(feature = "compression")]
#[test]
fn the_answers_to_a_compressed_packet_are_not_many_times_its_bytes() {
    let mut one = One::knowing(quiet(), 2);
    let mut question = Vec::new();
    let room = Room { head: 0, tail: 0, max_packet_bytes: 1400 };
    let mut writer = PacketWriter::new(&mut question, Dialect::Native, false, room);
    while writer.push(&Message::Ping(Ping { sequence: 1, node: "", source: None, native: true })) {}
    writer.finish_compressed();
    one.sent();
    one.machine.handle_packet(&peer(9), &question, one.now).unwrap();
    one.drain();
    // With what IP and UDP add.
    let answered: usize = one.sent().iter().map(|sent| sent.bytes.len() + 28).sum();
    let asked = question.len() + 28;
    assert!(answered < 3 * asked, "{answered} bytes for {asked}");
}

/// In Go's format a ping takes three bytes, and one without a source is answered to a forged one.
#[test]
fn the_answers_to_many_short_pings_are_not_many_times_their_bytes() {
    for format in [WireFormat::Hashicorp, WireFormat::Mixed] {
        let mut config = quiet();
        config.wire_format = format;
        let mut one = One::knowing(config, 2);
        let (pings, ping) = (60, [0, 0x91, 1]);
        let mut question = vec![7, pings];
        question.extend([0, ping.len() as u8].repeat(pings.into()));
        question.extend(ping.repeat(pings.into()));
        one.machine.handle_packet(&peer(9), &question, one.now).unwrap();
        let (mut answer, mut answered) = (Vec::new(), 0);
        while let Some(sent) = one.machine.poll_transmit(&mut answer, &mut |_| ROOM) {
            // With what IP and UDP add.
            answered += sent.len + 28;
        }
        let asked = question.len() + 28;
        assert!(answered > 0 && answered < 3 * asked, "{answered} bytes for {asked}");
    }
}

#[test]
fn pings_are_relayed_to_members_only() {
    let mut one = One::knowing(quiet(), 2);
    let ask = |one: &mut One, target: usize, at: usize| {
        one.machine.handle_packet(&peer(1), &indirect(1, target, at), one.now).unwrap();
        one.drain();
        one.sent().len()
    };
    assert_eq!(ask(&mut one, 9, 9), 0);
    assert_eq!(ask(&mut one, 2, 9), 0);
    assert_eq!(one.drops(DropReason::RelayTarget), 2);
    assert_eq!(ask(&mut one, 2, 2), 1);
}

#[test]
fn no_more_pings_are_relayed_at_once_than_the_limit() {
    let mut config = quiet();
    config.max_relays = 3;
    let mut one = One::knowing(config, 2);
    let ask = |one: &mut One| {
        one.machine.handle_packet(&peer(1), &indirect(1, 2, 2), one.now).unwrap();
        one.drain();
    };
    (0..5).for_each(|_| ask(&mut one));
    let pings = one.sent_first(MessageKind::Ping);
    assert_eq!((pings.len(), one.drops(DropReason::TooManyRelays)), (3, 2));
    // An answer makes room, and so does time.
    one.receive(2, &[ack(pings[0].sequence())]);
    one.sent();
    (0..2).for_each(|_| ask(&mut one));
    assert_eq!(one.sent_first(MessageKind::Ping).len(), 1);
    one.machine.config.probe_interval = secs(100);
    one.now += ms(500);
    one.machine.handle_timeout(one.now);
    one.drain();
    one.sent();
    (0..4).for_each(|_| ask(&mut one));
    assert_eq!(one.sent_first(MessageKind::Ping).len(), 3);
}

#[test]
fn a_relayed_ack_counts_only_from_the_target() {
    let mut one = One::knowing(quiet(), 3);
    one.machine.handle_packet(&peer(1), &indirect(8, 2, 2), one.now).unwrap();
    one.drain();
    let ping = one.sent_first(MessageKind::Ping).remove(0);
    one.receive(3, &[ack(ping.sequence())]);
    assert_eq!((one.sent().len(), one.drops(DropReason::AckFromStranger)), (0, 1));
    one.receive(2, &[ack(ping.sequence())]);
    assert_eq!(one.sent()[0].messages()[0], ack(8));
    one.receive(2, &[ack(ping.sequence())]);
    assert_eq!(one.drops(DropReason::UnexpectedAck), 1);
}

#[test]
fn who_proves_one_name_and_gives_another_is_not_listened_to() {
    let mut one = One::knowing(quiet(), 3);
    let liar = Peer::named(addr(3), id(3));
    one.receive_from(&liar, &[ping(1, "n1", 1)]);
    one.machine.handle_packet(&liar, &indirect(1, 2, 2), one.now).unwrap();
    one.drain();
    assert_eq!((one.sent().len(), one.drops(DropReason::IdentityMismatch)), (0, 2));
    one.receive_from(&liar, &[ping(1, "n3", 3)]);
    assert_eq!(one.sent().len(), 1);

    let (own, other, same) = (id(0), id(1), id(3));
    let ask = |one: &mut One, node, source| one.machine.handle_stream_ping(&liar, node, source);
    assert!(!ask(&mut one, Some(&own), Some(&other)));
    assert!(!ask(&mut one, Some(&other), Some(&same)));
    assert!(ask(&mut one, Some(&own), Some(&same)));
    assert!(ask(&mut one, None, None));
    assert_eq!(one.drops(DropReason::IdentityMismatch), 3);
}

#[test]
fn who_proves_one_name_answers_for_that_name_only() {
    let mut one = One::knowing(quiet(), 3);
    one.machine.handle_packet(&peer(1), &indirect(8, 2, 2), one.now).unwrap();
    one.drain();
    let sequence = one.sent_first(MessageKind::Ping).remove(0).sequence();
    // Another node at the address of the one that was asked.
    one.receive_from(&Peer::named(addr(2), id(3)), &[ack(sequence)]);
    assert_eq!((one.sent().len(), one.drops(DropReason::IdentityMismatch)), (0, 1));
    // The one that was asked, though it has moved.
    one.receive_from(&Peer::named(addr(9), id(2)), &[ack(sequence)]);
    assert_eq!(one.sent()[0].messages()[0], ack(8));
}

#[test]
fn who_proves_one_name_is_nobody_else_at_its_own_address() {
    let mut one = One::knowing(quiet(), 3);
    let certified = Peer::named(addr(3), id(3));
    one.receive_from(&certified, &[Message::Alive(alive("n7", 3, 1))]);
    assert_eq!((one.state(7), one.drops(DropReason::IdentityMismatch)), (None, 1));
    // Of third members it is believed, and so is its own new incarnation.
    one.receive_from(
        &certified,
        &[Message::Alive(alive("n8", 8, 1)), Message::Alive(alive("n3", 3, 5))],
    );
    assert_eq!((one.state(8), one.incarnation(3)), (Some(NodeState::Alive), 5));
    // Where nothing is verified, anybody may bring any news.
    one.receive(3, &[Message::Alive(alive("n7", 3, 1))]);
    assert_eq!(one.state(7), Some(NodeState::Alive));
}

#[test]
fn a_machine_wants_no_more_than_its_limits_whatever_is_asked() {
    let mut config = quiet();
    config.max_relays = 8;
    let mut one = One::knowing(config, 5);
    for sequence in 0..2000 {
        one.machine.handle_packet(&peer(1), &indirect(sequence, 2, 2), one.now).unwrap();
        one.machine.handle_packet(&peer(1), &packet(&[ping(sequence, "n1", 1)]), one.now).unwrap();
    }
    // An owner that does not drain loses packets, not memory.
    for _ in 0..10_000 {
        one.machine.handle_packet(&peer(1), &packet(&[ping(1, "n1", 1)]), one.now).unwrap();
    }
    assert_eq!(one.machine.pending().pings, 8);
    assert!(one.drops(DropReason::SendQueueFull) > 0);
    assert!(one.machine.outbox.len() <= 8192);
    one.drain();
}

proptest! {
    #[test]
    fn no_bytes_bring_it_down(bytes in prop::collection::vec(any::<u8>(), 0..200), native: bool) {
        let mut one = One::knowing(quiet(), 3);
        let mut bytes = bytes;
        if native {
            // A good header without a checksum, and anything behind it.
            bytes.splice(0..0, unprotected(&[]));
        }
        let _ = one.machine.handle_packet(&peer(1), &bytes, one.now);
        one.drain();
        one.advance(secs(3));
    }

    #[test]
    fn no_damage_to_good_packets_brings_it_down(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        i in 0usize..6,
    ) {
        let mut one = One::knowing(quiet(), 3);
        let source = Some(PingSource { node: "n1", addr: addr(1) });
        let node = "n2";
        let messages = [
            ping(1, "n1", 1),
            Message::IndirectPing(
                IndirectPing { sequence: 2, node, target: addr(2), nack: true, source }
            ),
            Message::Alive(Alive { meta: b"meta", ..alive("n4", 4, 1) }),
            suspect("n1", 1, "n2"),
            dead("n0", 1, "n3"),
            Message::User(b"hello"),
        ];
        let mut bytes = unprotected(&messages[i..]);
        for (at, value) in changes {
            let at = 3 + at.index(bytes.len() - 3);
            bytes[at] = value;
        }
        bytes.truncate(3 + cut.index(bytes.len() - 2));
        one.machine.handle_packet(&peer(1), &bytes, one.now).unwrap();
        one.drain();
        one.advance(secs(40));
    }
}

#[test]
fn strangers_do_not_use_up_the_news() {
    let mut one = One::knowing(quiet(), 8);
    one.receive(1, &[dead("n2", 1, "n3")]);
    let before = one.queued();
    for sequence in 0..100 {
        let source = Some(PingSource { node: "nobody", addr: addr(50) });
        let question = Message::Ping(Ping { sequence, node: "n0", source, native: true });
        one.receive(50, &[question]);
        assert_eq!(one.sent()[0].kinds(), [MessageKind::Ack]);
    }
    assert_eq!(one.queued(), before);
    // All of its transmissions are left for members.
    one.advance(secs(5));
    let told =
        one.sent().iter().filter(|sent| sent.messages().contains(&dead("n2", 1, "n3"))).count();
    assert!(told >= 7, "{told}");
}

#[test]
fn relayed_pings_and_their_answers_carry_no_news() {
    let mut one = One::knowing(quiet(), 4);
    one.receive(1, &[dead("n2", 1, "n3")]);
    let asked = indirect(1, 4, 4);
    one.machine.handle_packet(&peer(1), &asked, one.now).unwrap();
    one.drain();
    let ping = one.sent_first(MessageKind::Ping).pop().unwrap();
    assert_eq!(ping.kinds(), [MessageKind::Ping]);
    one.receive(4, &[ack(ping.sequence())]);
    assert_eq!(one.sent()[0].kinds(), [MessageKind::Ack]);
}

#[test]
fn old_accusations_draw_few_answers() {
    let mut one = One::knowing(quiet(), 2);
    one.receive(1, &[suspect("n0", 5, "n2")]);
    one.sent();
    // One a packet, however many it holds.
    one.receive(9, &vec![suspect("n0", 1, "n2"); 58]);
    assert_eq!(one.sent_first(MessageKind::Alive).len(), 1);
    // And a bounded number a second.
    for _ in 0..1000 {
        one.receive(9, &[suspect("n0", 1, "n2")]);
    }
    let answers = one.sent_first(MessageKind::Alive).len();
    assert!(answers < 40, "{answers}");
    // What is not answered is counted.
    assert_eq!(one.drops(DropReason::TooManyAnswers), 57 + 1000 - answers as u64);
    one.advance(secs(2));
    one.sent();
    one.receive(9, &[suspect("n0", 1, "n2")]);
    assert_eq!(one.sent_first(MessageKind::Alive).len(), 1);
}

#[test]
fn what_fits_no_packet_is_delivered_and_not_queued() {
    let mut one = One::knowing(quiet(), 4);
    let payload = vec![7; 20_000];
    let broadcast = crate::message::Broadcast {
        origin: "n1",
        epoch: 1,
        sequence: 1,
        hops: 0,
        priority: 0,
        payload: &payload,
    };
    one.receive(1, &[Message::Broadcast(broadcast)]);
    assert_eq!(one.event_names(), ["user message"]);
    assert_eq!(one.machine.queued_broadcasts(), (0, 0));
    assert_eq!(one.drops(DropReason::TooLargeToSend), 1);
    // Nor does what fits no more, once outer layers take their part.
    one.machine
        .broadcast(&[7; 1000], crate::Relation::Unique, crate::Priority::Normal, one.now)
        .unwrap();
    one.machine.set_outer_layers(600, false);
    assert_eq!(one.machine.queued_broadcasts(), (0, 0));
    assert_eq!(one.drops(DropReason::TooLargeToSend), 2);
}

#[test]
fn messages_that_nobody_takes_are_dropped_and_counted() {
    let mut one = One::knowing(quiet(), 1);
    for _ in 0..5 {
        one.receive(1, &vec![Message::User(b""); 1000]);
    }
    assert_eq!(one.drops(DropReason::MessageQueueFull), 5000 - 4096);
    assert_eq!(one.events().len(), 4096);
    one.receive(1, &[Message::User(b"")]);
    assert_eq!(one.event_names(), ["user message"]);
}

#[test]
fn a_member_that_nobody_could_talk_to_does_not_stop_exchanges() {
    let poison = [
        Versions::new((5, 5, 5), (0, 0, 0)),
        Versions::new((1, 1, 5), (0, 0, 0)),
        Versions::new((1, 5, 2), (9, 9, 9)),
    ];
    for versions in poison {
        let mut one = One::knowing(quiet(), 2);
        one.receive(1, &[Message::Alive(Alive { versions, ..alive("n7", 7, 1) })]);
        assert_eq!((one.state(7), one.drops(DropReason::Incompatible)), (None, 1), "{versions:?}");
    }
    // Without versions nothing can be said against it, and nothing is.
    let mut one = One::knowing(quiet(), 2);
    let versions = Versions::from_bytes(&[]);
    one.receive(1, &[Message::Alive(Alive { versions, ..alive("n7", 7, 1) })]);
    assert_eq!(one.state(7), Some(NodeState::Alive));
    let state = state_of(false, vec![record(1, 1, NodeState::Alive)]);
    assert!(one.machine.serve_push_pull(&peer(1), &state).is_ok());
}
