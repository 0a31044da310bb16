//! Calls under way on a virtual connection, and what is to be written for them.

use super::channels;
use super::{Options, Trouble};
use crate::lab::rpc_http::window::{Receiving, Sending};
use crate::rpch::pdu::{self, Call, FRAGMENT_MAX, Fragment, Head, Kind, Way};
use crate::rpch::rts::{Ack, Command, Forward};
use crate::rpch::{Cookie, Rts};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Bytes gathered for one write.
const BATCH: usize = 64 << 10;

/// One virtual connection from the client's side.
#[derive(Debug)]
pub(super) struct Exchange {
    state: Arc<Mutex<State>>,
    news: Arc<watch::Sender<u64>>,
    seal: Option<pdu::Seal>,
    tasks: [JoinHandle<()>; 2],
}

/// What the tasks of both channels share.
#[derive(Debug)]
pub(super) struct State {
    pub(super) connection: Cookie,
    pub(super) incoming: Cookie,
    pub(super) outgoing: Cookie,
    sending: Sending,
    server_window: u32,
    receiving: Receiving,
    rts: VecDeque<Vec<u8>>,
    rpc: VecDeque<Vec<u8>>,
    is_writing: bool,
    /// The successor of the IN channel may be used.
    pub(super) is_in_ready: bool,
    pub(super) successors: u64,
    calls: HashMap<u32, Pending>,
    last_call: u32,
    lost: Option<String>,
}

#[derive(Debug)]
struct Pending {
    stub: Vec<u8>,
    done: oneshot::Sender<Result<Vec<u8>, Trouble>>,
}

/// What a PDU that came out asks of the channel's task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Nothing more.
    Nothing,
    /// To open a successor of the OUT channel.
    Successor,
    /// To go on with it: the server has taken it.
    GoOn,
    /// To turn to it: this one has ended.
    Turn,
}

impl Exchange {
    pub(super) async fn open(options: &Options) -> Result<Arc<Self>, Trouble> {
        let [connection, incoming, outgoing, group] = std::array::from_fn(|_| new_cookie());
        let out = Rts::conn_a1(connection, outgoing, options.window);
        let into = Rts::conn_b1(
            connection,
            incoming,
            crate::rpch::verbs::LIFETIME,
            u32::try_from(options.keepalive.as_millis()).unwrap_or(u32::MAX),
            group,
        );
        let within = options.answer_timeout;
        let opened = timeout(within, async {
            let mut out = channels::open_out(options, &out).await?;
            let into = channels::open_in(options, &into).await?;
            let window = channels::connected(&mut out).await?;
            Ok::<_, Trouble>((out, into, window))
        });
        let (out, into, server_window) = opened.await.map_err(|_late| Trouble::Late)??;
        let state = Arc::new(Mutex::new(State {
            connection,
            incoming,
            outgoing,
            sending: Sending::new(server_window),
            server_window,
            receiving: Receiving::new(options.window),
            rts: VecDeque::new(),
            rpc: VecDeque::new(),
            is_writing: false,
            is_in_ready: false,
            successors: 0,
            calls: HashMap::new(),
            last_call: 0,
            lost: None,
        }));
        let news = Arc::new(watch::Sender::new(0));
        let shared = Shared {
            state: Arc::clone(&state),
            news: Arc::clone(&news),
        };
        let tasks = [
            tokio::spawn(run(
                channels::hear(options.clone(), shared.clone(), out),
                shared.clone(),
            )),
            tokio::spawn(run(
                channels::say(options.clone(), shared.clone(), into),
                shared,
            )),
        ];
        Ok(Arc::new(Self {
            state,
            news,
            seal: options.seal,
            tasks,
        }))
    }

    pub(super) fn next_call(&self) -> u32 {
        let mut state = self.state.lock();
        state.last_call += 1;
        state.last_call
    }

    pub(super) fn successors(&self) -> u64 {
        self.state.lock().successors
    }

    pub(super) async fn call(
        &self,
        context: u16,
        procedure: u16,
        stub: &[u8],
        within: Duration,
    ) -> Result<Vec<u8>, Trouble> {
        let call = Call {
            way: Way::Request(procedure),
            call_id: self.next_call(),
            context,
            fragment_max: FRAGMENT_MAX,
            seal: self.seal,
        };
        self.ask(call.call_id, call.fragments(stub), within).await
    }

    /// Sends PDUs of a call and waits for what comes back: stub data, or the whole PDU of a bind.
    pub(super) async fn ask(
        &self,
        call_id: u32,
        pdus: Vec<Vec<u8>>,
        within: Duration,
    ) -> Result<Vec<u8>, Trouble> {
        let (done, answer) = oneshot::channel();
        {
            let mut state = self.state.lock();
            if let Some(cause) = &state.lost {
                return Err(Trouble::Lost(cause.clone()));
            }
            let stub = Vec::new();
            state.calls.insert(call_id, Pending { stub, done });
            state.rpc.extend(pdus);
        }
        self.news.send_modify(|count| *count += 1);
        match timeout(within, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_dropped)) => Err(Trouble::Lost("the connection ended".to_owned())),
            Err(_) => {
                self.state.lock().calls.remove(&call_id);
                Err(Trouble::Late)
            }
        }
    }

    pub(super) async fn settled(&self) -> Result<(), Trouble> {
        let mut news = self.news.subscribe();
        let quiet = news.wait_for(|_| {
            let state = self.state.lock();
            state.lost.is_some()
                || (state.rts.is_empty() && state.rpc.is_empty() && !state.is_writing)
        });
        // The sender is ours: it cannot have gone.
        let _quiet = quiet.await;
        match &self.state.lock().lost {
            Some(cause) => Err(Trouble::Lost(cause.clone())),
            None => Ok(()),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A channel's task: when it ends, everybody hears why.
async fn run(channel: impl Future<Output = Result<(), Trouble>>, shared: Shared) {
    let cause = match channel.await {
        Ok(()) => "the server closed".to_owned(),
        Err(cause) => cause.to_string(),
    };
    shared.lost(&cause);
}

/// What a channel's task sees of the exchange.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    state: Arc<Mutex<State>>,
    news: Arc<watch::Sender<u64>>,
}

impl Shared {
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state.lock());
        self.news.send_modify(|count| *count += 1);
        changed
    }

    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    fn lost(&self, cause: &str) {
        self.change(|state| {
            state.lost.get_or_insert_with(|| cause.to_owned());
            for (_, pending) in state.calls.drain() {
                // Who does not wait any more does not want to know.
                let _gone = pending.done.send(Err(Trouble::Lost(cause.to_owned())));
            }
        });
    }

    /// What may be written on the IN channel now.
    pub(super) fn batch(&self) -> Option<Vec<u8>> {
        let mut state = self.state.lock();
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
        state.is_writing = !batch.is_empty();
        state.is_writing.then_some(batch)
    }

    pub(super) fn written(&self) {
        self.change(|state| state.is_writing = false);
    }

    /// The IN channel was replaced.
    pub(super) fn in_replaced(&self, channel: Cookie) {
        self.change(|state| {
            state.incoming = channel;
            state.sending = Sending::new(state.server_window);
            state.is_in_ready = false;
            state.successors += 1;
        });
    }

    /// The OUT channel was replaced.
    pub(super) fn out_replaced(&self, channel: Cookie, window: u32) {
        self.change(|state| {
            state.outgoing = channel;
            state.receiving = Receiving::new(window);
            state.successors += 1;
        });
    }

    /// Takes a PDU that came out.
    pub(super) fn heard(&self, bytes: &[u8]) -> Result<Asked, Trouble> {
        let wrong = |cause: crate::rpch::BadPdu| Trouble::Wrong(cause.to_string());
        let head = Head::read(bytes).map_err(wrong)?;
        if head.kind == Kind::RTS {
            return Ok(self.control(&Rts::decode(bytes).map_err(wrong)?));
        }
        self.consumed(bytes.len());
        match head.kind {
            Kind::RESPONSE => {
                let fragment = Fragment::decode(bytes).map_err(wrong)?;
                let done = {
                    let mut state = self.state.lock();
                    let Some(pending) = state.calls.get_mut(&head.call_id) else {
                        return Ok(Asked::Nothing);
                    };
                    pending.stub.extend_from_slice(fragment.stub);
                    match fragment.is_last() {
                        true => state.calls.remove(&head.call_id),
                        false => None,
                    }
                };
                if let Some(pending) = done {
                    let _gone = pending.done.send(Ok(pending.stub));
                }
            }
            Kind::BIND_ACK | Kind::ALTER_CONTEXT_RESPONSE => {
                self.finish(head.call_id, Ok(bytes.to_vec()));
            }
            Kind::FAULT => {
                let status = pdu::fault_status(bytes).map_err(wrong)?;
                self.finish(head.call_id, Err(Trouble::Fault(status)));
            }
            kind => return Err(Trouble::Wrong(format!("a PDU of kind {}", kind.0))),
        }
        Ok(Asked::Nothing)
    }

    fn finish(&self, call_id: u32, answer: Result<Vec<u8>, Trouble>) {
        let pending = self.state.lock().calls.remove(&call_id);
        if let Some(pending) = pending {
            let _gone = pending.done.send(answer);
        }
    }

    fn consumed(&self, bytes: usize) {
        let mut state = self.state.lock();
        if let Some((bytes_received, available)) = state.receiving.consumed(bytes) {
            let ack = Ack {
                bytes_received,
                available,
                channel: state.outgoing,
            };
            let rts = Rts::flow_control_to(Forward::OutProxy, ack);
            state.rts.push_back(rts.encode());
            drop(state);
            self.news.send_modify(|count| *count += 1);
        }
    }

    fn control(&self, rts: &Rts) -> Asked {
        if let Some(ack) = rts.ack() {
            self.change(|state| {
                if state.incoming == ack.channel {
                    state.sending.acknowledged(&ack);
                }
            });
            return Asked::Nothing;
        }
        match (rts.flags, rts.commands.as_slice()) {
            (crate::rpch::rts::RECYCLE, [Command::Destination(Forward::Client)]) => {
                Asked::Successor
            }
            (_, [Command::Destination(Forward::Client), Command::Ance]) => Asked::GoOn,
            (_, [Command::Destination(Forward::Client)]) => {
                self.change(|state| state.is_in_ready = true);
                Asked::Nothing
            }
            (crate::rpch::rts::EOF, [Command::Ance]) => Asked::Turn,
            _ => Asked::Nothing,
        }
    }

    /// Both names of the virtual connection and its channel, for a successor.
    pub(super) fn names(&self, of: impl FnOnce(&State) -> Cookie) -> (Cookie, Cookie) {
        let state = self.state.lock();
        (state.connection, of(&state))
    }

    /// Says something ahead of everything else.
    pub(super) fn say(&self, rts: &Rts) {
        self.change(|state| state.rts.push_back(rts.encode()));
    }

    /// Waits until the successor of the IN channel may be used.
    pub(super) async fn in_ready(&self) {
        let mut news = self.news();
        let _ours = news.wait_for(|_| self.state.lock().is_in_ready).await;
    }
}

pub(super) fn new_cookie() -> Cookie {
    Cookie(fastrand::u128(..).to_le_bytes())
}
