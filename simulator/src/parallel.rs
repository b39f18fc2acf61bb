//! Many independent runs over the cores, and a way to stop them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

/// Asks long work to end early. Copies share the wish.
#[derive(Clone, Debug, Default)]
pub struct Stop(std::sync::Arc<AtomicBool>);

impl Stop {
    /// Asks.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many runs go on at once by default: one a core.
pub fn default_jobs() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Does `work` for each of `inputs`, `jobs` at a time, and gives the results in the order of the
/// inputs. `done` hears of each as it comes. What was not begun when a stop was asked is missing at
/// its place.
pub fn map<I: Sync, T: Send>(
    jobs: usize,
    inputs: &[I],
    stop: &Stop,
    work: impl Fn(&I) -> T + Sync,
    mut done: impl FnMut(&T),
) -> Vec<Option<T>> {
    let next = AtomicUsize::new(0);
    let (sender, results) = mpsc::channel();
    let mut all: Vec<Option<T>> = inputs.iter().map(|_| None).collect();
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, inputs.len().max(1)) {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                while !stop.is_asked() {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(input) = inputs.get(at) else { break };
                    // Nobody listens any more only when the caller is gone.
                    if sender.send((at, work(input))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (at, result) in results {
            done(&result);
            all[at] = Some(result);
        }
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_inputs() {
        let inputs: Vec<u32> = (0..100).collect();
        let mut heard = 0;
        let all = map(3, &inputs, &Stop::default(), |i| i * 2, |_| heard += 1);
        assert_eq!(heard, 100);
        assert!(all.into_iter().flatten().eq((0..100).map(|i| i * 2)));
    }

    #[test]
    fn a_stop_leaves_out_the_rest() {
        let stop = Stop::default();
        let work = |i: &u32| {
            if *i == 5 {
                stop.ask();
            }
        };
        let all = map(1, &(0..100).collect::<Vec<_>>(), &stop, work, |_| {});
        assert_eq!(all.iter().flatten().count(), 6);
        assert!(map(4, &Vec::<u32>::new(), &Stop::default(), |_| (), |_| {}).is_empty());
    }
}
