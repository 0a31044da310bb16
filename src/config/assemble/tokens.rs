//! Identity providers, and which of their tokens open mail.

use super::edge;
use crate::config::certificates;
use crate::config::problem::{Complaint, quoted};
use crate::config::section::Section;
use crate::config::settings::{
    BearerAuth, BearerChallenge, KeyPlace, KeySource, RequiredClaim, Scheme, TokenIssuer,
};
use crate::config::values;
use std::collections::HashSet;

/// Everything about tokens.
pub(super) fn bearer(section: &Section<'_>) -> BearerAuth {
    let challenge = section.section("challenge");
    let sections = section.items("issuers");
    if section.is_empty_list("issuers") {
        let cure = "add one: `- issuer: https://id.contoso.com` with its audiences";
        let complaint = Complaint::new("there is no issuer: no token would be good", cure);
        section.desk.error(&section.place("issuers"), complaint);
    }
    let mut seen = HashSet::new();
    let mut issuers = Vec::new();
    for section in &sections {
        let Some(issuer) = issuer(section) else {
            continue;
        };
        if !seen.insert(issuer.issuer.clone()) {
            let what = format!(
                "the issuer {} is here a second time",
                quoted(&issuer.issuer)
            );
            let cure = "keep one of the two; one issuer may have several audiences";
            let complaint = Complaint::new(what, cure);
            section.desk.error(&section.place("issuer"), complaint);
        }
        if sections.len() > 1 && issuer.domains.is_empty() {
            let what = format!(
                "{} is one of several issuers and may name any user, theirs too",
                quoted(&issuer.issuer)
            );
            let cure = "add `domains: [contoso.com]` with the domains of its own users";
            section
                .desk
                .warning(&section.here(), Complaint::new(what, cure));
        }
        issuers.push(issuer);
    }
    BearerAuth {
        challenge: BearerChallenge {
            client_id: sayable(&challenge, "client_id"),
            trusted_issuers: sayable(&challenge, "trusted_issuers"),
            token_types: sayable(&challenge, "token_types"),
            authorization_uri: sayable(&challenge, "authorization_uri"),
        },
        leeway: section.duration("leeway"),
        issuers,
    }
}

/// Reports names that offer tokens where none are known, and tokens that no name offers.
pub(super) fn judge_offers(top: &Section<'_>, auth: &Section<'_>, has_tokens: bool) {
    let names = top.items("names");
    let offering = names.iter().find(|name| edge::offers(name, Scheme::Bearer));
    match (offering, has_tokens) {
        (Some(name), false) if !auth.has("bearer") => {
            let what = format!(
                "{} offers bearer, and nothing says whose tokens are good",
                quoted(&name.text("host").unwrap_or_default())
            );
            let cure = "add `auth: { bearer: { issuers: [{ issuer: https://…, audiences: [https://…/] }] } }`";
            let at = name.place("authentication");
            top.desk.error(&at, Complaint::new(what, cure));
        }
        (None, true) if !names.is_empty() => {
            let what = "no name offers bearer: its tokens are not looked at";
            let cure = "write `authentication: [bearer]` or `[bearer, basic]` under `names`";
            let at = auth.place("bearer");
            top.desk.warning(&at, Complaint::new(what, cure));
        }
        _ => {}
    }
}

/// Text that goes into a quoted string of a header.
fn sayable(section: &Section<'_>, leaf: &str) -> Option<String> {
    let text = section.text(leaf)?;
    if text.contains(['"', '\\']) || !text.is_ascii() {
        let what = format!("{} cannot stand in a header as it is", quoted(&text));
        let cure = "use ASCII letters without `\"` and `\\`";
        section
            .desk
            .error(&section.place(leaf), Complaint::new(what, cure));
    }
    Some(text)
}

fn issuer(section: &Section<'_>) -> Option<TokenIssuer> {
    for (leaf, what, cure) in [
        (
            "audiences",
            "no audience: a token for any service would open mail",
            "name what its tokens for mail have in `aud`, as in `[https://mail.contoso.com/]`",
        ),
        (
            "identity_claims",
            "no claim names the user",
            "write `identity_claims: [upn]`, or whatever claim has the login name",
        ),
        (
            "algorithms",
            "no algorithm: no signature would be good",
            "write `algorithms: [RS256]`",
        ),
    ] {
        if section.is_empty_list(leaf) {
            section
                .desk
                .error(&section.place(leaf), Complaint::new(what, cure));
        }
    }
    let name = section.text("issuer")?;
    let texts = |leaf: &str| -> Vec<String> {
        let values = section.list(leaf).into_iter();
        values.map(|(text, _)| text).collect()
    };
    let algorithms = texts("algorithms");
    let domains = texts("domains");
    Some(TokenIssuer {
        keys: keys(section, &name)?,
        issuer: name,
        audiences: texts("audiences"),
        algorithms: algorithms.iter().filter_map(|a| a.parse().ok()).collect(),
        identity_claims: texts("identity_claims"),
        default_domain: section.read("default_domain", |_, text| values::host_name(text)),
        domains: domains
            .iter()
            .filter_map(|domain| values::host_name(domain).ok())
            .collect(),
        required_claims: section
            .items("required_claims")
            .iter()
            .filter_map(required_claim)
            .collect(),
        clients: texts("clients"),
    })
}

fn required_claim(section: &Section<'_>) -> Option<RequiredClaim> {
    let any_of: Vec<_> = section
        .list("any_of")
        .into_iter()
        .map(|(text, _)| text)
        .collect();
    if section.is_empty_list("any_of") {
        let what = "no value: no token would be good";
        let cure = "name the values of which one is enough, or remove the claim";
        section
            .desk
            .error(&section.place("any_of"), Complaint::new(what, cure));
    }
    Some(RequiredClaim {
        claim: section.text("claim")?,
        any_of,
    })
}

fn keys(section: &Section<'_>, issuer: &str) -> Option<KeySource> {
    let ways = ["discovery", "jwks_uri", "keys_file"];
    let mut written = ways.into_iter().filter(|leaf| section.has(leaf));
    if let (Some(first), Some(second)) = (written.next(), written.next()) {
        let what = format!("`{second}` stands beside `{first}`");
        let complaint = Complaint::new(what, "keep the one that says where the keys are");
        section.desk.error(&section.place(second), complaint);
    }
    let ca = certificates::authorities(section, "ca");
    let place = if section.has("keys_file") {
        keys_in_file(section)?
    } else if let Some(url) = section.text("jwks_uri") {
        KeyPlace::Url(url)
    } else if let Some(url) = section.text("discovery") {
        KeyPlace::Discovery(url)
    } else {
        // OpenID Connect Discovery 4.1: a slash at the end of the issuer is not doubled.
        let url = format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/'));
        if section.is_sound("issuer") && !section.has("discovery") && values::url(&url).is_err() {
            let what = format!(
                "{} is no URL with TLS, so it does not say where its discovery document is",
                quoted(issuer)
            );
            let cure = "add `discovery` or `jwks_uri` with an https URL";
            section
                .desk
                .error(&section.place("issuer"), Complaint::new(what, cure));
        }
        KeyPlace::Discovery(url)
    };
    Some(KeySource {
        issuer: issuer.to_owned(),
        place,
        ca,
        refresh: section.duration("refresh"),
    })
}

/// Whether its keys can be used is seen where they are used; here, whether it is a key set at all.
fn keys_in_file(section: &Section<'_>) -> Option<KeyPlace> {
    let (desk, place) = (section.desk, section.place("keys_file"));
    let path = section.file("keys_file")?;
    let text = desk.bytes(&place, &path, KEYS_FILE_MAX)?;
    let shown = quoted(&path.display().to_string());
    let what = match serde_json::from_slice::<serde_json::Value>(&text) {
        Err(cause) => format!("{shown} is not JSON ({cause})"),
        Ok(set) => match set.get("keys").and_then(|keys| keys.as_array()) {
            Some(keys) if !keys.is_empty() => return Some(KeyPlace::File { path, text }),
            Some(_) => format!("{shown} holds no key"),
            None => format!("{shown} is not a key set: it has no list `keys`"),
        },
    };
    let cure = "save what the provider's `jwks_uri` answers into it";
    desk.error(&place, Complaint::new(what, cure));
    None
}

const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// Bytes of a file of keys.
const KEYS_FILE_MAX: usize = 256 << 10;
