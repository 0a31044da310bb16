//! Holds a tree against the table of keys: unknown, double and missing keys, shapes, units, ranges.
//!
//! Knows each value by itself only; what values mean together is judged where settings are made.

use super::desk::{Desk, Place, Source, joined};
use super::keys::{self, Given, Key, Kind};
use super::problem::{Complaint, nearest, quoted};
use super::values;
use super::yaml::{Entry, Node, Span, Value};
use std::collections::HashMap;

/// Reports everything in the main file that the table of keys does not allow.
pub(super) fn check(desk: &Desk<'_>, source: &Source) {
    let reader = Grammar { desk, source };
    reader.section(&source.root, "", "", source.start());
}

/// The same for a file that holds one key and nothing else, as a file of databases does.
pub(super) fn check_included(desk: &Desk<'_>, source: &Source, key: &'static Key) {
    let reader = Grammar { desk, source };
    reader.duplicates(source.root.entries(), "");
    for entry in source.root.entries() {
        if entry.key == key.path {
            reader.value(&key.kind, &entry.node, key.path, key.path, entry.key_span);
        } else {
            let what = format!("{} does not belong into this file", quoted(&entry.key));
            let cure = format!("this file holds the key `{}` and nothing else", key.path);
            let rather = nearest(&entry.key, [key.path]).map(str::to_owned);
            let complaint = Complaint::new(what, cure).rather(rather);
            desk.error(&source.place(entry.key_span, entry.key.clone()), complaint);
        }
    }
    if source.root.get(key.path).is_none() {
        let complaint = Complaint::new(
            format!("the key `{}` is missing in this file", key.path),
            format!("begin it with `{}:`", key.path),
        );
        desk.error(&source.place(source.start(), key.path), complaint);
    }
}

struct Grammar<'a, 'e> {
    desk: &'a Desk<'e>,
    source: &'a Source,
}

impl Grammar<'_, '_> {
    /// Checks a value of this kind. `pattern` is its path in the table, `path` its path in the file.
    fn value(&self, kind: &Kind, node: &Node, pattern: &str, path: &str, key_span: Span) {
        match (kind, &node.value) {
            (_, Value::Reported) => {}
            (Kind::Section | Kind::SectionOrOff, Value::Map(_) | Value::Nothing) => {
                self.section(node, pattern, path, key_span);
            }
            (Kind::Named(item, _) | Kind::NamedOrFile(item, _), Value::Map(entries)) => {
                self.duplicates(entries, path);
                let takes_file = matches!(kind, Kind::NamedOrFile(..));
                for entry in entries {
                    self.named(item, entry, pattern, path, takes_file);
                }
            }
            (Kind::List(item), Value::List(items)) => {
                let pattern = format!("{pattern}[]");
                for (index, node) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.value(item, node, &pattern, &path, node.head());
                }
            }
            (Kind::List(_) | Kind::Named(..) | Kind::NamedOrFile(..), Value::Nothing) => {
                self.report(node.span, key_span, path, nothing(kind));
            }
            (Kind::List(Kind::Section), _) => {
                let complaint = wrong_shape("a list", node, "begin each item with a dash: `- `");
                self.report(node.span, key_span, path, complaint);
            }
            (Kind::List(_), Value::Scalar(text)) => {
                let complaint = wrong_shape("a list", node, "put it in brackets")
                    .rather(Some(format!("[{text}]")));
                self.report(node.span, key_span, path, complaint);
            }
            (Kind::List(_), _) => {
                let complaint = wrong_shape("a list", node, "write `[one, two]`");
                self.report(node.span, key_span, path, complaint);
            }
            (Kind::Named(_, example) | Kind::NamedOrFile(_, example), _) => {
                let cure = format!("write each by its name, as in `{example}: …`");
                let complaint = wrong_shape("names with their values", node, &cure);
                self.report(node.span, key_span, path, complaint);
            }
            (Kind::SectionOrOff, Value::Scalar(text)) if text == "off" => {}
            (Kind::SectionOrOff, Value::Scalar(text)) => {
                let off = ["false", "no", "none", "plain"].contains(&text.as_str());
                let what = format!("expected `off` or a section, found {}", quoted(text));
                let complaint = Complaint::new(what, "write `off`, or keys below it")
                    .rather(off.then(|| "off".to_owned()));
                self.report(node.span, key_span, path, complaint);
            }
            (Kind::Section | Kind::SectionOrOff, _) => {
                let cure = format!("write keys below it: {}", some_of(keys::children(pattern)));
                let complaint = wrong_shape("a section of keys", node, &cure);
                self.report(node.span, key_span, path, complaint);
            }
            (_, Value::Scalar(text)) => {
                if let Err(complaint) = scalar(kind, text) {
                    self.report(node.span, key_span, path, complaint);
                }
            }
            (_, Value::Nothing) => self.report(node.span, key_span, path, nothing(kind)),
            (_, _) => {
                let complaint = wrong_shape(words(kind), node, "write a single value");
                self.report(node.span, key_span, path, complaint);
            }
        }
    }

    fn named(&self, item: &Kind, entry: &Entry, pattern: &str, path: &str, takes_file: bool) {
        let path = joined(path, &entry.key);
        // A name has a section; a single value is that of a key that stands among the names.
        if takes_file
            && matches!(entry.node.value, Value::Scalar(_))
            && let Some(key) = keys::find(pattern, &entry.key)
        {
            self.value(&key.kind, &entry.node, key.path, &path, entry.key_span);
            return;
        }
        if let Err(complaint) = values::name(&entry.key) {
            self.report(entry.key_span, entry.key_span, &path, complaint);
        }
        let pattern = format!("{pattern}.*");
        self.value(item, &entry.node, &pattern, &path, entry.key_span);
    }

    fn section(&self, node: &Node, pattern: &str, path: &str, key_span: Span) {
        let known = keys::children(pattern);
        let entries = node.entries();
        self.duplicates(entries, path);
        // A key that is there under a wrong name is not missing as well.
        let mut meant: Vec<String> = Vec::new();
        for entry in entries {
            let path = joined(path, &entry.key);
            match known.iter().find(|key| key.leaf() == entry.key) {
                Some(key) => self.value(&key.kind, &entry.node, key.path, &path, entry.key_span),
                None => {
                    let complaint = unknown(&entry.key, pattern, known, self.desk.is_full());
                    meant.extend(complaint.did_you_mean.clone());
                    self.report(entry.key_span, entry.key_span, &path, complaint);
                }
            }
        }
        for key in known {
            if let Given::Required { example, why } = key.given
                && node.get(key.leaf()).is_none()
                && !meant.iter().any(|meant| meant == key.leaf())
            {
                let cure = if example.is_empty() {
                    format!("add `{}:`", key.leaf())
                } else {
                    format!("add `{}: {example}`", key.leaf())
                };
                let what = format!(
                    "the key `{}` is missing; it has no default: {why}",
                    key.leaf()
                );
                let path = joined(path, key.leaf());
                self.report(key_span, key_span, &path, Complaint::new(what, cure));
            }
        }
    }

    fn duplicates(&self, entries: &[Entry], path: &str) {
        let mut first: HashMap<&str, Span> = HashMap::with_capacity(entries.len());
        for entry in entries {
            if let Some(earlier) = first.get(entry.key.as_str()) {
                let what = format!(
                    "the key {} is here a second time; the first is in line {}",
                    quoted(&entry.key),
                    earlier.line
                );
                let complaint = Complaint::new(what, "keep one of the two");
                let path = joined(path, &entry.key);
                self.report(entry.key_span, entry.key_span, &path, complaint);
            } else {
                first.insert(&entry.key, entry.key_span);
            }
        }
    }

    /// Reports at the value, or at its key where there is no value.
    fn report(&self, value: Span, key: Span, path: &str, complaint: Complaint) {
        let span = if value.line == 0 { key } else { value };
        let place: Place<'_> = self.source.place(span, path);
        self.desk.error(&place, complaint);
    }
}

/// Checks one value by itself.
pub(super) fn scalar(kind: &Kind, text: &str) -> Result<(), Complaint> {
    match *kind {
        Kind::Text | Kind::File | Kind::Folder => values::line(text),
        // Never quoted in a complaint.
        Kind::Secret if text.is_empty() => Err(Complaint::new(
            "the secret is empty",
            "write `${ENV}` or `file:PATH`",
        )),
        Kind::Secret => Ok(()),
        Kind::Name => values::name(text),
        Kind::Host => values::host_name(text).map(drop),
        Kind::HostPort => values::host_and_port(text).map(drop),
        Kind::AddressOrOff | Kind::PageOrOff if text == "off" => Ok(()),
        Kind::Address | Kind::AddressOrOff => values::address(text).map(drop),
        Kind::Network => values::network(text).map(drop),
        Kind::MapiUrl => values::mapi_url(text).map(drop),
        Kind::Url => values::url(text),
        Kind::HttpsUrl => values::https_url(text).map(drop),
        Kind::Build => values::build(text).map(drop),
        Kind::PageOrOff => values::url_path(text),
        Kind::FileOr(words) => values::line(text).and_then(|()| {
            // `none` or `Stdout` would otherwise quietly become a file of that name.
            let bare = !text.contains('/') && !text.contains('.');
            let near = nearest(text, words.iter().copied());
            if bare && !words.contains(&text) {
                let list = words.join("`, `");
                let what = format!("{} is not known here", quoted(text));
                let cure = format!("write `{list}`, or a path with a `/` or a `.` in it");
                return Err(Complaint::new(what, cure).rather(near.map(str::to_owned)));
            }
            Ok(())
        }),
        Kind::Token => values::token(text),
        Kind::LogFilter => log_filter(text),
        Kind::Switch => values::switch(text).map(drop),
        Kind::CountOrAuto(..) if text == "auto" => Ok(()),
        Kind::Count(least, most) => values::count(text, least, most).map(drop),
        Kind::CountOrAuto(least, most) => {
            values::count(text, least, most)
                .map(drop)
                .map_err(|mut complaint| {
                    complaint.cure.push_str(", or `auto`");
                    complaint
                })
        }
        Kind::Duration(least, most) => values::duration(text, least, most).map(drop),
        Kind::Size(least, most) => values::size(text, least, most).map(drop),
        Kind::Choice(words) => values::choice(text, words),
        Kind::Section
        | Kind::SectionOrOff
        | Kind::Named(..)
        | Kind::NamedOrFile(..)
        | Kind::List(_) => Ok(()),
    }
}

fn log_filter(text: &str) -> Result<(), Complaint> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    let cure =
        "write a level, as in `info`, and rooms after it, as in `info,mapigate::relay=debug`";
    // The filter language takes a bare word for a room's name, so a mistyped level would mean nothing.
    for part in text.split(',').map(str::trim) {
        if !part.contains(['=', '[', ':']) && !LEVELS.contains(&part) && part != "mapigate" {
            let what = format!("{} is not a level", quoted(part));
            let rather = nearest(part, LEVELS).map(str::to_owned);
            return Err(Complaint::new(what, cure).rather(rather));
        }
    }
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) => Ok(()),
        Err(cause) => Err(Complaint::new(
            format!("{} is not a filter ({cause})", quoted(text)),
            cure,
        )),
    }
}

/// The complaint about a key nobody knows, with the nearest key here or its place elsewhere.
fn unknown(word: &str, pattern: &str, known: &[&'static Key], is_full: bool) -> Complaint {
    let what = format!("unknown key {}", quoted(word));
    if is_full {
        return Complaint::new(what, "remove it");
    }
    if let Some(near) = nearest(word, known.iter().map(|key| key.leaf())) {
        return Complaint::new(what, "rename it").rather(Some(near.to_owned()));
    }
    let synonym = SYNONYMS
        .iter()
        .find(|(wrong, _)| wrong.eq_ignore_ascii_case(word))
        .map(|(_, right)| *right);
    if let Some(right) = synonym {
        return Complaint::new(what, "rename it").rather(Some(right.to_owned()));
    }
    let elsewhere: Vec<_> = keys::KEYS
        .iter()
        .filter(|key| key.leaf() == word && key.parent() != pattern)
        .map(|key| key.path)
        .collect();
    if let [first, rest @ ..] = elsewhere.as_slice() {
        let cure = if rest.is_empty() {
            format!("move it to `{first}`")
        } else {
            format!("it belongs to `{}`", elsewhere.join("`, `"))
        };
        return Complaint::new(what, cure).rather(rest.is_empty().then(|| (*first).to_owned()));
    }
    Complaint::new(what, format!("remove it; known here: {}", some_of(known)))
}

fn some_of(keys: &[&'static Key]) -> String {
    const SHOWN: usize = 8;
    let mut leaves: Vec<_> = keys.iter().take(SHOWN).map(|key| key.leaf()).collect();
    if keys.len() > SHOWN {
        leaves.push("…");
    }
    leaves.join(", ")
}

/// What other proxies call it.
const SYNONYMS: &[(&str, &str)] = &[
    ("listen", "listeners"),
    ("bind", "listeners"),
    ("frontends", "listeners"),
    ("backends", "servers"),
    ("upstreams", "servers"),
    ("hosts", "names"),
    ("virtual_hosts", "names"),
    ("mailboxes", "directory"),
    ("authentication", "auth"),
    ("log", "logging"),
    ("cert", "chain"),
    ("certificate", "certificates"),
    ("privkey", "key"),
    ("port", "address"),
    ("url", "address"),
    ("htpasswd", "password_file"),
    ("oauth2", "bearer"),
    ("oidc", "bearer"),
    ("jwt", "bearer"),
    ("jwks_url", "jwks_uri"),
    ("audience", "audiences"),
    ("proxy_protocol", "proxy_protocol_from"),
];

fn wrong_shape(expected: &str, node: &Node, cure: &str) -> Complaint {
    Complaint::new(format!("expected {expected}, found {}", node.what()), cure)
}

fn nothing(kind: &Kind) -> Complaint {
    Complaint::new(
        format!("expected {}, found nothing", words(kind)),
        "write the value after the colon, or remove the key",
    )
}

/// What a kind is called in messages.
pub(super) fn words(kind: &Kind) -> &'static str {
    match kind {
        Kind::Section => "a section of keys",
        Kind::SectionOrOff => "a section of keys or `off`",
        Kind::Named(..) => "names with their values",
        Kind::NamedOrFile(..) => "names with their values, or `file: PATH`",
        Kind::List(_) => "a list",
        Kind::Text => "a line of text",
        Kind::Secret => "a secret",
        Kind::Name => "a name",
        Kind::Host => "a host name",
        Kind::HostPort => "`HOST:PORT`",
        Kind::Address => "an address with a port",
        Kind::AddressOrOff => "an address with a port, or `off`",
        Kind::Network => "a network",
        Kind::MapiUrl | Kind::Url | Kind::HttpsUrl => "a URL",
        Kind::Build => "a build such as `15.1.2507.6`",
        Kind::PageOrOff => "the path of a page, or `off`",
        Kind::File => "the path of a file",
        Kind::Folder => "the path of a folder",
        Kind::FileOr(_) => "a word or the path of a file",
        Kind::Token => "a name of a header or cookie",
        Kind::LogFilter => "a log level",
        Kind::Switch => "true or false",
        Kind::Count(..) => "a whole number",
        Kind::CountOrAuto(..) => "a whole number or `auto`",
        Kind::Duration(..) => "a duration such as `30s`",
        Kind::Size(..) => "a size such as `64KiB`",
        Kind::Choice(_) => "a word",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_of_its_kind() {
        for key in keys::KEYS {
            let Given::Default(text) = key.given else {
                continue;
            };
            let node = super::super::yaml::parse(text).unwrap();
            match (&key.kind, &node.value) {
                (Kind::Section | Kind::SectionOrOff, Value::Nothing) => {}
                (Kind::List(item), Value::List(items)) => {
                    for node in items {
                        let Value::Scalar(text) = &node.value else {
                            panic!("{}", key.path)
                        };
                        scalar(item, text).unwrap();
                    }
                }
                (kind, Value::Scalar(text)) => scalar(kind, text).unwrap(),
                (_, value) => panic!("{}: {value:?}", key.path),
            }
        }
    }

    #[test]
    fn every_example_is_a_value_of_its_kind() {
        for key in keys::KEYS {
            let (Given::Required { example, .. }
            | Given::Optional { example, .. }
            | Given::Usual { example, .. }) = key.given
            else {
                continue;
            };
            if !matches!(key.kind, Kind::List(_) | Kind::Named(..)) {
                assert!(
                    example.is_empty() || scalar(&key.kind, example).is_ok(),
                    "{}",
                    key.path
                );
            }
        }
    }

    #[test]
    fn a_key_at_the_wrong_level_is_told_its_place() {
        let complaint = unknown("password_file", "auth", keys::children("auth"), false);
        assert_eq!(complaint.did_you_mean.unwrap(), "auth.basic.password_file");
        let complaint = unknown("listen", "", keys::children(""), false);
        assert_eq!(complaint.did_you_mean.unwrap(), "listeners");
    }

    #[test]
    fn a_mistyped_log_level_is_not_taken_for_a_room() {
        assert!(log_filter("info,mapigate::relay=debug").is_ok());
        assert_eq!(
            log_filter("inof").unwrap_err().did_you_mean.unwrap(),
            "info"
        );
        assert!(log_filter("info,a=b=c").is_err());
    }
}
