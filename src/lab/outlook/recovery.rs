//! The rules by which a client opens, executes, waits, and finds its way back.

use super::exchange::{error_code, is_gone};
use super::patience::Patience;
use super::wire::{Answer, Failure, Line};
use super::{Inner, Outcome, Reply, Sent, Trouble, Waited};
use crate::lab::outlook::proof::Proof;
use crate::mapi::bodies::nspi::{BindRequest, BindSuccess, Stat};
use crate::mapi::bodies::{
    Answer as BodyAnswer, Body as _, ConnectRequest, ConnectSuccess, NotificationWaitRequest,
    NotificationWaitSuccess,
};
use crate::mapi::{Endpoint, RequestType};
use crate::outlook::{Request, Session};
use parking_lot::Mutex;

impl Inner {
    pub(super) fn session(&self, endpoint: Endpoint) -> &Mutex<Session> {
        match endpoint {
            Endpoint::Emsmdb => &self.mailbox,
            Endpoint::Nspi => &self.address_book,
        }
    }

    pub(super) fn request(&self, endpoint: Endpoint, kind: RequestType, body: Vec<u8>) -> Request {
        Request {
            kind,
            id: self.session(endpoint).lock().next_id(),
            body,
            headers: Vec::new(),
        }
    }

    /// Opens a context, unless somebody else did since generation `seen`. Old cookies are attached.
    pub(super) async fn open(
        &self,
        endpoint: Endpoint,
        line: &mut Option<Line>,
        seen: u64,
    ) -> Result<(), Trouble> {
        let _one_at_a_time = self.reconnecting.lock().await;
        let session = self.session(endpoint);
        let is_first = {
            let mut session = session.lock();
            if session.generation != seen {
                return Ok(());
            }
            session.opening();
            !session.is_open
        };
        let (kind, body) = match endpoint {
            Endpoint::Emsmdb => (
                RequestType::Connect,
                ConnectRequest::of(&self.options.user_dn).encode(),
            ),
            Endpoint::Nspi => (
                RequestType::Bind,
                BindRequest {
                    state: Some(Stat::start()),
                    ..BindRequest::default()
                }
                .encode(),
            ),
        };
        let mut patience = Patience::new(&self.options);
        loop {
            let request = self.request(endpoint, kind, body.clone());
            // An opening may be repeated: it costs the server an orphan at worst.
            let problem = match self.exchange(endpoint, line, &request, true).await {
                Err(failure) => failure.to_string(),
                Ok(answer) if answer.head.status != 200 => match answer.head.status {
                    status @ (401 | 403 | 404 | 400 | 413) => return Err(Trouble::Status(status)),
                    status => {
                        patience.pause_as_told(&answer).await;
                        format!("status {status}")
                    }
                },
                Ok(answer) => match self.code_of(&answer)? {
                    0 => return self.opened(endpoint, &answer, is_first),
                    code if is_gone(code) => {
                        // A server that knows nothing of the old context may stumble over its cookies.
                        session.lock().forget_cookies();
                        format!("code {code}")
                    }
                    code => return Err(Trouble::Code(code)),
                },
            };
            self.in_trouble();
            patience.next(&problem).await?;
        }
    }

    pub(super) fn opened(
        &self,
        endpoint: Endpoint,
        answer: &Answer,
        is_first: bool,
    ) -> Result<(), Trouble> {
        let tagged = answer.tagged().ok_or(Trouble::Wrong("no DONE"))?;
        let error_code = match endpoint {
            Endpoint::Emsmdb => error_code(&tagged.body, |body: ConnectSuccess| body.error_code)?,
            Endpoint::Nspi => error_code(&tagged.body, |body: BindSuccess| body.error_code)?,
        };
        if error_code != 0 {
            return Err(Trouble::Mapi(error_code));
        }
        let mut session = self.session(endpoint).lock();
        session.opened(&answer.head);
        if !session.has_cookies() {
            return Err(Trouble::Wrong("no cookies"));
        }
        let mut counters = self.counters.lock();
        if is_first {
            counters.connects += 1;
        } else {
            counters.reconnects += 1;
        }
        if endpoint == Endpoint::Emsmdb {
            counters.code10s.push(0);
            counters.waits_told.push(0);
        }
        Ok(())
    }

    pub(super) async fn execute(
        &self,
        line: &mut Option<Line>,
        body: &[u8],
        headers: &[(&'static str, String)],
    ) -> Result<Reply, Trouble> {
        let endpoint = Endpoint::Emsmdb;
        let mut patience = Patience::new(&self.options);
        'contexts: loop {
            let (seen, is_broken) = {
                let session = self.mailbox.lock();
                (session.generation, session.is_broken)
            };
            if is_broken {
                self.open(endpoint, line, seen).await?;
                continue;
            }
            let mut request = self.request(endpoint, RequestType::Execute, body.to_vec());
            request.headers = headers.to_vec();
            let mut entry = self.entry(&request);
            let answer = loop {
                entry.tries += 1;
                let problem = match self.exchange(endpoint, line, &request, true).await {
                    Ok(answer) if answer.head.status == 503 => {
                        self.counters.lock().busy += 1;
                        if answer.head.header("retry-after").is_none() {
                            // Nobody says that it was not executed.
                            break Ok(answer);
                        }
                        patience.pause_as_told(&answer).await;
                        "status 503".to_owned()
                    }
                    Ok(answer) => break Ok(answer),
                    Err(failure @ Failure::Reading(_)) => break Err(failure),
                    // Nothing of it was taken: the same request again. [MS-OXCMAPIHTTP] 3.1.7.1
                    Err(failure) => failure.to_string(),
                };
                self.in_trouble();
                self.counters.lock().resent += 1;
                if let Err(trouble) = patience.next(&problem).await {
                    self.book(entry, Outcome::Failed(problem));
                    return Err(trouble);
                }
                if self.mailbox.lock().is_broken {
                    // The held request was told meanwhile that the session is gone.
                    self.book(entry, Outcome::Failed(problem));
                    continue 'contexts;
                }
            };
            let answer = match answer {
                Ok(answer) => answer,
                Err(failure) => {
                    // Nobody knows whether it was executed: a new context, and not again. 3.1.7.2
                    self.in_trouble();
                    self.mailbox.lock().is_broken = true;
                    self.book(entry, Outcome::Unknown(failure.to_string()));
                    return Err(failure.into());
                }
            };
            let status = answer.head.status;
            if status != 200 {
                self.in_trouble();
                self.mailbox.lock().is_broken |= status >= 500;
                let outcome = match status {
                    500.. => Outcome::Unknown(format!("status {status}")),
                    _ => Outcome::Failed(format!("status {status}")),
                };
                self.book(entry, outcome);
                return Err(Trouble::Status(status));
            }
            let code = self.code_of(&answer)?;
            entry.code = Some(code);
            entry.echoed = answer.head.header("x-requestid").map(ToOwned::to_owned);
            if is_gone(code) {
                self.in_trouble();
                self.code10(seen, code);
                self.book(entry, Outcome::Failed(format!("code {code}")));
                self.open(endpoint, line, seen).await?;
                patience.pause_a_little(&format!("code {code}")).await?;
                continue;
            }
            if code != 0 {
                self.book(entry, Outcome::Failed(format!("code {code}")));
                return Err(Trouble::Code(code));
            }
            return self.executed(entry, &answer);
        }
    }

    pub(super) fn executed(&self, mut entry: Sent, answer: &Answer) -> Result<Reply, Trouble> {
        let read = answer
            .tagged()
            .and_then(|tagged| match BodyAnswer::decode(&tagged.body) {
                Ok(BodyAnswer::Success(body)) => Some((tagged.body.len(), body)),
                _ => None,
            });
        let Some((bytes, body)) = read else {
            self.book(entry, Outcome::Unknown("unreadable body".to_owned()));
            return Err(Trouble::Wrong("unreadable body"));
        };
        let proof = Proof::read(&body);
        entry.answered = proof.as_ref().map(|proof| proof.digest.clone());
        entry.server = proof.map(|proof| proof.server);
        let reply = Reply {
            nonce: entry.nonce.clone(),
            server: entry.server.clone(),
            body,
            bytes,
        };
        let own = entry.echoed.as_deref() == Some(&entry.nonce)
            && entry
                .answered
                .as_ref()
                .is_none_or(|answered| *answered == entry.body);
        self.book(entry, Outcome::Ok);
        match own {
            true => Ok(reply),
            false => Err(Trouble::Wrong("the answer to another request")),
        }
    }

    pub(super) async fn wait(&self, line: &mut Option<Line>) -> Result<Waited, Trouble> {
        let endpoint = Endpoint::Emsmdb;
        let seen = self.mailbox.lock().generation;
        let body = NotificationWaitRequest::default().encode();
        let request = self.request(endpoint, RequestType::NotificationWait, body);
        let answer = self.exchange(endpoint, line, &request, false).await?;
        if answer.head.status != 200 {
            return Err(Trouble::Status(answer.head.status));
        }
        let code = self.code_of(&answer)?;
        if is_gone(code) {
            let mut counters = self.counters.lock();
            counters.waits_lost += 1;
            let position = usize::try_from(seen).unwrap_or(0).wrapping_sub(1);
            if let Some(told) = counters.waits_told.get_mut(position) {
                *told += 1;
            }
            drop(counters);
            let mut session = self.mailbox.lock();
            if session.generation == seen {
                session.is_broken = true;
            }
        }
        if code != 0 {
            return Err(Trouble::Code(code));
        }
        let tagged = answer.tagged().ok_or(Trouble::Wrong("no DONE"))?;
        let BodyAnswer::Success(ended) =
            BodyAnswer::<NotificationWaitSuccess>::decode(&tagged.body)
                .map_err(|_cause| Trouble::Wrong("unreadable body"))?
        else {
            return Err(Trouble::Wrong("failure"));
        };
        self.counters.lock().waits_ended += 1;
        Ok(Waited {
            is_event: ended.event_pending != 0,
            error_code: ended.error_code,
            pending: tagged.tags.iter().filter(|tag| **tag == "PENDING").count(),
        })
    }
}
