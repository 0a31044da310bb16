//! What a directory service tells of the copies of databases.

use crate::ids::DatabaseName;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

/// Databases by name, as the directory spells them, and who holds their copies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copies(pub BTreeMap<DatabaseName, Held>);

/// Who holds the copies of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Servers, in the order of activation; none where all of them are gone.
    By(Vec<Holder>),
    /// Several databases have this name, and nobody can tell which of them a mailbox is in.
    Ambiguously,
}

/// A server that holds a copy, as the directory knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// Its name.
    pub name: String,
    /// Its host name, where the directory tells one.
    pub host: Option<String>,
}

impl Copies {
    /// Databases that are told.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True where none is told.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// So much less is told than `before` that it is hardly true: fewer than half of the databases. Who may not
    /// read any more, or reads from a server that is being set up, sees so.
    pub fn is_far_less_than(&self, before: &Self) -> bool {
        self.len().saturating_mul(2) < before.len()
    }
}

/// What came of reading them, again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// What was told last and believed; `None`: nothing yet.
    pub copies: Option<Arc<Copies>>,
    /// When that was.
    pub read_at: Option<SystemTime>,
    /// Why the last attempt came to nothing; `None`: it was good, or there was none yet.
    pub trouble: Option<String>,
}

impl Reading {
    /// What is believed after another attempt, which ended so at `now`. What was believed before stays while nobody
    /// tells anything better.
    #[must_use]
    pub fn after(&self, told: Result<Copies, String>, now: SystemTime) -> Self {
        let kept = |trouble: String| Self {
            trouble: Some(trouble),
            ..self.clone()
        };
        let copies = match told {
            Err(trouble) => return kept(trouble),
            Ok(copies) if copies.is_empty() => return kept(NOTHING.to_owned()),
            Ok(copies) => copies,
        };
        if let Some(before) = &self.copies
            && copies.is_far_less_than(before)
        {
            return kept(format!(
                "the directory tells of {} databases where there were {}, which stay; if that is right, restart mapigate",
                copies.len(),
                before.len()
            ));
        }
        Self {
            copies: Some(Arc::new(copies)),
            read_at: Some(now),
            trouble: None,
        }
    }
}

const NOTHING: &str = "the directory tells of no copy of a database";

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn copies(count: usize) -> Copies {
        let holder = Holder {
            name: "MBX1".to_owned(),
            host: None,
        };
        let database = |number| {
            let name = DatabaseName::new(format!("DB{number}"));
            (name, Held::By(vec![holder.clone()]))
        };
        Copies((0..count).map(database).collect())
    }

    fn read(count: usize) -> Reading {
        Reading::default().after(Ok(copies(count)), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn what_is_told_is_believed_and_dated() {
        let reading = read(3);

        assert_eq!(reading.copies.as_deref(), Some(&copies(3)));
        assert_eq!(reading.read_at, Some(SystemTime::UNIX_EPOCH));
        assert_eq!(reading.trouble, None);
    }

    #[test]
    fn nothing_and_far_less_are_not_believed_and_trouble_changes_nothing() {
        let later = SystemTime::UNIX_EPOCH + Duration::from_secs(60);

        for (before, told) in [
            (4, Ok(copies(0))),
            (1, Ok(copies(0))),
            (4, Ok(copies(1))),
            (3, Ok(copies(1))),
            (4, Err("no answer".to_owned())),
        ] {
            let after = read(before).after(told, later);

            assert_eq!(after.copies, read(before).copies, "{before}");
            assert_eq!(after.read_at, read(before).read_at);
            assert!(after.trouble.is_some());
        }
    }

    #[test]
    fn databases_that_come_go_and_are_renamed_are_believed() {
        let renamed = Copies(BTreeMap::from([(
            DatabaseName::new("NEW"),
            Held::Ambiguously,
        )]));

        for (before, told) in [(2, copies(1)), (4, copies(2)), (1, renamed), (1, copies(9))] {
            let after = read(before).after(Ok(told.clone()), SystemTime::UNIX_EPOCH);

            assert_eq!(after.copies.as_deref(), Some(&told));
            assert_eq!(after.trouble, None);
        }
    }

    #[test]
    fn at_the_start_nothing_is_no_answer() {
        let reading = Reading::default().after(Ok(copies(0)), SystemTime::UNIX_EPOCH);

        assert_eq!(reading.copies, None);
        assert_eq!(reading.trouble.as_deref(), Some(NOTHING));
    }

    #[test]
    fn a_good_answer_ends_the_trouble() {
        let troubled = read(2).after(Err("no answer".to_owned()), SystemTime::UNIX_EPOCH);

        let after = troubled.after(Ok(copies(2)), SystemTime::UNIX_EPOCH);

        assert_eq!(after, read(2));
    }
}
