//! What the command line can do.

mod ask;
pub mod auth;
pub mod assertion_helper;
pub mod check;
mod clock;
pub mod demo;
pub mod explain;
pub mod lab;
pub mod overhead;
pub mod probe;
pub mod ready;
pub mod reload;
pub mod revoke;
pub mod run;
mod say;
pub mod schema;
mod secret;
pub mod size;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// The front door of a mail site: MAPI over HTTP, routed to the active copy of each mailbox database.
#[derive(Debug, Parser)]
#[command(
    name = "mapigate",
    version,
    arg_required_else_help = true,
    args_conflicts_with_subcommands = true
)]
struct CommandLine {
    /// Check a configuration file and exit, as `check` does
    #[arg(short = 't', value_name = "FILE")]
    test: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until told otherwise
    Run(run::RunArgs),
    /// Check a configuration file: all problems at once, each with its place and its cure
    Check(check::CheckArgs),
    /// Make a running process read its configuration again, and say how it went
    Reload(reload::ReloadArgs),
    /// Say whether a running process may be sent clients
    Ready(ready::ReadyArgs),
    /// Try how users sign on
    Auth(auth::Auth),
    /// Make a running process forget what it believes of a user, or of everybody
    Revoke(revoke::RevokeArgs),
    /// Print the JSON Schema of the configuration, for editors
    Schema(schema::SchemaArgs),
    /// Say what would become of a user, a mailbox or a URL, and why
    Explain(explain::ExplainArgs),
    /// Try what Outlook does, at a name, at mailbox servers, or side by side, and explain what fails
    Probe(Box<probe::ProbeArgs>),
    /// Play a whole site on this machine through a bad day, and check every promise
    Demo(demo::DemoArgs),
    /// Measure what MAPI over HTTP costs beside RPC over HTTP: bytes, connections, processor time
    Overhead(overhead::OverheadArgs),
    /// Plan how large the front ends of a site must be, from measured costs or from a running site
    Size(size::SizeArgs),
    /// Tell a mailbox server whom our assertions name, line by line, as gromox asks its gss_program
    AssertionHelper(assertion_helper::HelperArgs),
    /// Simulated mailbox servers and Outlooks, for trying things out
    Lab(lab::Lab),
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let line = CommandLine::parse();
    match (line.test, line.command) {
        (_, Some(Command::Run(args))) => run::run(args),
        (_, Some(Command::Check(args))) => check::run(&args),
        (_, Some(Command::Reload(args))) => reload::run(&args),
        (_, Some(Command::Ready(args))) => ready::run(&args),
        (_, Some(Command::Auth(args))) => failing_loudly(auth::run(&args)),
        (_, Some(Command::Revoke(args))) => revoke::run(&args),
        (_, Some(Command::Schema(args))) => schema::run(args),
        (_, Some(Command::Explain(args))) => explain::run(&args),
        (_, Some(Command::Probe(args))) => probe::run(&args),
        (_, Some(Command::Demo(args))) => failing_loudly(demo::run(&args)),
        (_, Some(Command::Overhead(args))) => failing_loudly(overhead::run(&args)),
        (_, Some(Command::Size(args))) => size::run(&args),
        (_, Some(Command::AssertionHelper(args))) => failing_loudly(assertion_helper::run(&args)),
        (_, Some(Command::Lab(args))) => failing_loudly(lab::run(args)),
        (Some(file), None) => check::run(&check::CheckArgs {
            file,
            directory: false,
            format: say::Format::Text,
        }),
        (None, None) => ExitCode::FAILURE,
    }
}

/// A command that failed says why, and what it was doing.
#[expect(clippy::print_stderr, reason = "commands speak to people")]
fn failing_loudly(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|problem| {
        eprintln!("mapigate: {problem:#}");
        ExitCode::FAILURE
    })
}

/// Runs something unless a signal ends it. Signals are caught, so that a mapigate it has started does not outlive us.
async fn unless_ended(
    work: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    let ended = |kind| signal(kind).context("signals");
    let (mut interrupt, mut terminate) = (
        ended(SignalKind::interrupt())?,
        ended(SignalKind::terminate())?,
    );
    let (mut hangup, mut quit) = (ended(SignalKind::hangup())?, ended(SignalKind::quit())?);
    tokio::select! {
        outcome = work => outcome,
        _ = interrupt.recv() => Ok(by(SignalKind::interrupt())),
        _ = terminate.recv() => Ok(by(SignalKind::terminate())),
        _ = hangup.recv() => Ok(by(SignalKind::hangup())),
        _ = quit.recv() => Ok(by(SignalKind::quit())),
    }
}

/// As a shell reports a program that a signal ended.
fn by(signal: SignalKind) -> ExitCode {
    let number = u8::try_from(signal.as_raw_value()).unwrap_or(0);
    ExitCode::from(128 + (number & 127))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn a_file_to_check_goes_with_no_command() {
        let reads = |line: &[&str]| CommandLine::try_parse_from(line).is_ok();

        assert!(reads(&["mapigate", "-t", "mapigate.yaml"]));
        assert!(reads(&[
            "mapigate",
            "run",
            "--config",
            "mapigate.yaml",
            "--upgrade"
        ]));
        assert!(!reads(&["mapigate", "-t", "mapigate.yaml", "schema"]));
        assert!(!reads(&["mapigate", "reload", "--admin", "not an address"]));
    }
}
