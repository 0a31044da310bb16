//! Asks the directory service of a configuration, as a running process would.

use crate::config::settings::{CopiesFrom, Database, Settings};
use crate::config::{Problem, Severity};
use crate::ids::{DatabaseName, ServerName};
use crate::ldap::{Book, Survey};
use crate::placement::{Copies, Held, Holder, Homes, Placement, server_of};
use crate::runtime;
use std::fmt::Display;
use std::sync::Arc;

/// What should be known of the directory service before it is relied on; nothing where there is none.
pub(super) fn look(settings: &Settings) -> Vec<Problem> {
    let warn = |what: String, cure: &str| Problem {
        severity: Severity::Warning,
        ..Problem::in_file(
            settings.source.clone(),
            (0, 0),
            "directory.ldap",
            what,
            cure.to_owned(),
        )
    };
    let book = match runtime::book(settings, None) {
        Ok(Some(book)) => book,
        Ok(None) => return Vec::new(),
        Err(problem) => return vec![warn(problem, "look at `ca`")],
    };
    let survey = match ask(&book) {
        Ok(survey) => survey,
        Err(trouble) => {
            let states = book.client().states().into_iter();
            let whys = states.filter_map(|(url, why)| Some(format!("; {url}: {}", why?)));
            let what = format!("{trouble}{}", whys.collect::<String>());
            let cure =
                "look at `urls`, `ca`, `bind_name` and `bind_password`, and at the network between";
            return vec![warn(what, cure)];
        }
    };
    let mut problems = Vec::new();
    if survey.somebody.is_none() {
        let what = format!(
            "no entry below {} answers to {}",
            book.settings().base,
            book.settings().people
        );
        problems.push(warn(
            what,
            "look at `base` and `people`, and at what `bind_name` may read",
        ));
    }
    let found = match settings.copies_from {
        CopiesFrom::Directory { .. } => left_out(settings, &survey.copies),
        CopiesFrom::Configuration => unlike(settings, &survey.copies),
    };
    problems.extend(found.into_iter().map(|(what, cure)| warn(what, cure)));
    problems
}

/// What of the directory's copies would be left out, or is surprising.
fn left_out(settings: &Settings, copies: &Copies) -> Vec<(String, &'static str)> {
    if copies.is_empty() {
        let what = "the directory tells of no copy of a database, and `databases.copies_from` asks it for them";
        return vec![(
            what.to_owned(),
            "look at `copies`, and at what `bind_name` may read",
        )];
    }
    let homes = Homes::of(settings, Some(copies));
    let differences = homes.differences().iter();
    let cure = "add the server to `servers`, or list the database with its copies in `databases`";
    let mut found: Vec<_> = differences
        .map(|difference| (difference.to_string(), cure))
        .collect();
    // Their names could not be checked before the directory was asked.
    let placement = Placement::new(homes);
    for (domain, database) in &settings.directory.default_databases {
        if placement.home(database).is_none() {
            let why = placement.homes().why_homeless(database);
            let what = format!("mailboxes of {domain} are in {database} by default: {why}");
            found.push((
                what,
                "name a database as the directory spells it in `default_databases`",
            ));
        }
    }
    found
}

/// Where the directory and `databases` say different things.
fn unlike(settings: &Settings, copies: &Copies) -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    for (database, held) in &copies.0 {
        let listed = settings
            .databases
            .iter()
            .find(|(name, _)| name.as_str().eq_ignore_ascii_case(database.as_str()));
        match (listed, held) {
            (None, _) => found.push((
                format!("the directory has a database {database} that is not in `databases`: its mailboxes cannot be reached"),
                "add it to `databases`, if it has mailboxes",
            )),
            (Some(_), Held::Ambiguously) => found.push((
                format!("the directory has several databases {database}: mailboxes of all of them are taken to be in the one of `databases`"),
                "rename one of them",
            )),
            (Some((name, home)), Held::By(holders)) => {
                let differs = differs(name, home, holders, settings);
                found.extend(differs.map(|what| (what, COPIES_CURE)));
            }
        }
    }
    found
}

/// Where copies are said to be elsewhere, or in another order, in words. Where none of the servers is one of ours,
/// nothing can be compared.
fn differs(
    name: &DatabaseName,
    home: &Database,
    holders: &[Holder],
    settings: &Settings,
) -> Option<String> {
    let ours = |holder: &Holder| Some(server_of(holder, &settings.servers)?.name.clone());
    if !holders.iter().any(|holder| ours(holder).is_some()) {
        return None;
    }
    let theirs = |holder: &Holder| ours(holder).unwrap_or(ServerName::new(holder.name.as_str()));
    let theirs: Vec<ServerName> = holders.iter().map(theirs).collect();
    (theirs != home.copies).then(|| {
        format!(
            "copies of {name} are on {} according to the directory, and on {} according to `databases`",
            list(&theirs),
            list(&home.copies)
        )
    })
}

fn list(names: &[impl Display]) -> String {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    names.join(", ")
}

fn ask(book: &Arc<Book>) -> Result<Survey, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime
        .block_on(book.survey())
        .map_err(|trouble| trouble.to_string())
}

const COPIES_CURE: &str = "write the servers and their order alike, or see why they differ";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upkeep::world;
    use std::collections::BTreeMap;

    /// `DB1` on MBX1 and MBX2, which are our only servers.
    fn told(copies: &[&str]) -> Option<String> {
        let settings = world::settings();
        let holder = |name: &&str| Holder {
            name: (*name).to_owned(),
            host: None,
        };
        let holders: Vec<_> = copies.iter().map(holder).collect();
        let (name, home) = settings.databases.first_key_value().unwrap();
        differs(name, home, &holders, &settings)
    }

    #[test]
    fn copies_elsewhere_or_in_another_order_are_told() {
        assert_eq!(told(&["mbx1", "mbx2"]), None);
        assert_eq!(told(&["EX-A", "EX-B"]), None);
        assert_eq!(
            told(&["MBX2", "mbx1"]).unwrap(),
            "copies of DB1 are on MBX2, MBX1 according to the directory, and on MBX1, MBX2 according to `databases`"
        );
        assert!(told(&["MBX1"]).is_some());
        assert!(told(&["MBX1", "MBX2", "EX-A"]).is_some());
    }

    #[test]
    fn a_default_database_that_has_no_home_is_told() {
        let mut settings = world::settings();
        settings.copies_from = CopiesFrom::Directory {
            active: BTreeMap::new(),
        };
        settings.directory.default_databases = BTreeMap::from([
            ("contoso.test".to_owned(), DatabaseName::new("DB1")),
            ("fabrikam.test".to_owned(), DatabaseName::new("db2")),
        ]);
        let held = Held::By(vec![Holder {
            name: "MBX1".to_owned(),
            host: None,
        }]);
        let copies = Copies(BTreeMap::from([(DatabaseName::new("DB2"), held)]));

        let found = left_out(&settings, &copies);

        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0]
                .0
                .starts_with("mailboxes of fabrikam.test are in db2 by default: neither")
        );
    }

    #[test]
    fn a_directory_that_is_asked_for_copies_and_tells_none_is_told() {
        let found = left_out(&world::settings(), &Copies::default());

        assert_eq!(found.len(), 1);
    }
}
