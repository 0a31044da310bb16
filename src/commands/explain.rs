//! `mapigate explain`: what would become of a user, a mailbox or a URL, and why.

use super::ask::{AdminAddress, ask};
use super::clock::now_seconds;
use super::say::Format;
use crate::config;
use crate::explain::{Explanation, Health, Question, Typed, explain};
use crate::runtime::Snapshot;
use crate::upkeep::read_copies;
use anyhow::{Context as _, Result, anyhow, bail};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// What `mapigate explain` is asked.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct ExplainArgs {
    /// A URL or path, a user by login name or address, or a mailbox by its MailboxId
    #[arg(value_name = "SUBJECT")]
    subject: String,
    /// Ask a configuration file instead of the running process; nothing is then known of the servers' health
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminAddress,
    /// Under which of the site's names; default: the first
    #[arg(long, value_name = "HOST")]
    name: Option<String>,
    /// For an Outlook of this version: 15.0.4569.1506
    #[arg(long, value_name = "VERSION")]
    client: Option<String>,
    /// For a client with this X-MapiHttpCapability; 0: without
    #[arg(long, value_name = "NUMBER", conflicts_with = "client")]
    capability: Option<String>,
    /// For a client at this address
    #[arg(long, value_name = "ADDRESS")]
    from: Option<String>,
    /// For this user, where the subject is a URL that names no mailbox
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

const EXIT_CODES: &str = "\
Nothing is sent to a mailbox server; a directory service is asked as a request would ask it.

Exit codes: 0 a request would be served, 1 it would be refused, 2 nothing could be explained.";

/// Asks, and prints what came of it.
pub fn run(args: &ExplainArgs) -> ExitCode {
    let explained = match &args.config {
        Some(file) => from_file(args, file),
        None => from_process(args),
    };
    let explanation = match explained {
        Ok(explanation) => explanation,
        Err(problem) => {
            let _told = writeln!(std::io::stderr(), "mapigate: {problem:#}");
            return ExitCode::from(2);
        }
    };
    let text = match args.format {
        Format::Text => explanation.text(),
        Format::Json => serde_json::to_string_pretty(&explanation).unwrap_or_default() + "\n",
    };
    // Nobody is left to be told that standard output is gone; the exit code still tells.
    let _told = std::io::stdout().lock().write_all(text.as_bytes());
    match explanation.is_served {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn from_file(args: &ExplainArgs, file: &Path) -> Result<Explanation> {
    let question = Question::read(Typed {
        subject: &args.subject,
        name: args.name.as_deref(),
        client: args.client.as_deref(),
        capability: args.capability.as_deref(),
        from: args.from.as_deref(),
        user: args.user.as_deref(),
    });
    let question = question.map_err(|words| anyhow!(words))?;
    let (now, seconds) = clocks();
    let loaded = config::load(file, seconds)
        .map_err(|problems| anyhow!("{problems} in {}", file.display()))?;
    let world = Snapshot::build(loaded.settings, None)
        .map_err(|problems| anyhow!("{}", problems.join("; ")))?;
    let reactor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let explained = reactor.block_on(async {
        let world = read_copies(&world).await;
        explain(&world, &question, Health::Unknown, now).await
    });
    explained.context("directory")
}

fn from_process(args: &ExplainArgs) -> Result<Explanation> {
    let mut path = format!("/explain?subject={}", escaped(&args.subject));
    for (name, value) in [
        ("name", &args.name),
        ("client", &args.client),
        ("capability", &args.capability),
        ("from", &args.from),
        ("user", &args.user),
    ] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", escaped(value)));
        }
    }
    let (status, body) = ask(args.admin.address, "GET", &path).with_context(|| {
        format!(
            "no answer from {}; --config FILE asks a file instead",
            args.admin
        )
    })?;
    if status != 200 {
        bail!("{} answered {status}: {}", args.admin, body.trim_end());
    }
    serde_json::from_str(&body).with_context(|| format!("answer of {}", args.admin))
}

/// As it may stand in a query.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[expect(
    clippy::disallowed_methods,
    reason = "the roof asks the clock for the rooms below"
)]
fn clocks() -> (Instant, u64) {
    (Instant::now(), now_seconds())
}
