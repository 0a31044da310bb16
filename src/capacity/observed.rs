//! What a running mapigate says of its users: two readings of its metrics, or one since it started.

use super::{
    Assumptions, Class, Costs, Exposition, Inputs, LegBytes, Memory, Rates, amount, ratio,
};
use thiserror::Error;

/// A scrape, and when it was made.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Seconds since 1970.
    pub at: f64,
    /// What it said.
    pub exposition: Exposition,
}

/// Why nothing can be planned from a reading.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Unusable {
    /// No line of it is a value.
    #[error(
        "it is not in the text format of Prometheus; is this the admin address, with /metrics behind it?"
    )]
    NotPrometheus,
    /// There is no `mapigate_build_info`.
    #[error("these are metrics, but not of mapigate")]
    NotMapigate,
    /// A family that is needed is missing.
    #[error("{0} is missing: this mapigate is older than the command, or the text was cut off")]
    Missing(&'static str),
    /// The process is not the one of the first reading.
    #[error("mapigate was started anew between the two readings")]
    Restarted,
    /// No time lies between the readings.
    #[error("no time has passed between the two readings")]
    NoTime,
    /// Nobody is connected, or nobody asked for anything.
    #[error(
        "no traffic yet: nobody is connected, or nothing was requested in this time. Try at a busy hour, or a longer --window"
    )]
    NoTraffic,
}

/// What front ends did in a second, all their users together. Several are added up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Observed {
    /// Front ends.
    pub front_ends: u32,
    /// Seconds looked at; of several, the shortest.
    pub seconds: f64,
    /// Requests by class.
    pub requests: [f64; Class::ALL.len()],
    /// Seconds of a core for these.
    pub request_cores: [f64; Class::ALL.len()],
    /// TLS handshakes.
    pub handshakes: f64,
    /// Seconds of a core for these.
    pub handshake_cores: f64,
    /// Password hashes; their time is in the requests'.
    pub hashes: f64,
    /// Seconds of a core for connections between requests.
    pub connection_cores: f64,
    /// Seconds of a core that grow with the number of requests, and are on no request's account.
    pub beside_cores: f64,
    /// Seconds of a core for what is done whatever users do.
    pub process_cores: f64,
    /// Seconds of a core, all together.
    pub cores: f64,
    /// Client connections open.
    pub connections: f64,
    /// NotificationWaits held.
    pub held_polls: f64,
    /// Connections to mailbox servers: a leg for each request under way, and kept ones as far as open files tell.
    pub server_connections: f64,
    /// Sessions in the table.
    pub sessions: f64,
    /// Memory held by the processes.
    pub resident_bytes: f64,
    /// Bytes.
    pub bytes: LegBytes,
}

impl Observed {
    /// Between two readings of one process.
    ///
    /// # Errors
    /// They are not of one running mapigate, or nothing happened.
    pub fn between(first: &Reading, last: &Reading) -> Result<Self, Unusable> {
        recognised(&first.exposition)?;
        recognised(&last.exposition)?;
        let started = |reading: &Reading| reading.exposition.sum(START);
        if started(first) != started(last) {
            return Err(Unusable::Restarted);
        }
        Self::over(
            last.at - first.at,
            Some(&first.exposition),
            &last.exposition,
        )
    }

    /// From the start of the process to a reading.
    ///
    /// # Errors
    /// It is not of mapigate, or nothing happened.
    pub fn since_start(last: &Reading) -> Result<Self, Unusable> {
        recognised(&last.exposition)?;
        let start = last.exposition.sum(START).ok_or(Unusable::Missing(START))?;
        Self::over(last.at - start, None, &last.exposition)
    }

    fn over(seconds: f64, first: Option<&Exposition>, last: &Exposition) -> Result<Self, Unusable> {
        if !(seconds.is_finite() && seconds > 0.0) {
            return Err(Unusable::NoTime);
        }
        let window = Window {
            seconds,
            first,
            last,
        };
        let observed = window.observed()?;
        let is_idle = observed.requests.iter().sum::<f64>() <= 0.0;
        if is_idle || observed.connected() <= 0.0 {
            return Err(Unusable::NoTraffic);
        }
        Ok(observed)
    }

    /// Both together: front ends of one site.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let sum = |a: [f64; Class::ALL.len()], b: [f64; Class::ALL.len()]| {
            let mut sums = a;
            sums.iter_mut().zip(b).for_each(|(sum, more)| *sum += more);
            sums
        };
        Self {
            front_ends: self.front_ends.saturating_add(other.front_ends),
            seconds: self.seconds.min(other.seconds),
            requests: sum(self.requests, other.requests),
            request_cores: sum(self.request_cores, other.request_cores),
            handshakes: self.handshakes + other.handshakes,
            handshake_cores: self.handshake_cores + other.handshake_cores,
            hashes: self.hashes + other.hashes,
            connection_cores: self.connection_cores + other.connection_cores,
            beside_cores: self.beside_cores + other.beside_cores,
            process_cores: self.process_cores + other.process_cores,
            cores: self.cores + other.cores,
            connections: self.connections + other.connections,
            held_polls: self.held_polls + other.held_polls,
            server_connections: self.server_connections + other.server_connections,
            sessions: self.sessions + other.sessions,
            resident_bytes: self.resident_bytes + other.resident_bytes,
            bytes: self.bytes.and(other.bytes),
        }
    }

    /// Users connected now. Every Outlook holds a poll for its mailbox, on one front end; sessions are counted where
    /// no polls are, for they stay a quarter of an hour after their user has left, and other front ends know them too.
    pub fn connected(&self) -> f64 {
        if self.held_polls > 0.0 {
            self.held_polls
        } else {
            self.sessions
        }
    }

    /// What a plan is made from: rates of one user, costs of one request. `connected` in place of our own count;
    /// `peak` is how much busier the busiest hour is than the time looked at.
    pub fn inputs(
        &self,
        users: f64,
        messages: f64,
        connected: Option<f64>,
        peak: f64,
        assumed: Assumptions,
    ) -> Inputs {
        let connected = connected.unwrap_or_else(|| self.connected());
        let each = |amount: f64| ratio(amount, connected);
        let busiest = |amount: f64| each(amount) * peak;
        let rates = Rates {
            requests: self.requests.map(busiest),
            // In the cost of NotificationWait, and in what is on no account until it ends.
            pendings: 0.0,
            handshakes: busiest(self.handshakes),
            // In the cost of the requests that brought the passwords.
            hashes: 0.0,
            connections: each(self.connections),
            held_polls: each(self.held_polls),
            sessions: each(self.sessions),
            server_connections: each(self.server_connections),
            bytes: self.bytes.map(busiest),
        };
        Inputs {
            users,
            messages,
            front_ends: 2,
            utilisation: 0.4,
            rates: rates.clean(),
            costs: self.costs(&assumed),
            source: format!(
                "{} of a running site, over {:.0} s, with {connected:.0} users connected",
                match self.front_ends {
                    1 => "the figures".to_owned(),
                    count => format!("the figures of {count} front ends"),
                },
                self.seconds
            ),
            assumed,
            is_measured_on_a_site: true,
        }
    }

    fn costs(&self, assumed: &Assumptions) -> Costs {
        let ours = Costs::measured(assumed);
        let measured = |cores: f64, count: f64, ours: f64| {
            if count > 0.0 { cores / count } else { ours }
        };
        let mut requests = ours.requests;
        for (cost, (cores, count)) in requests
            .iter_mut()
            .zip(self.request_cores.iter().zip(self.requests))
        {
            *cost = measured(*cores, count, *cost);
        }
        Costs {
            requests,
            pending: ours.pending,
            handshake: measured(self.handshake_cores, self.handshakes, ours.handshake),
            hash: ours.hash,
            connection: ratio(self.connection_cores, self.connections),
            beside: ratio(self.beside_cores, self.requests.iter().sum()),
            process: ratio(self.process_cores, f64::from(self.front_ends)),
            memory: self.memory(ours.memory),
        }
        .clean()
    }

    /// A small site's memory says nothing of a large one's.
    fn memory(&self, ours: Memory) -> Memory {
        let users_bytes = self.resident_bytes - f64::from(self.front_ends) * ours.process;
        if self.connections < CONNECTIONS_TO_WEIGH || users_bytes <= 0.0 {
            return ours;
        }
        Memory {
            connection: amount(
                (users_bytes - self.sessions * ours.session).max(0.0) / self.connections,
            ),
            ..ours
        }
    }
}

/// Fewer connections than these are lost in what the process has anyway.
const CONNECTIONS_TO_WEIGH: f64 = 1000.0;

/// Files that a process has open which serves nobody, and a few more.
const FILES_OF_ITS_OWN: f64 = 50.0;

fn recognised(exposition: &Exposition) -> Result<(), Unusable> {
    // A page of HTML may have a line that looks like a value.
    if exposition.samples().len() <= exposition.unreadable() {
        return Err(Unusable::NotPrometheus);
    }
    match exposition.sum("mapigate_build_info") {
        Some(_) => Ok(()),
        None => Err(Unusable::NotMapigate),
    }
}

/// Two readings, and the time between them.
struct Window<'a> {
    seconds: f64,
    first: Option<&'a Exposition>,
    last: &'a Exposition,
}

impl Window<'_> {
    fn observed(&self) -> Result<Observed, Unusable> {
        let cores = self.rate_of_all("process_cpu_seconds_total")?;
        let mut observed = Observed {
            front_ends: 1,
            seconds: self.seconds,
            handshakes: self.rate_of_all("mapigate_tls_handshakes_total")?,
            hashes: self.rate_of_all("mapigate_auth_verifications_total")?,
            cores,
            connections: self.gauge("mapigate_connections_open")?,
            held_polls: self.gauge("mapigate_held_polls")?,
            server_connections: self.server_connections()?,
            sessions: self.gauge("mapigate_mapi_sessions")?,
            resident_bytes: self.gauge("process_resident_memory_bytes")?,
            bytes: LegBytes {
                client_in: self.rate(CLIENT_BYTES, &[("direction", "received")]),
                client_out: self.rate(CLIENT_BYTES, &[("direction", "sent")]),
                server_in: self.rate(SERVER_BYTES, &[("direction", "received")]),
                server_out: self.rate(SERVER_BYTES, &[("direction", "sent")]),
            },
            ..Observed::default()
        };
        self.requests(&mut observed)?;
        self.accounts(&mut observed)?;
        Ok(observed)
    }

    fn server_connections(&self) -> Result<f64, Unusable> {
        let files = self.gauge("process_open_fds")? - FILES_OF_ITS_OWN;
        let beside_clients = files - self.gauge("mapigate_connections_open")?;
        Ok(self
            .gauge("mapigate_requests_in_flight")?
            .max(beside_clients))
    }

    /// Requests are counted; what one took is the mean of those that were measured.
    fn requests(&self, observed: &mut Observed) -> Result<(), Unusable> {
        let (counted, measured) = (
            "mapigate_mapi_requests_total",
            "mapigate_request_cpu_seconds",
        );
        let (count, sum) = (format!("{measured}_count"), format!("{measured}_sum"));
        if self.last.of(&count).next().is_none() {
            return Err(Unusable::Missing(measured));
        }
        if self.last.of(counted).next().is_none() {
            return Err(Unusable::Missing(counted));
        }
        for sample in self.last.of(&count) {
            let (endpoint, kind) = (sample.label("endpoint"), sample.label("request_type"));
            let labels = [("endpoint", endpoint), ("request_type", kind)];
            let requests = self.rate(counted, &labels);
            let mean = self.rate(&sum, &labels) / self.rate(&count, &labels);
            let place = class(endpoint, kind).index();
            if let Some(all) = observed.requests.get_mut(place) {
                *all += requests;
            }
            if let Some(cores) = observed.request_cores.get_mut(place) {
                *cores += amount(requests * mean);
            }
        }
        Ok(())
    }

    /// What is on no request's account. All of it together with the requests is what the process took.
    fn accounts(&self, observed: &mut Observed) -> Result<(), Unusable> {
        let name = "mapigate_cpu_seconds_total";
        if self.last.of(name).next().is_none() {
            return Err(Unusable::Missing(name));
        }
        for sample in self.last.of(name) {
            let account = sample.label("account");
            let cores = self.rate(name, &[("account", account)]);
            match account {
                "handshake" => observed.handshake_cores += cores,
                "connection" => observed.connection_cores += cores,
                // Of the rest, only these have nothing to do with the number of requests.
                "admin" | "bg_upkeep" | "timer_thread" | "server" | "sockets" | "mapigate" => {
                    observed.process_cores += cores;
                }
                _ => {}
            }
        }
        let known = observed.request_cores.iter().sum::<f64>()
            + observed.handshake_cores
            + observed.connection_cores
            + observed.process_cores;
        observed.beside_cores = amount(observed.cores - known);
        Ok(())
    }

    fn rate_of_all(&self, name: &'static str) -> Result<f64, Unusable> {
        match self.last.sum(name) {
            Some(_) => Ok(self.rate(name, &[])),
            None => Err(Unusable::Missing(name)),
        }
    }

    /// Growth of all values of a family with these labels, per second.
    fn rate(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let sum = |exposition: &Exposition| -> f64 {
            let is_one = |label: &(&str, &str), of: &super::Sample| of.label(label.0) == label.1;
            exposition
                .of(name)
                .filter(|sample| labels.iter().all(|label| is_one(label, sample)))
                .map(|sample| sample.value)
                .sum()
        };
        amount((sum(self.last) - self.first.map_or(0.0, sum)) / self.seconds)
    }

    /// The middle of both readings, where there are two.
    fn gauge(&self, name: &'static str) -> Result<f64, Unusable> {
        let last = self.last.sum(name).ok_or(Unusable::Missing(name))?;
        let first = self.first.and_then(|first| first.sum(name));
        Ok(amount(first.map_or(last, |first| (first + last) / 2.0)))
    }
}

fn class(endpoint: &str, kind: &str) -> Class {
    match (endpoint, kind) {
        (_, "Execute") => Class::Execute,
        (_, "NotificationWait") => Class::Wait,
        (_, "Connect" | "Disconnect" | "Bind" | "Unbind") => Class::Open,
        (_, "PING" | "other" | "missing") => Class::Other,
        ("nspi", _) => Class::AddressBook,
        _ => Class::Other,
    }
}

const START: &str = "process_start_time_seconds";
const CLIENT_BYTES: &str = "mapigate_client_bytes_total";
const SERVER_BYTES: &str = "mapigate_backend_bytes_total";

#[cfg(test)]
mod tests;
