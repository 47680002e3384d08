//! glommio behind a thin wall: executors, tasks, timers and TCP streams for exporter cores.
//!
//! The only file that names glommio, so that a fork of it can be swapped in here. Knows no
//! protocol. Always: what a [`Stream`] took is with the kernel, and an executor is refused with a
//! legible error where io_uring is missing (glommio itself would end the process).
//!
//! `unsafe`, once: glommio lends a socket's number and no `BorrowedFd`, and sends no several
//! slices at once.

#![allow(unsafe_code)]

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll, ready};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_lite::io::{AsyncRead as _, AsyncWrite as _};
use glommio::net::TcpStream;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement};
use hyper::rt::ReadBufCursor;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

/// Registered for storage I/O in each of an executor's three rings. The exporters use none of it;
/// the default would need 30 MiB of locked memory, and 8 MiB is what a process usually gets.
const IO_MEMORY_BYTES: usize = 64 << 10;
/// How long a busy executor may leave wakes from other threads unseen. Much shorter than the
/// scheduler's slices would make the stall that [`heartbeat`] bounds common.
const PREEMPT_INTERVAL: Duration = Duration::from_millis(20);
/// The longest such stall, as long as this thread is never kept from its core for
/// [`HEARTBEATS`] times as long.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(20);
const HEARTBEATS: u32 = 250;
const READ_BUFFER_BYTES: usize = 16 << 10;
/// So many slices are sent at once; the kernel takes 1024.
pub const SLICES_MAX: usize = 128;

/// Starts a thread with an executor on it, pinned to `core` if given, and runs `main` to its end.
/// Fails if the thread or its rings cannot be made.
pub fn start_executor<F, M>(
    name: String,
    core: Option<usize>,
    main: M,
) -> io::Result<JoinHandle<()>>
where
    M: FnOnce() -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    probe()?;
    let (made, answer) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(name.clone()).spawn(move || {
        let executor = match make_executor(&name, core) {
            Ok(executor) => executor,
            Err(error) => {
                // Nobody listens only if the caller has panicked meanwhile.
                let _ = made.send(Err(error));
                return;
            }
        };
        let _ = made.send(Ok(()));
        executor.run(async move {
            let began = Instant::now();
            for nth in 0..HEARTBEATS {
                spawn(heartbeat(nth, began));
            }
            main().await;
        });
    })?;
    match answer.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::other("the exporter thread ended before its executor was made")),
    }
}

/// Runs `future` beside its caller on this thread's executor. Nobody hears of its end.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    glommio::spawn_local(future).detach();
}

/// Runs `future` beside its caller; the result is ready when it has ended.
pub fn join_task(future: impl Future<Output = ()> + 'static) -> impl Future<Output = ()> {
    glommio::spawn_local(future)
}

pub async fn sleep(duration: Duration) {
    glommio::timer::sleep(duration).await;
}

/// Lets other tasks run if this one has used up its turn.
pub async fn yield_if_needed() {
    glommio::yield_if_needed().await;
}

/// Runs `work` on the executor's blocking thread: for what the kernel only does synchronously.
pub async fn blocking<T, W>(work: W) -> io::Result<T>
where
    T: Send + 'static,
    W: FnOnce() -> io::Result<T> + Send + 'static,
{
    // A panic there would leave the caller waiting for ever, so it becomes an error here.
    let caught = move || std::panic::catch_unwind(AssertUnwindSafe(work));
    match glommio::executor().spawn_blocking(caught).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::other("a blocking operation panicked")),
    }
}

/// A connected TCP stream with `TCP_NODELAY`. Serves `hyper`, and whoever brings slices.
pub struct Stream {
    tcp: TcpStream,
    read: Box<[u8]>,
}

impl Stream {
    /// Connects to `address`; bounded in time by the kernel alone: drop the future to give up.
    pub async fn connect(address: SocketAddr) -> io::Result<Stream> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        Ok(Stream { tcp, read: vec![0; READ_BUFFER_BYTES].into_boxed_slice() })
    }

    /// What came, in the stream's own buffer. Nothing: the peer sends no more.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let count = ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut self.read))?;
        Poll::Ready(Ok(&self.read[..count]))
    }

    /// Hands to the kernel as much of `slices`, one behind the other, as it takes now.
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if slices.len() > 1 {
            match self.send(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
        let Some(first) = slices.iter().find(|slice| !slice.is_empty()) else {
            return Poll::Ready(Ok(0));
        };
        match ready!(Pin::new(&mut self.tcp).poll_write(cx, first))? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            count => Poll::Ready(Ok(count)),
        }
    }

    fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // SAFETY: `tcp` owns the socket and closes it when it is dropped; it is borrowed here for
        // longer than `socket` lives.
        let socket = unsafe { BorrowedFd::borrow_raw(self.tcp.as_raw_fd()) };
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let slices = &slices[..slices.len().min(SLICES_MAX)];
        Ok(sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), flags)?)
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let room = buffer.remaining().min(this.read.len());
        let count = ready!(Pin::new(&mut this.tcp).poll_read(cx, &mut this.read[..room]))?;
        buffer.put_slice(&this.read[..count]);
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_close(cx)
    }
}

/// Wakes the executor every [`HEARTBEAT_INTERVAL`], together with its likes.
///
/// glommio 0.9 parks with runnable tasks in its queues if the preemption timer, or a late
/// notification of another thread, fires in the moment between polling for I/O and running tasks
/// (`run_task_queues` then reports that nothing ran). Nothing but the next event ends that sleep,
/// so there is always a next event. Many beat in turn, since those that have just fired may
/// themselves be among the tasks that were not run: on a busy machine a thread waits for its core
/// while several fall due, and once all of them have there is nobody left to wake it.
///
/// Each keeps its own place in the round, which `began` with the executor: such as once fell due
/// together would else do so for ever.
async fn heartbeat(nth: u32, began: Instant) {
    loop {
        sleep(until_beat(HEARTBEAT_INTERVAL * nth, began.elapsed())).await;
    }
}

/// From `elapsed` to the next time that a round is as far as `place`.
fn until_beat(place: Duration, elapsed: Duration) -> Duration {
    let round = HEARTBEAT_INTERVAL * HEARTBEATS;
    let into = Duration::from_nanos((elapsed.as_nanos() % round.as_nanos()) as u64);
    if into < place { place - into } else { round - into + place }
}

/// Makes and drops a tiny ring, to fail here with words instead of inside glommio without.
fn probe() -> io::Result<()> {
    io_uring::IoUring::new(4).map(drop).map_err(|error| {
        let why = match error.raw_os_error() {
            Some(libc::ENOSYS) => "this kernel has no io_uring (5.15 or newer is needed)",
            Some(libc::EPERM | libc::EACCES) => {
                "io_uring is forbidden here: allow it in the container's seccomp profile, or set \
                 the sysctl kernel.io_uring_disabled to 0"
            }
            Some(libc::ENOMEM) => "too little locked memory: raise `ulimit -l` (LimitMEMLOCK)",
            _ => "no ring could be made",
        };
        io::Error::new(error.kind(), format!("exporter cores need io_uring: {why} ({error})"))
    })
}

fn make_executor(name: &str, core: Option<usize>) -> io::Result<LocalExecutor> {
    let placement = core.map_or(Placement::Unbound, Placement::Fixed);
    LocalExecutorBuilder::new(placement)
        .name(name)
        .io_memory(IO_MEMORY_BYTES)
        .preempt_timer(PREEMPT_INTERVAL)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
        .make()
        .map_err(|error| {
            let core = core.map_or("no fixed core".into(), |core| format!("core {core}"));
            io::Error::other(format!("no executor for {name} on {core}: {error}"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_that_fell_due_together_part_again() {
        let round = HEARTBEAT_INTERVAL * HEARTBEATS;
        for late_ms in [0, 1, 19, 20, 21, 999, 4_999, 5_000, 5_001, 123_456] {
            let now = Duration::from_millis(late_ms);
            let mut beats: Vec<Duration> = (0..HEARTBEATS)
                .map(|nth| now + until_beat(HEARTBEAT_INTERVAL * nth, now))
                .collect();
            beats.sort_unstable();
            assert!(beats[0] > now && *beats.last().expect("some") <= now + round);
            assert!(beats.windows(2).all(|pair| pair[1] - pair[0] == HEARTBEAT_INTERVAL));
        }
    }
}
