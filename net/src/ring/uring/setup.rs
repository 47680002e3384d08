//! How a ring is set up on one rung of the ladder, and tried out: a kernel may know a flag, or be
//! told by a filter to refuse it, and fail later.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use io_uring::IoUring;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::super::provided::{GROUP, Provided};
use super::super::slots::Slots;
use super::super::{Done, End, Options, Ring, RingStats, Rung};
use super::Uring;
use crate::wake::Wake;

impl Uring {
    /// A ring on this rung, if the kernel carries it.
    pub(super) fn on_rung(rung: Rung, options: &Options) -> io::Result<Uring> {
        let mut builder = IoUring::builder();
        builder.setup_clamp().setup_cqsize(options.entries.saturating_mul(4));
        match rung {
            Rung::Deferred => {
                builder.setup_single_issuer().setup_defer_taskrun();
                builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
            }
            Rung::Cooperative => {
                builder.setup_coop_taskrun().setup_taskrun_flag();
            }
            Rung::Oneshot => {}
        }
        let ring = builder.build(options.entries)?;
        if !ring.params().is_feature_ext_arg() {
            return Err(io::Error::from_raw_os_error(libc::ENOSYS));
        }
        let provided = match rung {
            Rung::Oneshot => None,
            _ => {
                let submitter = ring.submitter();
                Some(Provided::register(&submitter, GROUP, options.buffers, options.buffer_bytes)?)
            }
        };
        let mut uring = Uring {
            ring: Some(ring),
            provided,
            rung,
            slots: Slots::default(),
            datagrams: None,
            datagram_buffers: options.datagram_buffers,
            acceptors: Vec::new(),
            wake: Arc::new(Wake::new()?),
            wake_counter: Box::new(0),
            done: VecDeque::new(),
            completions: Vec::new(),
            in_flight: 0,
            stats: RingStats::default(),
        };
        uring.probe_receive()?;
        uring.arm_wake();
        Ok(uring)
    }

    /// Receives one byte the way this rung would: flags alone don't tell whether a kernel can.
    fn probe_receive(&mut self) -> io::Result<()> {
        let (near, far) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let key = self.open(near);
        self.receive(key);
        rustix::io::write(&far, b"?")?;
        self.wait(Some(Duration::from_millis(500)))?;
        let verdict = match self.next_done() {
            Some(Done::Received { chunk, .. }) => {
                let same = self.bytes(&chunk) == b"?";
                self.give_back(chunk);
                if same { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EIO)) }
            }
            Some(Done::ReceiveEnded { end: End::Failed(error), .. }) => Err(error),
            _ => Err(io::Error::from_raw_os_error(libc::ETIME)),
        };
        self.close(key);
        loop {
            while let Some(done) = self.next_done() {
                if let Done::Received { chunk, .. } = done {
                    self.give_back(chunk);
                }
            }
            if self.in_flight == 0 {
                return verdict;
            }
            self.wait(Some(Duration::from_millis(500)))?;
        }
    }
}
