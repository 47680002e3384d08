//! QUIC and HTTP/3 turned against a running process, over real sockets: each flood ends or stays
//! bounded, is counted under its name, and the bystander on the same core does not notice. What
//! needs packets made by hand is in `net/tests/quic_attacks`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_codec::signal::Signal;
use forebay_tests::forebay::{PATIENCE, Process, SERVICE};
use forebay_tests::http3::Http3;
use forebay_tests::items;
use forebay_tests::papers::{Authority, Files};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, VarInt};
use tokio::time::timeout;

const PROTO: (&str, &str) = ("content-type", "application/x-protobuf");
const HANDSHAKES_MAX: u64 = 32;
const EXCESSIVE_LOAD: u64 = 0x107;
const MIB: u64 = 1 << 20;

/// A process with one core that takes OTLP over HTTP/3, and a bystander.
struct Scene {
    authority: Authority,
    _files: Files,
    forebay: Process,
    bystander: Http3,
    taken: i64,
}

impl Scene {
    async fn start() -> Scene {
        let authority = Authority::new("ours");
        let files = Files::new(&authority.issue(|_| {}));
        let tls = files.block("");
        let forebay = Process::start(&format!(
            "receivers:
  otlp:
    protocols:
      grpc: {{endpoint: 127.0.0.1:0}}
      http3: {{endpoint: 127.0.0.1:0, tls: {tls}}}
extensions:
  health_check: {{endpoint: 127.0.0.1:0}}
exporters: {{nop: {{}}}}
{SERVICE}  pipelines:
    traces: {{receivers: [otlp], exporters: [nop]}}
engine:
  cores: {{receivers: '0'}}
  limits: {{handshakes_max: {HANDSHAKES_MAX}, handshake_timeout: 3s}}
"
        ));
        let address = forebay.http3.expect("an HTTP/3 listener");
        let bystander = Http3::connect(address, &authority, None).await.expect("a handshake");
        let mut scene = Scene { authority, _files: files, forebay, bystander, taken: 0 };
        scene.serve().await;
        scene
    }

    fn address(&self) -> SocketAddr {
        self.forebay.http3.expect("an HTTP/3 listener")
    }

    /// The bystander is served as ever.
    async fn serve(&mut self) {
        let body = items::proto(Signal::Traces, self.taken, 1);
        let answer = self.bystander.post("/v1/traces", &[PROTO], &body).await;
        assert_eq!(answer.status, 200);
        self.taken += 1;
    }

    fn quic(&self, name: &str) -> u64 {
        self.forebay.metric(&format!("forebay_receiver_quic_{name}"), &[]) as u64
    }

    fn troubles(&self, kind: &str) -> u64 {
        self.forebay.metric("forebay_http3_troubles", &[&format!("kind=\"{kind}\"")]) as u64
    }

    /// Counters are shown with a little delay.
    async fn wait_for(&self, what: &str, is_it: impl Fn(&Scene) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_it(self) {
            assert!(Instant::now() < deadline, "never: {what}\n{}", self.forebay.metrics());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn end(self) {
        let Scene { forebay, taken, .. } = self;
        let end = tokio::task::spawn_blocking(|| forebay.stop()).await.expect("it ends");
        assert_eq!(end.ledger["received_items"], taken, "{:#}", end.ledger);
    }
}

fn endpoint(authority: &Authority) -> Endpoint {
    let mut tls = rustls::ClientConfig::clone(&authority.client(None));
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let tls = QuicClientConfig::try_from(tls).expect("TLS 1.3 is among its versions");
    let mut endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(tls)));
    endpoint
}

/// Floods one connection until it is ended. Returns with which code of HTTP/3.
async fn flood(scene: &Scene, what: Flood) -> Option<u64> {
    let endpoint = endpoint(&scene.authority);
    let connecting = endpoint.connect(scene.address(), "localhost").expect("a proper address");
    let connection = timeout(PATIENCE, connecting).await.expect("in time").expect("a handshake");
    let end = timeout(PATIENCE, what.run(&connection)).await.expect("the flood has an end");
    match end {
        ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
        _ => None,
    }
}

#[derive(Clone, Copy, Debug)]
enum Flood {
    Resets,
    EmptyStreams,
    UnknownFrames,
    Push,
}

impl Flood {
    async fn run(self, connection: &Connection) -> ConnectionError {
        let mut control = None;
        loop {
            let went_on = match self {
                Flood::Resets => Flood::reset(connection).await,
                Flood::EmptyStreams => connection.open_uni().await.map(|mut stream| {
                    // It was opened just now.
                    let _ = stream.finish();
                }),
                Flood::Push => match connection.open_uni().await {
                    Ok(mut stream) => stream.write_all(b"\x01").await.map_err(|_| gone(connection)),
                    Err(error) => Err(error),
                },
                Flood::UnknownFrames => {
                    if control.is_none() {
                        let mut stream = connection.open_uni().await.expect("there is room");
                        stream.write_all(b"\0\x04\0").await.expect("it is open");
                        control = Some(stream);
                    }
                    let stream = control.as_mut().expect("it was opened before");
                    let frames = [0x21, 0].repeat(100);
                    stream.write_all(&frames).await.map_err(|_| gone(connection))
                }
            };
            if went_on.is_err() {
                return connection.closed().await;
            }
        }
    }

    async fn reset(connection: &Connection) -> Result<(), ConnectionError> {
        let (mut send, mut recv) = connection.open_bi().await?;
        // Either may have ended by itself.
        let _ = send.write_all(b"\x01\x20").await;
        let _ = send.reset(VarInt::from_u32(0x10c));
        let _ = recv.stop(VarInt::from_u32(0x10c));
        Ok(())
    }
}

/// A write fails for nothing else.
fn gone(connection: &Connection) -> ConnectionError {
    connection.close_reason().unwrap_or(ConnectionError::LocallyClosed)
}

/// The first datagrams of so many clients, by the IDs that they give to the server.
async fn first_packets(authority: &Authority, count: usize) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let nobody = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = nobody.local_addr().expect("an address");
    let endpoint = endpoint(authority);
    let mut packets = BTreeMap::<Vec<u8>, Vec<Vec<u8>>>::new();
    let mut clients = Vec::new();
    while packets.len() < count {
        clients.push(endpoint.connect(address, "localhost").expect("a proper address"));
        let mut buffer = [0; 2_000];
        let received = timeout(PATIENCE, nobody.recv(&mut buffer)).await;
        let bytes = received.expect("a client begins at once").expect("a socket receives");
        let id = buffer[6..6 + usize::from(buffer[5])].to_vec();
        packets.entry(id).or_default().push(buffer[..bytes].to_vec());
    }
    packets
}

#[tokio::test]
async fn floods_over_http3_end_their_connection_are_counted_by_name_and_hurt_nobody() {
    let mut scene = Scene::start().await;
    let before = scene.forebay.anonymous_bytes();
    for (what, kind, code) in [
        (Flood::Resets, "resets", EXCESSIVE_LOAD),
        (Flood::EmptyStreams, "control", EXCESSIVE_LOAD),
        (Flood::UnknownFrames, "control", EXCESSIVE_LOAD),
        (Flood::Push, "protocol", 0x103),
    ] {
        let counted = scene.troubles(kind);
        assert_eq!(flood(&scene, what).await, Some(code), "{what:?}");
        scene.serve().await;
        scene.wait_for(kind, |scene| scene.troubles(kind) > counted).await;
    }
    let grown = scene.forebay.anonymous_bytes().saturating_sub(before);
    assert!(grown < 16 * MIB, "{grown} bytes for nothing");
    scene.end().await;
}

#[tokio::test]
async fn clients_that_only_begin_are_asked_for_their_address_and_leave_no_trace() {
    const CLIENTS: usize = 300;
    let mut scene = Scene::start().await;
    let packets = first_packets(&scene.authority, CLIENTS).await;
    let before = scene.forebay.anonymous_bytes();
    let mut sockets = Vec::new();
    for (number, datagrams) in packets.values().enumerate() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        for datagram in datagrams {
            socket.send_to(datagram, scene.address()).expect("it is sent");
        }
        sockets.push(socket);
        if number % 30 == 0 {
            scene.serve().await;
            assert!(scene.quic("handshakes_pending") <= HANDSHAKES_MAX);
        }
    }
    scene.wait_for("most are asked for their address", |scene| scene.quic("retries") > 100).await;
    // Those who were let in have their time.
    scene.wait_for("the others' time is over", |scene| scene.quic("connections") == 1).await;
    assert_eq!(scene.quic("handshakes_pending"), 0);
    assert_eq!(scene.quic("handshakes_failed"), scene.quic("connections_accepted") - 1);
    let grown = scene.forebay.anonymous_bytes().saturating_sub(before);
    assert!(grown < 16 * MIB, "{grown} bytes for nothing");
    let newcomer = Http3::connect(scene.address(), &scene.authority, None).await;
    assert!(newcomer.is_ok(), "there is room for who means it");
    scene.serve().await;
    scene.end().await;
}

#[tokio::test]
async fn datagrams_of_no_sense_make_no_connection_and_are_counted() {
    let mut scene = Scene::start().await;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let counted = scene.quic("received_datagrams");
    let mut number = 7_u64;
    for round in 0..2_000_u64 {
        let bytes: Vec<u8> = (0..40 + round % 1_300)
            .map(|_| {
                number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (number >> 33) as u8
            })
            .collect();
        socket.send_to(&bytes, scene.address()).expect("it is sent");
        if round % 200 == 0 {
            scene.serve().await;
        }
    }
    scene.serve().await;
    scene.wait_for("most are counted", |s| s.quic("received_datagrams") > counted + 200).await;
    assert_eq!((scene.quic("connections"), scene.quic("connections_accepted")), (1, 1));
    assert_eq!(scene.quic("stateless_resets"), 0, "no ID was ours");
    scene.end().await;
}
