//! One handshake after the other over TCP, on a thread that waits.

use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::{Counts, PATIENCE, Settings, Witness};

pub(super) fn run(settings: &Settings, counts: &Counts) -> Result<(), String> {
    let alpn: Vec<&str> = settings.alpn.iter().map(String::as_str).collect();
    let (config, witness) = Witness::config(settings, &alpn)?;
    let config = Arc::new(config);
    let name = settings.trust.server_name(&settings.target)?;
    let mut is_first = !settings.full;
    while !counts.is_over() {
        let looked = witness.looked();
        match handshake(settings, &config, &name, &witness) {
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
fn handshake(
    settings: &Settings,
    config: &Arc<ClientConfig>,
    name: &ServerName<'static>,
    witness: &Witness,
) -> Result<(), String> {
    let said = |error: std::io::Error| error.to_string();
    let mut stream =
        TcpStream::connect_timeout(&settings.target.address, PATIENCE).map_err(said)?;
    stream.set_nodelay(true).map_err(said)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(said)?;
    let tickets = witness.tickets();
    let session = ClientConnection::new(config.clone(), name.clone());
    let mut session = session.map_err(|error| error.to_string())?;
    while session.is_handshaking() {
        session.complete_io(&mut stream).map_err(said)?;
    }
    while !settings.full && witness.tickets() == tickets {
        let count = session.read_tls(&mut stream).map_err(|error| no_ticket(&error.to_string()))?;
        if count == 0 {
            return Err(no_ticket("the connection has ended"));
        }
        session.process_new_packets().map_err(|error| error.to_string())?;
    }
    session.send_close_notify();
    // A server that has hung up by now has done its part.
    let _ = session.write_tls(&mut stream);
    Ok(())
}

fn no_ticket(why: &str) -> String {
    format!("the server gives no ticket, and so nothing can be resumed: {why}")
}
