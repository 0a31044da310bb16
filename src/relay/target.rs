//! Where a request wants to go: one reading of its target, which is also what is sent on.

use super::fields;
use super::vdir::{Guard, stands};
use crate::autodiscover::Dialect;
use crate::autodiscover::json::JsonRequest;
use crate::mapi::Endpoint;
use crate::refusal::Refusal;
use crate::rpch::{Destination, Folder, Service};
use crate::vdir::{self, Vdir, VdirPath};

/// Bytes of a target; MAPI URLs are about 100, servers refuse beyond 4000.
const TARGET_MAX: usize = 2048;
/// Bytes of a target below another virtual directory.
const VDIR_TARGET_MAX: usize = 8000;
/// Bytes of a `MailboxId` value.
const MAILBOX_ID_MAX: usize = 320;

/// A place this door opens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A MAPI endpoint.
    Mapi(Endpoint),
    /// Autodiscover.
    Autodiscover(Dialect),
    /// Outlook Anywhere.
    Rpc(Folder),
    /// Another virtual directory.
    Vdir(Vdir),
    /// The health page of a protocol, answered by us.
    Health(Page),
}

/// What has a health page of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// MAPI over HTTP.
    Mapi,
    /// Autodiscover.
    Autodiscover,
    /// Outlook Anywhere.
    Rpc,
    /// Another virtual directory.
    Vdir(Vdir),
}

/// A target, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Where to.
    pub place: Place,
    /// The query without its `?`, as written; servers match it byte for byte.
    pub query: Option<&'a str>,
    /// What names the mailbox, as written: the value of `MailboxId`, the address in a path of V2 JSON, what stands
    /// before the port in a channel's destination, or the address of an explicit logon.
    pub mailbox: Option<&'a str>,
    /// The path as it is sent on.
    pub path: &'a str,
}

/// The only paths there are, each in every spelling we accept. Exact but for case: nothing is decoded,
/// no dot segment is resolved, so nothing can be read twice in two ways.
const PLACES: [(&str, Place); 6] = [
    ("/mapi/emsmdb/", Place::Mapi(Endpoint::Emsmdb)),
    ("/mapi/emsmdb", Place::Mapi(Endpoint::Emsmdb)),
    ("/mapi/nspi/", Place::Mapi(Endpoint::Nspi)),
    ("/mapi/nspi", Place::Mapi(Endpoint::Nspi)),
    ("/mapi/healthcheck.htm", Place::Health(Page::Mapi)),
    ("/rpc/healthcheck.htm", Place::Health(Page::Rpc)),
];

impl<'a> Target<'a> {
    /// Reads an origin-form target. RFC 9112 section 3.2.1
    ///
    /// # Errors
    /// A path that is not one of ours, a target that is too long, a query with bytes that do not belong
    /// there, a `MailboxId` that is there twice or cannot be one.
    pub fn read(target: &'a str) -> Result<Self, Refusal> {
        Self::read_with(target, false)
    }

    /// The same where other virtual directories may be served as well.
    ///
    /// # Errors
    /// As [`Self::read`]; besides, a path below one of them that could be read in two ways.
    pub fn read_with(target: &'a str, has_vdirs: bool) -> Result<Self, Refusal> {
        if has_vdirs && let Some(found) = below_vdir(target)? {
            return Ok(found);
        }
        if target.len() > TARGET_MAX {
            return Err(Refusal::TargetTooLong);
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let place = PLACES
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(path))
            .map(|(_, place)| *place);
        let Some(place) = place else {
            let mut folders = Folder::ALL.into_iter();
            return match folders.find(|folder| folder.path().eq_ignore_ascii_case(path)) {
                Some(folder) => channel(folder, query),
                None => discovery(path, query),
            };
        };
        let mailbox = query.map(mailbox_in).transpose()?.flatten();
        Ok(Self {
            place,
            query,
            mailbox,
            path: match place {
                Place::Mapi(endpoint) => endpoint.path(),
                Place::Health(Page::Rpc) => "/rpc/healthcheck.htm",
                _ => "/mapi/healthcheck.htm",
            },
        })
    }

    /// Appends the canonical form, as a server gets it.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.path.as_bytes());
        if let Some(query) = self.query {
            out.push(b'?');
            out.extend_from_slice(query.as_bytes());
        }
    }
}

/// Reads a target of Outlook Anywhere: `mailbox@domain:port`, and no other server, port or spelling. Without a query, as
/// clients ask for challenges, there is no destination.
#[cold]
fn channel(folder: Folder, query: Option<&str>) -> Result<Target<'_>, Refusal> {
    let query = query.filter(|query| !query.is_empty());
    let mailbox = match query {
        None => None,
        Some(query) => {
            let to = Destination::read(query)
                .filter(|to| Service::of_port(to.port).is_some())
                .ok_or(Refusal::Malformed("destination of a channel"))?;
            // Never with an escape: nobody behind us may find another mailbox in it.
            if to.server.contains('%') || !is_mailbox_id(to.server.as_bytes()) {
                return Err(Refusal::BadMailboxId);
            }
            Some(to.server)
        }
    };
    Ok(Target {
        place: Place::Rpc(folder),
        query,
        mailbox,
        path: folder.path(),
    })
}

/// Reads a target of Autodiscover. Its path is exact but for case, and XML has no query: an address that
/// stands where it does not belong has led front ends to other paths.
#[cold]
fn discovery<'a>(path: &'a str, query: Option<&'a str>) -> Result<Target<'a>, Refusal> {
    if path.eq_ignore_ascii_case(AUTODISCOVER_HEALTH) {
        return Ok(Target {
            place: Place::Health(Page::Autodiscover),
            query,
            mailbox: None,
            path: AUTODISCOVER_HEALTH,
        });
    }
    let mut known = Dialect::ALL.into_iter();
    let (dialect, address) = match known.find(|it| it.path().eq_ignore_ascii_case(path)) {
        Some(dialect) => (dialect, None),
        None => {
            let (_, address) = path
                .split_at_checked(JSON_V1.len())
                .filter(|(head, _)| head.eq_ignore_ascii_case(JSON_V1))
                .ok_or(Refusal::UnknownPath)?;
            (Dialect::Json, Some(address))
        }
    };
    match dialect {
        Dialect::Json => {
            JsonRequest::read(address, query).map_err(Refusal::Malformed)?;
        }
        Dialect::Pox | Dialect::Soap if query.is_some_and(|query| !query.is_empty()) => {
            return Err(Refusal::Malformed("query on Autodiscover"));
        }
        Dialect::Pox | Dialect::Soap => {}
    }
    Ok(Target {
        place: Place::Autodiscover(dialect),
        query,
        mailbox: address,
        path: dialect.path(),
    })
}

/// Where a load balancer asks for Autodiscover's health.
const AUTODISCOVER_HEALTH: &str = "/autodiscover/healthcheck.htm";

/// A path that nobody has looked at, as a test without the guard wants it.
fn unread(path: &str) -> Result<Option<VdirPath<'_>>, &'static str> {
    let first = path.split('/').nth(1).unwrap_or_default();
    let vdir = Vdir::of_path(&format!("/{first}"));
    Ok(vdir.map(|vdir| VdirPath {
        vdir,
        whole: path,
        logon: None,
        is_health: false,
    }))
}

/// Reads a target below another virtual directory. `None`: it is below none.
fn below_vdir(target: &str) -> Result<Option<Target<'_>>, Refusal> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let read = match vdir::read(path) {
        Err(_) if !stands(Guard::Paths) => unread(path),
        read => read,
    };
    let Some(found) = read.map_err(Refusal::Malformed)? else {
        return Ok(None);
    };
    if target.len() > VDIR_TARGET_MAX {
        return Err(Refusal::TargetTooLong);
    }
    let is_clean = |query| vdir::clean_query(found.vdir, query, fields::is_claim_in_query);
    if query.is_some_and(|query| !is_clean(query)) && stands(Guard::Paths) {
        return Err(Refusal::Malformed("query that only a front end may write"));
    }
    Ok(Some(Target {
        place: match found.is_health {
            true => Place::Health(Page::Vdir(found.vdir)),
            false => Place::Vdir(found.vdir),
        },
        query,
        mailbox: found.logon,
        path: found.whole,
    }))
}

/// Where V2 JSON has the address in its path.
const JSON_V1: &str = "/autodiscover/autodiscover.json/v1.0/";

/// Checks a query and finds the mailbox in it.
fn mailbox_in(query: &str) -> Result<Option<&str>, Refusal> {
    if !is_clean(query.as_bytes()) {
        return Err(Refusal::Malformed(
            "query has bytes that do not belong in one",
        ));
    }
    let mut found = None;
    for pair in query.split('&') {
        let Some((name, value)) = pair.split_once('=') else {
            continue;
        };
        if !name.eq_ignore_ascii_case("MailboxId") {
            // A name hidden behind escapes could be a second MailboxId to somebody who decodes it.
            if name.contains('%') {
                return Err(Refusal::Malformed("query name with escapes"));
            }
            continue;
        }
        if found.replace(value).is_some() {
            return Err(Refusal::Malformed("MailboxId twice"));
        }
    }
    match found {
        Some(value) if !is_mailbox_id(value.as_bytes()) => Err(Refusal::BadMailboxId),
        found => Ok(found),
    }
}

/// The bytes of a query that stand for themselves.
const fn is_plain(byte: u8) -> bool {
    matches!(byte,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9'
        | b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+'
        | b',' | b';' | b'=' | b':' | b'@' | b'/' | b'?' | b'{' | b'}')
}

/// Visible ASCII that RFC 3986 allows in a query, escapes complete, no escaped control byte.
fn is_clean(query: &[u8]) -> bool {
    let Some(first) = query.iter().position(|byte| !is_plain(*byte)) else {
        return true;
    };
    let mut rest = query.get(first..).unwrap_or_default();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            byte if is_plain(*byte) => {}
            b'%' => {
                let Some(([high, low], after)) = rest.split_first_chunk() else {
                    return false;
                };
                if !(b'2'..=b'9').contains(high) && !high.is_ascii_alphabetic()
                    || !high.is_ascii_hexdigit()
                    || !low.is_ascii_hexdigit()
                    || (*high == b'7' && low.eq_ignore_ascii_case(&b'f'))
                {
                    return false;
                }
                rest = after;
            }
            _ => return false,
        }
    }
    true
}

/// `<id>@<domain>` of plain letters; the `@` may be escaped.
fn is_mailbox_id(value: &[u8]) -> bool {
    let parts = match memchr::memmem::find(value, b"%40") {
        Some(at) => (value.get(..at), value.get(at + 3..)),
        None => match memchr::memchr(b'@', value) {
            Some(at) => (value.get(..at), value.get(at + 1..)),
            None => return false,
        },
    };
    let plain = |part: &[u8]| {
        !part.is_empty()
            && part.iter().all(|byte| {
                byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'{' | b'}')
            })
    };
    value.len() <= MAILBOX_ID_MAX
        && matches!(parts, (Some(id), Some(domain)) if plain(id) && plain(domain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "416c6368-656d-794a-6f45-57615272456e@contoso.test";

    #[test]
    fn every_spelling_of_an_endpoint_is_sent_in_one() {
        for path in [
            "/mapi/emsmdb/",
            "/mapi/emsmdb",
            "/MAPI/EMSMDB/",
            "/Mapi/Emsmdb",
        ] {
            let target = format!("{path}?MailboxId={ID}");
            let read = Target::read(&target).unwrap();
            assert_eq!(read.mailbox, Some(ID));
            let mut sent = Vec::new();
            read.write(&mut sent);
            assert_eq!(sent, format!("/mapi/emsmdb/?MailboxId={ID}").as_bytes());
        }
    }

    #[test]
    fn no_other_path_is_opened_however_it_is_written() {
        for path in [
            "/mapi/../ecp/",
            "/mapi%2femsmdb/",
            "//mapi/emsmdb/",
            "http://a/mapi/emsmdb/",
            "/mapi/emsmdb/x",
            "/mapi/emsmdb/;x",
            "/mapi/emsmdb\\",
            "/mapi/./emsmdb/",
            "/mapi/%65msmdb/",
            "/ecp/",
            "*",
            "",
            "/",
            "/autodiscover/autodiscover.json@x/mapi/emsmdb/",
            "/mapi/emsmdb/%00",
            "/mapi/emsmdb//",
            "mapi/emsmdb/",
        ] {
            assert_eq!(Target::read(path), Err(Refusal::UnknownPath), "{path}");
        }
    }

    #[test]
    fn a_query_that_could_be_read_twice_is_refused() {
        for query in [
            "MailboxId=a@b&mailboxid=c@d",
            "Mailbox%49d=a@b",
            "x=\"",
            "x=<y>",
            "x=%0",
            "x=%zz",
            "x=%0a",
            "x=%7F",
            "x=%00",
            "x=é",
            "a#b",
            "a b",
        ] {
            let target = format!("/mapi/emsmdb/?{query}");
            assert!(
                matches!(Target::read(&target), Err(Refusal::Malformed(_))),
                "{query}"
            );
        }
    }

    #[test]
    fn a_mailbox_id_has_an_id_and_a_domain() {
        for good in [ID, "a%40b.c", "{1-2}@d"] {
            let target = format!("/mapi/nspi/?MailboxId={good}");
            assert_eq!(Target::read(&target).unwrap().mailbox, Some(good));
        }
        for bad in [
            "",
            "@",
            "a",
            "a@",
            "@b",
            "a@b@c",
            "a:444@b",
            "a/b@c",
            "a%20@b",
            &format!("{}@b", "a".repeat(400)),
        ] {
            let target = format!("/mapi/nspi/?MailboxId={bad}");
            assert_eq!(Target::read(&target), Err(Refusal::BadMailboxId), "{bad}");
        }
    }

    #[test]
    fn autodiscover_is_reached_in_any_case_and_by_no_trick() {
        for (target, dialect) in [
            ("/autodiscover/autodiscover.xml", Dialect::Pox),
            ("/Autodiscover/AutoDiscover.XML", Dialect::Pox),
            ("/autodiscover/autodiscover.svc?", Dialect::Soap),
            (
                "/AutoDiscover/autodiscover.json?Email=a@b&Protocol=Ews",
                Dialect::Json,
            ),
            (
                "/autodiscover/autodiscover.json/v1.0/a@b.c?Protocol=Ews",
                Dialect::Json,
            ),
        ] {
            let read = Target::read(target).unwrap();
            assert_eq!(read.place, Place::Autodiscover(dialect), "{target}");
        }
        for target in [
            "/autodiscover/autodiscover.json@evil.test/mapi/nspi/",
            "/autodiscover/autodiscover.json/@evil.test/mapi/nspi/?x",
            "/autodiscover/autodiscover.json/v1.0",
            "/autodiscover/autodiscover.json%3f@evil.test",
            "/autodiscover/autodiscover.xml/",
            "/autodiscover/../autodiscover/autodiscover.xml",
            "/autodiscover//autodiscover.xml",
            "/autodiscover/autodiscover.svc/wssecurity",
            "/autodiscover/autodiscover.asmx",
            "/autodiscover/",
            "/autodiscover/healthcheck.htm/",
        ] {
            assert_eq!(Target::read(target), Err(Refusal::UnknownPath), "{target}");
            assert_eq!(
                Target::read_with(target, true),
                Err(Refusal::UnknownPath),
                "{target}"
            );
        }
        for target in [
            "/autodiscover/autodiscover.json?@evil.test/mapi/nspi/?&Email=autodiscover/autodiscover.json%3F@evil.test",
            "/autodiscover/autodiscover.json?a=b/mapi/nspi&Email=a@b",
            "/autodiscover/autodiscover.json/v1.0/a@b/mapi/nspi",
            "/autodiscover/autodiscover.json/v1.0/../../ecp/a@b",
            "/autodiscover/autodiscover.xml?@evil.test/owa",
            "/autodiscover/autodiscover.xml?a=autodiscover/autodiscover.json",
            "/autodiscover/autodiscover.svc?Email=a@b",
        ] {
            assert!(
                matches!(Target::read(target), Err(Refusal::Malformed(_))),
                "{target}"
            );
        }
    }

    #[test]
    fn a_channel_goes_to_a_mailbox_and_one_of_three_ports() {
        for (path, sent) in [
            ("/rpc/rpcproxy.dll", "/rpc/rpcproxy.dll"),
            ("/RPC/RpcProxy.DLL", "/rpc/rpcproxy.dll"),
            ("/RpcWithCert/RpcProxy.dll", "/rpcwithcert/rpcproxy.dll"),
        ] {
            for port in [6001, 6002, 6004] {
                let target = format!("{path}?{ID}:{port}");
                let read = Target::read(&target).unwrap();
                assert_eq!(read.mailbox, Some(ID));
                let mut out = Vec::new();
                read.write(&mut out);
                assert_eq!(out, format!("{sent}?{ID}:{port}").as_bytes());
            }
        }
        assert_eq!(Target::read("/rpc/rpcproxy.dll?").unwrap().mailbox, None);
        for query in [
            format!("{ID}:593"),
            format!("{ID}:6003"),
            format!("{ID}:80"),
            format!("{ID}:06001"),
            format!("{ID}:+6001"),
            format!("{ID}:6001:6001"),
            format!("{ID}:6001&x=y"),
            ID.to_owned(),
            "localhost:3388".to_owned(),
            "mbx1.contoso.test:6001".to_owned(),
            "127.0.0.1:6001".to_owned(),
            "a%40b:6001".to_owned(),
            "a@b%2fc:6001".to_owned(),
            "a@b/../c:6001".to_owned(),
            "a@b@c:6001".to_owned(),
            "@b:6001".to_owned(),
            "MailboxId=a@b:6001".to_owned(),
        ] {
            let target = format!("/rpc/rpcproxy.dll?{query}");
            assert!(
                matches!(
                    Target::read(&target),
                    Err(Refusal::BadMailboxId | Refusal::Malformed(_))
                ),
                "{query}"
            );
        }
        for path in [
            "/rpc",
            "/rpc/",
            "/rpc/rpcproxy.dll/",
            "/rpc/rpcproxy.dll/x",
            "/rpc//rpcproxy.dll",
            "/rpc/../rpc/rpcproxy.dll",
            "/rpc/rpcproxy%2edll",
            "/rpcwithcert/",
            "/rpc/en-us/rpcproxy.dll",
        ] {
            assert_eq!(Target::read(path), Err(Refusal::UnknownPath), "{path}");
        }
    }

    #[test]
    fn other_directories_are_there_only_where_they_are_served() {
        for (target, place, logon) in [
            ("/EWS/Exchange.asmx?x=y", Place::Vdir(Vdir::Ews), None),
            ("/owa/a@b.c/?ae=Item", Place::Vdir(Vdir::Owa), Some("a@b.c")),
            (
                "/Microsoft-Server-ActiveSync?Cmd=Ping&User=a%40b",
                Place::Vdir(Vdir::ActiveSync),
                None,
            ),
            (
                "/oab/HealthCheck.htm",
                Place::Health(Page::Vdir(Vdir::Oab)),
                None,
            ),
        ] {
            assert_eq!(Target::read(target), Err(Refusal::UnknownPath));
            let read = Target::read_with(target, true).unwrap();
            assert_eq!((read.place, read.mailbox), (place, logon));
            let mut sent = Vec::new();
            read.write(&mut sent);
            assert_eq!(sent, target.as_bytes(), "what is judged is what is sent");
        }
        for target in [
            "/ews/../powershell/",
            "/powershell?X-Rps-CAT=VgEA",
            "/owa/?@evil.test/powershell",
            "/ecp/%2e%2e/owa",
            "/owa/x?X-BEResource=a",
        ] {
            assert!(
                matches!(Target::read_with(target, true), Err(Refusal::Malformed(_))),
                "{target}"
            );
        }
        let long = format!("/owa/?{}", "x=".repeat(4000));
        assert_eq!(Target::read_with(&long, true), Err(Refusal::TargetTooLong));
        assert_eq!(Target::read_with("/rpc/", true), Err(Refusal::UnknownPath));
    }

    proptest! {
        #[test]
        fn what_is_sent_reads_back_as_the_same_place(target in "/[mM][aA][pP][iI]/(emsmdb|NSPI|nspi|healthcheck.htm)/?(\\?[ -~]{0,40})?") {
            if let Ok(read) = Target::read(&target) {
                let mut sent = Vec::new();
                read.write(&mut sent);
                let sent = String::from_utf8(sent).unwrap();
                prop_assert_eq!(Target::read(&sent), Ok(read));
            }
        }

        #[test]
        fn any_text_is_read_without_a_panic(target in "\\PC{0,200}") {
            let _read = Target::read(&target);
        }
    }
}
