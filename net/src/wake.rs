//! A wake across threads: an eventfd that is written only when the other side sleeps.
//!
//! The sleeper announces itself, looks at its queues once more, and then sleeps; the waker fills
//! a queue and then looks at the announcement. The fences make sure that one of them sees the
//! other (Dekker). While the sleeper is awake, a wake costs one load.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use rustix::event::{EventfdFlags, eventfd};

#[derive(Debug)]
pub struct Wake {
    eventfd: OwnedFd,
    sleeping: AtomicBool,
}

impl Wake {
    pub fn new() -> io::Result<Wake> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Wake { eventfd, sleeping: AtomicBool::new(false) })
    }

    /// Called by anybody, after what the sleeper shall find was put where it looks.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel) {
            // An eventfd's write fails only when its counter is full: then a wake is on its way.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }

    /// Whether a wake would cost a system call just now.
    pub fn is_needed(&self) -> bool {
        self.sleeping.load(Ordering::Relaxed)
    }

    /// Called by the sleeper before its last look at its queues.
    pub fn about_to_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Called by the sleeper when it does not sleep after all, or no longer.
    pub fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// Whether whoever wakes has to say so to the kernel.
    pub(crate) fn is_sleeping(&self) -> bool {
        self.sleeping.load(Ordering::Relaxed)
    }

    /// Takes back what a wake left with the kernel; there is one.
    pub(crate) fn take(&self) {
        let _ = rustix::io::read(&self.eventfd, &mut [0; 8]);
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(wake: &Wake) -> bool {
        let mut counter = [0u8; 8];
        rustix::fs::fcntl_setfl(&wake.eventfd, rustix::fs::OFlags::NONBLOCK).unwrap();
        rustix::io::read(&wake.eventfd, &mut counter).is_ok()
    }

    #[test]
    fn a_wake_costs_no_write_while_the_other_side_is_awake() {
        let wake = Wake::new().unwrap();
        wake.wake();
        assert!(!written(&wake));
        assert!(!wake.is_needed());
        wake.about_to_sleep();
        assert!(wake.is_needed());
        wake.wake();
        wake.wake();
        assert!(!wake.is_needed() && written(&wake), "a sleeper is woken, once");
        wake.about_to_sleep();
        wake.awake();
        wake.wake();
        assert!(!written(&wake));
    }
}
