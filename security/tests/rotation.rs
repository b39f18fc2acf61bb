//! Keys that change under traffic, through the public interface.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use memberlist_security::{HEAD, KeySize, Keyring, OpenError, SecretKey, Version, open, seal};

const ROTATIONS: usize = 200;
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

/// Seals, and opens what another thread has sealed, with a bounded number of messages under way.
fn traffic(
    keyring: &Keyring,
    stop: &AtomicBool,
    under_way: (SyncSender<Vec<u8>>, Receiver<Vec<u8>>),
) {
    let (out, into) = under_way;
    for n in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let _ = out.try_send(sealed(keyring, &n.to_be_bytes()));
        for mut message in into.try_iter() {
            let content = open(keyring, AAD, &mut message, false);
            assert_eq!(content.expect("its key is installed").len(), 8);
        }
    }
}

/// A message is sealed with a key that is installed, and opens for as long as the key stays.
#[test]
fn no_message_is_lost_while_keys_are_installed_and_activated() {
    let keyring = Keyring::new(generate(0));
    let stop = AtomicBool::new(false);
    let ((a_out, b_in), (b_out, a_in)) = (sync_channel(8), sync_channel(8));
    std::thread::scope(|scope| {
        scope.spawn(|| traffic(&keyring, &stop, (a_out, a_in)));
        scope.spawn(|| traffic(&keyring, &stop, (b_out, b_in)));
        let writer = keyring.clone();
        // Removes only what has never been primary, so that every message in flight has its key.
        for round in 0..ROTATIONS {
            let (used, unused) = (generate(round), generate(round + 1));
            let (used_name, unused_name) = (used.fingerprint(), unused.fingerprint());
            if round % 4 == 0 && writer.list().len() < 60 {
                assert_eq!(writer.install(used), Ok(true));
                writer.activate(&used_name).unwrap();
            }
            assert_eq!(writer.install(unused), Ok(true));
            let list = writer.list();
            writer.activate(&list[(round * 7) % (list.len() - 1)].fingerprint).unwrap();
            writer.remove(&unused_name).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(keyring.list().iter().map(|key| key.sealed).sum::<u64>() > 0);
}

/// Two members that rotate in the three steps, each finished on both before the next: whatever one
/// seals at any moment, the other opens.
#[test]
fn a_rotation_in_three_steps_loses_nothing() {
    let first = generate(0);
    let members = [Keyring::new(first.clone()), Keyring::new(first)];
    let stop = AtomicBool::new(false);
    let exchanged = AtomicU64::new(0);
    // Removing waits until what was sealed before the activation has been opened.
    let gate = Barrier::new(3);
    std::thread::scope(|scope| {
        for (own, other) in [(0, 1), (1, 0)] {
            let (own, other) = (members[own].clone(), members[other].clone());
            let (stop, exchanged, gate) = (&stop, &exchanged, &gate);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..50 {
                        let mut message = sealed(&own, b"ping");
                        let content = open(&other, AAD, &mut message, false);
                        assert_eq!(content.expect("rotation leaves no gap"), b"ping");
                        exchanged.fetch_add(1, Ordering::Relaxed);
                    }
                    gate.wait();
                    gate.wait();
                }
            });
        }
        for round in 0..ROTATIONS {
            let old = members[0].primary();
            let new = generate(round);
            let name = new.fingerprint();
            members.iter().for_each(|member| assert_eq!(member.install(new.clone()), Ok(true)));
            members.iter().for_each(|member| member.activate(&name).unwrap());
            gate.wait();
            members.iter().for_each(|member| member.remove(&old).unwrap());
            stop.store(round + 1 == ROTATIONS, Ordering::Relaxed);
            gate.wait();
        }
    });
    assert_eq!(exchanged.load(Ordering::Relaxed), 2 * 50 * ROTATIONS as u64);
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
