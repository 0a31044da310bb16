//! Reads the arguments and turns the outcome into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    mapigate::commands::main()
}
