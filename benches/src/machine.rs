//! This machine and this process: cores, limits, signals, CPU time, memory. Linux only.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit};
use rustix::thread::CpuSet;

use crate::result::Machine;

/// Cores that this process may use.
pub fn cores() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect();
    if cores.is_empty() { vec![0] } else { cores }
}

/// Keeps the calling thread, and what it starts, on `cores`.
pub fn pin(cores: &[usize]) {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        eprintln!("not pinned to cores {cores:?}: {error}; figures will vary more");
    }
}

/// Does something with the calling thread on `cores`, and lets it go back to where it was.
pub fn pinned<T>(cores: &[usize], act: impl FnOnce() -> T) -> T {
    let before = rustix::thread::sched_getaffinity(None);
    pin(cores);
    let outcome = act();
    if let Ok(before) = before {
        let _ = rustix::thread::sched_setaffinity(None, &before);
    }
    outcome
}

/// Whether a program is there and may be started: a path, or a name in `PATH`.
pub fn find(program: &str) -> Result<(), String> {
    let is_program = |path: &Path| {
        path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
    };
    let found = match program.contains('/') {
        true => is_program(Path::new(program)),
        false => std::env::var_os("PATH").is_some_and(|folders| {
            std::env::split_paths(&folders).any(|folder| is_program(&folder.join(program)))
        }),
    };
    found.then_some(()).ok_or_else(|| match program.contains('/') {
        true => format!("{program} is no program that may be started; name another by --binary"),
        false => format!("no program {program} in PATH; name its path by --binary"),
    })
}

/// As many open files as this process may have.
pub fn raise_file_limit() {
    let files = rustix::process::getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: files.maximum, maximum: files.maximum };
    // What fails here is felt, and said, where a connection can't be opened.
    let _ = rustix::process::setrlimit(Resource::Nofile, wanted);
}

/// Set by Ctrl-C and SIGTERM, once installed.
pub fn interrupts() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // Ends the process at the second one.
        let _ = signal_hook::flag::register_conditional_shutdown(signal, 130, flag.clone());
        let _ = signal_hook::flag::register(signal, flag.clone());
    }
    flag
}

/// Blocks until Ctrl-C or SIGTERM.
pub fn wait_for_interrupt() {
    let flag = interrupts();
    while !flag.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A process and all processes that it started, and they: some programs work in children.
pub fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(parent) = family.get(next) {
        let tasks = std::fs::read_dir(format!("/proc/{parent}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children"));
            let children = children.unwrap_or_default();
            family.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        next += 1;
    }
    family
}

/// CPU time of a process and of those that it started, in nanoseconds: all threads that are alive.
/// What has ended is not in it: the programs measured here keep their threads.
pub fn cpu_nanos(pid: u32) -> Option<u64> {
    family(pid).into_iter().map(cpu_nanos_alone).sum()
}

fn cpu_nanos_alone(pid: u32) -> Option<u64> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let mut nanos = 0;
    let mut threads = 0;
    for task in tasks.flatten() {
        let path = task.path().join("schedstat");
        if let Ok(text) = std::fs::read_to_string(path) {
            nanos += text.split(' ').next()?.parse::<u64>().ok()?;
            threads += 1;
        }
    }
    if threads > 0 { Some(nanos) } else { cpu_ticks(pid) }
}

/// The coarse account, for kernels without schedstat: user and system time in ticks of 10 ms.
fn cpu_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * 1_000_000_000 / rustix::param::clock_ticks_per_second())
}

/// Time for which `cores` did anything for anybody, or were taken away by a hypervisor, since the
/// start of the machine; in nanoseconds, counted in ticks of 10 ms.
pub fn busy_nanos(cores: &[usize]) -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let mut ticks = 0;
    for core in cores {
        let name = format!("cpu{core} ");
        let line = stat.lines().find_map(|line| line.strip_prefix(&name))?;
        let spent: Vec<u64> = line.split(' ').filter_map(|field| field.parse().ok()).collect();
        // user, nice, system, idle, iowait, irq, softirq, steal: all but the two that are idle.
        ticks += spent.iter().take(8).sum::<u64>() - spent.get(3)? - spent.get(4)?;
    }
    Some(ticks * 1_000_000_000 / rustix::param::clock_ticks_per_second())
}

/// Resident bytes of a process and of those that it started; what they share counts for each.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    family(pid).into_iter().map(resident_bytes_alone).sum()
}

fn resident_bytes_alone(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Whether any process has a socket for datagrams on this port.
pub fn has_udp(port: u16) -> bool {
    let wanted = format!(":{port:04X}");
    ["/proc/net/udp", "/proc/net/udp6"].iter().any(|path| {
        let sockets = std::fs::read_to_string(path).unwrap_or_default();
        let mut lines = sockets.lines().skip(1);
        lines.any(|line| line.split_whitespace().nth(1).is_some_and(|at| at.ends_with(&wanted)))
    })
}

/// What a result says of where it ran.
pub fn describe() -> Machine {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|line| line.starts_with("model name"));
    let cpu = model.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, name)| name);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Machine { cpu: cpu.trim().to_owned(), cores: cores().len(), kernel: kernel.trim().to_owned() }
}

/// The commit of the checkout that `folder` is in, with `+` if files differ from it.
pub fn commit(folder: &Path) -> String {
    let git = |arguments: &[&str]| {
        let mut git = std::process::Command::new("git");
        let output = git.arg("-C").arg(folder).args(arguments).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    };
    let Some(head) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changed) if changed.is_empty() => head,
        _ => head + "+",
    }
}

/// The path of this program.
pub fn this_program() -> Result<PathBuf, String> {
    std::env::current_exe()
        .map_err(|error| format!("this program's own path can't be found: {error}"))
}

/// The name that this program was started under.
pub fn called_as() -> Option<String> {
    let path = PathBuf::from(std::env::args_os().next()?);
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}
