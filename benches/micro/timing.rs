//! How the micro-benchmarks measure: two contenders do the same work in turns, in the same run.
//!
//! Each round times both, one after the other, by the CPU time that the kernel gave them; the
//! ratio is taken round by round and its median is told, so that a neighbour on the machine hits
//! both alike. Before anything is timed, both must have come to the same result: a count and a
//! hash. A contest whose results differ ends the program; it has no ratio.
//!
//! `cargo bench` runs in full, `-- --quick` and `cargo test` a few rounds that only show that the
//! benchmarks still work. Words after the options choose contests by a part of their name.

#![allow(dead_code, reason = "each benchmark uses its part of it")]

use std::hash::{DefaultHasher, Hasher};
use std::hint::black_box;
use std::process::ExitCode;

// Brings the engine's allocator, for both sides: libraries that allocate much shall not pay.
use forebay as _;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// What a contender came to: how many things, and a hash of them in an order and a form that do
/// not depend on the contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) count: u64,
    pub(crate) hash: u64,
}

impl Outcome {
    pub(crate) fn of(count: u64, bytes: &[u8]) -> Outcome {
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        Outcome { count, hash: hasher.finish() }
    }
}

/// One way of doing the work.
pub(crate) struct Contender<'a> {
    pub(crate) name: &'static str,
    /// Does the work once, timed. Returns how many things it dealt with.
    pub(crate) work: Box<dyn FnMut() -> u64 + 'a>,
    /// Does the work once, not timed, and says what came of it.
    pub(crate) outcome: Box<dyn FnMut() -> Outcome + 'a>,
}

/// What must hold of a contest for forebay to be as fast as it wants to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bar {
    /// The other's time by ours.
    Ratio(f64),
    /// Nanoseconds of CPU for the work once.
    Nanos(f64),
    /// The comparison is for orientation.
    None,
}

/// Whose CPU time counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Cpu {
    #[default]
    ThisThread,
    /// All threads: for work that is spread over several.
    Process,
}

/// Two ways of doing the same work.
pub(crate) struct Contest<'a> {
    pub(crate) name: &'static str,
    /// What `count` counts.
    pub(crate) unit: &'static str,
    /// Bytes that go in when the work is done once; 0: a rate in bytes says nothing.
    pub(crate) bytes: u64,
    pub(crate) cpu: Cpu,
    pub(crate) ours: Contender<'a>,
    pub(crate) theirs: Contender<'a>,
    pub(crate) bar: Bar,
}

/// How long and how often, and which contests.
pub(crate) struct Session {
    is_full: bool,
    rounds: usize,
    round_ns: u64,
    chosen: Vec<String>,
    misses: usize,
    contests: usize,
}

impl Session {
    /// Reads the program's arguments and prints the head of the table.
    pub(crate) fn start(title: &str) -> Session {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let has = |option: &str| arguments.iter().any(|argument| argument == option);
        // `cargo bench` says `--bench`; `cargo test` does not, and wants an answer soon.
        let is_full = has("--bench") && !has("--quick");
        let chosen = arguments.into_iter().filter(|argument| !argument.starts_with('-')).collect();
        let (rounds, round_ns) = if is_full { (15, 40_000_000) } else { (2, 200_000) };
        let kind = if is_full { "" } else { " (quick: the figures mean nothing)" };
        println!("\n{title}{kind}: CPU time, median of {rounds} rounds in turns\n");
        let heads = ["contest", "ours", "theirs", "ratio", "spread", "bar", "", "count", "hash"];
        print_line(&heads.map(str::to_owned));
        print_line(&["---"; 9].map(str::to_owned));
        Session { is_full, rounds, round_ns, chosen, misses: 0, contests: 0 }
    }

    /// Runs one contest and prints its line, if it was chosen.
    ///
    /// # Panics
    /// If the two came to different results, or to none: then there is nothing to compare.
    pub(crate) fn run(&mut self, mut contest: Contest<'_>) {
        let is_chosen = |part: &String| contest.name.contains(part.as_str());
        if !self.chosen.is_empty() && !self.chosen.iter().any(is_chosen) {
            return;
        }
        let ours = (contest.ours.outcome)();
        let theirs = (contest.theirs.outcome)();
        assert_eq!(ours, theirs, "{}: the two came to different results", contest.name);
        assert!(ours.count > 0, "{}: nothing was done", contest.name);
        let (our_times, their_times) = self.measure(&mut contest, ours.count);
        self.contests += 1;
        self.report(&contest, ours, &our_times, &their_times);
    }

    /// Says how many bars were missed. A miss is not a failure: a slow machine is no bug.
    pub(crate) fn finish(self) -> ExitCode {
        let Session { contests, misses, .. } = self;
        match self.is_full {
            true => println!("\n{contests} contests, {misses} below their bar"),
            false => println!("\n{contests} contests, results equal, bars not judged"),
        }
        ExitCode::SUCCESS
    }

    /// Nanoseconds for the work once, round by round.
    fn measure(&self, contest: &mut Contest<'_>, count: u64) -> (Vec<f64>, Vec<f64>) {
        let cpu = contest.cpu;
        let our_repeats = repeats(cpu, self.round_ns, &mut contest.ours.work);
        let their_repeats = repeats(cpu, self.round_ns, &mut contest.theirs.work);
        let mut times = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            times.0.push(timed(cpu, our_repeats, &mut contest.ours.work, count));
            times.1.push(timed(cpu, their_repeats, &mut contest.theirs.work, count));
        }
        times
    }

    fn report(&mut self, contest: &Contest<'_>, came: Outcome, ours: &[f64], theirs: &[f64]) {
        let ratios: Vec<f64> =
            ours.iter().zip(theirs).map(|(ours, theirs)| theirs / ours).collect();
        let (our_time, ratio) = (median(ours), median(&ratios));
        let lowest = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = ratios.iter().copied().fold(0.0, f64::max);
        let (bar, holds) = match contest.bar {
            Bar::Ratio(least) => (format!(">= {least}x"), Some(ratio >= least)),
            Bar::Nanos(most) => (format!("<= {most} ns"), Some(our_time <= most)),
            Bar::None => ("-".to_owned(), None),
        };
        let holds = holds.filter(|_| self.is_full);
        self.misses += usize::from(holds == Some(false));
        let cost = |name: &str, time: f64| {
            let each = time / came.count as f64;
            let rate = match contest.bytes {
                0 => String::new(),
                bytes => format!(", {:.2} GB/s", bytes as f64 / time),
            };
            format!("{name}: {} a {}{rate}", nanos(each), contest.unit)
        };
        print_line(&[
            contest.name.to_owned(),
            cost(contest.ours.name, our_time),
            cost(contest.theirs.name, median(theirs)),
            format!("{ratio:.2}x"),
            format!("{lowest:.2} to {highest:.2}"),
            bar,
            holds.map_or("", |holds| if holds { "holds" } else { "MISSED" }).to_owned(),
            match came.count {
                1 => format!("1 {}", contest.unit),
                many => format!("{many} {}s", contest.unit),
            },
            format!("{:08x}", came.hash as u32),
        ]);
    }
}

/// How often the work must be done to fill a round.
fn repeats(cpu: Cpu, round_ns: u64, work: &mut dyn FnMut() -> u64) -> u64 {
    let mut repeats = 1;
    loop {
        let start = clock(cpu);
        for _ in 0..repeats {
            black_box(work());
        }
        let spent = clock(cpu) - start;
        if spent >= round_ns / 4 {
            return (repeats * round_ns / spent.max(1)).max(1);
        }
        repeats *= 2;
    }
}

fn timed(cpu: Cpu, repeats: u64, work: &mut dyn FnMut() -> u64, count: u64) -> f64 {
    let start = clock(cpu);
    let mut done = 0;
    for _ in 0..repeats {
        done += black_box(work());
    }
    let spent = clock(cpu) - start;
    assert_eq!(done, repeats * count, "the work is the same each time");
    spent as f64 / repeats as f64
}

/// Nanoseconds of CPU time since some moment.
fn clock(cpu: Cpu) -> u64 {
    let id = match cpu {
        Cpu::ThisThread => ClockId::ThreadCPUTime,
        Cpu::Process => ClockId::ProcessCPUTime,
    };
    let Timespec { tv_sec, tv_nsec } = clock_gettime(id);
    tv_sec as u64 * 1_000_000_000 + tv_nsec as u64
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
        _ => sorted[middle],
    }
}

fn nanos(value: f64) -> String {
    match value {
        ..99.95 => format!("{value:.1} ns"),
        ..9_999.5 => format!("{value:.0} ns"),
        ..9_999_500.0 => format!("{:.1} us", value / 1e3),
        _ => format!("{:.1} ms", value / 1e6),
    }
}

/// A line of a table in Markdown, so that it can be kept as it is.
fn print_line(cells: &[String; 9]) {
    let widths = [40, 46, 58, 7, 15, 9, 6, 14, 8];
    let mut line = String::from("|");
    for (cell, width) in cells.iter().zip(widths) {
        line.push_str(&format!(" {cell:width$} |"));
    }
    println!("{line}");
}
