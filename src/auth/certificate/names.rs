//! The names in a certificate that say whose it is.

use crate::auth::names::canonical;
use crate::config::settings::CertificateName;
use crate::ids::UserName;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// One name that a certificate gives its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Where it stands.
    pub kind: CertificateName,
    /// The name in its one spelling; an identifier as `s-1-5-21-…`.
    pub name: UserName,
}

/// Every name of a certificate that may say whose it is, in the order they stand; `None` for what is no
/// certificate. What is no name is passed over.
pub(super) fn read(der: &[u8]) -> Option<Vec<Claim>> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let mut claims = Vec::new();
    let mut claim = |kind, text: &str| {
        let name = match kind {
            CertificateName::Sid => sid(text),
            _ if text.contains('@') => canonical(text, None),
            _ => None,
        };
        claims.extend(name.map(|name| Claim { kind, name }));
    };
    for extension in certificate.extensions() {
        if extension.oid.to_id_string() == SID_EXTENSION {
            let value = sid_of_extension(extension.value);
            value
                .into_iter()
                .for_each(|text| claim(CertificateName::Sid, text));
        }
    }
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    for name in alternatives
        .iter()
        .flat_map(|names| &names.value.general_names)
    {
        match name {
            GeneralName::OtherName(oid, value) if oid.to_id_string() == UPN => {
                let text = explicit_text(value);
                text.into_iter()
                    .for_each(|text| claim(CertificateName::Upn, text));
            }
            GeneralName::RFC822Name(text) => claim(CertificateName::Email, text),
            GeneralName::URI(text) => {
                let text = text.strip_prefix(SID_URI);
                text.into_iter()
                    .for_each(|text| claim(CertificateName::Sid, text));
            }
            _ => {}
        }
    }
    Some(claims)
}

/// `S-1-5-21-…` in lower case; `None` for what is no identifier. `[MS-DTYP] 2.4.2.1`
fn sid(text: &str) -> Option<UserName> {
    let mut parts = text.split('-');
    let is_start = parts.next()?.eq_ignore_ascii_case("s") && parts.next()? == "1";
    let mut count = 0;
    for part in parts {
        count += 1;
        let is_number = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| part.parse::<u64>().ok()).flatten()?;
    }
    (is_start && (2..=16).contains(&count)).then(|| UserName::new(text.to_ascii_lowercase()))
}

/// The identifier in the extension: `SEQUENCE { [0] { OID, [0] { OCTET STRING } } }`.
/// `[MS-WCCE] 2.2.2.7.7.4`
fn sid_of_extension(der: &[u8]) -> Option<&str> {
    let (sequence, _) = element(der, SEQUENCE)?;
    let (other_name, _) = element(sequence, EXPLICIT_0)?;
    let (oid, rest) = element(other_name, OBJECT_IDENTIFIER)?;
    if oid != SID_VALUE {
        return None;
    }
    let (explicit, _) = element(rest, EXPLICIT_0)?;
    let (text, _) = element(explicit, OCTET_STRING)?;
    std::str::from_utf8(text).ok()
}

/// The text of an `otherName`: `[0] { UTF8String }`, its outer tag read or not.
fn explicit_text(der: &[u8]) -> Option<&str> {
    let inner = element(der, EXPLICIT_0).map_or(der, |(inner, _)| inner);
    let (text, _) = element(inner, UTF8_STRING)?;
    std::str::from_utf8(text).ok()
}

/// The content of the element of this tag at the beginning, and what stands behind it. X.690 8.1
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match *length {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81 => {
            let (length, rest) = rest.split_first()?;
            (usize::from(*length), rest)
        }
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    (*first == tag).then_some(())?;
    rest.split_at_checked(length)
}

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
const UTF8_STRING: u8 = 0x0c;
const EXPLICIT_0: u8 = 0xa0;

/// A user principal name in the alternative names. `[MS-WCCE] 2.2.2.7.5`
const UPN: &str = "1.3.6.1.4.1.311.20.2.3";
/// The extension with a security identifier.
const SID_EXTENSION: &str = "1.3.6.1.4.1.311.25.2";
/// 1.3.6.1.4.1.311.25.2.1: the value in it.
const SID_VALUE: &[u8] = &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 0x19, 2, 1];
/// The same where an authority writes it among the alternative names.
const SID_URI: &str = "tag:microsoft.com,2022-09-14:sid:";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn identifiers_are_spelled_in_one_way_and_nothing_else_is_one() {
        assert_eq!(
            sid("S-1-5-21-1-2-3-1104").unwrap().as_str(),
            "s-1-5-21-1-2-3-1104"
        );
        for text in [
            "",
            "S-1",
            "S-1-5",
            "S-2-5-21",
            "S-1-5-x",
            "S-1-5-21-",
            "user1",
            "S-1-5-+1",
        ] {
            assert!(sid(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_names_or_none(bytes: Vec<u8>) {
            let _ = read(&bytes);
            let _ = sid_of_extension(&bytes);
            let _ = explicit_text(&bytes);
        }
    }
}
