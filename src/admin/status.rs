//! What the process is doing, for programs and for the page.

use crate::ids::{DatabaseName, ServerName};
use crate::mapi::Flavour;
use crate::placement::Source;
use serde::Serialize;

/// Everything `/status.json` says.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The version that is running.
    pub version: &'static str,
    /// `starting`, `serving` or `draining`.
    pub phase: &'static str,
    /// Configurations accepted since the start.
    pub generation: u64,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Mailbox servers by name.
    pub servers: Vec<ServerStatus>,
    /// Too little is healthy to believe in health: every server counts as eligible.
    pub health_panics: bool,
    /// Databases by name.
    pub databases: Vec<DatabaseStatus>,
    /// What the directory service tells of copies; `None` where all are in the configuration.
    pub copies: Option<CopiesStatus>,
    /// Changes of the database map since the start.
    pub placement_epoch: u64,
    /// Mailboxes in the mailbox file.
    pub mailboxes: usize,
    /// The servers of the directory service; empty where there is none.
    pub directory: Vec<DirectoryServer>,
    /// Names and mailboxes remembered of the directory service.
    pub directory_entries: u64,
    /// Sessions in the table.
    pub sessions: usize,
    /// Sessions the table holds at most.
    pub sessions_capacity: usize,
    /// Client connections open.
    pub connections: u64,
    /// Requests under way, held polls included.
    pub requests_in_flight: u64,
    /// NotificationWaits held open.
    pub held_polls: u64,
    /// Access lines lost since the start.
    pub access_log_dropped: u64,
    /// The probes of the configuration that have been run.
    pub probes: Vec<ProbeStatus>,
    /// How the last reload ended.
    pub last_reload: ReloadStatus,
    /// The listeners' certificates.
    pub certificates: Vec<CertificateStatus>,
}

/// A mailbox server.
#[derive(Clone, Debug, Serialize)]
pub struct ServerStatus {
    /// Its name.
    pub name: ServerName,
    /// Where it is.
    pub address: String,
    /// Its family.
    pub flavour: Flavour,
    /// Counts as up.
    pub is_up: bool,
    /// May be given requests.
    pub is_eligible: bool,
    /// Why it is not up.
    pub reason: Option<&'static str>,
    /// Other virtual directories that it does not serve, though it is up.
    pub vdirs_down: Vec<&'static str>,
    /// How long it has been so.
    pub since_seconds: u64,
    /// Requests under way to it.
    pub inflight: u64,
}

/// A database.
#[derive(Clone, Debug, Serialize)]
pub struct DatabaseStatus {
    /// Its name.
    pub name: DatabaseName,
    /// Servers in activation order.
    pub copies: Vec<ServerName>,
    /// The one that holds the active copy.
    pub active: ServerName,
    /// Who says so: `configuration`, `directory` or `both` (copies the directory, which is active the configuration).
    pub source: Source,
    /// Its requests can be served now.
    pub is_available: bool,
}

/// What the directory service tells of copies of databases.
#[derive(Clone, Debug, Serialize)]
pub struct CopiesStatus {
    /// Seconds since they were last read; `None`: never.
    pub read_seconds_ago: Option<u64>,
    /// Why the last attempt to read them came to nothing.
    pub trouble: Option<String>,
    /// What is left out, and what does not fit the configuration.
    pub differences: Vec<String>,
}

/// A server of the directory service.
#[derive(Clone, Debug, Serialize)]
pub struct DirectoryServer {
    /// Where it is.
    pub url: String,
    /// Why it could not be used when it was last tried; `None`: it could, or was not tried yet.
    pub trouble: Option<String>,
}

/// What came of a probe when it was last run.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeStatus {
    /// Its name.
    pub name: String,
    /// No step failed.
    pub is_good: bool,
    /// When, RFC 3339.
    pub time: String,
    /// The step that failed, and what came instead.
    pub failed: Option<String>,
}

/// How the last reload ended; at the start, how the start did.
#[derive(Clone, Debug, Serialize)]
pub struct ReloadStatus {
    /// The configuration was accepted.
    pub is_ok: bool,
    /// When, RFC 3339.
    pub time: String,
    /// What was wrong.
    pub problems: Vec<String>,
}

/// A certificate of a listener.
#[derive(Clone, Debug, Serialize)]
pub struct CertificateStatus {
    /// Its names.
    pub names: Vec<String>,
    /// The chain's file.
    pub file: String,
    /// When it expires, RFC 3339.
    pub not_after: String,
    /// Whole days until then; negative when it is over.
    pub days_left: i64,
}

/// Seconds since 1970 as RFC 3339 in UTC.
pub(super) fn date(unix_seconds: i64) -> String {
    time::OffsetDateTime::from_unix_timestamp(unix_seconds)
        .ok()
        .and_then(|at| {
            at.format(&time::format_description::well_known::Rfc3339)
                .ok()
        })
        .unwrap_or_else(|| unix_seconds.to_string())
}
