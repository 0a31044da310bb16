//! The way in: the name, the certificate, the challenges.

use super::advice;
use super::place::Place;
use super::report::{Good, Tried, Trouble};
use super::round::{Round, today};
use crate::outlook::{Answer, Letterhead};
use rustls::ProtocolVersion;

/// A certificate with fewer days left is worth a word.
const DAYS_LEFT: i64 = 14;
/// What the requests of a probe call the program; servers look for MAPI in it.
pub(super) const USER_AGENT: &str = concat!(
    "Microsoft Office/16.0 (Windows NT 10.0; MAPI 16.0.17126; Pro) mapigate-probe/",
    env!("CARGO_PKG_VERSION")
);

impl Round<'_> {
    pub(super) async fn dns(&self) -> Tried {
        let place = &self.probe.place;
        let mut detours = self.probe.detours.iter();
        let is_told = detours.any(|detour| detour.of(place).is_some());
        let addresses = self.caller.addresses(place).await?;
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        let how = if is_told { ", as told" } else { "" };
        Ok(Good::ok(format!("{}{how}", addresses.join(", "))))
    }

    pub(super) async fn tls(&mut self) -> Tried {
        let place = self.probe.place.clone();
        let line = self.caller.open(&place).await?;
        let wire = line.wire();
        let Some(version) = wire.tls_version() else {
            return Ok(Good::ok("a connection without TLS, as the URL says"));
        };
        let version = match version {
            ProtocolVersion::TLSv1_2 => "TLS 1.2",
            ProtocolVersion::TLSv1_3 => "TLS 1.3",
            _ => "TLS",
        };
        let Some(shown) = self.caller.shown() else {
            return Ok(Good::ok(version));
        };
        let days = shown.days_left(today());
        let good = Good::ok(format!(
            "{version}, a certificate {}, {days} days left",
            shown.words()
        ));
        Ok(match days < DAYS_LEFT {
            false => good,
            true => good.but(Trouble::new(
                format!("a certificate that is good for {DAYS_LEFT} days more"),
                format!("one that expires on {}", shown.until()),
                "renew it where it is shown, then reload",
            )),
        })
    }

    /// A PING of nobody, for the challenges; then the user's own.
    pub(super) async fn authentication(&mut self) -> Tried {
        let place = self.probe.place.clone();
        let challenge = self.knock(&place, None).await?;
        if challenge.head.status != 401 {
            return Err(unchallenged(&challenge));
        }
        let offered: Vec<_> = challenge
            .head
            .all("www-authenticate")
            .filter_map(scheme)
            .collect();
        let list = match offered.as_slice() {
            [] => "nothing".to_owned(),
            schemes => schemes.join(", "),
        };
        let ours = self.probe.credential.scheme();
        if !offered
            .iter()
            .any(|scheme| scheme.eq_ignore_ascii_case(ours))
        {
            return Err(Trouble::new(
                format!("{ours} among the challenges"),
                format!("HTTP 401 that offers {list}"),
                format!(
                    "add {ours} to `names[].authentication`, or probe with a credential of another scheme"
                ),
            ));
        }
        let authorization = self.caller.authorization(&place).await?;
        let answer = self.knock(&place, Some(&authorization)).await?;
        if answer.head.status == 401 {
            return Err(Trouble::new(
                format!("that {ours} of {} is accepted", self.probe.user),
                advice::came(&answer),
                refused(ours),
            ));
        }
        let good = Good::ok(format!("offered {list}; {ours} accepted"));
        Ok(match advice::lower_case_challenge(&challenge.head) {
            Some(trouble) => good.but(trouble),
            None => good,
        })
    }

    /// A PING for a mailbox that may be anybody's: what counts is whether we are let in.
    async fn knock(
        &mut self,
        place: &Place,
        authorization: Option<&str>,
    ) -> Result<Answer, Trouble> {
        let domain = self.probe.address.rsplit('@').next().unwrap_or_default();
        let id = format!("00000000-0000-0000-0000-000000000000@{domain}");
        let [target, _] = match self.known() {
            Some(known) => known
                .urls
                .map(|url| Place::of(&url).map(|(_, rest)| rest).unwrap_or_default()),
            None => Letterhead::targets_of(&id),
        };
        let authorization =
            authorization.map_or_else(String::new, |value| format!("Authorization: {value}\r\n"));
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {USER_AGENT}\r\n{authorization}\
             Content-Type: application/mapi-http\r\nX-RequestType: PING\r\n\
             X-RequestId: {{{}}}:1\r\nX-ClientInfo: {{{}}}:1\r\n\
             X-ClientApplication: Outlook/16.0.17126.20132\r\nContent-Length: 0\r\n\r\n",
            place.authority(),
            crate::outlook::session::guid().to_uppercase(),
            crate::outlook::session::guid().to_uppercase(),
        );
        self.caller.ask(place, request.as_bytes()).await
    }
}

/// The name of the scheme of a challenge.
fn scheme(challenge: &str) -> Option<&str> {
    challenge
        .split([' ', ','])
        .next()
        .filter(|word| !word.is_empty())
}

fn unchallenged(answer: &Answer) -> Trouble {
    const EXPECTED: &str = "HTTP 401 to a request without credentials";
    match answer.head.status {
        200..=299 => Trouble::new(
            EXPECTED,
            advice::came(answer),
            "what answers here asks nobody who they are: it is not a mail server's MAPI endpoint, or it is open to the world",
        ),
        _ => advice::status(EXPECTED, answer),
    }
}

fn refused(scheme: &str) -> &'static str {
    match scheme {
        "Basic" => {
            "compare user and password with what verifies them: `mapigate auth test --user` with the configuration tells which of the two is wrong; each try counts towards the user's lockout"
        }
        "Bearer" => {
            "compare the token with `auth.bearer.issuers`: `mapigate auth test --token-file` tells what is wrong with it"
        }
        _ => {
            "see that the keytab has the service's present key, and that the clocks agree: `mapigate auth test --tickets` with the configuration tells what is wrong with the ticket"
        }
    }
}
