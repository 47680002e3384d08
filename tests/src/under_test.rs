//! The program that the end-to-end tests start: `forebay`, under a path that cargo tells them.

use std::process::ExitCode;

fn main() -> ExitCode {
    forebay::main()
}
