use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn header(text: &str) -> Vec<u8> {
    let mut out = vec![0; label(text).header_len()];
    label(text).write_header(&mut out);
    out
}

fn packet(text: &str, rest: &[u8]) -> Vec<u8> {
    [&header(text), rest].concat()
}

fn received(text: &str) -> ReceivedLabel {
    ReceivedLabel::of(text.as_bytes())
}

#[test]
fn labels_have_a_length() {
    assert!(label("").is_empty() && Label::default().is_empty());
    assert_eq!(label(&"x".repeat(255)).header_len(), 257);
    assert_eq!(Label::new(&"x".repeat(256)), Err(LabelTooLong { len: 256 }));
    // Bytes count, not letters.
    assert_eq!(Label::new(&"ä".repeat(128)), Err(LabelTooLong { len: 256 }));
    assert_eq!("dc1".parse(), Ok(label("dc1")));
}

#[test]
fn headers_are_written() {
    let mut out = [7; 6];
    assert_eq!(label("ab").write_header(&mut out), 4);
    assert_eq!(out, [0xF4, 2, b'a', b'b', 7, 7]);
    assert_eq!(label("").write_header(&mut out), 0);
    assert_eq!(out, [0xF4, 2, b'a', b'b', 7, 7]);
    let long = "x".repeat(255);
    assert_eq!(header(&long)[..3], [0xF4, 255, b'x']);
}

/// All pairs of what is sent and what is expected, with and without the check.
#[test]
fn the_rules() {
    let (a, none) = (label("a"), Label::default());
    let rest = &b"\x01rest"[..];
    let cases = [
        ("", &none, false, Ok(())),
        ("a", &a, false, Ok(())),
        ("", &a, false, Err(LabelError::Missing { expected: a.clone() })),
        ("a", &none, false, Err(LabelError::Unexpected { received: received("a") })),
        (
            "b",
            &a,
            false,
            Err(LabelError::Mismatch { expected: a.clone(), received: received("b") }),
        ),
        (
            "A",
            &a,
            false,
            Err(LabelError::Mismatch { expected: a.clone(), received: received("A") }),
        ),
        (
            "aa",
            &a,
            false,
            Err(LabelError::Mismatch { expected: a.clone(), received: received("aa") }),
        ),
        ("", &none, true, Ok(())),
        ("", &a, true, Ok(())),
        ("a", &a, true, Err(LabelError::Doubled)),
        ("a", &none, true, Err(LabelError::Doubled)),
    ];
    for (sent, expected, skip, result) in cases {
        let mut packet = packet(sent, rest);
        let wanted = result.clone().map(|()| rest);
        assert_eq!(expected.check(&packet, skip), wanted, "{sent:?} {expected:?} {skip}");
        let mut reader = LabelReader::new();
        reader.push(&packet).unwrap();
        assert_eq!(reader.check(expected, skip), result, "{sent:?} {expected:?} {skip}");
        let got = expected.check_mut(&mut packet, skip).map(|rest| &*rest);
        assert_eq!(got, wanted);
    }
}

#[test]
fn a_second_header_is_refused() {
    let twice = packet("a", &packet("a", b"rest"));
    assert_eq!(label("a").check(&twice, false), Err(LabelError::Doubled));
    assert_eq!(Label::split(&twice), Ok((&b"a"[..], &twice[3..])));
    // What is wrong with the first is said first.
    let other = label("b").check(&twice, false);
    assert!(matches!(other, Err(LabelError::Mismatch { .. })), "{other:?}");
}

#[test]
fn broken_headers() {
    let whole = packet("dc1", b"");
    for skip in [false, true] {
        for len in 1..whole.len() {
            assert_eq!(label("dc1").check(&whole[..len], skip), Err(LabelError::Truncated));
        }
        assert_eq!(label("").check(&[0xF4, 0], skip), Err(LabelError::Empty));
        assert_eq!(label("").check(&[0xF4, 0, 1, 2], skip), Err(LabelError::Empty));
    }
    assert_eq!(label("dc1").check(&whole, false), Ok(&b""[..]));
}

#[test]
fn what_strangers_send_is_shown_short_and_escaped() {
    assert_eq!(received("dc1-prod").to_string(), "\"dc1-prod\"");
    assert_eq!(ReceivedLabel::of(b"a\"\n\x1b[31m\xff").to_string(), r#""a\"\n\x1b[31m\xff""#);
    let long = ReceivedLabel::of(&[0; 255]).to_string();
    assert_eq!(long, format!("\"{}\"... (255 bytes)", r"\x00".repeat(32)));
    assert_eq!(received(&"x".repeat(32)).to_string(), format!("\"{}\"", "x".repeat(32)));
    let error = label("dc1").check(&packet("dc2", b""), false).unwrap_err();
    assert_eq!(error.to_string(), r#"the peer's label is "dc2", and the label here is "dc1""#);
}

#[test]
fn a_stream_without_a_label_is_not_touched() {
    for first in 0..0xF4 {
        let mut reader = LabelReader::new();
        assert_eq!(reader.push(&[]), Ok(LabelStep::NeedMore));
        assert_eq!(reader.received(), None);
        assert_eq!(reader.push(&[first, 0xF4]), Ok(LabelStep::Done { consumed: 0 }));
        assert_eq!(reader.push(&[1, 2]), Ok(LabelStep::Done { consumed: 0 }));
        assert_eq!(reader.received(), Some(&b""[..]));
    }
}

#[test]
fn the_end_of_a_stream() {
    let mut silent = LabelReader::new();
    assert_eq!(silent.finish(), Ok(()));
    assert_eq!(silent.received(), Some(&b""[..]));
    let whole = header("dc1");
    for len in 1..=whole.len() {
        let mut reader = LabelReader::new();
        assert_eq!(reader.push(&whole[..len]), Ok(LabelStep::NeedMore));
        assert_eq!(reader.check(&label("dc1"), false), Err(LabelError::Truncated));
        let ended = reader.finish();
        if len < whole.len() {
            assert_eq!(ended, Err(LabelError::Truncated));
        } else {
            assert_eq!(reader.check(&label("dc1"), false), Ok(()));
        }
    }
}

#[test]
fn a_stream_s_error_stays() {
    for (sent, error) in
        [(&[0xF4, 0][..], LabelError::Empty), (&[0xF4, 1, b'a', 0xF4][..], LabelError::Doubled)]
    {
        let mut reader = LabelReader::new();
        let last = sent.iter().map(|byte| reader.push(&[*byte])).last();
        assert_eq!(last, Some(Err(error.clone())));
        assert_eq!(reader.push(b"more"), Err(error.clone()));
        assert_eq!(reader.finish(), Err(error));
        assert_eq!(reader.received(), None);
    }
}

/// Pushes in pieces; the header's length in all, or the error.
fn read(stream: &[u8], pieces: &[usize]) -> Result<(usize, Vec<u8>), LabelError> {
    let (mut reader, mut rest, mut taken) = (LabelReader::new(), stream, 0);
    let mut pieces = pieces.iter().copied().chain(std::iter::repeat(1));
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(pieces.next().unwrap().min(rest.len()));
        match reader.push(piece)? {
            LabelStep::NeedMore => taken += piece.len(),
            LabelStep::Done { consumed } => {
                return Ok((taken + consumed, reader.received().unwrap().to_vec()));
            }
        }
        rest = later;
    }
    reader.finish()?;
    Ok((taken, reader.received().unwrap().to_vec()))
}

/// Mostly headers, so that they are reached.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let parts = prop_oneof![
        vec(any::<u8>(), 0..20),
        vec(any::<u8>(), 0..10).prop_map(|mut text| {
            text.insert(0, text.len() as u8);
            text.insert(0, LABEL_TYPE);
            text
        }),
        Just(vec![LABEL_TYPE]),
    ];
    vec(parts, 0..4).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn packets_and_streams_are_read_alike(
        stream in streams(),
        pieces in vec(1..20usize, 0..10),
        skip: bool,
    ) {
        let whole = Label::split(&stream);
        match read(&stream, &pieces) {
            Ok((consumed, label)) => {
                let (expected, rest) = whole.unwrap();
                prop_assert_eq!(label, expected);
                prop_assert_eq!(consumed, stream.len() - rest.len());
                prop_assert_ne!(rest.first(), Some(&LABEL_TYPE));
            }
            Err(LabelError::Doubled) => {
                prop_assert_eq!(whole.unwrap().1[0], LABEL_TYPE);
            }
            Err(error) => prop_assert_eq!(whole, Err(error)),
        }
        let _ = label("a").check(&stream, skip);
    }

    #[test]
    fn any_label_comes_back(text in "\\PC{0,60}", rest in vec(0..0xF4u8, 0..20)) {
        let packet = packet(&text, &rest);
        prop_assert_eq!(label(&text).check(&packet, false), Ok(&rest[..]));
        prop_assert_eq!(Label::split(&packet), Ok((text.as_bytes(), &rest[..])));
    }
}
