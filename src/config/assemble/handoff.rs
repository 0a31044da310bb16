//! Who we are to the servers, and how they learn who the user is.

use super::site::Servers;
use crate::config::problem::{Complaint, quoted};
use crate::config::secrets;
use crate::config::section::Section;
use crate::config::settings::{AssertionHandOff, BackendIdentity, KerberosHandOff};
use std::collections::BTreeMap;

/// Headers with a meaning of their own between us and a server.
const TAKEN_HEADERS: [&str; 16] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "x-clientinfo",
    "x-requestid",
    "x-requesttype",
];

pub(super) fn backend_identity(top: &Section<'_>, servers: &Servers) -> BackendIdentity {
    let section = top.section("backend_identity");
    let mode = section.text("mode").unwrap_or_default();
    judge_unused(&section, &mode);
    let user_header = || own_header(&section, "user_header", &[]);
    let made = match mode.as_str() {
        "basic_service" => basic_service(&section, user_header()),
        "kerberos" => needed(&section, "kerberos")
            .and_then(|section| kerberos(&section, servers).map(BackendIdentity::Kerberos)),
        "assertion" => needed(&section, "assertion")
            .and_then(|section| assertion(&section).map(BackendIdentity::Assertion)),
        "trusted_header" => {
            judge_trust(&section, servers);
            Some(BackendIdentity::TrustedHeader {
                user_header: user_header(),
            })
        }
        _ => {
            user_header();
            None
        }
    };
    // What could not be made has been reported.
    made.unwrap_or(BackendIdentity::Passthrough)
}

/// A header of ours, which must have no other meaning but those in `but`.
fn own_header(section: &Section<'_>, leaf: &str, but: &[&str]) -> String {
    let header = section.text(leaf).unwrap_or_default();
    let small = header.to_ascii_lowercase();
    if TAKEN_HEADERS.contains(&small.as_str()) && !but.contains(&small.as_str()) {
        let what = format!(
            "{} has another meaning between us and a server",
            quoted(&header)
        );
        let complaint = Complaint::new(what, "choose another name, as in `X-Remote-User`");
        section.desk.error(&section.place(leaf), complaint);
    }
    if header.contains('_') {
        let what = format!(
            "{} may be read with `-` for `_`: a client could say it that way",
            quoted(&header)
        );
        let cure = format!("write it as in `{}`", header.replace('_', "-"));
        let complaint = Complaint::new(what, &cure);
        section.desk.error(&section.place(leaf), complaint);
    }
    header
}

/// Keys that another mode would read.
fn judge_unused(section: &Section<'_>, mode: &str) {
    for (leaf, owner) in [
        ("user", "basic_service"),
        ("password", "basic_service"),
        ("kerberos", "kerberos"),
        ("assertion", "assertion"),
    ] {
        if mode != owner && section.has(leaf) {
            let what = format!("`{leaf}` has no effect with `mode: {mode}`");
            let cure = format!("remove it, or write `mode: {owner}`");
            section
                .desk
                .warning(&section.place(leaf), Complaint::new(what, cure));
        }
    }
}

/// The section of a mode; `None`: reported.
fn needed<'a>(section: &Section<'a>, mode: &str) -> Option<Section<'a>> {
    let found = section.written_section(mode);
    if found.is_none() && !section.has(mode) {
        let what = format!("`mode: {mode}` needs the section `{mode}`");
        let cure = match mode {
            "kerberos" => "add `kerberos: { client_keytab: mapigate.keytab }`",
            _ => "add `assertion: { keys: assertion.key }`",
        };
        let at = section.place("mode");
        section.desk.error(&at, Complaint::new(what, cure));
    }
    found
}

fn basic_service(section: &Section<'_>, user_header: String) -> Option<BackendIdentity> {
    for leaf in ["user", "password"] {
        if !section.has(leaf) {
            let what = format!("`mode: basic_service` needs `{leaf}`");
            let cure = match leaf {
                "user" => "add the service account's login name",
                _ => "add `password: ${ENV}` or `password: file:PATH`",
            };
            let at = section.place("mode");
            section.desk.error(&at, Complaint::new(what, cure));
        }
    }
    let (user, password) = (section.text("user"), secrets::secret(section, "password"));
    let (user, password) = (user?, password?);
    if user.contains(':') {
        let what = format!("{} has a colon, which ends a login name", quoted(&user));
        section.desk.error(
            &section.place("user"),
            Complaint::new(what, "use the name without it"),
        );
    }
    Some(BackendIdentity::BasicService {
        user,
        password,
        user_header,
    })
}

fn kerberos(section: &Section<'_>, servers: &Servers) -> Option<KerberosHandOff> {
    let place = section.place("client_keytab");
    let client_keytab = section.file("client_keytab")?;
    if section.desk.is_readable(&place, &client_keytab) {
        section.desk.warn_if_open(&place, &client_keytab);
    }
    let service = section.text("service").unwrap_or_default();
    if !service.contains('/') || service.contains(char::is_whitespace) {
        let what = format!("{} is no service principal", quoted(&service));
        let complaint = Complaint::new(what, "write `HTTP/{server_fqdn}`");
        section.desk.error(&section.place("service"), complaint);
    }
    let unnamed = |host: &str| host.parse::<std::net::IpAddr>().is_ok();
    let nameless = servers.values().find(|server| unnamed(server.fqdn()));
    if let Some(server) = nameless.filter(|_| service.contains("{server_fqdn}")) {
        let what = format!(
            "{} has an address and no name: Kerberos knows servers by names",
            server.name
        );
        let cure = "write its host name in `address`, or in `tls: { name: … }`";
        section
            .desk
            .error(&section.place("service"), Complaint::new(what, cure));
    }
    let mut realms = BTreeMap::new();
    for ((domain, _), (realm, _)) in section.named_values("realms") {
        realms.insert(domain.to_ascii_lowercase(), realm);
    }
    Some(KerberosHandOff {
        client_keytab,
        account: section.text("account"),
        service,
        realms,
        signs_each_request: section.text("token_per").as_deref() == Some("request"),
        ticket_ttl: section.duration("ticket_ttl"),
        users_max: section.amount("users"),
        timeout: section.duration("timeout"),
    })
}

fn assertion(section: &Section<'_>) -> Option<AssertionHandOff> {
    let header = own_header(section, "header", &["authorization"]);
    let as_negotiate = section.text("scheme").as_deref() == Some("negotiate");
    if as_negotiate && !header.eq_ignore_ascii_case("authorization") {
        let what = format!("`scheme` has no effect in {}", quoted(&header));
        let complaint = Complaint::new(what, "remove `scheme`, or write `header: Authorization`");
        section.desk.warning(&section.place("scheme"), complaint);
    }
    Some(AssertionHandOff {
        keys: secrets::signing_keys(section, "keys")?,
        header,
        as_negotiate,
        lifetime: section.duration("lifetime"),
        issuer: section.text("issuer").unwrap_or_default(),
    })
}

/// A server that believes a header must know that it is ours: by our certificate, or anybody who reaches
/// it is everybody.
fn judge_trust(section: &Section<'_>, servers: &Servers) {
    for server in servers.values() {
        let shows = server.tls.as_ref();
        if shows.is_some_and(|tls| tls.client_certificate.is_some()) {
            continue;
        }
        let what = format!(
            "{} is shown no certificate of ours: anybody who reaches it could name any user",
            server.name
        );
        let cure = format!(
            "add `tls: {{ client_certificate: {{ chain: …, key: … }} }}` to {}, and let it demand that certificate",
            server.name
        );
        section
            .desk
            .error(&section.place("mode"), Complaint::new(what, cure));
    }
}
