//! `mapigate lab`: simulated mailbox servers, Outlooks and an identity provider, to try things with.

mod files;
mod identity_provider;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};

use crate::ids::{DatabaseName, UserName};
use crate::lab::authority::{self, Credential};
use crate::lab::crowd::{Crowd, Work};
use crate::lab::mailbox_server::{
    Authenticate, HealthPage, Journal, MailboxServer, Mode, Options, Service, Tokens, Users,
    control,
};
use crate::lab::outlook::{CookieLines, Options as OutlookOptions, Target};
use crate::mapi::Flavour;
use crate::mapi::bodies::{Body as _, ConnectRequest};

/// Simulated mailbox servers, Outlooks and an identity provider.
#[derive(Debug, Args)]
pub struct Lab {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A mailbox server that speaks MAPI over HTTP as Exchange or gromox does, and can do each thing wrong.
    ///
    /// Prints one JSON line with its address and the address of its control port. Faults are planned there:
    /// curl -X POST 'http://CONTROL/fault?kind=close-before-head&count=2&only=Execute'
    MailboxServer(Box<ServerArgs>),
    /// Outlooks that connect, execute, wait for notifications and find their way back.
    Outlook(Box<OutlookArgs>),
    /// An identity provider that gives tokens to whoever asks.
    ///
    /// Prints one JSON line with its issuer and address. curl 'ISSUER/token?user=user1@contoso.test' is a token;
    /// curl -X POST 'ISSUER/rotate?keep=false' makes a new key and withdraws the old one.
    IdentityProvider(identity_provider::ProviderArgs),
    /// Certificates, keys, users and mailboxes for a site to try, that nobody else has
    Files(files::FilesArgs),
    /// The body of a Connect on standard output, to send with curl: --user-dn ... > connect.bin
    ConnectBody(ConnectBodyArgs),
}

#[derive(Debug, Args)]
struct ConnectBodyArgs {
    /// The distinguished name by which the mailbox is opened
    #[arg(
        long,
        default_value = "/o=Contoso/ou=Exchange Administrative Group (FYDIBOHF23SPDLT)/cn=Recipients/cn=user1"
    )]
    user_dn: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FlavourArg {
    Exchange,
    Gromox,
}

impl From<FlavourArg> for Flavour {
    fn from(flavour: FlavourArg) -> Self {
        match flavour {
            FlavourArg::Exchange => Self::Exchange,
            FlavourArg::Gromox => Self::Gromox,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArg {
    /// Refuses stale sequences and second requests of a context.
    Validating,
    /// Executes whatever comes for a known context.
    Naive,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AuthenticateArg {
    /// Credentials are good for their request.
    Requests,
    /// Credentials are good for their connection.
    Connections,
}

#[derive(Debug, Args)]
struct ServerArgs {
    /// Where to listen; port 0 takes any.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where to take commands.
    #[arg(long, default_value = "127.0.0.1:0")]
    control: SocketAddr,
    /// What the server is called.
    #[arg(long, default_value = "MBX1")]
    name: String,
    /// What it calls its host in headers and URLs.
    #[arg(long)]
    host: Option<String>,
    /// Whose habits it has.
    #[arg(long, value_enum, default_value = "gromox")]
    flavour: FlavourArg,
    /// What it checks before it executes.
    #[arg(long, value_enum, default_value = "validating")]
    mode: ModeArg,
    /// Who may come in: user1@contoso.test:secret,...
    #[arg(long, value_delimiter = ',', required_unless_present = "any_password")]
    users: Vec<String>,
    /// Everybody may, with any password.
    #[arg(long, conflicts_with = "users")]
    any_password: bool,
    /// Takes tokens too and believes what they say.
    #[arg(long)]
    any_token: bool,
    /// Whether credentials are good for a request or for a connection.
    #[arg(long, value_enum, default_value = "requests")]
    authenticate: AuthenticateArg,
    /// The account of a front end, and the header in which it names the user: gate@contoso.test=X-Remote-User
    #[arg(long)]
    service: Option<String>,
    /// Databases with copies here: DB07=active,DB08=passive
    #[arg(long, value_delimiter = ',')]
    databases: Vec<String>,
    /// Which database a mailbox is in: guid@contoso.test=DB07; mailboxes not named are in the first database.
    #[arg(long, value_delimiter = ',')]
    mailboxes: Vec<String>,
    /// Knows no contexts of databases that are not active here.
    #[arg(long)]
    strict_databases: bool,
    /// Refuses a Connect with another user's distinguished name.
    #[arg(long)]
    check_dn: bool,
    /// Certificate for TLS, PEM.
    #[arg(long, requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Authority that client certificates must come from, PEM.
    #[arg(long, requires = "tls_certificate")]
    client_ca: Option<PathBuf>,
    /// Idle time after which a session context is gone.
    #[arg(long, default_value = "15m", value_parser = humantime::parse_duration)]
    lifetime: Duration,
    /// Time between PENDINGs.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pending_period: Duration,
    /// How long a NotificationWait is held.
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration)]
    wait_limit: Duration,
    /// How long a NotificationWait stays after its client left; gromox has 35s.
    #[arg(long, value_parser = humantime::parse_duration)]
    lingering_wait: Option<Duration>,
    /// Idle time after which a connection is closed; gromox has 3m and writes a 408 first.
    #[arg(long, value_parser = humantime::parse_duration)]
    idle_timeout: Option<Duration>,
    /// How long wrong credentials are thought about.
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    wrong_password_delay: Duration,
    /// Bytes of the ROP buffer that an Execute is answered with.
    #[arg(long, default_value_t = 4096)]
    answer_bytes: usize,
    /// Connections served at once; gromox has 400.
    #[arg(long)]
    connections_max: Option<usize>,
    /// Contexts one user may have.
    #[arg(long)]
    contexts_per_user: Option<usize>,
    /// Serves or hides /mapi/healthcheck.htm, whatever the flavour does.
    #[arg(long)]
    health_page: Option<bool>,
    /// Appends what is executed to this file, a JSON object per line.
    #[arg(long)]
    journal: Option<PathBuf>,
    /// Writes no journal and remembers no heads: for benches.
    #[arg(long, conflicts_with = "journal")]
    fast: bool,
}

#[derive(Debug, Args)]
struct OutlookArgs {
    /// Where to: `https://mail.contoso.test` or `http://127.0.0.1:8080`
    #[arg(long)]
    url: String,
    /// The address to connect to instead of the name's.
    #[arg(long)]
    address: Option<SocketAddr>,
    /// Who; {} becomes the client's number.
    #[arg(long)]
    user: String,
    /// The password of all of them.
    #[arg(long, env = "MAPIGATE_LAB_PASSWORD", hide_env_values = true)]
    password: String,
    /// MailboxId; {} becomes the client's number, {mailbox} the one that `lab files` gives it. The default is the user.
    #[arg(long)]
    mailbox: Option<String>,
    /// Authorities to trust, PEM.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// How many.
    #[arg(long, default_value_t = 1)]
    count: usize,
    /// For how long.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Between an answer and the next Execute.
    #[arg(long, default_value = "50ms", value_parser = humantime::parse_duration)]
    pause: Duration,
    /// Bytes of an Execute.
    #[arg(long, default_value_t = 2048)]
    request_bytes: usize,
    /// Bytes asked for in return.
    #[arg(long)]
    answer_bytes: Option<usize>,
    /// No NotificationWait.
    #[arg(long)]
    no_wait: bool,
    /// A Cookie line for each cookie.
    #[arg(long)]
    cookie_lines: bool,
    /// Whose code numbers to understand; gromox only when speaking to gromox directly.
    #[arg(long, value_enum, default_value = "exchange")]
    numbers: FlavourArg,
    /// One JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

/// Runs what was asked for, until it is done or interrupted.
///
/// # Errors
/// When an argument is not what it should be, or an address cannot be bound.
pub fn run(lab: Lab) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match lab.command {
            Command::MailboxServer(args) => serve(*args).await,
            Command::Outlook(args) => work(*args).await,
            Command::IdentityProvider(args) => identity_provider::serve(args).await,
            Command::Files(args) => files::write(&args),
            Command::ConnectBody(args) => connect_body(&args),
        }
    })
}

fn connect_body(args: &ConnectBodyArgs) -> anyhow::Result<ExitCode> {
    let body = ConnectRequest::of(&args.user_dn).encode();
    io::stdout().write_all(&body)?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(args: ServerArgs) -> anyhow::Result<ExitCode> {
    let control_address = args.control;
    let server = Arc::new(MailboxServer::spawn(server_options(args)?).await?);
    let (control, commands) = control::serve(Arc::clone(&server), control_address).await?;
    writeln!(
        io::stdout(),
        "{}",
        serde_json::json!({ "name": server.name(), "address": server.address(), "control": control })
    )?;
    tokio::select! {
        () = commands => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    Ok(ExitCode::SUCCESS)
}

fn server_options(args: ServerArgs) -> anyhow::Result<Options> {
    let mut options = Options::new(&args.name, args.flavour.into());
    options.listen = args.listen;
    if let Some(host) = args.host {
        options.host = host;
    }
    options.mode = match args.mode {
        ModeArg::Validating => Mode::Validating,
        ModeArg::Naive => Mode::Naive,
    };
    options.authenticate = match args.authenticate {
        AuthenticateArg::Requests => Authenticate::Requests,
        AuthenticateArg::Connections => Authenticate::Connections,
    };
    if !args.any_password {
        let mut users = BTreeMap::new();
        for pair in &args.users {
            let (user, password) = pair
                .split_once(':')
                .with_context(|| format!("--users: {pair:?} is not user:password"))?;
            users.insert(
                UserName::new(user.to_ascii_lowercase()),
                password.to_owned(),
            );
        }
        options.users = Users::Listed(users);
    }
    if args.any_token {
        options.tokens = Tokens::Any;
    }
    if let Some(service) = &args.service {
        let (user, header) = pair_of(service, "--service")?;
        options.service = Some(Service {
            user: UserName::new(user.to_ascii_lowercase()),
            header: header.to_owned(),
        });
    }
    for pair in &args.databases {
        let (name, state) = pair_of(pair, "--databases")?;
        let name = DatabaseName::new(name);
        match state {
            "active" => _ = options.databases.insert(name.clone()),
            "passive" => {}
            _ => bail!("--databases: {state:?} is neither active nor passive"),
        }
        options.default_database.get_or_insert(name);
    }
    for pair in &args.mailboxes {
        let (mailbox, database) = pair_of(pair, "--mailboxes")?;
        options
            .mailboxes
            .insert(mailbox.to_ascii_lowercase(), DatabaseName::new(database));
    }
    options.strict_databases = args.strict_databases;
    options.checks_dn = args.check_dn;
    options.tls = match (args.tls_certificate, args.tls_key) {
        (Some(certificate), Some(key)) => {
            let credential = Credential {
                certificate: read(&certificate)?,
                key: read(&key)?,
            };
            let client_ca = args.client_ca.as_ref().map(read).transpose()?;
            Some(authority::server_config(&credential, client_ca.as_deref())?)
        }
        _ => None,
    };
    options.lifetime = args.lifetime;
    options.pending_period = args.pending_period;
    options.wait_limit = args.wait_limit;
    options.lingering_wait = args.lingering_wait.unwrap_or(options.lingering_wait);
    options.idle_timeout = args.idle_timeout.unwrap_or(options.idle_timeout);
    options.wrong_password_delay = args.wrong_password_delay;
    options.answer_bytes = args.answer_bytes;
    options.connections_max = args.connections_max.unwrap_or(options.connections_max);
    options.contexts_per_user = args.contexts_per_user.unwrap_or(options.contexts_per_user);
    options.health_page = match args.health_page {
        None => options.health_page,
        Some(true) => HealthPage::Served,
        Some(false) => HealthPage::Missing,
    };
    if let Some(path) = &args.journal {
        options.journal =
            Journal::in_file(path).with_context(|| format!("--journal {}", path.display()))?;
    }
    if args.fast {
        options.writes_journal = false;
        options.heads_kept = 0;
    }
    Ok(options)
}

async fn work(args: OutlookArgs) -> anyhow::Result<ExitCode> {
    let target = target_of(&args)?;
    let options = (1..=args.count)
        .map(|number| {
            let numbered = |text: &str| text.replace("{}", &number.to_string());
            let user = numbered(&args.user);
            let mailbox = numbered(args.mailbox.as_deref().unwrap_or(&args.user))
                .replace("{mailbox}", &crate::lab::site::mailbox(number));
            let mut options = OutlookOptions::new(target.clone(), &user, &args.password, &mailbox);
            options.numbers = args.numbers.into();
            if args.cookie_lines {
                options.cookie_lines = CookieLines::Each;
            }
            options
        })
        .collect();
    let crowd = Crowd::start(
        options,
        &Work {
            pause: args.pause,
            request_bytes: args.request_bytes,
            answer_bytes: args.answer_bytes,
            waits: !args.no_wait,
        },
    );
    for second in 1..=args.seconds {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            interrupted = tokio::signal::ctrl_c() => { interrupted?; break; }
        }
        let report = crowd.report();
        writeln!(
            io::stderr(),
            "{second:>4} s  connected {}  executes {}  unknown {}  code 10 {}  reconnects {}",
            report.connected,
            report.executes_ok,
            report.executes_unknown,
            report.code10s,
            report.reconnects,
        )?;
    }
    let (report, _) = crowd.stop(Duration::from_secs(5)).await;
    if args.json {
        writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?;
    } else {
        write!(io::stdout(), "{report}")?;
    }
    Ok(match report.connected == report.clients {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn target_of(args: &OutlookArgs) -> anyhow::Result<Target> {
    let (scheme, rest) = args
        .url
        .split_once("://")
        .context("--url begins with https:// or http://")?;
    let host = rest.split('/').next().unwrap_or(rest);
    let (tls, port) = match scheme {
        "https" => {
            let authorities = match &args.ca {
                Some(path) => read(path)?,
                None => bail!("--ca is needed for https: the lab trusts no authority by itself"),
            };
            (Some(authority::client_config(&authorities)?), 443)
        }
        "http" => (None, 80),
        _ => bail!("--url begins with https:// or http://, not {scheme}://"),
    };
    let address = match args.address {
        Some(address) => address,
        None => {
            let with_port = match host.rsplit_once(':') {
                Some((_, digits)) if digits.parse::<u16>().is_ok() => host.to_owned(),
                _ => format!("{host}:{port}"),
            };
            with_port
                .to_socket_addrs()
                .with_context(|| format!("cannot resolve {host}"))?
                .next()
                .with_context(|| format!("{host} has no address"))?
        }
    };
    Ok(Target {
        address,
        host: host.to_owned(),
        tls,
    })
}

fn pair_of<'a>(text: &'a str, option: &str) -> anyhow::Result<(&'a str, &'a str)> {
    text.split_once('=')
        .with_context(|| format!("{option}: {text:?} has no ="))
}

fn read(path: &PathBuf) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
