//! The certificate a place shows: whether it is good, and in words why not.

use super::report::Trouble;
use crate::certs::{CertError, provider, roots};
use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use std::io;
use std::sync::Arc;
use time::OffsetDateTime;
use time::macros::format_description;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Judges as rustls does, and remembers what it was shown: a handshake that fails tells nothing of it.
#[derive(Debug)]
pub(super) struct Witness {
    judge: Arc<WebPkiServerVerifier>,
    shown: Mutex<Option<CertificateDer<'static>>>,
}

impl Witness {
    /// The certificate that was shown last.
    pub(super) fn shown(&self) -> Option<Shown> {
        Shown::read(self.shown.lock().as_ref()?)
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.shown.lock() = Some(own.clone().into_owned());
        self.judge.verify_server_cert(own, between, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }
}

/// The TLS of a probe that trusts these authorities, or else the system's. Reads the system's list.
pub(super) fn client(
    authorities: Option<&[Vec<u8>]>,
) -> Result<(Arc<ClientConfig>, Arc<Witness>), CertError> {
    let refused = |cause| CertError::Refused {
        what: "tls".to_owned(),
        cause,
    };
    let roots = Arc::new(roots(authorities)?);
    let judge = WebPkiServerVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|cause| refused(Error::General(cause.to_string())))?;
    let witness = Arc::new(Witness {
        judge,
        shown: Mutex::new(None),
    });
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(refused)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&witness) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((Arc::new(config), witness))
}

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    names: Vec<String>,
    issuer: String,
    from: i64,
    until: i64,
}

impl Shown {
    fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        let names = alternatives
            .iter()
            .flat_map(|names| &names.value.general_names);
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => Some(match <[u8; 4]>::try_from(*bytes) {
                Ok(four) => std::net::Ipv4Addr::from(four).to_string(),
                Err(_) => "an IPv6 address".to_owned(),
            }),
            _ => None,
        });
        let issuer = certificate.issuer();
        let common = issuer.iter_common_name().next();
        let common = common.and_then(|name| name.as_str().ok());
        Some(Self {
            names: names.map(|name| plain(&name)).collect(),
            issuer: plain(&common.map_or_else(|| issuer.to_string(), str::to_owned)),
            from: certificate.validity().not_before.timestamp(),
            until: certificate.validity().not_after.timestamp(),
        })
    }

    /// Whole days until it expires.
    pub(super) fn days_left(&self, now: i64) -> i64 {
        (self.until - now).div_euclid(86_400)
    }

    /// The day after which it is not good.
    pub(super) fn until(&self) -> String {
        day(self.until)
    }

    /// Whose it is, and who says so.
    pub(super) fn words(&self) -> String {
        let names = match self.names.as_slice() {
            [] => "without a name".to_owned(),
            names => format!("for {}", listed(names)),
        };
        format!("{names}, signed by {}", self.issuer)
    }
}

/// Why there is no connection by TLS.
pub(super) fn failed(host: &str, failure: &io::Error, witness: Option<&Witness>) -> Trouble {
    let inner = failure.get_ref();
    let error = inner.and_then(|inner| inner.downcast_ref::<Error>());
    let Some(error) = error else {
        return Trouble::new(
            "a TLS handshake",
            format!("the connection ended in it: {failure}"),
            "look at the log of what listens there; a load balancer without a server behind it closes like this",
        );
    };
    let shown = witness.and_then(Witness::shown);
    let certificate = shown.as_ref().map_or_else(
        || "one that cannot be read".to_owned(),
        |shown| format!("one {}", shown.words()),
    );
    match error {
        Error::InvalidCertificate(wrong) => {
            certificate_trouble(host, wrong, shown.as_ref(), &certificate)
        }
        Error::InvalidMessage(_) => Trouble::new(
            "a TLS handshake",
            "an answer that is not TLS",
            "something speaks plain HTTP, or another protocol, at this port; look at the port of the URL",
        ),
        Error::AlertReceived(alert) => Trouble::new(
            "a TLS handshake",
            format!("the other side ended it: {alert:?}"),
            "look at its log; it may demand a client certificate, or know no certificate for this name",
        ),
        Error::PeerIncompatible(why) => Trouble::new(
            "TLS 1.2 or 1.3",
            format!("nothing in common: {why:?}"),
            "let what listens there speak TLS 1.2 or 1.3",
        ),
        other => Trouble::new(
            "a TLS handshake",
            other.to_string(),
            "look at the log of what listens there",
        ),
    }
}

fn certificate_trouble(
    host: &str,
    wrong: &CertificateError,
    shown: Option<&Shown>,
    certificate: &str,
) -> Trouble {
    const RENEW: &str =
        "renew it where it is shown, then reload; at mapigate `mapigate reload`, connections stay";
    let day_of = |of: fn(&Shown) -> i64| shown.map_or_else(String::new, |shown| day(of(shown)));
    match wrong {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Trouble::new(
            "a certificate that is good today",
            format!(
                "{certificate}, which expired on {}",
                day_of(|shown| shown.until)
            ),
            RENEW,
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Trouble::new(
                "a certificate that is good today",
                format!(
                    "{certificate}, which is good from {} on",
                    day_of(|shown| shown.from)
                ),
                "look at the clock of this machine, or wait",
            )
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Trouble::new(
                format!("a certificate for {host}"),
                certificate,
                format!(
                    "have {host} put into the certificate, or add one that has it to `listeners[].certificates`"
                ),
            )
        }
        CertificateError::UnknownIssuer => Trouble::new(
            "a certificate of an authority that is trusted here",
            certificate,
            "name its authority with --ca; where it is a public one, the chain lacks an intermediate: put it behind the certificate in the PEM file",
        ),
        CertificateError::Revoked => {
            Trouble::new("a certificate that is not revoked", certificate, RENEW)
        }
        other => Trouble::new(
            "a good certificate",
            format!("{certificate}: {other}"),
            "compare `openssl x509 -text` of it with what its authority should have made",
        ),
    }
}

/// Some of a list, and how many more.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 4;
    let mut shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>();
    if names.len() > SHOWN {
        shown.push(format!("{} more", names.len() - SHOWN));
    }
    shown.join(", ")
}

/// Without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars()
        .filter(|letter| !letter.is_control())
        .take(100)
        .collect()
}

fn day(seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|at| at.format(format_description!("[year]-[month]-[day]")).ok())
        .unwrap_or_default()
}
