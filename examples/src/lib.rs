//! Runnable examples; see the files beside `Cargo.toml`.
