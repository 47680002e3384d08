//! The protocol cores beside libraries that do the same or a part of it: what a request costs
//! without a socket.
//!
//! HTTP/1.1 beside a bare parse of the head by httparse, which checks no framing, keeps no body
//! and writes no answer: the ratio, below 1, says what part of our cost the parse is. HTTP/2 beside
//! the `h2` crate polled by hand, both fed the same bytes that an `h2` client had sent, and with
//! the least around it that a server must do: the bake-off that our own core has to win.

#[path = "../../net/tests/protocols/pipe.rs"]
mod pipe;
mod timing;

use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use forebay_net::fields::Fields;
use forebay_net::http1::Http1;
use forebay_net::http2::Http2;
use forebay_net::request::{
    Admitted, Answer, Core, Door, Head, Limits, Protocol, Refusal, Request, Turn,
};
use forebay_net::ring::Key;
use http::{HeaderMap, StatusCode};

use pipe::Pipe;
use timing::{Bar, Contender, Contest, Cpu, Outcome, Session};

fn main() -> ExitCode {
    let mut session = Session::start("The protocol cores");
    session.run(http1());
    session.run(http2("HTTP/2, 1 gRPC call at a time", 1, BODY_BYTES, Bar::Ratio(1.2)));
    session.run(http2("HTTP/2, 10 gRPC calls at a time", 10, BODY_BYTES, Bar::Ratio(2.0)));
    session.run(http2("HTTP/2, 100 gRPC calls at a time", 100, BODY_BYTES, Bar::Ratio(2.0)));
    session.run(http2("HTTP/2, 10 gRPC calls of 64 KiB", 10, LONG_BODY_BYTES, Bar::Ratio(1.2)));
    session.finish()
}

/// As long as the export of one span.
const BODY_BYTES: usize = 640;
/// As long as the export of a batch of a hundred spans or more: several DATA frames.
const LONG_BODY_BYTES: usize = 64 << 10;
/// On one connection, so that its beginning weighs little.
const REQUESTS: usize = 500;

fn http1() -> Contest<'static> {
    let mut request = format!(
        "POST /v1/traces HTTP/1.1\r\nHost: collector.example:4318\r\n\
         User-Agent: OTel-OTLP-Exporter-Python/1.37.0\r\nAccept-Encoding: gzip, deflate\r\n\
         Accept: */*\r\nConnection: keep-alive\r\nContent-Type: application/x-protobuf\r\n\
         Content-Length: {BODY_BYTES}\r\n\r\n"
    )
    .into_bytes();
    request.extend(vec![7; BODY_BYTES]);
    let replay = |bytes: &[u8]| {
        let mut core = Served::new(Http1::new(0));
        (0..REQUESTS).for_each(|_| core.take(bytes));
        core.done
    };
    let parse = |bytes: &[u8], done: &mut Vec<(Arc<str>, Bytes)>| {
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let mut head = httparse::Request::new(&mut headers);
        let parsed = head.parse(bytes).expect("the request is well-formed");
        let body = Bytes::copy_from_slice(&bytes[parsed.unwrap()..]);
        done.push((head.path.expect("a whole head has a path").into(), body));
    };
    let parsed = move |bytes: &[u8]| {
        let mut done = Vec::new();
        (0..REQUESTS).for_each(|_| parse(bytes, &mut done));
        done
    };
    let [ours, ours_told, theirs, theirs_told] = [(); 4].map(|()| request.clone());
    Contest {
        name: "HTTP/1.1, one request after the other",
        unit: "request",
        bytes: 0,
        cpu: Cpu::ThisThread,
        ours: Contender {
            name: "Http1, answered",
            work: Box::new(move || replay(&ours).len() as u64),
            outcome: Box::new(move || told(&replay(&ours_told))),
        },
        theirs: Contender {
            name: "httparse, body copied",
            work: Box::new(move || parsed(&theirs).len() as u64),
            outcome: Box::new(move || told(&parsed(&theirs_told))),
        },
        bar: Bar::None,
    }
}

fn http2(name: &'static str, at_once: usize, body_bytes: usize, bar: Bar) -> Contest<'static> {
    let flights = recorded(at_once, body_bytes);
    let replay = |flights: &[Bytes]| {
        let mut core = Served::new(Http2::new(&LIMITS, 0));
        flights.iter().for_each(|flight| core.take(flight));
        core.done
    };
    let [ours, ours_told, theirs, theirs_told] = [(); 4].map(|()| flights.clone());
    Contest {
        name,
        unit: "request",
        bytes: 0,
        cpu: Cpu::ThisThread,
        ours: Contender {
            name: "Http2, answered",
            work: Box::new(move || replay(&ours).len() as u64),
            outcome: Box::new(move || told(&replay(&ours_told))),
        },
        theirs: Contender {
            name: "h2 crate alone, answered",
            work: Box::new(move || crate_alone(&theirs).len() as u64),
            outcome: Box::new(move || told(&crate_alone(&theirs_told))),
        },
        bar,
    }
}

/// Paths and bodies, in the order in which the requests were complete.
fn told(done: &[(Arc<str>, Bytes)]) -> Outcome {
    let bytes: Vec<u8> =
        done.iter().flat_map(|(path, body)| [path.as_bytes(), body].concat()).collect();
    Outcome::of(done.len() as u64, &bytes)
}

/// A core of ours with everything around it that a server would be.
struct Served<C> {
    core: C,
    requests: Vec<Request>,
    done: Vec<(Arc<str>, Bytes)>,
}

impl<C: Core> Served<C> {
    fn new(core: C) -> Served<C> {
        Served { core, requests: Vec::new(), done: Vec::with_capacity(REQUESTS) }
    }

    /// Hands in bytes, answers what is complete, and throws the answers' bytes away.
    fn take(&mut self, bytes: &[u8]) {
        let mut turn = turn(&mut self.requests);
        self.core.handle_input(bytes, &mut turn);
        for request in std::mem::take(turn.requests) {
            self.core.handle_answer(request.id.stream, answer(), &mut turn);
            self.done.push((request.head.path, request.body));
        }
        let sent = self.core.take_output();
        std::hint::black_box(sent);
    }
}

fn turn<'a>(requests: &'a mut Vec<Request>) -> Turn<'a> {
    Turn {
        now: 0,
        key: Key { index: 0, generation: 0 },
        listener: 0,
        limits: &LIMITS,
        // A value without fields lives as long as anybody likes.
        peer: None,
        door: Box::leak(Box::new(OpenDoor)),
        requests,
        date: "Thu, 01 Jan 2026 00:00:00 GMT",
    }
}

const LIMITS: Limits = Limits {
    header_bytes_max: 16 << 10,
    connections_max: 1,
    connection_requests_max: 256,
    connection_window_bytes: 4 << 20,
    header_timeout: u64::MAX / 4,
    body_timeout: u64::MAX / 4,
    idle_timeout: 0,
    write_timeout: u64::MAX / 4,
};

fn answer() -> Answer {
    forebay_net::grpc::ok(&[])
}

/// Lets everything in.
struct OpenDoor;

impl Door for OpenDoor {
    fn admit(&mut self, _: &mut Head) -> Result<Admitted, Answer> {
        Ok(Admitted { body_bytes_max: 64 << 20, streamed: false, tag: 0, reserved: 0 })
    }

    fn reserve(&mut self, _: usize) -> bool {
        true
    }

    fn release(&mut self, _: usize) {}

    fn refuse(&mut self, head: &Head, refusal: Refusal) -> Answer {
        panic!("{} was refused: {refusal:?}", head.path)
    }

    fn malformed(&mut self, status: StatusCode, reason: &'static str) -> Answer {
        panic!("{status}: {reason}")
    }

    fn abandoned(&mut self, protocol: Protocol) {
        panic!("the client left a request of {protocol:?} unfinished")
    }
}

/// What an `h2` client sends, write by write, that makes [`REQUESTS`] calls, `at_once` at a time,
/// and waits for the answers of our core between them.
fn recorded(at_once: usize, body_bytes: usize) -> Vec<Bytes> {
    let context = &mut Context::from_waker(Waker::noop());
    let pipe = Pipe::default();
    let mut served = Served::new(Http2::new(&LIMITS, 0));
    let mut handshake = Box::pin(h2::client::handshake(pipe.clone()));
    let Poll::Ready(Ok((mut client, mut connection))) = handshake.as_mut().poll(context) else {
        panic!("the client's side of the handshake waits for nothing");
    };
    let mut flights = Vec::new();
    let mut exchange = |connection: &mut h2::client::Connection<Pipe, Bytes>| {
        loop {
            let alive = Box::pin(&mut *connection).as_mut().poll(context).is_pending();
            assert!(alive, "the connection lasts");
            let flight = pipe.take_output();
            if flight.is_empty() {
                break;
            }
            served.core.handle_input(&flight, &mut turn(&mut served.requests));
            for request in std::mem::take(&mut served.requests) {
                let turn = &mut turn(&mut served.requests);
                served.core.handle_answer(request.id.stream, answer(), turn);
            }
            pipe.feed(&served.core.take_output());
            flights.push(flight);
        }
    };
    exchange(&mut connection);
    let context = &mut Context::from_waker(Waker::noop());
    for round in 0..REQUESTS / at_once {
        let mut calls = Vec::new();
        for call in 0..at_once {
            assert!(client.poll_ready(context).is_ready(), "there is room for a stream");
            let (response, mut body) =
                client.send_request(call_head(), false).expect("the connection is open");
            let message = forebay_net::grpc::frame(&vec![(round ^ call) as u8; body_bytes - 5]);
            body.send_data(message, true).expect("the stream is open");
            calls.push(response);
        }
        exchange(&mut connection);
        for mut call in calls {
            let response = std::pin::Pin::new(&mut call).poll(context);
            assert!(matches!(response, Poll::Ready(Ok(_))), "the call is answered: {response:?}");
        }
    }
    flights
}

/// As gRPC clients write it.
fn call_head() -> http::Request<()> {
    http::Request::post(
        "http://collector.example:4317/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    )
    .header("content-type", "application/grpc")
    .header("user-agent", "OTel-OTLP-Exporter-Python/1.37.0 grpc-python/1.76.0")
    .header("te", "trailers")
    .header("grpc-accept-encoding", "identity, deflate, gzip")
    .header("grpc-timeout", "10S")
    .body(())
    .expect("the head is well-formed")
}

/// The `h2` crate as a server, with the least that a server must do.
fn crate_alone(flights: &[Bytes]) -> Vec<(Arc<str>, Bytes)> {
    let context = &mut Context::from_waker(Waker::noop());
    let pipe = Pipe::default();
    let mut handshake = Box::pin(
        h2::server::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .max_concurrent_streams(256)
            .handshake::<_, Bytes>(pipe.clone()),
    );
    let mut open = None;
    let mut done = Vec::with_capacity(REQUESTS);
    for flight in flights {
        pipe.feed(flight);
        if open.is_none()
            && let Poll::Ready(made) = handshake.as_mut().poll(context)
        {
            open = Some(made.expect("the client's greeting is well-formed"));
        }
        if let Some(connection) = &mut open {
            while let Poll::Ready(Some(call)) = connection.poll_accept(context) {
                let (request, respond) = call.expect("the call is well-formed");
                done.push(serve(request, respond, context));
            }
        }
        std::hint::black_box(pipe.take_output());
    }
    done
}

fn serve(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    context: &mut Context<'_>,
) -> (Arc<str>, Bytes) {
    let path = request.uri().path().into();
    let mut incoming = request.into_body();
    let mut body = Vec::new();
    while let Poll::Ready(Some(data)) = incoming.poll_data(context) {
        let data = data.expect("the stream is whole");
        incoming.flow_control().release_capacity(data.len()).expect("it was taken");
        body.extend_from_slice(&data);
    }
    assert!(incoming.is_end_stream(), "a flight holds whole calls");
    let Answer { status, headers, body: message, trailers } = answer();
    let mut response = http::Response::new(());
    *response.status_mut() = status;
    response.headers_mut().extend(named(headers));
    let mut send = respond.send_response(response, false).expect("the stream is open");
    send.send_data(message, false).expect("the stream is open");
    send.send_trailers(named(trailers)).expect("the stream is open");
    (path, body.into())
}

fn named(fields: Fields) -> HeaderMap {
    fields.into_iter().collect()
}
