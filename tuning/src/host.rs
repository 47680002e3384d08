//! What this node is: CPUs, quotas, memory limits, kernel, cache groups.
//!
//! Everything is read from the kernel's own files and never changed. What cannot be read is
//! absent rather than an error: a container without sysfs is a host too.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cpulist;

/// The node as this process sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// CPUs this process may run on (`sched_getaffinity`), sorted. Never empty.
    pub cpus: Vec<usize>,
    /// CPU time the cgroup allows, in cores; the tightest from the process up to the root.
    /// `None`: no quota.
    pub quota_cores: Option<f64>,
    /// Memory the cgroup allows, in bytes. `None`: no limit.
    pub memory_bytes_max: Option<u64>,
    /// `RLIMIT_MEMLOCK`, the soft limit, in bytes. `None`: unlimited.
    pub memlock_bytes_max: Option<u64>,
    /// `uname -r`.
    pub kernel_release: String,
    /// `kernel.io_uring_disabled`.
    pub io_uring: IoUring,
    /// CPUs that share a last-level cache, or a NUMA node where sysfs tells no caches. Covers
    /// [`Host::cpus`] exactly; one group where sysfs tells nothing.
    pub groups: Vec<Vec<usize>>,
}

/// The sysctl `kernel.io_uring_disabled`. It says nothing of seccomp, which only a try can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoUring {
    /// 0, or a kernel older than the sysctl (6.6).
    Allowed,
    /// 1: only for CAP_SYS_ADMIN and the group `kernel.io_uring_group`.
    Restricted,
    /// 2: for nobody.
    Forbidden,
}

impl Host {
    /// Reads the node this process runs on.
    pub fn detect() -> Host {
        let root = Path::new("/");
        let cpus = allowed_cpus(root);
        Host {
            groups: groups(root, &cpus),
            cpus,
            quota_cores: quota_cores(root),
            memory_bytes_max: memory_bytes_max(root),
            memlock_bytes_max: rustix::process::getrlimit(rustix::process::Resource::Memlock)
                .current,
            kernel_release: rustix::system::uname().release().to_string_lossy().into_owned(),
            io_uring: io_uring(root),
        }
    }

    /// Major and minor of [`Host::kernel_release`]: `(6, 1)`. `None` if it has another form.
    pub fn kernel_version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.kernel_release.split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

/// The affinity mask. It has 1,024 bits; on larger machines the kernel refuses it and the list of
/// CPUs that are online has to do.
fn allowed_cpus(root: &Path) -> Vec<usize> {
    let cpus: Vec<usize> = match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect(),
        Err(_) => line(root, "sys/devices/system/cpu/online")
            .and_then(|text| cpulist::parse(&text).ok())
            .unwrap_or_default(),
    };
    if cpus.is_empty() { vec![0] } else { cpus }
}

fn io_uring(root: &Path) -> IoUring {
    match line(root, "proc/sys/kernel/io_uring_disabled").as_deref() {
        Some("1") => IoUring::Restricted,
        Some("2") => IoUring::Forbidden,
        _ => IoUring::Allowed,
    }
}

/// cgroup v2 `cpu.max` ("max 100000" or "150000 100000"), else v1's pair of files. The tightest
/// of all levels counts, because each level throttles.
fn quota_cores(root: &Path) -> Option<f64> {
    let v2 = cgroup_levels(root, "", "").into_iter().filter_map(|level| {
        let text = line(&level, "cpu.max")?;
        let (quota, period) = text.split_once(' ')?;
        cores_of(quota, period)
    });
    let v1 = cgroup_levels(root, "cpu", "cpu").into_iter().filter_map(|level| {
        cores_of(&line(&level, "cpu.cfs_quota_us")?, &line(&level, "cpu.cfs_period_us")?)
    });
    v2.chain(v1).reduce(f64::min)
}

fn cores_of(quota_us: &str, period_us: &str) -> Option<f64> {
    let (quota, period) = (quota_us.parse::<f64>().ok()?, period_us.parse::<f64>().ok()?);
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

/// v2 `memory.max`, else v1 `memory.limit_in_bytes`, where "none" is written as a number near
/// 2^63.
fn memory_bytes_max(root: &Path) -> Option<u64> {
    const NONE_IN_V1: u64 = 1 << 62;
    let v2 = cgroup_levels(root, "", "")
        .into_iter()
        .filter_map(|level| line(&level, "memory.max")?.parse::<u64>().ok());
    let v1 = cgroup_levels(root, "memory", "memory")
        .into_iter()
        .filter_map(|level| line(&level, "memory.limit_in_bytes")?.parse::<u64>().ok())
        .filter(|bytes| *bytes < NONE_IN_V1);
    v2.chain(v1).min()
}

/// The process's cgroup folder and its parents up to the mount. `controller` is empty for v2.
/// Folders that do not exist here are left out: inside a container `/proc/self/cgroup` may name
/// the host's path while the mount shows only the container's own.
fn cgroup_levels(root: &Path, controller: &str, mount: &str) -> Vec<PathBuf> {
    let Ok(table) = fs::read_to_string(root.join("proc/self/cgroup")) else {
        return Vec::new();
    };
    let own = table.lines().find_map(|row| {
        let mut fields = row.splitn(3, ':').skip(1);
        let (names, path) = (fields.next()?, fields.next()?);
        names.split(',').any(|name| name == controller).then_some(path)
    });
    let Some(own) = own else { return Vec::new() };
    let base = root.join("sys/fs/cgroup").join(mount);
    let mut levels = vec![base.clone()];
    for part in own.split('/').filter(|part| !part.is_empty() && *part != "..") {
        let below = levels.last().expect("starts with the base").join(part);
        levels.push(below);
    }
    levels.retain(|level| level.is_dir());
    levels
}

/// Splits `cpus` by shared last-level cache, then by NUMA node, else leaves one group.
fn groups(root: &Path, cpus: &[usize]) -> Vec<Vec<usize>> {
    let by_cache = split_by(cpus, |cpu| {
        line(root, &format!("sys/devices/system/cpu/cpu{cpu}/cache/index3/shared_cpu_list"))
    });
    by_cache.or_else(|| split_by(cpus, |cpu| node_of(root, cpu))).unwrap_or(vec![cpus.to_vec()])
}

/// `None` if `name` knows a group for none of the CPUs. Those it does not know form one group.
fn split_by(cpus: &[usize], name: impl Fn(usize) -> Option<String>) -> Option<Vec<Vec<usize>>> {
    let names: Vec<Option<String>> = cpus.iter().map(|cpu| name(*cpu)).collect();
    names.iter().flatten().next()?;
    let mut groups: Vec<(&Option<String>, Vec<usize>)> = Vec::new();
    for (cpu, name) in cpus.iter().zip(&names) {
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, group)) => group.push(*cpu),
            None => groups.push((name, vec![*cpu])),
        }
    }
    Some(groups.into_iter().map(|(_, group)| group).collect())
}

/// The `node<N>` entry in a CPU's folder.
fn node_of(root: &Path, cpu: usize) -> Option<String> {
    fs::read_dir(root.join(format!("sys/devices/system/cpu/cpu{cpu}")))
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .find(|name| {
            name.strip_prefix("node")
                .is_some_and(|id| !id.is_empty() && id.chars().all(|c| c.is_ascii_digit()))
        })
}

fn line(root: &Path, path: &str) -> Option<String> {
    fs::read_to_string(root.join(path)).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests;
