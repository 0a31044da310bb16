//! `mapigate demo`: a whole site on this machine, and a bad day it gets through.

use super::say::say;
use super::unless_ended;
use crate::lab::Crowd;
use crate::lab::crowd::Work;
use crate::lab::demo::{CONNECT_BODY, Facts, Setting, Show, Teller, broken};
use crate::lab::site::{PASSWORD, Site, mailbox, user};
use anyhow::{Context as _, Result};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

/// What `mapigate demo` is asked.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct DemoArgs {
    /// Keep the site running after the story, to look at with browser and curl, until Ctrl-C
    #[arg(long)]
    pub keep: bool,

    /// Print what came out as one JSON object; the story goes to standard error
    #[arg(long)]
    pub json: bool,

    /// Where the site's configuration, certificates, logs and timeline go, made if missing;
    /// default: a new folder under the system's temporary one
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,

    /// Simulated Outlooks
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub outlooks: u16,

    /// Port of mapigate on the loopback; 0: any that is free
    #[arg(long, default_value_t = 0)]
    pub port: u16,

    /// Port of its admin address on the loopback; 0: any that is free
    #[arg(long, default_value_t = 0)]
    pub admin_port: u16,
}

const EXIT_CODES: &str = "\
Exit codes: 0 every promise was kept, 1 one was broken or something did not start.";

/// Plays the demo.
///
/// # Errors
/// What could not be written or started.
pub fn run(args: &DemoArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(unless_ended(play(args)))
}

async fn play(args: &DemoArgs) -> Result<ExitCode> {
    let setting = Setting {
        program: std::env::current_exe().context("our own program")?,
        folder: folder(args.folder.clone())?,
        outlooks: usize::from(args.outlooks),
        reloads: RELOADS,
        port: args.port,
        admin_port: args.admin_port,
    };
    let teller = teller(args);
    teller.plain(&format!(
        "mapigate {}: three simulated mailbox servers, one database with three copies, {} simulated Outlooks",
        env!("CARGO_PKG_VERSION"),
        args.outlooks
    ));
    let mut show = Show::open(setting, teller).await?;
    show.play().await?;
    let (facts, site) = show.close().await?;
    // A fresh one: the show has taken its own with it.
    let teller = self::teller(args);
    tell(&teller, &facts);
    let wrong = broken(&facts.promises, &facts.violations);
    for line in &wrong {
        teller.plain(&format!("broken: {line}"));
    }
    if args.json {
        say(&serde_json::to_string_pretty(&facts)?);
    }
    if args.keep {
        keep(&teller, &facts, &site).await?;
    } else {
        teller.plain("\nTo look around in the running site: mapigate demo --keep");
    }
    Ok(match facts.is_good() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "a story tells how long things take"
)]
fn teller(args: &DemoArgs) -> Teller {
    match args.json {
        true => Teller::stderr(Instant::now()),
        false => Teller::stdout(Instant::now()),
    }
}

/// The folder, readable by its owner only: it holds private keys.
fn folder(asked: Option<PathBuf>) -> Result<PathBuf> {
    let folder = asked.unwrap_or_else(|| {
        std::env::temp_dir().join(format!("mapigate-demo-{:08x}", fastrand::u32(..)))
    });
    DirBuilder::new()
        .mode(0o700)
        .create(&folder)
        .with_context(|| format!("folder {}, which must be a new one", folder.display()))?;
    folder.canonicalize().context("folder")
}

fn tell(teller: &Teller, facts: &Facts) {
    teller.heading(&format!("What came out, after {:.1} s", facts.seconds));
    teller.plain(facts.to_string().trim_end());
    teller.heading("Where to look");
    teller.plain(&format!(
        "  timeline       {}",
        facts.places.timeline.display()
    ));
    teller.plain(&format!(
        "  configuration, certificates, access log: {}",
        facts.places.folder.display()
    ));
}

/// Outlooks at an easy pace, and how to join them.
async fn keep(teller: &Teller, facts: &Facts, site: &Site) -> Result<()> {
    let outlooks = facts.outlooks;
    // The first user is yours.
    let members = (2..=outlooks)
        .map(|number| site.outlook_options(number))
        .collect::<Result<_>>()?;
    let work = Work {
        pause: Duration::from_secs(1),
        ..Work::default()
    };
    let _crowd = Crowd::start(members, &work);
    let (folder, gate) = (facts.places.folder.display(), site.gate()?);
    let (port, admin) = (gate.address().port(), gate.admin().address());
    teller.heading("The site is running; Ctrl-C ends it");
    teller.plain(&format!("  in a browser   {}", facts.places.admin));
    teller.plain(&format!(
        "  metrics        curl {}metrics",
        facts.places.admin
    ));
    teller.plain(&format!(
        "  open a mailbox, and see its cookies:\n\n\
         curl -k --resolve {host}:{port}:127.0.0.1 -u '{user}:{PASSWORD}' \\\n  \
           -H 'Content-Type: application/mapi-http' -H 'X-RequestType: Connect' \\\n  \
           -H 'X-RequestId: {{00000000-0000-4000-8000-00000000C0DE}}:1' -H 'X-ClientInfo: {{curl}}:1' \\\n  \
           -H 'X-ClientApplication: Outlook/16.0.17126.20132' \\\n  \
           --data-binary @{folder}/{CONNECT_BODY} -D - -o /dev/null \\\n  \
           'https://{host}:{port}/mapi/emsmdb/?MailboxId={mailbox}'\n\n  \
         and where mapigate took it:\n\n\
         grep C0DE {folder}/access.log\n\n  \
         try what Outlook does, step by step; beside it the server of the active copy, without mapigate:\n\n\
         echo '{PASSWORD}' | mapigate probe --user {user} --ca {folder}/ca.pem --resolve {host}=127.0.0.1:{port} https://{host}\n\
         echo '{PASSWORD}' | mapigate probe --user {user} --ca {folder}/ca.pem --config {folder}/mapigate.yaml --server {active}\n\n  \
         where a mailbox is, and why:\n\n\
         mapigate explain {user} --admin {admin}\n\n  \
         a failover by hand: change the active copy in {folder}/databases.yaml, then\n\n\
         mapigate reload --admin {admin}",
        host = crate::lab::site::HOST,
        active = site.active(),
        user = user(1),
        mailbox = mailbox(1),
    ));
    std::future::pending().await
}

/// Reloads of the storm.
const RELOADS: usize = 100;
