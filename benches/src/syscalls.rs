//! System calls of a process, counted by the kernel: `perf stat` on its tracepoint, if it is here.
//!
//! Counting costs the process a little, so it is done beside the measured window, never in it.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::machine::family;

/// System calls that process `pid` and those that it started make within `window`, which passes
/// meanwhile. `None`: perf is missing, or may not count.
pub fn count(pid: u32, window: Duration) -> Option<f64> {
    let pids: Vec<String> = family(pid).iter().map(u32::to_string).collect();
    let output = Command::new("perf")
        .args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", &pids.join(",")])
        .args(["--", "sleep", &window.as_secs_f64().to_string()])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let report = String::from_utf8_lossy(&output.stderr);
    let line = report.lines().find(|line| line.contains("raw_syscalls:sys_enter"))?;
    line.split(',').next()?.parse().ok()
}
