//! What stands behind: servers, databases, the directory.

use super::GROMOX_KEEP_ALIVE;
use crate::config::certificates;
use crate::config::problem::{Complaint, nearest, quoted};
use crate::config::section::Section;
use crate::config::settings::{
    Access, Authenticates, CopiesFrom, Database, DirectorySettings, PublicName, Server, ServerTls,
};
use crate::config::values;
use crate::ids::{DatabaseName, ServerName};
use crate::mapi::{Build, Capable, Flavour};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) type Servers = BTreeMap<ServerName, Arc<Server>>;
type Listed = BTreeMap<DatabaseName, Database>;

/// What the configuration says of databases.
pub(super) struct Databases {
    /// Those with their copies.
    pub(super) listed: Listed,
    /// Where all others come from.
    pub(super) copies_from: CopiesFrom,
    /// There are no others than those listed.
    pub(super) are_all_known: bool,
}

/// All servers. One that is written wrong is kept, so that its name is not reported as unknown too.
pub(super) fn servers(top: &Section<'_>, names: &[PublicName]) -> Servers {
    let mut servers = Servers::new();
    let mut addresses: BTreeMap<(String, u16), String> = BTreeMap::new();
    let named = top.named("servers");
    if top.is_empty_map("servers") {
        let cure = "add one: `MBX1: { address: mbx1.contoso.com:443 }`";
        let complaint = Complaint::new("there is no server: mail must live somewhere", cure);
        top.desk.error(&top.place("servers"), complaint);
    }
    for ((name, _), section) in named {
        let server = server(&name, &section, names);
        let address = (server.host.clone(), server.port);
        if server.port != 0
            && let Some(other) = addresses.insert(address, name)
        {
            let what = format!("{} has the same address", quoted(&other));
            let cure = "give every server its own address; copies on one server have one name";
            top.desk
                .warning(&section.place("address"), Complaint::new(what, cure));
        }
        servers.insert(server.name.clone(), Arc::new(server));
    }
    servers
}

fn server(name: &str, section: &Section<'_>, names: &[PublicName]) -> Server {
    let address = section.read("address", |_, text| values::host_and_port(text));
    let (host, port) = address.unwrap_or_default();
    let flavour = match section.text("flavour").as_deref() {
        Some("gromox") => Flavour::Gromox,
        _ => Flavour::Exchange,
    };
    let authenticates = match (section.text("authenticates").as_deref(), flavour) {
        (Some("requests"), _) | (None, Flavour::Gromox) => Authenticates::Requests,
        _ => Authenticates::Connections,
    };
    let idle_timeout = section.duration("idle_timeout");
    if flavour == Flavour::Gromox && idle_timeout >= GROMOX_KEEP_ALIVE {
        let what = "gromox closes a connection after 180 s, with a 408 that would answer somebody's next request";
        let cure = "write less than 180s, as in the default `60s`";
        let at = section.place("idle_timeout");
        section.desk.error(&at, Complaint::new(what, cure));
    }
    let version = section.read("version", |_, text| values::build(text));
    Server {
        name: ServerName::new(name),
        tls: server_tls(section, &host),
        host,
        port,
        flavour,
        capable: capable(section, flavour, version),
        version,
        url_name: url_name(section, names),
        authenticates,
        health_weight: section.small("health_weight"),
        idle_connections_max: section.amount("idle_connections"),
        idle_timeout,
        requests_max: section.amount("requests_max"),
        normalize: section.switch("normalize"),
    }
}

/// One of our names, which clients can then be sent to.
fn url_name(section: &Section<'_>, names: &[PublicName]) -> Option<String> {
    let host = section.read("url_name", |_, text| values::host_name(text))?;
    if !names.iter().any(|name| name.host == host) {
        let known: Vec<&str> = names.iter().map(|name| name.host.as_str()).collect();
        let what = format!(
            "{} is none of `names`: nobody is served there",
            quoted(&host)
        );
        let cure = match nearest(&host, known.iter().copied()) {
            Some(name) => format!("did you mean {}?", quoted(name)),
            None => "add it to `names`, or remove this".to_owned(),
        };
        let at = section.place("url_name");
        section.desk.error(&at, Complaint::new(what, cure));
    }
    Some(host)
}

/// What is written goes before what is known of a version; where both are written, they must agree.
fn capable(section: &Section<'_>, flavour: Flavour, version: Option<Build>) -> Capable {
    let desk = section.desk;
    if flavour == Flavour::Gromox && version.is_some() {
        let what = "a build of Exchange, and `flavour: gromox`";
        let cure = "remove the version, or write `flavour: exchange`";
        desk.error(&section.place("version"), Complaint::new(what, cure));
    }
    let words = section.list("capability");
    let says = |wanted: &str| words.iter().any(|(word, _)| word == wanted);
    if !section.has("capability") {
        return Capable::of(flavour, version, None);
    }
    if let Some(version) = version.filter(|version| !version.speaks_mapi_http())
        && says("mapi_http")
    {
        let what = format!("Exchange {version} does not speak MAPI over HTTP");
        let cure = "remove `mapi_http`, or write the version the server has now: 15.0.847 (2013 SP1) or later";
        let at = section.place("capability");
        desk.error(&at, Complaint::new(what, cure));
    }
    Capable::of(flavour, version, Some(&says))
}

fn server_tls(section: &Section<'_>, host: &str) -> Option<ServerTls> {
    if section.read("tls", |_, text| Ok(text == "off")) == Some(true) {
        let is_here = host == "localhost"
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        if !is_here && !host.is_empty() {
            let what = format!("mail and passwords travel to {} in clear", quoted(host));
            let cure = "remove `tls: off`, and name the site's authority in `tls: { ca: … }`";
            section
                .desk
                .warning(&section.place("tls"), Complaint::new(what, cure));
        }
        return None;
    }
    let tls = section.section("tls");
    let client_certificate = tls
        .written_section("client_certificate")
        .and_then(|section| certificates::read(&section));
    Some(ServerTls {
        ca: certificates::authorities(&tls, "ca"),
        name: tls
            .read("name", |_, text| values::host_name(text))
            .unwrap_or_else(|| host.to_owned()),
        client_certificate,
    })
}

/// All databases of the file that holds them; `top` is the file that says where copies come from.
pub(super) fn databases(top: &Section<'_>, holder: &Section<'_>, servers: &Servers) -> Databases {
    let from_directory = are_copies_of_directory(top);
    let (mut databases, mut active) = (Listed::new(), BTreeMap::new());
    let desk = holder.desk;
    let named = holder.named("databases");
    if holder.is_empty_map("databases") && !from_directory {
        let cure = "add one: `DB07: { copies: [MBX1] }`";
        let complaint = Complaint::new("there is no database: mailboxes live in databases", cure);
        desk.error(&holder.place("databases"), complaint);
    }
    for ((name, _), section) in named {
        if from_directory && !section.has("copies") {
            active.extend(active_alone(&name, &section, servers));
            continue;
        }
        if let Some(database) = database(&section, servers) {
            databases.insert(DatabaseName::new(name), database);
        } else {
            // Its name is known all the same.
            let nowhere = ServerName::new("");
            let database = Database {
                copies: Vec::new(),
                active: nowhere,
            };
            databases.insert(DatabaseName::new(name), database);
        }
    }
    Databases {
        are_all_known: !databases.is_empty() && !from_directory,
        listed: databases,
        copies_from: match from_directory {
            true => CopiesFrom::Directory { active },
            false => CopiesFrom::Configuration,
        },
    }
}

fn are_copies_of_directory(top: &Section<'_>) -> bool {
    let section = top.section("databases");
    if section.text("copies_from").as_deref() != Some("directory") {
        return false;
    }
    if !top.section("directory").has("ldap") {
        let what = "there is no directory service to take them from";
        let cure = "add `ldap` to `directory`, or list the copies of every database here";
        let complaint = Complaint::new(what, cure);
        top.desk.error(&section.place("copies_from"), complaint);
    }
    true
}

/// Where a database is active whose copies the directory knows.
fn active_alone(
    name: &str,
    section: &Section<'_>,
    servers: &Servers,
) -> Option<(DatabaseName, ServerName)> {
    let active = section.text("active")?;
    // With no server at all every name would be unknown; that has been reported.
    if !servers.contains_key(active.as_str()) && !servers.is_empty() {
        let complaint = unknown_server(&active, servers);
        section.desk.error(&section.place("active"), complaint);
    }
    Some((DatabaseName::new(name), ServerName::new(active)))
}

fn database(section: &Section<'_>, servers: &Servers) -> Option<Database> {
    let desk = section.desk;
    let mut copies: Vec<ServerName> = Vec::new();
    for (name, place) in section.list("copies") {
        let Some((known, _)) = servers.get_key_value(name.as_str()) else {
            // With no server at all every name would be unknown; that has been reported.
            if !servers.is_empty() {
                desk.error(&place, unknown_server(&name, servers));
            }
            continue;
        };
        if copies.contains(known) {
            let what = format!("{} is here a second time", quoted(&name));
            desk.error(&place, Complaint::new(what, "keep one of the two"));
            continue;
        }
        copies.push(known.clone());
    }
    judge_capability(section, servers, &copies);
    if copies.is_empty() {
        if section.lacks("copies") {
            let what = "the key `copies` is missing; it has no default: only the site knows where they are";
            let complaint = Complaint::new(what, "add `copies: [MBX1]`");
            desk.error(&section.place("copies"), complaint);
        }
        if section.is_empty_list("copies") {
            let what = "a database without copies: its mailboxes can never be reached";
            let complaint = Complaint::new(what, "name a server, as in `copies: [MBX1]`");
            desk.error(&section.place("copies"), complaint);
        }
        return None;
    }
    let first = copies.first().cloned()?;
    let active = section.text("active").map(ServerName::new);
    if let Some(active) = &active
        && !copies.contains(active)
    {
        let complaint = if servers.contains_key(active.as_str()) || servers.is_empty() {
            let what = format!("{} holds no copy of this database", quoted(active.as_str()));
            let cure = format!("add it to `copies`, or name one of them: {}", list(&copies));
            Complaint::new(what, cure)
        } else {
            unknown_server(active.as_str(), servers)
        };
        desk.error(&section.place("active"), complaint);
    }
    Some(Database {
        active: active.unwrap_or(first),
        copies,
    })
}

/// What users meet where MAPI over HTTP is not to be had, always or after some failovers.
fn judge_capability(section: &Section<'_>, servers: &Servers, copies: &[ServerName]) {
    let speaks = |name: &&ServerName| {
        servers
            .get(*name)
            .is_some_and(|server| server.capable.mapi_http)
    };
    let (capable, others): (Vec<_>, Vec<_>) = copies.iter().partition(speaks);
    let list = |names: Vec<&ServerName>| list(&names.into_iter().cloned().collect::<Vec<_>>());
    let (what, cure) = match (capable.is_empty(), others.is_empty()) {
        (_, true) => return,
        (true, false) => (
            format!("no server of its copies speaks MAPI over HTTP: {}", list(others)),
            "Outlook is told to use Outlook Anywhere, which is not carried here; upgrade a server, or add `mapi_http` to its capability".to_owned(),
        ),
        (false, false) => (
            format!(
                "some servers of its copies speak MAPI over HTTP ({}), others do not ({})",
                list(capable),
                list(others)
            ),
            "after a failover to one of the others Outlook loses its connection until it is restarted and falls back to Outlook Anywhere, and after the way back until it is restarted again; upgrade them all".to_owned(),
        ),
    };
    let place = section.place("copies");
    section.desk.warning(&place, Complaint::new(what, cure));
}

fn unknown_server(name: &str, servers: &Servers) -> Complaint {
    let names: Vec<_> = servers.keys().cloned().collect();
    Complaint::new(
        format!("no server is called {}", quoted(name)),
        format!("add it to `servers`, or name one of them: {}", list(&names)),
    )
    .rather(nearest(name, servers.keys().map(ServerName::as_str)).map(str::to_owned))
}

fn list(names: &[ServerName]) -> String {
    let mut shown: Vec<_> = names.iter().take(8).map(ToString::to_string).collect();
    if names.len() > shown.len() {
        shown.push("…".to_owned());
    }
    shown.join(", ")
}

/// The directory; `known` are the databases, where their names are known.
pub(super) fn directory(top: &Section<'_>, known: Option<&Listed>) -> DirectorySettings {
    let section = top.section("directory");
    let desk = top.desk;
    let sources = ["file", "ldap", "default_databases"];
    if top.has("directory") && !sources.iter().any(|source| section.has(source)) {
        let what = "neither a mailbox file nor a default database: no mailbox would be found";
        let cure =
            "add `file: mailboxes.yaml`, or `default_databases: { contoso.com: DB07 }`, or `ldap`";
        desk.error(&section.here(), Complaint::new(what, cure));
    }
    if section.has("file") && section.has("ldap") {
        let what = "a mailbox file beside a directory service: two could say where a mailbox is";
        let complaint = Complaint::new(what, "keep one of `file` and `ldap`");
        desk.error(&section.place("file"), complaint);
    }
    let mut default_databases = BTreeMap::new();
    for ((domain, at), (database, place)) in section.named_values("default_databases") {
        let domain = match values::host_name(&domain) {
            Ok(domain) => domain,
            Err(complaint) => {
                desk.error(&at, complaint);
                continue;
            }
        };
        if let Some(known) = known
            && !known.contains_key(database.as_str())
        {
            let names = known.keys().map(DatabaseName::as_str);
            let what = format!("no database is called {}", quoted(&database));
            let cure = "add it to `databases`, or name one of them";
            let rather = nearest(&database, names).map(str::to_owned);
            desk.error(&place, Complaint::new(what, cure).rather(rather));
        }
        default_databases.insert(domain, DatabaseName::new(database));
    }
    let file = section.file("file").filter(|file| {
        // Only its first byte: whoever keeps mailboxes reads the rest.
        desk.is_readable(&section.place("file"), file)
    });
    DirectorySettings {
        file,
        ldap: section
            .written_section("ldap")
            .and_then(|section| super::ldap::ldap(&section))
            .map(Arc::new),
        default_databases,
        access: match section.text("access").as_deref() {
            Some("listed") => Access::Listed,
            _ => Access::Backend,
        },
    }
}
