//! CPU lists as the kernel and its users write them: `0-3,8,10-11`.

/// The largest CPU number taken plus one. Far above any machine; it bounds what a typo such as
/// `0-99999999` can cost.
pub const CPUS_MAX: usize = 8192;

/// Reads a list of CPU numbers and ranges, sorted and without repeats. An empty text is an empty
/// list, as in sysfs.
///
/// # Errors
/// A sentence that names the part which is not a number or a rising range.
pub fn parse(text: &str) -> Result<Vec<usize>, String> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',').filter(|_| !text.trim().is_empty()) {
        let part = part.trim();
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first, part)?, number(last, part)?);
        if first > last {
            return Err(format!("the range \"{part}\" runs backwards"));
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Ok(cpus)
}

/// Writes a list in the form [`parse`] reads, runs of neighbours as ranges.
pub fn format(cpus: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => runs.push((cpu, cpu)),
        }
    }
    let texts: Vec<String> = runs
        .iter()
        .map(|(first, last)| match last - first {
            0 => first.to_string(),
            _ => format!("{first}-{last}"),
        })
        .collect();
    texts.join(",")
}

fn number(text: &str, part: &str) -> Result<usize, String> {
    match text.trim().parse::<usize>() {
        Ok(cpu) if cpu < CPUS_MAX => Ok(cpu),
        Ok(cpu) => {
            Err(format!("there is no CPU {cpu}: the highest number taken is {}", CPUS_MAX - 1))
        }
        Err(_) => Err(format!("\"{part}\" is neither a CPU number nor a range such as 0-3")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges_are_read_sorted_and_without_repeats() {
        assert_eq!(parse("8, 0-3,2\n"), Ok(vec![0, 1, 2, 3, 8]));
        assert_eq!(parse("\n"), Ok(vec![]));
    }

    #[test]
    fn what_is_no_list_is_named() {
        for bad in ["a", "1-", "-1", "3-1", "1,,2", "0-99999999", "1 2"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn writing_and_reading_is_the_identity_for_every_set_of_ten_cpus() {
        for set in 0u32..1024 {
            let cpus: Vec<usize> = (0..10).filter(|cpu| set >> cpu & 1 == 1).collect();
            assert_eq!(parse(&format(&cpus)), Ok(cpus));
        }
    }
}
