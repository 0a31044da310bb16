//! A session with the mailbox: opened, logged on in, held open, closed.

use super::advice;
use super::caller::Caller;
use super::door::USER_AGENT;
use super::place::Place;
use super::report::{Good, Tried, Trouble};
use super::round::{Round, clock};
use super::{Known, Probe};
use crate::mapi::bodies::{
    Answer as BodyAnswer, Body, ConnectRequest, ConnectSuccess, DisconnectRequest, EndSuccess,
    ExecuteRequest, ExecuteSuccess, NotificationWaitRequest, NotificationWaitSuccess,
};
use crate::mapi::{Endpoint, Flavour, RequestType};
use crate::outlook::rops::{self, LoggedOn};
use crate::outlook::{Answer, CookieLines, Letterhead, Line, Request, Session, Tagged};
use std::time::Duration;
use tokio::time::timeout_at;

/// A session context, and where it is.
pub(super) struct Talk {
    session: Session,
    place: Place,
    letterhead: Letterhead,
    /// Where the mailbox is on the server, as its logon said.
    handle: u32,
    /// Answers come from the mailbox server itself, in numbers of its own.
    is_direct: bool,
}

impl Talk {
    pub(super) fn new(probe: &Probe, known: &Known, endpoint: Endpoint) -> Result<Self, Trouble> {
        let wrong = |cause: super::place::NoPlace| {
            Trouble::new(
                "a URL of MAPI",
                cause.to_string(),
                "see what Autodiscover tells",
            )
        };
        let [mailbox, book] = &known.urls;
        let ((store, store_path), (book, book_path)) = (
            Place::of(mailbox).map_err(wrong)?,
            Place::of(book).map_err(wrong)?,
        );
        let place = match (probe.follows, endpoint) {
            (false, _) => probe.place.clone(),
            (true, Endpoint::Emsmdb) => store,
            (true, Endpoint::Nspi) => book,
        };
        Ok(Self {
            session: Session::new(endpoint),
            letterhead: Letterhead {
                host: place.authority(),
                targets: [store_path, book_path],
                user_agent: USER_AGENT,
                authorization: None,
                cookie_lines: CookieLines::One,
                more: Vec::new(),
            },
            place,
            handle: 0,
            is_direct: !probe.follows,
        })
    }

    /// The request's bytes, with the cookies of this moment.
    async fn request(
        &mut self,
        caller: &Caller<'_>,
        kind: RequestType,
        body: Vec<u8>,
    ) -> Result<Vec<u8>, Trouble> {
        let mut letterhead = self.letterhead.clone();
        letterhead.authorization = Some(caller.authorization(&self.place).await?);
        let request = Request {
            kind,
            id: self.session.next_id(),
            body,
            headers: Vec::new(),
        };
        Ok(letterhead.write(&self.session, &request))
    }

    /// Asks, and returns the body behind DONE.
    pub(super) async fn ask(
        &mut self,
        caller: &mut Caller<'_>,
        kind: RequestType,
        body: Vec<u8>,
    ) -> Result<Vec<u8>, Trouble> {
        if kind.opens_session() {
            self.session.opening();
        }
        let request = self.request(caller, kind, body).await?;
        let answer = caller.ask(&self.place, &request).await?;
        let body = advice::body(kind, &answer, self.speaks_gromox())?;
        match kind.opens_session() {
            true => self.session.opened(&answer.head),
            false => self.session.take(&answer.head),
        }
        Ok(body)
    }

    /// Asks for the answer of this kind; a failure of MAPI's own is explained.
    pub(super) async fn ask_for<T: Body>(
        &mut self,
        caller: &mut Caller<'_>,
        kind: RequestType,
        body: Vec<u8>,
    ) -> Result<T, Trouble> {
        let body = self.ask(caller, kind, body).await?;
        decoded(kind, &body)
    }

    /// Cookies the server has given, by name; an error where there is none: without them nothing goes on.
    pub(super) fn cookies(&self) -> Result<String, Trouble> {
        let cookies = self.session.cookies();
        let names: Vec<_> = cookies.iter().map(|(name, _)| name.as_str()).collect();
        match names.is_empty() {
            false => Ok(names.join(", ")),
            true => Err(Trouble::new(
                "Set-Cookie with the session's cookies (MapiContext, or sid of gromox)",
                "success without any cookie",
                "a proxy between strips Set-Cookie: let it pass; --server shows what the mailbox server gives",
            )),
        }
    }

    fn speaks_gromox(&self) -> bool {
        let name = Flavour::Gromox.cookies().context;
        self.is_direct
            && self
                .session
                .cookies()
                .iter()
                .any(|(known, _)| known == name)
    }
}

/// The answer in a body.
pub(super) fn decoded<T: Body>(kind: RequestType, body: &[u8]) -> Result<T, Trouble> {
    match BodyAnswer::<T>::decode(body) {
        Ok(BodyAnswer::Success(success)) => Ok(success),
        Ok(BodyAnswer::Failure { status_code, .. }) => Err(advice::mapi_error(
            &format!("{} with StatusCode 0", kind.as_str()),
            status_code,
        )),
        Err(cause) => Err(Trouble::new(
            format!("the answer to {}", kind.as_str()),
            format!("{} bytes that are none: {cause}", body.len()),
            "something between changes bodies, or the server is none of those that are known",
        )),
    }
}

impl Round<'_> {
    /// A session with an endpoint, not yet opened.
    pub(super) fn talk(&self, endpoint: Endpoint) -> Result<Talk, Trouble> {
        let known = self
            .known()
            .ok_or_else(|| Trouble::new("a mailbox", "none", "see what Autodiscover tells"))?;
        Talk::new(self.probe, &known, endpoint)
    }

    pub(super) async fn connect(&mut self) -> Tried {
        let mut talk = self.talk(Endpoint::Emsmdb)?;
        let known = self.known();
        let dn = known.map(|known| known.dn).unwrap_or_default();
        let request = ConnectRequest::of(&dn).encode();
        let connected: ConnectSuccess = talk
            .ask_for(&mut self.caller, RequestType::Connect, request)
            .await?;
        if connected.error_code != 0 {
            return Err(advice::mapi_error(
                "Connect with ErrorCode 0",
                connected.error_code,
            ));
        }
        let cookies = talk.cookies()?;
        let name = connected.display_name.to_string();
        let name: String = name
            .chars()
            .filter(|letter| !letter.is_control())
            .take(100)
            .collect();
        self.mailbox = Some(talk);
        Ok(Good::ok(format!(
            "a session of {name:?}; cookies {cookies}"
        )))
    }

    pub(super) async fn logon(&mut self) -> Tried {
        let dn = self.known().map(|known| known.dn).unwrap_or_default();
        let talk = open(&mut self.mailbox)?;
        let execute = ExecuteRequest::of(rops::logon(&dn)).encode();
        let executed: ExecuteSuccess = talk
            .ask_for(&mut self.caller, RequestType::Execute, execute)
            .await?;
        const EXPECTED: &str = "a logon to the mailbox";
        if executed.error_code != 0 {
            return Err(advice::mapi_error(EXPECTED, executed.error_code));
        }
        match LoggedOn::read(&executed.rop_buffer) {
            Some(LoggedOn::Open { handle }) => {
                talk.handle = handle;
                let name = dn.rsplit('/').next().unwrap_or_default();
                Ok(Good::ok(format!("the mailbox of {name} is open")))
            }
            Some(LoggedOn::Compressed) => {
                Ok(Good::ok("an answer that is compressed, and so not read"))
            }
            Some(LoggedOn::Refused { code, elsewhere }) => {
                let mut trouble = advice::mapi_error(EXPECTED, code);
                if let Some(server) = elsewhere {
                    trouble
                        .came
                        .push_str(&format!("; it is at {}", server.escape_default()));
                }
                Err(trouble)
            }
            None => Err(Trouble::new(
                EXPECTED,
                "an answer to something else",
                "something between changes bodies, or answers of one client reach another",
            )),
        }
    }

    /// Held on a connection of its own, as Outlook does, and let go of by closing it.
    pub(super) async fn wait(&mut self) -> Tried {
        let talk = open(&mut self.mailbox)?;
        let register = ExecuteRequest::of(rops::register(talk.handle)).encode();
        // Without it the wait is held all the same, and nothing wakes it.
        talk.ask(&mut self.caller, RequestType::Execute, register)
            .await?;
        let kind = RequestType::NotificationWait;
        let request = NotificationWaitRequest::default().encode();
        let request = talk.request(&self.caller, kind, request).await?;
        let mut line = self.caller.open(&talk.place).await?;
        line.send(&request).await.map_err(|failure| cut(&failure))?;
        let held = held(&mut line, self.probe.held_wait).await?;
        let Some(answer) = held.answer else {
            return Ok(Good::ok(format!(
                "held: the server's first word after {:.0} ms, {} PENDING, let go after {}",
                held.first_word.as_secs_f64() * 1000.0,
                held.pending,
                humantime::format_duration(self.probe.held_wait),
            )));
        };
        let body = advice::body(kind, &answer, talk.speaks_gromox())?;
        let waited: NotificationWaitSuccess = decoded(kind, &body)?;
        match (waited.error_code, waited.event_pending) {
            (0, 0) => Ok(Good::ok("answered without an event")),
            (0, _) => Ok(Good::ok("woken: there is something to collect")),
            (code, _) => Err(advice::mapi_error("a held NotificationWait", code)),
        }
    }

    pub(super) async fn disconnect(&mut self) -> Tried {
        let talk = open(&mut self.mailbox)?;
        let request = DisconnectRequest::default().encode();
        let ended: EndSuccess = talk
            .ask_for(&mut self.caller, RequestType::Disconnect, request)
            .await?;
        self.mailbox = None;
        match ended.error_code {
            0 => Ok(Good::ok("the session is closed")),
            code => Err(advice::mapi_error("Disconnect with ErrorCode 0", code)),
        }
    }
}

pub(super) fn open(talk: &mut Option<Talk>) -> Result<&mut Talk, Trouble> {
    talk.as_mut()
        .ok_or_else(|| Trouble::new("a session", "none", "see the steps before"))
}

/// How a wait went on.
struct Held {
    first_word: Duration,
    pending: usize,
    /// The whole answer, where it ended.
    answer: Option<Answer>,
}

/// An answer to a wait is some hundred bytes, and each sign of life nine.
const HELD_BYTES_MAX: usize = 1024 * 1024;

/// Listens to a wait for this long.
async fn held(line: &mut Line, within: Duration) -> Result<Held, Trouble> {
    let began = clock();
    let until = began + within;
    let silent = |what: &str| {
        Trouble::new(
            "PROCESSING at once, while the request is held",
            format!("{what} within {}", humantime::format_duration(within)),
            "a proxy between keeps the answer back until it is whole: switch off its response buffering for /mapi",
        )
    };
    let head = timeout_at(until, line.head())
        .await
        .map_err(|_elapsed| silent("not even a head"))?
        .map_err(|failure| cut(&failure))?;
    let mut answer = Answer {
        head,
        pieces: Vec::new(),
    };
    let mut first_word = None;
    let mut bytes = 0;
    loop {
        let Ok(piece) = timeout_at(until, line.piece()).await else {
            break;
        };
        match piece.map_err(|failure| cut(&failure))? {
            Some(piece) => {
                first_word.get_or_insert_with(|| began.elapsed());
                bytes += piece.len();
                if bytes > HELD_BYTES_MAX {
                    return Err(Trouble::new(
                        "PROCESSING, and a PENDING now and then, while the request is held",
                        format!("more than {HELD_BYTES_MAX} bytes"),
                        "what answers is no mailbox server, or something between repeats its words: see what --server shows",
                    ));
                }
                answer.pieces.push(piece);
            }
            None => {
                return Ok(Held {
                    first_word: first_word.unwrap_or_default(),
                    pending: 0,
                    answer: Some(answer),
                });
            }
        }
    }
    let stream = answer.body();
    let Some(first_word) = first_word.filter(|_| stream.starts_with(b"PROCESSING")) else {
        return Err(silent("a head and no word"));
    };
    Ok(Held {
        first_word,
        pending: memchr::memmem::find_iter(&stream, b"PENDING").count(),
        answer: Tagged::read(&stream).map(|_whole| answer),
    })
}

fn cut(failure: &crate::outlook::Failure) -> Trouble {
    Trouble::new(
        "a wait that is held",
        failure.to_string(),
        "something between cuts connections that are quiet: it must bear 5 minutes with a sign of life every 30 s",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outlook::Target;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_wait_whose_answer_does_not_end_is_given_up_after_a_mebibyte() {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target {
            address: socket.local_addr().unwrap(),
            host: "mbx1.contoso.test".to_owned(),
            tls: None,
        };
        let endless = tokio::spawn(async move {
            let (mut tcp, _) = socket.accept().await.unwrap();
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-ResponseCode: 0\r\n\r\n";
            tcp.write_all(head.as_bytes()).await.unwrap();
            let chunk = [b"1000\r\n".as_slice(), &[b'P'; 4096], b"\r\n"].concat();
            let mut said = 0_u64;
            // Until nobody listens; far beyond the bound somebody has kept it all.
            while said < 64 * 1024 * 1024 && tcp.write_all(&chunk).await.is_ok() {
                said += chunk.len() as u64;
            }
            said
        });
        let mut line = Line::connect(&target).await.unwrap();

        let trouble = held(&mut line, Duration::from_secs(60)).await.err();
        drop(line);

        assert_eq!(trouble.unwrap().came, "more than 1048576 bytes");
        assert!(endless.await.unwrap() < 64 * 1024 * 1024);
    }
}
