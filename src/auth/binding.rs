//! What a client's proof can be bound to: the certificate it was shown. RFC 5929 4, RFC 5056
//!
//! A client that binds its proof puts the hash of the server's certificate under it. Somebody in the middle who passes
//! the proof on had to show a certificate of his own, and the hashes differ.

use aws_lc_rs::digest::{self, Algorithm};
use std::fmt;
use std::sync::Arc;
use x509_parser::oid_registry::{
    OID_NIST_HASH_SHA256, OID_NIST_HASH_SHA384, OID_NIST_HASH_SHA512, OID_PKCS1_MD5WITHRSAENC,
    OID_PKCS1_RSASSAPSS, OID_PKCS1_SHA1WITHRSA, OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA,
    OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384,
    OID_SIG_ECDSA_WITH_SHA512, Oid,
};
use x509_parser::prelude::{AlgorithmIdentifier, FromDer as _, X509Certificate};
use x509_parser::signature_algorithm::RsaSsaPssParams;

/// The channel binding `tls-server-end-point` of one certificate. Cheap to clone; not a secret.
#[derive(Clone, PartialEq, Eq)]
// One pointer, not a slice: every connection keeps one.
pub struct ChannelBinding(Arc<Vec<u8>>);

impl ChannelBinding {
    /// The binding of this certificate (DER); `None` where it is signed in a manner the specification names no hash
    /// for, as Ed25519. Some microseconds.
    pub fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let hash = digest::digest(algorithm(&certificate.signature_algorithm)?, der);
        Some(Self(Arc::new([PREFIX, hash.as_ref()].concat())))
    }

    /// That of a connection on which nothing can be bound.
    pub(super) fn to_nothing() -> Self {
        Self(Arc::default())
    }

    /// True where proofs can be bound to it.
    pub(super) fn is_some(&self) -> bool {
        !self.0.is_empty()
    }

    /// As both sides give it to their security libraries.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for ChannelBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelBinding(…)")
    }
}

/// The hash of the certificate's own signature, and SHA-256 for those that are weaker. RFC 5929 4.1
fn algorithm(signature: &AlgorithmIdentifier<'_>) -> Option<&'static Algorithm> {
    let strong = [
        (OID_PKCS1_SHA384WITHRSA, &digest::SHA384),
        (OID_SIG_ECDSA_WITH_SHA384, &digest::SHA384),
        (OID_NIST_HASH_SHA384, &digest::SHA384),
        (OID_PKCS1_SHA512WITHRSA, &digest::SHA512),
        (OID_SIG_ECDSA_WITH_SHA512, &digest::SHA512),
        (OID_NIST_HASH_SHA512, &digest::SHA512),
        (OID_PKCS1_SHA256WITHRSA, &digest::SHA256),
        (OID_SIG_ECDSA_WITH_SHA256, &digest::SHA256),
        (OID_NIST_HASH_SHA256, &digest::SHA256),
        (OID_PKCS1_MD5WITHRSAENC, &digest::SHA256),
        (OID_PKCS1_SHA1WITHRSA, &digest::SHA256),
    ];
    let of = |oid: &Oid<'_>| {
        let found = strong.iter().find(|(known, _)| known == oid);
        found.map(|(_, algorithm)| *algorithm)
    };
    if signature.algorithm != OID_PKCS1_RSASSAPSS {
        return of(&signature.algorithm);
    }
    let parameters = signature.parameters.as_ref()?;
    let parameters = RsaSsaPssParams::try_from(parameters).ok()?;
    // Without a word it is SHA-1, which is weaker.
    Some(of(parameters.hash_algorithm_oid()).unwrap_or(&digest::SHA256))
}

/// RFC 5929 4.1
const PREFIX: &[u8] = b"tls-server-end-point:";

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["mail.contoso.test".to_owned()]);
        parameters
            .unwrap()
            .self_signed(&key)
            .unwrap()
            .der()
            .to_vec()
    }

    #[test]
    fn a_certificate_is_hashed_as_it_is_signed() {
        for (signed, hashed) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, &digest::SHA256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, &digest::SHA384),
        ] {
            let der = certificate(signed);

            let binding = ChannelBinding::of(&der).unwrap();

            let expected = [PREFIX, digest::digest(hashed, &der).as_ref()].concat();
            assert_eq!(binding.bytes(), expected);
        }
    }

    #[test]
    fn what_names_no_hash_or_is_no_certificate_binds_nothing() {
        assert_eq!(ChannelBinding::of(&certificate(&rcgen::PKCS_ED25519)), None);
        assert_eq!(ChannelBinding::of(b"no certificate"), None);
    }
}
