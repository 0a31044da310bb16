//! Whether an answer is the recorded one, but for what must differ between two servers and two days.

use super::exchange::Recorded;
use mapigate::lab::outlook::wire::Answer;
use mapigate::lab::site::HOST;
use mapigate::mapi::bodies::nspi::{QueryRowsSuccess, ResolveNamesSuccess, UrlSuccess};
use mapigate::mapi::bodies::{Answer as BodyAnswer, Body, ConnectSuccess};
use mapigate::mapi::{Flavour, ResponseCode};

/// What stands between the client and the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Nothing, and the clock is the test's own: times must agree too.
    None,
    /// mapigate.
    Mapigate {
        /// It writes codes in the specification's numbers and puts back what was not echoed.
        normalizes: bool,
    },
}

/// gromox' number for a context that is another user's.
const GROMOX_FOREIGN: u32 = 4;

/// Fails unless the answer is the recorded one.
pub(crate) fn same(recorded: &Recorded, ours: &Answer, door: Door) {
    let name = &recorded.name;
    let status = String::from_utf8_lossy(&ours.head.raw);
    assert_eq!(
        status.split("\r\n").next(),
        Some(&*recorded.status),
        "{name}"
    );
    let through = door != Door::None;
    if through && recorded.status.contains(" 401 ") {
        return; // mapigate's own refusal
    }
    if through && recorded.code() == Some(GROMOX_FOREIGN) {
        // Refused at the door: the server is not asked.
        assert_eq!(
            ours.head.code(),
            Some(ResponseCode::CONTEXT_NOT_FOUND.0),
            "{name}"
        );
        return;
    }
    let (mut theirs, mut mine) = (
        comparable(&expected(recorded, door)),
        comparable(&ours.head.headers),
    );
    if through {
        mine.retain(|line| line != "Set-Cookie: MapigateRoute");
    }
    if recorded.by_library {
        for lines in [&mut theirs, &mut mine] {
            lines.iter_mut().for_each(lower_name);
            lines.sort();
        }
    }
    assert_eq!(mine, theirs, "{name}");
    if recorded.by_library {
        return same_shown(recorded, &ours.body());
    }
    if recorded.wire.is_empty() {
        return; // a page of HTML
    }
    let theirs = recorded.pieces();
    assert_eq!(ours.pieces.len(), theirs.len(), "{name}: chunks");
    for (ours, theirs) in ours.pieces.iter().zip(&theirs) {
        let ((ours, our_body), (theirs, their_body)) = (parts(ours, door), parts(theirs, door));
        assert_eq!(ours, theirs, "{name}");
        same_body(recorded.kind(), (name, door), &their_body, &our_body);
    }
}

/// The recorded head as mapigate passes it on: headers of one connection stay there, the framing comes last.
pub(crate) fn expected(recorded: &Recorded, door: Door) -> Vec<(String, String)> {
    let mut headers = recorded.headers.clone();
    let Door::Mapigate { normalizes } = door else {
        return headers;
    };
    let is = |name: &str, known: &[&str]| known.iter().any(|k| name.eq_ignore_ascii_case(k));
    headers.retain(|(name, _)| !is(name, &["Connection", "Keep-Alive"]));
    if let Some(code) = recorded.code().filter(|_| normalizes) {
        let normal = Flavour::Gromox.normal(ResponseCode(code)).0.to_string();
        for (name, value) in &mut headers {
            if is(name, &["X-ResponseCode"]) {
                value.clone_from(&normal);
            }
        }
        for name in ["X-RequestType", "X-RequestId", "X-ClientInfo"] {
            // A type nobody knows is not repeated.
            let asked = recorded.asked(name).filter(|value| *value != "Bogus");
            if let (None, Some(value)) = (recorded.answered(name), asked) {
                headers.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    let (framing, mut rest): (Vec<_>, Vec<_>) = headers
        .into_iter()
        .partition(|(name, _)| is(name, &["Content-Length", "Transfer-Encoding"]));
    rest.extend(framing);
    rest
}

/// What may differ between two answers to the same request is made the same.
fn comparable(headers: &[(String, String)]) -> Vec<String> {
    let is_page = headers.iter().any(|(_, value)| value == "text/html");
    let line = |(name, value): &(String, String)| match name.to_ascii_lowercase().as_str() {
        "date" => name.clone(),
        "content-length" if is_page => name.clone(),
        "set-cookie" => format!("{name}: {}", value.split('=').next().unwrap()),
        _ => format!("{name}: {value}"),
    };
    headers.iter().map(line).collect()
}

fn lower_name(line: &mut String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    *line = format!("{}:{value}", name.to_ascii_lowercase());
}

/// The text before the binary part, the time of day left out, and the binary part.
fn parts(piece: &[u8], door: Door) -> (Vec<String>, Vec<u8>) {
    if !piece.starts_with(b"PROCESSING") && !piece.starts_with(b"DONE") {
        return (Vec::new(), piece.to_vec());
    }
    let end = memchr::memmem::find(piece, b"\r\n\r\n").map_or(piece.len(), |end| end + 4);
    let text = String::from_utf8(piece[..end].to_vec()).unwrap();
    let line = |line: &str| match line.split_once(": ") {
        Some((name @ "X-StartTime", _)) => name.to_owned(),
        Some((name @ "X-ElapsedTime", _)) if door != Door::None => name.to_owned(),
        _ => line.to_owned(),
    };
    (
        text.split("\r\n").map(line).collect(),
        piece[end..].to_vec(),
    )
}

/// The body a library showed: every byte of it, or where the rest is a mailbox's own, what stands before that.
fn same_shown(recorded: &Recorded, ours: &[u8]) {
    let name = &recorded.name;
    if recorded.shown.is_empty() {
        return; // a page of HTML
    }
    let lossy: Vec<u8> = recorded
        .shown
        .iter()
        .map(|byte| byte.unwrap_or(b'?'))
        .collect();
    let (theirs_text, their_body) = parts(&lossy, Door::None);
    let (ours_text, our_body) = parts(ours, Door::None);
    assert_eq!(ours_text, theirs_text, "{name}");
    let theirs = &recorded.shown[lossy.len() - their_body.len()..];
    let agrees = |theirs: &[Option<u8>], ours: &[u8]| {
        theirs.len() == ours.len()
            && theirs
                .iter()
                .zip(ours)
                .all(|(theirs, ours)| theirs.is_none_or(|byte| byte == *ours))
    };
    let same = match recorded.kind() {
        // The user's name stands in the middle, and is another.
        "Connect" => {
            let (begins, ends) = (CONNECT_BEFORE_NAME, CONNECT_AFTER_NAME);
            agrees(&theirs[..begins], &our_body[..begins])
                && agrees(
                    &theirs[theirs.len() - ends..],
                    &our_body[our_body.len() - ends..],
                )
        }
        _ if recorded.is_whole => agrees(theirs, &our_body),
        _ => agrees(theirs, &our_body[..theirs.len()]),
    };
    assert!(same, "{name}: {our_body:x?} is not {theirs:x?}");
}

/// Two codes, three numbers, an empty prefix of names. `[MS-OXCMAPIHTTP] 2.2.4.1.2`
const CONNECT_BEFORE_NAME: usize = 4 * 5 + 1;
/// The end of the name, and what the server tells of itself.
const CONNECT_AFTER_NAME: usize = 2 + 4 + 36;

/// A message's number, how many there are and how many unread, are the mailbox's own. `[MS-OXCROPS] 2.2.6.2, 2.2.14.2`
fn without_counts(body: &[u8]) -> Vec<u8> {
    const MESSAGE: &[u8] = &[1, 0, 0, 0, 0, 3, 0];
    const FOLDER_HAS: &[u8] = &[0x10, 0x30, 1, 0, 0, 0, 0, 0, 0, 13, 0, 0];
    let mut body = body.to_vec();
    for (before, count) in [(MESSAGE, 1), (FOLDER_HAS, 8)] {
        let found: Vec<_> = memchr::memmem::find_iter(&body, before).collect();
        for at in found {
            body[at + before.len()..][..count].fill(0);
        }
    }
    body
}

fn same_body(kind: &str, (name, door): (&str, Door), recorded: &[u8], ours: &[u8]) {
    fn read<T: Body>(bytes: &[u8]) -> T {
        match BodyAnswer::<T>::decode(bytes).unwrap() {
            BodyAnswer::Success(body) => body,
            BodyAnswer::Failure { .. } => panic!("failure"),
        }
    }
    match kind {
        _ if recorded.is_empty() => assert!(ours.is_empty(), "{name}"),
        "Connect" => {
            let theirs: ConnectSuccess = read(recorded);
            let mut ours: ConnectSuccess = read(ours);
            if theirs.error_code == 0 {
                ours.display_name = theirs.display_name.clone();
            }
            assert_eq!(ours, theirs, "{name}");
        }
        // Each server has its own identity.
        "Bind" => assert_eq!(ours.len(), recorded.len(), "{name}"),
        "Execute" if name.contains("roplogon") => {
            assert_eq!(ours.len(), recorded.len(), "{name}");
            assert_eq!(ours[..30], recorded[..30], "{name}");
        }
        "QueryRows" => {
            let (theirs, ours): (QueryRowsSuccess, QueryRowsSuccess) = (read(recorded), read(ours));
            let (theirs_rows, ours_rows) = (theirs.rows.unwrap(), ours.rows.unwrap());
            assert_eq!(ours.state, theirs.state, "{name}");
            assert_eq!(ours_rows.columns, theirs_rows.columns, "{name}");
            assert_eq!(ours_rows.rows.len(), theirs_rows.rows.len(), "{name}");
        }
        "ResolveNames" => {
            let (theirs, ours): (ResolveNamesSuccess, ResolveNamesSuccess) =
                (read(recorded), read(ours));
            assert_eq!(ours.minimal_ids, theirs.minimal_ids, "{name}");
            assert_eq!(ours.code_page, theirs.code_page, "{name}");
            assert_eq!(
                ours.rows.unwrap().rows[0][1],
                theirs.rows.unwrap().rows[0][1],
                "{name}"
            );
        }
        "GetMailboxUrl" | "GetAddressBookUrl" => {
            let (theirs, ours): (UrlSuccess, UrlSuccess) = (read(recorded), read(ours));
            let host = |url: &str| url.split("?MailboxId=").next().unwrap().to_owned();
            let theirs = match door {
                Door::None => theirs.url.to_string(),
                Door::Mapigate { .. } => public_url(&theirs.url.to_string()),
            };
            assert_eq!(host(&ours.url.to_string()), host(&theirs), "{name}");
        }
        _ => assert_eq!(without_counts(ours), without_counts(recorded), "{name}"),
    }
}

/// A URL of a server's own, as clients of mapigate get it.
pub(crate) fn public_url(url: &str) -> String {
    let (_, path) = url.split_once("/mapi/").unwrap();
    format!("https://{HOST}/mapi/{path}")
}
