//! The sealed route cookie: where a session lives, written so that only we can write it.
//!
//! It lets a restarted front end, or another one with the same keys, go on with a session it never
//! saw. A ticket opens only for the user and the endpoint it was sealed for, and tells nobody else
//! anything. Whoever opens one still asks placement whether it is true by now.

use crate::config::settings::RouteCookie;
use crate::ids::{DatabaseName, MailboxId, ServerName, UserName};
use crate::mapi::Endpoint;
use crate::vdir::Vdir;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use std::time::Duration;

/// Where a session lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The mailbox's database.
    pub database: DatabaseName,
    /// The server that holds the context.
    pub server: ServerName,
    /// The mailbox the session was opened for.
    pub mailbox: MailboxId,
    /// When it was sealed, in seconds since 1970.
    pub issued: u64,
}

impl Ticket {
    /// True while a session sealed then can still live now: not older than `lifetime`, and not from
    /// the future beyond what the clocks of two nodes may differ.
    pub fn is_fresh(&self, unix_seconds: u64, lifetime: Duration) -> bool {
        let until = self.issued.saturating_add(lifetime.as_secs());
        self.issued <= unix_seconds.saturating_add(SKEW_SECONDS)
            && unix_seconds < until.saturating_add(SKEW_SECONDS)
    }
}

/// What a ticket is good for, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Sessions of an endpoint.
    Endpoint(Endpoint),
    /// Requests to a virtual directory.
    Vdir(Vdir),
}

impl From<Endpoint> for Scope {
    fn from(endpoint: Endpoint) -> Self {
        Self::Endpoint(endpoint)
    }
}

impl From<Vdir> for Scope {
    fn from(vdir: Vdir) -> Self {
        Self::Vdir(vdir)
    }
}

impl Scope {
    /// Its letter in what a seal is bound to.
    const fn letter(self) -> u8 {
        match self {
            Self::Endpoint(Endpoint::Emsmdb) => 0,
            Self::Endpoint(Endpoint::Nspi) => 1,
            Self::Vdir(Vdir::Ews) => 16,
            Self::Vdir(Vdir::Owa) => 17,
            Self::Vdir(Vdir::Ecp) => 18,
            Self::Vdir(Vdir::Oab) => 19,
            Self::Vdir(Vdir::ActiveSync) => 20,
            Self::Vdir(Vdir::PowerShell) => 21,
            Self::Vdir(Vdir::Api) => 22,
        }
    }
}

/// Seals and opens tickets: AES-256-GCM-SIV, which stays safe should a nonce ever repeat.
pub struct Sealer {
    name: String,
    /// The first seals, all open.
    keys: Vec<Key>,
}

struct Key {
    id: u8,
    key: LessSafeKey,
}

impl Sealer {
    /// Takes the cookie's name and its keys over, newest first.
    pub fn new(settings: &RouteCookie) -> Self {
        let key = |id: u8, bytes: &[u8]| {
            let key = UnboundKey::new(&AES_256_GCM_SIV, bytes).ok()?;
            Some(Key {
                id,
                key: LessSafeKey::new(key),
            })
        };
        Self {
            name: settings.name.clone(),
            keys: settings
                .keys
                .iter()
                .filter_map(|given| key(given.id, &given.key[..]))
                .collect(),
        }
    }

    /// The cookie's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A cookie value for this user and scope, at most [`LENGTH_MAX`] characters of base64url. `None`
    /// when the names are too long for that, when there is no key, or when the system has no randomness:
    /// then the session simply does without.
    pub fn seal(
        &self,
        ticket: &Ticket,
        scope: impl Into<Scope>,
        user: &UserName,
    ) -> Option<String> {
        let key = self.keys.first()?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut secret = write(ticket)?;
        let tag = key
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context(key.id, scope.into(), user)),
                &mut secret,
            )
            .ok()?;
        let sealed = [&[VERSION, key.id], &nonce[..], &secret, tag.as_ref()].concat();
        let value = URL_SAFE_NO_PAD.encode(sealed);
        (value.len() <= LENGTH_MAX).then_some(value)
    }

    /// What is sealed in a cookie value. `None` for all that we did not seal for this very user and
    /// endpoint with a key we still have; one answer for every cause, so that nobody learns which.
    pub fn open(&self, value: &[u8], scope: impl Into<Scope>, user: &UserName) -> Option<Ticket> {
        if value.len() > LENGTH_MAX {
            return None;
        }
        let mut sealed = [0; LENGTH_MAX];
        let length = URL_SAFE_NO_PAD.decode_slice(value, &mut sealed).ok()?;
        let (head, rest) = sealed.get_mut(..length)?.split_at_mut_checked(2)?;
        let (nonce, secret) = rest.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let [version, id] = *head else {
            return None;
        };
        // A key we do not have costs the same time as a seal that is broken.
        let known = self.keys.iter().find(|key| key.id == id);
        let key = known.or(self.keys.first())?;
        let context = Aad::from(context(id, scope.into(), user));
        let plain = key.key.open_in_place(nonce, context, secret).ok()?;
        if version != VERSION || known.is_none() {
            return None;
        }
        read(plain)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("name", &self.name)
            .field(
                "keys",
                &self.keys.iter().map(|key| key.id).collect::<Vec<_>>(),
            )
            .finish_non_exhaustive()
    }
}

/// What a seal is bound to beside its content. The user's name is last, so that nothing can be moved
/// from one part to another.
fn context(key: u8, scope: Scope, user: &UserName) -> Vec<u8> {
    [&[VERSION, key, scope.letter()], user.as_str().as_bytes()].concat()
}

/// Eight bytes of time, then each name with its length before it.
fn write(ticket: &Ticket) -> Option<Vec<u8>> {
    let names = [
        ticket.server.as_str(),
        ticket.database.as_str(),
        ticket.mailbox.as_str(),
    ];
    let mut plain = Vec::with_capacity(8 + names.map(|name| 1 + name.len()).iter().sum::<usize>());
    plain.extend_from_slice(&ticket.issued.to_be_bytes());
    for name in names {
        plain.push(u8::try_from(name.len()).ok()?);
        plain.extend_from_slice(name.as_bytes());
    }
    Some(plain)
}

fn read(plain: &[u8]) -> Option<Ticket> {
    let (issued, mut rest) = plain.split_first_chunk::<8>()?;
    let mut name = || {
        let (length, after) = rest.split_first()?;
        let (name, after) = after.split_at_checked(usize::from(*length))?;
        rest = after;
        std::str::from_utf8(name).ok()
    };
    let ticket = Ticket {
        server: ServerName::new(name()?),
        database: DatabaseName::new(name()?),
        mailbox: MailboxId::new(name()?),
        issued: u64::from_be_bytes(*issued),
    };
    rest.is_empty().then_some(ticket)
}

/// A cookie value is never longer, and one that is longer is not ours.
pub const LENGTH_MAX: usize = 512;
/// The first byte of what is sealed; another layout gets another number.
const VERSION: u8 = 1;
/// What the clocks of two nodes may differ.
const SKEW_SECONDS: u64 = 5 * 60;

#[cfg(test)]
mod tests;
