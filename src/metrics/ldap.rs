//! The families of the directory service.

use super::labels::{DirectoryLook, LdapOperation, LdapOutcome};
use super::{Counted, Counters, Families, Label};
use prometheus::{Histogram, HistogramTimer, IntGauge};
use std::sync::Arc;

/// The counters of a directory service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LdapMeters(Arc<Meters>);

#[derive(Debug)]
struct Meters {
    operations: Vec<Counters<LdapOutcome>>,
    seconds: Vec<Histogram>,
    connections: Vec<IntGauge>,
    looks: Counters<DirectoryLook>,
    entries: IntGauge,
    revoked: prometheus::IntCounter,
}

impl LdapMeters {
    pub(super) fn new(families: &Families) -> Self {
        let operations = families.counters(
            "ldap_operations_total",
            "Conversations with the directory service.",
            &["operation", "outcome"],
        );
        let seconds = families.histograms(
            "ldap_operation_seconds",
            "Time the directory service took.",
            &["operation"],
            &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0],
        );
        let connections = families.gauges(
            "ldap_connections",
            "Connections to the directory service.",
            &["pool"],
        );
        let all = LdapOperation::ALL;
        Self(Arc::new(Meters {
            operations: all
                .iter()
                .map(|operation| {
                    Counters::of(|outcome| {
                        operations.with_label_values(&[operation.as_str(), outcome])
                    })
                })
                .collect(),
            seconds: all
                .iter()
                .map(|operation| seconds.with_label_values(&[operation.as_str()]))
                .collect(),
            connections: ["search", "bind", "changes"]
                .map(|pool| connections.with_label_values(&[pool]))
                .into(),
            looks: families.counters_of(
                "directory_looks_total",
                "Looks at what is remembered of the directory service.",
                "outcome",
            ),
            entries: families.gauge(
                "directory_entries",
                "Names and mailboxes remembered of the directory service.",
            ),
            revoked: families.counter(
                "directory_revocations_total",
                "Users whose verified credentials were forgotten because the directory service changed.",
            ),
        }))
    }

    /// A conversation begins; its end is to be told.
    pub fn begin(&self, operation: LdapOperation) -> LdapTimer {
        let seconds = self.0.seconds.get(operation.index());
        LdapTimer {
            meters: self.clone(),
            operation,
            timer: seconds.map(Histogram::start_timer),
        }
    }

    /// A connection of this pool is open until the guard is dropped.
    pub fn connected(&self, pool: LdapPool) -> Option<Counted> {
        self.0.connections.get(pool as usize).map(Counted::new)
    }

    /// Somebody was looked up.
    pub fn looked(&self, look: DirectoryLook) {
        self.0.looks.inc(look);
    }

    /// So many names and mailboxes are remembered.
    pub fn set_entries(&self, entries: u64) {
        self.0.entries.set(super::clamp(entries));
    }

    /// What was verified of a user was forgotten.
    pub fn revoked(&self) {
        self.0.revoked.inc();
    }
}

/// What a connection to the directory service is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LdapPool {
    /// Searches, many at once.
    Search,
    /// Passwords, one at a time.
    Bind,
    /// Looks for changes.
    Changes,
}

/// A conversation under way.
#[derive(Debug)]
pub struct LdapTimer {
    meters: LdapMeters,
    operation: LdapOperation,
    timer: Option<HistogramTimer>,
}

impl LdapTimer {
    /// It ended so.
    pub fn end(self, outcome: LdapOutcome) {
        if let Some(timer) = self.timer {
            timer.observe_duration();
        }
        let operations = self.meters.0.operations.get(self.operation.index());
        if let Some(operations) = operations {
            operations.inc(outcome);
        }
    }
}
