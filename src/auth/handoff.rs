//! Whose credentials the mailbox server sees.

use super::Identity;
use crate::config::settings::BackendIdentity;
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use siphasher::sip128::{Hasher128, SipHasher24};
use std::fmt;
use std::hash::Hasher;
use std::sync::OnceLock;
use zeroize::Zeroizing;

/// Turns a client's identity into what the mailbox server is shown.
pub struct HandOff(Way);

enum Way {
    Passthrough,
    BasicService {
        authorization: Zeroizing<Vec<u8>>,
        user_header: String,
    },
}

impl HandOff {
    /// Prepares the way of handing on that the settings ask for.
    pub fn new(settings: &BackendIdentity) -> Result<Self, HandOffError> {
        // The key is drawn here so that a machine without randomness fails at the start.
        digest_key().ok_or(HandOffError::Randomness)?;
        let BackendIdentity::BasicService {
            user,
            password,
            user_header,
        } = settings
        else {
            return Ok(Self(Way::Passthrough));
        };
        if user.is_empty() || user.contains(':') || user.chars().any(char::is_control) {
            return Err(HandOffError::ServiceUser);
        }
        if password.reveal().is_empty() || password.reveal().chars().any(char::is_control) {
            return Err(HandOffError::ServicePassword);
        }
        if !is_token(user_header) || RESERVED.iter().any(|n| n.eq_ignore_ascii_case(user_header)) {
            return Err(HandOffError::UserHeader(user_header.clone()));
        }
        let clear = Zeroizing::new([user.as_str(), ":", password.reveal()].concat());
        let token = Zeroizing::new(STANDARD.encode(clear.as_bytes()));
        let authorization = Zeroizing::new([b"Basic ", token.as_bytes()].concat());
        Ok(Self(Way::BasicService {
            authorization,
            user_header: user_header.clone(),
        }))
    }

    /// The `Authorization` value to send to the server, given the client's own.
    pub fn authorization<'a>(&'a self, original: Option<&'a [u8]>) -> Option<&'a [u8]> {
        match &self.0 {
            Way::Passthrough => original,
            Way::BasicService { authorization, .. } => Some(authorization),
        }
    }

    /// The name of the header that tells the server who the user is; `None` where the credential does.
    /// Whatever the client sends under this name must not go on.
    pub fn user_header(&self) -> Option<&str> {
        match &self.0 {
            Way::Passthrough => None,
            Way::BasicService { user_header, .. } => Some(user_header),
        }
    }

    /// The value that goes with [`Self::user_header`]; `None` where there is no such header, or the
    /// name could be read as more than a header's value.
    pub fn user_value<'a>(&self, identity: &'a Identity) -> Option<&'a str> {
        self.user_header()?;
        let name = identity.user.as_str();
        let is_safe = !name.is_empty() && !name.bytes().any(|b| b.is_ascii_control());
        is_safe.then_some(name)
    }

    /// Tells connections apart where the server authenticates connections rather than requests: one
    /// that carried a credential may only carry the same user's same credential again. `None` where
    /// any connection may be shared, because all carry the same service account.
    ///
    /// A keyed digest; the key lives as long as the process, so that a reload keeps connections warm.
    pub fn identity_key(&self, identity: &Identity, original: Option<&[u8]>) -> Option<u128> {
        match &self.0 {
            Way::BasicService { .. } => None,
            Way::Passthrough => {
                let mut digest = SipHasher24::new_with_key(digest_key()?);
                let user = identity.user.as_str().as_bytes();
                digest.write_usize(user.len());
                digest.write(user);
                digest.write(original.unwrap_or_default());
                Some(digest.finish128().as_u128())
            }
        }
    }
}

impl fmt::Debug for HandOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Way::Passthrough => f.write_str("HandOff(passthrough)"),
            Way::BasicService { user_header, .. } => {
                write!(f, "HandOff(basic_service, {user_header}, …)")
            }
        }
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
    use crate::ids::UserName;

    fn identity(user: &str) -> Identity {
        Identity {
            user: UserName::new(user),
            scheme: Scheme::Basic,
            expires: None,
        }
    }

    fn service(user: &str, password: &str, header: &str) -> Result<HandOff, HandOffError> {
        HandOff::new(&BackendIdentity::BasicService {
            user: user.to_owned(),
            password: Secret::new(password.to_owned()),
            user_header: header.to_owned(),
        })
    }

    #[test]
    fn passthrough_sends_the_clients_own_credential_and_no_name() {
        let handoff = HandOff::new(&BackendIdentity::Passthrough).unwrap();

        assert_eq!(
            handoff.authorization(Some(b"Basic eDp5")),
            Some(&b"Basic eDp5"[..])
        );
        assert_eq!(handoff.authorization(None), None);
        assert_eq!(handoff.user_header(), None);
        assert_eq!(handoff.user_value(&identity("user1")), None);
    }

    #[test]
    fn basic_service_sends_the_service_account_and_the_users_name() {
        let handoff = service("svc", "pa:ss", "X-Remote-User").unwrap();

        let sent = handoff.authorization(Some(b"Basic clientsown"));

        assert_eq!(
            sent,
            Some(format!("Basic {}", STANDARD.encode("svc:pa:ss")).as_bytes())
        );
        assert_eq!(handoff.user_header(), Some("X-Remote-User"));
        assert_eq!(
            handoff.user_value(&identity("user1@contoso.test")),
            Some("user1@contoso.test")
        );
    }

    #[test]
    fn a_name_with_control_bytes_never_becomes_a_header() {
        let handoff = service("svc", "p", "X-Remote-User").unwrap();
        for name in ["a\r\nX-Evil: 1", "a\0", ""] {
            assert_eq!(handoff.user_value(&identity(name)), None);
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
        for header in ["", "X U", "authorization", "COOKIE", &"X".repeat(64)] {
            assert!(service("a", "p", header).is_err(), "{header}");
        }
    }

    #[test]
    fn connections_are_shared_only_by_the_same_user_with_the_same_credential() {
        let handoff = HandOff::new(&BackendIdentity::Passthrough).unwrap();
        let key = |user: &str, value: &[u8]| handoff.identity_key(&identity(user), Some(value));

        assert_eq!(key("user1", b"Basic a"), key("user1", b"Basic a"));
        assert_ne!(key("user1", b"Basic a"), key("user1", b"Basic b"));
        assert_ne!(key("user1", b"Basic a"), key("user2", b"Basic a"));
        assert_ne!(key("user1", b"2Basic"), key("user12", b"Basic"));
        assert!(key("user1", b"Basic a").is_some());
        let service = service("svc", "p", "X-Remote-User").unwrap();
        assert_eq!(service.identity_key(&identity("user1"), None), None);
    }

    #[test]
    fn the_key_of_a_connection_survives_a_reload() {
        let before = HandOff::new(&BackendIdentity::Passthrough).unwrap();
        let after = HandOff::new(&BackendIdentity::Passthrough).unwrap();
        assert_eq!(
            before.identity_key(&identity("user1"), Some(b"Basic a")),
            after.identity_key(&identity("user1"), Some(b"Basic a"))
        );
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
