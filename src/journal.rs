//! The access log, written off the request path.
//!
//! A request renders its line when it has ended and adds it to one shared block, which a thread of
//! our own swaps out and writes at most twenty times a second. No request ever waits for a disk or
//! a pipe: when the block is full, lines are dropped and counted. A message per line would cost
//! the requests a wake-up each, twenty times the price of the line itself.

mod line;
mod writer;

use crate::config::settings::{AccessLog, Logging};
use crate::ids::RequestId;
use crate::mapi::{Endpoint, RequestType, ResponseCode};
use crate::metrics::{Bytes, Metrics, Outcome, Tally};
use crate::refusal::Refusal;
use parking_lot::{Condvar, Mutex};
use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};
use writer::Writer;

/// What is known of a request when it has ended. Everything is borrowed: nothing is kept for the
/// log while a request is under way. Empty texts are left out of the line.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// When its first byte arrived.
    pub time: SystemTime,
    /// Our number for it, which refusals show to the client.
    pub id: RequestId,
    /// Who connected; behind a trusted PROXY protocol peer, who it spoke for.
    pub client: SocketAddr,
    /// Who asked, after authentication.
    pub user: &'a str,
    /// Its endpoint; `None` where the head named none.
    pub endpoint: Option<Endpoint>,
    /// Its type; `None` where the head was not read that far.
    pub request_type: Option<RequestType>,
    /// `X-RequestId` as the client wrote it.
    pub request_id: &'a [u8],
    /// `X-ClientInfo` as the client wrote it.
    pub client_info: &'a [u8],
    /// `MailboxId` of the target, as the client wrote it.
    pub mailbox: &'a [u8],
    /// The database it was for.
    pub database: &'a str,
    /// The server it went to.
    pub server: &'a str,
    /// Why there: a word of `RouteReason`.
    pub route: &'a str,
    /// Servers tried.
    pub tries: u32,
    /// The HTTP status the client was given; 0 where it was given none.
    pub status: u16,
    /// The response code the client was given.
    pub code: Option<ResponseCode>,
    /// How it ended.
    pub ending: Outcome,
    /// Why we ended it, where we did.
    pub refusal: Option<&'a Refusal>,
    /// Spent on verifying a password; zero where it was remembered.
    pub auth: Duration,
    /// From the last byte sent to the server to the first byte of its answer.
    pub first_byte: Option<Duration>,
    /// From the first byte of the request to the last byte of the answer.
    pub total: Duration,
    /// Processor time it took us.
    pub cpu: Duration,
    /// Bytes of heads on the client's leg.
    pub head: Bytes,
    /// Bytes of bodies on the client's leg, chunk framing included.
    pub body: Bytes,
    /// Bytes of the client's connection during the request, TLS records included.
    pub tls: Bytes,
    /// Bytes on the server's leg.
    pub backend: Bytes,
    /// The client's connection had carried a request before.
    pub client_reused: bool,
    /// The server's connection had carried a request before.
    pub server_reused: bool,
}

/// The access log. One per process; dropping it does not flush, [`Self::close`] does.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
}

impl Journal {
    /// Opens the target and starts the writer's thread.
    ///
    /// # Errors
    /// The file cannot be opened, or the system gives us no thread.
    pub fn start(logging: &Logging, metrics: &Metrics) -> io::Result<Self> {
        let sink = open(&logging.access)?;
        let on = logging.access != AccessLog::Off;
        Self::with_sink(
            sink,
            on,
            logging.access_buffer,
            metrics.access_log_dropped(),
        )
    }

    fn with_sink(sink: Sink, on: bool, capacity: usize, dropped: Tally) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            on: AtomicBool::new(on),
            block: Mutex::new(Block {
                capacity,
                ..Block::default()
            }),
            wake: Condvar::new(),
            served: Condvar::new(),
            dropped,
        });
        let writer = Writer::new(Arc::clone(&shared), sink);
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.run())?;
        Ok(Self { shared })
    }

    /// False where access lines go nowhere; then nobody need gather facts for one.
    pub fn is_on(&self) -> bool {
        self.shared.on.load(Relaxed)
    }

    /// Adds a request's line. Never waits; a line that finds no room is counted and lost.
    pub fn write(&self, entry: &Entry<'_>) {
        if !self.is_on() {
            return;
        }
        LINE.with_borrow_mut(|line| {
            line.clear();
            line::render(entry, line);
            self.shared.add(line);
        });
    }

    /// Opens the target anew, as log rotation asks; for a path that may block, not on a worker.
    /// A change of `logging` takes effect too.
    ///
    /// # Errors
    /// The file cannot be opened; lines keep going where they went.
    pub fn reopen(&self, logging: &Logging) -> io::Result<()> {
        let sink = open(&logging.access)?;
        self.shared
            .on
            .store(logging.access != AccessLog::Off, Relaxed);
        let mut block = self.shared.block.lock();
        block.capacity = logging.access_buffer;
        block.next_sink = Some(sink);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Waits until every line added so far is written, at most this long; true if it was done.
    pub fn flush(&self, at_most: Duration) -> bool {
        let mut block = self.shared.block.lock();
        block.flushes_asked += 1;
        let mine = block.flushes_asked;
        self.shared.wake.notify_one();
        let served = &self.shared.served;
        !served
            .wait_while_for(&mut block, |b| b.flushes_served < mine, at_most)
            .timed_out()
    }

    /// Writes what is there, waiting at most this long, and ends the writer's thread.
    pub fn close(&self, at_most: Duration) -> bool {
        let done = self.flush(at_most);
        self.shared.on.store(false, Relaxed);
        self.shared.block.lock().closed = true;
        self.shared.wake.notify_one();
        done
    }

    /// Lines lost since the start.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.get()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.block.lock().closed = true;
        self.shared.wake.notify_one();
    }
}

/// Where the writer's thread writes; `None`: nowhere.
type Sink = Option<Box<dyn Write + Send>>;

/// What requests and the writer's thread share.
struct Shared {
    on: AtomicBool,
    block: Mutex<Block>,
    /// Tells the writer that there is something to do.
    wake: Condvar,
    /// Tells who waits for a flush that it is done.
    served: Condvar,
    dropped: Tally,
}

/// Lines that wait for the writer, and what it is asked to do.
#[derive(Default)]
struct Block {
    lines: Vec<u8>,
    /// Bytes of lines that may wait.
    capacity: usize,
    next_sink: Option<Sink>,
    flushes_asked: u64,
    flushes_served: u64,
    closed: bool,
}

impl Block {
    /// Bytes from which on the writer does not wait for more.
    fn half(&self) -> usize {
        self.capacity / 2
    }
}

impl Shared {
    fn add(&self, line: &[u8]) {
        let mut block = self.block.lock();
        if block.closed || block.lines.len() + line.len() > block.capacity {
            self.dropped.add(1);
            return;
        }
        let before = block.lines.len();
        block.lines.extend_from_slice(line);
        // The first line starts the writer's moment of gathering; half a block ends it early.
        let is_due = before == 0 || (before < block.half() && block.lines.len() >= block.half());
        drop(block);
        if is_due {
            self.wake.notify_one();
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("on", &self.on)
            .finish_non_exhaustive()
    }
}

fn open(target: &AccessLog) -> io::Result<Sink> {
    Ok(match target {
        AccessLog::Off => None,
        // A descriptor of its own: the standard library's buffer would keep half a block back.
        AccessLog::Stdout => Some(Box::new(File::from(
            io::stdout().as_fd().try_clone_to_owned()?,
        ))),
        AccessLog::File(path) => Some(Box::new(append_to(path)?)),
    })
}

fn append_to(path: &Path) -> io::Result<File> {
    // Lines name users and addresses: not for everybody on the machine.
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
}

thread_local! {
    /// A worker renders its lines here: the buffer belongs to the thread, not to a connection.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

#[cfg(test)]
mod tests;
