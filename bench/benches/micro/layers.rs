//! A packet of 1,400 bytes through the layers of a node: checksum, or label and seal.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use memberlist::protocol::Dialect;
use memberlist::security::{Keyring, SecretKey};
use memberlist::testing::NodeLayers;
use memberlist::{Config, Encryption};

use crate::support::updates;

pub(crate) fn layers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("layers 1,400 bytes");
    for (what, key_bytes) in [("off", 0), ("AES-128-GCM", 16), ("AES-256-GCM", 32)] {
        let mut config = Config::lan("a");
        if key_bytes > 0 {
            let key = SecretKey::from_bytes(&[7; 32][..key_bytes]).expect("a key");
            config.encryption = Some(Encryption::new(Keyring::new(key)));
        }
        let layers = NodeLayers::new(&config).expect("the settings");
        let mut content = updates(Dialect::Native, 0..20, 1);
        content.resize(1400, 0);
        let mut packet = Vec::with_capacity(2000);
        let fill = |packet: &mut Vec<u8>| {
            packet.clear();
            packet.resize(layers.head(), 0);
            packet.extend_from_slice(&content);
        };
        group.bench_function(BenchmarkId::new("wrap", what), |bencher| {
            bencher.iter(|| {
                fill(black_box(&mut packet));
                layers.wrap(&mut packet).expect("a seal");
            });
        });
        fill(&mut packet);
        layers.wrap(&mut packet).expect("a seal");
        let arrived = packet.clone();
        group.bench_function(BenchmarkId::new("unwrap", what), |bencher| {
            bencher.iter(|| {
                packet.clear();
                packet.extend_from_slice(black_box(&arrived));
                layers.unwrap(&mut packet).expect("an honest packet").len()
            });
        });
    }
    group.finish();
}
