//! What it costs to do it: our own measurements, and what a plan makes of them.

use super::{Assumptions, Class, LegBytes, amount, ratio};
use serde::Serialize;

/// What was measured, with which command, on which machine. The one place where these numbers are.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// The machine, and how.
    pub machine: &'static str,
    /// Microseconds of an Execute with 2 KB in and 4 KB out. `make bench`, part A.
    pub execute_us: f64,
    /// Microseconds of an answer of 10 MB. `make bench`, part B.
    pub execute_10mb_us: f64,
    /// Microseconds of a PENDING passed on. `make bench`, part C.
    pub pending_us: f64,
    /// Bytes of memory of a client connection with what it has towards a server, TLS on both sides; a held poll without
    /// TLS to its server has 6.9 KB in `make bench`, part C. `mapigate size --from` of 2,000 Outlooks.
    pub connection_bytes: f64,
    /// Microseconds of a full handshake, TLS 1.3 with P-256. `make bench`, part D.
    pub handshake_us: f64,
    /// Bytes of a session in the table, its names included. `cargo bench --bench rules`.
    pub session_bytes: f64,
    /// Bytes of memory of a process that serves nobody. `mapigate size --from` of one.
    pub process_bytes: f64,
    /// Share of a core of such a process. The same.
    pub process_cores: f64,
    /// Microseconds of the thread that writes the access log, and of whatever is on no request's account, for a
    /// request. The same, of a site under load.
    pub beside_us: f64,
    /// Bytes around the payload of a request on a connection that is open: heads with four cookies of Exchange and
    /// Basic credentials, chunk framing, tags, TLS. `mapigate overhead --json`, 2 KB.
    pub request_bytes: LegBytes,
    /// Bytes of a PENDING. Counted.
    pub pending_bytes: LegBytes,
    /// Bytes of a handshake. `mapigate_bytes_total{kind="handshake"}`.
    pub handshake_bytes: LegBytes,
}

/// Measured on two shared virtual cores (AMD EPYC), Debian 12, see "Measured" in the README.
pub const MEASURED: Measured = Measured {
    machine: "two shared virtual cores (AMD EPYC), Debian 12",
    execute_us: 12.9,
    execute_10mb_us: 2571.0,
    pending_us: 9.0,
    connection_bytes: 18.2 * 1024.0,
    handshake_us: 79.6,
    session_bytes: 300.0,
    process_bytes: 12.0 * 1024.0 * 1024.0,
    process_cores: 0.003,
    beside_us: 2.0,
    request_bytes: LegBytes {
        client_in: 914.0,
        client_out: 1217.0,
        server_in: 1130.0,
        server_out: 826.0,
    },
    pending_bytes: LegBytes {
        client_in: 0.0,
        client_out: 36.0,
        server_in: 36.0,
        server_out: 0.0,
    },
    handshake_bytes: LegBytes {
        client_in: 1116.0,
        client_out: 752.0,
        server_in: 0.0,
        server_out: 0.0,
    },
};

/// What memory goes to, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Memory {
    /// A process that serves nobody.
    pub process: f64,
    /// A client connection, and what it has towards a server.
    pub connection: f64,
    /// A session in the table.
    pub session: f64,
    /// The kernel's part of a connection, on either side.
    pub kernel_connection: f64,
}

/// What things cost: seconds of a core, bytes of memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Costs {
    /// A request by class, in the order of [`Class::ALL`].
    pub requests: [f64; Class::ALL.len()],
    /// A PENDING passed on.
    pub pending: f64,
    /// A TLS handshake.
    pub handshake: f64,
    /// A password hash.
    pub hash: f64,
    /// A connection for a second, beside its requests.
    pub connection: f64,
    /// A request's share in what is on no request's account: logs, accepting, the kernel's timers.
    pub beside: f64,
    /// A front end for a second, whatever its users do.
    pub process: f64,
    /// Memory.
    pub memory: Memory,
}

impl Costs {
    /// Ours, for a user with this many bytes of payload in an Execute.
    pub fn measured(assumed: &Assumptions) -> Self {
        let measured = MEASURED;
        let cold = assumed.cold_factor * 1e-6;
        // Between 4 KB and 10 MB of answer; 50 KB lie on or below the line.
        let per_kb = (measured.execute_10mb_us - measured.execute_us) / (10.0 * 1024.0 - 4.0);
        let kb = ratio(assumed.message_kb, assumed.executes_per_message);
        let execute = measured.execute_us + per_kb * (kb - EXECUTE_KB).max(0.0);
        let small = measured.execute_us;
        Self {
            requests: [execute, small, small, small, small].map(|us| us * cold),
            pending: measured.pending_us * cold,
            handshake: measured.handshake_us * assumed.cold_handshake_factor * 1e-6,
            hash: assumed.hash_ms * 1e-3,
            connection: 0.0,
            beside: measured.beside_us * 1e-6,
            process: measured.process_cores,
            memory: Memory {
                process: measured.process_bytes,
                connection: measured.connection_bytes,
                session: measured.session_bytes,
                kernel_connection: assumed.kernel_kb_per_connection * 1024.0,
            },
        }
        .clean()
    }

    /// Of a request of a class.
    pub fn of(&self, class: Class) -> f64 {
        self.requests.get(class.index()).copied().unwrap_or(0.0)
    }

    /// As amounts: nothing negative, no end.
    #[must_use]
    pub fn clean(self) -> Self {
        let memory = self.memory;
        Self {
            requests: self.requests.map(amount),
            pending: amount(self.pending),
            handshake: amount(self.handshake),
            hash: amount(self.hash),
            connection: amount(self.connection),
            beside: amount(self.beside),
            process: amount(self.process),
            memory: Memory {
                process: amount(memory.process),
                connection: amount(memory.connection),
                session: amount(memory.session),
                kernel_connection: amount(memory.kernel_connection),
            },
        }
    }
}

/// Payload of the Execute that was measured: 2 KB in, 4 KB out.
const EXECUTE_KB: f64 = 6.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_execute_of_the_measured_size_costs_what_was_measured() {
        let assumed = Assumptions {
            cold_factor: 1.0,
            message_kb: 60.0,
            executes_per_message: 10.0,
            ..Assumptions::default()
        };

        let costs = Costs::measured(&assumed);

        assert!((costs.of(Class::Execute) - 12.9e-6).abs() < 1e-12);
        assert!((costs.of(Class::Wait) - 12.9e-6).abs() < 1e-12);
    }

    #[test]
    fn fifty_kilobytes_cost_no_less_than_was_measured() {
        let assumed = Assumptions {
            cold_factor: 1.0,
            message_kb: 52.0,
            executes_per_message: 1.0,
            ..Assumptions::default()
        };

        let us = Costs::measured(&assumed).of(Class::Execute) * 1e6;

        assert!((21.0..26.0).contains(&us), "{us}");
    }

    #[test]
    fn the_readme_says_what_is_calculated_with() {
        let readme = include_str!("../../README.md");
        let ours = |row: &str| -> f64 {
            let line = readme
                .lines()
                .find(|line| line.starts_with(&format!("| {row}")));
            let cell = line.and_then(|line| line.split('|').nth(2));
            cell.and_then(|cell| cell.trim().parse().ok()).unwrap()
        };

        assert_eq!(ours("Execute, 2 KB in, 4 KB out"), MEASURED.execute_us);
        assert_eq!(ours("answer of 10 MB"), MEASURED.execute_10mb_us);
        assert!(ours("held poll") * 1024.0 < MEASURED.connection_bytes);
        assert_eq!(ours("PENDING passed on"), MEASURED.pending_us);
        assert_eq!(ours("full handshake"), MEASURED.handshake_us);
    }
}
