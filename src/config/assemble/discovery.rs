//! What clients that look for their mailbox are told.

use crate::autodiscover::host_of;
use crate::config::problem::{Complaint, quoted};
use crate::config::section::Section;
use crate::config::settings::{Autodiscover, AutodiscoverMode, PublicName};
use crate::config::values;
use std::collections::BTreeMap;

/// Who answers, where the key is written or has a default.
pub(super) fn mode(section: &Section<'_>, leaf: &str) -> Option<AutodiscoverMode> {
    match section.text(leaf)?.as_str() {
        "proxy" => Some(AutodiscoverMode::Proxy),
        "answer" => Some(AutodiscoverMode::Answer),
        _ => Some(AutodiscoverMode::Off),
    }
}

/// The section, held against the names it speaks for.
pub(super) fn autodiscover(top: &Section<'_>, names: &[PublicName]) -> Autodiscover {
    let section = top.section("autodiscover");
    let url = |leaf: &str| section.read(leaf, |_, text| values::https_url(text));
    let answers = |name: &&PublicName| name.autodiscover == AutodiscoverMode::Answer;
    if let Some(name) = names.iter().find(answers)
        && !["file", "ldap"]
            .iter()
            .any(|key| top.section("directory").has(key))
    {
        let what = format!(
            "Autodiscover of {} is answered from the mailbox file or the directory service, and there is neither",
            quoted(&name.host)
        );
        let cure = "name one in `directory: { file: mailboxes.yaml }` or `directory: { ldap: … }`, or write `mode: proxy`";
        let place = match section.has("mode") {
            true => section.place("mode"),
            false => top.place("names"),
        };
        top.desk.error(&place, Complaint::new(what, cure));
    }
    let networks = section.list("internal_networks");
    Autodiscover {
        mapi_http: section.switch("mapi_http"),
        block_external: section.switch("block_external"),
        internal_networks: networks
            .iter()
            .filter_map(|(text, _)| values::network(text).ok())
            .collect(),
        outlook_anywhere: section.switch("outlook_anywhere"),
        own_only: section.text("other_mailboxes").as_deref() == Some("own"),
        ews_url: url("ews_url"),
        oab_url: url("oab_url"),
        activesync_url: url("activesync_url"),
        redirects: redirects(&section, names),
    }
}

fn redirects(section: &Section<'_>, names: &[PublicName]) -> BTreeMap<String, String> {
    let desk = section.desk;
    let mut redirects = BTreeMap::new();
    for ((domain, at), (url, place)) in section.named_values("redirects") {
        let domain = match values::host_name(&domain) {
            Ok(domain) => domain,
            Err(complaint) => {
                desk.error(&at, complaint);
                continue;
            }
        };
        let host = host_of(&url);
        if names
            .iter()
            .any(|name| name.host.eq_ignore_ascii_case(host))
        {
            let what = format!(
                "{} is our own name: clients would go in a circle",
                quoted(host)
            );
            let cure = "name the service that answers for this domain, or remove the redirect";
            desk.error(&place, Complaint::new(what, cure));
        }
        redirects.insert(domain, url);
    }
    redirects
}
