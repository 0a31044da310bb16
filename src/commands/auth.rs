//! `mapigate auth test`: tries how a user signs on, and explains the result step by step.

mod handshake;
mod report;
mod tries;

use super::clock::now_seconds;
use super::secret::{first_line, typed};
use crate::config;
use crate::runtime::Snapshot;
use crate::upkeep::{appoint_judge, read_copies};
use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, Subcommand};
use report::Report;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tries::{Shown, Trial};

/// What `mapigate auth` is asked.
#[derive(Clone, Debug, Args)]
pub struct Auth {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Try credentials with a configuration, and explain what comes of each
    Test(TestArgs),
}

#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_CODES)]
struct TestArgs {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", env = "MAPIGATE_CONFIG")]
    config: PathBuf,
    /// The name that is asked for; the first under `names` where this is not said
    #[arg(long, value_name = "HOST")]
    name: Option<String>,
    /// The path that is asked for
    #[arg(long, value_enum, default_value_t = Place::Emsmdb)]
    path: Place,
    /// Try this user; the password is asked for, or read from standard input
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// The scheme that the user's password is tried with
    #[arg(long, value_enum, default_value_t = ByPassword::Basic, requires = "user")]
    scheme: ByPassword,
    /// The password is the first line of this file
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// Try Negotiate with the tickets in this credential cache, as kinit leaves it
    #[arg(long, value_name = "CACHE")]
    tickets: Option<String>,
    /// Try Bearer with the token in this file
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Try the certificate in this PEM file, its own authorities behind it
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a password is tried with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ByPassword {
    /// The password itself.
    Basic,
    /// A Kerberos ticket that is got with it.
    Negotiate,
    /// NTLM as it is; needs the package gss-ntlmssp.
    Ntlm,
}

/// A path that users sign on to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Place {
    /// Mailboxes.
    Emsmdb,
    /// The address book.
    Nspi,
}

const EXIT_CODES: &str = "\
Everything happens in this process, as a running one with the same configuration would do it: nothing goes to it, and no
secret is printed. What verifies credentials elsewhere, such as a domain, sees one more login, and counts a wrong one.

Exit codes: 0 every credential is good, 1 one is not, 2 nothing could be tried.";

/// Tries, and prints what came of it.
///
/// # Errors
/// Nothing could be tried.
pub fn run(args: &Auth) -> Result<ExitCode> {
    let What::Test(args) = &args.what;
    match reports(args) {
        Ok(reports) => {
            let text = match args.json {
                true => serde_json::to_string_pretty(&reports)? + "\n",
                false => reports.iter().map(ToString::to_string).collect(),
            };
            // Nobody is left to be told that standard output is gone; the exit code still tells.
            let _told = std::io::stdout().lock().write_all(text.as_bytes());
            Ok(match reports.iter().all(|report| report.is_good) {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            })
        }
        Err(problem) => {
            let _told = writeln!(std::io::stderr(), "mapigate: {problem:#}");
            Ok(ExitCode::from(2))
        }
    }
}

fn reports(args: &TestArgs) -> Result<Vec<Report>> {
    let loaded = config::load(&args.config, now_seconds())
        .map_err(|problems| anyhow!("{problems} in {}", args.config.display()))?;
    let shown = shown(args)?;
    let world = Snapshot::build(loaded.settings, None)
        .map_err(|problems| anyhow!("{}", problems.join("; ")))?;
    let reactor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let world = Arc::new(reactor.block_on(read_copies(&world)));
    appoint_judge(&world);
    let names = &world.settings.names;
    let name = match &args.name {
        None => names.first(),
        Some(host) => names
            .iter()
            .find(|name| name.host.eq_ignore_ascii_case(host)),
    };
    let name = name.context("this name is not under `names`")?;
    let endpoint = match args.path {
        Place::Emsmdb => crate::mapi::Endpoint::Emsmdb,
        Place::Nspi => crate::mapi::Endpoint::Nspi,
    };
    let trial = Trial {
        world: &world,
        name,
        endpoint,
    };
    Ok(reactor.block_on(async {
        let mut reports = Vec::new();
        for one in &shown {
            reports.push(trial.run(one).await);
        }
        reports
    }))
}

fn shown(args: &TestArgs) -> Result<Vec<Shown>> {
    let mut shown = Vec::new();
    if let Some(user) = &args.user {
        let password = match &args.password_file {
            Some(file) => first_line(file)?,
            None => typed(user)?,
        };
        let user = user.clone();
        shown.push(match args.scheme {
            ByPassword::Basic => Shown::Password { user, password },
            ByPassword::Negotiate => Shown::Kerberos { user, password },
            ByPassword::Ntlm => Shown::Ntlm { user, password },
        });
    }
    if let Some(cache) = &args.tickets {
        shown.push(Shown::Tickets(cache.clone()));
    }
    if let Some(file) = &args.token_file {
        shown.push(Shown::Token(first_line(file)?));
    }
    if let Some(file) = &args.cert {
        let pem = std::fs::read(file).with_context(|| file.display().to_string())?;
        shown.push(Shown::Certificate {
            file: file.clone(),
            pem,
        });
    }
    if shown.is_empty() {
        bail!("nothing to try: say --user, --tickets, --token-file or --cert");
    }
    Ok(shown)
}
