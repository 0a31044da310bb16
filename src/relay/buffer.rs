//! Buffers that exist only while there is something in them.
//!
//! A held poll waits minutes for a few bytes. Were it to keep its read buffers, they would be most of
//! its memory. So a [`Buffer`] owns memory only between a successful read and the moment its bytes are
//! consumed; while a read is pending it owns none. The memory comes from a small store per worker:
//! two pointer moves per read, no system call more, because tokio answers from its readiness cache.

use crate::buffers::{self, Class};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A read buffer: bytes arrive at its end and are consumed from its start.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
    /// The last read filled it: the next one takes a bigger piece.
    bulk: bool,
}

impl Buffer {
    /// The bytes that are here.
    pub(crate) fn data(&self) -> &[u8] {
        self.memory.get(self.start..self.end).unwrap_or_default()
    }

    /// True where none are.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Drops leading bytes; gives the memory back when nothing is left.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.is_empty() {
            self.park();
        }
    }

    /// Gives the memory back, and whatever was in it.
    pub(crate) fn park(&mut self) {
        if !self.memory.is_empty() {
            buffers::give(std::mem::take(&mut self.memory));
        }
        (self.start, self.end) = (0, 0);
    }

    /// Reads once, behind the bytes already here, of which there may be at most `limit`.
    /// `Ready(Ok(0))` is the end of the stream.
    pub(crate) fn poll_fill<R: AsyncRead + Unpin>(
        &mut self,
        from: &mut R,
        limit: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.make_room(limit)?;
        let room = self.memory.get_mut(self.end..).unwrap_or_default();
        let mut into = ReadBuf::new(room);
        let outcome = Pin::new(from).poll_read(cx, &mut into);
        let read = into.filled().len();
        self.end += read;
        self.bulk = self.end == self.memory.len();
        if self.is_empty() {
            self.park();
        }
        outcome.map_ok(|()| read)
    }

    fn make_room(&mut self, limit: usize) -> io::Result<()> {
        if self.memory.is_empty() {
            let class = if self.bulk {
                Class::PlainBulk
            } else {
                Class::Plain
            };
            self.memory = buffers::take(class);
            return Ok(());
        }
        if self.end < self.memory.len() {
            return Ok(());
        }
        let here = self.data().len();
        if here >= limit {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        if self.start > 0 {
            self.memory.copy_within(self.start..self.end, 0);
        } else {
            let mut bigger = match here < Class::PlainBulk.size() {
                true => buffers::take(Class::PlainBulk),
                false => vec![0; limit.min(2 * here)].into_boxed_slice(),
            };
            if let (Some(to), Some(from)) = (bigger.get_mut(..here), self.memory.get(..here)) {
                to.copy_from_slice(from);
            }
            buffers::give(std::mem::replace(&mut self.memory, bigger));
        }
        (self.start, self.end) = (0, here);
        Ok(())
    }

    /// Reads only what is already here; never waits. `None`: nothing is.
    pub(crate) async fn fill_now<R: AsyncRead + Unpin>(
        &mut self,
        from: &mut R,
        limit: usize,
    ) -> io::Result<Option<usize>> {
        poll_fn(|cx| match self.poll_fill(from, limit, cx) {
            Poll::Ready(outcome) => Poll::Ready(outcome.map(Some)),
            Poll::Pending => Poll::Ready(Ok(None)),
        })
        .await
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.park();
    }
}

/// Writes `bytes` from `*at` on; counts what was taken, also where it fails half way.
pub(crate) fn poll_write_from<W: AsyncWrite + Unpin>(
    to: &mut W,
    bytes: &[u8],
    at: &mut usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while let Some(rest) = bytes.get(*at..).filter(|rest| !rest.is_empty()) {
        let taken = ready!(Pin::new(&mut *to).poll_write(cx, rest))?;
        if taken == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        *at += taken;
    }
    Poll::Ready(Ok(()))
}

/// Writes as [`poll_write_from`] does and flushes: a TLS session takes bytes that its socket does not,
/// and the flush is where a slow peer shows.
pub(crate) fn poll_send<W: AsyncWrite + Unpin>(
    to: &mut W,
    bytes: &[u8],
    at: &mut usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    ready!(poll_write_from(to, bytes, at, cx))?;
    Pin::new(to).poll_flush(cx)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    const ANY: usize = 1 << 20;

    #[tokio::test]
    async fn memory_is_owned_only_while_bytes_are_here() {
        let (mut ours, mut theirs) = tokio::io::duplex(64);
        let mut buffer = Buffer::default();
        assert_eq!(buffer.fill_now(&mut ours, ANY).await.unwrap(), None);
        assert!(buffer.memory.is_empty());

        theirs.write_all(b"abc").await.unwrap();
        assert_eq!(buffer.fill_now(&mut ours, ANY).await.unwrap(), Some(3));
        buffer.consume(1);
        assert_eq!(buffer.data(), b"bc");
        buffer.consume(2);
        assert!(buffer.memory.is_empty());
    }

    #[tokio::test]
    async fn a_long_head_grows_the_buffer_up_to_its_limit() {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 20);
        let mut buffer = Buffer::default();
        let limit = 80 * 1024;
        theirs.write_all(&vec![b'a'; 200 * 1024]).await.unwrap();

        let error = loop {
            match buffer.fill_now(&mut ours, limit).await {
                Ok(read) => assert!(read.is_some_and(|read| read > 0)),
                Err(error) => break error,
            }
        };

        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        assert_eq!(buffer.data().len(), limit);
        assert!(buffer.data().iter().all(|byte| *byte == b'a'));
    }

    #[tokio::test]
    async fn consumed_bytes_make_room_without_growing() {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 20);
        let mut buffer = Buffer::default();
        theirs
            .write_all(&vec![b'x'; Class::Plain.size() + 10])
            .await
            .unwrap();
        assert_eq!(
            buffer.fill_now(&mut ours, ANY).await.unwrap(),
            Some(Class::Plain.size())
        );
        buffer.consume(Class::Plain.size() - 1);
        assert_eq!(buffer.fill_now(&mut ours, ANY).await.unwrap(), Some(10));
        assert_eq!(buffer.data(), [b'x'; 11]);
        assert_eq!(buffer.memory.len(), Class::Plain.size());
    }
}
