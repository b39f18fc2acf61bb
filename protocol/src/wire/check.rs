//! What a node may be called, and where it may be, in either format.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use super::error::BodyError;
use crate::error::NameError;
use crate::node::{MAX_NAME_BYTES, canonical};

/// A name that must be there.
#[inline]
pub(super) fn name(name: &str) -> Result<&str, BodyError> {
    if name.is_empty() { Err(NameError::Empty.into()) } else { name_or_empty(name) }
}

#[inline]
pub(super) fn name_or_empty(name: &str) -> Result<&str, BodyError> {
    let len = name.len();
    if len > MAX_NAME_BYTES { Err(NameError::TooLong { len }.into()) } else { Ok(name) }
}

/// An IP address of 4 or 16 bytes, as it came.
#[inline(always)]
pub(super) fn ip(bytes: &[u8]) -> Result<IpAddr, BodyError> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(v4.into());
    }
    let v6 = <[u8; 16]>::try_from(bytes).map_err(|_| BodyError::AddressLength(bytes.len()))?;
    Ok(v6.into())
}

/// An address in its canonical form, if a node can have it.
#[inline(always)]
pub(super) fn address(ip: IpAddr, port: u16) -> Result<SocketAddr, BodyError> {
    let addr = match ip {
        IpAddr::V4(v4) => SocketAddr::V4(SocketAddrV4::new(v4, port)),
        IpAddr::V6(_) => canonical(SocketAddr::new(ip, port)),
    };
    let impossible = match addr {
        SocketAddr::V4(v4) => v4.ip().is_unspecified() || v4.ip().is_multicast(),
        SocketAddr::V6(v6) => v6.ip().is_unspecified() || v6.ip().is_multicast(),
    };
    if port == 0 || impossible { Err(BodyError::Address(addr)) } else { Ok(addr) }
}
