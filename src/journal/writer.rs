//! The thread that takes lines to the disk or the pipe.

use super::Sink;
use super::lane::{Block, Shared};
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::time::Duration;

/// Writes block after block. On trouble it keeps its block and tries again: the lines behind it
/// fill the shared block, and then drops are counted.
pub(super) struct Writer {
    shared: Arc<Shared>,
    sink: Sink,
    batch: Vec<u8>,
    written: usize,
    is_failing: bool,
    /// Lines lost of which the operator's log has told.
    lost_told: u64,
    /// Lines lost when a turn last ended well.
    lost_seen: u64,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, sink: Sink) -> Self {
        Self {
            shared,
            sink,
            batch: Vec::new(),
            written: 0,
            is_failing: false,
            lost_told: 0,
            lost_seen: 0,
        }
    }

    pub(super) fn run(mut self) {
        while self.turn() {}
    }

    /// Waits for something to do and does it; false when there will be nothing more.
    fn turn(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut block = shared.block.lock();
        if self.batch.is_empty() {
            let told = self.lost_told;
            let idle = |b: &mut Block| {
                b.lines.is_empty()
                    && shared.dropped.get() == told
                    && b.next_sink.is_none()
                    && b.flushes_asked == b.flushes_served
                    && !b.closed
            };
            shared.wake.wait_while(&mut block, idle);
        }
        // Gather what comes within the next moment, unless the block fills faster than that, or
        // somebody waits for us. While writing
        // fails, nobody's waiting makes it succeed sooner.
        let (pause, is_failing) = match self.is_failing {
            true => (RETRY, true),
            false => (shared.gather, false),
        };
        let nobody_waits = |b: &mut Block| {
            let flush = b.flushes_asked != b.flushes_served && !is_failing;
            let has_room = b.lines.len() < b.half();
            b.next_sink.is_none() && !b.closed && !flush && (has_room || is_failing)
        };
        shared.wake.wait_while_for(&mut block, nobody_waits, pause);
        let mut left = None;
        if let Some(sink) = block.next_sink.take() {
            self.forget_torn_line();
            left = std::mem::replace(&mut self.sink, sink);
        }
        // Lines of a block that waits to be tried again go first.
        let takes_all = self.batch.is_empty();
        if takes_all {
            std::mem::swap(&mut self.batch, &mut block.lines);
        }
        let (flushes, closed) = (block.flushes_asked, block.closed);
        drop(block);
        // Closing a file may take its time, and requests wait for the block.
        drop(left);

        let outcome = self.write_batch();
        let done = outcome.is_ok();
        self.report(outcome);
        let mut block = shared.block.lock();
        if done && takes_all {
            block.flushes_served = flushes;
            shared.served.notify_all();
        }
        if !closed {
            return true;
        }
        // Closing waits for nothing: what a failing disk does not take now is lost.
        if !done {
            let rest = self.batch.get(self.written..).unwrap_or_default();
            self.shared
                .dropped
                .add(lines_in(rest) + lines_in(&block.lines));
            return false;
        }
        !block.lines.is_empty()
    }

    /// Writes what is left of the batch, and empties it when all is written.
    fn write_batch(&mut self) -> io::Result<()> {
        if let Some(sink) = &mut self.sink {
            while let Some(rest) = self
                .batch
                .get(self.written..)
                .filter(|rest| !rest.is_empty())
            {
                match sink.write(rest) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(count) => self.written += count,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        self.batch.clear();
        self.batch.shrink_to(KEPT);
        self.written = 0;
        Ok(())
    }

    /// Says once that writing fails, and once that it goes on; and how many lines were lost, when no more are.
    fn report(&mut self, outcome: io::Result<()>) {
        match outcome {
            Ok(()) => {
                if self.is_failing {
                    self.is_failing = false;
                    tracing::info!("{} log is written again", self.shared.name);
                }
                let lost = self.shared.dropped.get();
                if lost > self.lost_told && lost == self.lost_seen {
                    let lines = lost - self.lost_told;
                    tracing::warn!(lines, "lines of the {} log were lost", self.shared.name);
                    self.lost_told = lost;
                }
                self.lost_seen = lost;
            }
            Err(error) if !self.is_failing => {
                self.is_failing = true;
                tracing::error!(%error, "{} log cannot be written, lines are kept and then dropped", self.shared.name);
            }
            Err(_) => {}
        }
    }

    /// Before another file takes over: a line of which the old file has the first half is not
    /// continued in the new one.
    fn forget_torn_line(&mut self) {
        let (done, rest) = self.batch.split_at(self.written.min(self.batch.len()));
        if done.last().is_some_and(|last| *last != b'\n') {
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            self.written += end;
            self.shared.dropped.add(1);
        }
    }
}

fn lines_in(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// Between two attempts while the disk is full or the pipe gone.
const RETRY: Duration = Duration::from_secs(1);
/// Bytes of a block that stay allocated after a busy moment.
const KEPT: usize = 1024 * 1024;
