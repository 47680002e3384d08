//! What a listener answers beside OTLP: gRPC health checks and reflection. Few and small calls.
//!
//! Which calls are streamed `net` hears from [`Method::is_streamed`]; what happens on them comes
//! in as parts of requests, and what is to be said goes out as [`Saying`]s. No I/O, no clock.
//!
//! Always
//! - A call that the protocol knows of is ended here once, or was lost.
//! - Calls that stay open are bounded, and hold nothing but their place.
//! - No item passes here, and the ledger knows nothing of it.

pub mod health;
pub mod reflection;

use std::collections::HashMap;

use bytes::Bytes;
use forebay_codec::signal::Signal;
use forebay_net::grpc::{self, PREFIX_BYTES, code};
use forebay_net::request::{Answer, Part, Request, RequestId};

use self::health::{Serving, Status, Subject};
use self::reflection::Reflection;
use crate::config::plan::Plan;

/// Of one message that comes in.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Streams that one receiver core keeps open.
const CALLS_MAX: usize = 1024;
/// No tag of a route has it.
const TAG: u32 = 1 << 15;

/// The services that OTLP's signals have, in the order of `Signal::ALL`.
pub const OTLP_SERVICES: [&str; 4] = [
    "opentelemetry.proto.collector.trace.v1.TraceService",
    "opentelemetry.proto.collector.metrics.v1.MetricsService",
    "opentelemetry.proto.collector.logs.v1.LogsService",
    "opentelemetry.proto.collector.profiles.v1development.ProfilesService",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    HealthCheck,
    HealthList,
    HealthWatch,
    Reflection,
}

impl Method {
    const ALL: [Method; 4] =
        [Method::HealthCheck, Method::HealthList, Method::HealthWatch, Method::Reflection];

    /// The method at a path.
    pub fn at(path: &str) -> Option<Method> {
        match path {
            "/grpc.health.v1.Health/Check" => Some(Method::HealthCheck),
            "/grpc.health.v1.Health/List" => Some(Method::HealthList),
            "/grpc.health.v1.Health/Watch" => Some(Method::HealthWatch),
            // The older name has the same messages.
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
            | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => {
                Some(Method::Reflection)
            }
            _ => None,
        }
    }

    pub fn is_streamed(self) -> bool {
        matches!(self, Method::HealthWatch | Method::Reflection)
    }

    /// What travels with the call.
    pub fn pack(self, listener: u16) -> u32 {
        u32::from(listener) << 16 | TAG | self as u32
    }

    /// The call that a tag means, if it is not a request for a signal.
    pub fn unpack(tag: u32) -> Option<(Method, u16)> {
        let method = Method::ALL[tag as usize % Method::ALL.len()];
        (tag & TAG != 0).then_some((method, (tag >> 16) as u16))
    }
}

/// What is to be said on a call.
#[derive(Debug)]
pub enum Saying {
    /// More may follow.
    Message(Answer),
    /// The call is over.
    End(Answer),
}

/// Counters since the start, and a gauge.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServiceStats {
    pub health_requests: u64,
    pub reflection_requests: u64,
    pub open_calls: u64,
}

/// The services of one receiver core.
pub struct Services {
    /// By listener: which signals it takes.
    signals: Vec<[bool; 4]>,
    has_reflection: bool,
    reflection: Reflection,
    calls: HashMap<RequestId, Call>,
    watches: usize,
    /// What the watches have heard.
    told: Serving,
    stats: ServiceStats,
}

/// A stream that is open.
enum Call {
    Watch { subject: Option<Subject>, said: Status },
    Reflection,
}

impl Services {
    pub fn new(plan: &Plan) -> Services {
        let takes = |receiver: u16, signal: Signal| {
            plan.pipelines.iter().any(|p| p.signal == signal && p.receivers.contains(&receiver))
        };
        let signals = plan.listeners.iter();
        Services {
            signals: signals.map(|l| Signal::ALL.map(|signal| takes(l.receiver, signal))).collect(),
            has_reflection: plan.engine.reflection,
            reflection: Reflection::default(),
            calls: HashMap::new(),
            watches: 0,
            told: Serving::default(),
            stats: ServiceStats::default(),
        }
    }

    pub fn has(&self, method: Method) -> bool {
        method != Method::Reflection || self.has_reflection
    }

    pub fn has_watches(&self) -> bool {
        self.watches > 0
    }

    pub fn stats(&self) -> ServiceStats {
        ServiceStats { open_calls: self.calls.len() as u64, ..self.stats }
    }

    /// Takes what happened on a call.
    pub fn take(&mut self, request: &Request, serving: Serving) -> Vec<Saying> {
        let Some((method, listener)) = Method::unpack(request.tag) else {
            return Vec::new();
        };
        match request.part {
            Part::Whole => vec![self.answer(method, listener, &request.body, serving)],
            Part::Message => self.converse(request, method, listener, serving),
            Part::End => self.end(request.id, method),
            Part::Leaving => self.leave(request.id),
            Part::Lost => {
                self.forget(request.id);
                Vec::new()
            }
        }
    }

    /// What the watches have to hear now.
    pub fn changes(&mut self, serving: Serving) -> Vec<(RequestId, Saying)> {
        if std::mem::replace(&mut self.told, serving) == serving {
            return Vec::new();
        }
        let changed = |(id, call): (&RequestId, &mut Call)| match call {
            Call::Watch { subject: Some(subject), said } => {
                let status = serving.status(*subject);
                let saying = Saying::Message(grpc::message(&status.to_proto()));
                (std::mem::replace(said, status) != status).then_some((*id, saying))
            }
            Call::Watch { subject: None, .. } | Call::Reflection => None,
        };
        self.calls.iter_mut().filter_map(changed).collect()
    }

    /// A unary call.
    fn answer(&mut self, method: Method, listener: u16, body: &Bytes, serving: Serving) -> Saying {
        self.stats.health_requests += 1;
        let message = match message_of(body) {
            Ok(message) => message,
            Err(answer) => return Saying::End(answer),
        };
        let signals = &self.signals[usize::from(listener)];
        Saying::End(match method {
            Method::HealthList => grpc::ok(&health::list(signals, serving)),
            _ => match health::service(&message) {
                Ok(service) => match health::subject(&service, signals) {
                    Some(subject) => grpc::ok(&serving.status(subject).to_proto()),
                    None => grpc::failed(code::NOT_FOUND, "this service is not served here", None),
                },
                Err(error) => grpc::failed(code::INTERNAL, &error, None),
            },
        })
    }

    /// A message of a stream.
    fn converse(
        &mut self,
        request: &Request,
        method: Method,
        listener: u16,
        serving: Serving,
    ) -> Vec<Saying> {
        let is_new = !self.calls.contains_key(&request.id);
        if is_new && self.calls.len() >= CALLS_MAX {
            let message = "too many watches and reflection streams are open on this core";
            return vec![Saying::End(grpc::failed(code::RESOURCE_EXHAUSTED, message, None))];
        }
        let said = message_of(&request.body).and_then(|message| match (method, is_new) {
            (Method::Reflection, _) => self.reflect(request.id, listener, &message),
            (_, true) => self.watch(request.id, listener, &message, serving),
            (_, false) => {
                let message = "Watch takes one message, this is another";
                Err(grpc::failed(code::INTERNAL, message, None))
            }
        });
        match said {
            Ok(message) => vec![Saying::Message(message)],
            Err(answer) => {
                self.forget(request.id);
                vec![Saying::End(answer)]
            }
        }
    }

    fn watch(
        &mut self,
        id: RequestId,
        listener: u16,
        message: &[u8],
        serving: Serving,
    ) -> Result<Answer, Answer> {
        self.stats.health_requests += 1;
        let service =
            health::service(message).map_err(|error| grpc::failed(code::INTERNAL, &error, None))?;
        let subject = health::subject(&service, &self.signals[usize::from(listener)]);
        let said = subject.map_or(Status::ServiceUnknown, |subject| serving.status(subject));
        if self.watches == 0 {
            self.told = serving;
        }
        self.watches += 1;
        self.calls.insert(id, Call::Watch { subject, said });
        Ok(grpc::message(&said.to_proto()))
    }

    fn reflect(&mut self, id: RequestId, listener: u16, message: &[u8]) -> Result<Answer, Answer> {
        self.stats.reflection_requests += 1;
        self.calls.insert(id, Call::Reflection);
        let signals = &self.signals[usize::from(listener)];
        match self.reflection.answer(message, signals) {
            Ok(message) => Ok(grpc::message(&message)),
            Err(error) => Err(grpc::failed(code::INTERNAL, &error, None)),
        }
    }

    /// The peer has said its last message.
    fn end(&mut self, id: RequestId, method: Method) -> Vec<Saying> {
        let answer = match (method, self.calls.contains_key(&id)) {
            (Method::Reflection, _) => grpc::finished(),
            (_, true) => return Vec::new(),
            (_, false) => grpc::failed(code::INTERNAL, "Watch takes one message, none came", None),
        };
        self.forget(id);
        vec![Saying::End(answer)]
    }

    /// The connection is to go.
    fn leave(&mut self, id: RequestId) -> Vec<Saying> {
        let mut sayings = Vec::new();
        if let Some(Call::Watch { subject: Some(_), said }) = self.calls.get(&id)
            && *said != Status::NotServing
        {
            sayings.push(Saying::Message(grpc::message(&Status::NotServing.to_proto())));
        }
        self.forget(id);
        let message = "this connection is about to close: try again on another";
        sayings.push(Saying::End(grpc::failed(code::UNAVAILABLE, message, None)));
        sayings
    }

    fn forget(&mut self, id: RequestId) {
        if let Some(Call::Watch { .. }) = self.calls.remove(&id) {
            self.watches -= 1;
        }
    }
}

/// The message in its frame, or the answer to one that can't be read.
fn message_of(body: &Bytes) -> Result<Bytes, Answer> {
    match grpc::unframe(body.clone()) {
        Ok((false, message)) => Ok(message),
        Ok((true, _)) => {
            let message = "compressed messages are taken for OTLP alone: send this one as it is";
            Err(grpc::failed(code::UNIMPLEMENTED, message, None))
        }
        Err(error) => Err(grpc::failed(code::INTERNAL, &error.to_string(), None)),
    }
}

/// The longest body that [`message_of`] may be given.
pub const BODY_BYTES_MAX: usize = PREFIX_BYTES + MESSAGE_BYTES_MAX;

#[cfg(test)]
mod tests;
