//! The client side of a connection: from a name to a connected stream.
//!
//! Speaks no protocol over it and never retries: every address of the name is tried once.

mod line;
mod secured;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::future::or;
use http::Uri;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

pub use self::line::Line;
use self::secured::Secured;
use crate::glommio_io::{Stream, blocking, sleep};
use crate::tls::fault::Fault;
use crate::tls::outward::server_name;

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    host: String,
    port: u16,
}

impl Target {
    /// `None` if the URI names no host.
    pub fn of(uri: &Uri, port_default: u16) -> Option<Target> {
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(port_default);
        Some(Target { host: host.to_owned(), port })
    }

    /// Of `host:port` or `[v6]:port`.
    pub fn parse(address: &str) -> Option<Target> {
        let (host, port) = address.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = port.parse().ok().filter(|_| !host.is_empty())?;
        Some(Target { host: host.to_owned(), port })
    }
}

/// TLS towards a target.
#[derive(Clone)]
pub struct Security {
    /// Whom to trust, what to show, and which protocols to offer.
    pub config: Arc<ClientConfig>,
    /// What the peer's certificate must be for; `None`: the target's host.
    pub name: Option<ServerName<'static>>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Resolves `target` and connects to the first of its addresses that answers, within `timeout` in
/// all. `turn` says with which address to begin, so that connections spread over them. With
/// `security` the TLS handshake follows, within what is left of `timeout`.
///
/// The error names every address tried and what it said; of TLS it is a [`Fault`].
pub async fn dial(
    target: &Target,
    turn: usize,
    timeout: Duration,
    security: Option<&Security>,
) -> io::Result<Line> {
    let began = Instant::now();
    let (stream, peer) = connect(target, turn, timeout).await?;
    let Some(Security { config, name }) = security else {
        return Ok(Line::Plain(stream));
    };
    let name = match name {
        Some(name) => name.clone(),
        None => server_name(&target.host).map_err(|why| Fault::because(&why).with(peer))?,
    };
    let handshake = Secured::connect(stream, peer, config.clone(), name);
    let secured = or(handshake, async {
        sleep(timeout.saturating_sub(began.elapsed())).await;
        let why = format!(
            "connecting and the handshake took longer than {timeout:?}: does the server speak TLS \
             on this port?"
        );
        Err(Fault::because(&why).into())
    });
    match secured.await {
        Ok(secured) => Ok(Line::Secured(Box::new(secured))),
        Err(error) => Err(Fault::or_error_with(peer, error)),
    }
}

async fn connect(
    target: &Target,
    turn: usize,
    timeout: Duration,
) -> io::Result<(Stream, SocketAddr)> {
    let mut addresses = within(timeout, "looking up the name", resolve(target.clone())).await?;
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no addresses"));
    }
    let first = turn % addresses.len();
    addresses.rotate_left(first);
    let share = timeout / addresses.len() as u32;
    let mut failures = Vec::new();
    let mut kind = io::ErrorKind::Other;
    for address in addresses {
        match within(share, "connecting", Stream::connect(address)).await {
            Ok(stream) => return Ok((stream, address)),
            Err(error) => {
                kind = error.kind();
                failures.push(format!("{address}: {error}"));
            }
        }
    }
    Err(io::Error::new(kind, failures.join(", ")))
}

async fn resolve(target: Target) -> io::Result<Vec<SocketAddr>> {
    // An address needs no thread to look it up on.
    if let Ok(ip) = target.host.parse() {
        return Ok(vec![SocketAddr::new(ip, target.port)]);
    }
    blocking(move || {
        let mut addresses = Vec::new();
        for address in (target.host.as_str(), target.port).to_socket_addrs()? {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    })
    .await
}

async fn within<T>(
    limit: Duration,
    doing: &str,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    or(work, async {
        sleep(limit).await;
        let text = format!("{doing} took longer than {limit:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(uri: &str) -> Option<String> {
        Target::of(&uri.parse().unwrap(), 4317).map(|target| target.to_string())
    }

    #[test]
    fn a_target_is_the_host_and_the_port_or_its_default() {
        assert_eq!(target("http://collector:9999/x").as_deref(), Some("collector:9999"));
        assert_eq!(target("http://collector").as_deref(), Some("collector:4317"));
        assert_eq!(target("http://[::1]:5").as_deref(), Some("[::1]:5"));
        assert_eq!(target("/v1/traces"), None);
    }
}
