//! Side-by-side benchmarks: several membership libraries through one scenario, and the parts of ours one by
//! one (see `benches/`).

pub mod bare;
pub mod cluster;
pub mod ours;
pub mod packets;
