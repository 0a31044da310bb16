//! What a reply must be, reckoned from the state of the world and not from the rules under test.

use crate::front::{Asked, Reply};
use crate::server::Server;
use crate::world::World;
use mapigate::ids::ServerName;
use mapigate::mapi::{Endpoint, RequestType};

/// The truth before a request, which no rule of the product had a hand in.
#[derive(Debug)]
pub(crate) struct Before {
    active: Option<ServerName>,
    is_reachable: bool,
    is_eligible: bool,
    /// The active server holds the context the request names.
    is_held: bool,
    /// Where the front end knows the session to be.
    pinned: Option<ServerName>,
    was_in_table: bool,
}

impl Before {
    pub(crate) fn of(world: &World, asked: &Asked) -> Self {
        let home = world.front.directory.get(&asked.mailbox);
        let active = home.and_then(|home| world.databases.get(home));
        let active = active.map(|home| home.active.clone());
        let server = active.as_ref().and_then(|name| world.servers.get(name));
        let context = asked.context.as_deref();
        let session = world.front.session_of(asked, world.now).ok().flatten();
        Self {
            is_reachable: server.is_some_and(Server::is_reachable),
            is_eligible: active
                .as_ref()
                .is_some_and(|name| world.front.view.is_eligible(name)),
            is_held: server.is_some_and(|server| {
                context.is_some_and(|cookie| server.holds(cookie, &asked.user, world.now))
            }),
            pinned: session.map(|session| session.server),
            was_in_table: is_in_table(world, asked),
            active,
        }
    }

    pub(crate) fn judge(
        &self,
        world: &mut World,
        asked: &Asked,
        reply: &Reply,
    ) -> Result<(), &'static str> {
        let kind = asked.kind;
        let moved = self.pinned.is_some() && self.pinned != self.active;
        let is_ordinary = !kind.opens_session() && !kind.closes_session();
        match reply {
            Reply::Success { by, .. } => {
                if by.is_none() {
                    world.seen.ended_here += 1;
                } else if *by != self.active {
                    return Err("served by another than the active server");
                } else if !kind.opens_session() && !self.is_held {
                    return Err("success in a context that does not exist");
                }
                if kind == RequestType::Execute {
                    world.seen.executed += 1;
                    if !world.journal.contains_key(&asked.nonce) {
                        return Err("success without an execution");
                    }
                }
                if self.pinned.is_some() && !self.was_in_table && is_ordinary {
                    world.seen.resumed_by_ticket += 1;
                }
                if by.is_none() && !kind.closes_session() {
                    return Err("answered here what only a server can answer");
                }
            }
            // Once, where the server forgot what the front end remembers; then both have.
            Reply::Gone if kind.opens_session() && self.was_in_table && !moved && !self.is_held => {
                if is_in_table(world, asked) {
                    return Err("a lost session is remembered");
                }
                world.seen.lost_by_server += 1;
            }
            Reply::Gone if kind.opens_session() => {
                return Err("a new session is told that it is gone");
            }
            Reply::Gone if self.is_held => return Err("a living session is told that it is gone"),
            Reply::Gone => world.seen.gone_by_move += u64::from(moved),
            Reply::Unavailable if is_ordinary && moved => {
                return Err("a moved session is not told so");
            }
            Reply::Unavailable if self.is_reachable && self.is_eligible => {
                return Err("unavailable without a reason");
            }
            Reply::Unavailable => world.seen.unavailable += 1,
            Reply::Failed => world.seen.failed += 1,
            Reply::MissingCookie if asked.context.is_some() => return Err("a cookie was lost"),
            Reply::MissingCookie => {}
        }
        if is_ordinary && moved && *reply != Reply::Gone {
            return Err("a moved session is not told so");
        }
        Ok(())
    }
}

fn is_in_table(world: &World, asked: &Asked) -> bool {
    let (sessions, now) = (&world.front.sessions, world.front.at(world.now));
    asked.context.as_ref().is_some_and(|cookie| {
        let key = sessions.key(Endpoint::Emsmdb, cookie.as_bytes());
        sessions.find(key, now).is_some()
    })
}
