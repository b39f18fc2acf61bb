//! What sealing and opening cost beside the bare cipher.
//!
//! `bare` is the cipher in place with a nonce that is given. `keyring` is what traffic pays: the
//! snapshot of the keyring, a fresh nonce, associated data, the count, moving the tag. The buffer is
//! reused, as the driver does.
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes128Gcm, Aes256Gcm, KeyInit, Nonce};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use criterion::{criterion_group, criterion_main};
use memberlist_security::{
    FRAME_HEAD, FRAME_HEADER, FrameHeader, HEAD, Keyring, Label, SecretKey, TAG, Version, open,
    open_frame, seal, seal_frame,
};

const SIZES: [usize; 4] = [64, 512, 1400, 64 * 1024];
const LABEL: &str = "dc1-prod";
const KEY: [u8; 32] = [7; 32];

type Group<'c> = BenchmarkGroup<'c, WallTime>;

fn keyring(key_bytes: usize) -> Keyring {
    Keyring::new(SecretKey::from_bytes(&KEY[..key_bytes]).unwrap())
}

fn seal_bare<C: AeadInOut<NonceSize = U12>>(group: &mut Group<'_>, cipher: &C, size: usize) {
    let nonce = Nonce::from([3; 12]);
    let mut content = vec![5; size];
    group.bench_function(BenchmarkId::new("bare", size), |bencher| {
        bencher.iter(|| {
            let content = black_box(content.as_mut_slice());
            cipher.encrypt_inout_detached(&nonce, LABEL.as_bytes(), content.into())
        });
    });
}

type U12 = aes_gcm::aes::cipher::consts::U12;

fn open_bare<C: AeadInOut<NonceSize = U12>>(group: &mut Group<'_>, cipher: &C, size: usize) {
    let nonce = Nonce::from([3; 12]);
    let mut sealed = vec![5; size];
    let aad = LABEL.as_bytes();
    let tag = cipher.encrypt_inout_detached(&nonce, aad, sealed.as_mut_slice().into()).unwrap();
    let mut message = sealed.clone();
    group.bench_function(BenchmarkId::new("bare", size), |bencher| {
        bencher.iter(|| {
            // Opening in place uses the message up; both sides pay for the same copy.
            message.copy_from_slice(&sealed);
            let content = black_box(message.as_mut_slice());
            cipher.decrypt_inout_detached(&nonce, aad, content.into(), &tag).unwrap();
        });
    });
}

fn seal_keyring(group: &mut Group<'_>, keyring: &Keyring, size: usize) {
    let label = Label::new(LABEL).unwrap();
    let mut packet = vec![5; HEAD + size + TAG];
    group.bench_function(BenchmarkId::new("keyring", size), |bencher| {
        bencher.iter(|| {
            packet.truncate(HEAD + size);
            seal(keyring, Version::V1, label.as_bytes(), black_box(&mut packet), HEAD).unwrap()
        });
    });
    let mut frame = vec![5; FRAME_HEAD + size + TAG];
    group.bench_function(BenchmarkId::new("frame", size), |bencher| {
        bencher.iter(|| {
            frame.truncate(FRAME_HEAD + size);
            seal_frame(keyring, None, Version::V1, &label, black_box(&mut frame), FRAME_HEAD)
                .unwrap()
        });
    });
}

fn open_keyring(group: &mut Group<'_>, keyring: &Keyring, size: usize) {
    let label = Label::new(LABEL).unwrap();
    let mut sealed = vec![5; HEAD + size];
    let _ = seal(keyring, Version::V1, label.as_bytes(), &mut sealed, HEAD).unwrap();
    let mut message = sealed.clone();
    group.bench_function(BenchmarkId::new("keyring", size), |bencher| {
        bencher.iter(|| {
            message.copy_from_slice(&sealed);
            open(keyring, label.as_bytes(), black_box(&mut message), false).unwrap().len()
        });
    });
    let mut sealed = vec![5; FRAME_HEAD + size];
    let _ = seal_frame(keyring, None, Version::V1, &label, &mut sealed, FRAME_HEAD).unwrap();
    let mut frame = sealed.clone();
    group.bench_function(BenchmarkId::new("frame", size), |bencher| {
        bencher.iter(|| {
            frame.copy_from_slice(&sealed);
            let header = FrameHeader::parse(&frame, usize::MAX).unwrap().unwrap();
            let message = black_box(&mut frame[FRAME_HEADER..]);
            open_frame(keyring, &label, header, message, false).unwrap().0.len()
        });
    });
}

fn layers(criterion: &mut Criterion) {
    let (aes128, aes256) =
        (Aes128Gcm::new_from_slice(&KEY[..16]).unwrap(), Aes256Gcm::new_from_slice(&KEY).unwrap());
    for direction in ["seal", "open"] {
        for bits in [128, 256] {
            let mut group = criterion.benchmark_group(format!("{direction}/aes{bits}"));
            let keyring = keyring(bits / 8);
            for size in SIZES {
                group.throughput(Throughput::Bytes(size as u64));
                match (direction, bits) {
                    ("seal", 128) => seal_bare(&mut group, &aes128, size),
                    ("seal", _) => seal_bare(&mut group, &aes256, size),
                    (_, 128) => open_bare(&mut group, &aes128, size),
                    _ => open_bare(&mut group, &aes256, size),
                }
                match direction {
                    "seal" => seal_keyring(&mut group, &keyring, size),
                    _ => open_keyring(&mut group, &keyring, size),
                }
            }
            group.finish();
        }
    }
}

fn settings() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(50)
}

criterion_group! {
    name = benches;
    config = settings();
    targets = layers
}
criterion_main!(benches);
