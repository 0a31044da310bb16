//! One request and its answer, with the session's cookies going out and coming in.
#![expect(
    clippy::disallowed_methods,
    reason = "a client has patience, and the lab measures how much"
)]

use std::io;

use tokio::time::{Instant, timeout, timeout_at};

use super::wire::{Answer, AnswerHead, Failure, Line};
use super::{Counters, Inner, Outcome, Sent, Trouble};
use crate::ids::UserName;
use crate::lab::tap::Tap;
use crate::lab::{digest, hex, unix_micros};
use crate::mapi::bodies::{Answer as BodyAnswer, Body};
use crate::mapi::{Endpoint, RequestType, ResponseCode};
use crate::outlook::Request;

impl Inner {
    /// One try, and one more where nothing was sent: for requests that need no books.
    pub(super) async fn once(
        &self,
        endpoint: Endpoint,
        line: &mut Option<Line>,
        request: &Request,
    ) -> Result<Answer, Trouble> {
        let answer = match self.exchange(endpoint, line, request, true).await {
            Err(Failure::Connecting(_) | Failure::Sending(_)) => {
                self.exchange(endpoint, line, request, true).await?
            }
            answer => answer?,
        };
        match answer.head.status {
            200 => Ok(answer),
            status => Err(Trouble::Status(status)),
        }
    }

    /// Sends a request with the cookies of this moment and reads the answer, on a new connection where the old
    /// one is dead. A line that failed is not used again.
    pub(super) async fn exchange(
        &self,
        endpoint: Endpoint,
        line: &mut Option<Line>,
        request: &Request,
        is_ordinary: bool,
    ) -> Result<Answer, Failure> {
        let mut usable = match still_good(line.take()).await {
            Some(old) => old,
            None => {
                let new = Line::connect(&self.options.target);
                let mut new = timeout(self.options.answer_timeout, new)
                    .await
                    .unwrap_or_else(|_| Err(Failure::Connecting(late())))?;
                new.let_hear(self.options.tap.as_ref().map(Tap::connection));
                self.counters.lock().connections += 1;
                new
            }
        };
        let (bytes, generation, answers) = {
            let session = self.session(endpoint).lock();
            let bytes = self.letterhead.write(&session, request);
            (bytes, session.generation, session.answers)
        };
        usable.send(&bytes).await?;
        let deadline = match is_ordinary {
            true => self.options.answer_timeout,
            false => self.options.wait_timeout,
        };
        let end = Instant::now() + deadline;
        let head = timeout(deadline, usable.head())
            .await
            .unwrap_or_else(|_| Err(Failure::Reading(late())))?;
        self.take_cookies(endpoint, &head, request.kind, generation, answers);
        let mut pieces = Vec::new();
        loop {
            let piece = timeout_at(end, usable.piece())
                .await
                .unwrap_or_else(|_| Err(Failure::Reading(late())))?;
            match piece {
                Some(piece) => pieces.push(piece),
                None => break,
            }
        }
        *line = Some(usable);
        Ok(Answer { head, pieces })
    }

    /// Keeps the cookies of an answer, unless they are of an older context or older than an answer since.
    pub(super) fn take_cookies(
        &self,
        endpoint: Endpoint,
        head: &AnswerHead,
        kind: RequestType,
        generation: u64,
        answers: u64,
    ) {
        let mut session = self.session(endpoint).lock();
        // Openings replace every cookie, once their body says that they succeeded.
        if kind.opens_session() || session.generation != generation {
            return;
        }
        if kind.is_held() && session.answers != answers {
            return;
        }
        session.take(head);
    }

    pub(super) fn code_of(&self, answer: &Answer) -> Result<u32, Trouble> {
        let code = answer.code().ok_or(Trouble::Wrong("no X-ResponseCode"))?;
        Ok(self.options.numbers.normal(ResponseCode(code)).0)
    }

    pub(super) fn entry(&self, request: &Request) -> Sent {
        Sent {
            nonce: request.id.clone(),
            user: UserName::new(self.options.user.to_ascii_lowercase()),
            mailbox: self.options.mailbox.to_ascii_lowercase(),
            body: hex(&digest(&request.body)),
            sent: unix_micros(),
            ended: 0,
            outcome: Outcome::Ok,
            code: None,
            echoed: None,
            answered: None,
            server: None,
            tries: 0,
        }
    }

    pub(super) fn book(&self, mut entry: Sent, outcome: Outcome) {
        entry.ended = unix_micros();
        let mut counters = self.counters.lock();
        match &outcome {
            Outcome::Ok => {
                counters.executes_ok += 1;
                if counters.latencies.len() < Counters::LATENCIES_MAX {
                    counters.latencies.push(entry.ended - entry.sent);
                }
                if let Some(since) = self.trouble_since.lock().take() {
                    counters.recoveries.push(entry.ended.saturating_sub(since));
                }
            }
            Outcome::Failed(_) => counters.executes_failed += 1,
            Outcome::Unknown(_) => counters.executes_unknown += 1,
        }
        entry.outcome = outcome;
        let mut journal = self.journal.lock();
        if journal.len() < Counters::SENT_MAX {
            journal.push(entry);
        } else {
            counters.sent_left_out += 1;
        }
    }

    pub(super) fn in_trouble(&self) {
        self.trouble_since.lock().get_or_insert_with(unix_micros);
    }

    pub(super) fn code10(&self, generation: u64, code: u32) {
        let mut counters = self.counters.lock();
        let position = usize::try_from(generation).unwrap_or(0).wrapping_sub(1);
        if let Some(count) = counters.code10s.get_mut(position)
            && code == ResponseCode::CONTEXT_NOT_FOUND.0
        {
            *count += 1;
        }
    }
}

/// Codes after which a client opens the context anew: gone, malformed, missing, out of sequence.
pub(super) fn is_gone(code: u32) -> bool {
    matches!(code, 6 | 10 | 13 | 15)
}

fn late() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

/// The connection, if a request may still be sent on it.
async fn still_good(line: Option<Line>) -> Option<Line> {
    let mut line = line?;
    match line.is_dead().await {
        true => None,
        false => Some(line),
    }
}

pub(super) fn error_code<T: Body>(body: &[u8], of: impl Fn(T) -> u32) -> Result<u32, Trouble> {
    match BodyAnswer::<T>::decode(body) {
        Ok(BodyAnswer::Success(success)) => Ok(of(success)),
        Ok(BodyAnswer::Failure { status_code, .. }) => Err(Trouble::Mapi(status_code)),
        Err(_) => Err(Trouble::Wrong("unreadable body")),
    }
}
