//! Fault search: random scenarios, and invariants that must hold in each of them.

pub mod bounds;
mod chaos;
pub mod check;
mod islands;
mod run;
mod scenario;
mod search;
pub mod truth;

pub use run::{Outcome, run, run_until_stopped};
pub use scenario::{Fault, Scenario};
pub use search::{Search, SeedOutcome, report, search};
