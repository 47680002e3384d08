//! Spans, log records, metrics and their points. Field numbers are those of the .proto files.

use super::message::Message;
use super::value::{Attributes, Value};

#[derive(Clone, Copy, Debug)]
pub struct Span<'a>(pub(super) Message<'a>);

impl<'a> Span<'a> {
    /// 16 bytes or none.
    pub fn trace_id(self) -> &'a [u8] {
        self.0.bytes(1)
    }

    /// 8 bytes or none.
    pub fn span_id(self) -> &'a [u8] {
        self.0.bytes(2)
    }

    /// 8 bytes or none; none in a root span.
    pub fn parent_span_id(self) -> &'a [u8] {
        self.0.bytes(4)
    }

    pub fn name(self) -> &'a str {
        self.0.text(5)
    }

    /// As OTLP numbers them: 2 is a server span.
    pub fn kind(self) -> i32 {
        self.0.varint(6) as i32
    }

    pub fn start_time_unix_nano(self) -> u64 {
        self.0.fixed64(7)
    }

    pub fn end_time_unix_nano(self) -> u64 {
        self.0.fixed64(8)
    }

    pub fn attributes(self) -> Attributes<'a> {
        Attributes::new(self.0, 9)
    }

    /// As OTLP numbers them: 2 is an error.
    pub fn status_code(self) -> i32 {
        self.0.inner(15).varint(3) as i32
    }

    pub fn status_message(self) -> &'a str {
        self.0.inner(15).text(2)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct LogRecord<'a>(pub(super) Message<'a>);

impl<'a> LogRecord<'a> {
    pub fn time_unix_nano(self) -> u64 {
        self.0.fixed64(1)
    }

    pub fn observed_time_unix_nano(self) -> u64 {
        self.0.fixed64(11)
    }

    /// 1 to 24, or 0 if unknown.
    pub fn severity_number(self) -> i32 {
        self.0.varint(2) as i32
    }

    pub fn severity_text(self) -> &'a str {
        self.0.text(3)
    }

    pub fn body(self) -> Value<'a> {
        self.0.any(5)
    }

    pub fn attributes(self) -> Attributes<'a> {
        Attributes::new(self.0, 6)
    }

    /// 16 bytes or none.
    pub fn trace_id(self) -> &'a [u8] {
        self.0.bytes(9)
    }

    /// 8 bytes or none.
    pub fn span_id(self) -> &'a [u8] {
        self.0.bytes(10)
    }

    pub fn event_name(self) -> &'a str {
        self.0.text(12)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Metric<'a>(pub(super) Message<'a>);

/// What a metric holds points of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataKind {
    Gauge,
    Sum,
    Histogram,
    ExponentialHistogram,
    Summary,
}

impl DataKind {
    pub(crate) fn of(number: u32) -> Option<DataKind> {
        match number {
            5 => Some(DataKind::Gauge),
            7 => Some(DataKind::Sum),
            9 => Some(DataKind::Histogram),
            10 => Some(DataKind::ExponentialHistogram),
            11 => Some(DataKind::Summary),
            _ => None,
        }
    }

    /// The field number of a point's attributes.
    pub(crate) fn attributes_number(self) -> u32 {
        match self {
            DataKind::Gauge | DataKind::Sum | DataKind::Summary => 7,
            DataKind::Histogram => 9,
            DataKind::ExponentialHistogram => 1,
        }
    }
}

impl<'a> Metric<'a> {
    pub fn name(self) -> &'a str {
        self.0.text(1)
    }

    pub fn description(self) -> &'a str {
        self.0.text(2)
    }

    pub fn unit(self) -> &'a str {
        self.0.text(3)
    }

    pub fn metadata(self) -> Attributes<'a> {
        Attributes::new(self.0, 12)
    }

    /// `None` if the metric holds no data.
    pub fn kind(self) -> Option<DataKind> {
        self.data().map(|(kind, _)| kind)
    }

    pub fn points(self) -> impl Iterator<Item = Point<'a>> {
        let (kind, data) = self.data().unwrap_or((DataKind::Gauge, Message::EMPTY));
        data.all(1).map(move |point| Point { kind, message: Message::new(point) })
    }

    fn data(self) -> Option<(DataKind, Message<'a>)> {
        let (number, _, message) = self.0.chosen(|number| DataKind::of(number).is_some())?;
        Some((DataKind::of(number)?, message))
    }
}

/// A data point of any kind.
#[derive(Clone, Copy, Debug)]
pub struct Point<'a> {
    kind: DataKind,
    message: Message<'a>,
}

impl<'a> Point<'a> {
    pub fn attributes(self) -> Attributes<'a> {
        Attributes::new(self.message, self.kind.attributes_number())
    }

    pub fn start_time_unix_nano(self) -> u64 {
        self.message.fixed64(2)
    }

    pub fn time_unix_nano(self) -> u64 {
        self.message.fixed64(3)
    }
}
