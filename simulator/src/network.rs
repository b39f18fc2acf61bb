//! The network between the processes: what happens to a packet or a stream on its way.
//!
//! Every ordered pair of processes is a link. Packets and streams have a model each, for all links
//! or for one. A blocked link loses packets and leaves streams without an answer; a clogged one holds
//! everything back until it is free again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::time::Time;

/// The index of a process in its world.
pub type ProcessId = u32;

/// How long things take on a link.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Delay {
    /// Always the same.
    Fixed(Duration),
    /// Any time between the two, equally likely.
    Uniform(Duration, Duration),
    /// At least the first, plus an exponentially distributed time with the second as its mean, cut
    /// at ten means.
    Exponential(Duration, Duration),
}

impl Delay {
    fn draw(&self, rng: &mut StdRng) -> Duration {
        match *self {
            Self::Fixed(delay) => delay,
            Self::Uniform(from, to) => from + to.saturating_sub(from).mul_f64(rng.random::<f64>()),
            Self::Exponential(least, mean) => {
                let rest = (1.0 - rng.random::<f64>()).max(f64::MIN_POSITIVE);
                least + mean.mul_f64((-libm::log(rest)).min(10.0))
            }
        }
    }

    /// The longest possible delay.
    pub fn longest(&self) -> Duration {
        match *self {
            Self::Fixed(delay) => delay,
            Self::Uniform(_, to) => to,
            Self::Exponential(least, mean) => least + mean * 10,
        }
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(delay) => write!(f, "{delay:.1?}"),
            Self::Uniform(from, to) => write!(f, "{from:.1?} to {to:.1?}"),
            Self::Exponential(least, mean) => write!(f, "{least:.1?} + exp {mean:.1?}"),
        }
    }
}

/// What a link does to packets.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PacketModel {
    /// How long a packet takes. Different delays reorder packets.
    pub delay: Delay,
    /// The chance that it is lost, 0 to 1.
    pub loss: f64,
    /// The chance that it comes twice, 0 to 1.
    pub duplicate: f64,
}

/// What a link does to streams.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StreamModel {
    /// How long bytes take in one direction. An exchange takes this four times: to connect and
    /// back, with the request, with the answer.
    pub delay: Delay,
    /// The chance that an exchange gets no answer, 0 to 1.
    pub loss: f64,
}

/// Both models.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LinkModel {
    /// For packets.
    pub packets: PacketModel,
    /// For streams.
    pub streams: StreamModel,
}

impl fmt::Display for LinkModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| 100.0 * share;
        let (packets, streams) = (&self.packets, &self.streams);
        let (lost, doubled) = (percent(packets.loss), percent(packets.duplicate));
        write!(f, "packets {}, {lost:.0} % lost, {doubled:.0} % twice; ", packets.delay)?;
        write!(f, "streams {}, {:.0} % lost", streams.delay, percent(streams.loss))
    }
}

impl LinkModel {
    /// No loss, and this delay for everything.
    pub fn perfect(delay: Duration) -> Self {
        let delay = Delay::Fixed(delay);
        Self {
            packets: PacketModel { delay, loss: 0.0, duplicate: 0.0 },
            streams: StreamModel { delay, loss: 0.0 },
        }
    }

    /// The same with this chance of losing a packet.
    pub fn with_loss(mut self, loss: f64) -> Self {
        self.packets.loss = loss;
        self
    }
}

/// All links.
#[derive(Debug)]
pub struct Network {
    default: LinkModel,
    links: BTreeMap<(ProcessId, ProcessId), LinkModel>,
    blocked: BTreeSet<(ProcessId, ProcessId)>,
    clogged: BTreeMap<(ProcessId, ProcessId), Time>,
}

/// What becomes of a packet: when it arrives, and when its copy does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fate {
    /// The arrival, if it is not lost.
    pub arrives: Option<Time>,
    /// The arrival of its copy, if it was doubled.
    pub copy: Option<Time>,
}

impl Network {
    /// All links alike.
    pub fn new(default: LinkModel) -> Self {
        Self { default, links: BTreeMap::new(), blocked: BTreeSet::new(), clogged: BTreeMap::new() }
    }

    /// Changes the model of all links that have none of their own.
    pub fn set_default(&mut self, model: LinkModel) {
        self.default = model;
    }

    /// The model of all links that have none of their own.
    pub fn default_model(&self) -> LinkModel {
        self.default
    }

    /// Gives one link a model of its own.
    pub fn set_link(&mut self, from: ProcessId, to: ProcessId, model: LinkModel) {
        self.links.insert((from, to), model);
    }

    /// Blocks one direction between two processes.
    pub fn block(&mut self, from: ProcessId, to: ProcessId) {
        self.blocked.insert((from, to));
    }

    /// Ends the block of one direction.
    pub fn unblock(&mut self, from: ProcessId, to: ProcessId) {
        self.blocked.remove(&(from, to));
    }

    /// Blocks what the processes of one side send to the other.
    pub fn block_groups(&mut self, from: &[ProcessId], to: &[ProcessId]) {
        for &a in from {
            for &b in to {
                if a != b {
                    self.block(a, b);
                }
            }
        }
    }

    /// Blocks both directions between two sides.
    pub fn partition(&mut self, one: &[ProcessId], other: &[ProcessId]) {
        self.block_groups(one, other);
        self.block_groups(other, one);
    }

    /// Holds back what is sent on a link until then.
    pub fn clog(&mut self, from: ProcessId, to: ProcessId, until: Time) {
        self.clogged.insert((from, to), until);
    }

    /// Ends every block, clog and model of a single link.
    pub fn heal(&mut self) {
        self.links.clear();
        self.blocked.clear();
        self.clogged.clear();
    }

    /// Whether nothing gets from one to the other.
    pub fn is_blocked(&self, from: ProcessId, to: ProcessId) -> bool {
        self.blocked.contains(&(from, to))
    }

    fn model(&self, from: ProcessId, to: ProcessId) -> LinkModel {
        match self.links.is_empty() {
            true => self.default,
            false => self.links.get(&(from, to)).copied().unwrap_or(self.default),
        }
    }

    fn free_at(&self, from: ProcessId, to: ProcessId, now: Time) -> Time {
        match self.clogged.is_empty() {
            true => now,
            false => self.clogged.get(&(from, to)).map_or(now, |&until| until.max(now)),
        }
    }

    /// What becomes of a packet that is sent now.
    pub fn packet(&self, from: ProcessId, to: ProcessId, now: Time, rng: &mut StdRng) -> Fate {
        if self.is_blocked(from, to) {
            return Fate::default();
        }
        let model = self.model(from, to).packets;
        let mut fate = Fate::default();
        // A chance of zero must not cost a draw: healthy runs are the long ones.
        if model.loss == 0.0 || rng.random::<f64>() >= model.loss {
            fate.arrives = Some(self.free_at(from, to, now) + model.delay.draw(rng));
        }
        // A copy must not bring back what was lost.
        let doubled = model.duplicate > 0.0 && rng.random::<f64>() < model.duplicate;
        if doubled && fate.arrives.is_some() {
            fate.copy = Some(self.free_at(from, to, now) + model.delay.draw(rng));
        }
        fate
    }

    /// How long bytes of a stream take now; `None` if they do not arrive.
    pub fn stream(
        &self,
        from: ProcessId,
        to: ProcessId,
        now: Time,
        rng: &mut StdRng,
    ) -> Option<Duration> {
        if self.is_blocked(from, to) {
            return None;
        }
        let model = self.model(from, to).streams;
        // An exchange takes four of these; together they fail as often as the model says.
        if model.loss > 0.0 && rng.random::<f64>() < 1.0 - libm::pow(1.0 - model.loss, 0.25) {
            return None;
        }
        Some((self.free_at(from, to, now) - now) + model.delay.draw(rng))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn blocks_have_a_direction_and_heal() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut network = Network::new(LinkModel::perfect(MS));
        network.block(0, 1);
        assert_eq!(network.packet(0, 1, Time::ZERO, &mut rng), Fate::default());
        assert_eq!(network.packet(1, 0, Time::ZERO, &mut rng).arrives, Some(Time::ZERO + MS));
        assert_eq!(network.stream(0, 1, Time::ZERO, &mut rng), None);
        network.heal();
        assert_eq!(network.stream(0, 1, Time::ZERO, &mut rng), Some(MS));
    }

    #[test]
    fn a_clog_holds_back_until_it_ends() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut network = Network::new(LinkModel::perfect(MS));
        network.clog(0, 1, Time::ZERO + 10 * MS);
        assert_eq!(network.packet(0, 1, Time::ZERO, &mut rng).arrives, Some(Time::ZERO + 11 * MS));
        let later = Time::ZERO + 20 * MS;
        assert_eq!(network.packet(0, 1, later, &mut rng).arrives, Some(later + MS));
    }

    #[test]
    fn losses_and_copies_come_as_often_as_asked() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut model = LinkModel::perfect(MS).with_loss(0.3);
        model.packets.duplicate = 0.1;
        let network = Network::new(model);
        let fates: Vec<Fate> =
            (0..10_000).map(|_| network.packet(0, 1, Time::ZERO, &mut rng)).collect();
        let lost = fates.iter().filter(|fate| fate.arrives.is_none()).count();
        let copied = fates.iter().filter(|fate| fate.copy.is_some()).count();
        assert!((2800..3200).contains(&lost), "{lost}");
        assert!((600..800).contains(&copied), "{copied}");
    }

    #[test]
    fn delays_stay_in_their_range() {
        let mut rng = StdRng::seed_from_u64(1);
        for delay in [Delay::Uniform(MS, 3 * MS), Delay::Exponential(MS, 2 * MS)] {
            for _ in 0..1000 {
                let drawn = delay.draw(&mut rng);
                assert!((MS..=delay.longest()).contains(&drawn), "{delay:?}: {drawn:?}");
            }
        }
    }
}
