//! MessagePack as Go memberlist writes it, and all that it reads.
//!
//! Written are maps, the "raw" family of strings (never `str8`, never `bin`, which old peers cannot
//! read) and the shortest integers. Read is what Go's codec reads: integers, strings and byte arrays of
//! any family, byte arrays also as arrays of small numbers, nil as the zero of any field, structs also
//! as arrays. What is read borrows from the input; nothing is allocated by what a length claims.

use std::borrow::Cow;

use rmp::Marker;

/// The most values in one object, those of nested ones included. What a peer writes has about twenty;
/// a byte array that comes as an array of numbers counts each. Listed among the safety limits.
const MAX_VALUES: u32 = 4096;
/// How deep containers may nest: where Go's codec gives up.
const MAX_DEPTH: u32 = 1024;

/// Why an object cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadError {
    /// The input ends before the object does.
    Truncated {
        /// The object is at least so long, in bytes.
        needs: usize,
    },
    /// No encoder writes this.
    Malformed(&'static str),
}

/// Reads values from the beginning of bytes that may go on behind them.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    values: u32,
    depth: u32,
}

/// What a struct is written as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Container {
    Nil,
    Map(u32),
    Array(u32),
}

/// An integer of any family.
#[derive(Clone, Copy)]
enum Integer {
    Unsigned(u64),
    Signed(i64),
}

type Read<T> = Result<T, ReadError>;

impl<'a> Reader<'a> {
    /// Reads from the first of these bytes on.
    pub fn new(bytes: &'a [u8]) -> Self {
        // The object itself is one container.
        Self { bytes, at: 0, values: 0, depth: 1 }
    }

    /// How many bytes have been read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, len: usize) -> Read<&'a [u8]> {
        let end = self.at.saturating_add(len);
        let taken = self.bytes.get(self.at..end).ok_or(ReadError::Truncated { needs: end })?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Read<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Read<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Read<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Read<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn marker(&mut self) -> Read<Marker> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(ReadError::Malformed("an object of too many values"));
        }
        self.u8().map(Marker::from_u8)
    }

    /// Runs `read` one container deeper.
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        self.depth += 1;
        if self.depth >= MAX_DEPTH {
            return Err(ReadError::Malformed("containers nested too deep"));
        }
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    /// The beginning of a struct.
    pub(super) fn container(&mut self) -> Read<Container> {
        let marker = self.marker()?;
        if marker == Marker::Null {
            return Ok(Container::Nil);
        }
        if let Some(len) = self.map_len(marker)? {
            return Ok(Container::Map(len));
        }
        match self.array_len(marker)? {
            Some(len) => Ok(Container::Array(len)),
            None => Err(ReadError::Malformed("neither a map nor an array in place of a message")),
        }
    }

    fn map_len(&mut self, marker: Marker) -> Read<Option<u32>> {
        Ok(Some(match marker {
            Marker::FixMap(len) => u32::from(len),
            Marker::Map16 => u32::from(self.u16()?),
            Marker::Map32 => self.u32()?,
            _ => return Ok(None),
        }))
    }

    fn array_len(&mut self, marker: Marker) -> Read<Option<u32>> {
        Ok(Some(match marker {
            Marker::FixArray(len) => u32::from(len),
            Marker::Array16 => u32::from(self.u16()?),
            Marker::Array32 => self.u32()?,
            _ => return Ok(None),
        }))
    }

    /// The bytes of a string or binary value of any family.
    fn raw(&mut self, marker: Marker) -> Read<Option<&'a [u8]>> {
        let len = match marker {
            Marker::FixStr(len) => u32::from(len),
            Marker::Str8 | Marker::Bin8 => u32::from(self.u8()?),
            Marker::Str16 | Marker::Bin16 => u32::from(self.u16()?),
            Marker::Str32 | Marker::Bin32 => self.u32()?,
            _ => return Ok(None),
        };
        self.take(usize::try_from(len).unwrap_or(usize::MAX)).map(Some)
    }

    /// A key of a struct: a text, but not an empty one, over which Go's codec stumbles.
    pub(super) fn key(&mut self) -> Read<Cow<'a, [u8]>> {
        let key = self.text()?;
        match key.is_empty() {
            true => Err(ReadError::Malformed("a field without a name")),
            false => Ok(key),
        }
    }

    /// Passes over this key, which has less than 32 bytes, if it stands here as Go writes it.
    #[inline]
    pub(super) fn skip_key(&mut self, key: &str) -> bool {
        let Some((&marker, behind)) = self.rest().split_first() else {
            return false;
        };
        let found = marker == Marker::FixStr(key.len() as u8).to_u8()
            && behind.starts_with(key.as_bytes())
            && self.values < MAX_VALUES;
        if found {
            self.values += 1;
            self.at += 1 + key.len();
        }
        found
    }

    /// The value of a text field; nil reads as empty. Go's codec also takes an array of
    /// numbers.
    pub(super) fn text(&mut self) -> Read<Cow<'a, [u8]>> {
        let marker = self.marker()?;
        if let Some(raw) = self.raw(marker)? {
            return Ok(raw.into());
        }
        match marker {
            Marker::Null => Ok(Cow::default()),
            _ => match self.array_len(marker)? {
                Some(len) => self.numbers(len).map(Cow::Owned),
                None => Err(ReadError::Malformed("a text is neither a string nor binary")),
            },
        }
    }

    /// The value of a byte array field, which may be nil. Go's codec also takes an array of numbers, or
    /// even a map of them.
    pub(super) fn bytes(&mut self) -> Read<Option<Cow<'a, [u8]>>> {
        let marker = self.marker()?;
        if let Some(raw) = self.raw(marker)? {
            return Ok(Some(raw.into()));
        }
        if marker == Marker::Null {
            return Ok(None);
        }
        let len = match self.array_len(marker)? {
            Some(len) => Some(len),
            None => self.map_len(marker)?.map(|pairs| pairs.saturating_mul(2)),
        };
        match len {
            Some(len) => self.numbers(len).map(|bytes| Some(Cow::Owned(bytes))),
            None => Err(ReadError::Malformed("a byte array is neither binary nor an array")),
        }
    }

    fn numbers(&mut self, len: u32) -> Read<Vec<u8>> {
        if len == 0 {
            return Ok(Vec::new());
        }
        // Each costs at least a byte of what is there, and counts as a value.
        self.nested(|reader| (0..len).map(|_| reader.unsigned()).collect())
    }

    fn integer(&mut self) -> Read<Integer> {
        use Integer::{Signed, Unsigned};
        Ok(match self.marker()? {
            Marker::Null => Unsigned(0),
            Marker::FixPos(n) => Unsigned(n.into()),
            Marker::FixNeg(n) => Signed(n.into()),
            Marker::U8 => Unsigned(self.u8()?.into()),
            Marker::U16 => Unsigned(self.u16()?.into()),
            Marker::U32 => Unsigned(self.u32()?.into()),
            Marker::U64 => Unsigned(self.u64()?),
            Marker::I8 => Signed(i64::from(self.u8()? as i8)),
            Marker::I16 => Signed(i64::from(self.u16()? as i16)),
            Marker::I32 => Signed(i64::from(self.u32()? as i32)),
            Marker::I64 => Signed(self.u64()? as i64),
            _ => return Err(ReadError::Malformed("a number is not an integer")),
        })
    }

    /// An integer that must not be negative, and must fit its field.
    pub(super) fn unsigned<N: TryFrom<u64>>(&mut self) -> Read<N> {
        let value = match self.integer()? {
            Integer::Unsigned(n) => n,
            Integer::Signed(n) => u64::try_from(n)
                .map_err(|_| ReadError::Malformed("a negative number where none can be"))?,
        };
        N::try_from(value).map_err(|_| ReadError::Malformed("a number is out of range"))
    }

    /// An integer of 64 bits; what is over its range wraps, as in Go.
    pub(super) fn signed(&mut self) -> Read<i64> {
        Ok(match self.integer()? {
            Integer::Unsigned(n) => n as i64,
            Integer::Signed(n) => n,
        })
    }

    /// A truth value, for which 0 and 1 may stand.
    pub(super) fn boolean(&mut self) -> Read<bool> {
        match self.marker()? {
            Marker::False | Marker::Null | Marker::FixPos(0) => Ok(false),
            Marker::True | Marker::FixPos(1) => Ok(true),
            _ => Err(ReadError::Malformed("a truth value is neither true nor false")),
        }
    }

    /// Passes over one value of any kind.
    pub(super) fn skip(&mut self) -> Read<()> {
        let marker = self.marker()?;
        if self.raw(marker)?.is_some() {
            return Ok(());
        }
        let fixed = match marker {
            Marker::Null | Marker::True | Marker::False => 0,
            Marker::FixPos(_) | Marker::FixNeg(_) => 0,
            Marker::U8 | Marker::I8 => 1,
            Marker::U16 | Marker::I16 => 2,
            Marker::U32 | Marker::I32 | Marker::F32 => 4,
            Marker::U64 | Marker::I64 | Marker::F64 => 8,
            Marker::Reserved => return Err(ReadError::Malformed("a value of an unknown kind")),
            _ => return self.skip_compound(marker),
        };
        self.take(fixed).map(|_| ())
    }

    fn skip_compound(&mut self, marker: Marker) -> Read<()> {
        let items = match (self.map_len(marker)?, marker) {
            (Some(pairs), _) => u64::from(pairs) * 2,
            (None, _) => match self.array_len(marker)? {
                Some(len) => u64::from(len),
                None => return self.skip_extension(marker),
            },
        };
        self.nested(|reader| (0..items).try_for_each(|_| reader.skip()))
    }

    fn skip_extension(&mut self, marker: Marker) -> Read<()> {
        let len = match marker {
            Marker::FixExt1 => 1,
            Marker::FixExt2 => 2,
            Marker::FixExt4 => 4,
            Marker::FixExt8 => 8,
            Marker::FixExt16 => 16,
            Marker::Ext8 => u32::from(self.u8()?),
            Marker::Ext16 => u32::from(self.u16()?),
            Marker::Ext32 => self.u32()?,
            _ => return Err(ReadError::Malformed("a value of an unknown kind")),
        };
        let kind = self.u8()?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX))?;
        // A time, which Go's codec understands, and refuses if it has another length.
        if kind == 0xFF && !matches!(len, 4 | 8 | 12) {
            return Err(ReadError::Malformed("a time of an unknown length"));
        }
        Ok(())
    }
}

/// Appends the beginning of a map of so many fields, fewer than 16.
pub(super) fn write_map(fields: u8, out: &mut Vec<u8>) {
    out.push(Marker::FixMap(fields).to_u8());
}

/// Appends nil.
pub(super) fn write_nil(out: &mut Vec<u8>) {
    out.push(Marker::Null.to_u8());
}

/// Appends a truth value.
pub(super) fn write_boolean(value: bool, out: &mut Vec<u8>) {
    out.push(if value { Marker::True } else { Marker::False }.to_u8());
}

/// Appends a string or byte array in the raw family.
pub(super) fn write_raw(bytes: &[u8], out: &mut Vec<u8>) {
    match (u8::try_from(bytes.len()), u16::try_from(bytes.len())) {
        (Ok(len @ 0..=31), _) => out.push(Marker::FixStr(len).to_u8()),
        (_, Ok(len)) => {
            out.push(Marker::Str16.to_u8());
            out.extend_from_slice(&len.to_be_bytes());
        }
        // What is longer than 4 GiB is refused before it comes here.
        _ => {
            out.push(Marker::Str32.to_u8());
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&len.to_be_bytes());
        }
    }
    out.extend_from_slice(bytes);
}

/// Appends a number of an unsigned field: the shortest of its family.
pub(super) fn write_unsigned(value: u32, out: &mut Vec<u8>) {
    match (u8::try_from(value), u16::try_from(value)) {
        (Ok(n @ 0..=127), _) => out.push(n),
        (Ok(n), _) => out.extend_from_slice(&[Marker::U8.to_u8(), n]),
        (_, Ok(n)) => {
            out.push(Marker::U16.to_u8());
            out.extend_from_slice(&n.to_be_bytes());
        }
        _ => {
            out.push(Marker::U32.to_u8());
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

/// Appends a number of a signed field, which is never negative here: Go's codec has no byte for it
/// between the one and the two byte form.
pub(super) fn write_signed(value: u32, out: &mut Vec<u8>) {
    match (i8::try_from(value), i16::try_from(value), i32::try_from(value)) {
        (Ok(n), ..) => out.push(n as u8),
        (_, Ok(n), _) => {
            out.push(Marker::I16.to_u8());
            out.extend_from_slice(&n.to_be_bytes());
        }
        (.., Ok(n)) => {
            out.push(Marker::I32.to_u8());
            out.extend_from_slice(&n.to_be_bytes());
        }
        _ => {
            out.push(Marker::I64.to_u8());
            out.extend_from_slice(&i64::from(value).to_be_bytes());
        }
    }
}
