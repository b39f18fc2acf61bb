//! Whole clusters: every scenario over UDP and TCP and over QUIC on loopback, and over the in-memory network,
//! where time jumps, so that it costs next to nothing.

#[path = "cluster/addresses.rs"]
mod addresses;
#[path = "cluster/pause.rs"]
mod pause;

mod net {
    use memberlist::net::NetTransport;
    memberlist_tests::every_scenario!(real NetTransport);
    mod blocked_threads {
        use super::*;
        memberlist_tests::every_blocking_scenario!(NetTransport);
    }
}

mod quic {
    use memberlist::quic::QuicTransport;
    memberlist_tests::every_scenario!(real QuicTransport);
    mod blocked_threads {
        use super::*;
        memberlist_tests::every_blocking_scenario!(QuicTransport);
    }
}

mod memory {
    use memberlist::memory::MemoryTransport;
    memberlist_tests::every_scenario!(virtual MemoryTransport);
}

/// In Go's format, and in both.
mod hashicorp {
    use memberlist::memory::MemoryTransport;
    use memberlist_tests::speaking::{Hashicorp, Speaking};
    memberlist_tests::every_scenario_of_any_format!(virtual Speaking<Hashicorp, MemoryTransport>);
}

mod mixed {
    use memberlist::memory::MemoryTransport;
    use memberlist_tests::speaking::{Mixed, Speaking};
    memberlist_tests::every_scenario_of_any_format!(virtual Speaking<Mixed, MemoryTransport>);
}
