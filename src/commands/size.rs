//! `mapigate size`: how large the front ends of a site must be.

use super::ask::ask;
use super::say::say;
use crate::capacity::{self, Assumptions, Exposition, Inputs, Observed, Reading, Unusable};
use anyhow::{Context as _, Result};
use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use thiserror::Error;

/// What `mapigate size` is asked.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct SizeArgs {
    /// Mailboxes of the site; with --from, as many as are connected there unless said otherwise
    #[arg(long, required_unless_present = "from", value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub users: Option<u32>,

    /// Messages a user sends and receives in a day. With --from only the published rule needs it
    #[arg(long, value_name = "MESSAGES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub profile: u32,

    /// Take rates and costs from a running mapigate: its admin address, such as http://127.0.0.1:9080/metrics, or a
    /// file with what that answered. Once for each front end of the site
    #[arg(long, value_name = "URL|FILE")]
    pub from: Vec<Source>,

    /// How long to look at it; 0s: since it started. A file is always looked at since the start
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration, requires = "from")]
    pub window: Duration,

    /// Users connected there, if that is not the number of held polls
    #[arg(long, value_name = "USERS", requires = "from", value_parser = clap::value_parser!(u32).range(1..))]
    pub connected: Option<u32>,

    /// How much busier the busiest hour is than the time looked at
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, requires = "from", value_parser = factor)]
    pub peak: f64,

    /// Front ends; the plan holds while one of them is lost
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub front_ends: u32,

    /// How busy a core may be in the busiest hour, one front end being lost, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 40, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub utilisation: u8,

    /// Take something else for granted; the plan lists the names
    #[arg(long, value_name = "NAME=VALUE")]
    pub assume: Vec<Change>,

    /// Print the plan as one JSON object
    #[arg(long)]
    pub json: bool,

    /// Draw cores against users into this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

const EXIT_CODES: &str = "\
Exit codes: 0 planned, 1 what was given cannot be planned from, 2 no answer from the admin address.";

/// Where figures come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The admin address of a running process: host and port, path.
    Admin(String, String),
    /// What it answered, some time ago.
    File(PathBuf),
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("neither an address nor a file".to_owned());
        }
        if text.starts_with("https://") {
            return Err(
                "admin addresses speak http; save what https answers and give the file".to_owned(),
            );
        }
        let Some(rest) = text.strip_prefix("http://") else {
            // 127.0.0.1:9080 is an address, and hardly a file.
            return Ok(match text.parse::<SocketAddr>() {
                Ok(_) => Self::Admin(text.to_owned(), "/metrics".to_owned()),
                Err(_) => Self::File(PathBuf::from(text)),
            });
        };
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at_checked(at).unwrap_or((rest, "")),
            None => (rest, ""),
        };
        if host.is_empty() || rest.chars().any(|c| c.is_ascii_control() || c == ' ') {
            return Err("not an address: http://HOST:PORT/metrics".to_owned());
        }
        let path = if path.len() > 1 { path } else { "/metrics" };
        let is_port_given = host.rsplit_once(':').is_some_and(|(_, port)| {
            !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit())
        });
        let host = match is_port_given {
            true => host.to_owned(),
            false => format!("{host}:80"),
        };
        Ok(Self::Admin(host, path.to_owned()))
    }
}

/// An assumption, and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    name: String,
    value: f64,
}

impl FromStr for Change {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("not NAME=VALUE")?;
        let value: f64 = value
            .trim()
            .parse()
            .map_err(|why| format!("{value:?}: {why}"))?;
        if !value.is_finite() || value < 0.0 {
            return Err(format!("{value} is no amount"));
        }
        // Checked here, so that a wrong name is a mistake of the command line.
        let name = name.trim().to_owned();
        Assumptions::default()
            .set(&name, value)
            .map_err(|unknown| unknown.to_string())?;
        Ok(Self { name, value })
    }
}

fn factor(text: &str) -> Result<f64, String> {
    let factor: f64 = text.parse().map_err(|why| format!("{why}"))?;
    match factor > 0.0 && factor <= 1000.0 {
        true => Ok(factor),
        false => Err("not between 0 and 1000".to_owned()),
    }
}

/// Why there is no plan.
#[derive(Debug, Error)]
enum Trouble {
    #[error("no answer from {0}: {1}")]
    NoAnswer(String, io::Error),
    #[error("{0}: {1}")]
    NotFound(String, &'static str),
    #[error("{0} answered {1}; is this the admin address?")]
    Refused(String, u16),
    #[error("{0}: {1}")]
    File(String, io::Error),
    #[error("{0}: {1}")]
    Unusable(String, Unusable),
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl Trouble {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoAnswer(..) | Self::NotFound(..) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Plans, and prints the plan.
#[expect(clippy::print_stderr, reason = "a command speaks to its caller")]
pub fn run(args: &SizeArgs) -> ExitCode {
    match plan(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("mapigate: {trouble}");
            trouble.exit_code()
        }
    }
}

fn plan(args: &SizeArgs) -> Result<(), Trouble> {
    let mut assumed = Assumptions::default();
    for change in &args.assume {
        assumed
            .set(&change.name, change.value)
            .context("--assume")?;
    }
    let profile = f64::from(args.profile);
    let users = args.users.map(f64::from);
    let inputs = match observe(args)? {
        None => Inputs::of_profile(users.unwrap_or_default(), profile, assumed),
        Some(observed) => {
            let connected = args.connected.map(f64::from);
            let users = users.or(connected).unwrap_or_else(|| observed.connected());
            observed.inputs(users, profile, connected, args.peak, assumed)
        }
    };
    let inputs = Inputs {
        front_ends: args.front_ends,
        utilisation: f64::from(args.utilisation) / 100.0,
        ..inputs
    };
    let plan = inputs.plan();
    if let Some(path) = &args.svg {
        fs::write(path, capacity::svg(&inputs))
            .map_err(|error| Trouble::File(path.display().to_string(), error))?;
    }
    say(&match args.json {
        true => serde_json::to_string_pretty(&plan).context("the plan as JSON")?,
        false => capacity::text(&plan).trim_end().to_owned(),
    });
    Ok(())
}

/// What the sources say together; `None` where there are none.
fn observe(args: &SizeArgs) -> Result<Option<Observed>, Trouble> {
    let clock = Clock::start();
    let first = args
        .from
        .iter()
        .map(|source| source.read(&clock))
        .collect::<Result<Vec<_>, _>>()?;
    let is_watched = |source: &Source| matches!(source, Source::Admin(..));
    let is_compared = !args.window.is_zero() && args.from.iter().any(is_watched);
    if is_compared {
        // What cannot be used later is said now.
        for (source, reading) in args.from.iter().zip(&first) {
            match Observed::since_start(reading) {
                Err(unusable) if unusable != Unusable::NoTraffic => {
                    return Err(Trouble::Unusable(source.name(), unusable));
                }
                _ => {}
            }
        }
        wait(args.window);
    }
    let mut all: Option<Observed> = None;
    for (source, first) in args.from.iter().zip(&first) {
        let observed = match is_compared && is_watched(source) {
            true => Observed::between(first, &source.read(&clock)?),
            false => Observed::since_start(first),
        };
        let observed = observed.map_err(|why| Trouble::Unusable(source.name(), why))?;
        all = Some(match all {
            None => observed,
            Some(others) => others.and(observed),
        });
    }
    Ok(all)
}

impl Source {
    fn name(&self) -> String {
        match self {
            Self::Admin(host, path) => format!("http://{host}{path}"),
            Self::File(path) => path.display().to_string(),
        }
    }

    fn read(&self, clock: &Clock) -> Result<Reading, Trouble> {
        let (at, text) = match self {
            Self::Admin(host, path) => {
                let address = host
                    .to_socket_addrs()
                    .map_err(|error| Trouble::NoAnswer(self.name(), error))?
                    .next()
                    .ok_or_else(|| Trouble::NotFound(self.name(), "has no address"))?;
                let (status, text) = ask(address, "GET", path)
                    .map_err(|error| Trouble::NoAnswer(self.name(), error))?;
                if status != 200 {
                    return Err(Trouble::Refused(self.name(), status));
                }
                (clock.now(), text)
            }
            Self::File(path) => {
                let failed = |error| Trouble::File(self.name(), error);
                let written = fs::metadata(path).and_then(|file| file.modified());
                let text = fs::read(path).map_err(failed)?;
                let at = seconds(written.map_err(failed)?);
                (at, String::from_utf8_lossy(&text).into_owned())
            }
        };
        Ok(Reading {
            at,
            exposition: Exposition::read(&text),
        })
    }
}

/// Seconds since 1970 that a change of the wall clock does not disturb.
struct Clock {
    began: Instant,
    began_at: f64,
}

#[expect(
    clippy::disallowed_methods,
    reason = "rates are counted by the time between two readings"
)]
impl Clock {
    fn start() -> Self {
        Self {
            began: Instant::now(),
            began_at: seconds(SystemTime::now()),
        }
    }

    fn now(&self) -> f64 {
        self.began_at + self.began.elapsed().as_secs_f64()
    }
}

fn seconds(time: SystemTime) -> f64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the command has no other thread that could do something meanwhile"
)]
fn wait(window: Duration) {
    std::thread::sleep(window);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let admin = |host: &str, path: &str| Ok(Source::Admin(host.to_owned(), path.to_owned()));

        assert_eq!(
            "http://127.0.0.1:9080/metrics".parse(),
            admin("127.0.0.1:9080", "/metrics")
        );
        assert_eq!(
            "http://127.0.0.1:9080".parse(),
            admin("127.0.0.1:9080", "/metrics")
        );
        assert_eq!("http://gate/".parse(), admin("gate:80", "/metrics"));
        assert_eq!("http://[::1]/m".parse(), admin("[::1]:80", "/m"));
        assert_eq!("[::1]:9080".parse(), admin("[::1]:9080", "/metrics"));
        assert_eq!(
            "metrics.txt".parse(),
            Ok(Source::File(PathBuf::from("metrics.txt")))
        );
        for wrong in [
            "",
            "https://gate/metrics",
            "http://",
            "http:///metrics",
            "http://a b",
        ] {
            assert!(wrong.parse::<Source>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn assumptions_are_changed_by_name_and_amount() {
        let change: Change = "peak_factor = 3".parse().unwrap();

        assert_eq!((change.name.as_str(), change.value), ("peak_factor", 3.0));
        for wrong in [
            "peak_factor",
            "peak_factor=",
            "peak_factor=-1",
            "peak_factor=NaN",
            "x=1",
        ] {
            assert!(wrong.parse::<Change>().is_err(), "{wrong}");
        }
        assert!(factor("1.5").is_ok());
        for wrong in ["0", "-1", "NaN", "inf", "much"] {
            assert!(factor(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_words_are_a_source_or_a_reason(text in "(http://)?\\PC{0,30}") {
            if let Ok(Source::Admin(host, path)) = text.parse() {
                prop_assert!(host.contains(':') && path.starts_with('/'));
                let no_controls = !host.chars().chain(path.chars()).any(|c| c.is_ascii_control() || c == ' ');
                prop_assert!(no_controls);
            }
        }
    }
}
