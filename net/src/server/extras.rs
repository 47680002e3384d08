//! What answers to HTTP carry beside what the door says: another way to come here (`Alt-Svc`), and
//! whose pages may read them (CORS). The one place for both, whatever the protocol: it stands
//! before the door, so that refusals of a head alone have them as well as late answers.
//!
//! Always
//! - Where no listener has any of it nothing is done, not for the smallest request.
//! - Of a request that was handed out only its origin is kept, until its answer.
//! - Answers of gRPC are left alone: no page can make such a call, and no client of it moves.
//! - Whoever is told to leave is not told to come back another way.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, ALT_SVC, CONTENT_TYPE, ORIGIN};
use http::{HeaderName, HeaderValue, StatusCode};

use super::{PreflightStats, Server, find};
use crate::cors::Cors;
use crate::quic;
use crate::request::{
    Admitted, Answer, Door, Head, Part, Protocol, Refusal, Request, RequestId, Trouble,
};
use crate::ring::Ring;

#[derive(Default)]
pub(super) struct Extras {
    by_listener: Vec<Extra>,
    /// How the answers to requests that were handed out name their origins.
    allowed: HashMap<RequestId, HeaderValue>,
    /// The porch counts while the server has lent out the rest of itself.
    preflights: Cell<PreflightStats>,
}

#[derive(Clone, Default)]
struct Extra {
    alternative: Option<HeaderValue>,
    cors: Option<Arc<Cors>>,
}

impl<R: Ring> Server<R> {
    /// By listener: what its answers name as another way to come here (`Alt-Svc`).
    pub fn offer(&mut self, alternatives: Vec<Option<HeaderValue>>) {
        for (listener, alternative) in alternatives.into_iter().enumerate() {
            if alternative.is_some() {
                self.extra(listener).alternative = alternative;
            }
        }
    }

    /// By listener: the rules for pages of other origins. Its door reads
    /// [`crate::cors::READ_NAMES`], and lets requests keep their `Origin`.
    pub fn with_cors(mut self, rules: Vec<Option<Arc<Cors>>>) -> Server<R> {
        for (listener, cors) in rules.into_iter().enumerate() {
            if cors.is_some() {
                self.extra(listener).cors = cors;
            }
        }
        self
    }

    pub(super) fn preflights(&self) -> PreflightStats {
        self.extras.as_ref().map_or_else(PreflightStats::default, |extras| extras.preflights.get())
    }

    fn extra(&mut self, listener: usize) -> &mut Extra {
        let by_listener = &mut self.extras.get_or_insert_default().by_listener;
        if by_listener.len() <= listener {
            by_listener.resize(listener + 1, Extra::default());
        }
        &mut by_listener[listener]
    }

    /// Completes the answer to a request that was handed out.
    pub(super) fn complete(&mut self, id: RequestId, answer: &mut Answer) {
        let Some(extras) = &mut self.extras else {
            return;
        };
        let allowed = match extras.allowed.is_empty() {
            true => None,
            false => extras.allowed.remove(&id),
        };
        let listener = match quic::owns(id.key) {
            true => self.datagrams.as_ref().map(|datagrams| datagrams.listener),
            false => find(&mut self.connections, id.key).map(|connection| connection.listener),
        };
        if let Some(extra) = listener.and_then(|listener| extras.of(listener)) {
            extra.put(allowed, self.draining, answer);
        }
    }
}

impl Extras {
    fn of(&self, listener: u16) -> Option<&Extra> {
        let extra = self.by_listener.get(usize::from(listener))?;
        (extra.alternative.is_some() || extra.cors.is_some()).then_some(extra)
    }
}

impl Extra {
    /// `allowed`: how the request's origin is named, if it may read the answer.
    fn put(&self, allowed: Option<HeaderValue>, is_draining: bool, answer: &mut Answer) {
        if is_grpc(answer) {
            return;
        }
        self.put_alternative(is_draining, answer);
        if let Some(cors) = &self.cors {
            cors.put(allowed, &mut answer.headers);
        }
    }

    fn put_alternative(&self, is_draining: bool, answer: &mut Answer) {
        if let Some(alternative) = self.alternative.as_ref().filter(|_| !is_draining) {
            answer.headers.push(ALT_SVC, alternative.clone());
        }
    }

    fn allow(&self, head: &Head) -> Option<HeaderValue> {
        self.cors.as_ref()?.allow(head.headers.get(&ORIGIN)?)
    }
}

fn is_grpc(answer: &Answer) -> bool {
    let media_type = answer.headers.get(&CONTENT_TYPE);
    media_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// The door as a listener's connections see it: `door` itself where nothing is to be added, or
/// `place` in front of it.
pub(super) fn before<'a>(
    extras: Option<&'a Extras>,
    listener: u16,
    is_draining: bool,
    door: &'a mut dyn Door,
    place: &'a mut Option<Porch<'a>>,
) -> &'a mut dyn Door {
    match extras.and_then(|extras| Some((extras.of(listener)?, &extras.preflights))) {
        Some((extra, preflights)) => place.insert(Porch { extra, preflights, is_draining, door }),
        None => door,
    }
}

/// Remembers of requests that were handed out what their answers will need.
pub(super) fn note(extras: &mut Option<Box<Extras>>, listener: u16, handed_out: &[Request]) {
    let Some(extras) = extras.as_deref_mut().filter(|_| !handed_out.is_empty()) else {
        return;
    };
    let Some(Extra { cors: Some(cors), .. }) = extras.by_listener.get(usize::from(listener)) else {
        return;
    };
    for request in handed_out.iter().filter(|request| request.part == Part::Whole) {
        let origin = request.head.headers.get(&ORIGIN);
        if let Some(allowed) = origin.and_then(|origin| cors.allow(origin)) {
            extras.allowed.insert(request.id, allowed);
        }
    }
}

/// Stands before a door, and adds to what it answers. What browsers ask before a request never
/// comes to the door.
pub(super) struct Porch<'a> {
    extra: &'a Extra,
    preflights: &'a Cell<PreflightStats>,
    is_draining: bool,
    door: &'a mut dyn Door,
}

impl Porch<'_> {
    /// An answer that names nobody allows nothing.
    fn count(&self, preflight: &Answer) {
        let mut counts = self.preflights.get();
        match preflight.headers.get(&ACCESS_CONTROL_ALLOW_ORIGIN).is_some() {
            true => counts.allowed += 1,
            false => counts.refused += 1,
        }
        self.preflights.set(counts);
    }
}

impl Door for Porch<'_> {
    fn admit(&mut self, head: &mut Head) -> Result<Admitted, Answer> {
        let preflight = self.extra.cors.as_ref().and_then(|cors| cors.preflight(head));
        if let Some(mut answer) = preflight {
            self.count(&answer);
            self.extra.put_alternative(self.is_draining, &mut answer);
            return Err(answer);
        }
        // A head that is let in may have lost it.
        let allowed = self.extra.allow(head);
        self.door.admit(head).map_err(|mut answer| {
            self.extra.put(allowed, self.is_draining, &mut answer);
            answer
        })
    }

    fn reserve(&mut self, bytes: usize) -> bool {
        self.door.reserve(bytes)
    }

    fn release(&mut self, bytes: usize) {
        self.door.release(bytes);
    }

    fn refuse(&mut self, head: &Head, refusal: Refusal) -> Answer {
        let mut answer = self.door.refuse(head, refusal);
        self.extra.put(self.extra.allow(head), self.is_draining, &mut answer);
        answer
    }

    fn malformed(&mut self, status: StatusCode, reason: &'static str) -> Answer {
        let mut answer = self.door.malformed(status, reason);
        self.extra.put(None, self.is_draining, &mut answer);
        answer
    }

    fn abandoned(&mut self, protocol: Protocol) {
        self.door.abandoned(protocol);
    }

    fn read_names(&self) -> Option<&'static [HeaderName]> {
        self.door.read_names()
    }

    fn trouble(&mut self, protocol: Protocol, trouble: Trouble) {
        self.door.trouble(protocol, trouble);
    }
}

#[cfg(test)]
mod tests;
