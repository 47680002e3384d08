//! One replica of a service: a small HTTP server that works a little and asks the next service.
//!
//! Never decides where its own calls go; the [`Caller`] that it was given does. Always: it does
//! what its [`Behaviour`] says at the moment when a request comes.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::network::Network;
use crate::schedule::Behaviour;
use crate::upstream::{Caller, Upstream};

/// What a request usually takes of a service's time.
const WORK: Duration = Duration::from_millis(3);

pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) behaviour: Rc<Cell<Behaviour>>,
}

impl Replica {
    /// Three of them, each at a port of its own.
    pub(crate) fn start(
        service: &str,
        port: u16,
        network: &Network,
        next: Option<&Rc<Upstream>>,
    ) -> Vec<Replica> {
        let mut replicas = Vec::new();
        for number in 1..=3 {
            let address = format!("127.0.0.1:{}", port + number);
            let connections = network.listen(&address);
            let behaviour = Rc::new(Cell::new(Behaviour::Well));
            let caller = next.map(|next| Rc::new(next.caller()));
            tokio::task::spawn_local(listen(connections, Rc::clone(&behaviour), caller));
            replicas.push(Replica { name: format!("{service}-{number}"), address, behaviour });
        }
        replicas
    }
}

async fn listen(
    mut connections: UnboundedReceiver<DuplexStream>,
    behaviour: Rc<Cell<Behaviour>>,
    next: Option<Rc<Caller>>,
) {
    while let Some(stream) = connections.recv().await {
        tokio::task::spawn_local(serve(stream, Rc::clone(&behaviour), next.clone()));
    }
}

async fn serve(stream: DuplexStream, behaviour: Rc<Cell<Behaviour>>, next: Option<Rc<Caller>>) {
    let answer = |request: Request<Incoming>| {
        let (behaviour, next) = (behaviour.get(), next.clone());
        async move { Ok::<_, Infallible>(answer(request, behaviour, next).await) }
    };
    let server = hyper::server::conn::http1::Builder::new();
    // Ends with the client's connection, which may break at any time.
    let _ = server.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
}

async fn answer(
    request: Request<Incoming>,
    behaviour: Behaviour,
    next: Option<Rc<Caller>>,
) -> Response<Empty<Bytes>> {
    match behaviour {
        Behaviour::Well | Behaviour::Gone => tokio::time::sleep(WORK).await,
        Behaviour::Slow => tokio::time::sleep(WORK * 100).await,
        Behaviour::Unavailable => return of(StatusCode::SERVICE_UNAVAILABLE),
        Behaviour::Hangs => std::future::pending().await,
    }
    match next {
        Some(next) if next.call(request.uri().path()).await.is_err() => of(StatusCode::BAD_GATEWAY),
        _ => of(StatusCode::OK),
    }
}

fn of(status: StatusCode) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}
