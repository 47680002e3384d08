//! `run`: a scenario from its first row to its files, forebay and the floor in alternation.
//!
//! A run that is void ends everything with an error and leaves no file: there is no partial truth
//! after a lost item. Ctrl-C is different: what was measured until then is good, and marked.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;

use crate::machine;
use crate::measure::{Bench, Measured, Void};
use crate::process::Placement;
use crate::program::{self, Program};
use crate::report;
use crate::result::{Result as Findings, Row as FoundRow};
use crate::scenario::{self, Pace, Row, Scenario};
use crate::summary;

/// What `run` and `compare` are asked for.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// A built-in scenario (see `list`), or the path of one
    pub scenario: String,
    /// An engine's binary [default: the engine of this checkout, which is built with this program]
    #[arg(long)]
    pub engine: Option<PathBuf>,
    /// Measure this instead of forebay: a name as `compare --with` takes, or a file
    #[arg(long)]
    pub program: Option<String>,
    /// Its binary [default: by name, in PATH]
    #[arg(long, requires = "program")]
    pub program_binary: Option<PathBuf>,
    /// Cores for the engine; several numbers measure each, and print the scaling
    #[arg(long, value_delimiter = ',', default_value = "1")]
    pub engine_cores: Vec<usize>,
    /// Only rows whose name contains this
    #[arg(long, default_value = "")]
    pub only: String,
    /// Runs of each row [default: the scenario's]
    #[arg(long)]
    pub repeats: Option<usize>,
    /// Milliseconds that are measured in each run [default: the scenario's]
    #[arg(long)]
    pub window_ms: Option<u64>,
    /// Milliseconds before them [default: the scenario's]
    #[arg(long)]
    pub warmup_ms: Option<u64>,
    /// Folder for the result's JSON and its page
    #[arg(long, default_value = "target/bench")]
    pub out: PathBuf,
    /// Leave the floor out: no ratios, half the time
    #[arg(long)]
    pub no_floor: bool,
}

/// A row under measurement, with one program.
#[derive(Clone, Debug)]
pub struct Track {
    pub program: String,
    pub measured: Vec<Measured>,
    pub rate: Option<f64>,
    pub engine_cores: usize,
}

/// Everything that one command measures with.
pub struct Session {
    scenario: Scenario,
    settings: Settings,
    interrupted: std::sync::Arc<std::sync::atomic::AtomicBool>,
    notes: Vec<String>,
    tag: u8,
}

/// The program `run`.
pub fn main(settings: &Settings) -> Result<(), String> {
    let program = match &settings.program {
        Some(name) => program::other(name, settings.program_binary.as_deref())?,
        None => program::forebay(settings.engine.as_deref())?,
    };
    Session::new(settings)?.measure(&[&program])
}

impl Session {
    pub fn new(settings: &Settings) -> Result<Session, String> {
        let mut scenario = scenario::find(&settings.scenario)?;
        scenario.rows.retain(|row| row.name.contains(&settings.only));
        if scenario.rows.is_empty() {
            return Err(format!("no row of {} contains {:?}", scenario.name, settings.only));
        }
        scenario.repeats = settings.repeats.unwrap_or(scenario.repeats).max(1);
        scenario.window_ms = settings.window_ms.unwrap_or(scenario.window_ms).max(1);
        scenario.warmup_ms = settings.warmup_ms.unwrap_or(scenario.warmup_ms);
        // Said before minutes are spent on figures that can't be kept.
        std::fs::create_dir_all(&settings.out)
            .map_err(|error| format!("{} can't be made: {error}", settings.out.display()))?;
        let mut notes = Vec::new();
        if cfg!(debug_assertions) {
            notes.push("a debug build: no figure here means anything".to_owned());
        }
        Ok(Session {
            scenario,
            settings: settings.clone(),
            interrupted: machine::interrupts(),
            notes,
            tag: 0,
        })
    }

    /// All rows with each of `programs`, of which the first is forebay; then the files and the
    /// table.
    pub fn measure(mut self, programs: &[&Program]) -> Result<(), String> {
        let rows = self.all_rows();
        let mut found = Vec::new();
        let mut is_whole = true;
        for (nth, (row, cores)) in rows.iter().enumerate() {
            let place = format!("row {}/{}", nth + 1, rows.len());
            let tracks;
            (tracks, is_whole) = self.row(programs, row, *cores, &place)?;
            let measured = tracks.into_iter().filter(|track| !track.measured.is_empty());
            found.extend(measured.map(|track| summary::row(row, track)));
            if !is_whole {
                break;
            }
        }
        self.finish(found, !is_whole)
    }

    /// Every row with every number of engine cores.
    fn all_rows(&self) -> Vec<(Row, usize)> {
        let mut rows = Vec::new();
        for row in &self.scenario.rows {
            for cores in &self.settings.engine_cores {
                let mut row = row.clone();
                if self.settings.engine_cores.len() > 1 {
                    row.name += &format!(", {cores} cores");
                }
                rows.push((row, *cores));
            }
        }
        rows
    }

    /// Measures one row with each of `programs` and the floor, in alternation. False: interrupted.
    fn row(
        &mut self,
        programs: &[&Program],
        row: &Row,
        engine_cores: usize,
        place: &str,
    ) -> Result<(Vec<Track>, bool), String> {
        let placement = Placement::choose(engine_cores, &machine::cores());
        if let Some(warning) = placement.warning()
            && !self.notes.contains(&warning)
        {
            self.notes.push(warning);
        }
        let mut bench = Bench {
            placement,
            warmup: Duration::from_millis(self.scenario.warmup_ms),
            window: Duration::from_millis(self.scenario.window_ms),
            counts_syscalls: true,
            interrupted: self.interrupted.clone(),
        };
        let engine_cores = bench.placement.engine.len();
        let mut tracks: Vec<Track> = programs
            .iter()
            .map(|program| Track {
                program: program.name.clone(),
                measured: Vec::new(),
                rate: None,
                engine_cores,
            })
            .collect();
        for repeat in 0..self.scenario.repeats {
            let is_whole = self.repeat(&bench, programs, row, &mut tracks);
            match is_whole {
                Ok(()) => {}
                Err(Void::Interrupted) => return Ok((tracks, false)),
                Err(Void::Error(error)) => return Err(error),
            }
            bench.counts_syscalls = false;
            for track in &tracks {
                progress(place, row, repeat, self.scenario.repeats, track);
            }
        }
        Ok((tracks, true))
    }

    /// One run of each program and of the floor; all or none of them is kept.
    fn repeat(
        &mut self,
        bench: &Bench,
        programs: &[&Program],
        row: &Row,
        tracks: &mut [Track],
    ) -> Result<(), Void> {
        let mut round = Vec::new();
        if tracks[0].measured.is_empty() {
            let rate = self.rate(bench, programs, row)?;
            tracks.iter_mut().for_each(|track| track.rate = rate);
        }
        for (program, track) in programs.iter().zip(tracks.iter_mut()) {
            let tag = self.next_tag();
            round.push(bench.program(program, row, track.rate, tag)?);
        }
        if !self.settings.no_floor {
            let tag = self.next_tag();
            let bytes = round[0].request_bytes.round().max(1.0) as usize;
            let floor = bench.floor(row, tracks[0].rate, bytes, tag)?;
            for measured in &mut round {
                summary::put_beside(&mut measured.run, &floor.run);
            }
        }
        let (first, others) = round.split_at_mut(1);
        for other in others {
            let ratio = first[0].run.engine_cpu_ns_per_item / other.run.engine_cpu_ns_per_item;
            other.run.forebay_ratio = Some(ratio);
        }
        tracks.iter_mut().zip(round).for_each(|(track, measured)| track.measured.push(measured));
        Ok(())
    }

    /// Requests a second, where the row asks for a rate; a share of the maximum is a share of what
    /// the slowest of the programs reaches in a window of closed mode. All get the same: latencies
    /// and memory under unequal loads say nothing about each other.
    fn rate(
        &mut self,
        bench: &Bench,
        programs: &[&Program],
        row: &Row,
    ) -> Result<Option<f64>, Void> {
        let share = match row.pace {
            Pace::Closed => return Ok(None),
            Pace::Rate(rate) => return Ok(Some(rate)),
            Pace::OfMax(share) => share,
        };
        let mut least = f64::INFINITY;
        for program in programs {
            let tag = self.next_tag();
            least = least.min(bench.program(program, row, None, tag)?.run.requests_per_s);
        }
        Ok(Some((least * share).max(1.0).round()))
    }

    fn next_tag(&mut self) -> u8 {
        self.tag = self.tag.wrapping_add(1);
        self.tag
    }

    /// Writes the files, then shows the table: a figure that can't be kept is not shown.
    fn finish(self, rows: Vec<FoundRow>, partial: bool) -> Result<(), String> {
        if rows.is_empty() {
            return Err("ended before anything was measured".to_owned());
        }
        let findings = Findings {
            scenario: self.scenario.name.clone(),
            about: self.scenario.about.clone(),
            commit: machine::commit(Path::new(".")),
            command: command_line(),
            machine: machine::describe(),
            started: timestamp(),
            partial,
            rows,
            notes: self.notes,
        };
        let base = self.settings.out.join(&self.scenario.name);
        let json = serde_json::to_string_pretty(&findings).expect("findings are plain data");
        write(&base.with_extension("json"), &json)?;
        write(&base.with_extension("html"), &report::html(&findings))?;
        print!("{}", report::table(&findings));
        println!("written: {0}.json, {0}.html", base.display());
        Ok(())
    }
}

fn progress(place: &str, row: &Row, repeat: usize, repeats: usize, track: &Track) {
    let Some(measured) = track.measured.last() else { return };
    let run = &measured.run;
    let ratio = run.ratio_to_floor.map_or(String::new(), |ratio| format!("  {ratio:.2} x floor"));
    eprintln!(
        "{place}  {}  run {}/{repeats}  {}: {:.0} ns/item  {:.2} us/request (load {:.2})  \
         {:.0} items/s{ratio}",
        row.name,
        repeat + 1,
        track.program,
        run.engine_cpu_ns_per_item,
        run.engine_cpu_ns_per_request / 1000.0,
        run.load_cpu_ns_per_request / 1000.0,
        run.items_per_s,
    );
}

/// Whole or not at all: written beside, then moved.
fn write(path: &Path, text: &str) -> Result<(), String> {
    let beside = path.with_extension("part");
    let written = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&beside);
        format!(
            "{} can't be written: {error}\n  cost: what was measured is lost, and not shown",
            path.display()
        )
    })
}

/// What was typed, with the program by its name alone.
fn command_line() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    format!("cargo run --release -p forebay-bench -- {}", arguments.join(" "))
}

/// Now, as RFC 3339 in UTC.
fn timestamp() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, of_day) = (since / 86_400, since % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date of a day since 1970-01-01, in the Gregorian calendar.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_778), (2026, 11, 21));
    }
}
