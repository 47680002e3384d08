//! Forged source addresses: whoever has not proved to be where it says gets little to be used
//! against somebody else.

use std::collections::HashMap;
use std::net::SocketAddr;

use forebay_net::quic::Config;
use forebay_net::ring::fake::Dice;

use crate::forge::{Forge, INITIAL_BYTES_MIN, Space, spoofed};
use crate::stage::{Packet, Stage, config};
use crate::terms::{MILLI, SECOND};

/// With its budget not used up the transport sends one more datagram, and a whole one.
const DATAGRAM_BYTES_MAX: usize = 1_452;

/// What victims were sent in their names, and what they got for it.
#[derive(Default)]
struct Victims(HashMap<SocketAddr, (usize, usize)>);

impl Victims {
    fn took(&mut self, from: SocketAddr, bytes: usize) {
        self.0.entry(from).or_default().0 += bytes;
    }

    fn got(&mut self, packets: &[Packet]) {
        for packet in packets {
            self.0.entry(packet.to).or_default().1 += packet.bytes.len();
        }
    }

    fn assert_is_little(&self, factor: usize, more: usize) {
        for (victim, (took, got)) in &self.0 {
            assert!(*got <= factor * took + more, "{got} to {victim} for {took}");
        }
    }

    fn took_and_got(&self) -> (usize, usize) {
        self.0.values().fold((0, 0), |(took, got), (one, other)| (took + one, got + other))
    }
}

fn victim(number: u32) -> SocketAddr {
    let [.., a, b] = number.to_be_bytes();
    SocketAddr::from(([10, 9, a, b], 443))
}

#[test]
fn forged_first_packets_bring_their_victims_no_more_than_three_times_as_much() {
    let mut dice = Dice::new(1);
    let mut stage = Stage::usual();
    let mut victims = Victims::default();
    for number in 0..200_u32 {
        let id = [&number.to_be_bytes()[..], b"-id-"].concat();
        let datagram = spoofed(&id, INITIAL_BYTES_MIN + dice.below(200) as usize);
        let from = victim(number % 150);
        victims.took(from, datagram.len());
        stage.deliver(from, &datagram);
        victims.got(&stage.work());
        stage.now += MILLI;
    }
    // Nobody answers, and what was said is said again, until the handshakes' time is over.
    victims.got(&stage.pass(30 * SECOND));
    // Some victims are named for two connections.
    victims.assert_is_little(3, 2 * DATAGRAM_BYTES_MAX);
    let (took, got) = victims.took_and_got();
    assert!(took > 200 * INITIAL_BYTES_MIN && got > took, "seed 1: {got} for {took}");
    let stats = stage.cores[0].stats();
    assert_eq!((stats.handshakes_failed, stats.timeouts), (stats.accepted, stats.accepted));
    assert_eq!((stats.received_bytes, stats.sent_bytes), (took as u64, got as u64));
    stage.assert_ends_empty();
}

#[test]
fn with_retry_a_forged_first_packet_brings_its_victim_less_than_it_is() {
    let mut stage = Stage::new([Config { retry_above: 0, ..config(0, 1) }]);
    let mut victims = Victims::default();
    for number in 0..1_000_u32 {
        let id = [&number.to_be_bytes()[..], b"-id-"].concat();
        let datagram = spoofed(&id, INITIAL_BYTES_MIN);
        victims.took(victim(number), datagram.len());
        stage.deliver(victim(number), &datagram);
        victims.got(&stage.work());
    }
    victims.got(&stage.pass(30 * SECOND));
    let (took, got) = victims.took_and_got();
    assert!(got * 5 < took, "{got} for {took}");
    let stats = stage.cores[0].stats();
    assert_eq!((stats.retries, stats.accepted, stats.connections), (1_000, 0, 0), "{stats:?}");
}

#[test]
fn versions_that_nobody_speaks_bring_less_than_they_are_and_no_connection() {
    let mut dice = Dice::new(2);
    let mut stage = Stage::usual();
    let mut victims = Victims::default();
    for number in 0..1_000 {
        let mut datagram = spoofed(b"first id", INITIAL_BYTES_MIN);
        datagram[1..5].copy_from_slice(&(0x1a2a_3a4a + dice.below(99) as u32).to_be_bytes());
        // Too short to be worth an answer.
        datagram.truncate(if number % 2 == 0 { INITIAL_BYTES_MIN } else { 1_199 });
        victims.took(victim(number), datagram.len());
        stage.deliver(victim(number), &datagram);
        let packets = stage.work();
        assert_eq!(packets.len(), usize::from(number % 2 == 0), "{number}");
        victims.got(&packets);
    }
    let (took, got) = victims.took_and_got();
    assert!(got * 10 < took, "{got} for {took}");
    assert_eq!(stage.stats(|stats| stats.accepted), 0);
}

#[test]
fn replies_that_can_not_leave_are_dropped_and_counted_before_they_cost_memory() {
    let mut stage = Stage::new([Config { retry_above: 0, ..config(0, 1) }]);
    for number in 0..1_000_u32 {
        let id = [&number.to_be_bytes()[..], b"-id-"].concat();
        stage.deliver(victim(number), &spoofed(&id, INITIAL_BYTES_MIN));
    }
    let packets = stage.work();
    let stats = stage.cores[0].stats();
    assert!((1..=256).contains(&packets.len()), "{}", packets.len());
    let decided = stats.retries + stats.refused;
    assert!(decided <= 1_000, "{stats:?}");
    assert_eq!(stats.replies_dropped, decided - packets.len() as u64, "{stats:?}");
}

#[test]
fn a_client_that_forges_new_addresses_brings_few_of_them_a_challenge_and_a_probe() {
    const CHALLENGE_BYTES: usize = 1_200;
    let mut stage = Stage::usual();
    let mut honest = stage.caller(1);
    let mut forge = Forge::established(&mut stage, ([10, 0, 2, 1], 1024).into());
    // It asks whether somebody is there, and it moves.
    for (first, frames) in [(0, &[0x1a, 1, 2, 3, 4, 5, 6, 7, 8][..]), (100, &[0x01])] {
        let mut victims = Victims::default();
        for number in first..first + 40 {
            let packet = forge.packet(Space::Data, 0, frames);
            victims.took(victim(number), packet.len());
            stage.deliver(victim(number), &packet);
            stage.now += MILLI;
            victims.got(&stage.work());
        }
        victims.got(&stage.pass(SECOND));
        victims.0.retain(|victim, _| *victim != forge.address);
        // What the transport sends before it looks at how much came, and to the one before.
        victims.assert_is_little(0, 2 * CHALLENGE_BYTES + DATAGRAM_BYTES_MAX);
        let (_, got) = victims.took_and_got();
        assert!(got < 20 * (2 * CHALLENGE_BYTES + DATAGRAM_BYTES_MAX), "{got} to 40 victims");
    }
    let stats = stage.cores[0].stats();
    assert!((1..=20).contains(&stats.migrated), "{stats:?}");
    assert!(stats.moves_refused > 0, "{stats:?}");
    // Its owner comes back, and is served on.
    forge.say(&mut stage, Space::Data, &[0x01]);
    assert_eq!(forge.closed, None);
    stage.assert_serves(&mut honest);
    stage.assert_ends_empty();
}
