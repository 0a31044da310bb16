//! The families that have one series per mailbox server of the configuration.

use super::{ConnectOutcome, Counted, Counters, Families, Label, count};
use crate::ids::ServerName;
use parking_lot::RwLock;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// The counters of one mailbox server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServerMeters(Arc<Meters>);

#[derive(Debug)]
struct Meters {
    inflight: IntGauge,
    connections: Counters<ConnectOutcome>,
    reuses: IntCounter,
}

impl ServerMeters {
    /// A request is under way to this server until the guard is dropped.
    pub fn request_started(&self) -> Counted {
        Counted::new(&self.0.inflight)
    }

    /// Requests under way now.
    pub fn inflight(&self) -> u64 {
        count(&self.0.inflight)
    }

    /// An attempt to connect ended.
    pub fn connected(&self, outcome: ConnectOutcome) {
        self.0.connections.inc(outcome);
    }

    /// A kept connection carries another request.
    pub fn reused(&self) {
        self.0.reuses.inc();
    }
}

/// The families, and which servers they have series for.
#[derive(Debug)]
pub(super) struct ServerFamilies {
    up: IntGaugeVec,
    inflight: IntGaugeVec,
    connections: IntCounterVec,
    reuses: IntCounterVec,
    known: RwLock<HashMap<ServerName, ServerMeters>>,
}

impl ServerFamilies {
    pub(super) fn new(families: &Families) -> Self {
        Self {
            up: families.gauges(
                "backend_up",
                "1 if the server counts as up, 0 if it counts as down.",
                &["server"],
            ),
            inflight: families.gauges(
                "backend_inflight",
                "Requests under way to the server.",
                &["server"],
            ),
            connections: families.counters(
                "backend_connections_total",
                "Attempts to connect to the server.",
                &["server", "outcome"],
            ),
            reuses: families.counters(
                "backend_connection_reuses_total",
                "Requests sent on a connection that had carried another.",
                &["server"],
            ),
            known: RwLock::default(),
        }
    }

    /// Found by name, at the cost of one look-up.
    pub(super) fn meters(&self, name: &ServerName) -> ServerMeters {
        if let Some(known) = self.known.read().get(name) {
            return known.clone();
        }
        let server = name.as_str();
        let connected = |outcome: &str| self.connections.with_label_values(&[server, outcome]);
        let made = ServerMeters(Arc::new(Meters {
            inflight: self.inflight.with_label_values(&[server]),
            connections: Counters::of(connected),
            reuses: self.reuses.with_label_values(&[server]),
        }));
        self.known
            .write()
            .entry(name.clone())
            .or_insert(made)
            .clone()
    }

    pub(super) fn keep<'a>(&self, names: impl IntoIterator<Item = &'a ServerName>) {
        let kept: BTreeSet<&ServerName> = names.into_iter().collect();
        self.known.write().retain(|name, _| {
            let stays = kept.contains(name);
            if !stays {
                self.forget(name.as_str());
            }
            stays
        });
    }

    fn forget(&self, server: &str) {
        // A family that never saw this server says so with an error, which means the same.
        let _ = self.up.remove_label_values(&[server]);
        let _ = self.inflight.remove_label_values(&[server]);
        let _ = self.reuses.remove_label_values(&[server]);
        for outcome in <ConnectOutcome as Label>::ALL {
            let labels = [server, outcome.as_str()];
            let _ = self.connections.remove_label_values(&labels);
        }
    }

    pub(super) fn set_up(&self, name: &ServerName, up: bool) {
        // With all its series, so that a server is told of before its first request.
        self.meters(name);
        self.up
            .with_label_values(&[name.as_str()])
            .set(i64::from(up));
    }

    pub(super) fn inflight(&self, name: &ServerName) -> u64 {
        let known = self.known.read();
        known.get(name).map_or(0, ServerMeters::inflight)
    }
}
