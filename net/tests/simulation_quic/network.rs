//! A network between sockets that loses, repeats, delays and reorders datagrams, and has an MTU.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use forebay_net::request::Nanos;
use forebay_net::ring::fake::Dice;

const MICRO: Nanos = 1_000;

#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) ecn: u8,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct Network {
    dice: Dice,
    /// Of 1,000 datagrams.
    loses: u32,
    repeats: u32,
    marks: u32,
    delay: Nanos,
    jitter: Nanos,
    bytes_max: usize,
    /// In the order of their arrival; who came first goes first.
    under_way: BTreeMap<Reverse<(Nanos, u64)>, Packet>,
    sent: u64,
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
}

impl Network {
    pub(crate) fn drawn(mut dice: Dice) -> Network {
        let is_calm = dice.of_1000(150);
        let mut chance = |most| if is_calm { 0 } else { dice.below(most) as u32 };
        let (loses, repeats, marks) = (chance(150), chance(60), chance(100));
        let delay = 50 * MICRO + dice.below(60_000) * MICRO;
        Network {
            loses,
            repeats,
            marks,
            delay,
            jitter: 1 + if is_calm { 0 } else { dice.below(2 * delay) },
            bytes_max: 1_200 + dice.below(300) as usize,
            under_way: BTreeMap::new(),
            sent: 0,
            lost: 0,
            repeated: 0,
            dice,
        }
    }

    pub(crate) fn send(&mut self, now: Nanos, mut packet: Packet) {
        if packet.bytes.len() > self.bytes_max || self.dice.of_1000(self.loses) {
            self.lost += 1;
            return;
        }
        if packet.ecn != 0 && self.dice.of_1000(self.marks) {
            packet.ecn = 0b11;
        }
        if self.dice.of_1000(self.repeats) {
            self.repeated += 1;
            self.put(now, packet.clone());
        }
        self.put(now, packet);
    }

    fn put(&mut self, now: Nanos, packet: Packet) {
        let at = now + self.delay + self.dice.below(self.jitter);
        self.sent += 1;
        self.under_way.insert(Reverse((at, self.sent)), packet);
    }

    pub(crate) fn next_at(&self) -> Option<Nanos> {
        self.under_way.last_key_value().map(|(Reverse((at, _)), _)| *at)
    }

    /// The next datagram that has arrived by now.
    pub(crate) fn receive(&mut self, now: Nanos) -> Option<Packet> {
        self.next_at().filter(|at| *at <= now)?;
        self.under_way.pop_last().map(|(_, packet)| packet)
    }
}
