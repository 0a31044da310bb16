//! The gromox flavour answers recorded requests as gromox did: code, headers in their order, framing, bodies.

use std::collections::HashMap;

use base64::Engine as _;
use mapigate::ids::UserName;
use mapigate::lab::mailbox_server::Users;
use mapigate::lab::outlook::Target;
use mapigate::lab::outlook::wire::{Answer, Line};
use mapigate::mapi::bodies::nspi::{QueryRowsSuccess, ResolveNamesSuccess, UrlSuccess};
use mapigate::mapi::bodies::{Answer as BodyAnswer, Body, ConnectRequest, ConnectSuccess};
use mapigate::mapi::{Flavour, cookies};

use crate::{options, server};

#[derive(Debug, Default)]
struct Recorded {
    name: String,
    user: String,
    request: Vec<String>,
    body: Vec<u8>,
    status: String,
    headers: Vec<(String, String)>,
    wire: Vec<u8>,
}

impl Recorded {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for line in include_str!("../captures/gromox.txt").lines() {
            let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
            if mark == "==" {
                all.push(Self {
                    name: rest.to_owned(),
                    ..Self::default()
                });
                continue;
            }
            let Some(last) = all.last_mut() else { continue };
            match mark {
                "as" => last.user = rest.to_owned(),
                ">" => last.request.push(rest.to_owned()),
                ">>" => last.body.extend(unhex(rest)),
                "<" if last.status.is_empty() => last.status = rest.to_owned(),
                "<" => {
                    let (name, value) = rest.split_once(": ").unwrap();
                    last.headers.push((name.to_owned(), value.to_owned()));
                }
                "<<" => last.wire.extend(unhex(rest)),
                _ => {}
            }
        }
        all
    }

    fn kind(&self) -> &str {
        self.request
            .iter()
            .find_map(|line| line.strip_prefix("X-RequestType: "))
            .unwrap_or_default()
    }

    fn cookies(&self) -> Vec<(String, String)> {
        let line = self
            .request
            .iter()
            .find_map(|line| line.strip_prefix("Cookie: "));
        line.map(|line| owned(cookies::pairs(line.as_bytes())))
            .unwrap_or_default()
    }

    fn set_cookies(&self) -> Vec<(String, String)> {
        set_cookies(&self.headers)
    }

    /// The request with the cookies of the living and somebody's credentials.
    fn bytes(&self, living: &HashMap<String, String>) -> Vec<u8> {
        let mut head = String::new();
        for line in &self.request {
            if line.starts_with("Cookie: ") {
                let pairs: Vec<_> = self
                    .cookies()
                    .iter()
                    .map(|(name, value)| format!("{name}={}", living.get(value).unwrap_or(value)))
                    .collect();
                head.push_str(&format!("Cookie: {}\r\n", pairs.join("; ")));
            } else {
                head.push_str(&format!("{line}\r\n"));
            }
        }
        if self.user != "nobody" {
            let (user, password) = self.user.split_once(':').unwrap_or((&self.user, "secret"));
            let credentials = format!("{user}@org.test:{password}");
            let credentials = base64::engine::general_purpose::STANDARD.encode(credentials);
            head.push_str(&format!("Authorization: Basic {credentials}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", self.body.len()));
        [head.as_bytes(), &self.body].concat()
    }

    /// The recorded body as chunks, or as one piece.
    fn pieces(&self) -> Vec<Vec<u8>> {
        let is_chunked = self
            .headers
            .iter()
            .any(|(name, _)| name == "Transfer-Encoding");
        if !is_chunked {
            return vec![self.wire.clone()];
        }
        let mut pieces = Vec::new();
        let mut rest = &self.wire[..];
        loop {
            let end = memchr::memmem::find(rest, b"\r\n").unwrap();
            let size =
                usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
            if size == 0 {
                return pieces;
            }
            pieces.push(rest[end + 2..end + 2 + size].to_vec());
            rest = &rest[end + 2 + size + 2..];
        }
    }
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn owned<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<(String, String)> {
    pairs
        .map(|(name, value)| {
            (
                String::from_utf8_lossy(name).into_owned(),
                String::from_utf8_lossy(value).into_owned(),
            )
        })
        .collect()
}

fn set_cookies(headers: &[(String, String)]) -> Vec<(String, String)> {
    owned(
        headers
            .iter()
            .filter(|(name, _)| name == "Set-Cookie")
            .filter_map(|(_, value)| cookies::set_cookie(value.as_bytes())),
    )
}

/// What may differ between two answers to the same request is made the same.
fn comparable(headers: &[(String, String)]) -> Vec<String> {
    let is_page = headers.iter().any(|(_, value)| value == "text/html");
    headers
        .iter()
        .map(|(name, value)| match name.as_str() {
            "Date" => name.clone(),
            "Content-Length" if is_page => name.clone(),
            "Set-Cookie" => format!("{name}: {}", value.split('=').next().unwrap()),
            _ => format!("{name}: {value}"),
        })
        .collect()
}

/// The text before the binary part, times left out, and the binary part.
fn parts(piece: &[u8]) -> (Vec<String>, Vec<u8>) {
    if !piece.starts_with(b"PROCESSING") && !piece.starts_with(b"DONE") {
        return (Vec::new(), piece.to_vec());
    }
    let end = memchr::memmem::find(piece, b"\r\n\r\n").map_or(piece.len(), |end| end + 4);
    let text = String::from_utf8(piece[..end].to_vec()).unwrap();
    let lines = text
        .split("\r\n")
        .map(|line| match line.split_once(": ") {
            Some((name @ ("X-StartTime" | "X-ElapsedTime"), _)) => name.to_owned(),
            _ => line.to_owned(),
        })
        .collect();
    (lines, piece[end..].to_vec())
}

fn same_body(kind: &str, name: &str, recorded: &[u8], ours: &[u8]) {
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
            let host = |url: &UrlSuccess| {
                url.url
                    .to_string()
                    .split("?MailboxId=")
                    .next()
                    .unwrap()
                    .to_owned()
            };
            assert_eq!(host(&ours), host(&theirs), "{name}");
        }
        _ => assert_eq!(ours, recorded, "{name}"),
    }
}

fn same(recorded: &Recorded, ours: &Answer) {
    let name = &recorded.name;
    let status = String::from_utf8_lossy(&ours.head.raw);
    assert_eq!(
        status.split("\r\n").next(),
        Some(&*recorded.status),
        "{name}"
    );
    assert_eq!(
        comparable(&ours.head.headers),
        comparable(&recorded.headers),
        "{name}"
    );
    if recorded.wire.is_empty() {
        return; // a page of HTML
    }
    let theirs = recorded.pieces();
    assert_eq!(ours.pieces.len(), theirs.len(), "{name}: chunks");
    for (ours, theirs) in ours.pieces.iter().zip(&theirs) {
        let ((ours, our_body), (theirs, their_body)) = (parts(ours), parts(theirs));
        assert_eq!(ours, theirs, "{name}");
        same_body(recorded.kind(), name, &their_body, &our_body);
    }
}

fn learn(recorded: &Recorded, ours: &Answer, living: &mut HashMap<String, String>) {
    for ((name, theirs), (our_name, value)) in recorded
        .set_cookies()
        .into_iter()
        .zip(set_cookies(&ours.head.headers))
    {
        assert_eq!(name, our_name);
        living.insert(theirs, value);
    }
}

#[tokio::test]
async fn recorded_requests_are_answered_as_gromox_answered_them() {
    let mut options = options(Flavour::Gromox);
    options.host = "mbx1.org.test".to_owned();
    options.checks_dn = true;
    options.users = Users::Listed(
        ["user1", "bob", "carol", "dave"]
            .map(|name| {
                (
                    UserName::new(format!("{name}@org.test")),
                    "secret".to_owned(),
                )
            })
            .into(),
    );
    let server = server(options).await;
    let target = Target {
        address: server.address(),
        host: server.address().to_string(),
        tls: None,
    };
    let all = Recorded::all();
    assert_eq!(all.len(), 34);
    let mut living = HashMap::new();
    let mut line = Line::connect(&target).await.unwrap();
    let mut held: Option<(&Recorded, Line)> = None;

    for recorded in &all {
        open_what_was_open(recorded, &all, &mut line, &mut living).await;
        if recorded.kind() == "NotificationWait" {
            let mut waiting = Line::connect(&target).await.unwrap();
            waiting.send(&recorded.bytes(&living)).await.unwrap();
            crate::eventually("held", || server.counters().waits_held == 1).await;
            held = Some((recorded, waiting));
            continue;
        }

        let answer = line.ask(&recorded.bytes(&living)).await.unwrap();
        same(recorded, &answer);
        learn(recorded, &answer, &mut living);

        if recorded.name.contains("create-save") {
            let (recorded, mut waiting) = held.take().unwrap();
            same(recorded, &waiting.answer().await.unwrap());
        }
    }
    assert!(held.is_none());
}

/// Sessions whose beginning was not recorded are opened before their first request.
async fn open_what_was_open(
    recorded: &Recorded,
    all: &[Recorded],
    line: &mut Line,
    living: &mut HashMap<String, String>,
) {
    let cookies = recorded.cookies();
    let Some((_, context)) = cookies.iter().find(|(name, _)| name == "sid") else {
        return;
    };
    let is_invented = context.bytes().all(|byte| byte == b'0');
    if is_invented || living.contains_key(context) {
        return;
    }
    let connect = all
        .iter()
        .find(|recorded| recorded.name == "07-connect")
        .unwrap();
    let opened = line.ask(&connect.bytes(living)).await.unwrap();
    for ((_, theirs), (_, ours)) in cookies.iter().zip(set_cookies(&opened.head.headers)) {
        living.insert(theirs.clone(), ours);
    }
}

#[test]
fn recorded_bodies_read_and_write_back_the_same() {
    for recorded in Recorded::all() {
        match recorded.kind() {
            "Connect" => {
                let body = ConnectRequest::decode(&recorded.body).unwrap();
                assert_eq!(body.encode(), recorded.body);
            }
            "Execute" if recorded.body.len() > 2 => {
                let body = mapigate::mapi::bodies::ExecuteRequest::decode(&recorded.body).unwrap();
                assert_eq!(body.encode(), recorded.body);
                mapigate::mapi::bodies::rops::read_chain(&body.rop_buffer).unwrap();
            }
            _ => {}
        }
        if recorded.status.contains("200 OK") && recorded.kind() == "QueryRows" {
            let body = recorded.pieces().pop().unwrap();
            let read = BodyAnswer::<QueryRowsSuccess>::decode(&body).unwrap();
            assert_eq!(read.encode(), body);
        }
    }
}
