//! What is said on an IN channel: control, binds and calls, and who is answered.

use super::Server;
use super::channels::read_pdu;
use super::store::{Outcome, Store};
use super::virtual_connection::Virtual;
use crate::lab::mailbox_server::http::Inbound;
use crate::lab::rpc_http::stubs;
use crate::rpch::Rts;
use crate::rpch::bind::{ASYNC_EMSMDB, Bind, BindAck, EMSMDB, NDR, NSPI, Syntax, Verdict};
use crate::rpch::pdu::{self, Call, Fragment, Kind, Seal, Way};
use crate::rpch::rts::{Command, Forward};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What an IN channel needs to understand what it carries.
pub(super) struct Line {
    server: Arc<Server>,
    found: Arc<Virtual>,
    interfaces: Arc<Mutex<HashMap<u16, Syntax>>>,
    store: Arc<Mutex<Store>>,
    /// Stub data of calls that have not come as a whole.
    calls: HashMap<u32, Vec<u8>>,
}

/// Bytes of one call, as many as the store's procedures can have.
const CALL_MAX: usize = 1 << 20;

impl Line {
    pub(super) fn of(server: &Arc<Server>, found: &Arc<Virtual>, mailbox: &str) -> Self {
        let options = &server.options;
        let new = || Store::new(options.name.clone(), mailbox, options.answer_bytes);
        Self {
            server: Arc::clone(server),
            found: Arc::clone(found),
            interfaces: found.interfaces(),
            store: found.store(new),
            calls: HashMap::new(),
        }
    }

    /// Hears PDUs until the channel is replaced.
    pub(super) async fn listen(&mut self, inbound: &mut Inbound) -> io::Result<()> {
        loop {
            let bytes = read_pdu(inbound).await?;
            let head = pdu::Head::read(&bytes).map_err(io::Error::other)?;
            match head.kind {
                Kind::RTS => {
                    let rts = Rts::decode(&bytes).map_err(io::Error::other)?;
                    if self.control(&rts) {
                        return Ok(());
                    }
                }
                Kind::BIND | Kind::ALTER_CONTEXT => {
                    self.found.consumed(bytes.len());
                    let bind = Bind::decode(&bytes).map_err(io::Error::other)?;
                    self.found.send(vec![self.bound(&bind).encode()]);
                }
                Kind::REQUEST => {
                    self.found.consumed(bytes.len());
                    self.request(&Fragment::decode(&bytes).map_err(io::Error::other)?)?;
                }
                _ => self.found.consumed(bytes.len()),
            }
        }
    }

    /// An RTS PDU; true where it is the channel's last.
    fn control(&self, rts: &Rts) -> bool {
        if let Some(ack) = rts.ack() {
            self.found.acknowledged(&ack);
            return false;
        }
        match rts.commands.as_slice() {
            // IN_R2/A5. [MS-RPCH] 2.2.4.22
            [Command::Cookie(successor)] => self.found.in_replaced(*successor),
            // OUT_R2/A7. [MS-RPCH] 2.2.4.40
            [
                Command::Destination(Forward::Server),
                Command::Cookie(successor),
                Command::Version(_),
            ] => {
                self.found.out_replaced(*successor);
                false
            }
            // Signs of life.
            _ => false,
        }
    }

    fn bound(&self, bind: &Bind) -> BindAck {
        let verdicts = bind.contexts.iter().map(|context| {
            let is_known = [EMSMDB.uuid, ASYNC_EMSMDB.uuid, NSPI.uuid]
                .contains(&context.interface.uuid)
                && context.transfers.contains(&NDR);
            if is_known {
                self.interfaces.lock().insert(context.id, context.interface);
            }
            Verdict {
                result: if is_known { 0 } else { 2 },
                // Abstract syntax not supported. [C706] 12.6.3.1
                reason: if is_known { 0 } else { 1 },
                transfer: NDR,
            }
        });
        let (kind, address) = match bind.kind {
            Kind::BIND => (Kind::BIND_ACK, b"6001\0".to_vec()),
            _ => (Kind::ALTER_CONTEXT_RESPONSE, Vec::new()),
        };
        BindAck {
            kind,
            flags: bind.flags,
            call_id: bind.call_id,
            fragment_max: bind.fragment_max,
            group: 1,
            address,
            verdicts: verdicts.collect(),
        }
    }

    fn request(&mut self, fragment: &Fragment<'_>) -> io::Result<()> {
        let Way::Request(procedure) = fragment.way else {
            return Ok(());
        };
        let call_id = fragment.head.call_id;
        let mut stub = self.calls.remove(&call_id).unwrap_or_default();
        stub.extend_from_slice(fragment.stub);
        if stub.len() > CALL_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if !fragment.is_last() {
            self.calls.insert(call_id, stub);
            return Ok(());
        }
        let answer = Answering {
            found: Arc::clone(&self.found),
            call_id,
            context: fragment.context,
            seal: fragment.seal,
        };
        let interface = self.interfaces.lock().get(&fragment.context).copied();
        let Some(interface) = interface else {
            // nca_s_unk_if. [C706] Appendix E
            answer.fault(0x1c01_0003);
            return Ok(());
        };
        match self.store.lock().call(&interface, procedure, &stub) {
            Outcome::Answer(stub) => answer.give(&stub),
            Outcome::Opened(stub) => {
                self.server.sessions.fetch_add(1, Ordering::Relaxed);
                answer.give(&stub);
            }
            Outcome::Executed(stub) => {
                self.server.executes.fetch_add(1, Ordering::Relaxed);
                answer.give(&stub);
            }
            Outcome::Fault(status) => answer.fault(status),
            Outcome::Wait => {
                tokio::spawn(wait(Arc::clone(&self.server), answer));
            }
        }
        Ok(())
    }
}

/// Who is answered.
struct Answering {
    found: Arc<Virtual>,
    call_id: u32,
    context: u16,
    seal: Option<Seal>,
}

impl Answering {
    fn give(&self, stub: &[u8]) {
        let call = Call {
            way: Way::Response,
            call_id: self.call_id,
            context: self.context,
            fragment_max: pdu::FRAGMENT_MAX,
            seal: self.seal,
        };
        self.found.send(call.fragments(stub));
    }

    fn fault(&self, status: u32) {
        let fault = pdu::fault(self.call_id, self.context, status);
        self.found.send(vec![fault]);
    }
}

/// Holds a call until something happens, its time is over, or nobody is there any more.
async fn wait(server: Arc<Server>, answer: Answering) {
    let mut events = server.events.subscribe();
    let mut ended = answer.found.ended();
    server.waits.fetch_add(1, Ordering::Relaxed);
    tokio::select! {
        happened = tokio::time::timeout(server.options.wait_limit, events.changed()) => {
            answer.give(&stubs::wait_answer(happened.is_ok()));
        }
        _ = ended.wait_for(|ended| *ended) => {}
    }
    server.waits.fetch_sub(1, Ordering::Relaxed);
}
