//! What one request was and what it cost, settled when its future ends or is dropped.

use crate::accounting::usage::{CLIENT_MAX, Names, Used};
use crate::accounting::{Bytes, cpu_so_far, glance};
use crate::config::settings::Scheme;
use crate::ids::{RequestId, UserName};
use crate::journal::Entry;
use crate::mapi::{Endpoint, RequestType, ResponseCode};
use crate::metrics::{Counted, Finished, Outcome};
use crate::refusal::Refusal;
use crate::runtime::Runtime;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

/// What the access line and the metrics want to know. Kept small: a held poll keeps one for minutes.
#[derive(Debug)]
pub(crate) struct Bill<'d> {
    runtime: &'d Runtime,
    pub(crate) id: RequestId,
    client: SocketAddr,
    client_reused: bool,
    pub(crate) time: SystemTime,
    pub(crate) began: Instant,
    /// The clock when it was last read: good enough where a few microseconds do not matter.
    pub(crate) clock: Instant,
    before: Ledger,
    is_settled: bool,
    pub(crate) endpoint: Option<Endpoint>,
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
    pub(crate) head: Bytes,
    pub(crate) body: Bytes,
    pub(crate) backend: Bytes,
    pub(crate) server_reused: bool,
    _in_flight: Counted,
}

/// What a connection has cost up to now. Requests are billed from one reading to the next, so that
/// reading a request's first bytes is charged to it and nothing is charged twice.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ledger {
    /// Bytes on the client's wire.
    pub(crate) tls: Bytes,
    /// Nanoseconds of the connection's task.
    pub(crate) cpu_ns: u64,
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
        client_reused: bool,
        before: Ledger,
        now: (Instant, SystemTime),
    ) -> Self {
        Self {
            runtime,
            id: runtime.next_request(),
            client,
            client_reused,
            time: now.1,
            began: now.0,
            clock: now.0,
            before,
            is_settled: false,
            endpoint: None,
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
            head: Bytes::default(),
            body: Bytes::default(),
            backend: Bytes::default(),
            server_reused: false,
            _in_flight: runtime.metrics.request_started(),
        }
    }

    /// Keeps what must outlive the head's buffer, each cut at a length no honest client reaches: X-RequestId,
    /// X-ClientInfo, MailboxId; host and program only where a log tells them, and the program's own name
    /// for itself where usage is counted.
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

    /// Nanoseconds of processor time up to now. One clock read.
    pub(crate) fn cpu_ns_so_far(&self) -> u64 {
        glance().saturating_sub(self.before.cpu_ns)
    }

    /// Settles it as it stands.
    pub(crate) fn settle(mut self, after: Ledger, ended: Instant) {
        self.is_settled = true;
        self.book(after, ended);
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
    fn book(&self, after: Ledger, ended: Instant) {
        let total = ended.saturating_duration_since(self.began);
        let cpu = Duration::from_nanos(after.cpu_ns.saturating_sub(self.before.cpu_ns));
        let tls = after.tls.since(self.before.tls);
        let refusal = self.refusal.as_deref();
        let metrics = &self.runtime.metrics;
        match (self.endpoint, self.request_type) {
            (Some(endpoint), Some(request_type)) => metrics.request_finished(&Finished {
                endpoint,
                request_type,
                outcome: self.outcome,
                code: self.code,
                refusal,
                total,
                first_byte: self.first_byte,
                cpu,
                client_bytes: tls,
                backend_bytes: self.backend,
            }),
            // Nothing that MAPI knows was asked for.
            _ => {
                metrics.bytes(tls, self.backend);
                if let Some(refusal) = refusal {
                    metrics.refused(refusal);
                }
            }
        }
        let route = self.route.as_ref();
        self.runtime.usage.charge(
            &Names {
                user: self.user.as_ref().map_or("", UserName::as_str),
                mailbox: route.map_or("", |route| route.mailbox.as_str()),
                client: self.text(CLIENT),
                database: route.map_or("", |route| route.database.as_str()),
            },
            Used::of_request(cpu, tls),
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
            request_type: self.request_type,
            request_id: self.request_id(),
            client_info: self.client_info(),
            mailbox: self.text(2),
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
            head: self.head,
            body: self.body,
            tls,
            backend: self.backend,
            client_reused: self.client_reused,
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
            // Its future was dropped in mid-request: what its connection knew last has to do.
            let dropped = Ledger {
                cpu_ns: cpu_so_far(),
                ..self.before
            };
            self.book(dropped, Instant::now());
        }
    }
}

/// Texts kept, and where those stand that are not always kept.
const TEXTS: usize = 6;
const HOST: usize = 3;
const USER_AGENT: usize = 4;
const CLIENT: usize = 5;
/// Bytes kept of a text the client wrote.
const TEXT_MAX: usize = 128;
