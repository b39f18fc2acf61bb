//! What is tried, for any transport. Each scenario is a function without arguments that panics if
//! something is wrong.

pub mod callbacks;
pub mod churn;
pub mod decisions;
pub mod ending;
pub mod event_streams;
pub mod facts;
pub mod join;
pub mod leave;
pub mod messages;
pub mod partition;
pub mod restart;
pub mod streams;
