//! A connection that has become a tunnel: bytes both ways, whatever they mean. RFC 6455

use crate::relay::buffer::poll_send;
use crate::relay::connection::Stream;
use crate::relay::exchange::Exchange;
use std::future::poll_fn;
use std::task::{Context, Poll};

/// What went through, and how far what is on its way has come.
#[derive(Debug, Default)]
pub(super) struct Tunnel {
    /// Bytes from the client to the server.
    pub(super) up: u64,
    /// And back.
    pub(super) down: u64,
    up_at: usize,
    down_at: usize,
}

impl Tunnel {
    /// Carries until something has gone through or something is asked from outside. False: one side has
    /// ended, or nothing went through for too long.
    pub(super) async fn carry<S: Stream>(&mut self, exchange: &mut Exchange<'_, S>) -> bool {
        poll_fn(|cx| self.poll(exchange, cx)).await
    }

    fn poll<S: Stream>(
        &mut self,
        exchange: &mut Exchange<'_, S>,
        cx: &mut Context<'_>,
    ) -> Poll<bool> {
        let before = (self.up, self.down);
        // A side that has ended has had all of the other's bytes: each piece is sent before the next is
        // read.
        let ended =
            self.poll_up(exchange, cx).is_ready() || self.poll_down(exchange, cx).is_ready();
        if ended {
            return Poll::Ready(false);
        }
        if before != (self.up, self.down) || exchange.asks.poll(cx).is_ready() {
            return Poll::Ready(true);
        }
        exchange.late.poll(cx).map(|()| false)
    }

    /// Ready at the end.
    fn poll_up<S: Stream>(
        &mut self,
        exchange: &mut Exchange<'_, S>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        loop {
            if !exchange.input.is_empty() {
                let sent = poll_send(exchange.leg, exchange.input.data(), &mut self.up_at, cx);
                match sent {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
                self.up += self.up_at as u64;
                exchange.input.consume(self.up_at);
                self.up_at = 0;
            }
            match exchange.input.poll_fill(exchange.stream, usize::MAX, cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The same from the server.
    fn poll_down<S: Stream>(
        &mut self,
        exchange: &mut Exchange<'_, S>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        loop {
            if !exchange.output.is_empty() {
                let data = exchange.output.data();
                match poll_send(exchange.stream, data, &mut self.down_at, cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
                self.down += self.down_at as u64;
                exchange.output.consume(self.down_at);
                self.down_at = 0;
            }
            match exchange.output.poll_fill(exchange.leg, usize::MAX, cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
