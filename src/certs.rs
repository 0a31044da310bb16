//! rustls configurations from the certificates of the settings.
//!
//! One crypto provider serves the whole binary. A front configuration lives as long as its listener;
//! certificates and ticket keys inside it are swapped, so that a reload touches no connection.

use crate::auth::{ChannelBinding, Trust, Trusts};
use crate::config::settings::{Certificate, ClientCertificates, ServerTls, Tls};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, Ticketer};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, ServerConfig,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

mod clients;

pub use clients::trust;

/// Why a TLS configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// rustls refused it.
    #[error("{what}: {cause}")]
    Refused {
        /// Which file or setting.
        what: String,
        /// What rustls said.
        cause: rustls::Error,
    },
    /// The system has no list of authorities.
    #[error("no system certificate authorities found; name one with tls.ca")]
    NoSystemAuthorities,
}

/// The one provider of the process.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    PROVIDER.clone()
}

fn certified(certificate: &Certificate) -> Result<Arc<CertifiedKey>, CertError> {
    let refused = |cause| CertError::Refused {
        what: certificate.chain_file.display().to_string(),
        cause,
    };
    let chain = certificate
        .chain
        .iter()
        .map(|der| CertificateDer::from(der.clone()))
        .collect();
    let key = private_key(certificate)?;
    let key = provider()
        .key_provider
        .load_private_key(key)
        .map_err(refused)?;
    let pair = CertifiedKey::new(chain, key);
    pair.keys_match().or_else(|error| match error {
        // Some key types cannot tell; the configuration has already compared what can be compared.
        rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown) => Ok(()),
        other => Err(refused(other)),
    })?;
    Ok(Arc::new(pair))
}

fn private_key(certificate: &Certificate) -> Result<PrivateKeyDer<'static>, CertError> {
    PrivateKeyDer::try_from(certificate.key.to_vec()).map_err(|what| CertError::Refused {
        what: certificate.key_file.display().to_string(),
        cause: rustls::Error::General(what.to_owned()),
    })
}

/// Certificates by the name a client asks for. Swapped whole.
#[derive(Debug)]
struct ByName {
    exact: HashMap<String, Shown>,
    /// By the part after `*.`.
    wildcard: HashMap<String, Shown>,
    /// For clients that name nobody we know: the first certificate.
    other: Option<Shown>,
    leaves: Vec<Vec<u8>>,
}

/// A certificate with its key, and what proofs of clients that saw it are bound to.
#[derive(Clone, Debug)]
struct Shown {
    pair: Arc<CertifiedKey>,
    binding: Option<ChannelBinding>,
}

impl ByName {
    fn new(certificates: &[Arc<Certificate>]) -> Result<Self, CertError> {
        let mut by = Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            other: None,
            leaves: leaves(certificates),
        };
        for certificate in certificates {
            let pair = Shown {
                pair: certified(certificate)?,
                binding: certificate
                    .chain
                    .first()
                    .and_then(|leaf| ChannelBinding::of(leaf)),
            };
            for name in &certificate.names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut by.wildcard, parent),
                    None => (&mut by.exact, name.as_str()),
                };
                map.entry(name.to_owned()).or_insert_with(|| pair.clone());
            }
            by.other.get_or_insert(pair);
        }
        Ok(by)
    }

    /// The certificates it was made of are the same.
    fn is_of(&self, certificates: &[Arc<Certificate>]) -> bool {
        self.leaves == leaves(certificates)
    }

    fn find(&self, name: &str) -> Option<&Shown> {
        self.exact
            .get(name)
            .or_else(|| self.wildcard.get(name.split_once('.')?.1))
    }
}

#[derive(Debug)]
struct Resolver(Arc<ArcSwap<ByName>>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let by = self.0.load();
        // rustls hands the name over in lower case.
        let named = hello.server_name().and_then(|name| by.find(name));
        let shown = named.or(by.other.as_ref())?;
        SHOWN.with_borrow_mut(|last| last.clone_from(&shown.binding));
        Some(shown.pair.clone())
    }
}

/// Takes a step of a handshake, and tells what a client's proof can be bound to that was shown a certificate in it.
///
/// rustls does not say which certificate it has sent. Looking it up afterwards could find its successor; a step runs
/// on one thread from its beginning to its end, and so what the resolver notes down there is of this handshake.
pub fn shown_by<T>(step: impl FnOnce() -> T) -> (T, Option<ChannelBinding>) {
    SHOWN.take();
    let value = step();
    (value, SHOWN.take())
}

thread_local! {
    static SHOWN: RefCell<Option<ChannelBinding>> = const { RefCell::new(None) };
}

/// Two generations of ticket keys: the current one seals, both open.
#[derive(Debug)]
struct Tickets(Arc<ArcSwap<[Arc<dyn ProducesTickets>; 2]>>);

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        let [current, _] = &**self.0.load();
        current.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let [current, _] = &**self.0.load();
        current.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let [current, previous] = &**self.0.load();
        current.decrypt(cipher).or_else(|| previous.decrypt(cipher))
    }
}

/// The TLS side of one listener.
#[derive(Debug)]
pub struct FrontTls {
    config: ArcSwap<Handshakes>,
    settings: Tls,
    trusts: Trusts,
    clients: Mutex<Option<ClientCertificates>>,
    certificates: Arc<ArcSwap<ByName>>,
    tickets: Arc<ArcSwap<[Arc<dyn ProducesTickets>; 2]>>,
}

/// What one handshake goes by, and whom it trusts.
#[derive(Debug)]
pub struct Handshakes {
    /// For rustls: HTTP/1.1 and nothing else.
    pub config: Arc<ServerConfig>,
    /// The same for names that offer HTTP/2 besides.
    pub http2: Arc<ServerConfig>,
    /// Whose certificates clients may show; `None` where they are not asked.
    pub trust: Option<Arc<Trust>>,
}

impl FrontTls {
    /// Makes the configuration of a listener: certificates by name, tickets only, and HTTP/1.1 only but for
    /// names that say otherwise, because the protocol is and connection-bound authentication needs it.
    /// `clients`: whose certificates clients may show.
    ///
    /// # Errors
    /// A key, authority or revocation list that rustls refuses, or the system gives no random bytes.
    pub fn new(
        settings: &Tls,
        certificates: &[Arc<Certificate>],
        clients: Option<&ClientCertificates>,
    ) -> Result<Self, CertError> {
        let certificates = Arc::new(ArcSwap::from_pointee(ByName::new(certificates)?));
        let first = ticketer()?;
        let tickets = Arc::new(ArcSwap::from_pointee([first.clone(), first]));
        let trust = clients.map(trust).transpose()?.map(Arc::new);
        let handshakes = handshakes(settings, &certificates, &tickets, trust.clone())?;
        Ok(Self {
            config: ArcSwap::from_pointee(handshakes),
            settings: settings.clone(),
            trusts: Arc::new(ArcSwap::from_pointee(trust)),
            clients: Mutex::new(clients.cloned()),
            certificates,
            tickets,
        })
    }

    /// What a handshake uses from its beginning to its end.
    pub fn handshakes(&self) -> Arc<Handshakes> {
        self.config.load_full()
    }

    /// Whose certificates are trusted now, for connections that live longer than the answer.
    pub fn trusts(&self) -> &Trusts {
        &self.trusts
    }

    /// Replaces whose certificates clients may show. Connections look again at theirs; tickets given out
    /// before are worth nothing afterwards, because they may tell of a handshake that asked for less.
    ///
    /// # Errors
    /// An authority or list that rustls refuses, or the system gives no random bytes; the old trust stays.
    pub fn swap_clients(&self, clients: Option<&ClientCertificates>) -> Result<(), CertError> {
        let mut now = self.clients.lock();
        if now.as_ref() == clients {
            return Ok(());
        }
        let trust = clients.map(trust).transpose()?.map(Arc::new);
        let next = handshakes(
            &self.settings,
            &self.certificates,
            &self.tickets,
            trust.clone(),
        )?;
        let first = ticketer()?;
        self.tickets.store(Arc::new([first.clone(), first]));
        self.trusts.store(Arc::new(trust));
        self.config.store(Arc::new(next));
        *now = clients.cloned();
        Ok(())
    }

    /// Replaces the certificates; connections are not touched.
    ///
    /// Where they are others than before, no session goes on: a client that resumes is not shown a certificate, and
    /// would bind its proof to the one it remembers.
    ///
    /// # Errors
    /// A key that rustls refuses, or the system gives no random bytes; the old certificates stay.
    pub fn swap_certificates(&self, certificates: &[Arc<Certificate>]) -> Result<(), CertError> {
        let next = ByName::new(certificates)?;
        let first = match self.certificates.load().is_of(certificates) {
            true => None,
            false => Some(ticketer()?),
        };
        self.certificates.store(Arc::new(next));
        if let Some(first) = first {
            self.tickets.store(Arc::new([first.clone(), first]));
        }
        Ok(())
    }

    /// Begins a new ticket key; tickets of the last one stay good for one more turn.
    ///
    /// # Errors
    /// The system gives no random bytes; the old keys stay.
    pub fn rotate_tickets(&self) -> Result<(), CertError> {
        let next = ticketer()?;
        self.tickets.rcu(|now| {
            let [current, _] = &**now;
            [next.clone(), current.clone()]
        });
        Ok(())
    }
}

fn handshakes(
    settings: &Tls,
    certificates: &Arc<ArcSwap<ByName>>,
    tickets: &Arc<ArcSwap<[Arc<dyn ProducesTickets>; 2]>>,
    trust: Option<Arc<Trust>>,
) -> Result<Handshakes, CertError> {
    let versions: &[_] = if settings.allow_tls12 {
        &[&TLS13, &TLS12]
    } else {
        &[&TLS13]
    };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|cause| CertError::Refused {
            what: "tls.versions".to_owned(),
            cause,
        })?;
    let builder = match &trust {
        Some(trust) => builder.with_client_cert_verifier(Arc::clone(trust.verifier())),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Resolver(certificates.clone())));
    // Records are sealed and opened by the room `tls`, which takes the keys over after the handshake.
    config.enable_secret_extraction = true;
    config.ticketer = Arc::new(Tickets(tickets.clone()));
    // A store of sessions would be memory that a restart loses; tickets are the client's to keep.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.alpn_protocols = vec![HTTP11.to_vec()];
    // One is enough to come back; each costs a sealing and 200 bytes in every handshake.
    config.send_tls13_tickets = 1;
    let mut http2 = config.clone();
    http2.alpn_protocols.insert(0, HTTP2.to_vec());
    Ok(Handshakes {
        config: Arc::new(config),
        http2: Arc::new(http2),
        trust,
    })
}

/// What HTTP/2 calls itself in a handshake. RFC 9113 section 3.1
pub const HTTP2: &[u8] = b"h2";
const HTTP11: &[u8] = b"http/1.1";

fn leaves(certificates: &[Arc<Certificate>]) -> Vec<Vec<u8>> {
    let leaves = certificates.iter();
    leaves
        .filter_map(|certificate| certificate.chain.first().cloned())
        .collect()
}

fn ticketer() -> Result<Arc<dyn ProducesTickets>, CertError> {
    Ticketer::new().map_err(|cause| CertError::Refused {
        what: "ticket key".to_owned(),
        cause,
    })
}

/// The TLS configuration towards one server: its authority, its name, our certificate. Sessions are
/// resumed for as long as the configuration lives.
///
/// # Errors
/// An authority or key that rustls refuses, or no system authorities.
pub fn client_config(tls: &ServerTls) -> Result<Arc<ClientConfig>, CertError> {
    let refused = |what: &str| {
        let what = what.to_owned();
        move |cause| CertError::Refused { what, cause }
    };
    let roots = roots(tls.ca.as_deref())?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(refused("tls"))?
        .with_root_certificates(roots);
    let mut config = match &tls.client_certificate {
        Some(own) => {
            let chain = own
                .chain
                .iter()
                .map(|der| CertificateDer::from(der.clone()))
                .collect();
            builder
                .with_client_auth_cert(chain, private_key(own)?)
                .map_err(refused("tls.client_certificate"))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::in_memory_sessions(256);
    Ok(Arc::new(config))
}

/// The authorities to trust: these, in DER, or else the system's.
///
/// # Errors
/// One that rustls refuses, or no system authorities.
pub fn roots(authorities: Option<&[Vec<u8>]>) -> Result<RootCertStore, CertError> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(ders) => {
            for der in ders {
                roots
                    .add(CertificateDer::from(der.clone()))
                    .map_err(|cause| CertError::Refused {
                        what: "tls.ca".to_owned(),
                        cause,
                    })?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(CertError::NoSystemAuthorities);
            }
        }
    }
    Ok(roots)
}

/// The TLS configuration towards a directory service. It names no protocol: there is no name for LDAP that
/// every server knows.
///
/// # Errors
/// As [`client_config`].
pub fn ldap_config(ca: Option<&Vec<Vec<u8>>>) -> Result<Arc<ClientConfig>, CertError> {
    let http = client_config(&ServerTls {
        ca: ca.cloned(),
        name: String::new(),
        client_certificate: None,
    })?;
    let mut config = ClientConfig::clone(&http);
    config.alpn_protocols.clear();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use zeroize::Zeroizing;

    fn certificate(names: &[&str]) -> Arc<Certificate> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names.clone()).unwrap();
        Arc::new(Certificate {
            chain_file: PathBuf::from("mail.pem"),
            key_file: PathBuf::from("mail.key"),
            chain: vec![made.cert.der().to_vec()],
            key: Zeroizing::new(made.signing_key.serialize_der()),
            names,
            not_after: 0,
        })
    }

    fn tls() -> Tls {
        Tls {
            allow_tls12: true,
            handshake_timeout: std::time::Duration::from_secs(10),
            handshakes_max: 1,
            handshakes_per_address: 1,
            ticket_rotation: std::time::Duration::from_secs(1),
        }
    }

    #[test]
    fn a_name_finds_its_certificate_and_a_stranger_the_first() {
        let (mail, wild) = (
            certificate(&["mail.contoso.test"]),
            certificate(&["*.fabrikam.test"]),
        );
        let by = ByName::new(&[mail.clone(), wild.clone()]).unwrap();

        let leaf = |name: &str| by.find(name).map(|shown| shown.pair.cert[0].to_vec());
        assert_eq!(leaf("mail.contoso.test"), Some(mail.chain[0].clone()));
        assert_eq!(leaf("a.fabrikam.test"), Some(wild.chain[0].clone()));
        assert_eq!(leaf("a.b.fabrikam.test"), None);
        assert_eq!(leaf("fabrikam.test"), None);
        assert_eq!(
            by.other.as_ref().unwrap().pair.cert[0].to_vec(),
            mail.chain[0]
        );
    }

    #[test]
    fn a_ticket_outlives_one_rotation_and_not_two() {
        let front = FrontTls::new(&tls(), &[certificate(&["a.test"])], None).unwrap();
        let tickets = Tickets(front.tickets.clone());
        let sealed = tickets.encrypt(b"session").unwrap();

        front.rotate_tickets().unwrap();
        assert_eq!(tickets.decrypt(&sealed).as_deref(), Some(&b"session"[..]));
        front.rotate_tickets().unwrap();
        assert_eq!(tickets.decrypt(&sealed), None);
    }

    #[test]
    fn a_session_goes_on_over_a_reload_and_ends_with_its_certificate() {
        let first = certificate(&["a.test"]);
        let front = FrontTls::new(&tls(), std::slice::from_ref(&first), None).unwrap();
        let tickets = Tickets(front.tickets.clone());
        let sealed = tickets.encrypt(b"session").unwrap();

        front.swap_certificates(&[first]).unwrap();
        assert!(tickets.decrypt(&sealed).is_some());
        front
            .swap_certificates(&[certificate(&["a.test"])])
            .unwrap();
        assert_eq!(tickets.decrypt(&sealed), None);
    }

    #[test]
    fn a_foreign_key_is_refused_and_the_old_certificate_stays() {
        let good = certificate(&["a.test"]);
        let front = FrontTls::new(&tls(), std::slice::from_ref(&good), None).unwrap();
        let mut wrong = Certificate::clone(&good);
        wrong.key = certificate(&["b.test"]).key.clone();

        assert!(front.swap_certificates(&[Arc::new(wrong)]).is_err());
        assert_eq!(
            front.certificates.load().find("a.test").unwrap().pair.cert[0].to_vec(),
            good.chain[0]
        );
    }
}
