//! Requests about keys, and their answers, as they travel on a stream (`docs/WIRE.md`).

use std::collections::BTreeSet;

use memberlist_security::{Fingerprint, KeySize, MAX_KEYS, SecretKey};

use super::{HeldKey, KeyFailure};

/// The topic of requests about keys.
pub(crate) const TOPIC: u16 = 1;
/// The request was done.
pub(crate) const DONE: u8 = 0;
/// It was refused; the body says why.
pub(crate) const REFUSED: u8 = 1;
/// The keyring was changed, but could not be saved; the body says why.
pub(crate) const NOT_SAVED: u8 = 3;
/// The answer to a greeting.
pub(crate) const CHALLENGE: u8 = 2;

/// Random bytes that are used once.
pub(crate) type Once = [u8; 16];
const GREETING: u8 = 0;

const INSTALL: u8 = 1;
const ACTIVATE: u8 = 2;
const REMOVE: u8 = 3;
const LIST: u8 = 4;
const RETIRE: u8 = 5;
/// Fingerprint, length of the key, flags, revision.
const ENTRY_BYTES: usize = 8 + 1 + 1 + 8;
const PRIMARY: u8 = 1;
const RETIRED: u8 = 2;

/// What is asked of a member.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum KeyRequest {
    Install(SecretKey),
    /// With a revision, only if the key still has it; so too for a removal, and the key must be retired.
    Activate(Fingerprint, Option<u64>),
    Retire(Fingerprint),
    Remove(Fingerprint, Option<u64>),
    List,
}

impl KeyRequest {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Install(_) => "install",
            Self::Activate(..) => "activate",
            Self::Retire(_) => "retire",
            Self::Remove(..) => "remove",
            Self::List => "list",
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let named = |kind: u8, key: &Fingerprint, revision: &Option<u64>| {
            let mut body = [&[kind][..], &key.to_bytes()].concat();
            body.extend(revision.iter().flat_map(|revision| revision.to_be_bytes()));
            body
        };
        match self {
            Self::Install(key) => [&[INSTALL], key.expose_bytes()].concat(),
            Self::Activate(key, revision) => named(ACTIVATE, key, revision),
            Self::Retire(key) => named(RETIRE, key, &None),
            Self::Remove(key, revision) => named(REMOVE, key, revision),
            Self::List => vec![LIST],
        }
    }

    /// Nothing if it is not understood.
    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let (&kind, rest) = body.split_first()?;
        let named = || Some(Fingerprint::from_bytes(rest.try_into().ok()?));
        let seen = || {
            let (key, revision) = rest.split_first_chunk::<8>()?;
            let revision = match revision {
                [] => None,
                revision => Some(u64::from_be_bytes(revision.try_into().ok()?)),
            };
            Some((Fingerprint::from_bytes(*key), revision))
        };
        match kind {
            INSTALL => SecretKey::from_bytes(rest).ok().map(Self::Install),
            ACTIVATE => seen().map(|(key, revision)| Self::Activate(key, revision)),
            RETIRE => named().map(Self::Retire),
            REMOVE => seen().map(|(key, revision)| Self::Remove(key, revision)),
            LIST if rest.is_empty() => Some(Self::List),
            _ => None,
        }
    }
}

/// What opens a dialogue about keys. A captured request opens under its key at any time; so each side
/// proves that it speaks now, by repeating what the other has just made up.
pub(crate) fn encode_greeting(nonce: &Once) -> Vec<u8> {
    [&[GREETING][..], nonce].concat()
}

pub(crate) fn decode_greeting(body: &[u8]) -> Option<Once> {
    let (&kind, rest) = body.split_first()?;
    rest.try_into().ok().filter(|_| kind == GREETING)
}

/// The challenge, and the greeting's bytes, which show that it is no old one.
pub(crate) fn encode_challenge(challenge: &Once, greeting: &Once) -> Vec<u8> {
    [&challenge[..], greeting].concat()
}

pub(crate) fn decode_challenge(body: &[u8], greeting: &Once) -> Option<Once> {
    let (challenge, rest) = body.split_first_chunk()?;
    (rest == greeting).then_some(*challenge)
}

/// A request in answer to that challenge, for the member of that name only.
pub(crate) fn encode_asked(challenge: &Once, to: &str, request: &KeyRequest) -> Vec<u8> {
    // Names have at most 255 bytes.
    [&challenge[..], &[to.len() as u8], to.as_bytes(), &request.encode()].concat()
}

/// Nothing if it was made for another stream or member, or is not understood.
pub(crate) fn decode_asked(body: &[u8], challenge: &Once, own: &str) -> Option<KeyRequest> {
    let (given, rest) = body.split_first_chunk::<16>()?;
    let (&len, rest) = rest.split_first()?;
    let (to, request) = rest.split_at_checked(usize::from(len))?;
    let meant = given == challenge && to == own.as_bytes();
    KeyRequest::decode(request).filter(|_| meant)
}

/// What a member holds, as the body of an answer.
pub(crate) fn encode_keys(keys: &[HeldKey]) -> Vec<u8> {
    let mut body = Vec::with_capacity(keys.len() * ENTRY_BYTES);
    for key in keys {
        body.extend_from_slice(&key.fingerprint.to_bytes());
        body.push(key.size.bytes() as u8);
        body.push(u8::from(key.primary) * PRIMARY + u8::from(key.retired) * RETIRED);
        body.extend_from_slice(&key.revision.to_be_bytes());
    }
    body
}

/// An answer begins with the greeting's bytes, or is another's.
pub(crate) fn decode_answer(
    status: u8,
    body: &[u8],
    greeting: &Once,
) -> Result<Vec<HeldKey>, KeyFailure> {
    let body = body.strip_prefix(greeting).ok_or(KeyFailure::BadAnswer)?;
    match status {
        DONE => decode_keys(body).ok_or(KeyFailure::BadAnswer),
        _ => {
            // It goes to logs and terminals.
            let shown = |char: char| if char.is_control() { ' ' } else { char };
            let text = String::from_utf8_lossy(body).chars().take(1000).map(shown).collect();
            Err(if status == NOT_SAVED {
                KeyFailure::NotSaved(text)
            } else {
                KeyFailure::Refused(text)
            })
        }
    }
}

fn decode_keys(body: &[u8]) -> Option<Vec<HeldKey>> {
    let entries = body.chunks(ENTRY_BYTES);
    let entry = |entry: &[u8]| {
        let (name, rest) = entry.split_first_chunk::<8>()?;
        let (&[size, flags], revision) = rest.split_first_chunk::<2>()?;
        let revision = u64::from_be_bytes(revision.try_into().ok()?);
        let size = match size {
            16 => KeySize::Bits128,
            24 => KeySize::Bits192,
            32 => KeySize::Bits256,
            _ => return None,
        };
        let (primary, retired) = (flags & PRIMARY != 0, flags & RETIRED != 0);
        let fingerprint = Fingerprint::from_bytes(*name);
        Some(HeldKey { fingerprint, size, primary, retired, revision })
    };
    let keys: Vec<HeldKey> = entries.map(entry).collect::<Option<_>>()?;
    // Every keyring has one primary. An answer without would pass for "seals with none of them".
    let primaries = keys.iter().filter(|key| key.primary).count();
    let named: BTreeSet<_> = keys.iter().map(|key| key.fingerprint).collect();
    (primaries == 1 && keys.len() <= MAX_KEYS && named.len() == keys.len()).then_some(keys)
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
            KeyRequest::Activate(name, None),
            KeyRequest::Activate(name, Some(u64::MAX)),
            KeyRequest::Retire(name),
            KeyRequest::Remove(name, None),
            KeyRequest::Remove(name, Some(1)),
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
    fn answers_come_back_and_garbage_does_not() {
        let name = SecretKey::from_bytes(&[7; 16]).unwrap().fingerprint();
        let other = SecretKey::from_bytes(&[8; 16]).unwrap().fingerprint();
        let size = KeySize::Bits192;
        let held = |fingerprint, primary: bool| HeldKey {
            fingerprint,
            size,
            primary,
            retired: !primary,
            revision: 7,
        };
        let keys = [held(name, true), held(other, false)];
        let mut body = encode_keys(&keys);
        let nonce = [5; 16];
        let decode_answer =
            |status, body: &[u8]| decode_answer(status, &[&nonce[..], body].concat(), &nonce);
        assert_eq!(decode_answer(DONE, &body), Ok(keys.to_vec()));
        // The receipt of a user message is such a one.
        assert_eq!(decode_answer(DONE, &[]), Err(KeyFailure::BadAnswer));
        assert_eq!(super::decode_answer(DONE, &[], &nonce), Err(KeyFailure::BadAnswer));
        assert_eq!(super::decode_answer(DONE, &body, &nonce), Err(KeyFailure::BadAnswer));
        // A key that is named twice would count as two holders.
        for twice in [&[keys[0], keys[1], keys[1]][..], &[keys[0], keys[0]]] {
            assert_eq!(decode_answer(DONE, &encode_keys(twice)), Err(KeyFailure::BadAnswer));
        }
        body[8] = 17;
        assert_eq!(decode_answer(DONE, &body), Err(KeyFailure::BadAnswer));
        assert_eq!(decode_answer(DONE, &body[..9]), Err(KeyFailure::BadAnswer));
        let long = "x".repeat(5000);
        let Err(KeyFailure::Refused(text)) = decode_answer(REFUSED, long.as_bytes()) else {
            panic!("it was refused");
        };
        assert_eq!(text.len(), 1000);
        let Err(KeyFailure::Refused(text)) = decode_answer(REFUSED, b"no\x1b[2J\r\nwell") else {
            panic!("it was refused");
        };
        assert_eq!(text, "no [2J  well");
        let unsaved = decode_answer(NOT_SAVED, b"disk\nfull");
        assert_eq!(unsaved, Err(KeyFailure::NotSaved("disk full".to_owned())));
    }
}
