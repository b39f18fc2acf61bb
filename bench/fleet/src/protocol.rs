//! What the benchmark and the program of a library say to each other: one JSON object a line.
//!
//! The program begins with a [`Hello`]. Then it reads a [`Command`] and answers it, until its standard
//! input ends. Nodes are numbered from 0 and named `node-0`, `node-1`, …; node 0 is the seed.

use serde::{Deserialize, Serialize};

/// The first line of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The library, and its transport where it has several.
    pub implementation: String,
    /// Of the library.
    pub version: String,
}

/// What is to be done. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Start so many nodes, alone each.
    Create {
        /// How many.
        nodes: usize,
        /// Whether with a key.
        encrypted: bool,
    },
    /// All others join the seed; done when every node sees every node.
    Join {
        /// How many joins are under way at once.
        in_flight: usize,
        /// When to give up.
        limit_ms: u64,
    },
    /// The seed sends a broadcast; done when all others have it.
    Broadcast {
        /// Its length.
        bytes: usize,
        /// When to give up.
        limit_ms: u64,
    },
    /// End these without a farewell; done when every other node has declared each of them dead.
    Kill {
        /// Which.
        nodes: Vec<usize>,
        /// When to give up.
        limit_ms: u64,
    },
    /// These say farewell and end; done when no other node counts them.
    Leave {
        /// Which.
        nodes: Vec<usize>,
        /// When to give up.
        limit_ms: u64,
    },
    /// All that are gone start again, with their names and addresses, and join the seed; done when every
    /// node sees every node.
    Restart {
        /// How many joins are under way at once.
        in_flight: usize,
        /// When to give up.
        limit_ms: u64,
    },
}

/// What came of a command. A field that does not belong to it is empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// Why it could not be done at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// From its beginning until it was done; none if it was not done within its limit.
    pub took_ms: Option<f64>,
    /// Joins or farewells that the library said have failed.
    pub failed: usize,
    /// How many nodes, or pairs of nodes, lacked something when it was done or given up.
    pub missing: usize,
    /// For each node that was killed: when the first other declared it dead; none if nobody did.
    pub first_ms: Vec<Option<f64>>,
    /// For each node that was killed: when the last other did; none if one did not.
    pub last_ms: Vec<Option<f64>>,
    /// How often a node has declared one dead that was running, since the beginning.
    pub false_deaths: usize,
}

impl Answer {
    pub(crate) fn failed(error: String) -> Self {
        Self { error: Some(error), ..Self::default() }
    }
}
