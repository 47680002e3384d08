//! Why io_uring is not to be had, in words for whoever operates the node.

use std::io;

/// What to tell an operator when `io_uring_setup` failed with `error`. `sysctl` is the content of
/// `kernel.io_uring_disabled`, if it could be read.
pub fn setup_failed(error: &io::Error, sysctl: Option<&str>) -> String {
    let (why, hint) = match (error.raw_os_error(), sysctl.map(str::trim)) {
        (Some(libc::EPERM), Some("2")) => (
            "the sysctl kernel.io_uring_disabled is 2: switched off for everybody",
            "run `sysctl -w kernel.io_uring_disabled=0` on the node",
        ),
        (Some(libc::EPERM), Some("1")) => (
            "the sysctl kernel.io_uring_disabled is 1: only for privileged processes",
            "run `sysctl -w kernel.io_uring_disabled=0`, or add this user's group to \
             kernel.io_uring_group",
        ),
        (Some(libc::EPERM), _) => (
            "a security policy forbids it (seccomp, as in most container runtimes' default \
             profile)",
            "allow io_uring_setup, io_uring_enter and io_uring_register in the container's \
             seccomp profile",
        ),
        (Some(libc::ENOSYS), _) => (
            "this kernel has no io_uring, or a sandbox hides it",
            "use Linux 5.11 or later (6.1 or later for full speed)",
        ),
        (Some(libc::ENOMEM), _) => (
            "the memlock limit is too small for the ring",
            "raise `LimitMEMLOCK` (systemd) or `ulimit -l`",
        ),
        (Some(libc::EMFILE | libc::ENFILE), _) => {
            ("no file descriptor is left", "raise `LimitNOFILE` (systemd) or `ulimit -n`")
        }
        _ => ("the kernel refused every way of setting it up", "use Linux 5.11 or later"),
    };
    format!(
        "io_uring is not available: {error}\n   why: {why}\n  cost: nothing can be received\n  hint: {hint}"
    )
}

/// Reads `kernel.io_uring_disabled` (Linux 6.6 and later).
pub fn sysctl_disabled() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_of_a_missing_ring_is_named_with_its_cure() {
        let cases = [
            (libc::EPERM, Some("2\n"), "kernel.io_uring_disabled is 2", "sysctl -w"),
            (libc::EPERM, Some("1"), "is 1", "io_uring_group"),
            (libc::EPERM, Some("0"), "seccomp", "seccomp profile"),
            (libc::EPERM, None, "seccomp", "seccomp profile"),
            (libc::ENOSYS, None, "no io_uring", "5.11"),
            (libc::ENOMEM, None, "memlock", "LimitMEMLOCK"),
            (libc::EMFILE, None, "file descriptor", "LimitNOFILE"),
            (libc::EINVAL, None, "refused", "5.11"),
        ];
        for (errno, sysctl, why, hint) in cases {
            let text = setup_failed(&io::Error::from_raw_os_error(errno), sysctl);
            assert!(text.contains(why), "{text}");
            assert!(text.lines().last().is_some_and(|line| line.contains(hint)), "{text}");
        }
    }
}
