//! On what terms the two sides meet: certificates, keys, limits, and chance that follows from a
//! seed.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use forebay_net::quic::{Config, CoreId, Epoch, Secrets, Tls};
use forebay_net::request::{Limits, Nanos};
use forebay_net::ring::fake::Dice;
use forebay_net::server::lifetime::Lifetime;
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, TransportConfig,
};
use rustls::ServerConfig;

use crate::papers;
pub(crate) use crate::papers::NAME;

pub(crate) const MILLI: Nanos = 1_000_000;
pub(crate) const SECOND: Nanos = 1_000 * MILLI;

static EPOCH: LazyLock<Epoch> =
    LazyLock::new(|| Epoch { instant: Instant::now(), wall: SystemTime::now() });
static TLS: LazyLock<(Arc<ServerConfig>, Arc<QuicClientConfig>)> = LazyLock::new(papers::tls);

pub(crate) fn instant(now: Nanos) -> Instant {
    EPOCH.instant + Duration::from_nanos(now)
}

pub(crate) fn nanos(instant: Instant) -> Nanos {
    instant.duration_since(EPOCH.instant).as_nanos() as Nanos
}

pub(crate) fn server_tls() -> Arc<ServerConfig> {
    TLS.0.clone()
}

/// The terms of one core of a day.
pub(crate) fn server(core: CoreId, dice: &mut Dice, common: &Common) -> Config {
    Config {
        core,
        listener: 3,
        limits: common.limits,
        lifetime: common.lifetime,
        tls: Tls::new(server_tls()).expect("for QUIC"),
        secrets: Secrets::derive(&common.secret),
        seed: seed(dice),
        epoch: *EPOCH,
        handshakes_max: common.handshakes_max,
        retry_above: common.retry_above,
        handshake_timeout: 3 * SECOND,
        segments_max: common.segments_max,
        datagram_bytes_max: 1_452,
    }
}

/// What all cores of a day agree on.
#[derive(Clone)]
pub(crate) struct Common {
    limits: Limits,
    lifetime: Lifetime,
    secret: [u8; 32],
    handshakes_max: usize,
    retry_above: usize,
    segments_max: usize,
}

impl Common {
    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn drawn(dice: &mut Dice) -> Common {
        let is_full = dice.of_1000(100);
        Common {
            limits: Limits {
                header_bytes_max: 4096,
                connections_max: if is_full { 2 } else { 1_000 },
                connection_requests_max: 1 + dice.below(20) as usize,
                connection_window_bytes: 4_000 + dice.below(200_000) as u32,
                header_timeout: 2 * SECOND,
                body_timeout: 4 * SECOND,
                idle_timeout: 5 * SECOND,
                write_timeout: 4 * SECOND,
            },
            lifetime: Lifetime {
                idle_timeout: 5 * SECOND,
                age_max: if dice.of_1000(200) { SECOND / 2 } else { 0 },
                age_grace: 20 * SECOND,
            },
            secret: seed(dice),
            handshakes_max: if dice.of_1000(100) { 1 } else { 1_000 },
            retry_above: [0, 1, 1_000][dice.below(3) as usize],
            segments_max: [1, 10][dice.below(2) as usize],
        }
    }
}

pub(crate) fn seed(dice: &mut Dice) -> [u8; 32] {
    let mut seed = [0; 32];
    seed.chunks_mut(8).for_each(|eight| eight.copy_from_slice(&dice.number().to_le_bytes()));
    seed
}

/// A client's endpoint, whose IDs follow from its dice.
pub(crate) fn client_endpoint(dice: &mut Dice) -> EndpointConfig {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &seed(dice));
    let mut endpoint = EndpointConfig::new(Arc::new(key));
    let dice = dice.fork();
    endpoint.cid_generator(move || Box::new(Drawn(dice.clone())));
    endpoint
}

pub(crate) fn client(dice: &mut Dice) -> ClientConfig {
    client_with(dice, TLS.1.clone())
}

pub(crate) fn client_with(dice: &mut Dice, tls: Arc<QuicClientConfig>) -> ClientConfig {
    let mut client = ClientConfig::new(tls);
    let drawn = dice.number();
    let id = [drawn.to_le_bytes(), (!drawn).to_le_bytes()].concat();
    client.initial_dst_cid_provider(Arc::new(move || ConnectionId::new(&id)));
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(Duration::from_secs(30)).expect("not too long");
    transport.max_idle_timeout(Some(idle));
    transport.stream_receive_window((1_000 + dice.below(60_000) as u32).into());
    transport.receive_window((2_000 + dice.below(100_000) as u32).into());
    client.transport_config(Arc::new(transport));
    client
}

struct Drawn(Dice);

impl ConnectionIdGenerator for Drawn {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.0.number().to_le_bytes())
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
