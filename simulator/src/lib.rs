//! A simulated cluster: real protocol machines, bytes in and bytes out, in virtual time.
//!
//! - [`World`]: processes, network and clock; one seed decides everything.
//! - [`explore`]: random scenarios, and invariants that must hold in each.
//! - [`experiment`]: what the papers measured, measured again.

mod exchange;
pub mod experiment;
pub mod explore;
pub mod network;
pub mod parallel;
mod process;
mod records;
pub mod report;
pub mod statistics;
mod time;
pub mod trace;
mod world;

pub use process::{Pause, Process};
pub use time::Time;
pub use world::{Watch, World};
