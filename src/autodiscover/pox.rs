//! POX: the plain XML that Outlook sends and reads. `[MS-OXDSCLI] 2.2.3, 2.2.4`

use super::xml::{self, Tree, escaped};
use super::{Offer, REQUEST_MAX, Urls, Wrong, mapi_url};
use crate::mapi::Build;
use std::fmt::Write as _;

/// Bytes of an address. RFC 5321 section 4.5.3.1
const ADDRESS_MAX: usize = 320;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoxRequest {
    /// Whose settings, by address; lower case.
    pub address: Option<String>,
    /// Whose settings, by distinguished name, where no address is given.
    pub legacy_dn: Option<String>,
    /// The answer is to be in Outlook's schema; else it is another provider's.
    pub is_for_outlook: bool,
}

/// The schema of answers for Outlook. Clients spell it with `http` and compare it as text.
const OUTLOOK: &str = "/exchange/autodiscover/outlook/responseschema/2006a";

impl PoxRequest {
    /// Reads a request. Elements may be in any case.
    ///
    /// # Errors
    /// What keeps the bytes from being one.
    pub fn read(body: &[u8]) -> Result<Self, Wrong> {
        let text = xml::text(body, REQUEST_MAX)?;
        let tree = Tree::read(&text)?;
        let request = tree
            .find(&["Autodiscover", "Request"])
            .ok_or(Wrong::Other("an Autodiscover request"))?;
        let text = |name: &str| {
            tree.value(request, name)
                .filter(|value| !value.is_empty() && value.len() <= ADDRESS_MAX)
        };
        let schema = tree
            .value(request, "AcceptableResponseSchema")
            .unwrap_or_default()
            .to_ascii_lowercase();
        Ok(Self {
            address: text("EMailAddress").map(str::to_lowercase),
            legacy_dn: text("LegacyDN").map(str::to_owned),
            is_for_outlook: schema.ends_with(OUTLOOK),
        })
    }
}

/// A request of Outlook for the settings of this address.
pub fn request(address: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><Autodiscover xmlns=\"http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006\"><Request><EMailAddress>{}</EMailAddress><AcceptableResponseSchema>http://schemas.microsoft.com{OUTLOOK}</AcceptableResponseSchema></Request></Autodiscover>",
        escaped(address)
    )
}

/// A mailbox, as an answer describes it.
#[derive(Clone, Copy, Debug)]
pub struct Mailbox<'a> {
    /// Its `MailboxId`: `<guid>@<domain>`.
    pub id: &'a str,
    /// Its primary address.
    pub address: &'a str,
    /// What its owner is called.
    pub display_name: &'a str,
    /// Its distinguished name in the address book, where it is known.
    pub legacy_dn: Option<&'a str>,
}

/// Everything an answer is made of.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Whose settings.
    pub mailbox: Mailbox<'a>,
    /// What is offered.
    pub offer: Offer,
    /// Where.
    pub urls: Urls<'a>,
    /// Other services of the site.
    pub services: Services<'a>,
    /// How clients of Outlook Anywhere authenticate: `Basic`, `Ntlm`, `Negotiate`.
    pub auth_package: &'a str,
    /// The version of the server that holds the mailbox, where it is known.
    pub server_version: Option<Build>,
}

/// URLs of services that are not MAPI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Services<'a> {
    /// Exchange Web Services.
    pub ews: Option<&'a str>,
    /// Offline address books.
    pub oab: Option<&'a str>,
}

impl Answer<'_> {
    /// Writes the answer with the settings.
    pub fn write(&self) -> String {
        let mailbox = &self.mailbox;
        let mut out = String::with_capacity(2048);
        out.push_str(HEAD);
        out.push_str("<Response xmlns=\"http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a\"><User>");
        leaf(&mut out, "DisplayName", mailbox.display_name);
        if let Some(dn) = mailbox.legacy_dn {
            leaf(&mut out, "LegacyDN", dn);
        }
        leaf(&mut out, "AutoDiscoverSMTPAddress", mailbox.address);
        out.push_str("</User><Account><AccountType>email</AccountType><Action>settings</Action>");
        out.push_str("<MicrosoftOnline>False</MicrosoftOnline>");
        self.mapi_http(&mut out);
        // Beside MAPI over HTTP the old blocks stay only where the client could not learn of the other
        // services in any other way.
        let is_old_needed = self.offer.mapi_http.is_none()
            || (!self.offer.exhttp && self.services != Services::default());
        if is_old_needed {
            self.old_blocks(&mut out);
        }
        if self.offer.exhttp {
            self.exhttp(&mut out);
        }
        out.push_str("</Account></Response></Autodiscover>");
        out
    }

    /// `[MS-OXDSCLI] 2.2.4.1.1.2.6`
    fn mapi_http(&self, out: &mut String) {
        let Some(version) = self.offer.mapi_http else {
            return;
        };
        // Writing into memory does not fail, here and below.
        let _ = write!(out, "<Protocol Type=\"mapiHttp\" Version=\"{version}\">");
        for (name, endpoint) in [("MailStore", "emsmdb"), ("AddressBook", "nspi")] {
            let _ = write!(out, "<{name}>");
            let url = |base: &str| mapi_url(base, endpoint, self.mailbox.id);
            leaf(out, "InternalUrl", &url(self.urls.internal));
            if let Some(external) = self.urls.external_within(self.offer.reach) {
                leaf(out, "ExternalUrl", &url(external));
            }
            let _ = write!(out, "</{name}>");
        }
        out.push_str("</Protocol>");
    }

    /// `EXCH` and `EXPR`. `[MS-OXDSCLI] 2.2.4.1.1.2.6.32`
    fn old_blocks(&self, out: &mut String) {
        let offers_old = self.offer.mapi_http.is_none();
        if !offers_old || self.offer.outlook_anywhere || self.offer.rpc {
            let server_dn = self.server_dn();
            out.push_str("<Protocol><Type>EXCH</Type>");
            leaf(out, "Server", self.mailbox.id);
            leaf(out, "ServerDN", &server_dn);
            if let Some(version) = self.server_version {
                leaf(out, "ServerVersion", &version.to_hex());
            }
            leaf(
                out,
                "MdbDN",
                &format!("{server_dn}/cn=Microsoft Private MDB"),
            );
            leaf(out, "AuthPackage", self.auth_package);
            out.push_str("<ServerExclusiveConnect>off</ServerExclusiveConnect>");
            self.service_urls(out);
            out.push_str("</Protocol>");
        }
        if offers_old && self.offer.outlook_anywhere {
            out.push_str("<Protocol><Type>EXPR</Type>");
            leaf(out, "Server", self.urls.host(self.offer.reach));
            out.push_str("<SSL>On</SSL>");
            leaf(out, "AuthPackage", self.auth_package);
            out.push_str("<ServerExclusiveConnect>on</ServerExclusiveConnect>");
            out.push_str("<CertPrincipalName>None</CertPrincipalName>");
            self.service_urls(out);
            out.push_str("</Protocol>");
        }
    }

    /// The block of clients since Outlook 2013: inside first, then outside.
    fn exhttp(&self, out: &mut String) {
        let internal = super::host_of(self.urls.internal);
        let external = self
            .urls
            .external_within(self.offer.reach)
            .map(super::host_of);
        for host in [Some(internal), external.filter(|host| *host != internal)]
            .into_iter()
            .flatten()
        {
            out.push_str("<Protocol><Type>EXHTTP</Type>");
            leaf(out, "Server", host);
            out.push_str("<SSL>On</SSL>");
            leaf(out, "AuthPackage", self.auth_package);
            out.push_str("<ServerExclusiveConnect>On</ServerExclusiveConnect>");
            self.service_urls(out);
            out.push_str("</Protocol>");
        }
    }

    fn service_urls(&self, out: &mut String) {
        if let Some(ews) = self.services.ews {
            for name in ["ASUrl", "OOFUrl", "EwsUrl", "EmwsUrl"] {
                leaf(out, name, ews);
            }
        }
        if let Some(oab) = self.services.oab {
            leaf(out, "OABUrl", oab);
        }
    }

    /// The server's name in the address book: Exchange since 2013 names the mailbox there.
    fn server_dn(&self) -> String {
        let dn = self.mailbox.legacy_dn.unwrap_or(USUAL_DN);
        let lower = dn.to_ascii_lowercase();
        let group = lower.find("/cn=").and_then(|end| dn.get(..end));
        let group = group.unwrap_or(USUAL_DN);
        format!("{group}/cn=Configuration/cn=Servers/cn={}", self.mailbox.id)
    }
}

/// Sends the client to another Autodiscover service.
pub fn redirect(url: &str) -> String {
    let mut out = String::from(HEAD);
    out.push_str("<Response xmlns=\"http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a\"><Account><AccountType>email</AccountType><Action>redirectUrl</Action>");
    leaf(&mut out, "RedirectUrl", url);
    out.push_str("</Account></Response></Autodiscover>");
    out
}

/// What a request cannot be answered with. `[MS-OXDSCLI] 2.2.4.1.2`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The body is no request.
    InvalidRequest,
    /// No such address, or one that is not this user's business: the same, so that nobody learns which.
    NotFound,
    /// The schema is another provider's, or none.
    NoProvider,
}

impl Fault {
    /// The number and the words that Exchange has for it.
    fn words(self) -> (u32, &'static str) {
        match self {
            Self::InvalidRequest => (600, "Invalid Request"),
            Self::NotFound => (500, "The email address can't be found."),
            Self::NoProvider => (601, "Provider is not available"),
        }
    }
}

/// Says no. `time` is the time of day as `HH:MM:SS.fffffff`, `id` any number that finds the request in a log.
pub fn fault(fault: Fault, time: &str, id: u32) -> String {
    let (code, message) = fault.words();
    let mut out = String::from(HEAD);
    let _ = write!(
        out,
        "<Response><Error Time=\"{}\" Id=\"{id}\"><ErrorCode>{code}</ErrorCode>",
        escaped(time)
    );
    leaf(&mut out, "Message", message);
    out.push_str("<DebugData /></Error></Response></Autodiscover>");
    out
}

/// Appends an element that holds text.
pub(super) fn leaf(out: &mut String, name: &str, text: &str) {
    let _ = write!(out, "<{name}>{}</{name}>", escaped(text));
}

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?><Autodiscover xmlns=\"http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006\">";

/// Where an organisation's servers stand in its address book by default.
const USUAL_DN: &str = "/o=First Organization/ou=Exchange Administrative Group (FYDIBOHF23SPDLT)";

#[cfg(test)]
#[path = "pox_tests.rs"]
mod tests;
