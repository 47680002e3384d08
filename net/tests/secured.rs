//! A line through TLS against rustls's own server on a real socket: what is sent arrives whole and
//! comes back whole, and a peer that is not who it should be is refused with words.

use std::future::poll_fn;
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use forebay_net::dial::{Line, Security, Target, dial};
use forebay_net::glommio_io::start_executor;
use forebay_net::tls::fault::Fault;
use hyper::rt::Write as _;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

/// Print it, and one run can be had again.
const SEED: u64 = 0x0005_ec2e;
const PIECES: usize = 3_000;
const TIMEOUT: Duration = Duration::from_secs(20);

struct Server {
    address: SocketAddr,
    trusted: Arc<ClientConfig>,
    thread: JoinHandle<()>,
}

/// A server for `name` that serves one connection with `serve`.
fn server(
    name: &str,
    serve: impl FnOnce(StreamOwned<ServerConnection, TcpStream>) + Send + 'static,
) -> Server {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("they belong together");
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).expect("a root");
    let mut trusted = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    trusted.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let thread = std::thread::spawn(move || {
        let (socket, _) = listener.accept().expect("a client");
        let session = ServerConnection::new(Arc::new(config)).expect("a session");
        serve(StreamOwned::new(session, socket));
    });
    Server { address, trusted: Arc::new(trusted), thread }
}

/// Dials and runs `client` with what came of it on an executor of its own.
fn with_line<T, F>(
    address: SocketAddr,
    security: Security,
    client: impl FnOnce(io::Result<Line>) -> F + Send + 'static,
) -> T
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let (tell, told) = mpsc::channel();
    let executor = start_executor("line".to_owned(), None, move || async move {
        let target = Target::parse(&address.to_string()).expect("an address");
        let line = dial(&target, 0, TIMEOUT, Some(&security)).await;
        tell.send(client(line).await).expect("the test listens");
    });
    let result = told.recv_timeout(2 * TIMEOUT).expect("the client comes to its end");
    executor.expect("an executor").join().expect("it ends in order");
    result
}

fn named(server: &Server, name: &'static str) -> Security {
    let name = ServerName::try_from(name).expect("a name");
    Security { config: server.trusted.clone(), name: Some(name) }
}

fn refusal(server: Server, security: Security) -> String {
    let told =
        with_line(server.address, security, async |line| line.err().map(|error| error.to_string()));
    server.thread.join().expect("the server ends in order");
    told.expect("the line is refused")
}

fn pieces() -> Vec<Vec<u8>> {
    let mut state = SEED;
    let mut draw = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    (0..PIECES)
        .map(|_| {
            let bytes_max = [2, 60, 9_000][draw() % 3];
            vec![draw() as u8; 1 + draw() % (bytes_max - 1)]
        })
        .collect()
}

/// Sends all pieces and takes what comes at the same time, until `expected` bytes have come.
async fn exchange(line: &mut Line, pieces: &[Vec<u8>], expected: usize) -> Vec<u8> {
    let (mut first, mut skip, mut came) = (0, 0, Vec::new());
    poll_fn(|cx| {
        loop {
            let mut moved = false;
            if first < pieces.len() {
                let shown = &pieces[first..pieces.len().min(first + 50)];
                let mut slices: Vec<IoSlice<'_>> =
                    shown.iter().map(|piece| IoSlice::new(piece)).collect();
                slices[0] = IoSlice::new(&shown[0][skip..]);
                if let Poll::Ready(sent) = line.poll_send(cx, &slices) {
                    skip += sent.expect("the peer reads");
                    moved = true;
                }
                while first < pieces.len() && skip >= pieces[first].len() {
                    skip -= pieces[first].len();
                    first += 1;
                }
            }
            if let Poll::Ready(received) = line.poll_receive(cx) {
                let received = received.expect("the peer answers");
                assert!(!received.is_empty(), "the peer ends too early, seed {SEED:#x}");
                came.extend_from_slice(received);
                moved = true;
            }
            if came.len() >= expected {
                return Poll::Ready(());
            }
            if !moved {
                return Poll::Pending;
            }
        }
    })
    .await;
    came
}

#[test]
fn what_goes_through_an_echo_comes_back_whole_whichever_slices_it_lay_in() {
    let server = server("echo.test", |mut stream| {
        let mut buffer = vec![0; 30_000];
        loop {
            match stream.read(&mut buffer) {
                // The client closes without a word.
                Ok(0) | Err(_) => return,
                Ok(count) => stream.write_all(&buffer[..count]).expect("the client reads"),
            }
        }
    });
    let security = named(&server, "echo.test");
    let came = with_line(server.address, security, async |line| {
        let mut line = line.expect("the handshake");
        let pieces = pieces();
        let expected = pieces.iter().map(Vec::len).sum();
        exchange(&mut line, &pieces, expected).await
    });
    server.thread.join().expect("the server ends in order");
    assert!(came == pieces().concat(), "what came back differs, seed {SEED:#x}");
}

#[test]
fn a_peer_that_closes_with_or_without_goodbye_has_simply_ended_whatever_follows() {
    for (says_goodbye, junk_bytes) in [(true, 0), (false, 0), (true, 15_000)] {
        let server = server("ends.test", move |mut stream| {
            stream.write_all(b"all there is").expect("the client reads");
            stream.flush().expect("the client reads");
            // In one piece, so that it is read in one.
            let mut out = Vec::new();
            if says_goodbye {
                stream.conn.send_close_notify();
                stream.conn.write_tls(&mut out).expect("a Vec takes every write");
            }
            out.resize(out.len() + junk_bytes, 0x17);
            stream.sock.write_all(&out).expect("the client reads");
            // Unread bytes would turn the close into a reset.
            let _ = stream.sock.shutdown(std::net::Shutdown::Write);
            let _ = io::copy(&mut stream.sock, &mut io::sink());
        });
        let security = named(&server, "ends.test");
        let came = with_line(server.address, security, async |line| {
            let mut line = line.expect("the handshake");
            let mut came = Vec::new();
            loop {
                let before = came.len();
                poll_fn(|cx| line.poll_receive(cx).map_ok(|bytes| came.extend_from_slice(bytes)))
                    .await
                    .expect("an end is no error");
                if came.len() == before {
                    return came;
                }
            }
        });
        server.thread.join().expect("the server ends in order");
        assert_eq!(came, b"all there is", "goodbye: {says_goodbye}");
    }
}

#[test]
fn what_a_peer_said_before_it_broke_off_is_heard_though_nothing_can_be_sent_to_it_any_more() {
    hears_a_peer_that_breaks_off(false);
}

#[test]
fn hyper_which_stops_when_it_can_not_write_hears_such_a_peer_too() {
    hears_a_peer_that_breaks_off(true);
}

/// `writes_on`: as hyper does, which takes an error of writing for the end of it all.
fn hears_a_peer_that_breaks_off(writes_on: bool) {
    let answer: Vec<u8> = (0..20_000_u32).map(|at| at as u8).collect();
    let (may_answer, told_to) = mpsc::channel();
    let (is_gone, gone) = mpsc::channel();
    let said = answer.clone();
    let server = server("breaks.test", move |mut stream| {
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).expect("the handshake");
        }
        told_to.recv().expect("the client has sent all that the kernel takes");
        // Held back, it would be thrown away with the rest.
        stream.sock.set_nodelay(true).expect("an option of sockets");
        stream.write_all(&said).expect("the client's kernel takes it");
        stream.flush().expect("the client's kernel takes it");
        // What lies unread makes a reset of it, and on the loopback that has come when this ends.
        drop(stream);
        is_gone.send(()).expect("the client waits");
    });
    let security = named(&server, "breaks.test");
    let (came, end) = with_line(server.address, security, async move |line| {
        let mut line = line.expect("the handshake");
        let load = vec![7; 64 << 10];
        poll_fn(|cx| {
            while let Poll::Ready(sent) = line.poll_send(cx, &[IoSlice::new(&load)]) {
                assert!(sent.expect("the peer is there") > 0);
            }
            Poll::Ready(())
        })
        .await;
        may_answer.send(()).expect("the server waits");
        gone.recv().expect("the server ends");
        if writes_on {
            for _ in 0..3 {
                let written = poll_fn(|cx| Pin::new(&mut line).poll_write(cx, b"more")).await;
                assert_eq!(written.expect("an end is the reader's to hear of"), 4);
                let flushed = poll_fn(|cx| Pin::new(&mut line).poll_flush(cx)).await;
                flushed.expect("an end is the reader's to hear of");
            }
        }
        let mut came = Vec::new();
        loop {
            let before = came.len();
            let received =
                poll_fn(|cx| line.poll_receive(cx).map_ok(|bytes| came.extend_from_slice(bytes)));
            let end = received.await.map_err(|error| error.kind());
            if end.is_err() || came.len() == before {
                return (came, end);
            }
        }
    });
    server.thread.join().expect("the server ends in order");
    assert!(came == answer, "{} bytes came of {}, then {end:?}", came.len(), answer.len());
    assert!(end.is_err(), "what was taken and never sent is an error");
}

#[test]
fn an_answer_is_heard_whole_though_the_alert_that_ends_it_all_came_with_it() {
    let answer: Vec<u8> = (0..40_000_u32).map(|at| at as u8).collect();
    for bytes in [14, answer.len()] {
        let said = answer[..bytes].to_vec();
        let server = server("alert.test", move |mut stream| {
            while stream.conn.is_handshaking() || stream.conn.wants_write() {
                stream.conn.complete_io(&mut stream.sock).expect("the handshake");
            }
            stream.conn.writer().write_all(&said).expect("it has room");
            // A record that nobody sealed is what the alert is for.
            let forged = [&[0x17, 3, 3, 0, 32][..], &[0; 32]].concat();
            stream.conn.read_tls(&mut &forged[..]).expect("it has room");
            stream.conn.process_new_packets().expect_err("it is forged");
            let mut out = Vec::new();
            while stream.conn.wants_write() {
                stream.conn.write_tls(&mut out).expect("a Vec takes every write");
            }
            stream.sock.write_all(&out).expect("the client reads");
            let _ = stream.sock.shutdown(std::net::Shutdown::Write);
            let _ = io::copy(&mut stream.sock, &mut io::sink());
        });
        let (security, address) = (named(&server, "alert.test"), server.address);
        let (came, end) = with_line(address, security, async |line| {
            let mut line = line.expect("the handshake");
            let mut came = Vec::new();
            loop {
                let before = came.len();
                let received = poll_fn(|cx| {
                    line.poll_receive(cx).map_ok(|bytes| came.extend_from_slice(bytes))
                });
                let end = received.await.map_err(|error| error.to_string());
                if end.is_err() || came.len() == before {
                    return (came, end);
                }
            }
        });
        server.thread.join().expect("the server ends in order");
        assert!(came == answer[..bytes], "{} bytes came of {bytes}, then {end:?}", came.len());
        let end = end.expect_err("there was an alert");
        assert!(end.starts_with(&format!("TLS with {address}: ")), "{end}");
        assert!(end.contains("BadRecordMac"), "{end}");
    }
}

#[test]
fn a_peer_with_another_name_or_an_unknown_issuer_is_refused_and_the_error_says_so() {
    let only_handshake = |mut stream: StreamOwned<ServerConnection, TcpStream>| {
        let _ = stream.conn.complete_io(&mut stream.sock);
    };
    let other = server("other.test", only_handshake);
    let security = named(&other, "collector.test");
    let text = refusal(other, security);
    assert!(text.contains("TLS") && text.contains("collector.test"), "{text}");

    let unknown = server("collector.test", only_handshake);
    let config = ClientConfig::builder()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("collector.test").ok();
    let text = refusal(unknown, Security { config: Arc::new(config), name });
    assert!(text.contains("UnknownIssuer"), "{text}");
}

#[test]
fn a_peer_that_speaks_no_tls_or_goes_away_is_refused_and_the_error_says_so() {
    let reset = server("reset.test", |mut stream| {
        let mut hello = [0; 5];
        // What lies unread makes a reset of its end.
        stream.sock.read_exact(&mut hello).expect("a hello");
    });
    let (security, address) = (named(&reset, "reset.test"), reset.address);
    let text = refusal(reset, security);
    let start = format!("TLS with {address}: the server closed in the middle");
    assert!(text.starts_with(&start), "{text}");

    let plain = server("plain.test", |mut stream| {
        stream.sock.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("the client reads");
        let _ = stream.sock.shutdown(std::net::Shutdown::Write);
        let _ = io::copy(&mut stream.sock, &mut io::sink());
    });
    let (security, address) = (named(&plain, "plain.test"), plain.address);
    let text = refusal(plain, security);
    assert!(text.starts_with(&format!("TLS with {address}: ")), "{text}");

    let silent = server("silent.test", |mut stream| {
        let _ = io::copy(&mut stream.sock, &mut io::sink());
    });
    let (security, address) = (named(&silent, "silent.test"), silent.address);
    let (tell, told) = mpsc::channel();
    let executor = start_executor("line".to_owned(), None, move || async move {
        let target = Target::parse(&address.to_string()).expect("an address");
        let limit = Duration::from_secs(2);
        let error = dial(&target, 0, limit, Some(&security)).await.err().expect("no line");
        tell.send((Fault::is_in(&error), error.to_string())).expect("the test listens");
    });
    let (is_fault, text) = told.recv_timeout(TIMEOUT).expect("it gives up");
    executor.expect("an executor").join().expect("it ends in order");
    silent.thread.join().expect("the server ends in order");
    assert!(is_fault && text.contains("took longer than 2s"), "{text}");

    let gone = server("gone.test", |mut stream| {
        let mut hello = [0; 5];
        stream.sock.read_exact(&mut hello).expect("a hello");
        let _ = stream.sock.shutdown(std::net::Shutdown::Write);
        let _ = io::copy(&mut stream.sock, &mut io::sink());
    });
    let security = named(&gone, "gone.test");
    let text = refusal(gone, security);
    assert!(text.contains("in the middle of the TLS handshake"), "{text}");
}
