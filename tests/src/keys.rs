//! Keys by their numbers, and nodes that use them over UDP and TCP.

use memberlist::net::NetTransport;
use memberlist::security::{Fingerprint, Keyring, SecretKey};
use memberlist::{Config, Encryption, Keys};

use crate::cluster::{TestNode, quick};
use crate::filter::FilterTransport;

/// A node over UDP and TCP.
pub type Node = TestNode<NetTransport>;

/// The key of that number.
pub fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes(&[n; 32]).unwrap()
}

/// Its fingerprint.
pub fn name(n: u8) -> Fingerprint {
    key(n).fingerprint()
}

/// A keyring of these keys, the first one the primary.
pub fn keyring(keys: &[u8]) -> Keyring {
    let mut keys = keys.iter().map(|n| key(*n));
    Keyring::with_keys(keys.next().unwrap(), keys).unwrap()
}

/// The settings of [`quick`] with these keys.
pub fn encrypted(name: &str, keys: &[u8]) -> Config {
    let mut config = quick(name);
    config.encryption = Some(Encryption::new(keyring(keys)));
    config
}

/// The keys of the cluster as this node sees them.
pub fn keys(node: &Node) -> Keys<'_, FilterTransport<NetTransport>> {
    node.keys().unwrap()
}

/// The keys that this node holds, the primary first.
pub fn held(node: &Node) -> Vec<Fingerprint> {
    keys(node).local().iter().map(|info| info.fingerprint).collect()
}
