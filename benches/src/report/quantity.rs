//! Figures as people read them: three significant digits and the unit that fits.
//!
//! Never rounds a figure to nothing: what is above zero never reads as `0`.

/// A count or a rate: `850`, `12.3 k`, `1.84 M`.
pub(super) fn count(value: f64) -> String {
    scaled(value, &[(1e9, " G"), (1e6, " M"), (1e3, " k"), (1.0, "")])
}

/// Nanoseconds: `175 ns`, `2.40 µs`, `1.20 ms`.
pub(super) fn nanos(value: f64) -> String {
    scaled(value, &[(1e9, " s"), (1e6, " ms"), (1e3, " µs"), (1.0, " ns")])
}

/// Microseconds, in the same units.
pub(super) fn micros(value: f64) -> String {
    nanos(value * 1e3)
}

/// Bytes, in powers of two: `48.0 MiB`.
pub(super) fn bytes(value: f64) -> String {
    const KIB: f64 = 1024.0;
    scaled(value, &[(KIB * KIB * KIB, " GiB"), (KIB * KIB, " MiB"), (KIB, " KiB"), (1.0, " B")])
}

/// A ratio: `1.42×`.
pub(super) fn ratio(value: f64) -> String {
    format!("{}×", digits(value))
}

/// How far the runs lie apart, as a part of the median: `±3.1 %`, half of max less min.
pub(super) fn spread(median: f64, min: f64, max: f64) -> String {
    if median <= 0.0 || !(max - min).is_finite() {
        return "–".to_owned();
    }
    format!("±{:.1} %", (max - min) / 2.0 / median * 100.0)
}

/// A tick of an axis: as short as it can be said, `1.5 ms`, `20 k`.
pub(super) fn tick(value: f64, say: fn(f64) -> String) -> String {
    let said = say(value);
    let end = said.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(said.len());
    let (number, unit) = said.split_at(end);
    match number.contains('.') {
        true => format!("{}{unit}", number.trim_end_matches('0').trim_end_matches('.')),
        false => said,
    }
}

fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    // 999.6 reads as 1000 with three digits, so it goes to the larger unit.
    let fitting = units.iter().find(|(size, _)| value.abs() / size >= 0.9995);
    let (size, unit) = fitting.or(units.last()).expect("there is at least one unit");
    format!("{}{unit}", digits(value / size))
}

/// Three significant digits.
fn digits(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.0995 && value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 0.0995 => format!("{value:.2}"),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_the_unit_that_fits() {
        assert_eq!(count(0.0), "0");
        assert_eq!(count(850.4), "850");
        assert_eq!(count(999.7), "1.00 k");
        assert_eq!(count(1_840_000.0), "1.84 M");
        assert_eq!(nanos(175.2), "175 ns");
        assert_eq!(nanos(2_400.0), "2.40 µs");
        assert_eq!(micros(1_250.0), "1.25 ms");
        assert_eq!(bytes(48.0 * 1024.0 * 1024.0), "48.0 MiB");
        assert_eq!(ratio(1.418), "1.42×");
        assert_eq!(spread(200.0, 190.0, 210.0), "±5.0 %");
        assert_eq!(count(f64::NAN), "–");
    }

    #[test]
    fn what_is_above_zero_never_reads_as_zero() {
        let mut value = 1e-9;
        while value < 1e12 {
            for said in [count(value), nanos(value), bytes(value), ratio(value)] {
                assert!(said.contains(|c: char| ('1'..='9').contains(&c)), "{value}: {said}");
            }
            value *= 1.37;
        }
    }

    #[test]
    fn ticks_are_short() {
        assert_eq!(tick(1_500.0, nanos), "1.5 µs");
        assert_eq!(tick(20_000.0, count), "20 k");
        assert_eq!(tick(0.0, count), "0");
    }
}
