//! A node that forbids io_uring is told why, what it costs and what to do.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use forebay_tests::forebay::{config, program};
use seccompiler::{SeccompAction, SeccompFilter};

const IO_URING_SETUP: i64 = 425;

/// Runs forebay under a filter that answers `io_uring_setup` with `errno`.
fn start_without_io_uring(errno: u32) -> Output {
    let files = tempfile::tempdir().expect("a directory for the configuration");
    let path = files.path().join("forebay.yaml");
    std::fs::write(&path, config("[nop]", "exporters: {nop: }\n")).expect("it can be written");
    // A filter holds for the thread that applies it and for whatever that thread starts.
    let thread = std::thread::spawn(move || {
        let rules = BTreeMap::from([(IO_URING_SETUP, Vec::new())]);
        let arch = std::env::consts::ARCH.try_into().expect("an architecture with seccomp");
        let (refuse, allow) = (SeccompAction::Errno(errno), SeccompAction::Allow);
        let filter = SeccompFilter::new(rules, allow, refuse, arch).expect("a filter");
        let filter: seccompiler::BpfProgram = filter.try_into().expect("a program");
        seccompiler::apply_filter(&filter).expect("the filter applies");
        Command::new(program()).arg("--config").arg(path).output().expect("forebay starts")
    });
    thread.join().expect("the thread ends")
}

fn check(errno: u32, why: &str, hint: &str) {
    let output = start_without_io_uring(errno);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let message = &stderr[stderr.find("error: io_uring is not available").expect(&stderr)..];
    for part in ["why:", why, "cost: nothing can be received", "hint:", hint] {
        assert!(message.contains(part), "{part:?} is not in {stderr}");
    }
}

#[test]
fn a_seccomp_profile_that_forbids_io_uring_is_named() {
    check(1, "seccomp", "seccomp profile");
}

#[test]
fn a_kernel_without_io_uring_is_named() {
    check(38, "no io_uring", "Linux 5.11 or later");
}
