//! The way of lines from requests to one log: a bounded block and a thread that empties it.
//!
//! A request renders its line when it has ended and adds it to one shared block, which a thread of
//! our own swaps out and writes at most twenty times a second. No request ever waits for a disk or
//! a pipe: when the block is full, lines are dropped and counted. A message per line would cost
//! the requests a wake-up each, twenty times the price of the line itself.

use super::Sink;
use super::writer::Writer;
use crate::metrics::Tally;
use parking_lot::{Condvar, Mutex};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// One log's way.
#[derive(Debug)]
pub(super) struct Lane {
    shared: Arc<Shared>,
}

impl Lane {
    /// Starts the writer's thread. `capacity` is the bytes of lines that may wait.
    ///
    /// # Errors
    /// The system gives us no thread.
    pub(super) fn start(
        name: &'static str,
        sink: Sink,
        capacity: usize,
        dropped: Tally,
    ) -> io::Result<Self> {
        Self::gathering(GATHER, name, sink, capacity, dropped)
    }

    /// The same with another pause in which the thread gathers what comes behind a line.
    pub(super) fn gathering(
        gather: Duration,
        name: &'static str,
        sink: Sink,
        capacity: usize,
        dropped: Tally,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            name,
            gather,
            on: AtomicBool::new(sink.is_some()),
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
            .name(format!("{name}-log"))
            .spawn(move || writer.run())?;
        Ok(Self { shared })
    }

    /// False where lines go nowhere.
    pub(super) fn is_on(&self) -> bool {
        self.shared.on.load(Relaxed)
    }

    /// Adds a line, its end included. Never waits.
    pub(super) fn add(&self, line: &[u8]) {
        self.shared.add(line);
    }

    /// Lines go here from now on.
    pub(super) fn reopen(&self, sink: Sink, capacity: usize) {
        self.shared.on.store(sink.is_some(), Relaxed);
        let mut block = self.shared.block.lock();
        block.capacity = capacity;
        let overtaken = block.next_sink.replace(sink);
        self.shared.wake.notify_one();
        drop(block);
        // Closing it may take its time.
        drop(overtaken);
    }

    /// Waits until every line added so far is written, at most this long; true if it was done.
    pub(super) fn flush(&self, at_most: Duration) -> bool {
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
    pub(super) fn close(&self, at_most: Duration) -> bool {
        let done = self.flush(at_most);
        self.shared.on.store(false, Relaxed);
        self.end();
        done
    }

    /// Lines lost since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.shared.dropped.get()
    }

    fn end(&self) {
        self.shared.block.lock().closed = true;
        self.shared.wake.notify_one();
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.end();
    }
}

/// What requests and the writer's thread share.
pub(super) struct Shared {
    /// What the operator's log calls it.
    pub(super) name: &'static str,
    /// How long the writer gathers lines before it writes.
    pub(super) gather: Duration,
    on: AtomicBool,
    pub(super) block: Mutex<Block>,
    /// Tells the writer that there is something to do.
    pub(super) wake: Condvar,
    /// Tells who waits for a flush that it is done.
    pub(super) served: Condvar,
    pub(super) dropped: Tally,
}

/// Lines that wait for the writer, and what it is asked to do.
#[derive(Default)]
pub(super) struct Block {
    pub(super) lines: Vec<u8>,
    /// Bytes of lines that may wait.
    capacity: usize,
    pub(super) next_sink: Option<Sink>,
    pub(super) flushes_asked: u64,
    pub(super) flushes_served: u64,
    pub(super) closed: bool,
}

impl Block {
    /// Bytes from which on the writer does not wait for more.
    pub(super) fn half(&self) -> usize {
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
        f.debug_struct("Lane")
            .field("name", &self.name)
            .field("on", &self.on)
            .finish_non_exhaustive()
    }
}

/// At most twenty writes a second.
const GATHER: Duration = Duration::from_millis(50);
