//! What a simulated server counts.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::mapi::RequestType;

/// The counters of a running server.
#[derive(Debug, Default)]
pub(super) struct Counts {
    connections: AtomicU64,
    tls_failures: AtomicU64,
    executes: AtomicU64,
    waits_held: AtomicU64,
    waits_aborted: AtomicU64,
    wrong_passwords: AtomicU64,
    crossed: AtomicU64,
    head_bytes: AtomicU64,
    body_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    kinds: KindCounts,
}

#[derive(Debug)]
struct KindCounts(Vec<AtomicU64>);

impl Default for KindCounts {
    fn default() -> Self {
        Self(RequestType::ALL.iter().map(|_| AtomicU64::new(0)).collect())
    }
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Connections accepted.
    pub connections: u64,
    /// TLS handshakes that failed.
    pub tls_failures: u64,
    /// MAPI requests whose head was read.
    pub requests: u64,
    /// Executes about to be performed.
    pub executes: u64,
    /// Requests held open, ever.
    pub waits_held: u64,
    /// Held requests whose client left.
    pub waits_aborted: u64,
    /// Credentials refused.
    pub wrong_passwords: u64,
    /// Requests of a user for a mailbox that is another's, where owners are known.
    pub crossed: u64,
    /// Bytes of request heads.
    pub head_bytes: u64,
    /// Bytes of request bodies.
    pub body_bytes: u64,
    /// Bytes of answers.
    pub sent_bytes: u64,
    /// Session contexts alive.
    pub contexts: u64,
    /// Faults still to come.
    pub faults_left: u64,
}

fn add(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(u64::try_from(amount).unwrap_or(u64::MAX), Ordering::Relaxed);
}

impl Counts {
    /// Counts a connection and returns its number, from 1.
    pub(super) fn connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn tls_failed(&self) {
        add(&self.tls_failures, 1);
    }

    pub(super) fn request(&self, kind: RequestType, head_bytes: usize) {
        if let Some(counter) = self.kinds.0.get(kind.index()) {
            add(counter, 1);
        }
        add(&self.head_bytes, head_bytes);
    }

    pub(super) fn body(&self, bytes: usize) {
        add(&self.body_bytes, bytes);
    }

    pub(super) fn sent(&self, bytes: usize) {
        add(&self.sent_bytes, bytes);
    }

    pub(super) fn execute(&self) {
        add(&self.executes, 1);
    }

    pub(super) fn wait_held(&self) {
        add(&self.waits_held, 1);
    }

    pub(super) fn wait_aborted(&self) {
        add(&self.waits_aborted, 1);
    }

    pub(super) fn wrong_password(&self) {
        add(&self.wrong_passwords, 1);
    }

    pub(super) fn crossed(&self) {
        add(&self.crossed, 1);
    }

    pub(super) fn of(&self, kind: RequestType) -> u64 {
        self.kinds
            .0
            .get(kind.index())
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    pub(super) fn read(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            connections: read(&self.connections),
            tls_failures: read(&self.tls_failures),
            requests: self.kinds.0.iter().map(read).sum(),
            executes: read(&self.executes),
            waits_held: read(&self.waits_held),
            waits_aborted: read(&self.waits_aborted),
            wrong_passwords: read(&self.wrong_passwords),
            crossed: read(&self.crossed),
            head_bytes: read(&self.head_bytes),
            body_bytes: read(&self.body_bytes),
            sent_bytes: read(&self.sent_bytes),
            contexts: 0,
            faults_left: 0,
        }
    }
}
