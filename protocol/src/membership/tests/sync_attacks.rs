//! What a member, or a stranger, can do with comparing members: little.

use std::sync::Arc;

use super::net::Net;
use super::*;
use crate::membership::{StreamRequest, StreamRequestKind, StreamResponse};
use crate::message::View;
use crate::wire::WireFormat;
use crate::wire::sync::{self, Mark, Partitioning, SyncBody, SyncLimits, SyncStep};

fn syncing() -> Config {
    Config { delta_sync: true, ..quiet() }
}

fn limits() -> SyncLimits {
    syncing().sync_limits()
}

fn read(body: &[u8]) -> SyncBody {
    SyncBody::read(body, &limits())
}

fn view<'a>(node: &'a str, digest: u64) -> Message<'a> {
    Message::View(View { digest, node, ask: false })
}

fn steps(sent: &[Sent]) -> Vec<SyncStep> {
    let of = |message: Message<'_>| match message {
        Message::Sync(body) => Some(sync::read(body, &limits()).unwrap()),
        _ => None,
    };
    sent.iter().flat_map(Sent::messages).filter_map(of).collect()
}

fn snapshot(i: usize, incarnation: u32) -> SnapshotRecord {
    let node = Node::new(id(i), addr(i), Bytes::new(), Versions::default());
    SnapshotRecord { node: Arc::new(node), incarnation, state: NodeState::Alive }
}

/// The bytes of a step with these records.
fn records_step(records: &[SnapshotRecord]) -> Vec<u8> {
    let mut body = Vec::new();
    sync::write_records(Partitioning { salt: 5, order: 0 }, &[], records, &mut body);
    body
}

/// A listing in which every bucket is empty.
fn empty_listing(partitioning: Partitioning) -> Vec<u8> {
    let buckets: Vec<_> =
        (0..1u16 << partitioning.order).map(|bucket| (bucket, Vec::<Mark>::new())).collect();
    let mut body = Vec::new();
    sync::write_listing(partitioning, &buckets, &mut body);
    body
}

/// Waits until the machine begins a sync by packets with n1.
fn begun_by_packet(one: &mut One) -> Partitioning {
    for _ in 0..2000 {
        one.receive(1, &[view("n1", 1)]);
        one.advance(ms(50));
        if let Some(SyncStep::Digests(digests)) = steps(&one.sent()).pop() {
            return digests.partitioning;
        }
    }
    panic!("no sync began");
}

/// Waits until it begins one over a stream.
fn begun_by_stream(one: &mut One) -> (StreamRequest, Partitioning) {
    for _ in 0..2000 {
        one.receive(1, &[view("n1", 1)]);
        one.advance(ms(50));
        one.sent();
        if let Some(request) = one.machine.poll_stream_request() {
            let StreamRequestKind::Sync { body } = &request.kind else { panic!("{request:?}") };
            let Ok(SyncStep::Digests(digests)) = read(body).step else { panic!("no digests") };
            return (request, digests.partitioning);
        }
    }
    panic!("no stream was asked for");
}

#[test]
fn one_record_said_again_and_again_is_answered_once() {
    let mut one = One::knowing(syncing(), 3);
    let meta = vec![7; 512];
    one.receive(1, &[Message::Alive(Alive { meta: &meta, ..alive("n2", 2, 2) })]);
    one.receive(1, &[dead("n2", 2, "n1")]);
    let repeated: Vec<_> = (0..20_000).map(|_| snapshot(2, 1)).collect();
    let answer = one.machine.serve_sync(&peer(77), read(&records_step(&repeated)), one.now);
    let answer = answer.unwrap();
    assert!((512..1024).contains(&answer.len()), "{}", answer.len());
}

#[test]
fn a_sync_takes_each_step_once() {
    let mut one = One::knowing(syncing(), 3);
    one.healthy = true;
    let partitioning = begun_by_packet(&mut one);
    one.sent();
    let listing = empty_listing(partitioning);
    let mut drawn = 0;
    for _ in 0..1000 {
        one.receive(1, &[view("n1", 1), Message::Sync(&listing)]);
        let records = |step: &SyncStep| matches!(step, SyncStep::Records(_));
        drawn += steps(&one.sent()).iter().filter(|step| records(step)).count();
    }
    assert_eq!(drawn, 1);
    assert_eq!(one.drops(DropReason::UnexpectedSync), 999);
}

#[test]
fn nobody_keeps_a_sync_for_ever() {
    let mut one = One::knowing(syncing(), 3);
    one.healthy = true;
    let listing = empty_listing(begun_by_packet(&mut one));
    let before = one.machine.stats().syncs;
    for step in 0..60 * 5 {
        one.receive(1, &[view("n1", step), Message::Sync(&listing)]);
        one.receive(2, &[view("n2", 5)]);
        one.advance(ms(200));
        one.sent();
    }
    let stats = one.machine.stats();
    assert!(stats.syncs > before + 5, "others have their turn: {}", stats.syncs - before);
    assert!(stats.syncs < before + 60, "{}", stats.syncs - before);
    assert!(stats.sync_records_sent < 100, "{}", stats.sync_records_sent);
}

#[test]
fn a_peer_draws_one_stream_by_a_stream() {
    let mut one = One::knowing(syncing(), 2000);
    one.healthy = true;
    let (mut request, partitioning) = begun_by_stream(&mut one);
    let listing = empty_listing(partitioning);
    let mut streams = 0;
    for _ in 0..100 {
        let answer = StreamResponse::Sync(read(&listing));
        one.machine.handle_stream_response(request.id, answer, one.now);
        let Some(next) = one.machine.poll_stream_request() else { break };
        streams += 1;
        request = next;
    }
    assert_eq!(streams, 1, "the one that carries the records");
    assert_eq!(one.drops(DropReason::UnexpectedSync), 1);
}

#[test]
fn who_has_left_sends_no_table() {
    let mut one = One::knowing(syncing(), 2000);
    one.healthy = true;
    let (request, partitioning) = begun_by_stream(&mut one);
    one.machine.leave(one.now);
    let answer = StreamResponse::Sync(read(&empty_listing(partitioning)));
    one.machine.handle_stream_response(request.id, answer, one.now);
    assert_eq!(one.machine.poll_stream_request(), None);
}

#[test]
fn strangers_do_not_use_up_what_members_are_served() {
    let mut one = One::knowing(syncing(), 3);
    let mut body = Vec::new();
    sync::write_digests(Partitioning { salt: 5, order: 0 }, &[0], &mut body);
    let stranger: Peer = SocketAddr::from(([192, 168, 0, 1], 7946)).into();
    let served = (0..100)
        .filter(|_| one.machine.serve_sync(&stranger, read(&body), one.now).is_ok())
        .count();
    assert_eq!(served, 16);
    // The port of a stream is any.
    let member: Peer = SocketAddr::new(addr(2).ip(), 40_000).into();
    let served =
        (0..100).filter(|_| one.machine.serve_sync(&member, read(&body), one.now).is_ok()).count();
    assert_eq!(served, 64);
}

#[test]
fn steps_over_streams_go_in_the_native_format() {
    let config = Config { wire_format: WireFormat::Mixed, ..syncing() };
    let mut one = One::knowing(Config { probe_interval: Duration::ZERO, ..config }, 3);
    let (request, _) = begun_by_stream(&mut one);
    assert_eq!(request.dialect, Dialect::Native);
}

#[test]
fn any_distance_of_incarnations_is_repaired() {
    for distance in [1, 100, 128, 200, 255, 256, 300, 512] {
        let mut net = Net::cluster(4, syncing(), 3);
        let (now, newest) = (net.now, 1 + distance);
        for i in 0..4 {
            net.call(i, |machine, _| {
                machine.testing_alive(&alive("n99", 99, 1), now);
                if i < 3 {
                    machine.testing_alive(&alive("n99", 99, newest), now);
                }
                machine.testing_clear();
            });
        }
        let known = |net: &Net| net.hosts[3].machine.member("n99").unwrap().incarnation;
        let took = net.until(secs(5), |net| known(net) == newest);
        assert!(took.is_some(), "{distance} behind");
    }
}

/// Refuses n1.
struct Refuses;

impl Application for Refuses {
    fn admit_alive(&mut self, node: &Node) -> Result<(), crate::Refusal> {
        match node.id.as_str() {
            "n1" => Err(crate::Refusal("not here".to_owned())),
            _ => Ok(()),
        }
    }
}

#[test]
fn two_that_never_agree_cost_little_and_it_is_said() {
    for n in [4, 30] {
        let mut net = Net::cluster(n, syncing(), 3);
        let (now, last) = (net.now, n - 1);
        let app = Box::new(Refuses);
        let (name_of, at) = (id(last), addr(last));
        let mut machine =
            Membership::new(syncing(), name_of, at, Bytes::new(), 99, now, app).unwrap();
        for i in (0..last).filter(|i| *i != 1) {
            machine.testing_alive(&alive(&name(i), i, 1), now);
        }
        machine.testing_clear();
        net.hosts[last].machine = machine;
        let syncs = |net: &Net, i: usize| net.hosts[i].machine.stats().syncs;
        net.run(secs(60));
        let before: Vec<u64> = (0..n).map(|i| syncs(&net, i)).collect();
        net.run(secs(300));
        for (i, before) in before.iter().enumerate() {
            let a_minute = (syncs(&net, i) - before) as f64 / 5.0;
            assert!(a_minute <= 20.0, "n{i} of {n}: {a_minute} a minute");
        }
        let reported = |i: usize| net.hosts[i].machine.stats().disagreements;
        assert!(reported(last) > 0, "of {n}");
        // In a large cluster the others meet it too rarely for that.
        assert!(n > 4 || (0..last).any(|i| reported(i) > 0), "of {n}");
    }
}

/// Where a member's packets come from another address than it announces, its digests are a stranger's.
#[test]
fn whose_views_cannot_be_heard_is_sent_whole_states() {
    let mut config = Config::lan();
    config.push_pull_interval = secs(10);
    config.verify_ack_source = false;
    let mut one = One::knowing(config, 3);
    let mut whole = 0;
    for _ in 0..2050 {
        one.advance(ms(100));
        for sent in one.sent().iter().filter(|sent| sent.kinds()[0] == MessageKind::Ping) {
            let i: usize = sent.to_name()[1..].parse().unwrap();
            let own = one.machine.testing_view();
            let from: Peer = addr(100 + i).into();
            one.receive_from(&from, &[ack(sent.sequence()), view("", own)]);
        }
        while let Some(request) = one.machine.poll_stream_request() {
            whole += usize::from(matches!(request.kind, StreamRequestKind::PushPull { .. }));
        }
    }
    assert_eq!(one.machine.live_members(), 4);
    assert!(whole >= 15, "{whole}");
}

#[test]
fn a_small_state_does_not_wait_for_a_large_one() {
    let mut one = One::knowing(syncing(), 3);
    let many: Vec<_> = (0..100_000).map(|_| snapshot(2, 1)).collect();
    for _ in 0..4 {
        one.machine.serve_sync(&peer(77), read(&records_step(&many)), one.now).unwrap();
    }
    let state = state_of(true, vec![record(9, 1, NodeState::Alive)]);
    one.machine.serve_push_pull(&peer(9), &state).unwrap();
    one.machine.finish_push_pull(peer(9), Some(state), one.now);
    let slices = (0..).take_while(|_| {
        one.machine.handle_timeout(one.now);
        one.state(9).is_none()
    });
    assert!(slices.count() < 10);
}

#[test]
fn one_who_echoes_the_own_view_does_not_speak_for_the_others() {
    let mut one = One::knowing(syncing(), 5);
    one.healthy = true;
    for step in 0..60 * 4 {
        for honest in (2..=5).filter(|_| step % 4 == 0) {
            one.receive(honest, &[view(&name(honest), 77)]);
        }
        let own = one.machine.testing_view();
        one.receive(1, &[view("n1", own)]);
        one.advance(ms(250));
        one.sent();
    }
    assert!(one.machine.stats().syncs > 5, "{}", one.machine.stats().syncs);
}

#[test]
fn who_shows_much_and_answers_nothing_is_passed_over_and_named() {
    let mut one = One::knowing(syncing(), 5);
    one.healthy = true;
    let mut with = [0; 6];
    for step in 0..600 * 20 {
        let honest = step % 20;
        if (2..=5).contains(&honest) {
            one.receive(honest, &[view(&name(honest), 77)]);
        }
        one.receive(1, &[view("n1", step as u64)]);
        one.advance(ms(50));
        for sent in one.sent() {
            if !steps(std::slice::from_ref(&sent)).is_empty() {
                with[sent.to_name()[1..].parse::<usize>().unwrap()] += 1;
            }
        }
        while let Some(request) = one.machine.poll_stream_request() {
            let (peer, message) = (request.to, "connection refused".to_owned());
            let failed =
                StreamResponse::Failed(crate::ExchangeError::Io { peer, message, refused: true });
            one.machine.handle_stream_response(request.id, failed, one.now);
        }
    }
    let honest: i32 = with[2..].iter().sum();
    assert!(honest > with[1], "{with:?}");
    let named = |event: &String| event == "disagreement with n1";
    assert!(one.event_names().iter().any(named), "{with:?}");
}

#[test]
fn a_sync_that_only_sends_is_over_with_that() {
    for seed in 0..4 {
        let mut net = Net::cluster(2, syncing(), seed);
        let now = net.now;
        net.call(0, |machine, _| {
            machine.testing_alive(&alive("n99", 99, 1), now);
            machine.testing_clear();
        });
        let gossip = [MessageKind::Alive, MessageKind::Suspect, MessageKind::Dead];
        net.lose(
            move |_, _, kind| matches!(kind, net::Kind::Packet(kind) if gossip.contains(&kind)),
        );
        let took = net.until(secs(5), |net| net.hosts[1].machine.member("n99").is_some());
        assert!(took.is_some(), "seed {seed}");
        net.run(secs(2));
        let failed: u64 = net.hosts.iter().map(|host| host.machine.stats().syncs_failed).sum();
        assert_eq!(failed, 0, "seed {seed}");
    }
}

#[test]
fn a_listing_that_fits_no_packet_is_not_made() {
    let mut one = One::knowing(syncing(), 3000);
    let mut body = Vec::new();
    sync::write_digests(Partitioning { salt: 5, order: 0 }, &[0], &mut body);
    one.receive(1, &[view("n1", 1), Message::Sync(&body)]);
    assert_eq!(steps(&one.sent()), [SyncStep::TooLarge { salt: 5 }]);
}
