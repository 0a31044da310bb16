//! A small document as a list of elements that know their place in the text.
//!
//! Parsed by quick-xml; what this adds are bounds, one root, one encoding, and no document types.

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, escape};
use std::borrow::Cow;
use std::ops::Range;

/// Elements within elements; an answer of Exchange has seven.
const DEPTH_MAX: usize = 64;
/// Elements of a document; an answer of Exchange has a few hundred.
const ELEMENTS_MAX: usize = 20_000;

/// Attributes of an element: whether one is there twice is looked up among those before it.
const ATTRIBUTES_MAX: usize = 64;

/// Why bytes are not a document that is read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// More bytes than are read.
    #[error("the document is larger than {0} bytes")]
    TooLarge(usize),
    /// Deeper or with more elements than is read.
    #[error("the document has too many elements, or too deep ones")]
    TooMany,
    /// Not in the encoding it says, or in one that is not read.
    #[error("the document's encoding is neither UTF-8 nor what it says")]
    Encoding,
    /// A document type: it could define entities, of which none is ever expanded.
    #[error("the document has a document type")]
    DocumentType,
    /// An entity that XML itself does not define.
    #[error("the document has an entity that is not defined")]
    Entity,
    /// Not XML.
    #[error("the document is not well-formed")]
    Syntax,
    /// XML of another kind.
    #[error("the document is not {0}")]
    Other(&'static str),
}

/// A document's text, without its byte order mark.
///
/// # Errors
/// It is too large, or in an encoding that is not read.
pub(super) fn text(bytes: &[u8], limit: usize) -> Result<Text<'_>, Wrong> {
    if bytes.len() > limit {
        return Err(Wrong::TooLarge(limit));
    }
    let wide = |unit: fn([u8; 2]) -> u16, bytes: &[u8]| {
        let (pairs, []) = bytes.as_chunks::<2>() else {
            return Err(Wrong::Encoding);
        };
        let units = pairs.iter().map(|pair| unit(*pair));
        let text: Result<String, _> = char::decode_utf16(units).collect();
        let text = text.map_err(|_unpaired| Wrong::Encoding)?;
        Ok(Text {
            text: Cow::Owned(text),
            encoding: "utf-16",
        })
    };
    let read = match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => narrow(rest)?,
        [0xff, 0xfe, rest @ ..] => wide(u16::from_le_bytes, rest)?,
        [0xfe, 0xff, rest @ ..] => wide(u16::from_be_bytes, rest)?,
        _ => narrow(bytes)?,
    };
    // UTF-16 without its mark reads as letters with zeros between them; no XML has a zero.
    match read.text.contains('\0') {
        true => Err(Wrong::Encoding),
        false => Ok(read),
    }
}

fn narrow(bytes: &[u8]) -> Result<Text<'_>, Wrong> {
    let text = std::str::from_utf8(bytes).map_err(|_not_text| Wrong::Encoding)?;
    Ok(Text {
        text: Cow::Borrowed(text),
        encoding: "utf-8",
    })
}

/// Text, and what its bytes were.
#[derive(Debug)]
pub(super) struct Text<'b> {
    text: Cow<'b, str>,
    encoding: &'static str,
}

impl Text<'_> {
    /// The text itself.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    fn may_say(&self, encoding: &str) -> bool {
        encoding.eq_ignore_ascii_case(self.encoding)
            || (self.encoding == "utf-8" && encoding.eq_ignore_ascii_case("us-ascii"))
    }
}

/// An element and its place. Names are compared without their prefix and without regard to case.
#[derive(Debug)]
pub(super) struct Element<'t> {
    /// Its name with its prefix, as written.
    pub(super) qualified: &'t str,
    /// Its name without the prefix.
    pub(super) name: &'t str,
    /// Attributes: name without prefix, value.
    pub(super) attributes: Vec<(&'t str, String)>,
    /// All of it, from `<` to `>`.
    pub(super) whole: Range<usize>,
    /// What is between its tags; empty at its end where it is `<x/>`.
    pub(super) inner: Range<usize>,
    /// Text directly in it.
    pub(super) value: String,
    /// Elements directly or indirectly in it stand behind it in the list up to here.
    end: usize,
}

/// A document.
#[derive(Debug)]
pub(super) struct Tree<'t> {
    elements: Vec<Element<'t>>,
}

impl<'t> Tree<'t> {
    /// Reads a document. Costs a pass over it and an allocation an element.
    ///
    /// # Errors
    /// Whatever keeps it from being one.
    pub(super) fn read(source: &'t Text<'_>) -> Result<Self, Wrong> {
        let text: &'t str = source.as_str();
        let mut reader = Reader::from_str(text);
        reader.config_mut().check_comments = true;
        let mut elements: Vec<Element<'t>> = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        loop {
            let before = place(&reader)?;
            let event = reader.read_event().map_err(|_syntax| Wrong::Syntax)?;
            let after = place(&reader)?;
            match event {
                Event::Start(start) => {
                    if open.len() >= DEPTH_MAX {
                        return Err(Wrong::TooMany);
                    }
                    begin(&mut elements, &open, text, &start, before..after)?;
                    open.push(elements.len() - 1);
                }
                Event::Empty(start) => {
                    begin(&mut elements, &open, text, &start, before..after)?;
                }
                Event::End(_) => {
                    let index = open.pop().ok_or(Wrong::Syntax)?;
                    let end = elements.len();
                    if let Some(element) = elements.get_mut(index) {
                        element.inner.end = before;
                        element.whole.end = after;
                        element.end = end;
                    }
                }
                Event::Text(letters) => {
                    let letters = letters.xml10_content();
                    add(&mut elements, &open, &letters)?;
                }
                Event::CData(letters) => add(&mut elements, &open, &letters.into_inner())?,
                Event::GeneralRef(entity) => {
                    let letters = match entity.resolve_char_ref() {
                        Ok(Some(letter)) if is_letter(letter) => letter.to_string(),
                        Ok(None) => escape::resolve_predefined_entity(&entity.into_inner())
                            .ok_or(Wrong::Entity)?
                            .to_owned(),
                        _ => return Err(Wrong::Entity),
                    };
                    add(&mut elements, &open, &letters)?;
                }
                Event::Decl(declaration) => {
                    if before != 0 {
                        return Err(Wrong::Syntax);
                    }
                    if let Some(encoding) = declaration.encoding() {
                        let encoding = encoding.map_err(|_syntax| Wrong::Syntax)?;
                        if !source.may_say(&encoding) {
                            return Err(Wrong::Encoding);
                        }
                    }
                }
                Event::DocType(_) => return Err(Wrong::DocumentType),
                Event::Comment(_) | Event::PI(_) => {}
                Event::Eof => break,
            }
        }
        let is_one = elements
            .first()
            .is_some_and(|root| root.end == elements.len());
        match is_one && open.is_empty() {
            true => Ok(Self { elements }),
            false => Err(Wrong::Syntax),
        }
    }

    /// The element at a position of the list.
    pub(super) fn at(&self, index: usize) -> Option<&Element<'t>> {
        self.elements.get(index)
    }

    /// All elements in the order of the document; the first is the root.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Element<'t>> {
        self.elements.iter()
    }

    /// Positions of the elements directly in another.
    pub(super) fn children(&self, of: usize) -> impl Iterator<Item = usize> {
        let end = self.at(of).map_or(0, |element| element.end);
        let first = Some(of + 1).filter(|first| *first < end);
        std::iter::successors(first, move |child| {
            let next = self.at(*child)?.end;
            (next < end).then_some(next)
        })
    }

    /// The first element of this name directly in another.
    pub(super) fn child(&self, of: usize, name: &str) -> Option<usize> {
        self.children(of).find(|child| self.is(*child, name))
    }

    /// The element a path of names leads to from the root, the root's own name first.
    pub(super) fn find(&self, path: &[&str]) -> Option<usize> {
        let (root, rest) = path.split_first()?;
        if !self.is(0, root) {
            return None;
        }
        rest.iter().try_fold(0, |at, name| self.child(at, name))
    }

    /// The text of the first element of this name directly in another, without the space around it.
    pub(super) fn value(&self, of: usize, name: &str) -> Option<&str> {
        let child = self.at(self.child(of, name)?)?;
        Some(child.value.trim())
    }

    /// True where the element at this position has this name.
    pub(super) fn is(&self, index: usize, name: &str) -> bool {
        self.at(index)
            .is_some_and(|element| element.name.eq_ignore_ascii_case(name))
    }

    /// True where nothing but text is in it.
    pub(super) fn is_leaf(&self, index: usize) -> bool {
        self.at(index)
            .is_some_and(|element| element.end == index + 1)
    }
}

fn place(reader: &Reader<&[u8]>) -> Result<usize, Wrong> {
    usize::try_from(reader.buffer_position()).map_err(|_beyond| Wrong::Syntax)
}

fn begin<'t>(
    elements: &mut Vec<Element<'t>>,
    open: &[usize],
    text: &'t str,
    start: &BytesStart<'_>,
    tag: Range<usize>,
) -> Result<(), Wrong> {
    if elements.len() >= ELEMENTS_MAX {
        return Err(Wrong::TooMany);
    }
    // A second root, or one behind the end of the first.
    if open.is_empty() && !elements.is_empty() {
        return Err(Wrong::Syntax);
    }
    let written = start.name();
    let qualified = slice(text, tag.start + 1, written.as_ref().len())?;
    let name = qualified.rsplit(':').next().unwrap_or(qualified);
    if name.is_empty() {
        return Err(Wrong::Syntax);
    }
    let mut attributes = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|_syntax| Wrong::Syntax)?;
        if attributes.len() >= ATTRIBUTES_MAX {
            return Err(Wrong::TooMany);
        }
        let value = attribute
            .normalized_value(quick_xml::XmlVersion::Explicit1_0)
            .map_err(|_entity| Wrong::Entity)?
            .into_owned();
        let key = attribute.key.as_ref();
        let at = text
            .get(tag.clone())
            .and_then(|tag| tag.find(key))
            .ok_or(Wrong::Syntax)?;
        attributes.push((slice(text, tag.start + at, key.len())?, value));
    }
    elements.push(Element {
        qualified,
        name,
        attributes,
        inner: tag.end..tag.end,
        whole: tag,
        value: String::new(),
        end: elements.len() + 1,
    });
    Ok(())
}

fn slice(text: &str, at: usize, length: usize) -> Result<&str, Wrong> {
    text.get(at..at + length).ok_or(Wrong::Syntax)
}

/// Text goes to the element it stands in; around the root there is space alone.
fn add(elements: &mut [Element<'_>], open: &[usize], letters: &str) -> Result<(), Wrong> {
    if !letters.chars().all(is_letter) {
        return Err(Wrong::Syntax);
    }
    match open.last().and_then(|index| elements.get_mut(*index)) {
        Some(element) => element.value.push_str(letters),
        None if letters.trim().is_empty() => {}
        None => return Err(Wrong::Syntax),
    }
    Ok(())
}

/// A character XML may have. XML 1.0 section 2.2
fn is_letter(letter: char) -> bool {
    !letter.is_control() && !matches!(letter, '\u{fffe}' | '\u{ffff}')
        || matches!(letter, '\t' | '\n' | '\r')
}

/// Text as it stands between tags or in quotation marks.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    match text.chars().all(is_letter) {
        true => escape::escape(text),
        false => {
            let clean: String = text.chars().filter(|letter| is_letter(*letter)).collect();
            Cow::Owned(escape::escape(clean).into_owned())
        }
    }
}

#[cfg(test)]
#[path = "xml_tests.rs"]
mod tests;
