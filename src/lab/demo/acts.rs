//! The acts of the demo, in order.
#![expect(
    clippy::disallowed_methods,
    reason = "a story takes its time, and tells how long"
)]

use super::{FIRST, SERVERS, SUCCESSOR, Show, until};
use crate::lab::outlook::{Counters, Outcome};
use crate::lab::site::DATABASE;
use crate::lab::unix_micros;
use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What a crowd has counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Totals {
    executes_ok: u64,
    /// Refused or of unknown fate, or answered with 503.
    failed: u64,
    reconnects: u64,
    connections: u64,
    waits_lost: u64,
}

fn totals(counters: &[Counters]) -> Totals {
    let sum = |of: fn(&Counters) -> u64| counters.iter().map(of).sum();
    Totals {
        executes_ok: sum(|c| c.executes_ok),
        failed: sum(|c| c.executes_failed + c.executes_unknown + c.busy),
        reconnects: sum(|c| c.reconnects),
        connections: sum(|c| c.connections),
        waits_lost: sum(|c| c.waits_lost),
    }
}

impl Show {
    pub(super) async fn everybody_connects(&mut self) -> Result<()> {
        let outlooks = self.setting.outlooks;
        self.act(1, "Everybody connects");
        self.says(&format!(
            "{DATABASE} is active on {FIRST}, with copies on {} and {}; mapigate has process number {}",
            SERVERS[1],
            SERVERS[2],
            self.site.gate()?.id()
        ));
        self.mark("Outlooks connect");
        let nothing = vec![Counters::default(); outlooks];
        let took = self.all_execute(&nothing, PATIENCE).await;
        let is_held = self.polls_held(PATIENCE).await?;
        self.promise(
            "everybody connects",
            took.is_some() && is_held,
            &format!(
                "{outlooks} Outlooks connected and executed within {}; each holds a NotificationWait",
                time(took)
            ),
        );
        sleep(WORK).await;
        let report = self.crowd.report();
        self.says(&format!(
            "{} executes by now; half took less than {:.1} ms, 99 of 100 less than {:.1} ms",
            report.executes_ok, report.latency_ms_p50, report.latency_ms_p99
        ));
        Ok(())
    }

    pub(super) async fn the_network_goes_away(&mut self) -> Result<()> {
        self.act(2, "The network goes away for a second");
        let hush = self.crowd.hush().await;
        let before = self.counters();
        self.mark("the network is cut");
        self.network.cut();
        self.says(
            "nobody has an Execute under way; every connection is reset, held polls included",
        );
        sleep(CUT).await;
        self.mark("the network is back");
        self.network.mend();
        drop(hush);
        let took = self.all_execute(&before, PATIENCE).await;
        let is_held = self.polls_held(PATIENCE).await?;
        let (then, now) = (totals(&before), totals(&self.counters()));
        self.says(&format!(
            "{} new connections, all Outlooks at work again after {}",
            now.connections - then.connections,
            time(took)
        ));
        self.promise(
            "sessions survive lost connections",
            took.is_some()
                && is_held
                && (now.reconnects, now.failed, now.waits_lost)
                    == (then.reconnects, then.failed, then.waits_lost),
            &format!(
                "same sessions, code 0: {} sessions opened anew, {} requests failed",
                now.reconnects - then.reconnects,
                now.failed - then.failed
            ),
        );
        sleep(WORK / 2).await;
        Ok(())
    }

    pub(super) async fn the_active_server_dies(&mut self) -> Result<()> {
        let outlooks = u64::try_from(self.setting.outlooks)?;
        self.act(3, "The active mailbox server dies");
        let before = self.counters();
        self.mark(&format!("{FIRST} is killed"));
        self.site.kill_server(FIRST).await?;
        self.says(&format!(
            "{FIRST} is gone, in the middle of everybody's work"
        ));
        let killed = Instant::now();
        let already = totals(&before).waits_lost;
        let all_told = until(PATIENCE, || {
            totals(&self.counters()).waits_lost >= already + outlooks
        })
        .await;
        let told = totals(&self.counters()).waits_lost - already;
        self.promise(
            "held polls end when their server is lost",
            all_told && killed.elapsed() < TOLD_MAX,
            &format!(
                "{told} held polls ended in-band with code 10 within {}",
                time(Some(killed.elapsed()))
            ),
        );
        // Somebody has to notice.
        sleep(WORK / 4).await;
        let before = self.counters();
        self.mark(&format!("{DATABASE} moves to {SUCCESSOR}"));
        let published = unix_micros();
        self.site.move_database(SUCCESSOR).await?;
        self.says(&format!(
            "an administrator activates the copy on {SUCCESSOR}; the reload took {}",
            time(Some(since(published)))
        ));
        let is_back = self.all_execute(&before, PATIENCE).await.is_some();
        self.recovery.seconds = self.recoveries(published);
        self.recovery.seconds.sort_by(f64::total_cmp);
        let slowest = self.recovery.slowest();
        self.promise(
            "everybody is back within 2 s of the map change",
            is_back
                && self.recovery.seconds.len() == self.setting.outlooks
                && slowest <= RECOVERY_MAX,
            &format!(
                "{} of {outlooks} Outlooks execute on {SUCCESSOR}: half after {:.2} s, the last after {slowest:.2} s",
                self.recovery.seconds.len(),
                self.recovery.median()
            ),
        );
        let told = super::Code10s::of(&self.counters());
        self.promise(
            "code 10 once per session",
            (told.sessions, told.most_per_session) == (outlooks, 1),
            &format!(
                "{} sessions were told code 10, each {}",
                told.sessions,
                times(told.most_per_session)
            ),
        );
        self.site.revive_server(FIRST).await?;
        self.mark(&format!("{FIRST} is back, passive"));
        self.says(&format!("{FIRST} is repaired and stays passive"));
        sleep(WORK).await;
        let strays = self.site.server(FIRST)?.counters().executes;
        self.promise(
            "nobody goes to a passive copy",
            strays == 0,
            &format!("{strays} executes reached {FIRST} since"),
        );
        Ok(())
    }

    pub(super) async fn a_storm_of_reloads(&mut self) -> Result<()> {
        let reloads = self.setting.reloads;
        self.act(4, &format!("{reloads} reloads under load"));
        self.polls_held(PATIENCE).await?;
        let admin = self.site.gate()?.admin();
        let then = totals(&self.counters());
        let generation = admin.metric("mapigate_config_generation").await?;
        self.mark(&format!("{reloads} reloads"));
        let began = Instant::now();
        let mut times = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).context("histogram")?;
        for _ in 0..reloads {
            let began = Instant::now();
            admin.reload().await?;
            times.saturating_record(u64::try_from(began.elapsed().as_micros())?);
            sleep(BETWEEN_RELOADS).await;
        }
        let storm = began.elapsed();
        let accepted = admin.metric("mapigate_config_generation").await? - generation;
        self.mark("the reloads are over");
        sleep(WORK / 4).await;
        let now = totals(&self.counters());
        self.reloads.count = reloads;
        self.reloads.failed_requests = now.failed - then.failed;
        self.reloads.connections_closed = now.connections - then.connections;
        self.reloads.half_ms = millis(times.value_at_quantile(0.5));
        self.reloads.slowest_ms = millis(times.max());
        self.says(&format!(
            "{accepted:.0} generations in {}, {:.1} ms each, {} executes meanwhile",
            time(Some(storm)),
            self.reloads.half_ms,
            now.executes_ok - then.executes_ok
        ));
        let wanted = f64::from(u32::try_from(reloads)?);
        let is_kept = now.executes_ok > then.executes_ok
            && (accepted - wanted).abs() < 0.5
            && Totals {
                executes_ok: then.executes_ok,
                ..now
            } == then;
        self.promise(
            "reloads disturb nobody",
            is_kept,
            &format!(
                "{} requests failed, {} connections closed, {} sessions opened anew",
                self.reloads.failed_requests,
                self.reloads.connections_closed,
                now.reconnects - then.reconnects
            ),
        );
        Ok(())
    }

    pub(super) async fn mapigate_is_killed(&mut self) -> Result<()> {
        self.act(5, "mapigate itself is killed");
        let hush = self.crowd.hush().await;
        let before = self.counters();
        let gate = self.site.take_gate().context("mapigate is stopped")?;
        self.spent.add(&gate).await?;
        self.mark("mapigate is killed");
        gate.kill()?;
        let lines = self.site.access_lines()?.len();
        self.says("kill -9: its memory of every session is gone");
        let began = Instant::now();
        self.site.start_gate(false).await?;
        self.mark("mapigate is started");
        self.says(&format!(
            "started again as process {}, ready after {}",
            self.site.gate()?.id(),
            time(Some(began.elapsed()))
        ));
        drop(hush);
        let took = self.all_execute(&before, PATIENCE).await;
        let is_held = self.polls_held(PATIENCE).await?;
        let (then, now) = (totals(&before), totals(&self.counters()));
        let pinned = self.pinned_since(lines).await?;
        self.promise(
            "sessions survive mapigate",
            took.is_some()
                && is_held
                && pinned == self.setting.outlooks
                && (now.reconnects, now.failed, now.waits_lost)
                    == (then.reconnects, then.failed, then.waits_lost),
            &format!(
                "{pinned} sessions went on by their route cookies, code 0: {} opened anew, {} requests failed",
                now.reconnects - then.reconnects,
                now.failed - then.failed
            ),
        );
        sleep(WORK / 2).await;
        Ok(())
    }

    /// Seconds from the change of the map to the first Execute of each Outlook that the new owner did.
    fn recoveries(&self, published: u64) -> Vec<f64> {
        let members = self.crowd.members().iter();
        members
            .filter_map(|member| {
                let there = |sent: &crate::lab::outlook::Sent| {
                    sent.outcome == Outcome::Ok && sent.server.as_deref() == Some(SUCCESSOR)
                };
                let first = member.sent().into_iter().find(there)?;
                let took = Duration::from_micros(first.ended.saturating_sub(published));
                Some(took.as_secs_f64())
            })
            .collect()
    }

    /// Users whose first Execute behind that line of the access log was routed by the pin of its session.
    async fn pinned_since(&self, line: usize) -> Result<usize> {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut routes = BTreeMap::new();
            for entry in self.site.access_lines()?.iter().skip(line) {
                let word = |key: &str| entry.get(key).and_then(|value| value.as_str());
                if let (Some("Execute"), Some(user), Some(route)) =
                    (word("type"), word("user"), word("route"))
                {
                    routes
                        .entry(user.to_owned())
                        .or_insert_with(|| route.to_owned());
                }
            }
            if routes.len() >= self.setting.outlooks || Instant::now() > end {
                return Ok(routes.values().filter(|route| *route == "pinned").count());
            }
            sleep(LINES).await;
        }
    }
}

fn since(micros: u64) -> Duration {
    Duration::from_micros(unix_micros().saturating_sub(micros))
}

fn millis(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64() * 1e3
}

fn time(took: Option<Duration>) -> String {
    match took {
        None => format!("more than {} s", PATIENCE.as_secs()),
        Some(took) if took < Duration::from_secs(1) => format!("{} ms", took.as_millis()),
        Some(took) => format!("{:.2} s", took.as_secs_f64()),
    }
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("up to {count} times"),
    }
}

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(15);
/// Undisturbed work between two events.
const WORK: Duration = Duration::from_secs(2);
/// How long the network stays away.
const CUT: Duration = Duration::from_secs(1);
/// Held polls of a lost server end within this.
const TOLD_MAX: Duration = Duration::from_secs(3);
/// Everybody is back within this many seconds of the map change.
const RECOVERY_MAX: f64 = 2.0;
/// So that requests of every kind meet a reload.
const BETWEEN_RELOADS: Duration = Duration::from_millis(10);
/// How often the access log is read.
const LINES: Duration = Duration::from_millis(100);
