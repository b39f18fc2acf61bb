//! The body of a busy answer: a head, then the members that may be asked instead.

use std::time::Duration;

use super::fields::{Field, Fields};
use super::{BodyError, IpBytes, SourceBody, address, name};
use crate::node::{NodeId, Peer};
use crate::wire::stream::{Busy, MAX_BUSY_OTHERS, MAX_RETRY_AFTER};

/// Appends the body of a busy answer. What is over a limit, or has no name, is left out.
pub(in crate::wire) fn encode_busy(busy: &Busy, out: &mut Vec<u8>) {
    let named = |other: &Peer| other.name.clone().map(|name| (name, other.addr));
    let others: Vec<_> = busy.others.iter().filter_map(named).take(MAX_BUSY_OTHERS).collect();
    let ms = busy.retry_after.min(MAX_RETRY_AFTER).as_millis();
    u32::try_from(ms).unwrap_or(u32::MAX).write(out);
    (others.len() as u8).write(out);
    for (name, addr) in &others {
        let ip = IpBytes::new(addr.ip());
        SourceBody { node: name.as_str(), addr: ip.with_port(addr.port()) }.write(out);
    }
}

/// Reads the body of a busy answer. A longer time than the limit is taken for the limit.
pub(in crate::wire) fn decode_busy(body: &[u8]) -> Result<Busy, BodyError> {
    let mut fields = Fields(body);
    let retry_after_ms = u32::read(&mut fields)?;
    let count = u8::read(&mut fields)?.into();
    if count > MAX_BUSY_OTHERS {
        return Err(BodyError::Malformed("a busy peer names more than four others"));
    }
    let mut others = Vec::with_capacity(count);
    for _ in 0..count {
        let SourceBody { node, addr } = Field::read(&mut fields)?;
        others.push(Peer::named(address(addr)?, NodeId::new(name(node)?)?));
    }
    let retry_after = Duration::from_millis(retry_after_ms.into()).min(MAX_RETRY_AFTER);
    Ok(Busy { retry_after, others })
}
