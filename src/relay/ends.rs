//! Answers that end before the server ends them.
//!
//! A held poll between two chunks ends in the protocol's own words; anything else breaks off, and the
//! client sees that it did.

use super::bill::Bill;
use super::connection::{Next, Stop, Stream, after};
use super::exchange::Exchange;
use super::hold::Hold;
use super::in_band::{self, Word};
use super::learn;
use super::respond::{Scene, Under};
use crate::accounting::{Kind, Wire};
use crate::buffers::Scratch;
use crate::health::Observation;
use crate::mapi::ResponseCode;
use crate::mapi::tags::Tags;
use crate::metrics::{Outcome, PollEnd};
use crate::refusal::Refusal;
use std::time::Duration;

/// Why an answer does not go on.
#[derive(Debug)]
pub(super) enum Broken {
    /// The leg broke.
    Lost(String),
    /// Its time is up, or nothing was heard for too long.
    Late,
}

impl Scene<'_> {
    /// Ends the answer as well as it can be ended at this place of it. The leg is closed with the
    /// exchange: a server that still holds its side of a poll learns it that way.
    ///
    /// # Errors
    /// It breaks off.
    pub(super) async fn end_early<S: Stream>(
        &self,
        broken: Broken,
        (under, tags): (&Under, &Tags),
        exchange: &mut Exchange<'_, S>,
        hold: &mut Hold,
        bill: &mut Bill<'_>,
    ) -> Result<Next, Stop> {
        let server = self.server_name();
        let can_end = hold.is_held() && self.is_between(under, tags);
        let (reason, refusal) = match broken {
            // It is the client who keeps the server waiting: that is not held against the server.
            Broken::Late if exchange.waits_for_client() => (PollEnd::Silent, Refusal::BodyTimeout),
            Broken::Late => {
                let reason = hold.due(self.now()).unwrap_or_else(|| {
                    // Where the client owes the rest of its request, silence is no fault of the server's.
                    if !exchange.waits_for_client() {
                        self.runtime.observe(&server, Observation::Deadline);
                    }
                    PollEnd::Silent
                });
                (reason, Refusal::ServerSilent { server })
            }
            Broken::Lost(cause) => {
                self.observe_reset(exchange);
                if can_end {
                    // After a moment that differs from client to client.
                    hold.lost(self);
                    self.extend_silence(exchange, under, tags, hold, bill.clock);
                    if !exchange.rest().await {
                        hold.ended(self, PollEnd::ClientLeft);
                        return Err(Stop::ClientGone);
                    }
                }
                let written = exchange.leg.wire().sent;
                (
                    PollEnd::ServerLost,
                    Refusal::ServerFailed {
                        server,
                        written,
                        cause,
                    },
                )
            }
        };
        if can_end {
            return self.end_in_band(exchange, under, hold, reason, bill).await;
        }
        hold.ended(self, reason);
        Err(Stop::Cut(refusal))
    }

    async fn end_in_band<S: Stream>(
        &self,
        exchange: &mut Exchange<'_, S>,
        under: &Under,
        hold: &mut Hold,
        reason: PollEnd,
        bill: &mut Bill<'_>,
    ) -> Result<Next, Stop> {
        let (word, code) = match reason {
            PollEnd::Drain | PollEnd::Limit => (Word::NothingPending, ResponseCode::SUCCESS),
            _ => (Word::ConnectAgain, ResponseCode::CONTEXT_NOT_FOUND),
        };
        if word == Word::ConnectAgain {
            learn::from_final_code(code, under.session, self.runtime);
            self.runtime.metrics.session_moved();
        }
        let mut out = Scratch::new();
        in_band::end_of_wait(word, self.flavour(), bill.began.elapsed(), &mut out.0);
        exchange.late.set(after(WRITE_END));
        exchange.write(&out.0).await?;
        bill.ledger.client_out.add(Kind::Tags, out.0.len() as u64);
        (bill.code, bill.outcome) = (Some(code), Outcome::Ended);
        hold.ended(self, reason);
        let stays = !under.closes && exchange.is_request_done() && reason != PollEnd::Drain;
        Ok(if stays { Next::Request } else { Next::Close })
    }
}

/// Whoever does not take the end of its poll within this does without.
const WRITE_END: Duration = Duration::from_secs(5);
