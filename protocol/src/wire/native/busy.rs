//! The body of a busy answer: a head, then the members that may be asked instead.

use std::time::Duration;

use super::{
    AddrBody, BodyError, BorrowDecode, Encode, IpBytes, address, append, decode_next, name,
};
use crate::node::{NodeId, Peer};
use crate::wire::stream::{Busy, MAX_BUSY_OTHERS, MAX_RETRY_AFTER};

#[derive(Encode, BorrowDecode)]
struct HeadBody {
    retry_after_ms: u32,
    others: u8,
}

#[derive(Encode, BorrowDecode)]
struct OtherBody<'a> {
    node: &'a str,
    addr: AddrBody<'a>,
}

/// Appends the body of a busy answer. What is over a limit, or has no name, is left out.
pub(in crate::wire) fn encode_busy(busy: &Busy, out: &mut Vec<u8>) {
    let named = |other: &Peer| other.name.clone().map(|name| (name, other.addr));
    let others: Vec<_> = busy.others.iter().filter_map(named).take(MAX_BUSY_OTHERS).collect();
    let ms = busy.retry_after.min(MAX_RETRY_AFTER).as_millis();
    append(out, usize::MAX, |out| {
        let retry_after_ms = u32::try_from(ms).unwrap_or(u32::MAX);
        out.encode(HeadBody { retry_after_ms, others: others.len() as u8 })?;
        others.iter().try_for_each(|(name, addr)| {
            let ip = IpBytes::new(addr.ip());
            out.encode(OtherBody { node: name.as_str(), addr: ip.with_port(addr.port()) })
        })
    });
}

/// Reads the body of a busy answer. A longer time than the limit is taken for the limit.
pub(in crate::wire) fn decode_busy(mut body: &[u8]) -> Result<Busy, BodyError> {
    let HeadBody { retry_after_ms, others: count } = decode_next(&mut body)?;
    let count = usize::from(count);
    if count > MAX_BUSY_OTHERS {
        return Err(BodyError::Malformed("a busy peer names more than four others"));
    }
    let mut others = Vec::with_capacity(count);
    for _ in 0..count {
        let OtherBody { node, addr } = decode_next(&mut body)?;
        others.push(Peer::named(address(addr)?, NodeId::new(name(node)?)?));
    }
    let retry_after = Duration::from_millis(retry_after_ms.into()).min(MAX_RETRY_AFTER);
    Ok(Busy { retry_after, others })
}
