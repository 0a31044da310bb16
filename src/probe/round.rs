//! One round through all steps: what is tried, what is not and why, and how long each takes.
#![expect(
    clippy::disallowed_methods,
    reason = "a probe tells how long things take, and judges certificates by today"
)]

use super::caller::Caller;
use super::mailbox::Talk;
use super::report::{Finding, Good, Tried, Trouble, UNASKED, Verdict};
use super::step::Step;
use super::{Known, Probe};
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// What the steps so far have found out.
pub(super) struct Round<'p> {
    pub(super) probe: &'p Probe,
    pub(super) caller: Caller<'p>,
    pub(super) found: Option<Known>,
    /// What clients that speak no MAPI over HTTP are told: a host, or nothing; `None` where that is not known.
    pub(super) older: Option<Option<String>>,
    pub(super) mailbox: Option<Talk>,
    pub(super) book: Option<Talk>,
    /// The steps that others may build on.
    good: BTreeSet<Step>,
}

impl<'p> Round<'p> {
    pub(super) fn new(probe: &'p Probe) -> Self {
        Self {
            probe,
            caller: Caller::new(probe),
            found: None,
            older: None,
            mailbox: None,
            book: None,
            good: BTreeSet::new(),
        }
    }

    /// The mailbox: the one that was given, found, or remembered.
    pub(super) fn known(&self) -> Option<Known> {
        let probe = self.probe;
        let all = [&probe.mailbox, &self.found, &probe.remembered];
        all.into_iter().flatten().next().cloned()
    }

    /// Tries a step, or says why not.
    pub(super) async fn take(&mut self, step: Step) -> Finding {
        if let Some((verdict, words)) = self.not_tried(step) {
            return Finding {
                step,
                verdict,
                milliseconds: 0.0,
                words,
                trouble: None,
            };
        }
        let limit = match step {
            Step::Wait => self.probe.timeout + self.probe.held_wait,
            _ => self.probe.timeout,
        };
        let began = Instant::now();
        let tried = tokio::time::timeout(limit, self.attempt(step)).await;
        let milliseconds = began.elapsed().as_secs_f64() * 1000.0;
        let tried = tried.unwrap_or_else(|_elapsed| {
            self.caller.forget();
            Err(late(limit))
        });
        match tried {
            Ok(Good {
                verdict,
                words,
                trouble,
            }) => {
                self.good.insert(step);
                Finding {
                    step,
                    verdict,
                    milliseconds,
                    words,
                    trouble,
                }
            }
            Err(trouble) => Finding {
                step,
                verdict: Verdict::Failed,
                milliseconds,
                words: trouble.came.clone(),
                trouble: Some(trouble),
            },
        }
    }

    /// Why a step is not tried; `None`: it is.
    fn not_tried(&self, step: Step) -> Option<(Verdict, String)> {
        if !self.probe.steps.contains(&step) {
            return Some((Verdict::Skipped, UNASKED.to_owned()));
        }
        if step == Step::Wait && self.probe.held_wait.is_zero() {
            return Some((Verdict::Skipped, "the held wait is 0".to_owned()));
        }
        let needs_a_mailbox = matches!(step, Step::Connect | Step::Bind);
        let missing = match step.needs() {
            Some(need) if !self.good.contains(&need) => Some(need),
            _ if needs_a_mailbox && self.known().is_none() => Some(Step::Autodiscover),
            _ => None,
        };
        missing.map(|need| (Verdict::NotRun, format!("needs {need}")))
    }

    async fn attempt(&mut self, step: Step) -> Tried {
        // Boxed: the largest would else be the size of each.
        match step {
            Step::Dns => self.dns().await,
            Step::Tls => Box::pin(self.tls()).await,
            Step::Authentication => Box::pin(self.authentication()).await,
            Step::Autodiscover => Box::pin(self.autodiscover()).await,
            Step::AutodiscoverJson => Box::pin(self.autodiscover_json()).await,
            Step::Connect => Box::pin(self.connect()).await,
            Step::Logon => Box::pin(self.logon()).await,
            Step::Wait => Box::pin(self.wait()).await,
            Step::Disconnect => Box::pin(self.disconnect()).await,
            Step::Bind => Box::pin(self.bind()).await,
            Step::Resolve => Box::pin(self.resolve()).await,
            Step::Rows => Box::pin(self.rows()).await,
            Step::Unbind => Box::pin(self.unbind()).await,
            Step::RpcEcho => Box::pin(self.rpc_echo()).await,
        }
    }
}

fn late(limit: Duration) -> Trouble {
    let limit = humantime::format_duration(limit);
    Trouble::new(
        format!("an answer within {limit}"),
        "none",
        "look at what is slow: the access log has the time of each request; --timeout gives more",
    )
}

/// Seconds since 1970.
pub(super) fn today() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

/// A clock for what happens within a step.
pub(super) fn clock() -> Instant {
    Instant::now()
}
