//! `mapigate run`: serve until told otherwise.

use crate::app::{self, Start, StartError};
use std::path::PathBuf;
use std::process::ExitCode;

/// What `mapigate run` is asked.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = SIGNALS)]
pub struct RunArgs {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", env = "MAPIGATE_CONFIG")]
    pub config: PathBuf,

    /// Take the listening sockets over from the running process, which is told SIGQUIT meanwhile
    #[arg(short, long)]
    pub upgrade: bool,

    /// Where sockets are handed over; default: mapigate-upgrade.sock in $RUNTIME_DIRECTORY,
    /// $XDG_RUNTIME_DIR or /run/mapigate. Nobody else may write to its folder
    #[arg(long, value_name = "PATH")]
    pub upgrade_socket: Option<PathBuf>,

    /// Write the process number to this file while running
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
}

const SIGNALS: &str = "\
Signals:
  HUP   read the configuration again; reopen the access log
  TERM  stop accepting, finish what is under way within limits.drain, end when idle
  INT   end at once
  QUIT  hand the listening sockets to a process started with --upgrade, then as TERM

Exit codes: 0 stopped as asked, 1 the configuration is wrong or something is missing.";

/// Runs the service.
#[expect(
    clippy::print_stderr,
    reason = "before there is a log, a command speaks to its caller"
)]
pub fn run(args: RunArgs) -> ExitCode {
    let start = Start {
        config: args.config,
        takes_over: args.upgrade,
        upgrade_socket: args.upgrade_socket,
        pid_file: args.pid_file,
    };
    match app::run(&start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(StartError::Configuration(problems)) => {
            eprintln!("{problems} in {}", start.config.display());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("mapigate: {error}");
            ExitCode::FAILURE
        }
    }
}
