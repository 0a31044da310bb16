//! The directory service, and what speaks against using it so.

use crate::config::certificates;
use crate::config::problem::{Complaint, quoted};
use crate::config::secrets;
use crate::config::section::Section;
use crate::config::settings::{
    Attributes, CopyNames, DatabaseForm, GuidForm, LdapServer, LdapSettings,
};
use crate::config::values;

/// Everything about the directory service, whose section this is. `None`: reported.
pub(super) fn ldap(section: &Section<'_>) -> Option<LdapSettings> {
    let (starttls, servers) = (section.switch("starttls"), servers(section));
    judge_dn(section, "base");
    judge_people(section);
    let attributes = attributes(&section.section("attributes"));
    let cache = section.section("cache");
    let types = section.list("recipient_types").into_iter();
    Some(LdapSettings {
        servers,
        starttls,
        ca: certificates::authorities(section, "ca"),
        bind_name: section.text("bind_name")?,
        bind_password: secrets::secret(section, "bind_password")?,
        base: section.text("base")?,
        people: section.text("people")?,
        netbios_domain: section
            .text("netbios_domain")
            .map(|domain| domain.to_ascii_lowercase()),
        attributes,
        copies: copies(&section.section("copies")),
        recipient_types: types.filter_map(|(text, _)| text.parse().ok()).collect(),
        ttl: cache.duration("ttl"),
        negative_ttl: cache.duration("negative_ttl"),
        stale_on_error: cache.duration("stale_on_error"),
        capacity: cache.amount("capacity"),
        refresh: section.duration("refresh"),
        search_connections: section.amount("search_connections"),
        bind_connections: section.amount("bind_connections"),
        connect_timeout: section.duration("connect_timeout"),
        operation_timeout: section.duration("operation_timeout"),
    })
}

fn servers(section: &Section<'_>) -> Vec<LdapServer> {
    let desk = section.desk;
    if section.is_empty_list("urls") {
        let complaint = Complaint::new(
            "there is no server of the directory: nobody would be found",
            "name one, as in `urls: [\"ldaps://dc1.contoso.com\"]`",
        );
        desk.error(&section.place("urls"), complaint);
    }
    let (starttls, allow_plain) = (section.switch("starttls"), section.switch("allow_plain"));
    let mut servers = Vec::new();
    for (url, place) in section.list("urls") {
        let (tls, host, port) = match parts(&url) {
            Ok(parts) => parts,
            Err(complaint) => {
                desk.error(&place, complaint);
                continue;
            }
        };
        if !tls && !starttls && !values::is_this_host(&host) {
            let what = format!("{} has no TLS: passwords travel in clear", quoted(&url));
            match allow_plain {
                true => {
                    let cure = "write `ldaps://`, or add `starttls: true`";
                    desk.warning(&place, Complaint::new(what, cure));
                }
                false => {
                    let cure = "write `ldaps://`, or add `starttls: true`; or `allow_plain: true` if it must be";
                    desk.error(&place, Complaint::new(what, cure));
                }
            }
        }
        if tls && starttls {
            let what = format!(
                "{} has TLS from its first byte; there is nothing to switch to",
                quoted(&url)
            );
            let cure = "write `ldap://` here, or remove `starttls`";
            desk.error(&place, Complaint::new(what, cure));
        }
        servers.push(LdapServer { host, port, tls });
    }
    servers
}

/// TLS or not, host, port. RFC 4516 without its later parts, which the other keys say.
fn parts(url: &str) -> Result<(bool, String, u16), Complaint> {
    const CURE: &str = "write `ldaps://HOST` or `ldaps://HOST:PORT`, and no more";
    let lower = url.to_ascii_lowercase();
    let (tls, usual, rest) = match lower.split_once("://") {
        Some(("ldaps", rest)) => (true, 636, rest),
        Some(("ldap", rest)) => (false, 389, rest),
        _ => {
            let what = format!("{} is not the URL of a directory server", quoted(url));
            return Err(Complaint::new(what, CURE));
        }
    };
    let rest = rest.trim_end_matches('/');
    let is_bare_v6 = rest.starts_with('[') && rest.ends_with(']');
    let with_port = match rest.contains(':') && !is_bare_v6 {
        true => rest.to_owned(),
        false => format!("{rest}:{usual}"),
    };
    let (host, port) = values::host_and_port(&with_port).map_err(|_other_words| {
        let what = format!("{} is not the URL of a directory server", quoted(url));
        Complaint::new(what, CURE)
    })?;
    Ok((tls, host, port))
}

fn judge_dn(section: &Section<'_>, leaf: &str) {
    let dn = section.text(leaf).unwrap_or_default();
    let is_dn = dn.split(',').all(|part| part.contains('='));
    if section.has(leaf) && !is_dn {
        let what = format!("{} is not a DN", quoted(&dn));
        let cure = "write it as in `DC=contoso,DC=com`";
        section
            .desk
            .error(&section.place(leaf), Complaint::new(what, cure));
    }
}

fn judge_people(section: &Section<'_>) {
    let people = section.text("people").unwrap_or_default();
    if !people.starts_with('(') || ldap3::parse_filter(&people).is_err() {
        let what = format!("{} is not an LDAP filter", quoted(&people));
        let cure = "write it as in `(objectCategory=person)` or `(&(objectClass=user)(mail=*))`";
        section
            .desk
            .error(&section.place("people"), Complaint::new(what, cure));
    }
}

/// The name of an attribute or class; `None`: it is switched off.
fn name(section: &Section<'_>, leaf: &str) -> Option<String> {
    let name = section.text(leaf).filter(|name| name != "off")?;
    let is_name = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    if !is_name {
        let what = format!("{} is not the name of an attribute", quoted(&name));
        let cure = "write letters, digits and dashes, as in `proxyAddresses`, or `off`";
        section
            .desk
            .error(&section.place(leaf), Complaint::new(what, cure));
    }
    Some(name)
}

fn copies(section: &Section<'_>) -> CopyNames {
    judge_dn(section, "base");
    let needed = |leaf: &str| {
        name(section, leaf).unwrap_or_else(|| {
            let what = format!("without `{leaf}` no copy of a database would be found");
            let complaint = Complaint::new(what, "write its name, or remove the line");
            section.desk.error(&section.place(leaf), complaint);
            String::new()
        })
    };
    CopyNames {
        base: section.text("base"),
        class: needed("class"),
        server: needed("server"),
        preference: name(section, "preference"),
        server_class: name(section, "server_class"),
        server_address: name(section, "server_address"),
    }
}

fn attributes(section: &Section<'_>) -> Attributes {
    let name = |leaf: &str| name(section, leaf);
    let found = Attributes {
        upn: name("upn"),
        account: name("account"),
        addresses: name("addresses"),
        mail: name("mail"),
        sid: name("sid"),
        object: name("object"),
        mailbox_guid: name("mailbox_guid"),
        guid_form: match section.text("guid_form").as_deref() {
            Some("text") => GuidForm::Text,
            _ => GuidForm::Bytes,
        },
        archive_guid: name("archive_guid"),
        database: name("database"),
        database_form: match section.text("database_form").as_deref() {
            Some("text") => DatabaseForm::Text,
            _ => DatabaseForm::Dn,
        },
        archive_database: name("archive_database"),
        recipient_type: name("recipient_type"),
        control: name("control"),
        disabled_bit: section.number("disabled_bit"),
        password_changed: name("password_changed"),
        display_name: name("display_name"),
        legacy_dn: name("legacy_dn"),
        delegates: name("delegates"),
        changed: name("changed"),
    };
    let by_name = [&found.upn, &found.account, &found.addresses, &found.mail];
    if by_name.iter().all(|attribute| attribute.is_none()) {
        let what = "no attribute has names of users: nobody would be found";
        let cure = "name at least one of `upn`, `account`, `addresses` and `mail`";
        section
            .desk
            .error(&section.here(), Complaint::new(what, cure));
    }
    if found.database.is_none() {
        let what = "no attribute says in which database a mailbox lives";
        let cure = "name it, as in `database: homeMDB`";
        section
            .desk
            .error(&section.place("database"), Complaint::new(what, cure));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_or_addressed_with_or_without_a_port() {
        let read = |url: &str| {
            let (tls, host, port) = parts(url).ok()?;
            Some(LdapServer { host, port, tls }.to_string())
        };
        for (url, as_read) in [
            ("ldaps://DC1.contoso.com", "ldaps://dc1.contoso.com:636"),
            ("ldap://dc1.contoso.com/", "ldap://dc1.contoso.com:389"),
            (
                "ldaps://dc1.contoso.com:3269",
                "ldaps://dc1.contoso.com:3269",
            ),
            ("ldaps://192.0.2.1", "ldaps://192.0.2.1:636"),
            ("ldaps://[2001:db8::1]", "ldaps://[2001:db8::1]:636"),
            ("ldap://[2001:db8::1]:1389", "ldap://[2001:db8::1]:1389"),
        ] {
            assert_eq!(read(url).as_deref(), Some(as_read), "{url}");
        }
        for url in [
            "dc1.contoso.com",
            "http://dc1",
            "ldaps://",
            "ldaps://dc1/o=x",
            "ldaps://dc1:0x1",
        ] {
            assert_eq!(read(url), None, "{url}");
        }
    }
}
