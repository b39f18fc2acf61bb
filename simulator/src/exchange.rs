//! Exchanges over streams, in the bytes that really travel.

use std::time::Instant;

use bytes::Bytes;
use memberlist_protocol::message::{Ack, Ping, PingSource};
use memberlist_protocol::wire::stream::{
    FrameNumber, MessageFrames, MessageReader, PushPullStart, RemoteState, SnapshotRecord,
    StreamItem, StreamLimits, preamble,
};
use memberlist_protocol::wire::sync::{self, Partitioning, SyncBody};
use memberlist_protocol::{
    Config, Dialect, DropReason, ExchangeError, Membership, NodeId, Peer, SYNC_TOPIC,
    StreamRequestKind, StreamResponse,
};

use crate::process::Question;

/// The bytes of a question.
pub(crate) fn write_question(
    machine: &Membership,
    to: &Peer,
    dialect: Dialect,
    kind: &StreamRequestKind,
) -> Vec<u8> {
    match kind {
        &StreamRequestKind::Ping { sequence, .. } => {
            let own = machine.own();
            let node = to.name.as_ref().map_or("", NodeId::as_str);
            let source = Some(PingSource { node: own.id().as_str(), addr: own.addr() });
            let native = machine.config().wire_format.announces_native();
            let ping = Ping { sequence, node, source, native };
            write(dialect, MessageFrames::ping(dialect, &ping))
        }
        StreamRequestKind::Sync { body } => {
            write(dialect, MessageFrames::request(SYNC_TOPIC, body.clone()))
        }
        &StreamRequestKind::PushPull { join } => {
            let records = machine.local_state();
            write(dialect, state(machine, dialect, to.name.clone(), join, records))
        }
        _ => Vec::new(),
    }
}

/// What is answered to a question.
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    /// To be merged when the answer is out: [`Membership::finish_push_pull`].
    pub(crate) served: Option<RemoteState>,
}

impl From<Vec<u8>> for Answer {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, served: None }
    }
}

/// Answers a question as a node does: with its state as it is before the merge. Nobody waits for a place: a
/// join is told to come back at once.
pub(crate) fn serve(
    machine: &mut Membership,
    peer: &Peer,
    question: &[u8],
    now: Instant,
) -> Option<Answer> {
    let (dialect, question) = read(machine.config(), question)?;
    match question {
        StreamItem::Ping { sequence, node, source } => {
            let source = source.map(|(name, _)| name);
            let acked = machine.handle_stream_ping(peer, node.as_ref(), source.as_ref());
            let native = machine.config().wire_format.announces_native();
            let ack = Ack { sequence, payload: &[], native };
            acked.then(|| write(dialect, MessageFrames::ack(dialect, &ack)).into())
        }
        StreamItem::PushPull(state_of_peer) => {
            let wrong = state_of_peer.to.as_ref().filter(|to| *to != machine.id());
            if let Some(other) = wrong {
                let text = format!("this is {}, not {other}", machine.id());
                return Some(write(dialect, MessageFrames::error(dialect, &text)).into());
            }
            match machine.serve_push_pull(peer, &state_of_peer) {
                Ok(records) => {
                    let (to, join) = (state_of_peer.from.clone(), state_of_peer.join);
                    let bytes = write(dialect, state(machine, dialect, to, join, records));
                    Some(Answer { bytes, served: Some(state_of_peer) })
                }
                Err(ExchangeError::Busy { .. }) if dialect == Dialect::Native => {
                    let (asker, join) = (state_of_peer.from.as_ref(), state_of_peer.join);
                    let busy = machine.tell_busy(asker, join, now);
                    Some(write(dialect, MessageFrames::busy(&busy)).into())
                }
                Err(refusal) => {
                    if matches!(refusal, ExchangeError::Busy { .. }) {
                        machine.count_drop(DropReason::TooManyPushPulls);
                    }
                    let text = refusal.to_string();
                    Some(write(dialect, MessageFrames::error(dialect, &text)).into())
                }
            }
        }
        StreamItem::Request { topic: SYNC_TOPIC, body } => {
            let body = SyncBody::read(&body, &machine.config().sync_limits());
            let answer = match machine.serve_sync(peer, body, now) {
                Ok(answer) => MessageFrames::response(0, answer),
                Err(refusal) => MessageFrames::error(dialect, &refusal.to_string()),
            };
            Some(write(dialect, answer).into())
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
    match (read(config, bytes).map(|(_, item)| item), question.ping) {
        (Some(StreamItem::Ack { sequence, .. }), Some(asked)) if sequence == asked => {
            StreamResponse::Ack { sequence }
        }
        (Some(StreamItem::PushPull(state)), None) => StreamResponse::PushPull(state),
        (Some(StreamItem::Busy(busy)), None) => StreamResponse::Busy(busy),
        (Some(StreamItem::Response { status: 0, body }), None) => {
            StreamResponse::Sync(SyncBody::read(&body, &config.sync_limits()))
        }
        (Some(StreamItem::Error(message)), _) => {
            StreamResponse::Failed(ExchangeError::Refused { peer: question.peer.clone(), message })
        }
        (Some(_), _) => bad("another message was expected"),
        (None, _) => bad("unreadable"),
    }
}

/// The bytes of one record, as a step of comparing members carries it.
pub(crate) fn record_bytes(record: &SnapshotRecord) -> u64 {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let partitioning = Partitioning { salt: 0, order: 0 };
    sync::write_records(partitioning, &[], [record], &mut with);
    sync::write_records(partitioning, &[], [], &mut without);
    (with.len() - without.len()) as u64
}

/// The bytes of a step of comparing members as a question.
pub(crate) fn request_bytes(body: Bytes) -> u64 {
    write(Dialect::Native, MessageFrames::request(SYNC_TOPIC, body)).len() as u64
}

/// The same as an answer.
pub(crate) fn response_bytes(body: Bytes) -> u64 {
    write(Dialect::Native, MessageFrames::response(0, body)).len() as u64
}

/// The bytes of a whole state.
pub(crate) fn state_bytes(machine: &Membership) -> u64 {
    let records = machine.local_state();
    write(Dialect::Native, state(machine, Dialect::Native, None, false, records)).len() as u64
}

fn state(
    machine: &Membership,
    dialect: Dialect,
    to: Option<NodeId>,
    join: bool,
    records: Vec<SnapshotRecord>,
) -> MessageFrames {
    let start = PushPullStart { from: machine.id().clone(), to, join };
    MessageFrames::push_pull(dialect, start, records.into(), Bytes::new())
}

fn write(dialect: Dialect, mut message: MessageFrames) -> Vec<u8> {
    let (mut bytes, mut number) = (Vec::new(), FrameNumber::default());
    preamble(dialect, &mut bytes);
    while message.next_record(&mut number, &mut bytes) {}
    bytes
}

fn read(config: &Config, bytes: &[u8]) -> Option<(Dialect, StreamItem)> {
    let mut limits = StreamLimits::default();
    limits.max_meta_bytes = config.max_meta_bytes;
    let mut reader = MessageReader::new(config.wire_format, limits, 0);
    reader.push(bytes);
    let item = reader.next_item().ok()??;
    Some((reader.dialect()?, item))
}
