//! How clients prove who they are.

use super::{IpNet, Scheme};
use jsonwebtoken::Algorithm;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How clients prove who they are.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthSettings {
    /// Basic, where it is configured.
    pub basic: Option<BasicAuth>,
    /// Bearer, where it is configured.
    pub bearer: Option<BearerAuth>,
    /// How names are read from client certificates.
    pub certificate: CertificateAuth,
    /// Schemes that only the mailbox server judges.
    pub passthrough: Option<Untouched>,
    /// Negotiate, where it is configured.
    pub negotiate: Option<NegotiateAuth>,
    /// NTLM, where it is configured.
    pub ntlm: Option<NtlmAuth>,
    /// How many handshakes may be half done.
    pub handshakes: HandshakeLimits,
    /// A connection that was proven as a whole is believed this long.
    pub connection_ttl: Duration,
    /// A verified credential is believed this long.
    pub cache_ttl: Duration,
    /// A refused credential is refused without another look this long.
    pub negative_ttl: Duration,
    /// Verified credentials remembered at once.
    pub cache_capacity: usize,
    /// Verifications of one scheme running at once.
    pub verifications_max: usize,
    /// How many wrong passwords are too many; `None`: never.
    pub lockout_guard: Option<LockoutGuard>,
}

impl AuthSettings {
    /// Lets nobody in: what tests and benches add a scheme to. Lifetimes are of an hour, caches of a thousand.
    pub fn closed() -> Self {
        let hour = Duration::from_secs(3600);
        Self {
            basic: None,
            bearer: None,
            certificate: CertificateAuth::default(),
            passthrough: None,
            negotiate: None,
            ntlm: None,
            handshakes: HandshakeLimits {
                open_max: 1024,
                per_source: 64,
                left_per_minute: 600,
                exempt: Vec::new(),
            },
            connection_ttl: hour,
            cache_ttl: hour,
            negative_ttl: hour,
            cache_capacity: 1000,
            verifications_max: 2,
            lockout_guard: None,
        }
    }
}

/// How many conversations of Negotiate and NTLM may wait for the client's next word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeLimits {
    /// So many in all.
    pub open_max: usize,
    /// So many of one source: an IPv4 address, or 64 bits of an IPv6 one.
    pub per_source: usize,
    /// So many of one source may be begun and left in a minute.
    pub left_per_minute: usize,
    /// Addresses that many share, and that only the first limit holds for.
    pub exempt: Vec<IpNet>,
}

/// When a verifier is not asked any more, so that it locks nobody out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockoutGuard {
    /// So many different wrong credentials of one user are too many.
    pub user_failures: usize,
    /// They are forgotten so long after the last.
    pub user_window: Duration,
    /// The same by where they come from; `None`: nobody counts.
    pub per_source: Option<SourceGuard>,
    /// Answers to whom the guard refuses are held back this long; zero: not at all.
    pub delay: Duration,
    /// So many at once; further ones are not held back.
    pub delays_max: usize,
}

/// How wrong credentials are counted by where they come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceGuard {
    /// So many different ones from one network are too many.
    pub failures: usize,
    /// Each is forgotten after this.
    pub window: Duration,
    /// Leading bits of an IPv4 address that make a network.
    pub v4_prefix: u8,
    /// The same for IPv6.
    pub v6_prefix: u8,
    /// Addresses that many share, and that are not counted.
    pub exempt: Vec<IpNet>,
}

/// Schemes that prove a connection and that only the mailbox server judges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untouched {
    /// Which.
    pub schemes: Vec<Scheme>,
    /// Client connections bound to a server's at once.
    pub connections_max: usize,
    /// A connection whose logon is half done for this long is closed.
    pub handshake_timeout: Duration,
}

/// Basic authentication.
#[derive(Clone, Debug, PartialEq)]
pub struct BasicAuth {
    /// What the client shows with its password prompt.
    pub realm: String,
    /// What a password is held against.
    pub verify: BasicVerify,
    /// Added to a login name without one: `user1` becomes `user1@contoso.test`.
    pub default_domain: Option<String>,
}

/// How names are read from client certificates.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct CertificateAuth {
    /// Where to look for a name, in this order.
    pub map: Vec<CertificateName>,
    /// DER of the authorities whose certificates name users; `None`: all that the listener trusts.
    pub issuers: Option<Vec<Vec<u8>>>,
    /// Domains of the users they may name, lower case; empty: all.
    pub domains: Vec<String>,
}

impl fmt::Debug for CertificateAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuth")
            .field("map", &self.map)
            .field("issuers", &self.issuers.as_ref().map(Vec::len))
            .field("domains", &self.domains)
            .finish()
    }
}

/// Where a certificate says whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateName {
    /// The extension with the user's security identifier.
    Sid,
    /// A user principal name among the alternative names.
    Upn,
    /// A mail address among the alternative names.
    Email,
}

impl CertificateName {
    /// All of them, in the order they are looked at by default.
    pub const ALL: [Self; 3] = [Self::Sid, Self::Upn, Self::Email];

    /// As the configuration writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sid => "sid_extension",
            Self::Upn => "san_upn",
            Self::Email => "san_email",
        }
    }
}

/// Kerberos, and what is spoken inside of Negotiate.
#[derive(Clone, Debug, PartialEq)]
pub struct NegotiateAuth {
    /// The file with the keys of our names.
    pub keytab: PathBuf,
    /// Where used tickets are remembered, as the Kerberos library spells it; `None`: where it does by itself.
    pub replay_cache: Option<String>,
    /// Realm or Windows domain name to the mail domain of its users.
    pub realm_map: BTreeMap<String, String>,
    /// What is asked of channel bindings.
    pub channel_binding: BindingRule,
    /// DER of the certificates of devices that end TLS in front of us.
    pub extra_channel_bindings: Vec<Vec<u8>>,
    /// NTLM is good enough where a client has no ticket.
    pub allow_ntlm_in_spnego: bool,
    /// What follows on a proven connection is the same user's.
    pub persist: bool,
    /// Clients' tickets are kept, because servers are shown tickets.
    pub keeps_tickets: bool,
    /// Words judged at once.
    pub threads: usize,
    /// How long a conversation may take.
    pub handshake_timeout: Duration,
}

impl NegotiateAuth {
    /// What decides who is believed: where it changes, everybody is asked again.
    pub fn rules(&self) -> impl PartialEq + '_ {
        (
            &self.realm_map,
            self.channel_binding,
            &self.extra_channel_bindings,
            self.allow_ntlm_in_spnego,
            self.keeps_tickets,
        )
    }
}

/// What is asked of a client's proof beside that it proves somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingRule {
    /// Nothing.
    Off,
    /// Where it is bound to a certificate, to the right one.
    Accept,
    /// It is bound to the right certificate.
    Require,
}

/// NTLM by helper processes.
#[derive(Clone, Debug, PartialEq)]
pub struct NtlmAuth {
    /// The helper's program and its arguments.
    pub helper: Vec<String>,
    /// Helpers at most.
    pub pool: usize,
    /// How long a conversation may take.
    pub handshake_timeout: Duration,
    /// Windows domain name to the mail domain of its users.
    pub realm_map: BTreeMap<String, String>,
}

/// What a password is held against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BasicVerify {
    /// An htpasswd file with bcrypt or argon2id hashes.
    File(PathBuf),
    /// The directory service of the section `directory`: whoever may log on there is known.
    LdapBind {
        /// The name that is logged on with: text with `{upn}`, `{dn}`, `{mail}` or `{account}` in it.
        name: String,
    },
    /// The server of the user's mailbox: whoever may log on there is known.
    Backend,
}

/// Tokens of identity providers.
#[derive(Clone, Debug, PartialEq)]
pub struct BearerAuth {
    /// What the challenge tells clients.
    pub challenge: BearerChallenge,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// Whose tokens are good; at least one.
    pub issuers: Vec<TokenIssuer>,
}

/// What the Bearer challenge tells clients; each is ASCII without quotation marks and backslashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BearerChallenge {
    /// What the mail service is called at the identity provider.
    pub client_id: Option<String>,
    /// Whose tokens are good, as Exchange writes it.
    pub trusted_issuers: Option<String>,
    /// Kinds of tokens.
    pub token_types: Option<String>,
    /// Where clients get tokens.
    pub authorization_uri: Option<String>,
}

/// An identity provider, and which of its tokens open mail.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenIssuer {
    /// The claim `iss`, letter by letter.
    pub issuer: String,
    /// Where its keys come from.
    pub keys: KeySource,
    /// One of these must be in the claim `aud`.
    pub audiences: Vec<String>,
    /// Signatures that are looked at; asymmetric ones only.
    pub algorithms: Vec<Algorithm>,
    /// The claim that names the user: the first of these that the token has.
    pub identity_claims: Vec<String>,
    /// Added to a name without a domain.
    pub default_domain: Option<String>,
    /// Domains of the users it speaks for, lower case; empty: all.
    pub domains: Vec<String>,
    /// Claims beyond these.
    pub required_claims: Vec<RequiredClaim>,
    /// Applications whose tokens are good; empty: all.
    pub clients: Vec<String>,
}

/// A claim that must be there, with one of these values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredClaim {
    /// Its name.
    pub claim: String,
    /// Words of a text, or items of a list.
    pub any_of: Vec<String>,
}

/// Where an identity provider's keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySource {
    /// Whose keys they are.
    pub issuer: String,
    /// Where they are.
    pub place: KeyPlace,
    /// DER of the authorities to trust; `None`: the system's.
    pub ca: Option<Vec<Vec<u8>>>,
    /// They are fetched again after this.
    pub refresh: Duration,
}

/// Where keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// The URL of a discovery document, which names the URL of the keys.
    Discovery(String),
    /// The URL of the keys themselves.
    Url(String),
    /// In a file, whose text this is.
    File {
        /// The file.
        path: PathBuf,
        /// A JSON Web Key Set. RFC 7517 5
        text: Vec<u8>,
    },
}
