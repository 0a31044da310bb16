//! What the command line can do.

pub mod lab;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The front door of a mail site.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Simulated mailbox servers and Outlooks.
    Lab(lab::Lab),
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Lab(lab) => lab::run(lab),
    };
    done.unwrap_or_else(|problem| {
        let _ = writeln!(std::io::stderr(), "mapigate: {problem:#}");
        ExitCode::FAILURE
    })
}
