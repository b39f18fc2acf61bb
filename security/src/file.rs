//! The keyring file: a JSON list of keys in base64, the primary first, as Serf and Consul keep it.
//!
//! It is written so that a crash leaves either the old file or the new one, and never readable by
//! other users. Errors say where the file is wrong and never quote it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::warn;
use zeroize::Zeroizing;

use crate::key::{KeyError, RandomnessError, SecretKey, fill_random};
use crate::keyring::MAX_KEYS;

/// More than a full keyring takes, however it is laid out.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// How old a temporary file is that nobody is writing any more: a save takes milliseconds.
const LEFT_OVER_AFTER: Duration = Duration::from_secs(60);
/// What a key takes in the file: quotes, comma, indentation, line end.
const BYTES_PER_KEY: usize = 52;

/// Why a keyring file was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringFileError {
    /// There is no such file.
    #[error("no keyring file at {}", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// It cannot be read. Blame: the machine, or its owner.
    #[error("keyring file {} cannot be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// It is larger than any keyring.
    #[error("keyring file {} has more than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// It is not a JSON list of texts.
    #[error("keyring file {} is not a JSON list of texts: line {line}, column {column}", path.display())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// Where, counted from 1; 0 if unknown.
        line: usize,
        /// Where, counted from 1; 0 if unknown.
        column: usize,
    },
    /// There is no key: in the file, or among those to be saved.
    #[error("keyring file {}: the list of keys is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// There are more keys than a keyring holds.
    #[error("keyring file {} has more than {MAX_KEYS} keys", path.display())]
    TooMany {
        /// The file.
        path: PathBuf,
    },
    /// One of the keys cannot be used.
    #[error("keyring file {}, key {index}: {error}", path.display())]
    BadKey {
        /// The file.
        path: PathBuf,
        /// Which one, counted from 0.
        index: usize,
        /// What is wrong with it.
        #[source]
        error: KeyError,
    },
    /// It cannot be written. What stands at the path is the old file. Blame: the machine, or its owner.
    #[error("keyring file {} cannot be written: {error}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

/// A keyring file that was read.
#[derive(Debug)]
#[non_exhaustive]
pub struct KeyringFile {
    /// The keys, the primary first; at least one.
    pub keys: Vec<SecretKey>,
    /// Whether users other than the owner may read or write the file, which deserves a warning.
    /// Always false where files have no Unix permissions.
    pub open_to_others: bool,
}

impl KeyringFile {
    /// Reads the keys.
    ///
    /// # Errors
    /// See [`KeyringFileError`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, KeyringFileError> {
        let path = path.as_ref();
        let (text, open_to_others) = read(path)?;
        let keys = parse(path, &text)?;
        Ok(Self { keys, open_to_others })
    }

    /// Writes the keys, as [`Keyring::keys`](crate::Keyring::keys) gives them, in place of the file
    /// if there is one. On Unix the new file is its owner's alone. A link at `path` is replaced by
    /// the file. If the folder cannot be synced (one that may be written but not read), the file is
    /// saved all the same, with a warning: the system may come up with the old one after a crash.
    ///
    /// # Errors
    /// [`KeyringFileError::Empty`] without keys, else [`KeyringFileError::Unwritable`].
    pub fn save(path: impl AsRef<Path>, keys: &[SecretKey]) -> Result<(), KeyringFileError> {
        let path = path.as_ref();
        if keys.is_empty() {
            return Err(KeyringFileError::Empty { path: path.to_owned() });
        }
        let unwritable = |error| KeyringFileError::Unwritable { path: path.to_owned(), error };
        replace(path, render(keys).as_bytes(), sync_folder).map_err(unwritable)
    }

    /// Removes what a process that was killed in the middle of [`save`](Self::save) left beside the
    /// file: files of the pattern of its temporary ones that are older than a minute. Gives how many.
    ///
    /// # Errors
    /// If the folder cannot be read, or one of them cannot be removed.
    pub fn remove_leftovers(path: impl AsRef<Path>) -> io::Result<usize> {
        let path = path.as_ref();
        let Some(name) = path.file_name() else { return Ok(0) };
        let name = name.to_string_lossy();
        let mut removed = 0;
        for entry in fs::read_dir(folder_of(path))? {
            let entry = entry?;
            if !is_temporary(&entry.file_name().to_string_lossy(), &name) {
                continue;
            }
            let metadata = entry.metadata()?;
            // What is younger may be another process that is writing now.
            let age = metadata.modified()?.elapsed().unwrap_or_default();
            if metadata.is_file() && age > LEFT_OVER_AFTER {
                fs::remove_file(entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn read(path: &Path) -> Result<(Zeroizing<Vec<u8>>, bool), KeyringFileError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => KeyringFileError::Missing { path: path.to_owned() },
        _ => KeyringFileError::Unreadable { path: path.to_owned(), error },
    };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let too_large = || KeyringFileError::TooLarge { path: path.to_owned(), limit: MAX_FILE_BYTES };
    if metadata.len() > MAX_FILE_BYTES {
        return Err(too_large());
    }
    // Reserved at once, so that growing leaves no copies of the keys behind.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES as usize + 1));
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(too_large());
    }
    Ok((text, open_to_others(&metadata)))
}

fn parse(path: &Path, text: &[u8]) -> Result<Vec<SecretKey>, KeyringFileError> {
    // The parser's own message may quote the key at which it stopped.
    let texts: Vec<Zeroizing<String>> =
        serde_json::from_slice(text).map_err(|error| KeyringFileError::NotJson {
            path: path.to_owned(),
            line: error.line(),
            column: error.column(),
        })?;
    if texts.is_empty() {
        return Err(KeyringFileError::Empty { path: path.to_owned() });
    }
    let key = |(index, text): (usize, &Zeroizing<String>)| {
        let bad = |error| KeyringFileError::BadKey { path: path.to_owned(), index, error };
        SecretKey::from_base64(text).map_err(bad)
    };
    texts.iter().enumerate().map(key).collect()
}

/// The file's text: one key a line. Base64 needs no escapes in JSON.
fn render(keys: &[SecretKey]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(keys.len() * BYTES_PER_KEY + 4));
    for (i, key) in keys.iter().enumerate() {
        text.push_str(if i == 0 { "[\n  \"" } else { ",\n  \"" });
        text.push_str(&key.to_base64());
        text.push('"');
    }
    text.push_str("\n]\n");
    text
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Writes a file beside `path` and puts it in its place. From then on it is what is read: a folder
/// that cannot be synced undoes nothing.
fn replace(
    path: &Path,
    text: &[u8],
    sync_folder: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let folder = folder_of(path);
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = Temporary::create(folder, &name.to_string_lossy())?;
    temporary.fill(text)?;
    temporary.become_file(path)?;
    if let Err(error) = sync_folder(folder) {
        warn!(path = %path.display(), %error, "the keyring file is saved, but its folder cannot be \
            synced: after a crash of the system the old file may be back");
    }
    Ok(())
}

/// The name of a temporary file: a dot, the file's name, and a random number.
fn temporary_name(name: &str, random: u64) -> String {
    format!(".{name}.{random:016x}")
}

/// Whether this is the name of a temporary file for the file of that name.
fn is_temporary(candidate: &str, name: &str) -> bool {
    let random = candidate.rsplit_once('.').map(|(_, end)| u64::from_str_radix(end, 16));
    matches!(random, Some(Ok(random)) if candidate == temporary_name(name, random))
}

/// A file that is removed unless it takes its place.
struct Temporary {
    path: Option<PathBuf>,
    file: File,
}

impl Temporary {
    fn create(folder: &Path, name: &str) -> io::Result<Self> {
        let mut random = [0; 8];
        fill_random(&mut random).map_err(|RandomnessError(text)| io::Error::other(text))?;
        let path = folder.join(temporary_name(name, u64::from_le_bytes(random)));
        // A file or link that somebody else has put there is not followed, but an error.
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        owner_only(&mut options);
        let file = options.open(&path)?;
        Ok(Self { path: Some(path), file })
    }

    fn fill(&self, text: &[u8]) -> io::Result<()> {
        (&self.file).write_all(text)?;
        self.file.sync_all()
    }

    fn become_file(mut self, path: &Path) -> io::Result<()> {
        if let Some(temporary) = &self.path {
            fs::rename(temporary, path)?;
        }
        self.path = None;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // There is nobody to tell; the error that led here is told.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(unix)]
fn owner_only(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600);
}

#[cfg(not(unix))]
fn owner_only(_: &mut OpenOptions) {}

#[cfg(unix)]
fn open_to_others(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o077 != 0
}

#[cfg(not(unix))]
fn open_to_others(_: &fs::Metadata) -> bool {
    false
}

/// Makes sure that the new name outlives a crash; elsewhere than on Unix folders cannot be synced.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests;
