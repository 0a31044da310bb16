//! A request whose connection carries others beside it, as HTTP/2 has it.
//!
//! What goes through its stream is HTTP/1.1 like anybody's, written by the room `http2`, and so one gate,
//! one logon and one account serve both. What only HTTP/2 could tell of it comes beside the text.

use super::bill::Bill;
use super::head::{Method, RequestHead};
use super::target::Place;
use super::vdir::{Guard, stands};
use super::{admit, channel, vdir};
use crate::config::settings::Shareable;
use crate::refusal::Refusal;
use crate::runtime::Snapshot;

/// What the connection knows of a request that it carries among others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    /// What is wrong with it; its text is not to be read then.
    pub wrong: Option<Wrong>,
    /// The connection has carried one before.
    pub is_later: bool,
}

/// What can be wrong with a request before it is HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It cannot be written as HTTP/1.1 that everybody reads alike.
    Malformed(&'static str),
    /// It is for another name than the connection was made for. RFC 9113 section 9.1.2
    Misdirected,
}

impl From<Wrong> for Refusal {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::Malformed(what) => Self::Malformed(what),
            Wrong::Misdirected => Self::Misdirected,
        }
    }
}

/// Sends what may not share a connection to one of its own. Notes in the bill what was asked for.
///
/// # Errors
/// It must come by HTTP/1.1.
#[cold]
pub(super) fn judge(
    head: &RequestHead<'_, '_>,
    name: Option<usize>,
    world: &Snapshot,
    bill: &mut Bill<'_>,
) -> Result<(), Refusal> {
    let what = match head.target.place {
        Place::Mapi(_) => Shareable::Mapi,
        Place::Rpc(_) => Shareable::Channels,
        Place::Autodiscover(_) => Shareable::Autodiscover,
        Place::Vdir(vdir) => Shareable::Vdir(vdir),
        Place::Health(_) => Shareable::Page,
    };
    let name = name.and_then(|name| world.settings.names.get(name));
    let name = name.ok_or(Refusal::UnknownHost)?;
    match world.settings.by_http2(name, what, head.authorization) {
        Err(why) if stands(Guard::Shared) => {
            note(head, bill);
            Err(Refusal::NeedsHttp11(why.words()))
        }
        _ => Ok(()),
    }
}

/// What was asked for, as whoever would have served it notes it.
fn note(head: &RequestHead<'_, '_>, bill: &mut Bill<'_>) {
    match (head.target.place, head.method) {
        (Place::Mapi(endpoint), _) => admit::note(head, endpoint, bill),
        (Place::Rpc(_), Method::Rpc(verb)) => channel::note(head, verb, bill),
        (Place::Autodiscover(dialect), _) => bill.dialect = Some(dialect),
        (Place::Vdir(vdir), method) => {
            if let Some(verb) = method.verb() {
                vdir::note(head, (vdir, verb), bill);
            }
        }
        _ => {}
    }
}
