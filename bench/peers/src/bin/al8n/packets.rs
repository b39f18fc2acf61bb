//! A packet of gossip, made and sealed, opened and read, as the library's network code does it.

use std::hint::black_box;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use al8n::bytes::{Bytes, BytesMut};
use al8n::proto::{
    Alive, Data, EncryptionAlgorithm, Label, Message, MessagesDecoder, Meta, ProtoDecoder,
    ProtoEncoder, SecretKey,
};
use al8n::tokio::TokioRuntime;
use al8n::transport::Node;
use memberlist_bench_fleet::KEY;
use memberlist_bench_fleet::packets::{PACKET_BYTES, PacketTimes};
use smol_str::SmolStr;

/// By its own default.
const OFFLOAD_BYTES: usize = 1024 * 1024;

type Gossip = Message<SmolStr, SocketAddr>;

fn alive(number: u8) -> Gossip {
    let node =
        Node::new(SmolStr::new(format!("node-{number:06}")), ([10, 0, 0, number], 7946).into());
    let meta = Meta::try_from(&b"some meta"[..]).expect("a short meta");
    Alive::new(1, node).with_meta(meta).into()
}

fn key() -> SecretKey {
    SecretKey::try_from(&KEY[..16]).expect("a key")
}

fn seal(messages: &[Gossip]) -> Bytes {
    // Room for the seal as well.
    let mut encoder = ProtoEncoder::new(2 * PACKET_BYTES)
        .with_messages(messages)
        .with_label(Label::empty())
        .with_overhead(0);
    encoder.set_encryption(EncryptionAlgorithm::default(), key());
    let mut packets = encoder.encode();
    let payload = packets.next().expect("a packet").expect("a sealed packet");
    assert!(packets.next().is_none(), "one packet holds them all");
    Bytes::copy_from_slice(payload.data())
}

fn open(packet: &[u8], keys: &triomphe::Arc<[SecretKey]>) -> usize {
    let mut decoder = ProtoDecoder::new();
    decoder
        .with_encryption(keys.clone())
        .with_verify_incoming(true)
        .with_offload_size(OFFLOAD_BYTES);
    let opening = pin!(decoder.decode::<TokioRuntime>(BytesMut::from(packet)));
    // It waits only for what is large enough for another thread.
    let Poll::Ready(plain) = opening.poll(&mut Context::from_waker(Waker::noop())) else {
        unreachable!("a packet is opened at once");
    };
    let decoder = MessagesDecoder::<SmolStr, SocketAddr, _>::new(plain.expect("an honest packet"));
    let decoder = decoder.expect("its messages");
    let mut messages = 0;
    for message in decoder.iter() {
        black_box(message.expect("a message"));
        messages += 1;
    }
    messages
}

pub fn measure() -> PacketTimes {
    let mut messages = Vec::new();
    let mut bytes = 0;
    for number in 0..u8::MAX {
        let message = alive(number);
        bytes += message.encoded_len_with_length_delimited();
        if bytes > PACKET_BYTES {
            break;
        }
        messages.push(message);
    }
    let keys: triomphe::Arc<[SecretKey]> = triomphe::Arc::from_iter(vec![key()]);
    let packet = seal(&messages);
    PacketTimes::measure(|| seal(&messages).len(), || open(&packet, &keys))
}
