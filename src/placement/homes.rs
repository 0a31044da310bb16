//! Where every database is at home, by what the configuration and a directory service say.
//!
//! A pure function of both: it does not matter which of them changed last.

use super::copies::{Copies, Held, Holder};
use crate::config::Settings;
use crate::config::settings::{CopiesFrom, Database, Server};
use crate::ids::{DatabaseName, ServerName};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// The homes of all databases, and what had to be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Homes {
    pub(super) databases: BTreeMap<DatabaseName, Database>,
    /// Of those that are not the configuration's alone.
    sources: BTreeMap<DatabaseName, Source>,
    differences: BTreeSet<Difference>,
    directory: Word,
}

/// What has been heard of the directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Word {
    /// It is not asked.
    #[default]
    Unasked,
    /// It has not said anything yet.
    Awaited,
    /// It has said what there is.
    Told,
}

/// Who says where a database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The configuration says everything.
    Configuration,
    /// The directory tells the copies; the first of them is taken to be the active one.
    Directory,
    /// The directory tells the copies, the configuration which is active.
    Both,
}

/// What the directory and the configuration do not agree upon.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// A copy is on a server that is none of ours; it is left out.
    CopyElsewhere {
        /// Of this database.
        database: DatabaseName,
        /// What the directory calls the server.
        server: String,
    },
    /// No copy of the database is on a server of ours: it has no home.
    NoServerOfOurs(DatabaseName),
    /// Several databases have this name: none of them has a home.
    Ambiguous(DatabaseName),
    /// The configuration says that it is active where it has no copy. It is believed: a new copy is known there
    /// before it is known everywhere.
    ActiveWithoutCopy {
        /// This database.
        database: DatabaseName,
        /// The server.
        server: ServerName,
    },
    /// The configuration says where it is active, and the directory does not know it.
    Unknown(DatabaseName),
}

impl Homes {
    /// What follows from these settings, and from what the directory told last.
    ///
    /// A database that the configuration lists with its copies is as it says. Of the others the directory tells the
    /// copies; active is what the configuration says, else the first copy on a server of ours.
    pub fn of(settings: &Settings, copies: Option<&Copies>) -> Self {
        match &settings.copies_from {
            CopiesFrom::Configuration => Self::from(&settings.databases),
            CopiesFrom::Directory { active } => {
                let active = active.clone();
                Self::merged(&settings.databases, active, &settings.servers, copies)
            }
        }
    }

    fn merged(
        listed: &BTreeMap<DatabaseName, Database>,
        mut active: BTreeMap<DatabaseName, ServerName>,
        servers: &BTreeMap<ServerName, Arc<Server>>,
        copies: Option<&Copies>,
    ) -> Self {
        let mut homes = Self::from(listed);
        active.retain(|name, _| like(listed, name).is_none());
        homes.directory = match copies {
            Some(_) => Word::Told,
            None => Word::Awaited,
        };
        for (name, held) in copies.iter().flat_map(|copies| &copies.0) {
            if let Some(spelled) = like(listed, name) {
                homes.rename(spelled, name);
                continue;
            }
            let chosen = like(&active, name).cloned();
            let chosen = chosen.and_then(|spelled| active.remove(&spelled));
            homes.add(name, held, chosen, servers);
        }
        // Nobody knows of copies, and yet who gets the requests is said.
        for (name, server) in active {
            if !homes.is_awaited() {
                homes.differences.insert(Difference::Unknown(name.clone()));
            }
            homes.enter(&name, vec![server.clone()], server, Source::Both);
        }
        homes
    }

    /// Nothing more can be said of databases before the directory has told of their copies.
    pub fn is_awaited(&self) -> bool {
        self.directory == Word::Awaited
    }

    /// What is left out, and what does not fit.
    pub fn differences(&self) -> &BTreeSet<Difference> {
        &self.differences
    }

    /// Copies and databases that the directory tells of and that are left out.
    pub fn left_out(&self) -> (usize, usize) {
        let count = |is_it: fn(&Difference) -> bool| {
            let differences = self.differences.iter();
            differences.filter(|difference| is_it(difference)).count()
        };
        let is_copy =
            |difference: &Difference| matches!(difference, Difference::CopyElsewhere { .. });
        let is_database = |difference: &Difference| {
            matches!(
                difference,
                Difference::NoServerOfOurs(_) | Difference::Ambiguous(_)
            )
        };
        (count(is_copy), count(is_database))
    }

    /// Who says where this database is.
    pub fn source(&self, database: &DatabaseName) -> Source {
        let source = self.sources.get(database);
        source.copied().unwrap_or(Source::Configuration)
    }

    /// Why a database has no home, in words for the log.
    pub fn why_homeless(&self, database: &DatabaseName) -> &'static str {
        let is = |difference| self.differences.contains(&difference);
        if self.is_awaited() {
            AWAITED
        } else if is(Difference::NoServerOfOurs(database.clone())) {
            ELSEWHERE
        } else if is(Difference::Ambiguous(database.clone())) {
            AMBIGUOUS
        } else if self.directory == Word::Told {
            UNTOLD
        } else {
            HOMELESS
        }
    }

    /// Mailboxes are in databases as the directory spells them.
    fn rename(&mut self, spelled: &DatabaseName, name: &DatabaseName) {
        if let Some(home) = self.databases.remove(spelled) {
            self.databases.insert(name.clone(), home);
        }
    }

    fn add(
        &mut self,
        name: &DatabaseName,
        held: &Held,
        chosen: Option<ServerName>,
        servers: &BTreeMap<ServerName, Arc<Server>>,
    ) {
        let Held::By(holders) = held else {
            let ambiguous = Difference::Ambiguous(name.clone());
            self.differences.insert(ambiguous);
            return;
        };
        let mut copies: Vec<ServerName> = Vec::new();
        for holder in holders {
            match server_of(holder, servers) {
                Some(server) if copies.contains(&server.name) => {}
                Some(server) => copies.push(server.name.clone()),
                None => {
                    self.differences.insert(Difference::CopyElsewhere {
                        database: name.clone(),
                        server: holder.name.clone(),
                    });
                }
            }
        }
        let source = match chosen {
            Some(_) => Source::Both,
            None => Source::Directory,
        };
        if let Some(server) = &chosen
            && !copies.contains(server)
        {
            self.differences.insert(Difference::ActiveWithoutCopy {
                database: name.clone(),
                server: server.clone(),
            });
            copies.push(server.clone());
        }
        match chosen.or_else(|| copies.first().cloned()) {
            Some(active) => self.enter(name, copies, active, source),
            None => {
                let homeless = Difference::NoServerOfOurs(name.clone());
                self.differences.insert(homeless);
            }
        }
    }

    fn enter(
        &mut self,
        name: &DatabaseName,
        copies: Vec<ServerName>,
        active: ServerName,
        source: Source,
    ) {
        let home = Database { copies, active };
        self.databases.insert(name.clone(), home);
        self.sources.insert(name.clone(), source);
    }
}

impl From<&BTreeMap<DatabaseName, Database>> for Homes {
    fn from(databases: &BTreeMap<DatabaseName, Database>) -> Self {
        Self {
            databases: databases.clone(),
            ..Self::default()
        }
    }
}

/// The server of ours that the directory means: the one of its name, else the only one of its host.
pub fn server_of<'s>(
    holder: &Holder,
    servers: &'s BTreeMap<ServerName, Arc<Server>>,
) -> Option<&'s Arc<Server>> {
    let is_named = |server: &&Arc<Server>| server.name.as_str().eq_ignore_ascii_case(&holder.name);
    if let Some(server) = servers.values().find(is_named) {
        return Some(server);
    }
    let host = holder.host.as_deref()?;
    let mut there = servers.values().filter(|server| {
        server.host.eq_ignore_ascii_case(host) || server.fqdn().eq_ignore_ascii_case(host)
    });
    let server = there.next()?;
    there.next().is_none().then_some(server)
}

/// The spelling of a name: the same, or one that differs in case alone.
fn like<'m, V>(
    map: &'m BTreeMap<DatabaseName, V>,
    name: &DatabaseName,
) -> Option<&'m DatabaseName> {
    if let Some((same, _)) = map.get_key_value(name) {
        return Some(same);
    }
    map.keys()
        .find(|known| known.as_str().eq_ignore_ascii_case(name.as_str()))
}

impl Difference {
    /// Whose home it is about.
    pub fn database(&self) -> &DatabaseName {
        match self {
            Self::CopyElsewhere { database, .. }
            | Self::NoServerOfOurs(database)
            | Self::Ambiguous(database)
            | Self::ActiveWithoutCopy { database, .. }
            | Self::Unknown(database) => database,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CopyElsewhere { database, server } => write!(
                f,
                "a copy of {database} is on {server}, which is not in `servers`"
            ),
            Self::NoServerOfOurs(database) => write!(
                f,
                "no copy of {database} is on a server of `servers`: its mailboxes cannot be reached"
            ),
            Self::Ambiguous(database) => write!(
                f,
                "several databases of the directory are called {database}: their mailboxes cannot be reached"
            ),
            Self::ActiveWithoutCopy { database, server } => write!(
                f,
                "{database} is active on {server} according to the configuration, and the directory knows no copy there"
            ),
            Self::Unknown(database) => write!(
                f,
                "the configuration says where {database} is active, and the directory does not know it"
            ),
        }
    }
}

/// No database of this name is known.
pub const HOMELESS: &str = "it is not configured";
const AWAITED: &str = "the directory has not told yet where its copies are";
const ELSEWHERE: &str = "none of its copies is on a server of the configuration";
const UNTOLD: &str = "neither the directory nor the configuration knows a copy of it";
const AMBIGUOUS: &str = "several databases of the directory have this name";

#[cfg(test)]
#[path = "homes_tests.rs"]
mod tests;
