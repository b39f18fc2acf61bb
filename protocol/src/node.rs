//! Who is in the cluster: names, addresses, versions and states.

use std::borrow::Borrow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use ecow::EcoString;

use crate::error::NameError;

/// The longest node name, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// The protocol versions that this library speaks: Go memberlist's numbering.
pub const PROTOCOL_VERSION_MIN: u8 = 1;
/// See [`PROTOCOL_VERSION_MIN`].
pub const PROTOCOL_VERSION_MAX: u8 = 5;

/// A node's name: unique in the cluster, UTF-8, 1 to 255 bytes, cheap to clone. Up to 15 bytes need no
/// memory beside its own.
///
/// ```
/// use memberlist_protocol::NodeId;
/// let id: NodeId = "cache-7".parse()?;
/// assert_eq!(id.as_str(), "cache-7");
/// assert!("".parse::<NodeId>().is_err());
/// # Ok::<(), memberlist_protocol::NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(EcoString);

impl NodeId {
    /// Makes a name.
    ///
    /// # Errors
    /// If it is empty or longer than [`MAX_NAME_BYTES`].
    pub fn new(name: &str) -> Result<Self, NameError> {
        match name.len() {
            0 => Err(NameError::Empty),
            len if len > MAX_NAME_BYTES => Err(NameError::TooLong { len }),
            _ => Ok(Self(name.into())),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as the text that it is kept as.
    pub fn to_eco_string(&self) -> EcoString {
        self.0.clone()
    }
}

impl std::str::FromStr for NodeId {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        Self::new(s)
    }
}

impl TryFrom<&str> for NodeId {
    type Error = NameError;
    fn try_from(s: &str) -> Result<Self, NameError> {
        Self::new(s)
    }
}

impl Borrow<str> for NodeId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for NodeId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// The six version numbers that a node announces, as the bytes that came.
///
/// The order is protocol minimum, maximum, current, then the application's own ("delegate")
/// minimum, maximum, current. Go peers may send fewer than six bytes; what came is what is passed
/// on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Versions {
    bytes: [u8; 6],
    len: u8,
}

impl Versions {
    /// All six numbers: protocol `(min, max, current)`, then the application's.
    pub const fn new(protocol: (u8, u8, u8), application: (u8, u8, u8)) -> Self {
        let (a, b, c) = protocol;
        let (d, e, f) = application;
        Self { bytes: [a, b, c, d, e, f], len: 6 }
    }

    /// What came over the wire; bytes after the sixth are dropped.
    #[inline]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        if let Ok(bytes) = <[u8; 6]>::try_from(bytes) {
            return Self { bytes, len: 6 };
        }
        let len = bytes.len().min(6);
        let mut versions = Self { bytes: [0; 6], len: len as u8 };
        versions.bytes[..len].copy_from_slice(&bytes[..len]);
        versions
    }

    /// The bytes as they came, at most six.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Whether all six numbers are there.
    pub fn is_complete(&self) -> bool {
        self.len == 6
    }

    /// Protocol `(min, max, current)`; a missing number reads as 0.
    pub fn protocol(&self) -> (u8, u8, u8) {
        (self.bytes[0], self.bytes[1], self.bytes[2])
    }

    /// The application's `(min, max, current)`; a missing number reads as 0.
    pub fn application(&self) -> (u8, u8, u8) {
        (self.bytes[3], self.bytes[4], self.bytes[5])
    }
}

impl Default for Versions {
    fn default() -> Self {
        Self::new((PROTOCOL_VERSION_MIN, PROTOCOL_VERSION_MAX, 2), (0, 0, 0))
    }
}

/// What a node says about itself: name, address, meta, versions. Shared and immutable; a change
/// makes a new one.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Node {
    /// Its unique name.
    pub id: NodeId,
    /// Where it receives packets and streams.
    pub addr: SocketAddr,
    /// Free bytes of the application, at most
    /// [`Config::max_meta_bytes`](crate::Config::max_meta_bytes).
    pub meta: Bytes,
    /// The versions it speaks.
    pub versions: Versions,
    /// Whether an IPv4 address came in 16 bytes, as a Go node bound to the wildcard writes it. Go
    /// compares addresses byte by byte, so it must be passed on in the form in which it came.
    pub wide_ipv4: bool,
}

impl Node {
    /// A node as the application describes it; `addr` is made canonical.
    pub fn new(id: NodeId, addr: SocketAddr, meta: Bytes, versions: Versions) -> Self {
        Self { id, addr: canonical(addr), meta, versions, wide_ipv4: false }
    }
}

/// The same address without the IPv4-mapped IPv6 form, flow label and scope: one node, one form.
#[inline]
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(canonical_ip(addr.ip()), addr.port())
}

#[inline]
pub(crate) fn canonical_ip(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

/// What this node believes of another (SWIM §4.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NodeState {
    /// It answers, or nobody has said otherwise.
    Alive,
    /// A probe of it failed; it has until the suspicion timeout to refute.
    Suspect,
    /// The suspicion was not refuted.
    Dead,
    /// It said farewell.
    Left,
}

impl NodeState {
    /// All states, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Alive, Self::Suspect, Self::Dead, Self::Left];

    /// Alive or suspect: counted as a member.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }

    /// Dead or left.
    pub fn is_gone(self) -> bool {
        !self.is_live()
    }

    /// The number on both wires: 0 alive, 1 suspect, 2 dead, 3 left.
    pub fn as_u8(self) -> u8 {
        match self {
            Self::Alive => 0,
            Self::Suspect => 1,
            Self::Dead => 2,
            Self::Left => 3,
        }
    }

    /// The reverse of [`as_u8`](Self::as_u8).
    pub fn from_u8(n: u8) -> Option<Self> {
        match n {
            0 => Some(Self::Alive),
            1 => Some(Self::Suspect),
            2 => Some(Self::Dead),
            3 => Some(Self::Left),
            _ => None,
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
            Self::Left => "left",
        })
    }
}

/// The other end of a packet or stream.
///
/// Inbound, `name` is what the transport has verified (a certificate), never a claim. Outbound, it
/// is the member the packet is meant for, so that the transport can choose a server name.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Peer {
    /// Its address.
    pub addr: SocketAddr,
    /// Its name, where known.
    pub name: Option<NodeId>,
}

impl Peer {
    /// A peer whose name is known.
    pub fn named(addr: SocketAddr, name: NodeId) -> Self {
        Self { addr: canonical(addr), name: Some(name) }
    }
}

impl From<SocketAddr> for Peer {
    fn from(addr: SocketAddr) -> Self {
        Self { addr: canonical(addr), name: None }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({})", self.addr),
            None => write!(f, "{}", self.addr),
        }
    }
}
