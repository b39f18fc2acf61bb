//! One secret key, and the name by which it may be spoken of.
//!
//! A key is 16, 24 or 32 bytes and selects AES-128, AES-192 or AES-256, as in Go memberlist. Nothing
//! here prints key material: errors say what was wrong and never quote the input, and keys are
//! named by their [`Fingerprint`] in logs, listings and commands.

use std::fmt;
use std::hint::black_box;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::TryRng;
use rand::rngs::SysRng;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Sets a fingerprint apart from every other SHA-256 that may be taken of the same bytes.
const FINGERPRINT_DOMAIN: &[u8] = b"memberlist key fingerprint v1\0";
/// The length of the longest key in base64.
const MAX_BASE64_BYTES: usize = 44;

/// The system gave no randomness. Blame: the machine.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no randomness from the system: {0}")]
pub struct RandomnessError(pub String);

/// Fills a buffer from the system's randomness.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), RandomnessError> {
    SysRng.try_fill_bytes(bytes).map_err(|error| RandomnessError(error.to_string()))
}

/// Why something is not a key. Blame: who gave it. The text never quotes what was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Keys have 16, 24 or 32 bytes.
    #[error("a key has 16, 24 or 32 bytes, not {len}")]
    WrongLength {
        /// The length that was given, in bytes, after decoding.
        len: usize,
    },
    /// The text is not base64 of the standard alphabet with padding.
    #[error("the key is not valid base64")]
    NotBase64,
    /// The text is not a key in base64, but would be one in hexadecimal.
    #[error("the key looks like hexadecimal, and base64 is wanted")]
    LooksLikeHex,
    /// The text is not pairs of hexadecimal digits.
    #[error("the key is not valid hexadecimal")]
    NotHex,
}

/// How long a key is, and so which AES it selects.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum KeySize {
    /// 16 bytes: AES-128.
    Bits128,
    /// 24 bytes: AES-192.
    Bits192,
    /// 32 bytes: AES-256. What Serf and Consul generate.
    Bits256,
}

impl KeySize {
    /// The length of such a key in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Bits128 => 16,
            Self::Bits192 => 24,
            Self::Bits256 => 32,
        }
    }

    fn of(len: usize) -> Result<Self, KeyError> {
        match len {
            16 => Ok(Self::Bits128),
            24 => Ok(Self::Bits192),
            32 => Ok(Self::Bits256),
            _ => Err(KeyError::WrongLength { len }),
        }
    }
}

/// A key that the members of a cluster share.
///
/// Its bytes are wiped when it is dropped, compared in constant time, and never printed: `Debug`
/// shows the fingerprint and the size. They live on the heap, so that moving a key leaves no copy
/// behind; each clone is a copy of its own, and wiped like the others.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey {
    bytes: Box<[u8]>,
    #[zeroize(skip)]
    size: KeySize,
}

impl SecretKey {
    /// A key of these bytes. The caller's copy stays the caller's to wipe.
    ///
    /// # Errors
    /// If there are not 16, 24 or 32.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let size = KeySize::of(bytes.len())?;
        Ok(Self { bytes: bytes.into(), size })
    }

    /// Reads a key in base64 of the standard alphabet with padding: what `serf keygen` and `consul
    /// keygen` print. White space around it is ignored. Beware of 32 hexadecimal digits: they are
    /// base64, too, of 24 bytes.
    ///
    /// # Errors
    /// If the text is not base64, or not of 16, 24 or 32 bytes.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        Self::decode_base64(text).map_err(|error| match Self::from_hex(text) {
            Ok(_) => KeyError::LooksLikeHex,
            Err(_) => error,
        })
    }

    fn decode_base64(text: &str) -> Result<Self, KeyError> {
        let text = text.trim_ascii();
        // Reserved at once, so that growing leaves no copies of the key behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
        STANDARD.decode_vec(text, &mut bytes).map_err(|_| KeyError::NotBase64)?;
        Self::from_bytes(&bytes)
    }

    /// Reads a key in hexadecimal, in either case. White space around it is ignored.
    ///
    /// # Errors
    /// If the text is not hexadecimal, or not of 16, 24 or 32 bytes.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        let digits = text.trim_ascii().as_bytes();
        if digits.len() % 2 != 0 {
            return Err(KeyError::NotHex);
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(digits.len() / 2));
        for pair in digits.chunks_exact(2) {
            let (high, low) = (hex_digit(pair[0]), hex_digit(pair[1]));
            bytes.push(high.zip(low).map(|(h, l)| h << 4 | l).ok_or(KeyError::NotHex)?);
        }
        Self::from_bytes(&bytes)
    }

    /// A new key from the system's randomness.
    ///
    /// # Errors
    /// If the system gives none.
    pub fn generate(size: KeySize) -> Result<Self, RandomnessError> {
        let mut key = Self { bytes: vec![0; size.bytes()].into(), size };
        fill_random(&mut key.bytes)?;
        Ok(key)
    }

    /// The key in base64, as [`from_base64`](Self::from_base64) reads it. The text is the key: it is
    /// wiped when dropped, and copies of it must be handled with the same care.
    pub fn to_base64(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(MAX_BASE64_BYTES));
        STANDARD.encode_string(&self.bytes, &mut text);
        text
    }

    /// The secret bytes themselves, for storing or sending them over a sealed channel.
    pub fn expose_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How long the key is.
    pub fn size(&self) -> KeySize {
        self.size
    }

    /// The name of the key. It does not help to find a key that was generated; of a key made from a
    /// guessable passphrase it allows guesses to be checked.
    pub fn fingerprint(&self) -> Fingerprint {
        let hash = Sha256::new().chain_update(FINGERPRINT_DOMAIN).chain_update(&self.bytes);
        let hash = hash.finalize();
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hash[..8]);
        Fingerprint(bytes)
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

impl PartialEq for SecretKey {
    /// The time taken depends on the sizes alone.
    fn eq(&self, other: &Self) -> bool {
        let pairs = self.bytes.iter().zip(&other.bytes);
        let difference = pairs.fold(0, |difference, (a, b)| difference | (a ^ b));
        // Without the barrier the compiler may stop at the first difference.
        self.size == other.size && black_box(difference) == 0
    }
}

impl Eq for SecretKey {}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey")
            .field("fingerprint", &format_args!("{}", self.fingerprint()))
            .field("size", &self.size)
            .finish()
    }
}

/// Base64, as [`SecretKey::from_base64`] reads it.
impl FromStr for SecretKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::from_base64(text)
    }
}

/// A text that is not a fingerprint. Blame: the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a key's fingerprint has 16 hexadecimal digits")]
pub struct FingerprintParseError;

/// The public name of a key: the first 8 bytes of SHA-256 over `"memberlist key fingerprint v1\0"`
/// and the key. The same key has the same fingerprint on every node; it is written as 16
/// hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 8]);

impl Fingerprint {
    /// A fingerprint from its bytes.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintParseError;

    fn from_str(text: &str) -> Result<Self, FingerprintParseError> {
        // The check of the digits also keeps out the sign that number parsing allows.
        if text.len() != 16 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(FingerprintParseError);
        }
        let number = u64::from_str_radix(text, 16).map_err(|_| FingerprintParseError)?;
        Ok(Self(number.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [KeySize; 3] = [KeySize::Bits128, KeySize::Bits192, KeySize::Bits256];

    #[test]
    fn three_lengths_and_no_other() {
        for len in 0..100 {
            let key = SecretKey::from_bytes(&vec![7; len]);
            match len {
                16 | 24 | 32 => assert_eq!(key.unwrap().size().bytes(), len),
                _ => assert_eq!(key, Err(KeyError::WrongLength { len })),
            }
        }
    }

    #[test]
    fn texts_are_read_and_written() {
        for size in SIZES {
            let key = SecretKey::generate(size).unwrap();
            let text = key.to_base64();
            assert_eq!(text.parse(), Ok(key.clone()));
            assert_eq!(SecretKey::from_base64(&format!("  {}\r\n", *text)), Ok(key.clone()));
            let hex: String = key.expose_bytes().iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(SecretKey::from_hex(&hex), Ok(key.clone()));
            assert_eq!(SecretKey::from_hex(&format!("{}\n", hex.to_uppercase())), Ok(key));
        }
        let key = SecretKey::from_hex("000102030405060708090a0b0c0d0e0f").unwrap();
        assert_eq!(*key.to_base64(), "AAECAwQFBgcICQoLDA0ODw==");
    }

    #[test]
    fn bad_texts_are_told_apart_and_never_quoted() {
        let base64 = [
            ("", KeyError::WrongLength { len: 0 }),
            ("c2VjcmV0", KeyError::WrongLength { len: 6 }),
            ("AAECAwQFBgcICQoLDA0ODw", KeyError::NotBase64),
            ("AAECAwQFBgcICQoLDA0OD!==", KeyError::NotBase64),
            ("AAECAwQFBgcI\nCQoLDA0ODw==", KeyError::NotBase64),
            ("secret, in ä text", KeyError::NotBase64),
            (&"5a".repeat(24), KeyError::LooksLikeHex),
            (&"5A".repeat(32), KeyError::LooksLikeHex),
            (&"5a".repeat(33), KeyError::NotBase64),
            (&"5a".repeat(34), KeyError::WrongLength { len: 51 }),
        ];
        let hex = [
            ("", KeyError::WrongLength { len: 0 }),
            ("0001", KeyError::WrongLength { len: 2 }),
            ("000102030405060708090a0b0c0d0e0", KeyError::NotHex),
            ("000102030405060708090a0b0c0d0e0g", KeyError::NotHex),
            ("+00102030405060708090a0b0c0d0e0f", KeyError::NotHex),
            ("ää", KeyError::NotHex),
        ];
        let base64 = base64.map(|(text, error)| (text, SecretKey::from_base64(text), error));
        let hex = hex.map(|(text, error)| (text, SecretKey::from_hex(text), error));
        for (text, result, error) in base64.into_iter().chain(hex) {
            assert_eq!(result, Err(error), "{text:?}");
            assert!(text.is_empty() || !error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn every_byte_counts_in_a_comparison() {
        for size in SIZES {
            let key = SecretKey::from_bytes(&vec![0x5A; size.bytes()]).unwrap();
            assert_eq!(key, key.clone());
            for i in 0..size.bytes() {
                let mut bytes = key.expose_bytes().to_vec();
                bytes[i] ^= 1;
                let other = SecretKey::from_bytes(&bytes).unwrap();
                assert_ne!(key, other);
                assert_ne!(key.fingerprint(), other.fingerprint());
            }
        }
        // One is the beginning of the other.
        let [short, long] = [16, 32].map(|len| SecretKey::from_bytes(&vec![1; len]).unwrap());
        assert_ne!(short, long);
        assert_ne!(long, short);
    }

    #[test]
    fn generated_keys_differ() {
        for size in SIZES {
            let [a, b] = [0; 2].map(|_| SecretKey::generate(size).unwrap());
            assert_eq!(a.size(), size);
            assert_ne!(a, b);
            assert_ne!(a.expose_bytes(), vec![0; size.bytes()]);
        }
    }

    #[test]
    fn debug_names_the_key_and_does_not_show_it() {
        let key = SecretKey::from_bytes(b"sixteen letters!").unwrap();
        let expected = format!("SecretKey {{ fingerprint: {}, size: Bits128 }}", key.fingerprint());
        assert_eq!(format!("{key:?}"), expected);
    }

    #[test]
    fn a_wiped_key_is_zeros() {
        let mut key = SecretKey::from_bytes(&[9; 32]).unwrap();
        key.zeroize();
        assert_eq!(key.expose_bytes(), [0; 32]);
    }

    #[test]
    fn fingerprints_stay_what_they_are() {
        // Members of other versions name keys by the same text, so it may never change.
        let key = SecretKey::from_hex("000102030405060708090a0b0c0d0e0f").unwrap();
        let text = key.fingerprint().to_string();
        assert_eq!(text, "32cce6eaf8e997f4");
        assert_eq!(text.parse(), Ok(key.fingerprint()));
        assert_eq!(text.to_uppercase().parse(), Ok(key.fingerprint()));
        assert_eq!(Fingerprint::from_bytes(key.fingerprint().to_bytes()), key.fingerprint());
        assert_eq!(
            Fingerprint::from_bytes([0, 0, 0, 0, 0, 0, 0, 1]).to_string(),
            "0000000000000001"
        );
        for bad in
            ["", "1", "+123456789abcdef", "0123456789abcdeg", "0123456789abcdef0", "ääääääää"]
        {
            assert_eq!(bad.parse::<Fingerprint>(), Err(FingerprintParseError), "{bad}");
        }
    }
}
