//! The binary `forebay`. All of it is in the library, so that tests run the same program.

use std::process::ExitCode;

fn main() -> ExitCode {
    forebay::main()
}
