//! A program under load: how it is started, where it listens, what it tells of itself.
//!
//! Described by a file, so that anything that speaks OTLP can be measured. Ports are chosen by us,
//! free ones, and written into its configuration.

use std::collections::BTreeMap;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;

use serde::Deserialize;

use crate::certificates::Certificates;
use crate::machine;
use crate::process::{Placement, Spawned, Start};
use crate::scenario::Engine;

const BUILT_IN: [(&str, &str); 6] = [
    ("forebay", include_str!("../programs/forebay.toml")),
    ("collector", include_str!("../programs/collector.toml")),
    ("rotel", include_str!("../programs/rotel.toml")),
    ("nginx", include_str!("../programs/nginx.toml")),
    ("haproxy", include_str!("../programs/haproxy.toml")),
    (H3_SERVICE, include_str!("../programs/h3-service.toml")),
];

/// The program that is a part of this one.
const H3_SERVICE: &str = "h3-service";

/// How a program is run. In `command`, `config`, `environment` and `metrics` these words are
/// replaced: `{binary}`, `{config}` (a file with the configuration), `{folder}` (an empty one),
/// `{grpc_port}`, `{http_port}`, `{http3_port}`, `{metrics_port}`, `{sink_grpc}`, `{sink_http}`
/// (host and port), `{cores}`, `{last_core}`, `{threads}`, `{cert_file}` and `{key_file}` (in PEM),
/// and what the row asks for: `{acks}`, `{waits}`, `{processors}`, `{exporter}`, `{compression}`.
/// forebay's own are `{tls}` and `{http3}`: nothing, unless the row needs the one or the other.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    pub name: String,
    pub command: Vec<String>,
    /// A path, or a name to be looked up in `PATH`.
    #[serde(default)]
    pub binary: String,
    #[serde(default)]
    pub config: String,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// The name that it is started under, where that is not the binary's.
    #[serde(skip)]
    called: String,
    /// Its last line on standard output is a ledger, as forebay prints it.
    #[serde(default)]
    pub has_ledger: bool,
    /// Where it shows metrics in Prometheus' format.
    #[serde(default)]
    pub metrics: String,
}

/// Where a started program listens.
#[derive(Clone, Debug)]
pub struct Ports {
    pub grpc: u16,
    pub http: u16,
    pub http3: u16,
    /// The authority and path of its metrics page.
    pub metrics: Option<(String, String)>,
}

/// What a program is started for.
#[derive(Clone, Copy, Debug)]
pub struct Purpose<'a> {
    pub engine: &'a Engine,
    /// What the load will speak, and whether it encrypts.
    pub transport: &'a str,
    pub tls: bool,
    pub certificates: &'a Certificates,
    pub sink_grpc: std::net::SocketAddr,
    pub sink_http: std::net::SocketAddr,
    pub placement: &'a Placement,
}

/// Names of the descriptions that come with the program.
pub fn names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

/// A built-in description by its name, or a file by its path.
pub fn find(name: &str) -> Result<Program, String> {
    let built_in = BUILT_IN.iter().find(|(known, _)| *known == name);
    let text = match built_in {
        Some((_, text)) => (*text).to_owned(),
        None => std::fs::read_to_string(name).map_err(|error| {
            let known: Vec<&str> = names().collect();
            format!(
                "there is no program {name:?}: known are {}, and no file of that name can be read \
                 ({error})",
                known.join(", ")
            )
        })?,
    };
    toml::from_str(&text).map_err(|error| format!("program {name}: {error}"))
}

/// forebay at `path`, or the one that this program is when it is started under that name.
pub fn forebay(path: Option<&Path>) -> Result<Program, String> {
    let mut program = find("forebay")?;
    let Some(path) = path else {
        program.binary = machine::this_program()?.display().to_string();
        program.called = "forebay".to_owned();
        return Ok(program);
    };
    if !path.is_file() {
        return Err(format!(
            "there is no engine at {}\n  hint: without --engine the engine of this checkout is run",
            path.display()
        ));
    }
    program.binary = path.display().to_string();
    Ok(program)
}

/// What `--program` or `--with` name, with its binary where that is given.
pub fn other(name: &str, binary: Option<&Path>) -> Result<Program, String> {
    let mut program = find(name)?;
    match binary {
        Some(binary) => program.binary = binary.display().to_string(),
        None if name == H3_SERVICE => {
            program.binary = machine::this_program()?.display().to_string();
        }
        None => {}
    }
    Ok(program)
}

impl Program {
    /// Starts it on its cores. `folder` is its own, and empty.
    pub fn start(&self, purpose: &Purpose<'_>, folder: &Path) -> Result<(Spawned, Ports), String> {
        let ports = free_ports()?;
        let [grpc, http, http3, _] = ports;
        let words = self.words(purpose, folder, ports);
        let filled = |text: &str| fill(text, &words);
        let config = folder.join("config");
        std::fs::write(&config, filled(&self.config)).map_err(|error| {
            format!("the configuration of {} can't be written: {error}", self.name)
        })?;
        let command: Vec<String> = self.command.iter().map(|word| filled(word)).collect();
        let environment: Vec<(String, String)> =
            self.environment.iter().map(|(name, value)| (name.clone(), filled(value))).collect();
        let what = Start {
            name: &self.name,
            called: &self.called,
            command: &command,
            environment: &environment,
        };
        let spawned = Spawned::start(&what, &purpose.placement.engine, folder)?;
        let metrics = (!self.metrics.is_empty()).then(|| filled(&self.metrics));
        let metrics = metrics.and_then(|url| {
            let (authority, path) = url.strip_prefix("http://")?.split_once('/')?;
            Some((authority.to_owned(), format!("/{path}")))
        });
        Ok((spawned, Ports { grpc, http, http3, metrics }))
    }

    fn words(
        &self,
        purpose: &Purpose<'_>,
        folder: &Path,
        ports: [u16; 4],
    ) -> Vec<(&'static str, String)> {
        let engine = purpose.engine;
        let cores = &purpose.placement.engine;
        let list: Vec<String> = cores.iter().map(usize::to_string).collect();
        let last = cores.last().copied().unwrap_or(0).to_string();
        let yes_or_no = |yes: bool, then: &str, other: &str| {
            if yes { then.to_owned() } else { other.to_owned() }
        };
        let [grpc, http, http3, metrics] = ports;
        let certificate = purpose.certificates.certificate.display().to_string();
        let key = purpose.certificates.key.display().to_string();
        let files = format!("{{cert_file: \"{certificate}\", key_file: \"{key}\"}}");
        let is_http3 = purpose.transport == "http3";
        let over_tcp = purpose.tls && !is_http3;
        let endpoint = format!("http3: {{endpoint: \"127.0.0.1:{http3}\", tls: {files}}}");
        vec![
            ("{tls}", yes_or_no(over_tcp, &format!(", tls: {files}"), "")),
            ("{http3}", yes_or_no(is_http3, &endpoint, "")),
            ("{cert_file}", certificate),
            ("{key_file}", key),
            ("{binary}", self.binary.clone()),
            ("{config}", folder.join("config").display().to_string()),
            ("{folder}", folder.display().to_string()),
            ("{grpc_port}", grpc.to_string()),
            ("{http_port}", http.to_string()),
            ("{http3_port}", http3.to_string()),
            ("{metrics_port}", metrics.to_string()),
            ("{sink_grpc}", purpose.sink_grpc.to_string()),
            ("{sink_http}", purpose.sink_http.to_string()),
            ("{cores}", list.join(",")),
            ("{last_core}", last),
            ("{threads}", cores.len().to_string()),
            ("{acks}", engine.acks.clone()),
            ("{waits}", (engine.acks == "delivered").to_string()),
            ("{processors}", yes_or_no(engine.batch, "[batch]", "[]")),
            ("{exporter}", engine.exporter.clone()),
            ("{compression}", engine.compression.clone()),
        ]
    }
}

fn fill(text: &str, words: &[(&str, String)]) -> String {
    words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, value))
}

/// Ports that were free a moment ago, and that the kernel gives to nobody by itself: one of its own
/// choice could be a client's before the program listens there.
fn free_ports() -> Result<[u16; 4], String> {
    let mut taken = Vec::new();
    for _ in 0..PORT_TRIES_MAX {
        let port = fastrand::u16(PORT_MIN..ephemeral_port_min().max(PORT_MIN + 1));
        let address = ("127.0.0.1", port);
        if let (Ok(listener), Ok(socket)) = (TcpListener::bind(address), UdpSocket::bind(address)) {
            taken.push((port, listener, socket));
        }
        if let [(a, ..), (b, ..), (c, ..), (d, ..)] = taken[..] {
            return Ok([a, b, c, d]);
        }
    }
    Err(format!("no four ports were found free on 127.0.0.1 in {PORT_TRIES_MAX} tries"))
}

const PORT_MIN: u16 = 10_000;
const PORT_TRIES_MAX: usize = 1_000;

/// Where the kernel's own choice begins: `ip_local_port_range` of ip(7).
fn ephemeral_port_min() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let first = range.unwrap_or_default().split_whitespace().next().and_then(|n| n.parse().ok());
    first.unwrap_or(32_768)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_description_can_be_read_and_uses_known_words() {
        let engine = Engine::default();
        let placement = Placement::choose(1, &[0, 1]);
        let address = "127.0.0.1:1".parse().unwrap();
        let file = Path::new("/tmp/x/pem").to_owned();
        let certificates =
            Certificates { ca: file.clone(), certificate: file.clone(), key: file.clone() };
        let purpose = Purpose {
            engine: &engine,
            transport: "http3",
            tls: true,
            certificates: &certificates,
            sink_grpc: address,
            sink_http: address,
            placement: &placement,
        };
        for name in names() {
            let program = find(name).unwrap();
            let words = program.words(&purpose, Path::new("/tmp/x"), [1, 2, 3, 4]);
            let all = program.command.join(" ") + &program.config + &program.metrics;
            let filled = fill(&all, &words);
            let left = filled.split('{').skip(1).find(|rest| {
                let word: String =
                    rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                !word.is_empty() && rest[word.len()..].starts_with('}')
            });
            assert_eq!(left, None, "{name}: a word that nothing replaces");
        }
    }
}
