//! One attempt, whatever the destination is: a chain in, a verdict out.

use std::rc::Rc;

use bytes::Bytes;
use forebay_codec::signal::Signal;

use crate::debug::Terminal;
use crate::destination::{Destination, Kind};
use crate::file::{self, Sink};
use crate::stats::LaneStats;
use crate::verdict::Verdict;
use crate::{debug, otlp_grpc, otlp_http};

/// What one attempt sends.
pub(crate) struct Request<'a> {
    pub(crate) signal: Signal,
    pub(crate) items: u64,
    pub(crate) chain: &'a [Bytes],
    pub(crate) stats: &'a LaneStats,
}

/// A destination's open ends on one exporter core.
pub(crate) enum Transport {
    Grpc(Rc<otlp_grpc::Client>),
    Http(Rc<otlp_http::Client>),
    File(Sink),
    Debug(Terminal),
    Nop,
}

impl Transport {
    /// Starts the connections' tasks; called on the executor that will send.
    pub(crate) fn open(destination: &Destination) -> Transport {
        match &destination.kind {
            Kind::OtlpGrpc(settings) => Transport::Grpc(otlp_grpc::Client::start(settings)),
            Kind::OtlpHttp(settings) => Transport::Http(otlp_http::Client::new(settings)),
            Kind::File(settings) => Transport::File(file::Sink::shared(settings)),
            Kind::Debug(settings) => Transport::Debug(Terminal::new(debug::on_stderr(*settings))),
            Kind::Nop => Transport::Nop,
        }
    }

    /// Largest request before compression, if the destination has such a limit.
    pub(crate) fn request_bytes_max(destination: &Destination) -> Option<u64> {
        match &destination.kind {
            Kind::OtlpGrpc(settings) => Some(settings.request_bytes_max),
            Kind::OtlpHttp(settings) => Some(settings.request_bytes_max),
            Kind::File(_) | Kind::Debug(_) | Kind::Nop => None,
        }
    }

    pub(crate) async fn send(&self, request: &Request<'_>) -> Verdict {
        match self {
            Transport::Grpc(client) => client.send(request).await,
            Transport::Http(client) => client.send(request).await,
            Transport::File(sink) => sink.write(request).await,
            Transport::Debug(terminal) => terminal.print(request).await,
            Transport::Nop => delivered(),
        }
    }
}

pub(crate) fn delivered() -> Verdict {
    Verdict::Delivered { rejected: 0, warning: String::new() }
}
