//! The program `forebay-bench`: everything is in the library.
//!
//! Started under the name `forebay` it is the engine: so what is measured is always built from the
//! same checkout as what measures it, by one command.

use std::process::ExitCode;

fn main() -> ExitCode {
    match forebay_bench::machine::called_as().as_deref() {
        Some("forebay") => forebay::main(),
        _ => forebay_bench::cli::main(),
    }
}
