//! YAML text into a tree whose every node knows its line and column.
//!
//! Only what a configuration needs: one document of sections, lists and scalars. Anchors, aliases,
//! tags and nesting beyond [`DEPTH_MAX`] are refused, so that a small file cannot grow into a large
//! tree. Scalars stay text; what they mean is decided where the key is known.

use super::problem::Complaint;
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

/// Levels of nesting; the deepest key has six.
pub(super) const DEPTH_MAX: usize = 32;
/// Nodes of one file: 100,000 databases have half a million.
const NODES_MAX: usize = 1_000_000;

/// Where something stands in a file: line and column from 1, both in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    /// Line, from 1.
    pub(super) line: usize,
    /// Column, from 1.
    pub(super) column: usize,
    /// Characters; may reach beyond the line.
    pub(super) width: usize,
}

impl Span {
    fn new(span: saphyr_parser::Span) -> Self {
        Self {
            line: span.start.line().max(1),
            column: span.start.col().saturating_add(1),
            width: span.end.index().saturating_sub(span.start.index()).max(1),
        }
    }
}

/// A value and its place.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) value: Value,
}

/// What a node holds.
#[derive(Debug)]
pub(super) enum Value {
    /// Nothing after the colon, `~` or `null`.
    Nothing,
    /// A value that has been reported, so that nobody complains of it again.
    Reported,
    /// Text as written, quotes removed.
    Scalar(String),
    /// Items in order.
    List(Vec<Node>),
    /// Entries in order, duplicates included.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) node: Node,
}

impl Node {
    /// The entries of a map; none where it is something else.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The value of a key of a map; the first where the key is there twice.
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// Where it begins to say something: the first key of a map, else itself.
    pub(super) fn head(&self) -> Span {
        self.entries()
            .first()
            .map_or(self.span, |entry| entry.key_span)
    }

    /// What it is, for people.
    pub(super) fn what(&self) -> &'static str {
        match self.value {
            Value::Nothing | Value::Reported => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a section",
        }
    }
}

/// What is wrong with the text as YAML, and where.
pub(super) type Flaw = (Span, Complaint);

/// Reads a document. A flaw of syntax ends the reading: what follows it has no certain meaning.
///
/// # Errors
/// All flaws up to that point.
pub(super) fn parse(text: &str) -> Result<Node, Vec<Flaw>> {
    let mut parser = Parser::new_from_str(text);
    let mut builder = Builder::default();
    while let Some(event) = parser.next_event() {
        let step = match event {
            Ok((event, span)) => builder.take(event, Span::new(span)),
            Err(error) => Err(syntax_flaw(&error, text)),
        };
        if let Err(flaw) = step {
            builder.flaws.push(flaw);
            break;
        }
    }
    match builder.root {
        Some(root) if builder.flaws.is_empty() => Ok(root),
        None if builder.flaws.is_empty() => Ok(Node {
            span: START,
            value: Value::Nothing,
        }),
        _ => Err(builder.flaws),
    }
}

const START: Span = Span {
    line: 1,
    column: 1,
    width: 1,
};

#[derive(Default)]
struct Builder {
    root: Option<Node>,
    open: Vec<Open>,
    flaws: Vec<Flaw>,
    nodes: usize,
}

/// A list or map whose end has not come yet.
enum Open {
    List(Span, Vec<Node>),
    Map(Span, Vec<Entry>, Option<(String, Span)>),
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Flaw> {
        match event {
            Event::Scalar(text, style, _, tag) => {
                self.refuse_tag(tag.is_some(), span);
                let empty = style == ScalarStyle::Plain
                    && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if empty {
                    Value::Nothing
                } else {
                    Value::Scalar(text.into_owned())
                };
                self.attach(Node { span, value })
            }
            Event::SequenceStart(_, tag) => {
                self.refuse_tag(tag.is_some(), span);
                self.descend(Open::List(span, Vec::new()), span)
            }
            Event::MappingStart(_, tag) => {
                self.refuse_tag(tag.is_some(), span);
                self.descend(Open::Map(span, Vec::new(), None), span)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(span, items)) => self.attach(Node {
                    span,
                    value: Value::List(items),
                }),
                Some(Open::Map(span, entries, _)) => self.attach(Node {
                    span,
                    value: Value::Map(entries),
                }),
                None => Ok(()),
            },
            Event::Alias(_) => {
                self.flaws.push((
                    span,
                    Complaint::new(
                        "aliases (`*name`) are not understood here",
                        "write the value out where it is needed",
                    ),
                ));
                self.attach(Node {
                    span,
                    value: Value::Nothing,
                })
            }
            Event::DocumentStart(_) if self.root.is_some() => Err((
                span,
                Complaint::new(
                    "a second document begins here",
                    "keep one document; remove the `---` line",
                ),
            )),
            _ => Ok(()),
        }
    }

    fn refuse_tag(&mut self, tagged: bool, span: Span) {
        if tagged {
            self.flaws.push((
                span,
                Complaint::new(
                    "tags (`!name`) are not understood here",
                    "remove the tag; to begin a value with `!`, quote it",
                ),
            ));
        }
    }

    fn descend(&mut self, open: Open, span: Span) -> Result<(), Flaw> {
        if self.open.len() >= DEPTH_MAX {
            return Err((
                span,
                Complaint::new(
                    format!("nested deeper than {DEPTH_MAX} levels"),
                    "no key is that deep; look for a stray bracket or dash",
                ),
            ));
        }
        self.open.push(open);
        Ok(())
    }

    fn attach(&mut self, node: Node) -> Result<(), Flaw> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err((
                node.span,
                Complaint::new(
                    format!("more than {NODES_MAX} values"),
                    "a configuration this large is a mistake; is it the right file?",
                ),
            ));
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map(_, entries, key)) => match (key.take(), node.value) {
                (Some((key, key_span)), value) => entries.push(Entry {
                    key,
                    key_span,
                    node: Node {
                        span: node.span,
                        value,
                    },
                }),
                (None, Value::Scalar(text)) => *key = Some((text, node.span)),
                (None, _) => {
                    self.flaws.push((
                        node.span,
                        Complaint::new(
                            "a key must be a plain word",
                            "write `key: value`; quote a text that begins with `[` or `{`",
                        ),
                    ));
                    *key = Some((String::new(), node.span));
                }
            },
        }
        Ok(())
    }
}

fn syntax_flaw(error: &ScanError, text: &str) -> Flaw {
    let mark = error.marker();
    let mut span = Span {
        line: mark.line().max(1),
        column: mark.col().saturating_add(1),
        width: 1,
    };
    // What is missing at the end of the file is shown behind its last line.
    let lines = text.lines().count();
    if span.line > lines && lines > 0 {
        let last = text.lines().next_back().unwrap_or_default();
        span.line = lines;
        span.column = last.chars().count() + 1;
    }
    let line = text
        .lines()
        .nth(span.line.saturating_sub(1))
        .unwrap_or_default();
    (span, syntax_complaint(error.info(), line))
}

/// The parser's words in ours. Its own are kept at the end, because they may be searched for.
fn syntax_complaint(info: &str, line: &str) -> Complaint {
    let has = |words: &[&str]| words.iter().any(|word| info.contains(word));
    let (what, cure) = if has(&["tab"]) {
        (
            "a tab where only spaces may stand",
            "indent with spaces, two for each level",
        )
    } else if has(&["unexpected character"]) {
        (
            "a value cannot begin with this character",
            "put the value in quotes",
        )
    } else if has(&["trailing content"]) {
        (
            "text after the closing quote",
            "put the whole value in quotes; a comment needs a blank before its `#`",
        )
    } else if has(&["quoted scalar"]) {
        (
            "the quotes here do not close, or hold an escape nobody knows",
            "close the quotes; in single quotes a backslash needs no escape",
        )
    } else if has(&[
        "did not find expected ',' or '}'",
        "expected ',' or ']'",
        "bracket",
    ]) {
        (
            "a bracket is not closed, or a comma is missing",
            "close every `[` and `{`; put a comma between the items",
        )
    } else if has(&["illegal placement of ':'"]) {
        (
            "a `:` where none may stand",
            "close the bracket above; quote a value that contains `: `",
        )
    } else if has(&["mapping values are not allowed"]) {
        (
            "a second `:` in one line, or a key at the wrong indentation",
            "quote a value that contains `: `; give keys of one section the same indentation",
        )
    } else if has(&["simple key expect"]) {
        (
            "a key without its `:`",
            "write `key: value`, with a space after the colon",
        )
    } else if has(&[
        "invalid indentation",
        "block mapping",
        "block collection",
        "block sequence",
    ]) {
        (
            "the indentation fits nothing above it",
            "give keys of one section the same indentation, items of one list the same dash column",
        )
    } else if has(&["unprintable"]) {
        (
            "a character that cannot be printed",
            "remove it; was the file saved as plain UTF-8 text?",
        )
    } else if has(&["anchor", "alias"]) {
        (
            "anchors and aliases (`&name`, `*name`) are not understood here",
            "write the value out; to begin a value with `*` or `&`, quote it",
        )
    } else if line.trim_start().starts_with('%') {
        ("a directive (`%`) nobody knows", "remove the line")
    } else {
        (
            "this is not YAML",
            "look at this line and the one above: indentation, colons, quotes, brackets",
        )
    };
    Complaint::new(format!("{what} ({info})"), cure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(node: &Node, into: &mut Vec<(String, usize, usize)>) {
        match &node.value {
            Value::Scalar(text) => into.push((text.clone(), node.span.line, node.span.column)),
            Value::List(items) => items.iter().for_each(|item| places(item, into)),
            Value::Map(entries) => {
                for entry in entries {
                    let at = entry.key_span;
                    into.push((entry.key.clone(), at.line, at.column));
                    places(&entry.node, into);
                }
            }
            Value::Nothing | Value::Reported => {}
        }
    }

    #[test]
    fn every_key_and_value_knows_its_line_and_column() {
        let tree = parse("a: 1\nb:\n  - { c: 'ä', d: x }\n  - y\n").unwrap();

        let mut found = Vec::new();
        places(&tree, &mut found);
        let found: Vec<_> = found.iter().map(|(t, l, c)| (t.as_str(), *l, *c)).collect();
        assert_eq!(
            found,
            [
                ("a", 1, 1),
                ("1", 1, 4),
                ("b", 2, 1),
                ("c", 3, 7),
                ("ä", 3, 10),
                ("d", 3, 15),
                ("x", 3, 18),
                ("y", 4, 5)
            ]
        );
    }

    #[test]
    fn an_alias_is_refused_so_that_a_small_file_stays_small() {
        let flaws = parse("a: &a [1, 2]\nb: *a\n").unwrap_err();

        assert_eq!(flaws.len(), 1);
        assert_eq!(flaws[0].0.line, 2);
        assert!(flaws[0].1.what.contains("alias"));
    }

    #[test]
    fn nesting_has_an_end() {
        let flaws = parse(&"- ".repeat(100_000)).unwrap_err();

        assert!(flaws[0].1.what.contains("nested deeper"));
    }

    #[test]
    fn an_empty_document_is_nothing() {
        for text in ["", "# only a comment\n", "---\n", "~\n"] {
            assert!(matches!(parse(text).unwrap().value, Value::Nothing));
        }
    }

    #[test]
    fn syntax_is_explained_with_its_place() {
        for (text, line, word) in [
            ("a:\n\t- b\n", 2, "tab"),
            ("a: [1, 2\nb: 3\n", 2, "bracket"),
            ("a: b: c\n", 1, "`:`"),
            ("a: \"open\nb: c\n", 2, "quotes"),
            ("a: @x\n", 1, "quotes"),
        ] {
            let flaws = parse(text).unwrap_err();
            let (span, complaint) = &flaws[0];
            let said = format!("{} {}", complaint.what, complaint.cure);
            assert!(said.contains(word), "{text:?}: {said}");
            assert!(span.line.abs_diff(line) <= 1, "{text:?}: {span:?}");
        }
    }
}
