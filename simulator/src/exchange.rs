//! Exchanges over streams, in the bytes that really travel.

use std::time::Instant;

use bytes::Bytes;
use memberlist_protocol::message::{Ack, Ping, PingSource};
use memberlist_protocol::wire::stream::{
    Assembler, FrameNumber, FrameReader, MessageFrames, PushPullStart, SnapshotRecord, StreamItem,
    StreamLimits, preamble,
};
use memberlist_protocol::{
    Config, ExchangeError, Membership, NodeId, Peer, StreamRequestKind, StreamResponse,
};

use crate::process::Question;

/// The bytes of a question.
pub(crate) fn write_question(machine: &Membership, to: &Peer, kind: StreamRequestKind) -> Vec<u8> {
    let format = machine.config().wire_format;
    match kind {
        StreamRequestKind::Ping { sequence, .. } => {
            let own = machine.own();
            let node = to.name.as_ref().map_or("", NodeId::as_str);
            let source = Some(PingSource { node: own.id().as_str(), addr: own.addr() });
            write(machine, MessageFrames::ping(format, &Ping { sequence, node, source }))
        }
        StreamRequestKind::PushPull { join } => {
            write(machine, state(machine, to.name.clone(), join, machine.local_state()))
        }
        _ => Vec::new(),
    }
}

/// Answers a question as a node does: with its state as it is before the merge, then merges.
pub(crate) fn serve(
    machine: &mut Membership,
    peer: &Peer,
    question: &[u8],
    now: Instant,
) -> Option<Vec<u8>> {
    let format = machine.config().wire_format;
    match read(machine.config(), question)? {
        StreamItem::Ping { sequence, node, source } => {
            let source = source.map(|(name, _)| name);
            let acked = machine.handle_stream_ping(peer, node.as_ref(), source.as_ref());
            let ack = MessageFrames::ack(format, &Ack { sequence, payload: &[] });
            acked.then(|| write(machine, ack))
        }
        StreamItem::PushPull(state_of_peer) => {
            let wrong = state_of_peer.to.as_ref().filter(|to| *to != machine.id());
            if let Some(other) = wrong {
                let text = format!("this is {}, not {other}", machine.id());
                return Some(write(machine, MessageFrames::error(format, &text)));
            }
            match machine.serve_push_pull(peer, &state_of_peer) {
                Ok(records) => {
                    let (to, join) = (state_of_peer.from.clone(), state_of_peer.join);
                    let answer = write(machine, state(machine, to, join, records));
                    machine.finish_push_pull(peer.clone(), Some(state_of_peer), now);
                    Some(answer)
                }
                Err(refusal) => {
                    Some(write(machine, MessageFrames::error(format, &refusal.to_string())))
                }
            }
        }
        _ => None,
    }
}

/// What an answer says.
pub(crate) fn read_answer(config: &Config, question: &Question, bytes: &[u8]) -> StreamResponse {
    let bad = |message: &str| {
        let (peer, message) = (question.peer.clone(), message.to_owned());
        StreamResponse::Failed(ExchangeError::BadAnswer { peer, message })
    };
    match (read(config, bytes), question.ping) {
        (Some(StreamItem::Ack { sequence, .. }), Some(asked)) if sequence == asked => {
            StreamResponse::Ack { sequence }
        }
        (Some(StreamItem::PushPull(state)), None) => StreamResponse::PushPull(state),
        (Some(StreamItem::Error(message)), _) => {
            StreamResponse::Failed(ExchangeError::Refused { peer: question.peer.clone(), message })
        }
        (Some(_), _) => bad("another message was expected"),
        (None, _) => bad("unreadable"),
    }
}

fn state(
    machine: &Membership,
    to: Option<NodeId>,
    join: bool,
    records: Vec<SnapshotRecord>,
) -> MessageFrames {
    let start = PushPullStart { from: machine.id().clone(), to, join };
    MessageFrames::push_pull(machine.config().wire_format, start, records.into(), Bytes::new())
}

fn write(machine: &Membership, mut message: MessageFrames) -> Vec<u8> {
    let (mut bytes, mut number) = (Vec::new(), FrameNumber::default());
    preamble(machine.config().wire_format, &mut bytes);
    while message.next_record(&mut number, &mut bytes) {}
    bytes
}

fn read(config: &Config, bytes: &[u8]) -> Option<StreamItem> {
    let mut limits = StreamLimits::default();
    limits.max_meta_bytes = config.max_meta_bytes;
    let mut frames = FrameReader::new(config.wire_format, limits);
    let mut assembler = Assembler::new(config.wire_format, limits);
    frames.push(bytes);
    while let Some(payload) = frames.next_frame().ok()? {
        if let Some(item) = assembler.push(&payload).ok()? {
            return Some(item);
        }
    }
    None
}
