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

/// Explains, asking the directory service where it must be asked.
///
/// # Errors
/// The directory service cannot be asked.
pub async fn explain(
    world: &Snapshot,
    question: &Question,
    health: Health,
    now: Instant,
) -> Result<Explanation, Trouble> {
    let mut findings = Findings::default();
    loop {
        match explained(world, question, health, &findings, now) {
            Ok(explanation) => return Ok(explanation),
            Err(lookups) => lookups.run(&mut findings).await?,
        }
    }
}

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
