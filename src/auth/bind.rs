//! Basic against a directory service: who may log on there with the password is known. RFC 4513 5.1
//!
//! Each verification is one search and one bind, whether there is such a user or not: for a name that
//! nobody has, the bind is that of an account that cannot be. So the time tells as little as the answer.

use super::Denied;
use super::basic::{Against, Credentials, WRONG};
use super::method::{Grounds, Judged, Proven, Work, serial};
use super::names::canonical;
use super::people::People;
use super::verify::Held;
use crate::ids::UserName;
use crate::ldap::{Asked, Book, Trouble, Verdict};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Instant;
use zeroize::Zeroizing;

/// The directory service as what passwords are held against.
#[derive(Debug)]
pub(super) struct Bind {
    book: Arc<Book>,
    serial: u64,
}

impl Bind {
    /// Nothing is asked yet. What the same directory proved to `earlier` goes on being proven.
    pub(super) fn new(book: &Arc<Book>, earlier: Option<&Self>) -> Self {
        let earlier = earlier.filter(|earlier| Arc::ptr_eq(&earlier.book, book));
        Self {
            book: Arc::clone(book),
            serial: earlier.map_or_else(serial, |earlier| earlier.serial),
        }
    }
}

impl Against for Bind {
    fn serial(&self) -> u64 {
        self.serial
    }

    fn work(&self, shown: Credentials, now: Instant) -> Result<Arc<dyn Work>, Denied> {
        let password = std::str::from_utf8(&shown.password)
            .map_err(|_never| Denied::Credentials("malformed credentials: not text"))?;
        Ok(Arc::new(Logon {
            password: Zeroizing::new(password.to_owned()),
            user: shown.user,
            book: Arc::clone(&self.book),
            serial: self.serial,
            asked_at: now,
        }))
    }
}

/// A name and a password on their way to the directory.
struct Logon {
    user: UserName,
    password: Zeroizing<String>,
    book: Arc<Book>,
    serial: u64,
    asked_at: Instant,
}

#[async_trait]
impl Work for Logon {
    fn queue(&self) -> Option<&UserName> {
        Some(&self.user)
    }

    async fn judge(self: Arc<Self>, people: Arc<People>, held: Held) -> Option<Judged> {
        let judged = self.tried(&people, &held).await;
        drop(held);
        Some(judged.unwrap_or_else(|trouble| {
            // A client told 401 would throw its password away.
            Judged::NotNow(Denied::Unavailable(trouble.words()))
        }))
    }
}

impl Logon {
    async fn tried(&self, people: &People, held: &Held) -> Result<Judged, Trouble> {
        // Always asked anew: whether a name is remembered must not be told by the time.
        let person = match self
            .book
            .ask(Asked::User(self.user.as_str()), self.asked_at)
        {
            Some(lookup) => lookup.run().await?,
            None => None,
        };
        // The name it is known by from now on, whatever name it came by.
        let known = person.as_ref().and_then(|person| {
            let user = canonical(person.user().as_str(), None)?;
            Some((person, user))
        });
        // Before the bind: who is revoked while it runs is not believed afterwards.
        let standing = people.standing(known.as_ref().map_or(&self.user, |(_, user)| user));
        let name = match &known {
            Some((person, user)) => {
                // Guesses under another name of the account count against the account.
                if let Err(denied) = held.is_about(user) {
                    return Ok(Judged::NotNow(denied));
                }
                person.login().to_owned()
            }
            None => nobody(&self.book),
        };
        let client = self.book.client();
        let verdict = client.try_password(name, self.password.clone()).await?;
        Ok(match (known, verdict) {
            (Some((person, user)), Verdict::Good) if !person.is_disabled() => {
                Judged::Proven(Proven {
                    user,
                    standing,
                    grounds: Grounds(self.serial, 0),
                    expires: None,
                })
            }
            (Some((_, _)), Verdict::Wrong(words)) => Judged::Wrong(Denied::Credentials(words)),
            (Some((_, _)), Verdict::Good) => {
                Judged::Wrong(Denied::Credentials("account disabled in the directory"))
            }
            (None, _) => Judged::Wrong(Denied::Credentials(WRONG)),
        })
    }
}

/// An account that cannot be: nobody is locked out by what is tried with it.
fn nobody(book: &Book) -> String {
    let base = &book.settings().base;
    format!(
        "CN={:016x}{:016x},{base}",
        fastrand::u64(..),
        fastrand::u64(..)
    )
}
