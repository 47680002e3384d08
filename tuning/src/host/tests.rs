//! Hosts drawn as small trees of files under a temporary folder.

use super::*;

/// A host made of `(path, text)` files; removed at the end.
struct Drawn(PathBuf);

impl Drawn {
    fn new(name: &str, files: &[(&str, &str)]) -> Drawn {
        let root = std::env::temp_dir().join(format!("forebay-host-{}-{name}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("below the root")).expect("folder");
            fs::write(path, text).expect("file");
        }
        fs::create_dir_all(&root).expect("root");
        Drawn(root)
    }
}

impl Drop for Drawn {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn this_host_has_a_cpu_a_kernel_and_groups_that_cover_its_cpus() {
    let host = Host::detect();
    assert!(!host.cpus.is_empty());
    assert!(host.kernel_version().is_some(), "{}", host.kernel_release);
    let mut grouped: Vec<usize> = host.groups.concat();
    grouped.sort_unstable();
    assert_eq!(grouped, host.cpus);
}

#[test]
fn the_tightest_quota_of_all_levels_of_cgroup_v2_counts() {
    let drawn = Drawn::new(
        "v2",
        &[
            ("proc/self/cgroup", "0::/kubepods/pod7/box\n"),
            ("sys/fs/cgroup/kubepods/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/kubepods/memory.max", "max\n"),
            ("sys/fs/cgroup/kubepods/pod7/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/kubepods/pod7/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/kubepods/pod7/box/cpu.max", "400000 100000\n"),
        ],
    );
    assert_eq!(quota_cores(&drawn.0), Some(1.5));
    assert_eq!(memory_bytes_max(&drawn.0), Some(1 << 30));
}

#[test]
fn cgroup_v1_is_read_and_its_way_to_write_none_is_known() {
    let drawn = Drawn::new(
        "v1",
        &[
            ("proc/self/cgroup", "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ],
    );
    assert_eq!(quota_cores(&drawn.0), Some(2.0));
    assert_eq!(memory_bytes_max(&drawn.0), None);
}

#[test]
fn a_host_that_tells_nothing_is_a_host_too() {
    let drawn = Drawn::new("empty", &[]);
    assert_eq!(quota_cores(&drawn.0), None);
    assert_eq!(memory_bytes_max(&drawn.0), None);
    assert_eq!(io_uring(&drawn.0), IoUring::Allowed);
    assert_eq!(groups(&drawn.0, &[1, 5]), vec![vec![1, 5]]);
}

#[test]
fn cpus_are_grouped_by_last_level_cache_and_else_by_node() {
    let caches = Drawn::new(
        "l3",
        &[
            ("sys/devices/system/cpu/cpu0/cache/index3/shared_cpu_list", "0,2\n"),
            ("sys/devices/system/cpu/cpu1/cache/index3/shared_cpu_list", "1,3\n"),
            ("sys/devices/system/cpu/cpu2/cache/index3/shared_cpu_list", "0,2\n"),
            ("sys/devices/system/cpu/cpu3/cache/index3/shared_cpu_list", "1,3\n"),
        ],
    );
    assert_eq!(groups(&caches.0, &[0, 1, 2, 3]), vec![vec![0, 2], vec![1, 3]]);
    let nodes = Drawn::new(
        "numa",
        &[
            ("sys/devices/system/cpu/cpu0/node0/cpulist", ""),
            ("sys/devices/system/cpu/cpu1/node1/cpulist", ""),
        ],
    );
    assert_eq!(groups(&nodes.0, &[0, 1]), vec![vec![0], vec![1]]);
}

#[test]
fn io_uring_forbidden_by_sysctl_is_seen() {
    for (text, expected) in
        [("0\n", IoUring::Allowed), ("1\n", IoUring::Restricted), ("2\n", IoUring::Forbidden)]
    {
        let drawn = Drawn::new("sysctl", &[("proc/sys/kernel/io_uring_disabled", text)]);
        assert_eq!(io_uring(&drawn.0), expected);
    }
}
