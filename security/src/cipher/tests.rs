use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::keyring::NONCE_WARNING;

const SIZES: [KeySize; 3] = [KeySize::Bits128, KeySize::Bits192, KeySize::Bits256];

fn key(size: KeySize, n: u8) -> SecretKey {
    SecretKey::from_bytes(&vec![n; size.bytes()]).unwrap()
}

fn ring(size: KeySize) -> Keyring {
    Keyring::new(key(size, 1))
}

/// A sealed message by itself.
fn sealed(keyring: &Keyring, version: Version, aad: &[u8], content: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0xEE; HEAD];
    buffer.extend_from_slice(content);
    let sealed = seal(keyring, version, aad, &mut buffer, HEAD).unwrap();
    assert_eq!(sealed.begin, 0);
    assert_eq!(buffer.len(), content.len() + version.overhead(content.len()));
    buffer
}

#[test]
fn what_stands_before_the_message_is_left_alone() {
    let keyring = ring(KeySize::Bits128);
    let mut buffer = b"before".to_vec();
    buffer.extend_from_slice(&[0; HEAD]);
    let start = buffer.len();
    buffer.extend_from_slice(b"content");
    let sealed = seal(&keyring, Version::V1, b"", &mut buffer, start).unwrap();
    assert_eq!((sealed.begin, sealed.nonce_warning), (6, None));
    assert_eq!(&buffer[..6], b"before");
    assert_eq!(open(&keyring, b"", &mut buffer[6..], false).unwrap(), b"content");
}

#[test]
fn a_buffer_with_room_is_not_moved() {
    let keyring = ring(KeySize::Bits256);
    for version in [Version::V0, Version::V1] {
        let mut buffer = Vec::with_capacity(100 + version.overhead(100));
        buffer.resize(HEAD + 100, 7);
        let (place, capacity) = (buffer.as_ptr(), buffer.capacity());
        let _ = seal(&keyring, version, b"", &mut buffer, HEAD).unwrap();
        assert_eq!((buffer.as_ptr(), buffer.capacity()), (place, capacity));
    }
}

#[test]
fn missing_room_is_an_error_and_nothing_is_counted() {
    let keyring = ring(KeySize::Bits128);
    for (start, len) in [(0, 20), (HEAD - 1, 20), (21, 20), (usize::MAX, 20), (HEAD, HEAD - 1)] {
        let mut buffer = vec![7; len];
        let result = seal(&keyring, Version::V1, b"", &mut buffer, start);
        assert_eq!(result, Err(SealError::NoRoom { start, len, head: HEAD }));
        assert_eq!(buffer, vec![7; len]);
    }
    assert_eq!(keyring.list()[0].sealed, 0);
}

#[test]
fn overheads_are_what_is_added() {
    let constants = (HEAD, TAG, V1_OVERHEAD, V0_MAX_OVERHEAD);
    assert_eq!(constants, (13, 16, 29, 45));
    for len in 0..50 {
        assert_eq!(Version::V1.overhead(len), 29);
        let overhead = Version::V0.overhead(len);
        assert!((30..=45).contains(&overhead) && (len + overhead - 29) % 16 == 0, "{len}");
    }
    assert_eq!((Version::V0.max_overhead(), Version::V1.max_overhead()), (45, 29));
    assert_eq!((Version::V0.overhead(16), Version::V0.overhead(15)), (45, 30));
}

#[test]
fn the_same_content_is_never_sealed_to_the_same_bytes() {
    let keyring = ring(KeySize::Bits128);
    let [a, b] = [0; 2].map(|_| sealed(&keyring, Version::V1, b"", b"ping"));
    assert_ne!(a[1..HEAD], b[1..HEAD]);
    assert_ne!(a[HEAD..], b[HEAD..]);
}

#[test]
fn any_installed_key_opens_and_no_other() {
    let all: Vec<_> = SIZES.iter().flat_map(|&size| [key(size, 1), key(size, 2)]).collect();
    for (i, used) in all.iter().enumerate() {
        let message = sealed(&Keyring::new(used.clone()), Version::V1, b"x", b"content");
        for start in 0..all.len() {
            let mut keys: Vec<_> = all[start..].iter().chain(&all[..start]).cloned().collect();
            let keyring = Keyring::with_keys(keys.remove(0), keys.clone()).unwrap();
            let mut copy = message.clone();
            assert_eq!(open(&keyring, b"x", &mut copy, false).unwrap(), b"content");
            if i != start {
                // Without the one key, five others fail, and leave every byte where it was.
                keyring.remove(&used.fingerprint()).unwrap();
                let mut copy = message.clone();
                assert_eq!(open(&keyring, b"x", &mut copy, false), Err(OpenError::NoKeyFits));
                assert_eq!(copy, message);
            }
        }
    }
}

#[test]
fn every_change_of_every_byte_is_refused() {
    for size in SIZES {
        let keyring = Keyring::with_keys(key(size, 1), [key(size, 2)]).unwrap();
        // Whole blocks that end like padding: the hardest case for a changed version byte.
        let mut content = [0x33; 32];
        content[31] = 1;
        let message = sealed(&keyring, Version::V1, b"dc1", &content);
        for i in 0..message.len() {
            for value in 0..=255 {
                let mut changed = message.clone();
                changed[i] = value;
                if changed == message {
                    continue;
                }
                let given = changed.clone();
                let expected = match (i, value) {
                    (0, 0) => OpenError::Version0Refused,
                    (0, other) => OpenError::UnknownVersion(other),
                    _ => OpenError::NoKeyFits,
                };
                assert_eq!(open(&keyring, b"dc1", &mut changed, false), Err(expected));
                assert_eq!(changed, given, "a refused message was changed");
            }
        }
    }
}

/// The content does not end like padding, so that version 1 cannot pass for version 0.
#[test]
fn changes_are_refused_where_version_0_is_accepted_but_for_its_flaw() {
    let keyring = ring(KeySize::Bits128);
    for len in 0..40 {
        let content: Vec<u8> = (0..len).map(|i| 0x40 | i).collect();
        for version in [Version::V0, Version::V1] {
            let message = sealed(&keyring, version, b"", &content);
            for i in 0..message.len() {
                for bit in 0..8 {
                    let mut changed = message.clone();
                    changed[i] ^= 1 << bit;
                    let given = changed.clone();
                    let result = open(&keyring, b"", &mut changed, true).map(|c| c.to_vec());
                    if i == 0 && bit == 0 && version == Version::V0 {
                        // The flaw: what was padding is now content.
                        assert_eq!(&result.unwrap()[..content.len()], content);
                        continue;
                    }
                    assert!(result.is_err(), "{version:?} {len} {i} {bit}");
                    assert_eq!(changed, given, "a refused message was changed");
                }
            }
        }
    }
}

#[test]
fn version_0_only_by_consent() {
    let keyring = ring(KeySize::Bits192);
    let mut message = sealed(&keyring, Version::V0, b"", b"old");
    assert_eq!(open(&keyring, b"", &mut message, false), Err(OpenError::Version0Refused));
    assert_eq!(open(&keyring, b"", &mut message, true).unwrap(), b"old");
}

/// A version 0 message with proof whose padded content is given as it is.
fn claimed_v0(keyring: &Keyring, padded: &[u8]) -> Vec<u8> {
    let mut message = sealed(keyring, Version::V1, b"", padded);
    message[0] = 0;
    message
}

#[test]
fn padding_is_checked_though_it_is_proven() {
    let keyring = ring(KeySize::Bits128);
    let with_end = |len: usize, end: &[u8]| {
        let mut padded = vec![b'a'; len];
        padded[len - end.len()..].copy_from_slice(end);
        padded
    };
    let good = [
        (with_end(16, &[1]), 15),
        (with_end(32, &[2, 2]), 30),
        (vec![16; 16], 0),
        (with_end(32, &[16; 16]), 16),
    ];
    for (padded, len) in good {
        let mut message = claimed_v0(&keyring, &padded);
        assert_eq!(open(&keyring, b"", &mut message, true).unwrap(), &padded[..len]);
    }
    let bad = [
        with_end(16, &[0]),
        with_end(16, &[17]),
        with_end(32, &[17; 17]),
        with_end(32, &[32; 32]),
        with_end(16, &[255]),
        with_end(32, &[1, 2]),
        with_end(32, &[3, 2, 3]),
        with_end(32, &[2, 3, 3]),
        // Not of whole blocks: no sealer of version 0 makes such a message.
        with_end(17, &[1]),
        with_end(31, &[15; 15]),
    ];
    for padded in bad {
        let mut message = claimed_v0(&keyring, &padded);
        let given = message.clone();
        assert_eq!(open(&keyring, b"", &mut message, true), Err(OpenError::BadPadding));
        assert_eq!(message, given, "{padded:?}");
    }
}

#[test]
fn short_and_unknown_messages() {
    let keyring = ring(KeySize::Bits128);
    for len in 0..100 {
        for version in 0..=255 {
            let mut message = vec![version; len];
            let expected = match (version, len) {
                (_, 0) => OpenError::TooShort { len, least: 29 },
                (0, ..45) => OpenError::TooShort { len, least: 45 },
                (1, ..29) => OpenError::TooShort { len, least: 29 },
                (0 | 1, _) => OpenError::NoKeyFits,
                _ => OpenError::UnknownVersion(version),
            };
            assert_eq!(open(&keyring, b"", &mut message, true), Err(expected));
        }
    }
}

#[test]
fn the_warning_comes_once() {
    let keyring = ring(KeySize::Bits128);
    let warning = || {
        let mut buffer = vec![0; HEAD];
        seal(&keyring, Version::V1, b"", &mut buffer, HEAD).unwrap().nonce_warning
    };
    keyring.testing_set_sealed(NONCE_WARNING - 2);
    let primary = keyring.primary();
    assert_eq!([0; 4].map(|_| warning()), [None, Some(primary), None, None]);
    assert_eq!(keyring.list()[0].sealed, NONCE_WARNING + 2);
    // Of many threads one is told.
    keyring.testing_set_sealed(NONCE_WARNING - 100);
    let told: usize = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..50).filter_map(|_| warning()).count())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(told, 1);
}

#[test]
fn each_key_is_counted_by_itself() {
    let keyring = Keyring::with_keys(key(KeySize::Bits128, 1), [key(KeySize::Bits128, 2)]).unwrap();
    let second = key(KeySize::Bits128, 2).fingerprint();
    for _ in 0..3 {
        sealed(&keyring, Version::V1, b"", b"");
    }
    keyring.activate(&second).unwrap();
    sealed(&keyring, Version::V1, b"", b"");
    let counts: Vec<_> = keyring.list().iter().map(|key| key.sealed).collect();
    assert_eq!(counts, [1, 3]);
}

fn any_version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V0), Just(Version::V1)]
}

proptest! {
    #[test]
    fn any_content_comes_back(
        content in vec(any::<u8>(), 0..2000),
        aad in vec(any::<u8>(), 0..300),
        size in proptest::sample::select(SIZES.to_vec()),
        version in any_version(),
    ) {
        let keyring = ring(size);
        let mut message = sealed(&keyring, version, &aad, &content);
        // Other associated data opens nothing.
        let given = message.clone();
        let other = [&aad[..], b"x"].concat();
        prop_assert_eq!(open(&keyring, &other, &mut message, true), Err(OpenError::NoKeyFits));
        prop_assert_eq!(&message, &given);
        prop_assert_eq!(open(&keyring, &aad, &mut message, true).unwrap(), content);
    }

    #[test]
    fn any_bytes_are_refused_and_left_alone(
        mut message in vec(any::<u8>(), 0..200),
        version in 0..3u8,
        accept_v0: bool,
    ) {
        if let Some(first) = message.first_mut() {
            *first = version;
        }
        let given = message.clone();
        prop_assert!(open(&ring(KeySize::Bits128), b"", &mut message, accept_v0).is_err());
        prop_assert_eq!(message, given);
    }

    /// With proof, so that what is behind the proof is reached as well.
    #[test]
    fn any_padded_content_is_no_panic(padded in vec(0..20u8, 0..70)) {
        let keyring = ring(KeySize::Bits256);
        let mut message = claimed_v0(&keyring, &padded);
        let given = message.clone();
        let opened = open(&keyring, b"", &mut message, true).map(|content| content.to_vec());
        match opened {
            Ok(content) => {
                let padding = padded.len() - content.len();
                prop_assert_eq!(&content[..], &padded[..content.len()]);
                prop_assert!((1..=16).contains(&padding));
                prop_assert!(padded[content.len()..].iter().all(|&b| usize::from(b) == padding));
            }
            Err(_) => prop_assert_eq!(message, given),
        }
    }
}
