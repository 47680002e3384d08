//! The client core beside the `h2` crate's server: what each request is, how it ends, whatever the
//! windows, the frames' sizes and the cuts between reads.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use forebay_net::http2::client::{Answer, Client, Code, End, Failure, Output, RequestHead, Why};
use h2::server::{Connection, Handshake, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::caller::{self, take};
use crate::desk;
use crate::pipe::Pipe;

/// Print it, and one run can be had again.
const SEED: u64 = 0x00c1_1e47;
const RUNS: u64 = 120;
const STEPS: usize = 400;
/// A head and the settings that are made here.
const SETTINGS_BYTES_MIN: usize = 9 + 3 * 6;

type Dice = Box<dyn FnMut() -> u64>;

/// What the server is to do with a call.
#[derive(Clone, Debug)]
enum Script {
    Answer {
        early: bool,
        status: StatusCode,
        body: Bytes,
        trailers: Option<HeaderMap>,
    },
    Reset {
        early: bool,
        code: Reason,
    },
    /// Never answers.
    Hang,
}

struct Call {
    head: usize,
    message: Vec<u8>,
    script: Script,
    /// It began before the server's settings can have come: there may be too many of those.
    is_early: bool,
    is_cancelled: bool,
    outcome: Option<Result<Answer, Failure>>,
}

/// A call as the server has it.
struct Served {
    path: String,
    headers: HeaderMap,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    got: Vec<u8>,
    is_whole: bool,
    is_reset: bool,
    is_answered: bool,
}

enum Server {
    Shaking(Pin<Box<Handshake<Pipe, Bytes>>>),
    Open(Box<Connection<Pipe, Bytes>>),
}

struct World {
    seed: u64,
    dice: Dice,
    /// Of each stream at the server.
    window: u32,
    client: Client,
    output: Output,
    heads: Vec<Rc<RequestHead>>,
    calls: BTreeMap<u32, Call>,
    pipe: Pipe,
    server: Server,
    served: BTreeMap<u32, Served>,
    /// On its way to the client, and to the server.
    to_client: Vec<u8>,
    to_server: Vec<u8>,
    /// Bytes that the client got.
    fed: usize,
    shuts_down: bool,
}

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn pick<T: Clone>(dice: &mut Dice, from: &[T]) -> T {
    from[below(dice, from.len())].clone()
}

fn below(dice: &mut Dice, bound: usize) -> usize {
    dice() as usize % bound
}

impl World {
    fn new(seed: u64) -> World {
        let mut dice: Dice = Box::new(desk::random(seed));
        let pipe = Pipe::default();
        let window = pick(&mut dice, &[1, 7, 1_000, 65_535, 1 << 20]);
        let mut builder = h2::server::Builder::new();
        builder
            .initial_window_size(window)
            .initial_connection_window_size(pick(&mut dice, &[65_535, 1 << 20]))
            .max_frame_size(pick(&mut dice, &[16 << 10, 100_000, (1 << 24) - 1]))
            .max_concurrent_streams(pick(&mut dice, &[1, 3, 200]));
        let handshake = builder.handshake(pipe.clone());
        World {
            seed,
            dice,
            window,
            client: Client::new(caller::SETTINGS, 0),
            output: Output::new(),
            heads: (0..3).map(caller::head).collect(),
            calls: BTreeMap::new(),
            pipe,
            server: Server::Shaking(Box::pin(handshake)),
            served: BTreeMap::new(),
            to_client: Vec::new(),
            to_server: Vec::new(),
            fed: 0,
            shuts_down: false,
        }
    }

    fn call(&mut self) {
        let dice = &mut self.dice;
        let head = below(dice, 3);
        // Through a narrow window goes no long message in a test's time.
        let bytes_max = pick(dice, &[1, 3, 700, 5_000, 60_000]).min(self.window as usize * 100);
        let message: Vec<u8> = {
            let first = below(dice, 256);
            (0..below(dice, bytes_max)).map(|nth| (first + nth * 7) as u8).collect()
        };
        let mut pieces = Vec::new();
        let mut rest = Bytes::from(message.clone());
        while !rest.is_empty() {
            pieces.push(rest.split_to(below(dice, rest.len() + 1)));
        }
        let script = script(dice);
        let Some(stream) = self.client.open(&self.heads[head], pieces) else {
            return;
        };
        let is_early = self.fed < SETTINGS_BYTES_MIN;
        let call = Call { head, message, script, is_early, is_cancelled: false, outcome: None };
        assert!(self.calls.insert(stream, call).is_none(), "seed {}", self.seed);
    }

    fn cancel(&mut self) {
        let nth = below(&mut self.dice, self.calls.len().max(1));
        let Some((stream, call)) = self.calls.iter_mut().nth(nth) else {
            return;
        };
        if call.outcome.is_none() && !call.is_cancelled {
            self.client.cancel(*stream);
            call.is_cancelled = true;
        }
    }

    /// Moves up to `bytes_max` from each end to the other.
    fn carry(&mut self, bytes_max: usize) -> bool {
        let sent_max = 1 + below(&mut self.dice, bytes_max);
        self.client.poll_output(&mut self.output, bytes_max);
        self.to_server.extend(take(&mut self.output, sent_max));
        self.to_client.extend(self.pipe.take_output());
        let up = self.to_server.len().min(1 + below(&mut self.dice, bytes_max));
        let down = self.to_client.len().min(1 + below(&mut self.dice, bytes_max));
        self.pipe.feed(&self.to_server.drain(..up).collect::<Vec<_>>());
        let input: Vec<u8> = self.to_client.drain(..down).collect();
        self.fed += input.len();
        self.client.handle_input(&input, 0);
        while let Some(event) = self.client.poll_event() {
            let call = self.calls.get_mut(&event.stream).expect("a stream that was opened");
            assert!(!call.is_cancelled, "seed {}: {event:?}", self.seed);
            assert!(call.outcome.replace(event.outcome).is_none(), "seed {}", self.seed);
        }
        up + down > 0
    }

    fn serve(&mut self) -> bool {
        if let Server::Shaking(handshake) = &mut self.server {
            let Poll::Ready(done) = handshake.as_mut().poll(&mut context()) else {
                return false;
            };
            self.server = Server::Open(Box::new(done.expect("what the client sent is HTTP/2")));
        }
        let Server::Open(connection) = &mut self.server else {
            return false;
        };
        let mut did = false;
        while let Poll::Ready(Some(accepted)) = connection.poll_accept(&mut context()) {
            let (request, respond) = accepted
                .unwrap_or_else(|error| panic!("seed {}: the server says {error}", self.seed));
            did = true;
            let (parts, body) = request.into_parts();
            assert_eq!(parts.uri.scheme_str(), Some("http"), "seed {}", self.seed);
            let served = Served {
                path: format!("{} {}", parts.method, parts.uri),
                headers: parts.headers,
                body,
                respond,
                got: Vec::new(),
                is_whole: false,
                is_reset: false,
                is_answered: false,
            };
            self.served.insert(served.respond.stream_id().as_u32(), served);
        }
        for (stream, served) in &mut self.served {
            if below(&mut self.dice, 3) > 0 {
                let script = &self.calls[stream].script;
                did |= served.go_on(script);
            }
        }
        did
    }

    fn step(&mut self) {
        match below(&mut self.dice, 8) {
            0 | 1 => self.call(),
            2 if below(&mut self.dice, 5) == 0 => self.cancel(),
            3 if below(&mut self.dice, 300) == 0 => self.shut_down(),
            3 | 4 => drop(self.serve()),
            _ => drop({
                let bytes_max = pick(&mut self.dice, &[1, 20, 2_000, 100_000]);
                self.carry(bytes_max)
            }),
        }
    }

    /// The server says that it goes, first with the highest id and later with the true one.
    fn shut_down(&mut self) {
        if let Server::Open(connection) = &mut self.server {
            connection.graceful_shutdown();
            self.shuts_down = true;
        }
    }

    /// Until nothing moves any more.
    fn finish(&mut self) {
        let mut idle = 0;
        while idle < 50 {
            let moved = self.carry(200_000);
            idle = if self.serve() | moved { 0 } else { idle + 1 };
        }
    }

    fn check(&self) {
        let seed = self.seed;
        for (stream, call) in &self.calls {
            let served = self.served.get(stream);
            if let Some(served) = served {
                let path = format!("POST {}", caller::uri(call.head));
                assert_eq!(served.path, path, "seed {seed}, stream {stream}");
                assert_eq!(served.headers, caller::headers(call.head), "seed {seed}");
                assert!(call.message.starts_with(&served.got), "seed {seed}, stream {stream}");
                if served.is_whole {
                    assert!(served.got == call.message, "seed {seed}, stream {stream}");
                }
            }
            if call.is_cancelled {
                continue;
            }
            let is_served = served.is_some();
            match (&call.script, &call.outcome) {
                (_, Some(Err(Failure { why: Why::Unprocessed(_), began: false }))) => {
                    assert!(self.shuts_down && !is_served, "seed {seed}, stream {stream}");
                }
                (_, Some(Err(Failure { why: Why::Reset(Code::REFUSED_STREAM), .. })))
                    if call.is_early && !is_served => {}
                (Script::Hang, None) => assert!(is_served, "seed {seed}, stream {stream}"),
                (Script::Answer { status, body, trailers, .. }, Some(Ok(answer))) => {
                    assert_eq!(answer.status, *status, "seed {seed}, stream {stream}");
                    assert!(answer.body == body[..], "seed {seed}, stream {stream}");
                    assert_eq!(answer.trailers, *trailers, "seed {seed}, stream {stream}");
                    assert_eq!(answer.headers["grpc-encoding"], "identity", "seed {seed}");
                    assert!(!answer.headers.contains_key("x-unread"), "seed {seed}");
                }
                (Script::Reset { code, .. }, Some(Err(Failure { why: Why::Reset(got), .. }))) => {
                    assert_eq!(got.to_string(), caller::name(*code), "seed {seed}");
                }
                other => panic!("seed {seed}, stream {stream}: {other:?}"),
            }
        }
        match self.client.end() {
            None => {}
            Some(End::GoneAway(_)) if self.shuts_down => {}
            end => panic!("seed {seed}: {end:?}"),
        }
    }
}

impl Served {
    fn go_on(&mut self, script: &Script) -> bool {
        let mut did = false;
        if !self.is_whole && !self.is_reset {
            match self.body.poll_data(&mut context()) {
                Poll::Ready(Some(Ok(data))) => {
                    self.got.extend_from_slice(&data);
                    let released = self.body.flow_control().release_capacity(data.len());
                    released.expect("no more than came");
                    did = true;
                }
                Poll::Ready(Some(Err(_))) => self.is_reset = true,
                Poll::Ready(None) => self.is_whole = true,
                Poll::Pending => {}
            }
        }
        if self.is_answered || self.is_reset {
            return did;
        }
        match script {
            Script::Answer { early, status, body, trailers } if *early || self.is_whole => {
                let mut head = Response::new(());
                *head.status_mut() = *status;
                head.headers_mut().insert("grpc-encoding", HeaderValue::from_static("identity"));
                head.headers_mut().insert("x-unread", HeaderValue::from_static("a"));
                let ends = body.is_empty() && trailers.is_none();
                // Of a stream that the client reset nothing more comes; of another all must.
                let Ok(mut send) = self.respond.send_response(head, ends) else {
                    self.is_reset = true;
                    return true;
                };
                if !body.is_empty() {
                    send.send_data(body.clone(), trailers.is_none()).expect("an open stream");
                }
                if let Some(trailers) = trailers {
                    send.send_trailers(trailers.clone()).expect("an open stream");
                }
                self.is_answered = true;
            }
            Script::Reset { early, code } if *early || self.is_whole => {
                self.respond.send_reset(*code);
                self.is_answered = true;
            }
            _ => return did,
        }
        true
    }
}

fn script(dice: &mut Dice) -> Script {
    let early = below(dice, 4) == 0;
    let bytes_max = pick(dice, &[1, 100, 60_000]);
    match below(dice, 12) {
        0 => Script::Hang,
        1 => {
            let codes = [Reason::REFUSED_STREAM, Reason::INTERNAL_ERROR, Reason::CANCEL];
            Script::Reset { early, code: pick(dice, &codes) }
        }
        _ => {
            let trailers = (below(dice, 3) > 0).then(|| {
                let mut trailers = HeaderMap::new();
                let status = pick(dice, &["0", "14", "8"]);
                trailers.insert("grpc-status", HeaderValue::from_static(status));
                trailers
            });
            let status = pick(dice, &[StatusCode::OK, StatusCode::OK, StatusCode::BAD_GATEWAY]);
            let body = vec![7; below(dice, bytes_max)].into();
            Script::Answer { early, status, body, trailers }
        }
    }
}

#[test]
fn each_call_arrives_whole_and_ends_as_the_other_library_ended_it() {
    let (mut answered, mut unprocessed) = (0, 0);
    for seed in SEED..SEED + RUNS {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.finish();
        world.check();
        for call in world.calls.values() {
            answered += u32::from(matches!(call.outcome, Some(Ok(_))));
            let failure = matches!(call.outcome, Some(Err(_)));
            unprocessed += u32::from(failure);
        }
    }
    assert!(answered > 2_000 && unprocessed > 100, "{answered} answered, {unprocessed} not");
}
