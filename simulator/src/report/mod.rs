//! What an experiment leaves behind: tables for people, files for programs, plots.

mod files;
pub mod plot;
mod table;

use plot::Chart;

pub use files::{Files, OutputError};
pub use table::{Cell, Table};

/// Something that must hold of a result.
#[derive(Clone, PartialEq, Debug)]
pub struct Gate {
    /// What, with the figure that was measured.
    pub what: String,
    /// Whether it does.
    pub holds: bool,
}

impl Gate {
    /// A figure that must lie within these limits.
    pub fn within(what: &str, measured: f64, least: f64, most: f64) -> Self {
        let holds = (least..=most).contains(&measured);
        let figure = match measured.is_nan() {
            true => "nothing to measure".to_owned(),
            false => format!("{measured:.2}"),
        };
        Self { what: format!("{what}: {figure}, wanted {least} to {most}"), holds }
    }
}

/// The result of an experiment.
#[derive(Debug, Default)]
pub struct Report {
    /// For people.
    pub tables: Vec<Table>,
    /// For programs: what is too long to be shown, and stands in the CSV file alone.
    pub data: Vec<Table>,
    /// To be drawn below each other.
    pub charts: Vec<Chart>,
    /// Everything, for programs.
    pub results: serde_json::Value,
    /// What must hold.
    pub gates: Vec<Gate>,
    /// Runs that were done, of those wanted: fewer if the experiment was interrupted.
    pub runs: (usize, usize),
}
