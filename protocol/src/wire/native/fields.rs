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

    #[inline]
    fn number(&mut self, number: u64) {
        match number {
            0..=250 => self.put(&[number as u8]),
            251..=0xFFFF => {
                let [a, b] = (number as u16).to_le_bytes();
                self.put(&[TWO_BYTES, a, b]);
            }
            0x1_0000..=0xFFFF_FFFF => {
                let [a, b, c, d] = (number as u32).to_le_bytes();
                self.put(&[FOUR_BYTES, a, b, c, d]);
            }
            _ => {
                self.put(&[EIGHT_BYTES]);
                self.put(&number.to_le_bytes());
            }
        }
    }

    #[inline]
    fn byte(&mut self, byte: u8) {
        self.put(&[byte]);
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.put(bytes);
    }

    #[inline]
    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }
}

impl Sink for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
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

/// What has fields.
pub(super) trait Body {
    fn write(&self, out: &mut impl Sink);

    #[inline]
    fn len(&self) -> usize {
        let mut length = Length::default();
        self.write(&mut length);
        length.0
    }
}

/// The fields that have not been read yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

const OUT_OF_RANGE: BodyError = BodyError::Malformed("a number is out of range");

impl<'a> Fields<'a> {
    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, BodyError> {
        let (&byte, rest) = self.0.split_first().ok_or(BodyError::Truncated)?;
        self.0 = rest;
        Ok(byte)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], BodyError> {
        let (&array, rest) = self.0.split_first_chunk().ok_or(BodyError::Truncated)?;
        self.0 = rest;
        Ok(array)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, BodyError> {
        match self.byte()? {
            byte @ 0..=ONE_BYTE => Ok(byte.into()),
            TWO_BYTES => Ok(u16::from_le_bytes(self.array()?)),
            _ => Err(OUT_OF_RANGE),
        }
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, BodyError> {
        match self.byte()? {
            byte @ 0..=ONE_BYTE => Ok(byte.into()),
            TWO_BYTES => Ok(u16::from_le_bytes(self.array()?).into()),
            FOUR_BYTES => Ok(u32::from_le_bytes(self.array()?)),
            _ => Err(OUT_OF_RANGE),
        }
    }

    #[inline]
    pub(super) fn u64(&mut self) -> Result<u64, BodyError> {
        match self.byte()? {
            byte @ 0..=ONE_BYTE => Ok(byte.into()),
            TWO_BYTES => Ok(u16::from_le_bytes(self.array()?).into()),
            FOUR_BYTES => Ok(u32::from_le_bytes(self.array()?).into()),
            EIGHT_BYTES => Ok(u64::from_le_bytes(self.array()?)),
            _ => Err(OUT_OF_RANGE),
        }
    }

    /// At most [`BODY_LIMIT`] of them.
    #[inline(always)]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], BodyError> {
        let len = usize::try_from(self.u64()?).ok().filter(|len| *len <= BODY_LIMIT);
        let len = len.ok_or(BodyError::Malformed("a length is out of range"))?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(BodyError::Truncated)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// Names are the only text there is.
    #[inline(always)]
    pub(super) fn text(&mut self) -> Result<&'a str, BodyError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| BodyError::NameNotUtf8)
    }

    /// Whether an optional field follows.
    #[inline]
    pub(super) fn is_there(&mut self) -> Result<bool, BodyError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(BodyError::Malformed("an optional field is neither there nor absent")),
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

    fn written(write: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
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
            prop_assert_eq!(written(|out| out.number(number)), bincode.clone());
            prop_assert_eq!(Fields(&bincode).u64(), Ok(number));
            let fields = bincode::encode_to_vec((&bytes[..], text.as_str()), standard()).unwrap();
            let ours = written(|out| {
                out.bytes(&bytes);
                out.text(&text);
            });
            prop_assert_eq!(&ours, &fields);
            let mut fields = Fields(&ours);
            prop_assert_eq!(fields.bytes(), Ok(&bytes[..]));
            prop_assert_eq!(fields.text(), Ok(text.as_str()));
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
            prop_assert!(same::<u16>(&bytes, (fields[0].u16(), fields[0])));
            prop_assert!(same::<u32>(&bytes, (fields[1].u32(), fields[1])));
            prop_assert!(same::<u64>(&bytes, (fields[2].u64(), fields[2])));
        }
    }

    #[test]
    fn a_length_reserves_nothing_and_has_a_limit() {
        let long = written(|out| out.number(BODY_LIMIT as u64 + 1));
        let range = BodyError::Malformed("a length is out of range");
        assert_eq!(Fields(&long).bytes(), Err(range));
        let short = written(|out| out.number(BODY_LIMIT as u64));
        assert_eq!(Fields(&short).bytes(), Err(BodyError::Truncated));
        assert_eq!(
            Fields(&[2]).is_there().map_err(|e| e.to_string().contains("absent")),
            Err(true)
        );
    }
}
