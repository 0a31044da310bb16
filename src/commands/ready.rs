//! `mapigate ready`: whether a running process may be sent clients, for whoever supervises it.

use super::ask::{AdminAddress, ask};
use super::say::say;
use std::process::ExitCode;

/// What `mapigate ready` is asked.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct ReadyArgs {
    #[command(flatten)]
    admin: AdminAddress,
}

const EXIT_CODES: &str = "\
The health check of a container, a supervisor or a load balancer that runs commands.

Exit codes: 0 send clients here, 1 not now and why, 2 no answer.";

/// Asks, and prints the answer.
#[expect(clippy::print_stderr, reason = "a command speaks to its caller")]
pub fn run(args: &ReadyArgs) -> ExitCode {
    match ask(args.admin.address, "GET", "/ready") {
        Ok((200, words)) => {
            say(words.trim_end());
            ExitCode::SUCCESS
        }
        Ok((503, words)) => {
            eprintln!("mapigate: {}", words.trim_end());
            ExitCode::FAILURE
        }
        Ok((status, words)) => {
            eprintln!(
                "mapigate: {} answered {status}: {}",
                args.admin,
                words.trim_end()
            );
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("mapigate: no answer from {}: {error}", args.admin);
            ExitCode::from(2)
        }
    }
}
