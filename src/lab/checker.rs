//! The judge: compares what clients sent with what servers executed, and says which promises were broken.
//!
//! Knows neither proxy nor network: two books and the history of the map go in, violations come out.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;

use super::mailbox_server::Executed;
use super::outlook::{Outcome, Sent};
use crate::ids::{DatabaseName, ServerName};

/// A promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Rule {
    /// R1: nothing is executed twice.
    AtMostOnce,
    /// R2: what ended well was executed exactly once, with the body that was sent.
    OkIsOnce,
    /// R3: nothing sent after a change of the map was acknowledged runs at the old owner.
    Fenced,
    /// R4: what was executed ran where its database was active at some time while it was under way.
    RightOwner,
    /// R7: the server took the client for who it is, and its mailbox for the one it named.
    RightUser,
    /// R8: every answer went to the request it answers.
    OwnAnswer,
    /// Nothing was executed that nobody sent.
    Asked,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtMostOnce => "R1 at most once",
            Self::OkIsOnce => "R2 ok is exactly once",
            Self::Fenced => "R3 fenced",
            Self::RightOwner => "R4 right owner",
            Self::RightUser => "R7 right user",
            Self::OwnAnswer => "R8 own answer",
            Self::Asked => "executed unasked",
        })
    }
}

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which promise.
    pub rule: Rule,
    /// Of which request.
    pub nonce: String,
    /// What happened.
    pub words: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.rule, self.nonce, self.words)
    }
}

/// From when on a server was a database's owner. Times are microseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The database.
    pub database: DatabaseName,
    /// Its owner.
    pub server: ServerName,
    /// When the change was published: from now on the proxy may know.
    pub published: u64,
    /// When the proxy acknowledged it: from now on it must.
    pub acknowledged: u64,
}

/// Which server owned which database when.
#[derive(Clone, Debug, Default)]
pub struct History {
    changes: Vec<Owned>,
}

impl History {
    /// Adds a change. Changes of one database are added in order.
    pub fn add(&mut self, change: Owned) {
        self.changes.push(change);
    }

    /// Every time in which the server may have been taken for the owner: from publication to the
    /// acknowledgement of the next change.
    fn times(&self, database: &DatabaseName, server: &ServerName) -> Vec<(u64, u64)> {
        let changes: Vec<_> = self
            .changes
            .iter()
            .filter(|change| change.database == *database)
            .collect();
        let ends = changes
            .iter()
            .skip(1)
            .map(|next| next.acknowledged)
            .chain([u64::MAX]);
        changes
            .iter()
            .zip(ends)
            .filter(|(change, _)| change.server == *server)
            .map(|(change, end)| (change.published, end))
            .collect()
    }

    fn knows(&self, database: &DatabaseName) -> bool {
        self.changes
            .iter()
            .any(|change| change.database == *database)
    }
}

/// Judges the books. `home` says which database a mailbox is in; without a history for it, R3 and R4 are silent.
pub fn check(
    sent: &[Sent],
    executed: &[Executed],
    home: impl Fn(&str) -> Option<DatabaseName>,
    history: &History,
) -> Vec<Violation> {
    let mut violations = Vec::new();
    let by_nonce: HashMap<&str, &Sent> = sent
        .iter()
        .map(|entry| (entry.nonce.as_str(), entry))
        .collect();
    let mut runs: HashMap<&str, Vec<&Executed>> = HashMap::new();
    for run in executed {
        runs.entry(run.nonce.as_str()).or_default().push(run);
    }

    for (nonce, runs) in &runs {
        let mut say = |rule, words: String| {
            violations.push(Violation {
                rule,
                nonce: (*nonce).to_owned(),
                words,
            });
        };
        if runs.len() > 1 {
            let servers: Vec<_> = runs.iter().map(|run| run.server.as_str()).collect();
            say(
                Rule::AtMostOnce,
                format!("executed {} times, by {}", runs.len(), servers.join(", ")),
            );
        }
        let Some(entry) = by_nonce.get(nonce) else {
            say(Rule::Asked, "no client sent it".to_owned());
            continue;
        };
        for run in runs {
            if run.user != entry.user {
                say(
                    Rule::RightUser,
                    format!("sent by {}, executed as {}", entry.user, run.user),
                );
            }
            if run.mailbox != entry.mailbox {
                say(
                    Rule::RightUser,
                    format!(
                        "sent for mailbox {}, executed for {}",
                        entry.mailbox, run.mailbox
                    ),
                );
            }
            let database = home(&entry.mailbox).filter(|database| history.knows(database));
            if let Some(database) = database {
                owner(entry, run, &database, history, &mut say);
            }
        }
    }
    for entry in sent {
        let runs = runs
            .get(entry.nonce.as_str())
            .map_or(&[][..], Vec::as_slice);
        ok(entry, runs, &mut violations);
    }
    violations
}

fn owner(
    entry: &Sent,
    run: &Executed,
    database: &DatabaseName,
    history: &History,
    say: &mut impl FnMut(Rule, String),
) {
    let times = history.times(database, &run.server);
    if times.is_empty() || times.iter().all(|(begin, _)| *begin > run.at) {
        say(
            Rule::RightOwner,
            format!("{} never owned {database} before it executed", run.server),
        );
    } else if times.iter().all(|(_, end)| *end < entry.sent) {
        say(
            Rule::Fenced,
            format!(
                "sent after {} had lost {database}, executed there all the same",
                run.server
            ),
        );
    }
}

fn ok(entry: &Sent, runs: &[&Executed], violations: &mut Vec<Violation>) {
    if entry.outcome != Outcome::Ok {
        return;
    }
    let mut say = |rule, words: String| {
        violations.push(Violation {
            rule,
            nonce: entry.nonce.clone(),
            words,
        });
    };
    match runs {
        [] => say(
            Rule::OkIsOnce,
            "the client was told it was executed".to_owned(),
        ),
        [run] if run.body != entry.body => {
            say(Rule::OkIsOnce, "executed with another body".to_owned());
        }
        _ => {}
    }
    if entry.echoed.as_deref() != Some(&entry.nonce) {
        say(
            Rule::OwnAnswer,
            format!("answered with X-RequestId {:?}", entry.echoed),
        );
    }
    if entry
        .answered
        .as_ref()
        .is_some_and(|answered| *answered != entry.body)
    {
        say(
            Rule::OwnAnswer,
            "answered with the proof of another request".to_owned(),
        );
    }
    if let (Some(server), [run]) = (&entry.server, runs)
        && server != run.server.as_str()
    {
        say(
            Rule::OwnAnswer,
            format!("executed by {}, answered by {server}", run.server),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::UserName;

    fn sent(nonce: &str) -> Sent {
        Sent {
            nonce: nonce.to_owned(),
            user: UserName::new("user1@contoso.test"),
            mailbox: "box1@contoso.test".to_owned(),
            body: "aa".to_owned(),
            sent: 1_000,
            ended: 2_000,
            outcome: Outcome::Ok,
            code: Some(0),
            echoed: Some(nonce.to_owned()),
            answered: Some("aa".to_owned()),
            server: Some("MBX1".to_owned()),
            tries: 1,
        }
    }

    fn executed(nonce: &str) -> Executed {
        Executed {
            server: ServerName::new("MBX1"),
            nonce: nonce.to_owned(),
            user: UserName::new("user1@contoso.test"),
            mailbox: "box1@contoso.test".to_owned(),
            database: Some(DatabaseName::new("DB07")),
            context: "c".to_owned(),
            connection: 1,
            body: "aa".to_owned(),
            body_bytes: 1,
            at: 1_500,
        }
    }

    fn owned(server: &str, published: u64, acknowledged: u64) -> Owned {
        Owned {
            database: DatabaseName::new("DB07"),
            server: ServerName::new(server),
            published,
            acknowledged,
        }
    }

    fn rules(sent: &[Sent], executed: &[Executed], changes: Vec<Owned>) -> Vec<Rule> {
        let home = |_: &str| Some(DatabaseName::new("DB07"));
        let history = History { changes };
        check(sent, executed, home, &history)
            .into_iter()
            .map(|violation| violation.rule)
            .collect()
    }

    /// A true pair of books with one thing changed.
    fn forged(change: impl Fn(&mut Sent, &mut Executed)) -> Vec<Rule> {
        let (mut entry, mut run) = (sent("n"), executed("n"));
        change(&mut entry, &mut run);
        rules(&[entry], &[run], vec![owned("MBX1", 0, 0)])
    }

    #[test]
    fn true_books_break_no_promise() {
        assert_eq!(forged(|_, _| ()), []);
    }

    #[test]
    fn what_failed_or_is_unknown_may_have_run_once_or_never() {
        for outcome in [
            Outcome::Unknown("lost".to_owned()),
            Outcome::Failed("code 10".to_owned()),
        ] {
            let mut entry = sent("n");
            entry.outcome = outcome;
            assert_eq!(rules(&[entry.clone()], &[], Vec::new()), []);
            assert_eq!(rules(&[entry], &[executed("n")], Vec::new()), []);
        }
    }

    #[test]
    fn a_second_run_is_seen_even_on_another_server_and_whatever_the_client_knows() {
        let mut entry = sent("n");
        entry.outcome = Outcome::Unknown("lost".to_owned());
        let mut second = executed("n");
        second.server = ServerName::new("MBX2");

        let broken = rules(&[entry], &[executed("n"), second], Vec::new());

        assert_eq!(broken, [Rule::AtMostOnce]);
    }

    #[test]
    fn success_without_a_run_and_a_changed_body_are_seen() {
        assert_eq!(rules(&[sent("n")], &[], Vec::new()), [Rule::OkIsOnce]);
        assert_eq!(
            forged(|_, run| run.body = "bb".to_owned()),
            [Rule::OkIsOnce]
        );
    }

    #[test]
    fn another_user_and_another_mailbox_are_seen() {
        assert_eq!(
            forged(|_, run| run.user = UserName::new("user2@contoso.test")),
            [Rule::RightUser]
        );
        assert_eq!(
            forged(|_, run| run.mailbox = "box2@contoso.test".to_owned()),
            [Rule::RightUser]
        );
    }

    #[test]
    fn swapped_answers_are_seen_by_header_by_proof_and_by_server() {
        assert_eq!(
            forged(|entry, _| entry.echoed = Some("m".to_owned())),
            [Rule::OwnAnswer]
        );
        assert_eq!(forged(|entry, _| entry.echoed = None), [Rule::OwnAnswer]);
        assert_eq!(
            forged(|entry, _| entry.answered = Some("bb".to_owned())),
            [Rule::OwnAnswer]
        );
        assert_eq!(
            forged(|entry, _| entry.server = Some("MBX2".to_owned())),
            [Rule::OwnAnswer]
        );
    }

    #[test]
    fn what_nobody_sent_is_seen() {
        assert_eq!(rules(&[], &[executed("n")], Vec::new()), [Rule::Asked]);
    }

    #[test]
    fn a_run_on_a_server_that_never_owned_the_database_is_seen() {
        assert_eq!(
            rules(&[sent("n")], &[executed("n")], vec![owned("MBX2", 0, 0)]),
            [Rule::RightOwner]
        );
        assert_eq!(
            rules(
                &[sent("n")],
                &[executed("n")],
                vec![owned("MBX2", 0, 0), owned("MBX1", 1_600, 1_700)]
            ),
            [Rule::RightOwner]
        );
    }

    #[test]
    fn the_old_owner_may_run_what_was_sent_before_the_acknowledgement_only() {
        let moved = |published, acknowledged| {
            vec![owned("MBX1", 0, 0), owned("MBX2", published, acknowledged)]
        };

        assert_eq!(rules(&[sent("n")], &[executed("n")], moved(900, 1_200)), []);
        assert_eq!(
            rules(&[sent("n")], &[executed("n")], moved(800, 900)),
            [Rule::Fenced]
        );
    }
}
