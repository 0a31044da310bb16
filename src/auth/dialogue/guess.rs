//! Passwords in conversations, held back before the domain counts them.
//!
//! NTLM proves a password, and a domain counts its wrong ones like any others. The name they are tried with stands in
//! the client's last message, so the lockout guard is asked before the domain is. Each proof is made for one challenge:
//! the same wrong password never looks the same twice, and so each counts, unlike a stale one in Basic. Tickets cannot be
//! guessed at here, and do not count.

use super::super::guard::{Guard, Suspicion};
use super::super::names::canonical;
use super::super::ntlm::claim::Claim;
use super::super::verify::{Desk, Turn};
use super::{Denied, Realms, Scheme};
use crate::ids::UserName;
use crate::ldap::{Asked, Book, Findings, Look};
use icu_normalizer::DecomposingNormalizerBorrowed;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What can be guessed by a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::auth) enum Guess {
    /// Nothing: it has no part of NTLM in it.
    Nothing,
    /// It begins NTLM; who it will be about is not known yet.
    Begun,
    /// It proves a password of whom it names, under one name or several.
    Made(Vec<Guessed>),
}

/// A name that a password is tried with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::auth) struct Guessed {
    /// What wrong passwords of it are counted as.
    names: Vec<UserName>,
    /// What the directory is asked for.
    asked: String,
}

impl Guessed {
    /// `home` is the mail domain of names without one. A Windows domain that nobody has mapped may be ours all the
    /// same, because domain controllers let some such names in; so its users count as ours, too.
    pub(in crate::auth) fn of(claim: &Claim, realms: &Realms, home: Option<&str>) -> Option<Self> {
        let Claim { domain, user } = claim;
        let bare = user.rsplit_once('\\').map_or(&**user, |(_, bare)| bare);
        let as_ours = |name: &str| canonical(name, home.or_else(|| realms.only()));
        let names = if bare.contains('@') {
            [canonical(bare, None), None]
        } else if user.contains('\\') {
            [canonical(user, None), as_ours(bare)]
        } else if let Some(mapped) = realms.domain(domain) {
            [canonical(&format!("{bare}@{mapped}"), None), None]
        } else if domain.is_empty() {
            [as_ours(bare), None]
        } else {
            [canonical(&format!("{domain}\\{bare}"), None), as_ours(bare)]
        };
        // Domains overlook spaces around a name; whoever guesses must not have a count for each of them.
        if bare.is_empty() || user.trim() != user || bare.trim() != bare {
            return None;
        }
        let mut names: Vec<_> = names.into_iter().flatten().collect();
        let plain = names.iter().filter_map(|name| plain(name.as_str()));
        let plain: Vec<_> = plain.collect();
        names.extend(plain);
        (!names.is_empty()).then(|| Self {
            names,
            asked: bare.to_ascii_lowercase(),
        })
    }
}

/// The name that a domain may take this one for: it looks at neither accents nor widths, and at one space of
/// several. `None` where that is the name itself.
fn plain(name: &str) -> Option<UserName> {
    let is_plain = name.is_ascii() && !name.contains("  ");
    if is_plain {
        return None;
    }
    let letters = DecomposingNormalizerBorrowed::new_nfkd().normalize(name);
    let words: Vec<_> = letters.split_whitespace().collect();
    let letters = words.join(" ");
    let letters = letters.chars().filter(|letter| !ACCENTS.contains(letter));
    let plain: String = letters.flat_map(char::to_lowercase).collect();
    (plain != name).then(|| UserName::new(plain))
}

/// Accents by themselves, as the letters that have them are taken apart. Unicode, Combining Diacritical Marks
const ACCENTS: RangeInclusive<char> = '\u{300}'..='\u{36f}';

/// What a conversation needs to be held back.
pub(in crate::auth) struct Watch {
    pub(in crate::auth) guard: Option<Arc<Guard>>,
    pub(in crate::auth) book: Option<Arc<Book>>,
    pub(in crate::auth) home: Option<Arc<str>>,
    pub(in crate::auth) source: IpAddr,
    /// Tells this proof from others.
    pub(in crate::auth) lot: u64,
    pub(in crate::auth) asked_at: Instant,
}

/// A proof on its way to the domain.
pub(in crate::auth) struct Watched {
    suspicion: Suspicion,
    // Given back after the verdict is counted.
    _turn: Option<Turn>,
}

impl Watched {
    pub(in crate::auth) fn refused(&self, denied: Denied) {
        self.suspicion.refused(denied);
    }

    pub(in crate::auth) fn cleared(&self) {
        self.suspicion.cleared();
    }
}

impl Watch {
    /// Whether NTLM may be begun from here.
    pub(in crate::auth) fn look_around(&self) -> Result<(), Denied> {
        match &self.guard {
            Some(guard) => self.suspicion(guard).look_around(),
            None => Ok(()),
        }
    }

    /// Whether the domain may be asked about this proof; from here on it is under way.
    pub(in crate::auth) async fn begin(
        &self,
        guessed: &[Guessed],
        desk: &Arc<Desk>,
        scheme: Scheme,
        patience: Duration,
    ) -> Result<Option<Watched>, Denied> {
        let Some(guard) = &self.guard else {
            return Ok(None);
        };
        let names = || guessed.iter().flat_map(|one| &one.names);
        let Some(first) = names().next() else {
            return Err(Denied::Credentials("malformed handshake: it names nobody"));
        };
        // Refused at once where that is known already: no place in the queue is taken.
        let suspicion = self.suspicion(guard);
        names().try_for_each(|name| suspicion.look(name))?;
        let turn = desk.turn(scheme, first.clone(), patience).await?;
        names().try_for_each(|name| suspicion.begin(name))?;
        for one in guessed {
            if let Some(account) = self.account(&one.asked).await {
                suspicion.begin(&account)?;
            }
        }
        Ok(Some(Watched {
            suspicion,
            _turn: Some(turn),
        }))
    }

    fn suspicion(&self, guard: &Arc<Guard>) -> Suspicion {
        Suspicion::of_conversation(guard, self.source, self.lot, self.asked_at)
    }

    /// The name that the directory knows the account by, whatever name a password is tried with. A directory that
    /// does not answer holds nobody up: the names themselves count all the same.
    async fn account(&self, asked: &str) -> Option<UserName> {
        let book = self.book.as_ref()?;
        let asked = Asked::User(asked);
        let person = match book.look(asked, &Findings::default(), self.asked_at) {
            Look::Person(person) => Some(person),
            Look::Nobody => None,
            // Anybody may ask for any name: that there is nobody is not to fill the memory.
            Look::Ask(_) => match book.ask(asked, self.asked_at)?.run().await {
                Ok(person) => person,
                Err(trouble) => {
                    tracing::debug!(%trouble, "the directory does not say whose password is tried");
                    None
                }
            },
        };
        canonical(person?.user().as_str(), None)
    }
}

#[cfg(test)]
mod tests;
