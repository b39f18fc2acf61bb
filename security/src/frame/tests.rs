use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::key::{KeySize, SecretKey};
use crate::open;

fn ring() -> Keyring {
    Keyring::new(SecretKey::from_bytes(&[1; 16]).unwrap())
}

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn framed(keyring: &Keyring, version: Version, label: &Label, content: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0xEE; FRAME_HEAD];
    buffer.extend_from_slice(content);
    let sealed = seal_frame(keyring, None, version, label, &mut buffer, FRAME_HEAD).unwrap();
    assert_eq!(sealed.begin, 0);
    assert_eq!(buffer.len(), FRAME_HEADER + content.len() + version.overhead(content.len()));
    buffer
}

/// Opens a whole frame, as a stream's reader would.
fn opened(
    keyring: &Keyring,
    label: &Label,
    frame: &[u8],
    accept_v0: bool,
) -> Result<Vec<u8>, FrameError> {
    let header = FrameHeader::parse(frame, 1000)?.expect("a whole header");
    let mut message = frame[FRAME_HEADER..].to_vec();
    let result = open_frame(keyring, label, header, &mut message, accept_v0);
    let result = result.map(|(content, _)| content.to_vec());
    assert!(result.is_ok() || message == frame[FRAME_HEADER..], "a refused message was changed");
    result
}

#[test]
fn a_frame_is_bound_to_its_label() {
    let (keyring, longest) = (ring(), "x".repeat(255));
    for text in ["", "a", "dc1-prod", &longest] {
        let frame = framed(&keyring, Version::V1, &label(text), b"state");
        assert_eq!(opened(&keyring, &label(text), &frame, false).unwrap(), b"state");
        let other = opened(&keyring, &label("b"), &frame, false);
        assert_eq!(other, Err(FrameError::Open(OpenError::NoKeyFits)));
    }
}

#[test]
fn the_associated_data_is_the_header_and_the_label() {
    let keyring = ring();
    let mut frame = framed(&keyring, Version::V1, &label("dc1"), b"state");
    let (header, message) = frame.split_at_mut(FRAME_HEADER);
    assert_eq!(header, [0x0A, 0, 0, 0, 5 + 29]);
    let aad = [&*header, b"dc1"].concat();
    assert_eq!(open(&keyring, &aad, message, false).unwrap(), b"state");
}

#[test]
fn a_packet_is_no_frame_nor_the_reverse() {
    let keyring = ring();
    let mut frame = framed(&keyring, Version::V1, &label(""), b"state");
    let result = open(&keyring, b"", &mut frame[FRAME_HEADER..], false);
    assert_eq!(result, Err(OpenError::NoKeyFits));
}

#[test]
fn every_change_of_every_byte_is_refused() {
    let (keyring, label) = (ring(), label("dc1"));
    let frame = framed(&keyring, Version::V1, &label, b"sixteen letters!");
    for i in 0..frame.len() {
        for value in (0..=255).filter(|&value| value != frame[i]) {
            let mut changed = frame.clone();
            changed[i] = value;
            let result = opened(&keyring, &label, &changed, false).unwrap_err();
            match i {
                0 => assert_eq!(result, FrameError::NotEncrypted { first: value }),
                1..=4 => assert!(
                    matches!(result, FrameError::WrongLength { .. } | FrameError::TooLarge { .. }),
                    "{result}"
                ),
                _ => assert!(matches!(result, FrameError::Open(_)), "{result}"),
            }
        }
    }
    // A length that fits what is there, but is not what was sealed.
    let mut longer = frame.clone();
    longer.push(0);
    longer[4] += 1;
    let result = opened(&keyring, &label, &longer, false);
    assert_eq!(result, Err(FrameError::Open(OpenError::NoKeyFits)));
}

#[test]
fn the_header_is_judged_as_it_arrives() {
    assert_eq!(FrameHeader::parse(&[], 10), Ok(None));
    for first in (0..=255).filter(|&first| first != FRAME_TYPE) {
        let refused = Err(FrameError::NotEncrypted { first });
        assert_eq!(FrameHeader::parse(&[first], 10), refused);
        assert_eq!(FrameHeader::parse(&[first, 0, 0, 0, 1], 10), refused);
    }
    let header = [FRAME_TYPE, 0, 0, 1, 2, 0xFF];
    for len in 1..FRAME_HEADER {
        assert_eq!(FrameHeader::parse(&header[..len], 1000), Ok(None));
    }
    let parsed = FrameHeader::parse(&header, 258).unwrap().unwrap();
    assert_eq!(parsed.message_len(), 258);
    assert_eq!(parsed.to_bytes(), header[..FRAME_HEADER]);
    let refused = FrameHeader::parse(&header, 257);
    assert_eq!(refused, Err(FrameError::TooLarge { len: 258, limit: 257 }));
}

#[test]
fn the_usual_limit_is_go_s() {
    let parse = |len: u32| {
        let [a, b, c, d] = len.to_be_bytes();
        FrameHeader::parse(&[FRAME_TYPE, a, b, c, d], DEFAULT_MAX_FRAME_BYTES)
    };
    assert!(parse(20_971_520).is_ok());
    assert!(parse(20_971_521).is_err());
    assert!(parse(u32::MAX).is_err());
}

#[test]
fn lengths_that_no_header_holds() {
    let longest = usize::try_from(u32::MAX).unwrap();
    assert_eq!(FrameHeader::of(longest).map(FrameHeader::message_len), Some(longest));
    #[cfg(target_pointer_width = "64")]
    assert_eq!(FrameHeader::of(longest + 1), None);
}

#[test]
fn missing_room_is_an_error() {
    for start in [0, HEAD, FRAME_HEAD - 1, 31] {
        let mut buffer = vec![7; 30];
        let result = seal_frame(&ring(), None, Version::V1, &label("a"), &mut buffer, start);
        assert_eq!(result, Err(SealError::NoRoom { start, len: 30, head: FRAME_HEAD }));
        assert_eq!(buffer, [7; 30]);
    }
}

#[test]
fn an_empty_frame_is_empty() {
    let keyring = ring();
    for version in [Version::V0, Version::V1] {
        let frame = framed(&keyring, version, &label(""), b"");
        assert_eq!(opened(&keyring, &label(""), &frame, true).unwrap(), b"");
    }
}

proptest! {
    #[test]
    fn any_content_comes_back(
        content in vec(any::<u8>(), 0..900),
        text in "[a-z]{0,255}",
        size in proptest::sample::select(vec![KeySize::Bits128, KeySize::Bits192, KeySize::Bits256]),
        v0: bool,
    ) {
        let keyring = Keyring::new(SecretKey::generate(size).unwrap());
        let version = if v0 { Version::V0 } else { Version::V1 };
        let frame = framed(&keyring, version, &label(&text), &content);
        prop_assert_eq!(opened(&keyring, &label(&text), &frame, v0).unwrap(), content);
    }

    #[test]
    fn any_bytes_are_no_panic(
        mut stream in vec(any::<u8>(), 0..100),
        typed: bool,
        limit in 0..200usize,
        accept_v0: bool,
    ) {
        if let (true, [kind, a, b, c, d, rest @ ..]) = (typed, &mut stream[..]) {
            (*kind, *a, *b, *c, *d) = (FRAME_TYPE, 0, 0, 0, rest.len() as u8);
        }
        if let Ok(Some(header)) = FrameHeader::parse(&stream, limit) {
            prop_assert!(header.message_len() <= limit);
            let message = &mut stream[FRAME_HEADER..];
            let result = open_frame(&ring(), &label("a"), header, message, accept_v0);
            prop_assert!(result.is_err());
        }
    }
}

/// Whoever asked with a key that is not the primary any more can read the answer.
#[test]
fn a_frame_can_be_sealed_with_another_installed_key() {
    let old = SecretKey::from_bytes(&[1; 16]).unwrap();
    let new = SecretKey::from_bytes(&[2; 16]).unwrap();
    let (old_name, new_name) = (old.fingerprint(), new.fingerprint());
    let asker = Keyring::new(old.clone());
    let keyring = Keyring::with_keys(new, [old]).unwrap();
    let opened_by = |with: Option<&Fingerprint>, by: &Keyring| {
        let mut buffer = vec![0; FRAME_HEAD];
        let sealed =
            seal_frame(&keyring, with, Version::V1, &label("a"), &mut buffer, FRAME_HEAD).unwrap();
        assert_eq!(sealed.begin, 0);
        let header = FrameHeader::parse(&buffer, 1000).unwrap().unwrap();
        open_frame(by, &label("a"), header, &mut buffer[FRAME_HEADER..], false).map(|(_, key)| key)
    };
    assert_eq!(opened_by(Some(&old_name), &asker), Ok(old_name));
    assert_eq!(opened_by(None, &asker), Err(FrameError::Open(OpenError::NoKeyFits)));
    assert_eq!(opened_by(None, &keyring), Ok(new_name));
    // A key that is not there any more.
    keyring.remove(&old_name).unwrap();
    assert_eq!(opened_by(Some(&old_name), &keyring), Ok(new_name));
}

#[test]
fn a_frame_opens_in_its_place_only() {
    let keyring = ring();
    let (one, other) = ([1; 12], [2; 12]);
    let places = [
        FramePlace::First,
        FramePlace::Question(one),
        FramePlace::Question(other),
        FramePlace::Answer(one),
        FramePlace::Answer(other),
        FramePlace::Answer([0; 12]),
    ];
    for place in places {
        let mut frame = vec![0; FRAME_HEAD];
        frame.extend_from_slice(b"content");
        let (version, label) = (Version::V1, label("a"));
        let sealed = seal_frame_at(&keyring, None, version, &label, place, &mut frame, FRAME_HEAD);
        let _ = sealed.unwrap();
        assert_eq!(frame_nonce(&frame).unwrap(), frame[FRAME_HEADER + 1..FRAME_HEAD]);
        for at in places {
            let mut frame = frame.clone();
            let header = FrameHeader::parse(&frame, 1000).unwrap().unwrap();
            let message = &mut frame[FRAME_HEADER..];
            let opened = open_frame_at(&keyring, &label, at, header, message, false);
            assert_eq!(opened.is_ok(), at == place, "{place:?} at {at:?}");
        }
    }
}
