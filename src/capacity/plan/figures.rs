//! The figures of a plan, as they are printed.

use crate::capacity::{Assumption, Costs, LegBytes, Rates, Rule, Sensitivity, amount};
use serde::Serialize;

/// Something that takes processor time at the peak.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// What.
    pub what: &'static str,
    /// How often in a second, all users together; `None` where it cannot be counted.
    pub per_second: Option<f64>,
    /// Cores it keeps busy.
    pub cores: f64,
}

/// Bits per second at the peak, TLS included, without TCP and IP.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bandwidth {
    /// From clients.
    pub client_in: f64,
    /// To clients.
    pub client_out: f64,
    /// From mailbox servers.
    pub server_in: f64,
    /// To mailbox servers.
    pub server_out: f64,
}

impl Bandwidth {
    pub(super) fn of(bytes: LegBytes) -> Self {
        let bits = bytes.map(|bytes| amount(bytes * 8.0));
        Self {
            client_in: bits.client_in,
            client_out: bits.client_out,
            server_in: bits.server_in,
            server_out: bits.server_out,
        }
    }
}

/// Many clients at once.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rush {
    /// Clients that connect.
    pub clients: f64,
    /// Within so many seconds.
    pub seconds: f64,
    /// TLS handshakes in each of them.
    pub handshakes_per_second: f64,
    /// Password hashes in each of them.
    pub hashes_per_second: f64,
    /// Cores that keeps busy, beside what else there is.
    pub busy_cores: f64,
}

/// One front end while another one is lost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EachFrontEnd {
    /// Cores busy at the peak.
    pub busy_cores: f64,
    /// That, of its cores, in percent.
    pub utilisation_percent: f64,
    /// Memory of the process, in bytes.
    pub process_bytes: f64,
    /// Memory of the kernel for its connections, in bytes.
    pub kernel_bytes: f64,
    /// Client connections.
    pub connections: f64,
    /// Of these, with a held poll.
    pub held_polls: f64,
    /// Connections to mailbox servers.
    pub server_connections: f64,
    /// Sessions.
    pub sessions: f64,
    /// Bandwidth.
    pub bandwidth: Bandwidth,
}

/// How many front ends, and how large.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FrontEnds {
    /// How many.
    pub count: u32,
    /// How many carry the peak: all but one, if there are two and more.
    pub left: u32,
    /// Cores of each.
    pub cores_each: u64,
    /// Cores of all.
    pub cores: u64,
    /// Cores of each before they were rounded up.
    pub needed_each: f64,
    /// What asks for most: `peak`, `loss` or `morning`.
    pub decided_by: &'static str,
    /// How busy cores are at the peak while all front ends run, in percent.
    pub utilisation_percent: f64,
    /// Each, while one is lost.
    pub each: EachFrontEnd,
}

/// Another number of front ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// How many.
    pub count: u32,
    /// Cores of each.
    pub cores_each: u64,
    /// Cores of all.
    pub cores: u64,
}

/// What a site of this size needs. No figure is negative or not a number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Mailboxes.
    pub users: f64,
    /// Messages a day and user.
    pub messages: f64,
    /// Users connected in the busiest hour.
    pub connected: f64,
    /// Where rates and costs come from.
    pub source: String,
    /// They are those of a running site.
    pub is_measured_on_a_site: bool,
    /// How busy a core may be at the peak, in percent.
    pub target_utilisation_percent: f64,
    /// Requests per second at the peak.
    pub requests_per_second: f64,
    /// What keeps cores busy at the peak, all front ends together.
    pub parts: Vec<Part>,
    /// The sum of it.
    pub busy_cores: f64,
    /// Client connections.
    pub connections: f64,
    /// Held polls.
    pub held_polls: f64,
    /// Sessions.
    pub sessions: f64,
    /// Connections to mailbox servers.
    pub server_connections: f64,
    /// Bandwidth of all front ends.
    pub bandwidth: Bandwidth,
    /// How many front ends, and how large.
    pub front_ends: FrontEnds,
    /// The same work on other numbers of front ends.
    pub choices: Vec<Choice>,
    /// The working day begins.
    pub morning: Rush,
    /// A front end is lost at the peak, and its clients connect to the others.
    pub loss: Rush,
    /// The published rule.
    pub rule: Rule,
    /// What would change the plan most, the most first.
    pub sensitivity: Vec<Sensitivity>,
    /// What a connected user does.
    pub rates: Rates,
    /// What that costs.
    pub costs: Costs,
    /// What was taken for granted, as far as it was needed.
    pub assumptions: Vec<Assumption>,
}
