//! Which messages of a server the LDAP library may see.
//!
//! The library takes the well-formed for granted: it stops the program over an answer without elements,
//! nests its calls as deep as an answer nests, and waits for as many bytes as an answer announces. So what
//! a server says is looked at first, and only what is exactly an answer to an open question goes on. Flat
//! and without memory of its own: a lying server costs a look at its bytes.

use std::collections::HashMap;

/// The longest message that is waited for, in bytes. An entry with 10,000 addresses has half of it.
pub(super) const MESSAGE_MAX: usize = 1 << 20;
/// All of an answer to one question, in bytes: whoever asks wants one entry, or a page of 500.
const ANSWER_MAX: usize = 8 << 20;
/// The entries and references of one, whatever few bytes each has.
const ENTRIES_MAX: usize = 5_000;
/// Questions that may be open on one connection.
const OPEN_MAX: usize = 4096;

/// Why a message is none. Words for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nonsense(pub(super) &'static str);

/// What to do with a message of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// The library may see it.
    Pass,
    /// Nobody asked for it: a notice, or an answer to a question given up.
    Drop,
}

/// What was asked on a connection and is not answered yet.
#[derive(Debug, Default)]
pub(super) struct Questions(HashMap<u32, Question>);

#[derive(Debug)]
enum Question {
    Bind,
    /// What of the answer is here: messages, and their bytes.
    Search {
        entries: usize,
        bytes: usize,
    },
}

impl Questions {
    /// Notes what a message of ours asks.
    ///
    /// # Errors
    /// It is none, or too many are open.
    pub(super) fn ask(&mut self, message: &[u8]) -> Result<(), Nonsense> {
        let (id, operation, _) = envelope(message)?;
        let question = match operation.tag {
            BIND_REQUEST => Question::Bind,
            SEARCH_REQUEST => Question::Search {
                entries: 0,
                bytes: 0,
            },
            // A farewell, or a question given up: neither is answered. RFC 4511 4.3, 4.11
            _ => return Ok(()),
        };
        if self.0.len() >= OPEN_MAX {
            return Err(Nonsense("too many questions wait for an answer"));
        }
        self.0.insert(id, question);
        Ok(())
    }

    /// Looks at a message of the server. RFC 4511 4.1.1
    ///
    /// # Errors
    /// It is no LDAP message, or no answer to its question.
    pub(super) fn look(&mut self, message: &[u8]) -> Result<Sight, Nonsense> {
        let (id, operation, controls) = envelope(message)?;
        let Some(question) = self.0.get_mut(&id) else {
            return Ok(Sight::Drop);
        };
        if let Question::Search { entries, bytes } = question {
            (*entries, *bytes) = (*entries + 1, *bytes + message.len());
            if *entries > ENTRIES_MAX || *bytes > ANSWER_MAX {
                return Err(Nonsense("its answer does not end"));
            }
        }
        match (question, operation.tag) {
            (Question::Bind, BIND_RESPONSE) | (Question::Search { .. }, SEARCH_DONE) => {
                result(operation.contents)?;
                self.0.remove(&id);
            }
            (Question::Search { .. }, SEARCH_ENTRY) => entry(operation.contents)?,
            (Question::Search { .. }, SEARCH_REFERENCE) => all(operation.contents, text)?,
            (Question::Search { .. }, INTERMEDIATE) => return Ok(Sight::Drop),
            _ => return Err(Nonsense("it answers something else than was asked")),
        }
        all(controls, control)?;
        Ok(Sight::Pass)
    }
}

/// How long the message at the beginning of these bytes is; `None`: more bytes will tell.
///
/// # Errors
/// It is no LDAP message, or longer than [`MESSAGE_MAX`].
pub(super) fn length(bytes: &[u8]) -> Result<Option<usize>, Nonsense> {
    if bytes.first().is_some_and(|tag| *tag != SEQUENCE) {
        return Err(Nonsense("it does not begin like an LDAP message"));
    }
    let Some((head, contents)) = head(bytes)? else {
        return Ok(None);
    };
    match head.checked_add(contents) {
        Some(whole) if whole <= MESSAGE_MAX => Ok(Some(whole)),
        _ => Err(Nonsense("its message is too long")),
    }
}

/// True where this is the good answer to the first question of a connection, to go on in TLS. RFC 4511 4.14
pub(super) fn agrees_to_tls(message: &[u8]) -> Result<bool, Nonsense> {
    let (id, operation, _) = envelope(message)?;
    if (id, operation.tag) != (1, EXTENDED_RESPONSE) {
        return Err(Nonsense("it answers something else than was asked"));
    }
    result(operation.contents)?;
    let (code, _) = element(operation.contents)?;
    Ok(code.contents.iter().all(|byte| *byte == 0))
}

/// The question that [`agrees_to_tls`] is about: `1.3.6.1.4.1.1466.20037`.
pub(super) const START_TLS: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";

/// Tag, and what it holds.
#[derive(Clone, Copy, Debug)]
struct Element<'b> {
    tag: u8,
    contents: &'b [u8],
}

/// Bytes of an element's tag and length, and of its contents. `None`: not all of the length is here. Only
/// definite lengths of four bytes at most, and tags of one byte. RFC 4511 5.1
fn head(bytes: &[u8]) -> Result<Option<(usize, usize)>, Nonsense> {
    let (Some(tag), Some(first)) = (bytes.first(), bytes.get(1)) else {
        return Ok(None);
    };
    if tag & 0x1f == 0x1f {
        return Err(Nonsense("it has a tag that LDAP has not"));
    }
    match first {
        ..=0x7f => Ok(Some((2, usize::from(*first)))),
        0x81..=0x84 => {
            let more = usize::from(first & 0x7f);
            let Some(length) = bytes.get(2..2 + more) else {
                return Ok(None);
            };
            let length = length.iter();
            let length = length.fold(0, |sum, byte| (sum << 8) | usize::from(*byte));
            Ok(Some((2 + more, length)))
        }
        _ => Err(Nonsense("it has a length that LDAP has not")),
    }
}

/// The first element of some bytes, and those after it.
fn element(bytes: &[u8]) -> Result<(Element<'_>, &[u8]), Nonsense> {
    const CUT: Nonsense = Nonsense("an element of its message is cut off");
    let (head, length) = head(bytes)?.ok_or(CUT)?;
    let tag = *bytes.first().ok_or(CUT)?;
    let (contents, rest) = bytes
        .get(head..)
        .and_then(|rest| rest.split_at_checked(length))
        .ok_or(CUT)?;
    Ok((Element { tag, contents }, rest))
}

/// The first element, which must have this tag.
fn tagged(tag: u8, bytes: &[u8]) -> Result<(&[u8], &[u8]), Nonsense> {
    match element(bytes)? {
        (element, rest) if element.tag == tag => Ok((element.contents, rest)),
        _ => Err(Nonsense("its message has other elements than LDAP's")),
    }
}

/// Every element is as `judge` wants it.
fn all(
    mut bytes: &[u8],
    judge: impl Fn(Element<'_>) -> Result<(), Nonsense>,
) -> Result<(), Nonsense> {
    while !bytes.is_empty() {
        let (element, rest) = element(bytes)?;
        judge(element)?;
        bytes = rest;
    }
    Ok(())
}

/// A message's number, its operation, and what its controls hold. RFC 4511 4.1.1
fn envelope(message: &[u8]) -> Result<(u32, Element<'_>, &[u8]), Nonsense> {
    let (inside, rest) = tagged(SEQUENCE, message)?;
    ended(rest)?;
    let (id, rest) = tagged(INTEGER, inside)?;
    let id = number(id)?;
    let (operation, rest) = element(rest)?;
    if rest.is_empty() {
        return Ok((id, operation, rest));
    }
    let (after, rest) = element(rest)?;
    ended(rest)?;
    match after.tag {
        CONTROLS => Ok((id, operation, after.contents)),
        // Active Directory says why it hangs up outside of the operation.
        NOTICE_NAME if id == 0 => Ok((id, operation, &[])),
        _ => Err(Nonsense("its message has other elements than LDAP's")),
    }
}

/// How something ended. RFC 4511 4.1.9
fn result(bytes: &[u8]) -> Result<(), Nonsense> {
    let (code, rest) = tagged(ENUMERATED, bytes)?;
    number(code)?;
    let (matched, rest) = tagged(OCTETS, rest)?;
    let (words, rest) = tagged(OCTETS, rest)?;
    readable(matched)?;
    readable(words)?;
    all(rest, |more| match more.tag {
        REFERRAL => all(more.contents, text),
        RESPONSE_NAME => readable(more.contents),
        SASL_CREDENTIALS | RESPONSE_VALUE => Ok(()),
        // What a later LDAP adds is flat and called otherwise. RFC 4511 4
        tag if tag & CONSTRUCTED == 0 && !matches!(tag & 0x1f, 3 | 7 | 10 | 11) => Ok(()),
        _ => Err(Nonsense("its result has other elements than LDAP's")),
    })
}

/// Name and attributes. RFC 4511 4.5.2
fn entry(bytes: &[u8]) -> Result<(), Nonsense> {
    let (name, rest) = tagged(OCTETS, bytes)?;
    readable(name)?;
    let (attributes, rest) = tagged(SEQUENCE, rest)?;
    ended(rest)?;
    all(attributes, |attribute| {
        expected(attribute.tag == SEQUENCE)?;
        let (name, rest) = tagged(OCTETS, attribute.contents)?;
        readable(name)?;
        let (values, rest) = tagged(SET, rest)?;
        ended(rest)?;
        all(values, |value| expected(value.tag == OCTETS))
    })
}

/// Name, perhaps whether it matters, perhaps a value. RFC 4511 4.1.11
fn control(control: Element<'_>) -> Result<(), Nonsense> {
    expected(control.tag == SEQUENCE)?;
    let (name, mut rest) = tagged(OCTETS, control.contents)?;
    readable(name)?;
    if rest.first() == Some(&BOOLEAN) {
        let (matters, after) = tagged(BOOLEAN, rest)?;
        expected(matters.len() == 1)?;
        rest = after;
    }
    let value = match rest.is_empty() {
        true => None,
        false => {
            let (value, after) = tagged(OCTETS, rest)?;
            ended(after)?;
            Some(value)
        }
    };
    if name == PAGED_RESULTS {
        let (inside, rest) = tagged(SEQUENCE, value.unwrap_or_default())?;
        ended(rest)?;
        let (size, rest) = tagged(INTEGER, inside)?;
        number(size)?;
        let (_cookie, rest) = tagged(OCTETS, rest)?;
        ended(rest)?;
    }
    Ok(())
}

/// A number of up to four bytes.
fn number(bytes: &[u8]) -> Result<u32, Nonsense> {
    match bytes.len() {
        1..=4 => Ok(bytes
            .iter()
            .fold(0, |sum, byte| (sum << 8) | u32::from(*byte))),
        _ => Err(Nonsense("a number of its message has no sensible length")),
    }
}

fn text(element: Element<'_>) -> Result<(), Nonsense> {
    expected(element.tag == OCTETS)?;
    readable(element.contents)
}

fn readable(bytes: &[u8]) -> Result<(), Nonsense> {
    match std::str::from_utf8(bytes) {
        Ok(_text) => Ok(()),
        Err(_bytes) => Err(Nonsense("a name or text of its message is not UTF-8")),
    }
}

fn expected(is_so: bool) -> Result<(), Nonsense> {
    match is_so {
        true => Ok(()),
        false => Err(Nonsense("its message has other elements than LDAP's")),
    }
}

fn ended(rest: &[u8]) -> Result<(), Nonsense> {
    expected(rest.is_empty())
}

const CONSTRUCTED: u8 = 0x20;
const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const ENUMERATED: u8 = 0x0a;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const BIND_REQUEST: u8 = 0x60;
const BIND_RESPONSE: u8 = 0x61;
const SEARCH_REQUEST: u8 = 0x63;
const SEARCH_ENTRY: u8 = 0x64;
const SEARCH_DONE: u8 = 0x65;
const SEARCH_REFERENCE: u8 = 0x73;
const EXTENDED_RESPONSE: u8 = 0x78;
const INTERMEDIATE: u8 = 0x79;
const CONTROLS: u8 = 0xa0;
const REFERRAL: u8 = 0xa3;
const SASL_CREDENTIALS: u8 = 0x87;
const RESPONSE_NAME: u8 = 0x8a;
const NOTICE_NAME: u8 = 0x8a;
const RESPONSE_VALUE: u8 = 0x8b;
/// Pages of a long answer. RFC 2696
const PAGED_RESULTS: &[u8] = b"1.2.840.113556.1.4.319";

#[cfg(test)]
#[path = "shape_tests.rs"]
pub(super) mod tests;
