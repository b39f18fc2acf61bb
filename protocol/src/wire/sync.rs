//! The steps of comparing two nodes' live members: the same bytes in a packet's part and as the body of a
//! request or response on a stream. `docs/WIRE.md` states them.
//!
//! Members fall into `2^order` buckets by a hash that `salt` keys. The one who asks sends a digest of
//! each bucket ([`Digests`]); the other lists its members in those buckets that differ, by marks of 15
//! bits ([`Listing`]); the first then sends what the other lacks and names what it lacks itself
//! ([`Records`]), which the other sends ([`Records`]).
//!
//! What is read here may be anybody's: nothing is reserved beyond what has come, and numbers out of range
//! are errors.

use super::error::BodyError;
use super::native::{self, LengthError};
use super::stream::{Held, RemoteRecord, SnapshotRecord, StreamLimits, remote_record};

/// The largest `order`: 2,048 buckets.
pub const MAX_ORDER: u8 = 11;
/// What a mark has at most.
pub const MAX_MARK: u16 = (1 << 15) - 1;

const DIGESTS: u8 = 1;
const LISTING: u8 = 2;
const RECORDS: u8 = 3;
const TOO_LARGE: u8 = 4;

/// How members fall into buckets in one comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Partitioning {
    /// Keys the hash.
    pub salt: u64,
    /// The binary logarithm of the number of buckets, at most [`MAX_ORDER`].
    pub order: u8,
}

/// One step.
#[derive(Clone, PartialEq, Debug)]
pub enum SyncStep {
    /// "These are my buckets."
    Digests(Digests),
    /// "These are my members in the buckets that differ."
    Listing(Listing),
    /// "This is what you lack, and this is what I lack."
    Records(Records),
    /// "My answer does not fit a packet: ask over a stream."
    TooLarge {
        /// That of the question.
        salt: u64,
    },
}

/// What a step may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SyncLimits {
    /// A record with longer meta is skipped.
    pub max_meta_bytes: usize,
    /// More records, or more places that are named, than there may be members make a step unreadable.
    pub max_members: usize,
}

/// A step that came over a stream, and what goes with it.
#[derive(Clone, PartialEq, Debug)]
pub struct SyncBody {
    /// What was read, or why it could not be.
    pub step: Result<SyncStep, BodyError>,
    /// Lives until its records are merged.
    pub held: Held,
}

impl SyncBody {
    /// Reads a body.
    pub fn read(body: &[u8], limits: &SyncLimits) -> Self {
        Self { step: read(body, limits), held: Held::default() }
    }

    /// How many records came.
    pub fn records(&self) -> usize {
        match &self.step {
            Ok(SyncStep::Records(records)) => records.records.len(),
            _ => 0,
        }
    }
}

/// A digest of each bucket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Digests {
    /// How members fall into them.
    pub partitioning: Partitioning,
    /// As many as there are buckets.
    pub digests: Vec<u16>,
}

/// The members in some buckets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listing {
    /// How members fall into them.
    pub partitioning: Partitioning,
    /// Buckets in ascending order, with their members.
    pub buckets: Vec<(u16, Vec<Mark>)>,
}

/// A member in a listing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mark {
    /// 15 bits of a hash of its name.
    pub mark: u16,
    /// The lowest byte of its incarnation.
    pub incarnation: u8,
}

/// Members, and places in a listing.
#[derive(Clone, PartialEq, Debug)]
pub struct Records {
    /// How members fall into buckets.
    pub partitioning: Partitioning,
    /// What is wanted of the listing: for each bucket, in ascending order, its members by their places.
    pub wanted: Vec<(u16, Vec<bool>)>,
    /// What the receiver lacks.
    pub records: Vec<RemoteRecord>,
    /// Records that were left out, being in an unknown state or not understood.
    pub skipped: usize,
}

/// Appends the question with a digest of each bucket.
pub fn write_digests(partitioning: Partitioning, digests: &[u16], out: &mut Vec<u8>) {
    write_head(DIGESTS, partitioning, out);
    digests.iter().for_each(|digest| out.extend_from_slice(&digest.to_le_bytes()));
}

/// Appends the answer with the members of the differing buckets, which are in ascending order.
pub fn write_listing(partitioning: Partitioning, buckets: &[(u16, Vec<Mark>)], out: &mut Vec<u8>) {
    write_head(LISTING, partitioning, out);
    let mut next = 0;
    for (bucket, marks) in buckets {
        write_bucket(&mut next, *bucket, out);
        write_number(marks.len(), out);
        for mark in marks {
            let plain = mark.incarnation == 1;
            let word = mark.mark << 1 | u16::from(!plain);
            out.extend_from_slice(&word.to_le_bytes());
            if !plain {
                out.push(mark.incarnation);
            }
        }
    }
}

/// Appends the answer that does not fit.
pub fn write_too_large(salt: u64, out: &mut Vec<u8>) {
    out.push(TOO_LARGE);
    out.extend_from_slice(&salt.to_le_bytes());
}

/// Appends records, and what is wanted.
pub fn write_records<'a>(
    partitioning: Partitioning,
    wanted: &[(u16, Vec<bool>)],
    records: impl IntoIterator<Item = &'a SnapshotRecord>,
    out: &mut Vec<u8>,
) {
    write_head(RECORDS, partitioning, out);
    write_number(wanted.len(), out);
    let mut next = 0;
    for (bucket, places) in wanted {
        write_bucket(&mut next, *bucket, out);
        write_places(places, out);
    }
    for record in records {
        native::encode_node_state(&record.node, record.incarnation, record.state, out);
    }
}

fn write_head(step: u8, Partitioning { salt, order }: Partitioning, out: &mut Vec<u8>) {
    out.push(step);
    out.extend_from_slice(&salt.to_le_bytes());
    out.push(order);
}

/// A bucket, as how many were passed over since the last one.
fn write_bucket(next: &mut u16, bucket: u16, out: &mut Vec<u8>) {
    write_number(usize::from(bucket - *next), out);
    *next = bucket + 1;
}

fn write_number(number: usize, out: &mut Vec<u8>) {
    // Buckets, and members of one, are far fewer than 2^32.
    let (bytes, used) = native::length_bytes(u32::try_from(number).unwrap_or(u32::MAX));
    out.extend_from_slice(&bytes[..used]);
}

/// One bit a place, lowest first, seven to a byte; the top bit is set on all bytes but the last.
fn write_places(places: &[bool], out: &mut Vec<u8>) {
    let groups = places.len().div_ceil(7).max(1);
    for group in 0..groups {
        let bits = places.iter().skip(7 * group).take(7).enumerate();
        let byte = bits.fold(0, |byte, (i, wanted)| byte | u8::from(*wanted) << i);
        let more = if group + 1 < groups { 0x80 } else { 0 };
        out.push(byte | more);
    }
}

/// Reads a step.
///
/// # Errors
/// If it is cut off, of an unknown kind, over a limit, or a number is out of range.
pub fn read(mut body: &[u8], limits: &SyncLimits) -> Result<SyncStep, BodyError> {
    let input = &mut body;
    let step = take_byte(input)?;
    let salt = u64::from_le_bytes(*take(input)?);
    if step == TOO_LARGE {
        return Ok(SyncStep::TooLarge { salt });
    }
    let order = take_byte(input)?;
    if order > MAX_ORDER {
        return Err(BodyError::Malformed("more buckets than there may be"));
    }
    let partitioning = Partitioning { salt, order };
    match step {
        DIGESTS => read_digests(partitioning, input).map(SyncStep::Digests),
        LISTING => read_listing(partitioning, input).map(SyncStep::Listing),
        RECORDS => read_records(partitioning, input, limits).map(SyncStep::Records),
        _ => Err(BodyError::Malformed("an unknown step of comparing members")),
    }
}

fn read_digests(partitioning: Partitioning, input: &mut &[u8]) -> Result<Digests, BodyError> {
    let buckets = 1 << partitioning.order;
    let bytes = input.get(..2 * buckets).ok_or(BodyError::Truncated)?;
    let pairs = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    Ok(Digests { partitioning, digests: pairs.collect() })
}

fn read_listing(partitioning: Partitioning, input: &mut &[u8]) -> Result<Listing, BodyError> {
    let (mut buckets, mut next) = (Vec::new(), 0);
    while !input.is_empty() {
        let bucket = take_bucket(&mut next, partitioning, input)?;
        let count = take_number(input)?;
        if count > input.len() / 2 {
            return Err(BodyError::Truncated);
        }
        let marks = (0..count).map(|_| take_mark(input)).collect::<Result<_, _>>()?;
        buckets.push((bucket, marks));
    }
    Ok(Listing { partitioning, buckets })
}

fn take_mark(input: &mut &[u8]) -> Result<Mark, BodyError> {
    let word = u16::from_le_bytes(*take(input)?);
    let incarnation = if word & 1 == 0 { 1 } else { take_byte(input)? };
    Ok(Mark { mark: word >> 1, incarnation })
}

fn read_records(
    partitioning: Partitioning,
    input: &mut &[u8],
    limits: &SyncLimits,
) -> Result<Records, BodyError> {
    let (mut wanted, mut next, mut places_left) = (Vec::new(), 0, limits.max_members);
    for _ in 0..take_number(input)? {
        let bucket = take_bucket(&mut next, partitioning, input)?;
        wanted.push((bucket, take_places(input, &mut places_left)?));
    }
    let max_members = limits.max_members;
    let limits = StreamLimits { max_meta_bytes: limits.max_meta_bytes, ..StreamLimits::default() };
    let (mut records, mut skipped) = (Vec::new(), 0);
    while !input.is_empty() {
        let body = native::take_counted(input).map_err(length_error)?;
        if records.len() == max_members {
            return Err(BodyError::Malformed("more records than there may be members"));
        }
        let read = native::decode_node_state(body);
        match read.map(|node| node.map(|node| remote_record(&node, &limits))) {
            Ok(Some(Ok(record))) => records.push(record),
            // One record that is not understood does not spoil the others.
            Ok(None | Some(Err(_))) | Err(_) => skipped += 1,
        }
    }
    Ok(Records { partitioning, wanted, records, skipped })
}

/// `left` is a budget for all that is named; what fills the last byte is free.
fn take_places(input: &mut &[u8], left: &mut usize) -> Result<Vec<bool>, BodyError> {
    let mut places = Vec::new();
    loop {
        let byte = take_byte(input)?;
        if byte >= 0x80 {
            *left = left
                .checked_sub(7)
                .ok_or(BodyError::Malformed("more places than there may be members"))?;
        }
        places.extend((0..7).map(|i| byte >> i & 1 == 1));
        if byte < 0x80 {
            return Ok(places);
        }
    }
}

fn take_bucket(
    next: &mut usize,
    partitioning: Partitioning,
    input: &mut &[u8],
) -> Result<u16, BodyError> {
    let bucket = next.saturating_add(take_number(input)?);
    if bucket >= 1 << partitioning.order {
        return Err(BodyError::Malformed("a bucket that there is not"));
    }
    *next = bucket + 1;
    u16::try_from(bucket).map_err(|_| BodyError::Malformed("a bucket that there is not"))
}

fn take_number(input: &mut &[u8]) -> Result<usize, BodyError> {
    native::take_length(input).map_err(length_error)
}

fn length_error(error: LengthError) -> BodyError {
    match error {
        LengthError::Truncated => BodyError::Truncated,
        LengthError::Overflow => BodyError::Malformed("a length is out of range"),
    }
}

fn take_byte(input: &mut &[u8]) -> Result<u8, BodyError> {
    take::<1>(input).map(|byte| byte[0])
}

fn take<'a, const N: usize>(input: &mut &'a [u8]) -> Result<&'a [u8; N], BodyError> {
    let (taken, rest) = input.split_first_chunk().ok_or(BodyError::Truncated)?;
    *input = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::node::{Node, NodeId, NodeState, Versions};

    const PARTITIONING: Partitioning = Partitioning { salt: 0x0102_0304_0506_0708, order: 3 };

    fn limits(max_meta_bytes: usize) -> SyncLimits {
        SyncLimits { max_meta_bytes, max_members: 100 }
    }

    fn mark(mark: u16, incarnation: u8) -> Mark {
        Mark { mark, incarnation }
    }

    fn record(name: &str, incarnation: u32) -> SnapshotRecord {
        let addr = "10.0.0.1:7946".parse().unwrap();
        let meta = Bytes::from_static(b"meta");
        let node = Node::new(NodeId::new(name).unwrap(), addr, meta, Versions::default());
        SnapshotRecord { node: Arc::new(node), incarnation, state: NodeState::Alive }
    }

    #[test]
    fn digests_are_the_documented_bytes() {
        let mut bytes = Vec::new();
        let digests = [1, 2, 3, 4, 5, 6, 7, 0x0908];
        write_digests(PARTITIONING, &digests, &mut bytes);
        assert_eq!(bytes[..14], [1, 8, 7, 6, 5, 4, 3, 2, 1, 3, 1, 0, 2, 0]);
        assert_eq!(bytes[24..], [8, 9]);
        let expected = Digests { partitioning: PARTITIONING, digests: digests.to_vec() };
        assert_eq!(read(&bytes, &limits(512)), Ok(SyncStep::Digests(expected)));
    }

    #[test]
    fn a_listing_is_the_documented_bytes() {
        let mut bytes = Vec::new();
        let buckets =
            vec![(2, vec![mark(5, 1), mark(MAX_MARK, 200)]), (3, vec![]), (7, vec![mark(0, 0)])];
        write_listing(PARTITIONING, &buckets, &mut bytes);
        let expected = [2, 2, 10, 0, 255, 255, 200, 0, 0, 3, 1, 1, 0, 0];
        assert_eq!(bytes[10..], expected);
        let expected = Listing { partitioning: PARTITIONING, buckets };
        assert_eq!(read(&bytes, &limits(512)), Ok(SyncStep::Listing(expected)));
    }

    #[test]
    fn records_come_with_what_is_wanted() {
        let mut bytes = Vec::new();
        let mut places = vec![false; 9];
        places[0] = true;
        places[8] = true;
        let wanted = vec![(1, vec![true]), (4, places)];
        let records = [record("a", 1), record("b", 77)];
        write_records(PARTITIONING, &wanted, &records, &mut bytes);
        assert_eq!(bytes[10..16], [2, 1, 1, 2, 0x81, 2]);
        let Ok(SyncStep::Records(read)) = read(&bytes, &limits(512)) else { panic!("unreadable") };
        assert_eq!(read.wanted[0].1.iter().filter(|wanted| **wanted).count(), 1);
        assert!(read.wanted[1].1[0] && read.wanted[1].1[8]);
        assert_eq!(read.wanted[1].1.len(), 14);
        let names: Vec<_> =
            read.records.iter().map(|r| (r.node.id.as_str(), r.incarnation)).collect();
        assert_eq!((names, read.skipped), (vec![("a", 1), ("b", 77)], 0));
    }

    #[test]
    fn a_record_that_is_not_understood_does_not_spoil_the_others() {
        let mut bytes = Vec::new();
        write_records(PARTITIONING, &[], &[record("a", 1), record("b", 2)], &mut bytes);
        let Ok(SyncStep::Records(short)) = read(&bytes, &limits(3)) else { panic!("unreadable") };
        assert_eq!((short.records.len(), short.skipped), (0, 2));
        // The first one's state.
        bytes[12] = 9;
        let Ok(SyncStep::Records(read)) = read(&bytes, &limits(512)) else { panic!("unreadable") };
        assert_eq!((read.records.len(), read.skipped), (1, 1));
    }

    #[test]
    fn nonsense_is_refused() {
        let head = |step: u8, order: u8, rest: &[u8]| {
            let mut bytes = vec![step, 0, 0, 0, 0, 0, 0, 0, 0, order];
            bytes.extend_from_slice(rest);
            read(&bytes, &limits(512))
        };
        assert_eq!(read(&[], &limits(512)), Err(BodyError::Truncated));
        assert_eq!(read(&[4, 1, 2], &limits(512)), Err(BodyError::Truncated));
        assert!(matches!(head(9, 0, &[]), Err(BodyError::Malformed(_))));
        assert!(matches!(head(1, 12, &[0; 9000]), Err(BodyError::Malformed(_))));
        assert_eq!(head(1, 3, &[0; 15]), Err(BodyError::Truncated));
        assert!(matches!(head(2, 3, &[8, 0]), Err(BodyError::Malformed(_))));
        assert!(matches!(head(2, 3, &[7, 0, 0, 0]), Err(BodyError::Malformed(_))));
        // A claim of more than came.
        assert_eq!(head(2, 3, &[0, 0xFF, 0xFF, 0xFF, 0x0F]), Err(BodyError::Truncated));
        assert_eq!(head(3, 3, &[1, 0, 0x80]), Err(BodyError::Truncated));
        assert_eq!(head(3, 3, &[0, 200]), Err(BodyError::Truncated));
    }

    #[test]
    fn no_step_names_more_than_there_may_be_members() {
        let records: Vec<_> = (0..101).map(|_| record("a", 1)).collect();
        let mut bytes = Vec::new();
        write_records(PARTITIONING, &[], &records[..100], &mut bytes);
        assert!(read(&bytes, &limits(512)).is_ok());
        bytes.clear();
        write_records(PARTITIONING, &[], &records, &mut bytes);
        assert!(matches!(read(&bytes, &limits(512)), Err(BodyError::Malformed(_))));
        for (places, fits) in [(105, true), (106, false)] {
            bytes.clear();
            write_records(PARTITIONING, &[(0, vec![true; places])], &[], &mut bytes);
            assert_eq!(read(&bytes, &limits(512)).is_ok(), fits, "{places}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..200), step in 1u8..5) {
            let _ = read(&bytes, &limits(512));
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = step;
            }
            let _ = read(&bytes, &limits(512));
        }

        #[test]
        fn a_listing_comes_back(
            buckets in prop::collection::btree_map(0u16..8, prop::collection::vec((0..=MAX_MARK, any::<u8>()), 0..20), 0..8)
        ) {
            let buckets: Vec<(u16, Vec<Mark>)> = buckets
                .into_iter()
                .map(|(bucket, marks)| (bucket, marks.into_iter().map(|(m, i)| mark(m, i)).collect()))
                .collect();
            let mut bytes = Vec::new();
            write_listing(PARTITIONING, &buckets, &mut bytes);
            let expected = Listing { partitioning: PARTITIONING, buckets };
            prop_assert_eq!(read(&bytes, &limits(512)), Ok(SyncStep::Listing(expected)));
        }
    }
}
