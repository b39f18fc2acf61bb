//! The bodies, as they stand on the wire: their fields in their order.

use std::net::IpAddr;

use super::fields::{Field, Fields, Sink};
use crate::wire::error::BodyError;

/// Declares a body by its fields in the order of the wire.
macro_rules! body {
    (
        $(#[$doc:meta])*
        $name:ident<$life:lifetime> { $( $field:ident: $type:ty, )* }
    ) => {
        $(#[$doc])*
        pub(super) struct $name<$life> {
            $( pub(super) $field: $type, )*
        }

        impl<$life> Field<$life> for $name<$life> {
            #[inline(always)]
            fn read(from: &mut Fields<$life>) -> Result<Self, BodyError> {
                Ok(Self { $( $field: Field::read(from)?, )* })
            }

            #[inline(always)]
            fn write(&self, out: &mut impl Sink) {
                $( self.$field.write(out); )*
            }
        }
    };
}

body! {
    AddrBody<'a> {
        ip: &'a [u8],
        port: u16,
    }
}

body! {
    SourceBody<'a> {
        node: &'a str,
        addr: AddrBody<'a>,
    }
}

body! {
    PingBody<'a> {
        sequence: u32,
        node: &'a str,
        source: Option<SourceBody<'a>>,
    }
}

body! {
    IndirectPingBody<'a> {
        sequence: u32,
        flags: u8,
        node: &'a str,
        target: AddrBody<'a>,
        source: Option<SourceBody<'a>>,
    }
}

body! {
    AckBody<'a> {
        sequence: u32,
        payload: &'a [u8],
    }
}

body! {
    /// Suspect and dead: the same fields.
    AccusationBody<'a> {
        incarnation: u32,
        node: &'a str,
        from: &'a str,
    }
}

body! {
    AliveBody<'a> {
        incarnation: u32,
        flags: u8,
        node: &'a str,
        addr: AddrBody<'a>,
        meta: &'a [u8],
        versions: &'a [u8],
    }
}

body! {
    BroadcastBody<'a> {
        epoch: u32,
        sequence: u64,
        hops: u8,
        priority: u8,
        origin: &'a str,
        payload: &'a [u8],
    }
}

body! {
    /// Behind the digest of a view.
    SpeakerBody<'a> {
        flags: u8,
        node: &'a str,
    }
}

body! {
    /// The state comes first so that fields added to an alive can be added here too.
    NodeStateBody<'a> {
        state: u8,
        alive: AliveBody<'a>,
    }
}

body! {
    PushPullBody<'a> {
        flags: u8,
        nodes: u32,
        user_state_bytes: u32,
        from: &'a str,
        to: &'a str,
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
                assert_eq!(body.encoded_len(), out.len());
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
