//! What clients meet: listeners, certificates, names.

use super::discovery;
use crate::config::certificates::{self, covers};
use crate::config::desk::Place;
use crate::config::problem::{Complaint, quoted};
use crate::config::section::Section;
use crate::config::settings::{
    Admin, AutodiscoverMode, ClientCertificates, Listener, PublicName, Scheme, Tls,
};
use crate::config::values;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// All listeners. One with a bad address is left out, one with bad certificates kept without them.
pub(super) fn listeners(top: &Section<'_>) -> Vec<Listener> {
    let sections = top.items("listeners");
    if top.is_empty_list("listeners") {
        let cure = "add one: `- address: 0.0.0.0:443` with its certificates";
        let complaint = Complaint::new("there is no listener: nobody can connect", cure);
        top.desk.error(&top.place("listeners"), complaint);
    }
    sections.iter().filter_map(listener).collect()
}

fn listener(section: &Section<'_>) -> Option<Listener> {
    let desk = section.desk;
    let address = section.read("address", |_, text| values::address(text));
    let plain_http = section.switch("plain_http");
    let written = section.items("certificates");
    if plain_http && !written.is_empty() {
        let what = "certificates on a listener that says `plain_http: true`";
        let cure = "remove the certificates, or remove `plain_http` and speak TLS";
        desk.error(&section.place("plain_http"), Complaint::new(what, cure));
    }
    let says_how = section.has("certificates") && !section.is_empty_list("certificates");
    if !plain_http && !says_how && section.is_sound("plain_http") {
        let what = "a listener without certificates";
        let cure = "add `certificates: [{ chain: mail.pem, key: mail.key }]`; behind a TLS terminator on this host say `plain_http: true`";
        desk.error(&section.place("certificates"), Complaint::new(what, cure));
    }
    if let Some(address) = address
        && plain_http
        && !address.ip().is_loopback()
    {
        let what = format!("passwords arrive at {address} in clear");
        let cure = "listen on 127.0.0.1 behind a TLS terminator on this host, or speak TLS here";
        desk.warning(&section.place("plain_http"), Complaint::new(what, cure));
    }
    let networks = section.list("proxy_protocol_from");
    let certificates: Vec<_> = written.iter().filter_map(certificates::read).collect();
    Some(Listener {
        address: address?,
        certificates,
        plain_http,
        client_certificates: clients(section, plain_http),
        proxy_protocol_from: networks
            .iter()
            .filter_map(|(text, _)| values::network(text).ok())
            .collect(),
    })
}

/// Whose certificates clients may show.
fn clients(section: &Section<'_>, plain_http: bool) -> Option<ClientCertificates> {
    let clients = section.written_section("client_certificates")?;
    let mode = clients.text("mode")?;
    if mode == "off" {
        return None;
    }
    if plain_http {
        let what = "client certificates on a listener that says `plain_http: true`";
        let cure =
            "remove them; certificates are shown in a TLS handshake, which happens elsewhere";
        let place = section.place("client_certificates");
        section.desk.error(&place, Complaint::new(what, cure));
    }
    let authorities = certificates::authorities(&clients, "ca");
    Some(ClientCertificates {
        revocation_lists: certificates::revocation_lists(&clients, "crl", authorities.as_deref()),
        authorities: authorities?,
        is_required: mode == "require",
    })
}

/// Reports addresses that two of us would want, and an administrator's door that stands open.
pub(super) fn judge_addresses(top: &Section<'_>, admin: &Admin) {
    let mut taken: Vec<(SocketAddr, Place<'_>)> = Vec::new();
    let sections = top.items("listeners");
    let places = sections.iter().filter_map(|section| {
        let address = section.read("address", |_, text| values::address(text))?;
        Some((address, section.place("address")))
    });
    let section = top.section("admin");
    // A door that is open by default is a problem of who wants its place.
    let door = admin
        .address
        .map(|address| (address, section.place("address")));
    let (written, unwritten) = if section.has("address") {
        (door, None)
    } else {
        (None, door)
    };
    for (address, place) in unwritten.into_iter().chain(places).chain(written) {
        if let Some((earlier, at)) = taken.iter().find(|(other, _)| overlap(*other, address)) {
            let what = format!("{address} and {earlier} ({}) cannot both be open", at.path);
            let cure = if earlier.ip() == address.ip() {
                "choose another port or address"
            } else {
                "keep the wider address, or choose another port; [::] serves IPv4 too"
            };
            top.desk.error(&place, Complaint::new(what, cure));
        }
        taken.push((address, place));
    }
    if let Some(address) = admin.address
        && !address.ip().is_loopback()
    {
        let what = format!(
            "the administrator's door {address} asks for no password and is not on the loopback"
        );
        let cure = "write `127.0.0.1:9080`, or let a firewall admit your monitoring only";
        top.desk
            .warning(&section.place("address"), Complaint::new(what, cure));
    }
}

/// Port 0 is a new port each time. `[::]` opens IPv4 as well, as Linux does by default.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let wide = |one: IpAddr, other: IpAddr| match one {
        IpAddr::V4(ip) => ip == Ipv4Addr::UNSPECIFIED && other.is_ipv4(),
        IpAddr::V6(ip) => ip.is_unspecified(),
    };
    a.port() != 0
        && a.port() == b.port()
        && (a.ip() == b.ip() || wide(a.ip(), b.ip()) || wide(b.ip(), a.ip()))
}

pub(super) fn tls(top: &Section<'_>) -> Tls {
    let section = top.section("tls");
    let versions = section.list("versions");
    let speaks = |wanted: &str| versions.iter().any(|(version, _)| version == wanted);
    if !speaks("1.3") && top.has("tls") && section.has("versions") {
        let what = "TLS 1.3 is not among the versions";
        let cure =
            "write `versions: [\"1.2\", \"1.3\"]`; every client that knows 1.2 only still gets it";
        top.desk
            .error(&section.place("versions"), Complaint::new(what, cure));
    }
    let handshakes_max = section.amount("handshakes_max");
    let of_one = section.number_or_auto("handshakes_per_address");
    Tls {
        allow_tls12: speaks("1.2"),
        handshake_timeout: section.duration("handshake_timeout"),
        handshakes_max,
        handshakes_per_address: match of_one {
            Some(of_one) => usize::try_from(of_one).unwrap_or(usize::MAX),
            None => (handshakes_max / 8).max(1),
        },
        ticket_rotation: section.duration("ticket_rotation"),
    }
}

/// All public names; their hosts and URLs must be on a certificate.
pub(super) fn names(top: &Section<'_>, listeners: &[Listener]) -> Vec<PublicName> {
    let sections = top.items("names");
    if top.is_empty_list("names") {
        let cure = "add one: `- host: mail.contoso.com`";
        let complaint = Complaint::new("there is no name: no request would be answered", cure);
        top.desk.error(&top.place("names"), complaint);
    }
    let autodiscover = discovery::mode(&top.section("autodiscover"), "mode");
    let mut hosts = HashSet::new();
    let mut names = Vec::new();
    for section in &sections {
        let Some(name) = name(section, autodiscover) else {
            continue;
        };
        if !hosts.insert(name.host.clone()) {
            let what = format!("the name {} is here a second time", quoted(&name.host));
            let complaint = Complaint::new(what, "keep one of the two");
            top.desk.error(&section.place("host"), complaint);
        }
        judge_coverage(section, &name, listeners);
        names.push(name);
    }
    names
}

fn name(section: &Section<'_>, site: Option<AutodiscoverMode>) -> Option<PublicName> {
    let url = |_: &_, text: &str| values::mapi_url(text).map(|(url, _)| url);
    let host = section.read("host", |_, text| values::host_name(text))?;
    let authentication = schemes(section);
    let [mut emsmdb, mut nspi, mut channels] = [None, None, None];
    for path in section.items("paths") {
        let own = schemes(&path);
        let written = path.text("path").unwrap_or_default();
        let place = match written.as_str() {
            "/mapi/emsmdb" => &mut emsmdb,
            "/mapi/nspi" => &mut nspi,
            "/rpc" => &mut channels,
            _ => continue,
        };
        if place.replace(own).is_some() {
            let what = format!("the path {} is here a second time", quoted(&written));
            let complaint = Complaint::new(what, "keep one of the two");
            path.desk.error(&path.place("path"), complaint);
        }
    }
    Some(PublicName {
        internal_url: section
            .read("internal_url", url)
            .unwrap_or_else(|| format!("https://{host}/mapi")),
        external_url: section.read("external_url", url),
        autodiscover: discovery::mode(section, "autodiscover")
            .or(site)
            .unwrap_or(AutodiscoverMode::Off),
        http2: section.switch("http2"),
        host,
        authentication,
        endpoints: [emsmdb, nspi],
        channels,
    })
}

/// What a name, or a path of it, accepts.
fn schemes(section: &Section<'_>) -> Vec<Scheme> {
    if section.is_empty_list("authentication") {
        let what = "no authentication: nobody could sign on";
        let complaint = Complaint::new(
            what,
            "write `authentication: [basic]`, or `[bearer]` for tokens",
        );
        section
            .desk
            .error(&section.place("authentication"), complaint);
    }
    let mut authentication = Vec::new();
    for (text, place) in section.list("authentication") {
        let mut known = Scheme::ALL.into_iter();
        let Some(scheme) = known.find(|scheme| scheme.as_str() == text) else {
            continue;
        };
        if authentication.contains(&scheme) {
            let what = format!("{} is here a second time", quoted(&text));
            section
                .desk
                .error(&place, Complaint::new(what, "keep one of the two"));
        } else {
            authentication.push(scheme);
        }
    }
    authentication
}

/// True where a name, or a path of it, accepts this scheme.
pub(super) fn offers(name: &Section<'_>, wanted: Scheme) -> bool {
    let lists = |section: &Section<'_>| {
        let schemes = section.list("authentication");
        schemes.iter().any(|(scheme, _)| scheme == wanted.as_str())
    };
    lists(name) || name.items("paths").iter().any(lists)
}

fn judge_coverage(section: &Section<'_>, name: &PublicName, listeners: &[Listener]) {
    let speaking_tls = listeners.iter().filter(|listener| !listener.plain_http);
    let certificates: Vec<_> = speaking_tls
        .flat_map(|listener| &listener.certificates)
        .collect();
    // Without a certificate of ours, somebody in front of us shows one; or it has been reported.
    if certificates.is_empty() {
        return;
    }
    let host_of = |url: &str| values::mapi_url(url).map(|(_, host)| host).ok();
    let external = name.external_url.as_deref().and_then(host_of);
    let wanted = [
        ("host", Some(name.host.clone())),
        ("internal_url", host_of(&name.internal_url)),
        ("external_url", external),
    ];
    let mut missed = HashSet::new();
    for (leaf, host) in wanted {
        let Some(host) = host else {
            continue;
        };
        let covered = |names: &[String]| covers(names, &host);
        if certificates
            .iter()
            .any(|certificate| covered(&certificate.names))
            || !missed.insert(host.clone())
        {
            continue;
        }
        let have: Vec<_> = certificates
            .iter()
            .flat_map(|certificate| &certificate.names)
            .take(8)
            .map(|name| quoted(name))
            .collect();
        let have = if have.is_empty() {
            "they have no names (subjectAltName) at all".to_owned()
        } else {
            format!("they have {}", have.join(", "))
        };
        let what = format!("no certificate carries the name {}; {have}", quoted(&host));
        let cure = "add a certificate for this name, or use a name the certificate has";
        section
            .desk
            .error(&section.place(leaf), Complaint::new(what, cure));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_address_overlaps_the_narrow_ones() {
        let overlaps = |a: &str, b: &str| overlap(a.parse().unwrap(), b.parse().unwrap());
        assert!(overlaps("0.0.0.0:443", "127.0.0.1:443"));
        assert!(overlaps("[::]:443", "10.0.0.1:443"));
        assert!(overlaps("127.0.0.1:443", "127.0.0.1:443"));
        assert!(!overlaps("127.0.0.1:443", "127.0.0.2:443"));
        assert!(!overlaps("0.0.0.0:443", "[::1]:443"));
        assert!(!overlaps("127.0.0.1:0", "127.0.0.1:0"));
        assert!(!overlaps("0.0.0.0:443", "0.0.0.0:444"));
    }
}
