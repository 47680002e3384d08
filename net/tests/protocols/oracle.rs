//! The core beside the `h2` crate: its client speaks to the core, and its server hears the same
//! bytes. All three must agree on every request and every answer.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use forebay_net::fields::Fields;
use forebay_net::http2::Http2;
use forebay_net::request::{Answer, Core, Standing};
use h2::client::{Connection, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};

use crate::desk::{self, Desk, LIMITS};
use crate::pipe::Pipe;

/// Print it, and one run can be had again.
const SEED: u64 = 0x000a_c1e5;
const RUNS: u64 = 150;

struct Dice(Box<dyn FnMut() -> u64>);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        (self.0)() as usize % bound
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    fn text(&mut self, bytes_max: usize) -> String {
        const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_.~/%+:;=, \"'()";
        let length = self.below(bytes_max);
        let text: String = (0..length).map(|_| char::from(self.pick(LETTERS))).collect();
        text.trim().to_owned()
    }

    fn headers(&mut self, count: usize) -> HeaderMap {
        const NAMES: [&str; 9] = [
            "content-type",
            "user-agent",
            "grpc-timeout",
            "authorization",
            "x-tenant",
            "accept",
            "cookie",
            "traceparent",
            "grpc-accept-encoding",
        ];
        let mut headers = HeaderMap::new();
        for _ in 0..self.below(count + 1) {
            let name = HeaderName::from_static(self.pick(&NAMES));
            let text = if self.below(3) > 0 { "the same".to_owned() } else { self.text(300) };
            let mut value = HeaderValue::try_from(text).expect("visible ASCII and spaces");
            value.set_sensitive(self.below(8) == 0);
            headers.append(name, value);
        }
        headers
    }

    fn body(&mut self, bytes_max: usize) -> Bytes {
        let length = self.below(bytes_max);
        let first = self.below(256);
        (0..length).map(|nth| (first + nth * 7) as u8).collect::<Vec<u8>>().into()
    }
}

const STATUSES: [StatusCode; 4] =
    [StatusCode::OK, StatusCode::NO_CONTENT, StatusCode::TOO_MANY_REQUESTS, StatusCode::NOT_FOUND];

/// What a request is, whoever says so.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// A call as its client made it, and what came back.
struct Call {
    told: Told,
    response: ResponseFuture,
    send: SendStream<Bytes>,
    /// Pieces of the body that are not sent yet, the last one first.
    pieces: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    sent: bool,
    is_reset: bool,
    incoming: Option<RecvStream>,
    status: Option<StatusCode>,
    headers: HeaderMap,
    body: Vec<u8>,
    came_trailers: Option<HeaderMap>,
    ended: bool,
}

struct World {
    dice: Dice,
    desk: Desk,
    core: Http2,
    pipe: Pipe,
    client: SendRequest<Bytes>,
    connection: Connection<Pipe, Bytes>,
    calls: BTreeMap<u32, Call>,
    /// Requests that the core handed out, in all and unanswered.
    handed_out: BTreeMap<u32, Told>,
    unanswered: Vec<u32>,
    answers: BTreeMap<u32, Answer>,
    /// All that the client wrote.
    recorded: Vec<u8>,
}

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

impl World {
    fn new(seed: u64) -> World {
        let dice = Dice(Box::new(desk::random(seed)));
        let pipe = Pipe::default();
        let mut handshake = Box::pin(h2::client::handshake(pipe.clone()));
        let Poll::Ready(Ok((client, connection))) = handshake.as_mut().poll(&mut context()) else {
            panic!("a client's handshake waits for nothing");
        };
        World {
            dice,
            desk: Desk::new(),
            core: Http2::new(&LIMITS, 0),
            pipe,
            client,
            connection,
            calls: BTreeMap::new(),
            handed_out: BTreeMap::new(),
            unanswered: Vec::new(),
            answers: BTreeMap::new(),
            recorded: Vec::new(),
        }
    }

    fn call(&mut self) {
        if !self.client.poll_ready(&mut context()).is_ready() {
            return;
        }
        let dice = &mut self.dice;
        let method = dice.pick(&[Method::POST, Method::POST, Method::GET, Method::PUT]);
        let path = dice.pick(&["/", "/v1/traces", "/opentelemetry.proto/Export", "/a%20b", "/x"]);
        let query = dice.pick(&["", "", "?a=b"]);
        let mut headers = dice.headers(6);
        let bytes_max = dice.pick(&[1, 100, 5_000, 60_000]);
        let body = dice.body(bytes_max);
        let trailers = (dice.below(5) == 0).then(|| dice.headers(2));
        if dice.below(3) == 0 {
            headers.insert("content-length", HeaderValue::from(body.len()));
        }
        let mut pieces = Vec::new();
        let mut rest = body.clone();
        while !rest.is_empty() {
            let piece = rest.split_to(1 + dice.below(rest.len()));
            pieces.push(piece);
        }
        pieces.reverse();
        let ends = pieces.is_empty() && trailers.is_none();
        let uri = format!("http://collector.example{path}{query}");
        let mut request = Request::new(());
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.try_into().expect("a URI");
        *request.headers_mut() = headers.clone();
        let sent = self.client.send_request(request, ends);
        let (response, send) = sent.expect("the connection is open");
        let told = Told { method, path: path.to_owned(), headers, body: body.to_vec() };
        let call = Call {
            told,
            response,
            send,
            pieces,
            trailers,
            sent: ends,
            is_reset: false,
            incoming: None,
            status: None,
            headers: HeaderMap::new(),
            body: Vec::new(),
            came_trailers: None,
            ended: false,
        };
        self.calls.insert(call.response.stream_id().as_u32(), call);
    }

    /// Some of what a client does with a call that is under way.
    fn go_on(&mut self) {
        let World { calls, dice, .. } = self;
        for call in calls.values_mut().filter(|call| !call.is_reset && !call.sent) {
            match (dice.below(40), call.pieces.pop()) {
                (0, _) => {
                    call.send.send_reset(h2::Reason::CANCEL);
                    call.is_reset = true;
                }
                (1..20, Some(piece)) => call.pieces.push(piece),
                (_, Some(piece)) => {
                    call.sent = call.pieces.is_empty() && call.trailers.is_none();
                    call.send.send_data(piece, call.sent).expect("the stream is open");
                }
                (_, None) => {
                    let trailers = call.trailers.take().expect("something is left to send");
                    call.send.send_trailers(trailers).expect("the stream is open");
                    call.sent = true;
                }
            }
        }
    }

    /// Carries bytes both ways, in pieces of any size, until nothing moves.
    fn carry(&mut self) {
        loop {
            let polled = Pin::new(&mut self.connection).poll(&mut context());
            assert!(polled.is_pending(), "the client is content: {polled:?}");
            let flight = self.pipe.take_output();
            self.recorded.extend_from_slice(&flight);
            let mut rest = &flight[..];
            while !rest.is_empty() {
                let bytes_max = self.dice.pick(&[1, 20, 1_000, 100_000]);
                let length = (1 + self.dice.below(bytes_max)).min(rest.len());
                self.core.handle_input(&rest[..length], &mut self.desk.turn());
                rest = &rest[length..];
            }
            self.hand_out();
            let output = self.core.take_output();
            self.pipe.feed(&output);
            self.hear();
            if flight.is_empty() && output.is_empty() {
                return;
            }
        }
    }

    fn hand_out(&mut self) {
        for request in std::mem::take(&mut self.desk.requests) {
            self.desk.reserved -= request.reserved;
            let head = request.head;
            let (method, path, headers) =
                (head.method, head.path.to_string(), desk::map(&head.headers));
            let body = request.body.to_vec();
            let told = Told { method, path, headers, body };
            let before = self.handed_out.insert(request.id.stream, told);
            assert_eq!(before, None, "a stream is one request");
            self.unanswered.push(request.id.stream);
        }
    }

    fn answer(&mut self) {
        let dice = &mut self.dice;
        while !self.unanswered.is_empty() && dice.below(3) > 0 {
            let id = self.unanswered.swap_remove(dice.below(self.unanswered.len()));
            let pairs = |headers: HeaderMap| {
                let mut last = None;
                let named = headers.into_iter().map(|(name, value)| {
                    last = name.or(last.take());
                    (last.clone().expect("the first has its name"), value)
                });
                named.collect::<Fields>()
            };
            let bytes_max = dice.pick(&[1, 10, 3_000, 150_000]);
            let answer = Answer {
                status: dice.pick(&STATUSES),
                headers: pairs(dice.headers(4)),
                body: dice.body(bytes_max),
                trailers: pairs(dice.headers(2)),
            };
            self.answers.insert(id, answer.clone());
            self.core.handle_answer(id, answer, &mut self.desk.turn());
        }
    }

    /// What came back.
    fn hear(&mut self) {
        for call in self.calls.values_mut().filter(|call| !call.is_reset && !call.ended) {
            if call.incoming.is_none()
                && let Poll::Ready(response) = Pin::new(&mut call.response).poll(&mut context())
            {
                let (parts, body) = response.expect("a whole answer").into_parts();
                call.status = Some(parts.status);
                call.headers = parts.headers;
                call.incoming = Some(body);
            }
            let Some(incoming) = &mut call.incoming else { continue };
            while let Poll::Ready(Some(data)) = incoming.poll_data(&mut context()) {
                let data = data.expect("a whole body");
                incoming.flow_control().release_capacity(data.len()).expect("it came");
                call.body.extend_from_slice(&data);
            }
            if let Poll::Ready(trailers) = incoming.poll_trailers(&mut context()) {
                call.came_trailers = trailers.expect("whole trailers");
                call.ended = true;
            }
        }
    }

    fn check(&mut self, name: &str) {
        for (id, call) in &self.calls {
            let told = self.handed_out.get(id);
            if call.is_reset {
                assert!(told.is_none_or(|told| *told == call.told), "{name}: stream {id}");
                continue;
            }
            assert_eq!(told, Some(&call.told), "{name}: stream {id}");
            let answer = &self.answers[id];
            assert!(call.ended, "{name}: stream {id} ends");
            assert_eq!(call.status, Some(answer.status), "{name}: stream {id}");
            assert_eq!(call.headers, desk::map(&answer.headers), "{name}: stream {id}");
            assert!(call.body == answer.body, "{name}: the body of stream {id}");
            let trailers = call.came_trailers.clone().unwrap_or_default();
            assert_eq!(trailers, desk::map(&answer.trailers), "{name}: stream {id}");
        }
        assert_eq!(self.desk.reserved, 0, "{name}");
        assert_eq!(self.core.in_flight(), 0, "{name}");
        assert!(self.desk.troubles.is_empty(), "{name}: {:?}", self.desk.troubles);
        assert_eq!(self.core.standing(), Standing::Open, "{name}");
    }
}

/// What the `h2` crate's server makes of the same bytes.
fn heard_by_the_crate(recorded: &[u8]) -> BTreeMap<u32, Told> {
    let pipe = Pipe::default();
    let window = (1 << 31) - 1;
    let mut handshake = Box::pin(
        h2::server::Builder::new()
            .initial_window_size(window)
            .initial_connection_window_size(window)
            .max_concurrent_reset_streams(10_000)
            .handshake::<_, Bytes>(pipe.clone()),
    );
    let (preface, rest) = recorded.split_at(60);
    pipe.feed(preface);
    let Poll::Ready(Ok(mut connection)) = handshake.as_mut().poll(&mut context()) else {
        panic!("the preface is there");
    };
    let mut open = Vec::new();
    let mut heard = BTreeMap::new();
    // Each time the crate makes room for what is to come.
    for piece in rest.chunks(4_000) {
        pipe.feed(piece);
        while let Poll::Ready(Some(accepted)) = connection.poll_accept(&mut context()) {
            let (request, respond) = accepted.expect("well-formed");
            let (parts, body) = request.into_parts();
            let (method, path) = (parts.method, parts.uri.path().to_owned());
            let told = Told { method, path, headers: parts.headers, body: Vec::new() };
            open.push((respond, body, told));
        }
        open.retain_mut(|(respond, body, told)| {
            loop {
                match body.poll_data(&mut context()) {
                    Poll::Pending => return true,
                    Poll::Ready(Some(Ok(data))) => {
                        body.flow_control().release_capacity(data.len()).expect("it came");
                        told.body.extend_from_slice(&data);
                    }
                    Poll::Ready(Some(Err(_))) => return false,
                    Poll::Ready(None) => {
                        heard.insert(respond.stream_id().as_u32(), told.clone());
                        return false;
                    }
                }
            }
        });
    }
    heard
}

#[test]
fn the_h2_crate_hears_the_same_requests_and_its_client_the_same_answers() {
    for run in 0..RUNS {
        let name = format!("seed {SEED}, run {run}");
        let mut world = World::new(SEED + run);
        for _ in 0..60 {
            if world.dice.below(2) == 0 {
                world.call();
            }
            world.go_on();
            if world.dice.below(2) == 0 {
                world.carry();
            }
            world.answer();
        }
        while world.calls.values().any(|call| !call.is_reset && !call.ended) {
            world.go_on();
            world.carry();
            world.answer();
        }
        world.carry();
        while !world.unanswered.is_empty() {
            world.answer();
        }
        world.check(&name);
        assert!(world.calls.len() > 5, "{name}: {} calls", world.calls.len());
        let heard = heard_by_the_crate(&world.recorded);
        for (id, call) in world.calls.iter().filter(|(_, call)| !call.is_reset) {
            assert_eq!(heard.get(id), Some(&call.told), "{name}: stream {id} by the crate");
        }
    }
}

/// A client's traffic with some of its bytes changed, dropped or doubled.
#[test]
fn mutated_traffic_never_panics_and_never_leaves_a_reservation() {
    let mut world = World::new(SEED);
    for _ in 0..30 {
        world.call();
        world.go_on();
        world.carry();
        world.answer();
    }
    let recorded = std::mem::take(&mut world.recorded);
    let recorded = &recorded[..recorded.len().min(20_000)];
    let mut dice = Dice(Box::new(desk::random(SEED)));
    let mut requests = 0;
    for _ in 0..2_000 {
        let mut bytes = recorded.to_vec();
        for _ in 0..1 + dice.below(6) {
            let at = 24 + dice.below(bytes.len() - 24);
            match dice.below(4) {
                0 => bytes[at] = dice.below(256) as u8,
                1 => bytes[at] ^= 1 << dice.below(8),
                2 => drop(bytes.drain(at..(at + 1 + dice.below(9)).min(bytes.len()))),
                _ => bytes.extend_from_within(at..(at + 200).min(bytes.len())),
            }
        }
        let mut desk = Desk::new();
        let mut core = Http2::new(&LIMITS, 0);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = (1 + dice.below(3_000)).min(rest.len());
            core.handle_input(&rest[..length], &mut desk.turn());
            rest = &rest[length..];
            desk.now += 1;
            for request in std::mem::take(&mut desk.requests) {
                desk.reserved -= request.reserved;
                requests += 1;
                if dice.below(4) > 0 {
                    core.handle_answer(request.id.stream, desk::ok(), &mut desk.turn());
                }
            }
            crate::frames::frames(&core.take_output());
            if core.deadline(&LIMITS).is_some_and(|deadline| deadline <= desk.now) {
                core.handle_timeout(&mut desk.turn());
            }
        }
        core.handle_lost(&mut desk.turn());
        assert_eq!(desk.reserved, 0, "seed {SEED}");
    }
    assert!(requests > 2_000, "most of the traffic is still traffic: {requests}");
}
