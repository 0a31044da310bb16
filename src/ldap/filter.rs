//! Questions as search filters. RFC 4515

use super::mark::{Mark, Marker, Of};
use crate::config::settings::{Attributes, GuidForm, LdapSettings};
use ldap3::ldap_escape;
use std::fmt::Write;

/// Who or what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    /// A user by a canonical login name or address: `user1@contoso.test`, `contoso\user1`, `user1`.
    User(&'a str),
    /// A user by security identifier, as in `S-1-5-21-1-2-3-1104`.
    Sid(&'a str),
    /// A mailbox, or an archive, by its GUID in the order of its text.
    Mailbox([u8; 16]),
}

impl Asked<'_> {
    pub(super) fn mark(self, marker: &Marker) -> Mark {
        match self {
            Self::User(name) => marker.mark(Of::User, name.as_bytes()),
            Self::Sid(sid) => marker.mark(Of::Sid, sid.as_bytes()),
            Self::Mailbox(guid) => marker.mark(Of::Mailbox, &guid),
        }
    }

    /// The filter that finds it among people; `None` for what nobody can be called here.
    ///
    /// Every value is escaped: no name can change the meaning of the filter.
    pub(super) fn filter(self, settings: &LdapSettings) -> Option<String> {
        let attributes = &settings.attributes;
        let mut any = Any::default();
        match self {
            Self::User(name) => user(name, settings, &mut any),
            Self::Sid(sid) => any.text(&attributes.sid, sid),
            Self::Mailbox(guid) => {
                any.guid(&attributes.mailbox_guid, guid, attributes);
                any.guid(&attributes.archive_guid, guid, attributes);
            }
        }
        any.among(&settings.people)
    }
}

fn user(name: &str, settings: &LdapSettings, any: &mut Any) {
    let attributes = &settings.attributes;
    if let Some((domain, account)) = name.split_once('\\') {
        if settings.netbios_domain.as_deref() == Some(domain) {
            any.text(&attributes.account, account);
        }
    } else if name.contains('@') {
        any.text(&attributes.upn, name);
        any.text(&attributes.mail, name);
        any.text(&attributes.addresses, name);
        // Compared without regard to case: `SMTP:`, the primary address, is found as well.
        any.prefixed(&attributes.addresses, "smtp:", name);
    } else {
        any.text(&attributes.account, name);
        any.text(&attributes.upn, name);
    }
}

/// Alternatives under way to a filter.
#[derive(Default)]
struct Any(String);

impl Any {
    fn text(&mut self, attribute: &Option<String>, value: &str) {
        self.prefixed(attribute, "", value);
    }

    fn prefixed(&mut self, attribute: &Option<String>, prefix: &str, value: &str) {
        if let (Some(attribute), false) = (attribute, value.is_empty()) {
            // Writing into a string does not fail.
            let _ = write!(self.0, "({attribute}={prefix}{})", ldap_escape(value));
        }
    }

    fn guid(&mut self, attribute: &Option<String>, guid: [u8; 16], names: &Attributes) {
        let Some(attribute) = attribute else {
            return;
        };
        match names.guid_form {
            GuidForm::Text => self.text(&Some(attribute.clone()), &guid_text(guid)),
            GuidForm::Bytes => {
                let _ = write!(self.0, "({attribute}=");
                for byte in swapped(guid) {
                    let _ = write!(self.0, "\\{byte:02x}");
                }
                self.0.push(')');
            }
        }
    }

    fn among(self, people: &str) -> Option<String> {
        (!self.0.is_empty()).then(|| format!("(&{people}(|{}))", self.0))
    }
}

/// The GUID at the beginning of a `MailboxId`, in the order of its text; `None` where there is none.
pub(crate) fn guid_of(text: &str) -> Option<[u8; 16]> {
    let bytes = text.as_bytes();
    if bytes.len() != 36
        || [8, 13, 18, 23]
            .iter()
            .any(|at| bytes.get(*at) != Some(&b'-'))
    {
        return None;
    }
    let mut guid = [0; 16];
    let mut nibbles = bytes.iter().filter(|byte| **byte != b'-');
    for byte in &mut guid {
        let mut nibble = || {
            let digit = char::from(*nibbles.next()?).to_digit(16)?;
            u8::try_from(digit).ok()
        };
        *byte = (nibble()? << 4) | nibble()?;
    }
    nibbles.next().is_none().then_some(guid)
}

/// A GUID as it is written in a URL.
pub(crate) fn guid_text(guid: [u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (position, byte) in guid.iter().enumerate() {
        if [4, 6, 8, 10].contains(&position) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Between the order of the text and that of the bytes in Active Directory, either way: the first three
/// groups are numbers with their low byte first. `[MS-DTYP] 2.3.4.2`
pub(super) fn swapped(guid: [u8; 16]) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = guid;
    let [i, j, k, l, m, n, o, p] = rest;
    [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
}

#[cfg(test)]
mod tests {
    use super::super::person::tests::settings;
    use super::*;
    use proptest::prelude::*;

    fn filter(asked: Asked<'_>) -> Option<String> {
        asked.filter(&settings())
    }

    #[test]
    fn an_address_is_looked_for_wherever_addresses_stand() {
        assert_eq!(
            filter(Asked::User("user1@contoso.test")).unwrap(),
            "(&(objectCategory=person)(|(userPrincipalName=user1@contoso.test)(mail=user1@contoso.test)\
             (proxyAddresses=user1@contoso.test)(proxyAddresses=smtp:user1@contoso.test)))"
        );
    }

    #[test]
    fn a_down_level_name_is_known_in_its_own_domain_only() {
        assert_eq!(
            filter(Asked::User(r"contoso\user1")).unwrap(),
            "(&(objectCategory=person)(|(sAMAccountName=user1)))"
        );
        assert_eq!(filter(Asked::User(r"fabrikam\user1")), None);
        assert_eq!(filter(Asked::User(r"contoso\")), None);
    }

    #[test]
    fn a_mailbox_is_looked_for_by_the_bytes_of_active_directory() {
        let guid = guid_of("bf2f47c7-fda2-5027-a326-dd0856031bc5").unwrap();

        assert_eq!(
            filter(Asked::Mailbox(guid)).unwrap(),
            r"(&(objectCategory=person)(|(msExchMailboxGuid=\c7\47\2f\bf\a2\fd\27\50\a3\26\dd\08\56\03\1b\c5)(msExchArchiveGUID=\c7\47\2f\bf\a2\fd\27\50\a3\26\dd\08\56\03\1b\c5)))"
        );
    }

    #[test]
    fn a_guid_in_text_stays_text() {
        let mut settings = settings();
        settings.attributes.guid_form = GuidForm::Text;
        settings.attributes.archive_guid = None;
        let guid = guid_of("BF2F47C7-fda2-5027-a326-dd0856031bc5").unwrap();

        assert_eq!(
            Asked::Mailbox(guid).filter(&settings).unwrap(),
            "(&(objectCategory=person)(|(msExchMailboxGuid=bf2f47c7-fda2-5027-a326-dd0856031bc5)))"
        );
    }

    #[test]
    fn a_name_cannot_widen_the_question() {
        assert_eq!(
            filter(Asked::User("*)(uid=*")).unwrap(),
            r"(&(objectCategory=person)(|(sAMAccountName=\2a\29\28uid=\2a)(userPrincipalName=\2a\29\28uid=\2a)))"
        );
    }

    #[test]
    fn what_is_no_guid_is_none() {
        for text in [
            "",
            "bf2f47c7-fda2-5027-a326-dd0856031bc",
            "bf2f47c7xfda2-5027-a326-dd0856031bc5",
            "bf2f47c7-fda2-5027-a326-dd0856031bcg",
            "bf2f47c7-fda2-5027-a326-dd08560-1bc5",
            "+f2f47c7-fda2-5027-a326-dd0856031bc5",
        ] {
            assert_eq!(guid_of(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_name_gives_a_filter_with_one_meaning(name in "\\PC{0,40}") {
            // What a name may add is values: the shape of the filter stays that of a plain name. Other
            // letters than these mean nothing in a value. RFC 4515 3
            let shape = |name: &str| {
                let filter = filter(Asked::User(name))?;
                ldap3::parse_filter(&filter).unwrap();
                let brackets = filter.chars().filter(|c| "()*".contains(*c));
                Some(brackets.collect::<String>())
            };
            let plain = match name.split_once('\\') {
                Some((domain, account)) if domain == "contoso" && !account.is_empty() => shape(r"contoso\a"),
                Some(_) => None,
                None if name.is_empty() => None,
                None if name.contains('@') => shape("a@b"),
                None => shape("a"),
            };
            prop_assert_eq!(shape(&name), plain);
        }

        #[test]
        fn guids_survive_both_writings(guid: [u8; 16]) {
            prop_assert_eq!(guid_of(&guid_text(guid)), Some(guid));
            prop_assert_eq!(swapped(swapped(guid)), guid);
        }
    }
}
