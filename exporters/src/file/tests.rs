//! Lines, rotation and failures of the file sink, on real files.

use std::time::UNIX_EPOCH;

use super::*;

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("forebay-file-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn writer(path: &Path, append: bool, rotation: Option<Rotation>) -> Writer {
    Writer::new(&Settings { path: path.to_owned(), append, rotation })
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn a_stamp_is_the_utc_time_of_known_moments() {
    assert_eq!(stamp(at(0)), "1970-01-01T00-00-00.000");
    assert_eq!(stamp(at(951_782_400)), "2000-02-29T00-00-00.000");
    assert_eq!(stamp(at(1_709_251_199)), "2024-02-29T23-59-59.000");
    assert_eq!(stamp(at(4_107_542_400)), "2100-03-01T00-00-00.000");
    assert!(is_stamp(&stamp(at(1_755_771_630) + Duration::from_millis(7))));
}

#[test]
fn a_full_file_is_moved_aside_and_the_newest_backups_stay() {
    let folder = folder("rotation");
    let rotation = Rotation { bytes_max: 10, days_max: None, backups_max: 2 };
    let mut writer = writer(&folder.join("out.json"), true, Some(rotation));
    for second in 0..5 {
        writer.append(b"12345678\n", at(second)).unwrap();
    }
    let expected =
        ["out-1970-01-01T00-00-03.000.json", "out-1970-01-01T00-00-04.000.json", "out.json"];
    assert_eq!(names(&folder), expected);
    assert_eq!(fs::read(folder.join("out.json")).unwrap(), b"12345678\n");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn rotated_files_older_than_days_max_are_removed_and_strangers_stay() {
    let folder = folder("age");
    fs::write(folder.join("out-backup.json"), "mine").unwrap();
    let rotation = Rotation { bytes_max: 1, days_max: Some(1), backups_max: 0 };
    let mut writer = writer(&folder.join("out.json"), true, Some(rotation));
    for day in [0, 1, 3] {
        writer.append(b"x\n", at(day * 86_400)).unwrap();
    }
    let expected = ["out-1970-01-04T00-00-00.000.json", "out-backup.json", "out.json"];
    assert_eq!(names(&folder), expected);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn rotations_in_one_millisecond_lose_nothing() {
    let folder = folder("burst");
    let rotation = Rotation { bytes_max: 1, days_max: None, backups_max: 0 };
    let mut writer = writer(&folder.join("out"), true, Some(rotation));
    for _ in 0..6 {
        writer.append(b"x\n", at(9)).unwrap();
    }
    assert_eq!(names(&folder).len(), 6);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn append_keeps_and_its_opposite_empties_what_was_there() {
    let folder = folder("append");
    let path = folder.join("out");
    for (append, expected) in [(true, "old\nnew\n"), (false, "new\n")] {
        fs::write(&path, "old\n").unwrap();
        writer(&path, append, None).append(b"new\n", at(0)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_file_that_cannot_be_written_fails_and_works_once_it_can() {
    let folder = folder("later");
    let path = folder.join("missing").join("out");
    let mut writer = writer(&path, true, None);
    assert!(writer.append(b"a\n", at(0)).is_err());
    fs::create_dir(folder.join("missing")).unwrap();
    writer.append(b"a\n", at(0)).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "a\n");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_full_disk_is_a_failure_that_is_tried_again() {
    // Every write to this device fails with "no space left".
    let mut writer = writer(Path::new("/dev/full"), true, None);
    for _ in 0..2 {
        let error = writer.append(b"a\n", at(0)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}

#[test]
fn two_seats_on_one_path_share_one_writer() {
    let folder = folder("shared");
    let settings = Settings { path: folder.join("out"), append: true, rotation: None };
    let (one, two) = (Sink::shared(&settings), Sink::shared(&settings));
    assert!(Arc::ptr_eq(&one.0, &two.0));
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_path_opened_again_while_a_write_is_stuck_keeps_its_writer() {
    let folder = folder("stuck");
    let settings = Settings { path: folder.join("out"), append: true, rotation: None };
    let first = Sink::shared(&settings);
    // As the thread has it while it writes.
    let stuck = Arc::clone(first.0.writer());
    drop(first);
    assert!(Arc::ptr_eq(&stuck, Sink::shared(&settings).0.writer()));
    fs::remove_dir_all(folder).unwrap();
}
