//! The stories, each over many seeds.

use std::time::Duration;

use forebay_exporters::balance::Strategy;
use forebay_exporters::breaker::State;
use forebay_exporters::dispatch::After;

use crate::server::{Mode, Refusal, TIMEOUT};
use crate::world::{BATCH_BYTES, Batch, Happens, Shape, World};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// After the fleet is well again everything ends within this: the longest opening, with its
/// jitter, and a few probes.
const PATIENCE: Duration = Duration::from_secs(120);

/// The seeds of a story, or the one that was asked for.
fn seeds(story: u64, count: u64) -> Vec<u64> {
    match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        Err(_) => (0..count).map(|seed| story * 1_000_000 + seed).collect(),
    }
}

fn shape(seed: u64) -> Shape {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x5eed);
    let cores = rng.usize(1..4);
    Shape {
        seed,
        cores,
        servers: rng.usize(3..8),
        strategy: match rng.u8(0..13) {
            0..4 => Strategy::RoundRobin,
            4..8 => Strategy::WeightedRoundRobin,
            8..12 => Strategy::LeastOutstanding,
            // Its table takes long to build where nothing is optimized.
            _ => Strategy::ConsistentHashing,
        },
        pause: rng.u32(20..40) * cores as u32 * MS,
        held_max: 1_000,
        bytes_max: None,
        age_max: None,
    }
}

/// One server behaves like this from the second second to the tenth. Isolation: a batch that was
/// never sent there does not notice.
fn one_turns(seed: u64, mode: Mode) -> World {
    let mut world = World::new(shape(seed), 12 * SECOND);
    let server = world.rng.usize(0..world.shape.servers);
    world.at(2 * SECOND, Happens::Turns { server, mode });
    world.at(10 * SECOND, Happens::Turns { server, mode: Mode::Well });
    world.run(10 * SECOND + PATIENCE);
    ends_well(&world);
    for batch in world.batches.iter().filter(|batch| !batch.has_met(server)) {
        let took = batch.ended.expect("all ended").0 - batch.arrived;
        // A key waits for its owner for half a second before it goes elsewhere.
        let most = match world.shape.strategy {
            Strategy::ConsistentHashing => 600 * MS,
            _ => 50 * MS,
        };
        assert!(took < most, "seed {seed}: a batch that had no part in it took {took:?}");
    }
    world
}

/// Liveness, and no client noticed.
fn ends_well(world: &World) {
    let Shape { seed, .. } = world.shape;
    assert_eq!(world.held(), 0, "seed {seed}: batches never ended");
    assert_eq!(world.turned_away, 0, "seed {seed}: clients were turned away");
}

/// The longest that any batch took from its arrival to its end.
fn slowest(world: &World) -> Duration {
    let took = |batch: &Batch| batch.ended.map(|(at, _)| at - batch.arrived);
    world.batches.iter().filter_map(took).max().expect("batches came")
}

fn share_delivered_within(world: &World, limit: Duration) -> f64 {
    let is_in_time = |batch: &&Batch| {
        batch
            .ended
            .is_some_and(|(at, after)| after == After::Delivered && at - batch.arrived <= limit)
    };
    let in_time = world.batches.iter().filter(is_in_time).count();
    in_time as f64 / world.batches.len() as f64
}

#[test]
fn a_killed_endpoint_costs_its_calls_under_a_second_and_nobody_else_anything() {
    let mut failovers = Vec::new();
    for seed in seeds(1, 500) {
        let world = one_turns(seed, Mode::Dead);
        for batch in &world.batches {
            let (ended, _) = batch.ended.expect("all ended");
            failovers.extend(batch.first_failed.map(|failed| ended - failed));
        }
        assert!(slowest(&world) < 30 * SECOND, "seed {seed}: {:?}", slowest(&world));
        let share = share_delivered_within(&world, 50 * MS);
        assert!(share > 0.99, "seed {seed}: only {share:.3} went through at once");
    }
    failovers.sort();
    let p99 = failovers[failovers.len() * 99 / 100];
    assert!(p99 < SECOND, "99th percentile {p99:?} of {}", failovers.len());
}

#[test]
fn an_endpoint_that_hangs_holds_its_own_calls_until_they_time_out_and_no_others() {
    for seed in seeds(2, 400) {
        let world = one_turns(seed, Mode::Hung);
        // Those that hang wait for the client's timeout, some of them twice.
        assert!(slowest(&world) < 30 * SECOND, "seed {seed}: {:?}", slowest(&world));
        let share = share_delivered_within(&world, 50 * MS);
        let least = match world.shape.strategy {
            // A key waits for its owner, up to the bound and until the breaker opens.
            Strategy::ConsistentHashing => 0.7,
            _ => 0.9,
        };
        assert!(share > least, "seed {seed}: only {share:.3} went past it");
    }
}

#[test]
fn an_endpoint_that_resets_or_lies_and_closes_delays_nobody_for_long() {
    for seed in seeds(3, 400) {
        let mode = if seed % 2 == 0 { Mode::Resets } else { Mode::LiesThenCloses };
        let world = one_turns(seed, mode);
        assert!(slowest(&world) < 30 * SECOND, "seed {seed}: {:?}", slowest(&world));
        let share = share_delivered_within(&world, 100 * MS);
        assert!(share > 0.98, "seed {seed}: only {share:.3} went through at once");
    }
}

#[test]
fn an_endpoint_a_hundred_times_slower_slows_only_its_own_calls() {
    for seed in seeds(4, 300) {
        let world = one_turns(seed, Mode::Slow);
        assert!(slowest(&world) < 5 * SECOND, "seed {seed}: {:?}", slowest(&world));
        let share = share_delivered_within(&world, 50 * MS);
        let least = match world.shape.strategy {
            Strategy::LeastOutstanding => 0.97,
            Strategy::ConsistentHashing => 0.3,
            // The others give it what is its turn, within its bound.
            _ => 0.6,
        };
        assert!(share > least, "seed {seed}: only {share:.3} at {:?}", world.shape.strategy);
    }
}

#[test]
fn an_endpoint_that_flaps_is_left_alone_more_and_more() {
    for seed in seeds(5, 200) {
        let mut world = World::new(shape(seed), 30 * SECOND);
        let server = world.rng.usize(0..world.shape.servers);
        for half in 4..56 {
            let mode = if half % 2 == 0 { Mode::Dead } else { Mode::Well };
            world.at(half * 500 * MS, Happens::Turns { server, mode });
        }
        world.run(30 * SECOND + PATIENCE);
        ends_well(&world);
        let share = share_delivered_within(&world, 50 * MS);
        assert!(share > 0.97, "seed {seed}: only {share:.3} went through at once");
    }
}

#[test]
fn each_refusal_ends_as_the_protocol_says_and_what_may_be_retried_is_delivered_elsewhere() {
    for seed in seeds(6, 400) {
        let refusal = Refusal::ALL[(seed % 5) as usize];
        let world = one_turns(seed, Mode::Says(refusal));
        let refused = world
            .batches
            .iter()
            .filter(|batch| batch.ended.is_some_and(|(_, after)| after == After::Drop));
        let refused = refused.count();
        let total = world.batches.len();
        match refusal {
            // The breaker ends it: the endpoint is no use to anybody.
            Refusal::Internal => assert!(refused * 20 < total, "seed {seed}: {refused}"),
            // The batches are at fault, and each is told so.
            Refusal::Invalid => assert!(refused > 0, "seed {seed}"),
            _ => {
                assert_eq!(refused, 0, "seed {seed}: dropped");
                let share = share_delivered_within(&world, 100 * MS);
                assert!(share > 0.98, "seed {seed}: only {share:.3} went through at once");
            }
        }
    }
}

#[test]
fn members_that_come_and_go_under_load_cost_nothing() {
    for seed in seeds(7, 200) {
        let mut world = World::new(shape(seed), 12 * SECOND);
        let all: Vec<usize> = (0..world.shape.servers).collect();
        for change in 1..50 {
            let mut named = all.clone();
            world.rng.shuffle(&mut named);
            // Zero: the source has failed, and the last good set stays.
            named.truncate(world.rng.usize(0..=all.len()));
            world.at(change * 200 * MS, Happens::Names(named));
        }
        world.run(12 * SECOND + PATIENCE);
        ends_well(&world);
        assert_eq!(world.retries, 0, "seed {seed}: leaving cut a call off");
        let share = share_delivered_within(&world, 50 * MS);
        assert!(share >= 1.0, "seed {seed}: only {share:.3} went through at once");
    }
}

#[test]
fn a_fleet_gone_for_an_hour_is_met_gently_and_everything_is_delivered() {
    for seed in seeds(8, 16) {
        let shape = Shape { held_max: 40, strategy: Strategy::RoundRobin, ..shape(seed) };
        let mut world = World::new(shape, 3_700 * SECOND);
        let back = 3_605 * SECOND;
        for server in 0..shape.servers {
            let mode = if world.rng.bool() { Mode::Dead } else { Mode::Hung };
            world.at(5 * SECOND, Happens::Turns { server, mode });
            world.at(back, Happens::Turns { server, mode: Mode::Well });
        }
        world.run(back);
        let returned = world.epoch + back;
        assert!(world.turned_away > 0, "seed {seed}: an hour was held in memory");
        assert_eq!(world.held(), 40 * shape.cores, "seed {seed}: something was dropped");
        let wait = world.endpoints.refuses(world.now);
        let is_known = wait.is_some() || world.endpoints.fleet().closed() == 0;
        assert!(is_known, "seed {seed}: admission does not hear of it");
        let during = world.offered.iter().filter(|(_, at)| world.since(*at) > 60 * SECOND);
        // Each breaker probes every half minute at most.
        let probes_max = shape.servers * 122;
        let probes = during.count();
        assert!(probes <= probes_max, "seed {seed}: {probes} calls to a fleet that is gone");
        let retries = world.retries;
        world.run(back + PATIENCE);
        assert_eq!(world.held(), 0, "seed {seed}: not everything was delivered");
        let gone = |(_, at): &&(usize, std::time::Instant)| *at >= returned;
        let offered: Vec<_> = world.offered.iter().filter(gone).collect();
        for server in 0..shape.servers {
            // No second of an endpoint's return sees more than what was held, and arrives.
            let times = offered.iter().filter(|(to, _)| *to == server).map(|(_, at)| *at);
            let times: Vec<_> = times.collect();
            let in_a_second = |at: &std::time::Instant| {
                times.iter().filter(|other| *other >= at && **other < *at + SECOND).count()
            };
            let busiest = times.iter().map(in_a_second).max().unwrap_or(0);
            let fresh = (SECOND.as_millis() / shape.pause.as_millis()) as usize * shape.cores * 3;
            let most = 40 * shape.cores + fresh;
            assert!(busiest <= most, "seed {seed}: {busiest} calls in a second");
        }
        let again = world.retries - retries;
        assert!(again <= 100 + 10 * PATIENCE.as_secs() as usize, "seed {seed}: {again} again");
    }
}

#[test]
fn a_lane_that_is_full_of_bytes_turns_away_what_comes_and_delivers_what_it_has() {
    for seed in seeds(11, 60) {
        let bytes_max = 20 * BATCH_BYTES;
        let shape = Shape { bytes_max: Some(bytes_max), ..shape(seed) };
        let mut world = World::new(shape, 30 * SECOND);
        for server in 0..shape.servers {
            let mode = if world.rng.bool() { Mode::Dead } else { Mode::Hung };
            world.at(2 * SECOND, Happens::Turns { server, mode });
            world.at(30 * SECOND, Happens::Turns { server, mode: Mode::Well });
        }
        world.run(30 * SECOND);
        assert!(world.turned_away > 0, "seed {seed}: nothing but bytes says no");
        for core in 0..shape.cores {
            let held = world.held_bytes(core);
            assert!(held >= bytes_max, "seed {seed}: turned away with {held} bytes held");
        }
        world.run(30 * SECOND + PATIENCE);
        assert_eq!(world.held(), 0, "seed {seed}: batches never ended");
        let is_delivered = |batch: &Batch| matches!(batch.ended, Some((_, After::Delivered)));
        assert!(world.batches.iter().all(is_delivered), "seed {seed}: what was taken is lost");
    }
}

#[test]
fn what_would_be_tried_for_too_long_is_given_up_in_time_and_in_trouble_alone() {
    for seed in seeds(12, 40) {
        let age_max = 20 * SECOND;
        let shape = Shape { age_max: Some(age_max), held_max: 100, ..shape(seed) };
        let mut world = World::new(shape, 60 * SECOND);
        for server in 0..shape.servers {
            let mode = if world.rng.bool() { Mode::Dead } else { Mode::Hung };
            world.at(10 * SECOND, Happens::Turns { server, mode });
            world.at(50 * SECOND, Happens::Turns { server, mode: Mode::Well });
        }
        world.run(60 * SECOND + PATIENCE);
        assert_eq!(world.held(), 0, "seed {seed}: batches never ended");
        let mut given_up = 0;
        for batch in &world.batches {
            let (ended, after) = batch.ended.expect("all ended");
            let tried_for = ended - batch.first_tried.expect("what has ended was tried");
            // A call that begins in time may take its timeout.
            assert!(tried_for <= age_max + TIMEOUT, "seed {seed}: {after:?} after {tried_for:?}");
            match after {
                After::GiveUp => given_up += 1,
                _ => assert_eq!(after, After::Delivered, "seed {seed}"),
            }
            let began = world.since(batch.first_tried.expect("it was tried"));
            let is_before = began + TIMEOUT < 10 * SECOND;
            assert!(after == After::Delivered || !is_before, "seed {seed}: {after:?}, {began:?}");
        }
        assert!(given_up > 0, "seed {seed}: an outage twice as long, and nothing was too old");
    }
}

#[test]
fn a_busy_fleet_that_fails_often_gets_no_more_retries_than_the_budget_pays_for() {
    for seed in seeds(10, 10) {
        let shape = shape(seed);
        let pause = 4 * MS * shape.cores as u32;
        let shape = Shape { pause, held_max: 10_000, ..shape };
        let mut world = World::new(shape, 6 * SECOND);
        for server in 0..shape.servers {
            world.at(Duration::ZERO, Happens::Turns { server, mode: Mode::Flaky });
            world.at(6 * SECOND, Happens::Turns { server, mode: Mode::Well });
        }
        // The world holds retries to the budget at every stop.
        for second in 1..=6 {
            world.run(second * SECOND);
        }
        assert!(world.held() > 50, "seed {seed}: the budget was never used up");
        world.run(6 * SECOND + PATIENCE);
        ends_well(&world);
    }
}

#[test]
fn whatever_happens_to_whomever_everything_ends_once_when_the_fleet_is_back() {
    for seed in seeds(9, 500) {
        let mut world = World::new(shape(seed), 12 * SECOND);
        let servers = world.shape.servers;
        for _ in 0..world.rng.u32(1..25) {
            let mode = match world.rng.u8(0..8) {
                0 => Mode::Dead,
                1 => Mode::Hung,
                2 => Mode::Resets,
                3 => Mode::Slow,
                4 => Mode::LiesThenCloses,
                5 => Mode::Says(Refusal::ALL[world.rng.usize(0..5)]),
                _ => Mode::Well,
            };
            let at = world.rng.u32(0..10_000) * MS;
            // One, or all at once.
            let from = world.rng.usize(0..2 * servers);
            let turning = if from < servers { from..from + 1 } else { 0..servers };
            for server in turning {
                world.at(at, Happens::Turns { server, mode });
            }
        }
        for _ in 0..world.rng.u32(0..6) {
            let named: Vec<usize> = (0..servers).filter(|_| world.rng.bool()).collect();
            let at = world.rng.u32(0..10_000) * MS;
            world.at(at, Happens::Names(named));
        }
        for server in 0..servers {
            world.at(10 * SECOND, Happens::Turns { server, mode: Mode::Well });
        }
        world.at(10 * SECOND, Happens::Names((0..servers).collect()));
        world.run(10 * SECOND + PATIENCE);
        ends_well(&world);
        // And the fleet's state has come to rest: nobody is probed for ever.
        let status = world.endpoints.status(world.now);
        let states = status.iter().map(|endpoint| endpoint.state);
        let is_left = |state: State| state == State::Retired;
        assert!(!states.into_iter().any(is_left), "seed {seed}: one that left is still held");
    }
}
