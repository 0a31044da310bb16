//! One session context as the client knows it: its cookies, its numbers, and how often it was opened.

use crate::lab::guid;
use crate::lab::outlook::wire::AnswerHead;
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
pub(super) struct Session {
    pub(super) endpoint: Endpoint,
    cookies: Vec<(String, String)>,
    /// Counts openings; a request remembers under which it was sent.
    pub(super) generation: u64,
    /// Answers whose cookies were taken.
    pub(super) answers: u64,
    /// The context must be opened anew before the next request.
    pub(super) is_broken: bool,
    pub(super) is_open: bool,
    guid: String,
    counter: u64,
    client: String,
    client_counter: u64,
}

impl Session {
    pub(super) fn new(endpoint: Endpoint) -> Self {
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
    pub(super) fn opening(&mut self) {
        self.guid = guid().to_uppercase();
        self.counter = 0;
        self.client_counter += 1;
    }

    /// The next `X-RequestId`: unique over the life of the client, rising. `[MS-OXCMAPIHTTP] 2.2.3.3.2`
    pub(super) fn next_id(&mut self) -> String {
        self.counter += 1;
        format!("{{{}}}:{}", self.guid, self.counter)
    }

    /// `X-ClientInfo`: the counter is new for each context. `[MS-OXCMAPIHTTP] 2.2.3.3.4`
    pub(super) fn client_info(&self) -> String {
        format!("{{{}}}:{}", self.client, self.client_counter)
    }

    /// Takes the cookies of an answer: each replaces the one of its name.
    pub(super) fn take(&mut self, head: &AnswerHead) {
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
    pub(super) fn opened(&mut self, head: &AnswerHead) {
        self.cookies.clear();
        self.take(head);
        self.generation += 1;
        self.is_open = true;
        self.is_broken = false;
    }

    pub(super) fn forget_cookies(&mut self) {
        self.cookies.clear();
    }

    pub(super) fn closed(&mut self) {
        self.cookies.clear();
        self.is_open = false;
        self.is_broken = false;
    }

    pub(super) fn has_cookies(&self) -> bool {
        !self.cookies.is_empty()
    }

    pub(super) fn cookies(&self) -> Vec<(String, String)> {
        self.cookies.clone()
    }

    pub(super) fn set_cookies(&mut self, cookies: Vec<(String, String)>) {
        self.cookies = cookies;
    }
}

/// One request, before it is written.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) kind: RequestType,
    pub(super) id: String,
    pub(super) body: Vec<u8>,
    pub(super) headers: Vec<(&'static str, String)>,
}

/// What every request of a client carries.
#[derive(Clone, Debug)]
pub(super) struct Letterhead {
    pub(super) host: String,
    pub(super) mailbox: String,
    pub(super) authorization: Option<String>,
    pub(super) cookie_lines: CookieLines,
    pub(super) more: Vec<(String, String)>,
}

impl Letterhead {
    /// The request's bytes, with the session's cookies of this moment.
    pub(super) fn write(&self, session: &Session, request: &Request) -> Vec<u8> {
        use std::fmt::Write as _;
        let mut head = String::with_capacity(1024);
        let mut line = |name: &str, value: &str| {
            let _ = write!(head, "{name}: {value}\r\n");
        };
        line("Host", &self.host);
        line(
            "User-Agent",
            "Microsoft Office/16.0 (Windows NT 10.0; MAPI 16.0.17126; Pro)",
        );
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
        let first = format!(
            "POST {}?MailboxId={} HTTP/1.1\r\n",
            session.endpoint.path(),
            self.mailbox
        );
        let mut bytes = first.into_bytes();
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&request.body);
        bytes
    }
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
