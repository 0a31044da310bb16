//! What the same work costs the processor of the front end.

use super::facts::CpuFacts;
use super::legs::{Client, Door, Protocol};
use super::tunnel::Tunnel;
use super::work::{USER, Work};
use super::{SERVER, Stage};
use crate::lab::demo::Teller;
use crate::lab::site::HOST;
use anyhow::{Context as _, Result};
use std::time::Duration;
use tokio::task::JoinSet;

/// Something whose cost is taken.
#[derive(Clone, Copy, Debug)]
enum Task {
    /// Opening a session and closing it.
    Session,
    /// Some work on an open session.
    Work(Work),
    /// A user who comes, works, waits to be told of events meanwhile, and goes.
    User,
}

/// Who carries what.
#[derive(Debug)]
enum Carrier<'a> {
    /// mapigate, with everything it does for each request.
    Mapigate(&'a Stage),
    /// The stand-in.
    Tunnel(Tunnel),
}

/// One carrier and how clients come to it.
#[derive(Debug)]
struct Way<'a> {
    carrier: Carrier<'a>,
    door: Door,
}

/// Takes the cost of everything, each way in turn, round after round.
pub(super) async fn account(stage: &Stage, teller: &Teller) -> Result<Vec<CpuFacts>> {
    let site = &stage.site;
    let tls = site.authority().server_config(&[HOST])?;
    let rpc = Tunnel::to(stage.rpc_plain.address(), tls.clone()).await?;
    let mapi = Tunnel::to(site.server(SERVER)?.address(), tls).await?;
    let ways = [
        Way {
            door: Door::new(site, Protocol::Mapi, site.gate()?.address())?,
            carrier: Carrier::Mapigate(stage),
        },
        Way {
            door: Door::new(site, Protocol::Rpc, rpc.address())?,
            carrier: Carrier::Tunnel(rpc),
        },
        Way {
            door: Door::new(site, Protocol::Mapi, mapi.address())?,
            carrier: Carrier::Tunnel(mapi),
        },
    ];
    let mut facts = Vec::new();
    for task in tasks() {
        let mut rounds = Vec::new();
        for round in 0..stage.rounds {
            let mut costs = [0.0; 3];
            // Nobody is always first.
            for turn in 0..ways.len() {
                let index = (turn + round) % ways.len();
                if let (Some(way), Some(cost)) = (ways.get(index), costs.get_mut(index)) {
                    *cost = way.cost(task, stage.is_quick).await?;
                }
            }
            rounds.push(costs);
        }
        let of_task = summed_up(task.name(), &rounds);
        teller.says(&format!(
            "{}: {:.0} µs of mapigate, {:.0} µs of the stand-in with RPC/HTTP",
            of_task.name, of_task.mapigate_us, of_task.tunnel_rpc_us
        ));
        facts.push(of_task);
    }
    Ok(facts)
}

fn tasks() -> impl Iterator<Item = Task> {
    [Task::Session]
        .into_iter()
        .chain(Work::ALL.into_iter().map(Task::Work))
        .chain([Task::User])
}

impl Task {
    fn name(self) -> String {
        match self {
            Self::Session => "a session opened and closed".to_owned(),
            Self::Work(work) => work.name.to_owned(),
            Self::User => {
                let works = USER.map(|(work, count)| format!("{count} x {}", work.name));
                format!("a user: opens, {}, waits, closes", works.join(", "))
            }
        }
    }

    /// How often each of the clients does it in a round: long enough to be seen, short enough for two minutes.
    fn times(self, is_quick: bool) -> usize {
        let (times, quick) = match self {
            Self::Session => (20, 1),
            Self::Work(work) if work.payload < 100_000 => (200, 4),
            Self::Work(work) if work.payload < 10_000_000 => (10, 1),
            Self::Work(_) => (1, 1),
            Self::User => (4, 1),
        };
        if is_quick { quick } else { times }
    }

    /// One client does it so often.
    async fn perform(self, door: &Door, client: Option<&Client>, times: usize) -> Result<()> {
        match (self, client) {
            (Self::Work(work), Some(client)) => client.repeat(&work.executes(), times).await,
            (Self::User, _) => {
                let works = USER.map(|(work, count)| (work.executes(), count));
                for _ in 0..times {
                    let client = door.open(3).await?;
                    let wait = client.wait();
                    for (requests, count) in &works {
                        client.repeat(requests, *count).await?;
                    }
                    wait.abort();
                    client.close().await?;
                }
                Ok(())
            }
            _ => {
                for _ in 0..times {
                    door.open(3).await?.close().await?;
                }
                Ok(())
            }
        }
    }
}

/// Clients at once: a front end that wakes for one request alone spends more on waking than on the request.
const CLIENTS: usize = 8;

impl Way<'_> {
    /// Microseconds of the carrier's processor time that the task costs once.
    async fn cost(&self, task: Task, is_quick: bool) -> Result<f64> {
        let times = task.times(is_quick);
        let count = if is_quick { 1 } else { CLIENTS };
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(match task {
                Task::Work(_) => {
                    let client = self.door.open(3).await?;
                    // The first finds buffers and caches cold.
                    task.perform(&self.door, Some(&client), 1).await?;
                    Some(client)
                }
                Task::Session | Task::User => None,
            });
        }
        let before = self.spent().await?;
        let mut at_work = JoinSet::new();
        for client in clients {
            let door = self.door.clone();
            at_work.spawn(async move {
                task.perform(&door, client.as_ref(), times).await?;
                Ok::<_, anyhow::Error>(client)
            });
        }
        let mut done = Vec::new();
        while let Some(client) = at_work.join_next().await {
            done.push(client??);
        }
        let spent = self.spent().await?.saturating_sub(before);
        for client in done.into_iter().flatten() {
            client.close().await?;
        }
        let times = f64::from(u32::try_from(count * times)?);
        Ok(spent.as_secs_f64() * 1e6 / times)
    }

    async fn spent(&self) -> Result<Duration> {
        match &self.carrier {
            Carrier::Mapigate(stage) => stage.site.gate()?.cpu().context("mapigate"),
            Carrier::Tunnel(tunnel) => tunnel.cpu().await,
        }
    }
}

/// Medians of costs, and of the ratios within each round: the machine may be slower in one than in another.
fn summed_up(name: String, rounds: &[[f64; 3]]) -> CpuFacts {
    let of = |pick: fn(&[f64; 3]) -> f64| median(rounds.iter().map(pick).collect());
    CpuFacts {
        name,
        mapigate_us: of(|[mapigate, _, _]| *mapigate),
        tunnel_rpc_us: of(|[_, rpc, _]| *rpc),
        tunnel_mapi_us: of(|[_, _, mapi]| *mapi),
        more_percent: of(|[mapigate, rpc, _]| (mapigate / rpc - 1.0) * 100.0),
        protocol_more_percent: of(|[_, rpc, mapi]| (mapi / rpc - 1.0) * 100.0),
    }
}

/// The middle one; of two the mean; 0 of none.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match (numbers.get(middle), middle.checked_sub(1)) {
        (None, _) => 0.0,
        (Some(upper), Some(below)) if numbers.len().is_multiple_of(2) => {
            let lower = numbers.get(below).copied().unwrap_or(*upper);
            f64::midpoint(lower, *upper)
        }
        (Some(number), _) => *number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_of_any_number() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(Vec::new()).abs() < 1e-9);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // The second round ran on a machine of half the speed.
        let rounds = [[30.0, 20.0, 22.0], [60.0, 40.0, 44.0], [33.0, 20.0, 21.0]];

        let facts = summed_up("work".to_owned(), &rounds);

        assert!((facts.more_percent - 50.0).abs() < 1e-9);
        assert!((facts.protocol_more_percent - 10.0).abs() < 1e-9);
        assert!((facts.mapigate_us - 33.0).abs() < 1e-9);
    }
}
