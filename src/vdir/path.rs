//! A path below a virtual directory, read in the one way in which everybody reads it.
//!
//! The path that is judged is the path that is sent, byte for byte. So whatever two readers may read in
//! two ways is refused: dot segments, empty segments, separators behind escapes, path parameters, names
//! that Windows changes, and addresses anywhere but where an explicit logon stands. Exchange's own front
//! end was led to other directories by some of these.

use super::Vdir;

/// A path, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VdirPath<'a> {
    /// The directory it is in.
    pub vdir: Vdir,
    /// All of it, as written.
    pub whole: &'a str,
    /// The address of an explicit logon, as written: the `@` may be escaped.
    pub logon: Option<&'a str>,
    /// It is the directory's health page.
    pub is_health: bool,
}

/// Reads a path. `Ok(None)`: it is in none of the directories.
///
/// # Errors
/// It is in one of them, and could be read in two ways. Costs one pass over the path; no allocation.
pub fn read(path: &str) -> Result<Option<VdirPath<'_>>, &'static str> {
    let Some(behind) = path.strip_prefix('/') else {
        return Ok(None);
    };
    let (first, rest) = match behind.split_once('/') {
        Some((first, rest)) => (first, Some(rest)),
        None => (behind, None),
    };
    let mut all = Vdir::ALL.into_iter();
    let is_it = |vdir: &Vdir| first.eq_ignore_ascii_case(vdir.path().trim_start_matches('/'));
    let Some(vdir) = all.find(is_it) else {
        return Ok(None);
    };
    let mut found = VdirPath {
        vdir,
        whole: path,
        logon: None,
        is_health: rest.is_some_and(|rest| rest.eq_ignore_ascii_case(HEALTH)),
    };
    let mut segments = rest.unwrap_or_default().split('/').peekable();
    let mut is_second = true;
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        // A slash at the end leaves nothing behind it; nothing between two is another matter.
        if segment.is_empty() && !is_last {
            return Err("an empty path segment");
        }
        if is_second && vdir.has_explicit_logon() && has_at(segment) {
            found.logon = Some(explicit_logon(segment)?);
        } else {
            plain_segment(segment)?;
        }
        is_second = false;
    }
    Ok(Some(found))
}

/// The page a load balancer asks for, below every directory.
const HEALTH: &str = "healthcheck.htm";

fn has_at(segment: &str) -> bool {
    segment.contains('@') || segment.contains("%40")
}

/// `user@domain`, the `@` escaped or not, and nothing that Windows or a URL could take for something else.
fn explicit_logon(segment: &str) -> Result<&str, &'static str> {
    const WRONG: &str = "an `@` that is no explicit logon";
    let parts = match segment.split_once("%40") {
        Some(parts) => parts,
        None => segment.split_once('@').ok_or(WRONG)?,
    };
    let (local, domain) = parts;
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let is_local = |byte: u8| is_letter(byte) || matches!(byte, b'+' | b'\'');
    let dots = |part: &str| part.starts_with('.') || part.ends_with('.') || part.contains("..");
    let fits = (1..=64).contains(&local.len())
        && (1..=253).contains(&domain.len())
        && local.bytes().all(is_local)
        && domain.bytes().all(is_letter)
        && !dots(local)
        && !dots(domain);
    match fits {
        true => Ok(segment),
        false => Err(WRONG),
    }
}

/// A segment that is a name and nothing else.
fn plain_segment(segment: &str) -> Result<(), &'static str> {
    if matches!(segment, "." | "..") {
        return Err("a dot segment");
    }
    // Windows drops these from the end of a name.
    if segment.ends_with('.') || segment.ends_with("%20") || segment.starts_with("%20") {
        return Err("a name with a dot or a blank at its end");
    }
    // ASP.NET takes `(S(…))` for a session and reads the path without it.
    if segment.starts_with('(') || segment.starts_with("%28") {
        return Err("a segment in parentheses");
    }
    let mut rest = segment.as_bytes();
    let mut before = 0;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let Some((code, after)) = rest.split_first_chunk() else {
                    return Err("an escape that is cut");
                };
                if !is_harmless_escape(*code) {
                    return Err("an escape that could be read twice");
                }
                rest = after;
            }
            // The short name of a longer one, on Windows.
            b'0'..=b'9' if before == b'~' => return Err("a short name"),
            byte if is_plain(*byte) => {}
            _ => return Err("a byte that does not belong in a path"),
        }
        before = *byte;
    }
    Ok(())
}

/// Bytes that stand for themselves and separate nothing, to anybody.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'+'
                | b','
                | b'='
                | b'{'
                | b'}'
        )
}

/// Escapes of bytes that separate nothing and that nobody would write without an escape. An escaped
/// letter is refused: it says what the letter says, but not to everybody.
fn is_harmless_escape(code: [u8; 2]) -> bool {
    const HARMLESS: [&[u8; 2]; 14] = [
        b"20", b"21", b"24", b"26", b"27", b"28", b"29", b"2b", b"2c", b"3d", b"7b", b"7d", b"5b",
        b"5d",
    ];
    HARMLESS
        .iter()
        .any(|known| known.eq_ignore_ascii_case(&code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn logon_of(path: &str) -> Option<&str> {
        read(path).unwrap().unwrap().logon
    }

    #[test]
    fn paths_of_clients_are_read_as_they_are_written() {
        for (path, vdir) in [
            ("/EWS/Exchange.asmx", Vdir::Ews),
            ("/ews", Vdir::Ews),
            ("/owa/", Vdir::Owa),
            ("/owa/auth/logon.aspx", Vdir::Owa),
            ("/owa/prem/15.1.2507.6/scripts/boot.js", Vdir::Owa),
            ("/ecp/default.aspx", Vdir::Ecp),
            (
                "/OAB/1ca2e6f3-6b9f-4b0f-9d51-a1a3ba2ba4d1/oab.xml",
                Vdir::Oab,
            ),
            ("/Microsoft-Server-ActiveSync", Vdir::ActiveSync),
            ("/microsoft-server-activesync/default.eas", Vdir::ActiveSync),
            ("/PowerShell/", Vdir::PowerShell),
            ("/api/v2.0/me/messages/AAMkAGI=%3D", Vdir::Api),
            ("/api/v2.0/Users('u%20x')/Events", Vdir::Api),
            ("/owa/a%20b%2B.js", Vdir::Owa),
        ] {
            let found = read(path).unwrap().unwrap();
            assert_eq!((found.vdir, found.whole), (vdir, path));
            assert_eq!((found.logon, found.is_health), (None, false), "{path}");
        }
    }

    #[test]
    fn an_explicit_logon_is_the_second_segment_and_an_address() {
        assert_eq!(
            logon_of("/owa/other@contoso.com/"),
            Some("other@contoso.com")
        );
        assert_eq!(logon_of("/OWA/o%40c.d/x.aspx"), Some("o%40c.d"));
        assert_eq!(logon_of("/ews/a+b@c/Exchange.asmx"), Some("a+b@c"));
        for path in [
            "/owa/@contoso.com/",
            "/owa/a@b@c/",
            "/owa/a@/",
            "/owa/a%40b%40c/",
            "/owa/a%2540b/",
            "/owa/../a@b/",
            "/owa/x/a@b/",
            "/owa/a@b:444/",
            "/owa/a@b;x/",
            "/owa/a@.b/",
            "/owa/a@b./",
            "/oab/a@b/",
            "/powershell/a@b",
            "/Microsoft-Server-ActiveSync/a@b",
            "/api/v2.0/users/a@b",
        ] {
            assert!(read(path).is_err(), "{path}");
        }
    }

    #[test]
    fn what_two_readers_could_read_in_two_ways_is_refused() {
        for tail in [
            "/../mapi/emsmdb/",
            "/..",
            "/.",
            "/./x",
            "//x",
            "/x//y",
            "/x/..;/y",
            "/;x",
            "/x;y=z",
            "/%2e%2e/x",
            "/%2E./x",
            "/x%2fy",
            "/x%2Fy",
            "/x%5cy",
            "/x\\y",
            "/x%252fy",
            "/x%00",
            "/x%0a",
            "/x%7f",
            "/x\u{0}",
            "/x y",
            "/x%",
            "/x%4",
            "/x%zz",
            "/x%c0%af",
            "/x%ef%bc%8f",
            "/\u{e9}",
            "/%61uth",
            "/(S(abc))/auth",
            "/x/(X(1)F(abc))/auth",
            "/%28S(abc))/auth",
            "/x./y",
            "/x%20/y",
            "/x%20",
            "/progra~1",
            "/x:$DATA",
            "/x::$INDEX_ALLOCATION/y",
            "/x*",
            "/x|y",
            "/<x>",
            "/\"x\"",
            "/x%3fy",
            "/x%23y",
            "/x%3by",
            "/x%3ay",
        ] {
            for vdir in Vdir::ALL {
                let path = format!("{}{tail}", vdir.path());
                assert!(read(&path).is_err(), "{path}");
            }
        }
    }

    #[test]
    fn nothing_else_is_one_of_them() {
        for path in [
            "",
            "/",
            "*",
            "ews",
            "//ews",
            "/ewsx",
            "/ews.",
            "/ews;x",
            "/%65ws",
            "/ews%2f",
            "/ews%20",
            "/mapi/emsmdb/",
            "/rpc/rpcproxy.dll",
            "/autodiscover/autodiscover.json@x/ews",
            "http://a/ews",
            "/ews\\x",
            "/owa@x/",
            "/powershell?x",
            "/.ews",
            "/remote/ews",
        ] {
            assert_eq!(read(path), Ok(None), "{path}");
        }
    }

    #[test]
    fn the_health_page_is_known_below_every_directory_only() {
        for vdir in Vdir::ALL {
            let path = format!("{}/HealthCheck.htm", vdir.path());
            assert!(read(&path).unwrap().unwrap().is_health);
            let path = format!("{}/x/healthcheck.htm", vdir.path());
            assert!(!read(&path).unwrap().unwrap().is_health);
        }
    }

    /// What a lenient reader makes of a path: escapes undone until nothing changes, backslashes turned,
    /// parameters and empty and dot segments taken out.
    fn lenient(path: &str) -> String {
        let mut text = path.as_bytes().to_vec();
        loop {
            let mut undone = Vec::new();
            let mut rest = &text[..];
            while let Some((byte, after)) = rest.split_first() {
                let code = after
                    .get(..2)
                    .and_then(|code| std::str::from_utf8(code).ok());
                let code = code.and_then(|code| u8::from_str_radix(code, 16).ok());
                match (byte, code) {
                    (b'%', Some(code)) => {
                        undone.push(code);
                        rest = &after[2..];
                    }
                    _ => {
                        undone.push(*byte);
                        rest = after;
                    }
                }
            }
            if undone == text {
                break;
            }
            text = undone;
        }
        let text = String::from_utf8_lossy(&text).replace('\\', "/");
        let mut kept: Vec<&str> = Vec::new();
        for segment in text.split('/') {
            let segment = segment.split(';').next().unwrap_or_default();
            match segment.trim_end_matches(['.', ' ']) {
                // What was trimmed away was a dot segment of two.
                "" if segment.contains("..") => drop(kept.pop()),
                "" => {}
                name => kept.push(name),
            }
        }
        kept.join("/").to_ascii_lowercase()
    }

    proptest! {
        #[test]
        fn a_path_that_is_let_through_reads_as_its_directory_to_the_most_lenient(
            tail in "(/|//|\\.|\\.\\.|%2e|%2f|%5c|%25|%252e|;|\\\\|@|%40|[a-z]{1,3}|~1|\\(S\\(x\\)\\)|%20){0,8}",
            which in 0_usize..7,
        ) {
            let vdir = Vdir::ALL[which];
            let path = format!("{}/{tail}", vdir.path());
            if let Ok(Some(found)) = read(&path) {
                prop_assert_eq!(found.vdir, vdir);
                let read_leniently = lenient(&path);
                let first = read_leniently.split('/').next().unwrap_or_default();
                prop_assert_eq!(first, vdir.path().trim_start_matches('/').to_ascii_lowercase());
                let names = |text: &str| text.split('/').filter(|name| !name.is_empty()).count();
                prop_assert_eq!(names(&read_leniently), names(&path), "{}", path);
                // Read again, it says the same.
                prop_assert_eq!(read(found.whole), Ok(Some(found)));
            }
        }

        #[test]
        fn any_text_is_read_without_a_panic(path in "\\PC{0,200}") {
            let _read = read(&path);
            let _read = read(&format!("/owa/{path}"));
        }
    }
}
