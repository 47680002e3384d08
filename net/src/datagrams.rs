//! Datagrams between cores: which core a QUIC packet is for, and the way there.
//!
//! The cores of a receiver share a UDP port, and the first byte of a connection's ID names its
//! core. The kernel steers by it ([`crate::server::listen_datagrams`]), but it looks at the first
//! datagram only where it puts several together, and has its own mind when sockets come and go. So
//! every core asks of every datagram whose it is ([`owner`]) and hands a stranger's on
//! ([`Crossing`]).
//!
//! Always
//! - What waits for a core is bounded. What finds no room is dropped and counted: QUIC repairs it.
//! - Nothing blocks; a wake costs a system call only when the other side sleeps.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::BytesMut;
use crossbeam_queue::ArrayQueue;

use crate::wake::Wake;

/// Datagrams that may wait for one core: of common length, a megabyte and a half.
pub const WAITING_MAX: usize = 1024;

/// One datagram, away from its socket's buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    pub source: SocketAddr,
    /// The address of this host that it was sent to.
    pub local: Option<IpAddr>,
    /// The two bits of explicit congestion notification.
    pub ecn: u8,
    pub bytes: BytesMut,
}

/// The core, of so many, whose connection a QUIC packet belongs to. `None`: nobody's in
/// particular. Packets with a long header open a connection, and go where its client's address
/// leads.
pub fn owner(packet: &[u8], cores: usize) -> Option<usize> {
    match packet {
        [first, id, ..] if first & 0x80 == 0 => Some(usize::from(*id) % cores),
        _ => None,
    }
}

/// The ways between the cores that share a port. Each core takes from its own place and hands to
/// those of the others.
pub struct Crossing {
    places: Vec<Place>,
}

#[repr(align(128))]
struct Place {
    waiting: ArrayQueue<Datagram>,
    wake: OnceLock<Arc<Wake>>,
    handed: AtomicU64,
    dropped: AtomicU64,
}

/// Counters of what was handed to one core, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrossingStats {
    pub handed: u64,
    /// There was no room.
    pub dropped: u64,
}

impl Crossing {
    pub fn new(cores: usize) -> Arc<Crossing> {
        Crossing::with_room(cores, WAITING_MAX)
    }

    fn with_room(cores: usize, waiting_max: usize) -> Arc<Crossing> {
        let place = |_| Place {
            waiting: ArrayQueue::new(waiting_max),
            wake: OnceLock::new(),
            handed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        };
        Arc::new(Crossing { places: (0..cores).map(place).collect() })
    }

    pub fn cores(&self) -> usize {
        self.places.len()
    }

    /// Says how this core is woken. Until it does, what is for it waits.
    pub fn join(&self, core: usize, wake: Arc<Wake>) {
        let joined = self.places[core].wake.set(wake);
        assert!(joined.is_ok(), "core {core} joins once");
    }

    /// Hands a datagram to the core it is for, and wakes it. Says whether there was room.
    pub fn hand(&self, core: usize, datagram: Datagram) -> bool {
        let place = &self.places[core];
        let has_room = place.waiting.push(datagram).is_ok();
        let count = if has_room { &place.handed } else { &place.dropped };
        count.fetch_add(1, Ordering::Relaxed);
        if let Some(wake) = place.wake.get() {
            wake.wake();
        }
        has_room
    }

    /// The next datagram for this core.
    pub fn take(&self, core: usize) -> Option<Datagram> {
        self.places[core].waiting.pop()
    }

    /// Whether something waits for this core: to be asked before it sleeps.
    pub fn is_waiting(&self, core: usize) -> bool {
        !self.places[core].waiting.is_empty()
    }

    pub fn stats(&self, core: usize) -> CrossingStats {
        let place = &self.places[core];
        CrossingStats {
            handed: place.handed.load(Ordering::Relaxed),
            dropped: place.dropped.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(number: u64) -> Datagram {
        Datagram {
            source: "192.0.2.1:1".parse().unwrap(),
            local: None,
            ecn: 0,
            bytes: number.to_le_bytes()[..].into(),
        }
    }

    fn number(datagram: &Datagram) -> u64 {
        u64::from_le_bytes(datagram.bytes[..].try_into().unwrap())
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_counted_and_the_rest_comes_in_order() {
        let crossing = Crossing::with_room(3, 4);
        let took: Vec<bool> = (0..6).map(|n| crossing.hand(1, datagram(n))).collect();
        assert_eq!(took, [true, true, true, true, false, false]);
        assert_eq!(crossing.stats(1), CrossingStats { handed: 4, dropped: 2 });
        assert!(crossing.is_waiting(1) && !crossing.is_waiting(0));
        let taken: Vec<u64> =
            std::iter::from_fn(|| crossing.take(1)).map(|datagram| number(&datagram)).collect();
        assert_eq!(taken, [0, 1, 2, 3]);
        assert_eq!((crossing.take(0), crossing.take(2)), (None, None));
    }

    #[test]
    fn every_datagram_that_was_handed_over_is_taken_once_however_the_taker_sleeps() {
        const HANDED: u64 = 50_000;
        let crossing = Crossing::with_room(2, 64);
        let wake = Arc::new(Wake::new().unwrap());
        crossing.join(0, wake.clone());
        let other = std::thread::spawn({
            let crossing = crossing.clone();
            move || {
                for number in 0..HANDED {
                    while !crossing.hand(0, datagram(number)) {
                        std::thread::yield_now();
                    }
                }
            }
        });
        let mut taken = 0;
        while taken < HANDED {
            while let Some(datagram) = crossing.take(0) {
                assert_eq!(number(&datagram), taken);
                taken += 1;
            }
            wake.about_to_sleep();
            if taken < HANDED && !crossing.is_waiting(0) {
                // Blocks until somebody wakes us: a wake that is lost hangs the test.
                wake.take();
            }
            wake.awake();
        }
        other.join().unwrap();
        assert_eq!(crossing.stats(0).handed, HANDED);
    }

    #[test]
    fn a_packet_belongs_to_the_core_that_its_connection_id_names() {
        for cores in 1..9 {
            for id in 0..=255u8 {
                assert_eq!(owner(&[0x40, id, 9], cores), Some(usize::from(id) % cores));
                assert_eq!(owner(&[0xc0, id, 9], cores), None);
            }
        }
        assert_eq!((owner(&[], 2), owner(&[0x40], 2)), (None, None));
    }
}
