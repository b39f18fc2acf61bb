//! Samples and their quantiles.

use serde::Serialize;

/// What many measurements of one quantity say together.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Summary {
    /// How many.
    pub samples: usize,
    /// Their mean.
    pub mean: f64,
    /// The middle one.
    pub median: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
    /// 999 of 1,000 are at most this.
    pub p999: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// Of these samples; `None` without any.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            samples: sorted.len(),
            mean: sorted.iter().sum::<f64>() / sorted.len() as f64,
            median: quantile(&sorted, 0.5)?,
            p99: quantile(&sorted, 0.99)?,
            p999: quantile(&sorted, 0.999)?,
            max: *sorted.last()?,
        })
    }
}

/// The smallest of the sorted samples that a share `q` of them does not exceed.
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let samples: Vec<f64> = (1..=1000).rev().map(f64::from).collect();
        let summary = Summary::of(&samples).unwrap();
        assert_eq!((summary.median, summary.p99, summary.p999), (500.0, 990.0, 999.0));
        assert_eq!((summary.max, summary.mean, summary.samples), (1000.0, 500.5, 1000));
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[3.0]).unwrap().p999, 3.0);
    }
}
