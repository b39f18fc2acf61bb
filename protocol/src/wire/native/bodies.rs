//! The bodies, as they stand on the wire: their fields in their order.

use std::net::IpAddr;

use super::fields::{Body, Fields, Sink};
use crate::wire::error::BodyError;

pub(super) struct AddrBody<'a> {
    pub(super) ip: &'a [u8],
    pub(super) port: u16,
}

impl Body for AddrBody<'_> {
    #[inline]
    fn write(&self, out: &mut impl Sink) {
        out.bytes(self.ip);
        out.number(self.port.into());
    }
}

impl<'a> AddrBody<'a> {
    #[inline(always)]
    pub(super) fn read(from: &mut Fields<'a>) -> Result<Self, BodyError> {
        Ok(Self { ip: from.bytes()?, port: from.u16()? })
    }
}

pub(super) struct SourceBody<'a> {
    pub(super) node: &'a str,
    pub(super) addr: AddrBody<'a>,
}

impl Body for SourceBody<'_> {
    #[inline]
    fn write(&self, out: &mut impl Sink) {
        out.text(self.node);
        self.addr.write(out);
    }
}

impl<'a> SourceBody<'a> {
    #[inline]
    pub(super) fn read(from: &mut Fields<'a>) -> Result<Self, BodyError> {
        Ok(Self { node: from.text()?, addr: AddrBody::read(from)? })
    }

    #[inline]
    fn read_optional(from: &mut Fields<'a>) -> Result<Option<Self>, BodyError> {
        from.is_there()?.then(|| Self::read(from)).transpose()
    }
}

pub(super) struct PingBody<'a> {
    pub(super) sequence: u32,
    pub(super) node: &'a str,
    pub(super) source: Option<SourceBody<'a>>,
}

impl Body for PingBody<'_> {
    #[inline]
    fn write(&self, out: &mut impl Sink) {
        out.number(self.sequence.into());
        out.text(self.node);
        out.byte(self.source.is_some().into());
        if let Some(source) = &self.source {
            source.write(out);
        }
    }
}

impl<'a> PingBody<'a> {
    #[inline]
    pub(super) fn read(from: &mut Fields<'a>) -> Result<Self, BodyError> {
        Ok(Self {
            sequence: from.u32()?,
            node: from.text()?,
            source: SourceBody::read_optional(from)?,
        })
    }
}

pub(super) struct IndirectPingBody<'a> {
    pub(super) sequence: u32,
    pub(super) flags: u8,
    pub(super) node: &'a str,
    pub(super) target: AddrBody<'a>,
    pub(super) source: Option<SourceBody<'a>>,
}

impl Body for IndirectPingBody<'_> {
    #[inline]
    fn write(&self, out: &mut impl Sink) {
        out.number(self.sequence.into());
        out.byte(self.flags);
        out.text(self.node);
        self.target.write(out);
        out.byte(self.source.is_some().into());
        if let Some(source) = &self.source {
            source.write(out);
        }
    }
}

impl<'a> IndirectPingBody<'a> {
    #[inline]
    pub(super) fn read(from: &mut Fields<'a>) -> Result<Self, BodyError> {
        Ok(Self {
            sequence: from.u32()?,
            flags: from.byte()?,
            node: from.text()?,
            target: AddrBody::read(from)?,
            source: SourceBody::read_optional(from)?,
        })
    }
}

pub(super) struct AckBody<'a> {
    pub(super) sequence: u32,
    pub(super) payload: &'a [u8],
}

impl Body for AckBody<'_> {
    #[inline]
    fn write(&self, out: &mut impl Sink) {
        out.number(self.sequence.into());
        out.bytes(self.payload);
    }
}

impl<'a> AckBody<'a> {
    #[inline]
    pub(super) fn read(from: &mut Fields<'a>) -> Result<Self, BodyError> {
        Ok(Self { sequence: from.u32()?, payload: from.bytes()? })
    }
}

pub(super) struct NackBody {
    pub(super) sequence: u32,
}

impl Body for NackBody {
    #[inline]
    fn write(&self, out: &mut impl Sink) {
        out.number(self.sequence.into());
    }
}

impl NackBody {
    pub(super) fn read(from: &mut Fields<'_>) -> Result<Self, BodyError> {
        Ok(Self { sequence: from.u32()? })
    }
}

/// Suspect and dead: the same fields.
pub(super) struct AccusationBody<'a> {
    pub(super) incarnation: u32,
    pub(super) node: &'a str,
    pub(super) from: &'a str,
}

impl Body for AccusationBody<'_> {
    #[inline]
    fn write(&self, out: &mut impl Sink) {
        out.number(self.incarnation.into());
        out.text(self.node);
        out.text(self.from);
    }
}

impl<'a> AccusationBody<'a> {
    #[inline]
    pub(super) fn read(from: &mut Fields<'a>) -> Result<Self, BodyError> {
        Ok(Self { incarnation: from.u32()?, node: from.text()?, from: from.text()? })
    }
}

pub(super) struct AliveBody<'a> {
    pub(super) incarnation: u32,
    pub(super) flags: u8,
    pub(super) node: &'a str,
    pub(super) addr: AddrBody<'a>,
    pub(super) meta: &'a [u8],
    pub(super) versions: &'a [u8],
}

impl Body for AliveBody<'_> {
    #[inline]
    fn write(&self, out: &mut impl Sink) {
        out.number(self.incarnation.into());
        out.byte(self.flags);
        out.text(self.node);
        self.addr.write(out);
        out.bytes(self.meta);
        out.bytes(self.versions);
    }
}

impl<'a> AliveBody<'a> {
    #[inline(always)]
    pub(super) fn read(from: &mut Fields<'a>) -> Result<Self, BodyError> {
        Ok(Self {
            incarnation: from.u32()?,
            flags: from.byte()?,
            node: from.text()?,
            addr: AddrBody::read(from)?,
            meta: from.bytes()?,
            versions: from.bytes()?,
        })
    }
}

pub(super) struct BroadcastBody<'a> {
    pub(super) epoch: u32,
    pub(super) sequence: u64,
    pub(super) hops: u8,
    pub(super) priority: u8,
    pub(super) origin: &'a str,
    pub(super) payload: &'a [u8],
}

impl Body for BroadcastBody<'_> {
    #[inline]
    fn write(&self, out: &mut impl Sink) {
        out.number(self.epoch.into());
        out.number(self.sequence);
        out.byte(self.hops);
        out.byte(self.priority);
        out.text(self.origin);
        out.bytes(self.payload);
    }
}

impl<'a> BroadcastBody<'a> {
    #[inline]
    pub(super) fn read(from: &mut Fields<'a>) -> Result<Self, BodyError> {
        Ok(Self {
            epoch: from.u32()?,
            sequence: from.u64()?,
            hops: from.byte()?,
            priority: from.byte()?,
            origin: from.text()?,
            payload: from.bytes()?,
        })
    }
}

/// Behind the digest of a view.
pub(super) struct SpeakerBody<'a> {
    pub(super) flags: u8,
    pub(super) node: &'a str,
}

impl Body for SpeakerBody<'_> {
    #[inline]
    fn write(&self, out: &mut impl Sink) {
        out.byte(self.flags);
        out.text(self.node);
    }
}

impl<'a> SpeakerBody<'a> {
    #[inline]
    pub(super) fn read(from: &mut Fields<'a>) -> Result<Self, BodyError> {
        Ok(Self { flags: from.byte()?, node: from.text()? })
    }
}

/// The state comes first so that fields added to an alive can be added here too.
pub(super) struct NodeStateBody<'a> {
    pub(super) state: u8,
    pub(super) alive: AliveBody<'a>,
}

impl Body for NodeStateBody<'_> {
    #[inline]
    fn write(&self, out: &mut impl Sink) {
        out.byte(self.state);
        self.alive.write(out);
    }
}

impl<'a> NodeStateBody<'a> {
    #[inline]
    pub(super) fn read(from: &mut Fields<'a>) -> Result<Self, BodyError> {
        Ok(Self { state: from.byte()?, alive: AliveBody::read(from)? })
    }
}

pub(super) struct PushPullBody<'a> {
    pub(super) flags: u8,
    pub(super) nodes: u32,
    pub(super) user_state_bytes: u32,
    pub(super) from: &'a str,
    pub(super) to: &'a str,
}

impl Body for PushPullBody<'_> {
    #[inline]
    fn write(&self, out: &mut impl Sink) {
        out.byte(self.flags);
        out.number(self.nodes.into());
        out.number(self.user_state_bytes.into());
        out.text(self.from);
        out.text(self.to);
    }
}

impl<'a> PushPullBody<'a> {
    #[inline]
    pub(super) fn read(from: &mut Fields<'a>) -> Result<Self, BodyError> {
        Ok(Self {
            flags: from.byte()?,
            nodes: from.u32()?,
            user_state_bytes: from.u32()?,
            from: from.text()?,
            to: from.text()?,
        })
    }
}

/// The bytes of an IP address: 4 or 16.
pub(super) struct IpBytes {
    bytes: [u8; 16],
    len: usize,
}

impl IpBytes {
    pub(super) fn new(ip: IpAddr) -> Self {
        let mut bytes = [0; 16];
        let len = match ip {
            IpAddr::V4(v4) => {
                bytes[..4].copy_from_slice(&v4.octets());
                4
            }
            IpAddr::V6(v6) => {
                bytes = v6.octets();
                16
            }
        };
        Self { bytes, len }
    }

    pub(super) fn with_port(&self, port: u16) -> AddrBody<'_> {
        AddrBody { ip: &self.bytes[..self.len], port }
    }
}

#[cfg(test)]
mod tests {
    use bincode::Encode;
    use bincode::config::standard;
    use proptest::prelude::*;

    use super::super::fields::BODY_LIMIT;
    use super::super::fields::tests::meant;
    use super::*;

    /// The bodies as bincode derives them.
    type Addr = (Vec<u8>, u16);
    type Ping = (u32, String, Option<(String, Addr)>);
    type IndirectPing = (u32, u8, String, Addr, Option<(String, Addr)>);
    type NodeState = (u8, u32, u8, String, Addr, Vec<u8>, Vec<u8>);
    type Broadcast = (u32, u64, u8, u8, String, Vec<u8>);

    /// Ours is read and written again, as bincode reads and writes it.
    macro_rules! same {
        ($bytes:expr, $ours:ident, $theirs:ty) => {{
            let bytes: &[u8] = $bytes;
            let mut fields = Fields(bytes);
            let ours = $ours::read(&mut fields).map(|body| {
                let mut out = Vec::new();
                body.write(&mut out);
                assert_eq!(body.len(), out.len());
                out
            });
            let theirs = bincode::decode_from_slice::<$theirs, _>(
                bytes,
                standard().with_limit::<BODY_LIMIT>(),
            )
            .map_err(|error| meant(&error))
            .map(|(body, used)| (bincode::encode_to_vec(body, standard()).unwrap(), used));
            prop_assert_eq!(
                ours.map(|out| (out, bytes.len() - fields.0.len())),
                theirs,
                "{}",
                stringify!($ours)
            );
        }};
    }

    fn addr() -> impl Strategy<Value = Addr> {
        (prop::collection::vec(any::<u8>(), 0..18), any::<u16>())
    }

    fn damaged<T: Encode + std::fmt::Debug>(
        honest: impl Strategy<Value = T>,
    ) -> impl Strategy<Value = Vec<u8>> {
        let change =
            prop::option::of((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), 245_u8..]));
        let cut = prop::option::of(any::<prop::sample::Index>());
        (honest, change, cut).prop_map(|(body, change, cut)| {
            let mut bytes = bincode::encode_to_vec(body, standard()).unwrap();
            if let Some((at, byte)) = change {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(at) = cut {
                bytes.truncate(at.index(bytes.len()));
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn bodies_are_what_bincode_makes_of_them(
            ping in damaged::<Ping>((any::<u32>(), ".{0,40}", prop::option::of((".{0,40}", addr())))),
            indirect in damaged::<IndirectPing>((
                any::<u32>(), any::<u8>(), ".{0,40}", addr(), prop::option::of((".{0,40}", addr())),
            )),
            state in damaged::<NodeState>((
                any::<u8>(), any::<u32>(), any::<u8>(), ".{0,300}", addr(),
                prop::collection::vec(any::<u8>(), 0..520), prop::collection::vec(any::<u8>(), 0..8),
            )),
            accusation in damaged::<(u32, String, String)>((any::<u32>(), ".{0,40}", ".{0,40}")),
            broadcast in damaged::<Broadcast>((
                any::<u32>(), any::<u64>(), any::<u8>(), any::<u8>(), ".{0,40}",
                prop::collection::vec(any::<u8>(), 0..400),
            )),
        ) {
            same!(&ping, PingBody, Ping);
            same!(&indirect, IndirectPingBody, IndirectPing);
            same!(&state, NodeStateBody, NodeState);
            same!(&accusation, AccusationBody, (u32, String, String));
            same!(&broadcast, BroadcastBody, Broadcast);
        }
    }
}
