//! A stream over a path that loses: what it would look like to whoever reads in order.
//!
//! Always: bytes arrive, once, in order; a segment that was drawn to be lost arrives when a sender
//! would have noticed and repaired it, and all behind it waits for it; a sender that learns of a
//! loss sends less. What is left out stands at [`super`].

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::fate::{Fates, Path, Way};
use super::window::Window;
use super::{FLOWS_MAX, Moved, wait};

/// As large as the first datagrams of QUIC.
const SEGMENT_BYTES: usize = 1200;
/// What may be under way one way; more is not read before.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// So many later segments make a loss certain.
const TELLING: u32 = 3;
/// What nothing tells of is sent again after so many round trips.
const PROBE_ROUND_TRIPS: u32 = 2;
const READ_BYTES: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) fn run(
    listener: &TcpListener,
    to: SocketAddr,
    path: Path,
    seed: u64,
    ended: &AtomicBool,
) -> Moved {
    let (mut pairs, mut moved, mut count) = (Vec::<Pair>::new(), Moved::default(), 0);
    let mut buffer = vec![0; READ_BYTES];
    while !ended.load(Ordering::Acquire) {
        wait_for(listener, &pairs);
        while pairs.len() < FLOWS_MAX
            && let Ok((client, _)) = listener.accept()
        {
            // A server that can't be reached is a connection that ends at once.
            if let Ok(pair) = Pair::new(client, to, path, seed, count) {
                pairs.push(pair);
            }
            count += 1;
        }
        pairs.retain_mut(|pair| pair.turn(&mut buffer, &mut moved));
    }
    moved
}

/// A client's connection, and the one to the server.
struct Pair {
    client: TcpStream,
    server: TcpStream,
    up: Lane,
    down: Lane,
}

/// One way.
struct Lane {
    path: Path,
    fates: Fates,
    window: Window,
    waiting: VecDeque<Segment>,
    waiting_bytes: usize,
    /// Segments that were handed on.
    given: u64,
    /// Lost segments that their sender might still find missing sooner than by a probe.
    missing: Vec<Missing>,
    /// The writer has said its last.
    is_ended: bool,
    /// That has been handed on.
    is_closed: bool,
    /// The reader takes no more for now.
    is_blocked: bool,
}

/// A segment by its number in the lane, and how many have left since.
struct Missing {
    nth: u64,
    later: u32,
}

struct Segment {
    /// When it arrives; it is handed on when all before it have been.
    due: Instant,
    bytes: Vec<u8>,
    sent: usize,
}

fn wait_for(listener: &TcpListener, pairs: &[Pair]) {
    let mut fds = vec![PollFd::new(listener, PollFlags::IN)];
    let mut due: Option<Instant> = None;
    for pair in pairs {
        for (from, to, lane) in
            [(&pair.client, &pair.server, &pair.up), (&pair.server, &pair.client, &pair.down)]
        {
            if lane.has_room() {
                fds.push(PollFd::new(from, PollFlags::IN));
            }
            match lane.waiting.front() {
                Some(_) if lane.is_blocked => fds.push(PollFd::new(to, PollFlags::OUT)),
                Some(first) => due = Some(due.map_or(first.due, |due| due.min(first.due))),
                None => {}
            }
        }
    }
    wait(&mut fds, due);
}

impl Pair {
    fn new(
        client: TcpStream,
        to: SocketAddr,
        path: Path,
        seed: u64,
        flow: u64,
    ) -> std::io::Result<Pair> {
        let server = TcpStream::connect_timeout(&to, CONNECT_TIMEOUT)?;
        for stream in [&client, &server] {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
        }
        let lane = |way| Lane::new(path, Fates::new(path, seed, flow, way));
        Ok(Pair { client, server, up: lane(Way::ToServer), down: lane(Way::ToClient) })
    }

    /// False: it is over.
    fn turn(&mut self, buffer: &mut [u8], moved: &mut Moved) -> bool {
        let Pair { client, server, up, down } = self;
        let went = up
            .take(client, buffer, moved)
            .and_then(|()| down.take(server, buffer, moved))
            .and_then(|()| up.give(server))
            .and_then(|()| down.give(client));
        went.is_ok() && !(up.is_closed && down.is_closed)
    }
}

impl Lane {
    fn new(path: Path, fates: Fates) -> Lane {
        Lane {
            path,
            fates,
            window: Window::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            given: 0,
            missing: Vec::new(),
            is_ended: false,
            is_closed: false,
            is_blocked: false,
        }
    }

    fn has_room(&self) -> bool {
        !self.is_ended && self.waiting_bytes < WAITING_BYTES_MAX
    }

    fn take(
        &mut self,
        from: &mut TcpStream,
        buffer: &mut [u8],
        moved: &mut Moved,
    ) -> std::io::Result<()> {
        while self.has_room() {
            let count = match from.read(buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            self.is_ended = count == 0;
            let now = Instant::now();
            for piece in buffer[..count].chunks(SEGMENT_BYTES) {
                self.put(now, piece, moved);
            }
        }
        Ok(())
    }

    fn put(&mut self, now: Instant, piece: &[u8], moved: &mut Moved) {
        moved.taken += 1;
        let round_trip = self.path.round_trip();
        let sent = self.window.leave(now);
        self.notice(sent);
        let (mut repaired, mut losses) = (sent, 0);
        let after = loop {
            match self.fates.next().and_then(|fate| fate.after) {
                Some(after) => break after,
                None => {
                    // Until something behind it tells, only a probe does.
                    repaired += if losses == 0 { PROBE_ROUND_TRIPS } else { 1 } * round_trip;
                    losses += 1;
                }
            }
        };
        if losses > 0 {
            moved.lost += u64::from(losses);
            self.window.lost(sent + round_trip);
            self.missing.push(Missing { nth: self.given + self.waiting.len() as u64, later: 0 });
        }
        self.window.left(sent + losses * round_trip + after + self.path.delay);
        self.waiting_bytes += piece.len();
        let due = repaired + after;
        self.waiting.push_back(Segment { due, bytes: piece.to_vec(), sent: 0 });
    }

    /// A segment leaves: what it tells of those that are missing, once it has arrived. The third
    /// one tells at once, the first after it is certain that it did not just overtake.
    fn notice(&mut self, sent: Instant) {
        let round_trip = self.path.round_trip();
        let Lane { missing, waiting, given, path, .. } = self;
        missing.retain_mut(|lost| {
            let Some(place) = lost.nth.checked_sub(*given) else { return false };
            let Some(segment) = waiting.get_mut(place as usize) else { return false };
            lost.later += 1;
            let certain = if lost.later < TELLING { round_trip / 4 } else { Duration::ZERO };
            segment.due = segment.due.min(sent + round_trip + certain + path.delay);
            lost.later < TELLING
        });
    }

    fn give(&mut self, to: &mut TcpStream) -> std::io::Result<()> {
        self.is_blocked = false;
        let now = Instant::now();
        while let Some(first) = self.waiting.front_mut().filter(|first| first.due <= now) {
            match to.write(&first.bytes[first.sent..]) {
                Ok(count) => first.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_blocked = true;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
            if first.sent == first.bytes.len() {
                self.waiting_bytes -= first.bytes.len();
                self.waiting.pop_front();
                self.given += 1;
            }
        }
        if self.is_ended && self.waiting.is_empty() && !self.is_closed {
            self.is_closed = true;
            to.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: Path = Path {
        loss: 0.1,
        delay: Duration::from_millis(50),
        jitter: Duration::ZERO,
        reorder: 0.0,
        duplicate: 0.0,
    };
    const ROUND_TRIP: Duration = Duration::from_millis(100);

    /// When each of 1000 segments arrives by itself that are written `apart` from each other, and
    /// how often each is lost; the model alone, without a socket.
    fn arrivals(seed: u64, apart: Duration) -> Vec<(Duration, u32)> {
        let fates = Fates::new(PATH, seed, 0, Way::ToServer);
        let mut drawn = fates.clone();
        let mut lane = Lane::new(PATH, fates);
        lane.window = Window::boundless();
        let (start, mut moved) = (Instant::now(), Moved::default());
        for nth in 0..1000 {
            lane.put(start + nth * apart, b"segment", &mut moved);
        }
        let arrivals: Vec<(Duration, u32)> = (0..)
            .zip(&lane.waiting)
            .map(|(nth, segment): (u32, &Segment)| {
                let losses = drawn.by_ref().take_while(|fate| fate.after.is_none()).count();
                (segment.due - (start + nth * apart), losses as u32)
            })
            .collect();
        let lost: u32 = arrivals.iter().map(|(_, losses)| losses).sum();
        assert_eq!(moved.lost, u64::from(lost));
        assert!(lost > 50, "{lost}");
        arrivals
    }

    #[test]
    fn in_a_stream_a_loss_is_found_by_what_follows_and_costs_a_round_trip() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let apart = Duration::from_millis(1);
        let followed = arrivals(seed, apart).into_iter().take(990);
        for (nth, (took, losses)) in followed.enumerate() {
            let expected = match losses {
                0 => PATH.delay,
                _ => PATH.delay + ROUND_TRIP + 3 * apart,
            };
            assert_eq!(took, expected, "segment {nth}, lost {losses} times");
        }
    }

    #[test]
    fn what_nothing_follows_is_found_by_a_probe() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        for (took, losses) in arrivals(seed, Duration::from_secs(10)) {
            let round_trips = if losses == 0 { 0 } else { PROBE_ROUND_TRIPS + losses - 1 };
            assert_eq!(took, PATH.delay + round_trips * ROUND_TRIP, "lost {losses} times");
        }
    }
}
