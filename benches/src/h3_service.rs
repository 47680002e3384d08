//! OTLP over HTTP/3 as anybody would build it from `quinn`, `h3` and tokio: what the engine is
//! measured against.
//!
//! Takes OTLP/HTTP on one core, checks each request as the engine does, answers as OTLP says,
//! counts the items and throws them away. It neither batches nor sends on: compare it with an
//! engine whose exporter is `nop`. A body of one piece is not copied, one of several once, into
//! memory of just its size; sockets have room for bursts; offloads are used wherever `quinn` finds
//! them.

mod answers;

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use bytes::{Buf, Bytes, BytesMut};
use clap::Args;
use forebay_codec::check::check;
use forebay_codec::compress::Decompressor;
use h3::server::{RequestResolver, RequestStream};
use http::Response;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime, TransportConfig};
use tokio::sync::Notify;

use self::answers::{Answer, Asked, BODY_BYTES_MAX};
use crate::certificates;
use crate::load::widen;
use crate::machine::{pin, raise_file_limit, wait_for_interrupt};

/// Requests in flight on one connection: as many as the engine allows.
const STREAMS_MAX: u32 = 256;

/// The service, as the command line asks for it.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Where to listen, UDP (port 0: any that is free)
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// PEM: the certificate, then its chain
    #[arg(long)]
    pub cert: PathBuf,
    /// PEM: its key
    #[arg(long)]
    pub key: PathBuf,
    /// The core that it runs on [default: any]
    #[arg(long)]
    pub core: Option<usize>,
}

/// What it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub requests: u64,
    pub items: u64,
    pub refused: u64,
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    items: AtomicU64,
    refused: AtomicU64,
}

/// A running service.
pub struct Service {
    pub address: SocketAddr,
    counts: Arc<Counts>,
    ended: Arc<Notify>,
    thread: JoinHandle<()>,
}

/// The program: until Ctrl-C or SIGTERM. Its last line is a ledger, as forebay prints it.
pub fn main(settings: &Settings) -> Result<(), String> {
    let service = Service::start(settings)?;
    eprintln!("h3-service: OTLP/HTTP over HTTP/3 at {}", service.address);
    wait_for_interrupt();
    let taken = service.stop();
    let ledger = serde_json::json!({"ledger": {
        "balanced": true,
        "in_flight_items": 0,
        "accepted_items": taken.items,
        "dropped_items": 0,
        "refused_requests": taken.refused,
    }});
    println!("{ledger}");
    Ok(())
}

impl Service {
    pub fn start(settings: &Settings) -> Result<Service, String> {
        raise_file_limit();
        let config = server_config(settings)?;
        let socket = UdpSocket::bind(settings.listen).map_err(|error| {
            format!("the service can't listen on UDP {}: {error}", settings.listen)
        })?;
        widen(&socket);
        let address = socket.local_addr().map_err(|error| error.to_string())?;
        let (counts, ended) = (Arc::<Counts>::default(), Arc::new(Notify::new()));
        let (counting, ending, core) = (counts.clone(), ended.clone(), settings.core);
        let body = move || {
            if let Some(core) = core {
                pin(&[core]);
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("the kernel has an epoll");
            runtime.block_on(async {
                let (options, io) = (EndpointConfig::default(), Arc::new(TokioRuntime));
                let endpoint = Endpoint::new(options, Some(config), socket, io);
                let endpoint = endpoint.expect("a bound socket can be served");
                tokio::select! {
                    () = accept(&endpoint, counting) => {}
                    () = ending.notified() => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("h3-service".to_owned()).spawn(body);
        let thread = thread.map_err(|error| format!("the service can't start: {error}"))?;
        Ok(Service { address, counts, ended, thread })
    }

    /// Ends it, and says what it took.
    pub fn stop(self) -> Taken {
        self.ended.notify_one();
        self.thread.join().expect("the service does not panic");
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Taken {
            requests: read(&self.counts.requests),
            items: read(&self.counts.items),
            refused: read(&self.counts.refused),
        }
    }
}

fn server_config(settings: &Settings) -> Result<ServerConfig, String> {
    let tls = certificates::server(&settings.cert, &settings.key, &["h3"])?;
    let tls = QuicServerConfig::try_from(tls).map_err(|error| format!("QUIC: {error}"))?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    let mut transport = TransportConfig::default();
    transport.max_concurrent_bidi_streams(STREAMS_MAX.into());
    config.transport_config(Arc::new(transport));
    Ok(config)
}

async fn accept(endpoint: &Endpoint, counts: Arc<Counts>) {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(serve(incoming, counts.clone()));
    }
}

/// One connection, to its end; each request is a task.
async fn serve(incoming: Incoming, counts: Arc<Counts>) {
    // What fails here is the client's, which is told by QUIC itself.
    let Ok(connection) = incoming.await else { return };
    let connection = h3_quinn::Connection::new(connection);
    let built = h3::server::builder().send_grease(false).build(connection).await;
    let Ok(mut connection) = built else { return };
    while let Ok(Some(resolver)) = connection.accept().await {
        tokio::spawn(request(resolver, counts.clone()));
    }
}

async fn request(resolver: RequestResolver<h3_quinn::Connection, Bytes>, counts: Arc<Counts>) {
    let Ok((head, mut stream)) = resolver.resolve_request().await else { return };
    let (answer, items) = match Asked::of(&head) {
        Ok(asked) => match body(&mut stream, asked.length).await {
            Some(Ok(body)) => take(&asked, body),
            Some(Err(answer)) => (answer, None),
            None => return,
        },
        Err(answer) => (answer, None),
    };
    // Counted before it is answered: an acknowledged item is in the account.
    counts.requests.fetch_add(1, Ordering::Relaxed);
    match items {
        Some(items) => counts.items.fetch_add(items, Ordering::Relaxed),
        None => counts.refused.fetch_add(1, Ordering::Relaxed),
    };
    let mut head = Response::new(());
    *head.status_mut() = answer.status;
    head.headers_mut().insert(http::header::CONTENT_TYPE, answer.content_type);
    if stream.send_response(head).await.is_err() {
        return;
    }
    if !answer.message.is_empty() && stream.send_data(answer.message).await.is_err() {
        return;
    }
    let _ = stream.finish().await;
}

type Stream = RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

/// The whole body. `None`: the client broke it off.
async fn body(stream: &mut Stream, length: Option<usize>) -> Option<Result<Bytes, Answer>> {
    let Some(mut first) = stream.recv_data().await.ok()? else {
        return Some(Ok(Bytes::new()));
    };
    let mut whole: Result<Bytes, BytesMut> = Ok(first.copy_to_bytes(first.remaining()));
    drop(first);
    while let Some(mut next) = stream.recv_data().await.ok()? {
        let so_far = match &mut whole {
            Err(collected) => collected,
            Ok(only) => {
                let length = length.unwrap_or(0).clamp(only.len(), BODY_BYTES_MAX);
                let mut collected = BytesMut::with_capacity(length);
                collected.extend_from_slice(only);
                whole = Err(collected);
                match &mut whole {
                    Err(collected) => collected,
                    Ok(_) => unreachable!("it was just set"),
                }
            }
        };
        if so_far.len() + next.remaining() > BODY_BYTES_MAX {
            return Some(Err(Answer::too_large()));
        }
        while next.has_remaining() {
            let piece = next.chunk();
            so_far.extend_from_slice(piece);
            let count = piece.len();
            next.advance(count);
        }
    }
    Some(Ok(whole.unwrap_or_else(BytesMut::freeze)))
}

/// Decompresses and checks; the items that were taken.
fn take(asked: &Asked, body: Bytes) -> (Answer, Option<u64>) {
    thread_local! {
        static DECOMPRESSOR: std::cell::RefCell<Decompressor> = Decompressor::new().into();
    }
    let body = match asked.encoding {
        forebay_codec::compress::Encoding::Identity => body,
        encoding => {
            let plain = DECOMPRESSOR.with_borrow_mut(|decompressor| {
                decompressor.decompress(encoding, &body, BODY_BYTES_MAX)
            });
            match plain {
                Ok(plain) => Bytes::from(plain),
                Err(error) => return (Answer::invalid(&error.to_string()), None),
            }
        }
    };
    match check(asked.signal, body) {
        Ok(checked) => (Answer::success(), Some(checked.counts().items)),
        Err(error) => (Answer::invalid(&error.to_string()), None),
    }
}
