//! What an answer says: response codes, and how the flavours of server number them.

/// The protocol's own result, distinct from the HTTP status. `[MS-OXCMAPIHTTP] 2.2.3.3.3`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResponseCode(pub u32);

impl ResponseCode {
    /// The request was accepted.
    pub const SUCCESS: Self = Self(0);
    /// Something failed and the server does not say what.
    pub const UNKNOWN_FAILURE: Self = Self(1);
    /// Not POST.
    pub const INVALID_VERB: Self = Self(2);
    /// No such endpoint below `/mapi`.
    pub const INVALID_PATH: Self = Self(3);
    /// A malformed header.
    pub const INVALID_HEADER: Self = Self(4);
    /// An `X-RequestType` nobody knows.
    pub const INVALID_REQUEST_TYPE: Self = Self(5);
    /// A context cookie that cannot be one.
    pub const INVALID_CONTEXT_COOKIE: Self = Self(6);
    /// A required header is missing.
    pub const MISSING_HEADER: Self = Self(7);
    /// Authentication is required.
    pub const ANONYMOUS_NOT_ALLOWED: Self = Self(8);
    /// The request is larger than allowed.
    pub const TOO_LARGE: Self = Self(9);
    /// The session context is gone or lives elsewhere: connect again. `[MS-OXCMAPIHTTP] 3.2.5.6`
    pub const CONTEXT_NOT_FOUND: Self = Self(10);
    /// The context belongs to somebody else.
    pub const NO_PRIVILEGE: Self = Self(11);
    /// The body cannot be parsed.
    pub const INVALID_BODY: Self = Self(12);
    /// A request that needs a context came without its cookie.
    pub const MISSING_COOKIE: Self = Self(13);
    /// The sequence cookie is stale, or two requests of a context ran at once.
    pub const INVALID_SEQUENCE: Self = Self(15);
    /// MAPI over HTTP is switched off here.
    pub const ENDPOINT_DISABLED: Self = Self(16);
    /// A server behind us answered with nonsense.
    pub const INVALID_RESPONSE: Self = Self(17);
    /// The endpoint is shutting down.
    pub const ENDPOINT_SHUTTING_DOWN: Self = Self(18);
    /// The highest number the specification names.
    pub const HIGHEST: u32 = 18;

    /// Reads the header's value: decimal digits, the last one wins where a list was joined by commas.
    pub fn read(value: &[u8]) -> Option<Self> {
        let last = value.rsplit(|byte| *byte == b',').next()?.trim_ascii();
        if last.is_empty() || last.len() > 6 || !last.iter().all(u8::is_ascii_digit) {
            return None;
        }
        Some(Self(
            last.iter()
                .fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')),
        ))
    }
}

/// Which family a mailbox server belongs to: cookie names, code numbers and habits differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// Microsoft Exchange 2013 SP1 and later.
    Exchange,
    /// grommunio's gromox.
    Gromox,
}

impl Flavour {
    /// The code in the specification's numbers. gromox numbers its answers its own way; measured on 3.10.
    pub fn normal(self, code: ResponseCode) -> ResponseCode {
        match (self, code.0) {
            (Self::Exchange, _) => code,
            (Self::Gromox, 1) => ResponseCode::INVALID_VERB,
            (Self::Gromox, 2) => ResponseCode::CONTEXT_NOT_FOUND,
            (Self::Gromox, 3) => ResponseCode::MISSING_HEADER,
            (Self::Gromox, 4) => ResponseCode::NO_PRIVILEGE,
            (Self::Gromox, 5) => ResponseCode::INVALID_BODY,
            (Self::Gromox, 6) => ResponseCode::MISSING_COOKIE,
            (Self::Gromox, 7) => ResponseCode::INVALID_SEQUENCE,
            (Self::Gromox, 8) => ResponseCode::INVALID_REQUEST_TYPE,
            (Self::Gromox, 9) => ResponseCode::UNKNOWN_FAILURE,
            (Self::Gromox, _) => code,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_several_codes_wins() {
        assert_eq!(
            ResponseCode::read(b"0,10"),
            Some(ResponseCode::CONTEXT_NOT_FOUND)
        );
        assert_eq!(
            ResponseCode::read(b" 7 "),
            Some(ResponseCode::MISSING_HEADER)
        );
    }

    #[test]
    fn what_is_not_a_number_is_no_code() {
        for value in [&b""[..], b"-1", b"+1", b"1x", b"0x1", b"99999999", b"1,"] {
            assert_eq!(ResponseCode::read(value), None, "{value:?}");
        }
    }

    #[test]
    fn gromox_numbers_get_the_meaning_of_the_specification() {
        for (theirs, ours) in [
            (0, 0),
            (1, 2),
            (2, 10),
            (3, 7),
            (4, 11),
            (5, 12),
            (6, 13),
            (7, 15),
            (8, 5),
            (9, 1),
        ] {
            assert_eq!(
                Flavour::Gromox.normal(ResponseCode(theirs)),
                ResponseCode(ours)
            );
        }
    }
}
