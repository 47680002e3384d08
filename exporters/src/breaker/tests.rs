//! The breaker as a machine under random driving, as an arithmetic of thresholds and times, and
//! under real threads.

use std::sync::atomic::AtomicBool;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn fleet_of(settings: FleetSettings, epoch: Instant) -> Arc<Fleet> {
    Arc::new(Fleet::new(settings, epoch))
}

fn alone(settings: Settings, epoch: Instant) -> Breaker {
    Breaker::new(settings, fleet_of(FleetSettings::default(), epoch), epoch)
}

/// With another endpoint in its fleet, so that it may be ejected.
fn accompanied(settings: Settings, epoch: Instant) -> (Breaker, Breaker) {
    let fleet = fleet_of(FleetSettings::default(), epoch);
    let other = Breaker::new(settings, Arc::clone(&fleet), epoch);
    (Breaker::new(settings, fleet, epoch), other)
}

fn steady() -> Settings {
    Settings {
        recovery_timeout: 5 * SECOND,
        recovery_timeout_max: 60 * SECOND,
        recovery_jitter: 0.0,
        ..Settings::default()
    }
}

fn rng() -> fastrand::Rng {
    fastrand::Rng::with_seed(7)
}

fn passed(breaker: &Breaker, now: Instant) -> Permit {
    match breaker.admit(now) {
        Admission::Pass(permit) => permit,
        other => panic!("{other:?}"),
    }
}

fn probed(breaker: &Breaker, now: Instant) -> Permit {
    match breaker.admit(now) {
        Admission::Probe(permit) => permit,
        other => panic!("{other:?}"),
    }
}

fn refused(breaker: &Breaker, now: Instant) -> Duration {
    match breaker.admit(now) {
        Admission::Refuse { retry_in } => retry_in,
        other => panic!("{other:?}"),
    }
}

fn ends(breaker: &Breaker, now: Instant, outcome: Outcome) -> Option<Transition> {
    let permit = passed(breaker, now);
    breaker.record(permit, now, outcome, Duration::from_millis(5), &mut rng())
}

/// Fails until it opens; for how long it does.
fn broken(breaker: &Breaker, now: Instant) -> Duration {
    for _ in 0..100 {
        if let Some(Transition::Opened { open_for, .. }) = ends(breaker, now, Outcome::Failure) {
            return open_for;
        }
    }
    panic!("a hundred failures in a row did not open it");
}

#[test]
fn random_use_never_finds_two_probes_a_call_through_an_open_breaker_or_an_untold_change() {
    for seed in 0..400 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let epoch = Instant::now();
        let settings = Settings {
            failure_threshold: rng.u32(0..6),
            minimum_calls: rng.u32(1..30),
            success_threshold: rng.u32(1..5),
            probe_timeout: Duration::from_secs(rng.u64(5..60)),
            ..Settings::default()
        };
        let breaker = alone(settings, epoch);
        let (mut now, mut calls, mut opened_until) = (epoch, Vec::new(), None);
        let mut is_closed = true;
        for _ in 0..1_500 {
            now += Duration::from_millis(rng.u64(0..200));
            let told = match rng.bool() {
                true => match breaker.admit(now) {
                    Admission::Pass(permit) => {
                        assert!(
                            is_closed,
                            "seed {seed}: a call passed a breaker that is not closed"
                        );
                        calls.push((now, permit));
                        None
                    }
                    Admission::Probe(permit) => {
                        assert!(opened_until <= Some(now), "seed {seed}: a probe came early");
                        let rivals = calls.iter().filter(|(began, other): &&(Instant, Permit)| {
                            other.is_probe() && now < *began + settings.probe_timeout
                        });
                        assert_eq!(rivals.count(), 0, "seed {seed}: a second probe");
                        let told = permit.transition;
                        calls.push((now, permit));
                        told
                    }
                    Admission::Refuse { retry_in } => {
                        assert!(!is_closed && retry_in > Duration::ZERO, "seed {seed}");
                        None
                    }
                },
                // Some calls never end: their holder died.
                false if !calls.is_empty() && rng.u8(0..20) > 0 => {
                    let (began, permit) = calls.swap_remove(rng.usize(0..calls.len()));
                    let outcome = match rng.u8(0..8) {
                        0..4 => Outcome::Success,
                        4..7 => Outcome::Failure,
                        _ => Outcome::Unsent,
                    };
                    breaker.record(permit, now, outcome, now - began, &mut rng)
                }
                false => {
                    calls.retain(|(_, permit)| !permit.is_probe() || rng.bool());
                    None
                }
            };
            match told {
                Some(Transition::Opened { from_probe, open_for, .. }) => {
                    assert!(is_closed || from_probe, "seed {seed}: opened twice");
                    (is_closed, opened_until) = (false, Some(now + open_for));
                }
                Some(Transition::HalfOpened) => assert!(!is_closed, "seed {seed}"),
                Some(Transition::Closed { successes }) => {
                    assert_eq!(successes, settings.success_threshold, "seed {seed}");
                    (is_closed, opened_until) = (true, None);
                }
                None => {}
            }
            assert_eq!(breaker.is_closed(), is_closed, "seed {seed}: a change was not told");
            assert_eq!(breaker.fleet.closed(), u32::from(is_closed), "seed {seed}");
        }
    }
}

#[test]
fn exactly_failure_threshold_failures_open_and_success_threshold_probes_close() {
    let now = Instant::now();
    let breaker = alone(steady(), now);
    for _ in 0..3 {
        for _ in 0..4 {
            assert_eq!(ends(&breaker, now, Outcome::Failure), None);
        }
        // Any success in between starts the count anew.
        assert_eq!(ends(&breaker, now, Outcome::Success), None);
    }
    let breaker = alone(steady(), now);
    for _ in 0..4 {
        assert_eq!(ends(&breaker, now, Outcome::Failure), None);
    }
    let opened = ends(&breaker, now, Outcome::Failure);
    let cause = Cause::FailuresInARow { failures: 5 };
    let open_for = 5 * SECOND;
    assert_eq!(opened, Some(Transition::Opened { from_probe: false, cause, open_for }));
    assert_eq!(refused(&breaker, now + 2 * SECOND), 3 * SECOND);
    let later = now + 5 * SECOND;
    for probe in 1..=3 {
        let permit = probed(&breaker, later);
        let is_first = probe == 1;
        assert_eq!(permit.transition, is_first.then_some(Transition::HalfOpened));
        assert!(refused(&breaker, later) <= SECOND);
        let told = breaker.record(permit, later, Outcome::Success, SECOND / 100, &mut rng());
        assert_eq!(told, (probe == 3).then_some(Transition::Closed { successes: 3 }));
    }
    assert_eq!(ends(&breaker, later, Outcome::Failure), None);
}

#[test]
fn each_opening_lasts_longer_up_to_the_most_and_a_calm_minute_forgets() {
    let mut now = Instant::now();
    let breaker = alone(steady(), now);
    assert_eq!(broken(&breaker, now), 5 * SECOND);
    let mut open_for = 5 * SECOND;
    for seconds in [10, 20, 40, 60, 60] {
        now += open_for;
        let permit = probed(&breaker, now);
        let told = breaker.record(permit, now, Outcome::Failure, SECOND, &mut rng());
        open_for = seconds * SECOND;
        let cause = Cause::ProbeFailed;
        assert_eq!(told, Some(Transition::Opened { from_probe: true, cause, open_for }));
    }
    now += open_for;
    close(&breaker, now);
    // A relapse goes on where it was.
    assert_eq!(broken(&breaker, now + SECOND), 60 * SECOND);
    close(&breaker, now + 61 * SECOND);
    assert_eq!(broken(&breaker, now + 122 * SECOND), 5 * SECOND);
}

fn close(breaker: &Breaker, now: Instant) {
    for _ in 0..3 {
        let permit = probed(breaker, now);
        breaker.record(permit, now, Outcome::Success, Duration::ZERO, &mut rng());
    }
    assert_eq!(breaker.state(now), State::Closed);
}

#[test]
fn calls_from_before_an_opening_change_nothing_after_it() {
    let now = Instant::now();
    let breaker = alone(steady(), now);
    let hung: Vec<Permit> = (0..50).map(|_| passed(&breaker, now)).collect();
    broken(&breaker, now);
    let later = now + 6 * SECOND;
    close(&breaker, later);
    for permit in hung {
        assert_eq!(breaker.record(permit, later, Outcome::Failure, 6 * SECOND, &mut rng()), None);
    }
    assert!(breaker.is_closed());
}

#[test]
fn a_probe_whose_holder_died_is_replaced_and_its_late_word_is_not_heard() {
    let now = Instant::now();
    let breaker = alone(steady(), now);
    broken(&breaker, now);
    let dead = probed(&breaker, now + 5 * SECOND);
    refused(&breaker, now + 49 * SECOND);
    let next = probed(&breaker, now + 50 * SECOND);
    let at = now + 51 * SECOND;
    assert_eq!(breaker.record(dead, at, Outcome::Failure, SECOND, &mut rng()), None);
    assert!(matches!(breaker.state(at), State::HalfOpen { is_probing: true, .. }));
    breaker.give_back(&next);
    let _ = probed(&breaker, at);
}

#[test]
fn a_share_of_failures_or_of_slow_calls_opens_after_the_minimum_of_calls() {
    let epoch = Instant::now();
    let settings = Settings { failure_threshold: 0, ..steady() };
    let mut calls = 0;
    let (breaker, _other) = accompanied(settings, epoch);
    let told = (1..200).find_map(|call| {
        calls = call;
        let outcome = if call % 2 == 0 { Outcome::Success } else { Outcome::Unwell };
        ends(&breaker, epoch, outcome)
    });
    let Some(Transition::Opened { cause, .. }) = told else { panic!("it stayed closed") };
    assert_eq!((calls, cause), (21, Cause::FailureRate { failures: 11, calls: 21 }));

    let (breaker, _other) = accompanied(settings, epoch);
    let told = (1..200).find_map(|call| {
        calls = call;
        let latency = if call % 4 == 0 { SECOND } else { 3 * SECOND };
        let permit = passed(&breaker, epoch);
        breaker.record(permit, epoch, Outcome::Success, latency, &mut rng())
    });
    let Some(Transition::Opened { cause, .. }) = told else { panic!("it stayed closed") };
    // The twentieth call is a fast one, which opens nothing.
    assert_eq!((calls, cause), (21, Cause::SlowCallRate { slow: 16, calls: 21 }));
}

#[test]
fn an_only_endpoint_that_answers_is_shut_off_when_nothing_works_and_not_for_a_share() {
    let now = Instant::now();
    let breaker = alone(steady(), now);
    for call in 0..1_000 {
        let outcome = if call % 10 == 0 { Outcome::Success } else { Outcome::Unwell };
        assert_eq!(ends(&breaker, now, outcome), None);
    }
    assert!(breaker.fleet.spared() > 0);
    let breaker = alone(steady(), now);
    let told: Vec<_> = (0..20).filter_map(|_| ends(&breaker, now, Outcome::Unwell)).collect();
    let cause = Cause::FailureRate { failures: 20, calls: 20 };
    let open_for = 5 * SECOND;
    assert_eq!(told, [Transition::Opened { from_probe: false, cause, open_for }]);
}

#[test]
fn what_is_not_the_endpoints_fault_never_opens_and_an_answer_proves_a_probe() {
    let now = Instant::now();
    let breaker = alone(steady(), now);
    for _ in 0..500 {
        assert_eq!(ends(&breaker, now, Outcome::Answered), None);
        assert_eq!(ends(&breaker, now, Outcome::Unsent), None);
        assert_eq!(ends(&breaker, now, Outcome::Overloaded { delay: None }), None);
    }
    broken(&breaker, now);
    let later = now + 5 * SECOND;
    for _ in 0..3 {
        let permit = probed(&breaker, later);
        breaker.record(permit, later, Outcome::Answered, Duration::ZERO, &mut rng());
    }
    assert!(breaker.is_closed());
}

#[test]
fn an_endpoint_that_names_a_delay_is_left_alone_for_it_and_not_for_ever() {
    let now = Instant::now();
    let (breaker, _other) = accompanied(steady(), now);
    ends(&breaker, now, Outcome::Overloaded { delay: Some(2 * SECOND) });
    assert_eq!(refused(&breaker, now + SECOND), SECOND);
    assert_eq!(breaker.state(now), State::Closed);
    ends(&breaker, now + 2 * SECOND, Outcome::Overloaded { delay: Some(3_600 * SECOND) });
    assert!(refused(&breaker, now + 3 * SECOND) <= 5 * SECOND);
    let _ = passed(&breaker, now + 7 * SECOND);
}

#[test]
fn no_more_than_its_share_of_a_fleet_is_ejected_and_what_is_broken_always_opens() {
    let now = Instant::now();
    let fleet = fleet_of(FleetSettings::default(), now);
    let settings = Settings { failure_threshold: 0, ..steady() };
    let new = || Breaker::new(settings, Arc::clone(&fleet), now);
    let breakers: Vec<Breaker> = (0..20).map(|_| new()).collect();
    for breaker in &breakers {
        for call in 0..60 {
            if breaker.is_closed() {
                let outcome = if call % 3 == 0 { Outcome::Success } else { Outcome::Failure };
                ends(breaker, now, outcome);
            }
        }
    }
    assert_eq!((fleet.ejected(), fleet.broken(), fleet.closed()), (2, 0, 18));
    assert!(fleet.spared() > 0);
    // Nine that do nothing but fail: eleven are shut off, and with them half of the fleet.
    let settings = Settings { recovery_timeout: 20 * SECOND, ..steady() };
    let dead: Vec<Breaker> = (0..19)
        .map(|_| Breaker::new(settings, Arc::clone(&fleet), now))
        .inspect(|breaker| assert!(broken(breaker, now) >= 20 * SECOND))
        .collect();
    assert_eq!((fleet.members(), fleet.broken()), (39, 19));
    assert!(fleet.is_panicking());
    let is_admitted = |breaker: &Breaker| matches!(breaker.admit(now), Admission::Pass(_));
    assert!(breakers.iter().all(is_admitted), "in panic the ejected are used");
    assert!(!dead.iter().any(is_admitted), "in panic the broken are not");
    drop(dead);
    assert_eq!((fleet.members(), fleet.broken(), fleet.closed()), (20, 0, 18));
    assert_eq!(breakers.iter().filter(|breaker| !is_admitted(breaker)).count(), 2);
}

#[test]
fn the_window_holds_the_last_calls_of_the_last_seconds() {
    for seed in 0..100 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let window = Window::new(10 * SECOND, 100);
        let mut calls: Vec<(u64, bool)> = Vec::new();
        let mut now_ms = rng.u64(0..1 << 36);
        for _ in 0..1_000 {
            now_ms += if rng.u8(0..50) == 0 { rng.u64(0..9_000) } else { rng.u64(0..400) };
            let failed = rng.bool();
            window.record(now_ms, if failed { Kind::Failed } else { Kind::Good });
            calls.push((now_ms, failed));
            let counts = window.counts(now_ms);
            let since = |age_ms| {
                let young = calls.iter().rev().take_while(|(at, _)| at + age_ms > now_ms);
                young.count()
            };
            // Of nine buckets that ended, some did by calls and the others by time; the oldest may
            // have begun in the middle of its slice.
            let span = |full: u64| 8_000_u64.saturating_sub(1_000 * full);
            let least = (0..10).map(|full| (10 * full as usize).max(since(span(full))));
            let (least, most) = (least.min().expect("ten"), since(10_000).min(100));
            let held = counts.calls as usize;
            assert!((least..=most).contains(&held), "seed {seed}: {held} of {least}..={most}");
            let failures = calls.iter().rev().take(held).filter(|(_, failed)| *failed).count();
            assert_eq!(counts.failures as usize, failures, "seed {seed}");
        }
        window.clear();
        assert_eq!(window.counts(now_ms), window::Counts::default(), "seed {seed}");
    }
}

#[test]
fn among_real_threads_there_is_one_probe_at_a_time_and_every_change_is_told_once() {
    let epoch = Instant::now();
    let settings = Settings {
        failure_threshold: 2,
        success_threshold: 2,
        recovery_timeout: Duration::from_millis(20),
        recovery_timeout_max: Duration::from_millis(20),
        probe_timeout: Duration::from_secs(1 << 20),
        ..Settings::default()
    };
    let breaker = alone(settings, epoch);
    let (clock_ms, is_probing) = (AtomicU64::new(0), AtomicBool::new(false));
    let (opened, closed, probes) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (breaker, clock_ms, is_probing) = (&breaker, &clock_ms, &is_probing);
            let (opened, closed, probes) = (&opened, &closed, &probes);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(thread);
                let has_seen_enough =
                    || probes.load(Ordering::Relaxed) > 100 && closed.load(Ordering::Relaxed) > 10;
                // A thread that the system stops in its probe has the others refused meanwhile.
                for turn in 0..100_000_000 {
                    if turn >= 40_000 && has_seen_enough() {
                        break;
                    }
                    let now_ms = clock_ms.fetch_add(1, Ordering::Relaxed);
                    let now = epoch + Duration::from_millis(now_ms);
                    let permit = match breaker.admit(now) {
                        Admission::Refuse { .. } => {
                            if turn >= 40_000 {
                                std::thread::yield_now();
                            }
                            continue;
                        }
                        Admission::Pass(permit) => permit,
                        Admission::Probe(permit) => {
                            let was_probing = is_probing.swap(true, Ordering::SeqCst);
                            assert!(!was_probing, "two probes at once");
                            probes.fetch_add(1, Ordering::Relaxed);
                            if rng.u8(0..16) == 0 {
                                std::thread::yield_now();
                            }
                            is_probing.store(false, Ordering::SeqCst);
                            permit
                        }
                    };
                    let ended = match rng.u8(0..4) {
                        0 | 1 => Outcome::Success,
                        2 => Outcome::Failure,
                        _ => Outcome::Unsent,
                    };
                    match breaker.record(permit, now, ended, Duration::ZERO, &mut rng) {
                        Some(Transition::Opened { from_probe: false, .. }) => {
                            opened.fetch_add(1, Ordering::Relaxed);
                        }
                        Some(Transition::Closed { .. }) => {
                            closed.fetch_add(1, Ordering::Relaxed);
                        }
                        _ => {}
                    }
                }
            });
        }
    });
    let (opened, closed) = (opened.into_inner(), closed.into_inner());
    assert!(probes.into_inner() > 100 && closed > 10, "the test does not reach what it is for");
    let shut = u32::from(!breaker.is_closed());
    assert_eq!(opened, closed + shut);
    assert_eq!(breaker.fleet.closed(), 1 - shut);
    let counted = breaker.fleet.transitions();
    let of = |state: &str, is_probe: bool| -> u64 {
        let kinds = Transition::KINDS.iter().zip(counted);
        let is_it =
            |(to, cause): &(&str, &str)| *to == state && cause.starts_with("probe_") == is_probe;
        kinds.filter(|(kind, _)| is_it(kind)).map(|(_, count)| count).sum()
    };
    assert_eq!(of("open", false), u64::from(opened));
    assert_eq!(of("closed", false), u64::from(closed));
    let all_opened = of("open", false) + of("open", true);
    let tried = of("half_open", false);
    assert!((all_opened - 1..=all_opened).contains(&tried), "{tried} of {all_opened} were tried");
}

#[test]
fn answers_say_of_the_endpoint_what_they_mean() {
    use crate::verdict::{FailureKind, again, of_http};
    use http::{HeaderMap, HeaderValue, StatusCode, header};
    let said = |status: u16, retry_after: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        let status = StatusCode::from_u16(status).expect("a status");
        let mut decompressor = forebay_codec::compress::Decompressor::default();
        let now = std::time::SystemTime::UNIX_EPOCH;
        Outcome::of(&of_http(status, &headers, b"", now, &mut decompressor))
    };
    let delay = Some(7 * SECOND);
    assert_eq!(said(200, None), Outcome::Success);
    assert_eq!(said(503, None), Outcome::Unwell);
    assert_eq!(said(503, Some("7")), Outcome::Overloaded { delay });
    assert_eq!(said(429, Some("7")), Outcome::Overloaded { delay });
    assert_eq!(said(429, None), Outcome::Overloaded { delay: None });
    assert_eq!(said(500, None), Outcome::Failure);
    for status in [400, 401, 403, 404, 413] {
        assert_eq!(said(status, None), Outcome::Answered, "{status}");
    }
    use FailureKind::{Connect, Disconnected, Timeout, Tls};
    for kind in [Connect, Tls, Disconnected, Timeout] {
        assert_eq!(Outcome::of(&again(kind, "")), Outcome::Failure, "{kind:?}");
    }
    assert_eq!(Outcome::of(&again(FailureKind::Internal, "")), Outcome::Unsent);
}
