//! A long and lossy path between load and server: datagrams by UDP, or a stream by TCP.
//!
//! A datagram is delayed, lost, doubled, overtaken, as the seed says; after a while the path's
//! outer port changes under a client, as a NAT's does. What was drawn for the nth datagram of a
//! flow depends on the seed, the flow and n alone, never on the clock.
//!
//! A stream can't lose anything here: TCP ends at this process on both sides, and loses nothing on
//! loopback. So its losses are played: it is cut into segments as large as QUIC's datagrams, and
//! one that is drawn to be lost arrives when a sender with selective acknowledgement would have
//! repaired it: a round trip later if others follow it, two at the end of a burst, after a probe.
//! Everything behind it waits, as a receiver in order has to, and the sender's window shrinks and
//! grows as Cubic's does where losses are frequent. That is still kind to TCP: acknowledgements and
//! probes are never lost, what is sent again and lost again is found at once, a window survives a
//! pause, no delayed acknowledgement makes the probe wait, and connecting takes no time. Where
//! HTTP/3 has the better latency here, it has it in earnest; how much better, this does not say.
//!
//! Never looks into what it carries. ECN marks do not pass. Always bounded: what has no room is
//! lost and counted, or is not read.

mod datagrams;
pub mod fate;
mod relay;
mod window;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::event::{PollFd, Timespec, poll};
use serde::Serialize;

use self::fate::Path;
use crate::load::widen;
use crate::machine::{raise_file_limit, wait_for_interrupt};

/// How often the end is looked for.
const PULSE: Duration = Duration::from_millis(50);
/// Clients or connections at once.
const FLOWS_MAX: usize = 4096;

/// What `lossy` is asked for.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Where clients come (port 0: any that is free)
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// The server
    #[arg(long)]
    pub to: SocketAddr,
    /// Carry TCP, and play its losses; see the documentation for what that leaves out
    #[arg(long)]
    pub tcp: bool,
    /// The same seed, the same fates
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The share of datagrams that are lost, each way, as in 0.02
    #[arg(long, default_value_t = 0.0)]
    pub loss: f64,
    /// Milliseconds that each way takes: half the round trip
    #[arg(long, default_value_t = 0.0)]
    pub delay_ms: f64,
    /// Up to so many milliseconds more, evenly drawn; the order stays
    #[arg(long, default_value_t = 0.0)]
    pub jitter_ms: f64,
    /// The share of datagrams that those behind them overtake
    #[arg(long, default_value_t = 0.0)]
    pub reorder: f64,
    /// The share of datagrams that come twice
    #[arg(long, default_value_t = 0.0)]
    pub duplicate: f64,
    /// Change the outer port of a client after so many of its datagrams, again and again (0: never)
    #[arg(long, default_value_t = 0)]
    pub rebind_after: u64,
}

/// What became of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Datagrams or segments that came.
    pub taken: u64,
    pub lost: u64,
    pub doubled: u64,
    pub overtaken: u64,
    /// Times that an outer port changed.
    pub rebound: u64,
    /// There was no room for them.
    pub overflowed: u64,
}

/// A path that stands.
pub struct Lossy {
    pub address: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Moved>,
}

/// The program: until Ctrl-C or SIGTERM.
pub fn main(settings: &Settings) -> Result<(), String> {
    let lossy = Lossy::start(settings)?;
    let kind = if settings.tcp { "TCP" } else { "UDP" };
    eprintln!("lossy: {kind} {} to {}", lossy.address, settings.to);
    wait_for_interrupt();
    let moved = lossy.stop();
    println!("{}", serde_json::to_string_pretty(&moved).expect("counts are plain data"));
    Ok(())
}

impl Lossy {
    pub fn start(settings: &Settings) -> Result<Lossy, String> {
        raise_file_limit();
        let path = Path::of(settings)?;
        let refused = |error| format!("lossy can't listen on {}: {error}", settings.listen);
        let ended = Arc::new(AtomicBool::new(false));
        let (ending, settings) = (ended.clone(), settings.clone());
        let name = std::thread::Builder::new().name("lossy".to_owned());
        let (address, thread) = if settings.tcp {
            let listener = TcpListener::bind(settings.listen).map_err(refused)?;
            let address = listener.local_addr().map_err(refused)?;
            listener.set_nonblocking(true).map_err(refused)?;
            let body = move || relay::run(&listener, settings.to, path, settings.seed, &ending);
            (address, name.spawn(body))
        } else {
            let socket = UdpSocket::bind(settings.listen).map_err(refused)?;
            let address = socket.local_addr().map_err(refused)?;
            socket.set_nonblocking(true).map_err(refused)?;
            widen(&socket);
            let body = move || datagrams::run(socket, &settings, path, &ending);
            (address, name.spawn(body))
        };
        let thread = thread.map_err(|error| format!("lossy can't start a thread: {error}"))?;
        Ok(Lossy { address, ended, thread })
    }

    /// Ends it; what was under way is gone.
    pub fn stop(self) -> Moved {
        self.ended.store(true, Ordering::Release);
        self.thread.join().expect("lossy does not panic")
    }
}

/// Waits until something can be done, something is due, or it is time to look for the end.
fn wait(fds: &mut [PollFd<'_>], due: Option<Instant>) {
    let timeout = due.map_or(PULSE, |due| due.saturating_duration_since(Instant::now()).min(PULSE));
    let timeout =
        Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
    // Interrupted by a signal: whoever waits looks around and comes again.
    let _ = poll(fds, Some(&timeout));
}
