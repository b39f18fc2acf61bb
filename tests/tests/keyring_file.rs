//! The keyring file of a node that runs: where it is, and what must not keep it from being written.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use memberlist::net::NetTransport;
use memberlist::security::KeyringFile;
use memberlist::{Builder, Encryption};
use memberlist_tests::keys::{Node, key, keyring, keys};
use memberlist_tests::{Cluster, quick};

/// A folder for one test, empty.
fn folder(test: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("memberlist-{test}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

async fn node(encryption: Encryption) -> Node {
    let mut config = quick("node");
    config.encryption = Some(encryption);
    Cluster::<NetTransport>::new().start(Builder::new(config)).await
}

fn has_key(file: &Path, n: u8) -> bool {
    KeyringFile::load(file).unwrap().keys == [key(n)]
}

/// Daemons go to another folder when they have started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relative_path_stays_where_it_was() {
    let folder = folder("relative");
    fs::create_dir_all(folder.join("other")).unwrap();
    std::env::set_current_dir(&folder).unwrap();
    let opened = Encryption::from_file("opened.json", vec![key(1)]).unwrap();
    let mut set = Encryption::new(keyring(&[1]));
    set.keyring_file = Some("set.json".into());
    let set = node(set).await;
    std::env::set_current_dir(folder.join("other")).unwrap();
    let opened = node(opened).await;
    for (node, file) in [(opened, "opened.json"), (set, "set.json")] {
        keys(&node).rotate_to(key(2)).await.unwrap();
        assert!(has_key(&folder.join(file), 2), "{file}");
    }
    std::env::set_current_dir("/").unwrap();
    fs::remove_dir_all(&folder).unwrap();
}

/// Its file is written there, and the folder cannot be synced (unless this runs as root).
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_cannot_be_read_is_no_hindrance() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder("unreadable");
    let file = folder.join("keyring.json");
    let encryption = Encryption::from_file(&file, vec![key(1)]).unwrap();
    let set_mode = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
    set_mode(0o300);
    let rotated = keys(&node(encryption).await).rotate_to(key(2)).await.map(|_| ());
    let opened = Encryption::from_file(&file, vec![]).map(|_| ());
    set_mode(0o700);
    let saved = has_key(&file, 2);
    fs::remove_dir_all(&folder).unwrap();
    rotated.unwrap();
    opened.unwrap();
    assert!(saved);
}

#[test]
fn what_a_killed_process_left_is_gone_when_the_file_is_opened() {
    let folder = folder("leftover");
    let left = folder.join(".keyring.json.0123456789abcdef");
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    fs::File::create(&left).unwrap().set_modified(hour_ago).unwrap();
    Encryption::from_file(folder.join("keyring.json"), vec![key(1)]).unwrap();
    assert!(!left.exists());
    fs::remove_dir_all(&folder).unwrap();
}
