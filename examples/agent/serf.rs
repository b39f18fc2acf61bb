//! Serf's tags: what a member of a Serf pool has as its meta.
//!
//! A byte of 255, then a MessagePack map of texts (Serf `encodeTags`).

use std::collections::BTreeMap;
use std::str::FromStr;

/// What the meta begins with, so that it is taken for tags.
const MAGIC: u8 = 255;
/// MessagePack: a map of fewer than 16 entries, a text of fewer than 32 bytes, and longer ones.
const FIX_MAP: u8 = 0x80;
const FIX_STR: u8 = 0xA0;
const STR_8: u8 = 0xD9;
const STR_16: u8 = 0xDA;
const MAP_16: u8 = 0xDE;

/// A tag from the command line.
#[derive(Clone, Debug)]
pub(crate) struct Tag {
    key: String,
    value: String,
}

impl FromStr for Tag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("a tag is KEY=VALUE")?;
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

/// The meta of a member with these tags.
pub(crate) fn encode(tags: &[Tag]) -> Vec<u8> {
    let tags: BTreeMap<&str, &str> =
        tags.iter().map(|tag| (tag.key.as_str(), tag.value.as_str())).collect();
    let mut meta = vec![MAGIC];
    // More tags than 65,535 do not fit the meta, of which the length is checked.
    match u16::try_from(tags.len()).unwrap_or(u16::MAX) {
        len @ 0..16 => meta.push(FIX_MAP | len as u8),
        len => {
            meta.push(MAP_16);
            meta.extend_from_slice(&len.to_be_bytes());
        }
    }
    for text in tags.into_iter().flat_map(|(key, value)| [key, value]) {
        match u16::try_from(text.len()).unwrap_or(u16::MAX) {
            len @ 0..32 => meta.push(FIX_STR | len as u8),
            len => {
                meta.push(STR_16);
                meta.extend_from_slice(&len.to_be_bytes());
            }
        }
        meta.extend_from_slice(text.as_bytes());
    }
    meta
}

/// The tags in a meta, if there are any.
pub(crate) fn decode(meta: &[u8]) -> Option<BTreeMap<String, String>> {
    let mut rest = meta.strip_prefix(&[MAGIC])?;
    let entries = match take(&mut rest, 1)?[0] {
        MAP_16 => length(take(&mut rest, 2)?),
        first @ FIX_MAP..0x90 => usize::from(first - FIX_MAP),
        _ => return None,
    };
    let mut tags = BTreeMap::new();
    for _ in 0..entries {
        tags.insert(text(&mut rest)?, text(&mut rest)?);
    }
    Some(tags)
}

fn text(rest: &mut &[u8]) -> Option<String> {
    let len = match take(rest, 1)?[0] {
        STR_8 => length(take(rest, 1)?),
        STR_16 => length(take(rest, 2)?),
        first @ FIX_STR..0xC0 => usize::from(first - FIX_STR),
        _ => return None,
    };
    take(rest, len).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

fn length(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte))
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_as_serf_writes_them() {
        let tags: Vec<Tag> = ["role=web", "dc=east"].map(|tag| tag.parse().unwrap()).into();
        let meta = encode(&tags);
        assert_eq!(meta, b"\xff\x82\xa2dc\xa4east\xa4role\xa3web");
        let read = decode(&meta).unwrap();
        assert_eq!((read["dc"].as_str(), read["role"].as_str(), read.len()), ("east", "web", 2));
    }

    #[test]
    fn long_texts_and_many_tags_come_back() {
        let tags: Vec<Tag> =
            (0..20).map(|n| format!("{n}={}", "x".repeat(n * 10)).parse().unwrap()).collect();
        assert_eq!(decode(&encode(&tags)).unwrap().len(), 20);
    }

    #[test]
    fn other_meta_has_no_tags() {
        for meta in [&b""[..], b"demo", b"\xff", b"\xff\x81", b"\xff\x81\xa3ab", b"\xff\xc0"] {
            assert_eq!(decode(meta), None, "{meta:?}");
        }
    }
}
