//! What an experiment leaves behind: tables for people, files for programs, plots.

mod files;
pub mod plot;
mod table;

use plot::Chart;

pub use files::{Files, OutputError};
pub use table::{Cell, Table};

/// The result of an experiment.
#[derive(Debug, Default)]
pub struct Report {
    /// For people.
    pub tables: Vec<Table>,
    /// To be drawn below each other.
    pub charts: Vec<Chart>,
    /// Everything, for programs.
    pub results: serde_json::Value,
    /// Runs that were done, of those wanted: fewer if the experiment was interrupted.
    pub runs: (usize, usize),
}
