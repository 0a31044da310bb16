//! Who clients are.

use super::{amount, cores, tokens, untouched};
use crate::config::problem::{Complaint, quoted};
use crate::config::secrets;
use crate::config::section::Section;
use crate::config::settings::{AuthSettings, BasicAuth};
use crate::config::values;

pub(super) fn auth(top: &Section<'_>) -> AuthSettings {
    let section = top.section("auth");
    let basic = section.written_section("basic");
    let bearer = section.written_section("bearer");
    if basic.is_none() {
        judge_missing_basic(top, &section, bearer.is_some());
    }
    tokens::judge_offers(top, &section, bearer.is_some());
    AuthSettings {
        basic: basic.and_then(|section| {
            secrets::check_password_file(&section, "password_file");
            Some(BasicAuth {
                realm: realm(&section),
                password_file: section.file("password_file")?,
                default_domain: section.read("default_domain", |_, text| values::host_name(text)),
            })
        }),
        bearer: bearer.map(|section| tokens::bearer(&section)),
        passthrough: untouched::passthrough(top, &section),
        cache_ttl: section.duration("cache_ttl"),
        negative_ttl: section.duration("negative_ttl"),
        cache_capacity: section.amount("cache_capacity"),
        verifications_max: section
            .number_or_auto("verifications")
            .map_or_else(cores, amount),
    }
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
    let wants = |name: &Section<'_>| {
        let schemes = name.list("authentication");
        schemes.iter().any(|(scheme, _)| scheme == "basic")
    };
    let Some(name) = top.items("names").into_iter().find(wants) else {
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
