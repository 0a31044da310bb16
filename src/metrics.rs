//! Every Prometheus family, a field with typed methods.
//!
//! A label comes from a closed list or from the configuration; a user, a mailbox or an address is
//! never one. What a request touches is resolved to its counters beforehand, so that it costs a few
//! atomic additions and no look-up.

mod http2;
mod labels;
mod ldap;
mod ledger;
mod process;
mod requests;
mod servers;
mod vdirs;

pub use labels::{
    AuthOutcome, ChannelEnd, ConnectOutcome, DirectoryLook, HandshakeOutcome, Http2Code, Label,
    LdapOperation, LdapOutcome, Outcome, PollEnd, ReloadEnd, RetryReason, Side, TicketOutcome,
    Told,
};
pub use ldap::{LdapMeters, LdapPool, LdapTimer};
pub use ledger::{Account, Asked, LegSide};
pub use requests::Finished;
pub use servers::ServerMeters;

pub use crate::accounting::Bytes;
use crate::accounting::{Kind, Ledger, Phase, Unbilled};
use crate::autodiscover::Dialect;
use crate::config::settings::Scheme;
use crate::health::Ward;
use crate::ids::{Epoch, Generation, ServerName};
use crate::mapi::Endpoint;
use crate::refusal::Refusal;
use crate::rpch::Verb;
use crate::vdir::Vdir;
use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter,
    IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use requests::RequestMeters;
use servers::ServerFamilies;
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// All families of the process. One per process; shared by reference.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: RequestMeters,
    vdirs: vdirs::VdirFamilies,
    http2: http2::Http2Families,
    pending_gap: PerEndpoint<Histogram>,
    sessions: IntGauge,
    session_moves: IntCounter,
    session_table_full: IntCounter,
    refusals: Vec<IntCounter>,
    requests_in_flight: IntGauge,
    connections_open: IntGauge,
    connections_accepted: IntCounter,
    handshakes: [Counters<HandshakeOutcome>; 2],
    handshake_seconds: Histogram,
    /// No scheme, then each by its index.
    auth: Vec<Counters<AuthOutcome>>,
    auth_verifications: IntCounter,
    /// Users, then sources.
    guard_trips: [IntCounter; 2],
    guard_tripped: [IntGauge; 2],
    guard_delayed: IntGauge,
    guard_delays: [IntCounter; 2],
    auth_handshakes_open: IntGauge,
    auth_handshakes_refused: [IntCounter; 2],
    key_fetches: IntCounterVec,
    keys: IntGaugeVec,
    keys_fetched_time: GaugeVec,
    known_issuers: Mutex<BTreeSet<String>>,
    probe_success: IntGaugeVec,
    probe_seconds: GaugeVec,
    /// Names and steps of what is told of probes.
    known_probes: Mutex<BTreeSet<(String, &'static str)>>,
    fence_trips: IntCounter,
    tickets: Counters<TicketOutcome>,
    pinned: IntGauge,
    ldap: LdapMeters,
    servers: ServerFamilies,
    retries: Counters<RetryReason>,
    /// By dialect.
    told: [Counters<Told>; 3],
    /// By direction.
    channels: [IntGauge; 2],
    channels_ended: [Counters<ChannelEnd>; 2],
    virtual_connections: IntGauge,
    held_polls: IntGauge,
    polls_ended: Counters<PollEnd>,
    copies_read_time: Gauge,
    copies_left_out: IntGauge,
    databases_left_out: IntGauge,
    placement_epoch: IntGauge,
    config_generation: IntGauge,
    reload_successful: IntGauge,
    reload_success_time: Gauge,
    reloads: Counters<ReloadEnd>,
    certificates: IntGaugeVec,
    access_dropped: IntCounter,
    http_proxy_dropped: IntCounter,
    operator_dropped: IntCounter,
    ledger: ledger::LedgerFamilies,
    process: process::ProcessFamilies,
}

/// One of something per endpoint.
type PerEndpoint<T> = [T; 2];

impl Metrics {
    /// All families at zero. `version` is what `mapigate_build_info` says.
    pub fn new(version: &str) -> Self {
        let families = Families {
            registry: Registry::new(),
        };
        let build = families.gauges("build_info", "Always 1; what is running.", &["version"]);
        build.with_label_values(&[version]).set(1);
        let handshakes = families.counters(
            "tls_handshakes_total",
            "TLS handshakes with clients.",
            &["outcome", "resumed"],
        );
        let auth = families.counters(
            "auth_total",
            "Requests by how the client proved who it is.",
            &["scheme", "outcome"],
        );
        let guard_trips = families.counters(
            "auth_guard_trips_total",
            "Users and sources of whom so many passwords were wrong that further ones are refused unasked.",
            &["by"],
        );
        let guard_tripped = families.gauges(
            "auth_guard_tripped",
            "Users and sources whose passwords are refused unasked now.",
            &["by"],
        );
        let guard_delays = families.counters(
            "auth_guard_delays_total",
            "Answers to whom the lockout guard refused, held back or not for want of a place.",
            &["outcome"],
        );
        let handshakes_refused = families.counters(
            "auth_handshakes_refused_total",
            "Handshakes of negotiate and ntlm that were not begun, because too many of one source or of all were half done.",
            &["by"],
        );
        let refusals = families.counters(
            "refusals_total",
            "Requests we ended ourselves, by reason.",
            &["reason"],
        );
        let told = families.counters(
            "autodiscover_requests_total",
            "What clients that looked for their mailbox were told.",
            &["dialect", "told"],
        );
        let channels = families.gauges(
            "channels_open",
            "Channels of Outlook Anywhere open to a mailbox server.",
            &["direction"],
        );
        let channels_ended = families.counters(
            "channels_ended_total",
            "How channels of Outlook Anywhere ended.",
            &["direction", "reason"],
        );
        let gap = families.histograms(
            "mapi_pending_gap_seconds",
            "Time between two signs of life of a held poll.",
            &["endpoint"],
            &[1.0, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0],
        );
        Self {
            requests: RequestMeters::new(&families),
            vdirs: vdirs::VdirFamilies::new(&families),
            http2: http2::Http2Families::new(&families),
            pending_gap: Endpoint::ALL.map(|e| gap.with_label_values(&[e.as_str()])),
            sessions: families.gauge("mapi_sessions", "Sessions in the table."),
            session_moves: families.counter(
                "mapi_session_moves_total",
                "Sessions told to connect again because their database moved.",
            ),
            session_table_full: families.counter(
                "mapi_session_table_full_total",
                "Sessions not remembered because the table was at sessions.capacity.",
            ),
            refusals: Refusal::LABELS
                .iter()
                .map(|label| refusals.with_label_values(&[label]))
                .collect(),
            requests_in_flight: families.gauge("requests_in_flight", "Requests under way."),
            connections_open: families.gauge("connections_open", "Client connections open."),
            connections_accepted: families
                .counter("connections_accepted_total", "Client connections accepted."),
            handshakes: ["false", "true"]
                .map(|resumed| Counters::of(|o| handshakes.with_label_values(&[o, resumed]))),
            handshake_seconds: families.histogram(
                "tls_handshake_seconds",
                "Time from accept to a finished TLS handshake.",
                &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0],
            ),
            auth: std::iter::once("none")
                .chain(Scheme::ALL.iter().map(|scheme| scheme.as_str()))
                .map(|scheme| Counters::of(|o| auth.with_label_values(&[scheme, o])))
                .collect(),
            auth_verifications: families.counter(
                "auth_verifications_total",
                "Credentials verified because no cache knew them.",
            ),
            guard_trips: ["user", "source"].map(|by| guard_trips.with_label_values(&[by])),
            guard_tripped: ["user", "source"].map(|by| guard_tripped.with_label_values(&[by])),
            guard_delayed: families.gauge(
                "auth_guard_delayed",
                "Answers held back now.",
            ),
            guard_delays: ["held", "shed"].map(|how| guard_delays.with_label_values(&[how])),
            auth_handshakes_open: families.gauge(
                "auth_handshakes_open",
                "Handshakes of negotiate and ntlm that are half done.",
            ),
            auth_handshakes_refused: ["source", "all"]
                .map(|by| handshakes_refused.with_label_values(&[by])),
            key_fetches: families.counters(
                "token_key_fetches_total",
                "Fetches of an identity provider's keys.",
                &["issuer", "outcome"],
            ),
            keys: families.gauges(
                "token_keys",
                "Keys of an identity provider that verify tokens.",
                &["issuer"],
            ),
            keys_fetched_time: families.floats(
                "token_keys_fetched_timestamp_seconds",
                "When the keys of an identity provider were last fetched, in seconds since 1970.",
                &["issuer"],
            ),
            known_issuers: Mutex::default(),
            probe_success: families.gauges(
                "probe_success",
                "1 if the step of a probe went well when it was last run, 0 if it failed or could not be tried.",
                &["probe", "step"],
            ),
            probe_seconds: families.floats(
                "probe_duration_seconds",
                "How long the step of a probe took when it was last tried.",
                &["probe", "step"],
            ),
            known_probes: Mutex::default(),
            fence_trips: families.counter(
                "identity_fence_trips_total",
                "Server connections closed because a second identity was about to use them. Never 0 means a bug.",
            ),
            tickets: families.counters_of(
                "delegation_tickets_total",
                "Tickets in users' names that were asked for.",
                "outcome",
            ),
            pinned: families.gauge(
                "pinned_connections",
                "Server connections that one client connection owns.",
            ),
            ldap: LdapMeters::new(&families),
            servers: ServerFamilies::new(&families),
            retries: families.counters_of(
                "retries_total",
                "Requests sent on another connection, no byte having been written.",
                "reason",
            ),
            told: Dialect::ALL.map(|dialect| {
                Counters::of(|word| told.with_label_values(&[dialect.as_str(), word]))
            }),
            channels: Verb::ALL.map(|verb| channels.with_label_values(&[verb.word()])),
            channels_ended: Verb::ALL.map(|verb| {
                Counters::of(|reason| channels_ended.with_label_values(&[verb.word(), reason]))
            }),
            virtual_connections: families.gauge(
                "virtual_connections",
                "Virtual connections of Outlook Anywhere in the table.",
            ),
            held_polls: families.gauge("held_polls", "NotificationWaits held open."),
            polls_ended: families.counters_of("polls_ended_total", "How held polls ended.", "reason"),
            placement_epoch: families.gauge(
                "placement_epoch",
                "Changes of the database map since the start.",
            ),
            copies_read_time: families.float(
                "copies_read_timestamp_seconds",
                "When the directory service last told of the copies of databases, in seconds since 1970; 0: never.",
            ),
            copies_left_out: families.gauge(
                "copies_left_out",
                "Copies of databases on servers of the directory that are not in the configuration.",
            ),
            databases_left_out: families.gauge(
                "databases_left_out",
                "Databases of the directory that have no home here.",
            ),
            config_generation: families
                .gauge("config_generation", "Configurations accepted since the start."),
            reload_successful: families.gauge(
                "config_last_reload_successful",
                "1 if the last reload was accepted, 0 if the old configuration was kept.",
            ),
            reload_success_time: families.float(
                "config_last_reload_success_timestamp_seconds",
                "When a configuration was last accepted, in seconds since 1970.",
            ),
            reloads: families.counters_of("reloads_total", "Reloads asked for.", "outcome"),
            certificates: families.gauges(
                "tls_certificate_not_after_timestamp_seconds",
                "When a listener's certificate expires, in seconds since 1970.",
                &["name"],
            ),
            access_dropped: families.counter(
                "access_log_dropped_total",
                "Access lines lost because the disk or the pipe did not keep up.",
            ),
            http_proxy_dropped: families.counter(
                "http_proxy_log_dropped_total",
                "Rows for Log Parser lost because the disk did not keep up.",
            ),
            operator_dropped: families.counter(
                "operator_log_dropped_total",
                "Lines of the operator's log lost because the reader of standard error did not keep up.",
            ),
            ledger: ledger::LedgerFamilies::new(&families),
            process: process::ProcessFamilies::new(&families),
            registry: families.registry,
        }
    }

    /// The text a Prometheus server reads. The process' own figures are read now.
    pub fn render(&self) -> String {
        self.process.refresh();
        self.ledger.refresh();
        let mut text = String::with_capacity(256 * 1024);
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            // Every family is well formed by construction; what was written so far is still of use.
            tracing::error!(%error, "metrics could not be rendered in full");
        }
        text
    }

    /// The media type of [`Self::render`].
    pub const CONTENT_TYPE: &'static str = prometheus::TEXT_FORMAT;

    // requests

    /// A request is under way until the guard is dropped.
    pub fn request_started(&self) -> Counted {
        Counted::new(&self.requests_in_flight)
    }

    /// Books a request that has ended, however it ended.
    pub fn request_finished(&self, facts: &Finished<'_>) {
        self.requests.book(facts);
        if let Some(refusal) = facts.refusal {
            self.refused(refusal);
        }
    }

    /// Counts a refusal that has no MAPI request around it, as a malformed head has none.
    pub fn refused(&self, refusal: &Refusal) {
        let label = refusal.label();
        let position = Refusal::LABELS.iter().position(|known| *known == label);
        if let Some(counter) = position.and_then(|index| self.refusals.get(index)) {
            counter.inc();
        }
    }

    /// Books a request to another virtual directory that has ended, however it ended.
    pub fn vdir_finished(
        &self,
        vdir: Vdir,
        outcome: Outcome,
        total: Duration,
        refusal: Option<&Refusal>,
    ) {
        self.vdirs.book(vdir, outcome, total);
        if let Some(refusal) = refusal {
            self.refused(refusal);
        }
    }

    /// Which servers serve which of the other virtual directories, replacing what was known before.
    pub fn set_vdirs_up<'a>(&self, all: impl IntoIterator<Item = (&'a ServerName, Ward, bool)>) {
        self.vdirs.set_up(all);
    }

    // accounts

    /// A request's bytes.
    pub fn request_bytes(&self, asked: impl Into<Asked>, ledger: &Ledger) {
        self.ledger.books.request(asked.into(), ledger);
    }

    /// Bytes of a handshake, or others that belong to no request.
    pub fn bytes_beside(&self, leg: LegSide, kind: Kind, bytes: Bytes) {
        self.ledger.books.beside(leg, kind, bytes);
    }

    /// Who takes what a connection carries beside its requests, when it is gone.
    pub fn unbilled(&self, leg: LegSide) -> Option<Arc<dyn Unbilled>> {
        self.ledger.unbilled(leg)
    }

    /// Processor time spent, in nanoseconds.
    pub fn cpu(&self, account: Account, nanoseconds: u64) {
        self.ledger.books.cpu(account, nanoseconds);
    }

    /// Processor time of a request's phase, in nanoseconds, scaled where only some requests are looked at.
    pub fn cpu_phase(&self, asked: impl Into<Asked>, phase: Phase, nanoseconds: u64) {
        self.ledger.books.phase(asked.into(), phase, nanoseconds);
    }

    /// Time since the last sign of life of a held poll.
    pub fn pending_gap(&self, endpoint: Endpoint, gap: Duration) {
        if let Some(histogram) = self.pending_gap.get(endpoint.index()) {
            histogram.observe(gap.as_secs_f64());
        }
    }

    /// A request goes to another connection, no byte of it having been written.
    pub fn retried(&self, reason: RetryReason) {
        self.retries.inc(reason);
    }

    /// What a client that looked for its mailbox was told.
    pub fn told(&self, dialect: Dialect, what: Told) {
        if let Some(counters) = self.told.get(dialect.index()) {
            counters.inc(what);
        }
    }

    // held polls

    /// A NotificationWait is held open until the guard is dropped.
    pub fn poll_held(&self) -> Counted {
        Counted::new(&self.held_polls)
    }

    /// How a held poll ended.
    pub fn poll_ended(&self, reason: PollEnd) {
        self.polls_ended.inc(reason);
    }

    /// NotificationWaits held open now.
    pub fn held_polls(&self) -> u64 {
        count(&self.held_polls)
    }

    // channels

    /// A channel is open to a server until the guard is dropped.
    pub fn channel_opened(&self, verb: Verb) -> Option<Counted> {
        self.channels.get(verb.index()).map(Counted::new)
    }

    /// How a channel ended.
    pub fn channel_ended(&self, verb: Verb, reason: ChannelEnd) {
        if let Some(counters) = self.channels_ended.get(verb.index()) {
            counters.inc(reason);
        }
    }

    /// Virtual connections in the table now.
    pub fn set_virtual_connections(&self, count: usize) {
        self.virtual_connections.set(clamp(count));
    }

    // sessions

    /// Sessions in the table now.
    pub fn set_sessions(&self, sessions: usize) {
        self.sessions.set(clamp(sessions));
    }

    /// A session was told to connect again because its database moved.
    pub fn session_moved(&self) {
        self.session_moves.inc();
    }

    /// A session was not remembered because the table is full.
    pub fn session_table_full(&self) {
        self.session_table_full.inc();
    }

    // connections

    /// A client connection was accepted; it is open until the guard is dropped.
    pub fn connection_accepted(&self) -> Counted {
        self.connections_accepted.inc();
        Counted::new(&self.connections_open)
    }

    /// Client connections open now.
    pub fn connections_open(&self) -> u64 {
        count(&self.connections_open)
    }

    /// Requests under way now.
    pub fn requests_in_flight(&self) -> u64 {
        count(&self.requests_in_flight)
    }

    /// A client connection speaks HTTP/2 until the guard is dropped.
    pub fn http2_connection(&self) -> Counted {
        self.http2.connections_total.inc();
        Counted::new(&self.http2.connections)
    }

    /// A request came by HTTP/2; it is under way until the guard is dropped.
    pub fn http2_stream(&self) -> Counted {
        self.http2.streams_total.inc();
        Counted::new(&self.http2.streams)
    }

    /// A stream was broken off with this code.
    pub fn http2_reset(&self, by: Side, code: u32) {
        self.http2.reset(by, code);
    }

    /// A connection was taken leave of with this code.
    pub fn http2_goaway(&self, by: Side, code: u32) {
        self.http2.goaway(by, code);
    }

    /// A TLS handshake with a client ended after `took`.
    pub fn handshake(&self, outcome: HandshakeOutcome, resumed: bool, took: Duration) {
        if let Some(counters) = self.handshakes.get(usize::from(resumed)) {
            counters.inc(outcome);
        }
        if outcome == HandshakeOutcome::Ok {
            self.handshake_seconds.observe(took.as_secs_f64());
        }
    }

    // authentication

    /// How a request proved who asks; `None` where it carried no credentials of a known scheme.
    pub fn auth(&self, scheme: Option<Scheme>, outcome: AuthOutcome) {
        let index = scheme.map_or(0, |scheme| 1 + scheme.index());
        if let Some(counters) = self.auth.get(index) {
            counters.inc(outcome);
        }
    }

    /// A credential was verified.
    pub fn auth_verified(&self) {
        self.auth_verifications.inc();
    }

    /// What the lockout guard knows: users and sources that came to be refused since this was last told,
    /// those that are refused now, answers held back now.
    pub fn set_guard(&self, trips: [u64; 2], tripped: [usize; 2], delayed: usize) {
        for (counter, trips) in self.guard_trips.iter().zip(trips) {
            counter.inc_by(trips);
        }
        for (gauge, tripped) in self.guard_tripped.iter().zip(tripped) {
            gauge.set(clamp(tripped));
        }
        self.guard_delayed.set(clamp(delayed));
    }

    /// Handshakes that are half done now, and those that were refused for it since this was last told, by source and
    /// by all together.
    pub fn set_handshakes(&self, open: usize, refused: [u64; 2]) {
        self.auth_handshakes_open.set(clamp(open));
        for (counter, refused) in self.auth_handshakes_refused.iter().zip(refused) {
            counter.inc_by(refused);
        }
    }

    /// An answer to somebody the guard refused; false where it was not held back.
    pub fn guard_delay(&self, is_held: bool) {
        let [held, shed] = &self.guard_delays;
        if is_held { held.inc() } else { shed.inc() }
    }

    /// The keys of an identity provider were fetched; `now` is in seconds since 1970.
    pub fn keys_fetched(&self, issuer: &str, keys: usize, now: f64) {
        self.key_fetches.with_label_values(&[issuer, "ok"]).inc();
        self.set_keys(issuer, keys);
        self.keys_fetched_time.with_label_values(&[issuer]).set(now);
    }

    /// So many keys of an identity provider are known.
    pub fn set_keys(&self, issuer: &str, keys: usize) {
        self.keys.with_label_values(&[issuer]).set(clamp(keys));
    }

    /// The keys of an identity provider could not be fetched; those that are known stay.
    pub fn keys_not_fetched(&self, issuer: &str) {
        self.key_fetches
            .with_label_values(&[issuer, "failed"])
            .inc();
    }

    /// Forgets the issuers that are not in `issuers`; those that are there begin at zero.
    pub fn keep_issuers<'a>(&self, issuers: impl IntoIterator<Item = &'a str>) {
        let issuers: BTreeSet<String> = issuers.into_iter().map(str::to_owned).collect();
        let mut known = self.known_issuers.lock();
        for gone in known.difference(&issuers) {
            // What was never counted cannot be forgotten either.
            for outcome in FETCH_OUTCOMES {
                let _absent = self.key_fetches.remove_label_values(&[gone, outcome]);
            }
            let _absent = self.keys.remove_label_values(&[gone]);
            let _absent = self.keys_fetched_time.remove_label_values(&[gone]);
        }
        for issuer in &issuers {
            for outcome in FETCH_OUTCOMES {
                self.key_fetches.with_label_values(&[issuer, outcome]);
            }
            self.keys.with_label_values(&[issuer]);
        }
        *known = issuers;
    }

    /// What came of a step of a probe: `None` for one that is not tried at all. `took`: where it was tried.
    pub fn probed(
        &self,
        probe: &str,
        step: &'static str,
        success: Option<bool>,
        took: Option<Duration>,
    ) {
        let labels = &[probe, step];
        let Some(success) = success else {
            let _absent = self.probe_success.remove_label_values(labels);
            let _absent = self.probe_seconds.remove_label_values(labels);
            return;
        };
        self.known_probes.lock().insert((probe.to_owned(), step));
        self.probe_success
            .with_label_values(labels)
            .set(success.into());
        if let Some(took) = took {
            self.probe_seconds
                .with_label_values(labels)
                .set(took.as_secs_f64());
        }
    }

    /// Forgets the probes that are not in `probes`.
    pub fn keep_probes<'a>(&self, probes: impl IntoIterator<Item = &'a str>) {
        let probes: BTreeSet<&str> = probes.into_iter().collect();
        self.known_probes.lock().retain(|(probe, step)| {
            let stays = probes.contains(probe.as_str());
            if !stays {
                let labels = &[probe.as_str(), step];
                let _absent = self.probe_success.remove_label_values(labels);
                let _absent = self.probe_seconds.remove_label_values(labels);
            }
            stays
        });
    }

    /// A server connection was about to carry a second identity and was closed instead.
    pub fn identity_fence_tripped(&self) {
        self.fence_trips.inc();
    }

    /// A ticket in a user's name was asked for.
    pub fn ticket(&self, outcome: TicketOutcome) {
        self.tickets.inc(outcome);
    }

    /// A seat for a server connection that one client connection owns; `None` where all `most` are taken.
    pub fn pinned(&self, most: usize) -> Option<Counted> {
        let taken = u64::try_from(most).is_ok_and(|most| count(&self.pinned) >= most);
        (!taken).then(|| Counted::new(&self.pinned))
    }

    /// The counters of the directory service.
    pub fn ldap(&self) -> LdapMeters {
        self.ldap.clone()
    }

    // servers

    /// The counters of one mailbox server, at the cost of one look-up.
    pub fn server(&self, name: &ServerName) -> ServerMeters {
        self.servers.meters(name)
    }

    /// Forgets the servers that are not in `names`, so that a removed server is not reported for ever.
    pub fn keep_servers<'a>(&self, names: impl IntoIterator<Item = &'a ServerName>) {
        self.servers.keep(names);
    }

    /// Whether a server counts as up.
    pub fn set_server_up(&self, name: &ServerName, up: bool) {
        self.servers.set_up(name, up);
    }

    /// Requests under way to a server now.
    pub fn server_inflight(&self, name: &ServerName) -> u64 {
        self.servers.inflight(name)
    }

    // configuration

    /// The generation that new requests see.
    pub fn set_generation(&self, generation: Generation) {
        self.config_generation.set(clamp(generation.0));
    }

    /// The epoch of the database map that new requests see.
    pub fn set_placement_epoch(&self, epoch: Epoch) {
        self.placement_epoch.set(clamp(epoch.0));
    }

    /// When the directory told of copies last, since 1970, and what of it is left out.
    pub fn set_copies(&self, read: Duration, copies: usize, databases: usize) {
        self.copies_read_time.set(read.as_secs_f64());
        self.copies_left_out.set(clamp(copies as u64));
        self.databases_left_out.set(clamp(databases as u64));
    }

    /// A reload ended; `now` is in seconds since 1970.
    pub fn reloaded(&self, outcome: ReloadEnd, now: f64) {
        self.reloads.inc(outcome);
        let accepted = outcome != ReloadEnd::Rejected;
        self.reload_successful.set(i64::from(accepted));
        if accepted {
            self.reload_success_time.set(now);
        }
    }

    /// The first configuration was accepted, in seconds since 1970; not counted as a reload.
    pub fn started(&self, now: f64) {
        self.reload_successful.set(1);
        self.reload_success_time.set(now);
        self.process.set_start(now);
    }

    /// Names and expiry of the listeners' certificates, replacing what was known before.
    pub fn set_certificates<'a>(&self, certificates: impl IntoIterator<Item = (&'a str, i64)>) {
        self.certificates.reset();
        for (name, not_after) in certificates {
            self.certificates.with_label_values(&[name]).set(not_after);
        }
    }

    // logs

    /// The counter of lost access lines, for the journal.
    pub fn access_log_dropped(&self) -> Tally {
        Tally(self.access_dropped.clone())
    }

    /// The same for the files as Exchange's front end writes them.
    pub fn http_proxy_log_dropped(&self) -> Tally {
        Tally(self.http_proxy_dropped.clone())
    }

    /// The same for the operator's log.
    pub fn operator_log_dropped(&self) -> Tally {
        Tally(self.operator_dropped.clone())
    }
}

/// A counter that another room increases.
#[derive(Clone, Debug)]
pub struct Tally(IntCounter);

impl Tally {
    /// Adds to it.
    pub fn add(&self, more: u64) {
        self.0.inc_by(more);
    }

    /// Its value now.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// Counts as one in a gauge until it is dropped.
#[derive(Debug)]
pub struct Counted(IntGauge);

impl Counted {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The counters of a family with one closed label, by the label's position.
#[derive(Debug)]
struct Counters<L> {
    counters: Vec<IntCounter>,
    label: PhantomData<L>,
}

impl<L: Label> Counters<L> {
    fn of(resolve: impl Fn(&str) -> IntCounter) -> Self {
        Self {
            counters: L::ALL.iter().map(|label| resolve(label.as_str())).collect(),
            label: PhantomData,
        }
    }

    fn inc(&self, label: L) {
        if let Some(counter) = self.counters.get(label.index()) {
            counter.inc();
        }
    }
}

/// Makes families under our prefix and registers them.
struct Families {
    registry: Registry,
}

impl Families {
    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.registered(IntCounter::with_opts(options(name, help)))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.registered(IntCounterVec::new(options(name, help), labels))
    }

    fn counters_of<L: Label>(&self, name: &str, help: &str, label: &str) -> Counters<L> {
        let family = self.counters(name, help, &[label]);
        Counters::of(|word| family.with_label_values(&[word]))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.registered(IntGauge::with_opts(options(name, help)))
    }

    fn float_counter(&self, name: &str, help: &str) -> Counter {
        self.registered(Counter::with_opts(options(name, help)))
    }

    fn float_counters(&self, name: &str, help: &str, labels: &[&str]) -> CounterVec {
        self.registered(CounterVec::new(options(name, help), labels))
    }

    fn float(&self, name: &str, help: &str) -> Gauge {
        self.registered(Gauge::with_opts(options(name, help)))
    }

    fn floats(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.registered(GaugeVec::new(options(name, help), labels))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.registered(IntGaugeVec::new(options(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.registered(Histogram::with_opts(bucketed(name, help, buckets)))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        self.registered(HistogramVec::new(bucketed(name, help, buckets), labels))
    }

    #[expect(
        clippy::expect_used,
        reason = "names and labels are literals; the test renders every family"
    )]
    fn registered<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let family = made.expect("family names and labels are literals that Prometheus accepts");
        self.registry
            .register(Box::new(family.clone()))
            .expect("no family is registered twice");
        family
    }
}

fn options(name: &str, help: &str) -> Opts {
    // The names every dashboard knows for the process itself carry no product's prefix.
    match name.starts_with("process_") {
        true => Opts::new(name, help),
        false => Opts::new(name, help).namespace(PREFIX),
    }
}

fn bucketed(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::new(name, help)
        .namespace(PREFIX)
        .buckets(buckets.to_vec())
}

fn clamp(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

fn count(gauge: &IntGauge) -> u64 {
    u64::try_from(gauge.get()).unwrap_or(0)
}

/// What every family's name begins with.
const PREFIX: &str = "mapigate";
/// How a fetch of keys ends.
const FETCH_OUTCOMES: [&str; 2] = ["ok", "failed"];

#[cfg(test)]
mod tests;
