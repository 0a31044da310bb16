//! One request as one line of the files Exchange's front end writes: comma-separated, with its field names.
//!
//! The fields of `Logging\HttpProxy\*\*.LOG` of Exchange 2013 and later stand first, all of them and in
//! its order, empty where they have no meaning here: queries by name or by position go on working.
//! Ours follow. A field of its own for what others wrote, and what they wrote never ends a field or a
//! line.

use super::values::{TEXT_MAX, WHY_MAX, address, harmless, host_address, thousandths, timestamp};
use super::{Entry, Protocol};
use crate::accounting::{Kind, Phase};
use crate::autodiscover::Dialect;
use crate::config::settings::Scheme;
use crate::mapi::Endpoint;
use crate::metrics::Outcome;
use crate::rpch::{Folder, Verb, verbs};
use std::fmt::{self, Write};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

/// A field: its name, and how a request's value of it is appended.
struct Field {
    name: &'static str,
    write: fn(&Entry<'_>, &mut Vec<u8>),
}

/// Appends the line, its line end included.
pub(super) fn render(entry: &Entry<'_>, line: &mut Vec<u8>) {
    for (position, field) in FIELDS.iter().enumerate() {
        if position > 0 {
            line.push(b',');
        }
        (field.write)(entry, line);
    }
    line.extend_from_slice(b"\r\n");
}

/// What a file begins with. The names stand once by themselves, for readers of CSV, and once behind `#Fields`.
/// `date` is the time of its first line.
pub(super) fn heads(date: &str) -> String {
    let names: Vec<_> = FIELDS.iter().map(|field| field.name).collect();
    let names = names.join(",");
    format!(
        "{names}\r\n#Software: mapigate\r\n#Version: {}\r\n#Log-type: HttpProxy Logs\r\n#Date: {date}\r\n\
         #Fields: {names}\r\n",
        env!("CARGO_PKG_VERSION")
    )
}

const fn field(name: &'static str, write: fn(&Entry<'_>, &mut Vec<u8>)) -> Field {
    Field { name, write }
}

/// A field of Exchange's that has no meaning here.
const fn empty(name: &'static str) -> Field {
    field(name, |_, _| {})
}

/// All fields, in the order of the line.
const FIELDS: &[Field] = &[
    field("DateTime", |e, line| timestamp(ended(e), line)),
    field("RequestId", |e, line| {
        line.extend_from_slice(&e.id.letters());
    }),
    field("MajorVersion", |_, line| {
        word(line, env!("CARGO_PKG_VERSION_MAJOR"));
    }),
    field("MinorVersion", |_, line| {
        word(line, env!("CARGO_PKG_VERSION_MINOR"));
    }),
    field("BuildVersion", |_, line| {
        word(line, env!("CARGO_PKG_VERSION_PATCH"));
    }),
    field("RevisionVersion", |_, line| word(line, "0")),
    field("ClientRequestId", client_request_id),
    field("Protocol", |e, line| word(line, Protocol::of(e).as_str())),
    field("UrlHost", |e, line| text(line, e.host)),
    field("UrlStem", |e, line| {
        if e.vdir.is_some() {
            return text(line, e.path);
        }
        let channel = e.channel.map_or("", |_| Folder::Rpc.path());
        let beside = e.dialect.map_or(channel, Dialect::path);
        word(line, e.endpoint.map_or(beside, Endpoint::path));
    }),
    empty("ProtocolAction"),
    field("AuthenticationType", |e, line| {
        word(line, e.scheme.map_or("", Scheme::word));
    }),
    field("IsAuthenticated", |e, line| {
        flag(line, !e.user.is_empty());
    }),
    field("AuthenticatedUser", |e, line| text(line, e.user.as_bytes())),
    empty("Organization"),
    field("AnchorMailbox", anchor_mailbox),
    field("UserAgent", |e, line| text(line, e.user_agent)),
    field("ClientIpAddress", |e, line| {
        host_address(e.client.ip(), line);
    }),
    field("ServerHostName", |_, line| text(line, HOST_NAME.as_bytes())),
    field("HttpStatus", |e, line| status(line, e.status)),
    field("BackEndStatus", |e, line| {
        if is_from_server(e) {
            status(line, e.status);
        }
    }),
    field("ErrorCode", refusal),
    field("Method", |e, line| {
        if let Some((_, verb)) = e.vdir {
            return word(line, verb.as_str());
        }
        // The only one that has a type, or brings a body.
        let has_body = matches!(e.dialect, Some(Dialect::Pox | Dialect::Soap));
        let is_post = e.request_type.is_some() || has_body;
        let other = e.channel.map_or("", Verb::as_str);
        word(line, if is_post { "POST" } else { other });
    }),
    field("ProxyAction", |e, line| {
        if_routed(e, line, "Proxy");
    }),
    field("TargetServer", |e, line| text(line, e.server.as_bytes())),
    empty("TargetServerVersion"),
    field("RoutingType", |e, line| if_routed(e, line, "IntraForest")),
    field("RoutingHint", |e, line| {
        if !e.mailbox.is_empty() {
            if_routed(e, line, "MailboxGuidWithDomain");
        }
    }),
    // Cookies are secrets.
    empty("BackEndCookie"),
    empty("ServerLocatorHost"),
    empty("ServerLocatorLatency"),
    field("RequestBytes", |e, line| {
        number(line, e.ledger.client_in.body());
    }),
    field("ResponseBytes", |e, line| {
        number(line, e.ledger.client_out.body());
    }),
    empty("TargetOutstandingRequests"),
    empty("AuthModulePerfContext"),
    empty("HttpPipelineLatency"),
    empty("CalculateTargetBackEndLatency"),
    empty("GlsLatencyBreakup"),
    empty("TotalGlsLatency"),
    empty("AccountForestLatencyBreakup"),
    empty("TotalAccountForestLatency"),
    empty("ResourceForestLatencyBreakup"),
    empty("TotalResourceForestLatency"),
    empty("ADLatency"),
    empty("SharedCacheLatencyBreakup"),
    empty("TotalSharedCacheLatency"),
    field("ActivityContextLifeTime", |e, line| {
        milliseconds(line, e.total);
    }),
    empty("ModuleToHandlerSwitchingLatency"),
    empty("ClientReqStreamLatency"),
    empty("BackendReqInitLatency"),
    empty("BackendReqStreamLatency"),
    field("BackendProcessingLatency", first_byte),
    empty("BackendRespInitLatency"),
    empty("BackendRespStreamLatency"),
    empty("ClientRespStreamLatency"),
    empty("KerberosAuthHeaderLatency"),
    empty("HandlerCompletionLatency"),
    empty("RequestHandlerLatency"),
    empty("HandlerToModuleSwitchingLatency"),
    field("ProxyTime", first_byte),
    empty("CoreLatency"),
    empty("RoutingLatency"),
    // Not the rest of the total: that is mostly a held poll's waiting.
    empty("HttpProxyOverhead"),
    field("TotalRequestTime", |e, line| milliseconds(line, e.total)),
    empty("RouteRefresherLatency"),
    field("UrlQuery", |e, line| {
        if e.vdir.is_none() && !e.mailbox.is_empty() {
            cell(line, |line| {
                let before: &[u8] = match e.channel {
                    Some(_) => b"?",
                    None => b"?MailboxId=",
                };
                line.extend_from_slice(before);
                plain(line, e.mailbox);
            });
        }
    }),
    empty("BackEndGenericInfo"),
    field("GenericInfo", |e, line| {
        line.extend_from_slice(b"BeginRequest=");
        timestamp(e.time, line);
        line.extend_from_slice(b";EndRequest=");
        timestamp(ended(e), line);
        line.push(b';');
    }),
    field("GenericErrors", why),
    empty("EdgeTraceId"),
    // Databases have names here.
    field("DatabaseGuid", |e, line| text(line, e.database.as_bytes())),
    empty("UserADObjectGuid"),
    empty("PartitionEndpointLookupLatency"),
    empty("RoutingStatus"),
    // From here on ours: as Exchange's MAPI client access logs name them,
    field("MapiRequestId", |e, line| text(line, e.request_id)),
    field("RequestType", |e, line| {
        let way = e.channel.map_or("", Verb::word);
        word(line, e.request_type.map_or(way, |kind| kind.as_str()));
    }),
    field("ResponseCode", |e, line| {
        if let Some(code) = e.code {
            number(line, code.0.into());
        }
    }),
    field("TotalRequestLatency", |e, line| milliseconds(line, e.total)),
    field("MailboxId", |e, line| text(line, e.mailbox)),
    field("MapiClientInfo", |e, line| text(line, e.client_info)),
    // and as the JSON lines name them.
    field("client", |e, line| address(e.client, line)),
    field("endpoint", |e, line| {
        let beside = e.channel.map_or("", |_| verbs::ENDPOINT);
        word(line, e.endpoint.map_or(beside, Endpoint::as_str));
    }),
    field("route", |e, line| text(line, e.route.as_bytes())),
    field("tries", |e, line| number(line, e.tries.into())),
    field("ending", |e, line| word(line, e.ending.as_str())),
    field("blame", |e, line| {
        word(line, e.refusal.map_or("", |why| why.blame().as_str()));
    }),
    field("auth_ms", |e, line| thousandths(line, e.auth.as_micros())),
    field("first_byte_ms", |e, line| {
        if let Some(first_byte) = e.first_byte {
            thousandths(line, first_byte.as_micros());
        }
    }),
    field("total_ms", |e, line| thousandths(line, e.total.as_micros())),
    field("cpu_us", |e, line| {
        if let Some(cpu) = e.cpu {
            thousandths(line, cpu.as_nanos());
        }
    }),
    field("head_in", |e, line| number(line, e.ledger.client_in.head())),
    field("head_out", |e, line| {
        number(line, e.ledger.client_out.head());
    }),
    field("body_in", |e, line| number(line, e.ledger.client_in.body())),
    field("body_out", |e, line| {
        number(line, e.ledger.client_out.body());
    }),
    field("tls_in", |e, line| number(line, e.ledger.client_in.total())),
    field("tls_out", |e, line| {
        number(line, e.ledger.client_out.total());
    }),
    field("server_in", |e, line| {
        number(line, e.ledger.server_in.total());
    }),
    field("server_out", |e, line| {
        number(line, e.ledger.server_out.total());
    }),
    field("cpu_head_us", |e, line| phase(line, e, Phase::Head)),
    field("cpu_auth_us", |e, line| phase(line, e, Phase::Auth)),
    field("cpu_route_us", |e, line| phase(line, e, Phase::Route)),
    field("cpu_upstream_us", |e, line| phase(line, e, Phase::Upstream)),
    field("cpu_relay_us", |e, line| phase(line, e, Phase::Relay)),
    field("cpu_handshake_us", |e, line| {
        if let Some((cpu, _)) = e.handshake {
            thousandths(line, cpu.as_nanos());
        }
    }),
    field("handshake_in", |e, line| {
        if let Some((_, bytes)) = e.handshake {
            number(line, bytes.received);
        }
    }),
    field("handshake_out", |e, line| {
        if let Some((_, bytes)) = e.handshake {
            number(line, bytes.sent);
        }
    }),
    field("cookies_in", |e, line| {
        some(line, e.ledger.client_in.of(Kind::Cookies));
    }),
    field("cookies_out", |e, line| {
        some(line, e.ledger.client_out.of(Kind::Cookies));
    }),
    field("authorization_in", |e, line| {
        some(line, e.ledger.client_in.of(Kind::Authorization));
    }),
    field("framing_in", |e, line| {
        some(line, e.ledger.client_in.of(Kind::Framing));
    }),
    field("framing_out", |e, line| {
        some(line, e.ledger.client_out.of(Kind::Framing));
    }),
    field("tags_out", |e, line| {
        some(line, e.ledger.client_out.of(Kind::Tags));
    }),
    field("server_head_in", |e, line| {
        some(line, e.ledger.server_in.head());
    }),
    field("server_head_out", |e, line| {
        some(line, e.ledger.server_out.head());
    }),
    field("protocol", |e, line| {
        word(line, if e.is_http2 { "h2" } else { "" });
    }),
    field("client_reused", |e, line| flag(line, e.client_reused)),
    field("server_reused", |e, line| flag(line, e.server_reused)),
];

/// A phase's processor time, where the request was looked at closely.
fn phase(line: &mut Vec<u8>, entry: &Entry<'_>, phase: Phase) {
    if let Some(phases) = entry.phases {
        thousandths(line, phases.of(phase).into());
    }
}

/// A number, left out where it is 0.
fn some(line: &mut Vec<u8>, bytes: u64) {
    if bytes > 0 {
        number(line, bytes);
    }
}

/// Exchange dates a line by its end.
fn ended(entry: &Entry<'_>) -> SystemTime {
    entry.time.checked_add(entry.total).unwrap_or(entry.time)
}

/// As Exchange joins them: request, type, client, and an id of the client's own that we do not keep.
fn client_request_id(entry: &Entry<'_>, line: &mut Vec<u8>) {
    let Some(kind) = entry.request_type else {
        return;
    };
    cell(line, |line| {
        line.extend_from_slice(b"R:");
        plain(line, entry.request_id);
        line.extend_from_slice(b";RT:");
        word(line, kind.as_str());
        line.extend_from_slice(b";CI:");
        plain(line, entry.client_info);
        line.extend_from_slice(b";CID:<null>");
    });
}

fn anchor_mailbox(entry: &Entry<'_>, line: &mut Vec<u8>) {
    let mut parts = entry.mailbox.split(|byte| *byte == b'@');
    let Some(guid) = parts.next().filter(|guid| !guid.is_empty()) else {
        return;
    };
    cell(line, |line| {
        line.extend_from_slice(b"MailboxGuid~");
        plain(line, guid);
    });
}

fn refusal(entry: &Entry<'_>, line: &mut Vec<u8>) {
    word(line, entry.refusal.map_or("", |why| why.label()));
}

fn why(entry: &Entry<'_>, line: &mut Vec<u8>) {
    let Some(refusal) = entry.refusal else { return };
    cell(line, |line| {
        let mut harmless = Harmless {
            line,
            room: WHY_MAX,
        };
        // Writing into memory does not fail, and what is too long is cut.
        let _ = write!(harmless, "{refusal}");
    });
}

fn first_byte(entry: &Entry<'_>, line: &mut Vec<u8>) {
    if let Some(first_byte) = entry.first_byte {
        milliseconds(line, first_byte);
    }
}

/// True where the status came from the server, whatever became of its answer later.
fn is_from_server(entry: &Entry<'_>) -> bool {
    !entry.server.is_empty() && !matches!(entry.ending, Outcome::Local | Outcome::Refused)
}

fn if_routed(entry: &Entry<'_>, line: &mut Vec<u8>, value: &str) {
    if !entry.server.is_empty() {
        word(line, value);
    }
}

/// None where the client was given none.
fn status(line: &mut Vec<u8>, status: u16) {
    if status > 0 {
        number(line, status.into());
    }
}

/// One of our own words, which need no care.
fn word(line: &mut Vec<u8>, word: &str) {
    line.extend_from_slice(word.as_bytes());
}

fn flag(line: &mut Vec<u8>, value: bool) {
    word(line, if value { "true" } else { "false" });
}

fn number(line: &mut Vec<u8>, value: u64) {
    line.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Whole milliseconds, as all of Exchange's latencies are.
fn milliseconds(line: &mut Vec<u8>, time: Duration) {
    number(line, u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
}

/// A field with a value somebody else wrote.
fn text(line: &mut Vec<u8>, value: &[u8]) {
    cell(line, |line| plain(line, value));
}

/// A field in which something somebody else wrote may stand: quoted where that is needed, RFC 4180.
fn cell(line: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let begin = line.len();
    write(line);
    let value = line.get(begin..).unwrap_or_default();
    // A spreadsheet would take it for a formula.
    let is_formula = matches!(value.first(), Some(b'=' | b'+' | b'-' | b'@'));
    // A reader that trims would lose blanks at the ends.
    let has_blank_ends = value.first() == Some(&b' ') || value.last() == Some(&b' ');
    if !is_formula && !has_blank_ends && memchr::memchr2(b',', b'"', value).is_none() {
        return;
    }
    let value = line.split_off(begin);
    line.push(b'"');
    if is_formula {
        line.push(b'\'');
    }
    for byte in value {
        if byte == b'"' {
            line.push(b'"');
        }
        line.push(byte);
    }
    line.push(b'"');
}

/// What somebody else wrote, without anything that ends a line, cut at a length.
fn plain(line: &mut Vec<u8>, value: &[u8]) {
    let kept = value.get(..TEXT_MAX).unwrap_or(value);
    if kept.iter().all(|byte| (0x20..0x7f).contains(byte)) {
        line.extend_from_slice(kept);
    } else {
        for chunk in kept.utf8_chunks() {
            chunk.valid().chars().for_each(|c| harmless(line, c));
            if !chunk.invalid().is_empty() {
                harmless(line, char::REPLACEMENT_CHARACTER);
            }
        }
    }
    if kept.len() < value.len() {
        word(line, "…");
    }
}

/// Makes harmless what is formatted into it, up to a number of characters.
struct Harmless<'a> {
    line: &'a mut Vec<u8>,
    room: usize,
}

impl Write for Harmless<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for c in part.chars().take(self.room) {
            harmless(self.line, c);
            self.room -= 1;
        }
        Ok(())
    }
}

/// What the machine calls itself.
static HOST_NAME: LazyLock<String> = LazyLock::new(|| {
    let names = rustix::system::uname();
    names.nodename().to_string_lossy().into_owned()
});
