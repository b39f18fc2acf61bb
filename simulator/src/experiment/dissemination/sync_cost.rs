//! One sync of two members: the bytes of both together, by the number of differences.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use memberlist_protocol::wire::Room;
use memberlist_protocol::wire::stream::SnapshotRecord;
use memberlist_protocol::wire::sync::SyncBody;
use memberlist_protocol::{
    Config, Membership, Node, NodeId, NodeState, Peer, StreamRequestKind, StreamResponse,
};
use serde_json::json;

use super::super::{Effort, run_seed};
use super::traffic::{packet_bytes, stream_bytes};
use crate::exchange::{record_bytes, request_bytes, response_bytes, state_bytes};
use crate::report::{Cell, Gate, Report, Table};

const ROOM: Room = Room { head: 0, tail: 0, max_packet_bytes: 1400 };
const META_BYTES: usize = 32;

/// What is compared.
struct Case {
    members: usize,
    differences: usize,
    meta_bytes: usize,
}

struct Cost {
    /// All bytes, headers included.
    bytes: u64,
    /// Those of the differing records.
    records: u64,
    /// Those of exchanging whole states.
    whole: u64,
    /// Syncs until both agree.
    syncs: u64,
    packets: u64,
    streams: u64,
}

fn node(i: usize, meta_bytes: usize) -> Arc<Node> {
    let name = match NodeId::new(&format!("node-{i:05}")) {
        Ok(name) => name,
        Err(error) => unreachable!("a short name is valid: {error}"),
    };
    let meta = vec![i as u8; meta_bytes];
    Arc::new(Node::new(name, address(i), Bytes::from(meta), Config::lan().versions()))
}

fn address(i: usize) -> SocketAddr {
    let [_, a, b, c] = (i as u32 + 1).to_be_bytes();
    SocketAddr::from(([10, a, b, c], 7946))
}

/// A member that knows these, each at this incarnation.
fn machine(own: &Arc<Node>, known: &[(Arc<Node>, u32)], seed: u64, now: Instant) -> Membership {
    let mut config = Config::lan();
    config.compression = false;
    config.probe_interval = Duration::ZERO;
    let (name, addr, meta) = (own.id.clone(), own.addr, own.meta.clone());
    let machine = Membership::new(config, name, addr, meta, seed, now, Box::new(()));
    let mut machine = match machine {
        Ok(machine) => machine,
        Err(error) => unreachable!("the settings are valid: {error}"),
    };
    machine.testing_adopt_at(known, now);
    machine.testing_clear();
    machine
}

/// The two views. Of five differences one is a member that only the first knows, one that only the second
/// knows, and three are newer at one of them.
fn views(case: &Case, seed: u64, now: Instant) -> ([Membership; 2], u64) {
    let nodes: Vec<Arc<Node>> = (0..case.members).map(|i| node(i, case.meta_bytes)).collect();
    let (mut first, mut second, mut records) = (Vec::new(), Vec::new(), 0);
    let every = (case.members - 2) / case.differences;
    for (i, node) in nodes.iter().enumerate() {
        let nth = (i >= 2 && (i - 2) % every == 0).then_some((i - 2) / every);
        let differs = nth.filter(|nth| *nth < case.differences);
        let (mut in_first, mut in_second) = (Some(1), Some(1));
        match differs.map(|nth| nth % 5) {
            None => {}
            Some(0) => in_first = None,
            Some(1) => in_second = None,
            Some(2) => in_first = Some(2),
            Some(_) => in_second = Some(2),
        }
        if differs.is_some() {
            let incarnation = in_first.max(in_second).unwrap_or(1);
            let node = Arc::clone(node);
            let record = SnapshotRecord { node, incarnation, state: NodeState::Alive };
            records += record_bytes(&record);
        }
        first.extend(in_first.map(|incarnation| (Arc::clone(node), incarnation)));
        second.extend(in_second.map(|incarnation| (Arc::clone(node), incarnation)));
    }
    let one = machine(&nodes[0], &first, seed, now);
    let other = machine(&nodes[1], &second, seed + 1, now);
    ([one, other], records)
}

/// Carries what both send until neither has anything more to say.
fn talk(machines: &mut [Membership; 2], now: Instant, cost: &mut Cost) {
    let peers = [0, 1].map(|i: usize| Peer::named(address(i), machines[i].id().clone()));
    let mut packet = Vec::new();
    loop {
        let mut said = false;
        for at in [0, 1] {
            let other = 1 - at;
            while let Some(transmit) = machines[at].poll_transmit(&mut packet, &mut |_| ROOM) {
                if transmit.to.addr != peers[other].addr {
                    continue;
                }
                said = true;
                cost.packets += 1;
                cost.bytes += packet_bytes(packet.len());
                let from = Peer::from(peers[at].addr);
                let read = machines[other].handle_packet(&from, &packet, now);
                debug_assert!(read.is_ok());
            }
            while let Some(request) = machines[at].poll_stream_request() {
                let StreamRequestKind::Sync { body } = request.kind else { continue };
                said = true;
                cost.streams += 1;
                let from = Peer::from(peers[at].addr);
                let limits = machines[other].config().sync_limits();
                let asked = SyncBody::read(&body, &limits);
                let response = match machines[other].serve_sync(&from, asked, now) {
                    Ok(answer) => {
                        let bytes = request_bytes(body) + response_bytes(answer.clone());
                        cost.bytes += stream_bytes(bytes, 1);
                        StreamResponse::Sync(SyncBody::read(&answer, &limits))
                    }
                    Err(error) => StreamResponse::Failed(error),
                };
                machines[at].handle_stream_response(request.id, response, now);
            }
            while machines[at].poll_event().is_some() {}
            // Large states are merged in slices.
            machines[at].testing_merge_all(now);
        }
        if !said {
            return;
        }
    }
}

fn measure(case: &Case, seed: u64) -> Option<Cost> {
    let now = Instant::now();
    let (mut machines, records) = views(case, seed, now);
    let whole: u64 = machines.iter().map(state_bytes).sum();
    let whole = stream_bytes(whole, 1);
    let mut cost = Cost { bytes: 0, records, whole, syncs: 0, packets: 0, streams: 0 };
    while machines[0].testing_view() != machines[1].testing_view() {
        if cost.syncs == 10 {
            return None;
        }
        cost.syncs += 1;
        let peer = Peer::named(address(1), machines[1].id().clone());
        machines[0].testing_sync(peer, now);
        talk(&mut machines, now, &mut cost);
    }
    Some(cost)
}

pub(super) fn run(effort: &mut Effort<'_>) -> Report {
    let case = |members, differences, meta_bytes| Case { members, differences, meta_bytes };
    let cases = [
        case(100, 5, META_BYTES),
        case(1000, 5, META_BYTES),
        case(10_000, 5, META_BYTES),
        case(100_000, 5, META_BYTES),
        case(10_000, 100, META_BYTES),
        case(10_000, 1000, META_BYTES),
        case(10_000, 1000, 0),
    ];
    let seed = run_seed(effort.seed, 0);
    let finished = super::run_all(&cases, effort, |case, _| Some(measure(case, seed)));
    let mut table = Table::new(
        "Dissemination: one sync, bytes of both together",
        &[
            "members",
            "differences",
            "meta bytes",
            "bytes",
            "of differing records",
            "ratio",
            "whole states",
            "syncs",
            "packets",
            "streams",
        ],
    );
    let (mut gates, mut results) = (Vec::new(), Vec::new());
    for (at, cost) in &finished {
        let Case { members, differences, meta_bytes } = &cases[*at];
        let what = format!("sync of {differences} among {members}, {meta_bytes} bytes of meta");
        let Some(cost) = cost else {
            gates.push(Gate::within(&format!("{what}, does not end"), 1.0, 0.0, 0.0));
            continue;
        };
        let ratio = cost.bytes as f64 / cost.records as f64;
        table.row([
            (*members).into(),
            (*differences).into(),
            (*meta_bytes).into(),
            cost.bytes.into(),
            cost.records.into(),
            Cell::Number(ratio, 2),
            cost.whole.into(),
            cost.syncs.into(),
            cost.packets.into(),
            cost.streams.into(),
        ]);
        results.push(json!({ "members": members, "differences": differences,
            "meta_bytes": meta_bytes, "bytes": cost.bytes, "records": cost.records,
            "whole": cost.whole, "syncs": cost.syncs }));
        let bytes = cost.bytes as f64;
        match (members, differences, meta_bytes) {
            (10_000, 5, _) => gates.push(Gate::within(&what, bytes, 0.0, 8192.0)),
            (100_000, 5, _) => gates.push(Gate::within(&what, bytes, 0.0, 16384.0)),
            (10_000, 1000, &META_BYTES) => {
                gates.push(Gate::within(&format!("{what}, ratio"), ratio, 0.0, 1.5));
            }
            _ => {}
        }
    }
    table.note(
        "Names of 10 bytes. Of five differences two are members that one of both lacks, three are newer at \
         one of them. Packets and streams with their headers, until both agree. Whole states: a push/pull.",
    );
    let runs = (finished.len(), cases.len());
    Report { tables: vec![table], gates, results: results.into(), runs, ..Report::default() }
}
