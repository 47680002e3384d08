//! Receiver cores that share a UDP port, in virtual time: quinn's clients with HTTP/3 of their own,
//! several on one socket, over a network that loses, repeats, reorders and moves them.
//!
//! Each request carries its number in its path and in every byte of its body, each answer carries
//! it back. `SEED=7` runs one seed, `SEEDS=10000` runs more of them.

#[path = "../simulation/book.rs"]
mod book;
mod client;
mod day;
#[path = "../simulation/door.rs"]
mod door;
mod edges;
mod entry;
mod identity;
mod network;
mod papers;
#[allow(dead_code, reason = "the other simulation has more days")]
#[path = "../simulation/seeds.rs"]
mod seeds;
mod served;
#[allow(dead_code, reason = "who speaks over streams needs a part of it")]
#[path = "../simulation/talk.rs"]
mod talk;
mod terms;
mod wire;

/// How many days a usual run has: each begins with real handshakes.
const DAYS: u64 = 250;

#[test]
fn every_request_over_quic_is_answered_once_and_to_its_sender_and_nothing_is_left_behind() {
    let mut sums = day::Sums::default();
    let are_many = seeds::for_each_of(DAYS, |seed| sums.add(&day::live(seed)));
    println!("{sums:?}");
    assert!(!are_many || sums.are_telling(), "{sums:?}");
}

#[test]
fn whole_servers_with_rings_answer_every_request_over_quic_and_leave_nothing_behind() {
    let mut sums = served::Sums::default();
    let are_many = seeds::for_each_of(DAYS, |seed| sums.add(&served::live(seed)));
    println!("{sums:?}");
    assert!(!are_many || sums.are_telling(), "{sums:?}");
}
