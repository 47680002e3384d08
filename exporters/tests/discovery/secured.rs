//! A real etcd and a real Consul that speak TLS with those who have a certificate, and with nobody
//! else: entries that are made, found and taken out; who is refused, and why; terms that change.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forebay_exporters::discovery::consul::{self, Check, Consul};
use forebay_exporters::discovery::etcd::{self, Address, Etcd};
use forebay_exporters::discovery::registrar::{Health, News, Registrar, Registration, State};
use forebay_exporters::discovery::{Discovery, Event, Watcher};
use forebay_net::tls::outward::{Initiator, Settings, Trust, terms};
use forebay_net::tls::settings::{Identity, Version};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;

use crate::rig::{PATIENCE, next, quick, trouble, until};
use crate::server::{Server, program};

const PREFIX: &str = "/services/collector/";

/// One CA, and what it has issued: PEM texts.
struct Papers {
    ca: String,
    server: (String, String),
    client: (String, String),
}

impl Papers {
    /// By a CA with this name.
    fn of(ca: &str) -> Papers {
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, ca);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let ca = authority.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(authority, key);
        let issued = |name: &str| {
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            // etcd's gateway is a client of etcd by the server's certificate.
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let key = KeyPair::generate().unwrap();
            (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
        };
        Papers { ca, server: issued("127.0.0.1"), client: issued("forebay") }
    }

    /// Written where a server reads them.
    fn in_files(&self, folder: &Path) -> [String; 3] {
        let texts =
            [("ca.pem", &self.ca), ("cert.pem", &self.server.0), ("key.pem", &self.server.1)];
        texts.map(|(name, text)| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        })
    }

    fn settings(&self) -> Settings {
        let (chain, key) = &self.client;
        Settings {
            trust: Trust::Cas {
                given: Some(("ca_pem".to_owned(), self.ca.clone().into_bytes())),
                system: Vec::new(),
            },
            identity: Some(Identity {
                name: "cert_pem".to_owned(),
                chain_pem: chain.clone().into_bytes(),
                key_pem: key.clone().into_bytes(),
            }),
            server_name: None,
            version_min: Version::Tls12,
            version_max: Version::Tls13,
            protocol: "http/1.1",
        }
    }
}

fn initiator(settings: &Settings) -> Arc<Initiator> {
    Arc::new(Initiator::new(terms(settings).unwrap().security))
}

fn start_etcd(name: &str, papers: &Papers) -> Option<Server> {
    let program = program("FOREBAY_ETCD", Path::new("/usr/bin/etcd"))?;
    Some(Server::start(program, name, |folder, [clients, peers]| {
        let [ca, cert, key] = papers.in_files(folder);
        let (url, peer_url) =
            (format!("https://127.0.0.1:{clients}"), format!("http://127.0.0.1:{peers}"));
        let arguments = [
            ("--name", "one"),
            ("--data-dir", &folder.join("data").display().to_string()),
            ("--listen-client-urls", &url),
            ("--advertise-client-urls", &url),
            ("--trusted-ca-file", &ca),
            ("--cert-file", &cert),
            ("--key-file", &key),
            ("--client-cert-auth", "true"),
            ("--listen-peer-urls", &peer_url),
            ("--initial-advertise-peer-urls", &peer_url),
            ("--initial-cluster", &format!("one={peer_url}")),
        ];
        arguments.map(|(name, value)| format!("{name}={value}")).to_vec()
    }))
}

fn start_consul(name: &str, papers: &Papers) -> Option<Server> {
    let usual = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/interop/.tools/bin/consul");
    let program = program("FOREBAY_CONSUL", Path::new(usual))?;
    Some(Server::start(program, name, |folder, [https, dns, rpc, serf]| {
        let [ca, cert, key] = papers.in_files(folder);
        let https_alone = json!({"tls": {"https": {
            "ca_file": ca, "cert_file": cert, "key_file": key, "verify_incoming": true,
        }}});
        let file = folder.join("configuration.json");
        std::fs::write(&file, https_alone.to_string()).unwrap();
        let ports = format!("-http-port=-1 -https-port={https} -dns-port={dns} -server-port={rpc}");
        let ports = format!("{ports} -serf-lan-port={serf} -serf-wan-port=-1 -grpc-port=-1");
        let fixed = "agent -dev -bind=127.0.0.1";
        let arguments = format!("{fixed} {ports} -config-file={}", file.display());
        arguments.split(' ').map(str::to_owned).collect()
    }))
}

fn address(server: &Server, port_default: u16) -> Address {
    Address::parse(&format!("https://{}", server.address()), port_default).unwrap()
}

fn of_etcd(server: &Server) -> Discovery {
    Discovery::Etcd(Etcd::of(address(server, etcd::PORT_DEFAULT), PREFIX))
}

fn of_consul(server: &Server) -> Discovery {
    Discovery::Consul(Consul::of(address(server, consul::PORT_DEFAULT), "collector"))
}

fn in_etcd(server: &Server) -> Registration {
    Registration::Etcd(etcd::Registration {
        members: vec![address(server, etcd::PORT_DEFAULT)],
        user: None,
        key: format!("{PREFIX}forebay-1"),
        address: "10.0.0.9:4317".to_owned(),
        attributes: BTreeMap::new(),
        ttl: Duration::from_secs(60),
    })
}

fn in_consul(server: &Server) -> Registration {
    Registration::Consul(consul::Registration {
        agent: address(server, consul::PORT_DEFAULT),
        token: None,
        service: "collector".to_owned(),
        id: "forebay-1".to_owned(),
        host: "10.0.0.9".to_owned(),
        port: 4317,
        tags: Vec::new(),
        meta: BTreeMap::new(),
        check: Check::Ttl(Duration::from_secs(60)),
        forget_after: None,
    })
}

/// Enters this process until the registry takes it: one that has just begun may not be ready.
async fn entered(registration: Registration) -> Registrar {
    let health = Health { state: State::Passing, note: String::new() };
    let mut registrar = Registrar::new(registration, health);
    let entering = async {
        loop {
            match registrar.next().await {
                News::Registered { .. } => return,
                News::Trouble(trouble) => eprintln!("{trouble}"),
                News::Recovered(_) => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, entering).await.expect("the entry is made");
    registrar
}

/// Follows an entry of our own that is made through TLS, then tries what must not go.
async fn found_by_those_with_papers_alone(
    papers: &Papers,
    discovery: Discovery,
    registration: Registration,
) {
    let good = initiator(&papers.settings());
    let registrar = entered(registration.secured(&good)).await;
    until(&mut quick(discovery.clone().secured(&good)), &["10.0.0.9:4317"]).await;

    let nobody = Settings { identity: None, ..papers.settings() };
    // The server's alert may be lost behind its reset: that it fails is what is sure.
    let mut refused = quick(discovery.clone().secured(&initiator(&nobody)));
    let told = trouble(&mut refused).await;
    assert!(refused.status().update.is_none(), "{told}");
    let misnamed = Settings { server_name: Some("other".to_owned()), ..papers.settings() };
    let told = trouble(&mut quick(discovery.clone().secured(&initiator(&misnamed)))).await;
    assert!(told.what.contains("certificate is not for \"other\""), "{told}");
    let told = trouble(&mut quick(discovery.clone())).await;
    assert!(told.what.contains("no terms for TLS"), "{told}");

    // Terms that are replaced count for the next connection.
    let strangers =
        Settings { trust: Papers::of("strangers").settings().trust, ..papers.settings() };
    let renewed = initiator(&strangers);
    let mut watcher: Watcher = quick(discovery.secured(&renewed));
    let told = trouble(&mut watcher).await;
    assert!(told.what.contains("no CA that is trusted here"), "{told}");
    renewed.replace(terms(&papers.settings()).unwrap().security);
    until(&mut watcher, &["10.0.0.9:4317"]).await;
    registrar.leave(PATIENCE).await.expect("the registry is there");
    let last = loop {
        match next(&mut watcher).await {
            Event::Trouble(trouble) => break trouble,
            Event::Recovered(_) => {}
            Event::Changed(update) => panic!("{update:?}"),
        }
    };
    assert!(last.what.contains("names no endpoint"), "{last}");
}

#[tokio::test]
async fn etcd_with_client_certificates_is_watched_and_told_through_tls() {
    let papers = Papers::of("the fleet");
    let Some(server) = start_etcd("etcd-tls", &papers) else { return };
    found_by_those_with_papers_alone(&papers, of_etcd(&server), in_etcd(&server)).await;
}

#[tokio::test]
async fn consul_with_client_certificates_is_watched_and_told_through_tls() {
    let papers = Papers::of("the fleet");
    let Some(server) = start_consul("consul-tls", &papers) else { return };
    found_by_those_with_papers_alone(&papers, of_consul(&server), in_consul(&server)).await;
}
