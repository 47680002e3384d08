//! The door of one receiver core: which requests come in, what they hold, what they are told.
//!
//! `net` asks it for each request's head (route, limits, room) before a byte of its body is kept;
//! the shard hands it each complete request, and it gives back a checked one, or the refusal.
//!
//! Always
//! - Nothing is answered OK that was not checked to its last byte and has a place reserved.
//! - Overload is always retryable and says when to come back.
//! - What is refused costs no more than reading it.

pub mod admission;
pub mod answers;
pub mod process;
pub mod route;
pub mod routing;

#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_codec::check::Checked;
use forebay_codec::compress::{DecompressError, Decompressor, Encoding};
use forebay_codec::edit::TooLarge;
use forebay_codec::json::{JsonReason, json_to_proto};
use forebay_codec::mend::{Mended, Unmendable, check_or_mend};
use forebay_codec::signal::Signal;
use forebay_codec::status::PartialSuccess;
use forebay_net::fields::Fields;
use forebay_net::grpc;
use forebay_net::request::{Admitted, Answer, Door, Head, Protocol, Refusal, Request, Trouble};
use http::{HeaderName, StatusCode};

use self::admission::{Obstacle, Standing};
use self::answers::{Form, Problem, Shape};
use self::process::{KEPT_REQUEST_BYTES, Parts, Processors};
use self::route::{Route, Way, route};
use crate::budget::Budget;
use crate::config::plan::Plan;
use crate::ledger::{LateBody, Ledger, RefuseReason, RequestEnd, ShardLedger, Transport};
use crate::services::{self, Method, Services};

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

pub struct Ingest {
    plan: Arc<Plan>,
    ledger: Arc<Ledger>,
    shard: usize,
    pub budget: Budget,
    decompressor: Decompressor,
    /// Pipelines by receiver and signal.
    pipelines: Vec<[Rc<[usize]>; 4]>,
    processors: Processors,
    /// By pipeline: whether its destinations take more.
    pub standings: Vec<Standing>,
    pub draining: bool,
    pub services: Services,
    pub requests_in_flight: usize,
    /// For how long an overloaded client is sent away, before jitter.
    pub retry_delay: Duration,
    jitter: u64,
    warned_strindex: bool,
    /// Headers that are read once a request is complete.
    kept_names: Vec<HeaderName>,
    read_names: &'static [HeaderName],
}

/// A request that was read to its last byte.
pub struct Taken {
    /// `None`: nothing in it could be sent on.
    pub items: Option<TakenItems>,
    /// What its sender must hear although it succeeded.
    pub partial: PartialSuccess,
}

/// Items that have a place.
pub struct TakenItems {
    /// What is left of it for each pipeline, with its share of the budget. None: all of it was
    /// filtered, or is unrouted.
    pub parts: Parts,
    pub route: Route,
    /// For how long a gRPC client waits, if it said so.
    pub timeout: Option<Duration>,
}

impl Ingest {
    pub fn new(plan: Arc<Plan>, ledger: Arc<Ledger>, shard: usize) -> Ingest {
        let receivers = ledger.receivers.len();
        let serving = |receiver: usize, signal: Signal| {
            let takes = |(_, p): &(usize, &crate::config::plan::Pipeline)| {
                p.signal == signal && p.receivers.contains(&(receiver as u16))
            };
            plan.pipelines.iter().enumerate().filter(takes).map(|(index, _)| index).collect()
        };
        let pipelines =
            (0..receivers).map(|r| Signal::ALL.map(|signal| serving(r, signal))).collect();
        Ingest {
            budget: Budget::new(plan.engine.memory_budget_bytes),
            standings: vec![Standing::Open; plan.pipelines.len()],
            pipelines,
            processors: Processors::new(&plan),
            decompressor: Decompressor::new(),
            draining: false,
            services: Services::new(&plan),
            requests_in_flight: 0,
            retry_delay: Duration::from_secs(1),
            jitter: 0x9e37_79b9_7f4a_7c15 ^ (shard as u64 + 1),
            warned_strindex: false,
            kept_names: admission::kept_names(&plan),
            read_names: admission::read_names(&plan),
            plan,
            ledger,
            shard,
        }
    }

    /// The pipelines that take a route's requests.
    pub fn pipelines(&self, route: &Route) -> &Rc<[usize]> {
        let receiver = self.plan.listeners[usize::from(route.listener)].receiver;
        &self.pipelines[usize::from(receiver)][route.signal.index()]
    }

    pub fn rows(&self) -> &ShardLedger {
        &self.ledger.shards[self.shard]
    }

    /// Items that were in no row of a routing, since [`Ingest::told_unrouted`].
    pub fn unrouted_untold(&self) -> u64 {
        self.processors.unrouted_untold
    }

    pub fn told_unrouted(&mut self) {
        self.processors.unrouted_untold = 0;
    }

    /// Counts how a request ended.
    pub fn count(&self, route: &Route, end: RequestEnd) {
        self.door_row(route).requests[end as usize].add(1);
    }

    fn door_row(&self, route: &Route) -> &crate::ledger::DoorRow {
        let receiver = self.plan.listeners[usize::from(route.listener)].receiver;
        self.rows().door(receiver, route.transport, route.signal)
    }

    /// Reads a complete request to its last byte. The request's reservation is settled in every
    /// case.
    pub fn take(&mut self, request: Request) -> Result<Taken, (Route, Problem)> {
        let route = Route::unpack(request.tag);
        let mut reserved = request.reserved;
        let timeout = request.head.headers.get(&GRPC_TIMEOUT);
        let timeout = timeout.and_then(|value| grpc::timeout(value.to_str().ok()?));
        let (headers, body) = (request.head.headers, request.body);
        let outcome = self.read(&route, body, &mut reserved);
        let Mended { checked, items_refused, parts_refused, texts_replaced } = match outcome {
            Ok(mended) => mended,
            Err(problem) => {
                self.budget.give_back(reserved);
                return Err((route, problem));
            }
        };
        let items = checked.counts().items;
        let row = self.door_row(&route);
        row.received_items.add(items + items_refused);
        row.refused_items[RefuseReason::InvalidUtf8 as usize].add(items_refused);
        row.replaced_texts.add(texts_replaced);
        let partial = without_invalid_utf8(items_refused, parts_refused);
        if items == 0 {
            self.budget.give_back(reserved);
            return Ok(Taken { items: None, partial });
        }
        let refused = match self.obstacle(&route, &headers) {
            Some(obstacle) => (obstacle.reason, self.turned_away(&route, obstacle)),
            None => match self.process(&route, &headers, checked, &mut reserved) {
                Ok(parts) => {
                    self.door_row(&route).accepted_items.add(items);
                    self.processors.count(&self.ledger.shards[self.shard]);
                    let items = TakenItems { parts, route, timeout };
                    return Ok(Taken { items: Some(items), partial });
                }
                Err(refused) => refused,
            },
        };
        let (reason, problem) = refused;
        self.budget.give_back(reserved);
        self.door_row(&route).refused_items[reason as usize].add(items);
        Err((route, problem))
    }

    /// Whether a request that another core let in has room here, too; then it is reserved. What
    /// would be shed at this core's door is not let in through the back: it stays where it was.
    pub fn has_room_for(&mut self, request: &Request) -> bool {
        let (route, headers) = (Route::unpack(request.tag), &request.head.headers);
        self.obstacle(&route, headers).is_none()
            && self.shortage(&route, headers, request.reserved).is_none()
            && self.budget.take(request.reserved)
    }

    /// What the pipelines' processors leave of a request. From here on the budget holds their
    /// bytes; those of the request itself only if a pipeline goes on with them.
    fn process(
        &mut self,
        route: &Route,
        headers: &Fields,
        checked: Checked,
        reserved: &mut usize,
    ) -> Result<Parts, (RefuseReason, Problem)> {
        let receiver = self.plan.listeners[usize::from(route.listener)].receiver;
        let pipelines = &self.pipelines[usize::from(receiver)][route.signal.index()];
        let bytes_max = self.budget.bytes_max().saturating_sub(KEPT_REQUEST_BYTES);
        let too_large = || (RefuseReason::Memory, Problem::too_large(route.shape(), bytes_max));
        let processed = self.processors.run(pipelines, checked, headers, bytes_max);
        let processed = processed.map_err(|TooLarge| too_large())?;
        let kept = processed.reserved_bytes();
        if kept > self.budget.bytes_max() {
            return Err(too_large());
        }
        // A routing may have led somewhere that the door could not know of.
        let obstacle = processed.pipelines().find_map(|p| self.standings[p].obstacle());
        let obstacle = match obstacle {
            None if self.reserve_exactly(kept, reserved) => return Ok(processed.into_parts()),
            None => Obstacle::of(RefuseReason::Memory),
            Some(obstacle) => obstacle,
        };
        Err((obstacle.reason, self.turned_away(route, obstacle)))
    }

    fn read(
        &mut self,
        route: &Route,
        body: Bytes,
        reserved: &mut usize,
    ) -> Result<Mended, Problem> {
        let shape = route.shape();
        let bytes_max = self.bytes_max(route);
        let body = match route.transport {
            Transport::Http => self.decompress(route, route.encoding, body, bytes_max)?,
            Transport::Grpc => {
                let (compressed, message) = grpc::unframe(body)
                    .map_err(|error| Problem::grpc(grpc::code::INTERNAL, error.to_string()))?;
                match (compressed, route.encoding) {
                    (false, _) => message,
                    (true, Encoding::Identity) => {
                        let message = "the message is flagged as compressed, but there is no \
                                       grpc-encoding";
                        return Err(Problem::grpc(grpc::code::INTERNAL, message.to_owned()));
                    }
                    (true, encoding) => self.decompress(route, encoding, message, bytes_max)?,
                }
            }
        };
        let body = match route.form {
            Form::Proto => body,
            Form::Urlencoded if !looks_like_json(&body) => {
                let message = "the content type is application/x-www-form-urlencoded: use \
                               application/x-protobuf or application/json";
                let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
                let code = grpc::code::INVALID_ARGUMENT;
                return Err(Problem::new(shape, status, code, message.to_owned()));
            }
            Form::Json | Form::Urlencoded => self.json_as_proto(route, &body, bytes_max)?,
        };
        self.keep(body.len(), route, reserved)?;
        let received_bytes = body.len();
        let policy = self.plan.engine.invalid_utf8;
        let mended =
            check_or_mend(route.signal, body, policy, bytes_max).map_err(|error| match error {
                Unmendable::TooLarge { bytes_max } => Problem::too_large(shape, bytes_max),
                Unmendable::Malformed(error) => Problem::invalid(shape, error.to_string()),
            })?;
        if mended.checked.bytes().len() != received_bytes {
            self.keep(mended.checked.bytes().len(), route, reserved)?;
        }
        self.warn_of_strindex(&mended.checked);
        Ok(mended)
    }

    /// Reserves what a request of so many bytes takes until it has been delivered.
    fn keep(&mut self, bytes: usize, route: &Route, reserved: &mut usize) -> Result<(), Problem> {
        let kept = bytes + KEPT_REQUEST_BYTES;
        let bytes_max = self.budget.bytes_max();
        if kept > bytes_max {
            return Err(Problem::too_large(route.shape(), bytes_max - KEPT_REQUEST_BYTES));
        }
        if !self.reserve_exactly(kept, reserved) {
            return Err(self.turned_away(route, Obstacle::of(RefuseReason::Memory)));
        }
        Ok(())
    }

    fn decompress(
        &mut self,
        route: &Route,
        encoding: Encoding,
        body: Bytes,
        bytes_max: usize,
    ) -> Result<Bytes, Problem> {
        if encoding == Encoding::Identity {
            return Ok(body);
        }
        match self.decompressor.decompress(encoding, &body, bytes_max) {
            Ok(bytes) => Ok(fitted(bytes)),
            Err(DecompressError::TooLarge { .. }) => {
                Err(Problem::too_large(route.shape(), bytes_max))
            }
            Err(error) => Err(Problem::invalid(route.shape(), error.to_string())),
        }
    }

    /// Protobuf may be longer than the JSON it says the same as, so it is bounded too.
    fn json_as_proto(
        &self,
        route: &Route,
        body: &[u8],
        bytes_max: usize,
    ) -> Result<Bytes, Problem> {
        let shape = route.shape();
        json_to_proto(route.signal, body, bytes_max).map(fitted).map_err(|error| {
            match error.reason {
                JsonReason::TooLarge { bytes_max } => Problem::too_large(shape, bytes_max),
                _ => Problem::invalid(shape, error.to_string()),
            }
        })
    }

    /// From the bytes of the body as it came to the bytes that are kept.
    fn reserve_exactly(&mut self, bytes: usize, reserved: &mut usize) -> bool {
        match bytes.checked_sub(*reserved) {
            Some(more) if !self.budget.take(more) => return false,
            Some(_) => {}
            None => self.budget.give_back(*reserved - bytes),
        }
        *reserved = bytes;
        true
    }

    fn bytes_max(&self, route: &Route) -> usize {
        let listener = &self.plan.listeners[usize::from(route.listener)];
        match route.transport {
            Transport::Grpc => listener.grpc.as_ref().map_or(0, |grpc| grpc.request_bytes_max),
            Transport::Http => listener.http.as_ref().map_or(0, |http| http.request_bytes_max),
        }
    }

    /// Lets in a call of a service beside OTLP.
    fn admit_call(&mut self, method: Method, head: &mut Head) -> Result<Admitted, Answer> {
        if !self.services.has(method) {
            self.rows().unrouted[RequestEnd::Unserved as usize].add(1);
            let message = "reflection is off: engine.reflection";
            return Err(grpc::failed(grpc::code::UNIMPLEMENTED, message, None));
        }
        let shape = Shape { transport: Transport::Grpc, form: Form::Proto };
        let (listener, streamed) = (head.listener, method.is_streamed());
        let reserved = self.keep_what_is_needed(head);
        let obstacle = match self.draining && streamed {
            true => Some(RefuseReason::Draining),
            false => (!self.budget.take(reserved)).then_some(RefuseReason::Memory),
        };
        if let Some(reason) = obstacle {
            self.rows().unrouted[RequestEnd::Overloaded as usize].add(1);
            return Err(self.overloaded(shape, reason).answer());
        }
        let body_bytes_max = services::BODY_BYTES_MAX;
        Ok(Admitted { body_bytes_max, streamed, tag: method.pack(listener), reserved })
    }

    fn warn_of_strindex(&mut self, checked: &Checked) {
        if checked.warnings().strindex_outside_profiles && !self.warned_strindex {
            self.warned_strindex = true;
            tracing::warn!(
                signal = checked.signal().name(),
                "A client sends string table indices outside profiles (string_value_strindex or \
                 key_strindex): destinations treat them as absent. Reported once per core"
            );
        }
    }
}

impl Door for Ingest {
    fn admit(&mut self, head: &mut Head) -> Result<Admitted, Answer> {
        let listener = &self.plan.listeners[usize::from(head.listener)];
        let serving = &self.pipelines[usize::from(listener.receiver)];
        let route = match route(head, listener, |signal| !serving[signal.index()].is_empty()) {
            Ok(Way::Signal(route)) => route,
            Ok(Way::Service(method)) => return self.admit_call(method, head),
            Err(problem) => {
                self.rows().unrouted[RequestEnd::Unserved as usize].add(1);
                return Err(problem.answer());
            }
        };
        let bytes_max = self.bytes_max(&route);
        let announced = head.content_length.unwrap_or(0).min(bytes_max as u64) as usize;
        let obstacle = self.obstacle(&route, &head.headers);
        let obstacle = obstacle.or_else(|| self.shortage(&route, &head.headers, announced));
        if let Some(obstacle) = obstacle {
            self.count(&route, RequestEnd::Overloaded);
            return Err(self.turned_away(&route, obstacle).answer());
        }
        let reserved = self.keep_what_is_needed(head);
        if !self.budget.take(reserved) {
            self.count(&route, RequestEnd::Overloaded);
            return Err(self.turned_away(&route, Obstacle::of(RefuseReason::Memory)).answer());
        }
        let framing = if route.transport == Transport::Grpc { grpc::PREFIX_BYTES } else { 0 };
        let (body_bytes_max, tag) = (bytes_max + framing, route.pack());
        Ok(Admitted { body_bytes_max, streamed: false, tag, reserved })
    }

    fn reserve(&mut self, bytes: usize) -> bool {
        self.budget.take(bytes)
    }

    fn release(&mut self, bytes: usize) {
        self.budget.give_back(bytes);
    }

    fn refuse(&mut self, head: &Head, refusal: Refusal) -> Answer {
        let shape = Shape::guess(head);
        let (end, problem) = match refusal {
            Refusal::TooLarge { bytes_max } => {
                let framing =
                    if shape.transport == Transport::Grpc { grpc::PREFIX_BYTES } else { 0 };
                (RequestEnd::TooLarge, Problem::too_large(shape, bytes_max - framing))
            }
            Refusal::Overloaded => {
                (RequestEnd::Overloaded, self.overloaded(shape, RefuseReason::Memory))
            }
            Refusal::Draining => {
                (RequestEnd::Overloaded, self.overloaded(shape, RefuseReason::Draining))
            }
            Refusal::BodyTimeout | Refusal::BodyTooSlow => {
                let late = LateBody::of(refusal);
                self.rows().late_bodies[head.protocol as usize][late as usize].add(1);
                let (status, code) = (StatusCode::REQUEST_TIMEOUT, grpc::code::DEADLINE_EXCEEDED);
                (RequestEnd::Malformed, Problem::new(shape, status, code, late.message()))
            }
            Refusal::Malformed { status, reason } => {
                let code = grpc::code::INVALID_ARGUMENT;
                (RequestEnd::Malformed, Problem::new(shape, status, code, reason.to_owned()))
            }
        };
        self.rows().unrouted[end as usize].add(1);
        problem.answer()
    }

    fn malformed(&mut self, status: StatusCode, reason: &'static str) -> Answer {
        self.rows().unrouted[RequestEnd::Malformed as usize].add(1);
        Problem::plain(status, reason, Form::Json).answer()
    }

    fn abandoned(&mut self, _: Protocol) {
        self.rows().unrouted[RequestEnd::Abandoned as usize].add(1);
    }

    fn read_names(&self) -> Option<&'static [HeaderName]> {
        Some(self.read_names)
    }

    fn trouble(&mut self, protocol: Protocol, trouble: Trouble) {
        let counts = match protocol {
            Protocol::Http3 => &self.rows().http3_troubles,
            Protocol::Http1 | Protocol::Http2 => &self.rows().http2_troubles,
        };
        counts[trouble as usize].add(1);
    }
}

/// What a sender hears whose request was taken but for items with text that is not UTF-8.
fn without_invalid_utf8(items_refused: u64, parts_refused: u64) -> PartialSuccess {
    let message = match (items_refused, parts_refused) {
        (_, 0) => return PartialSuccess::default(),
        (0, parts) => format!(
            "{parts} groups or metrics without any item were left out: they hold text that is not \
             UTF-8"
        ),
        (items, _) => format!(
            "{items} items hold, or stand below, text that is not UTF-8: they were refused, and \
             will be each time they are sent"
        ),
    };
    PartialSuccess { rejected: items_refused, message }
}

/// As large as its content: what is kept is what the budget is charged for.
fn fitted(mut bytes: Vec<u8>) -> Bytes {
    bytes.shrink_to_fit();
    Bytes::from(bytes)
}

fn looks_like_json(body: &[u8]) -> bool {
    body.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| *byte == b'{')
}
