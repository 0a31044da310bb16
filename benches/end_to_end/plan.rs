//! What is to be run: the command line, and the counts and times that follow from it.

use clap::{Parser, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Measures mapigate beside nginx and HAProxy; see the README, "What it costs".
#[derive(Debug, Parser)]
#[command(name = "end_to_end", about, long_about = None)]
pub(crate) struct Arguments {
    /// Small counts and short windows: checks in under a minute that everything works.
    #[arg(long)]
    smoke: bool,
    /// Interleaved rounds of each part.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
    /// Only these parts: A Execute, B large answers, C held polls, D handshakes.
    #[arg(long, value_enum, ignore_case = true, value_delimiter = ',')]
    only: Vec<Part>,
    /// The others, in this order; those not installed are left out.
    #[arg(long, value_delimiter = ',', default_value = "nginx,haproxy")]
    peers: Vec<String>,
    /// Leave mapigate itself out.
    #[arg(long)]
    without_mapigate: bool,
    /// Held polls of part C.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    polls: Option<u32>,
    /// Write all figures into this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where the charts go.
    #[arg(long, default_value = "target/bench")]
    charts: PathBuf,
    /// Ask the kernel to prefer the measured processes (root): for a machine that others use too.
    #[arg(long)]
    boost: bool,
    /// Keep the folder with the configurations and logs of the proxies.
    #[arg(long)]
    keep: bool,
    /// What `cargo bench` adds by itself.
    #[arg(long, hide = true)]
    bench: bool,
    /// Only peers (mapigate among them) and parts whose name contains one of these words.
    filters: Vec<String>,
}

/// A part of the bench; the letters are those of its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Execute, 2 KB in, 4 KB out.
    A,
    /// Execute with 50 KB and 10 MB answers.
    B,
    /// Held NotificationWaits.
    C,
    /// TLS handshakes.
    D,
}

impl Part {
    /// What `--only` and the filters may call it.
    fn words(self) -> &'static str {
        match self {
            Self::A => "a execute",
            Self::B => "b answers",
            Self::C => "c polls",
            Self::D => "d handshakes",
        }
    }
}

/// The bench to run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Only a check that everything works.
    pub(crate) smoke: bool,
    /// Parts, in order.
    pub(crate) parts: Vec<Part>,
    /// The proxies asked for, mapigate among them.
    pub(crate) peers: Vec<String>,
    /// Rounds of A, B and D.
    pub(crate) rounds: u32,
    /// Rounds of C: memory hardly varies, and each round parks thousands of connections.
    pub(crate) poll_rounds: u32,
    /// Connections of A and of B with 50 KB.
    pub(crate) connections: usize,
    /// Connections of B with 10 MB; more would only queue.
    pub(crate) large_connections: usize,
    /// Load before a window counts.
    pub(crate) warm_up: Duration,
    /// Length of a window.
    pub(crate) window: Duration,
    /// Turns a window of A and B is taken in.
    pub(crate) turns: u32,
    /// KiB of the largest answer.
    pub(crate) large_kib: u32,
    /// Polls wanted in C.
    pub(crate) polls: u32,
    /// Time between the PENDING chunks of a poll.
    pub(crate) pending: Duration,
    /// Length of the window of C.
    pub(crate) poll_window: Duration,
    /// Handshakes under way at once in D.
    pub(crate) handshakes: usize,
    /// Clients of D that come back once.
    pub(crate) returning: usize,
    /// Users in the password file.
    pub(crate) users: usize,
    /// Ask for scheduling priority.
    pub(crate) boost: bool,
    /// Keep the folder.
    pub(crate) keep: bool,
    /// JSON output.
    pub(crate) json: Option<PathBuf>,
    /// Folder of the charts.
    pub(crate) charts: PathBuf,
}

impl Plan {
    /// The command that runs the same again.
    pub(crate) fn command(&self) -> String {
        let own: Vec<String> = std::env::args()
            .skip(1)
            .filter(|a| a != "--bench")
            .collect();
        format!("cargo bench --bench end_to_end -- {}", own.join(" "))
            .trim_end_matches(" -- ")
            .to_owned()
    }
}

impl From<Arguments> for Plan {
    fn from(asked: Arguments) -> Self {
        let mut peers = asked.peers;
        peers.retain(|name| !name.is_empty() && name != MAPIGATE);
        if !asked.without_mapigate {
            peers.push(MAPIGATE.to_owned());
        }
        let mut parts = asked.only;
        if parts.is_empty() {
            parts = vec![Part::A, Part::B, Part::C, Part::D];
        }
        let (of_peers, of_parts): (Vec<String>, Vec<String>) = asked
            .filters
            .into_iter()
            .partition(|word| peers.iter().any(|name| name.contains(word.as_str())));
        if !of_peers.is_empty() {
            peers.retain(|name| of_peers.iter().any(|word| name.contains(word.as_str())));
        }
        if !of_parts.is_empty() {
            parts.retain(|part| {
                of_parts
                    .iter()
                    .any(|word| part.words().contains(&word.to_ascii_lowercase()))
            });
        }
        let of =
            |smoke: u64, full: u64| Duration::from_millis(if asked.smoke { smoke } else { full });
        Self {
            smoke: asked.smoke,
            parts,
            peers,
            rounds: if asked.smoke { 1 } else { asked.rounds },
            poll_rounds: if asked.smoke { 1 } else { asked.rounds.min(2) },
            connections: if asked.smoke { 16 } else { 64 },
            large_connections: if asked.smoke { 4 } else { 16 },
            warm_up: of(200, 700),
            window: of(500, 3000),
            turns: if asked.smoke { 10 } else { 150 },
            large_kib: 10 * 1024,
            polls: asked.polls.unwrap_or(if asked.smoke { 200 } else { 5000 }),
            pending: of(1000, 5000),
            poll_window: of(2000, 10_000),
            handshakes: if asked.smoke { 8 } else { 32 },
            returning: if asked.smoke { 60 } else { 600 },
            users: if asked.smoke { 100 } else { 1000 },
            boost: asked.boost,
            keep: asked.keep,
            json: asked.json,
            charts: asked.charts,
        }
    }
}

/// What mapigate is called in tables.
pub(crate) const MAPIGATE: &str = "mapigate";
/// The same program that does not measure its processor time: what the measuring costs.
pub(crate) const UNMETERED: &str = "unmetered";
/// The same program whose clients sign each connection on by Kerberos, and then show nothing.
pub(crate) const NEGOTIATED: &str = "kerberos";
/// The one everybody is compared with.
pub(crate) const YARDSTICK: &str = "nginx";
