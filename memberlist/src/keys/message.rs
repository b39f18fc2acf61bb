//! Requests about keys, and their answers, as they travel on a stream (`docs/WIRE.md`).
//!
//! Sealing proves that a member wrote something, not when. So who asks sends a random mark, which the
//! answer repeats, and first fetches one of the other side, which the request repeats: neither an old
//! request nor an old answer that somebody has kept is taken for a new one.

use memberlist_security::{Fingerprint, KeySize, SecretKey};

use super::{HeldKey, KeyFailure};

/// The topic of requests about keys.
pub(crate) const TOPIC: u16 = 1;
/// The request was done.
pub(crate) const DONE: u8 = 0;
/// It was refused; the body says why.
pub(crate) const REFUSED: u8 = 1;

const BEGIN: u8 = 0;
const INSTALL: u8 = 1;
const ACTIVATE: u8 = 2;
const REMOVE: u8 = 3;
const LIST: u8 = 4;
/// Fingerprint, length of the key, whether it is the primary.
const ENTRY_BYTES: usize = 8 + 1 + 1;

/// A random mark, used once.
pub(crate) type Mark = [u8; 16];

/// The first message of whoever asks.
pub(crate) fn encode_begin(own: &Mark) -> Vec<u8> {
    [&[BEGIN], &own[..]].concat()
}

/// The mark of whoever asks.
pub(crate) fn decode_begin(body: &[u8]) -> Option<Mark> {
    match body.split_first()? {
        (&BEGIN, mark) => mark.try_into().ok(),
        _ => None,
    }
}

/// What follows in a message that begins with this mark.
pub(crate) fn after_mark<'b>(body: &'b [u8], mark: &Mark) -> Option<&'b [u8]> {
    body.strip_prefix(mark)
}

/// What is asked of a member.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum KeyRequest {
    Install(SecretKey),
    Activate(Fingerprint),
    Remove(Fingerprint),
    List,
}

impl KeyRequest {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Install(_) => "install",
            Self::Activate(_) => "activate",
            Self::Remove(_) => "remove",
            Self::List => "list",
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Install(key) => [&[INSTALL], key.expose_bytes()].concat(),
            Self::Activate(key) => [&[ACTIVATE][..], &key.to_bytes()].concat(),
            Self::Remove(key) => [&[REMOVE][..], &key.to_bytes()].concat(),
            Self::List => vec![LIST],
        }
    }

    /// Nothing if it is not understood.
    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let (&kind, rest) = body.split_first()?;
        let named = || Some(Fingerprint::from_bytes(rest.try_into().ok()?));
        match kind {
            INSTALL => SecretKey::from_bytes(rest).ok().map(Self::Install),
            ACTIVATE => named().map(Self::Activate),
            REMOVE => named().map(Self::Remove),
            LIST if rest.is_empty() => Some(Self::List),
            _ => None,
        }
    }
}

/// What a member holds, as the body of an answer.
pub(crate) fn encode_keys(keys: &[HeldKey]) -> Vec<u8> {
    let mut body = Vec::with_capacity(keys.len() * ENTRY_BYTES);
    for key in keys {
        body.extend_from_slice(&key.fingerprint.to_bytes());
        body.push(key.size.bytes() as u8);
        body.push(u8::from(key.primary));
    }
    body
}

pub(crate) fn decode_answer(status: u8, body: &[u8]) -> Result<Vec<HeldKey>, KeyFailure> {
    match status {
        DONE => decode_keys(body).ok_or(KeyFailure::BadAnswer),
        _ => {
            let text: String = String::from_utf8_lossy(body).chars().take(1000).collect();
            Err(KeyFailure::Refused(text))
        }
    }
}

fn decode_keys(body: &[u8]) -> Option<Vec<HeldKey>> {
    let entries = body.chunks(ENTRY_BYTES);
    let entry = |entry: &[u8]| {
        let (name, rest) = entry.split_first_chunk::<8>()?;
        let [size, primary] = rest.try_into().ok()?;
        let size = match size {
            16 => KeySize::Bits128,
            24 => KeySize::Bits192,
            32 => KeySize::Bits256,
            _ => return None,
        };
        Some(HeldKey { fingerprint: Fingerprint::from_bytes(*name), size, primary: primary == 1 })
    };
    entries.map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_back_and_garbage_does_not() {
        let key = SecretKey::from_bytes(&[7; 24]).unwrap();
        let name = key.fingerprint();
        let all = [
            KeyRequest::Install(key),
            KeyRequest::Activate(name),
            KeyRequest::Remove(name),
            KeyRequest::List,
        ];
        for request in all {
            let bytes = request.encode();
            assert_eq!(KeyRequest::decode(&bytes), Some(request.clone()));
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(KeyRequest::decode(&longer), None, "{}", request.name());
            assert_eq!(KeyRequest::decode(&bytes[..bytes.len() - 1]), None, "{}", request.name());
        }
        assert_eq!(KeyRequest::decode(&[9]), None);
    }

    #[test]
    fn marks_come_back_and_no_other_is_taken_for_them() {
        let (own, other) = ([1; 16], [2; 16]);
        assert_eq!(decode_begin(&encode_begin(&own)), Some(own));
        assert_eq!(decode_begin(&encode_begin(&own)[..16]), None);
        assert_eq!(decode_begin(&KeyRequest::List.encode()), None);
        let message = [&own[..], &KeyRequest::List.encode()].concat();
        assert_eq!(after_mark(&message, &own), Some(&[LIST][..]));
        assert_eq!(after_mark(&message, &other), None);
        assert_eq!(after_mark(&message[..10], &own), None);
    }

    #[test]
    fn answers_come_back_and_garbage_does_not() {
        let name = SecretKey::from_bytes(&[7; 16]).unwrap().fingerprint();
        let keys = [HeldKey { fingerprint: name, size: KeySize::Bits192, primary: true }];
        let mut body = encode_keys(&keys);
        assert_eq!(decode_answer(DONE, &body), Ok(keys.to_vec()));
        assert_eq!(decode_answer(DONE, &[]), Ok(vec![]));
        body[8] = 17;
        assert_eq!(decode_answer(DONE, &body), Err(KeyFailure::BadAnswer));
        assert_eq!(decode_answer(DONE, &body[..9]), Err(KeyFailure::BadAnswer));
        let long = "x".repeat(5000);
        let Err(KeyFailure::Refused(text)) = decode_answer(REFUSED, long.as_bytes()) else {
            panic!("it was refused");
        };
        assert_eq!(text.len(), 1000);
    }
}
