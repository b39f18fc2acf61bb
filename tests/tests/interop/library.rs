//! A node in this process among Go peers: bytes that a line of text cannot have, and callbacks.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use memberlist::net::NetTransport;
use memberlist::protocol::Node;
use memberlist::security::{Keyring, SecretKey};
use memberlist::{Builder, Bytes, Config, Delegate, Encryption, Memberlist, Messages, WireFormat};
use memberlist_tests::{until, within};

use crate::go_peer::{self, hex};
use crate::nodes::{Kind, Options, any_port};
use crate::process::Process;
use crate::program::KEY;
use crate::talk;

/// More than one read of a stream gives, and more than an honest packet.
const LARGE: usize = 100_000;

#[derive(Clone, Default)]
struct App {
    states: Arc<Mutex<Vec<(Bytes, bool)>>>,
    payloads: Arc<Mutex<Vec<Bytes>>>,
}

impl Delegate for App {
    fn ack_payload(&self) -> Bytes {
        Bytes::from_static(b"\xFFack")
    }

    fn local_state(&self, _: bool) -> Bytes {
        vec![0xFE; LARGE].into()
    }

    fn merge_remote_state(&self, state: Bytes, join: bool) {
        self.states.lock().unwrap().push((state, join));
    }

    fn notify_ping_complete(&self, _: &Arc<Node>, _: Duration, payload: &Bytes) {
        self.payloads.lock().unwrap().push(payload.clone());
    }
}

/// A Go peer, and a node that has joined it.
async fn pair(options: &Options, app: App) -> (Process, Memberlist<NetTransport>, Messages) {
    let flags = ["--state", "state of g", "--ack-payload", "ack of g"];
    let mut peer = Kind::Go.start("g0", &any_port(), options, &flags);
    let mut config = Config::local("node");
    config.protocol.wire_format = WireFormat::Hashicorp;
    config.protocol.compression = options.compress;
    config.label = options.label.to_owned();
    if let Some(key) = options.keys.first() {
        let keyring = Keyring::new(SecretKey::from_base64(key).unwrap());
        config.encryption = Some(Encryption::new(keyring));
    }
    let (builder, messages) = Builder::new(config).delegate(app).messages();
    let transport = NetTransport::bind_addr(any_port().parse().unwrap()).unwrap();
    let node = builder.start(transport).await.unwrap();
    within("the join", node.join([peer.addr.as_str()])).await.unwrap();
    peer.event_of("join", "node");
    (peer, node, messages)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
async fn bytes_of_any_kind_and_length_arrive_both_ways() {
    let sealed = Options { label: "blue", keys: vec![KEY], ..Options::default() };
    let plain = Options { compress: false, ..Options::default() };
    for options in [plain, Options::default(), sealed] {
        let app = App::default();
        let (mut peer, node, mut messages) = pair(&options, app.clone()).await;

        let state = peer.event("remote_state");
        assert_eq!((&state["bytes"], &state["join"]), (&LARGE.into(), &true.into()));
        assert_eq!(state["text_hex"].as_str().unwrap(), "fe".repeat(LARGE));
        until("the state of g", || !app.states.lock().unwrap().is_empty()).await;
        assert_eq!(app.states.lock().unwrap()[0], (Bytes::from_static(b"state of g"), true));

        // Go's library tells nobody of an empty message on a stream. It must not stumble over it.
        node.send_reliable("g0", "").await.unwrap();
        let large: Vec<u8> = (0..LARGE).map(|at| (at * 7 + at / 256) as u8).collect();
        for payload in [&large[..], b"x", b"\xFF\0", &[9; 10 * LARGE]] {
            node.send_reliable("g0", payload.to_vec()).await.unwrap();
            let message = peer.event("message");
            assert_eq!(message["bytes"], payload.len());
            let text = std::str::from_utf8(payload).map_or_else(
                |_| message["text_hex"] == hex(payload),
                |text| message["text"] == text,
            );
            assert!(text, "{} bytes came as others", payload.len());
        }
        for payload in [b"".as_slice(), b"x", b"\xFF\0", &large[..1_000]] {
            node.send("g0", payload.to_vec()).await.unwrap();
            assert_eq!(peer.event("message")["bytes"], payload.len());
        }

        let text = "käse".repeat(LARGE / 4);
        for (command, text) in [("send", text.as_str()), ("send", "x"), ("send-packet", "x")] {
            peer.ask(&format!("{command} node {text}"), "sent");
            let message = within(command, messages.next()).await.unwrap();
            assert_eq!(
                (&message.payload[..], message.reliable),
                (text.as_bytes(), command == "send")
            );
        }

        node.ping("g0").await.unwrap();
        until("the payload of an ack", || {
            app.payloads.lock().unwrap().contains(&Bytes::from_static(b"ack of g"))
        })
        .await;
        let pong = peer.event_of("ping_completed", "node");
        assert_eq!(pong["text_hex"], hex(b"\xFFack"), "{pong}");

        node.leave(Duration::from_secs(10)).await.unwrap();
        assert_eq!(crate::nodes::gone(&mut peer, "node")["state"], "left");
        node.shutdown().await;
        assert_eq!(talk::complaints(peer), [""; 0]);
    }
}

/// Many messages at once: none may be lost on streams, nor be mixed up with another.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go: cargo test -p memberlist-tests --test interop -- --ignored"]
async fn many_messages_at_once() {
    const MESSAGES: usize = 300;
    let (mut peer, node, mut messages) = pair(&Options::default(), App::default()).await;
    for at in 0..MESSAGES {
        peer.say(&format!("send node {at}"));
    }
    let sent = (0..MESSAGES).map(|at| {
        let node = node.clone();
        tokio::spawn(async move { node.send_reliable("g0", at.to_string()).await })
    });
    for sent in sent.collect::<Vec<_>>() {
        within("a message to be sent", sent).await.unwrap().unwrap();
    }
    let mut heard: Vec<usize> = Vec::new();
    for _ in 0..MESSAGES {
        let message = within("a message", messages.next()).await.unwrap();
        heard.push(std::str::from_utf8(&message.payload).unwrap().parse().unwrap());
    }
    let mut told: Vec<usize> = (0..MESSAGES)
        .map(|_| peer.event("message")["text"].as_str().unwrap().parse().unwrap())
        .collect();
    heard.sort_unstable();
    told.sort_unstable();
    let all: Vec<usize> = (0..MESSAGES).collect();
    assert_eq!((&heard, &told), (&all, &all));
    node.shutdown().await;
    assert!(go_peer::end(peer, "quit").status.success());
}
