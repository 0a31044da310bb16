//! Conversations with the directory service: searches that share connections, passwords on others.
//!
//! They run on the runtime of [`Client::live_on`], not on that of whoever asks, and end by themselves: in
//! twice the time allowed to connect and to answer at the latest.

use super::Trouble;
use super::dial::{Fault, dial};
use super::line::{Connection, Line};
use super::servers::Servers;
use crate::config::settings::{LdapServer, LdapSettings};
use crate::metrics::{LdapMeters, LdapOperation, LdapOutcome, LdapPool};
use ldap3::adapters::{Adapter, EntriesOnly, PagedResults};
use ldap3::{Ldap, LdapError, LdapResult, Scope, SearchEntry, SearchOptions, SearchResult};
use parking_lot::Mutex;
use rustls::ClientConfig;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// The servers of a directory service, and the connections to them.
#[derive(Debug)]
pub struct Client {
    settings: Arc<LdapSettings>,
    servers: Arc<Servers>,
    tls: Option<Arc<ClientConfig>>,
    searches: Vec<Line>,
    next: AtomicUsize,
    changes: Line,
    /// Connections on which a password was tried, for the next one.
    idle: Mutex<Vec<Connection>>,
    turns: Arc<Semaphore>,
    home: OnceLock<(Handle, LdapMeters)>,
}

/// What the directory says of a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is right, and its owner may log on.
    Good,
    /// It is not, or its owner may not. The words are for the operator.
    Wrong(&'static str),
}

impl Client {
    /// Prepares; nothing is dialled. `tls` is for servers that speak it.
    pub fn new(settings: &Arc<LdapSettings>, tls: Option<Arc<ClientConfig>>) -> Self {
        let line = |_| Line::new(LdapPool::Search);
        Self {
            servers: Arc::new(Servers::new(&settings.servers)),
            tls,
            searches: (0..settings.search_connections.max(1)).map(line).collect(),
            next: AtomicUsize::new(0),
            changes: Line::new(LdapPool::Changes),
            idle: Mutex::default(),
            turns: Arc::new(Semaphore::new(settings.bind_connections.max(1))),
            home: OnceLock::new(),
            settings: Arc::clone(settings),
        }
    }

    /// Says once where conversations run, and where they are counted. Before, they run where they are
    /// asked for and are not counted.
    pub fn live_on(&self, home: Handle, meters: LdapMeters) {
        let _said_before = self.home.set((home, meters));
    }

    /// Where they are counted, once that is said.
    pub(super) fn meters(&self) -> Option<&LdapMeters> {
        self.home.get().map(|(_, meters)| meters)
    }

    /// The runtime of the conversations.
    pub(super) fn home(&self) -> Result<Handle, Trouble> {
        match self.home.get() {
            Some((home, _)) => Ok(home.clone()),
            None => Handle::try_current().map_err(|_none| Trouble::Busy),
        }
    }

    /// The servers in the order of preference, and why those that failed and have not worked since did.
    pub fn states(&self) -> Vec<(String, Option<String>)> {
        self.servers.states()
    }

    /// Entries that a filter finds, below the base; more than a few are cut off, since whoever asks means one.
    pub(super) async fn search(
        self: &Arc<Self>,
        filter: String,
        attributes: &Arc<[String]>,
    ) -> Result<Vec<SearchEntry>, Trouble> {
        let line = self.next.fetch_add(1, Ordering::Relaxed) % self.searches.len().max(1);
        let line = self.searches.get(line).ok_or(Trouble::Busy)?;
        let query = Query {
            base: &self.settings.base,
            scope: Scope::Subtree,
            filter: &filter,
            attributes,
        };
        self.asked(LdapOperation::Search, line, &query, Reach::One)
            .await
    }

    /// The attributes of the server itself, as the line for changes sees it. RFC 4512 5.1
    pub(super) async fn root(
        self: &Arc<Self>,
        attributes: &[String],
    ) -> Result<Option<SearchEntry>, Trouble> {
        let query = Query {
            base: "",
            scope: Scope::Base,
            filter: "(objectClass=*)",
            attributes,
        };
        let found = self.asked(LdapOperation::Changes, &self.changes, &query, Reach::One);
        Ok(found.await?.pop())
    }

    /// Everything that a filter finds, in pages, on the line for changes; [`CHANGES_MAX`] at most.
    pub(super) async fn all(
        self: &Arc<Self>,
        filter: &str,
        attributes: &[String],
    ) -> Result<Vec<SearchEntry>, Trouble> {
        let query = Query {
            base: &self.settings.base,
            scope: Scope::Subtree,
            filter,
            attributes,
        };
        self.asked(LdapOperation::Changes, &self.changes, &query, Reach::Many)
            .await
    }

    /// Everything that a query finds, in pages, on the line for changes. A part of it is an error, and so are
    /// [`CHANGES_MAX`] entries.
    pub(super) async fn whole(&self, query: &Query<'_>) -> Result<Vec<SearchEntry>, Trouble> {
        let found = self.asked(LdapOperation::Changes, &self.changes, query, Reach::Whole);
        let found = found.await?;
        match found.len() < CHANGES_MAX {
            true => Ok(found),
            false => Err(Trouble::Answer),
        }
    }

    async fn asked(
        &self,
        operation: LdapOperation,
        line: &Line,
        query: &Query<'_>,
        reach: Reach,
    ) -> Result<Vec<SearchEntry>, Trouble> {
        let mut trouble = Trouble::Broken;
        for _ in 0..ATTEMPTS {
            let (connection, was_open) = line.take(self).await?;
            let timer = self.meters().map(|meters| meters.begin(operation));
            let limit = self.settings.operation_timeout;
            let answer = async {
                match reach {
                    Reach::One => query.once(&connection).await,
                    Reach::Many | Reach::Whole => query.pages(&connection).await,
                }
            };
            let limit = match reach {
                Reach::One => limit,
                Reach::Many | Reach::Whole => limit * PAGES_PATIENCE,
            };
            let answer = match timeout(limit, answer).await {
                Ok(Ok((entries, result))) => read(result, reach).map(|()| entries),
                Ok(Err(error)) => Err(Failure::of(&error, &connection.fault)),
                Err(_elapsed) => Err(Failure::late()),
            };
            if let Some(timer) = timer {
                timer.end(match &answer {
                    Ok(_) => LdapOutcome::Ok,
                    Err(failure) => failure.outcome(),
                });
            }
            let failure = match answer {
                Ok(entries) => return Ok(entries),
                Err(failure) => failure,
            };
            if !failure.is_of_connection {
                tracing::warn!(why = failure.why, "the directory refused a search");
                return Err(failure.trouble);
            }
            line.lose(&connection).await;
            // A kept connection that the server closed meanwhile says nothing against the server.
            if !was_open || failure.trouble == Trouble::Late {
                self.rest_after(&failure, connection.server);
            }
            trouble = failure.trouble;
        }
        Err(trouble)
    }

    /// Tries a password. The name and the password must not be empty: a directory may take that for
    /// somebody who wants to be nobody, and say yes. RFC 4513 5.1.2
    pub async fn try_password(
        self: &Arc<Self>,
        name: String,
        password: Zeroizing<String>,
    ) -> Result<Verdict, Trouble> {
        if name.is_empty() || password.is_empty() || password.contains('\0') {
            return Ok(Verdict::Wrong("empty name or password"));
        }
        let client = Arc::clone(self);
        let tried = self.home()?.spawn(async move {
            let patience = client.settings.operation_timeout;
            let turn = Arc::clone(&client.turns).acquire_owned();
            let Ok(Ok(_turn)) = timeout(patience, turn).await else {
                return Err(Trouble::Busy);
            };
            client.bound(&name, &password).await
        });
        tried.await.unwrap_or(Err(Trouble::Broken))
    }

    async fn bound(&self, name: &str, password: &str) -> Result<Verdict, Trouble> {
        let mut trouble = Trouble::Broken;
        for _ in 0..ATTEMPTS {
            let kept = self.kept();
            let was_open = kept.is_some();
            let mut connection = match kept {
                Some(kept) => kept,
                None => self.dial(LdapPool::Bind).await?,
            };
            let timer = self
                .meters()
                .map(|meters| meters.begin(LdapOperation::Bind));
            let answer = connection.ldap.simple_bind(name, password);
            let answer = match timeout(self.settings.operation_timeout, answer).await {
                Ok(Ok(result)) => judged(&result),
                Ok(Err(error)) => Err(Failure::of(&error, &connection.fault)),
                Err(_elapsed) => Err(Failure::late()),
            };
            if let Some(timer) = timer {
                timer.end(match &answer {
                    Ok(Verdict::Good) => LdapOutcome::Ok,
                    Ok(Verdict::Wrong(_)) => LdapOutcome::Refused,
                    Err(failure) => failure.outcome(),
                });
            }
            match answer {
                Ok(verdict) => {
                    self.idle.lock().push(connection);
                    return Ok(verdict);
                }
                Err(failure) => {
                    trouble = failure.trouble;
                    // A password that may have been looked at is not tried again at another server: it
                    // would count twice against its owner.
                    if !was_open || trouble == Trouble::Late {
                        self.rest_after(&failure, connection.server);
                        break;
                    }
                    // Those beside it were closed with it.
                    self.idle.lock().clear();
                }
            }
        }
        Err(trouble)
    }

    /// A connection for passwords that is still open.
    fn kept(&self) -> Option<Connection> {
        let mut idle = self.idle.lock();
        while let Some(mut kept) = idle.pop() {
            if !kept.ldap.is_closed() {
                return Some(kept);
            }
        }
        None
    }

    fn rest_after(&self, failure: &Failure, server: usize) {
        let least = match failure.trouble {
            // Each attempt counts against our own account, which must not be locked.
            Trouble::OwnAccount => REST_OF_OWN_ACCOUNT,
            _ => Duration::ZERO,
        };
        if let Ok(home) = self.home() {
            self.servers.failed(server, &failure.why, least, &home);
        }
    }

    /// A new connection to the first server that takes it. Those for searches are logged on.
    pub(super) async fn dial(&self, pool: LdapPool) -> Result<Connection, Trouble> {
        let mut trouble = Trouble::Unreachable;
        for (server, there) in self.servers.awake() {
            let timer = self
                .meters()
                .map(|meters| meters.begin(LdapOperation::Connect));
            let dialled = self.dialled(there, pool).await;
            if let Some(timer) = timer {
                timer.end(match &dialled {
                    Ok(_) => LdapOutcome::Ok,
                    Err(failure) => failure.outcome(),
                });
            }
            match dialled {
                Ok((ldap, fault)) => {
                    self.servers.worked(server);
                    return Ok(Connection {
                        ldap,
                        fault,
                        server,
                        _open: self.meters().and_then(|meters| meters.connected(pool)),
                    });
                }
                Err(failure) => {
                    self.rest_after(&failure, server);
                    trouble = match failure.trouble {
                        Trouble::Broken => Trouble::Unreachable,
                        trouble => trouble,
                    };
                }
            }
        }
        Err(trouble)
    }

    async fn dialled(&self, server: &LdapServer, pool: LdapPool) -> Result<(Ldap, Fault), Failure> {
        let settings = &self.settings;
        let home = self.home().map_err(|_none| Failure::late())?;
        let dialling = dial(server, settings.starttls, self.tls.as_ref(), &home);
        let (mut ldap, fault) = match timeout(settings.connect_timeout, dialling).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return Err(Failure::broken(error.to_string())),
            Err(_elapsed) => return Err(Failure::late()),
        };
        if pool == LdapPool::Bind {
            return Ok((ldap, fault));
        }
        let bound = ldap.simple_bind(&settings.bind_name, settings.bind_password.reveal());
        match timeout(settings.operation_timeout, bound).await {
            Err(_elapsed) => Err(Failure::late()),
            Ok(Err(error)) => Err(Failure::of(&error, &fault)),
            Ok(Ok(result)) if result.rc == 0 => Ok((ldap, fault)),
            Ok(Ok(result)) => Err(Failure {
                trouble: Trouble::OwnAccount,
                is_of_connection: true,
                why: format!(
                    "it refuses {}: {} ({})",
                    settings.bind_name,
                    refusal_words(&result.text),
                    result.rc
                ),
            }),
        }
    }
}

/// How much of what there is is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// One entry; a few more are no harm.
    One,
    /// All of them, and what can be had where not all can.
    Many,
    /// All of them or none.
    Whole,
}

/// What is searched for, and where.
pub(super) struct Query<'q> {
    pub(super) base: &'q str,
    pub(super) scope: Scope,
    pub(super) filter: &'q str,
    pub(super) attributes: &'q [String],
}

impl Query<'_> {
    async fn once(
        &self,
        connection: &Connection,
    ) -> Result<(Vec<SearchEntry>, LdapResult), LdapError> {
        let mut ldap = connection.ldap.clone();
        ldap.with_search_options(SearchOptions::new().sizelimit(ENTRIES_MAX));
        let found = ldap.search(self.base, self.scope, self.filter, self.attributes);
        let SearchResult(entries, result) = found.await?;
        let entries = entries
            .into_iter()
            .filter(|entry| !entry.is_ref() && !entry.is_intermediate())
            .map(SearchEntry::construct);
        Ok((entries.collect(), result))
    }

    async fn pages(
        &self,
        connection: &Connection,
    ) -> Result<(Vec<SearchEntry>, LdapResult), LdapError> {
        let mut ldap = connection.ldap.clone();
        // Where else to look is not followed: the base is what is looked at.
        let adapters: Vec<Box<dyn Adapter<'_, String, Vec<String>>>> = vec![
            Box::new(EntriesOnly::new()),
            Box::new(PagedResults::new(PAGE)),
        ];
        let attributes = self.attributes.to_vec();
        let mut stream = ldap
            .streaming_search_with(adapters, self.base, self.scope, self.filter, attributes)
            .await?;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while let Some(entry) = stream.next().await? {
            let entry = SearchEntry::construct(entry);
            bytes += size(&entry);
            if bytes > PAGES_BYTES_MAX {
                return Err(io::Error::other("more than a directory has to say").into());
            }
            entries.push(entry);
            if entries.len() >= CHANGES_MAX {
                break;
            }
        }
        Ok((entries, stream.finish().await))
    }
}

/// About so many bytes of memory.
fn size(entry: &SearchEntry) -> usize {
    const EACH: usize = 64;
    let texts = entry.attrs.values().flatten().map(String::len);
    let values = entry.bin_attrs.values().flatten().map(Vec::len);
    let values: usize = texts.chain(values).map(|length| length + EACH).sum();
    entry.dn.len() + values + EACH
}

/// Why a conversation failed.
struct Failure {
    trouble: Trouble,
    /// Another connection may do better.
    is_of_connection: bool,
    /// For the operator.
    why: String,
}

impl Failure {
    fn late() -> Self {
        Self {
            trouble: Trouble::Late,
            is_of_connection: true,
            why: Trouble::Late.words().to_owned(),
        }
    }

    fn broken(why: String) -> Self {
        Self {
            trouble: Trouble::Broken,
            is_of_connection: true,
            why,
        }
    }

    fn of(error: &LdapError, fault: &Fault) -> Self {
        match fault.get() {
            Some(nonsense) => Self::broken(format!("what it says is not believed: {nonsense}")),
            None => Self {
                is_of_connection: !matches!(error, LdapError::FilterParsing),
                ..Self::broken(error.to_string())
            },
        }
    }

    fn outcome(&self) -> LdapOutcome {
        match self.trouble {
            Trouble::Late => LdapOutcome::Timeout,
            Trouble::OwnAccount | Trouble::Answer => LdapOutcome::Refused,
            _ => LdapOutcome::Failed,
        }
    }
}

/// The result of a search. RFC 4511 4.1.9
fn read(result: LdapResult, reach: Reach) -> Result<(), Failure> {
    match result.rc {
        0 => Ok(()),
        // More than asked for, which is too many anyway; some of it is elsewhere.
        4 | 10 if reach != Reach::Whole => Ok(()),
        // Not bound any more, too busy, going away: another connection may do better.
        rc @ (1 | 8 | 51 | 52 | 80) => Err(Failure {
            trouble: Trouble::Answer,
            is_of_connection: true,
            why: format!("result {rc}: {}", result.text),
        }),
        rc => Err(Failure {
            trouble: Trouble::Answer,
            is_of_connection: false,
            why: format!("result {rc}: {}", result.text),
        }),
    }
}

/// The result of a bind with somebody's password.
fn judged(result: &LdapResult) -> Result<Verdict, Failure> {
    match result.rc {
        0 => Ok(Verdict::Good),
        49 => Ok(Verdict::Wrong(refusal_words(&result.text))),
        // No such entry, a syntax nobody's name has, not allowed to log on this way.
        19 | 32 | 34 | 48 | 50 | 53 => Ok(Verdict::Wrong(
            "the directory does not let this name log on",
        )),
        rc => Err(Failure {
            trouble: Trouble::Answer,
            is_of_connection: true,
            why: format!("result {rc} to a logon: {}", result.text),
        }),
    }
}

/// What Active Directory means by the number in the text of a refused logon. `[MS-ERREF] 2.2`
fn refusal_words(text: &str) -> &'static str {
    let code = text.split("data ").nth(1).unwrap_or_default();
    let code = code.split([',', ' ']).next().unwrap_or_default();
    match code {
        "525" => "unknown to the directory (525)",
        "530" => "not allowed to log on now (530)",
        "531" => "not allowed to log on from here (531)",
        "532" => "password expired (532)",
        "533" => "account disabled (533)",
        "568" => "too many groups (568)",
        "701" => "account expired (701)",
        "773" => "must set a new password (773)",
        "775" => "account locked (775)",
        _ => "wrong name or password (52e)",
    }
}

/// While the directory refuses our own account.
const REST_OF_OWN_ACCOUNT: Duration = Duration::from_secs(30);
/// Once more, on another connection.
const ATTEMPTS: usize = 2;
/// Whoever asks means one entry; with several it is to be seen that they are several.
const ENTRIES_MAX: i32 = 16;
/// Entries of a page of changes.
const PAGE: i32 = 500;
/// All pages of an answer: 3 KB for each entry of the most that are looked at.
const PAGES_BYTES_MAX: usize = 64 << 20;
/// More changes than these are not looked at one by one.
pub(super) const CHANGES_MAX: usize = 20_000;
/// Many pages may take longer than one answer.
const PAGES_PATIENCE: u32 = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn result(rc: u32, text: &str) -> LdapResult {
        LdapResult {
            rc,
            matched: String::new(),
            text: text.to_owned(),
            refs: Vec::new(),
            ctrls: Vec::new(),
        }
    }

    #[test]
    fn refused_logons_are_told_apart_for_the_operator() {
        let text = "80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data 775, v1db1";
        let verdict = |text: &str| judged(&result(49, text)).ok();

        assert_eq!(verdict(text), Some(Verdict::Wrong("account locked (775)")));
        assert_eq!(
            verdict(&text.replace("775", "52e")),
            Some(Verdict::Wrong("wrong name or password (52e)"))
        );
        assert_eq!(
            verdict("Invalid credentials"),
            Some(Verdict::Wrong("wrong name or password (52e)"))
        );
    }

    #[test]
    fn only_success_is_success() {
        for rc in 1..=200 {
            assert_ne!(judged(&result(rc, "")).ok(), Some(Verdict::Good), "{rc}");
        }
        assert_eq!(judged(&result(0, "")).ok(), Some(Verdict::Good));
    }

    #[test]
    fn a_part_is_an_answer_only_where_the_whole_is_not_wanted() {
        for (rc, is_part) in [(0, true), (4, true), (10, true), (32, false), (50, false)] {
            for reach in [Reach::One, Reach::Many] {
                assert_eq!(read(result(rc, ""), reach).is_ok(), is_part, "{rc}");
            }
            assert_eq!(read(result(rc, ""), Reach::Whole).is_ok(), rc == 0, "{rc}");
        }
    }

    #[tokio::test]
    async fn an_empty_password_never_reaches_the_directory() {
        let settings = Arc::new(super::super::person::tests::settings());
        let client = Arc::new(Client::new(&settings, None));
        let tried = |name: &str, password: &str| {
            client.try_password(name.to_owned(), Zeroizing::new(password.to_owned()))
        };

        for (name, password) in [("alice", ""), ("", "secret"), ("alice", "a\0b")] {
            let verdict = tried(name, password).await.unwrap();
            assert!(matches!(verdict, Verdict::Wrong(_)), "{name:?}");
        }
        // The one server of these settings is nobody: what gets there fails.
        assert!(tried("alice", "secret").await.is_err());
        assert!(client.states().iter().all(|(_, why)| why.is_some()));
    }
}
