//! Tickets in other people's names: constrained delegation.
//!
//! The KDC decides for whom and to which servers (S4U2Self, S4U2Proxy: `[MS-SFU]`); what it refuses is
//! refused here. Who came with a ticket is acted for by that ticket ([`Evidence`]), everybody else, and who brought
//! one that is of no use, by the account's right to act for users it never saw. The first token of a user costs two
//! trips to the KDC, later ones about 0.1 ms of processor time, all of it on threads that may wait.

use super::credential;
use super::evidence::{Brought, Evidence, Hearing, Lack, usable};
use super::lanes::Lanes;
use super::names::Names;
use super::ticket::{Acting, Ticket, TicketError, judged, unavailable};
use crate::ids::UserName;
use libgssapi::credential::{Cred, CredUsage};
use libgssapi::error::Error;
use libgssapi::name::Name;
use libgssapi::oid::{GSS_MECH_KRB5, GSS_NT_KRB5_PRINCIPAL, OidSet};
use moka::sync::Cache;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, Semaphore};

/// The right to act for users, with the tickets it has brought so far.
pub struct Delegation {
    names: Names,
    /// Where our own ticket is: in memory, because it opens every mailbox.
    cache: String,
    timeout: Duration,
    ticket_ttl: Duration,
    users: Cache<UserName, Arc<Mutex<Slot>>>,
    lanes: Lanes,
    /// For the tickets that clients brought.
    places: Arc<Semaphore>,
}

/// What is known of one user.
#[derive(Default)]
struct Slot {
    /// The user's ticket to us, with those to servers, and until when it is used.
    held: Option<(Acting, Instant)>,
    /// The newest ticket that the user brought, for as long as a connection has it.
    brought: Weak<Brought>,
    /// What the KDC refused to us, and what with the ticket the user brought.
    refused: Option<Refused>,
    brought_refused: Option<Refused>,
}

/// A server that the KDC refused a ticket for, why, and until when that is believed.
struct Refused(String, Arc<str>, Instant);

impl Slot {
    /// True where a token for this server takes no KDC.
    fn has(&self, evidence: Option<&Evidence>, principal: &str, now: Instant) -> bool {
        let own = refusal(self.brought_refused.as_ref(), principal, now).is_none();
        match evidence.map(|evidence| evidence.brought(now)) {
            Some(Ok(Some(brought))) if own => brought.acting.has(principal),
            Some(Ok(None)) => false,
            _ => match &self.held {
                Some((acting, until)) => now < *until && acting.has(principal),
                None => false,
            },
        }
    }
}

impl Delegation {
    /// For up to `capacity` users at once. A user's ticket is used for `ticket_ttl` at most, and no
    /// longer than it lives; who waits longer than `timeout` goes without.
    pub fn new(names: Names, capacity: usize, ticket_ttl: Duration, timeout: Duration) -> Self {
        static CACHES: AtomicU64 = AtomicU64::new(1);
        let number = CACHES.fetch_add(1, Ordering::Relaxed);
        Self {
            names,
            cache: format!("MEMORY:mapigate-{number}"),
            timeout,
            ticket_ttl,
            users: Cache::builder()
                .max_capacity(u64::try_from(capacity).unwrap_or(u64::MAX))
                .time_to_idle(ticket_ttl)
                .build(),
            lanes: Lanes::new(),
            places: Arc::new(Semaphore::new(capacity.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Somebody signed on with a ticket: it is taken out of what was said while that is fresh. Waits for nothing;
    /// must be called inside a tokio runtime.
    pub fn receive(self: &Arc<Self>, user: &UserName, evidence: &Evidence, now: Instant) {
        let slot = self.users.get_with(user.clone(), Arc::default);
        let (this, evidence) = (Arc::clone(self), evidence.clone());
        let realm = self.names.realm_of(user);
        let patience = self.timeout;
        let work = async move {
            let mut slot = slot.lock_owned().await;
            let permit = this.lanes.asking(&realm).await;
            let done = tokio::task::spawn_blocking(move || {
                // Whoever needs the ticket tries again, and is told.
                let _either_way = this.brought(&mut slot, &evidence, now);
                drop(permit);
            });
            done.await
        };
        tokio::spawn(tokio::time::timeout(patience, work));
    }

    /// A token for the server of this name and host, in the user's name; `evidence` is what the user brought.
    ///
    /// One thread at a time works for one user, so that nobody keeps others waiting with it.
    ///
    /// # Errors
    /// The KDC refuses, or could not be asked in time.
    pub async fn ticket(
        self: &Arc<Self>,
        user: &UserName,
        evidence: Option<&Evidence>,
        server: (&str, &str),
        now: Instant,
    ) -> Result<Ticket, TicketError> {
        let slot = self.users.get_with(user.clone(), Arc::default);
        let principal = self.names.service(server, user);
        let (this, user, evidence) = (Arc::clone(self), user.clone(), evidence.cloned());
        let work = async {
            let mut slot = slot.lock_owned().await;
            if evidence.is_none()
                && let Some(reason) = refusal(slot.refused.as_ref(), &principal, now)
            {
                return Err(TicketError::Refused(reason));
            }
            let permit = match slot.has(evidence.as_ref(), &principal, now) {
                true => this.lanes.quick().await?,
                false => this.lanes.asking(&this.names.realm_of(&user)).await?,
            };
            let done = tokio::task::spawn_blocking(move || {
                let outcome = match evidence {
                    Some(evidence) => {
                        this.by_evidence(&mut slot, &user, &evidence, &principal, now)
                    }
                    None => this.by_right(&mut slot, &user, &principal, now),
                };
                drop(permit);
                outcome
            });
            done.await
                .unwrap_or_else(|_| Err(TicketError::Unavailable("interrupted".into())))
        };
        tokio::time::timeout(self.timeout, work)
            .await
            .unwrap_or_else(|_elapsed| {
                let patience = humantime::format_duration(self.timeout);
                let words = format!("no ticket within {patience}: the KDC does not answer");
                Err(TicketError::Unavailable(words.into()))
            })
    }

    /// By the ticket that the user brought; where that is of no use, by the right to act for anybody, if the KDC
    /// knows us to have it. Blocks on the KDC, unless the ticket is here already.
    fn by_evidence(
        &self,
        slot: &mut Slot,
        user: &UserName,
        evidence: &Evidence,
        principal: &str,
        now: Instant,
    ) -> Result<Ticket, TicketError> {
        let lack = match refusal(slot.brought_refused.as_ref(), principal, now) {
            Some(reason) => Lack::Useless(reason),
            None => match self.brought(slot, evidence, now) {
                Err(lack) => lack,
                Ok(brought) => match brought.acting.token(principal) {
                    Ok(ticket) => return Ok(ticket),
                    Err(TicketError::Refused(reason)) => {
                        let refused = Refused(principal.into(), Arc::clone(&reason), now + REFUSED);
                        slot.brought_refused = Some(refused);
                        Lack::Useless(reason)
                    }
                    Err(other) => return Err(other),
                },
            },
        };
        if let Lack::Unavailable(reason) = lack {
            return Err(TicketError::Unavailable(reason));
        }
        let outcome = match refusal(slot.refused.as_ref(), principal, now) {
            Some(reason) => Err(TicketError::Refused(reason)),
            None => self.by_right(slot, user, principal, now),
        };
        outcome.map_err(|error| match (error, lack) {
            (TicketError::Refused(_), Lack::Over) => TicketError::Over,
            (TicketError::Refused(second), Lack::Useless(first)) => {
                TicketError::Refused(format!("{first}; without it, {second}").into())
            }
            (other, _) => other,
        })
    }

    /// The ticket that the user brought.
    fn brought(
        &self,
        slot: &mut Slot,
        evidence: &Evidence,
        now: Instant,
    ) -> Result<Arc<Brought>, Lack> {
        if let Some(brought) = evidence.brought(now)? {
            return Ok(brought);
        }
        // The library copies our own ticket beside the user's; it is here or asked for now.
        let words = |error| match unavailable(OURS, error) {
            TicketError::Unavailable(words) => Lack::Unavailable(words),
            other => Lack::Unavailable(other.to_string().into()),
        };
        let own = self.own().map_err(words)?;
        let hearing = Hearing {
            client_keytab: &self.names.keytab,
            cache: &self.cache,
            places: &self.places,
            ttl: self.ticket_ttl,
            now,
        };
        let brought = evidence.hear(&mut slot.brought, &hearing)?;
        drop(own);
        slot.brought_refused = None;
        Ok(brought)
    }

    /// By the right to act for users who never came to us.
    fn by_right(
        &self,
        slot: &mut Slot,
        user: &UserName,
        principal: &str,
        now: Instant,
    ) -> Result<Ticket, TicketError> {
        let outcome = self.try_by_right(slot, user, principal, now);
        match &outcome {
            Ok(_) => slot.refused = None,
            Err(TicketError::Refused(reason)) => {
                slot.held = None;
                let refused = Refused(principal.to_owned(), Arc::clone(reason), now + REFUSED);
                slot.refused = Some(refused);
            }
            Err(TicketError::Unavailable(_) | TicketError::Over) => slot.held = None,
        }
        outcome
    }

    fn try_by_right(
        &self,
        slot: &mut Slot,
        user: &UserName,
        principal: &str,
        now: Instant,
    ) -> Result<Ticket, TicketError> {
        if let Some((acting, until)) = &slot.held
            && now < *until
        {
            return acting.token(principal);
        }
        let credential = self.impersonate(user)?;
        let lifetime = credential
            .lifetime()
            .map_err(|error| unavailable("ticket of the user", error))?;
        let until = now + self.ticket_ttl.min(usable(lifetime));
        let acting = Acting::new(credential);
        let ticket = acting.token(principal)?;
        slot.held = Some((acting, until));
        Ok(ticket)
    }

    /// Our own ticket. Asked for every time: the library keeps it and renews it out of the key table.
    fn own(&self) -> Result<Cred, Error> {
        let account = self.names.account.as_deref();
        credential::initiator(&self.names.keytab, &self.cache, account)
    }

    /// The user's ticket to ourselves. `[MS-SFU] 3.1.5.1.1`
    fn impersonate(&self, user: &UserName) -> Result<Cred, TicketError> {
        let kerberos =
            OidSet::singleton(GSS_MECH_KRB5).map_err(|error| unavailable(OURS, error))?;
        let own = self.own().map_err(|error| unavailable(OURS, error))?;
        let name = self.names.user(user)?;
        let name = Name::new(name.as_bytes(), Some(GSS_NT_KRB5_PRINCIPAL))
            .map_err(|error| judged("name of the user", error))?;
        own.impersonate(&name, None, CredUsage::Initiate, Some(&kerberos))
            .map_err(|error| judged("ticket of the user", error))
    }
}

impl fmt::Debug for Delegation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Delegation({}, …)", self.names.service)
    }
}

/// Why the KDC refused a ticket for this server, if that is still believed.
fn refusal(refused: Option<&Refused>, principal: &str, now: Instant) -> Option<Arc<str>> {
    let Refused(server, reason, until) = refused?;
    (server == principal && now < *until).then(|| Arc::clone(reason))
}

/// A refusal is believed so long: an administrator who allows it sees that it works soon.
const REFUSED: Duration = Duration::from_secs(30);
const OURS: &str = "ticket of our own account";

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test has to take some instant")]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_remembered_for_its_server_and_its_time() {
        let now = Instant::now();
        let refused = Refused("HTTP/a".to_owned(), "no".into(), now + REFUSED);
        let refused = Some(&refused);

        assert!(refusal(refused, "HTTP/a", now).is_some());
        assert!(refusal(refused, "HTTP/b", now).is_none());
        assert!(refusal(refused, "HTTP/a", now + REFUSED).is_none());
    }
}
