//! One member of a fleet, and what a set of them is.
//!
//! Sans I/O. Always: an [`Endpoint`]'s address has the form `host:port` or `[v6]:port` in lower
//! case, so that one place is never two endpoints because two sources spell it differently; its
//! attributes are bounded in number and size, because they come from outside.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

pub const ATTRIBUTES_MAX: usize = 32;
/// Of an attribute's name or value, and of a zone.
pub const TEXT_BYTES_MAX: usize = 256;
/// Weights above are cut to it, so that a thousand of them add up in 32 bits.
pub const WEIGHT_MAX: u32 = 1_000_000;
/// The longest name that DNS allows.
const HOST_BYTES_MAX: usize = 253;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    address: String,
    /// The name that the address was found under, if the source was asked for a name: what a
    /// request should call the peer.
    pub name: Option<String>,
    /// Its share of the work relative to the others of its priority; 1 unless the source says
    /// otherwise, 0 for "none but in need".
    pub weight: u32,
    /// Those with the lowest number first (SRV); 0 unless the source says otherwise.
    pub priority: u16,
    pub zone: Option<String>,
    pub attributes: BTreeMap<String, String>,
}

impl Endpoint {
    /// From `host:port`, `address:port` or `[v6]:port`; `port_default` is for texts without one.
    pub fn parse(text: &str, port_default: Option<u16>) -> Result<Endpoint, BadAddress> {
        let bad = |why| BadAddress { text: shortened(text), why };
        let (host, port) = split(text.trim()).map_err(bad)?;
        let port = port.or(port_default).ok_or_else(|| bad("it names no port"))?;
        Endpoint::at(host, port).map_err(bad)
    }

    pub fn of(address: SocketAddr) -> Endpoint {
        Endpoint::with(address.to_string())
    }

    /// A destination on this machine: a name, and no address at all.
    pub fn local(name: &str) -> Endpoint {
        Endpoint::with(name.to_owned())
    }

    /// From what a registry keeps in two fields. The error says what is wrong with them.
    pub(super) fn at(host: &str, port: u16) -> Result<Endpoint, &'static str> {
        if port == 0 {
            return Err("port 0 is no port");
        }
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(Endpoint::of(SocketAddr::new(ip, port)));
        }
        check_host(host)?;
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        Ok(Endpoint::with(format!("{host}:{port}")))
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn weighing(mut self, weight: u32) -> Endpoint {
        self.weight = weight.min(WEIGHT_MAX);
        self
    }

    /// Keeps what fits: names and values up to [`TEXT_BYTES_MAX`], [`ATTRIBUTES_MAX`] of them. The
    /// attribute `zone` is the zone, unless there is one already.
    pub(super) fn describe(&mut self, name: &str, value: &str) {
        if name.len() > TEXT_BYTES_MAX || value.len() > TEXT_BYTES_MAX {
            return;
        }
        if name == "zone" && self.zone.is_none() {
            self.zone = Some(value.to_owned());
        } else if self.attributes.len() < ATTRIBUTES_MAX || self.attributes.contains_key(name) {
            self.attributes.insert(name.to_owned(), value.to_owned());
        }
    }

    fn with(address: String) -> Endpoint {
        let (name, zone, attributes) = (None, None, BTreeMap::new());
        Endpoint { address, name, weight: 1, priority: 0, zone, attributes }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// Sorts, keeps each address once, and cuts to `endpoints_max`; says how many were cut. The result
/// depends on which endpoints there are and not on their order.
pub(super) fn normalise(endpoints: &mut Vec<Endpoint>, endpoints_max: usize) -> usize {
    // The address is the first field: all spellings of one lie together, and the same one of them
    // comes first each time.
    endpoints.sort_unstable();
    endpoints.dedup_by(|later, kept| later.address == kept.address);
    let surplus = endpoints.len().saturating_sub(endpoints_max);
    endpoints.truncate(endpoints_max);
    surplus
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadAddress {
    text: String,
    why: &'static str,
}

impl fmt::Display for BadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is no address: {}; write host:port", self.text, self.why)
    }
}

impl std::error::Error for BadAddress {}

/// What others sent, made fit for a line of a log: one line, not long, nothing that a terminal
/// obeys.
pub(super) fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 200;
    let mut short: String = text.trim().chars().take(CHARS_MAX).collect();
    if short.len() < text.trim().len() {
        short.push_str("...");
    }
    short.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

fn split(text: &str) -> Result<(&str, Option<u16>), &'static str> {
    if text.contains("://") {
        return Err("it is a URL");
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("\"]\" is missing")?;
        host.parse::<Ipv6Addr>().map_err(|_| "only an IPv6 address stands in brackets")?;
        return match rest.strip_prefix(':') {
            Some(digits) => Ok((host, Some(port(digits)?))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err("something other than a port follows \"]\""),
        };
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok((text, None));
    }
    match text.split_once(':') {
        Some((host, digits)) => Ok((host, Some(port(digits)?))),
        None => Ok((text, None)),
    }
}

fn port(digits: &str) -> Result<u16, &'static str> {
    // `parse` would take "+80", too.
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let port = is_number.then(|| digits.parse().ok()).flatten();
    port.filter(|port| *port > 0).ok_or("its port is none of 1 to 65535")
}

fn check_host(host: &str) -> Result<(), &'static str> {
    if host.is_empty() || host.len() > HOST_BYTES_MAX {
        return Err("its host is empty or longer than a name can be");
    }
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    match host.bytes().all(is_allowed) && !host.starts_with('.') {
        true => Ok(()),
        false => Err("its host has characters that no name has"),
    }
}

#[cfg(test)]
mod tests;
