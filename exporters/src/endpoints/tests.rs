//! The set of endpoints against a model of it, and the least movement of hashed keys.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use super::*;

fn member(number: u32, weight: u32) -> Member {
    Member { address: format!("10.0.{}.{}:4317", number / 250, number % 250), weight }
}

fn hashed() -> Options {
    Options { hashing: true, ..Options::default() }
}

fn by_address(snapshot: &Snapshot) -> BTreeMap<String, u64> {
    let named = |endpoint: &Arc<Endpoint>| (endpoint.address().to_owned(), endpoint.id());
    snapshot.endpoints().iter().map(named).collect()
}

#[test]
fn members_that_stay_keep_what_they_are_and_those_that_leave_finish_their_calls() {
    for seed in 0..150 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let epoch = Instant::now();
        let options = Options { hashing: seed % 25 == 0, ..Options::default() };
        let endpoints = Endpoints::new(options, epoch);
        let mut reader = endpoints.reader();
        let mut calls: Vec<Call> = Vec::new();
        for round in 1..60 {
            let now = epoch + Duration::from_secs(round);
            let mut set: Vec<Member> =
                (0..20).filter(|_| rng.bool()).map(|number| member(number, 1)).collect();
            rng.shuffle(&mut set);
            // Sometimes the source has nothing to say.
            set.truncate(rng.usize(0..10) * 20);
            let before = by_address(reader.snapshot());
            let change = endpoints.apply(now, &set);
            let after = by_address(reader.snapshot());
            if set.is_empty() {
                assert!(change.kept_last && before == after, "seed {seed}");
                continue;
            }
            let named: Vec<&String> = set.iter().map(|member| &member.address).collect();
            assert_eq!(after.len(), named.len(), "seed {seed}");
            assert!(named.iter().all(|address| after.contains_key(*address)), "seed {seed}");
            for (address, id) in &before {
                let kept = after.get(address).is_none_or(|now| now == id);
                assert!(kept, "seed {seed}: {address} stayed and is another now");
            }
            assert_eq!(after.len() + change.left, before.len() + change.joined, "seed {seed}");
            assert_eq!(endpoints.fleet().members() as usize, after.len(), "seed {seed}");
            for endpoint in reader.snapshot().endpoints() {
                calls.extend(endpoint.admit(now));
            }
            while calls.len() > 40 {
                let call = calls.swap_remove(rng.usize(0..calls.len()));
                call.end(now, Outcome::Success, &mut rng);
            }
            let status = endpoints.status(now);
            let outstanding: u32 = status.iter().map(|endpoint| endpoint.outstanding).sum();
            assert_eq!(outstanding as usize, calls.len(), "seed {seed}: a call is nowhere");
            assert_eq!(outstanding, endpoints.fleet().outstanding(), "seed {seed}");
        }
        calls.clear();
        assert_eq!(endpoints.fleet().outstanding(), 0, "seed {seed}");
        let status = endpoints.status(epoch);
        assert!(status.iter().all(|endpoint| !endpoint.is_draining), "seed {seed}: leaked");
    }
}

#[test]
fn what_leaves_and_comes_back_is_new_and_closed() {
    let now = Instant::now();
    let endpoints = Endpoints::new(Options::default(), now);
    endpoints.apply(now, &[member(1, 1), member(2, 1)]);
    let gone = Arc::clone(&endpoints.snapshot().endpoints()[0]);
    let call = gone.admit(now).expect("a new breaker admits");
    endpoints.apply(now, &[member(2, 3)]);
    assert!(gone.admit(now).is_err(), "a core with an old snapshot sends nothing there");
    assert_eq!(call.end(now, Outcome::Failure, &mut fastrand::Rng::with_seed(1)), None);
    let change = endpoints.apply(now, &[member(2, 3), member(1, 1), member(1, 7)]);
    assert_eq!((change.joined, change.left, change.reweighted), (1, 0, 1));
    let snapshot = endpoints.snapshot();
    let back = snapshot.endpoints().iter().find(|endpoint| endpoint.address() == gone.address());
    let back = back.expect("it is back");
    assert!(back.id() != gone.id() && back.breaker.is_closed() && back.weight() == 7);
}

#[test]
fn a_fleet_that_admits_nothing_says_when_to_come_back() {
    let now = Instant::now();
    let endpoints = Endpoints::new(Options::default(), now);
    assert_eq!(endpoints.refuses(now), Some(NOBODY_PAUSE));
    endpoints.apply(now, &[member(1, 1), member(2, 1)]);
    let mut rng = fastrand::Rng::with_seed(3);
    for endpoint in endpoints.snapshot().endpoints() {
        assert_eq!(endpoints.refuses(now), None);
        for _ in 0..5 {
            let call = endpoint.admit(now).expect("it is closed");
            call.end(now, Outcome::Failure, &mut rng);
        }
    }
    let wait = endpoints.refuses(now).expect("all are open");
    assert!(wait >= Duration::from_secs(1) && wait < Duration::from_secs(2), "{wait:?}");
    assert_eq!(endpoints.refuses(now + wait), None);
}

/// The owner's address of each slot.
fn owners(endpoints: &Endpoints) -> Vec<Arc<str>> {
    let snapshot = endpoints.snapshot();
    let shift = 64 - slots::SLOTS.trailing_zeros();
    (0..slots::SLOTS as u64)
        .map(|slot| snapshot.owner(slot << shift).expect("each slot has an owner"))
        .map(|index| Arc::clone(&snapshot.endpoints()[index].address))
        .collect()
}

#[test]
fn only_the_keys_of_who_leaves_or_joins_move_and_history_does_not_matter() {
    for seed in 0..3 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let now = Instant::now();
        let endpoints = Endpoints::new(hashed(), now);
        let mut set: Vec<Member> = (0..30).map(|number| member(number, rng.u32(1..5))).collect();
        endpoints.apply(now, &set);
        let mut before = owners(&endpoints);
        for round in 0..12 {
            let gone = match rng.bool() {
                true => Some(set.swap_remove(rng.usize(0..set.len()))),
                false => None,
            };
            let came = gone.is_none().then(|| member(100 + round, rng.u32(1..5)));
            set.extend(came.clone());
            endpoints.apply(now, &set);
            let after = owners(&endpoints);
            for (was, is) in before.iter().zip(&after).filter(|(was, is)| was != is) {
                let left = gone.as_ref().is_some_and(|gone| **was == *gone.address);
                let won = came.as_ref().is_some_and(|came| **is == *came.address);
                assert!(left || won, "seed {seed}: a key moved from {was} to {is}");
            }
            before = after;
        }
        rng.shuffle(&mut set);
        let fresh = Endpoints::new(hashed(), now);
        fresh.apply(now, &set);
        assert!(owners(&fresh) == before, "seed {seed}: another core would send keys elsewhere");
    }
}

#[test]
fn shares_of_keys_follow_weights() {
    let now = Instant::now();
    let endpoints = Endpoints::new(hashed(), now);
    let mut set: Vec<Member> = (0..12).map(|number| member(number, 1 + number % 4)).collect();
    for round in 0..3 {
        // Weights change at run time.
        set.iter_mut().for_each(|member| member.weight = member.weight % 4 + round.min(1));
        endpoints.apply(now, &set);
        let weights: f64 = set.iter().map(|member| f64::from(member.weight)).sum();
        let owners = owners(&endpoints);
        for member in &set {
            let owned = owners.iter().filter(|owner| ***owner == *member.address).count();
            let share = owned as f64 / slots::SLOTS as f64;
            let due = f64::from(member.weight) / weights;
            assert!((share - due).abs() < 0.01, "{member:?}: {share:.3} of {due:.3}");
        }
    }
}

#[test]
fn readers_on_other_threads_follow_a_set_that_changes_under_them() {
    let epoch = Instant::now();
    let endpoints = Endpoints::new(hashed(), epoch);
    endpoints.apply(epoch, &[member(0, 1)]);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|seed| {
                let (mut reader, is_over) = (endpoints.reader(), &is_over);
                scope.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed(seed);
                    let mut calls = 0_u64;
                    loop {
                        let snapshot = Arc::clone(reader.snapshot());
                        let owner = snapshot.owner(rng.u64(..)).expect("never empty");
                        if let Ok(call) = snapshot.endpoints()[owner].admit(epoch) {
                            call.end(epoch, Outcome::Success, &mut rng);
                            calls += 1;
                        }
                        // Behind the first call: the sets may be through before a thread begins.
                        if is_over.load(Ordering::Acquire) {
                            break;
                        }
                    }
                    (calls, reader.snapshot().generation())
                })
            })
            .collect();
        let mut rng = fastrand::Rng::with_seed(9);
        for _ in 0..60 {
            let set: Vec<Member> =
                (0..15).filter(|_| rng.bool()).map(|number| member(number, 1)).collect();
            endpoints.apply(epoch, &set);
        }
        is_over.store(true, Ordering::Release);
        for reader in readers {
            let (calls, generation) = reader.join().expect("no index is out of date");
            assert!(calls > 0);
            assert_eq!(generation, endpoints.snapshot().generation());
        }
    });
    assert_eq!(endpoints.fleet().outstanding(), 0);
}

#[test]
fn a_fleet_refuses_while_each_of_it_has_asked_for_a_pause_and_no_longer() {
    let epoch = Instant::now();
    let endpoints = Endpoints::new(Options::default(), epoch);
    endpoints.apply(epoch, &[member(1, 1), member(2, 1)]);
    let mut rng = fastrand::Rng::with_seed(7);
    let mut pause = |index: usize, at: u64, millis: u64| {
        let now = epoch + Duration::from_millis(at);
        let call = endpoints.snapshot().endpoints()[index].admit(now).expect("it takes a call");
        let delay = Some(Duration::from_millis(millis));
        call.end(now, Outcome::Overloaded { delay }, &mut rng);
    };
    let refuses = |at: u64| endpoints.refuses(epoch + Duration::from_millis(at));
    assert_eq!(refuses(10), None);
    pause(0, 10, 300);
    assert_eq!(refuses(11), None, "the other takes calls");
    pause(1, 20, 100);
    assert_eq!(refuses(21), Some(Duration::from_millis(99)), "the first that is over");
    assert_eq!(endpoints.fleet().closed(), 2, "no breaker has opened");
    assert_eq!(refuses(120), None, "one pause is over");
    pause(1, 130, 50);
    assert_eq!(refuses(131), Some(Duration::from_millis(49)), "paused again");
    assert_eq!(refuses(310), None);
}
