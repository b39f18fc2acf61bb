//! Keys that change under traffic, through the public interface.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use memberlist_security::{HEAD, KeySize, Keyring, OpenError, SecretKey, Version, open, seal};

const ROTATIONS: usize = 200;
const MESSAGES: u64 = 2000;
const AAD: &[u8] = b"dc1-prod";

fn generate(n: usize) -> SecretKey {
    let sizes = [KeySize::Bits128, KeySize::Bits192, KeySize::Bits256];
    SecretKey::generate(sizes[n % sizes.len()]).unwrap()
}

fn sealed(keyring: &Keyring, content: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; HEAD];
    buffer.extend_from_slice(content);
    let _ = seal(keyring, Version::V1, AAD, &mut buffer, HEAD).unwrap();
    buffer
}

/// What came of messages, and of steps that others wait for: those count and do not panic.
#[derive(Default)]
struct Tally {
    opened: AtomicU64,
    lost: AtomicU64,
}

impl Tally {
    fn open(&self, keyring: &Keyring, mut message: Vec<u8>) {
        let content = open(keyring, AAD, &mut message, false);
        let counter =
            if content.is_ok_and(|content| content == b"ping") { &self.opened } else { &self.lost };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Seals, and opens what another thread has sealed, with a bounded number of messages under way.
fn traffic(
    keyring: &Keyring,
    stop: &AtomicBool,
    tally: &Tally,
    (out, into): (SyncSender<Vec<u8>>, Receiver<Vec<u8>>),
) {
    while !stop.load(Ordering::Relaxed) {
        let _ = out.try_send(sealed(keyring, b"ping"));
        into.try_iter().for_each(|message| tally.open(keyring, message));
    }
}

/// Ends the traffic after a panic as well, or the test would wait for it.
struct StopAtEnd<'s>(&'s AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A message is sealed with a key that is installed, and opens for as long as the key stays.
#[test]
fn no_message_is_lost_while_keys_are_installed_and_activated() {
    let keyring = Keyring::new(generate(0));
    let (stop, tally) = (AtomicBool::new(false), Tally::default());
    let ((a_out, b_in), (b_out, a_in)) = (sync_channel(8), sync_channel(8));
    std::thread::scope(|scope| {
        scope.spawn(|| traffic(&keyring, &stop, &tally, (a_out, a_in)));
        scope.spawn(|| traffic(&keyring, &stop, &tally, (b_out, b_in)));
        let _stop = StopAtEnd(&stop);
        for round in 0.. {
            if round >= ROTATIONS && tally.opened.load(Ordering::Relaxed) >= MESSAGES {
                break;
            }
            rotate(&keyring, round);
        }
    });
    assert_eq!(tally.lost.into_inner(), 0);
    let used = keyring.list().iter().filter(|key| key.sealed > 0).count();
    assert!(used > 1, "{used} keys were used");
}

/// Removes only what has never been primary, so that every message under way has its key.
fn rotate(keyring: &Keyring, round: usize) {
    let (used, unused) = (generate(round), generate(round + 1));
    let (used_name, unused_name) = (used.fingerprint(), unused.fingerprint());
    if keyring.list().len() < 20 {
        assert_eq!(keyring.install(used), Ok(true));
        keyring.activate(&used_name).unwrap();
    }
    assert_eq!(keyring.install(unused), Ok(true));
    // The last is the unused one.
    let list = keyring.list();
    keyring.activate(&list[(round * 7) % (list.len() - 1)].fingerprint).unwrap();
    keyring.remove(&unused_name).unwrap();
}

/// Two members that rotate in the three steps, each finished on both before the next: whatever one
/// seals at any moment, the other opens.
#[test]
fn a_rotation_in_three_steps_loses_nothing() {
    let first = generate(0);
    let members = [Keyring::new(first.clone()), Keyring::new(first)];
    let (stop, tally) = (AtomicBool::new(false), Tally::default());
    // Removing waits until what was sealed before the activation has been opened.
    let gate = Barrier::new(3);
    std::thread::scope(|scope| {
        for (own, other) in [(0, 1), (1, 0)] {
            let (own, other) = (members[own].clone(), members[other].clone());
            let (stop, tally, gate) = (&stop, &tally, &gate);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    (0..50).for_each(|_| tally.open(&other, sealed(&own, b"ping")));
                    gate.wait();
                    gate.wait();
                }
            });
        }
        for round in 0..ROTATIONS {
            let old = members[0].primary();
            let new = generate(round);
            let name = new.fingerprint();
            let both = |step: &dyn Fn(&Keyring) -> bool| {
                let refused = members.iter().filter(|member| !step(member)).count();
                tally.lost.fetch_add(refused as u64, Ordering::Relaxed);
            };
            both(&|member| member.install(new.clone()) == Ok(true));
            both(&|member| member.activate(&name).is_ok());
            gate.wait();
            both(&|member| member.remove(&old).is_ok());
            stop.store(round + 1 == ROTATIONS, Ordering::Relaxed);
            gate.wait();
        }
    });
    assert_eq!(
        (tally.lost.into_inner(), tally.opened.into_inner()),
        (0, 2 * 50 * ROTATIONS as u64)
    );
    assert!(members.iter().all(|member| member.list().len() == 1));
}

/// A removed key opens nothing from the moment `remove` has returned.
#[test]
fn a_removed_key_is_gone_for_all_threads() {
    let keyring = Keyring::new(generate(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for round in 0..ROTATIONS {
                    let key = generate(round);
                    let alone = Keyring::new(key.clone());
                    let message = sealed(&alone, b"secret");
                    let name = key.fingerprint();
                    keyring.install(key).unwrap();
                    assert!(open(&keyring, AAD, &mut message.clone(), false).is_ok());
                    keyring.remove(&name).unwrap();
                    let mut message = message;
                    let refused = open(&keyring, AAD, &mut message, false);
                    assert_eq!(refused, Err(OpenError::NoKeyFits));
                }
            });
        }
    });
    assert_eq!(keyring.list().len(), 1);
}
