//! How a simulated server is set up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;

use super::journal::Journal;
use crate::auth::handoff::assertion::Verifier;
use crate::ids::{DatabaseName, ServerName, UserName};
use crate::lab::identity_provider::Keys;
use crate::mapi::Flavour;

/// What a server checks before it executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Stale sequences and second requests of a context are refused.
    Validating,
    /// Every Execute of a known context is executed: whoever repeats one is caught.
    Naive,
}

/// What credentials are good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authenticate {
    /// Each request by itself.
    Requests,
    /// The connection: later requests without credentials are the same user.
    Connections,
    /// The connection, by its first credentials: later ones are not looked at.
    FirstOfConnection,
}

/// Who may come in.
#[derive(Clone, Debug)]
pub enum Users {
    /// Everybody, with any password.
    Any,
    /// These, with these passwords. Names are lower case.
    Listed(BTreeMap<UserName, String>),
}

impl Users {
    pub(super) fn names(&self) -> impl Iterator<Item = &UserName> {
        match self {
            Self::Any => None,
            Self::Listed(users) => Some(users.keys()),
        }
        .into_iter()
        .flatten()
    }
}

/// How a front end tells a server who the user is, beside what users show themselves.
#[derive(Clone, Debug, Default)]
pub enum Told {
    /// Not at all.
    #[default]
    Nothing,
    /// By a ticket in the user's name, which this key table opens.
    Tickets(PathBuf),
    /// By a token of the front end's own; in this header, or in `Authorization`.
    Assertions(Arc<Verifier>, String),
    /// By a header, on connections that showed a client certificate.
    Header(String),
    /// By a handshake of three messages like NTLM's, which proves the connection: `NTLM` with
    /// [`handshake`](super::authenticator::handshake)'s words in base64.
    Handshakes,
}

/// The account of a front end that names the user in a header.
#[derive(Clone, Debug)]
pub struct Service {
    /// The account.
    pub user: UserName,
    /// The header that names the user.
    pub header: String,
}

/// What the page for load balancers says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthPage {
    /// 200.
    Served,
    /// 500.
    Failing,
    /// 404.
    Missing,
}

/// Whose tokens a server takes.
#[derive(Clone, Debug, Default)]
pub enum Tokens {
    /// Nobody's.
    #[default]
    None,
    /// Everybody's, whatever they say.
    Any,
    /// Those that a provider with these keys signed.
    Signed(Keys),
}

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name.
    pub name: ServerName,
    /// What it calls its host in headers and URLs.
    pub host: String,
    /// Where it listens; port 0 for any.
    pub listen: SocketAddr,
    /// TLS, with or without client certificates.
    pub tls: Option<Arc<ServerConfig>>,
    /// Whose habits it has.
    pub flavour: Flavour,
    /// It speaks MAPI over HTTP; else it has no such endpoints, and does not offer them.
    pub mapi_http: bool,
    /// It speaks Outlook Anywhere, for the same users.
    pub outlook_anywhere: bool,
    /// What it checks.
    pub mode: Mode,
    /// Who may come in.
    pub users: Users,
    /// Whose tokens it takes beside passwords.
    pub tokens: Tokens,
    /// What credentials are good for.
    pub authenticate: Authenticate,
    /// The account of a front end.
    pub service: Option<Service>,
    /// How a front end tells who the user is.
    pub told: Told,
    /// Whose each mailbox is, by lower-case `MailboxId`: whoever asks for another's has crossed over, and
    /// is counted. Of mailboxes that are not here nothing is known.
    pub owners: HashMap<String, UserName>,
    /// Databases active here at the start.
    pub databases: BTreeSet<DatabaseName>,
    /// Which database a mailbox is in, by lower-case `MailboxId`.
    pub mailboxes: HashMap<String, DatabaseName>,
    /// The database of every other mailbox.
    pub default_database: Option<DatabaseName>,
    /// Contexts of databases not active here are unknown.
    pub strict_databases: bool,
    /// It has an address book; else its endpoint is not there.
    pub address_book: bool,
    /// The MAPI error that every logon to a mailbox ends with.
    pub refuses_logon: Option<u32>,
    /// `UserDn` of a Connect must be the user's own.
    pub checks_dn: bool,
    /// Idle time after which a context is gone; announced as `X-ExpirationInfo`.
    pub lifetime: Duration,
    /// Time between PENDINGs; announced as `X-PendingPeriod`.
    pub pending_period: Duration,
    /// How long a request is held at most.
    pub wait_limit: Duration,
    /// How long a held request stays after its client left.
    pub lingering_wait: Duration,
    /// Idle time after which a connection is closed.
    pub idle_timeout: Duration,
    /// How long wrong credentials are thought about.
    pub wrong_password_delay: Duration,
    /// Time between bytes that drip.
    pub drip_interval: Duration,
    /// Bytes of a request body.
    pub body_max: usize,
    /// Bytes of the ROP buffer in the answer to the lab's own Execute.
    pub answer_bytes: usize,
    /// Contexts one user may have per endpoint.
    pub contexts_per_user: usize,
    /// Connections served at once; the next gets 503 before TLS.
    pub connections_max: usize,
    /// The page for load balancers.
    pub health_page: HealthPage,
    /// Outlook on the web asks for the password by a form.
    pub forms: bool,
    /// Where executes are written down; clones of it may be shared by servers.
    pub journal: Journal,
    /// Executes are written down. Off only for benches.
    pub writes_journal: bool,
    /// Request heads remembered.
    pub heads_kept: usize,
}

impl Options {
    /// A server of this flavour with the measured habits and limits of the real one, and everybody let in.
    pub fn new(name: &str, flavour: Flavour) -> Self {
        let exchange = flavour == Flavour::Exchange;
        Self {
            name: ServerName::new(name),
            host: format!("{}.contoso.test", name.to_ascii_lowercase()),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            flavour,
            mapi_http: true,
            outlook_anywhere: true,
            mode: Mode::Validating,
            users: Users::Any,
            tokens: Tokens::None,
            authenticate: Authenticate::Requests,
            service: None,
            told: Told::Nothing,
            owners: HashMap::new(),
            databases: BTreeSet::new(),
            mailboxes: HashMap::new(),
            default_database: None,
            strict_databases: false,
            address_book: true,
            refuses_logon: None,
            checks_dn: false,
            lifetime: Duration::from_secs(900),
            pending_period: Duration::from_secs(30),
            wait_limit: Duration::from_secs(300),
            lingering_wait: Duration::from_secs(if exchange { 0 } else { 35 }),
            idle_timeout: Duration::from_secs(if exchange { 120 } else { 180 }),
            wrong_password_delay: Duration::ZERO,
            drip_interval: Duration::from_millis(2),
            body_max: if exchange { 4 << 20 } else { 50 << 20 },
            answer_bytes: 4096,
            contexts_per_user: 100,
            connections_max: usize::MAX,
            health_page: if exchange {
                HealthPage::Served
            } else {
                HealthPage::Missing
            },
            forms: false,
            journal: Journal::default(),
            writes_journal: true,
            heads_kept: 1024,
        }
    }
}
