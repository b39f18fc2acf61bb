//! By how much sealing and opening exceed the bare cipher, in percent.
//!
//! The two are measured in turns, in short batches, and the fastest batch of each is compared: what
//! else runs on the machine then disturbs both alike, or neither. Use this for the ratio, and
//! `layers` for distributions.
#![allow(missing_docs, clippy::print_stdout)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use aes_gcm::aead::AeadInOut;
use aes_gcm::aes::cipher::consts::U12;
use aes_gcm::{Aes128Gcm, Aes256Gcm, KeyInit, Nonce};
use memberlist::testing::NodeLayers;
use memberlist::{Config, Encryption};
use memberlist_security::{
    FRAME_HEAD, FRAME_HEADER, FrameHeader, HEAD, Keyring, Label, SecretKey, TAG, Version, open,
    open_frame, seal, seal_frame,
};

const SIZES: [usize; 4] = [64, 512, 1400, 64 * 1024];
const LABEL: &str = "dc1-prod";
const KEY: [u8; 32] = [7; 32];
/// Of a packet; larger contents get fewer.
const ROUNDS: usize = 4000;
const BATCH: u32 = 50;

type Case<'c> = (&'static str, Box<dyn FnMut() + 'c>);

/// The shortest time of a batch, for each case.
fn fastest(cases: &mut [Case<'_>], rounds: usize) -> Vec<Duration> {
    let mut best = vec![Duration::MAX; cases.len()];
    for _ in 0..rounds {
        for (best, (_, case)) in best.iter_mut().zip(&mut *cases) {
            let begin = Instant::now();
            for _ in 0..BATCH {
                case();
            }
            *best = begin.elapsed().min(*best);
        }
    }
    best
}

fn report(what: &str, size: usize, mut cases: Vec<Case<'_>>) {
    let best = fastest(&mut cases, ROUNDS * 1400 / size.max(1400));
    let nanos = |time: Duration| time.as_nanos() as f64 / f64::from(BATCH);
    let bare = nanos(best[0]);
    print!("{what} {size:>5} bytes: ");
    for ((name, _), time) in cases.iter().zip(best) {
        let time = nanos(time);
        print!("  {name} {time:7.1} ns {:+6.1} %", (time / bare - 1.0) * 100.0);
    }
    println!();
}

fn sealing<C: AeadInOut<NonceSize = U12>>(what: &str, cipher: &C, keyring: &Keyring, size: usize) {
    let label = Label::new(LABEL).unwrap();
    let nonce = Nonce::from([3; 12]);
    let mut content = vec![5; size];
    let mut packet = vec![5; HEAD + size + TAG];
    let mut frame = vec![5; FRAME_HEAD + size + TAG];
    let bare = || {
        let content = black_box(content.as_mut_slice());
        let tag = cipher.encrypt_inout_detached(&nonce, LABEL.as_bytes(), content.into());
        black_box(tag.is_ok());
    };
    let packets = || {
        packet.truncate(HEAD + size);
        let packet = black_box(&mut packet);
        let _ = black_box(seal(keyring, Version::V1, label.as_bytes(), packet, HEAD).unwrap());
    };
    let frames = || {
        frame.truncate(FRAME_HEAD + size);
        let frame = black_box(&mut frame);
        let _ =
            black_box(seal_frame(keyring, None, Version::V1, &label, frame, FRAME_HEAD).unwrap());
    };
    report(
        what,
        size,
        vec![("bare", Box::new(bare)), ("packet", Box::new(packets)), ("frame", Box::new(frames))],
    );
}

/// Opening in place uses the message up, so all of these pay for the same copy.
fn opening<C: AeadInOut<NonceSize = U12>>(what: &str, cipher: &C, keyring: &Keyring, size: usize) {
    let (label, aad) = (Label::new(LABEL).unwrap(), LABEL.as_bytes());
    let nonce = Nonce::from([3; 12]);
    let mut ciphertext = vec![5; size];
    let tag = cipher.encrypt_inout_detached(&nonce, aad, ciphertext.as_mut_slice().into()).unwrap();
    let mut packet = vec![5; HEAD + size];
    let _ = seal(keyring, Version::V1, aad, &mut packet, HEAD).unwrap();
    let mut frame = vec![5; FRAME_HEAD + size];
    let _ = seal_frame(keyring, None, Version::V1, &label, &mut frame, FRAME_HEAD).unwrap();

    let mut buffers = [ciphertext.clone(), packet.clone(), frame.clone()];
    let [a, b, c] = &mut buffers;
    let bare = || {
        a.copy_from_slice(&ciphertext);
        let content = black_box(a.as_mut_slice());
        cipher.decrypt_inout_detached(&nonce, aad, content.into(), &tag).unwrap();
    };
    let packets = || {
        b.copy_from_slice(&packet);
        black_box(open(keyring, aad, black_box(b), false).unwrap().len());
    };
    let frames = || {
        c.copy_from_slice(&frame);
        let header = FrameHeader::parse(c, usize::MAX).unwrap().unwrap();
        let message = black_box(&mut c[FRAME_HEADER..]);
        black_box(open_frame(keyring, &label, header, message, false).unwrap().0.len());
    };
    report(
        what,
        size,
        vec![("bare", Box::new(bare)), ("packet", Box::new(packets)), ("frame", Box::new(frames))],
    );
}

/// What a node does to a packet of 1,400 bytes with its layers on and off.
fn node_layers() {
    let mut on = Config::lan("on");
    on.label = LABEL.to_owned();
    on.encryption = Some(Encryption::new(Keyring::new(SecretKey::from_bytes(&KEY[..16]).unwrap())));
    for (what, config) in [("off", Config::lan("off")), ("on ", on)] {
        let layers = NodeLayers::new(&config).unwrap();
        // The first byte of the native format.
        let content = [b'M'; 1400];
        let (mut wrapped, mut received) = (Vec::with_capacity(2000), Vec::with_capacity(2000));
        let fill = |packet: &mut Vec<u8>| {
            packet.clear();
            packet.resize(layers.head(), 0);
            packet.extend_from_slice(&content);
        };
        let mut arrives = Vec::new();
        fill(&mut arrives);
        layers.wrap(&mut arrives).unwrap();
        let copy = || fill(black_box(&mut wrapped));
        let mut other = Vec::with_capacity(2000);
        let wrap = || {
            fill(black_box(&mut other));
            layers.wrap(black_box(&mut other)).unwrap();
        };
        let unwrap = || {
            received.clear();
            received.extend_from_slice(&arrives);
            black_box(layers.unwrap(black_box(&mut received)).unwrap().len());
        };
        let mut cases: [Case<'_>; 3] =
            [("copy", Box::new(copy)), ("wrap", Box::new(wrap)), ("unwrap", Box::new(unwrap))];
        let [copy, wrap, unwrap] = <[Duration; 3]>::try_from(fastest(&mut cases, ROUNDS)).unwrap();
        let nanos = |time: Duration| time.as_nanos() as f64 / f64::from(BATCH);
        println!(
            "a node's layers {what}  1400 bytes:   copying alone {:6.1} ns  and wrapping {:6.1} ns  and \
             unwrapping {:6.1} ns",
            nanos(copy),
            nanos(wrap),
            nanos(unwrap)
        );
    }
}

fn main() {
    node_layers();
    let ring = |bytes: usize| Keyring::new(SecretKey::from_bytes(&KEY[..bytes]).unwrap());
    let aes128 = Aes128Gcm::new_from_slice(&KEY[..16]).unwrap();
    let aes256 = Aes256Gcm::new_from_slice(&KEY).unwrap();
    for size in SIZES {
        sealing("seal AES-128", &aes128, &ring(16), size);
        sealing("seal AES-256", &aes256, &ring(32), size);
        opening("open AES-128", &aes128, &ring(16), size);
        opening("open AES-256", &aes256, &ring(32), size);
    }
}
