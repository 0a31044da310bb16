//! Bytes as they arrived: opened plaintext that nobody has read yet, then records still sealed.

use super::record::{self, Content, Fault, Keys};
use crate::buffers::{self, Class};
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};

/// Owns memory only while there are bytes in it.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    memory: Box<[u8]>,
    /// Opened plaintext, all of it before `sealed`.
    plain: Range<usize>,
    /// What the records of that plaintext had beside it.
    seals: usize,
    sealed: Range<usize>,
    /// The last read filled the memory: the next one takes more.
    bulk: bool,
}

impl Incoming {
    /// What was left over from the handshake: plaintext that came with it in records of `wire` bytes, and
    /// bytes behind.
    pub(super) fn new(plain: &[u8], wire: usize, sealed: &[u8]) -> Self {
        let memory = [plain, sealed].concat();
        Self {
            plain: 0..plain.len(),
            seals: wire.saturating_sub(plain.len()),
            sealed: plain.len()..memory.len(),
            memory: memory.into_boxed_slice(),
            bulk: false,
        }
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.memory.len()
    }

    /// Moves plaintext to the reader. False: there was none.
    pub(super) fn deliver(&mut self, into: &mut ReadBuf<'_>) -> bool {
        let here = self.memory.get(self.plain.clone()).unwrap_or_default();
        let (now, _) = here.split_at(here.len().min(into.remaining()));
        if now.is_empty() {
            return false;
        }
        into.put_slice(now);
        self.plain.start += now.len();
        if self.plain.is_empty() {
            self.seals = 0;
        }
        if self.plain.is_empty() && self.sealed.is_empty() {
            self.release();
        }
        true
    }

    /// Opens the next record that is all here. Its plaintext, if it is data, waits to be delivered;
    /// of anything else a copy is returned. Call it only when no plaintext waits.
    pub(super) fn open(&mut self, keys: &mut Keys) -> Result<Opened, Fault> {
        let here = self.memory.get_mut(self.sealed.clone()).unwrap_or_default();
        let Some(length) = record::length(here)? else {
            return Ok(Opened::Incomplete);
        };
        let Some(record) = here.get_mut(..length) else {
            return Ok(Opened::Incomplete);
        };
        let (content, inside) = keys.open(record)?;
        let begin = self.sealed.start;
        self.sealed.start += length;
        let opened = begin + inside.start..begin + inside.end;
        if content == Content::Data {
            self.plain = opened;
            if !self.plain.is_empty() {
                self.seals = length - self.plain.len();
            }
            if self.plain.is_empty() && self.sealed.is_empty() {
                self.release();
            }
            return Ok(Opened::Data {
                is_empty: self.plain.is_empty(),
            });
        }
        let message = self.memory.get(opened).unwrap_or_default().into();
        if self.sealed.is_empty() {
            self.release();
        }
        Ok(match content {
            Content::Handshake => Opened::Handshake(message),
            _ => Opened::Alert(message),
        })
    }

    /// Bytes that came on the wire and of which nobody has read anything.
    pub(super) fn ahead(&self) -> u64 {
        (self.plain.len() + self.seals + self.sealed.len()) as u64
    }

    /// True where plaintext waits to be delivered.
    pub(super) fn has_plain(&self) -> bool {
        !self.plain.is_empty()
    }

    /// True where sealed bytes follow the record that was opened last.
    pub(super) fn has_more(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// Reads once behind what is here. `Ready(Ok(0))`: the peer has closed. Nothing is kept in a lent
    /// buffer while it waits, a piece of a record moves to memory of its own size.
    pub(super) fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        from: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.make_room();
        let room = self.memory.get_mut(self.sealed.end..).unwrap_or_default();
        let mut into = ReadBuf::new(room);
        let outcome = Pin::new(from).poll_read(cx, &mut into);
        let read = into.filled().len();
        self.sealed.end += read;
        self.bulk = self.sealed.end == self.memory.len();
        if read == 0 {
            self.shrink();
        }
        ready!(outcome)?;
        Poll::Ready(Ok(read))
    }

    fn make_room(&mut self) {
        let here = self.sealed.len();
        let class = match self.bulk {
            true => Class::WireBulk,
            false => Class::Wire,
        };
        if self.sealed.end < self.memory.len() {
            return;
        }
        // Full, or none: what is here is part of one record, so it fits every class.
        let mut next = buffers::take(class);
        if let (Some(to), Some(from)) = (next.get_mut(..here), self.memory.get(self.sealed.clone()))
        {
            to.copy_from_slice(from);
        }
        buffers::give(std::mem::replace(&mut self.memory, next));
        (self.plain, self.sealed) = (0..0, 0..here);
    }

    /// Keeps only what is here, in memory of that size.
    fn shrink(&mut self) {
        let here: Box<[u8]> = self
            .memory
            .get(self.sealed.clone())
            .unwrap_or_default()
            .into();
        let length = here.len();
        buffers::give(std::mem::replace(&mut self.memory, here));
        (self.plain, self.sealed) = (0..0, 0..length);
    }

    fn release(&mut self) {
        buffers::give(std::mem::take(&mut self.memory));
        (self.plain, self.sealed) = (0..0, 0..0);
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.release();
    }
}

/// What the next record was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// It is not all here.
    Incomplete,
    /// Plaintext, waiting to be delivered.
    Data {
        /// None, to be exact: allowed, and worth nothing.
        is_empty: bool,
    },
    Handshake(Box<[u8]>),
    Alert(Box<[u8]>),
}
