//! The beat as properties over seeded successes and failures.

use super::*;

const TTL: Duration = Duration::from_secs(15);

#[test]
fn two_signs_of_life_may_fail_before_the_entry_dies() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut now = Instant::now();
        let mut pulse = Pulse::new("test".to_owned(), TTL, now);
        assert_eq!(pulse.due(), now);
        for step in 0..200 {
            let said = match random.u8(0..3) {
                0 => Err(Failure::new("refused", "start it")),
                1 => Ok(Announced::Anew),
                _ => Ok(Announced::Known),
            };
            let (is_failure, is_anew) = (said.is_err(), said == Ok(Announced::Anew));
            pulse.take(said, now, random.f64());
            let wait = pulse.due() - now;
            assert!(wait <= TTL / 3, "seed {seed}, step {step}: {wait:?}");
            let least = if is_failure { BACKOFF_FIRST / 2 } else { TTL / 4 };
            assert!(wait >= least, "seed {seed}, step {step}: {wait:?}");
            let news: Vec<News> = std::iter::from_fn(|| pulse.take_news()).collect();
            let registered = news.iter().filter(|n| matches!(n, News::Registered { .. })).count();
            assert_eq!(registered, usize::from(is_anew), "seed {seed}, step {step}");
            assert!(news.len() <= 2, "seed {seed}, step {step}: {news:?}");
            now += wait;
        }
    }
}

#[test]
fn health_is_told_at_once_unless_the_registry_fails() {
    let now = Instant::now();
    let mut pulse = Pulse::new("test".to_owned(), TTL, now);
    pulse.take(Ok(Announced::Anew), now, 0.5);
    let later = now + Duration::from_secs(1);
    pulse.hurry(later);
    assert_eq!(pulse.due(), later);
    pulse.take(Err(Failure::new("refused", "start it")), later, 0.5);
    let due = pulse.due();
    pulse.hurry(later);
    assert_eq!(pulse.due(), due);
    assert!(due > later);
}
