//! What this library makes of messages that Go's codec accepts, and the limits that it documents: on
//! purpose not by the functions of the library.

use std::net::{IpAddr, SocketAddr};

use memberlist_protocol::canonical;
use memberlist_protocol::message::{Message, PingSource};
use memberlist_protocol::wire::stream::StreamItem;
use serde_json::{Value, json};

/// Why the library refuses what Go takes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Limit {
    NameNotUtf8,
    NameEmpty,
    NameOver255Bytes,
    AddressNot4Or16Bytes,
    /// Port 0, unspecified, or multicast.
    AddressOfNoNode,
    MetaOver512BytesOnAStream,
    Over4096Values,
    ObjectOver128KibOnAStream,
    NestedDeeperThan8,
    InflatedOver65507BytesInAPacket,
    /// A field that Go does not know, of another type than the library gives it.
    NativeWireMalformed,
}

type Meant<T> = Result<T, Limit>;

pub(crate) fn from_hex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap_or_default();
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

fn name_or_empty(field: &Value) -> Meant<String> {
    let name = String::from_utf8(from_hex(field)).map_err(|_| Limit::NameNotUtf8)?;
    if name.len() > 255 { Err(Limit::NameOver255Bytes) } else { Ok(name) }
}

fn name(field: &Value) -> Meant<String> {
    let name = name_or_empty(field)?;
    if name.is_empty() { Err(Limit::NameEmpty) } else { Ok(name) }
}

fn socket(ip: &Value, port: &Value) -> Meant<SocketAddr> {
    let bytes = from_hex(ip);
    let ip: IpAddr = match (<[u8; 4]>::try_from(&bytes[..]), <[u8; 16]>::try_from(&bytes[..])) {
        (Ok(v4), _) => v4.into(),
        (_, Ok(v6)) => v6.into(),
        _ => return Err(Limit::AddressNot4Or16Bytes),
    };
    Ok(canonical(SocketAddr::new(ip, port.as_u64().unwrap() as u16)))
}

fn usable(addr: SocketAddr) -> Meant<SocketAddr> {
    let nobody = addr.port() == 0 || addr.ip().is_unspecified() || addr.ip().is_multicast();
    if nobody { Err(Limit::AddressOfNoNode) } else { Ok(addr) }
}

fn source(leaf: &Value) -> Meant<Value> {
    if from_hex(&leaf["SourceAddr"]).is_empty() || leaf["SourcePort"] == 0 {
        return Ok(Value::Null);
    }
    let addr = usable(socket(&leaf["SourceAddr"], &leaf["SourcePort"])?);
    Ok(json!([name_or_empty(&leaf["SourceNode"])?, addr?.to_string()]))
}

fn versions(field: &Value) -> Vec<u8> {
    let mut bytes = from_hex(field);
    bytes.truncate(6);
    bytes
}

/// What one message of a packet means that Go has read.
pub(crate) fn in_packet(leaf: &Value) -> Meant<Value> {
    let kind = leaf["type"].as_str().unwrap();
    Ok(match kind {
        "user" => json!([kind, from_hex(&leaf["payload"])]),
        "nack" => json!([kind, leaf["SeqNo"]]),
        "ack" => json!([kind, leaf["SeqNo"], from_hex(&leaf["Payload"])]),
        "ping" => json!([kind, leaf["SeqNo"], name_or_empty(&leaf["Node"])?, source(leaf)?]),
        "indirect_ping" => {
            let target = socket(&leaf["Target"], &leaf["Port"])?.to_string();
            let (node, source) = (name(&leaf["Node"])?, source(leaf)?);
            json!([kind, leaf["SeqNo"], node, target, leaf["Nack"], source])
        }
        "suspect" | "dead" => {
            json!([kind, leaf["Incarnation"], name(&leaf["Node"])?, name(&leaf["From"])?])
        }
        "alive" => {
            let addr = usable(socket(&leaf["Addr"], &leaf["Port"])?)?;
            json!([
                kind,
                leaf["Incarnation"],
                name(&leaf["Node"])?,
                addr.to_string(),
                addr.is_ipv4() && from_hex(&leaf["Addr"]).len() == 16,
                from_hex(&leaf["Meta"]),
                versions(&leaf["Vsn"]),
            ])
        }
        kind => panic!("no message is called {kind}"),
    })
}

/// The same of what the library has read.
pub(crate) fn of_message(message: &Message<'_>) -> Value {
    let source = |source: Option<PingSource<'_>>| {
        source.map_or(Value::Null, |source| json!([source.node, source.addr.to_string()]))
    };
    match *message {
        Message::User(payload) => json!(["user", payload]),
        Message::Nack(nack) => json!(["nack", nack.sequence]),
        Message::Ack(ack) => json!(["ack", ack.sequence, ack.payload]),
        Message::Ping(ping) => json!(["ping", ping.sequence, ping.node, source(ping.source)]),
        Message::IndirectPing(ping) => {
            let target = ping.target.to_string();
            let source = source(ping.source);
            json!(["indirect_ping", ping.sequence, ping.node, target, ping.nack, source])
        }
        Message::Suspect(m) => json!(["suspect", m.incarnation, m.node, m.from]),
        Message::Dead(m) => json!(["dead", m.incarnation, m.node, m.from]),
        Message::Alive(alive) => json!([
            "alive",
            alive.incarnation,
            alive.node,
            alive.addr.to_string(),
            alive.wide_ipv4,
            alive.meta,
            alive.versions.as_bytes(),
        ]),
        _ => panic!("Go has no {message:?}"),
    }
}

/// What a message of a stream means that Go has read. The nodes of a state are refused one by one.
pub(crate) fn in_stream(leaf: &Value, mut refused: impl FnMut(Limit)) -> Meant<Value> {
    let kind = leaf["type"].as_str().unwrap();
    Ok(match kind {
        "user" => json!([kind, from_hex(&leaf["payload"])]),
        "ack" => json!([kind, leaf["SeqNo"], from_hex(&leaf["Payload"])]),
        "ping" => {
            let node = name_or_empty(&leaf["Node"])?;
            let source = source(leaf)?;
            let source = if source[0] == "" { Value::Null } else { source };
            json!([kind, leaf["SeqNo"], node, source])
        }
        "error" => {
            let mut text = from_hex(&leaf["Error"]);
            text.truncate(1024);
            let text = String::from_utf8_lossy(&text).replace(char::is_control, " ");
            json!([kind, text])
        }
        "push_pull" => {
            let (mut nodes, mut out, mut skipped) = (Vec::new(), 0, 0);
            for node in leaf["Nodes"].as_array().unwrap() {
                match node_state(node) {
                    Some(Ok(node)) => nodes.push(node),
                    Some(Err(limit)) => {
                        out += 1;
                        refused(limit);
                    }
                    None => skipped += 1,
                }
            }
            let state = from_hex(&leaf["UserState"]);
            json!([kind, leaf["Join"], nodes, out, skipped, state])
        }
        kind => panic!("no message is called {kind}"),
    })
}

/// Nothing of a state that there is not.
fn node_state(node: &Value) -> Option<Meant<Value>> {
    let state = node["State"].as_u64().filter(|state| *state <= 3)?;
    let read = || {
        // The port of a node that gives none.
        let port =
            if node["Port"] == 0 { json!(super::DEFAULT_PORT) } else { node["Port"].clone() };
        let addr = usable(socket(&node["Addr"], &port)?)?;
        let (name, meta) = (name(&node["Name"])?, from_hex(&node["Meta"]));
        if meta.len() > 512 {
            return Err(Limit::MetaOver512BytesOnAStream);
        }
        let wide = addr.is_ipv4() && from_hex(&node["Addr"]).len() == 16;
        let (addr, versions) = (addr.to_string(), versions(&node["Vsn"]));
        Ok(json!([name, addr, wide, meta, node["Incarnation"], state, versions]))
    };
    Some(read())
}

pub(crate) fn of_item(item: &StreamItem) -> Value {
    match item {
        StreamItem::User(payload) => json!(["user", payload.to_vec()]),
        StreamItem::Ack { sequence, payload } => json!(["ack", sequence, payload.to_vec()]),
        StreamItem::Ping { sequence, node, source } => {
            let node = node.as_ref().map(ToString::to_string).unwrap_or_default();
            let source = source
                .as_ref()
                .map_or(Value::Null, |(node, addr)| json!([node.to_string(), addr.to_string()]));
            json!(["ping", sequence, node, source])
        }
        StreamItem::Error(text) => json!(["error", text]),
        StreamItem::PushPull(state) => {
            let nodes = state.nodes.iter().map(|record| {
                let node = &record.node;
                json!([
                    node.id.to_string(),
                    node.addr.to_string(),
                    node.wide_ipv4,
                    node.meta.to_vec(),
                    record.incarnation,
                    record.state.as_u8(),
                    node.versions.as_bytes(),
                ])
            });
            let nodes: Vec<Value> = nodes.collect();
            let (refused, skipped) = (state.refused.len(), state.skipped);
            json!(["push_pull", state.join, nodes, refused, skipped, state.user_state.to_vec()])
        }
        item => panic!("Go has no {item:?}"),
    }
}
