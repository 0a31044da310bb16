//! Reads values out of a section that the table of keys has already been held against.
//!
//! Says nothing about wrong values: that has been said. Where a value is wrong it gives the default
//! or something harmless, because the settings will be thrown away.

use super::desk::{Desk, Place, Source, joined};
use super::keys::{self, Given, Key, Kind};
use super::problem::{Complaint, nearest};
use super::values;
use super::yaml::{self, Entry, Node, Span, Value};
use std::path::PathBuf;
use std::time::Duration;

/// A section of the file, present or not.
#[derive(Clone)]
pub(super) struct Section<'a> {
    pub(super) desk: &'a Desk<'a>,
    pub(super) source: &'a Source,
    entries: &'a [Entry],
    span: Span,
    pattern: String,
    path: String,
}

/// A value of a list, or a name, with its place.
pub(super) type Placed<'a> = (String, Place<'a>);

impl<'a> Section<'a> {
    /// The top of a file.
    pub(super) fn top(desk: &'a Desk<'a>, source: &'a Source) -> Self {
        Self {
            desk,
            source,
            entries: source.root.entries(),
            span: source.start(),
            pattern: String::new(),
            path: String::new(),
        }
    }

    /// Where the section begins.
    pub(super) fn here(&self) -> Place<'a> {
        self.source.place(self.span, self.path.clone())
    }

    /// Where a key's value stands; where the key is not written, the section.
    pub(super) fn place(&self, leaf: &str) -> Place<'a> {
        let span = match self.entry(leaf) {
            Some(entry) if entry.node.span.line > 0 => match entry.node.value {
                Value::Scalar(_) => entry.node.span,
                _ => entry.key_span,
            },
            Some(entry) => entry.key_span,
            None => self.span,
        };
        self.source.place(span, joined(&self.path, leaf))
    }

    /// True where the key is written with a value.
    pub(super) fn has(&self, leaf: &str) -> bool {
        self.entry(leaf)
            .is_some_and(|entry| !matches!(entry.node.value, Value::Nothing))
    }

    /// True where the key is not written, and no misspelt one stands for it.
    pub(super) fn lacks(&self, leaf: &str) -> bool {
        let known = keys::children(&self.pattern);
        let is_meant = |entry: &Entry| {
            let is_known = known.iter().any(|key| key.leaf() == entry.key);
            let near = nearest(&entry.key, known.iter().map(|key| key.leaf()));
            !is_known && near == Some(leaf)
        };
        self.entry(leaf).is_none() && !self.entries.iter().any(is_meant)
    }

    /// True where this word, which is no key here, is written as one.
    pub(super) fn has_unknown(&self, word: &str) -> bool {
        self.entry(word).is_some()
    }

    /// True where the key is absent, or its single value is one of its kind.
    pub(super) fn is_sound(&self, leaf: &str) -> bool {
        match self.entry(leaf).map(|entry| &entry.node.value) {
            None => true,
            Some(Value::Scalar(text)) => self
                .key(leaf)
                .is_some_and(|key| super::grammar::scalar(&key.kind, text).is_ok()),
            Some(_) => false,
        }
    }

    /// True where a list is written without an item.
    pub(super) fn is_empty_list(&self, leaf: &str) -> bool {
        let value = self.entry(leaf).map(|entry| &entry.node.value);
        matches!(value, Some(Value::List(items)) if items.is_empty())
    }

    /// True where names are expected and none is written.
    pub(super) fn is_empty_map(&self, leaf: &str) -> bool {
        let value = self.entry(leaf).map(|entry| &entry.node.value);
        matches!(value, Some(Value::Map(entries)) if entries.is_empty())
    }

    /// The section of this key, empty where it is not written.
    pub(super) fn section(&self, leaf: &str) -> Self {
        let entry = self.entry(leaf);
        let pattern = self
            .key(leaf)
            .map_or_else(String::new, |key| key.path.to_owned());
        Self {
            desk: self.desk,
            source: self.source,
            entries: entry.map_or(&[], |entry| entry.node.entries()),
            span: entry.map_or(self.span, |entry| entry.key_span),
            pattern,
            path: joined(&self.path, leaf),
        }
    }

    /// The section of this key, where it is written.
    pub(super) fn written_section(&self, leaf: &str) -> Option<Self> {
        matches!(self.entry(leaf)?.node.value, Value::Map(_)).then(|| self.section(leaf))
    }

    /// The sections of a list.
    pub(super) fn items(&self, leaf: &str) -> Vec<Self> {
        let Some(Value::List(items)) = self.entry(leaf).map(|entry| &entry.node.value) else {
            return Vec::new();
        };
        let pattern = self.key(leaf).map_or("", |key| key.path);
        let section = |(index, node): (usize, &'a Node)| Self {
            desk: self.desk,
            source: self.source,
            entries: node.entries(),
            span: node.head(),
            pattern: format!("{pattern}[]"),
            path: format!("{}[{index}]", joined(&self.path, leaf)),
        };
        items.iter().enumerate().map(section).collect()
    }

    /// The sections of a key that holds names, each with its name's place. A name that is there
    /// twice comes once.
    pub(super) fn named(&self, leaf: &str) -> Vec<(Placed<'a>, Self)> {
        let mut seen = std::collections::HashSet::new();
        let pattern = self.key(leaf).map_or("", |key| key.path);
        let path = joined(&self.path, leaf);
        let mut found = Vec::new();
        let Some(entry) = self.entry(leaf) else {
            return found;
        };
        for entry in entry.node.entries() {
            if matches!(entry.node.value, Value::Scalar(_)) || !seen.insert(&entry.key) {
                continue;
            }
            let path = joined(&path, &entry.key);
            let section = Self {
                desk: self.desk,
                source: self.source,
                entries: entry.node.entries(),
                span: entry.key_span,
                pattern: format!("{pattern}.*"),
                path: path.clone(),
            };
            let place = self.source.place(entry.key_span, path);
            found.push(((entry.key.clone(), place), section));
        }
        found
    }

    /// The values of a key that holds names with single values: name, its place, value, its place.
    pub(super) fn named_values(&self, leaf: &str) -> Vec<(Placed<'a>, Placed<'a>)> {
        let path = joined(&self.path, leaf);
        let entries = self
            .entry(leaf)
            .map_or(&[][..], |entry| entry.node.entries());
        let mut found = Vec::new();
        for entry in entries {
            if let Value::Scalar(text) = &entry.node.value {
                let path = joined(&path, &entry.key);
                let name = self.source.place(entry.key_span, path.clone());
                let value = self.source.place(entry.node.span, path);
                found.push(((entry.key.clone(), name), (text.clone(), value)));
            }
        }
        found
    }

    /// The values of a list, or of its default.
    pub(super) fn list(&self, leaf: &str) -> Vec<Placed<'a>> {
        let path = joined(&self.path, leaf);
        let written = match self.entry(leaf).map(|entry| &entry.node.value) {
            Some(Value::List(items)) => Some(items),
            _ => None,
        };
        if let Some(items) = written {
            let value = |(index, node): (usize, &Node)| match &node.value {
                Value::Scalar(text) => {
                    let place = self.source.place(node.span, format!("{path}[{index}]"));
                    Some((text.clone(), place))
                }
                _ => None,
            };
            return items.iter().enumerate().filter_map(value).collect();
        }
        let Some(Given::Default(text)) = self.key(leaf).map(|key| key.given) else {
            return Vec::new();
        };
        let default = yaml::parse(text).map(|node| node.value);
        let Ok(Value::List(items)) = default else {
            return Vec::new();
        };
        let value = |node: Node| match node.value {
            Value::Scalar(text) => Some((text, self.place(leaf))),
            _ => None,
        };
        items.into_iter().filter_map(value).collect()
    }

    /// The text of a single value, or its default.
    pub(super) fn text(&self, leaf: &str) -> Option<String> {
        self.read(leaf, |_, text| Ok(text.to_owned()))
    }

    pub(super) fn duration(&self, leaf: &str) -> Duration {
        let value = self.read(leaf, |kind, text| match *kind {
            Kind::Duration(least, most) => values::duration(text, least, most),
            _ => Err(wrong_kind(leaf)),
        });
        value.unwrap_or_default()
    }

    /// A size in bytes, or a number.
    pub(super) fn number(&self, leaf: &str) -> u64 {
        self.number_or_auto(leaf).unwrap_or_default()
    }

    /// The same for tables in memory.
    pub(super) fn amount(&self, leaf: &str) -> usize {
        usize::try_from(self.number(leaf)).unwrap_or(usize::MAX)
    }

    /// The same for small numbers.
    pub(super) fn small(&self, leaf: &str) -> u32 {
        u32::try_from(self.number(leaf)).unwrap_or(u32::MAX)
    }

    /// A number, or `None` for `auto`.
    pub(super) fn number_or_auto(&self, leaf: &str) -> Option<u64> {
        self.read(leaf, |kind, text| match *kind {
            Kind::CountOrAuto(..) if text == "auto" => Ok(None),
            Kind::Count(least, most) | Kind::CountOrAuto(least, most) => {
                values::count(text, least, most).map(Some)
            }
            Kind::Size(least, most) => values::size(text, least, most).map(Some),
            _ => Err(wrong_kind(leaf)),
        })?
    }

    pub(super) fn switch(&self, leaf: &str) -> bool {
        self.read(leaf, |_, text| values::switch(text))
            .unwrap_or_default()
    }

    /// The path of a file, as its file means it.
    pub(super) fn file(&self, leaf: &str) -> Option<PathBuf> {
        Some(self.source.resolve(&self.text(leaf)?))
    }

    /// Reads the value that is written, or the default where it is absent or wrong.
    pub(super) fn read<T>(
        &self,
        leaf: &str,
        parse: impl Fn(&Kind, &str) -> Result<T, Complaint>,
    ) -> Option<T> {
        let key = self.key(leaf)?;
        if let Some(Value::Scalar(text)) = self.entry(leaf).map(|entry| &entry.node.value)
            && super::grammar::scalar(&key.kind, text).is_ok()
            && let Ok(value) = parse(&key.kind, text)
        {
            return Some(value);
        }
        let Given::Default(text) = key.given else {
            return None;
        };
        let Ok(Value::Scalar(text)) = yaml::parse(text).map(|node| node.value) else {
            return None;
        };
        parse(&key.kind, &text).ok()
    }

    fn entry(&self, leaf: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.key == leaf)
    }

    fn key(&self, leaf: &str) -> Option<&'static Key> {
        let key = keys::find(&self.pattern, leaf);
        if key.is_none() {
            // Only a mistake of ours gets here; the tests that load a file see it.
            let what = format!("the table of keys lacks `{}`", joined(&self.pattern, leaf));
            self.desk
                .error(&self.here(), Complaint::new(what, "report this as a bug"));
        }
        key
    }
}

fn wrong_kind(leaf: &str) -> Complaint {
    Complaint::new(
        format!("`{leaf}` is read as another kind"),
        "report this as a bug",
    )
}
