//! Makes settings of a file that the table of keys allows, and judges what values mean together.

mod accounting;
mod discovery;
mod domain;
mod edge;
mod handoff;
mod http2;
mod ldap;
mod logs;
mod people;
mod probes;
mod site;
mod tokens;
mod untouched;
mod vdirs;

use super::desk::Source;
use super::problem::{Complaint, quoted};
use super::secrets;
use super::section::Section;
use super::settings::{
    Admin, BackendIdentity, HealthProbe, HealthSettings, Limits, RouteCookie, SessionSettings,
    Settings,
};
use std::num::NonZero;
use std::time::Duration;

/// Cookies that servers and we give other meanings.
const TAKEN_COOKIES: [&str; 6] = [
    "MapiContext",
    "MapiSequence",
    "MapiRouting",
    "X-BackEndCookie",
    "sid",
    "sequence",
];

/// Settings of the whole file. `databases` is the file they stand in, where it is another.
/// What is wrong has been reported; the settings are then of no use.
pub(super) fn settings(top: &Section<'_>, databases: Option<&Source>) -> Settings {
    let listeners = edge::listeners(top);
    let names = edge::names(top, &listeners);
    let autodiscover = discovery::autodiscover(top, &names);
    let admin = Admin {
        address: top
            .section("admin")
            .read("address", address_or_off)
            .flatten(),
    };
    edge::judge_addresses(top, &admin);
    people::judge_certificates(top, &listeners);
    let servers = site::servers(top, &names);
    let own_file = databases.map(|source| Section::top(top.desk, source));
    let holder = own_file.as_ref().unwrap_or(top);
    let site::Databases {
        listed: databases,
        copies_from,
        are_all_known,
    } = site::databases(top, holder, &servers);
    let known = are_all_known.then_some(&databases);
    let health = health(top, &servers);
    let backend_identity = handoff::backend_identity(top, &servers);
    let mut auth = people::auth(top);
    if let Some(negotiate) = &mut auth.negotiate {
        negotiate.keeps_tickets = matches!(backend_identity, BackendIdentity::Kerberos(_));
    }
    let settings = Settings {
        source: top.source.path.clone(),
        workers: top.number_or_auto("workers").map_or_else(cores, amount),
        listeners,
        tls: edge::tls(top),
        vdirs: vdirs::vdirs(top, &names, &autodiscover.internal_networks),
        names,
        autodiscover,
        directory: site::directory(top, known),
        auth,
        backend_identity,
        sessions: sessions(top),
        limits: limits(top),
        health,
        logging: logs::logging(top),
        accounting: accounting::accounting(top),
        probes: probes::probes(top),
        admin,
        watch_files: top.section("reload").switch("watch"),
        databases_file: own_file.map(|section| section.source.path.clone()),
        servers,
        databases,
        copies_from,
        files: Vec::new(),
    };
    http2::judge(top, &settings);
    settings
}

fn sessions(top: &Section<'_>) -> SessionSettings {
    let section = top.section("sessions");
    let cookie = section.section("route_cookie");
    let route_cookie = cookie.switch("enabled").then(|| {
        let name = cookie.text("name").unwrap_or_default();
        if TAKEN_COOKIES
            .iter()
            .any(|taken| taken.eq_ignore_ascii_case(&name))
        {
            let what = format!("{} is a cookie of mailbox servers", quoted(&name));
            let complaint = Complaint::new(what, "choose another name");
            top.desk.error(&cookie.place("name"), complaint);
        }
        RouteCookie {
            name,
            keys: secrets::cookie_keys(&cookie),
        }
    });
    SessionSettings {
        capacity: section.amount("capacity"),
        grace: section.duration("grace"),
        default_expiration: section.duration("default_expiration"),
        route_cookie,
    }
}

fn limits(top: &Section<'_>) -> Limits {
    let section = top.section("limits");
    let (body, chunked_body) = (section.number("body"), section.amount("chunked_body"));
    if chunked_body as u64 > body {
        let at = if section.has("chunked_body") {
            "chunked_body"
        } else {
            "body"
        };
        let what = "`chunked_body` is larger than `body`";
        let complaint = Complaint::new(what, "lower `chunked_body` or raise `body`");
        top.desk.error(&section.place(at), complaint);
    }
    Limits {
        head: section.amount("head"),
        body,
        chunked_body,
        head_timeout: section.duration("head_timeout"),
        body_timeout: section.duration("body_timeout"),
        idle_timeout: section.duration("idle_timeout"),
        connect_timeout: section.duration("connect_timeout"),
        first_byte_timeout: section.duration("first_byte_timeout"),
        pending_missed: section.small("pending_missed"),
        default_pending_period: section.duration("pending_period"),
        notification_wait: section.duration("notification_wait"),
        connections: section.amount("connections"),
        virtual_connections: section.amount("virtual_connections"),
        requests_per_user: section.amount("requests_per_user"),
        move_jitter: section.duration("move_jitter"),
        drain: section.duration("drain"),
    }
}

fn health(top: &Section<'_>, servers: &site::Servers) -> HealthSettings {
    let section = top.section("health");
    let (interval, timeout) = (section.duration("interval"), section.duration("timeout"));
    if timeout > interval {
        let at = if section.has("timeout") {
            "timeout"
        } else {
            "interval"
        };
        let what = "a check may take longer than the time between two checks";
        let complaint = Complaint::new(what, "make `timeout` at most `interval`");
        top.desk.error(&section.place(at), complaint);
    }
    let page = |leaf: &str| section.text(leaf).filter(|page| page != "off");
    let (page, rpc_page) = (page("page"), page("rpc_page"));
    let lacks = |server: &&std::sync::Arc<super::settings::Server>| {
        server.flavour == crate::mapi::Flavour::Gromox
    };
    for (leaf, page, cure) in [
        (
            "page",
            &page,
            "write `page: off`; a connection is then the check",
        ),
        (
            "rpc_page",
            &rpc_page,
            "write `rpc_page: off`; a server that is up is then taken to serve it",
        ),
    ] {
        if let (Some(page), Some(server)) = (page, servers.values().find(lacks))
            && page.ends_with("healthcheck.htm")
        {
            let what = format!("gromox ({}) has no page {}", server.name, quoted(page));
            let complaint = Complaint::new(what, cure);
            top.desk.warning(&section.place(leaf), complaint);
        }
    }
    HealthSettings {
        interval,
        timeout,
        fall: section.small("fall"),
        rise: section.small("rise"),
        panic_threshold: section.small("panic_threshold"),
        page,
        rpc_page,
        probe: section.written_section("probe").and_then(|probe| {
            Some(HealthProbe {
                user: probe.text("user")?,
                password: secrets::secret(&probe, "password")?,
            })
        }),
    }
}

fn address_or_off(
    _: &super::keys::Kind,
    text: &str,
) -> Result<Option<std::net::SocketAddr>, Complaint> {
    if text == "off" {
        return Ok(None);
    }
    super::values::address(text).map(Some)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

fn amount(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// gromox closes an unused connection after this, and says so with a 408 nobody asked for.
const GROMOX_KEEP_ALIVE: Duration = Duration::from_secs(180);
