//! Requests put together header by header, so that any of them can be wrong.

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;

use super::Subject;
use crate::lab::guid;
use crate::lab::outlook::wire::{Answer, Line};
use crate::mapi::bodies::nspi::{BindRequest, Stat};
use crate::mapi::bodies::rops::{write_chain, write_payload};
use crate::mapi::bodies::{Body as _, ConnectRequest, ExecuteRequest};
use crate::mapi::{Endpoint, ResponseCode, cookies};

/// A session by hand.
#[derive(Clone, Debug)]
pub(super) struct Talk<'a> {
    pub(super) subject: &'a Subject,
    pub(super) endpoint: Endpoint,
    pub(super) cookies: Vec<(String, String)>,
    guid: String,
    counter: u32,
}

/// A request that can still be changed.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl<'a> Talk<'a> {
    pub(super) fn new(subject: &'a Subject, endpoint: Endpoint) -> Self {
        Self {
            subject,
            endpoint,
            cookies: Vec::new(),
            guid: guid().to_uppercase(),
            counter: 0,
        }
    }

    /// A connection and a session opened on it.
    pub(super) async fn opened(
        subject: &'a Subject,
        endpoint: Endpoint,
    ) -> anyhow::Result<(Self, Line)> {
        let mut talk = Self::new(subject, endpoint);
        let mut line = talk.line().await?;
        talk.open(&mut line).await?;
        Ok((talk, line))
    }

    pub(super) async fn line(&self) -> anyhow::Result<Line> {
        Line::connect(&self.subject.target)
            .await
            .context("connecting")
    }

    /// Connects or binds with the cookies at hand, and takes the new ones.
    pub(super) async fn open(&mut self, line: &mut Line) -> anyhow::Result<Answer> {
        let ask = self.opening();
        let answer = ask.send(line).await.context("opening")?;
        let code = self.code(&answer)?;
        ensure!(code == 0, "opening gave code {code}");
        self.cookies.clear();
        self.take(&answer);
        ensure!(
            !self.cookies.is_empty(),
            "opening set no cookies: {}",
            String::from_utf8_lossy(&answer.head.raw)
        );
        Ok(answer)
    }

    pub(super) fn opening(&mut self) -> Ask {
        match self.endpoint {
            Endpoint::Emsmdb => {
                let body = ConnectRequest::of(&self.subject.user_dn).encode();
                self.request("Connect", body)
            }
            Endpoint::Nspi => {
                let body = BindRequest {
                    state: Some(Stat::start()),
                    ..BindRequest::default()
                };
                self.request("Bind", body.encode())
            }
        }
    }

    /// A request that is right in everything.
    pub(super) fn request(&mut self, kind: &str, body: Vec<u8>) -> Ask {
        self.counter += 1;
        let credentials = format!("{}:{}", self.subject.user, self.subject.password);
        let mut headers = vec![
            ("Host", self.subject.target.host.clone()),
            ("Content-Type", "application/mapi-http".to_owned()),
            ("X-RequestType", kind.to_owned()),
            ("X-RequestId", format!("{{{}}}:{}", self.guid, self.counter)),
            ("X-ClientInfo", format!("{{{}}}:1", self.guid)),
            ("X-ClientApplication", "Outlook/16.0.17126.20132".to_owned()),
            ("Authorization", basic(&credentials)),
        ];
        if !self.cookies.is_empty() {
            let cookies: Vec<_> = self
                .cookies
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            headers.push(("Cookie", cookies.join("; ")));
        }
        Ask {
            target: format!(
                "{}?MailboxId={}",
                self.endpoint.path(),
                self.subject.mailbox
            ),
            headers: headers
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            body,
        }
    }

    /// An Execute with operations of no meaning.
    pub(super) fn execute(&mut self) -> Ask {
        self.operations(&[crate::lab::LAB_OPERATION; 20])
    }

    pub(super) fn operations(&mut self, operations: &[u8]) -> Ask {
        let rops = write_chain(&[write_payload(operations, &[u32::MAX])]);
        self.request("Execute", ExecuteRequest::of(rops).encode())
    }

    /// Sends a request, takes the cookies of the answer, and returns code and answer.
    pub(super) async fn ask(&mut self, line: &mut Line, ask: Ask) -> anyhow::Result<(u32, Answer)> {
        let answer = ask.send(line).await?;
        self.take(&answer);
        Ok((self.code(&answer)?, answer))
    }

    /// As [`Self::ask`], and the code must be this one.
    pub(super) async fn expect(
        &mut self,
        line: &mut Line,
        ask: Ask,
        wanted: u32,
    ) -> anyhow::Result<Answer> {
        let (code, answer) = self.ask(line, ask).await?;
        ensure!(
            code == wanted,
            "code {code} instead of {wanted}: {}",
            String::from_utf8_lossy(&answer.head.raw)
        );
        Ok(answer)
    }

    pub(super) fn take(&mut self, answer: &Answer) {
        for line in answer.head.all("set-cookie") {
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
    }

    /// The code that counts, in the specification's numbers.
    pub(super) fn code(&self, answer: &Answer) -> anyhow::Result<u32> {
        ensure!(answer.head.status == 200, "status {}", answer.head.status);
        let Some(code) = answer.code() else {
            bail!(
                "no X-ResponseCode: {}",
                String::from_utf8_lossy(&answer.head.raw)
            );
        };
        Ok(self.subject.numbers.normal(ResponseCode(code)).0)
    }

    /// The name of the cookie that is the context.
    pub(super) fn context_name(&self) -> &'static str {
        self.subject.flavour.cookies().context
    }
}

impl Ask {
    pub(super) fn without(mut self, name: &str) -> Self {
        self.headers
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn by(self, user: &str, password: &str) -> Self {
        self.without("Authorization")
            .with("Authorization", &basic(&format!("{user}:{password}")))
    }

    pub(super) fn to(mut self, target: &str) -> Self {
        target.clone_into(&mut self.target);
        self
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The request's bytes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut head = format!("POST {} HTTP/1.1\r\n", self.target);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", self.body.len()));
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    pub(super) async fn send(&self, line: &mut Line) -> anyhow::Result<Answer> {
        let kind = self.header("X-RequestType").unwrap_or("untyped");
        line.ask(&self.bytes())
            .await
            .with_context(|| kind.to_owned())
    }
}

fn basic(credentials: &str) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(credentials);
    format!("Basic {encoded}")
}
