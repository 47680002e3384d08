//! Files that are written, renamed into place, swapped behind links, broken and taken away.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forebay_exporters::discovery::event::Cost;
use forebay_exporters::discovery::file::File;
use forebay_exporters::discovery::keeper::{Limits, Pace};
use forebay_exporters::discovery::{Discovery, Watcher};

use crate::rig::{QUICK, addresses, descriptors, recovered, trouble, until};

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("forebay-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// As it should be done: beside, and renamed.
    fn replace(&self, name: &str, text: &str) {
        let beside = self.0.join(format!(".{name}.new"));
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, self.0.join(name)).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Follows a file by its events alone: the poll comes too late for any test.
fn by_events(path: &Path) -> Watcher {
    let pace = Pace { interval_max: Duration::from_secs(3600), ..QUICK };
    Watcher::with(Discovery::File(File::at(path)), pace, Limits::default())
}

#[tokio::test]
async fn a_file_that_is_renamed_into_place_or_written_over_is_read_again() {
    let folder = Folder::new("rename");
    folder.replace("fleet", "a:1\nb:1\n");
    let mut watcher = by_events(&folder.0.join("fleet"));
    until(&mut watcher, &["a:1", "b:1"]).await;
    folder.replace("fleet", "b:1\nc:1\n");
    until(&mut watcher, &["b:1", "c:1"]).await;
    fs::write(folder.0.join("fleet"), "d:1\n").unwrap();
    until(&mut watcher, &["d:1"]).await;
}

#[tokio::test]
async fn the_swap_of_a_kubernetes_volume_is_seen() {
    let folder = Folder::new("configmap");
    let path = |name: &str| folder.0.join(name);
    let version = |number: u32, text: &str| {
        let name = format!("..2026_{number}");
        fs::create_dir(path(&name)).unwrap();
        fs::write(path(&name).join("fleet.yaml"), text).unwrap();
        // As the kubelet does it: a new link, renamed over the old one, then the old data go.
        symlink(&name, path("..data_tmp")).unwrap();
        fs::rename(path("..data_tmp"), path("..data")).unwrap();
        if number > 0 {
            fs::remove_dir_all(path(&format!("..2026_{}", number - 1))).unwrap();
        }
    };
    version(0, "- targets: [\"a:1\"]\n");
    symlink("..data/fleet.yaml", path("fleet.yaml")).unwrap();
    let mut watcher = by_events(&path("fleet.yaml"));
    until(&mut watcher, &["a:1"]).await;
    for number in 1..20 {
        version(number, &format!("- targets: [\"a:{number}\", \"b:{number}\"]\n"));
        let expected = [format!("a:{number}"), format!("b:{number}")];
        until(&mut watcher, &[&expected[0], &expected[1]]).await;
    }
}

#[tokio::test]
async fn a_link_into_another_folder_is_followed_there() {
    let (folder, other) = (Folder::new("link"), Folder::new("linked"));
    other.replace("fleet", "a:1\n");
    symlink(other.0.join("fleet"), folder.0.join("fleet")).unwrap();
    let mut watcher = by_events(&folder.0.join("fleet"));
    until(&mut watcher, &["a:1"]).await;
    other.replace("fleet", "b:1\n");
    until(&mut watcher, &["b:1"]).await;
}

#[tokio::test]
async fn a_file_that_is_gone_broken_or_empty_leaves_the_last_good_set_in_use() {
    let folder = Folder::new("broken");
    let path = folder.0.join("fleet.json");
    let mut watcher = by_events(&path);
    let missing = trouble(&mut watcher).await;
    assert_eq!(missing.cost, Cost::NoEndpoints);
    assert!(missing.what.contains("fleet.json: No such file"), "{missing}");
    folder.replace("fleet.json", "[\"a:1\", \"b:1\"]");
    until(&mut watcher, &["a:1", "b:1"]).await;
    recovered(&mut watcher).await;
    for broken in ["[\"a:1\"", "[]", "", "{}", "[{\"targets\": []}]"] {
        let failures = watcher.status().failures_total;
        folder.replace("fleet.json", broken);
        while watcher.status().failures_total == failures {
            let _ = tokio::time::timeout(Duration::from_millis(50), watcher.next()).await;
        }
        assert_eq!(addresses(&watcher), ["a:1", "b:1"], "{broken}");
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    while !watcher.status().failing.is_some_and(|why| why.contains("no regular file")) {
        let _ = tokio::time::timeout(Duration::from_millis(50), watcher.next()).await;
    }
    assert_eq!(addresses(&watcher), ["a:1", "b:1"]);
    fs::remove_dir(&path).unwrap();
    folder.replace("fleet.json", "[\"c:1\"]");
    until(&mut watcher, &["c:1"]).await;
}

#[tokio::test]
async fn where_nothing_can_be_watched_the_file_is_found_by_polling() {
    let folder = Folder::new("poll");
    let inner = folder.0.join("not/yet");
    let pace = Pace { interval_max: Duration::from_millis(100), ..QUICK };
    let file = Discovery::File(File::at(inner.join("fleet")));
    let mut watcher = Watcher::with(file, pace, Limits::default());
    trouble(&mut watcher).await;
    fs::create_dir_all(&inner).unwrap();
    fs::write(inner.join("fleet"), "a:1\n").unwrap();
    until(&mut watcher, &["a:1"]).await;
    // The whole folder replaced, which no watch on the old one sees.
    fs::rename(folder.0.join("not"), folder.0.join("old")).unwrap();
    fs::create_dir_all(&inner).unwrap();
    fs::write(inner.join("fleet"), "b:1\n").unwrap();
    until(&mut watcher, &["b:1"]).await;
}

#[tokio::test]
async fn a_thousand_changes_leave_nothing_open() {
    let folder = Folder::new("churn");
    folder.replace("fleet", "a:1\n");
    let mut watcher = by_events(&folder.0.join("fleet"));
    until(&mut watcher, &["a:1"]).await;
    let before = descriptors("inotify");
    for change in 2..=1000 {
        folder.replace("fleet", &format!("a:{change}\n"));
        if change % 100 == 0 {
            until(&mut watcher, &[&format!("a:{change}")]).await;
        }
    }
    // Other tests of this process come and go; a leak would be of a thousand.
    assert!(descriptors("inotify") < before + 50, "{before} before");
}
