//! The binary `forebay`: reads the command line and the configuration, then runs the engine.

use std::process::ExitCode;

use forebay::cli::{self, Command};
use forebay::{config, control, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::parse() {
        Command::Run { sources, sets } => match config::load(&sources, &sets) {
            Ok(loaded) => {
                control::logs::start(&loaded.plan.telemetry);
                for warning in &loaded.warnings {
                    tracing::warn!("{warning}");
                }
                run::run(loaded.plan)
            }
            Err(problems) => cli::refuse(&problems),
        },
        Command::Validate { sources, sets } => cli::validate(&sources, &sets),
        Command::PrintConfig { sources, sets } => cli::print_config(&sources, &sets),
        Command::Components => cli::components(),
    }
}
