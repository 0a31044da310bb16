//! The families that have one series per mailbox server of the configuration.

use super::{ConnectOutcome, Counted, Counters, Families, count};
use crate::ids::ServerName;
use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The counters of one mailbox server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServerMeters {
    inflight: IntGauge,
    connections: Arc<Counters<ConnectOutcome>>,
    reuses: IntCounter,
}

impl ServerMeters {
    /// A request is under way to this server until the guard is dropped.
    pub fn request_started(&self) -> Counted {
        Counted::new(&self.inflight)
    }

    /// Requests under way now.
    pub fn inflight(&self) -> u64 {
        count(&self.inflight)
    }

    /// An attempt to connect ended.
    pub fn connected(&self, outcome: ConnectOutcome) {
        self.connections.inc(outcome);
    }

    /// A kept connection carries another request.
    pub fn reused(&self) {
        self.reuses.inc();
    }
}

/// The families, and which servers they have series for.
#[derive(Debug)]
pub(super) struct ServerFamilies {
    up: IntGaugeVec,
    inflight: IntGaugeVec,
    connections: IntCounterVec,
    reuses: IntCounterVec,
    known: Mutex<BTreeSet<ServerName>>,
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
            known: Mutex::default(),
        }
    }

    pub(super) fn meters(&self, name: &ServerName) -> ServerMeters {
        if self.known.lock().insert(name.clone()) {
            // Nothing is known against it; health checks correct this within an interval.
            self.set_up(name, true);
        }
        let server = name.as_str();
        let connected = |outcome: &str| self.connections.with_label_values(&[server, outcome]);
        ServerMeters {
            inflight: self.inflight.with_label_values(&[server]),
            connections: Arc::new(Counters::of(connected)),
            reuses: self.reuses.with_label_values(&[server]),
        }
    }

    pub(super) fn keep<'a>(&self, names: impl IntoIterator<Item = &'a ServerName>) {
        let kept: BTreeSet<ServerName> = names.into_iter().cloned().collect();
        let mut known = self.known.lock();
        for gone in known.difference(&kept) {
            // A family that never saw this server says so with an error, which means the same.
            let _ = self.up.remove_label_values(&[gone.as_str()]);
            let _ = self.inflight.remove_label_values(&[gone.as_str()]);
            let _ = self.reuses.remove_label_values(&[gone.as_str()]);
            for outcome in <ConnectOutcome as super::Label>::ALL {
                let labels = [gone.as_str(), outcome.as_str()];
                let _ = self.connections.remove_label_values(&labels);
            }
        }
        known.retain(|name| kept.contains(name));
    }

    pub(super) fn set_up(&self, name: &ServerName, up: bool) {
        self.up
            .with_label_values(&[name.as_str()])
            .set(i64::from(up));
    }

    pub(super) fn inflight(&self, name: &ServerName) -> u64 {
        let gauge = self.inflight.get_metric_with_label_values(&[name.as_str()]);
        gauge.as_ref().map_or(0, count)
    }
}
