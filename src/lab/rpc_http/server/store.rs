//! The mailbox store's procedures, for one virtual connection.

use crate::ids::ServerName;
use crate::lab::rpc_http::stubs::{self, BadStub, Handle};
use crate::lab::work::{LOGON, Operations, REGISTER_NOTIFICATION, logon, one, registered};
use crate::mapi::bodies::{Body as _, ExecuteRequest, ExecuteSuccess};
use crate::rpch::bind::{ASYNC_EMSMDB, EMSMDB, NSPI, Syntax};
use std::collections::{HashMap, HashSet};

/// Sessions opened on one virtual connection, and what they may be told of.
#[derive(Debug)]
pub(super) struct Store {
    server: ServerName,
    /// What the channels' URL names.
    mailbox: String,
    answer_bytes: usize,
    sessions: HashSet<Handle>,
    /// Which session each of them is about.
    listeners: HashMap<Handle, Handle>,
}

/// What becomes of a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It returned this.
    Answer(Vec<u8>),
    /// A session was opened, and it returned this.
    Opened(Vec<u8>),
    /// Operations were executed, and it returned this.
    Executed(Vec<u8>),
    /// It returns when something happens.
    Wait,
    /// It was not performed.
    Fault(u32),
}

/// The lab's address book.
const NSPI_SERVER: [u8; 16] = *b"mapigate-lab-gal";
/// There is no such procedure. `[C706] Appendix E`
const NO_SUCH_PROCEDURE: u32 = 0x1c01_0002;
/// The handle is not one of this connection. `[C706] Appendix E`
const WRONG_HANDLE: u32 = 0x1c00_001a;
/// The stub data cannot be read: `RPC_X_BAD_STUB_DATA`.
const BAD_STUB: u32 = 0x0000_06f7;

impl Store {
    pub(super) fn new(server: ServerName, mailbox: &str, answer_bytes: usize) -> Self {
        Self {
            server,
            mailbox: mailbox.to_ascii_lowercase(),
            answer_bytes,
            sessions: HashSet::new(),
            listeners: HashMap::new(),
        }
    }

    /// Performs a procedure of an interface.
    pub(super) fn call(&mut self, interface: &Syntax, procedure: u16, stub: &[u8]) -> Outcome {
        self.performed(interface, procedure, stub)
            .unwrap_or(Outcome::Fault(BAD_STUB))
    }

    fn performed(
        &mut self,
        interface: &Syntax,
        procedure: u16,
        stub: &[u8],
    ) -> Result<Outcome, BadStub> {
        Ok(match (interface.uuid, procedure) {
            (uuid, stubs::CONNECT_EX) if uuid == EMSMDB.uuid => {
                let dn = stubs::read_connect_request(stub)?;
                let handle = Handle::new();
                self.sessions.insert(handle);
                let name = display_name(&dn);
                Outcome::Opened(stubs::connect_answer(&handle, &name, &[], 0))
            }
            (uuid, stubs::RPC_EXT2) if uuid == EMSMDB.uuid => {
                let (handle, request) = stubs::read_execute_request(stub)?;
                if !self.sessions.contains(&handle) {
                    return Ok(Outcome::Fault(WRONG_HANDLE));
                }
                Outcome::Executed(stubs::execute_answer(&handle, &self.execute(&request)))
            }
            (uuid, stubs::DISCONNECT) if uuid == EMSMDB.uuid => {
                let handle = stubs::read_handle(stub)?;
                if !self.sessions.remove(&handle) {
                    return Ok(Outcome::Fault(WRONG_HANDLE));
                }
                self.listeners.retain(|_, session| *session != handle);
                Outcome::Answer(stubs::handle_answer(&Handle::default(), 0))
            }
            (uuid, stubs::ASYNC_CONNECT_EX) if uuid == EMSMDB.uuid => {
                let session = stubs::read_handle(stub)?;
                if !self.sessions.contains(&session) {
                    return Ok(Outcome::Fault(WRONG_HANDLE));
                }
                let listener = Handle::new();
                self.listeners.insert(listener, session);
                Outcome::Answer(stubs::handle_answer(&listener, 0))
            }
            (uuid, stubs::ASYNC_WAIT_EX) if uuid == ASYNC_EMSMDB.uuid => {
                let listener = stubs::read_handle(stub)?;
                match self.listeners.contains_key(&listener) {
                    true => Outcome::Wait,
                    // [MS-OXCRPC] 3.3.4.1: an invalid handle is told that something happened.
                    false => Outcome::Answer(stubs::wait_answer(true)),
                }
            }
            (uuid, stubs::NSPI_BIND) if uuid == NSPI.uuid => {
                let guid = stubs::read_nspi_bind(stub)?.then_some(NSPI_SERVER);
                let handle = Handle::new();
                self.sessions.insert(handle);
                Outcome::Opened(stubs::nspi_bind_answer(guid, &handle))
            }
            (uuid, stubs::NSPI_UNBIND) if uuid == NSPI.uuid => {
                let handle = stubs::read_handle(stub)?;
                match self.sessions.remove(&handle) {
                    // UnbindSuccess. [MS-OXNSPI] 3.1.4.1.2
                    true => Outcome::Answer(stubs::handle_answer(&Handle::default(), 1)),
                    false => Outcome::Fault(WRONG_HANDLE),
                }
            }
            _ => Outcome::Fault(NO_SUCH_PROCEDURE),
        })
    }

    /// As the server of MAPI over HTTP does, so that the answers are the same bytes.
    fn execute(&self, request: &ExecuteRequest) -> ExecuteSuccess {
        let asked = Operations::read(&request.rop_buffer);
        let rop_buffer = match asked.bytes.first().copied() {
            Some(LOGON) => one(&logon(&self.mailbox), &[0]),
            Some(REGISTER_NOTIFICATION) => {
                registered(asked.handles.first().copied().unwrap_or_default())
            }
            _ => asked.own_answer(&self.server, &request.encode(), self.answer_bytes),
        };
        ExecuteSuccess {
            error_code: 0,
            flags: 0,
            rop_buffer,
            auxiliary: Vec::new(),
        }
    }
}

/// The last part of a distinguished name.
fn display_name(dn: &[u8]) -> String {
    let dn = String::from_utf8_lossy(dn);
    dn.rsplit('=').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapi::bodies::ConnectRequest;

    fn store() -> (Store, Handle) {
        let mut store = Store::new(ServerName::new("MBX1"), "Box@contoso.test", 512);
        let stub = stubs::connect_request(&ConnectRequest::of("/o=Contoso/cn=user1"));
        let Outcome::Opened(answer) = store.call(&EMSMDB, stubs::CONNECT_EX, &stub) else {
            panic!("not opened");
        };
        let (handle, code) = stubs::read_handle_answer(&answer).unwrap();
        assert_eq!(code, 0);
        (store, handle)
    }

    #[test]
    fn a_session_executes_until_it_is_closed() {
        let (mut store, handle) = store();
        let stub = stubs::execute_request(&handle, &ExecuteRequest::of(one(&[1, 2, 3], &[])));
        let executed = store.call(&EMSMDB, stubs::RPC_EXT2, &stub);
        assert!(matches!(executed, Outcome::Executed(_)));

        let closed = store.call(&EMSMDB, stubs::DISCONNECT, &stubs::handle_request(&handle));

        assert!(matches!(closed, Outcome::Answer(_)));
        assert_eq!(
            store.call(&EMSMDB, stubs::RPC_EXT2, &stub),
            Outcome::Fault(WRONG_HANDLE)
        );
    }

    #[test]
    fn only_the_interface_for_it_waits() {
        let (mut store, handle) = store();
        let asked = stubs::handle_request(&handle);
        let Outcome::Answer(answer) = store.call(&EMSMDB, stubs::ASYNC_CONNECT_EX, &asked) else {
            panic!("no handle");
        };
        let (listener, _) = stubs::read_handle_answer(&answer).unwrap();
        let wait = stubs::wait_request(&listener);

        assert_eq!(
            store.call(&ASYNC_EMSMDB, stubs::ASYNC_WAIT_EX, &wait),
            Outcome::Wait
        );
        assert_eq!(
            store.call(&EMSMDB, stubs::ASYNC_WAIT_EX, &wait),
            Outcome::Fault(NO_SUCH_PROCEDURE)
        );
    }

    #[test]
    fn the_address_book_is_bound_once_and_unbound_once() {
        let (mut store, _) = store();
        let mut stub = vec![0; 4 + 36];
        stub.extend([0, 0, 2, 0]);
        stub.extend([0; 16]);
        let Outcome::Opened(answer) = store.call(&NSPI, stubs::NSPI_BIND, &stub) else {
            panic!("not bound");
        };
        assert_eq!(answer.len(), 4 + 16 + 20 + 4);
        let mut unbind = answer[20..40].to_vec();
        unbind.extend([0; 4]);

        assert!(matches!(
            store.call(&NSPI, stubs::NSPI_UNBIND, &unbind),
            Outcome::Answer(_)
        ));
        assert_eq!(
            store.call(&NSPI, stubs::NSPI_UNBIND, &unbind),
            Outcome::Fault(WRONG_HANDLE)
        );
    }

    #[test]
    fn stub_data_that_cannot_be_read_are_a_fault() {
        let (mut store, _) = store();

        assert_eq!(
            store.call(&EMSMDB, stubs::RPC_EXT2, &[1, 2, 3]),
            Outcome::Fault(BAD_STUB)
        );
    }
}
