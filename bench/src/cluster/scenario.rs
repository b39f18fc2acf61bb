//! One run: a cluster from its creation to its restart.

use std::time::Duration;

use clap::ValueEnum;
use memberlist_bench_fleet::protocol::{Answer, Command};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::Serialize;

use super::programs::Library;
use super::worker::{Usage, Worker};

/// Beyond the limit: farewells and joins that a library does not break off.
const HANG_PATIENCE: Duration = Duration::from_secs(120);

/// A part of the scenario. Each needs those before it only if they were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// What an idle node costs.
    Idle,
    /// A broadcast to all.
    Broadcast,
    /// One in a hundred ends without a farewell.
    Kill,
    /// One in ten leaves.
    Leave,
    /// All that are gone come back.
    Restart,
}

impl Part {
    /// Whether nodes are gone after it.
    pub fn ends_nodes(self) -> bool {
        matches!(self, Self::Kill | Self::Leave)
    }
}

/// What a run is made of, beside the nodes' number and whether they encrypt.
#[derive(Clone, Debug, Serialize)]
pub struct Scenario {
    /// After the mass join, which is always done.
    pub parts: Vec<Part>,
    /// Joins under way at once.
    pub in_flight: usize,
    /// After which a part counts as not done.
    pub limit_s: u64,
    /// Between the mass join and the measurement of idle nodes.
    pub settle_s: u64,
    /// The measurement of idle nodes.
    pub idle_s: u64,
    /// The length of the broadcast.
    pub broadcast_bytes: usize,
}

/// What a run found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Run {
    /// Picks who is killed and who leaves.
    pub seed: u64,
    /// Why it could not go on.
    pub error: Option<String>,
    /// What was to be done and was not reached.
    pub not_reached: Vec<Part>,
    /// Nodes declared dead that were running.
    pub false_deaths: usize,
    /// Of the mass join.
    pub join: Option<Step>,
    /// Processor time of the whole process for the mass join, in seconds; if it was not done, until the
    /// limit. The same holds for what follows.
    pub join_processor_s: Option<f64>,
    /// Resident bytes for each node after the mass join, less what the process had without nodes.
    pub node_bytes_joined: Option<f64>,
    /// Of idle nodes.
    pub idle: Option<Idle>,
    /// Of the broadcast.
    pub broadcast: Option<Step>,
    /// Of those that were killed.
    pub kill: Option<Detection>,
    /// Of those that left.
    pub leave: Option<Step>,
    /// Of those that came back.
    pub restart: Option<Step>,
}

/// A part that was done at some time, or was not.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Step {
    /// Seconds until it was done; none if it was not within the limit.
    pub took_s: Option<f64>,
    /// Joins or farewells that the library said have failed.
    pub failed: usize,
    /// Nodes that lacked something in the end.
    pub missing: usize,
}

/// What idle nodes cost.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Idle {
    /// Processor time of a node, in percent of one core.
    pub processor_percent: f64,
    /// Datagrams that a node sends a second.
    pub datagrams_per_s: f64,
    /// Bytes that a node sends a second, with all headers.
    pub bytes_per_s: f64,
    /// Resident bytes for each node at the end, less what the process had without nodes.
    pub node_bytes: f64,
}

/// When those that were killed were found out.
#[derive(Clone, Debug, Serialize)]
pub struct Detection {
    /// For each: seconds until the first other declared it dead; none if nobody did.
    pub first_s: Vec<Option<f64>>,
    /// For each: seconds until the last other did; none if one did not.
    pub last_s: Vec<Option<f64>>,
}

impl Scenario {
    /// What of it that library does: what is none has pings alone.
    pub(super) fn of(&self, library: Library) -> Self {
        let parts = self.parts.iter().copied();
        let parts = parts.filter(|part| library != Library::Bare || *part == Part::Idle).collect();
        Self { parts, ..self.clone() }
    }

    /// A run for which no program was there.
    pub(super) fn not_run(&self, seed: u64, error: String) -> Run {
        Run { seed, error: Some(error), not_reached: self.parts.clone(), ..Run::default() }
    }

    /// Puts the library through it. `said` is told what is done.
    pub fn run(
        &self,
        worker: &mut Worker,
        nodes: usize,
        encrypted: bool,
        seed: u64,
        said: impl Fn(&str),
    ) -> Run {
        let mut run = Run { seed, not_reached: self.parts.clone(), ..Run::default() };
        if let Err(error) = self.try_run(worker, nodes, encrypted, &mut run, said) {
            run.error = Some(error);
        }
        run
    }

    fn try_run(
        &self,
        worker: &mut Worker,
        nodes: usize,
        encrypted: bool,
        run: &mut Run,
        said: impl Fn(&str),
    ) -> Result<(), String> {
        let limit_ms = self.limit_s * 1000;
        // What the program waits for has the limit; this is for a library that hangs.
        let patience = Duration::from_secs(self.limit_s) + HANG_PATIENCE;
        let ask = |worker: &mut Worker, command| worker.ask(&command, patience);
        let empty = worker.usage()?;
        said("create");
        ask(worker, Command::Create { nodes, encrypted })?;
        let created = worker.usage()?;
        said("join");
        let answer = ask(worker, Command::Join { in_flight: self.in_flight, limit_ms })?;
        let joined = worker.usage()?;
        run.false_deaths = answer.false_deaths;
        run.join = Some(step(&answer));
        run.join_processor_s = Some((joined.processor - created.processor).as_secs_f64());
        run.node_bytes_joined = Some(bytes_a_node(&empty, &joined, nodes));
        if answer.took_ms.is_none() {
            // What follows would measure another cluster than the others'.
            return Err("the views were not complete within the limit".into());
        }
        let (victims, leavers) = gone(nodes, run.seed);
        let mut are_gone = false;
        for part in &self.parts {
            said(&format!("{part:?}").to_lowercase());
            // Of so few nodes perhaps none leaves, and none returns.
            let (leaves, returns) = (*part == Part::Leave, *part == Part::Restart);
            if leaves && leavers.is_empty() || returns && !are_gone {
                run.not_reached.retain(|other| other != part);
                continue;
            }
            are_gone |= part.ends_nodes();
            let answer = match part {
                Part::Idle => {
                    run.idle = Some(self.idle(worker, &empty, nodes)?);
                    run.not_reached.retain(|other| other != part);
                    continue;
                }
                Part::Broadcast => {
                    let command = Command::Broadcast { bytes: self.broadcast_bytes, limit_ms };
                    let answer = ask(worker, command)?;
                    run.broadcast = Some(step(&answer));
                    answer
                }
                Part::Kill => {
                    let answer = ask(worker, Command::Kill { nodes: victims.clone(), limit_ms })?;
                    run.kill = Some(detection(&answer));
                    answer
                }
                Part::Leave => {
                    let answer = ask(worker, Command::Leave { nodes: leavers.clone(), limit_ms })?;
                    run.leave = Some(step(&answer));
                    answer
                }
                Part::Restart => {
                    let command = Command::Restart { in_flight: self.in_flight, limit_ms };
                    let answer = ask(worker, command)?;
                    run.restart = Some(step(&answer));
                    answer
                }
            };
            run.false_deaths = answer.false_deaths;
            run.not_reached.retain(|other| other != part);
        }
        Ok(())
    }

    fn idle(&self, worker: &Worker, empty: &Usage, nodes: usize) -> Result<Idle, String> {
        std::thread::sleep(Duration::from_secs(self.settle_s));
        let (before, began) = (worker.usage()?, std::time::Instant::now());
        std::thread::sleep(Duration::from_secs(self.idle_s));
        let (after, seconds) = (worker.usage()?, began.elapsed().as_secs_f64());
        let of_each = |total: f64| total / seconds / nodes as f64;
        Ok(Idle {
            processor_percent: of_each((after.processor - before.processor).as_secs_f64()) * 100.0,
            datagrams_per_s: of_each((after.datagrams - before.datagrams) as f64),
            bytes_per_s: of_each((after.bytes - before.bytes) as f64),
            node_bytes: bytes_a_node(empty, &after, nodes),
        })
    }
}

fn bytes_a_node(empty: &Usage, now: &Usage, nodes: usize) -> f64 {
    now.resident.saturating_sub(empty.resident) as f64 / nodes as f64
}

fn seconds(millis: Option<f64>) -> Option<f64> {
    millis.map(|millis| millis / 1e3)
}

fn step(answer: &Answer) -> Step {
    Step { took_s: seconds(answer.took_ms), failed: answer.failed, missing: answer.missing }
}

fn detection(answer: &Answer) -> Detection {
    let all = |times: &[Option<f64>]| times.iter().copied().map(seconds).collect();
    Detection { first_s: all(&answer.first_ms), last_s: all(&answer.last_ms) }
}

/// Who is killed, one in a hundred and at least one, and who leaves, one in ten; never the seed.
fn gone(nodes: usize, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut all: Vec<usize> = (1..nodes).collect();
    all.shuffle(&mut StdRng::seed_from_u64(seed));
    let victims = all.split_off(all.len() - (nodes / 100).max(1));
    let leavers = all.split_off(all.len().saturating_sub(nodes / 10));
    (victims, leavers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_picks_the_same_nodes_and_never_the_seed_node() {
        let (victims, leavers) = gone(200, 7);
        assert_eq!((victims.len(), leavers.len()), (2, 20));
        assert_eq!(gone(200, 7), (victims.clone(), leavers.clone()));
        assert_ne!(gone(200, 8).0, victims);
        assert!(victims.iter().chain(&leavers).all(|node| (1..200).contains(node)));
        assert!(victims.iter().all(|node| !leavers.contains(node)));
        assert_eq!(gone(2, 1), (vec![1], vec![]));
    }
}
