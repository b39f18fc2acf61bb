//! The keys that are in use: one seals, all open.
//!
//! Rotation without a gap takes three steps, each finished on all members before the next begins:
//! install the new key, activate it, remove the old one. Members then open each other's messages at
//! every moment, whichever key each of them seals with.
//!
//! Whoever takes these steps for many members cannot see them all at one moment. So a key leaves in two
//! steps, [`retire`](Keyring::retire) and remove: between them it opens, but cannot become the primary.
//! And each install and retirement gives the key a new revision, by which a step may demand that nobody
//! has changed it since it was looked at.
//!
//! Invariant: there is always exactly one primary. Traffic reads one immutable snapshot for each
//! message, so that a change is seen whole or not at all and never delays it; those who change the
//! ring take turns.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
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
    /// The key is about to be removed.
    #[error("key {0} is retired; install it again before it is activated")]
    Retired(Fingerprint),
    /// The key is not as it was when it was looked at.
    #[error("key {0} was installed or retired meanwhile")]
    Changed(Fingerprint),
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
    /// Whether it is about to be removed: it opens, but cannot become the primary.
    pub retired: bool,
    /// Changes whenever the key is installed or retired here, and with every start. Of two keys of one
    /// ring, the greater belongs to what happened later.
    pub revision: u64,
    /// How many messages this process has sealed with it since it was installed. A key that is
    /// removed and installed again starts from zero, though its nonces stay used.
    pub sealed: u64,
    /// How many messages this process has opened with it, likewise.
    pub opened: u64,
}

/// One installed key, ready for use.
pub(crate) struct Entry {
    key: SecretKey,
    fingerprint: Fingerprint,
    sealed: AtomicU64,
    opened: AtomicU64,
    pub(crate) cipher: Cipher,
}

impl Entry {
    fn new(key: SecretKey) -> Arc<Self> {
        let (fingerprint, cipher) = (key.fingerprint(), Cipher::new(&key));
        Arc::new(Self {
            key,
            fingerprint,
            sealed: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            cipher,
        })
    }

    /// Counts a message that is about to be sealed. Gives the fingerprint once, when the count
    /// reaches [`NONCE_WARNING`].
    pub(crate) fn count_sealed(&self) -> Option<Fingerprint> {
        let before = self.sealed.fetch_add(1, Ordering::Relaxed);
        (before + 1 == NONCE_WARNING).then_some(self.fingerprint)
    }

    pub(crate) fn count_opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

/// A key as one state of the keyring has it.
#[derive(Clone)]
struct Held {
    entry: Arc<Entry>,
    revision: u64,
    retired: bool,
}

impl Held {
    fn is(&self, fingerprint: &Fingerprint) -> bool {
        self.entry.fingerprint == *fingerprint
    }

    fn check(&self, revision: Option<u64>) -> Result<(), KeyringError> {
        match revision {
            Some(revision) if revision != self.revision => {
                Err(KeyringError::Changed(self.entry.fingerprint))
            }
            _ => Ok(()),
        }
    }

    fn info(&self, primary: bool) -> KeyInfo {
        KeyInfo {
            fingerprint: self.entry.fingerprint,
            size: self.entry.key.size(),
            primary,
            retired: self.retired,
            revision: self.revision,
            sealed: self.entry.sealed.load(Ordering::Relaxed),
            opened: self.entry.opened.load(Ordering::Relaxed),
        }
    }
}

/// An immutable state of the keyring.
#[derive(Clone)]
pub(crate) struct Ring {
    primary: Held,
    others: Vec<Held>,
    /// The last one that was given. They begin anywhere, so that one that was seen before a restart
    /// fits nothing after it.
    revision: u64,
}

impl Ring {
    fn new(primary: Arc<Entry>) -> Self {
        // Half of the numbers are left to count on.
        let revision = RandomState::new().hash_one(0) >> 1;
        Self {
            primary: Held { entry: primary, revision, retired: false },
            others: Vec::new(),
            revision,
        }
    }

    /// The key that seals.
    pub(crate) fn primary(&self) -> &Entry {
        &self.primary.entry
    }

    fn held(&self) -> impl Iterator<Item = &Held> {
        std::iter::once(&self.primary).chain(&self.others)
    }

    /// All keys, the primary first.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.held().map(|held| &*held.entry)
    }

    pub(crate) fn find(&self, fingerprint: &Fingerprint) -> Option<&Entry> {
        self.entries().find(|entry| entry.fingerprint == *fingerprint)
    }

    fn is_primary(&self, fingerprint: &Fingerprint) -> bool {
        self.primary.is(fingerprint)
    }

    /// The place of a key that is not the primary.
    fn position(&self, fingerprint: &Fingerprint) -> Result<usize, KeyringError> {
        if self.is_primary(fingerprint) {
            return Err(KeyringError::IsPrimary(*fingerprint));
        }
        let position = self.others.iter().position(|held| held.is(fingerprint));
        position.ok_or(KeyringError::NotInstalled(*fingerprint))
    }

    fn next_revision(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    /// Adds a key at the end; false if it is there already.
    fn install(&mut self, entry: Arc<Entry>) -> Result<bool, KeyringError> {
        match self.find(&entry.fingerprint) {
            Some(there) if there.key == entry.key => {
                self.unretire(&entry.fingerprint);
                Ok(false)
            }
            Some(_) => Err(KeyringError::FingerprintTaken(entry.fingerprint)),
            None if self.others.len() + 1 >= MAX_KEYS => Err(KeyringError::Full),
            None => {
                let revision = self.next_revision();
                self.others.push(Held { entry, revision, retired: false });
                Ok(true)
            }
        }
    }

    fn unretire(&mut self, fingerprint: &Fingerprint) {
        let revision = self.revision + 1;
        let mut others = self.others.iter_mut();
        if let Some(held) = others.find(|held| held.is(fingerprint) && held.retired) {
            (held.retired, held.revision, self.revision) = (false, revision, revision);
        }
    }

    fn activate(
        &mut self,
        fingerprint: &Fingerprint,
        revision: Option<u64>,
    ) -> Result<(), KeyringError> {
        if self.is_primary(fingerprint) {
            return Ok(());
        }
        let position = self.position(fingerprint)?;
        self.others[position].check(revision)?;
        if self.others[position].retired {
            return Err(KeyringError::Retired(*fingerprint));
        }
        let new = self.others.remove(position);
        let old = std::mem::replace(&mut self.primary, new);
        self.others.insert(0, old);
        Ok(())
    }

    fn retire(&mut self, fingerprint: &Fingerprint) -> Result<(), KeyringError> {
        let position = self.position(fingerprint)?;
        if !self.others[position].retired {
            let revision = self.next_revision();
            let held = &mut self.others[position];
            (held.retired, held.revision) = (true, revision);
        }
        Ok(())
    }

    /// With a revision, it must be the one of its retirement.
    fn remove(
        &mut self,
        fingerprint: &Fingerprint,
        revision: Option<u64>,
    ) -> Result<(), KeyringError> {
        let position = self.position(fingerprint)?;
        self.others[position].check(revision)?;
        if revision.is_some() && !self.others[position].retired {
            return Err(KeyringError::Changed(*fingerprint));
        }
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
        Self::of(Ring::new(Entry::new(primary)))
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
        let mut ring = Ring::new(Entry::new(primary));
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
    /// changes nothing, but that it is not [retired](Self::retire) any more.
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
    /// [`KeyringError::NotInstalled`] if there is no such key, [`KeyringError::Retired`] if it is about
    /// to be removed.
    pub fn activate(&self, fingerprint: &Fingerprint) -> Result<(), KeyringError> {
        self.change(|ring| ring.activate(fingerprint, None))
    }

    /// The same, if the key still has the [`revision`](KeyInfo::revision) that was seen.
    ///
    /// # Errors
    /// As [`activate`](Self::activate), and [`KeyringError::Changed`].
    pub fn activate_if(
        &self,
        fingerprint: &Fingerprint,
        revision: u64,
    ) -> Result<(), KeyringError> {
        self.change(|ring| ring.activate(fingerprint, Some(revision)))
    }

    /// The first step of a removal: the key goes on opening, but cannot be activated until it is
    /// installed again. Retiring it again changes nothing. Not kept in the keyring file.
    ///
    /// # Errors
    /// [`KeyringError::IsPrimary`] for the key that seals, [`KeyringError::NotInstalled`] if there is
    /// no such key.
    pub fn retire(&self, fingerprint: &Fingerprint) -> Result<(), KeyringError> {
        self.change(|ring| ring.retire(fingerprint))
    }

    /// Removes a key, retired or not: from now on it opens nothing.
    ///
    /// # Errors
    /// [`KeyringError::IsPrimary`] for the key that seals, [`KeyringError::NotInstalled`] if there is
    /// no such key.
    pub fn remove(&self, fingerprint: &Fingerprint) -> Result<(), KeyringError> {
        self.change(|ring| ring.remove(fingerprint, None))
    }

    /// Removes a key, if it is retired and still has the [`revision`](KeyInfo::revision) that was seen.
    ///
    /// # Errors
    /// As [`remove`](Self::remove), and [`KeyringError::Changed`].
    pub fn remove_if(&self, fingerprint: &Fingerprint, revision: u64) -> Result<(), KeyringError> {
        self.change(|ring| ring.remove(fingerprint, Some(revision)))
    }

    /// What is installed, the primary first, without the secrets.
    pub fn list(&self) -> Vec<KeyInfo> {
        let ring = self.snapshot();
        ring.held().enumerate().map(|(i, held)| held.info(i == 0)).collect()
    }

    /// The fingerprint of the key that seals.
    pub fn primary(&self) -> Fingerprint {
        self.snapshot().primary().fingerprint
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
        self.snapshot().primary().sealed.store(count, Ordering::Relaxed);
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

    fn revision(ring: &Keyring, n: u8) -> u64 {
        ring.list().iter().find(|info| info.fingerprint == print(n)).unwrap().revision
    }

    #[test]
    fn a_retired_key_opens_but_is_not_activated_until_it_is_installed_again() {
        let ring = ring([1, 2]);
        assert_eq!(ring.retire(&print(1)), Err(KeyringError::IsPrimary(print(1))));
        assert_eq!(ring.retire(&print(3)), Err(KeyringError::NotInstalled(print(3))));
        ring.retire(&print(2)).unwrap();
        ring.retire(&print(2)).unwrap();
        assert!(ring.contains(&print(2)) && ring.list()[1].retired);
        assert_eq!(ring.activate(&print(2)), Err(KeyringError::Retired(print(2))));
        assert_eq!(ring.install(key(2)), Ok(false));
        ring.activate(&print(2)).unwrap();
        assert_eq!(order(&ring), [2, 1]);
    }

    #[test]
    fn a_step_may_demand_that_the_key_is_as_it_was_seen() {
        let ring = ring([1, 2]);
        let seen = revision(&ring, 2);
        let changed = Err(KeyringError::Changed(print(2)));
        assert_eq!(ring.remove_if(&print(2), seen), changed, "it is not retired");
        ring.retire(&print(2)).unwrap();
        assert_eq!(ring.remove_if(&print(2), seen), changed);
        let retired = revision(&ring, 2);
        ring.install(key(2)).unwrap();
        assert_eq!(ring.remove_if(&print(2), retired), changed);
        assert_eq!(ring.activate_if(&print(2), seen), changed, "retired in between");
        ring.activate_if(&print(2), revision(&ring, 2)).unwrap();
        ring.activate_if(&print(2), seen).unwrap();
        ring.retire(&print(1)).unwrap();
        assert!(revision(&ring, 1) > revision(&ring, 2));
        ring.remove_if(&print(1), revision(&ring, 1)).unwrap();
        ring.install(key(1)).unwrap();
        assert!(revision(&ring, 1) > revision(&ring, 2));
        assert_eq!(order(&ring), [2, 1]);
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
        let mut ring = Ring::new(Entry::new(key(1)));
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
        assert_eq!((first.fingerprint, first.size), (print(1), size));
        assert_eq!((first.primary, first.retired, first.sealed), (true, false, 7));
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
