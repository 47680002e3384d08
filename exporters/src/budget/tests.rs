//! The retry budget held to its promise: over any span, no more retries than was paid for.

use super::*;

fn settings(ratio: f64, min_per_second: f64, tokens_max: u32) -> Settings {
    Settings { ratio, min_per_second, tokens_max }
}

#[test]
fn withdrawals_never_exceed_what_was_saved_plus_time_plus_successes() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let epoch = Instant::now();
        let of = settings(rng.f64(), f64::from(rng.u32(0..50)), rng.u32(1..200));
        let budget = RetryBudget::new(of, epoch);
        let (mut now, mut withdrawn, mut successes) = (epoch, 0_u32, 0_u32);
        for _ in 0..2_000 {
            now += Duration::from_micros(rng.u64(0..40_000));
            if rng.u8(0..3) == 0 {
                budget.deposit(now);
                successes += 1;
            } else {
                withdrawn += u32::from(budget.withdraw(now).is_ok());
            }
            let seconds = (now - epoch).as_secs_f64();
            let most = f64::from(of.tokens_max)
                + of.min_per_second.max(PER_SECOND_MIN) * seconds
                + of.ratio * f64::from(successes);
            assert!(f64::from(withdrawn) <= most + 0.01, "seed {seed}: {withdrawn} of {most}");
        }
    }
}

#[test]
fn a_steady_asker_gets_the_whole_rate_whatever_its_rhythm() {
    for seed in 0..50 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let epoch = Instant::now();
        let per_second = f64::from(rng.u32(3..40)) / 3.0;
        let budget = RetryBudget::new(settings(0.0, per_second, 5), epoch);
        let (mut now, mut withdrawn) = (epoch, 0_u32);
        while (now - epoch).as_secs() < 100 {
            now += Duration::from_micros(rng.u64(1..5_000));
            withdrawn += u32::from(budget.withdraw(now).is_ok());
        }
        let paid = 5.0 + per_second * 100.0;
        assert!(f64::from(withdrawn) > paid * 0.99 - 1.0, "seed {seed}: {withdrawn} of {paid}");
    }
}

#[test]
fn asking_again_when_told_gets_a_token_if_nobody_else_asks() {
    let epoch = Instant::now();
    let budget = RetryBudget::new(settings(0.0, 7.0, 1), epoch);
    let mut now = epoch;
    assert_eq!(budget.withdraw(now), Ok(()));
    for _ in 0..1_000 {
        let wait = budget.withdraw(now).expect_err("it was just emptied");
        now += wait;
        assert_eq!(budget.withdraw(now), Ok(()), "after {wait:?}");
    }
}

#[test]
fn threads_that_withdraw_at_once_share_the_tokens_and_make_none() {
    let epoch = Instant::now();
    let budget = RetryBudget::new(settings(0.0, 0.0, 5_000), epoch);
    let withdrawn: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..3_000).filter(|_| budget.withdraw(epoch).is_ok()).count()))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).sum()
    });
    assert_eq!(withdrawn, 5_000);
}

/// Nothing succeeds, so nothing but time brings tokens, and the settings grant none for that.
#[test]
fn a_destination_that_takes_nothing_is_tried_each_second_whatever_the_settings_say() {
    for min_per_second in [0.0, 0.001, 0.9, -3.0, f64::NAN] {
        let epoch = Instant::now();
        let budget = RetryBudget::new(settings(0.2, min_per_second, 20), epoch);
        while budget.withdraw(epoch).is_ok() {}
        let (mut now, mut withdrawn) = (epoch, 0);
        while withdrawn < 600 {
            match budget.withdraw(now) {
                Ok(()) => withdrawn += 1,
                Err(wait) => now += wait,
            }
            assert!(now - epoch <= Duration::from_secs(withdrawn + 1), "{min_per_second}");
        }
        assert!(now - epoch > Duration::from_secs(598), "{min_per_second}: more than the floor");
    }
}
