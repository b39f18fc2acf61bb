//! Several rotations at once over a few members, without a network: requests arrive in any order,
//! those of a rotation that was given up as well.

use futures_util::FutureExt;
use memberlist_security::{Keyring, Version};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::config::Encryption;
use crate::keys::{KeyAnswer, apply};
use crate::layers::Sealing;

const MEMBERS: usize = 3;
const KEYS: u8 = 3;

fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes(&[n; 16]).unwrap()
}

fn id(member: usize) -> NodeId {
    NodeId::new(&format!("n{member}")).unwrap()
}

/// One who rotates, with the requests that have not arrived yet.
struct Operator {
    rotation: Rotation,
    looks: bool,
    waiting: Requests,
    report: KeyReport,
}

impl Operator {
    fn new(key: SecretKey) -> Self {
        let mut operator = Self {
            rotation: Rotation::new(key),
            looks: true,
            waiting: Requests::new(),
            report: KeyReport::default(),
        };
        operator.look();
        operator
    }

    fn look(&mut self) {
        self.looks = true;
        self.waiting = (0..MEMBERS).map(|member| (id(member), KeyRequest::List)).collect();
    }

    /// When all have answered; tells how the rotation ended, if it did.
    fn go_on(&mut self) -> Option<bool> {
        let report = std::mem::take(&mut self.report);
        if !report.is_complete() {
            return Some(false);
        }
        match self.looks.then(|| self.rotation.next(&report)) {
            Some(Err(_)) => return Some(false),
            Some(Ok(Step::Done)) => return Some(true),
            Some(Ok(Step::Ask(requests))) => (self.looks, self.waiting) = (false, requests),
            _ => self.look(),
        }
        None
    }
}

struct Model {
    members: Vec<Sealing>,
    operators: Vec<Operator>,
    /// Requests of rotations that were given up.
    strays: Vec<(NodeId, KeyRequest)>,
    rng: StdRng,
    quick: usize,
    done: usize,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let all = rng.random_range(1..=KEYS);
        let keyring = || Keyring::with_keys(key(1), (2..=all).map(key)).unwrap();
        let sealing = |_| Sealing::new(Some(&Encryption::new(keyring())), Version::V1);
        let operators = (1..=rng.random_range(2..=4)).map(|n| Operator::new(key(n))).collect();
        let members = (0..MEMBERS).map(sealing).collect();
        Self { members, operators, strays: Vec::new(), rng, quick: 0, done: 0 }
    }

    fn keyring(&self, member: usize) -> &Keyring {
        &self.members[member].keys().unwrap().keyring
    }

    fn deliver(&self, to: &NodeId, request: &KeyRequest) -> KeyAnswer {
        let member = (0..MEMBERS).find(|member| id(*member) == *to).unwrap();
        let applied = apply(self.members[member].keys().unwrap(), request);
        let result = applied.now_or_never().unwrap();
        for other in 0..MEMBERS {
            let primary = self.keyring(other).primary();
            let nobody_lacks_it = (0..MEMBERS).all(|each| self.keyring(each).contains(&primary));
            assert!(nobody_lacks_it, "n{other} is cut off by {request:?} at {to}");
        }
        KeyAnswer { addr: ([10, 0, 0, 1], 1).into(), result }
    }

    /// Somebody's next request arrives, or somebody gives up and begins anew.
    fn step(&mut self) {
        if !self.strays.is_empty() && self.rng.random_bool(0.1) {
            let at = self.rng.random_range(0..self.strays.len());
            let (to, request) = self.strays.swap_remove(at);
            self.deliver(&to, &request);
            return;
        }
        // One is quick for a while, the others' requests are on their way.
        if self.rng.random_bool(0.2) {
            self.quick = self.rng.random_range(0..self.operators.len());
        }
        let at = self.quick;
        if self.rng.random_bool(0.02) {
            return self.begin_anew(at);
        }
        if let Some(done) = self.arrive(at) {
            self.done += usize::from(done);
            self.begin_anew(at);
        }
    }

    /// A request of that operator arrives; tells how its rotation ended, if it did.
    fn arrive(&mut self, at: usize) -> Option<bool> {
        let place = self.rng.random_range(0..self.operators[at].waiting.len());
        let to = self.operators[at].waiting.keys().nth(place)?.clone();
        let request = self.operators[at].waiting.remove(&to)?;
        let answer = self.deliver(&to, &request);
        let operator = &mut self.operators[at];
        operator.report.answers.insert(to, answer);
        if operator.waiting.is_empty() { operator.go_on() } else { None }
    }

    fn begin_anew(&mut self, at: usize) {
        let n = self.rng.random_range(1..=KEYS);
        let old = std::mem::replace(&mut self.operators[at], Operator::new(key(n)));
        self.strays.extend(old.waiting);
    }
}

/// The safety property: whatever arrives when, the primary of each member is held by all.
#[test]
fn no_order_of_requests_cuts_anybody_off() {
    let mut done = 0;
    for seed in 0..40 {
        let mut model = Model::new(seed);
        for _ in 0..2000 {
            model.step();
        }
        done += model.done;
    }
    // They are in each other's way, but not always.
    assert!(done > 20, "{done}");
}

/// Whatever others have left behind, who rotates alone comes to the end.
#[test]
fn a_rotation_that_is_left_alone_comes_to_its_end() {
    for seed in 0..20 {
        let mut model = Model::new(seed);
        for _ in 0..300 {
            model.step();
        }
        model.operators = vec![Operator::new(key(9))];
        let ended = (0..2000).find_map(|_| model.arrive(0));
        assert_eq!(ended, Some(true), "seed {seed}");
        assert!((0..MEMBERS).all(|member| model.keyring(member).list().len() == 1));
    }
}
