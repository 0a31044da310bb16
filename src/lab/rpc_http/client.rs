//! A small Outlook that speaks RPC over HTTP: opens a virtual connection, executes, waits to be told of events.
//!
//! When a channel is lost the session is lost with it, and everything is opened anew: that is the protocol.

mod channels;
mod exchange;

use super::stubs::{self, BadStub, Handle};
use super::window::WINDOW;
use crate::lab::outlook::opening_rops;
use crate::lab::outlook::wire::{Failure, Target};
use crate::lab::tap::Tap;
use crate::mapi::bodies::{ConnectRequest, ExecuteRequest, ExecuteSuccess};
use crate::rpch::bind::{ASYNC_EMSMDB, Bind, BindAck, Context, EMSMDB, NDR, Syntax};
use crate::rpch::pdu::{FRAGMENT_MAX, Kind, MULTIPLEX, Seal, WHOLE};
use crate::rpch::verbs::LIFETIME;
use base64::Engine as _;
use exchange::Exchange;
use std::sync::Arc;
use std::time::Duration;

/// How a client is set up.
#[derive(Clone)]
pub struct Options {
    /// Where it connects to.
    pub target: Target,
    /// The value of `Authorization`.
    pub authorization: String,
    /// The mailbox its channels name, `guid@domain`.
    pub mailbox: String,
    /// The distinguished name it opens the mailbox by.
    pub user_dn: String,
    /// Room for what the server sends, in bytes.
    pub window: u32,
    /// What stands behind each fragment: nothing, or the signature of an inner authentication.
    pub seal: Option<Seal>,
    /// Bytes after which its IN channel is replaced.
    pub in_lifetime: u32,
    /// A sign of life is sent when nothing else was for half of this.
    pub keepalive: Duration,
    /// How long it waits for an answer that is not held.
    pub answer_timeout: Duration,
    /// How long it waits for a held one.
    pub wait_timeout: Duration,
    /// Hears its connections, inside of TLS.
    pub tap: Option<Tap>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("target", &self.target)
            .field("mailbox", &self.mailbox)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// A client of this user with a password.
    pub fn new(target: Target, user: &str, password: &str, mailbox: &str) -> Self {
        let local = user.split('@').next().unwrap_or(user);
        let credentials =
            base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        Self {
            target,
            authorization: format!("Basic {credentials}"),
            mailbox: mailbox.to_owned(),
            user_dn: format!(
                "/o=Contoso/ou=Exchange Administrative Group (FYDIBOHF23SPDLT)/cn=Recipients/cn={local}"
            ),
            window: WINDOW,
            seal: None,
            in_lifetime: LIFETIME - (64 << 10),
            keepalive: Duration::from_secs(300),
            answer_timeout: Duration::from_secs(60),
            wait_timeout: Duration::from_secs(330),
            tap: None,
        }
    }
}

/// Why a client could not do what it was asked. All of them mean that the session is over, but for faults and codes.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Trouble {
    /// A channel could not be opened, or was lost.
    #[error("lost: {0}")]
    Lost(String),
    /// No answer in time.
    #[error("no answer in time")]
    Late,
    /// The call was not performed.
    #[error("fault {0:#x}")]
    Fault(u32),
    /// MAPI's own result.
    #[error("MAPI error {0:#x}")]
    Mapi(u32),
    /// The answer is not what was asked for.
    #[error("wrong answer: {0}")]
    Wrong(String),
}

impl From<BadStub> for Trouble {
    fn from(cause: BadStub) -> Self {
        Self::Wrong(cause.to_string())
    }
}

impl From<Failure> for Trouble {
    fn from(cause: Failure) -> Self {
        Self::Lost(cause.to_string())
    }
}

/// A client with an open session. Dropping it closes its connections.
#[derive(Debug)]
pub struct RpcOutlook {
    exchange: Arc<Exchange>,
    options: Options,
    session: Handle,
    listener: Handle,
}

/// The number of each interface in the bind.
const STORE: u16 = 0;
const LISTENER: u16 = 1;

impl RpcOutlook {
    /// Opens both channels and a session, and gets ready to be told of events.
    ///
    /// # Errors
    /// Whatever keeps it from that; nothing stays open.
    pub async fn open(options: Options) -> Result<Self, Trouble> {
        let exchange = Exchange::open(&options).await?;
        let bind = |kind, call_id, id, interface: Syntax| Bind {
            kind,
            flags: WHOLE | MULTIPLEX,
            call_id,
            fragment_max: (FRAGMENT_MAX, FRAGMENT_MAX),
            group: 0,
            contexts: vec![Context {
                id,
                interface,
                transfers: vec![NDR],
            }],
        };
        for (kind, id, interface) in [
            (Kind::BIND, STORE, EMSMDB),
            (Kind::ALTER_CONTEXT, LISTENER, ASYNC_EMSMDB),
        ] {
            let call_id = exchange.next_call();
            let pdu = bind(kind, call_id, id, interface).encode();
            let answer = exchange
                .ask(call_id, vec![pdu], options.answer_timeout)
                .await?;
            let ack =
                BindAck::decode(&answer).map_err(|cause| Trouble::Wrong(cause.to_string()))?;
            if ack.verdicts.iter().any(|verdict| verdict.result != 0) {
                return Err(Trouble::Wrong("the interface is refused".to_owned()));
            }
        }
        let mut outlook = Self {
            exchange,
            session: Handle::default(),
            listener: Handle::default(),
            options,
        };
        let request = ConnectRequest::of(&outlook.options.user_dn);
        let answer = outlook
            .call(STORE, stubs::CONNECT_EX, &stubs::connect_request(&request))
            .await?;
        outlook.session = handle_of(&answer)?;
        let asked = stubs::handle_request(&outlook.session);
        let answer = outlook.call(STORE, stubs::ASYNC_CONNECT_EX, &asked).await?;
        outlook.listener = handle_of(&answer)?;
        Ok(outlook)
    }

    /// Logs on to the mailbox and asks for events, as every Outlook does after connecting.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub async fn log_on(&self) -> Result<(), Trouble> {
        for rop_buffer in opening_rops(&self.options.user_dn) {
            self.execute(&ExecuteRequest::of(rop_buffer)).await?;
        }
        Ok(())
    }

    /// Executes operations, with the arguments of a MAPI over HTTP Execute.
    ///
    /// # Errors
    /// [`Trouble::Lost`] when a channel failed: then the session is over.
    pub async fn execute(&self, request: &ExecuteRequest) -> Result<ExecuteSuccess, Trouble> {
        let stub = stubs::execute_request(&self.session, request);
        let answer = self.call(STORE, stubs::RPC_EXT2, &stub).await?;
        let answer = stubs::read_execute_answer(&answer)?;
        match answer.error_code {
            0 => Ok(answer),
            code => Err(Trouble::Mapi(code)),
        }
    }

    /// Waits to be told of an event, beside whatever else it does; false where the time was over first.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub async fn notification_wait(&self) -> Result<bool, Trouble> {
        let stub = stubs::wait_request(&self.listener);
        let within = self.options.wait_timeout;
        let answer = self
            .exchange
            .call(LISTENER, stubs::ASYNC_WAIT_EX, &stub, within)
            .await?;
        Ok(stubs::read_wait_answer(&answer)?)
    }

    /// Closes the session; the channels go on until this is dropped.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub async fn disconnect(&self) -> Result<(), Trouble> {
        let asked = stubs::handle_request(&self.session);
        self.call(STORE, stubs::DISCONNECT, &asked).await.map(drop)
    }

    /// Returns when everything it had to say is written.
    ///
    /// # Errors
    /// [`Trouble::Lost`].
    pub async fn settled(&self) -> Result<(), Trouble> {
        self.exchange.settled().await
    }

    /// Channels that took over from another so far.
    pub fn successors(&self) -> u64 {
        self.exchange.successors()
    }

    async fn call(&self, context: u16, procedure: u16, stub: &[u8]) -> Result<Vec<u8>, Trouble> {
        let within = self.options.answer_timeout;
        self.exchange.call(context, procedure, stub, within).await
    }
}

fn handle_of(answer: &[u8]) -> Result<Handle, Trouble> {
    match stubs::read_handle_answer(answer)? {
        (handle, 0) => Ok(handle),
        (_, code) => Err(Trouble::Mapi(code)),
    }
}
