//! Where a reading of the configuration collects its problems, and where its files come in.

use super::environment::{self, Environment};
use super::problem::{Complaint, Problem, Problems, Severity, quoted, snippet};
use super::seen::SeenFile;
use super::yaml::{self, Node, Span, Value};
use std::cell::RefCell;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Problems of one reading; what goes beyond is counted, not kept.
const PROBLEMS_MAX: usize = 200;
/// Bytes of a YAML file.
pub(super) const YAML_MAX: usize = 10 << 20;

/// One reading of a configuration.
pub(super) struct Desk<'e> {
    /// Seconds since 1970, by which certificates are judged.
    pub(super) now: i64,
    environment: Environment<'e>,
    problems: RefCell<Vec<(usize, Problem)>>,
    left_off: RefCell<usize>,
    files: RefCell<Vec<SeenFile>>,
}

/// A YAML file with its tree.
pub(super) struct Source {
    pub(super) path: PathBuf,
    text: String,
    pub(super) root: Node,
}

/// Where a value stands, for a problem with it.
#[derive(Clone)]
pub(super) struct Place<'s> {
    pub(super) source: &'s Source,
    pub(super) span: Span,
    /// The key: `servers.MBX1.tls.ca`.
    pub(super) path: String,
}

impl Source {
    /// A path as this file means it: relative to its folder.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    /// Where the file begins to say something; for what it does not say.
    pub(super) fn start(&self) -> Span {
        match self.root.entries().first() {
            Some(entry) => entry.key_span,
            None if !matches!(self.root.value, Value::Nothing) => self.root.span,
            None => Span {
                line: 1,
                column: 1,
                width: 1,
            },
        }
    }

    pub(super) fn place(&self, span: Span, path: impl Into<String>) -> Place<'_> {
        Place {
            source: self,
            span,
            path: path.into(),
        }
    }
}

impl<'e> Desk<'e> {
    pub(super) fn new(now: i64, environment: Environment<'e>) -> Self {
        Self {
            now,
            environment,
            problems: RefCell::default(),
            left_off: RefCell::default(),
            files: RefCell::default(),
        }
    }

    pub(super) fn error(&self, place: &Place<'_>, complaint: Complaint) {
        self.report(Severity::Error, place, complaint);
    }

    pub(super) fn warning(&self, place: &Place<'_>, complaint: Complaint) {
        self.report(Severity::Warning, place, complaint);
    }

    fn report(&self, severity: Severity, place: &Place<'_>, complaint: Complaint) {
        if self.counts_only(severity) {
            return;
        }
        let Place { source, span, path } = place;
        let line = source.text.lines().nth(span.line.saturating_sub(1));
        let snippet = line.map(|line| snippet(span.line, line, span.column, span.width));
        self.keep(Problem {
            severity,
            file: source.path.clone(),
            line: span.line,
            column: span.column,
            path: path.clone(),
            what: complaint.what,
            cure: complaint.cure,
            did_you_mean: complaint.did_you_mean,
            snippet,
        });
    }

    /// A problem in a line of a file that is not YAML. `shown` is the line without its secrets.
    pub(super) fn in_line(
        &self,
        severity: Severity,
        (file, line, shown): (&Path, usize, &str),
        path: &str,
        complaint: Complaint,
    ) {
        if self.counts_only(severity) {
            return;
        }
        let snippet = (line > 0).then(|| snippet(line, shown, 1, shown.chars().count()));
        self.keep(Problem {
            severity,
            file: file.to_owned(),
            line,
            column: usize::from(line > 0),
            path: path.to_owned(),
            what: complaint.what,
            cure: complaint.cure,
            did_you_mean: complaint.did_you_mean,
            snippet,
        });
    }

    /// True where no more problems are kept; what is costly to say need not be made.
    pub(super) fn is_full(&self) -> bool {
        self.problems.borrow().len() >= PROBLEMS_MAX
    }

    /// Counts a problem that will not be kept, before its words and its line are looked for.
    fn counts_only(&self, severity: Severity) -> bool {
        let is_warning = |(_, kept): &(usize, Problem)| kept.severity == Severity::Warning;
        let takes_place =
            severity == Severity::Error && self.problems.borrow().iter().any(is_warning);
        let counts = self.is_full() && !takes_place;
        *self.left_off.borrow_mut() += usize::from(counts);
        counts
    }

    fn keep(&self, problem: Problem) {
        let mut problems = self.problems.borrow_mut();
        let files = self.files.borrow();
        let order = files.iter().position(|file| file.path == problem.file);
        // An error must not be lost behind two hundred warnings.
        if problems.len() < PROBLEMS_MAX {
            problems.push((order.unwrap_or(usize::MAX), problem));
            return;
        }
        *self.left_off.borrow_mut() += 1;
        let warning = problems
            .iter_mut()
            .rev()
            .find(|(_, kept)| kept.severity == Severity::Warning);
        if let (Severity::Error, Some(slot)) = (problem.severity, warning) {
            *slot = (order.unwrap_or(usize::MAX), problem);
        }
    }

    /// All problems by position, and the files that were read as they were before.
    pub(super) fn close(self) -> (Problems, Vec<SeenFile>) {
        let mut problems = self.problems.into_inner();
        problems.sort_by(|(a_file, a), (b_file, b)| {
            (a_file, a.line, a.column, a.severity).cmp(&(b_file, b.line, b.column, b.severity))
        });
        let mut list: Vec<Problem> = problems.into_iter().map(|(_, problem)| problem).collect();
        list.dedup();
        let left_off = self.left_off.into_inner();
        if left_off > 0
            && let Some(last) = list.last()
        {
            list.push(Problem {
                severity: list
                    .iter()
                    .map(|problem| problem.severity)
                    .min()
                    .unwrap_or(Severity::Error),
                file: last.file.clone(),
                line: 0,
                column: 0,
                path: String::new(),
                what: format!("{left_off} more problems"),
                cure: "repair these first, then check again".to_owned(),
                did_you_mean: None,
                snippet: None,
            });
        }
        (Problems(list), self.files.into_inner())
    }

    /// Reads a YAML file: text, tree, environment. `None`: reported.
    pub(super) fn source(&self, path: &Path, named_at: Option<&Place<'_>>) -> Option<Source> {
        let bytes = match named_at {
            Some(place) => self.bytes(place, path, YAML_MAX)?,
            None => self.first_bytes(path)?,
        };
        let mut source = Source {
            path: path.to_owned(),
            text: String::new(),
            root: Node {
                span: Span::default(),
                value: Value::Nothing,
            },
        };
        match String::from_utf8(bytes) {
            Ok(text) => source.text = text,
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                source.text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                let before = source.text.get(..valid).unwrap_or_default();
                let span = Span {
                    line: before.matches('\n').count() + 1,
                    column: before.chars().rev().take_while(|c| *c != '\n').count() + 1,
                    width: 1,
                };
                let complaint =
                    Complaint::new("a byte that is not UTF-8", "save the file as UTF-8 text");
                self.error(&source.place(span, ""), complaint);
                return None;
            }
        }
        if source.text.starts_with('\u{feff}') {
            source.text.remove(0);
        }
        match yaml::parse(&source.text) {
            Ok(root) => source.root = root,
            Err(flaws) => {
                for (span, complaint) in flaws {
                    self.error(&source.place(span, ""), complaint);
                }
                return None;
            }
        }
        for (span, path, complaint) in environment::expand(&mut source.root, self.environment) {
            self.error(&source.place(span, path), complaint);
        }
        Some(source)
    }

    /// Reads a file that a value names. `None`: reported at that value.
    pub(super) fn bytes(&self, place: &Place<'_>, path: &Path, most: usize) -> Option<Vec<u8>> {
        self.remember(path);
        // A pipe or device would hold us up or never end.
        match std::fs::metadata(path) {
            Ok(facts) if facts.is_file() => {}
            Ok(facts) => {
                let kind = if facts.is_dir() {
                    "a folder"
                } else {
                    "not a plain file"
                };
                let what = format!("{} is {kind}", quoted(&path.display().to_string()));
                self.error(place, Complaint::new(what, "name the file itself"));
                return None;
            }
            Err(error) => {
                self.error(place, unreadable(path, error.kind(), &place.source.path));
                return None;
            }
        }
        match read(path, most) {
            Ok(bytes) if bytes.len() <= most => Some(bytes),
            Ok(_) => {
                self.error(place, too_large(path, most));
                None
            }
            Err(kind) => {
                self.error(place, unreadable(path, kind, &place.source.path));
                None
            }
        }
    }

    /// True where a file that a value names can be opened. It is not read.
    pub(super) fn is_readable(&self, place: &Place<'_>, path: &Path) -> bool {
        self.remember(path);
        if !path.is_file() && path.exists() {
            let what = format!(
                "{} is not a plain file",
                quoted(&path.display().to_string())
            );
            self.error(place, Complaint::new(what, "name the file itself"));
            return false;
        }
        match File::open(path) {
            Ok(_) => true,
            Err(error) => {
                self.error(place, unreadable(path, error.kind(), &place.source.path));
                false
            }
        }
    }

    fn first_bytes(&self, path: &Path) -> Option<Vec<u8>> {
        self.remember(path);
        let complaint = match read(path, YAML_MAX) {
            Ok(bytes) if bytes.len() <= YAML_MAX => return Some(bytes),
            Ok(_) => too_large(path, YAML_MAX),
            Err(kind) => unreadable(path, kind, Path::new("")),
        };
        self.in_line(Severity::Error, (path, 0, ""), "", complaint);
        None
    }

    /// Warns when anybody on the machine may read a file that should be secret.
    pub(super) fn warn_if_open(&self, place: &Place<'_>, path: &Path) {
        let Ok(facts) = std::fs::metadata(path) else {
            return;
        };
        if facts.permissions().mode() & 0o007 != 0 {
            let shown = path.display().to_string();
            self.warning(
                place,
                Complaint::new(
                    format!("everybody on this machine may open {}", quoted(&shown)),
                    format!("chmod 600 {shown}, and give it to the user mapigate runs as"),
                ),
            );
        }
    }

    /// Adds a file to those the file watch looks at, as it is now: before it is read.
    pub(super) fn remember(&self, path: &Path) {
        let mut files = self.files.borrow_mut();
        if !files.iter().any(|file| file.path == path) {
            files.push(SeenFile::look(path));
        }
    }
}

/// A path with one more key.
pub(super) fn joined(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// One byte more than allowed tells that there is more.
fn read(path: &Path, most: usize) -> Result<Vec<u8>, ErrorKind> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(most as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| error.kind())?;
    Ok(bytes)
}

fn unreadable(path: &Path, kind: ErrorKind, named_in: &Path) -> Complaint {
    let shown = quoted(&path.display().to_string());
    let folder = named_in.parent().unwrap_or(Path::new(""));
    match kind {
        ErrorKind::NotFound if named_in.as_os_str().is_empty() => Complaint::new(
            format!("there is no file {shown}"),
            "check the spelling and the folder you are in",
        ),
        ErrorKind::NotFound => Complaint::new(
            format!("there is no file {shown}"),
            if folder.as_os_str().is_empty() || path.is_absolute() {
                "check the spelling; relative paths start at the folder of the file they stand in"
                    .to_owned()
            } else {
                format!(
                    "check the spelling; relative paths start at the folder of {}",
                    named_in.display()
                )
            },
        ),
        ErrorKind::PermissionDenied => Complaint::new(
            format!("{shown} may not be read"),
            "let the user mapigate runs as read the file and enter its folders",
        ),
        ErrorKind::IsADirectory => {
            Complaint::new(format!("{shown} is a folder"), "name the file itself")
        }
        kind => Complaint::new(
            format!("{shown} cannot be read ({kind})"),
            "look at the disk and the file",
        ),
    }
}

fn too_large(path: &Path, most: usize) -> Complaint {
    Complaint::new(
        format!(
            "{} is larger than {}",
            quoted(&path.display().to_string()),
            super::values::size_words(most as u64)
        ),
        "is it the right file?",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_problems_is_counted_and_errors_outlive_warnings() {
        let none = |_: &str| None;
        let desk = Desk::new(0, &none);
        let file = Path::new("x");
        for line in 1..=PROBLEMS_MAX {
            let complaint = Complaint::new("w", "c");
            desk.in_line(Severity::Warning, (file, line, ""), "", complaint);
        }
        let complaint = Complaint::new("e", "c");
        desk.in_line(Severity::Error, (file, 999, ""), "", complaint);

        let (problems, _) = desk.close();

        assert_eq!(problems.0.len(), PROBLEMS_MAX + 1);
        assert!(problems.errors() > 0);
        assert_eq!(problems.0.last().unwrap().what, "1 more problems");
    }
}
