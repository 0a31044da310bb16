//! A ticket as it goes to a server, and why there is none.

use super::client::words;
use libgssapi::context::{ClientCtx, CtxFlags, SecurityContext as _};
use libgssapi::credential::Cred;
use libgssapi::error::Error;
use libgssapi::name::Name;
use libgssapi::oid::{GSS_MECH_KRB5, GSS_NT_KRB5_PRINCIPAL};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

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

/// A credential in a user's name.
pub(super) struct Acting {
    credential: Cred,
    /// The servers that it has a ticket for.
    servers: Mutex<BTreeSet<Box<str>>>,
}

impl Acting {
    pub(super) fn new(credential: Cred) -> Self {
        Self {
            credential,
            servers: Mutex::default(),
        }
    }

    /// True where a token for this server takes no KDC.
    pub(super) fn has(&self, principal: &str) -> bool {
        self.servers.lock().contains(principal)
    }

    /// A token for this server. Blocks on the KDC where there is no ticket for it yet.
    pub(super) fn token(&self, principal: &str) -> Result<Ticket, TicketError> {
        let ticket = token(&self.credential, principal)?;
        if !self.has(principal) {
            self.servers.lock().insert(principal.into());
        }
        Ok(ticket)
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

pub(super) fn unavailable(what: &str, error: Error) -> TicketError {
    TicketError::Unavailable(format!("{what}: {}", words(&error)).into())
}

/// The KDC's no, or no answer at all.
pub(super) fn judged(what: &str, error: Error) -> TicketError {
    match kdc_says_no(error.minor) {
        true => TicketError::Refused(format!("{what}: {}", words(&error)).into()),
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
