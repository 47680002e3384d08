//! Single values from text: durations, sizes, addresses, choices.
//!
//! Each reader returns the value, or what is wrong with the text as the end of a sentence that
//! begins with the key: `must be a duration with a unit, such as 30s; this is "30"`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use super::secret::{holds_pem, is_base64};

/// A Go duration: `1h30m`, `1.5s`, `200ms`, `0`. Not negative.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let fault = || format!("must be a duration with a unit, such as 30s; this is \"{text}\"");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut nanos: f64 = 0.0;
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(fault());
    }
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fault)?;
        let number: f64 = rest[..number_end].parse().map_err(|_| fault())?;
        rest = &rest[number_end..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        nanos += number * unit_nanos(&rest[..unit_end]).ok_or_else(fault)?;
        rest = &rest[unit_end..];
    }
    // Go's own limit: 2^63 nanoseconds, about 292 years.
    match nanos < 9.2e18 {
        true => Ok(Duration::from_nanos(nanos.round() as u64)),
        false => Err(format!("is too long: \"{text}\"")),
    }
}

fn unit_nanos(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1.0,
        "us" | "µs" | "μs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        _ => return None,
    })
}

/// Bytes: `4000000`, `64MiB`, `1.5 GiB`, `500kB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let fault = || format!("must be a size such as 64MiB or 4000000; this is \"{text}\"");
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..number_end].parse().map_err(|_| fault())?;
    let factor: u64 = match text[number_end..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" | "ki" => 1 << 10,
        "mib" | "mi" => 1 << 20,
        "gib" | "gi" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return Err(fault()),
    };
    let bytes = number * factor as f64;
    match bytes < (1u64 << 50) as f64 && bytes.fract() == 0.0 {
        true => Ok(bytes as u64),
        false => Err(fault()),
    }
}

/// A whole number, not negative.
pub(crate) fn count(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("must be a whole number from 0; this is \"{text}\""))
}

pub(crate) fn flag(text: &str) -> Result<bool, String> {
    match text {
        "true" | "True" | "TRUE" => Ok(true),
        "false" | "False" | "FALSE" => Ok(false),
        _ => Err(format!("must be true or false; this is \"{text}\"")),
    }
}

/// A finite number.
pub(crate) fn number(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err(format!("must be a number; this is \"{text}\"")),
    }
}

/// Whether this is the content of a file, where a path is wanted: a key, perhaps.
pub(crate) fn is_content(path: &str) -> bool {
    path.contains(['\n', '\r']) || holds_pem(path) || is_base64(path)
}

pub(crate) fn text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

/// A reader for one of several words.
pub(crate) fn choice<T: Copy>(
    options: &'static [(&'static str, T)],
) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        options.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<&str> =
                options.iter().map(|(word, _)| *word).filter(|word| !word.is_empty()).collect();
            format!("must be one of {}; this is \"{text}\"", words.join(", "))
        })
    }
}

/// An address to listen on: `host:port`. `localhost` is 127.0.0.1, an empty host all IPv4
/// addresses; other names are looked up now, IPv4 first. Port 0 is any free port.
pub(crate) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let fault = |why: &str| format!("must be host:port, such as localhost:4317; \"{text}\" {why}");
    if text.starts_with("unix:") || text.starts_with('/') {
        return Err(fault("is a unix socket, and those are not supported yet"));
    }
    if text.contains("://") {
        return Err(fault("has a scheme: leave it out"));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(|| fault("has no port"))?;
    let port: u16 = port.parse().map_err(|_| fault("has no port from 0 to 65535"))?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if let Ok(address) = bare.unwrap_or(host).parse::<IpAddr>() {
        return match address.is_ipv6() == bare.is_some() {
            true => Ok(SocketAddr::new(address, port)),
            false => Err(fault("needs brackets around an IPv6 address, and only there")),
        };
    }
    match host {
        "" => Ok(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)),
        "localhost" => Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
        name if !is_host_name(name) => Err(fault("has no proper host")),
        name => resolve(name, port)
            .map_err(|why| format!("names the host \"{name}\", which can't be looked up: {why}")),
    }
}

/// Spares the resolver what can only be a mistyped address: `0.0.0.0.0`, `a b`.
fn is_host_name(name: &str) -> bool {
    let last = name.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
        && last.contains(|c: char| c.is_ascii_alphabetic())
}

fn resolve(name: &str, port: u16) -> Result<SocketAddr, String> {
    let found: Vec<SocketAddr> =
        (name, port).to_socket_addrs().map_err(|fault| fault.to_string())?.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| "it has no address".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("200ms", 200),
            ("1.5s", 1500),
            ("1m30s", 90_000),
            ("+1h", 3_600_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "30", "s", "-1s", "1 s", "1d", "1s2", "..s", "999999999h", "1e3s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        for (text, bytes) in [
            ("4000000", 4_000_000),
            ("64MiB", 64 << 20),
            ("1.5 GiB", 3 << 29),
            ("16KiB", 16 << 10),
            ("2kB", 2000),
            ("0", 0),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "MiB", "-1", "1 potato", "0.3", "99999999GiB", "1e9"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn listen_addresses_have_a_host_and_a_port() {
        for (text, address) in [
            ("localhost:4317", "127.0.0.1:4317"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            (":4318", "0.0.0.0:4318"),
            ("[::1]:4317", "[::1]:4317"),
        ] {
            assert_eq!(listen_address(text).map(|a| a.to_string()), Ok(address.to_owned()));
        }
        for bad in
            ["localhost", "::1:4317", "http://a:1", "a:70000", "unix:/a", "/a", "[1.2.3.4]:5", ""]
        {
            assert!(listen_address(bad).is_err(), "{bad}");
        }
        // Too long for any resolver to ask for.
        let name = format!("{}.invalid", "x".repeat(64));
        let unknown = listen_address(&format!("{name}:1")).expect_err("no such name can be");
        assert!(unknown.contains(&name) && unknown.contains("looked up"), "{unknown}");
    }
}
