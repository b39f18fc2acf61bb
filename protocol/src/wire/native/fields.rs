//! The fields of bodies, one by one: bincode 2's standard configuration, which `docs/WIRE.md` states.
//!
//! A number is one byte if it is at most 250; 251, 252 and 253 announce two, four and eight bytes,
//! little-endian. A byte string and a text are their length and their bytes. What is read borrows from the
//! input, and nothing is allocated, whatever its lengths say.

use crate::wire::error::BodyError;

/// The most bytes of one field: more than the largest packet, and than the largest name or meta.
pub(in crate::wire) const BODY_LIMIT: usize = 128 * 1024;

/// The largest number that is its own byte.
const ONE_BYTE: u8 = 250;
const TWO_BYTES: u8 = 251;
const FOUR_BYTES: u8 = 252;
const EIGHT_BYTES: u8 = 253;

/// Where fields are written.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// A place with room for all that is written to it.
pub(super) struct Place<'a> {
    pub(super) room: &'a mut [u8],
    pub(super) used: usize,
}

impl Sink for Place<'_> {
    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        let end = self.used + bytes.len();
        copy(bytes, &mut self.room[self.used..end]);
        self.used = end;
    }
}

/// Copies, up to 16 bytes in two halves that overlap.
#[inline(always)]
fn copy(from: &[u8], to: &mut [u8]) {
    match from.len() {
        8..=16 => copy_ends::<8>(from, to),
        4..=7 => copy_ends::<4>(from, to),
        _ => to.copy_from_slice(from),
    }
}

#[inline(always)]
fn copy_ends<const N: usize>(from: &[u8], to: &mut [u8]) {
    if let (Some(start), Some(end)) = (from.first_chunk::<N>(), from.last_chunk::<N>()) {
        let (start, end) = (*start, *end);
        to[..N].copy_from_slice(&start);
        let at = to.len() - N;
        to[at..].copy_from_slice(&end);
    }
}

/// Counts what would be written.
#[derive(Default)]
pub(super) struct Length(pub(super) usize);

impl Sink for Length {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// The fields that have not been read yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

const OUT_OF_RANGE: BodyError = BodyError::Malformed("a number is out of range");

impl<'a> Fields<'a> {
    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], BodyError> {
        let (&array, rest) = self.0.split_first_chunk().ok_or(BodyError::Truncated)?;
        self.0 = rest;
        Ok(array)
    }
}

/// A field, or a body of several.
pub(super) trait Field<'a>: Sized {
    fn read(from: &mut Fields<'a>) -> Result<Self, BodyError>;

    fn write(&self, out: &mut impl Sink);

    #[inline]
    fn encoded_len(&self) -> usize {
        let mut length = Length::default();
        self.write(&mut length);
        length.0
    }
}

impl<'a> Field<'a> for u8 {
    #[inline]
    fn read(from: &mut Fields<'a>) -> Result<Self, BodyError> {
        let [byte] = from.array()?;
        Ok(byte)
    }

    #[inline(always)]
    fn write(&self, out: &mut impl Sink) {
        out.put(&[*self]);
    }
}

impl<'a> Field<'a> for u16 {
    #[inline]
    fn read(from: &mut Fields<'a>) -> Result<Self, BodyError> {
        match u8::read(from)? {
            byte @ 0..=ONE_BYTE => Ok(byte.into()),
            TWO_BYTES => Ok(u16::from_le_bytes(from.array()?)),
            _ => Err(OUT_OF_RANGE),
        }
    }

    #[inline(always)]
    fn write(&self, out: &mut impl Sink) {
        u64::from(*self).write(out);
    }
}

impl<'a> Field<'a> for u32 {
    #[inline]
    fn read(from: &mut Fields<'a>) -> Result<Self, BodyError> {
        match u8::read(from)? {
            byte @ 0..=ONE_BYTE => Ok(byte.into()),
            TWO_BYTES => Ok(u16::from_le_bytes(from.array()?).into()),
            FOUR_BYTES => Ok(u32::from_le_bytes(from.array()?)),
            _ => Err(OUT_OF_RANGE),
        }
    }

    #[inline(always)]
    fn write(&self, out: &mut impl Sink) {
        u64::from(*self).write(out);
    }
}

impl<'a> Field<'a> for u64 {
    #[inline]
    fn read(from: &mut Fields<'a>) -> Result<Self, BodyError> {
        match u8::read(from)? {
            byte @ 0..=ONE_BYTE => Ok(byte.into()),
            TWO_BYTES => Ok(u16::from_le_bytes(from.array()?).into()),
            FOUR_BYTES => Ok(u32::from_le_bytes(from.array()?).into()),
            EIGHT_BYTES => Ok(u64::from_le_bytes(from.array()?)),
            _ => Err(OUT_OF_RANGE),
        }
    }

    #[inline(always)]
    fn write(&self, out: &mut impl Sink) {
        let number = *self;
        match number {
            0..=250 => out.put(&[number as u8]),
            251..=0xFFFF => {
                let [a, b] = (number as u16).to_le_bytes();
                out.put(&[TWO_BYTES, a, b]);
            }
            0x1_0000..=0xFFFF_FFFF => {
                let [a, b, c, d] = (number as u32).to_le_bytes();
                out.put(&[FOUR_BYTES, a, b, c, d]);
            }
            _ => {
                out.put(&[EIGHT_BYTES]);
                out.put(&number.to_le_bytes());
            }
        }
    }
}

/// At most [`BODY_LIMIT`] of them.
impl<'a> Field<'a> for &'a [u8] {
    #[inline(always)]
    fn read(from: &mut Fields<'a>) -> Result<Self, BodyError> {
        let len = usize::try_from(u64::read(from)?).ok().filter(|len| *len <= BODY_LIMIT);
        let len = len.ok_or(BodyError::Malformed("a length is out of range"))?;
        let (bytes, rest) = from.0.split_at_checked(len).ok_or(BodyError::Truncated)?;
        from.0 = rest;
        Ok(bytes)
    }

    #[inline(always)]
    fn write(&self, out: &mut impl Sink) {
        (self.len() as u64).write(out);
        out.put(self);
    }
}

/// Names are the only text there is.
impl<'a> Field<'a> for &'a str {
    #[inline(always)]
    fn read(from: &mut Fields<'a>) -> Result<Self, BodyError> {
        std::str::from_utf8(Field::read(from)?).map_err(|_| BodyError::NameNotUtf8)
    }

    #[inline(always)]
    fn write(&self, out: &mut impl Sink) {
        self.as_bytes().write(out);
    }
}

impl<'a, T: Field<'a>> Field<'a> for Option<T> {
    #[inline]
    fn read(from: &mut Fields<'a>) -> Result<Self, BodyError> {
        match u8::read(from)? {
            0 => Ok(None),
            1 => T::read(from).map(Some),
            _ => Err(BodyError::Malformed("an optional field is neither there nor absent")),
        }
    }

    #[inline(always)]
    fn write(&self, out: &mut impl Sink) {
        u8::from(self.is_some()).write(out);
        if let Some(field) = self {
            field.write(out);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use bincode::config::standard;
    use bincode::error::DecodeError;
    use proptest::prelude::*;

    use super::*;

    /// What an error of bincode's is here.
    pub(crate) fn meant(error: &DecodeError) -> BodyError {
        match error {
            DecodeError::UnexpectedEnd { .. } => BodyError::Truncated,
            DecodeError::Utf8 { .. } => BodyError::NameNotUtf8,
            DecodeError::LimitExceeded | DecodeError::OutsideUsizeRange(_) => {
                BodyError::Malformed("a length is out of range")
            }
            DecodeError::InvalidIntegerType { .. } => OUT_OF_RANGE,
            DecodeError::UnexpectedVariant { .. } => {
                BodyError::Malformed("an optional field is neither there nor absent")
            }
            other => panic!("{other:?}"),
        }
    }

    fn written<'a>(field: impl Field<'a>) -> Vec<u8> {
        let mut out = Vec::new();
        field.write(&mut out);
        out
    }

    proptest! {
        #[test]
        fn numbers_and_byte_strings_are_as_bincode_writes_them(
            bits in 0_u32..=64,
            random: u64,
            bytes in prop::collection::vec(any::<u8>(), 0..600),
            text in ".{0,80}",
        ) {
            let number = random.checked_shr(64 - bits).unwrap_or_default();
            let bincode = bincode::encode_to_vec(number, standard()).unwrap();
            prop_assert_eq!(written(number), bincode.clone());
            prop_assert_eq!(u64::read(&mut Fields(&bincode)), Ok(number));
            let fields = bincode::encode_to_vec((&bytes[..], text.as_str()), standard()).unwrap();
            let ours = [written(&bytes[..]), written(text.as_str())].concat();
            prop_assert_eq!(&ours, &fields);
            let mut fields = Fields(&ours);
            prop_assert_eq!(Field::read(&mut fields), Ok(&bytes[..]));
            prop_assert_eq!(Field::read(&mut fields), Ok(text.as_str()));
            prop_assert!(fields.0.is_empty());
        }

        #[test]
        fn numbers_of_other_widths_are_read_as_bincode_reads_them(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), 245_u8..=255], 0..10),
        ) {
            fn same<T: bincode::Decode<()> + PartialEq>(
                bytes: &[u8],
                ours: (Result<T, BodyError>, Fields<'_>),
            ) -> bool {
                let theirs = bincode::decode_from_slice::<T, _>(bytes, standard());
                match (theirs, ours) {
                    (Ok((value, used)), (Ok(ours), rest)) => {
                        value == ours && bytes.len() - used == rest.0.len()
                    }
                    (Err(theirs), (Err(ours), _)) => meant(&theirs) == ours,
                    _ => false,
                }
            }
            let mut fields = [Fields(&bytes); 3];
            prop_assert!(same::<u16>(&bytes, (u16::read(&mut fields[0]), fields[0])));
            prop_assert!(same::<u32>(&bytes, (u32::read(&mut fields[1]), fields[1])));
            prop_assert!(same::<u64>(&bytes, (u64::read(&mut fields[2]), fields[2])));
        }
    }

    #[test]
    fn a_length_reserves_nothing_and_has_a_limit() {
        let long = written(BODY_LIMIT as u64 + 1);
        let range = BodyError::Malformed("a length is out of range");
        assert_eq!(<&[u8]>::read(&mut Fields(&long)), Err(range));
        let short = written(BODY_LIMIT as u64);
        assert_eq!(<&[u8]>::read(&mut Fields(&short)), Err(BodyError::Truncated));
        assert_eq!(
            Option::<u8>::read(&mut Fields(&[2])).map_err(|e| e.to_string().contains("absent")),
            Err(true)
        );
    }
}
