//! The program `forebay-bench`: everything is in the library.
//!
//! Started under the name `forebay` it is the engine: so what is measured is always built from the
//! same checkout as what measures it, by one command. Under a third name it ties a program to the
//! life of the process that started it.

use std::process::ExitCode;

use forebay_bench::process;

fn main() -> ExitCode {
    match forebay_bench::machine::called_as().as_deref() {
        Some("forebay") => forebay::main(),
        Some(process::LEASH) => process::leash(std::env::args_os().skip(1)),
        _ => forebay_bench::cli::main(),
    }
}
