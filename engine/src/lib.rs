//! The engine: shards, pipelines, admission, acks, ledger, configuration, control plane.
//!
//! The only crate that knows all others, and that only tests and benches import. The binary is a
//! few lines over [`cli`], [`config`] and [`run`]. The data path reads downwards in
//! [`shard`]: requests come in through [`ingest`], become [`batches`], go over [`handoff`] to the
//! exporter cores, and their ends come back to whoever waits in [`acks`]; the [`ledger`] counts
//! every item on its way. Connections and requests move between receiver cores ([`neighbours`])
//! as [`spread`] decides; what the cores share for HTTP/3 is in [`http3`]. Health checks and
//! reflection are answered by [`services`].

use std::process::ExitCode;

pub mod acks;
pub mod batches;
pub mod budget;
pub mod cli;
pub mod config;
pub mod control;
pub mod handoff;
pub mod http3;
pub mod ingest;
pub mod ledger;
pub mod letters;
pub mod neighbours;
pub mod run;
pub mod services;
pub mod shard;
pub mod shares;
pub mod spread;
pub mod tls;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The whole program: what `forebay`'s `main` does.
pub fn main() -> ExitCode {
    use cli::Command;
    match cli::parse() {
        Command::Run { sources, sets } => match config::load(&sources, &sets) {
            Ok(loaded) => {
                control::logs::start(&loaded.plan.telemetry);
                for warning in &loaded.warnings {
                    tracing::warn!("{warning}");
                }
                let code = run::run(loaded.plan);
                control::logs::finish();
                code
            }
            Err(problems) => cli::refuse(&problems),
        },
        Command::Validate { sources, sets } => cli::validate(&sources, &sets),
        Command::PrintConfig { sources, sets } => cli::print_config(&sources, &sets),
        Command::Components => cli::components(),
    }
}
