//! The body of a busy answer: a head, then the members that may be asked instead.

use std::time::Duration;

use super::fields::{Body, Fields, Sink};
use super::{AddrBody, BodyError, IpBytes, address, name};
use crate::node::{NodeId, Peer};
use crate::wire::stream::{Busy, MAX_BUSY_OTHERS, MAX_RETRY_AFTER};

/// Appends the body of a busy answer. What is over a limit, or has no name, is left out.
pub(in crate::wire) fn encode_busy(busy: &Busy, out: &mut Vec<u8>) {
    let named = |other: &Peer| other.name.clone().map(|name| (name, other.addr));
    let others: Vec<_> = busy.others.iter().filter_map(named).take(MAX_BUSY_OTHERS).collect();
    let ms = busy.retry_after.min(MAX_RETRY_AFTER).as_millis();
    out.number(u64::try_from(ms).unwrap_or(u64::MAX).min(u32::MAX.into()));
    out.byte(others.len() as u8);
    for (name, addr) in &others {
        out.text(name.as_str());
        IpBytes::new(addr.ip()).with_port(addr.port()).write(out);
    }
}

/// Reads the body of a busy answer. A longer time than the limit is taken for the limit.
pub(in crate::wire) fn decode_busy(body: &[u8]) -> Result<Busy, BodyError> {
    let mut fields = Fields(body);
    let (retry_after_ms, count) = (fields.u32()?, usize::from(fields.byte()?));
    if count > MAX_BUSY_OTHERS {
        return Err(BodyError::Malformed("a busy peer names more than four others"));
    }
    let mut others = Vec::with_capacity(count);
    for _ in 0..count {
        let (node, addr) = (fields.text()?, AddrBody::read(&mut fields)?);
        others.push(Peer::named(address(addr)?, NodeId::new(name(node)?)?));
    }
    let retry_after = Duration::from_millis(retry_after_ms.into()).min(MAX_RETRY_AFTER);
    Ok(Busy { retry_after, others })
}
