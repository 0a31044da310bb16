//! Whose credentials the mailbox server sees.

pub mod assertion;

use super::Identity;
use crate::config::settings::{
    AssertionHandOff, Authenticates, BackendIdentity, KerberosHandOff, Server,
};
use crate::gss::{Delegation, Names, Ticket, TicketError};
use crate::ids::{ServerName, UserName};
use assertion::Signer;
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use siphasher::sip128::{Hasher128, SipHasher24};
use std::borrow::Cow;
use std::fmt;
use std::hash::Hasher;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};
use zeroize::Zeroizing;

/// Turns a client's identity into what the mailbox server is shown.
pub struct HandOff(Way);

enum Way {
    Passthrough,
    BasicService {
        authorization: Zeroizing<Vec<u8>>,
        user_header: String,
    },
    Kerberos {
        delegation: Arc<Delegation>,
        settings: KerberosHandOff,
    },
    Assertion {
        signer: Signer,
        settings: AssertionHandOff,
    },
    TrustedHeader {
        user_header: String,
    },
}

/// What a server is shown with one request.
#[derive(Debug, Default)]
pub struct Shown<'a> {
    /// The `Authorization` value.
    pub authorization: Option<Cow<'a, [u8]>>,
    /// A field of ours with its value.
    pub field: Option<(&'a str, Zeroizing<String>)>,
}

impl Shown<'_> {
    /// A ticket in the user's name. RFC 4559
    pub fn by_ticket(ticket: &Ticket) -> Self {
        let token = STANDARD.encode(ticket.bytes());
        Self {
            authorization: Some(Cow::Owned([b"Negotiate ", token.as_bytes()].concat())),
            field: None,
        }
    }
}

impl HandOff {
    /// Prepares the way of handing on that the settings ask for. Tickets that `keep` has go on where
    /// nothing of that changed.
    pub fn new(settings: &BackendIdentity, keep: Option<&Self>) -> Result<Self, HandOffError> {
        // The key is drawn here so that a machine without randomness fails at the start.
        digest_key().ok_or(HandOffError::Randomness)?;
        Ok(Self(match settings {
            BackendIdentity::Passthrough => Way::Passthrough,
            BackendIdentity::BasicService {
                user,
                password,
                user_header,
            } => basic_service(user, password.reveal(), user_header)?,
            BackendIdentity::Kerberos(kerberos) => Way::Kerberos {
                delegation: match keep {
                    Some(Self(Way::Kerberos {
                        delegation,
                        settings,
                    })) if settings == kerberos => Arc::clone(delegation),
                    _ => Arc::new(delegation(kerberos)),
                },
                settings: kerberos.clone(),
            },
            BackendIdentity::Assertion(assertion) => Way::Assertion {
                signer: Signer::new(assertion).ok_or(HandOffError::SigningKey)?,
                settings: AssertionHandOff {
                    header: header(&assertion.header, &["Authorization"])?,
                    keys: Vec::new(),
                    ..assertion.clone()
                },
            },
            BackendIdentity::TrustedHeader { user_header } => Way::TrustedHeader {
                user_header: header(user_header, &[])?,
            },
        }))
    }

    /// What `server` is shown for a user, given the client's own credential. `None`: a ticket is
    /// needed; see [`Self::ticket`].
    ///
    /// # Errors
    /// The user's name could be read as more than a header's value.
    pub fn show<'a>(
        &'a self,
        user: &UserName,
        original: Option<&'a [u8]>,
        server: &ServerName,
        now: SystemTime,
    ) -> Result<Option<Shown<'a>>, HandOffError> {
        Ok(Some(match &self.0 {
            Way::Kerberos { .. } => return Ok(None),
            Way::Passthrough => Shown {
                authorization: original.map(Cow::Borrowed),
                field: None,
            },
            Way::BasicService {
                authorization,
                user_header,
            } => Shown {
                authorization: Some(Cow::Borrowed(authorization)),
                field: Some((user_header, sayable(user)?)),
            },
            Way::TrustedHeader { user_header } => Shown {
                authorization: None,
                field: Some((user_header, sayable(user)?)),
            },
            Way::Assertion { signer, settings } => {
                sayable(user)?;
                let with_scheme = settings.header.eq_ignore_ascii_case("Authorization");
                let value = signer
                    .value(user, server, with_scheme, now)
                    .ok_or(HandOffError::Randomness)?;
                match with_scheme {
                    true => Shown {
                        authorization: Some(Cow::Owned(value.as_bytes().to_vec())),
                        field: None,
                    },
                    false => Shown {
                        authorization: None,
                        field: Some((&settings.header, value)),
                    },
                }
            }
        }))
    }

    /// The name of the header that is ours, so that whatever a client sends under it must not go on.
    pub fn own_header(&self) -> Option<&str> {
        match &self.0 {
            Way::BasicService { user_header, .. } | Way::TrustedHeader { user_header } => {
                Some(user_header)
            }
            Way::Assertion { settings, .. } => Some(&settings.header),
            Way::Passthrough | Way::Kerberos { .. } => None,
        }
    }

    /// True where the server is shown the client's own credential: its refusal is the client's.
    pub fn is_passthrough(&self) -> bool {
        matches!(self.0, Way::Passthrough)
    }

    /// True where every request carries what proves the user; else a ticket signs a connection on and
    /// later requests on it carry nothing.
    pub fn signs_each_request(&self) -> bool {
        match &self.0 {
            Way::Kerberos { settings, .. } => settings.signs_each_request,
            _ => true,
        }
    }

    /// A ticket in the user's name for a server. Asks the KDC where it must: not for a worker thread, but
    /// nothing blocks while it waits.
    ///
    /// # Errors
    /// The KDC refuses, or cannot be asked.
    pub async fn ticket(
        &self,
        identity: &Identity,
        server: &Server,
        now: Instant,
    ) -> Result<Ticket, TicketError> {
        let Way::Kerberos { delegation, .. } = &self.0 else {
            return Err(TicketError::Unavailable("no tickets are configured".into()));
        };
        let evidence = identity.evidence.as_ref();
        let (name, fqdn) = (server.name.as_str(), server.fqdn());
        delegation
            .ticket(&identity.user, evidence, (name, fqdn), now)
            .await
    }

    /// Somebody signed on: what was brought for us to act for the user is taken up, where tickets are handed on.
    /// Waits for nothing; must be called inside a tokio runtime.
    pub fn receive(&self, identity: &Identity, now: Instant) {
        if let (Way::Kerberos { delegation, .. }, Some(evidence)) = (&self.0, &identity.evidence) {
            delegation.receive(&identity.user, evidence, now);
        }
    }

    /// Which connections to a server may carry this identity's requests: a number that tells identities
    /// apart, or `None` where any connection may be shared.
    ///
    /// Where a server takes a credential to prove the whole connection, one that has carried one
    /// identity may carry no other. Tickets prove connections everywhere; so does Negotiate with
    /// gromox, whatever else proves there: only requests with Basic share connections to a server that takes
    /// each for itself. Connections of a service account, or under our certificate, carry everybody, with the
    /// name said in each request.
    ///
    /// A keyed digest; the key lives as long as the process, so that a reload keeps connections warm.
    pub fn lane(
        &self,
        authenticates: Authenticates,
        identity: &Identity,
        original: Option<&[u8]>,
    ) -> Option<u128> {
        let each = authenticates == Authenticates::Requests;
        let original = match &self.0 {
            Way::BasicService { .. } | Way::TrustedHeader { .. } => return None,
            Way::Passthrough if each && original.is_some_and(is_basic) => return None,
            Way::Assertion { settings, .. } if each && !settings.as_negotiate => return None,
            Way::Passthrough => original.unwrap_or_default(),
            Way::Kerberos { .. } | Way::Assertion { .. } => &[],
        };
        let mut digest = SipHasher24::new_with_key(digest_key()?);
        let user = identity.user.as_str().as_bytes();
        digest.write_usize(user.len());
        digest.write(user);
        digest.write(original);
        Some(digest.finish128().as_u128())
    }
}

impl fmt::Debug for HandOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Way::Passthrough => f.write_str("HandOff(passthrough)"),
            Way::BasicService { user_header, .. } => {
                write!(f, "HandOff(basic_service, {user_header}, …)")
            }
            Way::Kerberos { delegation, .. } => write!(f, "HandOff(kerberos, {delegation:?})"),
            Way::Assertion { signer, .. } => write!(f, "HandOff(assertion, {signer:?})"),
            Way::TrustedHeader { user_header } => {
                write!(f, "HandOff(trusted_header, {user_header})")
            }
        }
    }
}

fn is_basic(value: &[u8]) -> bool {
    let (word, _) = value.split_at_checked(BASIC.len()).unwrap_or_default();
    word.eq_ignore_ascii_case(BASIC)
}

const BASIC: &[u8] = b"Basic ";

fn basic_service(user: &str, password: &str, user_header: &str) -> Result<Way, HandOffError> {
    if user.is_empty() || user.contains(':') || user.chars().any(char::is_control) {
        return Err(HandOffError::ServiceUser);
    }
    if password.is_empty() || password.chars().any(char::is_control) {
        return Err(HandOffError::ServicePassword);
    }
    let clear = Zeroizing::new([user, ":", password].concat());
    let token = Zeroizing::new(STANDARD.encode(clear.as_bytes()));
    Ok(Way::BasicService {
        authorization: Zeroizing::new([b"Basic ", token.as_bytes()].concat()),
        user_header: header(user_header, &[])?,
    })
}

fn delegation(settings: &KerberosHandOff) -> Delegation {
    let names = Names {
        keytab: settings.client_keytab.clone(),
        account: settings.account.clone(),
        service: settings.service.clone(),
        realms: settings.realms.clone(),
    };
    let (users, ttl) = (settings.users_max, settings.ticket_ttl);
    Delegation::new(names, users, ttl, settings.timeout)
}

/// A header of ours, unless it means something else already. One with `_` is for some servers the same as with `-`,
/// and what a client says under that name passes.
fn header(name: &str, but: &[&str]) -> Result<String, HandOffError> {
    let means = |known: &&str| known.eq_ignore_ascii_case(name);
    match is_token(name)
        && !name.contains('_')
        && (!RESERVED.iter().any(&means) || but.iter().any(means))
    {
        true => Ok(name.to_owned()),
        false => Err(HandOffError::UserHeader(name.to_owned())),
    }
}

/// The name as the value of a header.
fn sayable(user: &UserName) -> Result<Zeroizing<String>, HandOffError> {
    let name = user.as_str();
    match name.is_empty() || name.bytes().any(|byte| byte.is_ascii_control()) {
        true => Err(HandOffError::UserName),
        false => Ok(Zeroizing::new(name.to_owned())),
    }
}

/// Why identities cannot be handed on as the settings ask.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandOffError {
    /// The service account's name cannot be put into Basic.
    #[error("backend_identity: the service user is empty, or has a colon or control characters")]
    ServiceUser,
    /// The service account's password cannot be put into Basic.
    #[error("backend_identity: the service password is empty or has control characters")]
    ServicePassword,
    /// None of the keys signs.
    #[error("backend_identity.assertion: no key that signs with ES256")]
    SigningKey,
    /// The user's name cannot be put into a header.
    #[error("the user's name cannot be the value of a header")]
    UserName,
    /// The header cannot carry the user's name.
    #[error("backend_identity: `{0}` cannot be the header of the user's name")]
    UserHeader(String),
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    Randomness,
}

fn digest_key() -> Option<&'static [u8; 16]> {
    static KEY: OnceLock<Option<[u8; 16]>> = OnceLock::new();
    let draw = || {
        let mut key = [0; 16];
        rand::fill(&mut key).ok().map(|()| key)
    };
    KEY.get_or_init(draw).as_ref()
}

/// A header name. RFC 9110 5.6.2
fn is_token(name: &str) -> bool {
    let is_tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_tchar)
}

/// Servers of the gromox flavour drop longer header names.
const NAME_BYTES_MAX: usize = 63;

/// Headers that mean something else already.
const RESERVED: &[&str] = &[
    "Authorization",
    "Connection",
    "Content-Length",
    "Content-Type",
    "Cookie",
    "Expect",
    "Host",
    "Te",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
    "X-RequestId",
    "X-RequestType",
    "X-ClientInfo",
    "X-ClientApplication",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{Scheme, Secret};
    use std::time::Duration;

    fn identity(user: &str) -> Identity {
        Identity {
            user: UserName::new(user),
            scheme: Scheme::Basic,
            expires: None,
            evidence: None,
        }
    }

    fn service(user: &str, password: &str, header: &str) -> Result<HandOff, HandOffError> {
        let settings = BackendIdentity::BasicService {
            user: user.to_owned(),
            password: Secret::new(password.to_owned()),
            user_header: header.to_owned(),
        };
        HandOff::new(&settings, None)
    }

    fn passthrough() -> HandOff {
        HandOff::new(&BackendIdentity::Passthrough, None).unwrap()
    }

    fn trusted() -> HandOff {
        let user_header = "X-Remote-User".to_owned();
        HandOff::new(&BackendIdentity::TrustedHeader { user_header }, None).unwrap()
    }

    fn asserted(header: &str, as_negotiate: bool) -> Result<HandOff, HandOffError> {
        let settings = AssertionHandOff {
            header: header.to_owned(),
            as_negotiate,
            ..assertion::tests::settings(assertion::tests::key().0)
        };
        HandOff::new(&BackendIdentity::Assertion(settings), None)
    }

    fn kerberos(service: &str) -> BackendIdentity {
        BackendIdentity::Kerberos(KerberosHandOff {
            client_keytab: "mapigate.keytab".into(),
            account: None,
            service: service.to_owned(),
            realms: std::collections::BTreeMap::new(),
            signs_each_request: false,
            ticket_ttl: Duration::from_secs(3600),
            users_max: 100,
            timeout: Duration::from_secs(5),
        })
    }

    fn shown<'a>(handoff: &'a HandOff, user: &str, original: Option<&'a [u8]>) -> Shown<'a> {
        let server = ServerName::new("MBX1");
        let now = SystemTime::UNIX_EPOCH;
        let shown = handoff.show(&UserName::new(user), original, &server, now);
        shown.unwrap().unwrap()
    }

    #[test]
    fn passthrough_sends_the_clients_own_credential_and_no_name() {
        let handoff = passthrough();
        let with = shown(&handoff, "user1", Some(b"Basic eDp5"));

        assert_eq!(with.authorization.as_deref(), Some(&b"Basic eDp5"[..]));
        assert!(with.field.is_none());
        assert!(shown(&handoff, "user1", None).authorization.is_none());
        assert_eq!(handoff.own_header(), None);
    }

    #[test]
    fn basic_service_sends_the_service_account_and_the_users_name() {
        let handoff = service("svc", "pa:ss", "X-Remote-User").unwrap();

        let sent = shown(&handoff, "user1@contoso.test", Some(b"Basic clientsown"));

        let expected = format!("Basic {}", STANDARD.encode("svc:pa:ss"));
        assert_eq!(sent.authorization.as_deref(), Some(expected.as_bytes()));
        let (header, value) = sent.field.unwrap();
        assert_eq!(
            (header, value.as_str()),
            ("X-Remote-User", "user1@contoso.test")
        );
        assert_eq!(handoff.own_header(), Some("X-Remote-User"));
    }

    #[test]
    fn a_trusted_header_goes_without_any_credential_of_the_clients() {
        let handoff = trusted();

        let sent = shown(&handoff, "user1@contoso.test", Some(b"Basic clientsown"));

        assert!(sent.authorization.is_none());
        let (header, value) = sent.field.unwrap();
        assert_eq!(
            (header, value.as_str()),
            ("X-Remote-User", "user1@contoso.test")
        );
        assert_eq!(handoff.own_header(), Some("X-Remote-User"));
    }

    #[test]
    fn an_assertion_stands_for_the_clients_credential_or_in_a_header_of_its_own() {
        let usual = asserted("Authorization", false).unwrap();
        let sent = shown(&usual, "user1@contoso.test", Some(b"Basic clientsown"));
        assert!(sent.authorization.unwrap().starts_with(b"Bearer ey"));
        assert!(sent.field.is_none());

        let other = asserted("X-Assertion", false).unwrap();
        let sent = shown(&other, "user1@contoso.test", Some(b"Basic clientsown"));
        assert!(sent.authorization.is_none());
        let (header, value) = sent.field.unwrap();
        assert!(header == "X-Assertion" && value.starts_with("ey"));
        assert_eq!(other.own_header(), Some("X-Assertion"));
        assert!(asserted("Cookie", false).is_err());
    }

    #[test]
    fn a_name_with_control_bytes_never_becomes_a_header() {
        let server = ServerName::new("MBX1");
        let now = SystemTime::UNIX_EPOCH;
        for handoff in [
            service("svc", "p", "X-Remote-User").unwrap(),
            trusted(),
            asserted("Authorization", false).unwrap(),
        ] {
            for name in ["a\r\nX-Evil: 1", "a\0", ""] {
                let refused = handoff.show(&UserName::new(name), None, &server, now);
                assert_eq!(refused.unwrap_err(), HandOffError::UserName);
            }
        }
    }

    #[test]
    fn what_cannot_be_said_in_a_header_is_refused_at_the_start() {
        assert_eq!(
            service("a:b", "p", "X-U").unwrap_err(),
            HandOffError::ServiceUser
        );
        assert_eq!(
            service("a", "", "X-U").unwrap_err(),
            HandOffError::ServicePassword
        );
        assert_eq!(
            service("a", "p\r\n", "X-U").unwrap_err(),
            HandOffError::ServicePassword
        );
        for header in [
            "",
            "X U",
            "X_User",
            "authorization",
            "COOKIE",
            &"X".repeat(64),
        ] {
            assert!(service("a", "p", header).is_err(), "{header}");
        }
    }

    #[test]
    fn connections_are_shared_only_by_the_same_user_with_the_same_credential() {
        let handoff = passthrough();
        let key = |user: &str, value: &[u8]| {
            handoff.lane(Authenticates::Connections, &identity(user), Some(value))
        };

        assert_eq!(key("user1", b"Basic a"), key("user1", b"Basic a"));
        assert_ne!(key("user1", b"Basic a"), key("user1", b"Basic b"));
        assert_ne!(key("user1", b"Basic a"), key("user2", b"Basic a"));
        assert_ne!(key("user1", b"2Basic"), key("user12", b"Basic"));
        assert!(key("user1", b"Basic a").is_some());
    }

    #[test]
    fn what_proves_a_connection_keeps_it_apart_whatever_the_server_says_of_itself() {
        let kerberos = HandOff::new(&kerberos("HTTP/{server_fqdn}"), None).unwrap();
        let negotiate = asserted("Authorization", true).unwrap();
        let bearer = asserted("Authorization", false).unwrap();
        let lane = |handoff: &HandOff, authenticates, user| {
            handoff.lane(authenticates, &identity(user), Some(b"Basic x"))
        };
        let (each, whole) = (Authenticates::Requests, Authenticates::Connections);

        for handoff in [&kerberos, &negotiate] {
            assert!(lane(handoff, each, "user1").is_some());
            assert_ne!(lane(handoff, each, "user1"), lane(handoff, each, "user2"));
        }
        assert_eq!(lane(&bearer, each, "user1"), None);
        assert_ne!(lane(&bearer, whole, "user1"), lane(&bearer, whole, "user2"));
        for shared in [&service("svc", "p", "X-Remote-User").unwrap(), &trusted()] {
            assert_eq!(lane(shared, whole, "user1"), None);
        }
    }

    #[test]
    fn only_basic_shares_connections_to_a_server_that_takes_each_request_for_itself() {
        let handoff = passthrough();
        let lane = |original| handoff.lane(Authenticates::Requests, &identity("user1"), original);

        assert_eq!(lane(Some(b"Basic a")), None);
        assert_eq!(lane(Some(b"basic b")), None);
        let others = [
            None,
            Some(&b"Negotiate a"[..]),
            Some(b"Bearer a"),
            Some(b"NTLM a"),
            Some(b"Basic"),
        ];
        for original in others {
            assert!(lane(original).is_some(), "{original:?}");
        }
    }

    #[test]
    fn the_key_of_a_connection_survives_a_reload() {
        let key = || {
            passthrough().lane(
                Authenticates::Connections,
                &identity("user1"),
                Some(b"Basic a"),
            )
        };
        assert_eq!(key(), key());
    }

    #[test]
    fn tickets_survive_a_reload_that_changes_nothing_of_them() {
        let delegation = |handoff: &HandOff| match &handoff.0 {
            Way::Kerberos { delegation, .. } => Arc::clone(delegation),
            _ => unreachable!("it is made of Kerberos settings"),
        };
        let before = HandOff::new(&kerberos("HTTP/{server_fqdn}"), None).unwrap();
        let same = HandOff::new(&kerberos("HTTP/{server_fqdn}"), Some(&before)).unwrap();
        let other = HandOff::new(&kerberos("HTTP/{server}"), Some(&before)).unwrap();

        assert!(Arc::ptr_eq(&delegation(&before), &delegation(&same)));
        assert!(!Arc::ptr_eq(&delegation(&before), &delegation(&other)));
    }

    #[test]
    fn debug_prints_no_credential() {
        let text = format!("{:?}", service("svc", "hunter2", "X-Remote-User").unwrap());
        assert!(
            !text.contains("hunter2") && !text.contains("Basic"),
            "{text}"
        );
    }
}
