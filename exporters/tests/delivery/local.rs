//! `file` and `nop`, through a lane.

use std::path::PathBuf;

use forebay_exporters::destination::{File, Kind};
use forebay_exporters::verdict::FailureKind;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;

use crate::rig::{Rig, batch, delivered, destination, names, until};

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("forebay-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn a_file_shared_by_two_cores_has_a_whole_line_for_every_batch() {
    let folder = folder("lines");
    let path = folder.join("out.json");
    let file = || {
        let settings = File { path: path.clone(), append: true, rotation: None };
        destination(Kind::File(settings))
    };
    let rigs = [Rig::new(vec![file()]), Rig::new(vec![file()])];
    let long = "x".repeat(3000);
    for seq in 0..40 {
        for (core, rig) in rigs.iter().enumerate() {
            rig.offer(0, batch(seq, &[&format!("{core}-{seq}"), &long]));
        }
    }
    for rig in rigs {
        assert!(rig.ends(40).values().all(|outcome| *outcome == delivered()));
        rig.finish();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let mut first: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<ExportTraceServiceRequest>(line).unwrap())
        .map(|request| names(&request).remove(0))
        .collect();
    first.sort();
    let mut sent: Vec<_> =
        (0..2).flat_map(|core| (0..40).map(move |seq| format!("{core}-{seq}"))).collect();
    sent.sort();
    assert_eq!(first, sent);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_file_that_cannot_be_written_is_tried_again_and_loses_nothing() {
    let folder = folder("later");
    let path = folder.join("missing").join("out.json");
    let settings = File { path: path.clone(), append: true, rotation: None };
    let rig = Rig::new(vec![destination(Kind::File(settings))]);
    for seq in 0..5 {
        rig.offer(0, batch(seq, &["one"]));
    }
    let write = FailureKind::Write.index();
    until("failed writes", || rig.snapshot(0).failed_attempts[write] >= 5);
    std::fs::create_dir(folder.join("missing")).unwrap();
    assert!(rig.ends(5).values().all(|outcome| *outcome == delivered()));
    rig.finish();
    assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 5);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn nop_takes_everything() {
    let rig = Rig::new(vec![destination(Kind::Nop)]);
    for seq in 0..100 {
        rig.offer(0, batch(seq, &["one", "two"]));
    }
    assert!(rig.ends(100).values().all(|outcome| *outcome == delivered()));
    assert_eq!(rig.finish()[0].delivered_items, 200);
}
