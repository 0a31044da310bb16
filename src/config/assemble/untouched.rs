//! Schemes that are left to the mailbox servers.

use super::edge;
use crate::config::problem::Complaint;
use crate::config::section::Section;
use crate::config::settings::{Scheme, Untouched};

/// What is passed on without a look, and whether that goes with the rest.
pub(super) fn passthrough(top: &Section<'_>, auth: &Section<'_>) -> Option<Untouched> {
    let section = auth.written_section("passthrough");
    let schemes = section.as_ref().map(schemes).unwrap_or_default();
    judge_offers(top, auth, &schemes);
    let section = section?;
    if section.is_empty_list("schemes") {
        let complaint = Complaint::new(
            "no scheme is named: nothing is passed through",
            "write `schemes: [negotiate, ntlm]`, or remove the section",
        );
        section.desk.error(&section.place("schemes"), complaint);
    }
    judge_mode(top, &section);
    judge_listeners(top, &section);
    judge_access(top, &section);
    Some(Untouched {
        schemes,
        connections_max: section.amount("connections"),
        handshake_timeout: section.duration("handshake_timeout"),
    })
}

/// Schemes that are left to the servers.
pub(super) fn left_to_servers(auth: &Section<'_>) -> Vec<Scheme> {
    auth.written_section("passthrough")
        .map_or_else(Vec::new, |section| schemes(&section))
}

fn schemes(section: &Section<'_>) -> Vec<Scheme> {
    let words = section.list("schemes");
    let named = |scheme: &Scheme| words.iter().any(|(word, _)| word == scheme.as_str());
    Scheme::ALL.into_iter().filter(named).collect()
}

/// Schemes that no name offers.
fn judge_offers(top: &Section<'_>, auth: &Section<'_>, schemes: &[Scheme]) {
    let names = top.items("names");
    let offers = |scheme: Scheme| names.iter().find(|name| edge::offers(name, scheme));
    for scheme in [Scheme::Negotiate, Scheme::Ntlm] {
        let word = scheme.as_str();
        if offers(scheme).is_none() && schemes.contains(&scheme) && !names.is_empty() {
            let what = format!("no name offers {word}: it is not passed through");
            let cure = format!("write `authentication: [{word}]` under `names`");
            let at = auth.section("passthrough").place("schemes");
            top.desk.warning(&at, Complaint::new(what, cure));
        }
    }
}

/// A server that takes our word for the user must not get connections on which we do not know the user.
fn judge_mode(top: &Section<'_>, section: &Section<'_>) {
    let identity = top.section("backend_identity");
    let mode = identity.text("mode").unwrap_or_default();
    if !["passthrough", "kerberos"].contains(&mode.as_str()) {
        let what = format!(
            "does not go with `backend_identity: {{ mode: {mode} }}`, by which servers believe us and not the user"
        );
        let cure = "remove it, or write `mode: passthrough` or `mode: kerberos`";
        section
            .desk
            .error(&section.here(), Complaint::new(what, cure));
    }
}

fn judge_listeners(top: &Section<'_>, section: &Section<'_>) {
    let plain = |listener: &Section<'_>| listener.switch("plain_http");
    if top.items("listeners").iter().any(plain) {
        let what = "a listener speaks plain HTTP: what ends TLS in front of it must keep one connection for each client";
        let cure = "let mapigate end TLS, or make sure that nothing in front shares connections";
        section
            .desk
            .warning(&section.here(), Complaint::new(what, cure));
    }
}

fn judge_access(top: &Section<'_>, section: &Section<'_>) {
    if top.section("directory").text("access").as_deref() == Some("listed") {
        let what = "`directory: { access: listed }` needs to know who asks, and these schemes do not tell us";
        let cure = "write `access: backend`, or remove the section";
        section
            .desk
            .error(&section.here(), Complaint::new(what, cure));
    }
}
