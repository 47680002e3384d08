//! One thread of the load over HTTP/3: a runtime, its connections, a task for each of their
//! streams.
//!
//! Goes through `quinn`, so that the server under load is driven by QUIC that it does not share.
//! Connections spread over a few sockets, as clients behind different ports do: a server that
//! spreads by address sees several.
//!
//! Always: every request that began ends in the tally, once.

mod link;
mod pace;

use std::cell::{Cell, RefCell};
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint, EndpointConfig, TokioRuntime, TransportConfig};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::{JoinSet, LocalSet};

use self::link::Link;
use self::pace::Pace;
use super::tally::Tally;
use super::{
    CONNECTION_REQUESTS_MAX, Counts, LAST_ANSWERS, MEASURING, OPEN_TIMEOUT, PAUSE, Phase, Report,
    STOPPING, Settings, WAITING,
};
use crate::client::{Heading, Outcome, Transport};
use crate::h3::Head;
use crate::payload::Pool;

/// Sockets of one thread at most.
const SOCKETS_MAX: usize = 32;
/// What a socket may hold, if the kernel allows it: a burst of answers of all its connections.
const SOCKET_BYTES: usize = 4 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long connections may take to end.
const GOODBYE: Duration = Duration::from_millis(200);
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// What all tasks of a thread share.
struct Desk {
    tally: RefCell<Tally>,
    head: Head,
    pace: Pace,
    requests_max: u64,
    target: SocketAddr,
    name: String,
    config: ClientConfig,
    epoch: Cell<Instant>,
    is_stopping: Cell<bool>,
    /// Requests without their answer.
    waiting: Cell<usize>,
}

impl Desk {
    fn now(&self) -> u64 {
        self.epoch.get().elapsed().as_nanos() as u64
    }
}

pub(super) struct Crew {
    runtime: Runtime,
    desk: Rc<Desk>,
    links: Vec<Rc<Link>>,
    streams: usize,
    wake: Arc<Notify>,
}

impl Crew {
    /// Opens all connections, and waits until each can take a request.
    pub(super) fn connect(
        settings: &Settings,
        source: u8,
        pool: Pool,
        counts: Arc<Counts>,
    ) -> Result<Crew, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("the load can't start a runtime: {error}"))?;
        let name = settings.trust.name(&settings.target);
        let heading = Heading {
            transport: Transport::Http3,
            signal: settings.signal,
            encoding: settings.compression,
            authority: format!("{name}:{}", settings.target.address.port()),
            streams: settings.streams.max(1),
        };
        let desk = Rc::new(Desk {
            tally: RefCell::new(Tally::new(settings, source, pool, counts)),
            head: Head::new(&heading),
            pace: Pace::of(settings, source),
            requests_max: match settings.churn {
                0 => CONNECTION_REQUESTS_MAX,
                some => some.min(CONNECTION_REQUESTS_MAX),
            },
            target: settings.target.address,
            name,
            config: client_config(settings)?,
            epoch: Cell::new(Instant::now()),
            is_stopping: Cell::new(false),
            waiting: Cell::new(0),
        });
        let links = runtime.block_on(async {
            let opening = open_all(&desk, settings.connections);
            tokio::time::timeout(OPEN_TIMEOUT, opening).await.unwrap_or_else(|_| {
                Err(format!(
                    "{} does not take {} connections within {OPEN_TIMEOUT:?}: is there \
                             HTTP/3?",
                    settings.target.address, settings.connections
                ))
            })
        })?;
        let streams = heading.streams;
        Ok(Crew { runtime, desk, links, streams, wake: Arc::new(Notify::new()) })
    }

    pub(super) fn wake(&self) -> Arc<Notify> {
        self.wake.clone()
    }

    /// Until the phase says to stop and the last answer came.
    pub(super) fn run(self, phase: &Phase) -> Report {
        let Crew { runtime, desk, links, streams, wake } = self;
        runtime.block_on(LocalSet::new().run_until(direct(&desk, &links, streams, &wake, phase)));
        // Its tasks hold the desk: they end with it.
        drop(runtime);
        drop(links);
        let desk = Rc::into_inner(desk).expect("all tasks are gone");
        desk.tally.into_inner().report()
    }
}

/// Follows the phase; at its end every request is settled.
async fn direct(desk: &Rc<Desk>, links: &[Rc<Link>], streams: usize, wake: &Notify, phase: &Phase) {
    while phase.read() == WAITING {
        wake.notified().await;
    }
    desk.epoch.set(Instant::now());
    let mut tasks = JoinSet::new();
    let pacing = desk.clone();
    tasks.spawn_local(async move { pacing.pace.serve(&pacing).await });
    for _ in 0..streams {
        for link in links {
            tasks.spawn_local(send(desk.clone(), link.clone()));
        }
    }
    loop {
        let is = phase.read();
        desk.tally.borrow_mut().is_measuring = is == MEASURING;
        if is == STOPPING {
            break;
        }
        wake.notified().await;
    }
    desk.is_stopping.set(true);
    desk.pace.stop();
    links.iter().for_each(|link| link.stop());
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_ANSWERS, all).await.is_err() {
        let (count, seconds) = (desk.waiting.get(), LAST_ANSWERS.as_secs());
        let problem = format!("{count} requests had no answer after {seconds} s");
        desk.tally.borrow_mut().problem(problem);
        // What waits for an answer ends with its connection, and is settled as lost.
        links.iter().for_each(|link| link.close(desk));
        while tasks.join_next().await.is_some() {}
    }
    links.iter().for_each(|link| link.close(desk));
    // So that the server hears of it, and need not wait for its own idle timeout.
    let goodbye = async {
        for link in links {
            link.rest().await;
        }
    };
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
}

/// One stream's place on a connection: one request after the other.
async fn send(desk: Rc<Desk>, link: Rc<Link>) {
    while let Some(since) = desk.pace.turn(&desk).await {
        let Some(line) = link.line(&desk).await else { return };
        let (first, request) = {
            let mut tally = desk.tally.borrow_mut();
            let (first, body) = tally.begin();
            (first, desk.head.request(body))
        };
        desk.waiting.set(desk.waiting.get() + 1);
        let outcome = line.exchange(request).await;
        desk.waiting.set(desk.waiting.get() - 1);
        desk.tally.borrow_mut().settle(first, since, outcome, desk.now());
        link.ended(&line, &desk).await;
        if outcome == Outcome::Refused && desk.pace.is_closed_loop() {
            tokio::time::sleep(Duration::from_nanos(PAUSE)).await;
        }
    }
}

async fn open_all(desk: &Rc<Desk>, connections: usize) -> Result<Vec<Rc<Link>>, String> {
    let sockets: Result<Vec<Endpoint>, String> =
        (0..connections.min(SOCKETS_MAX)).map(|_| endpoint(desk.target)).collect();
    let sockets = sockets?;
    let mut links = Vec::new();
    for index in 0..connections {
        let link = Link::open(desk, sockets[index % sockets.len()].clone()).await;
        links.push(Rc::new(link.map_err(|error| {
            format!(
                "connection {} of {connections} to {} can't be opened: {error}",
                index + 1,
                desk.target
            )
        })?));
    }
    Ok(links)
}

fn endpoint(target: SocketAddr) -> Result<Endpoint, String> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0; 16], 0).into(),
    };
    let socket = UdpSocket::bind(any).and_then(|socket| {
        widen(&socket);
        Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))
    });
    socket.map_err(|error| format!("the load can't have a UDP socket: {error}"))
}

/// Gives a socket as much room as the kernel allows; what is missing is felt as loss, and repaired.
pub(crate) fn widen(socket: &UdpSocket) {
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(socket, SOCKET_BYTES);
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(socket, SOCKET_BYTES);
}

fn client_config(settings: &Settings) -> Result<ClientConfig, String> {
    let tls = settings.trust.config(&["h3"])?;
    let tls = QuicClientConfig::try_from(tls).map_err(|error| format!("QUIC: {error}"))?;
    let mut transport = TransportConfig::default();
    let idle = IDLE_TIMEOUT.try_into().expect("a minute is a short time");
    transport.max_idle_timeout(Some(idle)).keep_alive_interval(Some(KEEP_ALIVE));
    transport.max_concurrent_bidi_streams(0u8.into());
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport));
    Ok(config)
}
