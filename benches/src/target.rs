//! What a load drives: an address, and the host that it was called by. It never looks again: who
//! moves while it is measured is not followed.

use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// `HOST:PORT`, found. Of a name with addresses of both families the first of IPv4 is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub address: SocketAddr,
    /// What the certificate must name, unless another name is asked for.
    pub host: String,
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Target {
        Target { address, host: address.ip().to_string() }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let form = "expected HOST:PORT, as in localhost:4317 or [::1]:4317";
        let (host, _) = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).ok_or(form)?;
        let found = text.to_socket_addrs().map_err(|error| format!("{error}; {form}"))?;
        let mut addresses: Vec<SocketAddr> = found.collect();
        addresses.sort_by_key(|address| !address.is_ipv4());
        let address = *addresses.first().ok_or_else(|| format!("{host} has no address"))?;
        Ok(Target { address, host: host.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_address_or_a_name_with_a_port() {
        let parse = str::parse::<Target>;
        let named = parse("localhost:4317").expect("a name that each machine has");
        assert_eq!((named.host.as_str(), named.address.port()), ("localhost", 4317));
        assert!(named.address.ip().is_loopback());
        for text in ["127.0.0.1:4317", "[::1]:4317"] {
            let address: SocketAddr = text.parse().expect("an address");
            let expected = Target { address, host: address.ip().to_string() };
            assert_eq!(parse(text), Ok(expected));
        }
        for text in ["", "localhost", "localhost:", ":4317", "localhost:x", "localhost:99999"] {
            let error = parse(text).expect_err(text);
            assert!(error.contains("expected HOST:PORT"), "{text:?}: {error}");
        }
    }
}
