//! `mapigate reload`: a running process reads its configuration again.

use super::ask::{AdminAddress, ask};
use super::say::say;
use std::process::ExitCode;

/// What `mapigate reload` is asked.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct ReloadArgs {
    #[command(flatten)]
    admin: AdminAddress,

    /// Print the outcome as JSON, as the admin address gives it
    #[arg(long)]
    pub json: bool,
}

const EXIT_CODES: &str = "\
Exit codes: 0 the new configuration is in force, 1 it is wrong and the old one stays, 2 no answer.";

/// Asks, waits for the outcome and prints it.
#[expect(clippy::print_stderr, reason = "a command speaks to its caller")]
pub fn run(args: &ReloadArgs) -> ExitCode {
    let (status, body) = match ask(args.admin.address, "POST", "/reload") {
        Ok(answer) => answer,
        Err(error) => {
            eprintln!("mapigate: no answer from {}: {error}", args.admin);
            return ExitCode::from(2);
        }
    };
    match outcome_of(&body) {
        _ if args.json => say(body.trim_end()),
        Some(words) if status == 200 => say(words),
        Some(words) => eprintln!("{words}"),
        None => eprintln!(
            "mapigate: {} answered {status}: {}",
            args.admin,
            body.trim_end()
        ),
    }
    match status {
        200 => ExitCode::SUCCESS,
        422 => ExitCode::FAILURE,
        _ => ExitCode::from(2),
    }
}

/// The outcome in words for people; `None` where the answer is not one of ours.
fn outcome_of(body: &str) -> Option<String> {
    let outcome: serde_json::Value = serde_json::from_str(body).ok()?;
    let generation = outcome.get("generation")?.as_u64()?;
    let problems = outcome.get("problems")?.as_array()?;
    let listed: String = problems
        .iter()
        .filter_map(|p| p.as_str())
        .map(|p| format!("{p}\n"))
        .collect();
    Some(match outcome.get("is_ok")?.as_bool()? {
        true => format!("{listed}reloaded: generation {generation} is in force"),
        false => format!("{listed}not reloaded: generation {generation} stays in force"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_reads_as_a_sentence_with_its_problems() {
        let good = r#"{"is_ok":true,"generation":3,"problems":[]}"#;
        let bad = r#"{"is_ok":false,"generation":2,"problems":["error: unknown key"]}"#;

        assert_eq!(
            outcome_of(good).unwrap(),
            "reloaded: generation 3 is in force"
        );
        assert_eq!(
            outcome_of(bad).unwrap(),
            "error: unknown key\nnot reloaded: generation 2 stays in force"
        );
        assert_eq!(outcome_of("<html>"), None);
    }
}
