//! The door of HTTP/2: frames in front of the one relay.
//!
//! The crate `h2` reads and writes frames. Each stream becomes one request of HTTP/1.1 to the relay, which
//! knows it from others by what may not share a connection and nothing else: there is one gate, one logon,
//! one reading of paths and one account for both. The path of a request, a file each: `asked` writes its
//! head, `strand` is the connection the relay takes it for, `answered` reads the answer, `book` knows whose
//! bytes go by.

mod answered;
mod asked;
mod book;
mod flood;
mod frames;
mod guards;
mod strand;
mod tap;

use crate::accounting::meter::{Look, belongs_to, look, looking, settle};
use crate::accounting::{Metered, Phase};
use crate::auth::Presented;
use crate::config::settings::Limits;
use crate::metrics::Account;
use crate::relay::{self, Handshake, Stream};
use crate::runtime::{Ask, Runtime};
use book::Book;
use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use strand::Strand;
use tap::{Left, Tap};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// Serves a connection that agreed on HTTP/2, until it ends. `name`: what the client asked for in its
/// handshake. The future is large: box it. Its streams are tasks of their own on the same thread.
pub async fn serve<S: Stream + 'static>(
    mut stream: S,
    name: Box<str>,
    client: SocketAddr,
    shown: Option<Arc<Presented>>,
    runtime: Arc<Runtime>,
    asks: watch::Receiver<Ask>,
) {
    let handshake = relay::book_handshake(&mut stream, &runtime);
    belongs_to(Phase::Idle);
    let _open = runtime.metrics.http2_connection();
    let limits = runtime.snapshot().settings.limits.clone();
    let book = Book::new(Arc::clone(&runtime));
    let left = Left::default();
    let tap = Tap::new(
        stream,
        handshake.bytes,
        Arc::clone(&book),
        Arc::clone(&left),
    );
    let begun = builder(&limits).handshake::<_, Bytes>(tap);
    if let Ok(Ok(frames)) = timeout(limits.head_timeout, begun).await {
        let connection = Http2 {
            frames,
            name,
            client,
            shown,
            handshake: Some(Box::new(handshake)),
            is_later: false,
            runtime: Arc::clone(&runtime),
            book,
            live: Arc::default(),
            idle: limits.idle_timeout,
            until: Box::pin(sleep_until(now() + limits.idle_timeout)),
            busy: now(),
            leaving: None,
        };
        connection.live(asks).await;
    }
    let stream = left.lock().take();
    if let Some(stream) = stream {
        linger(stream).await;
    }
    book_time(&runtime);
}

/// Takes what is still on its way for a moment after a farewell: closing on unread bytes resets the connection,
/// and the client would lose the end of its answers.
async fn linger<S: Stream>(mut stream: S) {
    let linger = async {
        stream.shutdown().await?;
        let mut room = [0; 1024];
        let mut left = LINGER_BYTES_MAX;
        while left > 0 {
            match stream.read(&mut room).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        io::Result::Ok(())
    };
    let _either = timeout(LAST_WORDS, linger).await;
}

fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    let head_max = u32::try_from(limits.head).unwrap_or(u32::MAX);
    builder
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(head_max)
        .header_table_size(TABLE)
        .max_frame_size(FRAME_MAX)
        .initial_window_size(WINDOW)
        // One stream whose server does not read must not keep the others from sending.
        .initial_connection_window_size(WINDOW * STREAMS_MAX)
        .max_send_buffer_size(SEND_MAX)
        .data_frame_budget(SMALL_FRAMES)
        .max_concurrent_reset_streams(RESET_MAX)
        .max_pending_accept_reset_streams(UNREAD_RESET_MAX)
        .max_local_error_reset_streams(Some(ERRORS_MAX))
        .reset_stream_duration(RESET_REMEMBERED);
    builder
}

/// A connection and what it needs to serve its streams.
struct Http2<S: Stream> {
    frames: Connection<Tap<S>, Bytes>,
    name: Box<str>,
    client: SocketAddr,
    shown: Option<Arc<Presented>>,
    /// Until the first request takes it.
    handshake: Option<Box<Handshake>>,
    is_later: bool,
    runtime: Arc<Runtime>,
    book: Arc<Book>,
    /// Requests under way.
    live: Arc<AtomicUsize>,
    idle: Duration,
    until: Pin<Box<Sleep>>,
    /// When there was last a request under way.
    busy: Instant,
    /// Since when it is ending.
    leaving: Option<Instant>,
}

type Arrived = (Request<RecvStream>, SendResponse<Bytes>);

impl<S: Stream + 'static> Http2<S> {
    /// Request after request, until either side is done.
    async fn live(mut self, asks: watch::Receiver<Ask>) {
        let mut heard = asks.clone();
        let mut parting = pin!(async move {
            if heard.wait_for(|ask| ask.leaving).await.is_err() {
                // The sender lives as long as the process.
                std::future::pending::<()>().await;
            }
        });
        let mut is_parting = false;
        loop {
            let next = poll_fn(|cx| {
                if !is_parting && parting.as_mut().poll(cx).is_ready() {
                    is_parting = true;
                    self.leave();
                }
                self.poll_next(cx)
            });
            let Some(arrived) = next.await else {
                return;
            };
            self.begin(arrived, &asks);
            book_time(&self.runtime);
        }
    }

    /// The next request. `None`: there is none to come.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arrived>> {
        loop {
            match self.frames.poll_accept(cx) {
                Poll::Ready(Some(Ok(arrived))) => {
                    self.busy = now();
                    return Poll::Ready(Some(arrived));
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(None),
                Poll::Pending => {}
            }
            if self.book.is_flood() && self.leaving.is_none() {
                tracing::info!(client = %self.client.ip(), "a client floods its connection, which is ended");
                self.frames.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                self.end_by(now() + LAST_WORDS);
                continue;
            }
            if self.live.load(Ordering::Relaxed) > 0 {
                self.busy = now();
            }
            if self.until.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let due = self.busy
                + if self.leaving.is_some() {
                    PARTING
                } else {
                    self.idle
                };
            match (due > now(), self.leaving) {
                (true, _) => self.until.as_mut().reset(due),
                // Nobody is owed anything: it need not agree.
                (false, Some(_)) => return Poll::Ready(None),
                (false, None) => self.leave(),
            }
        }
    }

    /// Takes no more requests; ends when those under way have ended.
    fn leave(&mut self) {
        if self.leaving.is_none() {
            self.frames.graceful_shutdown();
            self.busy = now();
            self.end_by(self.busy + PARTING);
        }
    }

    fn end_by(&mut self, until: Instant) {
        self.leaving = Some(now());
        self.until.as_mut().reset(until);
    }

    /// Serves a request in a task of its own.
    fn begin(&mut self, (request, mut respond): Arrived, asks: &watch::Receiver<Ask>) {
        // A stream that was given up is gone for the crate, while what it asked for may still be under way.
        if self.live.load(Ordering::Relaxed) >= LIVE_MAX {
            respond.send_reset(Reason::REFUSED_STREAM);
            return;
        }
        let is_later = std::mem::replace(&mut self.is_later, true);
        let book = Arc::clone(&self.book);
        let strand = Strand::new(request, respond, &self.name, is_later, book);
        let place = Place::new(&self.live);
        let counted = self.runtime.metrics.http2_stream();
        let served = relay::serve_shared(
            strand,
            self.client,
            self.shown.clone(),
            self.handshake.take(),
            Arc::clone(&self.runtime),
            asks.clone(),
        );
        let life = async move {
            let _places = (place, counted);
            served.await;
        };
        tokio::spawn(Metered::new(life, Phase::Head, Look::AWAY));
    }
}

/// Counts as one under way until it is dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn new(live: &Arc<AtomicUsize>) -> Self {
        live.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(live))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Books what the connection itself has taken, and draws anew whether it is measured.
fn book_time(runtime: &Runtime) {
    let (spent, was) = (settle(), looking());
    let nanoseconds = was.scaled(spent.of(Phase::Idle));
    runtime.metrics.cpu(Account::Connection, nanoseconds);
    look(Look::draw(runtime.snapshot().settings.accounting.cpu));
}

#[expect(
    clippy::disallowed_methods,
    reason = "deadlines of a door are reckoned at the door"
)]
fn now() -> Instant {
    Instant::now()
}

/// Requests of one connection under way at once.
const STREAMS_MAX: u32 = 100;
/// The same, those included that their client has given up.
const LIVE_MAX: usize = 128;
/// Bytes of a request's body that come before somebody reads them.
const WINDOW: u32 = 64 * 1024;
/// Bytes of an answer that are on their way to the socket, of one stream.
const SEND_MAX: usize = 64 * 1024;
/// The smallest there is. RFC 9113 section 4.2
const FRAME_MAX: u32 = 16 * 1024;
/// What the client's heads are packed against. RFC 7541 section 4.2
const TABLE: u32 = 4 * 1024;
/// Bytes that DATA frames may waste by being small, before they are read.
const SMALL_FRAMES: usize = 64 * 1024;
/// Streams broken off that are remembered, so that frames which were on their way are no mistake.
const RESET_MAX: usize = 32;
const RESET_REMEMBERED: Duration = Duration::from_secs(2);
/// Streams given up before anybody looked at them.
const UNREAD_RESET_MAX: usize = 32;
/// Requests that are none, on one connection.
const ERRORS_MAX: usize = 256;
/// Whoever does not take a farewell within this does without.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How many bytes are taken after a farewell.
const LINGER_BYTES_MAX: usize = 256 * 1024;
/// How long a connection without requests is kept when it is ending: requests may be on their way to us.
const PARTING: Duration = Duration::from_secs(2);
