//! What came out of the demo, for people and for programs.

use super::{Mark, Teller};
use crate::lab::checker::Violation;
use crate::lab::crowd::Report;
use crate::lab::mailbox_server::Executed;
use crate::lab::outlook::{Counters, Outcome, Sent};
use crate::lab::site::Gate;
use anyhow::Result;
use serde::Serialize;
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Everything the demo found out.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// The version that played.
    pub version: &'static str,
    /// How long it took.
    pub seconds: f64,
    /// Simulated Outlooks.
    pub outlooks: usize,
    /// Simulated mailbox servers.
    pub servers: usize,
    /// MAPI requests mapigate ended.
    pub requests: u64,
    /// Executes.
    pub executes: Executes,
    /// Sessions.
    pub sessions: Sessions,
    /// Code 10.
    pub code10s: Code10s,
    /// The way back after the map change.
    pub recovery: Recovery,
    /// The storm of reloads.
    pub reloads: Reloads,
    /// What mapigate used.
    pub cost: Cost,
    /// What happened when.
    pub events: Vec<Mark>,
    /// What was promised.
    pub promises: Vec<Promise>,
    /// What the books say was broken.
    pub violations: Vec<Violation>,
    /// Where to look.
    pub places: Places,
}

/// One promise.
#[derive(Clone, Debug, Serialize)]
pub struct Promise {
    /// What was promised.
    pub name: &'static str,
    /// It was kept.
    pub is_kept: bool,
    /// What was seen.
    pub words: String,
}

/// How Executes ended, and how often each was executed.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Executes {
    /// Ended well.
    pub ok: u64,
    /// Refused: the client knows that they were not executed.
    pub refused: u64,
    /// Broken off: the client cannot know.
    pub unknown: u64,
    /// Those that ended well and were executed exactly once.
    pub ok_exactly_once: usize,
    /// The most often one of any kind was executed.
    pub runs_max: usize,
    /// Half took less than this.
    pub latency_ms_p50: f64,
    /// 99 of 100 took less.
    pub latency_ms_p99: f64,
}

/// Sessions of the Outlooks.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Sessions {
    /// Opened for the first time.
    pub opened: u64,
    /// Opened in the place of lost ones.
    pub reopened: u64,
}

/// How sessions were told that they are gone.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Code10s {
    /// Sessions that were.
    pub sessions: u64,
    /// By the answer to an Execute.
    pub by_execute: u64,
    /// By the end of a held NotificationWait.
    pub by_wait: u64,
    /// The most often one session was.
    pub most_per_session: u64,
}

/// Seconds from the map change to the first Execute at the new owner, by Outlook, the quickest first.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Recovery {
    /// One figure for each Outlook that came back.
    pub seconds: Vec<f64>,
}

/// The storm of reloads.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Reloads {
    /// How many.
    pub count: usize,
    /// Requests that did not end well meanwhile.
    pub failed_requests: u64,
    /// Connections that had to be made anew.
    pub connections_closed: u64,
    /// Half took less than this.
    pub half_ms: f64,
    /// The slowest.
    pub slowest_ms: f64,
}

/// What mapigate used, both its lives together.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Cost {
    /// Processor time of the process, reloads and handshakes included.
    pub cpu_seconds: f64,
    /// The same, divided by the requests.
    pub cpu_us_per_request: f64,
    /// Processor time booked on Executes, divided by their number.
    pub cpu_us_per_execute: f64,
    /// Bytes from clients per request, TLS included.
    pub client_bytes_in_per_request: f64,
    /// Bytes to clients per request, TLS included.
    pub client_bytes_out_per_request: f64,
    /// Bytes from and to clients, TLS included.
    pub client_bytes: u64,
    /// Bytes from and to mailbox servers.
    pub server_bytes: u64,
}

/// Where to look.
#[derive(Clone, Debug, Serialize)]
pub struct Places {
    /// What Outlooks connect to.
    pub mapi: String,
    /// The admin page.
    pub admin: String,
    /// Configuration, certificates and logs.
    pub folder: PathBuf,
    /// The picture.
    pub timeline: PathBuf,
}

impl Facts {
    /// True where every promise was kept.
    pub fn is_good(&self) -> bool {
        self.violations.is_empty() && self.promises.iter().all(|promise| promise.is_kept)
    }

    /// Adds the promises that only the books can tell about, and says how they were kept.
    pub(super) fn judged(mut self, left_out: u64, teller: &Teller) -> Self {
        let executes = &self.executes;
        let unread = usize::try_from(executes.ok).unwrap_or(usize::MAX) - executes.ok_exactly_once;
        let promises = [
            Promise {
                name: "nothing is executed twice",
                is_kept: executes.runs_max <= 1 && unread == 0 && left_out == 0,
                words: format!(
                    "{} of {} good executes ran exactly once; of {} refused or broken off, none ran twice",
                    executes.ok_exactly_once,
                    executes.ok,
                    executes.refused + executes.unknown
                ),
            },
            Promise {
                name: "nobody gets another's mail, and no server runs what it does not own",
                is_kept: self.violations.is_empty(),
                words: format!(
                    "books of servers and Outlooks compared: {} contradictions",
                    self.violations.len()
                ),
            },
        ];
        for promise in promises {
            teller.promise(promise.is_kept, &promise.words);
            self.promises.push(promise);
        }
        self
    }
}

impl Executes {
    pub(super) fn of(report: &Report, sent: &[Sent], executed: &[Executed]) -> Self {
        let mut runs: HashMap<&str, usize> = HashMap::new();
        for run in executed {
            *runs.entry(run.nonce.as_str()).or_default() += 1;
        }
        let ran_once = |entry: &&Sent| {
            entry.outcome == Outcome::Ok && runs.get(entry.nonce.as_str()) == Some(&1)
        };
        Self {
            ok: report.executes_ok,
            refused: report.executes_failed,
            unknown: report.executes_unknown,
            ok_exactly_once: sent.iter().filter(ran_once).count(),
            runs_max: runs.values().copied().max().unwrap_or(0),
            latency_ms_p50: report.latency_ms_p50,
            latency_ms_p99: report.latency_ms_p99,
        }
    }
}

impl Sessions {
    pub(super) fn of(counters: &[Counters]) -> Self {
        Self {
            opened: counters.iter().map(|counters| counters.connects).sum(),
            reopened: counters.iter().map(|counters| counters.reconnects).sum(),
        }
    }
}

impl Code10s {
    pub(super) fn of(counters: &[Counters]) -> Self {
        let mut facts = Self::default();
        for counters in counters {
            for (executes, waits) in counters.code10s.iter().zip(&counters.waits_told) {
                let told = u64::from(*executes) + u64::from(*waits);
                facts.sessions += u64::from(told > 0);
                facts.by_execute += u64::from(*executes);
                facts.by_wait += u64::from(*waits);
                facts.most_per_session = facts.most_per_session.max(told);
            }
        }
        facts
    }
}

impl Recovery {
    /// The last to come back; 0 where nobody did.
    pub fn slowest(&self) -> f64 {
        self.seconds.last().copied().unwrap_or(0.0)
    }

    /// Half came back sooner.
    pub fn median(&self) -> f64 {
        let middle = self.seconds.get(self.seconds.len() / 2);
        middle.copied().unwrap_or(0.0)
    }
}

/// What processes have used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spent {
    cpu: Duration,
    pub(super) requests: u64,
    executes: f64,
    executes_cpu: f64,
    client_in: u64,
    client_out: u64,
    server: u64,
}

impl Spent {
    /// Adds the figures of a process, shortly before its end.
    pub(super) async fn add(&mut self, gate: &Gate) -> Result<()> {
        let text = gate.admin().get("/metrics").await?.text;
        self.cpu += gate.cpu()?;
        self.requests += whole(sum(&text, "mapigate_mapi_requests_total", ""));
        let execute = "request_type=\"Execute\"";
        self.executes += sum(&text, "mapigate_request_cpu_seconds_count", execute);
        self.executes_cpu += sum(&text, "mapigate_request_cpu_seconds_sum", execute);
        let client = "mapigate_client_bytes_total";
        self.client_in += whole(sum(&text, client, "received"));
        self.client_out += whole(sum(&text, client, "sent"));
        self.server += whole(sum(&text, "mapigate_backend_bytes_total", ""));
        Ok(())
    }

    pub(super) fn cost(&self) -> Cost {
        let requests = float(self.requests).max(1.0);
        Cost {
            cpu_seconds: self.cpu.as_secs_f64(),
            cpu_us_per_request: self.cpu.as_secs_f64() * 1e6 / requests,
            cpu_us_per_execute: self.executes_cpu * 1e6 / self.executes.max(1.0),
            client_bytes_in_per_request: float(self.client_in) / requests,
            client_bytes_out_per_request: float(self.client_out) / requests,
            client_bytes: self.client_in + self.client_out,
            server_bytes: self.server,
        }
    }
}

/// The sum over a family's samples whose labels contain this.
fn sum(text: &str, family: &str, labels: &str) -> f64 {
    text.lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(family)?;
            let (these, value) = rest.rsplit_once(' ')?;
            let is_it = these.is_empty() || these.starts_with('{');
            (is_it && these.contains(labels)).then(|| value.parse::<f64>().ok())?
        })
        .sum()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counters are whole, not negative, and far below 2^53"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

/// Exact below 2^53, which no demo counts to.
fn float(count: u64) -> f64 {
    count as f64
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: String| writeln!(f, "  {name:<44} {value:>18}");
        let (executes, cost) = (&self.executes, &self.cost);
        row("requests through mapigate", self.requests.to_string())?;
        row("executes that ended well", executes.ok.to_string())?;
        row(
            "  of these executed exactly once",
            executes.ok_exactly_once.to_string(),
        )?;
        row(
            "executes refused, broken off",
            format!("{}, {}", executes.refused, executes.unknown),
        )?;
        row("executes per nonce, at most", executes.runs_max.to_string())?;
        row(
            "execute latency p50, p99 (ms)",
            format!(
                "{:.1}, {:.1}",
                executes.latency_ms_p50, executes.latency_ms_p99
            ),
        )?;
        row(
            "sessions opened, opened anew",
            format!("{}, {}", self.sessions.opened, self.sessions.reopened),
        )?;
        row(
            "code 10 by held poll, by execute",
            format!("{}, {}", self.code10s.by_wait, self.code10s.by_execute),
        )?;
        row(
            "code 10 per session, at most",
            self.code10s.most_per_session.to_string(),
        )?;
        row(
            "recovery after the map change, half, last (s)",
            format!(
                "{:.2}, {:.2}",
                self.recovery.median(),
                self.recovery.slowest()
            ),
        )?;
        row(
            "reloads under load, half, slowest (ms)",
            format!(
                "{}, {:.1}, {:.1}",
                self.reloads.count, self.reloads.half_ms, self.reloads.slowest_ms
            ),
        )?;
        row(
            "  requests failed, connections closed",
            format!(
                "{}, {}",
                self.reloads.failed_requests, self.reloads.connections_closed
            ),
        )?;
        row(
            "CPU of mapigate per execute (us)",
            format!("{:.0}", cost.cpu_us_per_execute),
        )?;
        row(
            "  per request, reloads and all included (us)",
            format!("{:.0}", cost.cpu_us_per_request),
        )?;
        row(
            "bytes per request from, to clients, with TLS",
            format!(
                "{:.0}, {:.0}",
                cost.client_bytes_in_per_request, cost.client_bytes_out_per_request
            ),
        )?;
        let kept = self.promises.iter().filter(|promise| promise.is_kept);
        row(
            "promises kept",
            format!("{} of {}", kept.count(), self.promises.len()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_summed_over_its_own_samples_only() {
        let text = "# HELP a_total x\na_total{way=\"in\"} 3\na_total{way=\"out\"} 4\na_total_more 9\na_total 1\n";

        assert_eq!(whole(sum(text, "a_total", "")), 8);
        assert_eq!(whole(sum(text, "a_total", "out")), 4);
        assert_eq!(whole(sum(text, "b_total", "")), 0);
    }

    #[test]
    fn a_session_told_on_both_ways_was_told_twice() {
        let counters = Counters {
            code10s: vec![1, 0],
            waits_told: vec![1, 0],
            ..Counters::default()
        };

        let facts = Code10s::of(&[counters]);

        assert_eq!((facts.sessions, facts.most_per_session), (1, 2));
    }
}
