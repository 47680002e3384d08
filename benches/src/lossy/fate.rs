//! What becomes of a datagram: drawn from a seed, and from nothing else.
//!
//! Always: as many numbers are drawn for each datagram, whatever the path does, so that the nth
//! one's fate does not depend on those before it.

use std::time::Duration;

use super::Settings;

/// What is overtaken is so much later than the path makes it, at least.
const OVERTAKEN_MIN: Duration = Duration::from_millis(2);

/// A path, one way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Path {
    pub loss: f64,
    pub delay: Duration,
    pub jitter: Duration,
    pub reorder: f64,
    pub duplicate: f64,
}

/// One datagram's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// After how long it arrives. `None`: never.
    pub after: Option<Duration>,
    /// After how long it arrives once more.
    pub again: Option<Duration>,
    /// Those behind it may be faster.
    pub is_overtaken: bool,
}

/// Those of one flow, one way, in order.
#[derive(Clone, Debug)]
pub struct Fates {
    path: Path,
    random: fastrand::Rng,
}

/// Which way a flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToServer,
    ToClient,
}

impl Path {
    /// What the command line says, if it makes sense.
    pub fn of(settings: &Settings) -> Result<Path, String> {
        let shares = [
            ("--loss", settings.loss),
            ("--reorder", settings.reorder),
            ("--duplicate", settings.duplicate),
        ];
        if let Some((name, _)) = shares.iter().find(|(_, share)| !(0.0..1.0).contains(share)) {
            return Err(format!("{name} is a share: 0 or more, and below 1"));
        }
        let time = |name: &str, ms: f64| {
            let is_sane = (0.0..=60_000.0).contains(&ms);
            let time = is_sane.then(|| Duration::from_secs_f64(ms / 1000.0));
            time.ok_or_else(|| format!("{name} is 0 or more, and at most a minute"))
        };
        Ok(Path {
            loss: settings.loss,
            delay: time("--delay-ms", settings.delay_ms)?,
            jitter: time("--jitter-ms", settings.jitter_ms)?,
            reorder: settings.reorder,
            duplicate: settings.duplicate,
        })
    }

    /// There and back, as a rule.
    pub fn round_trip(&self) -> Duration {
        2 * self.delay + self.jitter
    }
}

impl Fates {
    /// Of the flow that came as number `flow`.
    pub fn new(path: Path, seed: u64, flow: u64, way: Way) -> Fates {
        let place = flow << 1 | u64::from(way == Way::ToClient);
        // Neighbours must not look alike: spread before they seed.
        let spread = (place + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Fates { path, random: fastrand::Rng::with_seed(seed ^ spread) }
    }
}

impl Iterator for Fates {
    type Item = Fate;

    /// Never ends.
    fn next(&mut self) -> Option<Fate> {
        let [loss, duplicate, reorder, jitter, other] = [(); 5].map(|()| self.random.f64());
        let Path { delay, .. } = self.path;
        let after = |share: f64| delay + self.path.jitter.mul_f64(share);
        if loss < self.path.loss {
            return Some(Fate::default());
        }
        let is_overtaken = reorder < self.path.reorder;
        let more = if is_overtaken { (delay / 4).max(OVERTAKEN_MIN) } else { Duration::ZERO };
        Some(Fate {
            after: Some(after(jitter) + more),
            again: (duplicate < self.path.duplicate).then(|| after(other)),
            is_overtaken,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: Path = Path {
        loss: 0.02,
        delay: Duration::from_millis(50),
        jitter: Duration::from_millis(10),
        reorder: 0.05,
        duplicate: 0.01,
    };

    fn fates(path: Path, seed: u64, flow: u64, way: Way) -> Vec<Fate> {
        Fates::new(path, seed, flow, way).take(20_000).collect()
    }

    #[test]
    fn a_seed_is_the_same_path_again_and_another_seed_flow_or_way_is_another() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let drawn = fates(PATH, seed, 3, Way::ToServer);
        assert_eq!(drawn, fates(PATH, seed, 3, Way::ToServer));
        assert_ne!(drawn, fates(PATH, seed.wrapping_add(1), 3, Way::ToServer));
        assert_ne!(drawn, fates(PATH, seed, 4, Way::ToServer));
        assert_ne!(drawn, fates(PATH, seed, 3, Way::ToClient));
    }

    #[test]
    fn who_is_lost_does_not_depend_on_what_else_the_path_does() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let plain = Path { jitter: Duration::ZERO, reorder: 0.0, duplicate: 0.0, ..PATH };
        let lost = |path| {
            let all = fates(path, seed, 0, Way::ToServer).into_iter();
            all.map(|fate| fate.after.is_none()).collect::<Vec<bool>>()
        };
        assert_eq!(lost(PATH), lost(plain));
    }

    #[test]
    fn shares_and_delays_are_those_that_were_asked_for() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let all = fates(PATH, seed, 0, Way::ToClient);
        let share = |wanted: fn(&Fate) -> bool| {
            all.iter().filter(|fate| wanted(fate)).count() as f64 / all.len() as f64
        };
        // Of 20,000: five standard deviations, and more.
        assert!((0.014..0.026).contains(&share(|fate| fate.after.is_none())));
        assert!((0.006..0.014).contains(&share(|fate| fate.again.is_some())));
        assert!((0.040..0.060).contains(&share(|fate| fate.is_overtaken)));
        let usual = all.iter().filter(|fate| !fate.is_overtaken).filter_map(|fate| fate.after);
        let (least, most) = (PATH.delay, PATH.delay + PATH.jitter);
        assert!(usual.clone().all(|after| (least..=most).contains(&after)));
        assert!(usual.clone().any(|after| after > most - PATH.jitter / 10));
        assert!(all.iter().filter(|fate| fate.is_overtaken).all(|fate| fate.after > Some(least)));
    }
}
