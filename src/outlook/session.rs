//! One session context as the client knows it: its cookies, its numbers, and how often it was opened.

use super::line::AnswerHead;
use crate::mapi::{Endpoint, RequestType, cookies};

/// How cookies are sent back. Both are in the specification's samples. `[MS-OXCMAPIHTTP] 4.2`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieLines {
    /// All in one `Cookie` line.
    One,
    /// A `Cookie` line for each.
    Each,
}

/// The client's side of a session context. Each endpoint has its own.
#[derive(Clone, Debug)]
pub struct Session {
    /// The endpoint it is a session of.
    pub endpoint: Endpoint,
    cookies: Vec<(String, String)>,
    /// Counts openings; a request remembers under which it was sent.
    pub generation: u64,
    /// Answers whose cookies were taken.
    pub answers: u64,
    /// The context must be opened anew before the next request.
    pub is_broken: bool,
    /// A context is open, as far as the client was told.
    pub is_open: bool,
    guid: String,
    counter: u64,
    client: String,
    client_counter: u64,
}

impl Session {
    /// No context yet.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            cookies: Vec::new(),
            generation: 0,
            answers: 0,
            is_broken: false,
            is_open: false,
            guid: guid().to_uppercase(),
            counter: 0,
            client: guid().to_uppercase(),
            client_counter: 0,
        }
    }

    /// A context is about to be opened: its requests are counted anew, under a new GUID.
    pub fn opening(&mut self) {
        self.guid = guid().to_uppercase();
        self.counter = 0;
        self.client_counter += 1;
    }

    /// The next `X-RequestId`: unique over the life of the client, rising. `[MS-OXCMAPIHTTP] 2.2.3.3.2`
    pub fn next_id(&mut self) -> String {
        self.counter += 1;
        format!("{{{}}}:{}", self.guid, self.counter)
    }

    /// `X-ClientInfo`: the counter is new for each context. `[MS-OXCMAPIHTTP] 2.2.3.3.4`
    pub fn client_info(&self) -> String {
        format!("{{{}}}:{}", self.client, self.client_counter)
    }

    /// Takes the cookies of an answer: each replaces the one of its name.
    pub fn take(&mut self, head: &AnswerHead) {
        for line in head.all("set-cookie") {
            let Some((name, value)) = cookies::set_cookie(line.as_bytes()) else {
                continue;
            };
            let name = String::from_utf8_lossy(name).into_owned();
            let value = String::from_utf8_lossy(value).into_owned();
            match self.cookies.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value,
                None => self.cookies.push((name, value)),
            }
        }
        self.answers += 1;
    }

    /// A new context was opened: nothing of the old one is kept. `[MS-OXCMAPIHTTP] 3.2.5.6`
    pub fn opened(&mut self, head: &AnswerHead) {
        self.cookies.clear();
        self.take(head);
        self.generation += 1;
        self.is_open = true;
        self.is_broken = false;
    }

    /// Goes on without the cookies of the context that was.
    pub fn forget_cookies(&mut self) {
        self.cookies.clear();
    }

    /// The context is gone.
    pub fn closed(&mut self) {
        self.cookies.clear();
        self.is_open = false;
        self.is_broken = false;
    }

    /// There is a cookie to be sent.
    pub fn has_cookies(&self) -> bool {
        !self.cookies.is_empty()
    }

    /// Names and values of the cookies that would be sent now.
    pub fn cookies(&self) -> Vec<(String, String)> {
        self.cookies.clone()
    }

    /// Replaces the cookies that would be sent.
    pub fn set_cookies(&mut self, cookies: Vec<(String, String)>) {
        self.cookies = cookies;
    }
}

/// One request, before it is written.
#[derive(Clone, Debug)]
pub struct Request {
    /// What it asks for.
    pub kind: RequestType,
    /// Its `X-RequestId`.
    pub id: String,
    /// Its body.
    pub body: Vec<u8>,
    /// Headers of its own.
    pub headers: Vec<(&'static str, String)>,
}

/// What every request of a client carries.
#[derive(Clone)]
pub struct Letterhead {
    /// The value of `Host`.
    pub host: String,
    /// Path and query of each endpoint's URL, by the endpoint's index; clients use them as they are told.
    pub targets: [String; 2],
    /// The program that asks.
    pub user_agent: &'static str,
    /// The value of `Authorization`.
    pub authorization: Option<String>,
    /// How cookies are sent back.
    pub cookie_lines: CookieLines,
    /// Further headers.
    pub more: Vec<(String, String)>,
}

// Credentials are in it.
impl std::fmt::Debug for Letterhead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Letterhead")
            .field("host", &self.host)
            .field("targets", &self.targets)
            .finish_non_exhaustive()
    }
}

impl Letterhead {
    /// Both targets of a mailbox, as every server of ours spells them.
    pub fn targets_of(mailbox: &str) -> [String; 2] {
        Endpoint::ALL.map(|endpoint| format!("{}?MailboxId={mailbox}", endpoint.path()))
    }

    /// The request's bytes, with the session's cookies of this moment.
    pub fn write(&self, session: &Session, request: &Request) -> Vec<u8> {
        use std::fmt::Write as _;
        let mut head = String::with_capacity(1024);
        let mut line = |name: &str, value: &str| {
            let _ = write!(head, "{name}: {value}\r\n");
        };
        line("Host", &self.host);
        line("User-Agent", self.user_agent);
        line("Content-Type", "application/mapi-http");
        line("Accept", "application/mapi-http");
        line("X-RequestType", request.kind.as_str());
        line("X-ClientInfo", &session.client_info());
        line("X-RequestId", &request.id);
        line("X-ClientApplication", "Outlook/16.0.17126.20132");
        for (name, value) in &request.headers {
            line(name, value);
        }
        for (name, value) in &self.more {
            line(name, value);
        }
        if let Some(authorization) = &self.authorization {
            line("Authorization", authorization);
        }
        let cookies: Vec<String> = session
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        match self.cookie_lines {
            CookieLines::One if cookies.is_empty() => {}
            CookieLines::One => line("Cookie", &cookies.join("; ")),
            CookieLines::Each => cookies.iter().for_each(|cookie| line("Cookie", cookie)),
        }
        line("Content-Length", &request.body.len().to_string());
        let [mailbox, book] = &self.targets;
        let target = match session.endpoint {
            Endpoint::Emsmdb => mailbox,
            Endpoint::Nspi => book,
        };
        let mut bytes = format!("POST {target} HTTP/1.1\r\n").into_bytes();
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&request.body);
        bytes
    }
}

/// A random GUID, as the protocol writes it without braces.
pub fn guid() -> String {
    let bits = fastrand::u128(..);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        bits >> 96,
        (bits >> 80) & 0xffff,
        (bits >> 64) & 0xffff,
        (bits >> 48) & 0xffff,
        bits & 0xffff_ffff_ffff,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(cookies: &[&str]) -> AnswerHead {
        AnswerHead {
            headers: cookies
                .iter()
                .map(|cookie| ("Set-Cookie".to_owned(), (*cookie).to_owned()))
                .collect(),
            ..AnswerHead::default()
        }
    }

    #[test]
    fn a_new_context_keeps_no_cookie_of_the_old_one() {
        let mut session = Session::new(Endpoint::Emsmdb);
        session.opened(&head(&["sid=1", "sequence=a"]));
        session.take(&head(&["sequence=b"]));
        assert_eq!(session.cookies()[1].1, "b");

        session.opened(&head(&["MapiContext=x=; path=/mapi/emsmdb; secure"]));

        assert_eq!(
            session.cookies(),
            [("MapiContext".to_owned(), "x=".to_owned())]
        );
    }
}
