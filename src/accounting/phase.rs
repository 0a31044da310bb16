//! What the processor time of a connection's task is spent on.

/// A stretch of a task's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Between two requests: wakes without bytes, the farewell.
    #[default]
    Idle,
    /// TLS handshake with the client.
    Handshake,
    /// Reading and judging a request's head.
    Head,
    /// Who asks: memory of earlier proofs, the hash of a password that nobody remembers.
    Auth,
    /// Whose mailbox, which server; the head that the server gets.
    Route,
    /// A connection to the server, the request's bytes to it.
    Upstream,
    /// The answer's way back, whatever is between its first byte and its last.
    Relay,
    /// Metrics and the access line.
    Log,
}

impl Phase {
    /// All of them, in the order of a request's life.
    pub const ALL: [Self; 8] = [
        Self::Idle,
        Self::Handshake,
        Self::Head,
        Self::Auth,
        Self::Route,
        Self::Upstream,
        Self::Relay,
        Self::Log,
    ];
    /// Those that a request goes through.
    pub const OF_REQUESTS: [Self; 6] = [
        Self::Head,
        Self::Auth,
        Self::Route,
        Self::Upstream,
        Self::Relay,
        Self::Log,
    ];

    /// Its name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Handshake => "handshake",
            Self::Head => "head",
            Self::Auth => "auth",
            Self::Route => "route",
            Self::Upstream => "upstream",
            Self::Relay => "relay",
            Self::Log => "log",
        }
    }

    const fn index(self) -> usize {
        self as usize
    }
}

/// Nanoseconds by phase. They only grow, and stop at the largest number there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times([u64; Phase::ALL.len()]);

impl Times {
    /// Nothing.
    pub const ZERO: Self = Self([0; Phase::ALL.len()]);

    /// Nanoseconds of one phase.
    pub fn of(&self, phase: Phase) -> u64 {
        self.0.get(phase.index()).copied().unwrap_or(0)
    }

    /// Nanoseconds of the phases of a request.
    pub fn of_request(&self) -> u64 {
        Phase::OF_REQUESTS
            .iter()
            .fold(0, |sum: u64, phase| sum.saturating_add(self.of(*phase)))
    }

    /// Adds to a phase.
    pub fn add(&mut self, phase: Phase, nanoseconds: u64) {
        if let Some(time) = self.0.get_mut(phase.index()) {
            *time = time.saturating_add(nanoseconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_charged_for_its_own_phases_only() {
        let mut times = Times::default();
        for (number, phase) in (0..).zip(Phase::ALL) {
            times.add(phase, 1 << number);
        }
        assert_eq!(times.of_request(), 0b1111_1100);
        assert_eq!(times.of(Phase::Idle), 1);
    }

    #[test]
    fn times_stop_at_the_largest_number() {
        let mut times = Times::default();
        times.add(Phase::Relay, u64::MAX - 1);
        times.add(Phase::Relay, 5);
        times.add(Phase::Head, 5);
        assert_eq!(times.of_request(), u64::MAX);
    }
}
