//! What one request was and what it cost, settled when its future ends or is dropped.

use crate::accounting::meter::{Look, enter, glance, looking, settle};
use crate::accounting::usage::{CLIENT_MAX, Names, Used};
use crate::accounting::{Bytes, Kind, Kinds, Ledger, Phase, Times, Wire};
use crate::autodiscover::Dialect;
use crate::backend::Leg;
use crate::config::settings::Scheme;
use crate::ids::{RequestId, UserName};
use crate::journal::Entry;
use crate::mapi::{Endpoint, RequestType, ResponseCode};
use crate::metrics::{Account, Asked, Counted, Finished, Outcome};
use crate::refusal::Refusal;
use crate::rpch;
use crate::runtime::Runtime;
use crate::vdir::{Vdir, Verb};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

/// What the access line and the metrics want to know. Kept small: a held poll keeps one for minutes.
#[derive(Debug)]
pub(crate) struct Bill<'d> {
    runtime: &'d Runtime,
    pub(crate) id: RequestId,
    client: SocketAddr,
    came: Came,
    pub(crate) time: SystemTime,
    pub(crate) began: Instant,
    /// The clock when it was last read: good enough where a few microseconds do not matter.
    pub(crate) clock: Instant,
    /// How closely it is measured, and for how many it stands.
    look: Look,
    /// Nanoseconds that verifying a credential took beside the worker: always counted, stands for itself.
    pub(crate) verification_ns: u64,
    handshake: Option<Box<Handshake>>,
    is_settled: bool,
    pub(crate) endpoint: Option<Endpoint>,
    /// Autodiscover, which is no endpoint of MAPI.
    pub(crate) dialect: Option<Dialect>,
    /// A channel of Outlook Anywhere, which is none either.
    pub(crate) channel: Option<rpch::Verb>,
    /// Another virtual directory, and the method it was asked with.
    pub(crate) vdir: Option<(Vdir, Verb)>,
    pub(crate) request_type: Option<RequestType>,
    pub(crate) user: Option<UserName>,
    pub(crate) scheme: Option<Scheme>,
    /// What the client wrote, one after the other, and where each ends.
    texts: Box<[u8]>,
    ends: [u16; TEXTS],
    pub(crate) route: Option<Routed>,
    pub(crate) tries: u32,
    pub(crate) status: u16,
    pub(crate) code: Option<ResponseCode>,
    pub(crate) outcome: Outcome,
    pub(crate) refusal: Option<Box<Refusal>>,
    pub(crate) auth: Duration,
    pub(crate) sent: Option<Instant>,
    pub(crate) first_byte: Option<Duration>,
    pub(crate) ledger: Ledger,
    /// The server's side of the ledger is what was on the wire.
    is_server_fitted: bool,
    pub(crate) server_reused: bool,
    _in_flight: Counted,
}

/// How a request came: whether by HTTP/2, and whether its connection had carried one before. One byte, where two
/// facts would be eight more of every held poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    First,
    Later,
    FirstByHttp2,
    LaterByHttp2,
}

/// What a connection's beginning cost; shown with its first request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handshake {
    /// Nanoseconds.
    pub(crate) cpu_ns: u64,
    pub(crate) bytes: Bytes,
}

/// What was measured of a request when it ended. Requests are billed from one reading to the next, so
/// that reading a request's first bytes is charged to it and nothing is charged twice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// What the client's stream has counted by itself: it came as something else than the text that was read.
    pub(crate) counted: Option<[Kinds; 2]>,
    /// What the connection's task has spent since the last request ended.
    pub(crate) times: Times,
    /// Bytes on the client's wire since then.
    pub(crate) wire: Bytes,
    pub(crate) is_tls: bool,
    pub(crate) ended: Instant,
}

/// Where it went.
#[derive(Debug)]
pub(crate) struct Routed {
    pub(crate) mailbox: crate::ids::MailboxId,
    pub(crate) database: crate::ids::DatabaseName,
    pub(crate) server: crate::ids::ServerName,
    pub(crate) reason: &'static str,
}

impl<'d> Bill<'d> {
    pub(crate) fn open(
        runtime: &'d Runtime,
        client: SocketAddr,
        came: Came,
        handshake: Option<Box<Handshake>>,
        now: (Instant, SystemTime),
    ) -> Self {
        Self {
            runtime,
            id: runtime.next_request(),
            client,
            came,
            time: now.1,
            began: now.0,
            clock: now.0,
            look: looking(),
            verification_ns: 0,
            handshake,
            is_settled: false,
            endpoint: None,
            dialect: None,
            channel: None,
            vdir: None,
            request_type: None,
            user: None,
            scheme: None,
            texts: Box::default(),
            ends: [0; TEXTS],
            route: None,
            tries: 0,
            status: 0,
            code: None,
            outcome: Outcome::Aborted,
            refusal: None,
            auth: Duration::ZERO,
            sent: None,
            first_byte: None,
            ledger: Ledger::default(),
            is_server_fitted: false,
            server_reused: false,
            _in_flight: runtime.metrics.request_started(),
        }
    }

    /// Keeps what must outlive the head's buffer, each cut at a length no honest client reaches: X-RequestId,
    /// X-ClientInfo, MailboxId; host and program only where a log tells them, the program's own name
    /// for itself where usage is counted; the path below another virtual directory.
    pub(crate) fn keep_texts(&mut self, mut given: [&[u8]; TEXTS]) {
        if !self.runtime.journal.tells_programs() {
            given[HOST] = &[];
            given[USER_AGENT] = &[];
        }
        let client = given[CLIENT];
        given[CLIENT] = match self.runtime.usage.is_on() {
            true => client.get(..CLIENT_MAX).unwrap_or(client),
            false => &[],
        };
        let given = given.map(|text| text.get(..TEXT_MAX).unwrap_or(text));
        let mut texts = Vec::with_capacity(given.iter().map(|text| text.len()).sum());
        for (text, end) in given.into_iter().zip(&mut self.ends) {
            texts.extend_from_slice(text);
            *end = u16::try_from(texts.len()).unwrap_or(u16::MAX);
        }
        self.texts = texts.into_boxed_slice();
    }

    /// `X-RequestId`, as the client wrote it.
    pub(crate) fn request_id(&self) -> &[u8] {
        self.text(0)
    }

    /// `X-ClientInfo`, as the client wrote it.
    pub(crate) fn client_info(&self) -> &[u8] {
        self.text(1)
    }

    fn text(&self, which: usize) -> &[u8] {
        let end_of = |which: usize| self.ends.get(which).copied().map_or(0, usize::from);
        let begin = which.checked_sub(1).map_or(0, end_of);
        self.texts.get(begin..end_of(which)).unwrap_or_default()
    }

    /// Nanoseconds of processor time up to now, where they are measured. One clock read.
    pub(crate) fn cpu_ns_so_far(&self) -> Option<u64> {
        glance().map(|spent| spent.saturating_add(self.verification_ns))
    }

    /// Takes what the server's leg has carried for this request.
    pub(crate) fn fit_server(&mut self, leg: &mut Leg) {
        let wire = leg.bill(0);
        let rest = rest(leg.is_tls());
        self.ledger.server_in.fit(wire.received, rest);
        self.ledger.server_out.fit(wire.sent, rest);
        self.is_server_fitted = true;
    }

    /// Settles it.
    pub(crate) fn settle(mut self, measured: Measured) {
        self.is_settled = true;
        let rest = rest(measured.is_tls);
        match measured.counted {
            Some([received, sent]) => {
                (self.ledger.client_in, self.ledger.client_out) = (received, sent);
            }
            None => {
                self.ledger.client_in.fit(measured.wire.received, rest);
                self.ledger.client_out.fit(measured.wire.sent, rest);
            }
        }
        if !self.is_server_fitted {
            (self.ledger.server_in, self.ledger.server_out) = Default::default();
        }
        self.book(&measured.times, measured.ended);
    }

    /// True while nothing is known of what was asked for.
    pub(crate) fn is_of_nothing(&self) -> bool {
        self.endpoint.is_none() && self.channel.is_none()
    }

    fn asked(&self) -> Asked {
        match (
            self.endpoint.zip(self.request_type),
            self.channel,
            self.vdir,
        ) {
            (None, Some(verb), _) => Asked::Channel(verb),
            (None, None, Some((vdir, _))) => Asked::Vdir(vdir),
            (asked, ..) => asked.into(),
        }
    }

    /// The path of a request to another virtual directory.
    fn path(&self) -> &[u8] {
        self.text(PATH)
    }

    /// Notes that we ended it ourselves.
    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        self.status = refusal.status();
        self.code = refusal.code();
        self.outcome = Outcome::Refused;
        self.refusal = Some(Box::new(refusal));
    }

    /// Notes that the server's answer broke off after the client had some of it.
    pub(crate) fn cut(&mut self, refusal: Refusal) {
        self.outcome = Outcome::Cut;
        self.refusal = Some(Box::new(refusal));
    }
}

impl Bill<'_> {
    fn book(&self, times: &Times, ended: Instant) {
        let total = ended.saturating_duration_since(self.began);
        let (look, beside) = (self.look, self.verification_ns);
        let spent = look
            .is_on()
            .then(|| times.of_request().saturating_add(beside));
        let cpu = spent.map(Duration::from_nanos);
        let estimate = look.scaled(times.of_request()).saturating_add(beside);
        let refusal = self.refusal.as_deref();
        let metrics = &self.runtime.metrics;
        let asked = self.asked();
        match asked {
            Asked::Mapi(endpoint, request_type) => metrics.request_finished(&Finished {
                endpoint,
                request_type,
                outcome: self.outcome,
                code: self.code,
                refusal,
                total,
                first_byte: self.first_byte,
                cpu,
                stands_for: look.stands_for(),
            }),
            Asked::Vdir(vdir) => metrics.vdir_finished(vdir, self.outcome, total, refusal),
            // Nothing that MAPI knows was asked for.
            Asked::Channel(_) | Asked::Other => {
                if let Some(refusal) = refusal {
                    metrics.refused(refusal);
                }
            }
        }
        metrics.request_bytes(asked, &self.ledger);
        metrics.cpu(Account::Request, look.scaled(times.of_request()));
        metrics.cpu(Account::Connection, look.scaled(times.of(Phase::Idle)));
        metrics.cpu_phase(asked, Phase::Auth, beside);
        if look.is_close() {
            for phase in Phase::OF_REQUESTS {
                metrics.cpu_phase(asked, phase, look.scaled_closely(times.of(phase)));
            }
        }
        enter(Phase::Log);
        let route = self.route.as_ref();
        let wire = Bytes {
            received: self.ledger.client_in.total(),
            sent: self.ledger.client_out.total(),
        };
        self.runtime.usage.charge(
            &Names {
                user: self.user.as_ref().map_or("", UserName::as_str),
                mailbox: route.map_or("", |route| route.mailbox.as_str()),
                client: self.text(CLIENT),
                database: route.map_or("", |route| route.database.as_str()),
            },
            Used::of_request(Duration::from_nanos(estimate), wire),
        );
        if !self.runtime.journal.is_on() {
            return;
        }
        self.runtime.journal.write(&Entry {
            time: self.time,
            id: self.id,
            client: self.client,
            user: self.user.as_ref().map_or("", UserName::as_str),
            scheme: self.scheme,
            endpoint: self.endpoint,
            dialect: self.dialect,
            channel: self.channel,
            vdir: self.vdir,
            path: self.path(),
            request_type: self.request_type,
            request_id: self.request_id(),
            client_info: self.client_info(),
            mailbox: match (self.vdir, route) {
                (Some(_), Some(route)) => route.mailbox.as_str().as_bytes(),
                _ => self.text(2),
            },
            host: self.text(HOST),
            user_agent: self.text(USER_AGENT),
            database: route.map_or("", |route| route.database.as_str()),
            server: route.map_or("", |route| route.server.as_str()),
            route: route.map_or("", |route| route.reason),
            tries: self.tries,
            status: self.status,
            code: self.code,
            ending: self.outcome,
            refusal,
            auth: self.auth,
            first_byte: self.first_byte,
            total,
            cpu,
            phases: look.is_close().then_some(times),
            handshake: self.handshake.as_deref().map(|handshake| {
                let cpu = Duration::from_nanos(handshake.cpu_ns);
                (cpu, handshake.bytes)
            }),
            ledger: &self.ledger,
            is_http2: matches!(self.came, Came::FirstByHttp2 | Came::LaterByHttp2),
            client_reused: matches!(self.came, Came::Later | Came::LaterByHttp2),
            server_reused: self.server_reused,
        });
    }
}

impl Drop for Bill<'_> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a bill that nobody settled is settled when it is dropped"
    )]
    fn drop(&mut self) {
        if !self.is_settled {
            // Its future was dropped in mid-request. Its bytes are booked by the legs it left.
            self.ledger = Ledger::default();
            self.book(&settle(), Instant::now());
        }
    }
}

/// What the bytes of a leg are that nobody looked at.
fn rest(is_tls: bool) -> Kind {
    match is_tls {
        true => Kind::Tls,
        false => Kind::Payload,
    }
}

/// Texts kept, and where those stand that are not always kept.
const TEXTS: usize = 7;
const HOST: usize = 3;
const USER_AGENT: usize = 4;
const CLIENT: usize = 5;
const PATH: usize = 6;
/// Bytes kept of a text the client wrote.
const TEXT_MAX: usize = 128;
