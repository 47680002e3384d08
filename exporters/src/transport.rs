//! One attempt, whatever the destination is: a chain in, a verdict out.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use forebay_codec::signal::Signal;

use crate::debug::Terminal;
use crate::destination::{Destination, Kind, OtlpGrpc, OtlpHttp};
use crate::endpoints::Endpoint;
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
    Grpc(OtlpGrpc, Clients<otlp_grpc::Client>),
    Http(OtlpHttp, Clients<otlp_http::Client>),
    File(Sink),
    Debug(Terminal),
    Nop,
}

/// By [`Endpoint::id`], and by signal where each has a host of its own.
type Clients<C> = RefCell<HashMap<(u64, usize), Rc<C>>>;

impl Transport {
    /// Starts the connections' tasks; called on the executor that will send.
    pub(crate) fn open(destination: &Destination) -> Transport {
        match &destination.kind {
            Kind::OtlpGrpc(settings) => Transport::Grpc(settings.clone(), Clients::default()),
            Kind::OtlpHttp(settings) => Transport::Http(settings.clone(), Clients::default()),
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

    /// One attempt at this endpoint.
    pub(crate) async fn send(&self, endpoint: &Arc<Endpoint>, request: &Request<'_>) -> Verdict {
        match self {
            Transport::Grpc(settings, clients) => {
                let start = || otlp_grpc::Client::start(settings, endpoint.address());
                client(clients, (endpoint.id(), 0), start).send(request).await
            }
            Transport::Http(settings, clients) => {
                let (signal, address) = match &settings.addresses {
                    Some(addresses) => {
                        let index = request.signal.index();
                        (index, addresses[index].as_str())
                    }
                    None => (0, endpoint.address()),
                };
                let start = || otlp_http::Client::new(settings, address);
                client(clients, (endpoint.id(), signal), start).send(request).await
            }
            Transport::File(sink) => sink.write(request).await,
            Transport::Debug(terminal) => terminal.print(request).await,
            Transport::Nop => delivered(),
        }
    }
}

fn client<C>(clients: &Clients<C>, key: (u64, usize), start: impl FnOnce() -> Rc<C>) -> Rc<C> {
    Rc::clone(clients.borrow_mut().entry(key).or_insert_with(start))
}

pub(crate) fn delivered() -> Verdict {
    Verdict::Delivered { rejected: 0, warning: String::new() }
}
