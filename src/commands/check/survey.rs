//! Asks the directory service of a configuration, as a running process would.

use crate::config::settings::{Database, Settings};
use crate::config::{Problem, Severity};
use crate::ids::DatabaseName;
use crate::ldap::{Book, Survey};
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
    for (database, copies) in &survey.databases {
        let found = settings
            .databases
            .iter()
            .find(|(name, _)| name.as_str().eq_ignore_ascii_case(database));
        match found {
            None => problems.push(warn(
                format!("the directory has a database {database} that is not in `databases`: its mailboxes cannot be reached"),
                "add it to `databases`, if it has mailboxes",
            )),
            Some((name, home)) => {
                let differs = differs(name, home, copies);
                problems.extend(differs.map(|what| warn(what, COPIES_CURE)));
            }
        }
    }
    problems
}

/// Where copies are said to be elsewhere, or in another order, in words. Servers that go by other names
/// here than in the directory cannot be compared.
fn differs(name: &DatabaseName, home: &Database, copies: &[String]) -> Option<String> {
    let ours = home
        .copies
        .iter()
        .map(|server| server.as_str().to_ascii_lowercase());
    let theirs = copies.iter().map(|server| server.to_ascii_lowercase());
    if ours.clone().eq(theirs.clone())
        || !theirs
            .into_iter()
            .any(|server| ours.clone().any(|our| our == server))
    {
        return None;
    }
    Some(format!(
        "copies of {name} are on {} according to the directory, and on {} according to `databases`",
        list(copies),
        list(&home.copies)
    ))
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
    use crate::ids::ServerName;

    #[test]
    fn copies_elsewhere_or_in_another_order_are_told() {
        let database = Database {
            copies: vec![ServerName::new("MBX1"), ServerName::new("MBX2")],
            active: ServerName::new("MBX1"),
        };
        let told = |copies: &[&str]| {
            let copies: Vec<String> = copies.iter().map(|&copy| copy.to_owned()).collect();
            differs(&DatabaseName::new("DB1"), &database, &copies)
        };

        assert_eq!(told(&["mbx1", "mbx2"]), None);
        assert_eq!(told(&["EX-A", "EX-B"]), None);
        assert_eq!(
            told(&["MBX2", "MBX1"]).unwrap(),
            "copies of DB1 are on MBX2, MBX1 according to the directory, and on MBX1, MBX2 according to `databases`"
        );
        assert!(told(&["MBX1"]).is_some());
    }
}
