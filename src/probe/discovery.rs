//! Where Outlook is told that the mailbox is.

use super::Known;
use super::advice;
use super::door::USER_AGENT;
use super::place::Place;
use super::report::{Good, Tried, Trouble};
use super::round::Round;
use crate::autodiscover::told::{Settings, Told};
use crate::autodiscover::{Dialect, pox};
use crate::outlook::Answer;

impl Round<'_> {
    /// Asked as an Outlook that speaks MAPI over HTTP, then as one that does not.
    pub(super) async fn autodiscover(&mut self) -> Tried {
        let answer = self.ask_pox(true).await?;
        let settings = self.settings(&answer)?;
        let older = self.ask_pox(false).await?;
        let older = self
            .settings(&older)
            .ok()
            .and_then(|told| told.outlook_anywhere);
        self.older = Some(older.clone());
        let others = match &older {
            Some(host) => format!("to older clients Outlook Anywhere at {host}"),
            None => "to older clients nothing".to_owned(),
        };
        let Some(mapi) = settings.mapi_http else {
            let also = match &settings.outlook_anywhere {
                Some(host) => format!("Outlook Anywhere at {host} alone"),
                None => "no way to connect at all".to_owned(),
            };
            return Err(Trouble::new(
                "MAPI over HTTP in the answer to X-MapiHttpCapability: 1",
                also,
                "MAPI over HTTP is switched off for the organisation or the mailbox, or the server of the active copy does not speak it; `mapigate explain` says which",
            ));
        };
        let urls = (mapi.mail_store.any(), mapi.address_book.any());
        let (Some(store), Some(book)) = urls else {
            return Err(Trouble::new(
                "URLs of mailbox and address book",
                "a mapiHttp block without them",
                "see `names[].internal_url` and `names[].external_url`",
            ));
        };
        let Some(dn) = settings.legacy_dn.or_else(|| Some(self.known()?.dn)) else {
            return Err(Trouble::new(
                "a LegacyDN, by which the mailbox is opened",
                "none",
                "add `legacy_dn` to the mailbox in the mailbox file, or see why the mailbox server does not tell it",
            ));
        };
        let (at, _) = Place::of(store).map_err(|cause| {
            Trouble::new(
                "a URL of the mailbox",
                cause.to_string(),
                "see `names[].external_url`",
            )
        })?;
        let path = store.split('?').next().unwrap_or_default();
        let good = Good::ok(format!("MAPI over HTTP at {path}; {others}"));
        let leads_elsewhere = at.host != self.probe.place.host && self.probe.follows;
        self.found = Some(Known {
            urls: [store.to_owned(), book.to_owned()],
            dn,
        });
        Ok(match leads_elsewhere {
            false => good,
            true => good.but(Trouble::new(
                format!("URLs of {}", self.probe.place.host),
                format!("those of {}", at.host),
                "clients are led past the name that was asked; where that is not meant, see `names[].internal_url` and `external_url`, or the virtual directories of the servers",
            )),
        })
    }

    async fn ask_pox(&mut self, speaks_mapi_http: bool) -> Result<Answer, Trouble> {
        let place = self.probe.place.clone();
        let authorization = self.caller.authorization(&place).await?;
        let body = pox::request(&self.probe.address);
        let capability = match speaks_mapi_http {
            true => "X-MapiHttpCapability: 1\r\n",
            false => "",
        };
        let request = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {USER_AGENT}\r\nAuthorization: {authorization}\r\n\
             {capability}X-ClientCanHandle: Negotiate, ExHttpInfo\r\nContent-Type: text/xml; charset=utf-8\r\n\
             Content-Length: {}\r\n\r\n{body}",
            Dialect::Pox.path(),
            place.authority(),
            body.len(),
        );
        self.caller.ask(&place, request.as_bytes()).await
    }

    fn settings(&self, answer: &Answer) -> Result<Settings, Trouble> {
        let expected = format!("Autodiscover's settings of {}", self.probe.address);
        if answer.head.status != 200 {
            return Err(advice::status(&expected, answer));
        }
        match Told::read(&answer.body()) {
            Ok(Told::Settings(settings)) => Ok(*settings),
            Ok(Told::Elsewhere(place)) => Err(Trouble::new(
                expected,
                format!("a redirect to {place}"),
                "Outlook asks there next: probe that, or see `autodiscover.redirects`",
            )),
            Ok(Told::Fault { code, message }) => Err(Trouble::new(
                expected,
                format!("error {code}: {message}"),
                "the address is in no directory, or not for this user to ask for; `mapigate explain` says what is known of it",
            )),
            Err(wrong) => Err(Trouble::new(
                expected,
                format!("{} ({wrong})", advice::came(answer)),
                "what answers here is not Autodiscover: see where the name and the path lead",
            )),
        }
    }

    /// Anonymous, as Autodiscover V2 is.
    pub(super) async fn autodiscover_json(&mut self) -> Tried {
        let place = self.probe.place.clone();
        let address = self.probe.address.replace('@', "%40");
        let request = format!(
            "GET {}?Email={address}&Protocol=AutodiscoverV1 HTTP/1.1\r\nHost: {}\r\nUser-Agent: {USER_AGENT}\r\n\
             Accept: application/json\r\n\r\n",
            Dialect::Json.path(),
            place.authority(),
        );
        let answer = self.caller.ask(&place, request.as_bytes()).await?;
        const EXPECTED: &str = "a JSON object with the URL of Autodiscover";
        match answer.head.status {
            200 => {}
            404 | 405 => {
                return Ok(Good::skipped(format!(
                    "not offered: HTTP {}",
                    answer.head.status
                )));
            }
            _ => return Err(advice::status(EXPECTED, &answer)),
        }
        let object: Option<serde_json::Value> = serde_json::from_slice(&answer.body()).ok();
        let url = object
            .as_ref()
            .and_then(|object| object.get("Url")?.as_str());
        let Some((at, _)) = url.and_then(|url| Place::of(url).ok()) else {
            return Err(Trouble::new(
                EXPECTED,
                advice::came(&answer),
                "what answers here is not Autodiscover: see where the name and the path lead",
            ));
        };
        let good = Good::ok(format!("Autodiscover is at {}", at.host));
        Ok(match at.host == place.host || !self.probe.follows {
            true => good,
            false => good.but(Trouble::new(
                format!("a URL of {}", place.host),
                format!("one of {}", at.host),
                "newer clients ask there: see that it is meant",
            )),
        })
    }
}
