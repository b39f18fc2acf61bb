//! The bodies of Go memberlist's messages, field for field as Go declares them (`net.go`).
//!
//! What they mean to this library, and what it refuses of them, is in `convert`. A struct is written
//! as a map whose keys stand in ascending order of their bytes, and is read from a map in any order or
//! from an array in the order of declaration.

use std::borrow::Cow;

use super::msgpack::{
    Container, ReadError, Reader, write_boolean, write_map, write_nil, write_raw, write_signed,
    write_unsigned,
};

/// A text of Go: any bytes.
pub type Text<'a> = Cow<'a, [u8]>;
/// A byte array of Go, which may be nil.
pub type Bytes<'a> = Option<Cow<'a, [u8]>>;

/// A message, or a part of one, that is one MessagePack object.
pub trait Body<'a>: Sized {
    /// Reads the object at the place of the reader; what is missing in it is zero.
    ///
    /// # Errors
    /// If it ends early, or a field holds what Go's codec refuses.
    fn read(from: &mut Reader<'a>) -> Result<Self, ReadError>;

    /// Appends the object as Go writes it.
    fn write(&self, out: &mut Vec<u8>);
}

/// A field of a body.
trait Field<'a>: Sized + Default {
    fn read(from: &mut Reader<'a>) -> Result<Self, ReadError>;
    fn write(&self, out: &mut Vec<u8>);
    /// What Go's `omitempty` leaves out.
    fn is_zero(&self) -> bool;
}

macro_rules! unsigned_field {
    ($($type:ty)*) => {$(
        impl<'a> Field<'a> for $type {
            fn read(from: &mut Reader<'a>) -> Result<Self, ReadError> {
                from.unsigned()
            }
            fn write(&self, out: &mut Vec<u8>) {
                write_unsigned(u32::from(*self), out);
            }
            fn is_zero(&self) -> bool {
                *self == 0
            }
        }
    )*};
}

unsigned_field!(u8 u16 u32);

impl<'a> Field<'a> for i64 {
    fn read(from: &mut Reader<'a>) -> Result<Self, ReadError> {
        from.signed()
    }
    fn write(&self, out: &mut Vec<u8>) {
        // A length or a count that is no u32 is over every reader's limit.
        write_signed(u32::try_from(*self).unwrap_or(u32::MAX), out);
    }
    fn is_zero(&self) -> bool {
        *self == 0
    }
}

impl<'a> Field<'a> for bool {
    fn read(from: &mut Reader<'a>) -> Result<Self, ReadError> {
        from.boolean()
    }
    fn write(&self, out: &mut Vec<u8>) {
        write_boolean(*self, out);
    }
    fn is_zero(&self) -> bool {
        !self
    }
}

impl<'a> Field<'a> for Text<'a> {
    fn read(from: &mut Reader<'a>) -> Result<Self, ReadError> {
        from.text()
    }
    fn write(&self, out: &mut Vec<u8>) {
        write_raw(self, out);
    }
    fn is_zero(&self) -> bool {
        self.is_empty()
    }
}

impl<'a> Field<'a> for Bytes<'a> {
    fn read(from: &mut Reader<'a>) -> Result<Self, ReadError> {
        from.bytes()
    }
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Some(bytes) => write_raw(bytes, out),
            None => write_nil(out),
        }
    }
    fn is_zero(&self) -> bool {
        self.as_ref().is_none_or(|bytes| bytes.is_empty())
    }
}

/// Declares a body: its fields in the order of the wire, each with its key, and with `omit` if it is left
/// out when it is zero; then the order of declaration.
macro_rules! body {
    (
        $(#[$doc:meta])*
        $name:ident $(<$life:lifetime>)? {
            $( $(#[$field_doc:meta])* $field:ident: $type:ty = $key:literal $($omit:ident)?, )*
        }
        declared: $($declared:ident)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Debug, Default)]
        pub struct $name $(<$life>)? {
            $( $(#[$field_doc])* pub $field: $type, )*
        }

        body!(@impl ($($life)?) $name {
            $( $field = $key $($omit)?, )*
        } declared: $($declared)*);
    };
    (@impl () $name:ident $fields:tt declared: $($declared:ident)*) => {
        impl<'a> Body<'a> for $name {
            body!(@methods 'a $fields declared: $($declared)*);
        }
    };
    (@impl ($life:lifetime) $name:ident $fields:tt declared: $($declared:ident)*) => {
        impl<$life> Body<$life> for $name<$life> {
            body!(@methods $life $fields declared: $($declared)*);
        }
    };
    (
        @methods $life:lifetime
        { $( $field:ident = $key:literal $($omit:ident)?, )* }
        declared: $($declared:ident)*
    ) => {
        fn read(from: &mut Reader<$life>) -> Result<Self, ReadError> {
            let mut body = Self::default();
            match from.container()? {
                Container::Nil => {}
                Container::Map(len) => {
                    let mut left = len;
                    // As Go writes them; then whatever comes in whatever order.
                    $( const { assert!($key.len() < 32) };
                    if left > 0 && from.skip_key($key) {
                        left -= 1;
                        body.$field = Field::read(from)?;
                    } )*
                    for _ in 0..left {
                        match from.key()?.as_ref() {
                            $( key if key == $key.as_bytes() => {
                                body.$field = Field::read(from)?;
                            } )*
                            _ => from.skip()?,
                        }
                    }
                }
                Container::Array(len) => {
                    let mut left = len;
                    $( if left > 0 {
                        left -= 1;
                        body.$declared = Field::read(from)?;
                    } )*
                    for _ in 0..left {
                        from.skip()?;
                    }
                }
            }
            Ok(body)
        }

        fn write(&self, out: &mut Vec<u8>) {
            let at = out.len();
            let mut fields = 0;
            write_map(0, out);
            $( if !body!(@is_left_out self.$field $($omit)?) {
                fields += 1;
                write_raw($key.as_bytes(), out);
                self.$field.write(out);
            } )*
            out[at] |= fields;
        }
    };
    (@is_left_out $self:ident.$field:ident omit) => { $self.$field.is_zero() };
    (@is_left_out $self:ident.$field:ident) => { false };
}

body! {
    /// Type 0.
    Ping<'a> {
        /// Not of Go, which skips it: the version of the native format that the sender reads as well.
        native: u8 = "NativeWire" omit,
        /// Who is meant; empty: whoever is there.
        node: Text<'a> = "Node",
        /// The ack repeats it.
        seq_no: u32 = "SeqNo",
        /// The sender's advertised IP address.
        source_addr: Bytes<'a> = "SourceAddr" omit,
        /// The sender.
        source_node: Text<'a> = "SourceNode" omit,
        /// The sender's advertised port.
        source_port: u16 = "SourcePort" omit,
    }
    declared: seq_no node source_addr source_port source_node
}

body! {
    /// Type 1.
    IndirectPing<'a> {
        /// Whether a nack is wanted.
        nack: bool = "Nack",
        /// Who is to be pinged.
        node: Text<'a> = "Node",
        /// Its port.
        port: u16 = "Port",
        /// The relayed ack repeats it.
        seq_no: u32 = "SeqNo",
        /// As in a ping.
        source_addr: Bytes<'a> = "SourceAddr" omit,
        /// As in a ping.
        source_node: Text<'a> = "SourceNode" omit,
        /// As in a ping.
        source_port: u16 = "SourcePort" omit,
        /// The IP address of who is to be pinged.
        target: Bytes<'a> = "Target",
    }
    declared: seq_no target port node nack source_addr source_port source_node
}

body! {
    /// Type 2.
    Ack<'a> {
        /// As in a ping.
        native: u8 = "NativeWire" omit,
        /// Bytes of the answering application.
        payload: Bytes<'a> = "Payload",
        /// The number of the ping.
        seq_no: u32 = "SeqNo",
    }
    declared: seq_no payload
}

body! {
    /// Type 11.
    Nack {
        /// The number of the indirect ping.
        seq_no: u32 = "SeqNo",
    }
    declared: seq_no
}

body! {
    /// Type 13.
    ErrorAnswer<'a> {
        /// What is wrong, in words.
        error: Text<'a> = "Error",
    }
    declared: error
}

body! {
    /// Types 3 (suspect) and 5 (dead).
    Accusation<'a> {
        /// Who says so.
        from: Text<'a> = "From",
        /// The incarnation that is accused.
        incarnation: u32 = "Incarnation",
        /// Who is accused.
        node: Text<'a> = "Node",
    }
    declared: incarnation node from
}

body! {
    /// Type 4.
    Alive<'a> {
        /// The IP address, 4 or 16 bytes.
        addr: Bytes<'a> = "Addr",
        /// Its incarnation.
        incarnation: u32 = "Incarnation",
        /// Bytes of its application.
        meta: Bytes<'a> = "Meta",
        /// Its name.
        node: Text<'a> = "Node",
        /// Its port.
        port: u16 = "Port",
        /// Six version numbers.
        vsn: Bytes<'a> = "Vsn",
    }
    declared: incarnation node addr port meta vsn
}

body! {
    /// What stands first in a push/pull, behind the type byte.
    PushPullHeader {
        /// Whether the sender joins.
        join: bool = "Join",
        /// How many node states follow.
        nodes: i64 = "Nodes",
        /// How many bytes of user state follow those.
        user_state_len: i64 = "UserStateLen",
    }
    declared: nodes user_state_len join
}

body! {
    /// One node of a push/pull.
    NodeState<'a> {
        /// As in alive.
        addr: Bytes<'a> = "Addr",
        /// As in alive.
        incarnation: u32 = "Incarnation",
        /// As in alive.
        meta: Bytes<'a> = "Meta",
        /// Its name: `Node` in alive.
        name: Text<'a> = "Name",
        /// As in alive.
        port: u16 = "Port",
        /// 0 alive, 1 suspect, 2 dead, 3 left.
        state: i64 = "State",
        /// As in alive.
        vsn: Bytes<'a> = "Vsn",
    }
    declared: name addr port meta incarnation state vsn
}

body! {
    /// What stands before a user message on a stream.
    UserHeader {
        /// How many bytes follow.
        user_msg_len: i64 = "UserMsgLen",
    }
    declared: user_msg_len
}

body! {
    /// Type 9.
    Compressed<'a> {
        /// 0 is LZW, the only one there is.
        algo: u8 = "Algo",
        /// The compressed message.
        buf: Bytes<'a> = "Buf",
    }
    declared: algo buf
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nack(bytes: &[u8]) -> Result<u32, ReadError> {
        Nack::read(&mut Reader::new(bytes)).map(|nack| nack.seq_no)
    }

    #[test]
    fn a_field_without_a_name_is_refused_as_by_go() {
        let refused = Err(ReadError::Malformed("a field without a name"));
        assert_eq!(nack(b"\x81\xA0\x01"), refused);
        assert_eq!(nack(b"\x82\xC0\x01\xA5SeqNo\x02"), refused);
        assert_eq!(nack(b"\x82\xA1 \x01\xA5SeqNo\x02"), Ok(2));
    }

    #[test]
    fn fields_come_in_any_order_and_the_last_of_a_name_counts() {
        let accusation = |bytes: &[u8]| {
            let mut reader = Reader::new(bytes);
            let read = Accusation::read(&mut reader).map(|body| {
                let text = |text: Text<'_>| String::from_utf8(text.into_owned()).unwrap();
                (text(body.from), body.incarnation, text(body.node))
            });
            (read, reader.rest().len())
        };
        let (from, incarnation, node) =
            (b"\xA4From\xA1f", b"\xABIncarnation\x07", b"\xA4Node\xA1n");
        let fields: [&[u8]; 3] = [from, incarnation, node];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let [a, b, c] = order.map(|at| fields[at]);
            let read = accusation(&[b"\x83", a, b, c, b"behind"].concat());
            assert_eq!(read, (Ok(("f".into(), 7, "n".into())), 6), "{order:?}");
        }
        // Twice, once with the key as a string of another family, and with a field of another name.
        let wide = b"\xD9\x04From\xA1g";
        let read = accusation(&[b"\x84", from.as_slice(), wide, b"\xA2No\x01", node].concat());
        assert_eq!(read, (Ok(("g".into(), 0, "n".into())), 0));
        let read = accusation(&[b"\x84", wide.as_slice(), node, from, b"\xA5Nodes\x01"].concat());
        assert_eq!(read, (Ok(("f".into(), 0, "n".into())), 0));
        // Fewer than there are bytes for, and more.
        let read = accusation(&[b"\x81", from.as_slice(), incarnation].concat());
        assert_eq!(read, (Ok(("f".into(), 0, String::new())), incarnation.len()));
        let (read, _) = accusation(&[b"\x82", from.as_slice()].concat());
        assert!(matches!(read, Err(ReadError::Truncated { .. })), "{read:?}");
    }

    #[test]
    fn containers_nest_as_deep_as_in_go() {
        let deep = |nested| [b"\x92\x02".as_slice(), &vec![0x91; nested], b"\x00"].concat();
        // With the array that the object is, 1,023.
        assert_eq!(nack(&deep(1022)), Ok(2));
        assert_eq!(nack(&deep(1023)), Err(ReadError::Malformed("containers nested too deep")));
    }
}
