//! The plan: rates times costs times users, and the front ends that takes.

mod figures;

pub use figures::{Bandwidth, Choice, EachFrontEnd, FrontEnds, Part, Plan, Rush};

use super::{Assumptions, Class, Costs, Rates, Rule, amount, ratio};
use super::{rule, sensitivity};

/// What a plan is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Inputs {
    /// Mailboxes.
    pub users: f64,
    /// Messages a day and user, sent and received together. Only the rule needs them once rates are known.
    pub messages: f64,
    /// Front ends; with two and more, one may fail.
    pub front_ends: u32,
    /// How busy a core may be at the peak, one front end being lost; a share of 1.
    pub utilisation: f64,
    /// What a connected user does.
    pub rates: Rates,
    /// What that costs.
    pub costs: Costs,
    /// Everything else.
    pub assumed: Assumptions,
    /// Where rates and costs come from, in words.
    pub source: String,
    /// They are those of a running site.
    pub is_measured_on_a_site: bool,
}

impl Inputs {
    /// Of a profile: so many users, each with so many messages a day.
    pub fn of_profile(users: f64, messages: f64, assumed: Assumptions) -> Self {
        Self {
            users,
            messages,
            front_ends: 2,
            utilisation: 0.4,
            rates: Rates::of_profile(messages, &assumed),
            costs: Costs::measured(&assumed),
            assumed,
            source: format!(
                "{messages} messages a day and user; costs measured on {}",
                super::MEASURED.machine
            ),
            is_measured_on_a_site: false,
        }
    }

    /// The plan.
    pub fn plan(&self) -> Plan {
        let clean = self.clean();
        let load = clean.load();
        let front_ends = clean.front_ends(&load);
        let choices = CHOICES.map(|count| {
            let other = Self {
                front_ends: count,
                ..clean.clone()
            };
            let sized = other.front_ends(&other.load());
            Choice {
                count,
                cores_each: sized.cores_each,
                cores: sized.cores,
            }
        });
        let connected = clean.connected();
        #[expect(clippy::cast_precision_loss, reason = "cores are few")]
        let cores = front_ends.cores as f64;
        Plan {
            users: clean.users,
            messages: clean.messages,
            connected,
            source: clean.source.clone(),
            is_measured_on_a_site: clean.is_measured_on_a_site,
            target_utilisation_percent: clean.utilisation * 100.0,
            requests_per_second: amount(connected * clean.rates.all()),
            busy_cores: load.busy,
            parts: load.parts,
            connections: amount(connected * clean.rates.connections),
            held_polls: amount(connected * clean.rates.held_polls),
            sessions: amount(connected * clean.rates.sessions),
            server_connections: amount(connected * clean.rates.server_connections),
            bandwidth: Bandwidth::of(clean.rates.bytes.times(connected)),
            front_ends,
            choices: choices.to_vec(),
            morning: load.morning,
            loss: load.loss,
            rule: Rule::new(
                clean.users,
                clean.messages,
                &clean.assumed,
                load.busy,
                cores,
            ),
            sensitivity: sensitivity::of(&clean),
            rates: clean.rates,
            costs: clean.costs,
            assumptions: clean
                .assumed
                .list()
                .into_iter()
                .filter(|one| !(clean.is_measured_on_a_site && one.is_measured_on_a_site))
                .collect(),
        }
    }

    /// Cores of one front end before they are rounded up, times the number of front ends.
    pub(super) fn needed(&self) -> f64 {
        let clean = self.clean();
        clean.front_ends(&clean.load()).needed_each * f64::from(clean.front_ends.max(1))
    }

    /// Cores that so many users keep busy, and the published rule's for them; for the picture.
    pub(super) fn at(&self, users: f64) -> (f64, u64, f64) {
        let other = Self {
            users,
            ..self.clean()
        };
        let load = other.load();
        let mailbox = rule::mailbox_cores(users, other.messages, &other.assumed);
        (
            load.busy,
            other.front_ends(&load).cores,
            amount(mailbox * other.assumed.rule_ratio),
        )
    }

    fn clean(&self) -> Self {
        Self {
            users: amount(self.users),
            messages: amount(self.messages),
            front_ends: self.front_ends.clamp(1, FRONT_ENDS_MAX),
            utilisation: if self.utilisation.is_nan() {
                1.0
            } else {
                self.utilisation.clamp(0.01, 1.0)
            },
            rates: self.rates.clean(),
            costs: self.costs.clean(),
            ..self.clone()
        }
    }

    fn connected(&self) -> f64 {
        amount(self.users * self.assumed.connected_share)
    }

    fn load(&self) -> Load {
        let (rates, costs, users) = (&self.rates, &self.costs, self.connected());
        let mut parts: Vec<Part> = Class::ALL
            .iter()
            .map(|class| part(class.words(), users * rates.of(*class), costs.of(*class)))
            .collect();
        parts.extend([
            part("PENDING passed on", users * rates.pendings, costs.pending),
            part("TLS handshakes", users * rates.handshakes, costs.handshake),
            part("password hashes", users * rates.hashes, costs.hash),
            Part {
                what: "connections between requests",
                per_second: None,
                cores: amount(users * rates.connections * costs.connection),
            },
            Part {
                what: "logs, accepting, timers",
                per_second: None,
                cores: amount(users * rates.all() * costs.beside),
            },
            Part {
                what: "the processes themselves",
                per_second: None,
                cores: amount(f64::from(self.front_ends.max(1)) * costs.process),
            },
        ]);
        Load {
            busy: amount(parts.iter().map(|part| part.cores).sum()),
            parts,
            morning: self.rush(
                users,
                self.assumed.morning_minutes * 60.0,
                self.assumed.morning_executes,
            ),
            loss: self.rush(
                users / f64::from(self.front_ends.max(1)),
                self.assumed.back_within_seconds,
                1.0,
            ),
        }
    }

    /// Clients connect, prove who they are, open or resume their sessions, execute and wait.
    fn rush(&self, clients: f64, seconds: f64, executes: f64) -> Rush {
        let costs = &self.costs;
        let seconds = seconds.max(1.0);
        // Where nothing is known of passwords, no hash is counted at the peak either.
        let hashes = if costs.hash > 0.0 { 1.0 } else { 0.0 };
        let handshakes = self.rates.connections;
        let opens = self.rates.sessions;
        let each = handshakes * costs.handshake
            + hashes * costs.hash
            + opens * costs.of(Class::Open)
            + executes * costs.of(Class::Execute)
            + costs.of(Class::Wait)
            + (opens + executes + 1.0) * costs.beside;
        Rush {
            clients: amount(clients),
            seconds,
            handshakes_per_second: amount(clients * handshakes / seconds),
            hashes_per_second: amount(clients * hashes / seconds),
            busy_cores: amount(clients * each / seconds),
        }
    }

    fn front_ends(&self, load: &Load) -> FrontEnds {
        let count = self.front_ends.max(1);
        let left = count.saturating_sub(1).max(1);
        let share = f64::from(left);
        // Each process costs what it costs, however many there are.
        let own = self.costs.process;
        let common = amount(load.busy - f64::from(count) * own);
        let peak = common / share + own;
        let rushing = (self.assumed.rush_utilisation_percent / 100.0).clamp(0.01, 1.0);
        let demands = [
            ("peak", peak / self.utilisation),
            ("loss", (peak + load.loss.busy_cores / share) / rushing),
            ("morning", (load.morning.busy_cores / share + own) / rushing),
        ];
        let (decided_by, needed) = demands
            .into_iter()
            .reduce(|most, next| if next.1 > most.1 { next } else { most })
            .unwrap_or(("peak", 0.0));
        let needed_each = amount(needed);
        let cores_each = whole(needed_each);
        let cores = cores_each.saturating_mul(u64::from(count));
        #[expect(clippy::cast_precision_loss, reason = "cores are few")]
        let (of_each, of_all) = (cores_each as f64, cores as f64);
        let users = self.connected() / share;
        let (rates, memory) = (&self.rates, &self.costs.memory);
        let connections = amount(users * rates.connections);
        let server_connections = amount(users * rates.server_connections);
        let sessions = amount(users * rates.sessions);
        FrontEnds {
            count,
            left,
            cores_each,
            cores,
            needed_each,
            decided_by,
            utilisation_percent: ratio(load.busy * 100.0, of_all),
            each: EachFrontEnd {
                busy_cores: amount(peak),
                utilisation_percent: ratio(peak * 100.0, of_each),
                process_bytes: amount(
                    memory.process + connections * memory.connection + sessions * memory.session,
                ),
                kernel_bytes: amount((connections + server_connections) * memory.kernel_connection),
                connections,
                held_polls: amount(users * rates.held_polls),
                server_connections,
                sessions,
                bandwidth: Bandwidth::of(rates.bytes.times(users)),
            },
        }
    }
}

struct Load {
    parts: Vec<Part>,
    busy: f64,
    morning: Rush,
    loss: Rush,
}

fn part(what: &'static str, per_second: f64, cost: f64) -> Part {
    Part {
        what,
        per_second: Some(amount(per_second)),
        cores: amount(per_second * cost),
    }
}

/// Rounded up; at least one.
fn whole(cores: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an amount is neither negative nor beyond what a u64 holds"
    )]
    let whole = amount(cores).ceil() as u64;
    whole.max(1)
}

/// Numbers of front ends that are compared.
const CHOICES: [u32; 3] = [2, 3, 4];
const FRONT_ENDS_MAX: u32 = 10_000;

#[cfg(test)]
mod tests;
