//! The reference file: every key with its sentence and its default, as YAML that works.
//!
//! A line that begins with `#` and a blank is prose; a `#` directly before a key switches it off.

use super::keys::{self, Given, Key, Kind};
use super::values::{duration_words, size_words};
use std::fmt::Write as _;

/// The text of `conf/reference.yaml`.
pub fn text() -> String {
    let mut page = Page {
        out: HEAD.to_owned(),
    };
    page.section("", 0, true, "");
    page.out
}

const HEAD: &str = "\
# mapigate: every key, what it means, and its default. Printed by `mapigate schema --reference`.
#
# A line of prose has a blank after its `#`. A key directly behind a `#` is switched off: it has no
# default, and the line shows an example. Durations have units (500ms, 30s, 15m), sizes too (64KiB).
# `${NAME}` anywhere in a value is the environment variable NAME; `$${` are the characters themselves.
# Relative paths start at the folder of the file they stand in.
";

struct Page {
    out: String,
}

impl Page {
    /// Writes the keys of a section. `dash` stands before the first key of a list's item.
    fn section(&mut self, path: &str, indent: usize, live: bool, dash: &str) {
        let mut dash = dash;
        for key in keys::children(path) {
            if path.is_empty() {
                self.out.push('\n');
            }
            self.key(key, indent, live, dash);
            dash = "";
        }
    }

    fn key(&mut self, key: &Key, indent: usize, live: bool, dash: &str) {
        let live = live && !matches!(key.given, Given::Optional { .. });
        let column = if dash.is_empty() {
            indent
        } else {
            indent - dash.len()
        };
        for line in wrapped(&prose(key), 98 - indent.min(40)) {
            let _ = writeln!(self.out, "{:column$}# {line}", "");
        }
        let switch = if live { "" } else { "#" };
        let _ = write!(self.out, "{:column$}{switch}{dash}{}:", "", key.leaf());
        let inner = indent + 2;
        match key.kind {
            Kind::Section | Kind::SectionOrOff => {
                self.out.push('\n');
                self.section(key.path, inner, live, "");
            }
            Kind::List(Kind::Section) => {
                self.out.push('\n');
                self.section(&format!("{}[]", key.path), inner + 2, live, "- ");
            }
            Kind::Named(Kind::Section, name) => {
                self.named(key, name, inner, live);
            }
            Kind::NamedOrFile(_, name) => {
                self.out.push('\n');
                self.section(key.path, inner, live, "");
                // The line is open no more; the name follows the key `file`.
                let _ = writeln!(self.out, "{:inner$}{switch}{name}:", "");
                self.section(&format!("{}.*", key.path), inner + 2, live, "");
            }
            Kind::Named(_, name) => {
                let _ = writeln!(self.out, "\n{:inner$}{switch}{name}: {}", "", example(key));
            }
            _ => {
                let _ = writeln!(self.out, " {}", example(key));
            }
        }
    }

    fn named(&mut self, key: &Key, name: &str, inner: usize, live: bool) {
        let switch = if live { "" } else { "#" };
        let _ = writeln!(self.out, "\n{:inner$}{switch}{name}:", "");
        self.section(&format!("{}.*", key.path), inner + 2, live, "");
    }
}

fn example(key: &Key) -> &'static str {
    match key.given {
        Given::Default(value) => value,
        Given::Required { example, .. }
        | Given::Optional { example, .. }
        | Given::Usual { example, .. } => example,
    }
}

/// The sentence of a key, its range, and what is true without it.
fn prose(key: &Key) -> String {
    let mut prose = key.doc.to_owned();
    match key.kind {
        Kind::Duration(least, most) => {
            let _ = write!(
                prose,
                " From {} to {}.",
                duration_words(least),
                duration_words(most)
            );
        }
        Kind::Size(least, most) => {
            let _ = write!(
                prose,
                " From {} to {}.",
                size_words(least),
                size_words(most)
            );
        }
        Kind::Count(least, most) | Kind::CountOrAuto(least, most) => {
            let _ = write!(prose, " From {least} to {most}.");
        }
        Kind::Choice(words) => one_of(&mut prose, words),
        Kind::List(Kind::Choice(words)) => one_of(&mut prose, words),
        _ => {}
    }
    match key.given {
        Given::Required { why, .. } => {
            let _ = write!(prose, " No default: {why}.");
        }
        Given::Optional { without, .. } | Given::Usual { without, .. } => {
            let _ = write!(prose, " Without it: {without}.");
        }
        Given::Default(_) => {}
    }
    prose
}

fn one_of(prose: &mut String, words: &[&str]) {
    if words.len() > 1 {
        let _ = write!(prose, " One of: {}.", words.join(", "));
    }
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The same text with every key that is switched off switched on; for those who want to see all.
pub fn switched_on(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let bare = line.trim_start();
        match bare.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| !c.is_whitespace()) => {
                out.extend(std::iter::repeat_n(' ', line.len() - bare.len()));
                out.push_str(key);
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::yaml::{self, Node, Value};
    use super::*;
    use std::collections::BTreeSet;

    fn paths(node: &Node, kind: &Kind, path: &str, found: &mut BTreeSet<String>) {
        match (kind, &node.value) {
            (Kind::Section | Kind::SectionOrOff, Value::Map(entries)) => {
                for entry in entries {
                    let key = keys::find(path, &entry.key)
                        .unwrap_or_else(|| panic!("{path}.{} is no key", entry.key));
                    found.insert(key.path.to_owned());
                    paths(&entry.node, &key.kind, key.path, found);
                }
            }
            (Kind::Named(item, _) | Kind::NamedOrFile(item, _), Value::Map(entries)) => {
                for entry in entries {
                    match keys::find(path, &entry.key) {
                        Some(key) => drop(found.insert(key.path.to_owned())),
                        None => paths(&entry.node, item, &format!("{path}.*"), found),
                    }
                }
            }
            (Kind::List(item), Value::List(items)) => {
                for node in items {
                    paths(node, item, &format!("{path}[]"), found);
                }
            }
            _ => {}
        }
    }

    #[test]
    fn the_reference_holds_exactly_the_keys_there_are() {
        let tree = yaml::parse(&switched_on(&text())).unwrap();

        let mut found = BTreeSet::new();
        paths(&tree, &Kind::Section, "", &mut found);
        let all: BTreeSet<String> = keys::KEYS.iter().map(|key| key.path.to_owned()).collect();
        assert_eq!(found, all);
    }

    #[test]
    fn the_file_in_conf_is_this_text() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/reference.yaml");
        let written = std::fs::read_to_string(file).unwrap_or_default();

        assert!(
            written == text(),
            "conf/reference.yaml is out of date: mapigate schema --reference > conf/reference.yaml"
        );
    }
}
