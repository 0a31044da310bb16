//! Many Outlooks at once, and what they saw together.
#![expect(
    clippy::disallowed_methods,
    reason = "a crowd works for a while, and the lab measures how"
)]

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::outlook::{Counters, Options, Outlook, Sent, Trouble};

/// Outlooks that connect, execute again and again, hold a `NotificationWait`, and disconnect when told to stop.
#[derive(Debug)]
pub struct Crowd {
    members: Vec<Outlook>,
    tasks: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    /// Read while an Execute is under way.
    working: Arc<RwLock<()>>,
    started: Instant,
}

/// Nobody executes anything until this is dropped; held requests go on.
#[derive(Debug)]
pub struct Hush {
    _nobody_works: OwnedRwLockWriteGuard<()>,
}

/// What a crowd does.
#[derive(Clone, Debug)]
pub struct Work {
    /// Between an answer and the next Execute.
    pub pause: Duration,
    /// Bytes behind the lab's operation.
    pub request_bytes: usize,
    /// Bytes of the ROP buffer asked for, unless the server's own choice is good.
    pub answer_bytes: Option<usize>,
    /// Hold a `NotificationWait` all the time.
    pub waits: bool,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            pause: Duration::from_millis(50),
            request_bytes: 2048,
            answer_bytes: None,
            waits: true,
        }
    }
}

impl Crowd {
    /// Starts one client for each of the options.
    pub fn start(options: Vec<Options>, work: &Work) -> Self {
        let stop = watch::Sender::new(false);
        let members: Vec<_> = options.into_iter().map(Outlook::new).collect();
        let working = Arc::new(RwLock::new(()));
        let mut tasks = Vec::new();
        for member in &members {
            tasks.push(tokio::spawn(execute(
                member.clone(),
                work.clone(),
                Arc::clone(&working),
                stop.subscribe(),
            )));
            if work.waits {
                tasks.push(tokio::spawn(wait(
                    member.clone(),
                    Arc::clone(&working),
                    stop.subscribe(),
                )));
            }
        }
        Self {
            members,
            tasks,
            stop,
            working,
            started: Instant::now(),
        }
    }

    /// The clients, for commands in the middle of their work.
    pub fn members(&self) -> &[Outlook] {
        &self.members
    }

    /// Lets every Execute under way finish, and begins no other until the answer is dropped.
    pub async fn hush(&self) -> Hush {
        Hush {
            _nobody_works: Arc::clone(&self.working).write_owned().await,
        }
    }

    /// Every client's book so far.
    pub fn sent(&self) -> Vec<Sent> {
        self.members.iter().flat_map(Outlook::sent).collect()
    }

    /// What they saw so far.
    pub fn report(&self) -> Report {
        let counters: Vec<_> = self.members.iter().map(Outlook::counters).collect();
        Report::of(&counters, self.started.elapsed())
    }

    /// Lets every client finish what it does and disconnect; those that cannot within the deadline are cut off.
    pub async fn stop(self, deadline: Duration) -> (Report, Vec<Sent>) {
        let elapsed = self.started.elapsed();
        self.stop.send_replace(true);
        let end = Instant::now() + deadline;
        for mut task in self.tasks {
            if tokio::time::timeout_at(end, &mut task).await.is_err() {
                task.abort();
            }
        }
        let counters: Vec<_> = self.members.iter().map(Outlook::counters).collect();
        let sent = self.members.iter().flat_map(Outlook::sent).collect();
        (Report::of(&counters, elapsed), sent)
    }
}

async fn execute(
    member: Outlook,
    work: Work,
    working: Arc<RwLock<()>>,
    mut stop: watch::Receiver<bool>,
) {
    let headers: Vec<_> = work
        .answer_bytes
        .map(|bytes| ("X-Lab-Answer-Bytes", bytes.to_string()))
        .into_iter()
        .collect();
    let body = vec![0x5a; work.request_bytes];
    let mut is_connected = false;
    while !*stop.borrow() {
        let at_work = working.read().await;
        let done = match is_connected {
            false => match member.connect().await {
                Ok(()) => {
                    is_connected = true;
                    member.log_on().await
                }
                Err(trouble) => Err(trouble),
            },
            true => member.execute_with(&body, &headers).await.map(drop),
        };
        drop(at_work);
        // Trouble is in the counters; a person would click again after a moment.
        let pause = match done {
            Ok(()) => work.pause,
            Err(_) => work.pause.max(Duration::from_millis(20)),
        };
        let _ = tokio::time::timeout(pause, stop.changed()).await;
    }
    let _ = member.disconnect().await;
    member.drop_connections().await;
}

async fn wait(member: Outlook, working: Arc<RwLock<()>>, mut stop: watch::Receiver<bool>) {
    loop {
        if *stop.borrow() {
            return;
        }
        // There is nothing to wait for in a session that is gone.
        if !member.is_open() {
            let _ = tokio::time::timeout(Duration::from_millis(20), stop.changed()).await;
            continue;
        }
        let waited = tokio::select! {
            waited = member.notification_wait() => waited,
            _ = stop.changed() => return,
        };
        match waited {
            Ok(waited) if waited.error_code == 0 => {
                if waited.is_event {
                    let _at_work = working.read().await;
                    let _ = member.collect().await;
                }
            }
            // The session is being opened anew, or an old wait lingers on the server.
            Ok(_) | Err(Trouble::Code(_)) => sleep(Duration::from_millis(200)).await,
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// What a crowd saw; times in milliseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Clients.
    pub clients: usize,
    /// Clients that opened their mailbox.
    pub connected: usize,
    /// How long they worked, in seconds.
    pub seconds: f64,
    /// TCP connections made.
    pub connections: u64,
    /// Contexts opened in the place of lost ones.
    pub reconnects: u64,
    /// Executes that ended well.
    pub executes_ok: u64,
    /// Executes refused.
    pub executes_failed: u64,
    /// Executes whose fate is unknown.
    pub executes_unknown: u64,
    /// Requests sent again because nothing of them had been taken.
    pub resent: u64,
    /// Answers of 503.
    pub busy: u64,
    /// Held requests answered.
    pub waits_ended: u64,
    /// Held requests ended in-band because the session was gone.
    pub waits_lost: u64,
    /// Requests answered with code 10.
    pub code10s: u64,
    /// The most code 10s one session got.
    pub code10s_per_session_max: u32,
    /// The slowest return from trouble.
    pub recovery_ms_max: f64,
    /// The slowest return of each client that had trouble.
    pub recoveries_ms: Vec<f64>,
    /// Half of the Executes were faster.
    pub latency_ms_p50: f64,
    /// 99 of 100 Executes were faster.
    pub latency_ms_p99: f64,
    /// The slowest Execute.
    pub latency_ms_max: f64,
}

impl Report {
    fn of(counters: &[Counters], elapsed: Duration) -> Self {
        let sum = |of: fn(&Counters) -> u64| counters.iter().map(of).sum();
        let millis = |micros: u64| Duration::from_micros(micros).as_secs_f64() * 1e3;
        let mut latencies = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3).ok();
        for latency in counters.iter().flat_map(|counters| &counters.latencies) {
            if let Some(latencies) = &mut latencies {
                latencies.saturating_record(*latency);
            }
        }
        let quantile = |quantile| {
            latencies.as_ref().map_or(0.0, |latencies| {
                millis(latencies.value_at_quantile(quantile))
            })
        };
        let recoveries_ms: Vec<f64> = counters
            .iter()
            .filter_map(|counters| counters.recoveries.iter().max())
            .map(|micros| millis(*micros))
            .collect();
        Self {
            clients: counters.len(),
            connected: counters
                .iter()
                .filter(|counters| counters.connects > 0)
                .count(),
            seconds: elapsed.as_secs_f64(),
            connections: sum(|counters| counters.connections),
            reconnects: sum(|counters| counters.reconnects),
            executes_ok: sum(|counters| counters.executes_ok),
            executes_failed: sum(|counters| counters.executes_failed),
            executes_unknown: sum(|counters| counters.executes_unknown),
            resent: sum(|counters| counters.resent),
            busy: sum(|counters| counters.busy),
            waits_ended: sum(|counters| counters.waits_ended),
            waits_lost: sum(|counters| counters.waits_lost),
            code10s: sum(|counters| counters.code10s.iter().map(|count| u64::from(*count)).sum()),
            code10s_per_session_max: counters
                .iter()
                .flat_map(|counters| counters.code10s.iter().copied())
                .max()
                .unwrap_or(0),
            recovery_ms_max: recoveries_ms.iter().copied().fold(0.0, f64::max),
            recoveries_ms,
            latency_ms_p50: quantile(0.5),
            latency_ms_p99: quantile(0.99),
            latency_ms_max: quantile(1.0),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate =
            |count: u64| Duration::from_micros(count).as_secs_f64() * 1e6 / self.seconds.max(0.001);
        let mut row = |name: &str, value: String| writeln!(f, "{name:<34} {value:>14}");
        row(
            "clients connected",
            format!("{} of {}", self.connected, self.clients),
        )?;
        row("executes ok", self.executes_ok.to_string())?;
        row(
            "executes per second",
            format!("{:.0}", rate(self.executes_ok)),
        )?;
        row("executes refused", self.executes_failed.to_string())?;
        row(
            "executes of unknown fate",
            self.executes_unknown.to_string(),
        )?;
        row("sent again, nothing was taken", self.resent.to_string())?;
        row("answers of 503", self.busy.to_string())?;
        row(
            "code 10, most per session",
            format!("{}, {}", self.code10s, self.code10s_per_session_max),
        )?;
        row("reconnects", self.reconnects.to_string())?;
        row(
            "held requests ended, lost",
            format!("{}, {}", self.waits_ended, self.waits_lost),
        )?;
        row("TCP connections", self.connections.to_string())?;
        row(
            "latency ms p50, p99, max",
            format!(
                "{:.1}, {:.1}, {:.1}",
                self.latency_ms_p50, self.latency_ms_p99, self.latency_ms_max
            ),
        )?;
        row(
            "slowest recovery ms",
            format!("{:.0}", self.recovery_ms_max),
        )
    }
}
