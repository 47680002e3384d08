//! `file`, `debug` and `nop`, through a lane.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use forebay_exporters::batch::DropReason;
use forebay_exporters::destination::{Debug, File, Kind, Verbosity};
use forebay_exporters::verdict::FailureKind;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;

use crate::rig::{Rig, batch, delivered, destination, drop_reason, names, until};

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

/// Lane 0 writes to what takes nothing, or soon takes nothing any more; lane 1 is on the same core.
/// Checks that lane 1 is not held up, and that lane 0 can be called off all the same.
fn one_lane_is_stuck_alone(stuck: Kind) {
    const BATCHES: u64 = 60;
    let rig = Rig::new(vec![destination(stuck), destination(Kind::Nop)]);
    let long = "x".repeat(8 << 10);
    for seq in 0..BATCHES {
        let shared = Arc::new(batch(seq, &[&long]));
        rig.lanes[0].offer(Arc::clone(&shared)).unwrap();
        until("a turn of the other lane", || rig.snapshot(1).delivered_batches == seq);
        rig.lanes[1].offer(shared).unwrap();
    }
    until("the other lane's batches", || rig.snapshot(1).delivered_batches == BATCHES);
    until("as many writes waiting as may", || rig.snapshot(0).in_flight_requests == 4);
    let (stats, ends) = rig.abandon();
    assert_eq!(ends.len() as u64, 2 * BATCHES);
    let reasons: Vec<_> = ends.iter().filter_map(|end| drop_reason(&end.outcome)).collect();
    assert!(reasons.len() >= 4, "{} batches did not find it stuck", reasons.len());
    assert!(reasons.iter().all(|reason| *reason == DropReason::Shutdown), "{reasons:?}");
    assert_eq!(stats[0].delivered_batches + reasons.len() as u64, BATCHES);
}

#[test]
fn c12_a_file_whose_writes_hang_delays_no_other_and_is_called_off() {
    let folder = folder("hangs");
    let path = folder.join("pipe");
    // Opening it hangs until somebody reads at its other end, and here nobody does.
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    one_lane_is_stuck_alone(Kind::File(File { path, append: true, rotation: None }));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn c12_a_terminal_that_takes_nothing_delays_no_other_and_the_process_can_end() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "local::with_a_standard_error_that_nobody_reads"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Ended(child);
    until("the process's end", || child.0.try_wait().unwrap().is_some());
    let said = std::io::read_to_string(child.0.stdout.take().unwrap()).unwrap();
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "run by the test above, in a process whose standard error is a pipe"]
fn with_a_standard_error_that_nobody_reads() {
    let verbosity = Verbosity::Detailed;
    let debug = Debug { verbosity, sampling_initial: u32::MAX, sampling_thereafter: 1 };
    one_lane_is_stuck_alone(Kind::Debug(debug));
}

/// A process that does not outlive its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
