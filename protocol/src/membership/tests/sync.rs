//! Views that differ come to agree; what is forged costs little.

use super::net::{Kind, Net};
use super::*;
use crate::error::ExchangeError;
use crate::membership::{StreamRequestKind, StreamResponse};
use crate::message::View;
use crate::wire::WireFormat;
use crate::wire::sync::{self, Mark, Partitioning, SyncBody, SyncLimits, SyncStep};

fn limits() -> SyncLimits {
    Config::lan().sync_limits()
}

/// Nothing but digests and syncs brings views together.
fn syncing() -> Config {
    let mut config = quiet();
    config.delta_sync = true;
    config
}

/// A cluster in which one has missed an update, a death and a newcomer.
fn with_one_behind(n: usize, config: Config, seed: u64) -> Net {
    let mut net = Net::cluster(n, config, seed);
    let now = net.now;
    for i in 0..n - 1 {
        net.call(i, |machine, _| {
            machine.testing_alive(&alive("n2", 2, 2), now);
            machine.testing_alive(&alive("n99", 99, 1), now);
            machine.testing_clear();
        });
    }
    net
}

fn views(net: &Net) -> Vec<u64> {
    net.hosts.iter().map(|host| host.machine.testing_view()).collect()
}

fn view<'a>(node: &'a str, digest: u64) -> Message<'a> {
    Message::View(View { digest, node, ask: false })
}

fn sync_step(sent: &Sent) -> Option<SyncStep> {
    sent.messages().iter().find_map(|message| match message {
        Message::Sync(body) => Some(sync::read(body, &limits()).unwrap()),
        _ => None,
    })
}

#[test]
fn who_is_behind_catches_up_without_gossip_or_whole_states() {
    for seed in 0..5 {
        let mut net = with_one_behind(8, syncing(), seed);
        net.lose(|_, to, kind| to == 7 && matches!(kind, Kind::Packet(MessageKind::Alive)));
        let agreed = |net: &Net| net.hosts[7].machine.member("n99").is_some();
        let took = net.until(secs(4), agreed);
        assert!(took.is_some(), "seed {seed}: {:?}", views(&net));
        let machine = &net.hosts[7].machine;
        // What was said of n2 came to n2 as well, which raised it.
        assert!(machine.member("n2").unwrap().incarnation >= 2);
        assert_eq!(machine.stats().push_pulls, 0);
    }
}

#[test]
fn an_agreement_starts_no_sync() {
    let mut net = Net::cluster(8, syncing(), 1);
    net.run(secs(30));
    let syncs: u64 = net.hosts.iter().map(|host| host.machine.stats().syncs).sum();
    let equal: u64 = net.hosts.iter().map(|host| host.machine.stats().views_equal).sum();
    assert_eq!(syncs, 0);
    assert!(equal > 200, "{equal}");
}

#[test]
fn what_packets_do_not_get_through_goes_over_a_stream() {
    let mut net = with_one_behind(8, syncing(), 3);
    net.lose(|_, _, kind| {
        matches!(kind, Kind::Packet(MessageKind::View | MessageKind::Alive | MessageKind::Suspect))
    });
    let took = net.until(secs(5), |net| net.hosts[7].machine.member("n99").is_some());
    assert!(took.is_some());
}

#[test]
fn a_death_that_one_has_missed_becomes_a_suspicion_there_and_not_a_life_here() {
    let mut net = Net::cluster(5, syncing(), 4);
    net.crash(4);
    let now = net.now;
    for i in 0..3 {
        net.call(i, |machine, _| {
            machine.testing_dead(&Dead { incarnation: 1, node: "n4", from: "n0" }, now);
            machine.testing_clear();
        });
    }
    net.lose(|_, to, kind| to == 3 && matches!(kind, Kind::Packet(MessageKind::Dead)));
    let took = net.until(secs(20), |net| net.state(3, 4) != Some(NodeState::Alive));
    assert!(took.is_some());
    for i in 0..3 {
        assert_eq!(net.state(i, 4), Some(NodeState::Dead));
    }
}

#[test]
fn periodic_exchanges_are_rare_with_members_that_show_their_view() {
    let exchanges = |delta_sync: bool| {
        let mut config = Config::lan();
        config.delta_sync = delta_sync;
        let mut net = Net::cluster(6, config, 5);
        net.run(secs(1200));
        net.hosts.iter().map(|host| host.machine.stats().push_pulls).sum::<u64>() as f64
    };
    let ratio = exchanges(false) / exchanges(true);
    assert!((8.0..13.0).contains(&ratio), "{ratio}");
}

#[test]
fn a_member_that_shows_no_view_is_sent_whole_states() {
    let mut config = Config::lan();
    config.push_pull_interval = secs(10);
    let mut one = One::knowing(config, 1);
    // Acks without a digest, as an older member sends them.
    one.healthy = true;
    one.advance(secs(65));
    let requests = std::iter::from_fn(|| one.machine.poll_stream_request());
    let whole = requests
        .filter(|request| matches!(request.kind, StreamRequestKind::PushPull { join: false }));
    assert!(whole.count() >= 5);
}

#[test]
fn forged_digests_cost_a_bounded_number_of_syncs_and_are_reported() {
    let mut one = One::knowing(syncing(), 1);
    one.healthy = true;
    let (mut syncs, mut reported, seconds) = (0, 0, 600);
    for second in 0..seconds * 10 {
        one.receive(1, &[view("n1", u64::from(second))]);
        one.advance(ms(100));
        for sent in one.sent() {
            // It answers, and says that nothing differs but its digest.
            let Some(SyncStep::Digests(digests)) = sync_step(&sent) else { continue };
            syncs += 1;
            let mut body = Vec::new();
            let bucket = vec![Mark { mark: 1, incarnation: 1 }];
            sync::write_listing(digests.partitioning, &[(0, bucket)], &mut body);
            one.receive(1, &[view("n1", 0), Message::Sync(&body)]);
        }
        let told = one.event_names().into_iter().filter(|event| event == "disagreement with n1");
        reported += told.count() as u64;
    }
    let most = patience_bound(seconds);
    assert!((5..=most).contains(&syncs), "{syncs} of {most}");
    assert!(reported >= 1);
    assert_eq!(one.machine.stats().disagreements, reported);
}

/// Syncs come at most every sixteen patiences of 300 ms, but for those that were quick or on the way
/// there.
fn patience_bound(seconds: u32) -> u32 {
    8 + 5 + seconds * 1000 / 4800 + 1
}

#[test]
fn a_forged_digest_among_true_ones_starts_nothing() {
    let mut one = One::knowing(syncing(), 10);
    one.healthy = true;
    for step in 0..600 {
        one.receive(1, &[view("n1", step)]);
        let own = one.machine.testing_view();
        let honest = 2 + step as usize % 9;
        one.receive(honest, &[view(&name(honest), own)]);
        one.advance(ms(100));
    }
    assert_eq!(one.machine.stats().syncs, 0);
}

#[test]
fn digests_of_strangers_and_of_other_addresses_do_not_count() {
    let mut one = One::knowing(syncing(), 3);
    one.receive(9, &[view("n1", 1)]);
    one.receive(9, &[view("n9", 1)]);
    one.receive(0, &[view("n0", 1)]);
    let stats = one.machine.stats();
    assert_eq!((stats.views_equal, stats.views_different), (0, 0));
    assert_eq!(stats.views_of_strangers, 3);
}

#[test]
fn steps_of_strangers_are_dropped_and_counted_and_so_is_nonsense() {
    let mut one = One::knowing(syncing(), 3);
    let partitioning = Partitioning { salt: 5, order: 2 };
    let mut body = Vec::new();
    sync::write_digests(partitioning, &[0; 4], &mut body);
    one.receive(9, &[Message::Sync(&body)]);
    one.receive(1, &[Message::Sync(&body)]);
    assert_eq!(one.drops(DropReason::UnexpectedSync), 2, "nothing tells who sends it");
    one.sent();
    one.receive(1, &[view("n1", 1), Message::Sync(&body)]);
    let answers: Vec<_> = one.sent().iter().filter_map(sync_step).collect();
    assert!(matches!(&answers[..], [SyncStep::Listing(listing)] if !listing.buckets.is_empty()));
    let before = one.beliefs();
    // Answers that nobody waits for.
    let mut listing = Vec::new();
    sync::write_listing(partitioning, &[], &mut listing);
    one.receive(1, &[view("n1", 1), Message::Sync(&listing)]);
    assert_eq!(one.drops(DropReason::UnexpectedSync), 3);
    one.receive(1, &[view("n1", 1), Message::Sync(&[1, 2, 3])]);
    assert_eq!(one.drops(DropReason::Truncated), 1);
    assert_eq!(one.beliefs(), before);
}

#[test]
fn so_many_steps_are_served_in_a_second_and_one_packet_is_answered_by_one() {
    let mut one = One::knowing(syncing(), 3);
    let mut body = Vec::new();
    sync::write_digests(Partitioning { salt: 5, order: 2 }, &[0; 4], &mut body);
    for _ in 0..200 {
        one.receive(1, &[view("n1", 1), Message::Sync(&body)]);
    }
    let answers = one.sent().iter().filter(|sent| sync_step(sent).is_some()).count();
    assert_eq!(answers, 64);
    assert_eq!(one.drops(DropReason::TooManySyncs), 136);
    assert!(one.machine.serve_sync(&peer(1), SyncBody::read(&body, &limits()), one.now).is_err());
}

#[test]
fn an_answer_never_exceeds_a_packet() {
    let mut one = One::knowing(syncing(), 400);
    let mut body = Vec::new();
    sync::write_digests(Partitioning { salt: 5, order: 2 }, &[0; 4], &mut body);
    one.receive(1, &[view("n1", 1), Message::Sync(&body)]);
    let steps: Vec<_> = one.sent().iter().filter_map(sync_step).collect();
    assert_eq!(steps, [SyncStep::Listing(read_listing(&one, &body))]);
    let mut one = One::knowing(syncing(), 1000);
    one.receive(1, &[view("n1", 1), Message::Sync(&body)]);
    let steps: Vec<_> = one.sent().iter().filter_map(sync_step).collect();
    assert_eq!(steps, [SyncStep::TooLarge { salt: 5 }]);
}

/// What that machine lists over a stream.
fn read_listing(one: &One, body: &[u8]) -> sync::Listing {
    let mut machine = One::knowing(syncing(), one.machine.known_members() - 1).machine;
    let answer = machine.serve_sync(&peer(1), SyncBody::read(body, &limits()), one.now).unwrap();
    match sync::read(&answer, &limits()) {
        Ok(SyncStep::Listing(listing)) => listing,
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_has_left_neither_shows_nor_compares() {
    let mut one = One::knowing(syncing(), 3);
    one.machine.leave(one.now);
    one.drain();
    one.sent();
    one.receive(1, &[ping(5, "n1", 1)]);
    let kinds: Vec<_> = one.sent().iter().flat_map(Sent::kinds).collect();
    assert!(kinds.contains(&MessageKind::Ack) && !kinds.contains(&MessageKind::View));
    let mut body = Vec::new();
    sync::write_digests(Partitioning { salt: 5, order: 2 }, &[0; 4], &mut body);
    assert!(one.machine.serve_sync(&peer(1), SyncBody::read(&body, &limits()), one.now).is_err());
}

/// In Go's format, and where no member shows its view, nobody is asked again and again.
#[test]
fn who_nobody_can_confirm_stops_asking() {
    let mut config = syncing();
    config.probe_interval = Duration::ZERO;
    config.wire_format = WireFormat::Hashicorp;
    let mut one = One::new(config.clone());
    let state = state_of(false, vec![record(1, 1, NodeState::Alive)]);
    one.machine.finish_push_pull(peer(1), Some(state), one.now);
    assert_eq!(one.machine.live_members(), 2);
    let mut packet = Vec::new();
    for _ in 0..600 {
        one.machine.handle_timeout(one.now);
        while one.machine.poll_transmit(&mut packet, &mut |_| ROOM).is_some() {}
        one.now += ms(100);
    }
    assert_eq!(one.machine.pending().timers, 0, "there is nothing to wait for");

    config.wire_format = WireFormat::Native;
    config.probe_interval = secs(1);
    let mut one = One::knowing(config, 3);
    // Acks without a digest, as an older member sends them.
    one.healthy = true;
    one.advance(secs(5));
    one.sent();
    one.receive(1, &[Message::Alive(alive("n2", 2, 2))]);
    one.advance(secs(60));
    assert_eq!(one.sent_first(MessageKind::View), []);
}

/// A stream that was given up may fail while the next sync is under way.
#[test]
fn the_end_of_a_sync_that_was_given_up_ends_no_other() {
    let mut one = One::knowing(syncing(), 3);
    one.healthy = true;
    let wait = |one: &mut One| {
        for _ in 0..2000 {
            one.receive(1, &[view("n1", 1)]);
            one.advance(ms(50));
            if let Some(request) = one.machine.poll_stream_request() {
                return (Some(request.id), None);
            }
            let steps = one.sent().into_iter().rev();
            if let Some(SyncStep::Digests(digests)) = steps.filter_map(|s| sync_step(&s)).next() {
                return (None, Some(digests.partitioning));
            }
        }
        panic!("no sync began");
    };
    assert!(wait(&mut one).1.is_some(), "first by packet");
    let first = wait(&mut one).0.expect("then over a stream");
    let second = wait(&mut one).1.expect("then, when nobody tells of its end, by packet again");
    let failed = ExchangeError::Timeout { peer: peer(1), timeout: secs(10) };
    let failed = StreamResponse::Failed(failed);
    one.machine.handle_stream_response(first, failed, one.now);
    let mut body = Vec::new();
    sync::write_listing(second, &[], &mut body);
    one.receive(1, &[view("n1", 1), Message::Sync(&body)]);
    assert_eq!(one.drops(DropReason::UnexpectedSync), 0);
}

#[test]
fn any_step_can_be_taken() {
    use proptest::prelude::*;
    let step = (any::<u8>(), prop::collection::vec(any::<u8>(), 0..300));
    proptest!(|(steps in prop::collection::vec(step, 1..20))| {
        let mut one = One::knowing(syncing(), 20);
        for (kind, mut body) in steps {
            if let Some(first) = body.first_mut() {
                *first = kind % 5;
            }
            if let Some(order) = body.get_mut(9) {
                *order %= 12;
            }
            one.receive(1, &[view("n1", 1), Message::Sync(&body)]);
            let _ = one.machine.serve_sync(&peer(1), SyncBody::read(&body, &limits()), one.now);
            one.drain();
        }
        prop_assert_eq!(one.machine.live_members(), 21);
    });
}

#[test]
fn a_crowd_passes_where_few_show_their_view() {
    for showing in 1..=5 {
        let mut net = Net::cluster(5, Config::lan(), 7);
        for silent in showing..5 {
            net.call(silent, |machine, now| {
                let config = Config { delta_sync: false, ..machine.config().clone() };
                machine.reconfigure(config, now).unwrap();
            });
        }
        net.run(secs(30));
        for change in 0..12 {
            net.call(change % 5, |machine, now| {
                machine.update_meta(vec![change as u8].into(), now).unwrap();
            });
            net.run(ms(5));
        }
        net.run(secs(60));
        let doubting = net.hosts.iter().filter(|host| host.machine.sync.differs_since().is_some());
        assert_eq!(doubting.count(), 0, "{showing} show theirs");
    }
}
