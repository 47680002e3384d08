//! When requests are meant to be sent, whatever the answers do. Nanoseconds since the start.
//!
//! Latency counts from here, so a stall is felt by every request that it holds up (no coordinated
//! omission).

use serde::{Deserialize, Serialize};

/// How requests of open mode are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// At equal distances.
    Even,
    /// Independently of each other, as many clients send.
    #[default]
    Poisson,
    /// As `poisson`, but four times as much in one fifth of each second, and a quarter else.
    Bursts,
}

const SECOND: f64 = 1e9;
const BURST_SHARE: f64 = 0.2;
const BURST_FACTOR: f64 = 4.0;
const LULL_FACTOR: f64 = 0.25;

pub(super) struct Schedule {
    arrivals: Arrivals,
    nanos_per_request: f64,
    random: fastrand::Rng,
    next: f64,
}

impl Schedule {
    /// `rate_per_s` above zero, of this thread alone.
    pub(super) fn new(arrivals: Arrivals, rate_per_s: f64, seed: u64) -> Schedule {
        let nanos_per_request = SECOND / rate_per_s;
        Schedule { arrivals, nanos_per_request, random: fastrand::Rng::with_seed(seed), next: 0.0 }
    }

    /// When the next request is meant to be sent.
    pub(super) fn next(&self) -> u64 {
        self.next as u64
    }

    /// It has been sent, or was given up.
    pub(super) fn advance(&mut self) {
        let gap = match self.arrivals {
            Arrivals::Even => 1.0,
            Arrivals::Poisson => self.exponential(),
            Arrivals::Bursts => {
                let within = self.next % SECOND / SECOND;
                let factor = if within < BURST_SHARE { BURST_FACTOR } else { LULL_FACTOR };
                self.exponential() / factor
            }
        };
        self.next += gap * self.nanos_per_request;
    }

    fn exponential(&mut self) -> f64 {
        -(1.0 - self.random.f64()).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_arriving_keeps_the_rate_over_seconds() {
        for arrivals in [Arrivals::Even, Arrivals::Poisson, Arrivals::Bursts] {
            let mut schedule = Schedule::new(arrivals, 5_000.0, 11);
            let mut count = 0;
            while schedule.next() < 20_000_000_000 {
                schedule.advance();
                count += 1;
            }
            assert!((97_000..103_000).contains(&count), "{arrivals:?}: {count} in 20 s");
        }
    }
}
