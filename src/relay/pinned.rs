//! A client's connection bound to one server's, where only the server learns who the client is.
//!
//! NTLM, and Negotiate as servers read it, prove a connection. A request that shows such a credential
//! gets a connection to its server that no other client ever uses, and that is closed with the client's;
//! whatever the client then sends without a credential goes the same way. The server's challenges pass as
//! they are. What decides is the request's own header, never a server's 401.
//!
//! We route by the `MailboxId` alone and believe nothing of the user: whose mail it is, the server says.
//! Sessions and quotas are filed under the mailbox, because Outlook shares a session between connections;
//! a context cookie leads to its server and opens nothing there.

use super::admit::{self, Caller};
use super::bill::Bill;
use super::head::RequestHead;
use super::slow::Slow;
use crate::auth::{Asker, Identity, Scheme};
use crate::backend::{BackServer, Leg};
use crate::config::settings::Untouched;
use crate::ids::{UserName, network_of};
use crate::metrics::{AuthOutcome, Counted};
use crate::refusal::Refusal;
use crate::runtime::{Runtime, Snapshot};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// A server connection that one client connection owns.
#[derive(Debug)]
pub(crate) struct Pinned {
    pub(super) leg: Leg,
    server: Arc<BackServer>,
    scheme: Scheme,
    /// The logon is half done, and nobody waits for the rest of it longer than this.
    pub(super) half_done_until: Option<Instant>,
    pub(super) seat: Counted,
}

impl Pinned {
    /// Keeps the leg of an exchange that ended well. `answered` is its status.
    pub(super) fn new(
        leg: Leg,
        server: Arc<BackServer>,
        scheme: Scheme,
        seat: Counted,
        half_done_until: Option<Instant>,
    ) -> Self {
        Self {
            leg,
            server,
            scheme,
            half_done_until,
            seat,
        }
    }

    /// True where it leads to this server, as it is configured now.
    pub(super) fn leads_to(&self, server: &Arc<BackServer>) -> bool {
        Arc::ptr_eq(&self.server, server)
    }

    /// Ready when the server has closed it, or speaks unasked.
    pub(super) fn poll_noise(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.leg.poll_noise(cx)
    }

    pub(super) fn is_signed_on(&self) -> bool {
        self.half_done_until.is_none()
    }
}

/// Who asks, and the scheme by which only its server finds out, where that is left to it.
type Who = (Arc<Identity>, Option<Scheme>);

/// Who asks for a mailbox, and the scheme by which only its server finds out, where that is left to it.
/// `Ok(Err(_))`: only slow work can tell.
///
/// # Errors
/// Nobody who may.
pub(super) fn who(
    head: &RequestHead<'_, '_>,
    asker: &Asker<'_>,
    world: &Snapshot,
    caller: &mut Caller<'_>,
    runtime: &Runtime,
    bill: &mut Bill<'_>,
) -> Result<Result<Who, Slow>, Refusal> {
    let untouched = world.settings.auth.passthrough.as_ref();
    let left = left_to_server(head.authorization, caller.pinned, asker.offered, untouched);
    let identity = match (left, &caller.known.identity) {
        (Some(_), Some(identity)) => Arc::clone(identity),
        (Some(scheme), None) => {
            runtime.metrics.auth(left, AuthOutcome::Passed);
            stranger(head, scheme)?
        }
        (None, _) => match admit::who(asker, world, caller, runtime)? {
            Ok(identity) => identity,
            Err(slow) => return Ok(Err(slow)),
        },
    };
    // Of a stranger we know no name, and tell none.
    bill.user = left.is_none().then(|| identity.user.clone());
    bill.scheme = Some(identity.scheme);
    Ok(Ok((identity, left)))
}

/// The scheme a request is left to its server with: the one it shows, or the one its connection has shown,
/// where the name offers it and nobody here judges it.
fn left_to_server(
    authorization: Option<&[u8]>,
    pinned: Option<&Pinned>,
    offered: &[Scheme],
    untouched: Option<&Untouched>,
) -> Option<Scheme> {
    let untouched = untouched?;
    let value = authorization.unwrap_or_default().trim_ascii();
    let scheme = match value.is_empty() {
        true => pinned.map(|pinned| pinned.scheme)?,
        false => {
            let word = value.split(|byte| *byte == b' ').next()?;
            let mut known = untouched.schemes.iter();
            *known.find(|scheme| word.eq_ignore_ascii_case(scheme.word().as_bytes()))?
        }
    };
    (untouched.schemes.contains(&scheme) && offered.contains(&scheme)).then_some(scheme)
}

/// Whom a request is filed under whose user only the server knows. No login name begins with a blank.
///
/// # Errors
/// The request names no mailbox: then nobody knows where it goes.
fn stranger(head: &RequestHead<'_, '_>, scheme: Scheme) -> Result<Arc<Identity>, Refusal> {
    let mailbox = head.target.mailbox.ok_or(Refusal::BadMailboxId)?;
    Ok(Arc::new(Identity {
        user: filed_under(scheme, mailbox),
        scheme,
        expires: None,
        evidence: None,
    }))
}

/// Whose quota a request is on: of the mailbox once the server has let the connection in, before that of
/// the client's network, so that nobody uses up another's by knowing the address of a mailbox.
pub(super) fn payer(identity: &Identity, pinned: Option<&Pinned>, address: &str) -> UserName {
    match pinned.is_some_and(Pinned::is_signed_on) {
        true => identity.user.clone(),
        false => filed_under(identity.scheme, &network_of(address)),
    }
}

fn filed_under(scheme: Scheme, what: &str) -> UserName {
    UserName::new(format!(
        " {} {}",
        scheme.as_str(),
        what.to_ascii_lowercase()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn both() -> Untouched {
        Untouched {
            schemes: vec![Scheme::Negotiate, Scheme::Ntlm],
            connections_max: 1,
            handshake_timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn what_is_shown_decides_and_only_where_it_is_offered_and_left_to_servers() {
        let (both, offered) = (both(), [Scheme::Basic, Scheme::Ntlm]);
        let left = |value: &[u8], untouched| left_to_server(Some(value), None, &offered, untouched);

        assert_eq!(left(b"NTLM TlRMTVNTUAAB", Some(&both)), Some(Scheme::Ntlm));
        assert_eq!(left(b"ntlm TlRMTVNTUAAB", Some(&both)), Some(Scheme::Ntlm));
        for other in [
            &b"Negotiate YII="[..],
            b"Basic dTpw",
            b"Bearer x",
            b"NTLMX y",
            b"",
            b" ",
        ] {
            assert_eq!(left(other, Some(&both)), None);
        }
        assert_eq!(left(b"NTLM TlRMTVNTUAAB", None), None);
        assert_eq!(left_to_server(None, None, &offered, Some(&both)), None);
    }

    #[test]
    fn those_whom_no_server_has_let_in_yet_share_the_quota_of_their_network() {
        let identity = Identity {
            user: filed_under(Scheme::Ntlm, "user1@contoso.test"),
            scheme: Scheme::Ntlm,
            expires: None,
            evidence: None,
        };
        let payer = |address| payer(&identity, None, address);

        assert_eq!(payer("2001:db8::1"), payer("2001:db8::ffff:2"));
        assert_ne!(payer("2001:db8::1"), payer("2001:db8:0:1::1"));
        assert_ne!(payer("192.0.2.7"), payer("192.0.2.8"));
    }

    #[test]
    fn nobody_can_log_in_under_the_name_of_a_stranger() {
        let name = filed_under(Scheme::Ntlm, "User1@contoso.test");

        assert_eq!(name.as_str(), " ntlm user1@contoso.test");
        assert_eq!(crate::auth::canonical(name.as_str(), None), None);
    }
}
