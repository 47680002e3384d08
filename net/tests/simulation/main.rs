//! A whole server in virtual time: seeded clients of both protocols, good ones and bad ones, with
//! and without TLS, over a ring that behaves as badly as a kernel may.
//!
//! Each request carries its number in its path and in every byte of its body, each answer carries
//! it back. `SEED=7` runs one seed, `SEEDS=100000` runs more of them.

mod book;
mod customer;
mod day;
mod door;
mod http1;
mod http2;
mod line;
mod seeds;
mod talk;
mod terms;

#[test]
fn every_request_is_answered_once_and_to_its_sender_and_nothing_is_left_behind() {
    let mut sums = day::Sums::default();
    let are_many = seeds::for_each(|seed| sums.add(&day::live(seed)));
    println!("{sums:?}");
    assert!(!are_many || sums.are_telling(), "{sums:?}");
}
