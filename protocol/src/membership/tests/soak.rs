//! Clusters to which everything happens, and which must agree once it stops.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

const NODES: usize = 8;

/// What a node was last told to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Stay,
    Leave,
    Crash,
    Pause,
}

/// Two minutes of loss, partitions, crashes, pauses, farewells and updates.
fn trouble(net: &mut Net, rng: &mut StdRng) -> [Told; NODES] {
    let mut told = [Told::Stay; NODES];
    for _ in 0..24 {
        net.run(ms(rng.random_range(1..10_000)));
        let i = rng.random_range(0..NODES);
        // One always stays, so that there is a cluster to come back to.
        match (told[i], rng.random_range(0..5)) {
            (Told::Stay, 0) if i > 0 => {
                net.call(i, |machine, now| machine.leave(now));
                told[i] = Told::Leave;
            }
            (Told::Stay, 1) if i > 0 => {
                net.crash(i);
                told[i] = Told::Crash;
            }
            (Told::Stay, 2) => {
                net.pause(i);
                told[i] = Told::Pause;
            }
            (Told::Stay, _) => {
                let meta = vec![rng.random(); 4].into();
                net.call(i, |machine, now| machine.update_meta(meta, now)).unwrap();
            }
            (was, 0..3) => recover(net, i, was, &mut told),
            _ => {}
        }
        disturb(net, rng);
    }
    told
}

fn recover(net: &mut Net, i: usize, was: Told, told: &mut [Told; NODES]) {
    match was {
        Told::Stay => return,
        Told::Leave => net.call(i, Membership::rejoin),
        Told::Crash => net.restart(i),
        Told::Pause => net.resume(i),
    }
    if was != Told::Pause {
        net.call(i, |machine, _| machine.join(peer(0)));
    }
    told[i] = Told::Stay;
}

/// Another kind of bad network.
fn disturb(net: &mut Net, rng: &mut StdRng) {
    let side: u8 = rng.random();
    let (loss, mut dice) = (rng.random_range(0.0..0.5), StdRng::seed_from_u64(rng.random()));
    match rng.random_range(0..4) {
        0 => net.lose_nothing(),
        1 => net.lose(move |from, to, _| (side >> from & 1) != (side >> to & 1)),
        2 => net.lose(move |_, _, _| dice.random::<f64>() < loss),
        _ => net
            .lose(move |from, to, kind| kind != Kind::Stream && side >> from & side >> to & 1 == 1),
    }
}

fn survives(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut net = Net::cluster(NODES, Config::lan(), seed);
    let told = trouble(&mut net, &mut rng);
    net.lose_nothing();
    // Those that left or crashed stay away; a process that has left ends at last.
    for (i, was) in told.iter().enumerate() {
        match was {
            Told::Pause => net.resume(i),
            Told::Leave => net.crash(i),
            Told::Stay | Told::Crash => {}
        }
    }
    // An application whose join has failed tries again.
    for i in 1..NODES {
        if net.hosts[i].machine.known_members() == 1 {
            net.call(i, |machine, _| machine.join(peer(0)));
        }
    }
    let there: Vec<usize> =
        (0..NODES).filter(|i| matches!(told[*i], Told::Stay | Told::Pause)).collect();
    let agree = |net: &Net| {
        let who = |i: &usize| net.hosts[*i].machine.own();
        there.iter().all(|at| {
            let machine = &net.hosts[*at].machine;
            let alive = |i: &usize| {
                machine.member(&name(*i)).is_some_and(|member| {
                    member.state == NodeState::Alive && member.node == who(i).node
                })
            };
            machine.live_members() == there.len() && there.iter().all(alive)
        })
    };
    let took = net.until(secs(180), agree);
    assert!(took.is_some(), "seed {seed}: {:#?}", views(&net, &there));
    // Peace stays.
    net.run(secs(60));
    assert!(agree(&net), "seed {seed}: {:#?}", views(&net, &there));
    for host in &net.hosts {
        let pending = host.machine.pending();
        assert!(pending.timers < 20 && pending.pings < 20, "seed {seed}: {pending:?}");
    }
}

/// What the nodes believe, for whoever reads a failure.
fn views(net: &Net, at: &[usize]) -> Vec<(String, Vec<String>)> {
    let view = |i: &usize| {
        let members = net.hosts[*i].machine.members();
        let lines = members.map(|m| format!("{} {} {}", m.id(), m.state, m.incarnation));
        (name(*i), lines.collect())
    };
    at.iter().map(view).collect()
}

#[test]
fn whatever_happened_the_survivors_agree_in_the_end() {
    (0..40).for_each(survives);
}
