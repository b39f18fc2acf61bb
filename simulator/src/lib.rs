//! A simulated cluster: real protocol machines, bytes in and bytes out, in virtual time.

mod exchange;
pub mod explore;
pub mod network;
mod process;
mod records;
mod time;
pub mod trace;
mod world;

pub use process::{Pause, Process};
pub use time::Time;
pub use world::{Watch, World};
