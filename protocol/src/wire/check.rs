//! What a node may be called, and where it may be, in either format.

use std::net::{IpAddr, SocketAddr};

use super::error::BodyError;
use crate::error::NameError;
use crate::node::{MAX_NAME_BYTES, canonical};

/// A name that must be there.
pub(super) fn name(name: &str) -> Result<&str, BodyError> {
    if name.is_empty() { Err(NameError::Empty.into()) } else { name_or_empty(name) }
}

pub(super) fn name_or_empty(name: &str) -> Result<&str, BodyError> {
    let len = name.len();
    if len > MAX_NAME_BYTES { Err(NameError::TooLong { len }.into()) } else { Ok(name) }
}

/// An IP address of 4 or 16 bytes, as it came.
pub(super) fn ip(bytes: &[u8]) -> Result<IpAddr, BodyError> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(v4.into());
    }
    let v6 = <[u8; 16]>::try_from(bytes).map_err(|_| BodyError::AddressLength(bytes.len()))?;
    Ok(v6.into())
}

/// An address in its canonical form, if a node can have it.
pub(super) fn address(ip: IpAddr, port: u16) -> Result<SocketAddr, BodyError> {
    let addr = canonical(SocketAddr::new(ip, port));
    let ip = addr.ip();
    if port == 0 || ip.is_unspecified() || ip.is_multicast() {
        return Err(BodyError::Address(addr));
    }
    Ok(addr)
}
