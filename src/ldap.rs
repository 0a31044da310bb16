//! Who people are, according to a directory service.
//!
//! A [`Book`] remembers entries and asks for those it does not know: a look at it takes well under a
//! microsecond and waits for nothing, a [`Lookup`] is slow work. A [`Client`] carries the questions: many
//! searches share a connection; passwords are tried on connections of their own, because a bind changes
//! who a connection belongs to. Servers that fail rest for a moment, and the next one is asked.
//!
//! Changes are seen by the number that a server gives to each (`uSNChanged`), so that who is moved,
//! renamed, disabled or gets another password is treated so within [`LdapSettings::refresh`]. What was
//! verified of such a user ends: [`Book::departures`] tells whom that concerns.
//!
//! Of databases it knows who holds their copies ([`Book::copies`]).
//!
//! Knows nothing of mail beyond databases and GUIDs, and nothing of who may open what.
//!
//! [`LdapSettings::refresh`]: crate::config::settings::LdapSettings::refresh

mod book;
mod changes;
mod client;
mod copies;
mod dial;
mod dn;
#[cfg(test)]
pub(crate) mod double;
mod filter;
mod line;
mod mark;
mod person;
mod servers;
mod shape;
mod shelf;
mod survey;

pub use book::{Book, Departed, Findings, Look, Lookup, Lookups, NoRandomness};
pub use changes::Changes;
pub use client::{Client, Verdict};
pub use filter::Asked;
pub(crate) use filter::{guid_of, guid_text};
pub use person::Person;
#[cfg(test)]
pub(crate) use person::tests as people_of_tests;
pub use survey::Survey;

/// Why the directory service said nothing. One of a closed list of words, for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// No server can be reached, or none accepts us.
    #[error("no server of the directory can be used")]
    Unreachable,
    /// It took longer than allowed.
    #[error("the directory did not answer in time")]
    Late,
    /// The connection broke off, twice.
    #[error("the directory broke off")]
    Broken,
    /// It does not accept the account that looks people up.
    #[error("the directory refuses our own account")]
    OwnAccount,
    /// It answered with an error.
    #[error("the directory answered with an error")]
    Answer,
    /// Too many questions are under way.
    #[error("too many questions to the directory")]
    Busy,
}

impl Trouble {
    /// The words of it.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Unreachable => "no server of the directory can be used",
            Self::Late => "the directory did not answer in time",
            Self::Broken => "the directory broke off",
            Self::OwnAccount => "the directory refuses our own account",
            Self::Answer => "the directory answered with an error",
            Self::Busy => "too many questions to the directory",
        }
    }
}
