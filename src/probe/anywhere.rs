//! Outlook Anywhere: whether somebody answers there.

use super::advice;
use super::place::Place;
use super::report::{Good, Tried, Trouble};
use super::round::Round;
use crate::outlook::Answer;
use crate::rpch::rts::ECHO;
use crate::rpch::{Rts, Verb};

impl Round<'_> {
    /// An echo, as Outlook asks for one before it opens channels. `[MS-RPCH] 2.1.2.1.5`
    pub(super) async fn rpc_echo(&mut self) -> Tried {
        let is_mapi_told = self.found.is_some();
        let place = match &self.older {
            Some(None) => {
                return Ok(Good::skipped(
                    "not offered: Autodiscover tells nobody of Outlook Anywhere",
                ));
            }
            Some(Some(host)) if self.probe.follows && *host != self.probe.place.host => Place {
                host: host.to_ascii_lowercase(),
                ..self.probe.place.clone()
            },
            _ => self.probe.place.clone(),
        };
        let id = self.known().and_then(|known| {
            let [url, _] = known.urls;
            let (_, id) = url.split_once("MailboxId=")?;
            Some(id.to_owned())
        });
        let server = id.unwrap_or_else(|| place.host.clone());
        let authorization = self.caller.authorization(&place).await?;
        let request = format!(
            "{} /rpc/rpcproxy.dll?{server}:6001 HTTP/1.1\r\nHost: {}\r\nUser-Agent: MSRPC\r\n\
             Accept: application/rpc\r\nCache-Control: no-cache\r\nConnection: Keep-Alive\r\nPragma: No-cache\r\n\
             Authorization: {authorization}\r\nContent-Length: 4\r\n\r\n\0\0\0\0",
            Verb::In.as_str(),
            place.authority(),
        );
        let answer = self.caller.ask(&place, request.as_bytes()).await?;
        self.caller.forget();
        judge(&answer, self.older.is_some(), is_mapi_told)
    }
}

fn judge(answer: &Answer, is_offered: bool, is_mapi_told: bool) -> Tried {
    const EXPECTED: &str = "HTTP 200 with an echo of 20 bytes";
    let status = answer.head.status;
    let is_absent = matches!(status, 404 | 405 | 501);
    let is_echo = || Rts::decode(&answer.body()).is_ok_and(|rts| rts.flags & ECHO != 0);
    match status {
        200 if is_echo() => Ok(Good::ok("an echo: Outlook Anywhere answers")),
        200 => Err(Trouble::new(
            EXPECTED,
            format!("{} bytes of something else: {}", answer.body().len(), advice::came(answer)),
            "what answers at /rpc does not speak RPC over HTTP: see where the path leads",
        )),
        _ if is_absent && !is_offered => Ok(Good::skipped(format!("not offered: HTTP {status}"))),
        // Whoever speaks MAPI over HTTP does without.
        _ if is_absent && is_mapi_told => Ok(Good::ok(format!("HTTP {status}")).but(Trouble::new(
            EXPECTED,
            advice::came(answer),
            "Autodiscover tells clients without MAPI over HTTP of Outlook Anywhere, and nobody answers there: write `outlook_anywhere: false` under `autodiscover`, or have /rpc served",
        ))),
        _ => Err(advice::status(EXPECTED, answer)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;
    use crate::outlook::AnswerHead;

    fn answer(status: u16, body: Vec<u8>) -> Answer {
        Answer {
            head: AnswerHead {
                status,
                ..AnswerHead::default()
            },
            pieces: vec![body],
        }
    }

    #[test]
    fn an_echo_is_good_and_its_absence_is_judged_by_what_was_offered() {
        let echo = answer(200, Rts::echo().encode());
        let verdict =
            |answer: &Answer, offered, mapi| judge(answer, offered, mapi).map(|good| good.verdict);

        assert_eq!(verdict(&echo, true, true), Ok(Verdict::Ok));
        let missing = answer(404, Vec::new());
        assert_eq!(verdict(&missing, false, true), Ok(Verdict::Skipped));
        assert_eq!(verdict(&missing, true, true), Ok(Verdict::Warning));
        assert!(verdict(&missing, true, false).is_err());
        assert!(verdict(&answer(200, b"<html>".to_vec()), true, true).is_err());
        assert!(verdict(&answer(503, Vec::new()), true, true).is_err());
    }
}
