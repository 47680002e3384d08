//! Who runs where: from the cores this process may use to receiver and exporter cores.
//!
//! Always
//! - A plan names only CPUs the process may run on, and at least one receiver and one exporter.
//! - Threads share a core only where the plan says so (`shared`): then nothing may spin.
//!
//! Why these shares. Exporting a byte costs about what receiving it costs, and more with the
//! default gzip, so exporters get half of the cores and the odd one. The control thread is nearly
//! idle: on small hosts it floats, and from eight cores on it has the first core for itself,
//! where the kernel's own timers and most interrupts land, too.

use crate::cpulist;
use crate::host::Host;

/// From this many usable cores on, control has one for itself.
const CONTROL_CORES_MIN: usize = 8;

/// `engine.cores` as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Chosen from the host: see [`plan`].
    Auto,
    /// Explicit sets; a core may stand in both.
    Explicit { receivers: Vec<usize>, exporters: Vec<usize>, control: Option<usize> },
}

/// CPU numbers to pin to. Where cache groups have even sizes, `receivers[i]` and `exporters[i]`
/// share a last-level cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorePlan {
    pub receivers: Vec<usize>,
    pub exporters: Vec<usize>,
    /// `None`: control is not pinned.
    pub control: Option<usize>,
    /// Some core carries more than one thread: no thread may spin.
    pub shared: bool,
}

/// Places the threads on this host.
///
/// # Errors
/// For explicit sets only: one sentence for the operator, naming the CPUs that are not there.
pub fn plan(placement: &Placement, host: &Host) -> Result<CorePlan, String> {
    match placement {
        Placement::Auto => Ok(choose(host)),
        Placement::Explicit { receivers, exporters, control } => {
            verify("receivers", receivers, host)?;
            verify("exporters", exporters, host)?;
            verify("control", control.as_slice(), host)?;
            if receivers.is_empty() || exporters.is_empty() {
                return Err("engine.cores needs at least one receiver and one exporter core".into());
            }
            Ok(finish(receivers.clone(), exporters.clone(), *control))
        }
    }
}

fn choose(host: &Host) -> CorePlan {
    let mut cores = usable(host);
    if cores.len() == 1 {
        return finish(cores.clone(), cores, None);
    }
    let control = (cores.len() >= CONTROL_CORES_MIN).then(|| cores.remove(0));
    // Taking turns along the cache groups gives every group both kinds, and an odd core to the
    // exporters.
    let first = cores.len() % 2;
    let (mut receivers, mut exporters) = (Vec::new(), Vec::new());
    for (index, core) in cores.into_iter().enumerate() {
        match (index + first) % 2 {
            0 => receivers.push(core),
            _ => exporters.push(core),
        }
    }
    finish(receivers, exporters, control)
}

/// The CPUs to plan with, group by group: no more than the quota pays for, rounded down, because
/// a thread that is throttled in mid-turn holds up everything behind it.
fn usable(host: &Host) -> Vec<usize> {
    let mut groups = host.groups.clone();
    let count_max = match host.quota_cores {
        Some(cores) => (cores.floor() as usize).clamp(1, host.cpus.len()),
        None => host.cpus.len(),
    };
    if count_max < host.cpus.len() {
        // A few cores are best taken from one group: the largest, or else the first of those.
        groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    }
    groups.concat().into_iter().take(count_max).collect()
}

fn finish(receivers: Vec<usize>, exporters: Vec<usize>, control: Option<usize>) -> CorePlan {
    let mut all: Vec<usize> =
        receivers.iter().chain(&exporters).chain(control.as_slice()).copied().collect();
    all.sort_unstable();
    let shared = all.windows(2).any(|pair| pair[0] == pair[1]);
    CorePlan { receivers, exporters, control, shared }
}

fn verify(key: &str, cores: &[usize], host: &Host) -> Result<(), String> {
    let absent: Vec<usize> =
        cores.iter().copied().filter(|core| !host.cpus.contains(core)).collect();
    if absent.is_empty() {
        return Ok(());
    }
    Err(format!(
        "engine.cores.{key} names CPU {}, but this process may run only on {}",
        cpulist::format(&absent),
        cpulist::format(&host.cpus)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::IoUring;

    fn host(groups: &[&[usize]]) -> Host {
        let mut cpus: Vec<usize> = groups.concat();
        cpus.sort_unstable();
        Host {
            cpus,
            quota_cores: None,
            memory_bytes_max: None,
            memlock_bytes_max: None,
            kernel_release: "6.8.0-generic".into(),
            io_uring: IoUring::Allowed,
            groups: groups.iter().map(|group| group.to_vec()).collect(),
        }
    }

    fn auto(host: &Host) -> CorePlan {
        plan(&Placement::Auto, host).expect("auto always finds a place")
    }

    /// `cpus` in one group, and what auto makes of it.
    fn check(cpus: &[usize], receivers: &[usize], exporters: &[usize], control: Option<usize>) {
        let shared = cpus.len() == 1;
        let expected = CorePlan {
            receivers: receivers.to_vec(),
            exporters: exporters.to_vec(),
            control,
            shared,
        };
        assert_eq!(auto(&host(&[cpus])), expected, "{cpus:?}");
    }

    #[test]
    fn auto_shares_a_single_core_and_halves_the_others() {
        check(&[0], &[0], &[0], None);
        check(&[0, 1], &[0], &[1], None);
        check(&[0, 1, 2], &[1], &[0, 2], None);
        check(&[0, 1, 2, 3], &[0, 2], &[1, 3], None);
        check(&[0, 1, 2, 3, 4, 5, 6, 7], &[2, 4, 6], &[1, 3, 5, 7], Some(0));
    }

    #[test]
    fn auto_follows_holes_in_the_cpu_set() {
        check(&[5], &[5], &[5], None);
        check(&[3, 9], &[3], &[9], None);
        check(&[1, 2, 4, 8, 16, 32, 64, 128], &[4, 16, 64], &[2, 8, 32, 128], Some(1));
    }

    #[test]
    fn every_plan_up_to_128_cores_uses_each_core_once_and_favours_exporters_by_at_most_one() {
        for count in 2..=128 {
            let cpus: Vec<usize> = (0..count).collect();
            let made = auto(&host(&[&cpus]));
            let mut used: Vec<usize> = [made.receivers.clone(), made.exporters.clone()].concat();
            used.extend(made.control);
            used.sort_unstable();
            assert_eq!(used, cpus);
            assert!(!made.shared);
            let surplus = made.exporters.len() - made.receivers.len();
            assert!(surplus <= 1, "{count} cores: {made:?}");
        }
    }

    #[test]
    fn on_64_cores_each_receiver_has_an_exporter_behind_the_same_cache() {
        // Numbered as many machines do it: neighbours lie in different groups.
        let groups: Vec<Vec<usize>> =
            (0..8).map(|group| (0..8).map(|i| i * 8 + group).collect()).collect();
        let slices: Vec<&[usize]> = groups.iter().map(Vec::as_slice).collect();
        let made = auto(&host(&slices));
        assert_eq!((made.receivers.len(), made.exporters.len()), (31, 32));
        assert_eq!(made.control, Some(0));
        for group in &groups {
            let count = |cores: &[usize]| cores.iter().filter(|c| group.contains(c)).count();
            assert!(count(&made.receivers).abs_diff(count(&made.exporters)) <= 1, "{group:?}");
        }
    }

    #[test]
    fn a_quota_below_the_core_count_reduces_the_plan_to_whole_cores_of_one_group() {
        let mut small = host(&[&[0, 1], &[2, 3, 4, 5]]);
        small.quota_cores = Some(2.9);
        assert_eq!(auto(&small).receivers, [2]);
        assert_eq!(auto(&small).exporters, [3]);
        small.quota_cores = Some(0.5);
        let made = auto(&small);
        assert_eq!((made.receivers, made.exporters, made.shared), (vec![2], vec![2], true));
        small.quota_cores = Some(99.0);
        assert_eq!(auto(&small).receivers.len(), 3);
    }

    #[test]
    fn explicit_sets_are_taken_as_they_are_and_say_when_a_core_is_shared() {
        let explicit = |receivers: &[usize], exporters: &[usize], control| Placement::Explicit {
            receivers: receivers.to_vec(),
            exporters: exporters.to_vec(),
            control,
        };
        let four = host(&[&[0, 1, 2, 3]]);
        let made = plan(&explicit(&[0, 1], &[1], Some(3)), &four).expect("all there");
        assert_eq!(made.receivers, [0, 1]);
        assert!(made.shared);
        let made = plan(&explicit(&[0], &[1], None), &four).expect("all there");
        assert!(!made.shared);
        let refused = plan(&explicit(&[0, 8, 9], &[1], None), &four).expect_err("no CPU 8");
        assert_eq!(
            refused,
            "engine.cores.receivers names CPU 8-9, but this process may run only on 0-3"
        );
        assert!(plan(&explicit(&[], &[1], None), &four).is_err());
    }
}
