//! `mapigate probe`: tries what Outlook does, at a name, at mailbox servers, or side by side.

use super::clock::now_seconds;
use super::say::Format;
use super::secret::{first_line, typed};
use crate::config;
use crate::config::settings::{PublicName, Secret, Server, Settings};
use crate::probe::{Credential, Detour, Known, Place, Probe, Report, Step, side_by_side};
use anyhow::{Context as _, Result, anyhow, bail};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;
use std::io::Write as _;
use std::net::ToSocketAddrs as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// What `mapigate probe` is asked.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct ProbeArgs {
    /// Names to try, as URLs such as `https://mail.contoso.com`; with --config and none here, all under `names`
    #[arg(value_name = "URL")]
    urls: Vec<Place>,
    /// A mailbox server to try by itself, whatever Autodiscover says: a URL, or with --config a name under `servers`
    #[arg(long, value_name = "SERVER")]
    server: Vec<String>,
    /// Take names and servers from this configuration; without --user run its `probes`, now
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Of the configuration's names, or of its probes, these
    #[arg(long, value_name = "NAME", requires = "config")]
    name: Vec<String>,

    /// Who to try it as: the login name
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// The mail address, where it is not the login name
    #[arg(long, value_name = "ADDRESS", requires = "user")]
    address: Option<String>,
    /// The password is the first line of this file; else it is asked for, or read from standard input
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// Show the token in this file (Bearer) instead of a password
    #[arg(
        long,
        value_name = "FILE",
        requires = "user",
        conflicts_with = "password_file"
    )]
    token_file: Option<PathBuf>,
    /// Show tickets (Negotiate) instead of a password: those in this credential cache, as kinit leaves it
    #[arg(long, value_name = "CACHE", requires = "user", conflicts_with_all = ["password_file", "token_file"])]
    tickets: Option<String>,

    /// PEM file with the authorities to trust; default: the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Connect to ADDRESS instead of where DNS says that HOST is
    #[arg(long, value_name = "HOST[:PORT]=ADDRESS[:PORT]")]
    resolve: Vec<Detour>,
    /// The mailbox, by its MailboxId, where Autodiscover is not to be asked
    #[arg(long, value_name = "GUID@DOMAIN", requires = "dn")]
    mailbox: Option<String>,
    /// The distinguished name it is opened by
    #[arg(long, value_name = "DN", requires = "mailbox")]
    dn: Option<String>,

    /// Try these steps and what they need: dns, tls, authentication, autodiscover, autodiscover_json, connect, logon,
    /// wait, disconnect, bind, resolve, rows, unbind, rpc_echo
    #[arg(long, value_name = "STEP", value_delimiter = ',')]
    steps: Vec<Step>,
    /// How long a NotificationWait is held; 0s: none
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    held_wait: Duration,
    /// How long a step may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

const EXIT_CODES: &str = "\
The mailbox is opened and closed again; nothing in it is read or changed. A wrong password counts towards a lockout once.

Exit codes: 0 no step failed, 1 one did, 2 nothing could be tried.";

/// What programs read.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    is_good: bool,
    reports: &'a [Report],
}

/// Tries, and prints what came of it.
pub fn run(args: &ProbeArgs) -> ExitCode {
    let reports = match reports(args) {
        Ok(reports) => reports,
        Err(problem) => {
            let _told = writeln!(std::io::stderr(), "mapigate: {problem:#}");
            return ExitCode::from(2);
        }
    };
    let is_good = reports.iter().all(|report| report.is_good);
    let text = match args.format {
        Format::Text => side_by_side(&reports),
        Format::Json => {
            let answer = Answer {
                is_good,
                reports: &reports,
            };
            serde_json::to_string_pretty(&answer).unwrap_or_default() + "\n"
        }
    };
    // Nobody is left to be told that standard output is gone; the exit code still tells.
    let _told = std::io::stdout().lock().write_all(text.as_bytes());
    match is_good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn reports(args: &ProbeArgs) -> Result<Vec<Report>> {
    let probes = probes(args)?;
    let reactor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(reactor.block_on(async {
        let mut reports = Vec::new();
        let mut known: Option<Known> = None;
        // One after the other, so that none makes the other slower.
        for mut probe in probes {
            if !probe.follows {
                // A server that has no Autodiscover is asked for the mailbox that a name told of.
                probe.remembered.clone_from(&known);
            }
            let outcome = Box::pin(probe.run()).await;
            known = known.or(outcome.known);
            reports.push(outcome.report);
        }
        reports
    }))
}

/// What is to be tried, in the order of the columns.
fn probes(args: &ProbeArgs) -> Result<Vec<Probe>> {
    let settings = args.config.as_deref().map(settings).transpose()?;
    let Some(user) = &args.user else {
        return scheduled(args, settings.as_ref());
    };
    let base = base(args, user)?;
    let mut probes = Vec::new();
    for place in &args.urls {
        probes.push(Probe {
            place: place.clone(),
            ..base.clone()
        });
    }
    if let Some(settings) = settings.as_ref().filter(|_| args.urls.is_empty()) {
        probes.extend(of_names(args, settings, &base)?);
    }
    for server in &args.server {
        let known = settings.as_ref().and_then(|settings| {
            let mut servers = settings.servers.values();
            servers.find(|known| known.name.as_str().eq_ignore_ascii_case(server))
        });
        probes.push(match known {
            Some(known) => of_server(known, &base)?,
            None => Probe {
                place: server
                    .parse()
                    .with_context(|| format!("--server {server}"))?,
                follows: false,
                ..base.clone()
            },
        });
    }
    match probes.is_empty() {
        true => bail!("nothing to try: say a URL, --server or --config"),
        false => Ok(probes),
    }
}

/// What all of them have in common.
fn base(args: &ProbeArgs, user: &str) -> Result<Probe> {
    let secret = |text: zeroize::Zeroizing<String>| Secret::new(text.to_string());
    let credential = match (&args.token_file, &args.password_file, &args.tickets) {
        (Some(file), _, _) => Credential::Token(secret(first_line(file)?)),
        (None, Some(file), _) => Credential::Password(secret(first_line(file)?)),
        (None, None, Some(cache)) => Credential::Tickets(cache.clone()),
        (None, None, None) => Credential::Password(secret(typed(user)?)),
    };
    let place = Place {
        is_tls: true,
        host: String::new(),
        port: 443,
    };
    let steps = match args.steps.is_empty() {
        true => Step::ALL.to_vec(),
        false => args.steps.clone(),
    };
    let mut needed = Step::with_needs(steps);
    if args.mailbox.is_some() && !args.steps.is_empty() && !args.steps.contains(&Step::Autodiscover)
    {
        // It would only tell what is told already.
        needed.remove(&Step::Autodiscover);
    }
    let mailbox = args.mailbox.as_ref().zip(args.dn.as_ref());
    let at = args.urls.first().unwrap_or(&place);
    Ok(Probe {
        mailbox: mailbox.map(|(id, dn)| Known::at(at, id, dn)),
        place,
        detours: args.resolve.clone(),
        authorities: args.ca.as_deref().map(authorities).transpose()?,
        user: user.to_owned(),
        address: args.address.clone().unwrap_or_else(|| user.to_owned()),
        remembered: None,
        credential,
        follows: true,
        steps: needed,
        held_wait: args.held_wait,
        timeout: args.timeout,
    })
}

/// The names of a configuration, where its own listener has them: they may not be in DNS yet.
fn of_names(args: &ProbeArgs, settings: &Settings, base: &Probe) -> Result<Vec<Probe>> {
    for name in &args.name {
        let is_it = |known: &PublicName| known.host.eq_ignore_ascii_case(name);
        if !settings.names.iter().any(is_it) {
            bail!("{name} is not under `names`");
        }
    }
    let is_asked = |host: &str| {
        args.name.is_empty() || args.name.iter().any(|name| name.eq_ignore_ascii_case(host))
    };
    let listener = settings.listeners.first().map(|listener| {
        let mut address = listener.address;
        if address.ip().is_unspecified() {
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        (address, listener.plain_http)
    });
    let names = settings.names.iter().filter(|name| is_asked(&name.host));
    Ok(names
        .map(|name| {
            let mut detours = base.detours.clone();
            let is_plain = listener.is_some_and(|(_, is_plain)| is_plain);
            detours.extend(listener.map(|(address, _)| Detour::of_host(&name.host, address)));
            Probe {
                place: Place {
                    is_tls: !is_plain,
                    host: name.host.clone(),
                    port: if is_plain { 80 } else { 443 },
                },
                detours,
                ..base.clone()
            }
        })
        .collect())
}

/// A server of a configuration, as mapigate reaches it.
fn of_server(server: &Server, base: &Probe) -> Result<Probe> {
    let mut found = (server.host.as_str(), server.port)
        .to_socket_addrs()
        .with_context(|| format!("{}:{}", server.host, server.port))?;
    let address = found.next().context("no address")?;
    let host = server.fqdn().to_owned();
    let mut detours = base.detours.clone();
    detours.push(Detour::of_host(&host, address));
    Ok(Probe {
        place: Place {
            is_tls: server.tls.is_some(),
            host,
            port: server.port,
        },
        detours,
        authorities: match &server.tls {
            Some(tls) if tls.ca.is_some() => tls.ca.clone(),
            _ => base.authorities.clone(),
        },
        follows: false,
        ..base.clone()
    })
}

/// The probes of a configuration, now instead of when they are due.
fn scheduled(args: &ProbeArgs, settings: Option<&Settings>) -> Result<Vec<Probe>> {
    let Some(settings) = settings.filter(|_| args.urls.is_empty() && args.server.is_empty()) else {
        bail!("say with --user as whom to try it");
    };
    let is_asked = |name: &String| args.name.is_empty() || args.name.contains(name);
    let found: Vec<_> = settings
        .probes
        .iter()
        .filter(|probe| is_asked(&probe.name))
        .map(|probe| Probe::scheduled(probe))
        .collect();
    match found.is_empty() {
        true => bail!("the configuration has no such `probes`; say --user to try its names"),
        false => Ok(found),
    }
}

fn settings(file: &Path) -> Result<Settings> {
    let loaded = config::load(file, now_seconds())
        .map_err(|problems| anyhow!("{problems} in {}", file.display()))?;
    Ok(loaded.settings)
}

fn authorities(file: &Path) -> Result<Vec<Vec<u8>>> {
    let pem = std::fs::read(file).with_context(|| file.display().to_string())?;
    let ders: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let ders = ders.with_context(|| file.display().to_string())?;
    if ders.is_empty() {
        bail!("{}: no certificate in it", file.display());
    }
    Ok(ders.iter().map(|der| der.to_vec()).collect())
}
