//! Each strategy's shares, and what all of them promise, over random fleets.

use super::*;
use crate::breaker::Outcome;
use crate::endpoints::{Endpoints, Member, Options};

const ALL: [Strategy; 4] = [
    Strategy::RoundRobin,
    Strategy::WeightedRoundRobin,
    Strategy::LeastOutstanding,
    Strategy::ConsistentHashing,
];

struct Rig {
    endpoints: Arc<Endpoints>,
    now: Instant,
    rng: fastrand::Rng,
}

impl Rig {
    fn new(weights: &[u32], seed: u64) -> Rig {
        let now = Instant::now();
        let endpoints = Endpoints::new(Options { hashing: true, ..Options::default() }, now);
        let rig = Rig { endpoints, now, rng: fastrand::Rng::with_seed(seed) };
        rig.weigh(weights);
        rig
    }

    fn weigh(&self, weights: &[u32]) {
        let member = |(number, weight): (usize, &u32)| Member {
            address: format!("collector-{number}:4317"),
            weight: *weight,
        };
        let set: Vec<Member> = weights.iter().enumerate().map(member).collect();
        self.endpoints.apply(self.now, &set);
    }

    fn balancer(&mut self, strategy: Strategy) -> Balancer {
        Balancer::new(strategy, Bound::of(strategy), self.rng.fork())
    }

    fn pick(&self, balancer: &mut Balancer, key: Option<u64>, tried: &Tried) -> Option<Call> {
        match balancer.pick(&self.endpoints.snapshot(), self.now, key, tried) {
            Pick::Call(call) => Some(call),
            Pick::Nobody { .. } => None,
        }
    }

    fn break_off(&mut self, index: usize) {
        let snapshot = self.endpoints.snapshot();
        for _ in 0..5 {
            let call = snapshot.endpoints()[index].admit(self.now).expect("it is closed");
            call.end(self.now, Outcome::Failure, &mut self.rng);
        }
    }

    /// How many of so many calls, one after another, went where.
    fn shares(&mut self, balancer: &mut Balancer, calls: usize) -> Vec<usize> {
        let mut shares = vec![0; self.endpoints.snapshot().endpoints().len()];
        for _ in 0..calls {
            let call = self.pick(balancer, None, &Tried::default()).expect("all are well");
            shares[(call.endpoint().id() - 1) as usize] += 1;
            call.end(self.now, Outcome::Success, &mut self.rng);
        }
        shares
    }
}

#[test]
fn whoever_can_be_used_is_found_and_nobody_else_by_every_strategy() {
    for seed in 0..400 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let weights: Vec<u32> = (0..rng.usize(1..14)).map(|_| rng.u32(0..4)).collect();
        let mut rig = Rig::new(&weights, seed);
        let mut tried = Tried::default();
        let mut usable = Vec::new();
        for index in 0..weights.len() {
            let endpoint = Arc::clone(&rig.endpoints.snapshot().endpoints()[index]);
            match rng.u8(0..3) {
                0 => rig.break_off(index),
                1 if tried.count() < Tried::MAX => tried.add(&endpoint),
                _ => usable.push(endpoint.id()),
            }
        }
        for strategy in ALL {
            let mut balancer = rig.balancer(strategy);
            for _ in 0..20 {
                let call = rig.pick(&mut balancer, Some(rng.u64(..)), &tried);
                let picked = call.map(|call| call.endpoint().id());
                let is_right = picked.map_or(usable.is_empty(), |id| usable.contains(&id));
                assert!(is_right, "seed {seed}, {strategy:?}: {picked:?} of {usable:?}");
            }
        }
        assert_eq!(rig.endpoints.fleet().outstanding(), 0, "seed {seed}");
    }
}

#[test]
fn round_robin_gives_each_the_same() {
    for count in [1, 2, 3, 7, 50] {
        let mut rig = Rig::new(&vec![1; count], 5);
        let mut balancer = rig.balancer(Strategy::RoundRobin);
        assert_eq!(rig.shares(&mut balancer, count * 20), vec![20; count]);
    }
}

#[test]
fn weights_hold_while_every_sender_is_busy() {
    const BUSY: usize = 10;
    for seed in 0..40 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let weights: Vec<u32> = (0..rng.usize(2..5)).map(|_| rng.u32(1..10)).collect();
        let mut rig = Rig::new(&weights, seed);
        let mut balancer = rig.balancer(Strategy::WeightedRoundRobin);
        let (mut under_way, mut shares) = (Vec::new(), vec![0; weights.len()]);
        for _ in 0..2_000 {
            let call = rig.pick(&mut balancer, None, &Tried::default()).expect("all are well");
            shares[(call.endpoint().id() - 1) as usize] += 1;
            under_way.push(call);
            if under_way.len() == BUSY {
                let ended: Call = under_way.swap_remove(rng.usize(0..BUSY));
                ended.end(rig.now, Outcome::Success, &mut rig.rng);
            }
        }
        let of_all: u32 = weights.iter().sum();
        for (share, weight) in shares.iter().zip(&weights) {
            let fair = 2_000.0 * f64::from(*weight) / f64::from(of_all);
            let off = (*share as f64 - fair).abs();
            assert!(off < 120.0, "seed {seed}: {shares:?} by {weights:?}");
        }
    }
}

#[test]
fn weighted_shares_are_right_at_every_moment_and_follow_new_weights() {
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut weights: Vec<u32> = (0..rng.usize(2..12)).map(|_| rng.u32(1..10)).collect();
        let mut rig = Rig::new(&weights, seed);
        let mut balancer = rig.balancer(Strategy::WeightedRoundRobin);
        for _ in 0..3 {
            let mut got = vec![0; weights.len()];
            let sum: u32 = weights.iter().sum();
            for calls in 1..=400 {
                let shares = rig.shares(&mut balancer, 1);
                got.iter_mut().zip(shares).for_each(|(got, share)| *got += share);
                for (got, weight) in got.iter().zip(&weights) {
                    let share = f64::from(*weight) / f64::from(sum);
                    let due = share * f64::from(calls);
                    // Everybody's phase is random within one turn.
                    let slack = 2.0 + share * weights.len() as f64;
                    let off = (*got as f64 - due).abs();
                    assert!(off <= slack, "seed {seed}: {got} of {due:.1} after {calls}");
                }
            }
            weights.iter_mut().for_each(|weight| *weight = rng.u32(1..10));
            rig.weigh(&weights);
        }
    }
}

#[test]
fn the_less_loaded_of_two_keeps_away_from_the_slow_and_the_failing() {
    for seed in 0..20 {
        let mut rig = Rig::new(&[1; 10], seed);
        let mut balancer = rig.balancer(Strategy::LeastOutstanding);
        let mut shares = [0; 10];
        for _ in 0..2_000 {
            let call = rig.pick(&mut balancer, None, &Tried::default()).expect("nine work");
            let index = (call.endpoint().id() - 1) as usize;
            shares[index] += 1;
            let (outcome, ends) = match index {
                0 => (Outcome::Success, rig.now + Duration::from_millis(200)),
                1 => (Outcome::Overloaded { delay: None }, rig.now),
                _ => (Outcome::Success, rig.now + Duration::from_millis(2)),
            };
            call.end(ends, outcome, &mut rig.rng);
            rig.now += Duration::from_millis(2);
        }
        assert!(shares[0] < 60 && shares[1] < 60, "seed {seed}: {shares:?}");
        assert!(shares[2..].iter().all(|share| *share > 180), "seed {seed}: {shares:?}");
    }
}

#[test]
fn one_that_hangs_collects_no_more_than_its_bound_of_all_senders() {
    for strategy in ALL {
        for seed in 0..20 {
            let mut rig = Rig::new(&[1; 4], seed);
            let mut balancer = rig.balancer(strategy);
            let bound = Bound::of(strategy);
            let mut calls: Vec<Call> = Vec::new();
            for _ in 0..2_000 {
                // Sixty senders, each with a key; the second endpoint answers none of them.
                while calls.len() < 60 {
                    let key = Some(rig.rng.u64(..));
                    calls.extend(rig.pick(&mut balancer, key, &Tried::default()));
                }
                let at = rig.rng.usize(0..calls.len());
                if calls[at].endpoint().id() != 2 {
                    calls.swap_remove(at).end(rig.now, Outcome::Success, &mut rig.rng);
                }
            }
            let hung = calls.iter().filter(|call| call.endpoint().id() == 2).count();
            let most = (60 * bound.percent as usize).div_ceil(400).max(bound.calls_min as usize);
            assert!(hung <= most, "seed {seed}, {strategy:?}: {hung} of 60 hang");
        }
    }
}

/// Calls held open, up to hundreds for one: as long as any that has a weight can be used, such get
/// them all; and while all of these work, they keep their bounds among themselves.
#[test]
fn who_has_no_weight_gets_no_call_while_one_that_has_can_be_used() {
    for strategy in ALL {
        for seed in 0..60 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (primaries, backups) = (rng.usize(1..5), rng.usize(1..5));
            let mut weights = [vec![1; primaries], vec![0; backups]].concat();
            rng.shuffle(&mut weights);
            let mut rig = Rig::new(&weights, seed);
            let mut balancer = rig.balancer(strategy);
            let weighted: Vec<usize> =
                (0..weights.len()).filter(|index| weights[*index] > 0).collect();
            let (broken, working) = weighted.split_at(rng.usize(0..primaries));
            broken.iter().for_each(|index| rig.break_off(*index));
            let index_of = |call: &Call| (call.endpoint().id() - 1) as usize;
            let mut held = vec![0; weights.len()];
            let mut calls = Vec::new();
            for _ in 0..60 * working.len() {
                let call = rig.pick(&mut balancer, Some(rng.u64(..)), &Tried::default());
                let call = call.expect("one is well");
                assert!(weights[index_of(&call)] > 0, "seed {seed}, {strategy:?}: {held:?}");
                held[index_of(&call)] += 1;
                calls.push(call);
            }
            let most = 60 * Bound::of(strategy).percent as usize / 100 + 1;
            let are_bounded = !broken.is_empty() || held.iter().all(|held| *held <= most);
            assert!(are_bounded, "seed {seed}, {strategy:?}: {held:?}");
            // Not for long: with the last of them gone there is nobody else.
            working.iter().for_each(|index| rig.break_off(*index));
            let call = rig.pick(&mut balancer, Some(rng.u64(..)), &Tried::default());
            let index = index_of(&call.expect("those that stand by are well"));
            assert_eq!(weights[index], 0, "seed {seed}, {strategy:?}");
        }
    }
}

#[test]
fn an_endpoint_due_for_a_probe_gets_one_however_slow_it_was() {
    let mut rig = Rig::new(&[1; 5], 11);
    let mut balancer = rig.balancer(Strategy::LeastOutstanding);
    rig.break_off(2);
    rig.now += Duration::from_secs(10);
    let probes = (0..100)
        .filter_map(|_| rig.pick(&mut balancer, None, &Tried::default()))
        .filter(Call::is_probe)
        .count();
    assert!(probes > 10, "{probes}");
}

#[test]
fn a_key_stays_with_its_owner_leaves_a_broken_one_and_comes_back() {
    let mut rig = Rig::new(&[1; 8], 3);
    let mut balancer = rig.balancer(Strategy::ConsistentHashing);
    let keys: Vec<u64> = (0..2_000).map(|_| rig.rng.u64(..)).collect();
    let places = |rig: &Rig, balancer: &mut Balancer| -> Vec<u64> {
        let tried = Tried::default();
        let place = |key: &u64| rig.pick(balancer, Some(*key), &tried).expect("seven are well");
        keys.iter().map(place).map(|call| call.endpoint().id()).collect()
    };
    let before = places(&rig, &mut balancer);
    assert_eq!(places(&rig, &mut balancer), before);
    rig.break_off(4);
    let after = places(&rig, &mut balancer);
    let mut heirs = [0; 9];
    for (was, is) in before.iter().zip(&after) {
        assert!(was == is || *was == 5, "a key of a healthy endpoint moved");
        heirs[*is as usize] += usize::from(*was == 5);
    }
    let busiest = heirs.iter().max().expect("nine");
    assert!(heirs[5] == 0 && *busiest * 3 < heirs.iter().sum::<usize>(), "{heirs:?}");
    rig.now += Duration::from_secs(20);
    let mut rng = fastrand::Rng::with_seed(1);
    for _ in 0..3 {
        let endpoint = Arc::clone(&rig.endpoints.snapshot().endpoints()[4]);
        endpoint.admit(rig.now).expect("a probe").end(rig.now, Outcome::Success, &mut rng);
    }
    assert_eq!(places(&rig, &mut balancer), before);
}

#[test]
fn routing_keys_have_the_names_of_the_collector() {
    use forebay_codec::split::by::Key;
    let parse = |word| RoutingKey::parse(word, Some("tenant"));
    assert_eq!(parse("traceID").as_ref().map(RoutingKey::key), Ok(Key::TraceId));
    assert_eq!(parse("service").as_ref().map(RoutingKey::key), Ok(Key::Resource("service.name")));
    assert_eq!(parse("metric").as_ref().map(RoutingKey::key), Ok(Key::MetricName));
    assert_eq!(parse("resource").as_ref().map(RoutingKey::key), Ok(Key::Resource("tenant")));
    assert_eq!(parse("attributes").as_ref().map(RoutingKey::key), Ok(Key::Attribute("tenant")));
    assert!(RoutingKey::parse("attributes", None).is_err() && parse("traceid").is_err());
}
