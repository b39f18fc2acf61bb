//! The fields of Go's bodies: as the inputs of a case give them, and as its expectations show them.

use std::borrow::Cow;
use std::fmt::Debug;
use std::net::IpAddr;

use memberlist_protocol::wire::hashicorp::{Body, body};
use serde_json::{Map, Value};

/// A body of which the fields are known by name.
pub(super) trait Described<'a>: Body<'a> + Default + Clone + PartialEq + Debug {
    /// Its keys, each with whether Go leaves it out when it is empty.
    const KEYS: &'static [(&'static str, bool)];

    /// Fills one field.
    fn set(&mut self, key: &str, value: &Value) -> Result<(), String>;

    /// Every field, byte arrays in hexadecimal and with whether they are nil.
    fn show(&self) -> Map<String, Value>;

    /// The same, but without byte arrays that are empty and not nil.
    fn without_empty_arrays(self) -> Self;

    /// Why a message with it is refused here, if it is.
    fn refused(&self) -> Option<&'static str>;

    /// Whether these are the inputs of such a body.
    fn fits(inputs: &Map<String, Value>) -> bool {
        let known = |key: &String| Self::KEYS.iter().any(|(known, _)| known == key);
        let there = |&(key, omitted): &(&str, bool)| omitted || inputs.contains_key(key);
        inputs.keys().all(known) && Self::KEYS.iter().all(there)
    }

    /// The body of these inputs.
    fn from_inputs(inputs: &Map<String, Value>) -> Result<Self, String> {
        let mut body = Self::default();
        for (key, value) in inputs {
            body.set(key, value).map_err(|error| format!("inputs.{key}: {error}"))?;
        }
        Ok(body)
    }
}

macro_rules! described {
    ($( $name:ident $(<$life:lifetime>)? { $( $key:literal $field:ident $kind:ident $($omitted:ident)?, )* } )*) => { $(
        impl<'a> Described<'a> for body::$name $(<$life>)? {
            const KEYS: &'static [(&'static str, bool)] =
                &[ $( ($key, described!(@is $($omitted)?)), )* ];

            fn set(&mut self, key: &str, value: &Value) -> Result<(), String> {
                match key {
                    $( $key => self.$field = $kind::read(value)?, )*
                    _ => return Err("no such field".to_owned()),
                }
                Ok(())
            }

            fn show(&self) -> Map<String, Value> {
                let mut shown = Map::new();
                $( $kind::show($key, &self.$field, &mut shown); )*
                shown
            }

            fn without_empty_arrays(mut self) -> Self {
                $( $kind::empty_is_nil(&mut self.$field); )*
                self
            }

            fn refused(&self) -> Option<&'static str> {
                let reasons: &[Option<&'static str>] =
                    &[ $( $kind::refused(&self.$field, described!(@is $($omitted)?)), )* ];
                reasons.iter().copied().flatten().next()
            }
        }
    )* };
    (@is omitted) => { true };
    (@is) => { false };
}

described! {
    Ping<'a> {
        "Node" node meant,
        "SeqNo" seq_no number,
        "SourceAddr" source_addr address omitted,
        "SourceNode" source_node name omitted,
        "SourcePort" source_port number omitted,
    }
    IndirectPing<'a> {
        "Nack" nack flag,
        "Node" node name,
        "Port" port number,
        "SeqNo" seq_no number,
        "SourceAddr" source_addr address omitted,
        "SourceNode" source_node name omitted,
        "SourcePort" source_port number omitted,
        "Target" target target,
    }
    Ack<'a> {
        "Payload" payload array,
        "SeqNo" seq_no number,
    }
    Nack {
        "SeqNo" seq_no number,
    }
    ErrorAnswer<'a> {
        "Error" error words,
    }
    Accusation<'a> {
        "From" from name,
        "Incarnation" incarnation number,
        "Node" node name,
    }
    Alive<'a> {
        "Addr" addr address,
        "Incarnation" incarnation number,
        "Meta" meta array,
        "Node" node name,
        "Port" port port,
        "Vsn" vsn versions,
    }
    PushPullHeader {
        "Join" join flag,
        "Nodes" nodes number,
        "UserStateLen" user_state_len number,
    }
    NodeState<'a> {
        "Addr" addr address,
        "Incarnation" incarnation number,
        "Meta" meta array,
        "Name" name name,
        "Port" port number,
        "State" state number,
        "Vsn" vsn versions,
    }
    UserHeader {
        "UserMsgLen" user_msg_len number,
    }
    Compressed<'a> {
        "Algo" algo number,
        "Buf" buf array,
    }
}

type Text = Cow<'static, [u8]>;
type Array = Option<Text>;

/// `'a' x 31` and `0x6d x 512` stand for that many bytes.
pub(super) fn repeated(text: &str) -> Option<Vec<u8>> {
    let (byte, times) = text.rsplit_once(" x ")?;
    let times = times.parse().ok()?;
    let byte = match byte.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16).ok()?,
        None => *byte.strip_prefix('\'')?.strip_suffix('\'')?.as_bytes().first()?,
    };
    Some(vec![byte; times])
}

fn text_of(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("{value} is not a text"))
}

/// A kind of fields: how inputs give it, how expectations show it, and what is refused of it here.
macro_rules! kinds {
    ($( $kind:ident: $given:ident, $shown:ident, $emptied:ident, $refused:ident; )*) => { $(
        mod $kind {
            pub(super) use super::{
                $emptied as empty_is_nil, $given as read, $refused as refused, $shown as show,
            };
        }
    )* };
}

kinds! {
    number: read_number, show_number, keep, accept;
    port: read_number, show_number, keep, refuse_port;
    flag: read_flag, show_flag, keep, accept;
    words: read_text, show_text, keep, accept;
    name: read_text, show_text, keep, refuse_name;
    meant: read_text, show_text, keep, refuse_long_name;
    address: read_address, show_array, empty_array_is_nil, refuse_address;
    target: read_address, show_array, empty_array_is_nil, refuse_length;
    array: read_array, show_array, empty_array_is_nil, accept;
    versions: read_versions, show_array, empty_array_is_nil, accept;
}

fn read_number<N: TryFrom<u64>>(value: &Value) -> Result<N, String> {
    let number = value.as_u64().and_then(|number| N::try_from(number).ok());
    number.ok_or_else(|| format!("{value} is not a number of its range"))
}

fn read_flag(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("{value} is not a flag"))
}

fn read_text(value: &Value) -> Result<Text, String> {
    let text = text_of(value)?;
    Ok(repeated(text).unwrap_or_else(|| text.as_bytes().to_vec()).into())
}

/// An IPv4 address has as many bytes as it is written with: `::ffff:10.0.0.1` has 16.
fn read_address(value: &Value) -> Result<Array, String> {
    if value.is_null() {
        return Ok(None);
    }
    let text = text_of(value)?;
    Ok(Some(match text.parse() {
        Ok(IpAddr::V4(v4)) => v4.octets().to_vec().into(),
        Ok(IpAddr::V6(v6)) => v6.octets().to_vec().into(),
        Err(_) => return read_array(value),
    }))
}

fn read_array(value: &Value) -> Result<Array, String> {
    if value.is_null() {
        return Ok(None);
    }
    let text = text_of(value)?;
    let bytes = repeated(text).or_else(|| crate::vectors::go::from_hex(text));
    bytes.map(|bytes| Some(bytes.into())).ok_or_else(|| format!("{text} is not hexadecimal"))
}

fn read_versions(value: &Value) -> Result<Array, String> {
    if value.is_null() {
        return Ok(None);
    }
    let text = text_of(value)?;
    let numbers = text.split(',').filter(|number| !number.is_empty()).map(str::parse);
    let bytes: Vec<u8> =
        numbers.collect::<Result<_, _>>().map_err(|_| format!("{text}: no versions"))?;
    Ok(Some(bytes.into()))
}

fn show_number<N: Copy + Into<Value>>(key: &str, value: &N, shown: &mut Map<String, Value>) {
    shown.insert(key.to_owned(), (*value).into());
}

fn show_flag(key: &str, value: &bool, shown: &mut Map<String, Value>) {
    shown.insert(key.to_owned(), (*value).into());
}

fn show_text(key: &str, value: &[u8], shown: &mut Map<String, Value>) {
    shown.insert(key.to_owned(), String::from_utf8_lossy(value).into());
}

fn show_array(key: &str, value: &Option<Cow<'_, [u8]>>, shown: &mut Map<String, Value>) {
    let bytes = value.as_deref().unwrap_or_default();
    shown.insert(key.to_owned(), crate::vectors::go::to_hex(bytes).into());
    shown.insert(format!("{key}Nil"), value.is_none().into());
}

fn keep<T>(_: &mut T) {}

fn empty_array_is_nil(value: &mut Option<Cow<'_, [u8]>>) {
    if value.as_ref().is_some_and(|bytes| bytes.is_empty()) {
        *value = None;
    }
}

fn accept<T>(_: &T, _: bool) -> Option<&'static str> {
    None
}

fn refuse_port(port: &u16, _: bool) -> Option<&'static str> {
    (*port == 0).then_some("cannot be the address of a node")
}

fn refuse_name(name: &[u8], may_be_empty: bool) -> Option<&'static str> {
    let empty = name.is_empty() && !may_be_empty;
    if empty { Some("empty") } else { refuse_long_name(name, true) }
}

fn refuse_long_name(name: &[u8], _: bool) -> Option<&'static str> {
    match std::str::from_utf8(name) {
        Err(_) => Some("not UTF-8"),
        Ok(name) => (name.len() > 255).then_some("255"),
    }
}

fn refuse_length(address: &Option<Cow<'_, [u8]>>, may_be_empty: bool) -> Option<&'static str> {
    let len = address.as_ref().map_or(0, |bytes| bytes.len());
    let known = matches!(len, 4 | 16) || len == 0 && may_be_empty;
    (!known).then_some("4 or 16 bytes")
}

fn refuse_address(address: &Option<Cow<'_, [u8]>>, may_be_empty: bool) -> Option<&'static str> {
    let bytes = address.as_deref().unwrap_or_default();
    let ip: IpAddr = match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
        (Ok(v4), _) => v4.into(),
        (_, Ok(v6)) => IpAddr::from(v6).to_canonical(),
        _ => return refuse_length(address, may_be_empty),
    };
    let nobody = ip.is_unspecified() || ip.is_multicast();
    nobody.then_some("cannot be the address of a node")
}
