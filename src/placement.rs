//! Which server holds the active copy of each database.
//!
//! The map is immutable: a failover, a reload or another word of the directory builds the next one. It alone
//! decides who owns a database; health may only veto.

mod copies;
mod homes;

pub use copies::{Copies, Held, Holder, Reading};
pub use homes::{Difference, HOMELESS, Homes, Source, server_of};

use crate::config::settings::Database;
use crate::ids::{DatabaseName, Epoch, ServerName};

/// The map of databases to servers, with an epoch that grows with every difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    epoch: Epoch,
    homes: Homes,
}

impl Placement {
    /// The first map of a process: epoch 1.
    pub fn new(homes: impl Into<Homes>) -> Self {
        Self {
            epoch: Epoch(1),
            homes: homes.into(),
        }
    }

    /// The map after this one. Its epoch is one higher when any database differs, and the same otherwise.
    #[must_use]
    pub fn next(&self, homes: impl Into<Homes>) -> Self {
        let homes = homes.into();
        let differs = u64::from(self.homes.databases != homes.databases);
        Self {
            epoch: Epoch(self.epoch.0.saturating_add(differs)),
            homes,
        }
    }

    /// Who said what, and what is left out.
    pub fn homes(&self) -> &Homes {
        &self.homes
    }

    /// All copies of a database and which one is active; `None` for a database without a home: [`Homes::why_homeless`].
    pub fn home(&self, database: &DatabaseName) -> Option<&Database> {
        self.homes.databases.get(database)
    }

    /// The server that holds the active copy.
    pub fn active(&self, database: &DatabaseName) -> Option<&ServerName> {
        self.home(database).map(|home| &home.active)
    }

    /// True while this server holds the active copy of this database. What is held open on a server
    /// for a database must end once this is false.
    pub fn is_active(&self, database: &DatabaseName, server: &ServerName) -> bool {
        self.active(database) == Some(server)
    }

    /// How many differences there have been, counted from 1.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// All databases by name.
    pub fn iter(&self) -> impl Iterator<Item = (&DatabaseName, &Database)> {
        self.homes.databases.iter()
    }

    /// Databases whose active server is another one in `newer`, or that are missing there.
    pub fn moved_in<'a>(&'a self, newer: &'a Self) -> impl Iterator<Item = &'a DatabaseName> {
        self.iter()
            .filter(|(name, home)| !newer.is_active(name, &home.active))
            .map(|(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn databases(rows: &[(&str, &[&str], &str)]) -> BTreeMap<DatabaseName, Database> {
        let home = |copies: &[&str], active: &str| Database {
            copies: copies.iter().copied().map(ServerName::new).collect(),
            active: ServerName::new(active),
        };
        let row = |(name, copies, active): &(&str, &[&str], &str)| {
            (DatabaseName::new(*name), home(copies, active))
        };
        rows.iter().map(row).collect()
    }

    #[test]
    fn the_first_map_has_epoch_one() {
        let map = Placement::new(&databases(&[("DB1", &["A", "B"], "A")]));

        assert_eq!(map.epoch(), Epoch(1));
        assert_eq!(
            map.active(&DatabaseName::new("DB1")),
            Some(&ServerName::new("A"))
        );
        assert_eq!(map.iter().count(), 1);
    }

    #[test]
    fn a_map_without_differences_keeps_its_epoch() {
        let same = databases(&[("DB1", &["A", "B"], "A")]);
        let map = Placement::new(&same);

        assert_eq!(map.next(&same), map);
    }

    #[test]
    fn every_difference_raises_the_epoch() {
        let map = Placement::new(&databases(&[("DB1", &["A", "B"], "A")]));

        for other in [
            databases(&[("DB1", &["A", "B"], "B")]),
            databases(&[("DB1", &["B", "A"], "A")]),
            databases(&[("DB1", &["A", "B"], "A"), ("DB2", &["A"], "A")]),
            databases(&[]),
        ] {
            assert_eq!(map.next(&other).epoch(), Epoch(2));
        }
    }

    #[test]
    fn a_database_nobody_configured_has_no_home() {
        let map = Placement::new(&databases(&[("DB1", &["A"], "A")]));

        assert_eq!(map.home(&DatabaseName::new("db1")), None);
        assert!(!map.is_active(&DatabaseName::new("DB2"), &ServerName::new("A")));
    }

    #[test]
    fn moved_and_removed_databases_have_moved_and_new_ones_have_not() {
        let before = Placement::new(&databases(&[
            ("DB1", &["A", "B"], "A"),
            ("DB2", &["A", "B"], "A"),
            ("DB3", &["A"], "A"),
        ]));
        let after = before.next(&databases(&[
            ("DB1", &["A", "B"], "A"),
            ("DB2", &["A", "B"], "B"),
            ("DB4", &["A"], "A"),
        ]));

        let moved: Vec<&str> = before.moved_in(&after).map(DatabaseName::as_str).collect();

        assert_eq!(moved, ["DB2", "DB3"]);
        assert_eq!(before.moved_in(&before).count(), 0);
    }
}
