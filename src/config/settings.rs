//! What is true after checking: one struct per room that needs settings.
//!
//! Nothing here is optional by accident: a default has been filled in, a name has been resolved, a
//! file has been read. A room that receives a setting need not check it again.

mod auth;
mod backend_identity;
mod http2;
mod ldap;
mod vdirs;

pub use auth::{
    AuthSettings, BasicAuth, BasicVerify, BearerAuth, BearerChallenge, BindingRule,
    CertificateAuth, CertificateName, HandshakeLimits, KeyPlace, KeySource, LockoutGuard,
    NegotiateAuth, NtlmAuth, RequiredClaim, SourceGuard, TokenIssuer, Untouched,
};
pub use backend_identity::{AssertionHandOff, BackendIdentity, KerberosHandOff};
pub use http2::{ByHttp11, Shareable};
pub use ldap::{Attributes, CopyNames, DatabaseForm, GuidForm, LdapServer, LdapSettings};
pub use vdirs::{VdirLogon, VdirPage, VdirSettings, Vdirs};

use super::SeenFile;
use crate::ids::{DatabaseName, ServerName};
use crate::mapi::{Build, Capable, Endpoint, Flavour};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// A secret from the file, the environment or a file of its own; prints as `…`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// Takes the secret over.
    pub fn new(text: String) -> Self {
        Self(Arc::new(Zeroizing::new(text)))
    }

    /// The secret itself; for the one place that sends or compares it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// The whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The file it was read from.
    pub source: PathBuf,
    /// Threads that carry connections (`workers`); default: one per core.
    pub workers: usize,
    /// Where clients reach us.
    pub listeners: Vec<Listener>,
    /// What all TLS listeners share.
    pub tls: Tls,
    /// What Outlook calls us.
    pub names: Vec<PublicName>,
    /// Mailbox servers by name.
    pub servers: BTreeMap<ServerName, Arc<Server>>,
    /// Databases that are listed with their copies, by name.
    pub databases: BTreeMap<DatabaseName, Database>,
    /// Where the copies of all others come from.
    pub copies_from: CopiesFrom,
    /// The file `databases` came from, where it has one of its own.
    pub databases_file: Option<PathBuf>,
    /// Who lives where.
    pub directory: DirectorySettings,
    /// What clients that look for their mailbox are told.
    pub autodiscover: Autodiscover,
    /// The other virtual directories.
    pub vdirs: Vdirs,
    /// How clients prove who they are.
    pub auth: AuthSettings,
    /// Whose credentials the mailbox server sees.
    pub backend_identity: BackendIdentity,
    /// Session memory.
    pub sessions: SessionSettings,
    /// Sizes, counts and deadlines.
    pub limits: Limits,
    /// How servers are watched.
    pub health: HealthSettings,
    /// What is written where.
    pub logging: Logging,
    /// What is told of the cost of requests.
    pub accounting: Accounting,
    /// What is tried from time to time.
    pub probes: Vec<Arc<ScheduledProbe>>,
    /// The administrator's door.
    pub admin: Admin,
    /// Re-read when a file of the configuration changes (`reload.watch`).
    pub watch_files: bool,
    /// Every file that was read, as it was found before, for the file watch.
    pub files: Vec<SeenFile>,
}

/// Something that is tried from time to time, as Outlook would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduledProbe {
    /// What metrics call it.
    pub name: String,
    /// The name that is tried, as a URL.
    pub url: String,
    /// Where it is, instead of what DNS says.
    pub connect_to: Option<SocketAddr>,
    /// DER of the authorities to trust; `None`: the system's.
    pub authorities: Option<Vec<Vec<u8>>>,
    /// As whom.
    pub user: String,
    /// The user's mail address.
    pub address: String,
    /// The user's password.
    pub password: Secret,
    /// Time between two.
    pub every: Duration,
    /// How long a step may take.
    pub timeout: Duration,
    /// How long a NotificationWait is held; zero: none is.
    pub held_wait: Duration,
}

/// One listening address.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Address and port.
    pub address: SocketAddr,
    /// TLS certificates by name; empty only where `plain_http` is set.
    pub certificates: Vec<Arc<Certificate>>,
    /// Speak HTTP without TLS. Passwords travel in clear: only behind a TLS terminator on the same host.
    pub plain_http: bool,
    /// Peers whose PROXY protocol v2 head is required and believed; empty: nobody's.
    pub proxy_protocol_from: Vec<IpNet>,
    /// Whose certificates are asked for; `None`: none are.
    pub client_certificates: Option<ClientCertificates>,
}

/// Which clients' certificates a listener trusts.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificates {
    /// DER of the authorities.
    pub authorities: Vec<Vec<u8>>,
    /// DER of their revocation lists; empty: none is looked at.
    pub revocation_lists: Vec<Vec<u8>>,
    /// Nobody is served without.
    pub is_required: bool,
}

impl fmt::Debug for ClientCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificates")
            .field("authorities", &self.authorities.len())
            .field("revocation_lists", &self.revocation_lists.len())
            .field("is_required", &self.is_required)
            .finish()
    }
}

/// A network in prefix notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpNet {
    /// The network's address.
    pub address: IpAddr,
    /// Leading bits that count.
    pub prefix: u8,
}

impl IpNet {
    /// True for an address of this network. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = |ip: IpAddr| match ip.to_canonical() {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
            IpAddr::V6(v6) => (u128::from(v6), 128),
        };
        let ((net, width), (other, other_width)) = (bits(self.address), bits(address));
        let prefix = u32::from(self.prefix).min(width);
        width == other_width && (prefix == 0 || (net ^ other) >> (128 - prefix) == 0)
    }
}

/// A certificate chain with its key, read and found to match.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The chain's file.
    pub chain_file: PathBuf,
    /// The key's file.
    pub key_file: PathBuf,
    /// DER of the chain, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// DER of the key (PKCS#8, PKCS#1 or SEC1).
    pub key: Zeroizing<Vec<u8>>,
    /// DNS names of the leaf, lower case, `*.` for wildcards.
    pub names: Vec<String>,
    /// Seconds since 1970 after which the leaf is not valid.
    pub not_after: i64,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("chain_file", &self.chain_file)
            .field("names", &self.names)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// What all TLS listeners share.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// Accept TLS 1.2 beside 1.3 (`tls.versions`).
    pub allow_tls12: bool,
    /// A handshake that takes longer is cut.
    pub handshake_timeout: Duration,
    /// Handshakes under way at once, each from the client's first byte on; more wait.
    pub handshakes_max: usize,
    /// The same for one source: an IPv4 address, or 64 bits of an IPv6 one.
    pub handshakes_per_address: usize,
    /// A ticket key is replaced this often, and honoured for as long again.
    pub ticket_rotation: Duration,
}

/// What Outlook calls us.
#[derive(Clone, Debug, PartialEq)]
pub struct PublicName {
    /// The host name, lower case.
    pub host: String,
    /// Base URL inside.
    pub internal_url: String,
    /// Base URL outside.
    pub external_url: Option<String>,
    /// Schemes that are accepted, challenges in this order.
    pub authentication: Vec<Scheme>,
    /// The same for endpoints that differ, by their index.
    pub endpoints: [Option<Vec<Scheme>>; 2],
    /// The same of Outlook Anywhere.
    pub channels: Option<Vec<Scheme>>,
    /// Who answers Autodiscover under this name.
    pub autodiscover: AutodiscoverMode,
    /// HTTP/2 is offered to clients that ask for this name.
    pub http2: bool,
}

impl Settings {
    /// The name of ours that clients write so.
    pub fn named(&self, host: &str) -> Option<&PublicName> {
        self.names.iter().find(|name| name.host == host)
    }
}

impl PublicName {
    /// Schemes that are accepted where a request came in, challenges in this order.
    pub fn offered(&self, endpoint: Option<Endpoint>) -> &[Scheme] {
        let own = endpoint.and_then(|endpoint| self.endpoints.get(endpoint.index())?.as_ref());
        own.unwrap_or(&self.authentication)
    }

    /// The same where a channel of Outlook Anywhere came in.
    pub fn offered_to_channels(&self) -> &[Scheme] {
        self.channels.as_ref().unwrap_or(&self.authentication)
    }
}

/// Who answers Autodiscover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutodiscoverMode {
    /// The mailbox server; its answer is filtered.
    Proxy,
    /// We, from directory and placement.
    Answer,
    /// Nobody: 404.
    Off,
}

/// What clients that look for their mailbox are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Autodiscover {
    /// The organisation's switch for MAPI over HTTP.
    pub mapi_http: bool,
    /// Internal URLs only.
    pub block_external: bool,
    /// Where clients inside are; empty: nobody is told apart.
    pub internal_networks: Vec<IpNet>,
    /// Outlook Anywhere is offered where MAPI over HTTP is not.
    pub outlook_anywhere: bool,
    /// Users may ask only for their own mailbox and those that list them.
    pub own_only: bool,
    /// Exchange Web Services.
    pub ews_url: Option<String>,
    /// Offline address books.
    pub oab_url: Option<String>,
    /// Exchange ActiveSync.
    pub activesync_url: Option<String>,
    /// Autodiscover of others, by domain (lower case).
    pub redirects: BTreeMap<String, String>,
}

/// An authentication scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// User name and password. RFC 7617
    Basic,
    /// A token that an identity provider signed. RFC 6750
    Bearer,
    /// A certificate shown in the TLS handshake. It has no challenge and no word in HTTP.
    Certificate,
    /// Kerberos, or NTLM inside of it; proves the connection. RFC 4559
    Negotiate,
    /// NTLM as it is; proves the connection. `[MS-NTHT]`
    Ntlm,
}

impl Scheme {
    /// Every scheme, in the order of their indices.
    pub const ALL: [Self; 5] = [
        Self::Basic,
        Self::Bearer,
        Self::Certificate,
        Self::Negotiate,
        Self::Ntlm,
    ];

    /// Position in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word that names it in HTTP, in title case. RFC 9110 11.1
    pub const fn word(self) -> &'static str {
        match self {
            Self::Basic => "Basic",
            Self::Bearer => "Bearer",
            Self::Certificate => "Certificate",
            Self::Negotiate => "Negotiate",
            Self::Ntlm => "NTLM",
        }
    }

    /// Its label in the configuration and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Bearer => "bearer",
            Self::Certificate => "certificate",
            Self::Negotiate => "negotiate",
            Self::Ntlm => "ntlm",
        }
    }
}

/// A mailbox server.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Its name here.
    pub name: ServerName,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS to it; `None` only where the file says `tls: off`.
    pub tls: Option<ServerTls>,
    /// Cookie names, code numbers, habits.
    pub flavour: Flavour,
    /// Its build of Exchange, where the site has told it.
    pub version: Option<Build>,
    /// What it speaks (`capability`, else by its version).
    pub capable: Capable,
    /// The one of our names by which clients are to reach it, lower case; `None`: any.
    pub url_name: Option<String>,
    /// What an `Authorization` header proves there: the request, or the whole connection.
    pub authenticates: Authenticates,
    /// How much it counts when the panic threshold is reckoned; 0 to 100.
    pub health_weight: u32,
    /// Connections kept for reuse, per worker.
    pub idle_connections_max: usize,
    /// An unused connection is closed after this; must be shorter than the server's own keep-alive.
    pub idle_timeout: Duration,
    /// Requests under way at once.
    pub requests_max: usize,
    /// Rewrite its response codes into the specification's numbers and restore missing echo headers.
    pub normalize: bool,
}

impl Server {
    /// The name it is known by: the one its certificate must carry, else the host of its address.
    pub fn fqdn(&self) -> &str {
        self.tls.as_ref().map_or(&self.host, |tls| &tls.name)
    }
}

/// What a mailbox server takes an `Authorization` header to prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authenticates {
    /// Each request by itself; connections may carry anybody's next request.
    Requests,
    /// The connection: one that has carried a user never carries another.
    Connections,
}

/// TLS to a mailbox server.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// DER of the authorities to trust; `None`: the system's.
    pub ca: Option<Vec<Vec<u8>>>,
    /// The name its certificate must carry; default: its host.
    pub name: String,
    /// Our certificate, where the server asks for one.
    pub client_certificate: Option<Arc<Certificate>>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("name", &self.name)
            .field("ca", &self.ca.as_ref().map(Vec::len))
            .field("client_certificate", &self.client_certificate)
            .finish()
    }
}

/// Where the copies of a database are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Servers in activation order.
    pub copies: Vec<ServerName>,
    /// The one that holds the active copy; default: the first.
    pub active: ServerName,
}

/// Where the copies of databases come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopiesFrom {
    /// Every database is listed with its copies.
    Configuration,
    /// The directory service.
    Directory {
        /// Where databases are active, as far as that is written; of the others the first copy is.
        active: BTreeMap<DatabaseName, ServerName>,
    },
}

/// Who lives where.
#[derive(Clone, Debug, PartialEq)]
pub struct DirectorySettings {
    /// The mailbox file.
    pub file: Option<PathBuf>,
    /// The directory service, instead of a file.
    pub ldap: Option<Arc<LdapSettings>>,
    /// For mailboxes that are in neither: domain (lower case) to database.
    pub default_databases: BTreeMap<String, DatabaseName>,
    /// Who may open a mailbox that says nothing itself.
    pub access: Access,
}

/// Who decides whether a user may open another's mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// The mailbox server, under the user's own identity.
    Backend,
    /// The list in the directory; the owner is always on it.
    Listed,
}

/// Session memory.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionSettings {
    /// Sessions remembered at once.
    pub capacity: usize,
    /// Kept this long beyond what the server's `X-ExpirationInfo` says.
    pub grace: Duration,
    /// What to assume where a server says nothing.
    pub default_expiration: Duration,
    /// The sealed cookie that lets another node or a restarted one go on.
    pub route_cookie: Option<RouteCookie>,
}

/// The sealed route cookie.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteCookie {
    /// Its name.
    pub name: String,
    /// Keys, newest first. The first seals, all open.
    pub keys: Vec<SealKey>,
}

/// A key of the route cookie: 32 random bytes with a name.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey {
    /// Its name in the sealed form, 0 to 255.
    pub id: u8,
    /// The key.
    pub key: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKey({}, …)", self.id)
    }
}

/// Sizes, counts and deadlines.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of a request head; Kerberos needs up to 64 KiB.
    pub head: usize,
    /// Bytes of a request body.
    pub body: u64,
    /// A chunked request body is measured first, up to this many bytes, because servers want `Content-Length`.
    pub chunked_body: usize,
    /// Time for a whole request head.
    pub head_timeout: Duration,
    /// Time without a byte of a request body.
    pub body_timeout: Duration,
    /// A client connection without a request is kept this long.
    pub idle_timeout: Duration,
    /// Time to reach a server, TLS included.
    pub connect_timeout: Duration,
    /// Time until a server's answer begins.
    pub first_byte_timeout: Duration,
    /// PENDING periods that may be missed before a server counts as dead.
    pub pending_missed: u32,
    /// What a server's `X-PendingPeriod` is taken to be where it says nothing.
    pub default_pending_period: Duration,
    /// A NotificationWait is ended after this.
    pub notification_wait: Duration,
    /// Client connections at once.
    pub connections: usize,
    /// Virtual connections of Outlook Anywhere at once.
    pub virtual_connections: usize,
    /// Requests of one user under way at once.
    pub requests_per_user: usize,
    /// Held polls of a database that moved end within this.
    pub move_jitter: Duration,
    /// Time to finish what is under way when we stop.
    pub drain: Duration,
}

/// How servers are watched.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthSettings {
    /// Time between checks of a server.
    pub interval: Duration,
    /// A check that takes longer has failed.
    pub timeout: Duration,
    /// Failures in a row that mark a server down.
    pub fall: u32,
    /// Successes in a row that mark it up again.
    pub rise: u32,
    /// Below this share of healthy weight, health is disbelieved and everybody counts as up; percent.
    pub panic_threshold: u32,
    /// Page that must answer 200; `None`: a TCP (and TLS) connection must succeed.
    pub page: Option<String>,
    /// The same page of Outlook Anywhere; `None`: nobody looks.
    pub rpc_page: Option<String>,
    /// An authenticated PING with these credentials, where configured.
    pub probe: Option<HealthProbe>,
}

/// Credentials of the authenticated probe.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthProbe {
    /// Login name.
    pub user: String,
    /// Its password.
    pub password: Secret,
}

/// What is written where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logging {
    /// Filter of the operator's log, as in `info,mapigate=debug`.
    pub level: String,
    /// JSON lines instead of text.
    pub json: bool,
    /// The access log.
    pub access: AccessLog,
    /// Files as Exchange's front end writes them, where they are wanted.
    pub http_proxy: Option<HttpProxyLog>,
    /// Bytes of lines of either log that may wait for the disk; more are dropped and counted.
    pub access_buffer: usize,
}

/// Where access lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// A file, reopened on SIGHUP.
    File(PathBuf),
}

/// Files as Exchange's front end writes them, by protocol and day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProxyLog {
    /// The folder that holds a folder for each protocol.
    pub folder: PathBuf,
    /// Bytes from which on the next file of the day is begun.
    pub file_size: u64,
    /// Files older than this are removed; whole days.
    pub keep: Duration,
    /// Bytes of all files; beyond it the oldest are removed.
    pub total_size: u64,
}

/// What is told of the cost of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accounting {
    /// Of which requests the processor time is measured; `None`: of none.
    pub cpu: Option<CpuSampling>,
    /// Names in each list of who used how much; 0: nobody is listed.
    pub usage_entries: usize,
    /// Our name in the `X-DeviceInfo` of answers, at most [`Self::DEVICE_ID_MAX`] characters; `None`: no
    /// such field.
    pub device_info: Option<String>,
}

/// How many requests are measured. Those stand for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuSampling {
    /// One in so many.
    pub every: NonZeroU32,
    /// One in so many is looked at phase by phase.
    pub closely_every: NonZeroU32,
}

impl Accounting {
    /// Characters of our name in `X-DeviceInfo`: the rest of its 64 is for the server's name and figures.
    pub const DEVICE_ID_MAX: usize = 24;
}

/// The administrator's door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Its address; `None` switches it off.
    pub address: Option<SocketAddr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_print() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "…");
        assert_eq!(secret.reveal(), "hunter2");
    }

    #[test]
    fn a_network_contains_its_own_addresses_only() {
        let net = IpNet {
            address: "10.1.0.0".parse().unwrap(),
            prefix: 16,
        };
        assert!(net.contains("10.1.255.255".parse().unwrap()));
        assert!(net.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!net.contains("10.2.0.0".parse().unwrap()));
        assert!(!net.contains("fe80::1".parse().unwrap()));
        let all = IpNet {
            address: "::".parse().unwrap(),
            prefix: 0,
        };
        assert!(all.contains("fe80::1".parse().unwrap()));
        assert!(!all.contains("10.2.0.0".parse().unwrap()));
    }
}
