//! The nodes, and what is done with them.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::protocol::{Answer, Command};
use crate::{Implementation, News, Node, Observer, Spec};

/// How often it is looked whether something is done.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The nodes of one process.
#[derive(Debug)]
pub struct Fleet<I: Implementation> {
    implementation: I,
    encrypted: bool,
    slots: Vec<Slot<I::Node>>,
    news: Arc<News>,
    broadcasts: u64,
}

/// A place for a node: it keeps its name and address when it ends and starts again.
#[derive(Debug)]
struct Slot<N> {
    addr: SocketAddr,
    node: Option<Arc<N>>,
}

fn name(number: usize) -> String {
    format!("node-{number}")
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl<I: Implementation> Fleet<I> {
    /// Without nodes.
    pub fn new(implementation: I) -> Self {
        let (slots, news) = (Vec::new(), Arc::default());
        Self { implementation, encrypted: false, slots, news, broadcasts: 0 }
    }

    /// Does it, and tells what came of it.
    pub async fn obey(&mut self, command: Command) -> Answer {
        let limit = |limit_ms| Duration::from_millis(limit_ms);
        let done = match command {
            Command::Create { nodes, encrypted } => self.create(nodes, encrypted).await,
            Command::Join { in_flight, limit_ms } => {
                let all = (1..self.slots.len()).collect();
                self.join(all, in_flight, limit(limit_ms)).await
            }
            Command::Broadcast { bytes, limit_ms } => self.broadcast(bytes, limit(limit_ms)).await,
            Command::Kill { nodes, limit_ms } => self.kill(&nodes, limit(limit_ms)).await,
            Command::Leave { nodes, limit_ms } => self.leave(&nodes, limit(limit_ms)).await,
            Command::Restart { in_flight, limit_ms } => {
                self.restart(in_flight, limit(limit_ms)).await
            }
        };
        let answer = done.unwrap_or_else(Answer::failed);
        Answer { false_deaths: self.news.false_deaths(), ..answer }
    }

    async fn create(&mut self, nodes: usize, encrypted: bool) -> Result<Answer, String> {
        if nodes < 2 || !self.slots.is_empty() {
            return Err("create: once, and at least two nodes".into());
        }
        self.encrypted = encrypted;
        let began = Instant::now();
        for number in 0..nodes {
            let node = self.start(number, (Ipv4Addr::LOCALHOST, 0).into()).await?;
            self.slots.push(Slot { addr: node.addr(), node: Some(node) });
        }
        Ok(Answer { took_ms: Some(millis(began.elapsed())), ..Answer::default() })
    }

    async fn start(&self, number: usize, bind: SocketAddr) -> Result<Arc<I::Node>, String> {
        let spec = Spec { name: name(number), bind, encrypted: self.encrypted };
        let observer = Observer { number, news: Arc::clone(&self.news) };
        let started = self.implementation.start(spec, observer).await;
        started.map(Arc::new).map_err(|error| format!("{}: {error}", name(number)))
    }

    /// These join the seed; until every node sees all that run.
    async fn join(
        &self,
        numbers: Vec<usize>,
        in_flight: usize,
        limit: Duration,
    ) -> Result<Answer, String> {
        let (began, deadline) = (Instant::now(), tokio::time::Instant::now() + limit);
        let seed = self.slots.first().ok_or("join: there are no nodes")?.addr;
        let each = move |node: Arc<I::Node>| async move { node.join(seed).await };
        let joining = at_once(self.running(&numbers), in_flight.max(1), each);
        // Of those that are cut off none is known to have failed: what is missing tells.
        let failed = tokio::time::timeout_at(deadline, joining).await.unwrap_or_default();
        let missing = self.await_views(deadline).await;
        Ok(Answer { took_ms: took(began, missing), failed, missing, ..Answer::default() })
    }

    /// Waits until every node sees all that run, and tells how many do not.
    ///
    /// Views are looked at one after the other, from the first that was not complete, so that looking
    /// costs little; at the end all are looked at again.
    async fn await_views(&self, deadline: tokio::time::Instant) -> usize {
        let nodes: Vec<_> = self.slots.iter().filter_map(|slot| slot.node.as_deref()).collect();
        let mut complete = 0;
        loop {
            while complete < nodes.len() && nodes[complete].live_count().await == nodes.len() {
                complete += 1;
            }
            let over = tokio::time::Instant::now() >= deadline;
            if complete == nodes.len() || over {
                let missing = incomplete(&nodes).await;
                if missing == 0 || over {
                    return missing;
                }
                complete = 0;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn broadcast(&mut self, bytes: usize, limit: Duration) -> Result<Answer, String> {
        let (began, others) = (Instant::now(), self.running_count().saturating_sub(1));
        self.news.await_broadcast(bytes);
        let seed = self.slots.first().and_then(|slot| slot.node.as_ref());
        let seed = seed.ok_or("broadcast: there are no nodes")?;
        self.broadcasts += 1;
        seed.broadcast(payload(bytes, self.broadcasts)).await?;
        wait_until(limit, || self.news.receipts().0 >= others).await;
        let (have, last) = self.news.receipts();
        let missing = others.saturating_sub(have);
        let took_ms = last.filter(|_| missing == 0).map(|last| millis(last - began));
        Ok(Answer { took_ms, missing, ..Answer::default() })
    }

    async fn kill(&mut self, numbers: &[usize], limit: Duration) -> Result<Answer, String> {
        let began = Instant::now();
        let nodes = self.take(numbers)?;
        let _ = at_once(nodes, numbers.len().max(1), |node| async move {
            node.stop().await;
            Ok(())
        })
        .await;
        let others = self.running_count();
        let names: Vec<_> = numbers.iter().map(|number| name(*number)).collect();
        let all_know = || names.iter().all(|name| self.news.deaths(name).0 >= others);
        wait_until(limit, all_know).await;
        let mut answer = Answer::default();
        for name in &names {
            let (know, times) = self.news.deaths(name);
            let missing = others.saturating_sub(know);
            let times =
                times.map(|times| times.map(|at| millis(at.saturating_duration_since(began))));
            answer.missing += missing;
            answer.first_ms.push(times.map(|[first, _]| first));
            answer.last_ms.push(times.map(|[_, last]| last).filter(|_| missing == 0));
        }
        answer.took_ms = took(began, answer.missing);
        Ok(answer)
    }

    async fn leave(&mut self, numbers: &[usize], limit: Duration) -> Result<Answer, String> {
        let (began, deadline) = (Instant::now(), tokio::time::Instant::now() + limit);
        let nodes = self.take(numbers)?;
        let failed = at_once(nodes, numbers.len().max(1), |node| async move {
            let left = node.leave().await;
            node.stop().await;
            left
        })
        .await;
        let missing = self.await_views(deadline).await;
        Ok(Answer { took_ms: took(began, missing), failed, missing, ..Answer::default() })
    }

    async fn restart(&mut self, in_flight: usize, limit: Duration) -> Result<Answer, String> {
        let empty = |(number, slot): (usize, &Slot<I::Node>)| slot.node.is_none().then_some(number);
        let gone: Vec<_> = self.slots.iter().enumerate().filter_map(empty).collect();
        for number in &gone {
            self.news.back(&name(*number));
            let node = self.start(*number, self.slots[*number].addr).await?;
            self.slots[*number].node = Some(node);
        }
        self.join(gone, in_flight, limit).await
    }

    fn running(&self, numbers: &[usize]) -> Vec<Arc<I::Node>> {
        let node = |number: &usize| self.slots.get(*number)?.node.clone();
        numbers.iter().filter_map(node).collect()
    }

    fn running_count(&self) -> usize {
        self.slots.iter().filter(|slot| slot.node.is_some()).count()
    }

    /// Takes these out; from now on they are gone.
    fn take(&mut self, numbers: &[usize]) -> Result<Vec<Arc<I::Node>>, String> {
        let is_running = |number: &usize| {
            *number != 0 && self.slots.get(*number).is_some_and(|slot| slot.node.is_some())
        };
        if let Some(number) = numbers.iter().find(|number| !is_running(number)) {
            return Err(format!("node {number} is the seed, or does not run"));
        }
        let take = |number: &usize| {
            self.news.gone(name(*number));
            self.slots[*number].node.take()
        };
        Ok(numbers.iter().filter_map(take).collect())
    }
}

/// Bytes that cannot be compressed, different for each broadcast: Knuth's generator of MMIX, its top byte.
fn payload(bytes: usize, mut state: u64) -> Vec<u8> {
    let next = |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..bytes).map(next).collect()
}

fn took(began: Instant, missing: usize) -> Option<f64> {
    (missing == 0).then(|| millis(began.elapsed()))
}

async fn incomplete<N: Node>(nodes: &[&N]) -> usize {
    let mut missing = 0;
    for node in nodes {
        missing += usize::from(node.live_count().await != nodes.len());
    }
    missing
}

async fn wait_until(limit: Duration, is_done: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_done() && began.elapsed() < limit {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Does this with each node, so many at once, and tells how often it failed. What failed is said on the
/// error output, once.
async fn at_once<N, F>(nodes: Vec<Arc<N>>, in_flight: usize, each: impl Fn(Arc<N>) -> F) -> usize
where
    N: Node,
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let (turns, mut tasks) = (Arc::new(Semaphore::new(in_flight)), JoinSet::new());
    for node in nodes {
        let (turns, work) = (Arc::clone(&turns), each(node));
        tasks.spawn(async move {
            let _turn = turns.acquire_owned().await;
            work.await
        });
    }
    let mut errors = Vec::new();
    while let Some(done) = tasks.join_next().await {
        if let Err(error) = done.map_err(|error| error.to_string()).and_then(|done| done) {
            errors.push(error);
        }
    }
    if let Some(error) = errors.first() {
        // Standard output is the protocol's; nobody may read this.
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("{} failed: {error}\n", errors.len()),
        );
    }
    errors.len()
}
