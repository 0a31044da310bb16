//! `mapigate check FILE`: is this configuration good?

mod survey;

use super::clock::now_seconds;
use super::say::Format;
use crate::config::settings::CopiesFrom;
use crate::config::{self, Loaded, Problem, Problems};
use crate::directory::Directory;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What `mapigate check` is asked.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    /// The configuration file
    pub file: PathBuf,
    /// Ask the directory service too: whether it answers, whom it knows, whether its databases are those of the file, or what of them would be left out
    #[arg(long)]
    pub directory: bool,
    /// For people, or an array of problems for programs
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Prints all problems. The exit code is 1 when the configuration would be refused, 0 otherwise:
/// warnings refuse nothing.
pub fn run(args: &CheckArgs) -> ExitCode {
    let mut result = examine(&args.file);
    if let (true, Ok(loaded)) = (args.directory, &mut result) {
        let found = survey::look(&loaded.settings);
        loaded.warnings.0.extend(found);
    }
    let answer = match args.format {
        Format::Text => in_words(&args.file, &result),
        Format::Json => in_json(&result),
    };
    // Nobody is left to be told that standard output is gone; the exit code still tells.
    let _ = std::io::stdout().lock().write_all(answer.as_bytes());
    match result {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Reads the configuration and, where that is good, the mailbox file, which a start would read next.
fn examine(file: &Path) -> Result<Loaded, Problems> {
    let loaded = config::load(file, now_seconds())?;
    let settings = &loaded.settings;
    let basic = settings.auth.basic.as_ref();
    let domain = basic.and_then(|basic| basic.default_domain.as_deref());
    if settings.directory.ldap.is_some() {
        return Ok(loaded);
    }
    let Err(mut found) = Directory::load(&settings.directory, &settings.databases, domain) else {
        return Ok(loaded);
    };
    found.sort_by_key(|problem| (problem.line == 0, problem.line, problem.column));
    let mut problems = loaded.warnings;
    problems.0.extend(found.into_iter().map(|found| {
        let place = (found.line, found.column);
        Problem::in_file(found.file, place, "directory.file", found.what, found.cure)
    }));
    Err(problems)
}

fn in_words(file: &Path, result: &Result<Loaded, Problems>) -> String {
    let file = file.display();
    let loaded = match result {
        Ok(loaded) => loaded,
        Err(problems) => return format!("{problems} in {file}\n"),
    };
    let settings = &loaded.settings;
    let others = match settings.copies_from {
        CopiesFrom::Configuration => "",
        CopiesFrom::Directory { .. } => ", and those of the directory",
    };
    let mut good = format!(
        "{file} is good: {}, {}, {}, {}{others}",
        counted(settings.listeners.len(), "listener"),
        counted(settings.names.len(), "name"),
        counted(settings.servers.len(), "server"),
        counted(settings.databases.len(), "database"),
    );
    for name in settings.names.iter().filter(|name| name.http2) {
        let (carried, _) = settings.http2_carries(name);
        let carried = match carried.is_empty() {
            true => "nothing".to_owned(),
            false => carried.join(", "),
        };
        good.push_str(&format!("\nHTTP/2 under {} carries {carried}", name.host));
    }
    if loaded.warnings.0.is_empty() {
        format!("{good}\n")
    } else {
        format!("{}\n{good}\n", loaded.warnings)
    }
}

fn counted(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

fn in_json(result: &Result<Loaded, Problems>) -> String {
    let problems = match result {
        Ok(loaded) => &loaded.warnings,
        Err(problems) => problems,
    };
    let mut text = serde_json::to_string_pretty(problems).unwrap_or_else(|_| "[]".to_owned());
    text.push('\n');
    text
}
