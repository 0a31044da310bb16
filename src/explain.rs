//! What would become of somebody's request, and why: the decisions of the rooms below, told instead of carried out.
//!
//! Pure but for what a directory service must be asked first. It decides nothing itself: the gate reads the path,
//! [`routing`](crate::routing) chooses the server, [`capability`](crate::capability) the offer.

mod directories;
mod outlook;
mod protocol;
mod question;
mod trail;
mod whose;

pub use question::{Question, Subject, Typed};

use crate::ldap::{Findings, Lookups, Trouble};
use crate::prose::wrapped;
use crate::runtime::Snapshot;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::time::Instant;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};

/// One thing that is so, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What it is about, in a word.
    pub topic: String,
    /// What is so.
    pub words: String,
    /// Why; where to change it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
}

/// Everything that follows from a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What was asked about.
    pub subject: String,
    /// A request would reach a server, or be answered as it should.
    pub is_served: bool,
    /// In the order in which a request meets them.
    pub facts: Vec<Fact>,
}

impl Explanation {
    /// The first fact about a topic.
    pub fn of(&self, topic: &str) -> Option<&Fact> {
        self.facts.iter().find(|fact| fact.topic == topic)
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n\n", self.subject);
        for fact in &self.facts {
            let mut words = String::new();
            // Writing into memory does not fail.
            let _ = wrapped(&mut words, MARGIN, &fact.words);
            if let Some(why) = &fact.why {
                let _ = wrapped(&mut words, INNER, why);
            }
            let rest = words.get(MARGIN.len()..).unwrap_or_default();
            let _ = write!(text, "  {:<15}{rest}", fact.topic);
        }
        text
    }
}

const MARGIN: &str = "                 ";
const INNER: &str = "                   ";

/// Whether what is known of the servers' health is worth telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// They are watched.
    Watched,
    /// The configuration was only read: nobody has looked at them.
    Unknown,
}

/// Why nothing could be explained.
#[derive(Debug, thiserror::Error)]
pub enum Unexplained {
    /// The directory service cannot be asked.
    #[error(transparent)]
    Directory(#[from] Trouble),
    /// The process is leaving, or the search went wrong.
    #[error("the search broke off: {0}")]
    Search(#[from] JoinError),
}

/// Explains, asking the directory service where it must be asked. Others of the caller's thread go on meanwhile; of
/// many questions at once one is worked on at a time, however long it searches.
///
/// # Errors
/// The directory service cannot be asked, or the process is leaving.
pub async fn explain(
    world: &Snapshot,
    question: &Question,
    health: Health,
    now: Instant,
) -> Result<Explanation, Unexplained> {
    let mut findings = Findings::default();
    loop {
        // It is never closed; without a turn it would be done all the same.
        let turn = TURN.acquire().await.ok();
        let (world, question) = (world.clone(), question.clone());
        let search = spawn_blocking(move || {
            let explained = explained(&world, &question, health, &findings, now);
            drop(turn);
            (explained, findings)
        });
        let (explained, known) = search.await?;
        findings = known;
        match explained {
            Ok(explanation) => return Ok(explanation),
            Err(lookups) => lookups.run(&mut findings).await?,
        }
    }
}

/// Questions are for people: they wait for each other rather than take the processors from requests.
static TURN: Semaphore = Semaphore::const_new(1);

/// Explains with what is known. Costs a look at every name of the mailbox file where a name is in none.
///
/// # Errors
/// What the directory service is to be asked first.
pub fn explained(
    world: &Snapshot,
    question: &Question,
    health: Health,
    findings: &Findings,
    now: Instant,
) -> Result<Explanation, Box<Lookups>> {
    trail::Trail::new(world, question, health, now).follow(findings)
}

#[cfg(test)]
mod tests;
