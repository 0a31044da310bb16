//! What came out, for people and for programs.

use super::kinds::{Kinds, more_percent};
use serde::Serialize;

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// The version that was measured.
    pub version: &'static str,
    /// How long it took.
    pub seconds: f64,
    /// Rounds of the processor's account.
    pub rounds: usize,
    /// Bytes for the same work, the session being open.
    pub work: Vec<WorkFacts>,
    /// Bytes until a session is open, and after a cut.
    pub sessions: Vec<SessionFacts>,
    /// Bytes until a transfer is complete that the network has interrupted.
    pub interrupted: Vec<InterruptedFacts>,
    /// Connections.
    pub connections: Vec<ConnectionFacts>,
    /// Processor time of the front end.
    pub cpu: Vec<CpuFacts>,
    /// The arithmetic of longer credentials against a measurement.
    pub check: Check,
    /// Bytes that mapigate adds to one exchange, both ways together: the average packet through it, less the same
    /// without it. Its sealed route cookie, mostly.
    pub mapigate_adds: i64,
    /// Beside the published figures.
    pub published: Vec<Claim>,
    /// How it was measured, and what was not.
    pub notes: Vec<String>,
}

/// Some work in all protocols.
#[derive(Clone, Debug, Serialize)]
pub struct WorkFacts {
    /// What people call it.
    pub name: &'static str,
    /// Executes, or calls of `EcDoRpcExt2`.
    pub executes: usize,
    /// Bytes of ROP buffers, both ways together: the same in every row.
    pub payload: u64,
    /// SHA-256 of them: the same in every row.
    pub digest: String,
    /// By protocol.
    pub rows: Vec<Row>,
}

/// Some work in one protocol.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `rpc_http`, `rpc_http_sealed`, `mapi_http`.
    pub protocol: &'static str,
    /// `basic`, `bearer`, `kerberos`; in RPC over HTTP credentials are sent when a channel opens, not here.
    pub authorization: &'static str,
    /// False where it was computed from the measured row with Basic.
    pub is_measured: bool,
    /// HTTP requests.
    pub requests: u64,
    /// By the client.
    pub sent: Kinds,
    /// To the client.
    pub received: Kinds,
    /// TLS records, both ways.
    pub records: u64,
    /// All bytes of both directions, as the kinds say.
    pub wire: u64,
    /// Bytes that the sockets carried; in a computed row what they would.
    pub carried: u64,
    /// Bytes that mapigate itself says it carried, in the row measured through it.
    pub mapigate_counted: Option<u64>,
    /// Bytes on the wire beside the payload, in percent of it.
    pub overhead_percent: f64,
    /// Bytes on the wire more than RPC over HTTP, in percent of that.
    pub more_than_rpc_percent: f64,
}

impl Row {
    /// Both directions.
    pub fn total(&self) -> Kinds {
        self.sent + self.received
    }
}

impl WorkFacts {
    /// The row of a protocol and credential.
    pub fn row(&self, protocol: &str, authorization: &str) -> Option<&Row> {
        self.rows
            .iter()
            .find(|row| (row.protocol, row.authorization) == (protocol, authorization))
    }

    /// Fills in how much more each row is than plain RPC over HTTP.
    pub(super) fn compared(mut self) -> Self {
        let rpc = self.row(RPC, BASIC).map_or(0, |row| row.wire);
        for row in &mut self.rows {
            row.more_than_rpc_percent = more_percent(row.wire, rpc);
        }
        self
    }
}

/// Opening a session, or coming back to one, in one protocol.
#[derive(Clone, Debug, Serialize)]
pub struct SessionFacts {
    /// `opened`, `resumed`, `rebuilt`.
    pub what: &'static str,
    /// `rpc_http` or `mapi_http`.
    pub protocol: &'static str,
    /// HTTP requests.
    pub requests: u64,
    /// TCP connections.
    pub connections: u64,
    /// Bytes of both directions, TLS handshakes included, with Basic.
    pub wire: u64,
    /// Of which inside of TLS.
    pub plain: u64,
    /// The same with a bearer token.
    pub wire_bearer: u64,
    /// The same with a Kerberos ticket once per connection.
    pub wire_kerberos: u64,
}

/// The 10 MB sync, cut off by the network at half: what is carried afterwards until all of it is there.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct InterruptedFacts {
    /// `rpc_http` or `mapi_http`.
    pub protocol: &'static str,
    /// Executes that were needed afterwards.
    pub executes: usize,
    /// Bytes of both directions, TLS handshakes included, with Basic.
    pub wire: u64,
}

/// Connections of one session at work.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ConnectionFacts {
    /// `rpc_http` or `mapi_http`.
    pub protocol: &'static str,
    /// That stay open as long as the session is to be told of events.
    pub long: usize,
    /// The most beside them.
    pub short_peak: usize,
}

/// Processor time of some work, in microseconds: medians of all rounds.
#[derive(Clone, Debug, Serialize)]
pub struct CpuFacts {
    /// What people call it.
    pub name: String,
    /// mapigate carries MAPI over HTTP.
    pub mapigate_us: f64,
    /// The stand-in carries RPC over HTTP.
    pub tunnel_rpc_us: f64,
    /// The stand-in carries MAPI over HTTP.
    pub tunnel_mapi_us: f64,
    /// mapigate more than the stand-in with RPC over HTTP, in percent: median of the rounds' own ratios.
    pub more_percent: f64,
    /// The stand-in with MAPI over HTTP more than with RPC over HTTP, in percent, likewise.
    pub protocol_more_percent: f64,
}

/// The arithmetic of longer credentials against a measurement: some work through mapigate with a header that makes each
/// request as long as a bearer token would.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Check {
    /// Bytes computed.
    pub computed: u64,
    /// Bytes carried.
    pub measured: u64,
}

/// A published figure and ours.
#[derive(Clone, Debug, Serialize)]
pub struct Claim {
    /// What it is about.
    pub what: &'static str,
    /// What was published.
    pub published: &'static str,
    /// What was measured here.
    pub ours: String,
    /// Where the two differ, and why.
    pub why: String,
}

/// RPC over HTTP with nothing inside but the calls.
pub const RPC: &str = "rpc_http";
/// RPC over HTTP with sealed fragments.
pub const RPC_SEALED: &str = "rpc_http_sealed";
/// MAPI over HTTP.
pub const MAPI: &str = "mapi_http";
/// Credentials on every request.
pub const BASIC: &str = "basic";
/// A token on every request.
pub const BEARER: &str = "bearer";
/// A ticket on the first request of a connection.
pub const KERBEROS: &str = "kerberos";
