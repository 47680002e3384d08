//! Looking into checked bytes without decoding them: resources, scopes, items, attributes by key.
//!
//! For routing, tenancy, filtering and whatever shows telemetry to people. A view borrows the bytes
//! and reads a field when it is asked for, each time anew: keep the answer, not the question. It
//! sees what prost would decode:
//!
//! - fields come in any order, and of a scalar given twice the last one counts;
//! - a message given in several parts (a `Resource` twice) is one: all attributes of all parts;
//! - of a `oneof`, the last member counts;
//! - a string index outside profiles is absent, as OTLP 1.11 says.
//!
//! Of an attribute key given twice, [`Attributes::value`] shows the first: OTLP leaves it open, and
//! the Collector behind (pdata's `Map.Get`) decides by the first.
//!
//! Always
//! - No allocation, no panic, no recursion.
//! - It means what it says only of a [`Checked`] request or of a [`Chain`] of such.

use crate::check::Checked;
use crate::rope::Rope;
use crate::signal::Signal;
use crate::splice::Chain;

use message::Message;

pub use items::{DataKind, LogRecord, Metric, Point, Span};
pub use value::{Attributes, KeySpace, Value, Values};

pub(crate) use value::attribute;

mod items;
mod message;
mod value;

/// The resource groups of a request, in order.
pub fn groups(checked: &Checked) -> impl Iterator<Item = Group<'_>> {
    groups_of(checked.signal(), Rope::new(std::slice::from_ref(checked.bytes())))
}

/// The resource groups of all requests in a chain, in order.
pub fn chain_groups(chain: &Chain) -> impl Iterator<Item = Group<'_>> {
    groups_of(chain.signal, Rope::new(&chain.parts))
}

fn groups_of(signal: Signal, request: Rope<'_>) -> impl Iterator<Item = Group<'_>> {
    let groups = request.fields().filter(|field| field.number == 1);
    groups.map(move |field| Group::new(signal, field.value))
}

/// What one resource sent: `ResourceSpans`, `ResourceMetrics`, `ResourceLogs`, `ResourceProfiles`.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    signal: Signal,
    message: Message<'a>,
}

impl<'a> Group<'a> {
    pub(crate) fn new(signal: Signal, group: Rope<'a>) -> Self {
        Self { signal, message: Message::new(group) }
    }

    /// Empty if the group names none.
    pub fn resource(self) -> Resource<'a> {
        Resource(self.message.inner(1))
    }

    pub fn schema_url(self) -> &'a str {
        self.message.text(3)
    }

    pub fn scopes(self) -> impl Iterator<Item = ScopeGroup<'a>> {
        let Group { signal, message } = self;
        message.all(2).map(move |scope| ScopeGroup { signal, message: Message::new(scope) })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Resource<'a>(Message<'a>);

impl<'a> Resource<'a> {
    pub fn attributes(self) -> Attributes<'a> {
        Attributes::new(self.0, 1)
    }

    pub fn dropped_attributes_count(self) -> u32 {
        self.0.varint(2) as u32
    }

    /// The attribute `service.name`, if it is a string.
    pub fn service_name(self) -> Option<&'a str> {
        match self.attributes().value("service.name") {
            Some(Value::String(name)) => Some(name),
            _ => None,
        }
    }
}

/// What one instrumentation scope sent: `ScopeSpans`, `ScopeMetrics`, `ScopeLogs`.
#[derive(Clone, Copy, Debug)]
pub struct ScopeGroup<'a> {
    signal: Signal,
    message: Message<'a>,
}

impl<'a> ScopeGroup<'a> {
    /// Empty if the group names none.
    pub fn scope(self) -> Scope<'a> {
        Scope(self.message.inner(1))
    }

    pub fn schema_url(self) -> &'a str {
        self.message.text(3)
    }

    /// None in another signal than traces.
    pub fn spans(self) -> impl Iterator<Item = Span<'a>> {
        self.items(Signal::Traces).map(|item| Span(Message::new(item)))
    }

    /// None in another signal than logs.
    pub fn log_records(self) -> impl Iterator<Item = LogRecord<'a>> {
        self.items(Signal::Logs).map(|item| LogRecord(Message::new(item)))
    }

    /// None in another signal than metrics.
    pub fn metrics(self) -> impl Iterator<Item = Metric<'a>> {
        self.items(Signal::Metrics).map(|item| Metric(Message::new(item)))
    }

    fn items(self, signal: Signal) -> impl Iterator<Item = Rope<'a>> {
        let message = if self.signal == signal { self.message } else { Message::EMPTY };
        message.all(2)
    }
}

/// An `InstrumentationScope`.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a>(Message<'a>);

impl<'a> Scope<'a> {
    pub fn name(self) -> &'a str {
        self.0.text(1)
    }

    pub fn version(self) -> &'a str {
        self.0.text(2)
    }

    pub fn attributes(self) -> Attributes<'a> {
        Attributes::new(self.0, 3)
    }
}
