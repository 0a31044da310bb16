//! What mailbox servers think of a password, asked by a PING of our own: it needs no session and changes nothing.
//! `[MS-OXCMAPIHTTP] 2.2.4.5`
//!
//! The server of the user's mailbox is asked, under the canonical name, so that who it lets in is who we believe it
//! to be. Every question has a connection of its own: what a login leaves behind on one is nobody else's, and
//! servers that count failures by connection count one. A server that lets in who shows nothing says yes to
//! everybody; so each is asked that first, now and then.

use super::check::{Heard, Trouble, ask, ping};
use crate::accounting::Unbilled;
use crate::auth::{About, Denied, Judge, Login};
use crate::backend::BackServer;
use crate::directory::Whose;
use crate::ids::{DatabaseName, MailboxId, ServerName, UserName};
use crate::ldap::Asked;
use crate::metrics::LegSide;
use crate::runtime::{Runtime, Snapshot};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// The world as it is now, and who is told of bytes; `None` where there is none any more.
type World = dyn Fn() -> Option<(Arc<Snapshot>, Option<Arc<dyn Unbilled>>)> + Send + Sync;

/// Asks the servers of a world.
struct Servers {
    world: Box<World>,
    /// Servers that do not let in who shows nothing, and until when that is believed.
    strict: Mutex<HashMap<ServerName, (Weak<BackServer>, Instant)>>,
}

/// Appoints who asks the servers of a running process.
pub(super) fn appoint(runtime: &Arc<Runtime>) {
    let weak = Arc::downgrade(runtime);
    let world = move || {
        let runtime = weak.upgrade()?;
        let unbilled = runtime.metrics.unbilled(LegSide::Server);
        Some((runtime.snapshot(), unbilled))
    };
    runtime.snapshot().auth.appoint(servers(world));
}

/// The same for a world that nothing runs in.
pub fn appoint_judge(world: &Arc<Snapshot>) {
    let weak = Arc::downgrade(world);
    let judge = servers(move || Some((weak.upgrade()?, None)));
    world.auth.appoint(judge);
}

fn servers(
    world: impl Fn() -> Option<(Arc<Snapshot>, Option<Arc<dyn Unbilled>>)> + Send + Sync + 'static,
) -> Arc<dyn Judge> {
    Arc::new(Servers {
        world: Box::new(world),
        strict: Mutex::default(),
    })
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers")
            .field("strict", &self.strict.lock().keys())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Judge for Servers {
    async fn is_right(&self, login: &Login, about: &About<'_>) -> Result<bool, Denied> {
        let (world, unbilled) = (self.world)().ok_or(Denied::Busy("shutting down"))?;
        let home = home(&world, login).await?;
        if let Some(account) = &home.account {
            about(account)?;
        }
        let server = server(&world, home.database.as_ref()).ok_or(Denied::Unjudged(NO_SERVER))?;
        // Without a mailbox servers answer 400 or 404, whoever asks. One that is nobody's does for a PING to gromox.
        let mailbox = home.mailbox.map_or_else(
            || format!("{NOBODYS}@{}", domain(&login.user)),
            |mailbox| mailbox.to_string(),
        );
        let query = format!("?MailboxId={mailbox}");
        let ask = |login| ping(server.settings(), AGENT, &query, login);
        if !self.asks(&server, login.asked_at) {
            let heard = put(&server, &ask(None), unbilled.clone()).await?;
            self.note(&server, heard, login.asked_at)?;
        }
        let request = ask(Some((login.user.as_str(), login.password.as_slice())));
        match put(&server, &request, unbilled).await? {
            Heard {
                status: 200..=299, ..
            } => Ok(true),
            Heard {
                status: 401,
                takes_basic: true,
            } => Ok(false),
            Heard { status: 401, .. } => Err(Denied::Unjudged(NO_BASIC)),
            _ => Err(Denied::Unjudged(NEITHER)),
        }
    }
}

impl Servers {
    /// True where the server was found to ask for passwords of late.
    fn asks(&self, server: &Arc<BackServer>, now: Instant) -> bool {
        let strict = self.strict.lock();
        strict.get(server.name()).is_some_and(|(known, until)| {
            now < *until && Weak::ptr_eq(known, &Arc::downgrade(server))
        })
    }

    /// What the server said to who showed nothing.
    fn note(&self, server: &Arc<BackServer>, heard: Heard, now: Instant) -> Result<(), Denied> {
        match heard {
            Heard {
                status: 401,
                takes_basic: true,
            } => {
                let known = (Arc::downgrade(server), now + STRICT_FOR);
                self.strict.lock().insert(server.name().clone(), known);
                Ok(())
            }
            Heard { status: 401, .. } => Err(Denied::Unjudged(NO_BASIC)),
            Heard {
                status: 200..=299, ..
            } => {
                tracing::warn!(
                    server = %server.name(),
                    "the server lets in who shows no password: its word on passwords is not taken"
                );
                Err(Denied::Unjudged(LETS_IN))
            }
            _ => Err(Denied::Unjudged(NEITHER)),
        }
    }
}

/// The domain of a login name, which anybody may have made up, as it can stand in a URL.
fn domain(user: &UserName) -> &str {
    let domain = user.as_str().rsplit_once('@').map(|(_, domain)| domain);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    domain
        .filter(|domain| domain.bytes().all(is_plain))
        .unwrap_or("invalid")
}

/// What is known of a name before its password is.
#[derive(Default)]
struct Home {
    account: Option<UserName>,
    mailbox: Option<MailboxId>,
    database: Option<DatabaseName>,
}

async fn home(world: &Snapshot, login: &Login) -> Result<Home, Denied> {
    let directory = &world.directory;
    let elsewhere = || Home {
        database: directory.default_database(login.user.as_str()).cloned(),
        ..Home::default()
    };
    let Some(book) = &world.book else {
        let Some(home) = directory.own_mailbox(&login.user) else {
            return Ok(elsewhere());
        };
        let profile = directory.profile(&home);
        return Ok(Home {
            account: profile
                .and_then(|profile| profile.address)
                .map(UserName::new),
            mailbox: Some(home.id()),
            database: Some(home.database().clone()),
        });
    };
    // Always asked anew: whether a name is remembered must not be told by the time, and who may ask for any name
    // must not fill the memory with them.
    let asked = book.ask(Asked::User(login.user.as_str()), login.asked_at);
    let person = match asked {
        Some(lookup) => lookup.run().await,
        None => Ok(None),
    };
    let person = person.map_err(|trouble| Denied::Unavailable(trouble.words()))?;
    let Some(person) = person else {
        return Ok(elsewhere());
    };
    let account = Some(person.user().clone());
    Ok(match directory.own(&person, &login.user) {
        Whose::Mailbox(mailbox, database) => Home {
            account,
            mailbox: Some(mailbox),
            database: Some(database),
        },
        _ => Home {
            account,
            ..elsewhere()
        },
    })
}

/// Where the database is active. For a name nobody knows a home of, any server, always the same: the answer then
/// tells as little as a wrong password.
fn server(world: &Snapshot, database: Option<&DatabaseName>) -> Option<Arc<BackServer>> {
    let of = |database: &DatabaseName| {
        world
            .servers
            .get(world.placement.active(database)?)
            .cloned()
    };
    match database {
        Some(database) => of(database),
        None => world.placement.iter().find_map(|(name, _)| of(name)),
    }
}

async fn put(
    server: &BackServer,
    request: &[u8],
    unbilled: Option<Arc<dyn Unbilled>>,
) -> Result<Heard, Denied> {
    let asked = ask(server, PATIENCE, request, unbilled);
    match tokio::time::timeout(PATIENCE, Box::pin(asked)).await {
        Ok(Ok(Some(heard))) => Ok(heard),
        Ok(Ok(None)) => Err(Denied::Unjudged(NEITHER)),
        Ok(Err(Trouble::Ours)) => Err(Denied::Busy("no descriptors or memory to ask the server")),
        Ok(Err(Trouble::Theirs(_))) | Err(_) => Err(Denied::Unjudged(SILENT)),
    }
}

/// How the servers' logs tell these from requests of clients.
const AGENT: &str = "mapigate-login";
/// The mailbox of nobody.
const NOBODYS: &str = "00000000-0000-0000-0000-000000000000";
const NO_SERVER: &str = "no mailbox server can judge the password";
const NO_BASIC: &str = "the mailbox server does not offer Basic, and cannot judge the password";
const LETS_IN: &str = "the mailbox server lets in who shows no password";
const NEITHER: &str = "the mailbox server said neither yes nor no to the password";
const SILENT: &str = "the mailbox server did not answer for the password";
/// A server asks a directory in turn.
const PATIENCE: Duration = Duration::from_secs(10);
/// That a server asks for passwords is asked anew after this.
const STRICT_FOR: Duration = Duration::from_secs(600);

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
