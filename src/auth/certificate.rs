//! Client certificates: who holds one that a trusted authority signed is who it says. RFC 5280
//!
//! The handshake has shown that the client holds the key. What is left is whether the certificate is
//! still good, and whose it is: a session that is resumed days later brings it along without a look at its
//! end or at a list of revoked ones, so both are looked at here. Names come from the extensions made for
//! them, never from the subject, which says whatever somebody once typed.

mod names;

pub use names::Claim;

use super::method::{Grounds, Proven, serial};
use super::people::{People, Standing};
use super::{Denied, Identity, Scheme};
use crate::config::settings::{CertificateAuth, CertificateName};
use crate::ids::{MailboxId, UserName};
use crate::ldap::{Lookup, Lookups};
use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Whose certificates a listener trusts now: authorities, and what they have revoked.
#[derive(Debug)]
pub struct Trust {
    verifier: Arc<dyn ClientCertVerifier>,
    is_required: bool,
    serial: u64,
}

impl Trust {
    /// Trusts what the verifier does. `is_required`: nobody is served without.
    pub fn new(verifier: Arc<dyn ClientCertVerifier>, is_required: bool) -> Self {
        Self {
            verifier,
            is_required,
            serial: serial(),
        }
    }

    /// What handshakes ask.
    pub fn verifier(&self) -> &Arc<dyn ClientCertVerifier> {
        &self.verifier
    }

    /// True where nobody is served without a certificate.
    pub fn is_required(&self) -> bool {
        self.is_required
    }
}

/// A listener's trust as it changes under way; `None` inside where it asks for no certificates.
pub type Trusts = Arc<ArcSwap<Option<Arc<Trust>>>>;

/// What a connection's client showed in its handshake: a certificate, or nothing that could be read. As large as the
/// certificate and its chain.
pub struct Presented {
    chain: Box<[CertificateDer<'static>]>,
    not_after: SystemTime,
    trusts: Trusts,
    /// The trust that found it good last; 0: none yet.
    found_good_by: AtomicU64,
}

impl Presented {
    /// What a client showed: its own certificate first. `verified_by` is the trust that the handshake
    /// asked; `None` where it asked none, because the session was resumed. What is no certificate is nothing.
    pub fn new(
        chain: &[CertificateDer<'static>],
        trusts: &Trusts,
        verified_by: Option<&Trust>,
    ) -> Self {
        let not_after = first_end(chain);
        Self {
            not_after: not_after.unwrap_or(UNIX_EPOCH),
            chain: not_after.map(|_end| chain.into()).unwrap_or_default(),
            trusts: Arc::clone(trusts),
            found_good_by: AtomicU64::new(verified_by.map_or(0, |trust| trust.serial)),
        }
    }

    /// True where no certificate was shown. It is kept what the listener demands all the same: that may come later.
    pub fn is_nothing(&self) -> bool {
        self.chain.is_empty()
    }

    /// Whether it is still good: not over, and trusted by the authorities and lists in force. Costs a
    /// signature check or two after they have changed, else nanoseconds.
    ///
    /// # Errors
    /// Why not.
    pub fn stands(&self, now: SystemTime) -> Result<(), &'static str> {
        if self.is_nothing() {
            return Err("client certificate missing");
        }
        if now > self.not_after {
            return Err("client certificate expired");
        }
        let trust = self.trusts.load();
        let Some(trust) = &**trust else {
            return Err("client certificates are not accepted any more");
        };
        if self.found_good_by.load(Ordering::Relaxed) == trust.serial {
            return Ok(());
        }
        self.verify(&*trust.verifier, now)?;
        self.found_good_by.store(trust.serial, Ordering::Relaxed);
        Ok(())
    }

    /// True where nobody is served here without a certificate that is good.
    pub fn is_required(&self) -> bool {
        let trust = self.trusts.load();
        trust
            .as_ref()
            .as_ref()
            .is_some_and(|trust| trust.is_required)
    }

    fn verify(
        &self,
        verifier: &dyn ClientCertVerifier,
        now: SystemTime,
    ) -> Result<(), &'static str> {
        let Some((own, others)) = self.chain.split_first() else {
            return Err("client certificate missing");
        };
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(since);
        match verifier.verify_client_cert(own, others, now) {
            Ok(_verified) => Ok(()),
            Err(rustls::Error::InvalidCertificate(why)) => Err(words(&why)),
            Err(_) => Err("client certificate not trusted"),
        }
    }
}

/// When the first certificate of a chain ends; `None` where there is none, or one that is none.
fn first_end(chain: &[CertificateDer<'_>]) -> Option<SystemTime> {
    let mut first = None;
    for der in chain {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let seconds = certificate.validity().not_after.timestamp();
        let end = UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        first = Some(first.map_or(end, |earlier: SystemTime| earlier.min(end)));
    }
    first
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Presented(…)")
    }
}

/// Why a certificate is not accepted, as the log says it.
pub fn words(why: &rustls::CertificateError) -> &'static str {
    use rustls::CertificateError as Why;
    match why {
        Why::Expired | Why::ExpiredContext { .. } => "client certificate expired",
        Why::NotValidYet | Why::NotValidYetContext { .. } => "client certificate not valid yet",
        Why::Revoked => "client certificate revoked",
        Why::UnknownIssuer => "client certificate of an authority that is not trusted",
        Why::UnknownRevocationStatus => "no revocation list of the client certificate's authority",
        Why::ExpiredRevocationList | Why::ExpiredRevocationListContext { .. } => {
            "the revocation list is too old"
        }
        Why::InvalidPurpose | Why::InvalidPurposeContext { .. } => {
            "client certificate is not for clients"
        }
        _ => "client certificate not trusted",
    }
}

/// How names are read from certificates, as the settings say.
pub(super) struct Certificate {
    settings: CertificateAuth,
    /// Where only some of the trusted authorities name users.
    issuers: Option<Arc<dyn ClientCertVerifier>>,
    serial: u64,
}

impl Certificate {
    /// Prepares the mapping; one that did not change goes on being the same.
    pub(super) fn new(
        settings: &CertificateAuth,
        earlier: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, rustls::Error> {
        if let Some(same) = earlier.filter(|earlier| earlier.settings == *settings) {
            return Ok(Arc::clone(same));
        }
        let issuers = settings.issuers.as_deref().map(verifier_of).transpose()?;
        Ok(Arc::new(Self {
            settings: settings.clone(),
            issuers,
            serial: serial(),
        }))
    }

    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    /// Whose certificate it is, or what has to be asked to know. Takes microseconds, and a signature check where
    /// issuers are listed.
    pub(super) fn judge(
        &self,
        shown: &Presented,
        people: &People,
        holders: &dyn Holders,
        now: SystemTime,
    ) -> Result<Result<Proven, Lookup>, Denied> {
        if let Some(issuers) = &self.issuers {
            let verified = shown.verify(&**issuers, now);
            verified.map_err(|_why| Denied::Credentials(WRONG_ISSUER))?;
        }
        let own = shown.chain.first().map(|der| names::read(der));
        let claims = own.flatten().ok_or(Denied::Credentials(UNREADABLE))?;
        for kind in &self.settings.map {
            let named = claims.iter().filter(|claim| claim.kind == *kind);
            let mut holder: Option<Holder> = None;
            let mut is_named = false;
            for claim in named {
                is_named = true;
                if !self.may_name(claim) {
                    return Err(Denied::Credentials(WRONG_DOMAIN));
                }
                let found = match holders.holder(claim) {
                    Whose::Known(found) => found,
                    Whose::Nobody => continue,
                    Whose::Disabled => return Err(Denied::Credentials(DISABLED)),
                    Whose::Ask(lookup) => return Ok(Err(lookup)),
                };
                if holder.as_ref().is_some_and(|first| *first != found) {
                    return Err(Denied::Credentials(SEVERAL));
                }
                holder = Some(found);
            }
            match holder {
                Some(holder) => {
                    return Ok(Ok(Proven {
                        standing: people.standing(&holder.user),
                        user: holder.user,
                        grounds: Grounds(self.serial, 0),
                        expires: Some(shown.not_after),
                    }));
                }
                // A directory that knows identifiers knows this one is nobody's: the name beside it may
                // have been given to somebody else since.
                None if is_named && *kind == CertificateName::Sid && holders.knows_sids() => break,
                None => {}
            }
        }
        Err(Denied::Credentials(NOBODY))
    }

    fn may_name(&self, claim: &Claim) -> bool {
        let domains = &self.settings.domains;
        let domain = claim
            .name
            .as_str()
            .rsplit_once('@')
            .map(|(_, domain)| domain);
        domains.is_empty()
            || claim.kind == CertificateName::Sid
            || domain.is_some_and(|domain| domains.iter().any(|known| known == domain))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("map", &self.settings.map)
            .finish_non_exhaustive()
    }
}

/// Who knows whose a name is: the directory.
pub trait Holders {
    /// The user of this name.
    fn holder(&self, claim: &Claim) -> Whose;

    /// True where every user's security identifier is known: one that is not is nobody's.
    fn knows_sids(&self) -> bool;
}

/// What is known of a name.
#[derive(Debug)]
pub enum Whose {
    /// It is this user's.
    Known(Holder),
    /// Nobody is known by it.
    Nobody,
    /// It is somebody's who may not log on.
    Disabled,
    /// Only the directory service knows.
    Ask(Lookup),
}

/// What came of a connection's certificate.
#[derive(Debug)]
pub enum Certified {
    /// It is this user's; true where that was found out now.
    Known(Arc<Identity>, bool),
    /// The directory service has to be asked first.
    Ask(Box<Lookups>),
}

/// The user behind a name, and the user's mailbox where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The canonical name.
    pub user: UserName,
    /// Two names of one mailbox are one person's.
    pub mailbox: Option<MailboxId>,
}

/// What a connection remembers of its certificate: no request but the first costs more than a few
/// comparisons.
pub(super) struct Holding {
    pub(super) identity: Arc<Identity>,
    standing: Standing,
    /// Of the mapping, of the configuration, of everything.
    when: [u64; 3],
    /// The directory is looked at again after this.
    until: SystemTime,
}

impl Holding {
    pub(super) fn new(proven: Proven, when: [u64; 3], until: SystemTime) -> Self {
        Self {
            identity: Arc::new(Identity {
                evidence: None,
                user: proven.user,
                scheme: Scheme::Certificate,
                expires: proven.expires,
            }),
            standing: proven.standing,
            when,
            until,
        }
    }

    /// Nothing has changed since, nobody was revoked, and it is not too long ago.
    pub(super) fn stands(&self, when: [u64; 3], now: SystemTime) -> bool {
        self.when == when && now < self.until && self.standing.stands()
    }
}

impl fmt::Debug for Holding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Holding({}, …)", self.identity.user)
    }
}

fn verifier_of(authorities: &[Vec<u8>]) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for der in authorities {
        roots.add(CertificateDer::from(der.clone()))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|why| rustls::Error::General(why.to_string()))
}

const DISABLED: &str = "account disabled in the directory";
const NOBODY: &str = "client certificate of nobody known here";
const SEVERAL: &str = "client certificate names several users";
const UNREADABLE: &str = "client certificate cannot be read";
const WRONG_DOMAIN: &str = "client certificate names a user outside auth.certificate.domains";
const WRONG_ISSUER: &str = "client certificate of an authority outside auth.certificate.issuers";

#[cfg(test)]
mod tests;
