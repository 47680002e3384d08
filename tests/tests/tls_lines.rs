//! Lines with TLS to those who are no forebay: an answer that somebody may have cut off is no
//! answer, a line that is needed no more is left with a goodbye, and a registry is reached as its
//! block says.
//!
//! The peer is rustls on a plain socket, which says what it is told and nothing else.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};

use forebay_codec::signal::Signal;
use forebay_tests::forebay::{PATIENCE, Process, config};
use forebay_tests::items;
use forebay_tests::secure_peer::{Line, Peer, read_request};
use forebay_tests::sink::Sink;
use forebay_tests::wire::{Http1, path_of};

/// A forebay that sends to `peer` by `exporter`, with these keys.
fn forebay(peer: &Peer, exporter: &str, keys: &str) -> Process {
    let (port, ca) = (peer.address.port(), peer.files.path("ca.pem"));
    let exporters = format!(
        "exporters:\n  {exporter}: {{endpoint: 'https://localhost:{port}', tls: {{ca_file: {}}}, \
         retry_on_failure: {{initial_interval: 20ms, max_interval: 100ms}}, {keys}}}\n",
        ca.display()
    );
    Process::start(&config(&format!("[{exporter}]"), &exporters))
}

fn send_one(forebay: &Process) {
    let headers = [("content-type", "application/x-protobuf")];
    let body = items::proto(Signal::Logs, 0, 1);
    let answer =
        Http1::connect(forebay.http_address()).post(path_of(Signal::Logs), &headers, &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn an_answer_that_has_no_length_and_no_goodbye_is_tried_again() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let peer = Peer::start("http/1.1", move |mut line| {
        if read_request(&mut line).is_none() {
            return;
        }
        let says_goodbye = counted.fetch_add(1, Ordering::SeqCst) >= 2;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n\r\n";
        let _ = line.write_all(head.as_bytes());
        if says_goodbye {
            line.conn.send_close_notify();
        }
        let _ = line.flush();
        // Bytes that nobody read would make a reset of it.
        let _ = line.sock.shutdown(Shutdown::Write);
        let _ = std::io::copy(&mut line.sock, &mut std::io::sink());
    });
    let mut forebay = forebay(&peer, "otlp_http", "compression: none");
    send_one(&forebay);
    let told = forebay.wait_for_log("Exporting failed. Will retry the request after interval.");
    assert!(told["error"].as_str().is_some_and(|why| why.contains("close_notify")), "{told}");
    forebay.wait_for_ledger("it is delivered", |ledger| ledger["delivered_items"] == 1);
    assert!(requests.load(Ordering::SeqCst) >= 3);
    forebay.stop();
}

/// How the lines end that `serve` has begun with: `true`: with a goodbye.
fn ends(
    protocol: &str,
    begin: impl Fn(&mut Line) -> bool + Send + Sync + 'static,
) -> (Peer, Receiver<bool>) {
    let (tell, ends) = mpsc::channel();
    let tell = Mutex::new(tell);
    let peer = Peer::start(protocol, move |mut line| {
        if !begin(&mut line) {
            return;
        }
        let mut bytes = [0; 4096];
        let end = loop {
            match line.read(&mut bytes) {
                Ok(0) => break Some(true),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => break Some(false),
                // Patience is over, or the process was ended.
                Err(_) => break None,
            }
        };
        if let Some(end) = end {
            let _ = tell.lock().expect("nobody panics with it").send(end);
        }
    });
    (peer, ends)
}

#[test]
fn an_idle_line_is_left_with_a_goodbye() {
    let (peer, ends) = ends("http/1.1", |line| {
        let is_asked = read_request(line).is_some();
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n\
                      content-length: 0\r\n\r\n";
        is_asked && line.write_all(answer.as_bytes()).is_ok() && line.flush().is_ok()
    });
    let keys = "compression: none, idle_conn_timeout: 200ms, pool: {warm: false}";
    let forebay = forebay(&peer, "otlp_http", keys);
    send_one(&forebay);
    assert_eq!(ends.recv_timeout(PATIENCE), Ok(true), "HTTP/1.1");
    forebay.stop();
}

#[test]
fn an_idle_line_of_grpc_is_left_with_a_goodbye() {
    let (peer, ends) = ends("h2", |line| {
        // Settings, and no word of them: all that a client waits for.
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        line.write_all(&settings).is_ok() && line.flush().is_ok()
    });
    // It is kept warm: one that has been idle for too long makes room for another.
    let forebay = forebay(&peer, "otlp_grpc", "pool: {idle_timeout: 200ms}");
    assert_eq!(ends.recv_timeout(PATIENCE), Ok(true), "HTTP/2");
    forebay.stop();
}

#[test]
fn a_registry_with_tls_is_asked_and_told_with_the_token_that_nobody_sees() {
    const TOKEN: &str = "7ac0ffee-1234";
    let sink = Sink::start();
    let address = sink.grpc;
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let registry = Peer::start("http/1.1", move |mut line| {
        let Some(head) = read_request(&mut line) else {
            return;
        };
        let entry = format!(
            r#"[{{"Node": {{"Address": "{}"}}, "Service": {{"ID": "c", "Port": {}}}}}]"#,
            address.ip(),
            address.port()
        );
        let body = if head.contains("/v1/health/service/") { entry.as_str() } else { "" };
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let _ = line.write_all(answer.as_bytes()).and_then(|()| line.flush());
        let _ = tell.lock().expect("nobody panics with it").send(head);
    });
    let (port, ca) = (registry.address.port(), registry.files.path("ca.pem"));
    let consul = format!(
        "{{agent: 'https://localhost:{port}', service: fleet, token: {TOKEN}, tls: {{ca_file: {}}}}}",
        ca.display()
    );
    let mut forebay = Process::start(&config(
        "[otlp_grpc]",
        &format!(
            "exporters:\n  otlp_grpc: {{tls: {{insecure: true}}, discovery: {{consul: {consul}}}}}\n\
             engine:\n  registration: {{address: 'me.example:4317', consul: {consul}}}\n"
        ),
    ));
    forebay.wait_for_log("Entered into the registry.");
    send_one(&forebay);
    sink.wait_for(Signal::Logs, 1);
    let mut heads = Vec::new();
    while !["/v1/health/service/fleet?", "/v1/agent/service/register?"]
        .iter()
        .all(|path| heads.iter().any(|head: &String| head.contains(path)))
    {
        heads.push(told.recv_timeout(PATIENCE).expect("both are asked"));
    }
    assert!(heads.iter().all(|head| head.contains(&format!("x-consul-token: {TOKEN}"))));
    let end = forebay.stop();
    assert!(!end.logs.iter().any(|line| line.to_string().contains(TOKEN)));
}
