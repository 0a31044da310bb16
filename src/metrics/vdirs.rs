//! What requests to the other virtual directories add to the families, and how those do on each server.

use super::{Counters, Families, Outcome};
use crate::health::Ward;
use crate::ids::ServerName;
use crate::vdir::Vdir;
use prometheus::{Histogram, IntGaugeVec};
use std::time::Duration;

/// The families that have a series per directory.
#[derive(Debug)]
pub(super) struct VdirFamilies {
    requests: [Counters<Outcome>; Vdir::ALL.len()],
    duration: [Histogram; Vdir::ALL.len()],
    up: IntGaugeVec,
}

impl VdirFamilies {
    pub(super) fn new(families: &Families) -> Self {
        let requests = families.counters(
            "vdir_requests_total",
            "Requests to the other virtual directories ended, by how they ended.",
            &["vdir", "outcome"],
        );
        let duration = families.histograms(
            "vdir_request_duration_seconds",
            "From the first byte of a request to another virtual directory to the last byte of its answer.",
            &["vdir"],
            &DURATION_BUCKETS,
        );
        Self {
            requests: Vdir::ALL.map(|vdir| {
                Counters::of(|outcome| requests.with_label_values(&[vdir.as_str(), outcome]))
            }),
            duration: Vdir::ALL.map(|vdir| duration.with_label_values(&[vdir.as_str()])),
            up: families.gauges(
                "vdir_up",
                "1 if the server serves the directory, by its health page; 0 if it does not.",
                &["server", "vdir"],
            ),
        }
    }

    pub(super) fn book(&self, vdir: Vdir, outcome: Outcome, total: Duration) {
        if let Some(requests) = self.requests.get(vdir.index()) {
            requests.inc(outcome);
        }
        if let Some(duration) = self.duration.get(vdir.index()) {
            duration.observe(total.as_secs_f64());
        }
    }

    pub(super) fn set_up<'a>(&self, all: impl IntoIterator<Item = (&'a ServerName, Ward, bool)>) {
        self.up.reset();
        for (server, ward, is_up) in all {
            self.up
                .with_label_values(&[server.as_str(), ward.as_str()])
                .set(i64::from(is_up));
        }
    }
}

/// From a cached picture to a Ping held for an hour.
const DURATION_BUCKETS: [f64; 13] = [
    0.0025, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0, 1800.0, 3700.0,
];
