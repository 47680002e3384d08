//! What an endpoint is told: its core, its keys, its bounds; and what of it is for quinn.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::{hkdf, hmac};
use quinn_proto::crypto::rustls::QuicServerConfig;
use quinn_proto::crypto::{HandshakeTokenKey, HmacKey};
use quinn_proto::{
    EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TimeSource, TransportConfig,
    VarInt,
};

use super::ids::{CORES_MAX, CoreId, Ids};
use crate::request::{Limits, Nanos};
use crate::server::lifetime::Lifetime;

/// Control, and the two of QPACK; and some that a client may open to see what we make of them.
const UNI_STREAMS_MAX: u32 = 8;
/// What a connection may send ahead until it has shown that it sends. The budget is not asked for
/// it at once, or who only stays connected would fill it; but for what of it is held
/// ([`super::gaps`]).
const WINDOW_BYTES_AT_FIRST: u32 = 32 << 10;
/// Requests that a connection may have open until it has shown that it wants more: then twice as
/// many, and so on. RFC 9114 (6.1) would have 100 from the start, which a client that wants them
/// has three round trips later. quinn keeps a place in two tables for each that it allows, and
/// hands what a stream that ended had to receive with, its list of pieces too, on to one that is
/// allowed and not open: in time all have some 400 bytes, for as long as the connection lives. With
/// 131 of them a thousand connections held 40 MB, used or not; and nothing that a user of quinn can
/// say changes that but the number.
const STREAMS_AT_FIRST: u32 = 16;
/// What a peer may leave unacknowledged of what we sent.
const SEND_WINDOW_BYTES: u64 = 1 << 20;
/// A connection that never idles too long is forgotten after this much silence all the same: a
/// peer that vanished says nothing.
const SILENCE_MAX: Duration = Duration::from_secs(600);
const RETRY_TOKEN_LIFETIME: Duration = Duration::from_secs(15);
/// First packets that wait for a turn: as many as handshakes may be under way, within reason.
const WAITING_MIN: usize = 128;
const WAITING_MAX: usize = 1024;
/// What is held of a client that waits, beside its first packet: the rest of a hello with a
/// post-quantum key, once more if it grew impatient. Few send more than half of it.
const INCOMING_BYTES_MAX: u64 = 8 << 10;
const INCOMING_BYTES_USUAL: u64 = 4 << 10;
/// What a client's datagrams may be at most: those of Ethernet. Longer ones are not taken, for one
/// byte behind a gap keeps the buffer of its datagram.
pub(crate) const ARRIVAL_BYTES_MAX: u16 = 1_472;
/// Between two stateless resets, so that two endpoints can't keep each other busy.
const RESET_INTERVAL: Duration = Duration::from_millis(20);

/// Keys that all cores of a listener share, and all processes that serve its address.
#[derive(Clone)]
pub struct Secrets {
    reset: Arc<dyn HmacKey>,
    token: Arc<dyn HandshakeTokenKey>,
    pub(super) ids: Arc<dyn HmacKey>,
}

impl Secrets {
    /// All keys from one secret that nobody else knows.
    pub fn derive(secret: &[u8; 32]) -> Secrets {
        let master = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let key = |name: &[u8]| {
            Arc::new(hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&master, name).as_ref()))
        };
        let token = hkdf::Salt::new(hkdf::HKDF_SHA256, b"address validation").extract(secret);
        Secrets { reset: key(b"stateless reset"), token: Arc::new(token), ids: key(b"ids") }
    }
}

/// What the clocks said when `Nanos` was 0: what is told in `Nanos` is told to quinn by these.
#[derive(Clone, Copy, Debug)]
pub struct Epoch {
    pub instant: Instant,
    pub wall: SystemTime,
}

/// The terms of one endpoint.
#[derive(Clone)]
pub struct Config {
    pub core: CoreId,
    /// Of the requests that come here: [`crate::request::Head::listener`].
    pub listener: u16,
    pub limits: Limits,
    /// How old connections get. Its `idle_timeout` is of silence, whatever is under way; that of
    /// `limits` is without any request.
    pub lifetime: Lifetime,
    pub tls: Tls,
    pub secrets: Secrets,
    /// Of everything that is left to chance; each core has its own.
    pub seed: [u8; 32],
    pub epoch: Epoch,
    /// Handshakes under way at once.
    pub handshakes_max: usize,
    /// With more of them than this, a client has to prove its address first, by a Retry.
    pub retry_above: usize,
    pub handshake_timeout: Nanos,
    /// Datagrams in one [`super::Transmit`]: 1 where the kernel does not cut them (UDP_SEGMENT).
    pub segments_max: usize,
    /// What path MTU discovery tries at most, in bytes of UDP payload.
    pub datagram_bytes_max: u16,
}

/// A TLS configuration that QUIC can use.
#[derive(Clone)]
pub struct Tls(Arc<QuicServerConfig>);

/// Why a TLS configuration is not for QUIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsError {
    /// RFC 9001, 5.2: the first packets are always encrypted by it.
    NoInitialSuite,
    /// OTLP's requests must not be taken twice.
    EarlyData,
    /// Nobody would speak HTTP/3 to it.
    NoAlpn,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TlsError::NoInitialSuite => "TLS for QUIC needs the suite TLS_AES_128_GCM_SHA256",
            TlsError::EarlyData => "TLS for QUIC must not take early data: it could be replayed",
            TlsError::NoAlpn => "TLS for QUIC has to offer `h3` by ALPN",
        })
    }
}

impl std::error::Error for TlsError {}

impl Tls {
    pub fn new(tls: Arc<rustls::ServerConfig>) -> Result<Tls, TlsError> {
        if tls.max_early_data_size != 0 {
            return Err(TlsError::EarlyData);
        }
        if !tls.alpn_protocols.iter().any(|protocol| protocol == b"h3") {
            return Err(TlsError::NoAlpn);
        }
        let tls = QuicServerConfig::try_from(tls).map_err(|_| TlsError::NoInitialSuite)?;
        Ok(Tls(Arc::new(tls)))
    }
}

impl Config {
    pub(super) fn endpoint(&self) -> EndpointConfig {
        let CoreId { index, count } = self.core;
        assert!(index < count && count <= CORES_MAX, "core {index} of {count}");
        let mut endpoint = EndpointConfig::new(self.secrets.reset.clone());
        let ids = Ids::new(self.core, self.secrets.ids.clone(), self.seed);
        endpoint.cid_generator(move || Box::new(ids.clone()));
        endpoint.rng_seed(Some(self.seed));
        endpoint.min_reset_interval(RESET_INTERVAL);
        let endpoint_said = endpoint.max_udp_payload_size(ARRIVAL_BYTES_MAX);
        endpoint_said.expect("it is more than what QUIC asks for at least");
        endpoint
    }

    pub(super) fn server(&self, clock: Arc<WallClock>) -> ServerConfig {
        let mut server = ServerConfig::new(self.tls.0.clone(), self.secrets.token.clone());
        server.transport_config(Arc::new(self.transport()));
        server.retry_token_lifetime(RETRY_TOKEN_LIFETIME);
        server.migration(true);
        let waiting_max = waiting_max(self);
        // And the one that is decided on.
        server.max_incoming(waiting_max + 1);
        server.incoming_buffer_size(INCOMING_BYTES_MAX);
        server.incoming_buffer_size_total(waiting_max as u64 * INCOMING_BYTES_USUAL);
        server.time_source(clock);
        server
    }

    fn transport(&self) -> TransportConfig {
        let limits = &self.limits;
        let idle = match self.lifetime.idle_timeout {
            0 => SILENCE_MAX,
            nanos => Duration::from_nanos(nanos),
        };
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(self.datagram_bytes_max);
        let streams = streams_at_first(limits);
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(streams))
            .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS_MAX))
            .stream_receive_window(VarInt::from_u32(stream_window(limits)))
            .receive_window(VarInt::from_u32(window_at_first(limits)))
            .send_window(SEND_WINDOW_BYTES)
            // Answers are small: each in one packet, and none cut into many for fairness.
            .send_fairness(false)
            .max_idle_timeout(IdleTimeout::try_from(idle).ok())
            .mtu_discovery_config(Some(discovery))
            .datagram_receive_buffer_size(None)
            .enable_segmentation_offload(self.segments_max > 1);
        transport
    }
}

/// First packets that wait for a turn at most.
pub(super) fn waiting_max(config: &Config) -> usize {
    config.handshakes_max.clamp(WAITING_MIN, WAITING_MAX)
}

/// What may come of one stream ahead of what was read of it.
pub(super) fn stream_window(limits: &Limits) -> u32 {
    limits.connection_window_bytes / 4
}

/// What a new connection may send ahead.
pub(super) fn window_at_first(limits: &Limits) -> u32 {
    limits.connection_window_bytes.min(WINDOW_BYTES_AT_FIRST)
}

/// Requests that a new connection may have open.
pub(super) fn streams_at_first(limits: &Limits) -> u32 {
    u32::try_from(limits.connection_requests_max).unwrap_or(u32::MAX).min(STREAMS_AT_FIRST)
}

/// Wall-clock time for the age of Retry tokens, moved by the turn's clock.
pub(super) struct WallClock {
    epoch: SystemTime,
    now: AtomicU64,
}

impl WallClock {
    pub(super) fn new(epoch: SystemTime) -> WallClock {
        WallClock { epoch, now: AtomicU64::new(0) }
    }

    pub(super) fn set(&self, now: Nanos) {
        self.now.store(now, Ordering::Relaxed);
    }
}

impl TimeSource for WallClock {
    fn now(&self) -> SystemTime {
        self.epoch + Duration::from_nanos(self.now.load(Ordering::Relaxed))
    }
}
