//! The keys that are in use: one seals, all open.
//!
//! Rotation without a gap takes three steps, each finished on all members before the next begins:
//! install the new key, activate it, remove the old one. Members then open each other's messages at
//! every moment, whichever key each of them seals with.
//!
//! Invariant: there is always exactly one primary. Traffic reads one immutable snapshot for each
//! message, so that a change is seen whole or not at all and never delays it; those who change the
//! ring take turns.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::cipher::Cipher;
use crate::key::{Fingerprint, KeySize, SecretKey};

/// How many keys a keyring holds at most. A message that no key opens costs one try of each, so the
/// number also bounds the work that a stranger's packet makes; two or three are usual.
pub const MAX_KEYS: usize = 64;

/// After how many messages sealed under one key, in this process, the caller is told that it is time
/// for a new one.
///
/// With random nonces of 96 bits a key is good for 2^32 messages: from there on the chance that two
/// share a nonce, which would give away both and allow forgeries, is above 2^-32. That limit is for
/// all members together, and each counts for itself: a large cluster should renew its keys by the
/// sum of the counts (see [`KeyInfo::sealed`]), well before any single member is told.
pub const NONCE_WARNING: u64 = 1 << 31;

/// Why a keyring was not changed. Blame: the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// No such key is installed.
    #[error("key {0} is not installed")]
    NotInstalled(Fingerprint),
    /// The key that seals cannot be removed.
    #[error("key {0} is the primary and cannot be removed; activate another first")]
    IsPrimary(Fingerprint),
    /// The keyring is full.
    #[error("a keyring has at most {MAX_KEYS} keys; remove one first")]
    Full,
    /// Another key has the same fingerprint. Among generated keys this does not happen.
    #[error("another key with the fingerprint {0} is installed; generate a new one")]
    FingerprintTaken(Fingerprint),
}

/// What may be told about an installed key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct KeyInfo {
    /// Its name.
    pub fingerprint: Fingerprint,
    /// Its length.
    pub size: KeySize,
    /// Whether it is the one that seals.
    pub primary: bool,
    /// How many messages this process has sealed with it since it was installed. A key that is
    /// removed and installed again starts from zero, though its nonces stay used.
    pub sealed: u64,
}

/// One installed key, ready for use.
pub(crate) struct Entry {
    key: SecretKey,
    fingerprint: Fingerprint,
    sealed: AtomicU64,
    pub(crate) cipher: Cipher,
}

impl Entry {
    fn new(key: SecretKey) -> Arc<Self> {
        let (fingerprint, cipher) = (key.fingerprint(), Cipher::new(&key));
        Arc::new(Self { key, fingerprint, sealed: AtomicU64::new(0), cipher })
    }

    /// Counts a message that is about to be sealed. Gives the fingerprint once, when the count
    /// reaches [`NONCE_WARNING`].
    pub(crate) fn count_sealed(&self) -> Option<Fingerprint> {
        let before = self.sealed.fetch_add(1, Ordering::Relaxed);
        (before + 1 == NONCE_WARNING).then_some(self.fingerprint)
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    fn info(&self, primary: bool) -> KeyInfo {
        KeyInfo {
            fingerprint: self.fingerprint,
            size: self.key.size(),
            primary,
            sealed: self.sealed.load(Ordering::Relaxed),
        }
    }
}

/// An immutable state of the keyring.
#[derive(Clone)]
pub(crate) struct Ring {
    pub(crate) primary: Arc<Entry>,
    others: Vec<Arc<Entry>>,
}

impl Ring {
    /// All keys, the primary first.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        std::iter::once(&self.primary).chain(&self.others).map(|entry| &**entry)
    }

    pub(crate) fn find(&self, fingerprint: &Fingerprint) -> Option<&Entry> {
        self.entries().find(|entry| entry.fingerprint == *fingerprint)
    }

    fn is_primary(&self, fingerprint: &Fingerprint) -> bool {
        self.primary.fingerprint == *fingerprint
    }

    fn position(&self, fingerprint: &Fingerprint) -> Result<usize, KeyringError> {
        let position = self.others.iter().position(|entry| entry.fingerprint == *fingerprint);
        position.ok_or(KeyringError::NotInstalled(*fingerprint))
    }

    /// Adds a key at the end; false if it is there already.
    fn install(&mut self, entry: Arc<Entry>) -> Result<bool, KeyringError> {
        match self.find(&entry.fingerprint) {
            Some(there) if there.key == entry.key => Ok(false),
            Some(_) => Err(KeyringError::FingerprintTaken(entry.fingerprint)),
            None if self.others.len() + 1 >= MAX_KEYS => Err(KeyringError::Full),
            None => {
                self.others.push(entry);
                Ok(true)
            }
        }
    }

    fn activate(&mut self, fingerprint: &Fingerprint) -> Result<(), KeyringError> {
        if !self.is_primary(fingerprint) {
            let entry = self.others.remove(self.position(fingerprint)?);
            let retired = std::mem::replace(&mut self.primary, entry);
            self.others.insert(0, retired);
        }
        Ok(())
    }

    fn remove(&mut self, fingerprint: &Fingerprint) -> Result<(), KeyringError> {
        if self.is_primary(fingerprint) {
            return Err(KeyringError::IsPrimary(*fingerprint));
        }
        let position = self.position(fingerprint)?;
        self.others.remove(position);
        Ok(())
    }
}

struct Shared {
    ring: ArcSwap<Ring>,
    /// Held by whoever changes the ring, never by traffic.
    changing: Mutex<()>,
}

/// The keys of a node: the primary seals, all of them open, the primary tried first.
///
/// A handle: clones are cheap and share the same keys, so that whoever rotates keys and whoever
/// seals packets may hold one each. All methods may be called from any thread at any time; none
/// waits for traffic, and traffic never waits for them.
///
/// A key that was removed is wiped from memory once the last message that is being sealed or opened
/// with it is done.
#[derive(Clone)]
pub struct Keyring {
    shared: Arc<Shared>,
}

impl Keyring {
    /// A keyring of one key.
    pub fn new(primary: SecretKey) -> Self {
        Self::of(Ring { primary: Entry::new(primary), others: Vec::new() })
    }

    /// A keyring of several keys, as [`keys`](Self::keys) lists them. Keys that come twice, the
    /// primary among the others included, are harmless.
    ///
    /// # Errors
    /// [`KeyringError::Full`] if there are more than [`MAX_KEYS`].
    pub fn with_keys(
        primary: SecretKey,
        others: impl IntoIterator<Item = SecretKey>,
    ) -> Result<Self, KeyringError> {
        let mut ring = Ring { primary: Entry::new(primary), others: Vec::new() };
        for key in others {
            ring.install(Entry::new(key))?;
        }
        Ok(Self::of(ring))
    }

    fn of(ring: Ring) -> Self {
        let shared = Shared { ring: ArcSwap::from_pointee(ring), changing: Mutex::new(()) };
        Self { shared: Arc::new(shared) }
    }

    /// The present state. What is read from it fits together, whatever changes meanwhile.
    pub(crate) fn snapshot(&self) -> arc_swap::Guard<Arc<Ring>> {
        self.shared.ring.load()
    }

    /// The same keys in a ring of its own, which later changes of this one do not reach: what was begun
    /// with them can be ended with them. What is sealed with either counts for the same key.
    pub fn frozen(&self) -> Self {
        let shared =
            Shared { ring: ArcSwap::new(self.shared.ring.load_full()), changing: Mutex::new(()) };
        Self { shared: Arc::new(shared) }
    }

    /// Publishes a changed copy of the ring; nothing is published on an error.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Ring) -> Result<T, KeyringError>,
    ) -> Result<T, KeyringError> {
        // The lock guards no data, so a panic while it was held has left nothing half done.
        let _turn = self.shared.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ring = Ring::clone(&self.snapshot());
        let result = change(&mut ring)?;
        self.shared.ring.store(Arc::new(ring));
        Ok(result)
    }

    /// Adds a key, last in order: from now on it opens. False if it is installed already, which
    /// changes nothing.
    ///
    /// # Errors
    /// [`KeyringError::Full`] if there are [`MAX_KEYS`] already.
    pub fn install(&self, key: SecretKey) -> Result<bool, KeyringError> {
        // What takes time is done before others are made to wait.
        let entry = Entry::new(key);
        self.change(|ring| ring.install(entry))
    }

    /// Makes an installed key the primary: from now on it seals. The previous primary goes on
    /// opening. Activating the primary changes nothing.
    ///
    /// # Errors
    /// [`KeyringError::NotInstalled`] if there is no such key.
    pub fn activate(&self, fingerprint: &Fingerprint) -> Result<(), KeyringError> {
        self.change(|ring| ring.activate(fingerprint))
    }

    /// Removes a key: from now on it opens nothing.
    ///
    /// # Errors
    /// [`KeyringError::IsPrimary`] for the key that seals, [`KeyringError::NotInstalled`] if there is
    /// no such key.
    pub fn remove(&self, fingerprint: &Fingerprint) -> Result<(), KeyringError> {
        self.change(|ring| ring.remove(fingerprint))
    }

    /// What is installed, the primary first, without the secrets.
    pub fn list(&self) -> Vec<KeyInfo> {
        let ring = self.snapshot();
        ring.entries().enumerate().map(|(i, entry)| entry.info(i == 0)).collect()
    }

    /// The fingerprint of the key that seals.
    pub fn primary(&self) -> Fingerprint {
        self.snapshot().primary.fingerprint
    }

    /// Whether a key is installed.
    pub fn contains(&self, fingerprint: &Fingerprint) -> bool {
        self.snapshot().find(fingerprint).is_some()
    }

    /// Copies of the keys themselves, the primary first: for the keyring file, and for sending to
    /// other members.
    pub fn keys(&self) -> Vec<SecretKey> {
        self.snapshot().entries().map(|entry| entry.key.clone()).collect()
    }

    /// Sets the count of the primary, so that a test need not seal 2^31 messages.
    #[cfg(test)]
    pub(crate) fn testing_set_sealed(&self, count: u64) {
        self.snapshot().primary.sealed.store(count, Ordering::Relaxed);
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("keys", &self.list()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> SecretKey {
        SecretKey::from_bytes(&[n; 16]).unwrap()
    }

    fn print(n: u8) -> Fingerprint {
        key(n).fingerprint()
    }

    fn ring(keys: impl IntoIterator<Item = u8>) -> Keyring {
        let mut keys = keys.into_iter().map(key);
        Keyring::with_keys(keys.next().unwrap(), keys).unwrap()
    }

    fn order(ring: &Keyring) -> Vec<u8> {
        ring.keys().iter().map(|key| key.expose_bytes()[0]).collect()
    }

    #[test]
    fn a_rotation_step_by_step() {
        let ring = Keyring::new(key(1));
        assert_eq!((order(&ring), ring.primary()), (vec![1], print(1)));
        assert_eq!(ring.install(key(2)), Ok(true));
        assert_eq!((order(&ring), ring.primary()), (vec![1, 2], print(1)));
        ring.activate(&print(2)).unwrap();
        assert_eq!((order(&ring), ring.primary()), (vec![2, 1], print(2)));
        ring.remove(&print(1)).unwrap();
        assert_eq!((order(&ring), ring.primary()), (vec![2], print(2)));
        assert!(ring.contains(&print(2)) && !ring.contains(&print(1)));
    }

    #[test]
    fn others_keep_their_order() {
        let ring = ring([1, 2, 3, 4]);
        ring.activate(&print(3)).unwrap();
        assert_eq!(order(&ring), [3, 1, 2, 4]);
        ring.activate(&print(3)).unwrap();
        ring.remove(&print(2)).unwrap();
        ring.install(key(2)).unwrap();
        assert_eq!(order(&ring), [3, 1, 4, 2]);
    }

    #[test]
    fn refusals_change_nothing() {
        let ring = ring([1, 2]);
        assert_eq!(ring.install(key(1)), Ok(false));
        assert_eq!(ring.install(key(2)), Ok(false));
        assert_eq!(ring.activate(&print(3)), Err(KeyringError::NotInstalled(print(3))));
        assert_eq!(ring.remove(&print(3)), Err(KeyringError::NotInstalled(print(3))));
        assert_eq!(ring.remove(&print(1)), Err(KeyringError::IsPrimary(print(1))));
        assert_eq!(order(&ring), [1, 2]);
    }

    #[test]
    fn keys_that_come_twice_count_once() {
        assert_eq!(order(&ring([1, 2, 1, 3, 2])), [1, 2, 3]);
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        let all = 1..=u8::try_from(MAX_KEYS).unwrap();
        let full = ring(all.clone());
        assert_eq!(full.list().len(), MAX_KEYS);
        assert_eq!(full.install(key(0)), Err(KeyringError::Full));
        assert_eq!(full.install(key(MAX_KEYS as u8)), Ok(false), "it is there already");
        full.remove(&print(2)).unwrap();
        assert_eq!(full.install(key(0)), Ok(true));
        let refused = Keyring::with_keys(key(0), all.map(key)).unwrap_err();
        assert_eq!(refused, KeyringError::Full);
    }

    #[test]
    fn another_key_of_the_same_name_is_not_taken_for_the_one_that_is_there() {
        let mut ring = Ring { primary: Entry::new(key(1)), others: Vec::new() };
        let mut twin = Arc::into_inner(Entry::new(key(2))).unwrap();
        twin.fingerprint = print(1);
        assert_eq!(ring.install(Arc::new(twin)), Err(KeyringError::FingerprintTaken(print(1))));
    }

    #[test]
    fn clones_see_the_same_keys() {
        let ring = ring([1]);
        let clone = ring.clone();
        ring.install(key(2)).unwrap();
        clone.activate(&print(2)).unwrap();
        assert_eq!(order(&ring), [2, 1]);
        assert_eq!(order(&clone), [2, 1]);
    }

    #[test]
    fn what_is_frozen_stays() {
        let ring = ring([1, 2]);
        let frozen = ring.frozen();
        ring.activate(&print(2)).unwrap();
        ring.remove(&print(1)).unwrap();
        assert_eq!((order(&ring), order(&frozen)), (vec![2], vec![1, 2]));
        ring.testing_set_sealed(7);
        assert_eq!(frozen.list()[1].sealed, 7);
    }

    #[test]
    fn the_listing_tells_all_but_the_secrets() {
        let ring = Keyring::with_keys(key(1), [SecretKey::from_bytes(&[0xEE; 32]).unwrap()]);
        let ring = ring.unwrap();
        ring.testing_set_sealed(7);
        let [first, second] = ring.list().try_into().unwrap();
        let size = KeySize::Bits128;
        assert_eq!(first, KeyInfo { fingerprint: print(1), size, primary: true, sealed: 7 });
        assert_eq!((second.size, second.primary, second.sealed), (KeySize::Bits256, false, 0));
        let shown = format!("{ring:?}");
        assert!(shown.contains(&print(1).to_string()), "{shown}");
        assert!(!shown.contains("238, 238") && !shown.to_lowercase().contains("eeee"), "{shown}");
    }

    #[test]
    fn changes_at_once_all_happen() {
        let ring = ring([0]);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let ring = ring.clone();
                scope.spawn(move || {
                    for n in 1..=15 {
                        ring.install(key(thread * 15 + n)).unwrap();
                    }
                });
            }
        });
        let mut found = order(&ring);
        found.sort_unstable();
        assert_eq!(found, (0..=60).collect::<Vec<u8>>());
    }
}
