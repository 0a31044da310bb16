//! Reads certificates and keys, and judges them: readable, matching, valid now.

use super::desk::{Desk, Place};
use super::problem::{Complaint, quoted};
use super::section::Section;
use super::settings::Certificate;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::path::Path;
use std::sync::Arc;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, GeneralName, X509Certificate};
use zeroize::Zeroizing;

/// Bytes of a PEM file; the system's list of all authorities has a quarter of that.
const PEM_MAX: usize = 1 << 20;
/// Bytes of a file with revocation lists: half a million entries.
const CRL_MAX: usize = 16 << 20;
/// A certificate that expires within this is worth a warning. Renewal services renew earlier.
const EXPIRY_WARNING_DAYS: i64 = 14;
const DAY_SECONDS: i64 = 86_400;

/// Reads the certificate of a section with `chain` and `key`. `None`: reported.
pub(super) fn read(section: &Section<'_>) -> Option<Arc<Certificate>> {
    let desk = section.desk;
    let (chain_file, key_file) = (section.file("chain")?, section.file("key")?);
    let (chain_place, key_place) = (section.place("chain"), section.place("key"));
    // Both files are looked at even if one is bad.
    let chain = certificates(desk, &chain_place, &chain_file);
    let key = private_key(desk, &key_place, &key_file);
    let facts = chain
        .as_ref()
        .and_then(|chain| Some(facts(chain.first()?)))
        .and_then(|facts| match facts {
            Ok(facts) => Some(facts),
            Err(complaint) => {
                desk.error(&chain_place, complaint);
                None
            }
        });
    if let Some(facts) = &facts {
        judge_time(desk, &chain_place, &chain_file, facts);
    }
    let (chain, key, facts) = (chain?, key?, facts?);
    match_key(desk, &key_place, (&chain_file, &chain), (&key_file, &key))?;
    Some(Arc::new(Certificate {
        chain_file,
        key_file,
        chain: chain.iter().map(|der| der.to_vec()).collect(),
        key: Zeroizing::new(key.secret_der().to_vec()),
        names: facts.names,
        not_after: facts.not_after,
    }))
}

/// Reads authorities: DER of every certificate in the file. `None`: reported.
pub(super) fn authorities(section: &Section<'_>, leaf: &str) -> Option<Vec<Vec<u8>>> {
    let place = section.place(leaf);
    let file = section.file(leaf)?;
    let list = certificates(section.desk, &place, &file)?;
    for der in &list {
        if let Err(complaint) = facts(der) {
            section.desk.error(&place, complaint);
            return None;
        }
    }
    Some(list.iter().map(|der| der.to_vec()).collect())
}

/// Reads revocation lists: DER of each. Those that cannot be read are reported, and those that nobody in
/// `authorities` has signed, and those that are too old.
pub(super) fn revocation_lists(
    section: &Section<'_>,
    leaf: &str,
    authorities: Option<&[Vec<u8>]>,
) -> Vec<Vec<u8>> {
    let mut lists = Vec::new();
    for (text, place) in section.list(leaf) {
        let file = section.source.resolve(&text);
        let Some(bytes) = section.desk.bytes(&place, &file, CRL_MAX) else {
            continue;
        };
        let shown = quoted(&file.display().to_string());
        let found: Result<Vec<_>, pem::Error> =
            CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
        let found: Vec<Vec<u8>> = match found {
            Ok(found) if !found.is_empty() => found.iter().map(|der| der.to_vec()).collect(),
            _ => vec![bytes],
        };
        for der in found {
            match list_facts(&der) {
                Ok(facts) => {
                    judge_list(section.desk, &place, &shown, &facts, authorities);
                    lists.push(der);
                }
                Err(cause) => {
                    let what = format!("{shown} is no revocation list ({cause})");
                    let cure = "name a file with `-----BEGIN X509 CRL-----` in it, or one in DER";
                    section.desk.error(&place, Complaint::new(what, cure));
                }
            }
        }
    }
    lists
}

struct ListFacts {
    issuer: Vec<u8>,
    next_update: Option<i64>,
}

fn list_facts(der: &[u8]) -> Result<ListFacts, String> {
    let (_, list) = CertificateRevocationList::from_der(der).map_err(|cause| cause.to_string())?;
    Ok(ListFacts {
        issuer: list.issuer().as_raw().to_vec(),
        next_update: list.next_update().map(|time| time.timestamp()),
    })
}

fn judge_list(
    desk: &Desk<'_>,
    place: &Place<'_>,
    shown: &str,
    facts: &ListFacts,
    authorities: Option<&[Vec<u8>]>,
) {
    let Some(end) = facts.next_update else {
        let what = format!("the revocation list {shown} does not say until when it is good");
        let cure = "have its authority write `nextUpdate` into it";
        return desk.error(place, Complaint::new(what, cure));
    };
    if end < desk.now {
        let what = format!("the revocation list {shown} was good until {}", date(end));
        let cure = "fetch a newer one; nobody with a certificate would be let in";
        desk.error(place, Complaint::new(what, cure));
    }
    let has_signed = |der: &Vec<u8>| {
        let read = X509Certificate::from_der(der);
        read.is_ok_and(|(_, own)| own.subject().as_raw() == facts.issuer)
    };
    if authorities.is_some_and(|known| !known.iter().any(has_signed)) {
        let what = format!("no authority in `ca` has made the revocation list {shown}");
        let cure = "name the list of an authority in `ca`, or add the authority";
        desk.warning(place, Complaint::new(what, cure));
    }
}

/// Reads the first certificate of a file: its DER. `None`: reported.
pub(super) fn leaf(desk: &Desk<'_>, place: &Place<'_>, file: &Path) -> Option<Vec<u8>> {
    let list = certificates(desk, place, file)?;
    let leaf = list.first()?;
    match facts(leaf) {
        Ok(_) => Some(leaf.to_vec()),
        Err(complaint) => {
            desk.error(place, complaint);
            None
        }
    }
}

/// True where one of the certificate's names is this host, or a wildcard that stands for it.
pub(super) fn covers(names: &[String], host: &str) -> bool {
    names.iter().any(|name| match name.strip_prefix("*.") {
        // RFC 6125 6.4.3: the star stands for the leftmost label only.
        Some(domain) => host
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest == domain),
        None => name == host,
    })
}

struct Facts {
    names: Vec<String>,
    not_before: i64,
    not_after: i64,
}

fn facts(der: &[u8]) -> Result<Facts, Complaint> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|cause| {
        Complaint::new(
            format!("the certificate cannot be understood ({cause})"),
            "fetch it again from whoever issued it",
        )
    })?;
    let mut names = Vec::new();
    if let Ok(Some(extension)) = certificate.subject_alternative_name() {
        for name in &extension.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.push(name.to_ascii_lowercase()),
                GeneralName::IPAddress(bytes) => names.extend(address(bytes)),
                _ => {}
            }
        }
    }
    let validity = certificate.validity();
    Ok(Facts {
        names,
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
    })
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(v4).to_string());
    }
    let v6 = <[u8; 16]>::try_from(bytes).ok()?;
    Some(std::net::Ipv6Addr::from(v6).to_string())
}

fn certificates(
    desk: &Desk<'_>,
    place: &Place<'_>,
    file: &Path,
) -> Option<Vec<CertificateDer<'static>>> {
    let bytes = desk.bytes(place, file, PEM_MAX)?;
    let shown = quoted(&file.display().to_string());
    let list: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
    let complaint = match list {
        Ok(list) if !list.is_empty() => return Some(list),
        Ok(_) if PrivateKeyDer::from_pem_slice(&bytes).is_ok() => Complaint::new(
            format!("{shown} holds a private key, not a certificate"),
            "name the certificate here and the key under `key`",
        ),
        Ok(_) => Complaint::new(
            format!("{shown} holds no certificate"),
            "name a PEM file with `-----BEGIN CERTIFICATE-----` in it",
        ),
        Err(cause) => Complaint::new(
            format!("{shown} is not a PEM file ({cause})"),
            "name a PEM file with `-----BEGIN CERTIFICATE-----` in it",
        ),
    };
    desk.error(place, complaint);
    None
}

fn private_key(desk: &Desk<'_>, place: &Place<'_>, file: &Path) -> Option<PrivateKeyDer<'static>> {
    let bytes = Zeroizing::new(desk.bytes(place, file, PEM_MAX)?);
    let shown = quoted(&file.display().to_string());
    let complaint = match PrivateKeyDer::from_pem_slice(&bytes) {
        Ok(key) => return Some(key),
        Err(_) if memchr::memmem::find(&bytes, b"ENCRYPTED").is_some() => Complaint::new(
            format!("the key in {shown} is encrypted with a passphrase"),
            format!("decrypt it: openssl pkey -in {0} -out {0}", file.display()),
        ),
        Err(pem::Error::NoItemsFound) => Complaint::new(
            format!("{shown} holds no private key"),
            "name a PEM file with `-----BEGIN PRIVATE KEY-----` in it",
        ),
        Err(cause) => Complaint::new(
            format!("{shown} is not a PEM file ({cause})"),
            "name a PEM file with `-----BEGIN PRIVATE KEY-----` in it",
        ),
    };
    desk.error(place, complaint);
    None
}

fn match_key(
    desk: &Desk<'_>,
    place: &Place<'_>,
    (chain_file, chain): (&Path, &[CertificateDer<'static>]),
    (key_file, key): (&Path, &PrivateKeyDer<'static>),
) -> Option<()> {
    let shown = quoted(&key_file.display().to_string());
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let complaint = match provider.key_provider.load_private_key(key.clone_key()) {
        Ok(signer) => match CertifiedKey::new(chain.to_vec(), signer).keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
                return Some(());
            }
            Err(_) => Complaint::new(
                format!(
                    "the key {shown} does not belong to the certificate {}",
                    quoted(&chain_file.display().to_string())
                ),
                "name the key the certificate was requested with; the server's own certificate comes first in its file",
            ),
        },
        Err(cause) => Complaint::new(
            format!("the key {shown} cannot be used ({cause})"),
            "use an RSA key of 2048 bits or more, or an ECDSA key (P-256, P-384)",
        ),
    };
    desk.error(place, complaint);
    None
}

fn judge_time(desk: &Desk<'_>, place: &Place<'_>, file: &Path, facts: &Facts) {
    let shown = quoted(&file.display().to_string());
    let left = facts.not_after.saturating_sub(desk.now);
    if left < 0 {
        let what = format!(
            "the certificate {shown} expired on {}",
            date(facts.not_after)
        );
        desk.error(place, Complaint::new(what, "renew it; clients refuse it"));
    } else if facts.not_before > desk.now {
        let what = format!(
            "the certificate {shown} is not valid before {}",
            date(facts.not_before)
        );
        desk.error(
            place,
            Complaint::new(what, "check the clock of this machine, or wait"),
        );
    } else if left < EXPIRY_WARNING_DAYS * DAY_SECONDS {
        let what = format!(
            "the certificate {shown} expires on {}, in less than {EXPIRY_WARNING_DAYS} days",
            date(facts.not_after)
        );
        desk.warning(place, Complaint::new(what, "renew it now"));
    }
}

fn date(seconds: i64) -> String {
    time::OffsetDateTime::from_unix_timestamp(seconds)
        .map_or_else(|_| seconds.to_string(), |moment| moment.date().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let names = ["*.contoso.com".to_owned(), "mail.contoso.net".to_owned()];
        assert!(covers(&names, "mail.contoso.com"));
        assert!(covers(&names, "mail.contoso.net"));
        assert!(!covers(&names, "contoso.com"));
        assert!(!covers(&names, "a.b.contoso.com"));
        assert!(!covers(&names, "owa.contoso.net"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_certificate_or_a_complaint(bytes: Vec<u8>) {
            let _ = facts(&bytes);
            let _ = list_facts(&bytes);
        }
    }
}
