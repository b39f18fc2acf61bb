//! What is true, and what every process believes: the two sides that the checkers compare.
//!
//! The truth comes from what was done to the processes and from what each says of itself. Beliefs
//! are rebuilt from events alone, as an application would, so that an event that is missing or wrong
//! shows as a belief that differs from the machine's table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use memberlist_protocol::{Event, Member, NodeId, NodeState};

use crate::network::ProcessId;
use crate::process::Process;
use crate::time::Time;

/// A process as it really is.
#[derive(Debug)]
pub struct Subject {
    /// Where it is, or was last.
    pub addr: SocketAddr,
    /// Which of its lives it is in.
    pub life: u32,
    /// The machine runs.
    pub up: bool,
    /// It stands still.
    pub paused: bool,
    /// It has said farewell.
    pub left: bool,
    /// It has exchanged states with somebody in this life.
    pub joined: bool,
    /// What it announces now.
    pub incarnation: u32,
    /// The highest incarnation of all its lives.
    pub highest_incarnation: u32,
    /// The incarnations at which it has said farewell, over all its lives.
    pub farewells: BTreeSet<u32>,
    /// When it last came back from a farewell in this life.
    pub returned: Option<Time>,
    /// Its health score: 0 is well.
    pub health: u32,
    /// When it was last started, stopped, paused or resumed, or left or came back.
    pub since: Time,
}

impl Subject {
    /// Whether it is up, runs, and takes part.
    pub fn is_member(&self) -> bool {
        self.up && !self.paused && !self.left
    }
}

/// What one process believes of another.
#[derive(Clone, PartialEq, Debug)]
pub struct Belief {
    /// Its state; `None` when the record was reaped.
    pub state: Option<NodeState>,
    /// The last known incarnation.
    pub incarnation: u32,
    /// The last known address.
    pub addr: SocketAddr,
    /// Since when.
    pub since: Time,
}

impl Belief {
    /// Alive or suspect.
    pub fn is_live(&self) -> bool {
        self.state.is_some_and(NodeState::is_live)
    }
}

/// All processes, and all beliefs.
#[derive(Debug, Default)]
pub struct Truth {
    subjects: Vec<Subject>,
    beliefs: Vec<BTreeMap<ProcessId, Belief>>,
    /// Whose beliefs changed since the process of that belief was last checked.
    touched: Vec<Vec<ProcessId>>,
    false_deaths: u64,
}

/// The process behind a name of the simulator ("n7").
pub fn process_of(name: &NodeId) -> Option<ProcessId> {
    name.as_str().strip_prefix('n')?.parse().ok()
}

impl Truth {
    /// The process of that name, if there is one.
    pub fn process_of(&self, name: &NodeId) -> Option<ProcessId> {
        process_of(name).filter(|id| (*id as usize) < self.subjects.len())
    }

    /// Every process so far.
    pub fn subjects(&self) -> impl Iterator<Item = (ProcessId, &Subject)> {
        self.subjects.iter().enumerate().map(|(id, subject)| (id as ProcessId, subject))
    }

    /// One process.
    pub fn subject(&self, id: ProcessId) -> &Subject {
        &self.subjects[id as usize]
    }

    /// How many names there are.
    pub fn names(&self) -> usize {
        self.subjects.len()
    }

    /// What one believes of another; `None` if it never heard of it.
    pub fn belief(&self, of: ProcessId, about: ProcessId) -> Option<&Belief> {
        self.beliefs[of as usize].get(&about)
    }

    /// Everything that one believes.
    pub fn beliefs(&self, of: ProcessId) -> &BTreeMap<ProcessId, Belief> {
        &self.beliefs[of as usize]
    }

    /// Whether one takes another for a live member.
    pub fn sees(&self, of: ProcessId, about: ProcessId) -> bool {
        self.belief(of, about).is_some_and(Belief::is_live)
    }

    /// How often anybody believed a member dead that was up, whether it could be reached or not.
    pub fn false_deaths(&self) -> u64 {
        self.false_deaths
    }

    /// About whom a process changed its mind since this was last asked.
    pub(crate) fn take_touched(&mut self, of: ProcessId) -> Vec<ProcessId> {
        std::mem::take(&mut self.touched[of as usize])
    }

    /// A process was started, stopped, paused or resumed.
    pub(crate) fn changed(&mut self, at: Time, process: &Process) {
        let id = process.id as usize;
        while self.subjects.len() <= id {
            self.beliefs.push(BTreeMap::new());
            self.touched.push(Vec::new());
            self.subjects.push(Subject {
                addr: process.addr,
                life: 0,
                up: false,
                paused: false,
                left: false,
                joined: false,
                incarnation: 0,
                highest_incarnation: 0,
                farewells: BTreeSet::new(),
                returned: None,
                health: 0,
                since: at,
            });
        }
        let subject = &mut self.subjects[id];
        if subject.life != process.life || !process.is_up() {
            self.beliefs[id].clear();
            self.touched[id].clear();
            subject.left = false;
            subject.joined = false;
            subject.returned = None;
            subject.health = 0;
        }
        subject.addr = process.addr;
        subject.life = process.life;
        subject.up = process.is_up();
        subject.paused = process.paused().is_some();
        subject.since = at;
        self.announced(process);
    }

    /// What a process says of itself now.
    pub(crate) fn announced(&mut self, process: &Process) {
        let Some(machine) = process.machine() else { return };
        let subject = &mut self.subjects[process.id as usize];
        let incarnation = machine.testing_incarnation();
        if incarnation != subject.incarnation {
            subject.incarnation = incarnation;
            subject.highest_incarnation = subject.highest_incarnation.max(incarnation);
        }
        if machine.has_left() {
            // It may repeat its farewell in a later incarnation.
            subject.farewells.insert(incarnation);
        }
    }

    /// A process told something: it believes it from now on.
    pub(crate) fn happened(&mut self, at: Time, process: &Process, event: &Event) {
        let of = process.id;
        if let Event::JoinDone { result: Ok(_), .. } = event {
            self.subjects[of as usize].joined = true;
        }
        if let Event::HealthChanged(score) = event {
            self.subjects[of as usize].health = *score;
        }
        if let Event::Reaped(name) = event {
            let Some(about) = self.process_of(name) else { return };
            if let Some(belief) = self.beliefs[of as usize].get_mut(&about) {
                belief.state = None;
                belief.since = at;
                self.touched[of as usize].push(about);
            }
        }
        let Some(member) = member_of(event) else { return };
        let Some(about) = self.process_of(member.id()) else { return };
        let belief = Belief {
            state: Some(member.state),
            incarnation: member.incarnation,
            addr: member.addr(),
            since: at,
        };
        let subject = &self.subjects[about as usize];
        let there = subject.up && subject.addr == member.addr();
        self.false_deaths += u64::from(there && member.state == NodeState::Dead);
        self.beliefs[of as usize].insert(about, belief);
        self.touched[of as usize].push(about);
        if about == of {
            let subject = &mut self.subjects[of as usize];
            let left = member.state == NodeState::Left;
            if left != subject.left {
                subject.left = left;
                subject.since = at;
                subject.returned = if left { subject.returned } else { Some(at) };
            }
            if left {
                subject.farewells.insert(member.incarnation);
            }
        }
    }
}

/// The member that an event is about, as it was then.
pub fn member_of(event: &Event) -> Option<&Member> {
    match event {
        Event::Joined(member)
        | Event::Gone(member)
        | Event::Updated(member)
        | Event::Renewed(member)
        | Event::Suspected(member)
        | Event::Cleared(member) => Some(member),
        _ => None,
    }
}
