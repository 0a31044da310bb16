//! What one MAPI request adds to the families, resolved beforehand for each endpoint and type.

use super::{Families, Label, Outcome, PerEndpoint};
use crate::mapi::{Endpoint, RequestType, ResponseCode};
use crate::refusal::Refusal;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};
use std::time::Duration;

/// What is known of a request when it has ended.
#[derive(Clone, Copy, Debug)]
pub struct Finished<'a> {
    /// Its endpoint.
    pub endpoint: Endpoint,
    /// Its type.
    pub request_type: RequestType,
    /// How it ended.
    pub outcome: Outcome,
    /// The code the client was given, if any.
    pub code: Option<ResponseCode>,
    /// Why we ended it, where we did.
    pub refusal: Option<&'a Refusal>,
    /// From its first byte to the last byte of the answer.
    pub total: Duration,
    /// From the last byte sent to the server to the first byte of its answer; `None` where none came.
    pub first_byte: Option<Duration>,
    /// Processor time it took us, all in all; `None` where it was not measured.
    pub cpu: Option<Duration>,
    /// For how many requests that stands.
    pub stands_for: u32,
}

/// The counters of every endpoint and type.
#[derive(Debug)]
pub(super) struct RequestMeters {
    kinds: PerEndpoint<Vec<KindMeters>>,
    codes: PerEndpoint<Vec<IntCounter>>,
}

/// The counters of one endpoint and type.
#[derive(Clone, Debug)]
struct KindMeters {
    outcomes: Vec<IntCounter>,
    duration: Histogram,
    first_byte: Histogram,
    cpu: Histogram,
}

impl RequestMeters {
    pub(super) fn new(families: &Families) -> Self {
        let requests = families.counters(
            "mapi_requests_total",
            "MAPI requests ended, by how they ended.",
            &["endpoint", "request_type", "outcome"],
        );
        let kinds = ["endpoint", "request_type"];
        let duration = families.histograms(
            "mapi_request_duration_seconds",
            "From a request's first byte to the last byte of its answer.",
            &kinds,
            &DURATION_BUCKETS,
        );
        let first_byte = families.histograms(
            "mapi_first_byte_seconds",
            "From a request's last byte sent to the server to the first byte of its answer.",
            &kinds,
            &DURATION_BUCKETS,
        );
        let cpu = families.histograms(
            "request_cpu_seconds",
            "Processor time a request took us, estimated from those that were measured.",
            &kinds,
            &CPU_BUCKETS,
        );
        let codes = families.counters(
            "mapi_response_codes_total",
            "Response codes given to clients, in the specification's numbers.",
            &["endpoint", "code"],
        );
        Self {
            kinds: Endpoint::ALL.map(|e| kinds_of(e, &requests, &duration, &first_byte, &cpu)),
            codes: Endpoint::ALL.map(|endpoint| {
                let numbers = (0..=ResponseCode::HIGHEST).map(|code| code.to_string());
                numbers
                    .chain(["other".to_owned(), "none".to_owned()])
                    .map(|code| codes.with_label_values(&[endpoint.as_str(), &code]))
                    .collect()
            }),
        }
    }

    pub(super) fn book(&self, facts: &Finished<'_>) {
        if let Some(code) = self.codes.get(facts.endpoint.index()).and_then(|codes| {
            let other = ResponseCode::HIGHEST + 1;
            let index = facts.code.map_or(other + 1, |code| code.0.min(other));
            codes.get(index as usize)
        }) {
            code.inc();
        }
        let kinds = self.kinds.get(facts.endpoint.index());
        let Some(meters) = kinds.and_then(|kinds| kinds.get(facts.request_type.index())) else {
            return;
        };
        if let Some(outcome) = meters.outcomes.get(facts.outcome.index()) {
            outcome.inc();
        }
        meters.duration.observe(facts.total.as_secs_f64());
        // Once for each it stands for: count and sum are then estimates of all.
        if let Some(cpu) = facts.cpu {
            (0..facts.stands_for).for_each(|_| meters.cpu.observe(cpu.as_secs_f64()));
        }
        if let Some(first_byte) = facts.first_byte {
            meters.first_byte.observe(first_byte.as_secs_f64());
        }
    }
}

/// The meters of an endpoint by type. A type of the other endpoint shares the meters of `other`:
/// it is a client's mistake, and not worth a series for every combination.
fn kinds_of(
    endpoint: Endpoint,
    requests: &IntCounterVec,
    duration: &HistogramVec,
    first_byte: &HistogramVec,
    cpu: &HistogramVec,
) -> Vec<KindMeters> {
    let meters = |kind: RequestType| {
        let labels = [endpoint.as_str(), kind.as_str()];
        let [endpoint, kind] = labels;
        KindMeters {
            outcomes: Outcome::ALL
                .iter()
                .map(|outcome| requests.with_label_values(&[endpoint, kind, outcome.as_str()]))
                .collect(),
            duration: duration.with_label_values(&labels),
            first_byte: first_byte.with_label_values(&labels),
            cpu: cpu.with_label_values(&labels),
        }
    };
    let other = meters(RequestType::Other);
    RequestType::ALL
        .iter()
        .map(|kind| match (*kind, belongs(endpoint, *kind)) {
            (RequestType::Other, _) | (_, false) => other.clone(),
            (kind, true) => meters(kind),
        })
        .collect()
}

/// The type under which an endpoint files a request.
pub(super) fn filed_as(endpoint: Endpoint, kind: RequestType) -> RequestType {
    match belongs(endpoint, kind) {
        true => kind,
        false => RequestType::Other,
    }
}

/// True for the types that an endpoint answers. `[MS-OXCMAPIHTTP] 2.2.4` and `2.2.5`
fn belongs(endpoint: Endpoint, kind: RequestType) -> bool {
    use RequestType::{Connect, Disconnect, Execute, Missing, NotificationWait, Other, Ping};
    match kind {
        Ping | Other | Missing => true,
        Execute | NotificationWait | Connect | Disconnect => endpoint == Endpoint::Emsmdb,
        _ => endpoint == Endpoint::Nspi,
    }
}

/// From a cached answer to a poll held for five minutes.
const DURATION_BUCKETS: [f64; 15] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 330.0,
];
/// From a refusal to a 10 MB answer.
const CPU_BUCKETS: [f64; 12] = [
    5e-6, 1e-5, 2e-5, 4e-5, 8e-5, 1.6e-4, 3.2e-4, 6.4e-4, 1.25e-3, 5e-3, 2e-2, 1e-1,
];
