//! What a simulated server says to whoever looks for a mailbox: with its own host in every URL, as real ones do.

use std::io;
use std::sync::Arc;

use super::answers::{Payload, Reply};
use super::authenticator::Judged;
use super::connection::Connection;
use super::delivery::Then;
use super::http::Head;
use crate::autodiscover::pox::{self, Answer, Mailbox, PoxRequest, Services};
use crate::autodiscover::soap::{self, SoapRequest, UserAnswer};
use crate::autodiscover::{Client, Dialect, Offer, Reach, Urls};
use crate::ids::UserName;
use crate::lab::site;
use crate::mapi::Flavour;

impl Connection {
    /// True where a request is for Autodiscover.
    pub(super) fn is_autodiscover(head: &Head) -> Option<Dialect> {
        let path = head.target.split('?').next().unwrap_or_default();
        let mut served = [Dialect::Pox, Dialect::Soap].into_iter();
        served
            .find(|dialect| dialect.path().eq_ignore_ascii_case(path))
            .filter(|_| head.method == "POST")
    }

    pub(super) async fn autodiscover(&mut self, head: &Head, dialect: Dialect) -> io::Result<Then> {
        let server = Arc::clone(&self.server);
        let body = match self.body(head).await? {
            Ok(body) => body,
            Err((status, words)) => return self.say(status, words).await,
        };
        let shows_certificate = self.inbound.wire.shows_certificate();
        let judged = self.who.user(&server, head, shows_certificate).await;
        let Judged::User(user) = judged else {
            let reply = Reply::challenge(&server.options);
            return server.deliver(&mut self.inbound, reply, None).await;
        };
        let (status, xml) = server.found(dialect, head, &body, &user);
        let mut reply = Reply::plain(status, "", server.options.flavour, head.closes());
        reply
            .headers
            .retain(|(name, _)| !name.starts_with("Content-"));
        reply
            .headers
            .push(("Content-Length", xml.len().to_string()));
        reply
            .headers
            .push(("Content-Type", "text/xml; charset=utf-8".to_owned()));
        reply.headers.push((
            "Set-Cookie",
            format!("X-BackEndCookie={}", server.options.name),
        ));
        reply
            .headers
            .push(("X-FEServer", server.options.host.clone()));
        reply.body = Payload::Counted(xml.into_bytes());
        server.deliver(&mut self.inbound, reply, None).await
    }
}

impl super::Server {
    fn found(
        &self,
        dialect: Dialect,
        head: &Head,
        body: &[u8],
        user: &UserName,
    ) -> (&'static str, String) {
        let text = |name: &str| head.header(name);
        let client = Client::read(text("x-mapihttpcapability"), text("x-clientcanhandle"));
        if dialect == Dialect::Soap {
            let Ok(asked) = SoapRequest::read(body) else {
                return ("500 Internal Server Error", soap::fault("not understood"));
            };
            // Who asks for a setting by its name understands it.
            let client = Client {
                mapi_http: Some(1),
                ..client
            };
            let answers = self.told(&asked.users, client);
            let answers: Vec<_> = answers
                .iter()
                .map(|answer| match answer {
                    Some(known) => UserAnswer::Settings(Box::new(known.answer())),
                    None => UserAnswer::Invalid,
                })
                .collect();
            return ("200 OK", soap::answer(&asked, &answers));
        }
        let Ok(asked) = PoxRequest::read(body) else {
            let fault = pox::fault(pox::Fault::InvalidRequest, "00:00:00.0000000", 1);
            return ("200 OK", fault);
        };
        let address = asked.address.unwrap_or_else(|| user.to_string());
        let known = self.told(&[address], client).into_iter().flatten().next();
        let xml = match known {
            Some(known) => known.everything(self.options.flavour),
            None => pox::fault(pox::Fault::NotFound, "00:00:00.0000000", 1),
        };
        ("200 OK", xml)
    }

    fn told(&self, addresses: &[String], client: Client) -> Vec<Option<Known>> {
        let known = |address: &String| {
            let is_known = self
                .options
                .users
                .names()
                .any(|name| name.as_str() == address);
            let number: String = address
                .chars()
                .skip_while(|letter| !letter.is_ascii_digit())
                .take_while(char::is_ascii_digit)
                .collect();
            is_known.then(|| Known {
                address: address.clone(),
                mailbox: site::mailbox(number.parse().unwrap_or(0)),
                legacy_dn: site::legacy_dn(number.parse().unwrap_or(0)),
                url: format!("https://{}/mapi", self.options.host),
                ews: format!("https://{}/EWS/Exchange.asmx", self.options.host),
                client,
                mapi_http: self.options.mapi_http,
            })
        };
        addresses.iter().map(known).collect()
    }
}

/// A mailbox, and what this server says of it.
struct Known {
    address: String,
    mailbox: String,
    legacy_dn: String,
    url: String,
    ews: String,
    client: Client,
    mapi_http: bool,
}

impl Known {
    fn answer(&self) -> Answer<'_> {
        Answer {
            mailbox: Mailbox {
                id: &self.mailbox,
                address: &self.address,
                display_name: &self.address,
                legacy_dn: Some(&self.legacy_dn),
            },
            offer: Offer {
                mapi_http: self.client.mapi_http.map(|_| 1).filter(|_| self.mapi_http),
                outlook_anywhere: true,
                rpc: false,
                reach: Reach::Everywhere,
                exhttp: self.client.reads_exhttp,
            },
            urls: Urls {
                internal: &self.url,
                external: Some(&self.url),
            },
            services: Services {
                ews: Some(&self.ews),
                oab: None,
            },
            auth_package: "Ntlm",
            server_version: None,
        }
    }

    /// gromox tells everybody everything, whatever the client says it understands.
    fn everything(&self, flavour: Flavour) -> String {
        let answer = self.answer();
        if flavour == Flavour::Exchange {
            return answer.write();
        }
        let with = |mapi_http, exhttp| {
            let offer = Offer {
                mapi_http,
                exhttp,
                ..answer.offer
            };
            Answer { offer, ..answer }.write()
        };
        let (new, old) = (with(Some(1), true), with(None, false));
        let blocks = old.find("<Protocol>").zip(old.find("</Account>"));
        let blocks = blocks
            .and_then(|(from, to)| old.get(from..to))
            .unwrap_or_default();
        new.replace("</Account>", &format!("{blocks}</Account>"))
    }
}
