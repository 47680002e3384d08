//! `compare`: forebay beside other programs, the same scenario, run after run in alternation.
//!
//! Each ratio is of one pair: two runs that were neighbours in time on the same machine.

use std::path::PathBuf;

use clap::Args;

use crate::program::{self, Program};
use crate::run::{self, Session};

/// What `compare` is asked for, beside what `run` is.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    #[command(flatten)]
    pub run: run::Settings,
    /// What to put beside forebay: collector, rotel, nginx, haproxy, h3-service, or a file that
    /// describes it
    #[arg(long, required = true, value_delimiter = ',')]
    pub with: Vec<String>,
    /// The binary of each of them, in the same order [default: by name, in PATH]
    #[arg(long, value_delimiter = ',')]
    pub binary: Vec<PathBuf>,
}

/// The program `compare`.
pub fn main(settings: &Settings) -> Result<(), String> {
    let mut programs = vec![program::forebay(settings.run.engine.as_deref())?];
    for (nth, name) in settings.with.iter().enumerate() {
        programs.push(program::other(name, settings.binary.get(nth).map(PathBuf::as_path))?);
    }
    let programs: Vec<&Program> = programs.iter().collect();
    Session::new(&settings.run)?.measure(&programs)
}
