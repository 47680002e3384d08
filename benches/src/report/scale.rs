//! Axes as arithmetic: where a value lies between the ends, and where the ticks go.
//!
//! Always
//! - `place` of a value between the ends is between 0 and 1, and grows with it.
//! - Ticks are between the ends, ascending, and few enough to be read.

/// One axis. Its ends are `lo < hi`; a logarithmic one has `lo > 0`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    pub(super) lo: f64,
    pub(super) hi: f64,
    /// Between two ticks; `None` on a logarithmic axis.
    step: Option<f64>,
}

impl Scale {
    /// From 0 to a round number at or above the largest value.
    pub(super) fn from_zero(values: impl Iterator<Item = f64>) -> Scale {
        let largest = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        let step = round_step(if largest > 0.0 { largest } else { 1.0 });
        let hi = (largest / step).ceil().max(1.0) * step;
        Scale { lo: 0.0, hi, step: Some(step) }
    }

    /// Logarithmic around all values above zero, with a little room at both ends, and at least
    /// a factor of 4 wide so that noise does not fill the page.
    pub(super) fn log(values: impl Iterator<Item = f64>) -> Scale {
        let (mut lo, mut hi) = (f64::INFINITY, 0.0f64);
        for value in values.filter(|value| value.is_finite() && *value > 0.0) {
            (lo, hi) = (lo.min(value), hi.max(value));
        }
        if hi == 0.0 {
            (lo, hi) = (1.0, 10.0);
        }
        let room = (4.0 * lo / hi).sqrt().max(1.15).max((hi / lo).powf(0.06));
        Scale { lo: lo / room, hi: hi * room, step: None }
    }

    /// Logarithmic between two ends, `0 < lo < hi`.
    pub(super) fn fixed_log(lo: f64, hi: f64) -> Scale {
        Scale { lo, hi, step: None }
    }

    pub(super) fn place(&self, value: f64) -> f64 {
        let place = match self.step {
            None => (value / self.lo).ln() / (self.hi / self.lo).ln(),
            Some(_) => (value - self.lo) / (self.hi - self.lo),
        };
        if place.is_finite() { place.clamp(0.0, 1.0) } else { 0.0 }
    }

    pub(super) fn ticks(&self) -> Vec<f64> {
        if let Some(step) = self.step {
            let steps = (self.hi / step).round() as u32;
            return (0..=steps).map(|at| f64::from(at) * step).collect();
        }
        let decades = (self.hi / self.lo).log10();
        let within: &[f64] = match decades {
            ..1.2 => &[1.0, 2.0, 3.0, 5.0, 7.0],
            ..3.2 => &[1.0, 3.0],
            _ => &[1.0],
        };
        let every = if decades > 7.0 { 2 } else { 1 };
        let (first, last) = (self.lo.log10().floor() as i32, self.hi.log10().ceil() as i32);
        let exponents = (first..=last).filter(|exponent| exponent % every == 0);
        exponents
            .flat_map(|exponent| within.iter().map(move |step| step * 10f64.powi(exponent)))
            .filter(|tick| (self.lo..=self.hi).contains(tick))
            .collect()
    }
}

/// 1, 2 or 5 times a power of ten, so that a handful of steps reaches `largest`.
fn round_step(largest: f64) -> f64 {
    let rough = largest / 4.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().find(|step| step * power >= rough * 0.999);
    step.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(scale: Scale, values: &[f64], note: &str) {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let places: Vec<f64> = sorted.iter().map(|value| scale.place(*value)).collect();
        assert!(places.iter().all(|place| (0.0..=1.0).contains(place)), "{note}: {places:?}");
        assert!(places.is_sorted(), "{note}: {places:?}");
        let ticks = scale.ticks();
        assert!(ticks.is_sorted_by(|a, b| a < b), "{note}: {ticks:?}");
        assert!((2..=9).contains(&ticks.len()), "{note}: {scale:?} {ticks:?}");
        let reach = scale.lo * 0.999..=scale.hi * 1.001;
        assert!(ticks.iter().all(|tick| reach.contains(tick)), "{note}: {ticks:?}");
    }

    #[test]
    fn every_value_has_its_place_and_every_axis_a_handful_of_ticks() {
        for seed in 0..2_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let magnitude = 10f64.powi(random.i32(-2..9));
            let decades = random.i32(0..6);
            let values: Vec<f64> = (0..random.usize(1..20))
                .map(|_| magnitude * 10f64.powf(random.f64() * f64::from(decades)))
                .collect();
            holds(Scale::from_zero(values.iter().copied()), &values, &format!("seed {seed}"));
            holds(Scale::log(values.iter().copied()), &values, &format!("log, seed {seed}"));
        }
    }

    #[test]
    fn an_axis_without_values_is_still_an_axis() {
        holds(Scale::from_zero(std::iter::empty()), &[0.0], "empty");
        holds(Scale::log([0.0, f64::NAN].into_iter()), &[1.0], "nothing above zero");
    }
}
