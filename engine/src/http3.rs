//! What the receiver cores share to serve HTTP/3: one UDP port, keys, and the ways between them.
//!
//! Always
//! - No core's socket is closed while another core serves: the kernel would steer its packets into
//!   the wrong one. So a second handle on each is kept here until all have ended.
//! - The keys are this process's alone, and new at each start.

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use forebay_net::datagrams::Crossing;
use forebay_net::quic::{CORES_MAX, Config, CoreId, Epoch, Secrets, Tls};
use forebay_net::request::{Limits, Nanos};
use forebay_net::server::QuicListener;
use forebay_net::server::lifetime::Lifetime;
use forebay_net::server::listen_datagrams::{Group, PortLock, listen_datagrams};
use forebay_net::tls::Acceptor;
use http::HeaderValue;

use crate::config::plan::{Listener, Plan};
use crate::shard::{lifetime, net_limits};

/// What a connection may send ahead once it has shown that it sends: what a handful of usual
/// requests takes.
const WINDOW_BYTES: u32 = 1 << 20;
/// This share of the memory budget is what connections may send ahead in sum.
const WINDOWS_SHARE: usize = 4;
/// With this share of the handshakes that may be under way, clients have to prove their address.
const RETRY_SHARE: usize = 4;
/// Datagrams for one send: more would keep other connections waiting.
const SEGMENTS_MAX: usize = 32;
/// What a path takes that has Ethernet's 1,500 bytes and IPv6.
const DATAGRAM_BYTES_MAX: u16 = 1452;
/// A socket that holds less than this may lose datagrams while its core works on others.
const RECEIVE_BUFFER_BYTES_MIN: usize = 2 << 20;
/// What the way of an answer may take that came at the last moment.
const LATE: Duration = Duration::from_secs(5);
/// For how long clients remember that there is HTTP/3: a day, as most servers say.
const ALTERNATIVE_SECONDS: u32 = 86_400;

/// The UDP port of the one listener that speaks HTTP/3.
pub struct Ground {
    pub address: SocketAddr,
    /// Its place in the plan.
    listener: usize,
    sockets: Vec<OwnedFd>,
    kept: Kept,
    crossing: Arc<Crossing>,
}

/// To be dropped when no core serves any more.
pub struct Kept {
    _sockets: Vec<OwnedFd>,
    _lock: PortLock,
}

/// One core's part.
pub struct Share {
    pub listener: QuicListener<OwnedFd>,
    /// By listener: the `Alt-Svc` of its answers.
    pub alternatives: Vec<Option<HeaderValue>>,
}

impl Ground {
    /// `None`: the plan has no HTTP/3.
    ///
    /// # Errors
    /// A whole message.
    pub fn bind(plan: &Plan, cores: usize) -> Result<Option<Ground>, String> {
        let Some(index) = plan.listeners.iter().position(|listener| listener.is_quic) else {
            return Ok(None);
        };
        let listener = &plan.listeners[index];
        if cores > CORES_MAX {
            return Err(format!(
                "HTTP/3 is served by at most {CORES_MAX} receiver cores, and there are {cores}\n  \
                 cost: forebay does not start\n  hint: lower engine.cores.receivers"
            ));
        }
        let fault = |error: io::Error| {
            format!(
                "receiver {} can't listen on {} (UDP): {error}\n  cost: forebay does not start\n  \
                 hint: {}",
                listener.receiver_name,
                listener.endpoint,
                hint(error.kind())
            )
        };
        let group = listen_datagrams(listener.address, cores).map_err(fault)?;
        let Group { address, sockets, receive_buffer_bytes, lock } = group;
        warn_of_small_buffers(listener, receive_buffer_bytes);
        let doubles: io::Result<Vec<OwnedFd>> = sockets.iter().map(OwnedFd::try_clone).collect();
        let kept = Kept { _sockets: doubles.map_err(fault)?, _lock: lock };
        let crossing = Crossing::new(cores);
        Ok(Some(Ground { address, listener: index, sockets, kept, crossing }))
    }

    /// Each core's part. `acceptors`: by listener; `epoch`: from where all cores count.
    ///
    /// # Errors
    /// A whole message.
    pub fn shares(
        self,
        plan: &Plan,
        acceptors: &[Option<Arc<Acceptor>>],
        epoch: Instant,
    ) -> Result<(Vec<Share>, Kept), String> {
        let Ground { address, listener, sockets, kept, crossing } = self;
        let acceptor = acceptors[listener].clone().expect("there is no HTTP/3 without TLS");
        let fault =
            |why: &str| format!("HTTP/3 can't be served: {why}\n  cost: forebay does not start");
        let tls = Tls::new(acceptor.config()).map_err(|error| fault(&error.to_string()))?;
        let random = || random().map_err(|error| fault(&format!("/dev/urandom: {error}")));
        let epoch = Epoch { instant: epoch, wall: SystemTime::now() - epoch.elapsed() };
        let terms = config(plan, listener, tls, Secrets::derive(&random()?), epoch);
        let alternatives = alternatives(plan, listener, address.port());
        let count = sockets.len();
        let share = |(index, socket)| {
            let core = CoreId { index, count };
            let config = Config { core, seed: random()?, ..terms.clone() };
            let (acceptor, crossing) = (acceptor.clone(), crossing.clone());
            let windows_bytes_max = plan.engine.memory_budget_bytes / WINDOWS_SHARE;
            let listener = QuicListener { socket, config, acceptor, crossing, windows_bytes_max };
            Ok(Share { listener, alternatives: alternatives.clone() })
        };
        let shares: Result<Vec<Share>, String> =
            sockets.into_iter().enumerate().map(share).collect();
        Ok((shares?, kept))
    }
}

/// The terms that all cores have in common; who of them it is, and its seed, is not among them.
fn config(plan: &Plan, listener: usize, tls: Tls, secrets: Secrets, epoch: Epoch) -> Config {
    let nanos = |duration: Duration| duration.as_nanos() as Nanos;
    let limits = &plan.engine.limits;
    let lifetime = lifetime(&plan.listeners[listener]);
    // Who waits for a late answer may be silent all the while.
    let silence = match lifetime.idle_timeout {
        0 => 0,
        idle => idle.max(nanos(plan.engine.ack_timeout + LATE)),
    };
    Config {
        core: CoreId { index: 0, count: 1 },
        listener: listener as u16,
        limits: Limits {
            connection_window_bytes: WINDOW_BYTES,
            idle_timeout: lifetime.idle_timeout,
            ..net_limits(&plan.engine)
        },
        lifetime: Lifetime { idle_timeout: silence, ..lifetime },
        tls,
        secrets,
        seed: [0; 32],
        epoch,
        handshakes_max: limits.handshakes_max,
        retry_above: limits.handshakes_max / RETRY_SHARE,
        handshake_timeout: nanos(limits.handshake_timeout),
        segments_max: SEGMENTS_MAX,
        datagram_bytes_max: DATAGRAM_BYTES_MAX,
    }
}

/// What the answers of each listener name as another way: those of the same receiver's HTTP, where
/// HTTP/3 is at the same addresses. A port is all that is named, for who knows by which name or
/// through which mapping a client came.
fn alternatives(plan: &Plan, quic: usize, port: u16) -> Vec<Option<HeaderValue>> {
    let value = format!("h3=\":{port}\"; ma={ALTERNATIVE_SECONDS}");
    let value = HeaderValue::try_from(value).expect("it is printable ASCII");
    let quic = &plan.listeners[quic];
    let has_one = |listener: &Listener| {
        !listener.is_quic
            && listener.http.is_some()
            && listener.receiver == quic.receiver
            && covers(quic.address.ip(), listener.address.ip())
    };
    let one = |listener| has_one(listener).then(|| value.clone());
    plan.listeners.iter().map(one).collect()
}

/// Whether whoever listens at `wide` is found wherever somebody at `narrow` is.
fn covers(wide: IpAddr, narrow: IpAddr) -> bool {
    // All of IPv6 is all of IPv4, too.
    wide == narrow || (wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4()))
}

fn hint(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::AddrInUse => {
            "end the process that has this port, or change the receiver's endpoint; `ss -ulnp` \
             shows who has a port, `ss -xlp` who has a lock"
        }
        io::ErrorKind::AddrNotAvailable => {
            "no interface of this machine has this address: change the receiver's endpoint"
        }
        io::ErrorKind::PermissionDenied => {
            "a port below 1024 takes CAP_NET_BIND_SERVICE; a lock takes a system that allows \
             abstract unix sockets (a sandbox, AppArmor or SELinux may not)"
        }
        _ => {
            "the system does not allow it, or lacks it: a sandbox may forbid UDP or unix sockets \
             (systemd: RestrictAddressFamilies), or IPv6 may be off"
        }
    }
}

fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn warn_of_small_buffers(listener: &Listener, bytes: usize) {
    if bytes < RECEIVE_BUFFER_BYTES_MIN {
        tracing::warn!(
            receiver = listener.receiver_name,
            receive_buffer_bytes = bytes,
            "The kernel holds few datagrams for a busy core: bursts of HTTP/3 are lost and sent \
             again, which costs time. Raise it: sysctl net.core.rmem_max=8388608"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_3_is_named_only_where_it_is_found_at_the_addresses_of_http() {
        for (wide, narrow, covered) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "10.0.0.1", false),
            ("127.0.0.1", "0.0.0.0", false),
            ("0.0.0.0", "0.0.0.0", true),
            ("0.0.0.0", "10.0.0.1", true),
            ("0.0.0.0", "::1", false),
            ("0.0.0.0", "::", false),
            ("::", "::1", true),
            ("::", "10.0.0.1", true),
            ("::", "0.0.0.0", true),
            ("::1", "127.0.0.1", false),
        ] {
            let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
            assert_eq!(covers(ip(wide), ip(narrow)), covered, "{wide} for {narrow}");
        }
    }
}
