//! From readings to figures: medians, ratios round by round, targets met or missed.

use crate::load::Found;
use crate::plan::{MAPIGATE, NEGOTIATED, UNMETERED, YARDSTICK};
use crate::polls;
use serde::Serialize;
use std::collections::BTreeMap;

/// A workload with a table of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) enum Work {
    /// Part A.
    Execute,
    /// Part B, 50 KB.
    Answer50K,
    /// Part B, 10 MB.
    Answer10M,
    /// Part D, nobody resumes.
    FullHandshake,
    /// Part D, everybody resumes.
    ResumedHandshake,
    /// Part D, many clients come back once.
    Returning,
}

impl Work {
    /// All of them, in the order of the tables.
    pub(crate) const ALL: [Self; 6] = [
        Self::Execute,
        Self::Answer50K,
        Self::Answer10M,
        Self::FullHandshake,
        Self::ResumedHandshake,
        Self::Returning,
    ];

    /// The table's title.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Execute => "A: Execute, 2 KB in, 4 KB out",
            Self::Answer50K => "B: answers of 50 KB",
            Self::Answer10M => "B: answers of 10 MB",
            Self::FullHandshake => "D: full handshakes, TLS 1.3, P-256",
            Self::ResumedHandshake => "D: resumed handshakes",
            Self::Returning => "D: different clients, each back once",
        }
    }

    /// True for part D.
    pub(crate) fn is_handshake(self) -> bool {
        matches!(
            self,
            Self::FullHandshake | Self::ResumedHandshake | Self::Returning
        )
    }

    /// The most mapigate may cost, as a ratio to nginx.
    pub(crate) fn target(self) -> Option<f64> {
        match self {
            Self::Execute => Some(0.65),
            Self::Answer10M => Some(0.60),
            Self::FullHandshake => Some(0.50),
            _ => None,
        }
    }

    /// One window in a line.
    pub(crate) fn words(self, found: &Found) -> String {
        match self {
            Self::Returning => format!("{} of {} resumed", found.resumed, found.requests),
            Self::FullHandshake | Self::ResumedHandshake => format!(
                "{:8.1} us, {:6.0} a second, {} of {} resumed",
                cpu_us(found),
                per_second(found),
                found.resumed,
                found.requests
            ),
            _ => format!(
                "{:8.1} us, {:6.0} a second, p99 {:.1} ms",
                cpu_us(found),
                per_second(found),
                found.p99_ms
            ),
        }
    }
}

/// KB a held poll may take.
pub(crate) const POLL_KB_MAX: f64 = 12.0;

/// Percent that measuring processor time may add to an Execute.
const METERING_MAX: f64 = 3.0;

/// The most an Execute may cost on a connection that Kerberos has proven, as a ratio to one with a password.
const NEGOTIATED_MAX: f64 = 1.05;

/// Everything that was seen.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Results {
    /// What the peers call themselves.
    pub(crate) versions: BTreeMap<String, String>,
    /// Peers, then rounds, of each workload.
    pub(crate) works: BTreeMap<Work, BTreeMap<String, BTreeMap<u32, Found>>>,
    /// Rounds of part C.
    pub(crate) polls: BTreeMap<String, Vec<polls::Found>>,
    /// Access lines that mapigate lost: each makes it look cheaper than it is.
    pub(crate) lost_lines: BTreeMap<Work, u64>,
    /// What the reader should know.
    pub(crate) notes: Vec<String>,
    /// Windows that could not be measured at all.
    pub(crate) failures: u64,
}

impl Results {
    /// Keeps one window.
    pub(crate) fn add(&mut self, work: Work, peer: &str, round: u32, found: Found) {
        self.works
            .entry(work)
            .or_default()
            .entry(peer.to_owned())
            .or_default()
            .insert(round, found);
    }

    /// Everything that went wrong, counted.
    pub(crate) fn errors(&self) -> u64 {
        let windows: u64 = self
            .works
            .values()
            .flat_map(BTreeMap::values)
            .flat_map(BTreeMap::values)
            .map(|found| found.errors)
            .sum();
        let dead: u64 = self.polls.values().flatten().map(|found| found.dead).sum();
        windows + dead + self.failures
    }

    /// CPU per request of a peer, microseconds, over its rounds.
    pub(crate) fn cpu(&self, work: Work, peer: &str) -> Option<Spread> {
        Spread::of(self.works.get(&work)?.get(peer)?.values().map(cpu_us))
    }

    /// The same as a ratio to nginx in the same round; rounds that lack either do not count.
    pub(crate) fn ratio(&self, work: Work, peer: &str) -> Option<Spread> {
        self.ratio_to(work, peer, YARDSTICK)
    }

    fn ratio_to(&self, work: Work, peer: &str, yardstick: &str) -> Option<Spread> {
        let peers = self.works.get(&work)?;
        let yardstick = peers.get(yardstick)?;
        Spread::of(
            peers
                .get(peer)?
                .iter()
                .filter_map(|(round, found)| Some(cpu_us(found) / cpu_us(yardstick.get(round)?))),
        )
    }

    /// KB of memory per held poll.
    pub(crate) fn poll_kb(&self, peer: &str) -> Option<Spread> {
        Spread::of(
            self.polls
                .get(peer)?
                .iter()
                .map(|found| found.bytes_per_poll / 1024.0),
        )
    }

    /// Percent of returning clients that resumed.
    pub(crate) fn resumed_percent(&self, peer: &str) -> Option<f64> {
        let found = self
            .works
            .get(&Work::Returning)?
            .get(peer)?
            .values()
            .next()?;
        Some(100.0 * found.resumed as f64 / found.requests.max(1) as f64)
    }
}

/// Several readings of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// The middle one; of an even number, the mean of the two in the middle.
    pub(crate) median: f64,
    /// The smallest.
    pub(crate) min: f64,
    /// The largest.
    pub(crate) max: f64,
}

impl Spread {
    /// `None` of no readings; those that are no numbers are left out.
    pub(crate) fn of(readings: impl Iterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = readings.filter(|reading| reading.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let lower = if sorted.len() % 2 == 1 {
            upper
        } else {
            *sorted.get(middle.checked_sub(1)?)?
        };
        Some(Self {
            median: f64::midpoint(lower, upper),
            min: *sorted.first()?,
            max: *sorted.last()?,
        })
    }

    /// Median and range with this many decimals.
    pub(crate) fn words(self, digits: usize) -> String {
        format!(
            "{:.digits$} [{:.digits$}-{:.digits$}]",
            self.median, self.min, self.max
        )
    }
}

/// CPU time of the proxy per request, microseconds.
pub(crate) fn cpu_us(found: &Found) -> f64 {
    found.cpu_ns as f64 / 1000.0 / found.requests as f64
}

/// Whole answers a second.
pub(crate) fn per_second(found: &Found) -> f64 {
    found.requests as f64 / found.seconds
}

/// A promise of mapigate's, measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Verdict {
    /// What was promised.
    pub(crate) promise: String,
    /// What was found.
    pub(crate) found: f64,
    /// Kept?
    pub(crate) kept: bool,
}

/// The promises this run can judge.
pub(crate) fn verdicts(results: &Results) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for work in Work::ALL {
        if let (Some(target), Some(ratio)) = (work.target(), results.ratio(work, MAPIGATE)) {
            verdicts.push(Verdict {
                promise: format!("{}: at most {target:.2} x nginx", work.title()),
                found: ratio.median,
                kept: ratio.median <= target,
            });
        }
    }
    if let Some(ratio) = results.ratio_to(Work::Execute, MAPIGATE, UNMETERED) {
        verdicts.push(Verdict {
            promise: format!(
                "A: measuring processor time costs at most {METERING_MAX:.0} % of an Execute"
            ),
            found: 100.0 * (ratio.median - 1.0),
            kept: 100.0 * (ratio.median - 1.0) <= METERING_MAX,
        });
    }
    if let Some(ratio) = results.ratio_to(Work::Execute, NEGOTIATED, MAPIGATE) {
        verdicts.push(Verdict {
            promise: format!(
                "A: on connections proven by Kerberos, at most {NEGOTIATED_MAX:.2} x Basic"
            ),
            found: ratio.median,
            kept: ratio.median <= NEGOTIATED_MAX,
        });
    }
    if let Some(kb) = results.poll_kb(MAPIGATE) {
        verdicts.push(Verdict {
            promise: format!("C: at most {POLL_KB_MAX} KB per held poll"),
            found: kb.median,
            kept: kb.median <= POLL_KB_MAX,
        });
    }
    if let Some(percent) = results.resumed_percent(MAPIGATE) {
        verdicts.push(Verdict {
            promise: "D: 100 % of returning clients resume".to_owned(),
            found: percent,
            kept: percent >= 100.0,
        });
    }
    verdicts
}
