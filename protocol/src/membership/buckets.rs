//! What two nodes' live members differ in, found by buckets (`sync` says when they compare).
//!
//! With `p` the bucket and `m` the mark of a member, both by a hash that a salt keys, and `s` a hash of
//! its name and incarnation under the same salt,
//!
//! ```text
//! digest of bucket i = Σ s(x) mod 2^16  over the live members x with p(x) = i
//! ```
//!
//! so equal buckets have equal digests, and buckets that differ have, but for one in 2^16. Members of
//! those are told apart by 15 bits of their mark. What either hides shows under the next salt.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Membership;
use super::digest::hash;
use crate::wire::stream::{RemoteRecord, SnapshotRecord};
use crate::wire::sync::{self, Digests, Listing, MAX_MARK, MAX_ORDER, Mark, Partitioning};

/// The least that a member takes in a listing.
const MARK_BYTES: usize = 2;
/// Members that a bucket is to hold.
const BUCKET_MEMBERS: usize = 4;
/// Keys beside the salt: where a member belongs, and what its bucket's digest is made of.
const PLACE_KEY: u64 = 1;
const STATE_KEY: u64 = 2;

/// What a listing shows to be missing.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// There.
    pub(super) records: Vec<SnapshotRecord>,
    /// Here.
    pub(super) wanted: Vec<(u16, Vec<bool>)>,
    pub(super) wanted_count: usize,
}

/// The members of some buckets, each bucket in the order in which it is listed.
type Buckets = BTreeMap<u16, Vec<(Mark, usize)>>;

/// So many buckets that each holds about [`BUCKET_MEMBERS`], as a power of two.
pub(super) fn order_for(members: usize) -> u8 {
    let buckets = (members / BUCKET_MEMBERS).max(2).next_power_of_two();
    u8::try_from(buckets.ilog2()).unwrap_or(MAX_ORDER).min(MAX_ORDER)
}

impl Membership {
    /// Walks both lists of each bucket. Members of one mark are told apart by their order: where two share
    /// one, too much may be sent, or too little until the next sync, which is keyed anew.
    /// `shown` are the digests that this node showed.
    pub(super) fn difference(&self, listing: &Listing, shown: &[u16]) -> Difference {
        let listed: BTreeMap<u16, &[Mark]> =
            listing.buckets.iter().map(|(bucket, marks)| (*bucket, marks.as_slice())).collect();
        let of_listed = |bucket: u16| listed.contains_key(&bucket);
        let own = self.bucket_members(listing.partitioning, of_listed, usize::MAX);
        let own = own.unwrap_or_default();
        let mut difference = Difference::default();
        for (bucket, theirs) in listed {
            let ours = own.get(&bucket).map_or(&[][..], Vec::as_slice);
            let (mut i, mut places) = (0, vec![false; theirs.len()]);
            let before = difference.records.len();
            for (place, their) in theirs.iter().enumerate() {
                while ours.get(i).is_some_and(|(our, _)| our.mark < their.mark) {
                    difference.records.push(self.snapshot(ours[i].1));
                    i += 1;
                }
                let Some((our, position)) = ours.get(i).filter(|(our, _)| our.mark == their.mark)
                else {
                    places[place] = true;
                    continue;
                };
                // Incarnations mostly differ by little, so that half of the range tells the newer. Where it
                // does not, the one who is sent an older record answers with the newer one.
                match our.incarnation.wrapping_sub(their.incarnation) as i8 {
                    0 => {}
                    1.. => difference.records.push(self.snapshot(*position)),
                    _ => places[place] = true,
                }
                i += 1;
            }
            difference.records.extend(ours[i..].iter().map(|(_, at)| self.snapshot(*at)));
            let wanted = places.iter().filter(|wanted| **wanted).count();
            if wanted > 0 {
                difference.wanted_count += wanted;
                difference.wanted.push((bucket, places));
            } else if difference.records.len() == before
                && shown.get(usize::from(bucket))
                    == Some(&self.digest_of(listing.partitioning, ours))
            {
                // It still differs, and the marks do not show in what: a byte does not tell incarnations
                // apart that are 256 from each other.
                difference.records.extend(ours.iter().map(|(_, at)| self.snapshot(*at)));
            }
        }
        difference
    }

    /// The members in the buckets whose digests are others here; nothing if listing them takes more than
    /// that many bytes.
    pub(super) fn differing(
        &self,
        theirs: &Digests,
        most_bytes: usize,
    ) -> Option<Vec<(u16, Vec<Mark>)>> {
        let ours = self.bucket_digests(theirs.partitioning);
        let differs =
            |bucket: u16| ours[usize::from(bucket)] != theirs.digests[usize::from(bucket)];
        let most = most_bytes / MARK_BYTES;
        let mut members = self.bucket_members(theirs.partitioning, differs, most)?;
        let buckets = (0..ours.len()).filter_map(|bucket| u16::try_from(bucket).ok());
        let list = |bucket: u16| {
            let members = members.remove(&bucket).unwrap_or_default();
            (bucket, members.into_iter().map(|(mark, _)| mark).collect())
        };
        Some(buckets.filter(|bucket| differs(*bucket)).map(list).collect())
    }

    pub(super) fn wanted_records(
        &self,
        partitioning: Partitioning,
        wanted: &[(u16, Vec<bool>)],
    ) -> Vec<SnapshotRecord> {
        let wanted: BTreeMap<u16, &[bool]> =
            wanted.iter().map(|(bucket, places)| (*bucket, places.as_slice())).collect();
        if wanted.is_empty() {
            return Vec::new();
        }
        let of_wanted = |bucket: u16| wanted.contains_key(&bucket);
        let members = self.bucket_members(partitioning, of_wanted, usize::MAX);
        let mut records = Vec::new();
        for (bucket, members) in members.unwrap_or_default() {
            let places = wanted.get(&bucket).copied().unwrap_or_default();
            let chosen = members.iter().zip(places).filter(|(_, wanted)| **wanted);
            records.extend(chosen.map(|((_, position), _)| self.snapshot(*position)));
        }
        records
    }

    /// What this node knows better of what a peer believes alive: that it is gone, or at a higher
    /// incarnation. Each once, however often it came.
    pub(super) fn contradictions(&self, records: &[RemoteRecord]) -> Vec<SnapshotRecord> {
        let newer = |theirs: &RemoteRecord| {
            let position = self.members.position(theirs.node.id.as_str())?;
            let ours = self.members.at(position);
            let known_gone = ours.state().is_gone() && ours.incarnation() >= theirs.incarnation;
            let newer = known_gone || ours.incarnation() > theirs.incarnation;
            (theirs.state.is_live() && newer).then_some(position)
        };
        let positions: BTreeSet<usize> = records.iter().filter_map(newer).collect();
        positions.into_iter().map(|position| self.snapshot(position)).collect()
    }

    /// Writes as many records as fit.
    pub(super) fn write_fitting(
        &self,
        partitioning: Partitioning,
        records: &[SnapshotRecord],
        most: usize,
        body: &mut Vec<u8>,
    ) {
        let mut count = records.len();
        loop {
            body.clear();
            sync::write_records(partitioning, &[], &records[..count], body);
            if body.len() <= most || count == 0 {
                return;
            }
            count = (count * most / body.len()).min(count - 1);
        }
    }

    pub(super) fn snapshot(&self, position: usize) -> SnapshotRecord {
        let record = self.members.at(position);
        SnapshotRecord {
            node: Arc::clone(&record.node),
            incarnation: record.incarnation(),
            state: record.state(),
        }
    }

    /// The digest of one bucket's members.
    fn digest_of(&self, partitioning: Partitioning, members: &[(Mark, usize)]) -> u16 {
        members.iter().fold(0, |digest, (_, position)| {
            let record = self.members.at(*position);
            let (id, incarnation) = (record.node.id.as_str(), record.incarnation());
            digest.wrapping_add(hash((partitioning.salt, STATE_KEY), id, incarnation) as u16)
        })
    }

    pub(super) fn bucket_digests(&self, partitioning: Partitioning) -> Vec<u16> {
        let mut digests = vec![0_u16; 1 << partitioning.order];
        for record in self.members.iter().filter(|record| record.state().is_live()) {
            let id = record.node.id.as_str();
            let (bucket, _) = place(partitioning, id);
            let state = hash((partitioning.salt, STATE_KEY), id, record.incarnation());
            let digest = &mut digests[usize::from(bucket)];
            *digest = digest.wrapping_add(state as u16);
        }
        digests
    }

    /// The members of some buckets, unless they are more than so many.
    fn bucket_members(
        &self,
        partitioning: Partitioning,
        of: impl Fn(u16) -> bool,
        most: usize,
    ) -> Option<Buckets> {
        let (mut buckets, mut count) = (Buckets::new(), 0);
        for (position, record) in self.members.iter().enumerate() {
            if !record.state().is_live() {
                continue;
            }
            let (bucket, mark) = place(partitioning, record.node.id.as_str());
            if of(bucket) {
                count += 1;
                if count > most {
                    return None;
                }
                let mark = Mark { mark, incarnation: record.incarnation() as u8 };
                buckets.entry(bucket).or_default().push((mark, position));
            }
        }
        for members in buckets.values_mut() {
            let name = |position: usize| self.members.at(position).node.id.as_str();
            members.sort_by(|a, b| (a.0, name(a.1)).cmp(&(b.0, name(b.1))));
        }
        Some(buckets)
    }
}

/// A member's bucket, and its mark in there.
fn place(Partitioning { salt, order }: Partitioning, id: &str) -> (u16, u16) {
    let hash = hash((salt, PLACE_KEY), id, 0);
    let bucket = hash.checked_shr(64 - u32::from(order)).unwrap_or(0);
    (bucket as u16, hash as u16 & MAX_MARK)
}
