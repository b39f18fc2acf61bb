//! What a review found: models that did not do what they say, and coming back after a farewell.

use std::time::Duration;

use memberlist_protocol::{Config, Event, NodeState};
use memberlist_simulator::network::{Delay, LinkModel, Network, ProcessId};
use memberlist_simulator::{Process, Time, Watch, World};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Counts {
    suspected: usize,
    refuted: usize,
    gone: usize,
    joins: (usize, usize),
}

impl Watch for Counts {
    fn happened(&mut self, _: Time, _: &Process, event: &Event) {
        match event {
            Event::Suspected(_) => self.suspected += 1,
            Event::Refuted { .. } => self.refuted += 1,
            Event::Gone(m) if m.state == NodeState::Dead => self.gone += 1,
            Event::JoinDone { result: Ok(_), .. } => self.joins.0 += 1,
            Event::JoinDone { result: Err(_), .. } => self.joins.1 += 1,
            _ => {}
        }
    }
}

fn cluster(n: usize) -> World<Counts> {
    let mut world = World::new(3, Network::new(LinkModel::perfect(MS)), Counts::default());
    world.add_cluster(n, &Config::lan());
    world.run_for(5 * SECOND);
    world
}

fn state(world: &World<Counts>, of: ProcessId, about: &str) -> Option<NodeState> {
    world.machine(of)?.member(about).map(|member| member.state)
}

/// Who has left knows nothing of the present: nobody comes back through it, and nobody is suspected
/// because it says nothing.
#[test]
fn nobody_comes_back_through_who_has_left() {
    let mut world = cluster(30);
    world.leave(0);
    world.leave(1);
    world.run_for(10 * SECOND);
    world.watch = Counts::default();
    world.join(0, 1);
    world.join(1, 0);
    world.run_for(60 * SECOND);
    let counts = &world.watch;
    assert_eq!((counts.suspected, counts.refuted, counts.gone), (0, 0, 0));
    assert_eq!(counts.joins, (0, 2));
    world.join(0, 2);
    world.run_for(10 * SECOND);
    assert_eq!(state(&world, 29, "n0"), Some(NodeState::Alive));
}

/// `StreamModel::loss`: the chance that an exchange gets no answer.
#[test]
fn streams_are_lost_as_often_as_asked() {
    let mut link = LinkModel::perfect(MS);
    link.streams.loss = 0.3;
    let mut world = World::new(3, Network::new(link), Counts::default());
    let mut config = Config::lan();
    config.push_pull_interval = Duration::ZERO;
    world.add_cluster(2, &config);
    for _ in 0..400 {
        world.join(0, 1);
        world.run_for(SECOND / 10);
    }
    world.run_for(60 * SECOND);
    let (done, failed) = world.watch.joins;
    assert_eq!(done + failed, 400);
    assert!((90..150).contains(&failed), "{failed} of 400 failed, 30 % wanted");
}

/// "A process that moved does not hear what goes to its old address."
#[test]
fn what_is_on_its_way_to_an_old_address_does_not_arrive_at_the_new_one() {
    let mut link = LinkModel::perfect(MS);
    link.packets.delay = Delay::Fixed(10 * SECOND);
    let mut world = World::new(3, Network::new(link), Counts::default());
    world.add_cluster(2, &Config::lan());
    world.run_for(5 * SECOND);
    // Pings of n1 to the old address of n0 are on their way.
    world.crash(1);
    world.restart(0, true);
    world.run_for(60 * SECOND);
    let received = world.machine(0).unwrap().stats().packets_received;
    assert_eq!(received, 0, "packets received at the new address");
}

/// `PacketModel::loss` and `duplicate`: a copy must not bring back what was lost.
#[test]
fn a_packet_and_its_copy_are_lost_as_often_as_asked() {
    use rand::SeedableRng;
    let mut link = LinkModel::perfect(MS).with_loss(0.5);
    link.packets.duplicate = 0.5;
    let network = Network::new(link);
    let mut rng = rand::rngs::StdRng::seed_from_u64(1);
    let fates: Vec<_> = (0..10_000).map(|_| network.packet(0, 1, Time::ZERO, &mut rng)).collect();
    let lost = fates.iter().filter(|f| f.arrives.is_none() && f.copy.is_none()).count();
    assert!((4800..5200).contains(&lost), "{lost} of 10000 lost, 50 % wanted");
}

/// A node that was away remembers a farewell that all others have forgotten; the member lives again.
#[test]
fn who_comes_back_brings_no_old_farewell() {
    let mut world = cluster(10);
    for i in 0..5_u8 {
        world.update_meta(1, vec![i].into());
        world.run_for(2 * SECOND);
    }
    world.leave(1);
    world.run_for(5 * SECOND);
    assert_eq!(state(&world, 0, "n1"), Some(NodeState::Left));
    world.leave(0);
    world.run_for(5 * SECOND);
    world.crash(1);
    world.run_for(700 * SECOND);
    world.restart(1, false);
    world.join(1, 5);
    world.run_for(30 * SECOND);
    assert_eq!(state(&world, 5, "n1"), Some(NodeState::Alive));
    world.watch = Counts::default();
    world.join(0, 5);
    let (mut worst, mut tenths) = (0, 0);
    for _ in 0..1200 {
        world.run_for(SECOND / 10);
        let wrong = (2..10).filter(|&of| state(&world, of, "n1") == Some(NodeState::Left)).count();
        worst = worst.max(wrong);
        tenths += usize::from(wrong > 0);
    }
    assert_eq!((worst, tenths), (0, 0), "members that take the live n1 for left, and for how long");
}

/// A fault search that a panic ends tells nobody the seed.
#[test]
fn a_machine_that_panics_is_a_finding_of_its_seed() {
    use memberlist_simulator::explore::{Scenario, run};
    let mut scenario = Scenario::new(1);
    scenario.config.suspicion_mult = 0; // Any panic will do: settings are refused with one.
    let outcome = std::panic::catch_unwind(|| run(&scenario, false));
    assert!(outcome.is_ok_and(|outcome| outcome.violation.is_some()), "the panic went through");
}
