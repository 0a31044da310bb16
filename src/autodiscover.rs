//! Autodiscover: how a client asks where a mailbox is, and what it is told.
//!
//! Three dialects: POX (`[MS-OXDSCLI]`), SOAP (`[MS-OXWSADISC]`) and the anonymous V2 JSON. A request is
//! read, an answer written, or a mailbox server's answer changed so that it names the front door and offers
//! what it should. Whatever comes in is bounded, well-formed and without a document type, or refused.

pub mod filter;
pub mod json;
pub mod pox;
pub mod soap;
pub mod told;
mod xml;

pub use filter::{Filter, filter};
pub use xml::Wrong;

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Plain XML, as Outlook does.
    Pox,
    /// SOAP, as EWS clients do.
    Soap,
    /// A query in the URL, without authentication.
    Json,
}

impl Dialect {
    /// All, in the order of their indices.
    pub const ALL: [Self; 3] = [Self::Pox, Self::Soap, Self::Json];

    /// What logs call it where MAPI has an endpoint.
    pub const ENDPOINT: &'static str = "autodiscover";

    /// Position in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word used in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pox => "pox",
            Self::Soap => "soap",
            Self::Json => "json",
        }
    }

    /// The one spelling of its path that we send to a server.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Pox => "/autodiscover/autodiscover.xml",
            Self::Soap => "/autodiscover/autodiscover.svc",
            Self::Json => "/autodiscover/autodiscover.json",
        }
    }
}

/// Bytes of a request's body; Outlook's has about 400, a SOAP request for a hundred users 20,000.
pub const REQUEST_MAX: usize = 256 * 1024;
/// Bytes of a server's answer that is looked through.
pub const ANSWER_MAX: usize = 1024 * 1024;

/// What a client says it understands. `[MS-OXDSCLI] 2.2.2`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// The number in `X-MapiHttpCapability`: the highest version of the `mapiHttp` block it reads; `None`
    /// without the header, and where it says nothing that is a number above 0.
    pub mapi_http: Option<u32>,
    /// `X-ClientCanHandle` has `ExHttpInfo`: it reads the `EXHTTP` block.
    pub reads_exhttp: bool,
}

impl Client {
    /// Reads the two headers; absent ones are `None`.
    pub fn read(capability: Option<&[u8]>, can_handle: Option<&[u8]>) -> Self {
        Self {
            mapi_http: capability.and_then(capability_number),
            reads_exhttp: can_handle.is_some_and(|value| {
                value
                    .split(|byte| *byte == b',')
                    .any(|word| word.trim_ascii().eq_ignore_ascii_case(b"ExHttpInfo"))
            }),
        }
    }
}

/// Digits and nothing else. A client that sends 0 or a word says nothing we could answer to.
fn capability_number(value: &[u8]) -> Option<u32> {
    let value = value.trim_ascii();
    if value.is_empty() || value.len() > 9 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = value
        .iter()
        .fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    (number > 0).then_some(number)
}

/// Where what is offered may be used from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Internal URLs alone are told.
    Internal,
    /// Internal and external URLs are told.
    Everywhere,
}

/// What a client is to be told: the decision, in the words of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// MAPI over HTTP, and the version of its block.
    pub mapi_http: Option<u32>,
    /// Outlook Anywhere (RPC over HTTP).
    pub outlook_anywhere: bool,
    /// RPC over TCP straight to the server, as before Exchange 2013.
    pub rpc: bool,
    /// From where.
    pub reach: Reach,
    /// The client reads the `EXHTTP` block.
    pub exhttp: bool,
}

impl Offer {
    /// The word used in logs and metrics.
    pub const fn as_str(&self) -> &'static str {
        match (self.mapi_http, self.outlook_anywhere, self.rpc) {
            (Some(_), _, _) => "mapi_http",
            (None, true, _) => "outlook_anywhere",
            (None, false, true) => "rpc",
            (None, false, false) => "nothing",
        }
    }
}

/// The public URLs that clients are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Urls<'a> {
    /// Base of MAPI over HTTP inside, without a slash at its end: `https://mail.contoso.com/mapi`.
    pub internal: &'a str,
    /// The same outside, where there is an outside.
    pub external: Option<&'a str>,
}

impl<'a> Urls<'a> {
    /// The external base, where `reach` lets it be told.
    pub fn external_within(&self, reach: Reach) -> Option<&'a str> {
        self.external.filter(|_| reach == Reach::Everywhere)
    }

    /// The host that clients reach Outlook Anywhere by.
    pub fn host(&self, reach: Reach) -> &'a str {
        host_of(self.external_within(reach).unwrap_or(self.internal))
    }
}

/// The host and port of a URL; empty where it is none. `https://mail.contoso.com:444/mapi` has
/// `mail.contoso.com:444`.
pub fn authority_of(url: &str) -> &str {
    let rest = after_scheme(url).unwrap_or_default();
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    rest.get(..end).unwrap_or_default()
}

/// The host of a URL without its port.
pub fn host_of(url: &str) -> &str {
    let authority = authority_of(url);
    // What stands before an `@` is no host, whatever it looks like.
    let authority = authority.rsplit('@').next().unwrap_or_default();
    match authority.strip_prefix('[') {
        Some(literal) => literal.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

/// A URL with another authority, always `https`: `https://mbx1/ews/x` becomes `https://mail.contoso.com/ews/x`.
pub fn with_authority(url: &str, authority: &str) -> String {
    let rest = after_scheme(url).unwrap_or_default();
    let path = rest
        .get(authority_of(url).len()..)
        .unwrap_or_default()
        .trim_start_matches('\\');
    format!("https://{authority}{path}")
}

fn after_scheme(url: &str) -> Option<&str> {
    ["https://", "http://"].iter().find_map(|scheme| {
        let (head, rest) = url.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// The URL of a MAPI endpoint below a base, with the query of `url`: what a server says of itself becomes
/// what clients are to use. `None` for a URL of something else.
pub fn public_mapi_url(url: &str, base: &str) -> Option<String> {
    let rest = after_scheme(url)?.get(authority_of(url).len()..)?;
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    let path = path.trim_end_matches('/');
    let endpoint = ["/mapi/emsmdb", "/mapi/nspi"]
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(path))?
        .strip_prefix("/mapi")?;
    let mut public = format!("{}{endpoint}/", base.trim_end_matches('/'));
    if let Some(query) = query {
        public.push('?');
        public.push_str(query);
    }
    Some(public)
}

/// The URL of a MAPI endpoint of a mailbox.
fn mapi_url(base: &str, endpoint: &str, mailbox: &str) -> String {
    format!(
        "{}/{endpoint}/?MailboxId={mailbox}",
        base.trim_end_matches('/')
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_above_zero_says_that_a_client_speaks_mapi_over_http() {
        for (value, number) in [
            ("1", Some(1)),
            ("2", Some(2)),
            (" 1 ", Some(1)),
            ("0", None),
            ("abc", None),
            ("-1", None),
            ("1,2", None),
            ("", None),
            ("99999999999", None),
        ] {
            let client = Client::read(Some(value.as_bytes()), None);
            assert_eq!(client.mapi_http, number, "{value:?}");
        }
        assert_eq!(Client::read(None, None).mapi_http, None);
    }

    #[test]
    fn what_a_client_can_handle_is_a_list_of_words() {
        for (value, reads) in [
            ("Negotiate, ExHttpInfo", true),
            ("exhttpinfo", true),
            ("Negotiate", false),
            ("NotExHttpInfo", false),
        ] {
            let client = Client::read(None, Some(value.as_bytes()));
            assert_eq!(client.reads_exhttp, reads, "{value}");
        }
    }

    #[test]
    fn the_host_of_a_url_is_what_a_connection_would_go_to() {
        for (url, host) in [
            ("https://mbx1.contoso.com:444/mapi", "mbx1.contoso.com"),
            ("HTTP://MBX1/", "MBX1"),
            ("https://[::1]:444/x", "::1"),
            ("https://mail.contoso.com@mbx1/x", "mbx1"),
            ("https://mbx1\\@mail.contoso.com/x", "mbx1"),
            ("https://mbx1?x", "mbx1"),
            ("ftp://mbx1/", ""),
            ("mbx1", ""),
        ] {
            assert_eq!(host_of(url), host, "{url}");
        }
        assert_eq!(
            with_authority("http://mbx1:444/ews/a?b=c", "mail.contoso.com"),
            "https://mail.contoso.com/ews/a?b=c"
        );
    }

    #[test]
    fn a_mapi_url_keeps_its_query_and_nothing_else() {
        let base = "https://mail.contoso.com/mapi";
        for (url, public) in [
            (
                "https://mbx1:444/mapi/emsmdb/?MailboxId=a@b",
                Some("https://mail.contoso.com/mapi/emsmdb/?MailboxId=a@b"),
            ),
            (
                "https://mbx1/MAPI/NSPI?MailboxId=a@b",
                Some("https://mail.contoso.com/mapi/nspi/?MailboxId=a@b"),
            ),
            ("https://mbx1/ews/exchange.asmx", None),
            ("https://mbx1/mapi/../ecp/", None),
            ("mbx1", None),
        ] {
            assert_eq!(public_mapi_url(url, base).as_deref(), public, "{url}");
        }
    }
}
