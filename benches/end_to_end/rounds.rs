//! The course of the bench: parts, rounds in shuffled order, and what is said meanwhile.

use crate::handshakes::{self, Habit};
use crate::launch;
use crate::load;
use crate::peers::{self, Peer};
use crate::plan::{MAPIGATE, NEGOTIATED, Part, Plan, UNMETERED};
use crate::polls;
use crate::report::{Results, Work};
use crate::site::Site;
use anyhow::Result;
use std::time::Duration;

/// Added to what a generator's windows take: connecting, a thousand passwords, a slow machine.
const SLACK: Duration = Duration::from_secs(60);

/// Runs all parts. A peer that fails in a window has an error there, and the bench goes on.
pub(crate) fn run(plan: &Plan, site: &Site) -> Result<Results> {
    let mut bench = Bench {
        plan,
        site,
        results: Results::default(),
    };
    let names = bench.installed();
    if !site.cores.are_apart() {
        bench.note(
            "only one core: the proxies share it with the load, so every figure is too high"
                .to_owned(),
        );
    }
    for part in &plan.parts {
        match part {
            Part::A => {
                let mut names = names.clone();
                if names.iter().any(|name| name == MAPIGATE) {
                    names.push(UNMETERED.to_owned());
                    if peers::lab().is_some() {
                        names.push(NEGOTIATED.to_owned());
                    } else {
                        bench.note(format!(
                            "{NEGOTIATED} is left out: MAPIGATE_AD_LAB names no lab of tests/ad/up.sh"
                        ));
                    }
                }
                bench.executes(&names, &[Work::Execute])?;
            }
            Part::B => bench.executes(&names, &[Work::Answer50K, Work::Answer10M])?,
            Part::C => bench.polls(&names)?,
            Part::D => bench.handshakes(&names)?,
        }
    }
    Ok(bench.results)
}

struct Bench<'a> {
    plan: &'a Plan,
    site: &'a Site,
    results: Results,
}

impl Bench<'_> {
    /// The peers that can take part; says how to get the others.
    fn installed(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        for name in &self.plan.peers {
            if !["nginx", "haproxy", MAPIGATE].contains(&name.as_str()) {
                self.note(format!(
                    "no recipe for {name}; there are nginx, haproxy and mapigate"
                ));
                continue;
            }
            if peers::program(name).is_none() {
                self.note(format!(
                    "{name} is not installed; for its figures: apt-get install {name}"
                ));
                continue;
            }
            let version = peers::version(name);
            println!("{name}: {version}");
            self.results.versions.insert(name.clone(), version);
            names.push(name.clone());
        }
        names
    }

    fn note(&mut self, words: String) {
        println!("note: {words}");
        self.results.notes.push(words);
    }

    /// Starts everybody: those not under test idle on the same core, as all do in turn.
    fn start_all(&mut self, names: &[String]) -> Vec<Peer> {
        let started: Vec<_> = names
            .iter()
            .map(|name| (name, Peer::start(self.site, name)))
            .collect();
        let mut running = Vec::new();
        for (name, outcome) in started {
            match outcome {
                Ok(peer) => running.push(peer),
                Err(cause) => self.failed(name, "start", &format!("{cause:#}")),
            }
        }
        running
    }

    fn failed(&mut self, name: &str, what: &str, cause: &str) {
        self.results.failures += 1;
        self.note(format!("{name}, {what}: {cause}"));
    }

    fn executes(&mut self, names: &[String], works: &[Work]) -> Result<()> {
        let mut running = self.start_all(names);
        for &work in works {
            println!("\n{}", work.title());
            let connections = if work == Work::Answer10M {
                self.plan.large_connections
            } else {
                self.plan.connections
            };
            for round in 1..=self.plan.rounds {
                fastrand::shuffle(&mut running);
                launch::check_interrupted()?;
                let lost = running.iter().map(|peer| {
                    peer.forget_log();
                    peer.lost_lines()
                });
                let lost: Vec<Result<u64>> = lost.collect();
                let targets = running.iter().map(|peer| load::Target {
                    address: peer.address,
                    pid: peer.process.pid(),
                    sign_on: peer.sign_on(),
                });
                let question = load::Question {
                    targets: targets.collect(),
                    connections,
                    users: self.plan.users,
                    answer_kib: match work {
                        Work::Answer50K => 50,
                        Work::Answer10M => self.plan.large_kib,
                        _ => 4,
                    },
                    warm_up: self.plan.warm_up,
                    window: self.plan.window,
                    turns: self.plan.turns,
                };
                let each = self.plan.warm_up + self.plan.window + SLACK;
                let limit = each * u32::try_from(running.len())?;
                let findings: load::Findings =
                    launch::ask(self.site.cores, load::NAME, &question, limit)?;
                for ((peer, before), found) in running.iter().zip(lost).zip(findings) {
                    match before.and_then(|before| Ok(peer.lost_lines()?.saturating_sub(before))) {
                        Ok(lost) => *self.results.lost_lines.entry(work).or_default() += lost,
                        Err(cause) => self.failed(&peer.name, "lost lines", &format!("{cause:#}")),
                    }
                    self.keep(work, &peer.name, round, found.map_err(anyhow::Error::msg));
                }
            }
        }
        Ok(())
    }

    fn handshakes(&mut self, names: &[String]) -> Result<()> {
        let mut running = self.start_all(names);
        for (work, habit, rounds) in [
            (Work::FullHandshake, Habit::Forget, self.plan.rounds),
            (Work::ResumedHandshake, Habit::Return, self.plan.rounds),
            (Work::Returning, Habit::ReturnOnce(self.plan.returning), 1),
        ] {
            println!("\n{}", work.title());
            for round in 1..=rounds {
                fastrand::shuffle(&mut running);
                for peer in &running {
                    launch::check_interrupted()?;
                    let question = handshakes::Question {
                        address: peer.address,
                        pid: peer.process.pid(),
                        habit,
                        clients: self.plan.handshakes,
                        warm_up: self.plan.warm_up,
                        window: self.plan.window * 2 / 3,
                    };
                    let limit = self.plan.warm_up + self.plan.window + SLACK;
                    let found = launch::ask(self.site.cores, handshakes::NAME, &question, limit);
                    self.keep(work, &peer.name, round, found);
                }
            }
        }
        Ok(())
    }

    /// Says and keeps what a generator found.
    fn keep(&mut self, work: Work, name: &str, round: u32, found: Result<load::Found>) {
        match found {
            Ok(found) => {
                if let Some(cause) = &found.first_error {
                    self.note(format!(
                        "{name}, {}: {} errors, the first: {cause}",
                        work.title(),
                        found.errors
                    ));
                }
                println!("  round {round}  {name:<9} {}", work.words(&found));
                self.results.add(work, name, round, found);
            }
            Err(cause) => self.failed(name, work.title(), &format!("{cause:#}")),
        }
    }

    /// Each peer fresh in each round: memory that earlier work has freed would be used again unseen.
    fn polls(&mut self, names: &[String]) -> Result<()> {
        let wanted = self.plan.polls;
        let polls = wanted.min(self.site.polls_max());
        println!("\nC: {polls} held polls");
        if polls < wanted {
            self.note(format!(
                "{polls} polls instead of {wanted}: {} open files are allowed",
                self.site.files_max
            ));
        }
        let mut names = names.to_vec();
        for round in 1..=self.plan.poll_rounds {
            fastrand::shuffle(&mut names);
            for name in &names {
                launch::check_interrupted()?;
                match self.polls_of(name, polls) {
                    Ok(found) => {
                        println!(
                            "  round {round}  {name:<9} {:6.1} KB a poll, {:5.1} us a PENDING, {} dead",
                            found.bytes_per_poll / 1024.0,
                            found.pending_ns / 1000.0,
                            found.dead
                        );
                        if let Some(cause) = &found.first_error {
                            self.note(format!(
                                "{name}, polls: {} dead, the first: {cause}",
                                found.dead
                            ));
                        }
                        self.results
                            .polls
                            .entry(name.clone())
                            .or_default()
                            .push(found);
                    }
                    Err(cause) => self.failed(name, "polls", &format!("{cause:#}")),
                }
            }
        }
        Ok(())
    }

    fn polls_of(&self, name: &str, polls: u32) -> Result<polls::Found> {
        let peer = Peer::start(self.site, name)?;
        let address = peer.address;
        let pid = peer.process.pid();
        let users = self.plan.users;
        // Code and tables come into memory before the first reading; the connections go again.
        let warm_up = load::Question {
            targets: vec![load::Target {
                address,
                pid,
                sign_on: load::SignOn::Basic,
            }],
            connections: 8,
            users,
            answer_kib: 4,
            warm_up: Duration::from_millis(100),
            window: Duration::from_millis(400),
            turns: 1,
        };
        let _: load::Findings = launch::ask(self.site.cores, load::NAME, &warm_up, SLACK)?;
        let question = polls::Question {
            address,
            pid,
            polls,
            users,
            pending: self.plan.pending,
            window: self.plan.poll_window,
        };
        let limit = self.plan.pending + self.plan.poll_window + SLACK * 2;
        let found = launch::ask(self.site.cores, polls::NAME, &question, limit)?;
        if name == MAPIGATE {
            peer.forget_log();
        }
        Ok(found)
    }
}
