//! Slow work between a head and its decision, done once for the request, then the head is judged again.

use super::bill::Bill;
use crate::auth::{HANDSHAKE, Handshake, Identity, Memo, Shaken, Verification};
use crate::backend::BackServer;
use crate::gss::{Ticket, TicketError};
use crate::ids::ServerName;
use crate::ldap::{Findings, Lookups};
use crate::metrics::{AuthOutcome, TicketOutcome};
use crate::refusal::Refusal;
use crate::runtime::{Runtime, Snapshot};
use std::sync::Arc;
use std::time::Instant;

/// What a decision waits for. None of it runs on a worker thread for longer than a poll.
pub(crate) enum Slow {
    /// A credential that nobody knows yet.
    Verify(Verification),
    /// A ticket in the user's name, for a server that wants one.
    Ticket(Arc<Identity>, Arc<BackServer>),
    /// A word of a conversation that proves the connection.
    Shake(Box<Handshake>),
    /// Somebody, or a mailbox, that only the directory service knows; for whom.
    Lookup(Arc<Identity>, Box<Lookups>),
    /// Whose the connection's certificate is, as only the directory service knows.
    Holder(Box<Lookups>),
}

/// What slow work has found out for one request.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Who asks.
    pub(crate) identity: Option<Arc<Identity>>,
    /// A ticket, and the server it is for. Good for one connection.
    pub(crate) ticket: Option<(ServerName, Ticket)>,
    /// What the directory service said.
    pub(crate) findings: Findings,
}

impl Known {
    /// Does the work, keeps what it finds.
    ///
    /// # Errors
    /// Why the request ends here; nothing of it went to a server.
    #[expect(
        clippy::disallowed_methods,
        reason = "times of the phases are read where the phases change"
    )]
    pub(super) async fn learn(
        &mut self,
        slow: Slow,
        memo: &mut Memo,
        runtime: &Runtime,
        world: &Snapshot,
        bill: &mut Bill<'_>,
    ) -> Result<(), Refusal> {
        let began = Instant::now();
        let mut judged = |scheme, told| {
            bill.auth = began.elapsed();
            bill.verification_ns += world.auth.take_cpu_ns();
            runtime.metrics.auth_verified();
            runtime.metrics.auth(Some(scheme), told);
        };
        match slow {
            Slow::Verify(verification) => {
                let scheme = verification.scheme();
                let outcome = verification.run().await;
                let told = match &outcome {
                    Ok(_) => AuthOutcome::Verified,
                    Err(denied) => denied.outcome(),
                };
                judged(scheme, told);
                self.identity = Some(outcome?);
            }
            Slow::Ticket(identity, server) => {
                let asked = world.handoff.ticket(&identity, server.settings(), began);
                let outcome = asked.await;
                runtime.metrics.ticket(match &outcome {
                    Ok(_) => TicketOutcome::Made,
                    Err(TicketError::Refused(_) | TicketError::Over) => TicketOutcome::Refused,
                    Err(TicketError::Unavailable(_)) => TicketOutcome::Unavailable,
                });
                let ticket = outcome.map_err(|error| match error {
                    TicketError::Refused(reason) => Refusal::NotHandedOn(reason),
                    TicketError::Over => Refusal::Unauthenticated(SIGN_ON_ANEW),
                    TicketError::Unavailable(reason) => Refusal::NoTicket(reason),
                })?;
                self.identity = Some(identity);
                self.ticket = Some((server.name().clone(), ticket));
            }
            Slow::Shake(handshake) => {
                let scheme = handshake.scheme();
                let outcome = handshake.run(memo).await;
                let told = match &outcome {
                    Ok(Shaken::Proven(_)) => AuthOutcome::Verified,
                    Ok(Shaken::More) => AuthOutcome::Challenged,
                    Err(denied) => denied.outcome(),
                };
                judged(scheme, told);
                match outcome? {
                    Shaken::Proven(identity) => {
                        world.handoff.receive(&identity, began);
                        self.identity = Some(identity);
                    }
                    Shaken::More => return Err(Refusal::Unauthenticated(HANDSHAKE)),
                }
            }
            Slow::Lookup(identity, lookups) => {
                let done = lookups.run(&mut self.findings).await;
                done.map_err(|trouble| Refusal::DirectoryUnavailable(trouble.words()))?;
                self.identity = Some(identity);
            }
            Slow::Holder(lookups) => {
                let done = lookups.run(&mut self.findings).await;
                done.map_err(|trouble| Refusal::DirectoryUnavailable(trouble.words()))?;
            }
        }
        Ok(())
    }
}

/// The KDC acts upon the ticket of the client alone, and that is too old.
const SIGN_ON_ANEW: &str = "signed on too long ago to be handed on";
