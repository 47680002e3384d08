//! The command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{
    certificates, compare, floor, h3_service, handshakes, load, lossy, run, scenario, sink,
};

/// Measures forebay, and proves that nothing was lost while it did.
///
/// `run quick` is the place to begin. Figures are CPU time of the engine's process per item and
/// per request, from the kernel's account; each is printed with its ratio to the floor, the price
/// of moving the same bytes on this machine without reading them, from the same run. A run that
/// lost an item, doubled one or counted none is an error and has no figures.
///
/// Drives OTLP/gRPC and OTLP/HTTP, in clear text, over TLS and over HTTP/3.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure a scenario: engine, sink and load, each on its own cores
    Run(run::Settings),
    /// Measure forebay beside other programs, run after run in alternation
    Compare(compare::Settings),
    /// List the built-in scenarios
    List,
    /// Drive any program with OTLP
    Load(load::Settings),
    /// Take OTLP, account for it, and fail on demand
    Sink(sink::Settings),
    /// Move bytes without reading them
    Floor(floor::Settings),
    /// Count handshakes a second over TLS or QUIC, full or resumed
    Handshakes(handshakes::Settings),
    /// Take OTLP over HTTP/3 as anybody would build it: what the engine is measured against
    H3Service(h3_service::Settings),
    /// Be a long and lossy path in front of a server
    Lossy(lossy::Settings),
    /// Make a CA and a certificate for localhost, for tests
    Certificates(certificates::Settings),
}

/// The whole program. An error is one message on standard error, and exit code 1.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(settings) => run::main(&settings),
        Command::Compare(settings) => compare::main(&settings),
        Command::List => {
            for (name, about) in scenario::list() {
                println!("{name:<12} {about}");
            }
            Ok(())
        }
        Command::Load(settings) => load::main(&settings),
        Command::Sink(settings) => sink::main(&settings),
        Command::Floor(settings) => floor::main(&settings),
        Command::Handshakes(settings) => handshakes::main(&settings),
        Command::H3Service(settings) => h3_service::main(&settings),
        Command::Lossy(settings) => lossy::main(&settings),
        Command::Certificates(settings) => certificates::main(&settings),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
