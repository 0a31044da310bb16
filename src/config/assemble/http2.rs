//! Whether offering HTTP/2 under a name is of any use.

use crate::config::problem::{Complaint, quoted};
use crate::config::section::Section;
use crate::config::settings::Settings;

/// Holds every name that offers HTTP/2 against the listeners and against what may share connections.
pub(super) fn judge(top: &Section<'_>, settings: &Settings) {
    let speaks_tls = settings.listeners.iter().any(|it| !it.plain_http);
    for section in top.items("names") {
        let host = section.text("host").unwrap_or_default();
        let mut names = settings.names.iter();
        let Some(name) = names.find(|name| name.http2 && name.host.eq_ignore_ascii_case(&host))
        else {
            continue;
        };
        let warn = |what: String, cure: &str| {
            let place = section.place("http2");
            section.desk.warning(&place, Complaint::new(what, cure));
        };
        if !speaks_tls && !settings.listeners.is_empty() {
            let what = "HTTP/2 is agreed upon in a TLS handshake, and no listener has any";
            warn(
                what.to_owned(),
                "remove `http2`, or speak TLS here instead of in front",
            );
        }
        let (carried, sent_away) = settings.http2_carries(name);
        let all = sent_away.join(", ");
        let cure = "write `authentication: [basic]` or `[bearer]` for these paths alone, or let clients come again";
        match (carried.is_empty(), sent_away.is_empty()) {
            (true, true) => warn(
                format!(
                    "HTTP/2 would carry nothing under {}: MAPI and Outlook Anywhere never come by it",
                    quoted(&name.host)
                ),
                "remove `http2`, or add `virtual_directories`",
            ),
            (true, false) => warn(
                format!(
                    "HTTP/2 would carry nothing under {}: {all} offer negotiate or ntlm, which prove connections",
                    quoted(&name.host)
                ),
                cure,
            ),
            (false, false) => warn(
                format!(
                    "HTTP/2 does not carry {all} under {}: negotiate and ntlm, offered there, prove connections",
                    quoted(&name.host)
                ),
                cure,
            ),
            (false, true) => {}
        }
    }
}
