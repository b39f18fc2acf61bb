//! Settings that change while the node runs.

use super::*;
use crate::error::ReconfigureError;
use crate::wire::WireFormat;

fn probes_in(one: &mut One, time: Duration) -> u64 {
    let before = one.machine.stats().probes;
    one.advance(time);
    one.sent();
    one.machine.stats().probes - before
}

fn change(one: &mut One, change: impl FnOnce(&mut Config)) -> Result<(), ReconfigureError> {
    let mut config = one.machine.config().clone();
    change(&mut config);
    let result = one.machine.reconfigure(config, one.now);
    one.drain();
    result
}

#[test]
fn intervals_change_at_once_and_can_be_switched_off_and_on() {
    let mut one = One::knowing(quiet(), 5);
    one.healthy = true;
    assert_eq!(probes_in(&mut one, secs(10)), 10);
    change(&mut one, |config| config.probe_interval = secs(3600)).unwrap();
    assert!(probes_in(&mut one, secs(10)) <= 1);
    change(&mut one, |config| config.probe_interval = secs(2)).unwrap();
    let probes = probes_in(&mut one, secs(20));
    assert!((9..=11).contains(&probes), "an hour is not waited for: {probes}");
    change(&mut one, |config| config.probe_interval = Duration::ZERO).unwrap();
    assert_eq!(probes_in(&mut one, secs(60)), 0);
    change(&mut one, |config| config.probe_interval = secs(1)).unwrap();
    let probes = probes_in(&mut one, secs(10));
    assert!((9..=11).contains(&probes), "{probes}");

    change(&mut one, |config| config.push_pull_interval = secs(5)).unwrap();
    one.advance(secs(22));
    let asked = std::iter::from_fn(|| one.machine.poll_stream_request()).count();
    assert!((4..=5).contains(&asked), "{asked}");
    change(&mut one, |config| config.push_pull_interval = Duration::ZERO).unwrap();
    one.advance(secs(60));
    assert_eq!(one.machine.poll_stream_request(), None);
}

#[test]
fn gossip_goes_on_with_another_interval() {
    let config = Config { eager_gossip_spacing: Duration::ZERO, ..quiet() };
    let mut one = One::knowing(config, 50);
    one.healthy = true;
    one.receive(1, &[Message::Alive(alive("n2", 2, 2))]);
    change(&mut one, |config| config.gossip_interval = secs(2)).unwrap();
    one.advance(secs(7));
    let times: Vec<_> = one.sent_first(MessageKind::Alive).iter().map(|sent| sent.at).collect();
    let gap = |pair: &[Duration]| pair[1] - pair[0];
    assert!(times.len() >= 4, "{times:?}");
    assert!(times.windows(2).map(gap).all(|gap| gap.is_zero() || gap == secs(2)), "{times:?}");
}

#[test]
fn what_others_depend_on_does_not_change_and_nothing_else_then() {
    let mut one = One::knowing(quiet(), 3);
    let before = one.machine.config().clone();
    let error = change(&mut one, |config| {
        config.wire_format = WireFormat::Mixed;
        config.max_packet_bytes = 9000;
        config.probe_interval = secs(7);
    });
    let fields = vec!["max_packet_bytes", "wire_format"];
    assert_eq!(error, Err(ReconfigureError::Fixed { fields }));
    let error = change(&mut one, |config| {
        config.retransmit_mult = 0;
        config.probe_timeout = secs(90);
    });
    let Err(ReconfigureError::Config(faults)) = error else { panic!("{error:?}") };
    assert_eq!(faults.faults.len(), 2);
    assert_eq!(*one.machine.config(), before);
}
