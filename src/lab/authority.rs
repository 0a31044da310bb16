//! The lab's own certificate authority: certificates for servers and clients that nobody else trusts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose,
    OtherNameValue, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Why the authority could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate could not be made.
    #[error("cannot make the certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The certificate or key was made but TLS does not take it.
    #[error("TLS does not take the certificate: {0}")]
    Tls(#[from] rustls::Error),
    /// The list of trusted authorities could not be made.
    #[error("cannot verify clients: {0}")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
    /// The PEM text does not read back.
    #[error("PEM does not read back: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
}

/// A certificate authority that lives as long as the process.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Credential {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").finish_non_exhaustive()
    }
}

/// Whose certificate is made, and what it says.
#[derive(Clone, Copy, Debug)]
pub struct CertifiedUser<'a> {
    /// The common name of the subject.
    pub subject: &'a str,
    /// User principal name.
    pub upn: Option<&'a str>,
    /// Mail address.
    pub email: Option<&'a str>,
    /// Security identifier, shorter than 100 letters.
    pub sid: Option<&'a str>,
    /// When it is valid.
    pub validity: Validity,
    /// Its number.
    pub serial: u64,
}

impl Default for CertifiedUser<'_> {
    fn default() -> Self {
        Self {
            subject: "somebody",
            upn: None,
            email: None,
            sid: None,
            validity: Validity::NOW,
            serial: 1,
        }
    }
}

/// When a certificate is valid, in days from now; negative is in the past.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    /// First day.
    pub from_days: i64,
    /// Last day.
    pub to_days: i64,
}

impl Validity {
    /// From yesterday, because clocks differ, for a month.
    pub const NOW: Self = Self {
        from_days: -1,
        to_days: 30,
    };
    /// It ended yesterday.
    pub const EXPIRED: Self = Self {
        from_days: -30,
        to_days: -1,
    };
}

impl Authority {
    /// Makes an authority of this name, with an ECDSA P-256 key.
    ///
    /// # Errors
    /// When the library of certificates fails, which no input of ours makes it do.
    pub fn new(name: &str) -> Result<Self, AuthorityError> {
        let mut params = parameters(name, Validity::NOW);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?,
        })
    }

    /// The authority's own certificate, in PEM.
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// A server's certificate for these DNS names and addresses; `127.0.0.1` is always among them.
    ///
    /// # Errors
    /// When a name is not one.
    pub fn server(&self, names: &[&str]) -> Result<Credential, AuthorityError> {
        self.server_valid(names, Validity::NOW)
    }

    /// As [`Self::server`], valid when told: for tests of expired certificates.
    ///
    /// # Errors
    /// When a name is not one.
    pub fn server_valid(
        &self,
        names: &[&str],
        validity: Validity,
    ) -> Result<Credential, AuthorityError> {
        let mut alternatives: Vec<String> = names.iter().map(ToString::to_string).collect();
        if !names.contains(&"127.0.0.1") {
            alternatives.push("127.0.0.1".to_owned());
        }
        let mut params = parameters(names.first().unwrap_or(&"127.0.0.1"), validity);
        params.subject_alt_names = CertificateParams::new(alternatives)?.subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params)
    }

    /// A client's certificate.
    ///
    /// # Errors
    /// When the library of certificates fails.
    pub fn client(&self, name: &str) -> Result<Credential, AuthorityError> {
        let mut params = parameters(name, Validity::NOW);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    /// A user's certificate, as an enterprise's authority makes them.
    ///
    /// # Errors
    /// When a name is not one.
    pub fn user(&self, user: &CertifiedUser<'_>) -> Result<Credential, AuthorityError> {
        let mut params = parameters(user.subject, user.validity);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(user.serial));
        if let Some(upn) = user.upn {
            let value = OtherNameValue::Utf8String(upn.to_owned());
            let name = SanType::OtherName((UPN.to_vec(), value));
            params.subject_alt_names.push(name);
        }
        if let Some(email) = user.email {
            let name = SanType::Rfc822Name(email.try_into()?);
            params.subject_alt_names.push(name);
        }
        if let Some(sid) = user.sid {
            let extension = CustomExtension::from_oid_content(SID_EXTENSION, sid_value(sid));
            params.custom_extensions.push(extension);
        }
        self.sign(&params)
    }

    /// The list of certificates that count no more, by their serial numbers, in PEM.
    ///
    /// # Errors
    /// When the library of certificates fails.
    pub fn revocation_list(
        &self,
        serials: &[u64],
        validity: Validity,
    ) -> Result<String, AuthorityError> {
        let now = now();
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now - time::Duration::days(1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: now + time::Duration::days(validity.from_days),
            next_update: now + time::Duration::days(validity.to_days),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.issuer)?.pem()?)
    }

    fn sign(&self, params: &CertificateParams) -> Result<Credential, AuthorityError> {
        let key = KeyPair::generate()?;
        Ok(Credential {
            certificate: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }

    /// What a simulated server needs for TLS with a new certificate for `names`.
    ///
    /// # Errors
    /// When a name is not one.
    pub fn server_config(&self, names: &[&str]) -> Result<Arc<ServerConfig>, AuthorityError> {
        server_config(&self.server(names)?, None)
    }

    /// As [`Self::server_config`], and clients need a certificate of this authority.
    ///
    /// # Errors
    /// When a name is not one.
    pub fn strict_server_config(
        &self,
        names: &[&str],
    ) -> Result<Arc<ServerConfig>, AuthorityError> {
        server_config(&self.server(names)?, Some(&self.certificate()))
    }

    /// What a client needs that trusts this authority and nobody else.
    ///
    /// # Errors
    /// When TLS does not take our own certificate.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, AuthorityError> {
        client_config(&self.certificate())
    }

    /// As [`Self::client_config`], showing a certificate of its own.
    ///
    /// # Errors
    /// When TLS does not take the certificate.
    pub fn client_config_as(
        &self,
        credential: &Credential,
    ) -> Result<Arc<ClientConfig>, AuthorityError> {
        let (chain, key) = parts(credential)?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots_of(&self.certificate())?)
            .with_client_auth_cert(chain, key)?;
        Ok(Arc::new(config))
    }

    /// Writes `ca.pem` into the folder.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn write(&self, folder: &Path) -> io::Result<PathBuf> {
        fs::create_dir_all(folder)?;
        let path = folder.join("ca.pem");
        fs::write(&path, self.certificate())?;
        Ok(path)
    }
}

impl Credential {
    /// Writes `<name>.pem` and `<name>.key` into the folder and returns their paths. The key is readable by its
    /// owner only.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn write(&self, folder: &Path, name: &str) -> io::Result<(PathBuf, PathBuf)> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;

        fs::create_dir_all(folder)?;
        let certificate = folder.join(format!("{name}.pem"));
        let key = folder.join(format!("{name}.key"));
        fs::write(&certificate, &self.certificate)?;
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&key)?
            .write_all(self.key.as_bytes())?;
        Ok((certificate, key))
    }
}

/// What a server needs for TLS with this certificate; with `client_authorities`, PEM, clients need a certificate
/// of one of them.
///
/// # Errors
/// When certificate and key do not belong together.
pub fn server_config(
    credential: &Credential,
    client_authorities: Option<&str>,
) -> Result<Arc<ServerConfig>, AuthorityError> {
    let (chain, key) = parts(credential)?;
    let config =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let config = match client_authorities {
        None => config.with_no_client_auth(),
        Some(authorities) => {
            let roots = Arc::new(roots_of(authorities)?);
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?;
            config.with_client_cert_verifier(verifier)
        }
    };
    Ok(Arc::new(config.with_single_cert(chain, key)?))
}

/// What a client needs that trusts the authorities of this PEM text and nobody else.
///
/// # Errors
/// When the text holds no certificate.
pub fn client_config(authorities: &str) -> Result<Arc<ClientConfig>, AuthorityError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots_of(authorities)?)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn roots_of(authorities: &str) -> Result<RootCertStore, AuthorityError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        roots.add(certificate?)?;
    }
    Ok(roots)
}

fn parts(
    credential: &Credential,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), AuthorityError> {
    let chain = CertificateDer::pem_slice_iter(credential.certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(credential.key.as_bytes())?;
    Ok((chain, key))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

#[expect(
    clippy::disallowed_methods,
    reason = "certificates are valid around the present, and this is the lab"
)]
fn now() -> time::OffsetDateTime {
    time::OffsetDateTime::from(std::time::SystemTime::now())
}

fn parameters(name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = now();
    params.not_before = now + time::Duration::days(validity.from_days);
    params.not_after = now + time::Duration::days(validity.to_days);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// `SEQUENCE { [0] { OID, [0] { OCTET STRING } } }`. `[MS-WCCE] 2.2.2.7.7.4`
fn sid_value(sid: &str) -> Vec<u8> {
    let element = |tag: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).unwrap_or(0);
        [&[tag, length], content].concat()
    };
    let value = element(0xa0, &element(4, sid.as_bytes()));
    let oid = [6, 10, 0x2b, 6, 1, 4, 1, 0x82, 0x37, 0x19, 2, 1];
    element(0x30, &element(0xa0, &[&oid, value.as_slice()].concat()))
}

/// A user principal name among the alternative names.
const UPN: &[u64] = &[1, 3, 6, 1, 4, 1, 311, 20, 2, 3];
/// The extension with a security identifier.
const SID_EXTENSION: &[u64] = &[1, 3, 6, 1, 4, 1, 311, 25, 2];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_of_the_authority_are_taken_by_tls() {
        let authority = Authority::new("Lab CA").unwrap();

        assert!(authority.server_config(&["mail.contoso.test"]).is_ok());
        assert!(
            authority
                .strict_server_config(&["mbx1.contoso.test"])
                .is_ok()
        );
        assert!(authority.client_config().is_ok());
        let client = authority.client("gate").unwrap();
        assert!(authority.client_config_as(&client).is_ok());
    }

    #[test]
    fn files_are_written_and_the_key_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("Lab CA").unwrap();

        let ca = authority.write(folder.path()).unwrap();
        let credential = authority.server(&["mail.contoso.test"]).unwrap();
        let (certificate, key) = credential.write(folder.path(), "mail").unwrap();

        assert!(
            fs::read_to_string(ca)
                .unwrap()
                .contains("BEGIN CERTIFICATE")
        );
        assert!(
            fs::read_to_string(certificate)
                .unwrap()
                .contains("BEGIN CERTIFICATE")
        );
        assert_eq!(
            fs::metadata(key).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
