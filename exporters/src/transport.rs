//! One attempt, whatever the destination is: a chain in, a verdict out.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use forebay_codec::signal::Signal;
use forebay_net::glommio_io::spawn;

use crate::charge::Packed;
use crate::core::Seat;
use crate::debug::Terminal;
use crate::destination::{Destination, Kind};
use crate::endpoints::Endpoint;
use crate::file::{self, Sink};
use crate::journal::Journal;
use crate::stats::LaneStats;
use crate::verdict::Verdict;
use crate::{debug, otlp_grpc, otlp_http};

mod clients;
mod tender;

pub(crate) use clients::Tended;

use clients::Clients;

/// What one attempt sends.
pub(crate) struct Request<'a> {
    pub(crate) signal: Signal,
    pub(crate) items: u64,
    pub(crate) chain: &'a [Bytes],
    /// Where the attempts before this one, and after it, find what packing was work for.
    pub(crate) packed: &'a Packed,
    pub(crate) stats: &'a LaneStats,
}

/// A destination's open ends on one exporter core.
pub(crate) enum Transport {
    Grpc(Rc<Clients<otlp_grpc::Client>>),
    Http {
        clients: Rc<Clients<otlp_http::Client>>,
        /// By signal, where each has a host of its own.
        addresses: Option<[String; 4]>,
    },
    File(Sink),
    Debug(Terminal),
    Nop,
}

impl Transport {
    /// Starts the task that tends the connections; called on the executor that will send.
    pub(crate) fn open(seat: &Seat, journal: &Rc<Journal>) -> Transport {
        let Seat { destination, cluster, lane, initiator } = seat;
        let pool = cluster.backends().pool;
        match &destination.kind {
            Kind::OtlpGrpc(settings) => {
                let wire = otlp_grpc::Wire::new(settings, pool, lane, initiator.clone());
                let clients = Clients::new(move |address| otlp_grpc::Client::new(&wire, address));
                spawn(tender::tend(Rc::downgrade(&clients), seat, journal));
                Transport::Grpc(clients)
            }
            Kind::OtlpHttp(settings) => {
                let wire = otlp_http::Wire::new(settings, pool, lane, initiator.clone());
                let clients = Clients::new(move |address| otlp_http::Client::new(&wire, address));
                let addresses = settings.addresses.clone();
                if addresses.is_none() {
                    spawn(tender::tend(Rc::downgrade(&clients), seat, journal));
                }
                Transport::Http { clients, addresses }
            }
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
            Transport::Grpc(clients) => clients.of(endpoint).send(request).await,
            Transport::Http { clients, addresses: None } => {
                clients.of(endpoint).send(request).await
            }
            Transport::Http { clients, addresses: Some(addresses) } => {
                let index = request.signal.index();
                clients.of_host(endpoint, index, &addresses[index]).send(request).await
            }
            Transport::File(sink) => sink.write(request).await,
            Transport::Debug(terminal) => terminal.print(request).await,
            Transport::Nop => delivered(),
        }
    }
}

pub(crate) fn delivered() -> Verdict {
    Verdict::Delivered { rejected: 0, warning: String::new() }
}
