//! The policy against a model that is simpler than it, over seeded sequences of answers.

use std::collections::BTreeSet;

use super::*;
use crate::discovery::endpoint::Endpoint;

const PACE: Pace = Pace {
    interval_min: Duration::from_secs(1),
    interval_max: Duration::from_secs(60),
    backoff_max: Duration::from_secs(30),
};

fn keeper(now: Instant) -> Keeper {
    Keeper::new("test".to_owned(), PACE, Limits { endpoints_max: 8 }, now)
}

fn endpoints(addresses: &BTreeSet<u8>) -> Vec<Endpoint> {
    let parse = |at| Endpoint::parse(&format!("10.0.0.{at}:4317"), None).expect("an address");
    addresses.iter().map(parse).collect()
}

fn answer(endpoints: Vec<Endpoint>) -> Said {
    Ok(Answer { endpoints, again: Again::AtOnce, notes: Vec::new() })
}

fn failure() -> Said {
    Err(Failure::new("connection refused", "start it"))
}

fn events(keeper: &mut Keeper) -> Vec<Event> {
    std::iter::from_fn(|| keeper.take_event()).collect()
}

#[test]
fn the_last_good_set_stays_whatever_the_source_says_or_does_not_say() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut now = Instant::now();
        let mut keeper = keeper(now);
        // The model: the set that must be in use, and how many there have been.
        let (mut model, mut generation) = (Vec::new(), 0);
        for step in 0..200 {
            let said = match random.u8(0..4) {
                0 => failure(),
                1 => answer(Vec::new()),
                _ => {
                    let count = random.usize(1..12);
                    let set: BTreeSet<u8> = (0..count).map(|_| random.u8(10..26)).collect();
                    let mut answered = endpoints(&set);
                    // 10.0.0.10 to 25 sort as texts as they do as numbers.
                    let mut expected = answered.clone();
                    expected.truncate(8);
                    if expected != model {
                        generation += 1;
                    }
                    model = expected;
                    answered.extend(answered.clone());
                    random.shuffle(&mut answered);
                    answer(answered)
                }
            };
            let before = keeper.good.as_ref().map_or(0, |good| good.update.generation);
            keeper.take(said, now, random.f64());
            let used = keeper.status(now).update;
            let used = used.map_or((0, Vec::new()), |u| (u.generation, u.endpoints.clone()));
            assert_eq!(used, (generation, model.clone()), "seed {seed}, step {step}");
            let changes = events(&mut keeper)
                .into_iter()
                .filter(|event| matches!(event, Event::Changed(u) if u.generation == generation))
                .count() as u64;
            assert_eq!(changes, generation - before, "seed {seed}, step {step}");
            now += Duration::from_millis(random.u64(0..20_000));
        }
        assert!(generation > 20, "seed {seed}: {generation} changes test little");
    }
}

#[test]
fn no_source_is_asked_sooner_or_later_than_the_pace_allows() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut now = Instant::now();
        let mut keeper = keeper(now);
        assert_eq!(keeper.ask_at(), Some(now));
        let mut failures = 0;
        for step in 0..100 {
            let ttl = Duration::from_secs(random.u64(0..200_000_000));
            let said = match random.u8(0..3) {
                0 => failure(),
                1 => Ok(Answer { again: Again::After(ttl), ..Answer::default() }),
                _ => answer(endpoints(&BTreeSet::from([1]))),
            };
            failures = if said.is_err() { failures + 1 } else { 0 };
            let is_watching = matches!(&said, Ok(answer) if answer.again == Again::AtOnce);
            keeper.take(said, now, random.f64());
            let wait = keeper.ask_at().expect("another look") - now;
            let what = format!("seed {seed}, step {step}: waits {wait:?}, {failures} failures");
            if failures > 0 {
                // The interval doubles from 1 s to 30 s, and half of it is drawn.
                let interval = f64::from(1 << (failures - 1).min(10)).min(30.0);
                let waited = wait.as_secs_f64();
                assert!(waited >= interval / 2.0 && waited <= interval, "{what}");
            } else if is_watching {
                assert_eq!(wait, PACE.interval_min, "{what}");
            } else {
                let most = PACE.interval_max.mul_f64(1.1);
                assert!(wait >= PACE.interval_min && wait <= most, "{what}");
            }
            now += wait;
        }
    }
}

#[test]
fn those_who_asked_together_do_not_come_back_together() {
    let now = Instant::now();
    let mut waits = BTreeSet::new();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..100 {
        let mut keeper = keeper(now);
        let again = Again::After(Duration::from_secs(30));
        keeper.take(Ok(Answer { again, ..Answer::default() }), now, random.f64());
        waits.insert(keeper.ask_at().expect("another look") - now);
    }
    let spread = *waits.last().expect("waits") - *waits.first().expect("waits");
    assert!(waits.len() > 90 && spread > Duration::from_secs(2), "{spread:?}");
}

#[test]
fn a_source_that_fails_for_an_hour_is_told_of_a_dozen_times_and_once_when_it_is_back() {
    let begun = Instant::now();
    let mut keeper = keeper(begun);
    keeper.take(answer(endpoints(&BTreeSet::from([1, 2]))), begun, 0.5);
    assert!(matches!(&events(&mut keeper)[..], [Event::Changed(_)]));
    let mut told = Vec::new();
    for second in 1..=3600 {
        keeper.take(failure(), begun + Duration::from_secs(second), 0.5);
        told.extend(events(&mut keeper));
    }
    assert_eq!(told.len(), 12, "{told:?}");
    let Some(Event::Trouble(last)) = told.last() else {
        panic!("{told:?}");
    };
    assert_eq!(
        last.to_string(),
        "discovery by test: connection refused; the last good set of 2 endpoints from 3301 \
         seconds ago stays in use (3301 failures in a row); start it"
    );
    let back = begun + Duration::from_secs(3601);
    keeper.take(answer(endpoints(&BTreeSet::from([2, 1]))), back, 0.5);
    let told = events(&mut keeper);
    let [Event::Recovered(recovered)] = &told[..] else {
        panic!("the set is the same, so that only this is news: {told:?}");
    };
    assert_eq!(recovered.after, Duration::from_secs(3600));
}

#[test]
fn a_source_that_flaps_does_not_flood_the_log() {
    let begun = Instant::now();
    let mut keeper = keeper(begun);
    let (mut troubles, mut recoveries) = (0, 0);
    for step in 0..3600 {
        let said = match step % 2 {
            0 => Err(Failure::new(format!("reason {step}"), "look")),
            _ => answer(endpoints(&BTreeSet::from([1]))),
        };
        keeper.take(said, begun + Duration::from_secs(step), 0.5);
        for event in events(&mut keeper) {
            troubles += u32::from(matches!(event, Event::Trouble(_)));
            recoveries += u32::from(matches!(event, Event::Recovered(_)));
        }
    }
    assert_eq!(troubles, 360, "one in ten seconds");
    assert_eq!(recoveries, troubles, "each that was told is told to be over");
}

#[test]
fn an_empty_answer_is_told_as_trouble_and_costs_no_endpoint() {
    let now = Instant::now();
    let mut keeper = keeper(now);
    keeper.take(answer(Vec::new()), now, 0.5);
    let told = events(&mut keeper);
    let [Event::Trouble(trouble)] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(trouble.cost, Cost::NoEndpoints);
    assert!(trouble.what.contains("no endpoint"), "{trouble}");
    assert!(keeper.status(now).update.is_none());
}

#[test]
fn what_is_cut_from_a_set_is_told() {
    let now = Instant::now();
    let mut keeper = keeper(now);
    keeper.take(answer(endpoints(&(1..=20).collect())), now, 0.5);
    let told = events(&mut keeper);
    let [Event::Changed(update), Event::Trouble(trouble)] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(update.endpoints.len(), 8);
    assert_eq!(trouble.cost, Cost::PartUnused);
    assert!(trouble.what.contains("12 endpoints more than the limit of 8"), "{trouble}");
}

#[test]
fn a_list_that_cannot_change_is_not_asked_for_again() {
    let now = Instant::now();
    let mut keeper = keeper(now);
    let endpoints = endpoints(&BTreeSet::from([1]));
    keeper.take(Ok(Answer { endpoints, again: Again::Never, notes: Vec::new() }), now, 0.5);
    assert_eq!(keeper.ask_at(), None);
}
