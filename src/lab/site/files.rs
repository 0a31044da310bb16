//! The files of a site, as an administrator would write them.

use super::{DATABASE, DOMAIN, HOST, PASSWORD, Site, people};
use crate::mapi::Flavour;
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

/// The configuration.
pub(super) const CONFIG: &str = "mapigate.yaml";
/// The access log.
pub(super) const ACCESS_LOG: &str = "access.log";
/// The operator's log.
pub(super) const LOG: &str = "mapigate.log";

/// Writes all of them.
pub(super) fn write(site: &Site) -> Result<()> {
    let folder = site.folder();
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    site.authority().write(folder)?;
    let mut names = vec![HOST];
    names.extend(site.plan().more_names.iter().map(String::as_str));
    site.authority().server(&names)?.write(folder, "mail")?;
    if site.plan().back_certificate {
        site.authority()
            .client("mapigate")?
            .write(folder, "front")?;
    }
    people::write(folder, site.plan().users, PASSWORD, &[DATABASE])?;
    people::write_keys(folder)?;
    write_databases(site)?;
    write_addresses(site)?;
    fs::write(folder.join(CONFIG), config(site)).context(CONFIG)
}

/// The map of active copies.
pub(super) fn write_databases(site: &Site) -> Result<()> {
    let names: Vec<_> = site
        .plan()
        .servers
        .iter()
        .map(|options| options.name.as_str())
        .collect();
    let text = format!(
        "databases:\n  {DATABASE}: {{ copies: [{}], active: {} }}\n",
        names.join(", "),
        site.active()
    );
    // Written beside and moved: nobody reads half a file.
    let (beside, path) = (
        site.folder().join("databases.new"),
        site.folder().join("databases.yaml"),
    );
    fs::write(&beside, text)
        .and_then(|()| fs::rename(&beside, &path))
        .context("databases.yaml")
}

/// Where each server listens, for its successor.
fn write_addresses(site: &Site) -> Result<()> {
    for server in site.servers() {
        let path = site.folder().join(format!("{}.address", server.name()));
        fs::write(path, server.address().to_string())?;
    }
    Ok(())
}

/// Where a server listened.
pub(super) fn address_of(folder: &Path, server: &str) -> Result<SocketAddr> {
    let path = folder.join(format!("{server}.address"));
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(text.parse()?)
}

fn config(site: &Site) -> String {
    let plan = site.plan();
    let mut text = String::from("version: 1\n");
    let mut section = |name: &'static str, ours: String| {
        let body = plan.sections.get(name).cloned().unwrap_or(ours);
        // Writing into memory does not fail.
        let _infallible = if body.trim_start().starts_with(['{', '[']) || !body.contains('\n') {
            writeln!(text, "{name}: {}", body.trim())
        } else {
            writeln!(text, "{name}:\n{}", body.trim_end())
        };
    };
    section(
        "listeners",
        "  - address: 127.0.0.1:0\n    certificates: [{ chain: mail.pem, key: mail.key }]\n"
            .to_owned(),
    );
    section("names", format!("  - host: {HOST}\n"));
    section("servers", servers(site));
    section("databases", "{ file: databases.yaml }".to_owned());
    section("directory", "{ file: mailboxes.yaml }".to_owned());
    section(
        "auth",
        format!("{{ basic: {{ password_file: users.htpasswd, default_domain: {DOMAIN} }} }}"),
    );
    section(
        "sessions",
        "{ route_cookie: { keys_file: cookie.keys } }".to_owned(),
    );
    section(
        "logging",
        format!("{{ access: {ACCESS_LOG}, format: json }}"),
    );
    section("admin", "{ address: 127.0.0.1:0 }".to_owned());
    for name in [
        "workers",
        "autodiscover",
        "tls",
        "backend_identity",
        "limits",
        "accounting",
        "health",
        "probes",
        "reload",
        "virtual_directories",
    ] {
        if plan.sections.contains_key(name) {
            section(name, String::new());
        }
    }
    text
}

fn servers(site: &Site) -> String {
    let mut text = String::new();
    for server in site.servers() {
        let options = server.options();
        let flavour = match options.flavour {
            Flavour::Exchange => "exchange",
            Flavour::Gromox => "gromox",
        };
        let tls = match site.plan().back_tls {
            true if site.plan().back_certificate => format!(
                "{{ ca: ca.pem, name: {}, client_certificate: {{ chain: front.pem, key: front.key }} }}",
                options.host
            ),
            true => format!("{{ ca: ca.pem, name: {} }}", options.host),
            false => "off".to_owned(),
        };
        let own = server.name().to_string().to_lowercase();
        let keys = site.plan().server_keys.replace("{server}", &own);
        let capability = match options.mapi_http {
            true => "",
            false => ", capability: [outlook_anywhere]",
        };
        let comma = if keys.is_empty() { "" } else { ", " };
        let line = format!(
            "  {}: {{ address: {}, tls: {tls}, flavour: {flavour}{capability}{comma}{keys} }}\n",
            server.name(),
            server.address()
        );
        text.push_str(&line);
    }
    text
}
