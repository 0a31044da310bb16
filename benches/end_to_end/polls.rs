//! Generator of part C: thousands of held NotificationWaits, each of which hears PENDING from time to time.

use crate::answer::Answer;
use crate::client::{self, PENDING, PROCESSING, User};
use crate::cpu::Watched;
use crate::launch;
use anyhow::{Context as _, Result, bail};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// First argument that makes this program the generator.
pub(crate) const NAME: &str = "__polls";
/// Connections being set up at once: as many as a proxy's accept queue surely holds.
const STARTING_MAX: usize = 64;
/// All polls must be held by then.
const PARKING_TIMEOUT: Duration = Duration::from_secs(90);

/// What to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    /// The proxy.
    pub(crate) address: SocketAddr,
    /// Its process.
    pub(crate) pid: u32,
    /// Polls to hold.
    pub(crate) polls: u32,
    /// Users there are.
    pub(crate) users: usize,
    /// Time between PENDINGs of a poll.
    pub(crate) pending: Duration,
    /// Length of the window in which PENDINGs are counted.
    pub(crate) window: Duration,
}

/// What was seen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    /// Polls held.
    pub(crate) polls: u32,
    /// Memory of the proxy (PSS) per held poll, bytes, after the window.
    pub(crate) bytes_per_poll: f64,
    /// CPU time of the proxy to set up one, nanoseconds: handshake, Connect, NotificationWait.
    pub(crate) setup_ns: f64,
    /// CPU time of the proxy per PENDING, nanoseconds.
    pub(crate) pending_ns: f64,
    /// PENDINGs that arrived in the window.
    pub(crate) pendings: u64,
    /// Polls that ended by themselves or never began.
    pub(crate) dead: u64,
    /// Why the first of them did.
    pub(crate) first_error: Option<String>,
}

/// Holds the polls.
pub(crate) fn run(question: Question) -> Result<Found> {
    launch::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, hold_all(question))
}

/// What the polls count together.
#[derive(Default)]
struct Tally {
    parked: Cell<u32>,
    pendings: Cell<u64>,
    dead: Cell<u64>,
    first_error: RefCell<Option<String>>,
}

async fn hold_all(question: Question) -> Result<Found> {
    let watched = Watched::new(question.pid)?;
    let memory_before = watched.memory()?;
    let cpu_before = watched.cpu()?;
    let tally = Rc::new(Tally::default());
    let starting = Rc::new(Semaphore::new(STARTING_MAX));
    let tls = client::tls(None)?;
    for number in 0..question.polls {
        let poll = Poll {
            address: question.address,
            user: User(number as usize % question.users),
            pending: question.pending,
            tls: Arc::clone(&tls),
            name: client::server_name()?,
        };
        let (tally, starting) = (Rc::clone(&tally), Rc::clone(&starting));
        tokio::task::spawn_local(async move {
            if let Err(cause) = poll.run(&tally, &starting).await {
                tally.dead.set(tally.dead.get() + 1);
                tally
                    .first_error
                    .borrow_mut()
                    .get_or_insert_with(|| format!("{cause:#}"));
            }
        });
    }
    let deadline = Instant::now() + PARKING_TIMEOUT;
    while u64::from(tally.parked.get()) + tally.dead.get() < u64::from(question.polls) {
        if Instant::now() > deadline {
            bail!(
                "only {} of {} polls held after {PARKING_TIMEOUT:?}",
                tally.parked.get(),
                question.polls
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let cpu_parked = watched.cpu()?;

    // The first PENDINGs find buffers and code paths cold; a whole period is let pass.
    tokio::time::sleep(question.pending).await;
    let (pendings_before, cpu_start) = (tally.pendings.get(), watched.cpu()?);
    tokio::time::sleep(question.window).await;
    let (cpu_end, pendings) = (watched.cpu()?, tally.pendings.get() - pendings_before);
    let grown = watched.memory()?.saturating_sub(memory_before);

    let expected = u128::from(question.polls) * question.window.as_millis()
        / question.pending.as_millis().max(1);
    if u128::from(pendings) < expected / 2 {
        bail!("{pendings} PENDINGs arrived where {expected} were due");
    }

    let polls = f64::from(question.polls);
    let first_error = tally.first_error.borrow().clone();
    Ok(Found {
        polls: question.polls,
        bytes_per_poll: grown as f64 / polls,
        setup_ns: cpu_parked.since(&cpu_before) as f64 / polls,
        pending_ns: cpu_end.since(&cpu_start) as f64 / pendings.max(1) as f64,
        pendings,
        dead: tally.dead.get(),
        first_error,
    })
}

/// One poll.
struct Poll {
    address: SocketAddr,
    user: User,
    pending: Duration,
    tls: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Poll {
    /// Opens a session, asks to be notified, and listens until the process ends.
    async fn run(self, tally: &Tally, starting: &Semaphore) -> Result<()> {
        let turn = starting.acquire().await?;
        let tcp = TcpStream::connect(self.address)
            .await
            .context("connecting")?;
        tcp.set_nodelay(true)?;
        let mut stream = TlsConnector::from(self.tls)
            .connect(self.name, tcp)
            .await
            .context("handshake")?;
        let mut answer = Answer::default();
        stream
            .write_all(&client::request(
                self.user,
                &self.user.basic(),
                "Connect",
                &[],
                0,
                196,
            ))
            .await?;
        while !receive(&mut stream, &mut answer)
            .await
            .context("answer to Connect")?
        {}
        let mut cookies = Vec::new();
        client::remember(&mut cookies, answer.cookies());

        answer.clear();
        let period = u32::try_from(self.pending.as_millis())?;
        stream
            .write_all(&client::request(
                self.user,
                &self.user.basic(),
                "NotificationWait",
                &cookies,
                period,
                8,
            ))
            .await?;
        let processing = PROCESSING.len() as u64;
        while answer.body_bytes() < processing {
            receive(&mut stream, &mut answer)
                .await
                .context("PROCESSING")?;
        }
        drop(turn);
        tally.parked.set(tally.parked.get() + 1);

        let mut heard = 0;
        loop {
            if receive(&mut stream, &mut answer)
                .await
                .context("while held")?
            {
                bail!("the answer ended by itself");
            }
            let now = (answer.body_bytes() - processing) / PENDING.len() as u64;
            tally.pendings.set(tally.pendings.get() + now - heard);
            heard = now;
        }
    }
}

/// Reads some of an answer; true once it is complete.
async fn receive(stream: &mut TlsStream<TcpStream>, answer: &mut Answer) -> Result<bool> {
    let mut buffer = [0; 2048];
    let read = stream.read(&mut buffer).await?;
    if read == 0 {
        bail!("connection closed");
    }
    answer.feed(buffer.get(..read).unwrap_or_default())
}
