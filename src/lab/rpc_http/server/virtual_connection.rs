//! One virtual connection: its channels, what is to be sent, and how much of it may be.

use super::store::Store;
use crate::ids::UserName;
use crate::lab::rpc_http::window::{Receiving, Sending};
use crate::rpch::Cookie;
use crate::rpch::bind::Syntax;
use crate::rpch::rts::{Ack, Forward, Rts};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// Bytes gathered for one write: a window's worth.
const BATCH: usize = 64 << 10;

/// What both channels share.
#[derive(Debug)]
pub(super) struct Virtual {
    user: UserName,
    state: Mutex<State>,
    /// Counts up when there may be something to do.
    news: watch::Sender<u64>,
    ended: watch::Sender<bool>,
    /// Interfaces by their number in the bind.
    interfaces: Arc<Mutex<HashMap<u16, Syntax>>>,
    /// Signs of life sent.
    pings: AtomicU64,
    /// Made by the first IN channel; its successors go on with it.
    store: Mutex<Option<Arc<Mutex<Store>>>>,
}

#[derive(Debug)]
struct State {
    incoming: Option<Cookie>,
    outgoing: Option<Cookie>,
    /// The IN channel that takes over when the client has left the one there is.
    in_successor: Option<Cookie>,
    /// The OUT channel that takes over when the client says so, and the client's room on it.
    successor: Option<(Cookie, u32)>,
    is_successor_wanted: bool,
    sending: Sending,
    receiving: Receiving,
    window: u32,
    /// RTS PDUs: outside of flow control, ahead of the others.
    rts: VecDeque<Vec<u8>>,
    /// Everything else, fragment by fragment.
    rpc: VecDeque<Vec<u8>>,
}

/// What an OUT channel is to do.
#[derive(Debug)]
pub(super) enum Next {
    /// Write this.
    Write(Vec<u8>),
    /// Write this, and end: another channel has taken over.
    Finish(Vec<u8>),
    /// Wait for news.
    Wait,
}

impl Virtual {
    pub(super) fn new(user: UserName, window: u32) -> Self {
        Self {
            user,
            state: Mutex::new(State {
                incoming: None,
                outgoing: None,
                in_successor: None,
                successor: None,
                is_successor_wanted: false,
                sending: Sending::new(0),
                receiving: Receiving::new(window),
                window,
                rts: VecDeque::new(),
                rpc: VecDeque::new(),
            }),
            news: watch::Sender::new(0),
            ended: watch::Sender::new(false),
            interfaces: Arc::default(),
            pings: AtomicU64::new(0),
            store: Mutex::new(None),
        }
    }

    pub(super) fn interfaces(&self) -> Arc<Mutex<HashMap<u16, Syntax>>> {
        Arc::clone(&self.interfaces)
    }

    pub(super) fn store(&self, new: impl FnOnce() -> Store) -> Arc<Mutex<Store>> {
        let mut store = self.store.lock();
        Arc::clone(store.get_or_insert_with(|| Arc::new(Mutex::new(new()))))
    }

    pub(super) fn pinged(&self) {
        self.pings.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn pings(&self) -> u64 {
        self.pings.load(Ordering::Relaxed)
    }

    pub(super) fn is_of(&self, user: &UserName) -> bool {
        self.user == *user
    }

    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    pub(super) fn ended(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    pub(super) fn end(&self) {
        self.ended.send_replace(true);
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state.lock());
        self.news.send_modify(|count| *count += 1);
        changed
    }

    /// The OUT channel is there, unless there is one already.
    pub(super) fn out_arrived(&self, channel: Cookie, window: u32) -> bool {
        self.change(|state| {
            let is_first = state.outgoing.is_none();
            if is_first {
                state.outgoing = Some(channel);
                state.sending = Sending::new(window);
            }
            is_first
        })
    }

    /// The IN channel is there, unless there is one already.
    pub(super) fn in_arrived(&self, channel: Cookie) -> bool {
        self.change(|state| {
            let is_first = state.incoming.is_none();
            state.incoming.get_or_insert(channel);
            is_first
        })
    }

    /// Both are there.
    pub(super) fn is_whole(&self) -> bool {
        let state = self.state.lock();
        state.incoming.is_some() && state.outgoing.is_some()
    }

    /// An IN channel offers to take over from another, which must be the one there is.
    pub(super) fn in_offered(&self, predecessor: Cookie, channel: Cookie) -> bool {
        self.change(|state| {
            let is_it = state.incoming == Some(predecessor);
            if is_it {
                state.in_successor = Some(channel);
                state.rts.push_back(Rts::in_r2_a4().encode());
            }
            is_it
        })
    }

    /// The client has said its last on the IN channel: the offered one takes over.
    pub(super) fn in_replaced(&self, channel: Cookie) -> bool {
        self.change(|state| {
            let is_offered = state.in_successor == Some(channel);
            if is_offered {
                state.in_successor = None;
                state.incoming = Some(channel);
                state.receiving = Receiving::new(state.window);
            }
            is_offered
        })
    }

    /// The IN channel that counts is this one.
    pub(super) fn hears(&self, channel: Cookie) -> bool {
        self.state.lock().incoming == Some(channel)
    }

    /// An OUT channel offers to take over from another, which must be the one there is.
    pub(super) fn out_offered(&self, predecessor: Cookie, channel: Cookie, window: u32) -> bool {
        self.change(|state| {
            let is_it = state.outgoing == Some(predecessor);
            if is_it {
                state.successor = Some((channel, window));
                state.rts.push_back(Rts::out_r2_a6().encode());
            }
            is_it
        })
    }

    /// The client has seen that it may: the offered OUT channel takes over.
    pub(super) fn out_replaced(&self, channel: Cookie) -> bool {
        self.change(|state| match state.successor {
            Some((offered, window)) if offered == channel => {
                state.successor = None;
                state.outgoing = Some(channel);
                state.sending = Sending::new(window);
                state.is_successor_wanted = false;
                true
            }
            _ => false,
        })
    }

    /// Something to be sent ahead of everything else.
    pub(super) fn say(&self, rts: &Rts) {
        self.change(|state| state.rts.push_back(rts.encode()));
    }

    /// Something to be sent as the client has room for it.
    pub(super) fn send(&self, pdus: Vec<Vec<u8>>) {
        self.change(|state| state.rpc.extend(pdus));
    }

    /// The client has come so far.
    pub(super) fn acknowledged(&self, ack: &Ack) {
        self.change(|state| {
            if state.outgoing == Some(ack.channel) {
                state.sending.acknowledged(ack);
            }
        });
    }

    /// A PDU of so many bytes came in.
    pub(super) fn consumed(&self, bytes: usize) {
        let mut state = self.state.lock();
        let Some((bytes_received, available)) = state.receiving.consumed(bytes) else {
            return;
        };
        let Some(channel) = state.incoming else {
            return;
        };
        let ack = Ack {
            bytes_received,
            available,
            channel,
        };
        let rts = Rts::flow_control_to(Forward::Client, ack);
        state.rts.push_back(rts.encode());
        drop(state);
        self.news.send_modify(|count| *count += 1);
    }

    /// What the OUT channel of this name is to do now.
    pub(super) fn next(&self, channel: Cookie, lifetime: u32) -> Next {
        let mut state = self.state.lock();
        if state.outgoing != Some(channel) {
            let is_offered = state
                .successor
                .is_some_and(|(offered, _)| offered == channel);
            return match is_offered {
                true => Next::Wait,
                false => Next::Finish(Rts::out_r2_b3().encode()),
            };
        }
        let mut batch = Vec::new();
        while let Some(pdu) = state.rts.pop_front() {
            batch.extend(pdu);
        }
        while let Some(length) = state.rpc.front().map(Vec::len) {
            if batch.len() + length > BATCH || !state.sending.takes(length) {
                break;
            }
            batch.extend(state.rpc.pop_front().unwrap_or_default());
        }
        if state.sending.sent() > lifetime && !state.is_successor_wanted {
            state.is_successor_wanted = true;
            batch.extend(Rts::out_r_a2().encode());
        }
        match batch.is_empty() {
            true => Next::Wait,
            false => Next::Write(batch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Cookie = Cookie([1; 16]);
    const TWO: Cookie = Cookie([2; 16]);
    const LIFETIME: u32 = 1 << 30;

    fn connected() -> Virtual {
        let connection = Virtual::new(UserName::new("user1"), 65_536);
        assert!(connection.out_arrived(ONE, 12_000));
        assert!(connection.in_arrived(TWO));
        connection
    }

    fn written(connection: &Virtual, channel: Cookie) -> usize {
        match connection.next(channel, LIFETIME) {
            Next::Write(bytes) => bytes.len(),
            Next::Finish(_) | Next::Wait => 0,
        }
    }

    #[test]
    fn a_second_channel_of_a_kind_is_refused() {
        let connection = connected();

        assert!(connection.is_whole());
        assert!(!connection.out_arrived(TWO, 1));
        assert!(!connection.in_arrived(ONE));
    }

    #[test]
    fn fragments_wait_for_room_and_control_does_not() {
        let connection = connected();
        connection.send(vec![vec![0; 5_840]; 3]);
        assert_eq!(written(&connection, ONE), 2 * 5_840);

        connection.say(&Rts::ping());
        assert_eq!(written(&connection, ONE), 20);
        connection.acknowledged(&Ack {
            bytes_received: 2 * 5_840,
            available: 12_000,
            channel: ONE,
        });

        assert_eq!(written(&connection, ONE), 5_840);
    }

    #[test]
    fn an_acknowledgement_of_another_channel_makes_no_room() {
        let connection = connected();
        connection.send(vec![vec![0; 5_840]; 3]);
        assert_eq!(written(&connection, ONE), 2 * 5_840);

        connection.acknowledged(&Ack {
            bytes_received: 2 * 5_840,
            available: 12_000,
            channel: TWO,
        });

        assert_eq!(written(&connection, ONE), 0);
    }

    #[test]
    fn an_out_channel_at_its_end_asks_for_a_successor_once() {
        let connection = connected();
        connection.send(vec![vec![0; 100]]);

        let Next::Write(first) = connection.next(ONE, 50) else {
            panic!("nothing written");
        };
        assert_eq!(first.len(), 100 + Rts::out_r_a2().encode().len());
        assert!(matches!(connection.next(ONE, 50), Next::Wait));
    }

    #[test]
    fn an_in_channel_is_replaced_only_by_what_was_offered() {
        let connection = connected();
        let three = Cookie([3; 16]);
        assert!(!connection.in_offered(ONE, three));
        assert!(connection.in_offered(TWO, three));
        assert_eq!(written(&connection, ONE), Rts::in_r2_a4().encode().len());
        assert!(!connection.in_replaced(ONE));
        assert!(connection.hears(TWO));

        assert!(connection.in_replaced(three));

        assert!(connection.hears(three));
    }

    #[test]
    fn a_successor_takes_over_when_the_client_says_so() {
        let connection = connected();
        let three = Cookie([3; 16]);
        assert!(!connection.out_offered(TWO, three, 65_536));
        assert!(connection.out_offered(ONE, three, 65_536));
        // The predecessor tells the client, and still carries.
        assert_eq!(written(&connection, ONE), Rts::out_r2_a6().encode().len());
        assert!(matches!(connection.next(three, LIFETIME), Next::Wait));
        assert!(!connection.out_replaced(TWO));

        assert!(connection.out_replaced(three));
        connection.send(vec![vec![0; 7]]);

        assert!(matches!(connection.next(ONE, LIFETIME), Next::Finish(_)));
        assert_eq!(written(&connection, three), 7);
    }
}
