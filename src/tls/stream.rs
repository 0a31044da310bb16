//! A TLS connection after its handshake.

use super::incoming::{Incoming, Opened};
use super::record::{Content, Fault, Keys, OVERHEAD, PLAIN_MAX};
use crate::accounting::{Bytes, Wire};
use crate::buffers::{self, Class};
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{ProtocolVersion, SupportedCipherSuite};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A client's connection as plaintext. Costs no memory for buffers while nothing is under way.
#[derive(Debug)]
pub struct TlsStream<S> {
    io: S,
    secrets: Secrets,
    receive: Keys,
    transmit: Keys,
    incoming: Incoming,
    outgoing: Outgoing,
    /// Records in a row that brought nothing: a peer may not keep us busy with them.
    idle_records: u8,
    /// The peer has asked for new keys of ours. One answer does for all that it asks meanwhile, or a peer
    /// that asks and never reads could fill our memory.
    owes_update: bool,
    /// Met behind plaintext that had to be delivered first.
    fault: Option<Fault>,
    /// The peer has said that nothing more comes, or has gone.
    is_ended: bool,
    /// We have said so.
    is_closed: bool,
}

/// What later keys are made of. The peer or a limit asks for them, which in the life of most connections
/// never happens.
struct Secrets(
    Box<KernelConnection<ServerConnectionData>>,
    #[cfg(test)] Option<u64>,
);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
    fn version(&self) -> ProtocolVersion {
        self.0.protocol_version()
    }

    /// Records that may be sealed with one key.
    fn limit(&self) -> u64 {
        #[cfg(test)]
        if let Some(limit) = self.1 {
            return limit;
        }
        match self.0.negotiated_cipher_suite() {
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
            SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
        }
    }
}

impl<S> TlsStream<S> {
    pub(super) fn new(
        io: S,
        secrets: KernelConnection<ServerConnectionData>,
        [receive, transmit]: [Keys; 2],
        incoming: Incoming,
    ) -> Self {
        Self {
            io,
            secrets: Secrets(
                Box::new(secrets),
                #[cfg(test)]
                None,
            ),
            receive,
            transmit,
            incoming,
            outgoing: Outgoing::default(),
            idle_records: 0,
            owes_update: false,
            fault: None,
            is_ended: false,
            is_closed: false,
        }
    }

    /// Bytes held in buffers.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.incoming.memory() + self.outgoing.memory.len()
    }

    /// Records sealed with the present key.
    #[cfg(test)]
    pub(super) fn sealed(&self) -> u64 {
        self.transmit.sequence()
    }

    /// As if the cipher bore no more records than this.
    #[cfg(test)]
    pub(super) fn limit_keys_to(&mut self, records: u64) {
        self.secrets.1 = Some(records);
    }

    /// Puts a record among what is sent next. `plain` fits one.
    fn queue(&mut self, content: Content, plain: &[u8]) -> Result<(), Fault> {
        let room = self.outgoing.room(plain.len() + OVERHEAD);
        let sealed = self.transmit.seal(content, plain, room)?;
        self.outgoing.end += sealed;
        Ok(())
    }

    /// New keys for what we send, announced under the old ones. RFC 8446 section 4.6.3
    fn update_transmit(&mut self) -> Result<(), Fault> {
        self.queue(Content::Handshake, &[KEY_UPDATE, 0, 0, 1, 0])?;
        let version = self.secrets.version();
        let next = self.secrets.0.update_tx_secret().ok();
        self.transmit = next
            .and_then(|secrets| Keys::new(version, secrets))
            .ok_or(Fault::UsedUp)?;
        Ok(())
    }

    fn update_if_owed(&mut self) -> Result<(), Fault> {
        match std::mem::take(&mut self.owes_update) {
            true => self.update_transmit(),
            false => Ok(()),
        }
    }

    /// Keys are replaced well before their limit; TLS 1.2 has no way to, so its connection ends.
    fn keep_under_limit(&mut self) -> Result<(), Fault> {
        if self.transmit.sequence() + MARGIN < self.secrets.limit() {
            return Ok(());
        }
        match self.secrets.version() {
            ProtocolVersion::TLSv1_3 => self.update_transmit(),
            _ => Err(Fault::UsedUp),
        }
    }

    fn handshake(&mut self, message: &[u8]) -> Result<(), Fault> {
        // A server is sent one kind of message after the handshake, and it ends its record: what
        // follows comes under another key.
        match message {
            [KEY_UPDATE, 0, 0, 1, asks @ (0 | 1)]
                if self.secrets.version() == ProtocolVersion::TLSv1_3 =>
            {
                let next = self.secrets.0.update_rx_secret().ok();
                self.receive = next
                    .and_then(|secrets| Keys::new(ProtocolVersion::TLSv1_3, secrets))
                    .ok_or(Fault::Unexpected)?;
                self.owes_update |= *asks == 1;
                Ok(())
            }
            [KEY_UPDATE, ..] => Err(Fault::Garbled),
            _ => Err(Fault::Unexpected),
        }
    }

    fn alert(&mut self, message: &[u8]) -> Result<(), Fault> {
        match *message {
            [_, CLOSE_NOTIFY] => {
                self.is_ended = true;
                Ok(())
            }
            // A word ahead of the farewell. RFC 8446 section 6.1
            [_, USER_CANCELED] => Ok(()),
            [_, other] => Err(Fault::PeerAlert(other)),
            _ => Err(Fault::Garbled),
        }
    }

    /// Opens records until there is plaintext, or nothing more to open.
    fn advance(&mut self) -> Result<(), Fault> {
        loop {
            match self.incoming.open(&mut self.receive)? {
                Opened::Incomplete => return Ok(()),
                Opened::Data { is_empty: false } => {
                    self.idle_records = 0;
                    return Ok(());
                }
                Opened::Data { is_empty: true } => {}
                Opened::Handshake(message) => self.handshake(&message)?,
                Opened::Alert(message) => self.alert(&message)?,
            }
            if self.is_ended {
                return Ok(());
            }
            self.idle_records += 1;
            if self.idle_records > IDLE_RECORDS_MAX {
                return Err(Fault::Unexpected);
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> TlsStream<S> {
    /// Tells the peer why, as far as it listens, and gives the error to our side.
    fn fail(&mut self, fault: Fault, cx: &mut Context<'_>) -> io::Error {
        if let Some(alert) = fault.alert()
            && !self.is_closed
            && self.queue(Content::Alert, &[FATAL, alert]).is_ok()
        {
            let _tried = self.outgoing.poll_send(&mut self.io, cx);
        }
        (self.is_ended, self.is_closed) = (true, true);
        fault.into()
    }
}

impl<S: Wire> Wire for TlsStream<S> {
    fn wire(&self) -> Bytes {
        self.io.wire()
    }

    fn bill(&mut self, read_ahead: u64) -> Bytes {
        self.io.bill(read_ahead + self.incoming.ahead())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        if into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(fault) = this.fault.take() {
            return Poll::Ready(Err(this.fail(fault, cx)));
        }
        loop {
            // Records that are here already are delivered in one go, while there is room.
            while this.incoming.deliver(into)
                && this.incoming.has_more()
                && into.remaining() > 0
                && this.fault.is_none()
            {
                this.fault = this.advance().err();
            }
            if into.filled().len() > before || this.is_ended {
                return Poll::Ready(Ok(()));
            }
            if let Err(fault) = this.advance() {
                return Poll::Ready(Err(this.fail(fault, cx)));
            }
            if this.owes_update && this.outgoing.is_empty() {
                if let Err(fault) = this.update_if_owed() {
                    return Poll::Ready(Err(this.fail(fault, cx)));
                }
                // What does not go now goes with the next write.
                let _tried = this.outgoing.poll_send(&mut this.io, cx)?;
            }
            if this.incoming.has_plain() || this.is_ended {
                continue;
            }
            if ready!(this.incoming.poll_fill(&mut this.io, cx))? == 0 {
                // Without a farewell: whoever reads must judge by its own framing whether it has all.
                this.is_ended = true;
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(this.outgoing.poll_send(&mut this.io, cx))?;
        if let Err(fault) = this.update_if_owed() {
            return Poll::Ready(Err(this.fail(fault, cx)));
        }
        let taken = from.len().min(WRITE_MAX);
        for piece in from.get(..taken).unwrap_or_default().chunks(PLAIN_MAX) {
            let sealed = this
                .keep_under_limit()
                .and_then(|()| this.queue(Content::Data, piece));
            if let Err(fault) = sealed {
                return Poll::Ready(Err(this.fail(fault, cx)));
            }
        }
        // Taken is taken: what the socket does not want now goes before the next write, or with a flush.
        let _tried = this.outgoing.poll_send(&mut this.io, cx)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.outgoing.poll_send(&mut this.io, cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_closed {
            this.is_closed = true;
            if let Err(fault) = this.queue(Content::Alert, &[WARNING, CLOSE_NOTIFY]) {
                return Poll::Ready(Err(fault.into()));
            }
        }
        ready!(this.outgoing.poll_send(&mut this.io, cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

/// Sealed bytes on their way out. Owns memory only while there are some.
#[derive(Debug, Default)]
struct Outgoing {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Outgoing {
    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Memory for at least so many bytes behind what waits.
    fn room(&mut self, wanted: usize) -> &mut [u8] {
        let needed = self.end + wanted;
        if needed > self.memory.len() {
            let class = match needed <= Class::Wire.size() {
                true => Class::Wire,
                false => Class::WireBulk,
            };
            let mut next = match needed <= class.size() {
                true => buffers::take(class),
                // Small records behind a full write whose peer does not read: of its own size.
                false => vec![0; needed].into_boxed_slice(),
            };
            let here = self.memory.get(..self.end).unwrap_or_default();
            if let Some(to) = next.get_mut(..self.end) {
                to.copy_from_slice(here);
            }
            buffers::give(std::mem::replace(&mut self.memory, next));
        }
        self.memory.get_mut(self.end..).unwrap_or_default()
    }

    fn poll_send<S: AsyncWrite + Unpin>(
        &mut self,
        to: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = self
            .memory
            .get(self.start..self.end)
            .filter(|rest| !rest.is_empty())
        {
            let sent = ready!(Pin::new(&mut *to).poll_write(cx, rest))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.start += sent;
        }
        self.release();
        Poll::Ready(Ok(()))
    }

    fn release(&mut self) {
        buffers::give(std::mem::take(&mut self.memory));
        (self.start, self.end) = (0, 0);
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.release();
    }
}

/// Plaintext taken by one write: four full records, which one buffer holds.
const WRITE_MAX: usize = 4 * PLAIN_MAX;
/// Handshake type of a key update. RFC 8446 section 4
const KEY_UPDATE: u8 = 24;
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;
const WARNING: u8 = 1;
const FATAL: u8 = 2;
/// As many as rustls allows.
const IDLE_RECORDS_MAX: u8 = 32;
/// Records before a key's limit at which it is replaced: alerts and updates need a few.
const MARGIN: u64 = 64;
