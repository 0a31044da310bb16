//! Somebody in the directory service, made of the attributes of an entry.

use super::dn::name_in;
use super::filter::{Asked, guid_of, swapped};
use super::mark::{Mark, Marker, Of};
use crate::config::settings::{Attributes, DatabaseForm, GuidForm, LdapSettings};
use crate::ids::{DatabaseName, UserName, disturbs};
use ldap3::SearchEntry;

/// Somebody in the directory service, as far as mail is concerned. A few hundred bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Person {
    pub(super) object: Mark,
    dn: Mark,
    user: UserName,
    login: Box<str>,
    /// Every name somebody may have proven to be this person by, each with a line end.
    names: Box<str>,
    told: Told,
    mailbox: Option<[u8; 16]>,
    archive: Option<[u8; 16]>,
    database: Option<DatabaseName>,
    archive_database: Option<DatabaseName>,
    is_disabled: bool,
    is_recipient: bool,
    password: Mark,
    delegates: Box<[Mark]>,
}

impl Person {
    /// The one name of this user: the user principal name, else the primary address, else the account.
    /// Lower case; not yet proven to be a name that may stand in a header.
    pub fn user(&self) -> &UserName {
        &self.user
    }

    /// The name to log on with.
    pub fn login(&self) -> &str {
        &self.login
    }

    /// The primary address, else the user principal name where it looks like one.
    pub fn address(&self) -> Option<&str> {
        self.told.line(0)
    }

    /// What somebody is called, to be read by people.
    pub fn display_name(&self) -> Option<&str> {
        self.told.line(1)
    }

    /// The distinguished name in the address book.
    pub fn legacy_dn(&self) -> Option<&str> {
        self.told.line(2)
    }

    /// This distinguished name of the address book is this person's, or was before a move: such ones are kept
    /// among the addresses. `None` where none is known.
    pub fn has_legacy_dn(&self, dn: &str) -> Option<bool> {
        let mut known = self
            .told
            .0
            .lines()
            .skip(2)
            .filter(|known| !known.is_empty())
            .peekable();
        known.peek()?;
        Some(known.any(|known| known.eq_ignore_ascii_case(dn)))
    }

    /// The account is disabled: it may own a mailbox that others use, and not log on.
    pub fn is_disabled(&self) -> bool {
        self.is_disabled
    }

    /// The database of the mailbox, or the archive, that has this GUID. `None` where it is not this
    /// person's, or none of ours.
    pub fn database_of(&self, guid: [u8; 16]) -> Option<&DatabaseName> {
        if !self.is_recipient {
            return None;
        }
        if self.mailbox == Some(guid) {
            return self.database.as_ref();
        }
        if self.archive == Some(guid) {
            return self.archive_database.as_ref().or(self.database.as_ref());
        }
        None
    }

    /// The GUID of the mailbox, and its database; `None` where it is none of ours.
    pub fn mailbox(&self) -> Option<([u8; 16], &DatabaseName)> {
        let guid = self.mailbox.filter(|_| self.is_recipient)?;
        Some((guid, self.database.as_ref()?))
    }

    /// This is the same entry of the directory.
    pub fn is(&self, other: &Self) -> bool {
        self.object == other.object
    }

    /// The directory lists `other` as one who may open this person's mailbox.
    pub fn has_delegate(&self, other: &Self) -> bool {
        self.delegates.contains(&other.dn)
    }

    /// This person is known by this name, in lower case.
    pub fn is_called(&self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }

    /// Every name somebody may have proven to be this person by.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.lines()
    }

    /// The GUIDs this person is found by.
    pub(super) fn guids(&self) -> impl Iterator<Item = [u8; 16]> {
        [self.mailbox, self.archive].into_iter().flatten()
    }

    /// Found by other names than `other` was.
    pub(super) fn is_named_unlike(&self, other: &Self) -> bool {
        self.names != other.names || self.mailbox != other.mailbox || self.archive != other.archive
    }

    /// What was verified of `before` proves nothing of this person: another password, or no right to
    /// log on any more, or other names.
    pub(super) fn ends_proof_of(&self, before: &Self) -> bool {
        self.password != before.password
            || (self.is_disabled && !before.is_disabled)
            || self.names != before.names
    }
}

/// Makes people of entries.
#[derive(Debug)]
pub(super) struct Reader {
    marker: Marker,
    /// Text with `{upn}`, `{dn}`, `{mail}` or `{account}` in it.
    login: String,
}

impl Reader {
    pub(super) fn new(marker: Marker, login: String) -> Self {
        Self { marker, login }
    }

    /// The person of an entry.
    pub(super) fn person(&self, entry: &SearchEntry, settings: &LdapSettings) -> Person {
        let attributes = &settings.attributes;
        let names = Names::of(entry, attributes);
        let first = |attribute: &Option<String>| values(entry, attribute).next();
        let text = |attribute: &Option<String>| first(attribute).and_then(utf8);
        let database = |attribute: &Option<String>| {
            let text = text(attribute)?;
            let name = match attributes.database_form {
                DatabaseForm::Text => text.to_owned(),
                DatabaseForm::Dn => name_in(text)?,
            };
            Some(DatabaseName::new(name))
        };
        let control: u64 = text(&attributes.control)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let is_recipient = attributes.recipient_type.is_none()
            || text(&attributes.recipient_type)
                .and_then(|text| text.parse().ok())
                .is_some_and(|kind| settings.recipient_types.contains(&kind));
        let object = first(&attributes.object).unwrap_or(entry.dn.as_bytes());
        let domain = settings.netbios_domain.as_deref();
        Person {
            object: self.marker.mark(Of::Object, object),
            dn: self.marker.dn(&entry.dn),
            user: UserName::new(names.first(domain)),
            login: self.login(&names, &entry.dn).into(),
            names: names.all(domain).into(),
            told: Told::of(
                &names,
                text(&attributes.display_name),
                text(&attributes.legacy_dn),
            ),
            mailbox: guid(first(&attributes.mailbox_guid), attributes.guid_form),
            archive: guid(first(&attributes.archive_guid), attributes.guid_form),
            database: database(&attributes.database),
            archive_database: database(&attributes.archive_database),
            is_disabled: control & attributes.disabled_bit != 0,
            is_recipient,
            password: self.marker.mark(
                Of::Object,
                first(&attributes.password_changed).unwrap_or_default(),
            ),
            delegates: values(entry, &attributes.delegates)
                .filter_map(utf8)
                .map(|dn| self.marker.dn(dn))
                .collect(),
        }
    }

    /// The one person of several entries that is meant. A login name counts more than an address, and
    /// that more than the attribute `mail`, which some sites let people write themselves; two that count
    /// alike are nobody.
    ///
    /// The directory's own idea of what is alike is not relied on: some take `muller` for `müller`.
    pub(super) fn meant(
        &self,
        asked: Asked<'_>,
        entries: &[SearchEntry],
        settings: &LdapSettings,
    ) -> Result<Option<Person>, Ambiguous> {
        let mut best: Option<(u8, &SearchEntry)> = None;
        let mut is_alone = true;
        for entry in entries {
            let Some(strength) = strength(asked, entry, settings) else {
                continue;
            };
            match best {
                Some((known, _)) if known < strength => {}
                Some((known, _)) if known == strength => is_alone = false,
                _ => (best, is_alone) = (Some((strength, entry)), true),
            }
        }
        match best {
            Some(_) if !is_alone => Err(Ambiguous),
            best => Ok(best.map(|(_, entry)| self.person(entry, settings))),
        }
    }

    fn login(&self, names: &Names<'_>, dn: &str) -> String {
        let mut login = self.login.clone();
        for (part, value) in [
            ("{upn}", names.upn),
            ("{mail}", names.address()),
            ("{account}", names.account),
            ("{dn}", Some(dn)),
        ] {
            if login.contains(part) {
                match value {
                    Some(value) => login = login.replace(part, value),
                    None => return dn.to_owned(),
                }
            }
        }
        login
    }
}

/// What Autodiscover tells of somebody, a line each: the address, the display name, the distinguished name in the
/// address book; then other such names. A line may be empty.
#[derive(Debug, PartialEq, Eq)]
struct Told(Box<str>);

impl Told {
    fn of(names: &Names<'_>, display_name: Option<&str>, legacy_dn: Option<&str>) -> Self {
        let upn = names.upn.filter(|upn| upn.contains('@'));
        let first = [names.address().or(upn), display_name, legacy_dn];
        let first = first.map(|line| line.filter(|line| is_line(line)).unwrap_or_default());
        let others = names
            .legacy_dns()
            .filter(|dn| is_line(dn))
            .take(OTHER_DNS_MAX);
        let lines: Vec<&str> = first.into_iter().chain(others).collect();
        Self(lines.join("\n").into())
    }

    fn line(&self, number: usize) -> Option<&str> {
        self.0.lines().nth(number).filter(|line| !line.is_empty())
    }
}

fn is_line(text: &str) -> bool {
    text.len() <= LINE_BYTES_MAX && !text.contains(disturbs)
}

/// Several entries answer to one name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ambiguous;

/// How strongly an entry answers to what was asked: the less the stronger; `None`: not at all.
fn strength(asked: Asked<'_>, entry: &SearchEntry, settings: &LdapSettings) -> Option<u8> {
    let attributes = &settings.attributes;
    let names = Names::of(entry, attributes);
    match asked {
        Asked::User(name) => {
            if let Some((domain, account)) = name.split_once('\\') {
                let is_ours = settings.netbios_domain.as_deref() == Some(domain);
                return (is_ours && is_alike(names.account, account)).then_some(0);
            }
            if is_alike(names.upn, name) || (!name.contains('@') && is_alike(names.account, name)) {
                return Some(0);
            }
            if !name.contains('@') {
                return None;
            }
            if names
                .addresses()
                .any(|address| is_alike(Some(address), name))
            {
                return Some(1);
            }
            is_alike(names.mail, name).then_some(2)
        }
        Asked::Sid(sid) => {
            let value = values(entry, &attributes.sid).next()?;
            let text = sid_text(value).or_else(|| utf8(value).map(str::to_owned));
            is_alike(text.as_deref(), sid).then_some(0)
        }
        Asked::Mailbox(asked) => {
            let is_it = |attribute: &Option<String>| {
                let value = values(entry, attribute).next();
                guid(value, attributes.guid_form) == Some(asked)
            };
            (is_it(&attributes.mailbox_guid) || is_it(&attributes.archive_guid)).then_some(0)
        }
    }
}

fn is_alike(value: Option<&str>, name: &str) -> bool {
    value.is_some_and(|value| value.eq_ignore_ascii_case(name))
}

/// What an entry is called.
struct Names<'e> {
    upn: Option<&'e str>,
    account: Option<&'e str>,
    mail: Option<&'e str>,
    proxies: Vec<&'e str>,
}

impl<'e> Names<'e> {
    fn of(entry: &'e SearchEntry, attributes: &Attributes) -> Self {
        let text = |attribute: &Option<String>| values(entry, attribute).next().and_then(utf8);
        Self {
            upn: text(&attributes.upn),
            account: text(&attributes.account),
            mail: text(&attributes.mail),
            proxies: values(entry, &attributes.addresses)
                .filter_map(utf8)
                .collect(),
        }
    }

    /// Addresses of mail among all addresses, which are also of X.500, SIP and others.
    fn addresses(&self) -> impl Iterator<Item = &'e str> {
        self.proxies
            .iter()
            .filter_map(|proxy| match proxy.split_once(':') {
                Some((kind, address)) => kind.eq_ignore_ascii_case("smtp").then_some(address),
                None => Some(*proxy),
            })
    }

    /// Distinguished names of the address book by which somebody was known before.
    fn legacy_dns(&self) -> impl Iterator<Item = &'e str> {
        self.proxies.iter().filter_map(|proxy| {
            let (kind, dn) = proxy.split_once(':')?;
            kind.eq_ignore_ascii_case("x500").then_some(dn)
        })
    }

    /// The primary address. `[MS-ADA3] 2.130`: `SMTP:` in capitals.
    fn address(&self) -> Option<&'e str> {
        let primary = self
            .proxies
            .iter()
            .find_map(|proxy| proxy.strip_prefix("SMTP:"));
        primary.or(self.mail)
    }

    fn first(&self, domain: Option<&str>) -> String {
        let down_level = || {
            let account = self.account?;
            Some(match domain {
                Some(domain) => format!("{domain}\\{account}"),
                None => account.to_owned(),
            })
        };
        let whole = self.upn.or_else(|| self.address()).map(str::to_owned);
        whole
            .or_else(down_level)
            .unwrap_or_default()
            .to_ascii_lowercase()
    }

    fn all(&self, domain: Option<&str>) -> String {
        let mut all: Vec<String> = self.upn.into_iter().map(str::to_owned).collect();
        all.extend(self.addresses().map(str::to_owned));
        all.extend(self.mail.map(str::to_owned));
        if let Some(account) = self.account {
            all.push(account.to_owned());
            all.extend(domain.map(|domain| format!("{domain}\\{account}")));
        }
        // A name with a line end in it is nobody's.
        all.retain(|name| !name.is_empty() && !name.contains(char::is_control));
        all.iter_mut().for_each(|name| name.make_ascii_lowercase());
        all.sort_unstable();
        all.dedup();
        all.join("\n")
    }
}

/// The values of an attribute, whatever its case in the answer.
///
/// Bytes that happen to be UTF-8 come as text, so both kinds are looked at. A long list comes in
/// portions, the first of them as `name;range=0-1499`. `[MS-ADTS] 3.1.1.3.1.3.3`
fn values<'e>(
    entry: &'e SearchEntry,
    attribute: &Option<String>,
) -> impl Iterator<Item = &'e [u8]> + use<'e> {
    let attribute = attribute.clone();
    let is_it = move |name: &str| {
        attribute.as_ref().is_some_and(|attribute| {
            let bare = name.split_once(";range=").map_or(name, |(bare, _)| bare);
            bare.eq_ignore_ascii_case(attribute)
        })
    };
    let texts = entry.attrs.iter().filter({
        let is_it = is_it.clone();
        move |(name, _)| is_it(name)
    });
    let texts = texts.flat_map(|(_, values)| values.iter().map(String::as_bytes));
    let bytes = entry.bin_attrs.iter().filter(move |(name, _)| is_it(name));
    texts.chain(bytes.flat_map(|(_, values)| values.iter().map(Vec::as_slice)))
}

/// The values of an attribute that are text.
pub(super) fn texts<'e>(
    entry: &'e SearchEntry,
    attribute: &str,
) -> impl Iterator<Item = &'e str> + use<'e> {
    values(entry, &Some(attribute.to_owned())).filter_map(utf8)
}

fn utf8(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value)
        .ok()
        .filter(|text| !text.is_empty())
}

/// The GUID of a value, in the order of its text.
fn guid(value: Option<&[u8]>, form: GuidForm) -> Option<[u8; 16]> {
    let value = value?;
    match form {
        GuidForm::Bytes => value.try_into().ok().map(swapped),
        GuidForm::Text => {
            let text = utf8(value)?.trim_start_matches('{').trim_end_matches('}');
            guid_of(text)
        }
    }
}

/// The text of a security identifier. `[MS-DTYP] 2.4.2.2`
fn sid_text(value: &[u8]) -> Option<String> {
    let (head, rest) = value.split_first_chunk::<8>()?;
    let [revision, count, authority @ ..] = head;
    if rest.len() != 4 * usize::from(*count) {
        return None;
    }
    let authority = authority
        .iter()
        .fold(0u64, |number, byte| (number << 8) | u64::from(*byte));
    let mut text = format!("S-{revision}-{authority}");
    for part in rest.as_chunks::<4>().0 {
        text.push_str(&format!("-{}", u32::from_le_bytes(*part)));
    }
    Some(text)
}

/// A line of text that is told is not longer.
const LINE_BYTES_MAX: usize = 512;
/// Every move between organisations leaves one.
const OTHER_DNS_MAX: usize = 32;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::settings::{CopyNames, LdapServer, Secret};
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::time::Duration;

    pub(crate) fn settings() -> LdapSettings {
        let name = |name: &str| Some(name.to_owned());
        LdapSettings {
            servers: vec![LdapServer {
                host: "127.0.0.1".to_owned(),
                port: 1,
                tls: false,
            }],
            starttls: false,
            ca: None,
            bind_name: "svc@contoso.test".to_owned(),
            bind_password: Secret::new("secret".to_owned()),
            base: "DC=contoso,DC=test".to_owned(),
            people: "(objectCategory=person)".to_owned(),
            netbios_domain: name("contoso"),
            attributes: Attributes {
                upn: name("userPrincipalName"),
                account: name("sAMAccountName"),
                addresses: name("proxyAddresses"),
                mail: name("mail"),
                sid: name("objectSid"),
                object: name("objectGUID"),
                mailbox_guid: name("msExchMailboxGuid"),
                guid_form: GuidForm::Bytes,
                archive_guid: name("msExchArchiveGUID"),
                database: name("homeMDB"),
                database_form: DatabaseForm::Dn,
                archive_database: name("msExchArchiveDatabaseLink"),
                recipient_type: name("msExchRecipientTypeDetails"),
                control: name("userAccountControl"),
                disabled_bit: 2,
                password_changed: name("pwdLastSet"),
                display_name: name("displayName"),
                legacy_dn: name("legacyExchangeDN"),
                delegates: name("msExchDelegateListLink"),
                changed: name("uSNChanged"),
            },
            copies: CopyNames {
                base: None,
                class: "msExchMDBCopy".to_owned(),
                server: "msExchHostServerLink".to_owned(),
                preference: name("msExchActivationPreference"),
                server_class: name("msExchExchangeServer"),
                server_address: name("networkAddress"),
            },
            recipient_types: vec![1, 2, 4, 16, 32],
            ttl: Duration::from_secs(900),
            negative_ttl: Duration::from_secs(30),
            stale_on_error: Duration::from_secs(3600),
            capacity: 1000,
            refresh: Duration::from_secs(30),
            search_connections: 1,
            bind_connections: 1,
            connect_timeout: Duration::from_secs(1),
            operation_timeout: Duration::from_secs(1),
        }
    }

    pub(crate) fn entry(attributes: &[(&str, &str)]) -> SearchEntry {
        let mut attrs: HashMap<String, Vec<String>> = HashMap::new();
        for (name, value) in attributes {
            let values = attrs.entry((*name).to_owned()).or_default();
            values.push((*value).to_owned());
        }
        SearchEntry {
            dn: "CN=Alice Test,CN=Users,DC=contoso,DC=test".to_owned(),
            attrs,
            bin_attrs: HashMap::new(),
        }
    }

    const GUID: [u8; 16] = *b"0123456789abcdef";
    const ALICE: &[(&str, &str)] = &[
        ("userPrincipalName", "Alice@contoso.test"),
        ("sAMAccountName", "alice"),
        ("proxyAddresses", "smtp:alice.test@contoso.test"),
        ("proxyAddresses", "SMTP:a.test@contoso.test"),
        ("proxyAddresses", "x500:/o=Contoso/cn=alice"),
        ("mail", "a.test@contoso.test"),
        ("objectGUID", "object-of-alice!"),
        ("homeMDB", "CN=DB01,CN=Databases,DC=test"),
        ("msExchRecipientTypeDetails", "1"),
        ("userAccountControl", "512"),
        ("pwdLastSet", "7"),
        // Sixteen bytes that happen to be text.
        ("msExchMailboxGuid", "0123456789abcdef"),
    ];

    fn reader(login: &str) -> Reader {
        Reader::new(Marker::new([1; 16]), login.to_owned())
    }

    fn person(entry: &SearchEntry) -> Person {
        reader("{upn}").person(entry, &settings())
    }

    #[test]
    fn an_entry_says_who_it_is_and_where_its_mailbox_lives() {
        let alice = person(&entry(ALICE));

        assert_eq!(alice.user().as_str(), "alice@contoso.test");
        assert_eq!(alice.login(), "Alice@contoso.test");
        assert!(!alice.is_disabled());
        let (guid, database) = alice.mailbox().unwrap();
        assert_eq!((guid, database.as_str()), (swapped(GUID), "DB01"));
        let names: Vec<&str> = alice.names().collect();
        assert_eq!(
            names,
            [
                "a.test@contoso.test",
                "alice",
                "alice.test@contoso.test",
                "alice@contoso.test",
                r"contoso\alice",
            ]
        );
    }

    #[test]
    fn an_entry_says_what_autodiscover_tells_of_it() {
        let dn = "/o=Contoso/ou=X/cn=Recipients/cn=alice";
        let known = [("displayName", "Anna & Otto"), ("legacyExchangeDN", dn)];
        let alice = person(&entry(&[ALICE, &known].concat()));
        let told = |person: &Person| {
            let told = [person.address(), person.display_name(), person.legacy_dn()];
            told.map(|line| line.unwrap_or("-").to_owned())
        };

        assert_eq!(told(&alice), ["a.test@contoso.test", "Anna & Otto", dn]);
        assert_eq!(alice.has_legacy_dn(&dn.to_uppercase()), Some(true));
        // The name before a move is an address now.
        assert_eq!(alice.has_legacy_dn("/o=contoso/cn=alice"), Some(true));
        assert_eq!(alice.has_legacy_dn("/o=Contoso/cn=bob"), Some(false));
        let plain = person(&entry(&[("userPrincipalName", "Bob@contoso.test")]));
        assert_eq!(told(&plain), ["Bob@contoso.test", "-", "-"]);
        assert_eq!(plain.has_legacy_dn(dn), None);
        let nameless = person(&entry(&[
            ("sAMAccountName", "bob"),
            ("displayName", "a\nb"),
        ]));
        assert_eq!(told(&nameless), ["-", "-", "-"]);
        assert_ne!(alice, person(&entry(ALICE)), "a change is seen");
    }

    #[test]
    fn a_guid_is_read_from_bytes_as_from_text() {
        let mut binary = entry(ALICE);
        let guid = binary.attrs.remove("msExchMailboxGuid").unwrap();
        let guid = guid.into_iter().map(String::into_bytes).collect();
        binary
            .bin_attrs
            .insert("MSEXCHMAILBOXGUID".to_owned(), guid);

        assert_eq!(person(&binary), person(&entry(ALICE)));
    }

    #[test]
    fn only_kinds_of_recipients_that_are_ours_have_mailboxes() {
        for (kind, is_ours) in [("1", true), ("4", true), ("2147483648", false), ("", false)] {
            let mut other = entry(ALICE);
            other.attrs.insert(
                "msExchRecipientTypeDetails".to_owned(),
                vec![kind.to_owned()],
            );
            let other = person(&other);

            assert_eq!(other.mailbox().is_some(), is_ours, "{kind}");
            assert_eq!(
                other.database_of(swapped(GUID)).is_some(),
                is_ours,
                "{kind}"
            );
        }
    }

    #[test]
    fn an_archive_lives_in_its_own_database_where_it_has_one() {
        let archive = [ALICE, &[("msExchArchiveGUID", "fedcba9876543210")]].concat();
        let guid = swapped(*b"fedcba9876543210");
        let database = |attributes: &[(&str, &str)]| {
            let person = person(&entry(attributes));
            person
                .database_of(guid)
                .map(|name| name.as_str().to_owned())
        };

        assert_eq!(database(ALICE), None);
        assert_eq!(database(&archive).unwrap(), "DB01");
        let own = [
            &archive[..],
            &[("msExchArchiveDatabaseLink", "CN=AR\\, 1,CN=x")],
        ]
        .concat();
        assert_eq!(database(&own).unwrap(), "AR, 1");
    }

    #[test]
    fn the_bit_of_a_disabled_account_is_seen() {
        let mut disabled = entry(ALICE);
        disabled
            .attrs
            .insert("userAccountControl".to_owned(), vec!["514".to_owned()]);

        assert!(person(&disabled).is_disabled());
        assert!(person(&disabled).ends_proof_of(&person(&entry(ALICE))));
        assert!(!person(&entry(ALICE)).ends_proof_of(&person(&entry(ALICE))));
    }

    #[test]
    fn another_password_ends_what_the_old_one_proved() {
        let mut changed = entry(ALICE);
        changed
            .attrs
            .insert("pwdLastSet".to_owned(), vec!["8".to_owned()]);

        assert!(person(&changed).ends_proof_of(&person(&entry(ALICE))));
        assert!(!person(&changed).is_named_unlike(&person(&entry(ALICE))));
    }

    #[test]
    fn a_delegate_is_known_by_its_dn_in_any_case() {
        let bob = "cn=bob,cn=users,DC=contoso,DC=test";
        let shared = person(&entry(&[
            ("userPrincipalName", "info@contoso.test"),
            ("msExchDelegateListLink;range=0-1499", bob),
        ]));
        let mut delegate = entry(&[("userPrincipalName", "bob@contoso.test")]);
        delegate.dn = "CN=Bob,CN=Users,DC=contoso,DC=test".to_owned();

        assert!(shared.has_delegate(&person(&delegate)));
        assert!(!shared.has_delegate(&person(&entry(ALICE))));
        assert!(!person(&delegate).has_delegate(&shared));
    }

    #[test]
    fn a_login_name_counts_more_than_an_address_and_that_more_than_mail() {
        let asked = Asked::User("alice@contoso.test");
        let claims = |attribute: &str| {
            entry(&[(attribute, "alice@contoso.test"), ("objectGUID", attribute)])
        };
        let meant = |entries: &[SearchEntry]| reader("{dn}").meant(asked, entries, &settings());

        let [upn, mail] = ["userPrincipalName", "mail"].map(claims);
        let proxy = entry(&[
            ("proxyAddresses", "smtp:alice@contoso.test"),
            ("objectGUID", "p"),
        ]);
        let is = |entries: &[SearchEntry], one: &SearchEntry| {
            assert_eq!(meant(entries).unwrap().unwrap(), person_by_dn(one));
        };
        is(&[mail.clone(), proxy.clone(), upn.clone()], &upn);
        is(&[mail.clone(), proxy.clone()], &proxy);
        is(std::slice::from_ref(&mail), &mail);
        assert_eq!(meant(&[proxy.clone(), proxy]), Err(Ambiguous));
        assert_eq!(meant(&[]), Ok(None));
    }

    fn person_by_dn(entry: &SearchEntry) -> Person {
        reader("{dn}").person(entry, &settings())
    }

    #[test]
    fn an_entry_that_only_looks_alike_is_not_meant() {
        let reader = reader("{upn}");
        let other = entry(&[("userPrincipalName", "mueller@contoso.test")]);

        for asked in [
            Asked::User("müller@contoso.test"),
            Asked::User(r"fabrikam\mueller"),
            Asked::Mailbox(GUID),
            Asked::Sid("S-1-5-21-1"),
        ] {
            let meant = reader.meant(asked, std::slice::from_ref(&other), &settings());
            assert_eq!(meant, Ok(None), "{asked:?}");
        }
    }

    #[test]
    fn who_lacks_the_name_to_log_on_with_does_so_by_dn() {
        let anonymous = entry(&[("sAMAccountName", "svc")]);
        let login = |login: &str| {
            reader(login)
                .person(&anonymous, &settings())
                .login()
                .to_owned()
        };

        assert_eq!(login("{upn}"), "CN=Alice Test,CN=Users,DC=contoso,DC=test");
        assert_eq!(login(r"CONTOSO\{account}"), r"CONTOSO\svc");
        assert_eq!(person(&anonymous).user().as_str(), r"contoso\svc");
    }

    #[test]
    fn a_security_identifier_is_read_as_windows_writes_it() {
        let bytes = b"\x01\x05\0\0\0\0\0\x05\x15\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x50\x04\0\0";

        assert_eq!(sid_text(bytes).unwrap(), "S-1-5-21-1-2-3-1104");
        assert_eq!(sid_text(&bytes[..27]), None);
        assert_eq!(sid_text(b""), None);
    }

    proptest! {
        #[test]
        fn any_values_do_not_panic(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..12)) {
            let names = ["displayName", "legacyExchangeDN"].into_iter();
            let names = names.chain(ALICE.iter().map(|(name, _)| *name)).map(str::to_owned);
            let mut odd = entry(&[]);
            odd.bin_attrs = names.zip(values.into_iter().map(|value| vec![value])).collect();
            let person = person(&odd);
            prop_assert!(person.names().all(|name| !name.contains(char::is_control)));
            let told = [person.address(), person.display_name(), person.legacy_dn()];
            prop_assert!(told.into_iter().flatten().all(|line| !line.contains(char::is_control)));
        }
    }
}
