//! The mailbox file: YAML read as a stream of entries.
//!
//! The file may have a hundred thousand entries and is read again on every reload, so no tree of it is
//! built. Every problem is reported with its place, up to [`PROBLEMS_MAX`]; a mistake of YAML itself
//! ends the reading.

use super::DirectoryProblem;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, StrInput};
use std::borrow::Cow;
use std::path::Path;

/// A line and a column, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl From<Marker> for Place {
    fn from(marker: Marker) -> Self {
        Self {
            line: marker.line(),
            column: marker.col() + 1,
        }
    }
}

/// A word of the file.
#[derive(Debug)]
pub(super) struct Word<'i> {
    pub(super) text: Cow<'i, str>,
    pub(super) place: Place,
}

/// What is written about one mailbox, unchecked.
#[derive(Debug, Default)]
pub(super) struct Entry<'i> {
    pub(super) place: Place,
    pub(super) id: Option<Word<'i>>,
    pub(super) database: Option<Word<'i>>,
    pub(super) access: Option<Word<'i>>,
    pub(super) mapi_http: Option<Word<'i>>,
    pub(super) display_name: Option<Word<'i>>,
    pub(super) legacy_dn: Option<Word<'i>>,
    pub(super) addresses: Vec<Word<'i>>,
    pub(super) logins: Vec<Word<'i>>,
    pub(super) users: Vec<Word<'i>>,
}

impl Entry<'_> {
    /// Empty again, with the room it had.
    fn begin(&mut self, place: Place) {
        self.place = place;
        (self.id, self.database, self.access) = (None, None, None);
        (self.mapi_http, self.display_name, self.legacy_dn) = (None, None, None);
        self.addresses.clear();
        self.logins.clear();
        self.users.clear();
    }
}

/// What is wrong so far.
#[derive(Debug)]
pub(super) struct Problems<'f> {
    file: &'f Path,
    listed: Vec<DirectoryProblem>,
    unlisted: usize,
}

impl<'f> Problems<'f> {
    pub(super) fn of(file: &'f Path) -> Self {
        Self {
            file,
            listed: Vec::new(),
            unlisted: 0,
        }
    }

    pub(super) fn add(&mut self, place: Place, what: String, cure: impl Into<String>) {
        if self.listed.len() >= PROBLEMS_MAX {
            self.unlisted += 1;
            return;
        }
        self.listed.push(DirectoryProblem {
            file: self.file.to_owned(),
            line: place.line,
            column: place.column,
            what,
            cure: cure.into(),
        });
    }

    /// `Ok` if there were none.
    pub(super) fn settle(mut self) -> Result<(), Vec<DirectoryProblem>> {
        if self.listed.is_empty() {
            return Ok(());
        }
        if self.unlisted > 0 {
            let what = format!("{} more problems are not listed", self.unlisted);
            self.listed.push(DirectoryProblem {
                file: self.file.to_owned(),
                line: 0,
                column: 0,
                what,
                cure: "cure the listed ones first".to_owned(),
            });
        }
        Err(self.listed)
    }
}

/// Hands every entry of the file to `each`, in order.
pub(super) fn read<'i>(
    text: &'i str,
    problems: &mut Problems<'_>,
    each: impl FnMut(&Entry<'i>, &mut Problems<'_>),
) {
    let mut reader = Reader {
        events: Parser::new_from_str(text),
        problems,
        each,
        entry: Entry::default(),
    };
    // What stopped the reader is on the list of problems.
    let _ = reader.stream();
}

/// Reading cannot go on; why is on the list of problems.
struct Stopped;

struct Reader<'i, 'p, 'f, F> {
    events: Parser<'i, StrInput<'i>>,
    problems: &'p mut Problems<'f>,
    each: F,
    entry: Entry<'i>,
}

impl<'i, F: FnMut(&Entry<'i>, &mut Problems<'_>)> Reader<'i, '_, '_, F> {
    fn stream(&mut self) -> Result<(), Stopped> {
        self.next()?; // the stream begins
        if let (Event::StreamEnd, place) = self.next()? {
            return self.stop(
                place,
                "the file is empty",
                "write `mailboxes: []` if no mailbox shall be known",
            );
        }
        let (root, place) = self.next()?;
        self.document(root, place)?;
        self.next()?; // the document ends
        if let (Event::DocumentStart(_), place) = self.next()? {
            return self.stop(
                place,
                "a second YAML document begins here",
                "put all mailboxes under one `mailboxes:`",
            );
        }
        Ok(())
    }

    fn document(&mut self, root: Event<'i>, place: Place) -> Result<(), Stopped> {
        let Event::MappingStart(..) = root else {
            return self.stop(place, "the file has no `mailboxes`", SHAPE_CURE);
        };
        let mut was_found = false;
        while let Some((key, at)) = self.key()? {
            let (value, value_at) = self.next()?;
            if key != "mailboxes" {
                let what = format!("unknown key `{key}`");
                self.problems
                    .add(at, what, did_you_mean(&key, ["mailboxes"]));
                self.skip(&value)?;
                continue;
            }
            if was_found {
                return self.stop(at, "`mailboxes` is written twice", "join the two lists");
            }
            was_found = true;
            match value {
                Event::SequenceStart(..) => self.mailboxes()?,
                _ => {
                    let what = "`mailboxes` is not a list".to_owned();
                    self.problems.add(value_at, what, SHAPE_CURE);
                    self.skip(&value)?;
                }
            }
        }
        if !was_found {
            let what = "the file has no `mailboxes`".to_owned();
            self.problems.add(place, what, SHAPE_CURE);
        }
        Ok(())
    }

    fn mailboxes(&mut self) -> Result<(), Stopped> {
        loop {
            let (event, place) = self.next()?;
            match event {
                Event::SequenceEnd => return Ok(()),
                Event::MappingStart(..) => {
                    self.entry.begin(place);
                    self.mailbox()?;
                    (self.each)(&self.entry, self.problems);
                }
                other => {
                    let what = "a mailbox is written as keys and values".to_owned();
                    self.problems.add(place, what, SHAPE_CURE);
                    self.skip(&other)?;
                }
            }
        }
    }

    fn mailbox(&mut self) -> Result<(), Stopped> {
        let mut seen = [false; KEYS.len()];
        while let Some((key, at)) = self.key()? {
            let (value, value_at) = self.next()?;
            let position = KEYS.iter().position(|known| *known == key);
            let Some(seen) = position.and_then(|position| seen.get_mut(position)) else {
                let what = format!("unknown key `{key}`");
                self.problems.add(at, what, did_you_mean(&key, KEYS));
                self.skip(&value)?;
                continue;
            };
            if std::mem::replace(seen, true) {
                let what = format!("`{key}` is written twice");
                self.problems.add(at, what, "keep one of the two");
                self.skip(&value)?;
                continue;
            }
            match &*key {
                "id" => self.entry.id = self.word(&key, value, value_at)?,
                "database" => self.entry.database = self.word(&key, value, value_at)?,
                "access" => self.entry.access = self.word(&key, value, value_at)?,
                "mapi_http" => self.entry.mapi_http = self.word(&key, value, value_at)?,
                "display_name" => self.entry.display_name = self.word(&key, value, value_at)?,
                "legacy_dn" => self.entry.legacy_dn = self.word(&key, value, value_at)?,
                _ => self.words(&key, value, value_at)?,
            }
        }
        Ok(())
    }

    /// The next key of a mapping; `None` at its end.
    fn key(&mut self) -> Result<Option<(Cow<'i, str>, Place)>, Stopped> {
        match self.next()? {
            (Event::MappingEnd, _) => Ok(None),
            (Event::Scalar(text, ..), place) => Ok(Some((text, place))),
            (_, place) => self.stop(place, "a key is a single word", SHAPE_CURE),
        }
    }

    /// A single value; `None`, with the problem noted, for anything else.
    fn word(
        &mut self,
        key: &str,
        value: Event<'i>,
        place: Place,
    ) -> Result<Option<Word<'i>>, Stopped> {
        match value {
            Event::Scalar(text, style, ..) if !is_null(&text, style) => {
                Ok(Some(Word { text, place }))
            }
            other => {
                let what = format!("`{key}` is not a single word");
                self.problems.add(place, what, format!("write `{key}: …`"));
                self.skip(&other)?;
                Ok(None)
            }
        }
    }

    /// A list of words, into its place in the entry. Nothing and null are an empty list.
    fn words(&mut self, key: &str, value: Event<'i>, place: Place) -> Result<(), Stopped> {
        match value {
            Event::SequenceStart(..) => {}
            Event::Scalar(text, style, ..) if is_null(&text, style) => return Ok(()),
            other => {
                let what = format!("`{key}` is not a list");
                self.problems
                    .add(place, what, format!("write `{key}: [ … ]`"));
                return self.skip(&other);
            }
        }
        loop {
            let (event, place) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(());
            }
            let Some(word) = self.word(key, event, place)? else {
                continue;
            };
            let list = match key {
                "addresses" => &mut self.entry.addresses,
                "logins" => &mut self.entry.logins,
                _ => &mut self.entry.users,
            };
            list.push(word);
        }
    }

    /// Passes over the value that began with `event`.
    fn skip(&mut self, event: &Event<'i>) -> Result<(), Stopped> {
        let mut depth = depth_of(event);
        while depth > 0 {
            depth += depth_of(&self.next()?.0);
        }
        Ok(())
    }

    fn next(&mut self) -> Result<(Event<'i>, Place), Stopped> {
        match self.events.next_event() {
            Some(Ok((Event::Alias(_), span))) => self.stop(
                span.start.into(),
                "aliases are not read here",
                "write the value itself",
            ),
            Some(Ok((event, span))) => Ok((event, span.start.into())),
            Some(Err(cause)) => {
                let what = format!("this is not YAML: {}", cause.info());
                let place = Place::from(*cause.marker());
                self.problems
                    .add(place, what, "check indentation, quotes and brackets");
                Err(Stopped)
            }
            None => self.stop(Place::default(), "the file ends too early", SHAPE_CURE),
        }
    }

    fn stop<T>(&mut self, place: Place, what: &str, cure: &str) -> Result<T, Stopped> {
        self.problems.add(place, what.to_owned(), cure);
        Err(Stopped)
    }
}

fn depth_of(event: &Event<'_>) -> i64 {
    match event {
        Event::SequenceStart(..) | Event::MappingStart(..) => 1,
        Event::SequenceEnd | Event::MappingEnd => -1,
        _ => 0,
    }
}

fn is_null(text: &str, style: ScalarStyle) -> bool {
    style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// The cure for a word that is not one of `known`: the nearest, if any is near, or all of a few.
pub(super) fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let near = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(word, known), *known))
        .min()
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4);
    match near {
        Some((_, known)) => format!("did you mean `{known}`?"),
        None if known.is_empty() => "there is none yet".to_owned(),
        None if known.len() <= 8 => format!("known are: {}", known.join(", ")),
        None => format!("{} are known, none of them like this one", known.len()),
    }
}

/// Problems reported at once.
pub(super) const PROBLEMS_MAX: usize = 100;

const KEYS: [&str; 9] = [
    "id",
    "addresses",
    "logins",
    "database",
    "access",
    "users",
    "mapi_http",
    "display_name",
    "legacy_dn",
];

const SHAPE_CURE: &str =
    "write `mailboxes:` and below it, per mailbox, `- id: …`, `database: …`, `addresses: [ … ]`";
