//! Who clients are.

use super::{amount, cores, domain, edge, tokens, untouched};
use crate::config::certificates;
use crate::config::problem::{Complaint, quoted};
use crate::config::secrets;
use crate::config::section::Section;
use crate::config::settings::{
    AuthSettings, BasicAuth, BasicVerify, CertificateAuth, CertificateName, Listener, LockoutGuard,
    Scheme, SourceGuard,
};
use crate::config::values;

pub(super) fn auth(top: &Section<'_>) -> AuthSettings {
    let section = top.section("auth");
    let basic = section.written_section("basic");
    let bearer = section.written_section("bearer");
    if basic.is_none() {
        judge_missing_basic(top, &section, bearer.is_some());
    }
    tokens::judge_offers(top, &section, bearer.is_some());
    let negotiate = section.written_section("negotiate");
    let ntlm = section.written_section("ntlm");
    domain::judge_offers(top, &section);
    AuthSettings {
        basic: basic.and_then(|section| {
            Some(BasicAuth {
                realm: realm(&section),
                verify: verify(top, &section)?,
                default_domain: section.read("default_domain", |_, text| values::host_name(text)),
            })
        }),
        bearer: bearer.map(|section| tokens::bearer(&section)),
        certificate: certificate(&section.section("certificate")),
        passthrough: untouched::passthrough(top, &section),
        negotiate: negotiate.and_then(|section| domain::negotiate(top, &section)),
        ntlm: ntlm.map(|section| domain::ntlm(&section)),
        handshakes: domain::handshakes(&section.section("handshakes")),
        connection_ttl: section.duration("connection_ttl"),
        cache_ttl: section.duration("cache_ttl"),
        negative_ttl: section.duration("negative_ttl"),
        cache_capacity: section.amount("cache_capacity"),
        verifications_max: section
            .number_or_auto("verifications")
            .map_or_else(|| at_once(top, &section), amount),
        lockout_guard: lockout_guard(&section),
    }
}

fn certificate(section: &Section<'_>) -> CertificateAuth {
    if section.is_empty_list("map") {
        let what = "nothing in a certificate says whose it is";
        let cure = "write `map: [sid_extension, san_upn, san_email]`, or some of these";
        let place = section.place("map");
        section.desk.error(&place, Complaint::new(what, cure));
    }
    let written = section.list("map");
    let kind = |text: &str| {
        let mut known = CertificateName::ALL.into_iter();
        known.find(|kind| kind.as_str() == text)
    };
    let domains = section.list("domains");
    CertificateAuth {
        map: written.iter().filter_map(|(text, _)| kind(text)).collect(),
        issuers: match section.has("issuers") {
            true => certificates::authorities(section, "issuers"),
            false => None,
        },
        domains: domains
            .iter()
            .filter_map(|(domain, _)| values::host_name(domain).ok())
            .collect(),
    }
}

/// Reports names that offer certificates where none are asked for or none can be handed on, and listeners
/// that ask for what nobody looks at.
pub(super) fn judge_certificates(top: &Section<'_>, listeners: &[Listener]) {
    let names = top.items("names");
    let mut offering = names.iter();
    let offering = offering.find(|name| edge::offers(name, Scheme::Certificate));
    let asked = |required: bool| {
        let mut asking = listeners
            .iter()
            .filter_map(|l| l.client_certificates.as_ref());
        asking.any(|clients| clients.is_required || !required)
    };
    let Some(name) = offering else {
        if asked(false) && !asked(true) && !names.is_empty() {
            let what = "clients are asked for certificates, and no name offers them: they are not looked at";
            let cure =
                "write `authentication: [certificate, basic]` under `names`, or `mode: require`";
            let complaint = Complaint::new(what, cure);
            top.desk.warning(&top.place("listeners"), complaint);
        }
        return;
    };
    let at = name.place("authentication");
    let host = quoted(&name.text("host").unwrap_or_default());
    // One that is written and of no use has been reported.
    let is_written = |listener: &Section<'_>| listener.has("client_certificates");
    if !asked(false) && !top.items("listeners").iter().any(is_written) {
        let what = format!("{host} offers certificate, and no listener asks for one");
        let cure = "add `client_certificates: { ca: clients-ca.pem }` to the listener";
        top.desk.error(&at, Complaint::new(what, cure));
    }
    let identity = top.section("backend_identity");
    if identity.text("mode").as_deref() == Some("passthrough") {
        let what = format!(
            "{host} offers certificate, and `backend_identity.mode: passthrough` has nothing to hand on: \
             a certificate proves who somebody is to us alone"
        );
        let cure = "choose another `backend_identity.mode`, or offer no certificate";
        top.desk.error(&at, Complaint::new(what, cure));
    }
}

fn lockout_guard(auth: &Section<'_>) -> Option<LockoutGuard> {
    let is_off = |section: &Section<'_>, leaf: &str| {
        section.read(leaf, |_, text| Ok(text == "off")) == Some(true)
    };
    if is_off(auth, "lockout_guard") {
        return None;
    }
    let section = auth.section("lockout_guard");
    let user = section.section("per_user");
    let per_source = (!is_off(&section, "per_source")).then(|| {
        let source = section.section("per_source");
        let bits = |leaf: &str| u8::try_from(source.number(leaf)).unwrap_or(u8::MAX);
        let exempt = source.list("exempt");
        SourceGuard {
            failures: source.amount("failures"),
            window: source.duration("window"),
            v4_prefix: bits("v4_prefix"),
            v6_prefix: bits("v6_prefix"),
            exempt: exempt
                .iter()
                .filter_map(|(text, _)| values::network(text).ok())
                .collect(),
        }
    });
    let guard = LockoutGuard {
        user_failures: user.amount("failures"),
        user_window: user.duration("window"),
        per_source,
        delay: section.duration("delay"),
        delays_max: section.amount("delays_max"),
    };
    if let Some(source) = &guard.per_source
        && source.failures < guard.user_failures
    {
        let what = "one address may get fewer passwords wrong than one user";
        let cure = "make `per_source.failures` larger than `per_user.failures`: many people may share an address";
        let section = section.section("per_source");
        let complaint = Complaint::new(what, cure);
        section.desk.warning(&section.place("failures"), complaint);
    }
    Some(guard)
}

/// Mailbox servers are asked about so many passwords at once.
const SERVERS_ASKED_MAX: usize = 16;

/// Hashes take a core each. Whoever asks a directory or a server only waits for it.
fn at_once(top: &Section<'_>, auth: &Section<'_>) -> usize {
    let verify = auth.section("basic").text("verify");
    match verify.as_deref() {
        Some("ldap_bind") => {
            let ldap = top.section("directory").section("ldap");
            cores().max(ldap.amount("bind_connections"))
        }
        Some("backend") => cores().max(SERVERS_ASKED_MAX),
        _ => cores(),
    }
}

/// What passwords are held against. `None`: reported.
fn verify(top: &Section<'_>, section: &Section<'_>) -> Option<BasicVerify> {
    let desk = section.desk;
    if section.text("verify").as_deref() == Some("backend") {
        judge_backend(top, section);
        return Some(BasicVerify::Backend);
    }
    if section.text("verify").as_deref() != Some("ldap_bind") {
        secrets::check_password_file(section, "password_file");
        let file = section.file("password_file");
        if file.is_none() && section.is_sound("verify") && !section.has("password_file") {
            let what = "nothing says where the passwords are";
            let cure =
                "add `password_file: users.htpasswd`, or `verify: ldap_bind` with `directory.ldap`";
            desk.error(&section.here(), Complaint::new(what, cure));
        }
        return file.map(BasicVerify::File);
    }
    if !top.section("directory").has("ldap") {
        let what = "`verify: ldap_bind` needs a directory service, and none is named";
        let cure = "add `directory: { ldap: … }`, or write `verify: password_file`";
        desk.error(&section.place("verify"), Complaint::new(what, cure));
    }
    judge_password_file(section, "ldap_bind");
    let name = section.text("bind_name")?;
    if !["{upn}", "{dn}", "{mail}", "{account}"]
        .iter()
        .any(|part| name.contains(part))
    {
        let what = format!("{} is the same for every user", quoted(&name));
        let cure = "write `{upn}`, `{dn}`, `{mail}` or `{account}` in it";
        desk.error(&section.place("bind_name"), Complaint::new(what, cure));
    }
    Some(BasicVerify::LdapBind { name })
}

fn judge_password_file(section: &Section<'_>, verify: &str) {
    if section.has("password_file") {
        let what = format!("`password_file` has no effect with `verify: {verify}`");
        let complaint = Complaint::new(what, "remove it, or write `verify: password_file`");
        let place = section.place("password_file");
        section.desk.warning(&place, complaint);
    }
}

/// A server that judges passwords is believed; what else it is shown then rests on its word alone.
fn judge_backend(top: &Section<'_>, section: &Section<'_>) {
    judge_password_file(section, "backend");
    let mode = top.section("backend_identity").text("mode");
    let Some(mode) = mode.filter(|mode| mode != "passthrough") else {
        return;
    };
    let what = format!(
        "`verify: backend` takes a mailbox server's word for who somebody is, and with `mode: {mode}` servers take ours: \
         one server that says yes to any password opens every mailbox"
    );
    let cure = "see that every server answers 401 to a wrong password by Basic, or write `mode: passthrough`";
    let complaint = Complaint::new(what, cure);
    section.desk.warning(&section.place("verify"), complaint);
}

/// It goes into a quoted string of a header.
fn realm(section: &Section<'_>) -> String {
    let realm = section.text("realm").unwrap_or_default();
    if realm.contains(['"', '\\']) || !realm.is_ascii() {
        let what = format!("{} cannot stand in a header as it is", quoted(&realm));
        let cure = "use ASCII letters without `\"` and `\\`";
        section
            .desk
            .error(&section.place("realm"), Complaint::new(what, cure));
    }
    realm
}

fn judge_missing_basic(top: &Section<'_>, auth: &Section<'_>, has_tokens: bool) {
    let mut names = top.items("names").into_iter();
    let Some(name) = names.find(|name| edge::offers(name, Scheme::Basic)) else {
        return;
    };
    // A password file at the wrong place has been reported.
    if auth.has("basic") || auth.has_unknown("password_file") {
        return;
    }
    let what = format!(
        "{} offers basic, and nothing says where its passwords are",
        quoted(&name.text("host").unwrap_or_default())
    );
    let cure = match has_tokens {
        true => "write `authentication: [bearer]` for this name, or add `auth: { basic: … }`",
        false => "add `auth: { basic: { password_file: users.htpasswd } }`",
    };
    let at = if top.has("auth") {
        auth.here()
    } else {
        name.here()
    };
    top.desk.error(&at, Complaint::new(what, cure));
}
