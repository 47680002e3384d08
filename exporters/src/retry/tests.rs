//! Retry timing, as properties over seeded randomness.

use super::*;
use crate::destination::RetryCodes;

fn policy() -> Retry {
    Retry {
        enabled: true,
        initial_interval: Duration::from_secs(5),
        multiplier: 1.5,
        max_interval: Duration::from_secs(30),
        max_elapsed_time: None,
        max_attempts: None,
        codes: RetryCodes::default(),
    }
}

fn wait(next: Next) -> Duration {
    match next {
        Next::Wait(wait) => wait,
        Next::GiveUp => panic!("gave up"),
    }
}

#[test]
fn c5_waits_are_drawn_from_zero_to_an_interval_that_grows_to_its_maximum() {
    let seed = 42;
    let mut random = fastrand::Rng::with_seed(seed);
    let now = Instant::now();
    let intervals = [5.0, 7.5, 11.25, 16.875, 25.3125, 30.0, 30.0];
    let mut longest = [0.0_f64; 7];
    for _ in 0..2000 {
        let mut backoff = Backoff::default();
        for (step, interval) in intervals.iter().enumerate() {
            let next = backoff.failed(&policy(), now, now, None, random.f64());
            let waited = wait(next).as_secs_f64();
            assert!(waited <= *interval, "seed {seed}: step {step} waited {waited} s");
            longest[step] = longest[step].max(waited);
        }
    }
    for (step, interval) in intervals.iter().enumerate() {
        assert!(longest[step] > 0.95 * interval, "seed {seed}: step {step} has no full jitter");
    }
}

#[test]
fn c5_the_delay_a_destination_names_is_waited_first_and_then_grown_from() {
    let now = Instant::now();
    let mut backoff = Backoff::default();
    let asked = Duration::from_secs(12);
    for random in [0.0, 0.999] {
        let waited = wait(backoff.clone().failed(&policy(), now, now, Some(asked), random));
        assert!(waited >= asked && waited <= asked.mul_f64(1.1), "{waited:?}");
    }
    backoff.failed(&policy(), now, now, Some(asked), 0.0);
    let grown = wait(backoff.failed(&policy(), now, now, None, 1.0));
    assert_eq!(grown, Duration::from_secs(18));
}

#[test]
fn c5_a_delay_of_years_is_not_believed() {
    let now = Instant::now();
    let asked = Some(Duration::from_secs(u64::from(u32::MAX)));
    let waited = wait(Backoff::default().failed(&policy(), now, now, asked, 1.0));
    assert!(waited <= DELAY_MAX.mul_f64(1.1), "{waited:?}");
}

/// A Retry-After of 0 or of a date that is past.
#[test]
fn c5_a_delay_of_nothing_is_waited_for_as_if_none_were_named() {
    for seed in 0..100 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut asked, mut plain, now) = (Backoff::default(), Backoff::default(), Instant::now());
        let mut waited = Duration::ZERO;
        for _ in 0..20 {
            let random = rng.f64();
            let next = asked.failed(&policy(), now, now, Some(Duration::ZERO), random);
            assert_eq!(next, plain.failed(&policy(), now, now, None, random), "seed {seed}");
            waited += wait(next);
        }
        assert!(waited > policy().initial_interval, "seed {seed}: {waited:?} for 20 attempts");
    }
}

#[test]
fn c5_without_a_limit_a_batch_is_never_given_up() {
    let began = Instant::now();
    let mut backoff = Backoff::default();
    for day in 0..1000 {
        let now = began + Duration::from_secs(day * 86_400);
        assert!(wait(backoff.failed(&policy(), began, now, None, 0.5)) <= policy().max_interval);
    }
}

#[test]
fn c5_a_batch_is_given_up_before_a_wait_would_pass_the_limit() {
    let limit = Duration::from_secs(300);
    let policy = Retry { max_elapsed_time: Some(limit), ..policy() };
    let began = Instant::now();
    let mut backoff = Backoff::default();
    let fits = backoff.failed(&policy, began, began + Duration::from_secs(299), None, 0.1);
    assert_eq!(fits, Next::Wait(Duration::from_millis(500)));
    let late = began + Duration::from_secs(299);
    assert_eq!(backoff.failed(&policy, began, late, None, 0.9), Next::GiveUp);
    let switched_off = Retry { enabled: false, ..policy };
    let now = Instant::now();
    assert_eq!(Backoff::default().failed(&switched_off, now, now, None, 0.0), Next::GiveUp);
}

#[test]
fn a_batch_is_sent_as_often_as_max_attempts_says_wherever_it_is_sent() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let most = rng.u32(1..10);
        let policy = Retry { max_attempts: Some(most), ..policy() };
        let (mut backoff, now, mut sent) = (Backoff::default(), Instant::now(), 0);
        loop {
            sent += 1;
            let next = match rng.bool() {
                true => backoff.failed_here(&policy, now, now),
                false => backoff.failed(&policy, now, now, None, rng.f64()),
            };
            // What holds a batch up before it is sent counts for nothing.
            let held_up = backoff.held_up(&policy, now, now, Duration::from_secs(1), rng.f64());
            assert!(matches!(held_up, Next::Wait(_)), "seed {seed}");
            if next == Next::GiveUp {
                break;
            }
        }
        assert_eq!(sent, most, "seed {seed}");
    }
}

#[test]
fn what_is_held_up_longer_than_max_elapsed_time_is_given_up_unless_retry_is_off() {
    let limited = Retry { max_elapsed_time: Some(Duration::from_secs(60)), ..policy() };
    let since = Instant::now();
    let later = since + Duration::from_secs(59);
    let least = Duration::from_secs(2);
    let mut backoff = Backoff::default();
    assert!(matches!(backoff.held_up(&limited, since, since, least, 0.5), Next::Wait(_)));
    assert_eq!(backoff.held_up(&limited, since, later, least, 0.0), Next::GiveUp);
    let off = Retry { enabled: false, ..limited };
    assert!(matches!(backoff.held_up(&off, since, later, least, 0.0), Next::Wait(_)));
}

/// Whatever a peer may answer, against any lists: only answers are judged by them, and what is
/// judged is tried again if and only if it is named.
#[test]
fn the_codes_that_are_named_and_no_others_are_tried_again() {
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..5_000 {
        let kind = FailureKind::ALL[rng.usize(..FailureKind::ALL.len())];
        let status = rng.bool().then(|| rng.u16(400..520));
        let code = rng.u32(1..17);
        let delay = rng.bool().then(|| Duration::from_secs(rng.u64(1..9)));
        let own = match rng.u8(0..3) {
            0 => Remedy::Retry { delay },
            1 => Remedy::Shrink,
            _ => Remedy::Drop,
        };
        let message = String::new();
        let failure = Failure { kind, code: Some(code), status, message, remedy: own };
        assert_eq!(remedy(&RetryCodes::default(), &failure), own);
        let codes = RetryCodes {
            grpc: Some((1..17).filter(|_| rng.bool()).collect()),
            http: Some((400..520).filter(|_| rng.bool()).collect()),
        };
        let is_named = match status {
            Some(status) => codes.http.as_ref().unwrap().contains(&status),
            None => codes.grpc.as_ref().unwrap().contains(&code),
        };
        let delay = if let Remedy::Retry { delay } = own { delay } else { None };
        let expected = match kind {
            FailureKind::Unavailable | FailureKind::Refused if is_named => Remedy::Retry { delay },
            FailureKind::Unavailable | FailureKind::Refused => Remedy::Drop,
            FailureKind::TooLarge if is_named => Remedy::Retry { delay },
            // There was no answer, or smaller requests may pass.
            _ => own,
        };
        assert_eq!(remedy(&codes, &failure), expected, "{failure:?}");
    }
}
