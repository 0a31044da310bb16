//! Whose credentials the mailbox server sees.

use super::Secret;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use zeroize::Zeroizing;

/// Whose credentials the mailbox server sees.
#[derive(Clone, Debug, PartialEq)]
pub enum BackendIdentity {
    /// The client's own `Authorization` header goes on.
    Passthrough,
    /// A service account signs on; the user's name goes in a header the server trusts from us.
    BasicService {
        /// The service account.
        user: String,
        /// Its password.
        password: Secret,
        /// The header that carries the user's name.
        user_header: String,
    },
    /// A ticket in the user's name, by constrained delegation.
    Kerberos(KerberosHandOff),
    /// A short-lived token of our own that names the user.
    Assertion(AssertionHandOff),
    /// The user's name in a header, on connections that show our certificate.
    TrustedHeader {
        /// The header that carries the user's name.
        user_header: String,
    },
}

impl BackendIdentity {
    /// What a mailbox server is shown of a user.
    pub fn in_words(&self) -> String {
        match self {
            Self::Passthrough => "the same credential".to_owned(),
            Self::BasicService {
                user, user_header, ..
            } => format!("{user} signs on, {user_header} names the user"),
            Self::Kerberos(_) => "a ticket in the user's name".to_owned(),
            Self::Assertion(_) => "an assertion that we sign".to_owned(),
            Self::TrustedHeader { user_header } => {
                format!("{user_header} names the user, our certificate proves who says so")
            }
        }
    }
}

/// Tickets in users' names.
#[derive(Clone, Debug, PartialEq)]
pub struct KerberosHandOff {
    /// The keys of the account that may act for users.
    pub client_keytab: PathBuf,
    /// That account; `None`: the first name in its file.
    pub account: Option<String>,
    /// The principal of a server, with placeholders.
    pub service: String,
    /// Realms by mail domain.
    pub realms: BTreeMap<String, String>,
    /// Every request carries a ticket; else the first of a connection does.
    pub signs_each_request: bool,
    /// A user's ticket is used for this long at most.
    pub ticket_ttl: Duration,
    /// Users whose tickets are kept.
    pub users_max: usize,
    /// Who waits longer for the KDC goes without.
    pub timeout: Duration,
}

/// Tokens of our own.
#[derive(Clone, PartialEq)]
pub struct AssertionHandOff {
    /// PKCS#8 of the keys, the one that signs first.
    pub keys: Vec<Zeroizing<Vec<u8>>>,
    /// The header that carries the token.
    pub header: String,
    /// In `Authorization`, as a Negotiate token; else as a Bearer token.
    pub as_negotiate: bool,
    /// How long a token is good.
    pub lifetime: Duration,
    /// Whom a token says it is from.
    pub issuer: String,
}

impl fmt::Debug for AssertionHandOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AssertionHandOff")
            .field("keys", &self.keys.len())
            .field("header", &self.header)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}
