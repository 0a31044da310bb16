//! What HTTP/2 adds to the families.

use super::{Counters, Families, Http2Code, Side};
use prometheus::{IntCounter, IntGauge};

/// The families of HTTP/2.
#[derive(Debug)]
pub(super) struct Http2Families {
    pub(super) connections: IntGauge,
    pub(super) connections_total: IntCounter,
    pub(super) streams: IntGauge,
    pub(super) streams_total: IntCounter,
    /// By who sent them.
    resets: [Counters<Http2Code>; 2],
    goaways: [Counters<Http2Code>; 2],
}

impl Http2Families {
    pub(super) fn new(families: &Families) -> Self {
        let resets = families.counters(
            "http2_resets_total",
            "Streams of HTTP/2 broken off, by who did and the reason given.",
            &["by", "reason"],
        );
        let goaways = families.counters(
            "http2_goaways_total",
            "Farewells on connections of HTTP/2, by who sent them and the reason given.",
            &["by", "reason"],
        );
        let by_side = |family: &prometheus::IntCounterVec| {
            Side::ALL.map(|side| {
                Counters::of(|reason| family.with_label_values(&[side.as_str(), reason]))
            })
        };
        Self {
            connections: families.gauge(
                "http2_connections_open",
                "Client connections open that speak HTTP/2.",
            ),
            connections_total: families.counter(
                "http2_connections_total",
                "Client connections that agreed on HTTP/2.",
            ),
            streams: families.gauge("http2_streams_open", "Requests under way by HTTP/2."),
            streams_total: families.counter("http2_streams_total", "Requests that came by HTTP/2."),
            resets: by_side(&resets),
            goaways: by_side(&goaways),
        }
    }

    pub(super) fn reset(&self, by: Side, code: u32) {
        if let Some(counters) = self.resets.get(by as usize) {
            counters.inc(Http2Code::of(code));
        }
    }

    pub(super) fn goaway(&self, by: Side, code: u32) {
        if let Some(counters) = self.goaways.get(by as usize) {
            counters.inc(Http2Code::of(code));
        }
    }
}
