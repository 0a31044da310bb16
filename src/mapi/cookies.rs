//! The cookies of a session context, and ours beside them.

use super::response::Flavour;

/// What a flavour calls its cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CookieNames {
    /// Names the session context.
    pub context: &'static str,
    /// Orders the requests of a context.
    pub sequence: &'static str,
}

impl Flavour {
    /// The cookie names of this flavour. `[MS-OXCMAPIHTTP] 4.2`; gromox measured on 3.10.
    pub const fn cookies(self) -> CookieNames {
        match self {
            Self::Exchange => CookieNames {
                context: "MapiContext",
                sequence: "MapiSequence",
            },
            Self::Gromox => CookieNames {
                context: "sid",
                sequence: "sequence",
            },
        }
    }
}

/// The pairs of one `Cookie` header line, in order, as written but for blanks around names and values:
/// some servers pass over those, so nobody may hide a name behind them. A pair without `=` is passed over.
pub fn pairs(line: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut begin = 0;
    let ends = memchr::memchr_iter(b';', line).chain([line.len()]);
    ends.filter_map(move |end| {
        let pair = line.get(begin..end)?.trim_ascii();
        begin = end + 1;
        let equals = memchr::memchr(b'=', pair)?;
        let (name, value) = (pair.get(..equals)?, pair.get(equals + 1..)?);
        Some((name.trim_ascii_end(), value.trim_ascii_start()))
    })
}

/// Name and value of a `Set-Cookie` header, without its attributes.
pub fn set_cookie(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let pair = value.split(|byte| *byte == b';').next()?.trim_ascii();
    let equals = memchr::memchr(b'=', pair)?;
    Some((pair.get(..equals)?, pair.get(equals + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_keep_order_and_values_keep_their_equals_signs() {
        let found: Vec<_> =
            pairs(b"MapiContext=a=b; MapiSequence=x~y+z;lonely; =v; k=; n = m").collect();
        let expected: Vec<(&[u8], &[u8])> = vec![
            (b"MapiContext", b"a=b"),
            (b"MapiSequence", b"x~y+z"),
            (b"", b"v"),
            (b"k", b""),
            (b"n", b"m"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn attributes_of_a_set_cookie_are_not_its_value() {
        let header = b"MapiContext=abc; path=/mapi/emsmdb; secure; HttpOnly";
        assert_eq!(set_cookie(header), Some((&b"MapiContext"[..], &b"abc"[..])));
        assert_eq!(set_cookie(b"nothing"), None);
    }
}
