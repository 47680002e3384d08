//! A real OTLP/gRPC server (tonic) that answers by script and remembers what it got.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::runtime::Runtime;
use tokio::sync::Barrier;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::rig::names;

pub(crate) enum Answer {
    Ok,
    Partial {
        rejected: i64,
        message: String,
    },
    Fail(Status),
    /// OK, after a while.
    Late(Duration),
    /// Never answers.
    Hang,
    /// Answers OK once as many requests as the barrier asks for are in flight.
    Meet(Arc<Barrier>),
}

/// One request as it arrived.
pub(crate) struct Got {
    pub(crate) names: Vec<String>,
    pub(crate) metadata: MetadataMap,
}

type Script = dyn Fn(usize, &[String]) -> Answer + Send + Sync;

pub(crate) struct GrpcPeer {
    pub(crate) address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    runtime: Runtime,
}

struct Service {
    script: Box<Script>,
    got: Arc<Mutex<Vec<Got>>>,
}

impl GrpcPeer {
    /// `script` is given the number of the request, from 0, and the span names in it.
    pub(crate) fn start(
        script: impl Fn(usize, &[String]) -> Answer + Send + Sync + 'static,
    ) -> GrpcPeer {
        GrpcPeer::start_on("127.0.0.1:0".parse().unwrap(), script)
    }

    pub(crate) fn start_on(
        address: SocketAddr,
        script: impl Fn(usize, &[String]) -> Answer + Send + Sync + 'static,
    ) -> GrpcPeer {
        GrpcPeer::start_with(address, Server::builder(), script)
    }

    /// With a server that is set up in its own way.
    pub(crate) fn start_with(
        address: SocketAddr,
        server: Server,
        script: impl Fn(usize, &[String]) -> Answer + Send + Sync + 'static,
    ) -> GrpcPeer {
        GrpcPeer::start_beside(address, server, Routes::default(), script)
    }

    /// With other services on the same server.
    pub(crate) fn start_beside(
        address: SocketAddr,
        mut server: Server,
        others: Routes,
        script: impl Fn(usize, &[String]) -> Answer + Send + Sync + 'static,
    ) -> GrpcPeer {
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let got = Arc::new(Mutex::new(Vec::new()));
        let service = Service { script: Box::new(script), got: Arc::clone(&got) };
        let mut service = TraceServiceServer::new(service).max_decoding_message_size(64 << 20);
        for encoding in
            [CompressionEncoding::Gzip, CompressionEncoding::Zstd, CompressionEncoding::Deflate]
        {
            service = service.accept_compressed(encoding).send_compressed(encoding);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let incoming = TcpListenerStream::new(listener);
            let routes = others.add_service(service);
            server.add_routes(routes).serve_with_incoming(incoming).await.unwrap();
        });
        GrpcPeer { address, got, runtime }
    }

    pub(crate) fn count(&self) -> usize {
        self.got.lock().unwrap().len()
    }

    /// Ends the server and every connection it has; what came until then.
    pub(crate) fn stop(self) -> Vec<Got> {
        let GrpcPeer { got, runtime, .. } = self;
        drop(runtime);
        std::mem::take(&mut got.lock().unwrap())
    }

    /// Takes everything that came so far; requests are counted from 0 again.
    pub(crate) fn take(&self) -> Vec<Got> {
        std::mem::take(&mut self.got.lock().unwrap())
    }
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let names = names(request.get_ref());
        let answer = {
            let mut got = self.got.lock().unwrap();
            let answer = (self.script)(got.len(), &names);
            got.push(Got { names, metadata: request.metadata().clone() });
            answer
        };
        let partial_success = match answer {
            Answer::Ok => None,
            Answer::Partial { rejected, message } => {
                Some(ExportTracePartialSuccess { rejected_spans: rejected, error_message: message })
            }
            Answer::Fail(status) => return Err(status),
            Answer::Late(after) => {
                tokio::time::sleep(after).await;
                None
            }
            Answer::Hang => std::future::pending().await,
            Answer::Meet(barrier) => {
                barrier.wait().await;
                None
            }
        };
        Ok(Response::new(ExportTraceServiceResponse { partial_success }))
    }
}
