//! What was said on a client's connections, inside of TLS: for those who weigh every byte.

use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;

/// Listens to connections. Clones are the same.
#[derive(Clone, Default)]
pub struct Tap(Arc<Mutex<Vec<Talk>>>);

/// What was said on one connection.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Talk {
    /// By the client.
    pub sent: Vec<u8>,
    /// To the client.
    pub received: Vec<u8>,
}

/// Hears one connection.
#[derive(Clone, Debug)]
pub struct Ear {
    tap: Tap,
    connection: usize,
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").finish_non_exhaustive()
    }
}

// Credentials are in it.
impl fmt::Debug for Talk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Talk")
            .field("sent", &self.sent.len())
            .field("received", &self.received.len())
            .finish()
    }
}

impl Tap {
    /// Hears a new connection.
    pub fn connection(&self) -> Ear {
        let mut talks = self.0.lock();
        talks.push(Talk::default());
        Ear {
            tap: self.clone(),
            connection: talks.len() - 1,
        }
    }

    /// What was said since the last time, by connection; connections on which nothing was said stay in their place.
    pub fn take(&self) -> Vec<Talk> {
        self.0.lock().iter_mut().map(std::mem::take).collect()
    }
}

impl Ear {
    /// The client said this.
    pub fn sent(&self, bytes: &[u8]) {
        self.with(|talk| talk.sent.extend_from_slice(bytes));
    }

    /// The client was told this.
    pub fn received(&self, bytes: &[u8]) {
        self.with(|talk| talk.received.extend_from_slice(bytes));
    }

    fn with(&self, hear: impl FnOnce(&mut Talk)) {
        if let Some(talk) = self.tap.0.lock().get_mut(self.connection) {
            hear(talk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_heard_apart_and_every_word_once() {
        let tap = Tap::default();
        let (one, two) = (tap.connection(), tap.connection());
        one.sent(b"a");
        two.received(b"b");

        let talks = tap.take();
        assert_eq!(talks[0].sent, b"a");
        assert_eq!(talks[1].received, b"b");
        one.sent(b"c");

        let talks = tap.take();
        assert_eq!(talks[0].sent, b"c");
        assert!(talks[1].received.is_empty());
    }
}
