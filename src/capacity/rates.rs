//! What a connected user does in the busiest hour.

use super::costs::MEASURED;
use super::{Assumptions, amount};
use serde::Serialize;

/// What a request is, as far as its cost goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Execute: reading, writing, synchronising.
    Execute,
    /// NotificationWait, held for minutes.
    Wait,
    /// Connect, Disconnect, Bind, Unbind.
    Open,
    /// Everything else of the address book.
    AddressBook,
    /// PING, and what was refused before it was understood.
    Other,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Execute,
        Self::Wait,
        Self::Open,
        Self::AddressBook,
        Self::Other,
    ];

    /// What people call it.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Execute => "Execute",
            Self::Wait => "NotificationWait",
            Self::Open => "sessions opened and closed",
            Self::AddressBook => "address book",
            Self::Other => "other requests",
        }
    }

    /// Its place in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Bytes on both legs, TLS included, as the front end sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LegBytes {
    /// From clients.
    pub client_in: f64,
    /// To clients.
    pub client_out: f64,
    /// From mailbox servers.
    pub server_in: f64,
    /// To mailbox servers.
    pub server_out: f64,
}

impl LegBytes {
    /// Each multiplied.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        self.map(|bytes| bytes * factor)
    }

    /// Both added up.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            client_in: self.client_in + other.client_in,
            client_out: self.client_out + other.client_out,
            server_in: self.server_in + other.server_in,
            server_out: self.server_out + other.server_out,
        }
    }

    pub(super) fn map(self, change: impl Fn(f64) -> f64) -> Self {
        Self {
            client_in: change(self.client_in),
            client_out: change(self.client_out),
            server_in: change(self.server_in),
            server_out: change(self.server_out),
        }
    }
}

/// Of one connected user: events per second, and what it has open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Requests by class, in the order of [`Class::ALL`].
    pub requests: [f64; Class::ALL.len()],
    /// PENDING chunks passed on, where they are not in the cost of NotificationWait.
    pub pendings: f64,
    /// TLS handshakes.
    pub handshakes: f64,
    /// Password hashes, where they are not in the cost of requests.
    pub hashes: f64,
    /// Client connections open.
    pub connections: f64,
    /// Of these, with a held poll.
    pub held_polls: f64,
    /// Sessions in the table.
    pub sessions: f64,
    /// Connections to mailbox servers.
    pub server_connections: f64,
    /// Bytes per second.
    pub bytes: LegBytes,
}

impl Rates {
    /// Of a user with this many messages a day, sent and received together.
    pub fn of_profile(messages: f64, assumed: &Assumptions) -> Self {
        let messages = amount(messages) / assumed.busy_seconds().max(1.0);
        let received = messages * (1.0 - assumed.sent_share).max(0.0);
        let waits = 1.0 / assumed.poll_seconds.max(1.0) + received;
        let opens = assumed.opens_per_day / assumed.busy_seconds().max(1.0);
        let mut requests = [0.0; Class::ALL.len()];
        for (rate, of) in requests.iter_mut().zip([
            messages * assumed.executes_per_message,
            waits,
            opens,
            messages * assumed.address_book_per_message,
            0.0,
        ]) {
            *rate = of;
        }
        let pendings = 1.0 / assumed.pending_seconds.max(1.0);
        let handshakes = 1.0 / assumed.short_connection_seconds.max(1.0);
        let bytes = bytes(messages, &requests, pendings, handshakes, assumed);
        Self {
            requests,
            pendings,
            handshakes,
            hashes: 1.0 / (assumed.password_minutes * 60.0).max(1.0),
            connections: assumed.connections_per_user,
            held_polls: assumed.connections_per_user.min(1.0),
            sessions: assumed.sessions_per_user,
            // A leg for the held poll, and one for the rest.
            server_connections: assumed.connections_per_user,
            bytes,
        }
        .clean()
    }

    /// Requests of a class per second.
    pub fn of(&self, class: Class) -> f64 {
        self.requests.get(class.index()).copied().unwrap_or(0.0)
    }

    /// All requests per second.
    pub fn all(&self) -> f64 {
        self.requests.iter().sum()
    }

    /// As amounts: nothing negative, no end.
    #[must_use]
    pub fn clean(self) -> Self {
        Self {
            requests: self.requests.map(amount),
            pendings: amount(self.pendings),
            handshakes: amount(self.handshakes),
            hashes: amount(self.hashes),
            connections: amount(self.connections),
            held_polls: amount(self.held_polls),
            sessions: amount(self.sessions),
            server_connections: amount(self.server_connections),
            bytes: self.bytes.map(amount),
        }
    }
}

/// Payload, and what is around it: heads, tags, TLS.
fn bytes(
    messages: f64,
    requests: &[f64],
    pendings: f64,
    handshakes: f64,
    assumed: &Assumptions,
) -> LegBytes {
    let payload = messages * assumed.message_kb * 1024.0;
    let up = payload * assumed.sent_share.min(1.0);
    let down = payload - up;
    let around = |bytes: &LegBytes, count: f64| bytes.times(count);
    LegBytes {
        client_in: up,
        client_out: down,
        server_in: down,
        server_out: up,
    }
    .and(around(&MEASURED.request_bytes, requests.iter().sum()))
    .and(around(&MEASURED.pending_bytes, pendings))
    .and(around(&MEASURED.handshake_bytes, handshakes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_messages_in_eight_hours_with_a_peak_of_two_are_one_every_144_seconds() {
        let rates = Rates::of_profile(100.0, &Assumptions::default());

        let messages = 1.0 / 144.0;
        assert!((rates.of(Class::Execute) - 20.0 * messages).abs() < 1e-12);
        assert!((rates.of(Class::Wait) - (1.0 / 300.0 + 0.8 * messages)).abs() < 1e-12);
        assert!((rates.of(Class::AddressBook) - 0.6 * messages).abs() < 1e-12);
        assert!((rates.handshakes - 1.0 / 120.0).abs() < 1e-12);
        assert!((rates.hashes - 1.0 / 600.0).abs() < 1e-12);
    }

    #[test]
    fn payload_goes_through_both_legs_and_heads_come_on_top() {
        let assumed = Assumptions::default();
        let rates = Rates::of_profile(100.0, &assumed);

        let down = 100.0 * 78.0 * 1024.0 * 0.8 / (4.0 * 3600.0);
        assert!(rates.bytes.client_out > down && rates.bytes.server_in > down);
        // 78 KB a message in 20 Executes: heads are a good part.
        assert!(rates.bytes.client_out < 1.6 * down, "{:?}", rates.bytes);
    }

    #[test]
    fn somebody_without_messages_still_waits_for_one() {
        let rates = Rates::of_profile(0.0, &Assumptions::default());

        assert_eq!(rates.of(Class::Execute), 0.0);
        assert!((rates.of(Class::Wait) - 1.0 / 300.0).abs() < 1e-12);
        assert_eq!(rates.held_polls, 1.0);
    }
}
