//! Tickets in other people's names: constrained delegation.
//!
//! The KDC decides for whom and to which servers (S4U2Self, S4U2Proxy: `[MS-SFU]`); what it refuses is
//! refused here. Who came with a ticket is acted for by that ticket ([`Evidence`]), everybody else, and who brought
//! one that is of no use, by the account's right to act for users it never saw. The first token of a user costs two trips to it, later ones about 0.1 ms of processor
//! time, all of it on threads that may wait.

use super::credential;
use super::evidence::{Brought, Evidence, Hearing, Lack, MARGIN};
use crate::ids::UserName;
use libgssapi::context::{ClientCtx, CtxFlags, SecurityContext as _};
use libgssapi::credential::{Cred, CredUsage};
use libgssapi::error::Error;
use libgssapi::name::Name;
use libgssapi::oid::{GSS_MECH_KRB5, GSS_NT_KRB5_PRINCIPAL, OidSet};
use moka::sync::Cache;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, Semaphore};
use zeroize::Zeroizing;

/// Who we are in the realm, and how users and servers are called there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The keys of the account that may act for users.
    pub keytab: PathBuf,
    /// Who we are there; `None`: the first name of the key table.
    pub account: Option<String>,
    /// The principal of a server, `{server_fqdn}` standing for its host, `{server}` for its name here.
    pub service: String,
    /// Realms by mail domain; a domain that is not here is its realm in capitals.
    pub realms: BTreeMap<String, String>,
}

/// The right to act for users, with the tickets it has brought so far.
pub struct Delegation {
    names: Names,
    /// Where our own ticket is: in memory, because it opens every mailbox.
    cache: String,
    timeout: Duration,
    ticket_ttl: Duration,
    users: Cache<UserName, Arc<Mutex<Slot>>>,
    permits: Arc<Semaphore>,
    /// For the tickets that clients brought.
    places: Arc<Semaphore>,
}

/// What is known of one user.
#[derive(Default)]
struct Slot {
    /// The user's ticket to us, with those to servers, and until when it is used.
    held: Option<(Cred, Instant)>,
    /// The newest ticket that the user brought, for as long as a connection has it.
    brought: Weak<Brought>,
    /// What the KDC refused to us, and what with the ticket the user brought.
    refused: Option<Refused>,
    brought_refused: Option<Refused>,
}

/// A server that the KDC refused a ticket for, why, and until when that is believed.
struct Refused(String, Arc<str>, Instant);

/// A token for one server in one user's name, as `Authorization: Negotiate` carries it. Good once.
pub struct Ticket(Zeroizing<Vec<u8>>);

impl Ticket {
    /// The token's bytes. RFC 4178 4.2.1
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(…)")
    }
}

/// Why there is no ticket. The words are the Kerberos library's and name principals, no secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// The KDC says no, and will say so again: the user is protected, unknown or disabled, or the server
    /// is none that we may delegate to.
    #[error("{0}")]
    Refused(Arc<str>),
    /// The KDC gives none but for the ticket that the client brought, and that is over: it must sign on anew.
    #[error("the ticket that the client signed on with is over")]
    Over,
    /// There is no telling: the KDC is away, or our own account is no good.
    #[error("{0}")]
    Unavailable(Arc<str>),
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
            permits: Arc::new(Semaphore::new(WAITERS)),
            places: Arc::new(Semaphore::new(capacity.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Somebody signed on with a ticket: it is taken out of what was said while that is fresh. Waits for nothing;
    /// must be called inside a tokio runtime.
    pub fn receive(self: &Arc<Self>, user: &UserName, evidence: &Evidence, now: Instant) {
        let slot = self.users.get_with(user.clone(), Arc::default);
        let (this, evidence) = (Arc::clone(self), evidence.clone());
        let patience = self.timeout;
        let work = async move {
            let mut slot = slot.lock_owned().await;
            let permit = Arc::clone(&this.permits).acquire_owned().await;
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
            let permit = Arc::clone(&this.permits).acquire_owned().await;
            let Ok(permit) = permit else {
                return Err(TicketError::Unavailable("closing".into()));
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
                Ok(brought) => match token(&brought.credential, principal) {
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
        if let Some((credential, until)) = &slot.held
            && now < *until
        {
            return token(credential, principal);
        }
        let credential = self.impersonate(user)?;
        let lifetime = credential
            .lifetime()
            .map_err(|error| unavailable("ticket of the user", error))?;
        let until = now + self.ticket_ttl.min(lifetime.saturating_sub(MARGIN));
        let ticket = token(&credential, principal)?;
        slot.held = Some((credential, until));
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

impl Names {
    /// The realm of a mail domain.
    fn realm(&self, domain: &str) -> String {
        match self.realms.get(domain) {
            Some(realm) => realm.clone(),
            None => domain.to_ascii_uppercase(),
        }
    }

    fn user(&self, user: &UserName) -> Result<String, TicketError> {
        let whole = user.as_str();
        let Some((local, domain)) = whole.rsplit_once('@') else {
            let words = "a login name without a domain has no realm";
            return Err(TicketError::Refused(words.into()));
        };
        // These have a meaning in principals.
        if local.is_empty() || local.contains(['/', '\\', '@']) || whole.contains(char::is_control)
        {
            let words = "the login name cannot be a principal";
            return Err(TicketError::Refused(words.into()));
        }
        Ok(format!("{local}@{}", self.realm(domain)))
    }

    /// The server's principal; without a realm of its own it is in the user's.
    fn service(&self, (name, host): (&str, &str), user: &UserName) -> String {
        let principal = self
            .service
            .replace("{server_fqdn}", host)
            .replace("{server}", &name.to_ascii_lowercase());
        match (principal.contains('@'), user.as_str().rsplit_once('@')) {
            (false, Some((_, domain))) => format!("{principal}@{}", self.realm(domain)),
            _ => principal,
        }
    }
}

/// A token out of a credential. Asks the KDC where the ticket for this server is not with it yet.
///
/// The mechanism is Kerberos and not SPNEGO: for SPNEGO the library would take a credential that holds
/// nothing of it for none at all, and speak in its default account's name, which is ours.
fn token(credential: &Cred, principal: &str) -> Result<Ticket, TicketError> {
    let what = "ticket to the server";
    let target = Name::new(principal.as_bytes(), Some(GSS_NT_KRB5_PRINCIPAL))
        .map_err(|error| judged("name of the server", error))?;
    let mut context = ClientCtx::new(
        Some(credential.clone()),
        target,
        CtxFlags::empty(),
        Some(GSS_MECH_KRB5),
    );
    let first = context
        .step(None, None)
        .map_err(|error| judged(what, error))?;
    let spoken = context
        .source_name()
        .map_err(|error| unavailable(what, error))?;
    let meant = credential
        .name()
        .map_err(|error| unavailable(what, error))?;
    if spoken.to_string() != meant.to_string() {
        let words = format!("the Kerberos library spoke as {spoken} instead of {meant}");
        return Err(TicketError::Unavailable(words.into()));
    }
    match first {
        Some(bytes) => Ok(Ticket(Zeroizing::new(negotiation(&bytes)))),
        None => Err(TicketError::Unavailable(
            "the Kerberos library made no token".into(),
        )),
    }
}

/// Wraps a Kerberos token as the first word of a negotiation that offers nothing else. RFC 4178 4.2.1
fn negotiation(kerberos: &[u8]) -> Vec<u8> {
    const SPNEGO: &[u8] = b"\x06\x06\x2b\x06\x01\x05\x05\x02";
    const KERBEROS: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02";
    let mechanisms = tagged(0xa0, &tagged(0x30, KERBEROS));
    let token = tagged(0xa2, &tagged(0x04, kerberos));
    let init = tagged(0xa0, &tagged(0x30, &[mechanisms, token].concat()));
    tagged(0x60, &[SPNEGO, &init].concat())
}

/// A value of ASN.1's distinguished encoding.
fn tagged(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = value.len().to_be_bytes();
    let significant = length.iter().skip_while(|byte| **byte == 0);
    let mut out = vec![tag];
    match value.len() {
        short @ 0..=127 => out.extend(u8::try_from(short)),
        _ => {
            out.extend(u8::try_from(significant.clone().count()).map(|count| 0x80 | count));
            out.extend(significant);
        }
    }
    out.extend_from_slice(value);
    out
}

fn unavailable(what: &str, error: Error) -> TicketError {
    TicketError::Unavailable(format!("{what}: {error}").into())
}

/// The KDC's no, or no answer at all.
fn judged(what: &str, error: Error) -> TicketError {
    match kdc_says_no(error.minor) {
        true => TicketError::Refused(format!("{what}: {error}").into()),
        false => unavailable(what, error),
    }
}

/// Errors of the protocol that are about the client or the server asked for, and not about time, load or
/// ourselves. RFC 4120 7.5.9; `KRB5KDC_ERR_NONE` is the base of the library's numbers.
fn kdc_says_no(minor: u32) -> bool {
    const NONE: u32 = 2_529_638_912;
    // Names and keys unknown, expired, revoked, locked or not good for this; policy; option refused.
    let number = minor.wrapping_sub(NONE);
    matches!(number, 1..=9 | 11..=18 | 20 | 21 | 23 | 26 | 27)
}

/// Threads that wait for KDCs at once.
const WAITERS: usize = 4;
/// A refusal is believed so long: an administrator who allows it sees that it works soon.
const REFUSED: Duration = Duration::from_secs(30);
const OURS: &str = "ticket of our own account";

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test has to take some instant")]
mod tests {
    use super::*;

    fn names() -> Names {
        Names {
            service: "HTTP/{server_fqdn}".to_owned(),
            realms: BTreeMap::from([("mail.test".to_owned(), "AD.TEST".to_owned())]),
            ..Names::default()
        }
    }

    #[test]
    fn a_realm_is_the_domain_in_capitals_or_what_the_site_says() {
        let name = |user: &str| names().user(&UserName::new(user));

        assert_eq!(name("user1@contoso.test").unwrap(), "user1@CONTOSO.TEST");
        assert_eq!(name("user1@mail.test").unwrap(), "user1@AD.TEST");
    }

    #[test]
    fn a_name_that_means_another_principal_is_refused() {
        for user in [
            "user1",
            "host/dc1@contoso.test",
            "a\\@b@contoso.test",
            "@contoso.test",
            "a\0@b",
        ] {
            let refused = names().user(&UserName::new(user));
            assert!(matches!(refused, Err(TicketError::Refused(_))), "{user}");
        }
    }

    #[test]
    fn a_server_is_in_the_users_realm_unless_it_says_its_own() {
        let user = UserName::new("user1@contoso.test");
        let other = Names {
            service: "HTTP/{server_fqdn}@RES.TEST".to_owned(),
            ..names()
        };

        assert_eq!(
            names().service(("MBX1", "mbx1.contoso.test"), &user),
            "HTTP/mbx1.contoso.test@CONTOSO.TEST"
        );
        let short = Names {
            service: "HTTP/{server}.contoso.test".to_owned(),
            ..names()
        };
        assert_eq!(
            short.service(("MBX1", "127.0.0.1"), &user),
            "HTTP/mbx1.contoso.test@CONTOSO.TEST"
        );
        assert_eq!(
            other.service(("MBX1", "mbx1.res.test"), &user),
            "HTTP/mbx1.res.test@RES.TEST"
        );
    }

    #[test]
    fn a_token_is_wrapped_with_lengths_of_one_two_and_three_bytes() {
        assert_eq!(tagged(4, &[7; 3]), [4, 3, 7, 7, 7]);
        assert_eq!(tagged(4, &[7; 200])[..3], [4, 0x81, 200]);
        assert_eq!(tagged(4, &[7; 1500])[..4], [4, 0x82, 5, 220]);
        let wrapped = negotiation(&[9; 1500]);
        assert_eq!(wrapped[..4], [0x60, 0x82, 6, 3]);
        assert_eq!(wrapped.len(), 4 + 0x603);
    }

    #[test]
    fn what_the_kdc_refuses_is_told_from_a_kdc_that_is_away() {
        // Client unknown, server unknown, policy, option refused, client revoked.
        for refused in [6, 7, 12, 13, 18] {
            assert!(kdc_says_no(2_529_638_912 + refused), "{refused}");
        }
        // Service unavailable, clock skew, generic, no KDC reached, and errors of other tables.
        for other in [29, 37, 60, 156] {
            assert!(!kdc_says_no(2_529_638_912 + other), "{other}");
        }
        assert!(!kdc_says_no(0) && !kdc_says_no(100_005));
    }

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
