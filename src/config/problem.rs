//! What is wrong in a configuration: where, why and what to do about it.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// It is accepted; somebody should know.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// Whether the configuration is refused for it.
    pub severity: Severity,
    /// The file it is in, as the configuration names it.
    pub file: PathBuf,
    /// Line from 1; 0 where the whole file is meant.
    pub line: usize,
    /// Column from 1, in characters; 0 where the whole file is meant.
    pub column: usize,
    /// The key, as in `servers.MBX1.tls.ca`; empty where no key is concerned.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub cure: String,
    /// The word that was probably meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub did_you_mean: Option<String>,
    /// The line with a caret under the mistake. Passwords in it are masked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snippet: Option<String>,
}

impl Problem {
    /// An error that another room found in a file of its own. The line is read again for the snippet.
    pub fn in_file(
        file: PathBuf,
        (line, column): (usize, usize),
        path: &str,
        what: String,
        cure: String,
    ) -> Self {
        let text = std::fs::File::open(&file)
            .ok()
            .filter(|_| line > 0)
            .and_then(|file| BufReader::new(file).lines().nth(line - 1)?.ok());
        Self {
            severity: Severity::Error,
            line,
            column,
            path: path.to_owned(),
            what,
            cure,
            did_you_mean: None,
            snippet: text.map(|text| snippet(line, &text, column, 1)),
            file,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.severity, self.what)?;
        write!(f, "  --> {}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, "  {}", self.path)?;
        }
        writeln!(f)?;
        if let Some(snippet) = &self.snippet {
            writeln!(f, "{snippet}")?;
        }
        if let Some(word) = &self.did_you_mean {
            writeln!(f, "  did you mean: {word}")?;
        }
        writeln!(f, "  cure: {}", self.cure)
    }
}

/// All mistakes of a configuration, by position: the file that was asked for first, then the files
/// it names.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// How many refuse the configuration.
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// How many do not.
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    fn count(&self, severity: Severity) -> usize {
        let same = |problem: &&Problem| problem.severity == severity;
        self.0.iter().filter(same).count()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            writeln!(f, "{problem}")?;
        }
        let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        match (self.errors(), self.warnings()) {
            (0, 0) => f.write_str("no problems"),
            (0, warnings) => f.write_str(&plural(warnings, "warning")),
            (errors, 0) => f.write_str(&plural(errors, "error")),
            (errors, warnings) => write!(
                f,
                "{}, {}",
                plural(errors, "error"),
                plural(warnings, "warning")
            ),
        }
    }
}

impl std::error::Error for Problems {}

/// What is wrong and what to do, before anybody knows where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    pub(super) what: String,
    pub(super) cure: String,
    pub(super) did_you_mean: Option<String>,
}

impl Complaint {
    pub(super) fn new(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            cure: cure.into(),
            did_you_mean: None,
        }
    }

    /// Adds the word that was probably meant.
    pub(super) fn rather(mut self, word: Option<String>) -> Self {
        self.did_you_mean = word;
        self
    }
}

/// A value in backticks, short and on one line whatever it holds.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut shown: String = text
        .chars()
        .take(SHOWN)
        .map(|c| if c.is_control() { '·' } else { c })
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// The candidate that was probably meant: the nearest by edits if it is near, else the only one that
/// begins alike.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    const WORD_MAX: usize = 64;
    if word.len() < 2 || word.len() > WORD_MAX {
        return None;
    }
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', ' '], "_");
    let word = plain(word);
    let edits_max = (word.len() / 3).clamp(1, 3);
    let candidates: Vec<&str> = candidates.into_iter().collect();
    let by_edits = candidates
        .iter()
        .copied()
        .filter(|candidate| candidate.len() <= WORD_MAX)
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&word, &plain(candidate)),
                candidate,
            )
        })
        .filter(|(edits, _)| *edits <= edits_max)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate);
    // `copy` for `copies`: the same beginning, another ending.
    let by_beginning = || {
        let stem: String = word.chars().take(word.len() - 1).collect();
        let mut same = candidates
            .iter()
            .filter(|other| plain(other).starts_with(&stem));
        match (same.next(), same.next()) {
            (Some(only), None) if stem.len() >= 3 => Some(*only),
            _ => None,
        }
    };
    by_edits.or_else(by_beginning)
}

/// The line of a mistake with a caret under it, as compilers draw it.
pub(super) fn snippet(number: usize, line: &str, column: usize, width: usize) -> String {
    const BEFORE: usize = 60;
    const SHOWN: usize = 100;
    let masked = masked(line);
    let chars: Vec<char> = masked.trim_end().chars().collect();
    let caret = column.saturating_sub(1).min(chars.len());
    let begin = if caret > SHOWN - 20 {
        caret - BEFORE
    } else {
        0
    };
    let window = chars.iter().skip(begin).take(SHOWN);
    let mut shown: String = window
        .map(|c| match c {
            '\t' => '→',
            c if c.is_control() => '·',
            c => *c,
        })
        .collect();
    if chars.len() > begin + SHOWN {
        shown.push('…');
    }
    let left = chars.len().min(begin + SHOWN).saturating_sub(caret);
    let carets = "^".repeat(width.clamp(1, left.max(1)));
    let margin = " ".repeat(number.to_string().len());
    let indent = " ".repeat(caret - begin);
    format!(" {margin} |\n {number} | {shown}\n {margin} | {indent}{carets}")
}

/// The line without passwords written in it.
fn masked(line: &str) -> String {
    const KEY: &str = "password:";
    let Some(at) = line.to_ascii_lowercase().find(KEY) else {
        return line.to_owned();
    };
    let (before, value) = line.split_at_checked(at + KEY.len()).unwrap_or((line, ""));
    let plain = value.trim_start().trim_start_matches(['"', '\'']);
    if plain.is_empty() || plain.starts_with("${") || plain.starts_with("file:") {
        return line.to_owned();
    }
    format!("{before} …")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_like_a_compilers() {
        let problem = Problem {
            severity: Severity::Error,
            file: "mapigate.yaml".into(),
            line: 3,
            column: 5,
            path: "listeners[0].adress".into(),
            what: "unknown key `adress`".into(),
            cure: "rename it".into(),
            did_you_mean: Some("address".into()),
            snippet: Some(snippet(3, "  - adress: 0.0.0.0:443", 5, 6)),
        };

        assert_eq!(
            problem.to_string(),
            "error: unknown key `adress`\n\
             \x20 --> mapigate.yaml:3:5  listeners[0].adress\n\
             \x20  |\n\
             \x203 |   - adress: 0.0.0.0:443\n\
             \x20  |     ^^^^^^\n\
             \x20 did you mean: address\n\
             \x20 cure: rename it\n"
        );
    }

    #[test]
    fn a_snippet_never_shows_a_password() {
        for line in ["password: hunter2", "{ user: x, password: 'hun,ter2' }"] {
            assert!(!snippet(1, line, 1, 1).contains("ter2"), "{line}");
        }
        assert!(snippet(1, "password: ${PW}", 1, 1).contains("${PW}"));
    }

    #[test]
    fn a_long_line_is_shown_around_the_mistake() {
        let line = format!("{}HERE{}", "x".repeat(500), "y".repeat(500));

        let shown = snippet(7, &line, 501, 4);

        assert!(shown.contains("HERE"));
        assert!(shown.lines().all(|line| line.chars().count() < 120));
        assert_eq!(shown.matches('^').count(), 4);
    }

    #[test]
    fn the_nearest_word_is_near_or_nobody() {
        let words = ["address", "certificates", "plain_http"];
        assert_eq!(nearest("adress", words), Some("address"));
        assert_eq!(nearest("plain-http", words), Some("plain_http"));
        assert_eq!(nearest("colour", words), None);
        assert_eq!(nearest("", words), None);
    }

    proptest::proptest! {
        #[test]
        fn any_line_can_be_shown(line in "\\PC*", column in 0usize..2000, width in 0usize..2000) {
            let _ = snippet(1, &line, column, width);
            let _ = quoted(&line);
        }
    }
}
