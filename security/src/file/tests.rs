use super::*;
use crate::key::KeySize;

const KEY: &str = "AAECAwQFBgcICQoLDA0ODw==";

fn keys() -> Vec<SecretKey> {
    let sizes = [KeySize::Bits256, KeySize::Bits128, KeySize::Bits192];
    sizes.map(|size| SecretKey::generate(size).unwrap()).to_vec()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn load_text(text: impl AsRef<[u8]>) -> Result<KeyringFile, KeyringFileError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keyring.json");
    fs::write(&path, text).unwrap();
    KeyringFile::load(path)
}

#[test]
fn what_is_saved_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keyring.json");
    // Twice: where there is no file, and in place of one.
    for keys in [keys(), keys()] {
        KeyringFile::save(&path, &keys).unwrap();
        let loaded = KeyringFile::load(&path).unwrap();
        assert_eq!(loaded.keys, keys);
        assert!(!loaded.open_to_others);
        assert_eq!(names(folder.path()), ["keyring.json"]);
    }
}

#[test]
fn the_layout_is_serf_s() {
    let key = SecretKey::from_base64(KEY).unwrap();
    assert_eq!(*render(&[key.clone(), key.clone()]), format!("[\n  \"{KEY}\",\n  \"{KEY}\"\n]\n"));
    let compact = load_text(format!("[\"{KEY}\",\"{KEY}\"]")).unwrap();
    assert_eq!(compact.keys, [key.clone(), key]);
    // Some writers of JSON escape slashes.
    let slashes = format!("\"{}=\"", "/".repeat(43));
    let key = load_text(format!("[{}]", slashes.replace('/', "\\/"))).unwrap_err();
    assert!(matches!(key, KeyringFileError::BadKey { error: KeyError::NotBase64, .. }));
    let good = format!("[\"{}8=\"]", "/".repeat(42)).replace('/', "\\/");
    assert_eq!(load_text(good).unwrap().keys[0].expose_bytes(), [0xFF; 32]);
}

#[test]
fn rendering_moves_no_text() {
    let keys: Vec<_> = (0..64).map(|_| SecretKey::generate(KeySize::Bits256).unwrap()).collect();
    assert!(render(&keys).len() <= keys.len() * BYTES_PER_KEY + 4);
}

#[test]
fn faults_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let missing = KeyringFile::load(folder.path().join("nothing")).unwrap_err();
    assert!(matches!(missing, KeyringFileError::Missing { .. }), "{missing}");
    #[cfg(unix)]
    {
        let unreadable = KeyringFile::load(folder.path()).unwrap_err();
        assert!(matches!(unreadable, KeyringFileError::Unreadable { .. }), "{unreadable}");
    }
    let large = load_text(vec![b' '; 64 * 1024 + 1]).unwrap_err();
    assert!(matches!(large, KeyringFileError::TooLarge { limit: 65_536, .. }), "{large}");
    let empty = load_text("[]").unwrap_err();
    assert!(matches!(empty, KeyringFileError::Empty { .. }), "{empty}");
    let bad = load_text(format!("[\"{KEY}\", \"c2VjcmV0\"]")).unwrap_err();
    let KeyringFileError::BadKey { index, error, .. } = &bad else { panic!("{bad}") };
    assert_eq!((*index, *error), (1, KeyError::WrongLength { len: 6 }));
}

#[test]
fn errors_quote_nothing_from_the_file() {
    for text in [
        format!("\"{KEY}\""),
        format!("{{\"{KEY}\": 1}}"),
        format!("[\"{KEY}\", 5]"),
        format!("[\"{KEY}\""),
        format!("[{KEY}]"),
        format!("[\"{KEY}!\"]"),
        format!("[\"{}\"]", &KEY[..KEY.len() - 1]),
        KEY.to_owned(),
        String::new(),
        "{}".to_owned(),
    ] {
        let error = load_text(&text).unwrap_err();
        for shown in [error.to_string(), format!("{error:?}")] {
            assert!(!shown.contains(&KEY[..8]), "{shown}");
        }
    }
    let binary = load_text(b"[\"\xff\"]").unwrap_err();
    let KeyringFileError::NotJson { line, column, .. } = binary else { panic!("{binary}") };
    assert_eq!((line, column > 0), (1, true));
}

#[test]
fn what_fails_leaves_the_old_file_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keyring.json");
    KeyringFile::save(&path, &keys()).unwrap();
    let before = fs::read(&path).unwrap();
    let none = KeyringFile::save(&path, &[]).unwrap_err();
    assert!(matches!(none, KeyringFileError::Empty { .. }), "{none}");
    assert_eq!(fs::read(&path).unwrap(), before);

    // A folder is in the way: the last step fails.
    let taken = folder.path().join("folder");
    fs::create_dir_all(taken.join("within")).unwrap();
    let error = KeyringFile::save(&taken, &keys()).unwrap_err();
    assert!(matches!(error, KeyringFileError::Unwritable { .. }), "{error}");
    let mut left = names(folder.path());
    left.sort();
    assert_eq!(left, ["folder", "keyring.json"]);

    for path in ["", "/", "no/such/folder/keyring.json"] {
        let error = KeyringFile::save(path, &keys()).unwrap_err();
        assert!(matches!(error, KeyringFileError::Unwritable { .. }), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn permissions() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keyring.json");
    KeyringFile::save(&path, &keys()).unwrap();
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    for (mode, open) in [(0o640, true), (0o602, true), (0o604, true), (0o400, false)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(KeyringFile::load(&path).unwrap().open_to_others, open, "{mode:o}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    KeyringFile::save(&path, &keys()).unwrap();
    assert_eq!(mode(), 0o600, "a file that was open to others is closed");
}

/// A folder that may be written but not read cannot be opened to be synced.
#[test]
fn what_is_in_its_place_is_saved_though_the_folder_is_not_synced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keyring.json");
    let keys = keys();
    let unreadable = |_: &Path| Err(io::ErrorKind::PermissionDenied.into());
    replace(&path, render(&keys).as_bytes(), unreadable).unwrap();
    assert_eq!(KeyringFile::load(&path).unwrap().keys, keys);
    assert_eq!(names(folder.path()), ["keyring.json"]);
}

#[test]
fn what_a_killed_save_left_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keyring.json");
    KeyringFile::save(&path, &keys()).unwrap();
    let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    let write = |name: &str, old: bool| {
        let file = File::create(folder.path().join(name)).unwrap();
        if old {
            file.set_modified(hour_ago).unwrap();
        }
    };
    write(".keyring.json.0123456789abcdef", true);
    let kept = [
        // Somebody else's, or in use now.
        (".keyring.json.0123456789abcdeg", true),
        (".keyring.json.12", true),
        (".keyring.json.+123456789abcdef", true),
        (".other.json.0123456789abcdef", true),
        ("keyring.json.0123456789abcdef", true),
        (".keyring.json.fedcba9876543210", false),
    ];
    kept.iter().for_each(|(name, old)| write(name, *old));
    assert_eq!(KeyringFile::remove_leftovers(&path).unwrap(), 1);
    assert_eq!(KeyringFile::remove_leftovers(&path).unwrap(), 0);
    let mut expected: Vec<_> = kept.iter().map(|(name, _)| (*name).to_owned()).collect();
    expected.push("keyring.json".to_owned());
    let mut left = names(folder.path());
    left.sort();
    expected.sort();
    assert_eq!(left, expected);
    assert!(KeyringFile::remove_leftovers(folder.path().join("no/such/folder")).is_err());
}
