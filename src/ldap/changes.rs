//! Looks for what has changed in the directory, by the numbers that a server gives to changes.
//!
//! Each server of Active Directory numbers its changes by itself (`uSNChanged`). While the same one is
//! asked, the numbers tell everything. Another one is asked for what it took over since the last look and
//! an hour before, and what is remembered is asked for anew. `[MS-ADTS] 3.1.1.1.9`

use super::Trouble;
use super::book::{Book, CHANGES_MAX};
use super::person::texts;
use ldap3::{SearchEntry, ldap_escape};
use std::sync::Arc;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Duration, PrimitiveDateTime};

/// Where the last look ended.
#[derive(Debug, Default)]
pub struct Changes {
    last: Option<Root>,
}

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Root {
    server: String,
    highest: u64,
    time: Option<PrimitiveDateTime>,
}

/// What is to be done after a look at the server.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// Nothing has changed.
    Rest,
    /// These entries have.
    Read(String),
    /// These have, and others may have.
    Reread(String),
    /// Nobody can tell what has.
    Forget,
}

impl Changes {
    /// Looks once; gives the number of entries that had changed. Whatever of the book they concern is
    /// true afterwards.
    ///
    /// # Errors
    /// Why it is not known what has changed. The next look tells.
    pub async fn look(&mut self, book: &Arc<Book>) -> Result<usize, Trouble> {
        let attributes = &book.settings().attributes;
        let Some(changed) = &attributes.changed else {
            return Ok(0);
        };
        let found = book.client().root(&ROOT.map(str::to_owned)).await?;
        let Some(root) = found.as_ref().and_then(Root::of) else {
            tracing::debug!("the directory does not number its changes");
            return Ok(0);
        };
        let people = &book.settings().people;
        let count = match plan(self.last.as_ref(), &root, people, changed) {
            Plan::Rest => 0,
            Plan::Read(filter) => read(book, &filter).await?,
            Plan::Reread(filter) => {
                book.age();
                read(book, &filter).await?
            }
            Plan::Forget => {
                book.age();
                if self.last.is_some() {
                    book.all_depart();
                }
                0
            }
        };
        self.last = Some(root);
        Ok(count)
    }
}

async fn read(book: &Arc<Book>, filter: &str) -> Result<usize, Trouble> {
    let entries = book.client().all(filter, book.attributes()).await?;
    if entries.len() >= CHANGES_MAX {
        book.age();
        book.all_depart();
    }
    entries.iter().for_each(|entry| book.changed(entry));
    Ok(entries.len())
}

impl Root {
    fn of(entry: &SearchEntry) -> Option<Self> {
        let text = |name: &str| texts(entry, name).next();
        let time = text("currentTime").and_then(|time| time.get(..14));
        Some(Self {
            server: text("dsServiceName").unwrap_or_default().to_owned(),
            highest: text("highestCommittedUSN")?.parse().ok()?,
            time: time.and_then(|time| PrimitiveDateTime::parse(time, TIME).ok()),
        })
    }
}

fn plan(last: Option<&Root>, now: &Root, people: &str, changed: &str) -> Plan {
    let Some(last) = last else {
        return Plan::Forget;
    };
    if last.server == now.server && now.highest >= last.highest {
        if now.highest == last.highest {
            return Plan::Rest;
        }
        let from = last.highest.saturating_add(1);
        return Plan::Read(format!("(&{people}({changed}>={from}))"));
    }
    // Another server, or one that was set back to an earlier state.
    let since = last.time.and_then(|time| time.checked_sub(REPLICATION));
    let since = since.and_then(|since| since.format(TIME).ok());
    match since {
        Some(since) => Plan::Reread(format!(
            "(&{people}(whenChanged>={}.0Z))",
            ldap_escape(since)
        )),
        None => Plan::Forget,
    }
}

/// What a server says of itself.
const ROOT: [&str; 3] = ["dsServiceName", "highestCommittedUSN", "currentTime"];
/// The seconds of a generalized time. RFC 4517 3.3.13
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year][month][day][hour][minute][second]");
/// A change takes less to get from one server to all others.
const REPLICATION: Duration = Duration::hours(1);

#[cfg(test)]
mod tests {
    use super::super::person::tests::entry;
    use super::*;

    fn root(server: &str, highest: &str) -> Root {
        let entry = entry(&[
            ("dsServiceName", server),
            ("highestCommittedUSN", highest),
            ("currentTime", "20261122031556.0Z"),
        ]);
        Root::of(&entry).unwrap()
    }

    fn planned(last: Option<&Root>, now: &Root) -> Plan {
        plan(last, now, "(objectCategory=person)", "uSNChanged")
    }

    #[test]
    fn the_same_server_tells_everything_by_its_numbers() {
        let (before, now) = (root("DC1", "4100"), root("DC1", "4164"));

        assert_eq!(planned(Some(&before), &before), Plan::Rest);
        assert_eq!(
            planned(Some(&before), &now),
            Plan::Read("(&(objectCategory=person)(uSNChanged>=4101))".to_owned())
        );
    }

    #[test]
    fn another_server_is_asked_by_the_time_of_the_last_look_and_an_hour_before() {
        let by_time = "(&(objectCategory=person)(whenChanged>=20261122021556.0Z))".to_owned();
        let before = root("DC1", "4100");

        assert_eq!(
            planned(Some(&before), &root("DC2", "9000")),
            Plan::Reread(by_time.clone())
        );
        // The same one, set back to an earlier state.
        assert_eq!(
            planned(Some(&before), &root("DC1", "4000")),
            Plan::Reread(by_time)
        );
    }

    #[test]
    fn where_nobody_can_tell_everything_is_asked_for_anew() {
        let mut timeless = root("DC1", "4100");
        timeless.time = None;

        assert_eq!(planned(None, &timeless), Plan::Forget);
        assert_eq!(planned(Some(&timeless), &root("DC2", "1")), Plan::Forget);
    }

    #[test]
    fn a_server_that_does_not_number_its_changes_is_no_root() {
        assert_eq!(Root::of(&entry(&[("dsServiceName", "x")])), None);
        assert_eq!(Root::of(&entry(&[("highestCommittedUSN", "many")])), None);
    }
}
