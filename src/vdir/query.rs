//! The query behind a path of a virtual directory.
//!
//! Servers read it, we do not route by it. It goes on as written, unless it says what only a front end
//! may say.

use super::Vdir;

/// True for a query that may go on as it is. `is_claim` knows the names under which only a front end
/// speaks: servers take some of them from the query as well as from a header.
///
/// One pass; names with escapes are undone into a buffer on the stack.
pub fn clean_query(vdir: Vdir, query: &str, is_claim: impl Fn(&str) -> bool) -> bool {
    let plain = |byte: u8| {
        matches!(byte, 0x21..=0x7e) && !matches!(byte, b'"' | b'<' | b'>' | b'#' | b'\\')
    };
    if !query.bytes().all(plain) || !has_whole_escapes(query.as_bytes()) {
        return false;
    }
    query.split('&').all(|pair| {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        let mut room = [0; NAME_MAX];
        let Some(name) = undone(name, &mut room) else {
            // Base64 has no escapes and is longer than any name. [MS-ASHTTP] 2.2.1.1.1.1
            return vdir == Vdir::ActiveSync && !pair.contains('%');
        };
        let leads_elsewhere = name.bytes().any(|byte| match byte {
            b'@' | b'\\' | b'?' | b'%' => true,
            b'/' => vdir != Vdir::ActiveSync,
            _ => false,
        });
        !leads_elsewhere && !is_claim(name)
    })
}

/// The value of a query's parameter, its escapes undone, in whatever case the name is; `None` where there is none, or none
/// that is text. For people to read: nothing is routed by it.
pub fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, written) = pairs.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    let mut room = [0; NAME_MAX];
    undone(written, &mut room).map(str::to_owned)
}

/// Every `%` begins an escape of a byte that is no control byte.
fn has_whole_escapes(query: &[u8]) -> bool {
    memchr::memchr_iter(b'%', query).all(|at| {
        let code = query.get(at + 1..at + 3).unwrap_or_default();
        matches!(value(code), Some(0x20..=0x7e | 0x80..) | Some(0x0a | 0x0d | 0x09))
    })
}

fn value(code: &[u8]) -> Option<u8> {
    let [high, low] = code else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// A name with its escapes undone; `None` where it is longer than any that is meant.
fn undone<'r>(name: &str, room: &'r mut [u8; NAME_MAX]) -> Option<&'r str> {
    let mut rest = name.as_bytes();
    let mut length = 0;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        let mut byte = *byte;
        if byte == b'%' {
            let (code, after) = rest.split_at_checked(2)?;
            byte = value(code)?;
            rest = after;
        }
        *room.get_mut(length)? = byte;
        length += 1;
    }
    std::str::from_utf8(room.get(..length)?).ok()
}

/// Bytes of a parameter's name.
const NAME_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_clean(query: &str) -> bool {
        clean_query(Vdir::Owa, query, |name| {
            name.eq_ignore_ascii_case("X-Rps-CAT")
        })
    }

    #[test]
    fn queries_of_clients_pass() {
        for query in [
            "",
            "ae=Folder&t=IPF.Note",
            "url=https%3a%2f%2fmail.contoso.com%2fowa%2f&reason=0",
            "id=AAMk+/=&x[0]=1&e=%c3%a9&b=%0d%0a",
            "Cmd=Ping&User=user1%40contoso.com&DeviceId=x&DeviceType=y",
            "a@b",
        ] {
            assert_eq!(is_clean(query), query != "a@b", "{query}");
        }
        let base64 = "jAAJBAp2MTQwRGV2aWNlAApTbWFydFBob25l/+8=";
        assert!(clean_query(Vdir::ActiveSync, base64, |_| false));
        assert!(clean_query(Vdir::ActiveSync, &base64.repeat(10), |_| false));
    }

    #[test]
    fn what_leads_elsewhere_or_speaks_for_a_front_end_does_not() {
        for query in [
            "@evil.test/powershell",
            "a&@evil.test/mapi/nspi/?&Email=autodiscover/autodiscover.json%3F@evil.test",
            "X-Rps-CAT=VgEA",
            "x-rps-cat=VgEA",
            "X%2DRps%2DCAT=VgEA",
            "X%252DRps-CAT=VgEA",
            "a=b&X-Rps-CAT",
            "%40x=1",
            "a/b=1",
            "a%2fb=1",
            "a=%0",
            "a=%zz",
            "a=%00",
            "a=%1b",
            "a=%7f",
            "a=<x>",
            "a=\"",
            "a=\u{e9}",
            "a#b",
            "a b",
            "a\\b",
        ] {
            assert!(!is_clean(query), "{query}");
        }
        assert!(!is_clean(&"x".repeat(300)));
    }

    #[test]
    fn a_parameter_is_read_for_people() {
        let query = "Cmd=Ping&user=CONTOSO%5Cuser1%40x&DeviceId=y";
        assert_eq!(
            parameter(query, "User").as_deref(),
            Some("CONTOSO\\user1@x")
        );
        assert_eq!(parameter(query, "Use"), None);
        assert_eq!(parameter("User=%f", "User"), None);
        assert_eq!(
            parameter(&format!("User={}", "x".repeat(300)), "User"),
            None
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(query in "\\PC{0,300}") {
            let _clean = is_clean(&query);
        }
    }
}
