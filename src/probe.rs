//! Tries what Outlook does, step by step, and explains what it meets: the house's own connectivity test.
//!
//! From the name to the address book: DNS, TLS, challenges, Autodiscover, a session with a logon and a held wait, the
//! address book, Outlook Anywhere. It opens the mailbox and closes it again; nothing in it is read or changed.
//! It works against this house and against a mailbox server itself, of either flavour.

mod advice;
mod anywhere;
mod book;
mod caller;
mod discovery;
mod door;
mod mailbox;
mod place;
mod report;
mod round;
mod step;
mod table;
mod tell;
mod trust;

pub use place::{Detour, Place};
pub use report::{Finding, Report, Trouble, Verdict};
pub use step::Step;
pub use table::{Ran, Table};
pub use tell::{side_by_side, text};

use crate::config::settings::{ScheduledProbe, Secret};
use std::collections::BTreeSet;
use std::time::Duration;

/// What is tried, and as whom.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The name or server that is tried.
    pub place: Place,
    /// Where names are, instead of what DNS says.
    pub detours: Vec<Detour>,
    /// DER of the authorities to trust; `None`: the system's.
    pub authorities: Option<Vec<Vec<u8>>>,
    /// The login name.
    pub user: String,
    /// The mail address Autodiscover is asked for; mostly the login name.
    pub address: String,
    /// What proves the user.
    pub credential: Credential,
    /// Go where Autodiscover says, as Outlook does; else stay at [`Self::place`] whatever it says.
    pub follows: bool,
    /// The mailbox, whatever Autodiscover says.
    pub mailbox: Option<Known>,
    /// The mailbox, where Autodiscover says nothing: as another place or an earlier round told of it.
    pub remembered: Option<Known>,
    /// What is tried; with all that it needs.
    pub steps: BTreeSet<Step>,
    /// How long a `NotificationWait` is held; zero: none is tried.
    pub held_wait: Duration,
    /// How long a step may take, the held wait excepted.
    pub timeout: Duration,
}

/// What proves a user.
#[derive(Clone, Debug)]
pub enum Credential {
    /// Basic, with this password.
    Password(Secret),
    /// Bearer, with this token.
    Token(Secret),
    /// Negotiate, with the tickets in this credential cache, as `kinit` leaves it.
    Tickets(String),
}

impl Credential {
    /// The word of its scheme in HTTP.
    pub fn scheme(&self) -> &'static str {
        match self {
            Self::Password(_) => "Basic",
            Self::Token(_) => "Bearer",
            Self::Tickets(_) => "Negotiate",
        }
    }
}

/// A mailbox, as far as it must be known to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// URLs of mailbox and address book, by the index of their endpoint.
    pub urls: [String; 2],
    /// The distinguished name it is opened by.
    pub dn: String,
}

impl Known {
    /// A mailbox by its `MailboxId`, at a place.
    pub fn at(place: &Place, id: &str, dn: &str) -> Self {
        let targets = crate::outlook::Letterhead::targets_of(id);
        Self {
            urls: targets.map(|target| format!("{place}{target}")),
            dn: dn.to_owned(),
        }
    }
}

/// How a probe went, and what it learned that the next one may go by.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What came of each step.
    pub report: Report,
    /// The mailbox, where it was found.
    pub known: Option<Known>,
}

impl Probe {
    /// A probe of the configuration.
    pub fn scheduled(settings: &ScheduledProbe) -> Self {
        // The configuration has let only URLs through.
        let place: Place = settings.url.parse().unwrap_or_else(|_no_place| Place {
            is_tls: true,
            host: String::new(),
            port: 443,
        });
        let detour = |to| Detour::of_host(&place.host, to);
        Self {
            detours: settings.connect_to.map(detour).into_iter().collect(),
            place,
            authorities: settings.authorities.clone(),
            user: settings.user.clone(),
            address: settings.address.clone(),
            credential: Credential::Password(settings.password.clone()),
            follows: true,
            mailbox: None,
            remembered: None,
            steps: Step::with_needs(Step::ALL),
            held_wait: settings.held_wait,
            timeout: settings.timeout,
        }
    }

    /// Tries everything, one after the other. Never longer than the steps' timeouts together and the held wait; what
    /// was opened is closed or dropped. The future is large: box it.
    pub async fn run(&self) -> Outcome {
        let mut round = round::Round::new(self);
        let mut findings = Vec::with_capacity(Step::ALL.len());
        for step in Step::ALL {
            findings.push(round.take(step).await);
        }
        Outcome {
            report: Report::new(self.place.to_string(), findings),
            known: round.known(),
        }
    }
}
