//! gRPC's way to write a name that is to be resolved: `dns:///host:port`, `dns://server/host`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::{Dns, Families};
use crate::discovery::endpoint::{Endpoint, shortened};

/// OTLP's gRPC port, for targets that name none.
const PORT_DEFAULT: u16 = 4317;
const SERVER_PORT_DEFAULT: u16 = 53;

impl Dns {
    pub fn of(host: impl Into<String>, port: u16) -> Dns {
        Dns { host: host.into(), port, server: None, families: Families::Both }
    }

    /// From `dns:host:port`, `dns:///host:port` or `dns://server[:port]/host:port`; without a port
    /// it is 4317.
    pub fn of_target(target: &str) -> Result<Dns, BadTarget> {
        let bad = |why: &str| BadTarget(format!("\"{}\": {why}", shortened(target)));
        let rest = target.strip_prefix("dns:").ok_or_else(|| bad("it begins not with dns:"))?;
        let (server, address) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_once('/').ok_or_else(|| bad("the third slash is missing"))?,
            None => ("", rest),
        };
        // A last dot says that the name is complete; an endpoint's address has none.
        let endpoint = Endpoint::parse(address, Some(PORT_DEFAULT));
        let endpoint = endpoint.map_err(|error| bad(&error.to_string()))?;
        let (host, port) = endpoint.address().rsplit_once(':').ok_or_else(|| bad("no port"))?;
        let is_complete = address.split(':').next().is_some_and(|host| host.ends_with('.'));
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let dot = if is_complete { "." } else { "" };
        let port = port.parse().map_err(|_| bad("no port"))?;
        let mut dns = Dns::of(format!("{host}{dot}"), port);
        if !server.is_empty() {
            dns.server = Some(name_server(server).ok_or_else(|| {
                bad("the name server before the third slash must be an IP address")
            })?);
        }
        Ok(dns)
    }
}

fn name_server(text: &str) -> Option<SocketAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let without_port = bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, SERVER_PORT_DEFAULT));
    text.parse().or(without_port).ok()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadTarget(String);

impl fmt::Display for BadTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; write dns:///host:port", self.0)
    }
}

impl std::error::Error for BadTarget {}

#[cfg(test)]
mod tests;
