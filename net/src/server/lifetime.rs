//! How old a connection may get: so that clients which never leave are spread anew over cores and
//! processes, now and then.
//!
//! At its age a connection is told to leave, in its protocol's own way and without losing a
//! request; if it has not left when the grace is over, it is cut. Ages differ by chance, so that
//! connections that came together do not leave together.

use crate::request::Nanos;

/// For the connections of one listener. 0: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// Without any request.
    pub idle_timeout: Nanos,
    /// Until it is told to leave, give or take a tenth.
    pub age_max: Nanos,
    /// From then until it is cut.
    pub age_grace: Nanos,
}

/// What to do with a connection that is old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Retire,
    Cut,
}

/// Where one connection is in its life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Age {
    retire_at: Option<Nanos>,
    cut_at: Option<Nanos>,
    grace: Nanos,
}

impl Age {
    /// `chance`: any number; connections with different ones leave at different times.
    pub(crate) fn new(lifetime: &Lifetime, chance: u64, now: Nanos) -> Age {
        let tenth = lifetime.age_max / 10;
        let spread = (u128::from(chance) * u128::from(2 * tenth)) >> 64;
        let age = lifetime.age_max - tenth + spread as Nanos;
        let retire_at = (lifetime.age_max > 0).then(|| now.saturating_add(age));
        Age { retire_at, cut_at: None, grace: lifetime.age_grace }
    }

    /// When [`Age::step`] has something to say.
    pub(crate) fn due(&self) -> Option<Nanos> {
        self.retire_at.or(self.cut_at)
    }

    pub(crate) fn step(&mut self, now: Nanos) -> Option<Step> {
        if self.retire_at.take_if(|at| *at <= now).is_some() {
            self.cut_at = (self.grace > 0).then(|| now.saturating_add(self.grace));
            return Some(Step::Retire);
        }
        self.cut_at.take_if(|at| *at <= now).map(|_| Step::Cut)
    }
}

/// Numbers by chance: spread, not secrecy (splitmix64).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_come_together_leave_one_after_the_other_within_a_tenth_of_their_age() {
        let seed = 7;
        let lifetime = Lifetime { age_max: 1_000_000, age_grace: 500, idle_timeout: 0 };
        let mut chance = Chance(seed);
        let mut due: Vec<Nanos> = (0..1_000)
            .map(|_| Age::new(&lifetime, chance.draw(), 5).due().expect("an age"))
            .collect();
        due.sort_unstable();
        assert!(due[0] >= 900_005 && due[999] <= 1_100_005, "seed {seed}: {due:?}");
        let widest = due.windows(2).map(|pair| pair[1] - pair[0]).max().expect("pairs");
        assert!(widest < 5_000, "seed {seed}: a gap of {widest}");
    }

    #[test]
    fn an_old_connection_is_told_once_and_cut_once() {
        let lifetime = Lifetime { age_max: 100, age_grace: 50, idle_timeout: 0 };
        let mut age = Age::new(&lifetime, u64::MAX / 2, 0);
        let due = age.due().expect("an age");
        assert_eq!(age.step(due - 1), None);
        assert_eq!(age.step(due), Some(Step::Retire));
        assert_eq!((age.step(due + 49), age.due()), (None, Some(due + 50)));
        assert_eq!(age.step(due + 50), Some(Step::Cut));
        assert_eq!((age.step(Nanos::MAX), age.due()), (None, None));
    }

    #[test]
    fn zero_is_never() {
        let mut age = Age::new(&Lifetime::default(), 3, 0);
        assert_eq!((age.due(), age.step(Nanos::MAX)), (None, None));
        let lifetime = Lifetime { age_max: 10, ..Lifetime::default() };
        let mut age = Age::new(&lifetime, 3, 0);
        assert_eq!(age.step(11), Some(Step::Retire));
        assert_eq!((age.due(), age.step(Nanos::MAX)), (None, None), "no grace: it is not cut");
    }
}
