//! What the nodes told, and when.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What the nodes of a fleet told.
#[derive(Debug, Default)]
pub struct News(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    /// Those that were ended on purpose and have not come back.
    gone: HashSet<String>,
    /// When a node first declared one dead that is gone, by its name and the node's number.
    deaths: HashMap<String, HashMap<usize, Instant>>,
    false_deaths: usize,
    /// The length that is waited for, and when it came.
    awaited: usize,
    receipts: HashMap<usize, Instant>,
}

impl News {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn died(&self, observer: usize, name: &str) {
        let now = Instant::now();
        let mut told = self.told();
        if told.gone.contains(name) {
            let deaths = told.deaths.entry(name.to_owned()).or_default();
            deaths.entry(observer).or_insert(now);
        } else {
            told.false_deaths += 1;
        }
    }

    pub(crate) fn received(&self, observer: usize, bytes: usize) {
        let now = Instant::now();
        let mut told = self.told();
        if told.awaited == bytes {
            told.receipts.entry(observer).or_insert(now);
        }
    }

    /// From now on it is no error to take this node for dead.
    pub(crate) fn gone(&self, name: String) {
        let mut told = self.told();
        told.deaths.remove(&name);
        told.gone.insert(name);
    }

    /// From now on it is.
    pub(crate) fn back(&self, name: &str) {
        self.told().gone.remove(name);
    }

    pub(crate) fn await_broadcast(&self, bytes: usize) {
        let mut told = self.told();
        told.awaited = bytes;
        told.receipts.clear();
    }

    pub(crate) fn false_deaths(&self) -> usize {
        self.told().false_deaths
    }

    /// How many have the broadcast, and when the last of them got it.
    pub(crate) fn receipts(&self) -> (usize, Option<Instant>) {
        let told = self.told();
        (told.receipts.len(), told.receipts.values().max().copied())
    }

    /// How many have declared this node dead, and when the first and the last of them did.
    pub(crate) fn deaths(&self, name: &str) -> (usize, Option<[Instant; 2]>) {
        let told = self.told();
        let Some(times) = told.deaths.get(name) else { return (0, None) };
        let (first, last) = (times.values().min(), times.values().max());
        (times.len(), first.zip(last).map(|(first, last)| [*first, *last]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_death_of_one_that_runs_is_false() {
        let news = News::default();
        news.died(0, "node-1");
        news.gone("node-1".into());
        assert_eq!(
            news.deaths("node-1"),
            (0, None),
            "what was said before it is gone is no detection"
        );
        news.died(0, "node-1");
        news.died(2, "node-1");
        news.died(2, "node-1");
        let (count, times) = news.deaths("node-1");
        assert_eq!(count, 2);
        assert!(times.is_some_and(|[first, last]| first <= last));
        assert_eq!(news.false_deaths(), 1);
        news.back("node-1");
        news.died(3, "node-1");
        assert_eq!(news.false_deaths(), 2);
    }

    #[test]
    fn only_the_awaited_broadcast_counts_and_once_a_node() {
        let news = News::default();
        news.received(1, 10);
        news.await_broadcast(10);
        assert_eq!(news.receipts(), (0, None));
        news.received(1, 11);
        news.received(1, 10);
        news.received(1, 10);
        news.received(2, 10);
        assert_eq!(news.receipts().0, 2);
    }
}
