//! The address book's own answer to "where is this mailbox": with the public name in it.
//!
//! Servers build the URL from their own host. A client that followed it would go past this door, so these
//! answers, and no others of MAPI, are read whole and changed. `[MS-OXCMAPIHTTP] 2.2.5.18, 2.2.5.19`

use super::answer;
use super::bill::Bill;
use super::connection::{Next, Stop, Stream, after};
use super::exchange::{Event, Exchange};
use super::head::Fields;
use super::hold::Hold;
use super::public::{base_url, is_back_end, place};
use super::respond::Scene;
use crate::accounting::Kind;
use crate::autodiscover::{authority_of, host_of, public_mapi_url, with_authority};
use crate::buffers::Scratch;
use crate::health::Observation;
use crate::mapi::bodies::nspi::UrlSuccess;
use crate::mapi::bodies::{Answer, Body as _, wide};
use crate::mapi::framing::{BadFraming, Body};
use crate::mapi::tags::Tags;
use crate::refusal::Refusal;
use std::net::IpAddr;

/// Bytes of such an answer's body; the lab's and Exchange's have about 300.
const ANSWER_MAX: usize = 64 * 1024;

impl Scene<'_> {
    /// The answer, read whole, with the public URL in it. Second of the outcome: the leg may carry another.
    ///
    /// # Errors
    /// As for any other answer; besides, one that is larger than any URL.
    pub(super) async fn url<S: Stream>(
        &self,
        exchange: &mut Exchange<'_, S>,
        client: IpAddr,
        bill: &mut Bill<'_>,
    ) -> Result<(Next, bool), Stop> {
        let mut hold = Hold::new(self, bill.began);
        let (head, body) = self.whole_head(exchange, &mut hold, bill).await?;
        let wire = self.whole_body(exchange, body, bill).await?;
        let pieces = pieces_of(&wire, body).map_err(|bad| self.nonsense(bad.0))?;
        let payload = pieces.concat();
        let changed = self.changed(&payload, client);
        let mut out = Scratch::new();
        let under = {
            let mut room = Fields::new();
            let read = answer::read(&head, self.flavour(), &mut room);
            let mut head = read
                .map_err(|what| self.nonsense(what))?
                .ok_or_else(|| self.nonsense("half a head"))?;
            if let (Some(changed), Body::Length(_)) = (&changed, body) {
                head.body = Body::of_length(changed.len() as u64);
            }
            let leaving = exchange.asks.now().leaving;
            let is_sent = exchange.is_request_done();
            self.pass_head(&head, leaving, is_sent, bill, &mut out.0)?
        };
        let begin = out.0.len();
        match &changed {
            None => out.0.extend_from_slice(&wire),
            Some(changed) => frame(changed, &payload, &pieces, body, &mut out.0),
        }
        let (sent, kept) = (
            out.0.len() - begin,
            changed.as_ref().unwrap_or(&payload).len(),
        );
        bill.ledger.client_out.add_body(sent as u64, kept as u64, 0);
        exchange.late.set(after(under.silence));
        exchange.write(&out.0).await?;
        let mut tags = Tags::default();
        tags.read(&payload);
        self.completed(&under, &tags, &mut hold, bill);
        let clean = exchange.is_request_done() && exchange.output.is_empty() && under.reusable;
        let next = match under.closes || !exchange.is_request_done() {
            true => Next::Close,
            false => Next::Request,
        };
        Ok((next, clean && body != Body::UntilClose))
    }

    /// The payload with the public URL, where it had another.
    fn changed(&self, payload: &[u8], client: IpAddr) -> Option<Vec<u8>> {
        let settings = &self.world.settings;
        let name = settings.names.get(self.plan.name?)?;
        let base = base_url(name, place(client, settings));
        with_public_url(payload, base, |host| is_back_end(host, settings))
    }

    /// The head's bytes, and where its body ends.
    async fn whole_head<S: Stream>(
        &self,
        exchange: &mut Exchange<'_, S>,
        hold: &mut Hold,
        bill: &mut Bill<'_>,
    ) -> Result<(Vec<u8>, Body), Stop> {
        loop {
            let found = {
                let mut room = Fields::new();
                let data = exchange.output.data();
                let head = answer::read(data, self.flavour(), &mut room);
                let head = head.map_err(|what| self.nonsense(what))?;
                head.map(|head| (head.length, head.status, head.body))
            };
            match found {
                Some((_, 101, _)) => return Err(self.nonsense("101").into()),
                // We have told the client to go on ourselves.
                Some((length, ..200, _)) => {
                    bill.ledger.server_in.add(Kind::Headers, length as u64);
                    exchange.output.consume(length);
                }
                Some((length, _, body)) => {
                    let bytes = exchange.output.data().get(..length).unwrap_or_default();
                    let bytes = bytes.to_vec();
                    exchange.output.consume(length);
                    return Ok((bytes, body));
                }
                None => self.await_head(exchange, hold).await?,
            }
        }
    }

    /// The body as it was on the wire.
    async fn whole_body<S: Stream>(
        &self,
        exchange: &mut Exchange<'_, S>,
        mut body: Body,
        bill: &mut Bill<'_>,
    ) -> Result<Vec<u8>, Stop> {
        let mut wire = Vec::new();
        exchange
            .late
            .set(after(self.world.settings.limits.first_byte_timeout));
        loop {
            let data = exchange.output.data();
            let taken = body.follow(data, |_| {});
            let taken = taken.map_err(|bad| self.nonsense(bad.0))?;
            wire.extend_from_slice(data.get(..taken.wire).unwrap_or_default());
            exchange.output.consume(taken.wire);
            let length = taken.wire as u64;
            bill.ledger.server_in.add_body(length, taken.payload, 0);
            if wire.len() > ANSWER_MAX {
                return Err(self.nonsense("larger than any URL").into());
            }
            if body.is_done() {
                return Ok(wire);
            }
            match exchange.next(false).await {
                Event::Answer(0) if body == Body::UntilClose => return Ok(wire),
                Event::Answer(0) => return Err(self.failed(exchange, "closed in mid-answer")),
                Event::LegFailed(error) => return Err(self.failed(exchange, &error.to_string())),
                Event::ClientGone | Event::TooLarge => return Err(Stop::ClientGone),
                Event::Answer(_) | Event::Asked => {}
                Event::Late => {
                    let server = self.server_name();
                    self.runtime.observe(&server, Observation::Deadline);
                    return Err(Refusal::ServerSilent { server }.into());
                }
            }
        }
    }

    fn nonsense(&self, what: &'static str) -> Refusal {
        let server = self.server_name();
        Refusal::ServerNonsense { server, what }
    }
}

/// The chunks of a whole body, or all of it.
fn pieces_of(wire: &[u8], mut body: Body) -> Result<Vec<Vec<u8>>, BadFraming> {
    let mut pieces = Vec::new();
    body.follow(wire, |run| pieces.push(run.to_vec()))?;
    Ok(pieces)
}

/// Writes a changed payload in the server's own framing. What did not change stays in the chunks it came in,
/// and the rest goes into one.
fn frame(changed: &[u8], payload: &[u8], pieces: &[Vec<u8>], body: Body, out: &mut Vec<u8>) {
    if !matches!(body, Body::Chunked(_)) {
        out.extend_from_slice(changed);
        return;
    }
    let unchanged = body_at(payload).unwrap_or(0);
    let mut at = 0;
    for piece in pieces {
        if at + piece.len() > unchanged {
            break;
        }
        chunk(piece, out);
        at += piece.len();
    }
    chunk(changed.get(at..).unwrap_or_default(), out);
    out.extend_from_slice(b"0\r\n\r\n");
}

fn chunk(payload: &[u8], out: &mut Vec<u8>) {
    // An empty chunk would be the last.
    if !payload.is_empty() {
        out.extend_from_slice(format!("{:X}\r\n", payload.len()).as_bytes());
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }
}

/// The payload with another URL in it; `None` where there is none, or it names the door already.
fn with_public_url(
    payload: &[u8],
    base: &str,
    is_back_end: impl Fn(&str) -> bool,
) -> Option<Vec<u8>> {
    let (tags, body) = payload.split_at_checked(body_at(payload)?)?;
    let Ok(Answer::Success(mut answer)) = Answer::<UrlSuccess>::decode(body) else {
        return None;
    };
    let url = answer.url.to_string();
    let public = match public_mapi_url(&url, base) {
        Some(public) => public,
        None if is_back_end(host_of(&url)) => with_authority(&url, authority_of(base)),
        None => return None,
    };
    if public == url {
        return None;
    }
    answer.url = wide(&public);
    Some([tags, &Answer::Success(answer).encode()].concat())
}

/// Where the body begins behind the tags and the lines after DONE. `[MS-OXCMAPIHTTP] 2.2.7`
fn body_at(payload: &[u8]) -> Option<usize> {
    if !payload.starts_with(b"PROCESSING") {
        return Some(0);
    }
    let done = memchr::memmem::find(payload, b"DONE\r\n")? + 4;
    let end = memchr::memmem::find(payload.get(done..)?, b"\r\n\r\n")?;
    Some(done + end + 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: &str = "https://mail.contoso.test/mapi";

    fn payload(tags: &str, url: &str) -> Vec<u8> {
        let answer = Answer::Success(UrlSuccess {
            error_code: 0,
            url: wide(url),
            auxiliary: vec![1, 2, 3],
        });
        [tags.as_bytes(), &answer.encode()].concat()
    }

    fn is_back_end(host: &str) -> bool {
        host == "mbx1.contoso.test"
    }

    #[test]
    fn the_url_of_a_mailbox_server_becomes_the_public_one_and_the_rest_stays() {
        for tags in [
            "",
            "PROCESSING\r\nDONE\r\n\r\n",
            "PROCESSING\r\nPENDINGPENDING\r\nDONE\r\nX-ElapsedTime: 3\r\nX-StartTime: now\r\n\r\n",
        ] {
            let theirs = payload(
                tags,
                "https://mbx9:444/mapi/emsmdb/?MailboxId=g@contoso.test",
            );
            let ours = with_public_url(&theirs, BASE, is_back_end);
            assert_eq!(
                ours,
                Some(payload(
                    tags,
                    "https://mail.contoso.test/mapi/emsmdb/?MailboxId=g@contoso.test"
                ))
            );
        }
        let other = payload("", "https://mbx1.contoso.test/x");
        assert_eq!(
            with_public_url(&other, BASE, is_back_end),
            Some(payload("", "https://mail.contoso.test/x"))
        );
    }

    #[test]
    fn a_changed_payload_keeps_the_chunks_in_front_of_the_change() {
        let tags = "PROCESSING\r\nDONE\r\nX-ElapsedTime: 3\r\n\r\n";
        let theirs = payload(tags, "https://mbx1/mapi/nspi/?a");
        let ours = with_public_url(&theirs, BASE, is_back_end).unwrap();
        for cut in [
            vec![12, tags.len()],
            vec![tags.len()],
            vec![3],
            vec![tags.len() + 5],
        ] {
            let mut pieces = Vec::new();
            let mut at = 0;
            for end in cut.iter().copied().chain([theirs.len()]) {
                pieces.push(theirs.get(at..end).unwrap().to_vec());
                at = end;
            }
            let mut out = Vec::new();
            frame(&ours, &theirs, &pieces, Body::CHUNKED, &mut out);

            let mut body = Body::CHUNKED;
            let mut read: Vec<Vec<u8>> = Vec::new();
            let taken = body.follow(&out, |run| read.push(run.to_vec())).unwrap();
            assert_eq!((taken.wire, body.is_done()), (out.len(), true));
            assert_eq!(read.concat(), ours);
            let kept = pieces
                .iter()
                .zip(&read)
                .filter(|(theirs, ours)| theirs == ours);
            assert_eq!(
                kept.count(),
                cut.iter().filter(|end| **end <= tags.len()).count()
            );
        }
    }

    #[test]
    fn what_names_no_mailbox_server_is_left_alone() {
        let failure = Answer::<UrlSuccess>::Failure {
            status_code: 5,
            auxiliary: Vec::new(),
        };
        for payload in [
            payload(
                "",
                "https://mail.contoso.test/mapi/nspi/?MailboxId=g@contoso.test",
            ),
            payload("", "https://elsewhere.test/x"),
            payload("PROCESSING\r\nDONE\r\n", ""),
            failure.encode(),
            b"<html>".to_vec(),
            Vec::new(),
        ] {
            assert_eq!(with_public_url(&payload, BASE, is_back_end), None);
        }
    }

    proptest! {
        #[test]
        fn any_payload_is_looked_at_without_a_panic(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _changed = with_public_url(&payload, BASE, is_back_end);
        }

        #[test]
        fn done_twice_is_done_once(host in "[a-z0-9.]{1,20}", query in "[a-zA-Z@=-]{0,20}") {
            let theirs = payload("", &format!("https://{host}/mapi/nspi/?{query}"));
            let ours = with_public_url(&theirs, BASE, is_back_end).unwrap_or(theirs);
            prop_assert_eq!(with_public_url(&ours, BASE, is_back_end), None);
        }
    }
}
