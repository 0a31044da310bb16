//! The configuration: text as operators write it in, settings that are true out, or every problem at once.
//!
//! A file becomes a tree whose nodes know their place (`yaml`), the environment is put in (`environment`),
//! the tree is held against the table of [`keys`] (`grammar`), and settings are made of it
//! (`assemble`), which judges what values mean together. Each step reports to one desk; nothing
//! stops at the first problem. Time is an argument, so that the same works at start, at a reload
//! and in `mapigate check`.

pub mod keys;
pub mod problem;
pub mod reference;
pub mod schema;
pub mod settings;

mod assemble;
mod certificates;
mod desk;
mod environment;
mod grammar;
mod keytab;
mod presets;
mod secrets;
mod section;
mod seen;
mod values;
mod yaml;

pub use problem::{Problem, Problems, Severity};
pub use seen::SeenFile;
pub use settings::Settings;

#[cfg(test)]
mod tests;

use desk::{Desk, Source};
use section::Section;
use std::path::Path;

/// Settings, and what somebody should know about them.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Warnings only.
    pub warnings: Problems,
}

/// Reads a configuration and all files it names, except the mailbox file, which is only opened.
/// `now` is in seconds since 1970. Blocks on the disk; a whole site takes milliseconds.
///
/// # Errors
/// All problems, warnings included, by position; at least one is an error.
pub fn load(file: &Path, now: u64) -> Result<Loaded, Problems> {
    load_with(file, now, &|name| std::env::var(name).ok())
}

/// The same with an environment of the caller's.
///
/// # Errors
/// The same.
pub fn load_with(
    file: &Path,
    now: u64,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Problems> {
    let desk = Desk::new(i64::try_from(now).unwrap_or(i64::MAX), environment);
    let main = desk
        .source(file, None)
        .filter(|main| is_section(&desk, main));
    let settings = main.map(|main| {
        grammar::check(&desk, &main);
        let (own_file, databases) = databases_file(&desk, &main);
        let mut settings = assemble::settings(&Section::top(&desk, &main), databases.as_ref());
        // A file that could not be read is named all the same: the watch waits for its repair.
        settings.databases_file = own_file;
        settings
    });
    let (problems, files) = desk.close();
    match settings {
        Some(mut settings) if problems.errors() == 0 => {
            settings.files = files;
            Ok(Loaded {
                settings,
                warnings: problems,
            })
        }
        _ => Err(problems),
    }
}

/// Without a section at the top there is nothing to hold against the table of keys.
fn is_section(desk: &Desk<'_>, main: &Source) -> bool {
    let complaint = match &main.root.value {
        yaml::Value::Map(_) => return true,
        yaml::Value::Nothing => problem::Complaint::new(
            "the file says nothing",
            "begin with `version: 1`; `mapigate schema --reference` prints all keys",
        ),
        _ => problem::Complaint::new(
            format!("expected a section of keys, found {}", main.root.what()),
            "write keys with values, beginning with `version: 1`",
        ),
    };
    desk.error(&main.place(main.start(), ""), complaint);
    false
}

/// The file that `databases: { file: … }` names, and what it holds.
fn databases_file(desk: &Desk<'_>, main: &Source) -> (Option<std::path::PathBuf>, Option<Source>) {
    let top = Section::top(desk, main);
    let holder = top.section("databases");
    let Some(path) = holder.file("file") else {
        return (None, None);
    };
    let place = holder.place("file");
    if !top.named("databases").is_empty() {
        let complaint = problem::Complaint::new(
            "`file` stands beside names of databases",
            "keep the databases here, or move them all into the file",
        );
        desk.error(&place, complaint);
    }
    let source = desk.source(&path, Some(&place));
    if let (Some(source), Some(key)) = (&source, keys::find("", "databases")) {
        grammar::check_included(desk, source, key);
        let inner = Section::top(desk, source).section("databases");
        for (leaf, what, cure) in [
            (
                "file",
                "this file names another file of databases",
                "write the databases here",
            ),
            (
                "copies_from",
                "`copies_from` does not belong into this file",
                "write it where `file` names this one",
            ),
        ] {
            if inner.has(leaf) {
                let complaint = problem::Complaint::new(what, cure);
                desk.error(&inner.place(leaf), complaint);
            }
        }
    }
    (Some(path), source)
}
