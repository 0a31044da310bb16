//! What clients may know the site by, and what they may not.

use crate::autodiscover::{authority_of, host_of};
use crate::capability::From as Place;
use crate::config::Settings;
use crate::config::settings::PublicName;
use crate::vdir::Vdir;
use std::net::IpAddr;

/// Which of the site's sides a client is on.
pub(super) fn place(address: IpAddr, settings: &Settings) -> Place {
    Place::of(address, &settings.autodiscover)
}

/// True for a name that a mailbox server goes by: its address, the name in its certificate, or its name
/// here, alone or with a domain behind it. Our own names never are.
pub(super) fn is_back_end(host: &str, settings: &Settings) -> bool {
    let is = |known: &str| known.eq_ignore_ascii_case(host);
    let first = host.split('.').next().unwrap_or_default();
    !host.is_empty()
        && !settings.names.iter().any(|name| is(&name.host))
        && settings.servers.values().any(|server| {
            is(&server.host)
                || server.tls.as_ref().is_some_and(|tls| is(&tls.name))
                || server.name.as_str().eq_ignore_ascii_case(first)
        })
}

/// The base URL of MAPI over HTTP for a client that speaks with us already: the external one outside, and
/// where nobody is told apart, the one whose host the client has asked for.
pub(super) fn base_url(name: &PublicName, from: Place) -> &str {
    let asked = |url: &str| host_of(url).eq_ignore_ascii_case(&name.host);
    match (&name.external_url, from) {
        (Some(external), Place::Outside) => external,
        (Some(external), Place::Anywhere) if asked(external) && !asked(&name.internal_url) => {
            external
        }
        _ => &name.internal_url,
    }
}

/// Where ActiveSync is under a name. Its MAPI URLs may tell a port, which is that of all.
pub(super) fn activesync_url(name: &PublicName, from: Place) -> String {
    let base = base_url(name, from);
    let authority = match host_of(base).eq_ignore_ascii_case(&name.host) {
        true => authority_of(base),
        false => &name.host,
    };
    format!("https://{authority}{}", Vdir::ActiveSync.path())
}
