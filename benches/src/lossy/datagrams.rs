//! Datagrams: a socket of its own towards the server for each client, as a NAT has a port.
//!
//! Always: datagrams of one client and way leave in the order in which they came, but for those
//! that are drawn to be overtaken, and for second copies.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};

use super::fate::{Fate, Fates, Path, Way};
use super::{FLOWS_MAX, Moved, Settings, wait};
use crate::load::widen;

/// The largest datagram that there is.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// What may be under way at once.
const WAITING_BYTES_MAX: usize = 128 << 20;
/// Datagrams read from one socket before others have their turn.
const READ_MAX: usize = 256;

pub(super) fn run(socket: UdpSocket, settings: &Settings, path: Path, ended: &AtomicBool) -> Moved {
    let mut proxy = Proxy {
        socket,
        to: settings.to,
        seed: settings.seed,
        rebind_after: settings.rebind_after,
        path,
        clients: Vec::new(),
        by_address: HashMap::new(),
        waiting: BinaryHeap::new(),
        waiting_bytes: 0,
        count: 0,
        moved: Moved::default(),
        buffer: vec![0; DATAGRAM_BYTES_MAX],
    };
    while !ended.load(Ordering::Acquire) {
        proxy.turn();
    }
    proxy.moved
}

struct Proxy {
    socket: UdpSocket,
    to: SocketAddr,
    seed: u64,
    rebind_after: u64,
    path: Path,
    clients: Vec<Client>,
    by_address: HashMap<SocketAddr, usize>,
    waiting: BinaryHeap<Reverse<Waiting>>,
    waiting_bytes: usize,
    count: u64,
    moved: Moved,
    buffer: Vec<u8>,
}

struct Client {
    address: SocketAddr,
    /// Its outer port.
    outer: UdpSocket,
    up: Flow,
    down: Flow,
}

struct Flow {
    fates: Fates,
    count: u64,
    /// When the last one in order leaves.
    last: Option<Instant>,
}

/// Ordered by when it leaves, then by when it came.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    due: Instant,
    nth: u64,
    client: usize,
    is_up: bool,
    bytes: Vec<u8>,
}

impl Proxy {
    fn turn(&mut self) {
        let mut fds = vec![PollFd::new(&self.socket, PollFlags::IN)];
        fds.extend(self.clients.iter().map(|client| PollFd::new(&client.outer, PollFlags::IN)));
        wait(&mut fds, self.waiting.peek().map(|Reverse(first)| first.due));
        let is_ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if is_ready[0] {
            self.take_from_clients();
        }
        for (client, _) in is_ready[1..].iter().enumerate().filter(|(_, is_ready)| **is_ready) {
            self.take_from_server(client);
        }
        self.send_due();
    }

    fn take_from_clients(&mut self) {
        for _ in 0..READ_MAX {
            // Nothing left, or an answer to what was sent to a client that is gone.
            let Ok((count, address)) = self.socket.recv_from(&mut self.buffer) else { return };
            let known = self.by_address.get(&address).copied();
            let Some(client) = known.or_else(|| self.add(address)) else {
                self.moved.overflowed += 1;
                continue;
            };
            self.rebind(client);
            self.take(client, true, count);
        }
    }

    fn take_from_server(&mut self, client: usize) {
        for _ in 0..READ_MAX {
            let Ok(count) = self.clients[client].outer.recv(&mut self.buffer) else { return };
            self.take(client, false, count);
        }
    }

    fn add(&mut self, address: SocketAddr) -> Option<usize> {
        if self.clients.len() >= FLOWS_MAX {
            return None;
        }
        let outer = outer(self.to).ok()?;
        let place = self.clients.len();
        let flow = |way| Flow {
            fates: Fates::new(self.path, self.seed, place as u64, way),
            count: 0,
            last: None,
        };
        let (up, down) = (flow(Way::ToServer), flow(Way::ToClient));
        self.clients.push(Client { address, outer, up, down });
        self.by_address.insert(address, place);
        Some(place)
    }

    /// Gives a client another outer port when it is time; what comes to the old one is lost.
    fn rebind(&mut self, client: usize) {
        let client = &mut self.clients[client];
        let is_time = self.rebind_after > 0
            && client.up.count > 0
            && client.up.count.is_multiple_of(self.rebind_after);
        if is_time && let Ok(outer) = outer(self.to) {
            client.outer = outer;
            self.moved.rebound += 1;
        }
    }

    /// Draws the fate of what is in the buffer.
    fn take(&mut self, place: usize, is_up: bool, count: usize) {
        self.moved.taken += 1;
        let client = &mut self.clients[place];
        let flow = if is_up { &mut client.up } else { &mut client.down };
        flow.count += 1;
        let Fate { after, again, is_overtaken } = flow.fates.next().unwrap_or_default();
        let Some(after) = after else {
            self.moved.lost += 1;
            return;
        };
        let now = Instant::now();
        let mut due = now + after;
        if !is_overtaken {
            due = flow.last.map_or(due, |last| last.max(due));
            flow.last = Some(due);
        }
        self.moved.overtaken += u64::from(is_overtaken);
        self.put(due, place, is_up, count);
        if let Some(again) = again {
            self.moved.doubled += 1;
            self.put(now + again, place, is_up, count);
        }
    }

    fn put(&mut self, due: Instant, client: usize, is_up: bool, count: usize) {
        if self.waiting_bytes + count > WAITING_BYTES_MAX {
            self.moved.overflowed += 1;
            return;
        }
        self.waiting_bytes += count;
        self.count += 1;
        let bytes = self.buffer[..count].to_vec();
        self.waiting.push(Reverse(Waiting { due, nth: self.count, client, is_up, bytes }));
    }

    fn send_due(&mut self) {
        let now = Instant::now();
        while self.waiting.peek().is_some_and(|Reverse(first)| first.due <= now) {
            let Some(Reverse(due)) = self.waiting.pop() else { return };
            self.waiting_bytes -= due.bytes.len();
            let client = &self.clients[due.client];
            // No room in a socket is loss, which is what paths do.
            let sent = match due.is_up {
                true => client.outer.send(&due.bytes),
                false => self.socket.send_to(&due.bytes, client.address),
            };
            self.moved.overflowed += u64::from(sent.is_err());
        }
    }
}

fn outer(to: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0; 16], 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    widen(&socket);
    Ok(socket)
}
