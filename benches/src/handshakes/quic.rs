//! Handshakes over QUIC, several at once on one runtime.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint, VarInt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Counts, PATIENCE, Settings, Witness};

/// H3_NO_ERROR
const NO_ERROR: u32 = 0x100;

pub(super) fn run(settings: &Settings, counts: &Arc<Counts>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime can be started: {error}"))?;
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for _ in 0..settings.at_once.max(1) {
            tasks.spawn(repeat(settings.clone(), counts.clone()));
        }
        while let Some(ended) = tasks.join_next().await {
            ended.expect("no task panics")?;
        }
        Ok(())
    })
}

async fn repeat(settings: Settings, counts: Arc<Counts>) -> Result<(), String> {
    let (config, witness) = Witness::config(&settings, &["h3"])?;
    let config = QuicClientConfig::try_from(config).map_err(|error| format!("QUIC: {error}"))?;
    let config = ClientConfig::new(Arc::new(config));
    let any: SocketAddr = match settings.target.address {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0; 16], 0).into(),
    };
    let endpoint = Endpoint::client(any).map_err(|error| format!("no UDP socket: {error}"))?;
    let name = settings.trust.name(&settings.target);
    let mut is_first = !settings.full;
    while !counts.is_over() {
        let looked = witness.looked();
        let one = handshake(&settings, &endpoint, &config, &name, &witness);
        let outcome = match timeout(PATIENCE, one).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no handshake within {PATIENCE:?}")),
        };
        match outcome {
            Ok(()) if std::mem::take(&mut is_first) => {}
            Ok(()) => counts.note(witness.looked() > looked),
            Err(_) if counts.is_over() => {}
            Err(problem) => {
                counts.fail(problem);
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Until it stands, and until there is a ticket where one is wanted.
async fn handshake(
    settings: &Settings,
    endpoint: &Endpoint,
    config: &ClientConfig,
    name: &str,
    witness: &Witness,
) -> Result<(), String> {
    let tickets = witness.tickets();
    let connecting = endpoint.connect_with(config.clone(), settings.target.address, name);
    let connection = connecting.map_err(|error| error.to_string())?;
    let connection = connection.await.map_err(|error| error.to_string())?;
    if !settings.full {
        let wait = timeout(PATIENCE, witness.ticket(tickets)).await;
        wait.map_err(|_| "the server gives no ticket, and so nothing can be resumed")?;
    }
    connection.close(VarInt::from_u32(NO_ERROR), b"");
    Ok(())
}
