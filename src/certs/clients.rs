//! Which clients' certificates a listener trusts.

use super::{CertError, provider};
use crate::auth::Trust;
use crate::config::settings::ClientCertificates;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use std::sync::Arc;

/// What handshakes of a listener ask of clients' certificates. With revocation lists, the authority of
/// a client's certificate must have one that is not too old: else nobody could say that it stands.
///
/// # Errors
/// An authority or list that rustls refuses.
pub fn trust(settings: &ClientCertificates) -> Result<Trust, CertError> {
    let refused = |cause| CertError::Refused {
        what: "listeners[].client_certificates".to_owned(),
        cause,
    };
    let mut roots = RootCertStore::empty();
    for der in &settings.authorities {
        roots
            .add(CertificateDer::from(der.clone()))
            .map_err(refused)?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    if !settings.revocation_lists.is_empty() {
        let lists = settings.revocation_lists.iter();
        builder = builder
            .with_crls(lists.map(|der| CertificateRevocationListDer::from(der.clone())))
            .only_check_end_entity_revocation()
            .enforce_revocation_expiration();
    }
    if !settings.is_required {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder.build().map_err(|why| match why {
        VerifierBuilderError::NoRootAnchors => {
            refused(rustls::Error::General("no authority".to_owned()))
        }
        other => refused(rustls::Error::General(other.to_string())),
    })?;
    Ok(Trust::new(verifier, settings.is_required))
}
