//! A small Outlook: connects, executes, waits to be notified, and finds its way back by the protocol's rules.
//!
//! Two connections at most: one on demand, one for the held `NotificationWait`. What failed while it was being
//! sent is sent again as it was; what failed while its answer was read is given up, and the context is opened
//! anew with the old cookies attached; code 10 likewise. `[MS-OXCMAPIHTTP] 3.1.5.7, 3.1.7, 3.2.5.6`

mod exchange;
mod journal;
mod patience;
mod proof;
mod recovery;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use parking_lot::Mutex;

pub use crate::outlook::line as wire;
pub use crate::outlook::session::CookieLines;
pub use journal::{Counters, Outcome, Sent};
pub use wire::{Failure, Target};

pub(in crate::lab) use crate::outlook::rops::opening as opening_rops;

use crate::lab::LAB_OPERATION;
use crate::lab::tap::Tap;
use crate::mapi::bodies::nspi::UnbindRequest;
use crate::mapi::bodies::rops::{write_chain, write_payload};
use crate::mapi::bodies::{Body as _, DisconnectRequest, ExecuteRequest, ExecuteSuccess};
use crate::mapi::{Endpoint, Flavour, RequestType};
use crate::outlook::session::{Letterhead, Session};
use exchange::is_gone;
use wire::Line;

/// How a client is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it connects to.
    pub target: Target,
    /// Who it is.
    pub user: String,
    /// Its password.
    pub password: String,
    /// The mailbox it opens.
    pub mailbox: String,
    /// The distinguished name it opens it by.
    pub user_dn: String,
    /// How it sends cookies back.
    pub cookie_lines: CookieLines,
    /// Whose code numbers it understands: the specification's, unless it speaks to gromox itself.
    pub numbers: Flavour,
    /// How long it tries to get one thing done.
    pub patience: Duration,
    /// How long it waits for an answer that is not held.
    pub answer_timeout: Duration,
    /// How long it waits for a held one.
    pub wait_timeout: Duration,
    /// The longest pause between tries, whatever `Retry-After` says.
    pub pause_max: Duration,
    /// Headers it sends with every request.
    pub headers: Vec<(String, String)>,
    /// Hears its connections, inside of TLS.
    pub tap: Option<Tap>,
}

impl Options {
    /// A client of this user, with patience for half a minute.
    pub fn new(target: Target, user: &str, password: &str, mailbox: &str) -> Self {
        let local = user.split('@').next().unwrap_or(user);
        Self {
            target,
            user: user.to_owned(),
            password: password.to_owned(),
            mailbox: mailbox.to_owned(),
            user_dn: format!(
                "/o=Contoso/ou=Exchange Administrative Group (FYDIBOHF23SPDLT)/cn=Recipients/cn={local}"
            ),
            cookie_lines: CookieLines::One,
            numbers: Flavour::Exchange,
            patience: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(60),
            wait_timeout: Duration::from_secs(330),
            pause_max: Duration::from_millis(500),
            headers: Vec::new(),
            tap: None,
        }
    }
}

/// Why a client could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The connection failed, and what was under way is lost.
    #[error("lost: {0}")]
    Lost(#[from] Failure),
    /// It was tried until patience ended.
    #[error("out of patience: {0}")]
    Impatient(String),
    /// An HTTP status that no waiting cures.
    #[error("status {0}")]
    Status(u16),
    /// A code of the protocol that no reconnecting cures.
    #[error("code {0}")]
    Code(u32),
    /// The mailbox server refuses the operation itself.
    #[error("MAPI error {0:#x}")]
    Mapi(u32),
    /// The answer is not what was asked for.
    #[error("wrong answer: {0}")]
    Wrong(&'static str),
}

/// What an Execute returned.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its `X-RequestId`.
    pub nonce: String,
    /// The body.
    pub body: ExecuteSuccess,
    /// The server, where the answer names it.
    pub server: Option<String>,
    /// Bytes of the answer's body.
    pub bytes: usize,
}

impl Reply {
    /// The server that executed it; empty where the answer does not name it.
    pub fn served_by(&self) -> &str {
        self.server.as_deref().unwrap_or_default()
    }
}

/// How a held request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waited {
    /// There is something to collect.
    pub is_event: bool,
    /// MAPI's own result; 0x7EE when one was held already.
    pub error_code: u32,
    /// PENDING tags seen.
    pub pending: usize,
}

/// A client; clones are the same client.
#[derive(Clone, Debug)]
pub struct Outlook {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    letterhead: Letterhead,
    mailbox: Mutex<Session>,
    address_book: Mutex<Session>,
    /// The connection on demand.
    demand: tokio::sync::Mutex<Option<Line>>,
    /// The connection of the held request.
    held: tokio::sync::Mutex<Option<Line>>,
    /// One reconnect at a time.
    reconnecting: tokio::sync::Mutex<()>,
    counters: Mutex<Counters>,
    journal: Mutex<Vec<Sent>>,
    /// When the trouble began that has not ended yet.
    trouble_since: Mutex<Option<u64>>,
}

impl Outlook {
    /// A client that has not connected yet.
    pub fn new(options: Options) -> Self {
        let credentials = format!("{}:{}", options.user, options.password);
        let credentials = base64::engine::general_purpose::STANDARD.encode(credentials);
        let letterhead = Letterhead {
            host: options.target.host.clone(),
            targets: Letterhead::targets_of(&options.mailbox),
            user_agent: USER_AGENT,
            authorization: Some(format!("Basic {credentials}")),
            cookie_lines: options.cookie_lines,
            more: options.headers.clone(),
        };
        Self {
            inner: Arc::new(Inner {
                options,
                letterhead,
                mailbox: Mutex::new(Session::new(Endpoint::Emsmdb)),
                address_book: Mutex::new(Session::new(Endpoint::Nspi)),
                demand: tokio::sync::Mutex::new(None),
                held: tokio::sync::Mutex::new(None),
                reconnecting: tokio::sync::Mutex::new(()),
                counters: Mutex::default(),
                journal: Mutex::default(),
                trouble_since: Mutex::new(None),
            }),
        }
    }

    /// Opens the mailbox.
    ///
    /// # Errors
    /// When it cannot be opened within the client's patience.
    pub async fn connect(&self) -> Result<(), Trouble> {
        let mut line = self.inner.demand.lock().await;
        let seen = self.inner.mailbox.lock().generation;
        self.inner.open(Endpoint::Emsmdb, &mut line, seen).await
    }

    /// Executes something: `bytes` behind the lab's own operation, so that the answer proves whose it is.
    ///
    /// # Errors
    /// [`Trouble::Lost`] when its fate is unknown: then the context is opened anew with the next request.
    pub async fn execute(&self, bytes: &[u8]) -> Result<Reply, Trouble> {
        self.execute_with(bytes, &[]).await
    }

    /// As [`Self::execute`] with more headers, such as `X-Lab-Answer-Bytes` and `X-Lab-Delay`.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub async fn execute_with(
        &self,
        bytes: &[u8],
        headers: &[(&'static str, String)],
    ) -> Result<Reply, Trouble> {
        let mut operation = vec![LAB_OPERATION];
        operation.extend(fastrand::u128(..).to_le_bytes());
        operation.extend_from_slice(bytes);
        let payloads: Vec<_> = operation
            .chunks(32 * 1024 - 2)
            .map(|block| write_payload(block, &[]))
            .collect();
        self.execute_rops(write_chain(&payloads), headers).await
    }

    /// Executes a ready ROP buffer.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub async fn execute_rops(
        &self,
        rop_buffer: Vec<u8>,
        headers: &[(&'static str, String)],
    ) -> Result<Reply, Trouble> {
        self.execute_body(&ExecuteRequest::of(rop_buffer), headers)
            .await
    }

    /// Executes a request as it is, with sizes and flags of the caller's.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub async fn execute_body(
        &self,
        request: &ExecuteRequest,
        headers: &[(&'static str, String)],
    ) -> Result<Reply, Trouble> {
        let mut line = self.inner.demand.lock().await;
        self.inner
            .execute(&mut line, &request.encode(), headers)
            .await
    }

    /// Logs on to the mailbox and asks for events, as every Outlook does after connecting.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub async fn log_on(&self) -> Result<(), Trouble> {
        for rop_buffer in opening_rops(&self.inner.options.user_dn) {
            self.execute_rops(rop_buffer, &[]).await?;
        }
        Ok(())
    }

    /// Creates and saves a message, which is an event for every other client of the mailbox.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub async fn save_message(&self) -> Result<(), Trouble> {
        let operations = [
            6, 0, 0, 1, 0xff, 0x0f, 1, 0, 0, 0, 0, 0, 0, 13, 0, 12, 0, 1, 1, 12,
        ];
        let save = write_chain(&[write_payload(&operations, &[0, u32::MAX])]);
        self.execute_rops(save, &[]).await.map(drop)
    }

    /// Collects what a held request announced: an Execute without operations.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub async fn collect(&self) -> Result<Reply, Trouble> {
        self.execute_rops(write_chain(&[write_payload(&[], &[])]), &[])
            .await
    }

    /// Waits to be notified, on the second connection.
    ///
    /// # Errors
    /// [`Trouble::Lost`] when the connection failed; [`Trouble::Code`] 10 when the context is gone, which the next
    /// request cures.
    pub async fn notification_wait(&self) -> Result<Waited, Trouble> {
        let mut line = self.inner.held.lock().await;
        self.inner.wait(&mut line).await
    }

    /// Asks whether the endpoint lives; returns the code that counts, in the specification's numbers.
    ///
    /// # Errors
    /// When there is no answer of the protocol.
    pub async fn ping(&self, endpoint: Endpoint) -> Result<u32, Trouble> {
        let mut line = self.inner.demand.lock().await;
        let request = self.inner.request(endpoint, RequestType::Ping, Vec::new());
        let answer = self.inner.once(endpoint, &mut line, &request).await?;
        self.inner.code_of(&answer)
    }

    /// Closes the mailbox. That the server does not know the context any more is as good.
    ///
    /// # Errors
    /// When there is no answer of the protocol, or another code.
    pub async fn disconnect(&self) -> Result<(), Trouble> {
        let body = DisconnectRequest::default().encode();
        self.close(Endpoint::Emsmdb, RequestType::Disconnect, body)
            .await
    }

    /// Opens the address book.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn bind(&self) -> Result<(), Trouble> {
        let mut line = self.inner.demand.lock().await;
        let seen = self.inner.address_book.lock().generation;
        self.inner.open(Endpoint::Nspi, &mut line, seen).await
    }

    /// Asks the address book something; returns the body behind DONE. Reconnects once where the context is gone.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub async fn look_up(&self, kind: RequestType, body: Vec<u8>) -> Result<Vec<u8>, Trouble> {
        let endpoint = Endpoint::Nspi;
        let mut line = self.inner.demand.lock().await;
        for is_last in [false, true] {
            let seen = self.inner.session(endpoint).lock().generation;
            let request = self.inner.request(endpoint, kind, body.clone());
            let answer = self.inner.once(endpoint, &mut line, &request).await?;
            match self.inner.code_of(&answer)? {
                0 => {
                    let tagged = answer.tagged().ok_or(Trouble::Wrong("no DONE"))?;
                    return Ok(tagged.body);
                }
                code if is_last || !is_gone(code) => return Err(Trouble::Code(code)),
                _ => self.inner.open(endpoint, &mut line, seen).await?,
            }
        }
        Err(Trouble::Wrong("unreachable"))
    }

    /// Closes the address book.
    ///
    /// # Errors
    /// As [`Self::disconnect`].
    pub async fn unbind(&self) -> Result<(), Trouble> {
        let body = UnbindRequest::default().encode();
        self.close(Endpoint::Nspi, RequestType::Unbind, body).await
    }

    /// Drops its connections, as a computer that sleeps does. The sessions are believed to go on.
    pub async fn drop_connections(&self) {
        *self.inner.demand.lock().await = None;
        if let Ok(mut held) = self.inner.held.try_lock() {
            *held = None;
        }
    }

    /// The mailbox is open, as far as the client was told.
    pub fn is_open(&self) -> bool {
        let session = self.inner.mailbox.lock();
        session.is_open && !session.is_broken
    }

    /// The cookies it would send now.
    pub fn cookies(&self, endpoint: Endpoint) -> Vec<(String, String)> {
        self.inner.session(endpoint).lock().cookies()
    }

    /// Replaces the cookies it would send: for tests of stolen and broken ones.
    pub fn set_cookies(&self, endpoint: Endpoint, cookies: Vec<(String, String)>) {
        self.inner.session(endpoint).lock().set_cookies(cookies);
    }

    /// What it counted so far.
    pub fn counters(&self) -> Counters {
        self.inner.counters.lock().clone()
    }

    /// What it sent so far.
    pub fn sent(&self) -> Vec<Sent> {
        self.inner.journal.lock().clone()
    }

    async fn close(
        &self,
        endpoint: Endpoint,
        kind: RequestType,
        body: Vec<u8>,
    ) -> Result<(), Trouble> {
        let mut line = self.inner.demand.lock().await;
        let request = self.inner.request(endpoint, kind, body);
        let answer = self.inner.once(endpoint, &mut line, &request).await?;
        match self.inner.code_of(&answer)? {
            0 | 10 => {
                self.inner.session(endpoint).lock().closed();
                Ok(())
            }
            code => Err(Trouble::Code(code)),
        }
    }
}

/// What its requests call the program.
const USER_AGENT: &str = "Microsoft Office/16.0 (Windows NT 10.0; MAPI 16.0.17126; Pro)";
