//! Questions about answers that come in pieces, and about requests that are held.
#![expect(
    clippy::disallowed_methods,
    reason = "how long a request is held is part of the answer"
)]

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::time::{Instant, timeout};

use super::Subject;
use super::talk::Talk;
use crate::lab::outlook::wire::{Answer, Line};
use crate::mapi::bodies::rops::read_chain;
use crate::mapi::bodies::{
    Answer as BodyAnswer, Body as _, ExecuteSuccess, NotificationWaitRequest,
    NotificationWaitSuccess,
};
use crate::mapi::{Endpoint, Flavour};

const EMSMDB: Endpoint = Endpoint::Emsmdb;

/// Asks for events.
const REGISTER: [u8; 7] = [0x29, 0, 0, 1, 0xfe, 0, 1];
/// Creates and saves a message.
const SAVE: [u8; 14] = [6, 0, 0, 1, 0xff, 0x0f, 1, 0, 0, 0, 0, 0, 0, 13];

/// What comes soon comes within this time, on a machine that has other things to do.
const SOON: Duration = Duration::from_secs(2);

pub(super) async fn tc08_the_stream_begins_with_processing_and_ends_with_done(
    subject: &Subject,
) -> anyhow::Result<()> {
    let (mut talk, mut line) = Talk::opened(subject, EMSMDB).await?;
    let ask = talk.execute();
    let answer = talk.expect(&mut line, ask, 0).await?;
    let tagged = answer.tagged().context("no DONE")?;
    ensure!(
        tagged.tags.first() == Some(&"PROCESSING") && tagged.tags.last() == Some(&"DONE"),
        "tags {:?}",
        tagged.tags
    );
    for name in ["X-ElapsedTime", "X-StartTime"] {
        ensure!(
            tagged.headers.iter().any(|(known, _)| known == name),
            "no {name} behind DONE"
        );
    }
    Ok(())
}

pub(super) async fn tc08_execute_is_chunked_without_a_length(
    subject: &Subject,
) -> anyhow::Result<()> {
    let (mut talk, mut line) = Talk::opened(subject, EMSMDB).await?;
    let ask = talk.execute();
    let answer = talk.expect(&mut line, ask, 0).await?;
    ensure!(answer.head.is_chunked(), "not chunked");
    ensure!(
        answer.head.header("content-length").is_none(),
        "has a Content-Length"
    );
    ensure!(
        answer.head.header("content-type") == Some("application/mapi-http"),
        "Content-Type {:?}",
        answer.head.header("content-type")
    );
    ensure!(
        answer.head.header("content-encoding").is_none(),
        "is compressed"
    );
    Ok(())
}

pub(super) async fn tc08_a_large_answer_arrives_whole(subject: &Subject) -> anyhow::Result<()> {
    let (mut talk, mut line) = Talk::opened(subject, EMSMDB).await?;
    for bytes in [10, 4096, 262_144, 2 << 20] {
        let ask = talk
            .execute()
            .with("X-Lab-Answer-Bytes", &bytes.to_string());
        let answer = talk.expect(&mut line, ask, 0).await?;
        let body = answer.tagged().context("no DONE")?.body;
        let BodyAnswer::Success(body) = BodyAnswer::<ExecuteSuccess>::decode(&body)? else {
            anyhow::bail!("failure");
        };
        let got = body.rop_buffer.len();
        // The proof of whose answer it is takes room of its own, and so does a block.
        ensure!(got.abs_diff(bytes) <= 48, "{got} bytes instead of {bytes}");
        read_chain(&body.rop_buffer)?;
    }
    Ok(())
}

pub(super) async fn tc09_an_event_ends_the_wait_and_is_collected(
    subject: &Subject,
) -> anyhow::Result<()> {
    let (mut talk, mut line) = Talk::opened(subject, EMSMDB).await?;
    let ask = talk.operations(&REGISTER);
    talk.expect(&mut line, ask, 0).await?;
    let (mut other, mut others) = Talk::opened(subject, EMSMDB).await?;

    let mut held = Held::begin(&mut talk).await?;
    let ask = other.operations(&SAVE);
    other.expect(&mut others, ask, 0).await?;
    let waited = held.end(SOON).await?;
    ensure!(
        waited.event_pending == 1,
        "EventPending {}",
        waited.event_pending
    );

    let ask = talk.operations(&[]);
    let answer = talk.expect(&mut line, ask, 0).await?;
    let body = answer.tagged().context("no DONE")?.body;
    ensure!(body.contains(&0x2a), "no RopNotify collected");
    Ok(())
}

pub(super) async fn tc10_a_quiet_wait_lasts_and_shows_that_it_lives(
    subject: &Subject,
) -> anyhow::Result<()> {
    let (mut talk, _line) = Talk::opened(subject, EMSMDB).await?;
    let begun = Instant::now();
    let mut held = Held::begin(&mut talk).await?;
    let waited = held.end(subject.wait_limit + SOON).await?;
    let lasted = begun.elapsed();

    ensure!(
        waited.event_pending == 0,
        "EventPending {}",
        waited.event_pending
    );
    ensure!(lasted >= subject.wait_limit, "ended after {lasted:?}");
    let tagged = held.answer.tagged().context("no DONE")?;
    let middle = tagged
        .tags
        .get(1..tagged.tags.len().saturating_sub(1))
        .unwrap_or_default();
    let pending = middle.iter().filter(|tag| **tag == "PENDING").count();
    let expected = subject.wait_limit.as_millis() / subject.pending_period.as_millis();
    ensure!(
        pending.abs_diff(usize::try_from(expected)?) <= 1,
        "{pending} PENDING in {lasted:?}"
    );
    // gromox says PROCESSING once more before DONE.
    let others = middle.len() - pending;
    let allowed = usize::from(subject.flavour == Flavour::Gromox);
    ensure!(others <= allowed, "tags {:?}", tagged.tags);
    // Each came by itself, not all at the end.
    ensure!(
        held.arrivals.len() >= pending,
        "{} pieces for {pending} PENDING",
        held.arrivals.len()
    );
    Ok(())
}

pub(super) async fn processing_comes_at_once(subject: &Subject) -> anyhow::Result<()> {
    let (mut talk, _line) = Talk::opened(subject, EMSMDB).await?;
    let begun = Instant::now();
    let held = Held::begin(&mut talk).await?;
    let took = begun.elapsed();
    ensure!(
        held.answer.body().starts_with(b"PROCESSING\r\n"),
        "begins with {:?}",
        String::from_utf8_lossy(&held.answer.body())
    );
    // Long before the first PENDING, and before anything else happened.
    ensure!(took < subject.wait_limit, "after {took:?}");
    Ok(())
}

pub(super) async fn an_execute_runs_beside_a_wait(subject: &Subject) -> anyhow::Result<()> {
    let (mut talk, mut line) = Talk::opened(subject, EMSMDB).await?;
    let mut held = Held::begin(&mut talk).await?;
    let ask = talk.execute();
    talk.expect(&mut line, ask, 0).await?;
    let ask = talk.request("PING", Vec::new());
    talk.expect(&mut line, ask, 0).await?;
    let waited = held.end(subject.wait_limit + SOON).await?;
    ensure!(waited.error_code == 0, "ErrorCode {:#x}", waited.error_code);
    Ok(())
}

pub(super) async fn a_second_wait_is_rejected(subject: &Subject) -> anyhow::Result<()> {
    let (mut talk, mut line) = Talk::opened(subject, EMSMDB).await?;
    let _held = Held::begin(&mut talk).await?;
    let ask = talk.request(
        "NotificationWait",
        NotificationWaitRequest::default().encode(),
    );
    let answer = talk.expect(&mut line, ask, 0).await?;
    let waited = read(&answer)?;
    ensure!(
        waited.error_code == 0x7ee,
        "ErrorCode {:#x}",
        waited.error_code
    );
    Ok(())
}

pub(super) async fn after_a_client_left_its_wait_executes_go_on(
    subject: &Subject,
) -> anyhow::Result<()> {
    let (mut talk, mut line) = Talk::opened(subject, EMSMDB).await?;
    let held = Held::begin(&mut talk).await?;
    drop(held);
    for _ in 0..3 {
        let ask = talk.execute();
        talk.expect(&mut line, ask, 0).await?;
    }
    Ok(())
}

/// A request being held, on a connection of its own.
struct Held {
    line: Line,
    answer: Answer,
    /// When each piece came.
    arrivals: Vec<Instant>,
}

impl Held {
    /// Sends the request and reads up to the first piece.
    async fn begin(talk: &mut Talk<'_>) -> anyhow::Result<Self> {
        let mut line = talk.line().await?;
        let ask = talk.request(
            "NotificationWait",
            NotificationWaitRequest::default().encode(),
        );
        line.send(&ask.bytes()).await?;
        let head = timeout(SOON, line.head()).await.context("no head soon")??;
        let mut held = Self {
            line,
            answer: Answer {
                head,
                pieces: Vec::new(),
            },
            arrivals: Vec::new(),
        };
        ensure!(
            held.piece(SOON).await?,
            "no first piece: {}",
            String::from_utf8_lossy(&held.answer.head.raw)
        );
        Ok(held)
    }

    async fn piece(&mut self, patience: Duration) -> anyhow::Result<bool> {
        let piece = timeout(patience, self.line.piece())
            .await
            .context("no piece in time")??;
        self.arrivals.push(Instant::now());
        let is_some = piece.is_some();
        self.answer.pieces.extend(piece);
        Ok(is_some)
    }

    /// Reads to the end.
    async fn end(&mut self, patience: Duration) -> anyhow::Result<NotificationWaitSuccess> {
        let until = Instant::now() + patience;
        while self
            .piece(until.saturating_duration_since(Instant::now()))
            .await?
        {}
        read(&self.answer)
    }
}

fn read(answer: &Answer) -> anyhow::Result<NotificationWaitSuccess> {
    let body = answer.tagged().context("no DONE")?.body;
    match BodyAnswer::<NotificationWaitSuccess>::decode(&body)? {
        BodyAnswer::Success(waited) => Ok(waited),
        BodyAnswer::Failure { status_code, .. } => anyhow::bail!("StatusCode {status_code:#x}"),
    }
}
