//! How members of a Windows domain sign on.

use super::{amount, edge, untouched};
use crate::config::certificates;
use crate::config::keytab::{self, Principal};
use crate::config::problem::{Complaint, quoted};
use crate::config::section::Section;
use crate::config::settings::{BindingRule, HandshakeLimits, NegotiateAuth, NtlmAuth, Scheme};
use crate::config::values;
use std::collections::BTreeMap;

/// Everything about Kerberos.
pub(super) fn negotiate(top: &Section<'_>, section: &Section<'_>) -> Option<NegotiateAuth> {
    let extra_channel_bindings = extra_certificates(section);
    let persist = section.switch("persist");
    if !extra_channel_bindings.is_empty() && persist && !section.has("persist") {
        let what = "a device in front ends TLS: if it shares connections among clients, one client becomes another";
        let cure = "write `persist: false`, or `persist: true` if each client has a connection of its own through it";
        let place = section.place("extra_channel_binding_certs");
        section.desk.warning(&place, Complaint::new(what, cure));
    }
    let settings = NegotiateAuth {
        replay_cache: replay_cache(section),
        realm_map: realm_map(section),
        channel_binding: match section.text("channel_binding").as_deref() {
            Some("off") => BindingRule::Off,
            Some("require") => BindingRule::Require,
            _ => BindingRule::Accept,
        },
        extra_channel_bindings,
        allow_ntlm_in_spnego: section.switch("allow_ntlm_in_spnego"),
        persist,
        threads: section.amount("threads"),
        handshake_timeout: section.duration("handshake_timeout"),
        keytab: section.file("keytab")?,
        // Whoever knows how users are handed on says otherwise.
        keeps_tickets: false,
    };
    judge_keytab(top, section, &settings);
    Some(settings)
}

/// Everything about NTLM by itself.
pub(super) fn ntlm(section: &Section<'_>) -> NtlmAuth {
    if section.is_empty_list("helper") {
        let cure = "write `helper: [ntlm_auth, --helper-protocol=squid-2.5-ntlmssp]`";
        let complaint = Complaint::new("there is no program to judge NTLM", cure);
        section.desk.error(&section.place("helper"), complaint);
    }
    let helper = section.list("helper").into_iter();
    NtlmAuth {
        helper: helper.map(|(text, _)| text).collect(),
        pool: amount(section.number("pool")),
        handshake_timeout: section.duration("handshake_timeout"),
        realm_map: realm_map(section),
    }
}

/// How many handshakes may be half done.
pub(super) fn handshakes(section: &Section<'_>) -> HandshakeLimits {
    let exempt = section.list("exempt");
    let limits = HandshakeLimits {
        open_max: section.amount("open_max"),
        per_source: section.amount("per_source"),
        left_per_minute: section.amount("left_per_minute"),
        exempt: exempt
            .iter()
            .filter_map(|(text, _)| values::network(text).ok())
            .collect(),
    };
    if limits.per_source >= limits.open_max {
        let what =
            "one address may hold every handshake that may be half done, and keep others out";
        let cure = "make `per_source` smaller than `open_max`";
        let place = section.place(match section.has("per_source") {
            true => "per_source",
            false => "open_max",
        });
        section.desk.warning(&place, Complaint::new(what, cure));
    }
    limits
}

/// Reports names that offer what is not configured or cannot be, and what is configured and no name offers.
pub(super) fn judge_offers(top: &Section<'_>, auth: &Section<'_>) {
    let names = top.items("names");
    let offering = |scheme: Scheme| names.iter().find(|name| edge::offers(name, scheme));
    let left = untouched::left_to_servers(auth);
    let mut judged_here = None;
    for (scheme, lacks, cure) in [
        (
            Scheme::Negotiate,
            "nothing says where its keys are",
            "add `auth: { negotiate: { keytab: http.keytab } }`, or leave it to the servers: `auth.passthrough`",
        ),
        (
            Scheme::Ntlm,
            "nothing says who judges it",
            "add `auth: { ntlm: { pool: 8 } }` on a machine that is joined to the domain, or leave it to the servers: `auth.passthrough`",
        ),
    ] {
        let is_left = left.contains(&scheme);
        let scheme_word = scheme.as_str();
        if is_left && auth.has(scheme_word) {
            let what = format!("{scheme_word} is judged here, and left to the servers");
            let cure = format!("remove `{scheme_word}` or take it out of `passthrough`");
            let complaint = Complaint::new(what, cure);
            top.desk.error(&auth.place(scheme_word), complaint);
        }
        let name = offering(scheme);
        let scheme = scheme_word;
        judged_here = judged_here.or(name.filter(|_| auth.has(scheme)));
        match (name, auth.has(scheme)) {
            (Some(name), false) if !is_left => {
                let host = name.text("host").unwrap_or_default();
                let what = format!("{} offers {scheme}, and {lacks}", quoted(&host));
                let at = name.place("authentication");
                top.desk.error(&at, Complaint::new(what, cure));
            }
            (None, true) if !names.is_empty() => {
                let what = format!("no name offers {scheme}: it is not looked at");
                let cure = format!("write `authentication: [{scheme}, basic]` under `names`");
                let at = auth.place(scheme);
                top.desk.warning(&at, Complaint::new(what, cure));
            }
            _ => {}
        }
    }
    judge_relaying(
        top,
        auth,
        offering(Scheme::Ntlm).filter(|_| auth.has("ntlm")),
    );
    let Some(name) = judged_here else {
        return;
    };
    judge_handing_on(top, name);
    let listeners = top.items("listeners");
    let is_plain = |listener: &Section<'_>| listener.switch("plain_http");
    if !listeners.is_empty() && listeners.iter().all(is_plain) {
        let what = "every listener is plain_http, where negotiate and ntlm are never offered: connections there may be anybody's";
        let cure = "end TLS here, or offer basic or bearer";
        let at = name.place("authentication");
        top.desk.error(&at, Complaint::new(what, cure));
    }
}

/// What proves a connection here is of no use to a server behind us, or proves a connection there that others share.
fn judge_handing_on(top: &Section<'_>, name: &Section<'_>) {
    let identity = top.section("backend_identity");
    if identity.text("mode").as_deref() != Some("passthrough") {
        return;
    }
    let what = format!(
        "{} offers negotiate or ntlm, and `backend_identity` passes on a proof that is good only here",
        quoted(&name.text("host").unwrap_or_default())
    );
    let cure = "write `backend_identity: { mode: kerberos, … }` or another mode, or leave the logon to the servers: `auth.passthrough`";
    let at = name.place("authentication");
    top.desk.error(&at, Complaint::new(what, cure));
}

/// NTLM by itself cannot be bound to a certificate, so that offering it undoes what requiring it of others gives.
fn judge_relaying(top: &Section<'_>, auth: &Section<'_>, offering: Option<&Section<'_>>) {
    let negotiate = auth.section("negotiate");
    let is_required = negotiate.text("channel_binding").as_deref() == Some("require");
    if let (Some(name), true) = (offering, is_required && auth.has("negotiate")) {
        let what = format!(
            "{} offers ntlm, which cannot be bound to a certificate, and `channel_binding: require` wants that",
            quoted(&name.text("host").unwrap_or_default())
        );
        let cure = "offer negotiate with `allow_ntlm_in_spnego: true` instead, or write `channel_binding: accept`";
        let at = name.place("authentication");
        top.desk.error(&at, Complaint::new(what, cure));
    }
}

fn replay_cache(section: &Section<'_>) -> Option<String> {
    let text = section.text("replay_cache")?;
    let is_file = text
        .strip_prefix("file2:")
        .is_some_and(|path| path.starts_with('/'));
    if is_file {
        return Some(text);
    }
    let what = match text.starts_with("none") {
        true => "without a replay cache a ticket that somebody overheard is good again".to_owned(),
        false => format!("{} is no replay cache", quoted(&text)),
    };
    let cure =
        "write `file2:` and a path, as in `file2:/run/mapigate/krb5.rcache2`, or remove the key";
    let place = section.place("replay_cache");
    section.desk.error(&place, Complaint::new(what, cure));
    None
}

fn realm_map(section: &Section<'_>) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for ((realm, place), (domain, _)) in section.named_values("realm_map") {
        if realm.contains(['@', '\\', '/']) || realm.chars().any(char::is_whitespace) {
            let what = format!("{} is no realm and no Windows domain", quoted(&realm));
            let cure = "write `CONTOSO.COM: contoso.com`, and `CONTOSO: contoso.com` for NTLM";
            section.desk.error(&place, Complaint::new(what, cure));
        }
        if let Ok(domain) = values::host_name(&domain) {
            map.insert(realm.to_ascii_uppercase(), domain);
        }
    }
    map
}

/// DER of the first certificate of every file.
fn extra_certificates(section: &Section<'_>) -> Vec<Vec<u8>> {
    let files = section.list("extra_channel_binding_certs").into_iter();
    let leaf = |(text, place): (String, _)| {
        let path = section.source.resolve(&text);
        certificates::leaf(section.desk, &place, &path)
    };
    files.filter_map(leaf).collect()
}

fn judge_keytab(top: &Section<'_>, section: &Section<'_>, settings: &NegotiateAuth) {
    let (desk, place) = (section.desk, section.place("keytab"));
    let Some(bytes) = desk.bytes(&place, &settings.keytab, KEYTAB_MAX) else {
        return;
    };
    desk.warn_if_open(&place, &settings.keytab);
    let shown = quoted(&settings.keytab.display().to_string());
    let make = "export it again: `ktpass` on a domain controller, or `msktutil`";
    let principals = match keytab::principals(&bytes) {
        Some(principals) if !principals.is_empty() => principals,
        Some(_) => {
            let what = format!("{shown} has no key in it");
            return desk.error(&place, Complaint::new(what, make));
        }
        None => {
            let what = format!("{shown} is not a keytab");
            return desk.error(&place, Complaint::new(what, make));
        }
    };
    for name in top.items("names") {
        let schemes = name.list("authentication");
        let Some(host) = name.text("host") else {
            continue;
        };
        if !schemes.iter().any(|(scheme, _)| scheme == "negotiate") {
            continue;
        }
        judge_name(section, &name, &host, &principals);
    }
}

fn judge_name(section: &Section<'_>, name: &Section<'_>, host: &str, principals: &[Principal]) {
    let wanted = format!("HTTP/{host}");
    let is_of = |principal: &Principal| principal.name.eq_ignore_ascii_case(&wanted);
    if principals.iter().any(is_of) {
        return;
    }
    let have: Vec<_> = principals
        .iter()
        .take(8)
        .map(|principal| quoted(&format!("{}@{}", principal.name, principal.realm)))
        .collect();
    // Only a warning: the key of one account opens tickets for all of its names.
    let what = format!(
        "the keytab has no {}; it has {}",
        quoted(&wanted),
        have.join(", ")
    );
    let cure = format!(
        "if no account has this name yet, `setspn -S {wanted} ACCOUNT`; then export the keytab again"
    );
    section
        .desk
        .warning(&name.place("host"), Complaint::new(what, cure));
}

/// Bytes of a keytab; one of a large farm has some thousands.
const KEYTAB_MAX: usize = 1 << 20;
