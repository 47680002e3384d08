//! Who comes in: what stands in a request's way before a byte of its body is read.
//!
//! Always
//! - A refusal says when to come back, and no two clients at the same time.
//! - What is asked is numbers that this core has: no lock, no look at another core.

use std::sync::Arc;
use std::time::Duration;

use forebay_codec::signal::Signal;
use forebay_net::cors;
use forebay_net::fields::Fields;
use forebay_net::request::Head;
use http::HeaderName;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, ORIGIN};

use super::answers::{Problem, Shape};
use super::route::Route;
use super::{GRPC_ENCODING, GRPC_TIMEOUT, Ingest};
use crate::config::plan::{Condition, Plan, Priority};
use crate::ledger::RefuseReason;

/// What an open request costs beside its body: its head and its stream.
const OPEN_REQUEST_BYTES: usize = 1024;
/// Where priorities are told apart: of a hundred parts of the budget, those that requests of low
/// and of normal priority may fill.
const LOW_PERCENT: usize = 70;
const NORMAL_PERCENT: usize = 90;
/// Whatever a breaker says, nobody is sent away for less, or for longer.
const REFUSING_MIN: Duration = Duration::from_millis(500);
const REFUSING_MAX: Duration = Duration::from_secs(30);

/// Whether a pipeline's destinations take more, as this core knows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    #[default]
    Open,
    /// A queue is full.
    Full,
    /// No endpoint of a destination takes anything before this time, and its queue is half full.
    Refusing { retry_in: Duration },
}

/// What stands in a request's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Obstacle {
    pub reason: RefuseReason,
    /// When it may be gone, if that is known.
    retry_in: Option<Duration>,
}

impl Obstacle {
    pub fn of(reason: RefuseReason) -> Obstacle {
        Obstacle { reason, retry_in: None }
    }
}

impl Standing {
    pub fn is_open(self) -> bool {
        self == Standing::Open
    }

    pub fn obstacle(self) -> Option<Obstacle> {
        match self {
            Standing::Open => None,
            Standing::Full => Some(Obstacle::of(RefuseReason::QueueFull)),
            Standing::Refusing { retry_in } => {
                Some(Obstacle { reason: RefuseReason::Refusing, retry_in: Some(retry_in) })
            }
        }
    }

    /// Both have to be open.
    pub fn and(self, other: Standing) -> Standing {
        match (self, other) {
            (Standing::Open, other) => other,
            (mine, Standing::Open) => mine,
            (Standing::Refusing { retry_in: mine }, Standing::Refusing { retry_in: theirs }) => {
                Standing::Refusing { retry_in: mine.max(theirs) }
            }
            _ => Standing::Full,
        }
    }

    /// One of both has to be open.
    pub fn or(self, other: Standing) -> Standing {
        match (self, other) {
            (Standing::Open, _) | (_, Standing::Open) => Standing::Open,
            (Standing::Refusing { retry_in: mine }, Standing::Refusing { retry_in: theirs }) => {
                Standing::Refusing { retry_in: mine.min(theirs) }
            }
            _ => Standing::Full,
        }
    }
}

impl Ingest {
    /// Why no more is taken for this route just now.
    pub(super) fn obstacle(&self, route: &Route, headers: &Fields) -> Option<Obstacle> {
        if self.draining {
            return Some(Obstacle::of(RefuseReason::Draining));
        }
        self.pipelines(route).iter().find_map(|pipeline| {
            let standing = self.standings[*pipeline];
            let routings = self.plan.pipelines[*pipeline].routings.iter();
            let routed = routings.filter_map(|routing| {
                let targets = routing.pipelines(routing.row_by_headers(headers)?);
                targets.iter().find_map(|target| self.standings[*target].obstacle())
            });
            standing.obstacle().or_else(|| routed.into_iter().next())
        })
    }

    /// Whether memory, or the number of requests, has no room for this one.
    pub(super) fn shortage(
        &self,
        route: &Route,
        headers: &Fields,
        announced_bytes: usize,
    ) -> Option<Obstacle> {
        if self.requests_in_flight >= self.plan.engine.limits.requests_max {
            return Some(Obstacle::of(RefuseReason::Requests));
        }
        if !self.budget.has_room(announced_bytes) {
            return Some(Obstacle::of(RefuseReason::Memory));
        }
        if !self.plan.engine.priorities.are_told_apart {
            return None;
        }
        let is_over = |percent: usize| {
            self.budget.taken_bytes() as u128 * 100
                >= self.budget.bytes_max() as u128 * percent as u128
        };
        match self.priority(route, headers) {
            Priority::Low if is_over(LOW_PERCENT) => Some(Obstacle::of(RefuseReason::ShedLow)),
            Priority::Normal if is_over(NORMAL_PERCENT) => {
                Some(Obstacle::of(RefuseReason::ShedNormal))
            }
            _ => None,
        }
    }

    /// The tenant's, if it has one; else the highest of the pipelines that may take the request.
    fn priority(&self, route: &Route, headers: &Fields) -> Priority {
        if let Some((header, tenants)) = &self.plan.engine.priorities.tenants {
            let name = headers.get(header).map(|value| value.as_bytes());
            let tenant = tenants.iter().find(|(known, _)| Some(known.as_bytes()) == name);
            if let Some((_, priority)) = tenant {
                return *priority;
            }
        }
        let plans = &self.plan.pipelines;
        let of = |pipeline: &usize| {
            let plan = &plans[*pipeline];
            if plan.priority != Priority::Normal || plan.routings.is_empty() {
                return plan.priority;
            }
            let own = (!plan.outputs.is_empty()).then_some(plan.priority);
            let routed =
                plan.routings.iter().filter_map(|routing| match routing.row_by_headers(headers) {
                    Some(row) => routing.pipelines(row).iter().map(|t| plans[*t].priority).max(),
                    None => routing.targets().map(|target| plans[target].priority).max(),
                });
            own.into_iter().chain(routed).max().unwrap_or_default()
        };
        self.pipelines(route).iter().map(of).max().unwrap_or_default()
    }

    /// The signals that some route takes requests of just now: a bit each.
    pub fn open_signals(&self) -> u8 {
        let is_open = |pipelines: &std::rc::Rc<[usize]>| {
            !pipelines.is_empty() && pipelines.iter().all(|p| self.standings[*p].is_open())
        };
        let has_open = |signal: &Signal| {
            self.pipelines.iter().any(|by_signal| is_open(&by_signal[signal.index()]))
        };
        let open = Signal::ALL.into_iter().filter(|signal| !self.draining && has_open(signal));
        open.fold(0, |bits, signal| bits | 1 << signal.index())
    }

    /// Counts why a request is sent away, and says so to its sender.
    pub(super) fn turned_away(&mut self, route: &Route, obstacle: Obstacle) -> Problem {
        self.door_row(route).refused_requests[obstacle.reason as usize].add(1);
        match obstacle.retry_in {
            Some(retry_in) => {
                // Never before it may be open again; not all at once when it is.
                let delay = retry_in.clamp(REFUSING_MIN, REFUSING_MAX);
                let delay = delay.mul_f64(1.0 + 0.5 * self.draw());
                Problem::overloaded(route.shape(), message(obstacle.reason), delay)
            }
            None => self.overloaded(route.shape(), obstacle.reason),
        }
    }

    /// A refusal with a delay that no two clients share.
    pub fn overloaded(&mut self, shape: Shape, reason: RefuseReason) -> Problem {
        let delay = self.delay();
        Problem::overloaded(shape, message(reason), delay)
    }

    /// `retry_delay` times 0.75 to 1.5.
    pub fn delay(&mut self) -> Duration {
        let factor = 0.75 + 0.75 * self.draw();
        self.retry_delay.mul_f64(factor)
    }

    /// From 0 to 1. xorshift64: spread, not secrecy.
    fn draw(&mut self) -> f64 {
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        (self.jitter % 1024) as f64 / 1024.0
    }

    /// Takes out of the head what no answer and no batch will need, and says what the rest, with
    /// the state that a protocol keeps for an open request, is charged at the budget.
    pub(super) fn keep_what_is_needed(&self, head: &mut Head) -> usize {
        head.headers.keep(&self.kept_names);
        head.path = Arc::default();
        OPEN_REQUEST_BYTES + head.headers.iter().map(|(_, value)| value.len()).sum::<usize>()
    }
}

fn message(reason: RefuseReason) -> &'static str {
    match reason {
        RefuseReason::Memory => "the memory budget of this core is used up: try again",
        RefuseReason::QueueFull => "a destination's queue is full: try again",
        RefuseReason::Draining => "this node is about to stop: try again",
        RefuseReason::Requests => "too many requests are in flight: try again",
        RefuseReason::Refusing => {
            "no endpoint of a destination takes anything at this time: try again"
        }
        RefuseReason::ShedLow | RefuseReason::ShedNormal => {
            "memory runs short, and requests of higher priority go first: try again"
        }
        RefuseReason::InvalidUtf8 => unreachable!("to try that again never helps"),
    }
}

/// Headers that are read when a request is complete.
pub(super) fn kept_names(plan: &Plan) -> Vec<HeaderName> {
    let mut names = vec![CONTENT_TYPE, GRPC_TIMEOUT];
    if has_cors(plan) {
        // Whoever answers looks for it.
        names.push(ORIGIN);
    }
    let routings = plan.pipelines.iter().flat_map(|pipeline| &pipeline.routings);
    for row in routings.flat_map(|routing| &routing.rows) {
        if let Condition::Header(name, _) = &row.condition {
            names.push(name.clone());
        }
    }
    // A neighbour that a request is given to asks for its priority, too.
    names.extend(plan.engine.priorities.tenants.iter().map(|(header, _)| header.clone()));
    names
}

/// Headers that are read at all.
pub(super) fn read_names(plan: &Plan) -> &'static [HeaderName] {
    static ALWAYS: [HeaderName; 5] =
        [CONTENT_TYPE, CONTENT_ENCODING, GRPC_ENCODING, GRPC_TIMEOUT, ORIGIN];
    let mut names = kept_names(plan);
    if has_cors(plan) {
        names.extend(cors::READ_NAMES);
    }
    names.retain(|name| !ALWAYS.contains(name));
    if names.is_empty() {
        return &ALWAYS;
    }
    names.extend(ALWAYS.iter().cloned());
    // Once per core and process: a door lasts as long as its core.
    Vec::leak(names)
}

fn has_cors(plan: &Plan) -> bool {
    let mut https = plan.listeners.iter().filter_map(|listener| listener.http.as_ref());
    https.any(|http| http.cors.is_some())
}
