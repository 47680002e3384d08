//! A whole receiver core in virtual time: seeded clients in front, seeded destinations behind, and
//! a ring in between that behaves as badly as a kernel may.
//!
//! Each item carries its request's number in its text, so that at the destinations it is known
//! whose it is. `SEED=7` runs one seed, `SEEDS=100000` runs more of them.

mod book;
mod day;
mod destinations;
mod payload;
mod shape;

#[path = "../../../net/tests/simulation/customer.rs"]
mod customer;
#[path = "../../../net/tests/simulation/http1.rs"]
mod http1;
#[path = "../../../net/tests/simulation/http2.rs"]
mod http2;
#[path = "../../../net/tests/simulation/seeds.rs"]
mod seeds;
#[path = "../../../net/tests/simulation/talk.rs"]
mod talk;

#[test]
fn what_is_acknowledged_arrives_and_every_item_and_byte_is_accounted_for() {
    let mut sums = day::Sums::default();
    let plan = day::plan();
    let are_many = seeds::for_each(|seed| sums.add(&day::live(&plan, seed)));
    println!("{sums:?}");
    assert!(!are_many || sums.are_telling(), "{sums:?}");
}
