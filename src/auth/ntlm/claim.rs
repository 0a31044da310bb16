//! Whom NTLM's last message says to come from. `[MS-NLMP] 2.2.1.3`
//!
//! Read before the domain is asked, because the domain counts wrong passwords against that name. Nothing here
//! believes it.

/// What a client calls itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::auth) struct Claim {
    /// A Windows domain, or nothing.
    pub(in crate::auth) domain: String,
    /// An account, or a name with a domain of its own.
    pub(in crate::auth) user: String,
}

/// The claims of a word that has NTLM's last message in it, as it is or in the frame of Negotiate; `None` for other
/// words. Empty where no name can be read.
///
/// Whether names are Unicode was agreed on earlier, by flags that this message may repeat wrongly. So each reading
/// that gives a name is one: whoever counts counts both, and nobody is guessed at under a name that is not looked at.
pub(in crate::auth) fn claims(word: &[u8]) -> Option<Vec<Claim>> {
    let mut messages = memchr::memmem::find_iter(word, LAST);
    let message = word.get(messages.next()?..)?;
    // Of two, nobody knows which is the one that is judged.
    if messages.next().is_some() {
        return Some(Vec::new());
    }
    let [domain, user] = [DOMAIN, USER].map(|place| field(message, place));
    let (Some(domain), Some(user)) = (domain, user) else {
        return Some(Vec::new());
    };
    let read = |reading: Reading| {
        let (domain, user) = (reading(domain)?, reading(user)?);
        let is_name = |text: &str| !text.chars().any(char::is_control);
        (!user.is_empty() && is_name(&user) && is_name(&domain)).then_some(Claim { domain, user })
    };
    let readings: [Reading; 2] = [wide, narrow];
    Some(readings.into_iter().filter_map(read).collect())
}

/// How bytes may be letters.
type Reading = fn(&[u8]) -> Option<String>;

/// The bytes that a field of the message's beginning points to: length, room, place.
fn field(message: &[u8], at: usize) -> Option<&[u8]> {
    let number = |at: usize| message.get(at..at.checked_add(2)?)?.first_chunk::<2>();
    let length = usize::from(u16::from_le_bytes(*number(at)?));
    let place = message.get(at + 4..)?.first_chunk::<4>()?;
    let place = usize::try_from(u32::from_le_bytes(*place)).ok()?;
    if length == 0 {
        return Some(&[]);
    }
    message.get(place..place.checked_add(length)?)
}

fn wide(bytes: &[u8]) -> Option<String> {
    let (units, rest) = bytes.as_chunks::<2>();
    let units = units.iter().map(|unit| u16::from_le_bytes(*unit));
    let text: Result<String, _> = char::decode_utf16(units).collect();
    text.ok().filter(|_| rest.is_empty())
}

/// Each byte is a letter: names that differ stay different, whatever the page of codes is.
fn narrow(bytes: &[u8]) -> Option<String> {
    Some(bytes.iter().copied().map(char::from).collect())
}

/// How the message begins.
const LAST: &[u8] = b"NTLMSSP\0\x03\0\0\0";
const DOMAIN: usize = 28;
const USER: usize = 36;

#[cfg(test)]
pub(in crate::auth) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A last message with these names; the proof in it is made of `proof`.
    pub(in crate::auth) fn last(domain: &[u8], user: &[u8], proof: &[u8]) -> Vec<u8> {
        let mut message = LAST.to_vec();
        let mut at = 64_usize;
        let mut tail = Vec::new();
        for part in [b"".as_slice(), proof, domain, user, b"", b""] {
            let length = u16::try_from(part.len()).unwrap().to_le_bytes();
            message.extend([length, length].concat());
            message.extend(u32::try_from(at).unwrap().to_le_bytes());
            tail.extend_from_slice(part);
            at += part.len();
        }
        message.extend([1, 0, 0, 0]);
        assert_eq!(message.len(), 64);
        [message, tail].concat()
    }

    pub(in crate::auth) fn utf16(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    fn claim(domain: &str, user: &str) -> Claim {
        let [domain, user] = [domain, user].map(str::to_owned);
        Claim { domain, user }
    }

    #[test]
    fn a_name_is_read_as_it_is_and_in_the_frame_of_negotiate() {
        let message = last(&utf16("CONTOSO"), &utf16("Alice"), &[7; 24]);
        let framed = [
            b"\xa1\x81\x90\x30\x81\x8d".as_slice(),
            &message,
            b"\xa3\x12",
        ]
        .concat();

        for word in [&message, &framed] {
            assert_eq!(claims(word).unwrap(), [claim("CONTOSO", "Alice")]);
        }
        let short = last(b"CONTOSO", b"Alice", &[]);
        assert_eq!(claims(&short).unwrap(), [claim("CONTOSO", "Alice")]);
        // Even of length: it could be one letter of another alphabet.
        let both = claims(&last(b"", b"bo", &[])).unwrap();
        assert_eq!(both, [claim("", "\u{6f62}"), claim("", "bo")]);
    }

    #[test]
    fn words_without_a_last_message_claim_nothing() {
        for word in [b"".as_slice(), b"NTLMSSP\0\x01\0\0\0", &[0x60; 3000]] {
            assert_eq!(claims(word), None);
        }
    }

    #[test]
    fn a_message_whose_name_cannot_be_read_names_nobody() {
        let whole = last(&utf16("CONTOSO"), &utf16("alice"), &[]);
        let nobody = last(b"", b"", &[]);
        let spaced = last(b"", &utf16("a\r\nb"), &[]);
        let twice = [whole.clone(), whole.clone()].concat();
        for word in [&whole[..40], &whole[..70], &nobody, &spaced, &twice] {
            assert_eq!(claims(word).unwrap(), [], "{word:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(tail in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = claims(&[LAST, &tail].concat());
        }

        #[test]
        fn every_name_is_read_back(domain in "[A-Za-z0-9]{0,15}", user in "[^\\p{Cc}]{1,30}") {
            let claims = claims(&last(&utf16(&domain), &utf16(&user), &[7; 16])).unwrap();
            prop_assert_eq!(&claims[0], &claim(&domain, &user));
        }
    }
}
