//! One client connection, request after request, until it ends.

use super::admit::{Admitted, By, Caller, Plan, Shape, admit};
use super::asks::Asks;
use super::bill::{Bill, Came, Handshake, Measured};
use super::buffer::{Buffer, poll_send};
use super::deadline::Deadline;
use super::forward::{Sent, Unsent};
use super::pinned::Pinned;
use super::shared::Shared;
use super::slow::Known;
use super::vdir::Carried;
use crate::accounting::meter::{Look, belongs_to, enter, look, looking, settle};
use crate::accounting::{Counting, Kind, Kinds, Phase, Unread, Wire};
use crate::auth::{Memo, Presented};
use crate::buffers::Scratch;
use crate::ids::ServerName;
use crate::metrics::{Account, LegSide, Metrics, Outcome, RetryReason};
use crate::refusal::Refusal;
use crate::runtime::{Ask, Runtime, Snapshot};
use crate::tls::TlsStream;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

/// A client's stream: TLS, plain, or one of several that share a connection; and it knows its bytes.
pub trait Stream: AsyncRead + AsyncWrite + Wire + Unpin + Send {
    /// What its connection knows of the one request that it carries, where others share the connection.
    fn shared(&self) -> Option<Shared> {
        None
    }

    /// Tells the client to come again by HTTP/1.1, in place of an answer.
    fn send_away(&mut self) {}

    /// What its bytes were, from the client and to it, where the text that went through it does not tell;
    /// the caller bills somebody.
    fn counted(&mut self) -> Option<[Kinds; 2]> {
        None
    }
}

impl<S: AsyncRead + AsyncWrite + Unread + Unpin + Send> Stream for Counting<S> {}
impl<S: AsyncRead + AsyncWrite + Wire + Unpin + Send> Stream for Box<TlsStream<S>> {}

/// A connection between and during requests. What a parked poll keeps is in here, so it is small.
pub(super) struct Connection<S> {
    pub(super) stream: S,
    pub(super) client: SocketAddr,
    /// The client's address as servers are told it.
    address: Box<str>,
    scheme: &'static str,
    pub(super) input: Buffer,
    pub(super) late: Deadline,
    pub(super) asks: Asks,
    pub(super) memo: Memo,
    /// What the client showed in its handshake.
    shown: Option<Arc<Presented>>,
    /// The server connection that is this one's alone.
    pub(super) pinned: Option<Box<Pinned>>,
    /// What this connection owned has ended: so does it, after the answer.
    pub(super) must_end: bool,
    /// A request has been answered here: the client knows how to open another connection.
    is_used: bool,
    /// What the connection's beginning cost; the first request's line shows it.
    handshake: Option<Box<Handshake>>,
    /// When the last request ended, or the connection began.
    ended: Instant,
}

/// Why an exchange ended before its answer did.
#[derive(Debug)]
pub(super) enum Stop {
    /// We say no; the client has had nothing yet.
    Refuse(Refusal),
    /// The server failed in mid-answer: the client must see it break off, never a clean end.
    Cut(Refusal),
    /// The client went away.
    ClientGone,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

/// What became of a request before its answer.
enum Way {
    /// It is with the server.
    Sent(Box<OnTheWay>),
    /// The same below another virtual directory.
    Carried(Box<Carried>),
    /// We answered it ourselves.
    Answered(Next),
}

/// A request that is with the server.
pub(super) struct OnTheWay {
    pub(super) world: Arc<Snapshot>,
    pub(super) plan: Box<Plan>,
    pub(super) keep_alive: bool,
    pub(super) sent: Sent,
}

/// What comes after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another request may come.
    Request,
    /// The connection ends.
    Close,
    /// It ends once what the client still sends has been taken for a moment.
    Linger,
    /// It breaks off, without TLS's word of farewell: the client must not take what it has for the whole.
    Break,
}

/// Serves a connection until it ends. Everything of a request happens in this one future. `memo`: a new one, of the
/// connection's own.
///
/// Not an `async fn`: that would keep its arguments beside the connection made of them.
pub fn serve<S: Stream>(
    mut stream: S,
    client: SocketAddr,
    scheme: &'static str,
    memo: Memo,
    shown: Option<Arc<Presented>>,
    runtime: Arc<Runtime>,
    asks: watch::Receiver<Ask>,
) -> impl Future<Output = ()> + Send {
    let handshake = book_handshake(&mut stream, &runtime);
    look(Look::draw(runtime.snapshot().settings.accounting.cpu));
    let handshake = (scheme == "https").then(|| Box::new(handshake));
    let idle = runtime.snapshot().settings.limits.idle_timeout;
    Connection::new(stream, client, scheme, (memo, shown), handshake, idle, asks)
        .live(idle, runtime)
}

/// Serves the one request of a stream that shares its connection with others. Nobody is remembered from one to the
/// next: a proxy may send two people's on one connection. `handshake`: with the connection's first.
pub(crate) async fn serve_shared<S: Stream>(
    stream: S,
    client: SocketAddr,
    shown: Option<Arc<Presented>>,
    handshake: Option<Box<Handshake>>,
    runtime: Arc<Runtime>,
    asks: watch::Receiver<Ask>,
) {
    look(Look::draw(runtime.snapshot().settings.accounting.cpu));
    let idle = runtime.snapshot().settings.limits.idle_timeout;
    let who = (Memo::default(), shown);
    let connection = Connection::new(stream, client, "https", who, handshake, idle, asks);
    connection.live(idle, runtime).await;
}

/// Books what a connection's beginning cost.
pub(crate) fn book_handshake<S: Wire>(stream: &mut S, runtime: &Runtime) -> Handshake {
    let handshake = Handshake {
        cpu_ns: settle().of(Phase::Handshake),
        bytes: stream.bill(0),
    };
    let metrics = &runtime.metrics;
    metrics.cpu(Account::Handshake, handshake.cpu_ns);
    metrics.bytes_beside(LegSide::Client, Kind::Handshake, handshake.bytes);
    handshake
}

impl<S: Stream> Connection<S> {
    fn new(
        stream: S,
        client: SocketAddr,
        scheme: &'static str,
        (memo, shown): (Memo, Option<Arc<Presented>>),
        handshake: Option<Box<Handshake>>,
        idle: Duration,
        asks: watch::Receiver<Ask>,
    ) -> Self {
        #[expect(clippy::disallowed_methods, reason = "a connection begins here")]
        let began = Instant::now();
        Self {
            is_used: stream.shared().is_some_and(|shared| shared.is_later),
            stream,
            client,
            address: client.ip().to_string().into_boxed_str(),
            scheme,
            input: Buffer::default(),
            late: Deadline::new((began + idle).into()),
            asks: Asks::new(asks),
            memo,
            shown,
            pinned: None,
            must_end: false,
            handshake,
            ended: began,
        }
    }

    /// Request after request, until it ends.
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` would keep the connection twice"
    )]
    fn live(mut self, idle: Duration, runtime: Arc<Runtime>) -> impl Future<Output = ()> + Send {
        async move {
            let mut next = Next::Request;
            while next == Next::Request && self.next_request(idle).await {
                // Boxed: an exchange's state exists only while there is one; an idle connection is small.
                next = Box::pin(self.exchange(&runtime)).await;
                self.is_used = true;
            }
            self.end(next, &runtime.metrics).await;
        }
    }

    /// Takes leave of the client.
    async fn end(&mut self, how: Next, metrics: &Metrics) {
        belongs_to(Phase::Idle);
        match how {
            Next::Linger => self.linger().await,
            Next::Break => {}
            // The client learns that this is the end and not an accident; it need not agree.
            Next::Close | Next::Request => {
                let _end = tokio::time::timeout(LAST_WORDS, self.stream.shutdown()).await;
            }
        }
        let (spent, look) = (settle(), looking());
        metrics.cpu(Account::Connection, look.scaled(spent.of(Phase::Idle)));
        metrics.cpu(Account::Request, look.scaled(spent.of_request()));
    }

    /// Waits for the first bytes of a request. False: the connection ends here, nobody is owed anything.
    async fn next_request(&mut self, idle: Duration) -> bool {
        let idle_until = self.ended + idle;
        let half_done = self.pinned.as_ref().and_then(|own| own.half_done_until);
        let until = half_done.map_or(idle_until, |until| until.min(idle_until));
        self.late.set(until.into());
        enter(Phase::Idle);
        poll_fn(|cx| {
            if !self.input.is_empty() {
                return Poll::Ready(true);
            }
            belongs_to(Phase::Idle);
            if let Poll::Ready(read) = self.input.poll_fill(&mut self.stream, usize::MAX, cx) {
                return Poll::Ready(matches!(read, Ok(bytes) if bytes > 0));
            }
            // What it owns at the server and the connection end together.
            if let Some(own) = &self.pinned
                && own.poll_noise(cx).is_ready()
            {
                return Poll::Ready(false);
            }
            while self.asks.poll(cx).is_ready() {}
            if self.asks.now().leaving {
                // A client that was let in a moment ago is given a moment; one that just had an answer
                // may have its next request on the way.
                let moment = if self.is_used { PARTING } else { FRESH };
                self.late.set(self.late.at().min(after(moment)));
            }
            self.late.poll(cx).map(|()| false)
        })
        .await
    }

    /// One request and its answer.
    #[expect(
        clippy::disallowed_methods,
        reason = "a request begins here: this is where its clock is read"
    )]
    async fn exchange(&mut self, runtime: &Runtime) -> Next {
        let now = (Instant::now(), SystemTime::now());
        let world = runtime.snapshot();
        // Whatever brought its first bytes was done for it.
        belongs_to(Phase::Head);
        let sampling = world.settings.accounting.cpu;
        let handshake = self.handshake.take();
        let came = match (self.is_used, self.stream.shared()) {
            (false, None) => Came::First,
            (true, None) => Came::Later,
            (false, Some(_)) => Came::FirstByHttp2,
            (true, Some(_)) => Came::LaterByHttp2,
        };
        let mut bill = Bill::open(runtime, self.client, came, handshake, now);
        let mut shape = None;
        // Each stage in a box of its own: while an answer is held for minutes, nothing is kept of what
        // it took to send the request.
        let way = Box::pin(self.send_out(runtime, world, &mut shape, &mut bill)).await;
        let outcome = match way {
            Ok(Way::Sent(on_the_way)) => {
                Box::pin(self.answer(runtime, on_the_way, &mut bill)).await
            }
            Ok(Way::Carried(carried)) => {
                Box::pin(self.answer_errand(runtime, carried, &mut bill)).await
            }
            Ok(Way::Answered(next)) => Ok(next),
            Err(stop) => Err(stop),
        };
        let next = match outcome {
            Ok(next) => next,
            Err(Stop::Refuse(refusal)) => {
                Box::pin(self.refuse(refusal, shape, runtime, &mut bill)).await
            }
            Err(Stop::Cut(refusal)) => {
                bill.cut(refusal);
                Next::Break
            }
            Err(Stop::ClientGone) => {
                bill.outcome = Outcome::Aborted;
                Next::Close
            }
        };
        let mut ahead = self.input.data().len() as u64;
        if next != Next::Request {
            // Nobody reads these as a request any more: they are part of what was sent with this one.
            bill.ledger
                .client_in
                .add(Kind::Payload, std::mem::take(&mut ahead));
        }
        self.memo.forget_answer();
        self.ended = Instant::now();
        let times = settle();
        // From here on it is the next request's time, the booking of this one included.
        look(Look::draw(sampling));
        bill.settle(Measured {
            counted: self.stream.counted(),
            wire: self.stream.bill(ahead),
            is_tls: self.scheme == "https",
            ended: self.ended,
            times,
        });
        next
    }

    /// Everything up to the request's first bytes at the server.
    async fn send_out(
        &mut self,
        runtime: &Runtime,
        mut world: Arc<Snapshot>,
        shape: &mut Option<Shape>,
        bill: &mut Bill<'_>,
    ) -> Result<Way, Stop> {
        let mut tried: Vec<ServerName> = Vec::new();
        let mut unreachable = None;
        let mut signs_on = false;
        loop {
            let mut out = Scratch::new();
            let mut plan = match self
                .admit(runtime, &world, &tried, signs_on, shape, bill, &mut out)
                .await
            {
                Ok(Admitted::Forward(plan)) => plan,
                Ok(Admitted::Local(local)) => {
                    let answer = self.answer_locally(local, &world, runtime, *shape, bill);
                    return Box::pin(answer).await.map(Way::Answered);
                }
                Ok(Admitted::Inquire(inquiry)) => {
                    let answer = self.discover(inquiry, &world, runtime, *shape, bill);
                    return Box::pin(answer).await.map(Way::Answered);
                }
                Ok(Admitted::Carry(errand)) => {
                    let this = shape.ok_or(Refusal::Malformed("head"))?;
                    let carrying =
                        self.carry(runtime, &world, errand, this, &mut out, &tried, bill);
                    match Box::pin(carrying).await? {
                        Ok(carried) => {
                            *shape = None;
                            return Ok(Way::Carried(carried));
                        }
                        Err((Unsent::Unreachable(refusal), server)) => {
                            tried.push(server);
                            unreachable = Some(refusal);
                            world = runtime.snapshot();
                        }
                        Err((Unsent::LegGone, _)) => signs_on = true,
                    }
                    continue;
                }
                // Where the map still names the server that cannot be reached, that is the reason.
                Err(Stop::Refuse(Refusal::NoEligibleCopy { .. })) if unreachable.is_some() => {
                    return Err(Stop::Refuse(
                        unreachable.unwrap_or(Refusal::TooBusy("retry")),
                    ));
                }
                // Admit does slow work, and reads on, by itself.
                Ok(Admitted::Wait(_) | Admitted::Peek(_)) => {
                    return Err(Stop::Refuse(Refusal::TooBusy("slow work")));
                }
                Err(stop) => return Err(stop),
            };
            let this = shape.ok_or(Refusal::Malformed("head"))?;
            bill.tries += 1;
            if !tried.is_empty() {
                runtime.metrics.retried(RetryReason::ConnectFailed);
            }
            match self
                .forward(runtime, &world, &mut plan, this, &mut out, bill)
                .await?
            {
                Ok(sent) => {
                    // From here on the request's bytes are going or gone: nobody can pass over them.
                    *shape = None;
                    let is_own = matches!(plan.by, By::Own(..));
                    let keep_alive = this.keep_alive && (is_own || !self.must_end);
                    return Ok(Way::Sent(Box::new(OnTheWay {
                        world,
                        plan,
                        keep_alive,
                        sent,
                    })));
                }
                // No byte of it left us: another look at the world may find another server.
                Err(Unsent::Unreachable(refusal)) => {
                    tried.push(plan.server.name().clone());
                    unreachable = Some(refusal);
                    world = runtime.snapshot();
                }
                Err(Unsent::LegGone) => signs_on = true,
            }
        }
    }

    /// Reads the head and decides, with whatever slow work that needs.
    async fn admit(
        &mut self,
        runtime: &Runtime,
        world: &Snapshot,
        tried: &[ServerName],
        signs_on: bool,
        shape: &mut Option<Shape>,
        bill: &mut Bill<'_>,
        out: &mut Scratch,
    ) -> Result<Admitted, Stop> {
        if self.pinned.as_ref().is_some_and(|own| !own.leg.is_quiet()) {
            (self.pinned, self.must_end) = (None, true);
        }
        let limits = &world.settings.limits;
        let mut known = Known::default();
        let (mut is_partial, mut is_peeking) = (false, false);
        loop {
            out.0.clear();
            let caller = Caller {
                source: self.client.ip(),
                address: &self.address,
                scheme: self.scheme,
                shared: self.stream.shared(),
                memo: &mut self.memo,
                shown: self.shown.as_deref(),
                known: &known,
                tried,
                pinned: self.pinned.as_deref(),
                signs_on,
            };
            match admit(
                self.input.data(),
                runtime,
                world,
                caller,
                bill.began,
                shape,
                bill,
                &mut out.0,
            )? {
                Some(Admitted::Wait(slow)) => {
                    Box::pin(known.learn(slow, &mut self.memo, runtime, world, bill)).await?;
                }
                Some(Admitted::Peek(identity)) => {
                    known.identity = Some(identity);
                    if !std::mem::replace(&mut is_peeking, true) {
                        self.late.set(after(limits.head_timeout));
                    }
                    if let Some(this) = shape.as_mut()
                        && this.expects_continue
                        && !std::mem::replace(&mut this.invited, true)
                    {
                        Box::pin(self.go_on(bill)).await?;
                    }
                    self.more_body().await?;
                }
                Some(admitted) => return Ok(admitted),
                None => {
                    // The head's own deadline counts from its first byte, and is armed only where the
                    // first read did not bring all of it.
                    if !is_partial {
                        is_partial = true;
                        self.late.set((bill.began + limits.head_timeout).into());
                    }
                    self.more_head(limits.head).await?;
                }
            }
        }
    }

    async fn more_head(&mut self, head_max: usize) -> Result<(), Stop> {
        // One byte beyond the limit may come in, so that the gate sees that it was passed.
        let limit = head_max + 1;
        poll_fn(
            |cx| match self.input.poll_fill(&mut self.stream, limit, cx) {
                Poll::Ready(Ok(0)) => Poll::Ready(Err(Stop::ClientGone)),
                Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::OutOfMemory => {
                    Poll::Ready(Err(Refusal::HeadTooLarge { limit: head_max }.into()))
                }
                Poll::Ready(Err(_)) => Poll::Ready(Err(Stop::ClientGone)),
                Poll::Pending => self
                    .late
                    .poll(cx)
                    .map(|()| Err(Refusal::HeadTimeout.into())),
            },
        )
        .await
    }

    /// Writes to the client under the deadline.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let mut at = 0;
        poll_fn(|cx| {
            let written = poll_send(&mut self.stream, bytes, &mut at, cx);
            match written {
                Poll::Ready(outcome) => Poll::Ready(outcome.map_err(|_gone| Stop::ClientGone)),
                Poll::Pending => self.late.poll(cx).map(|()| Err(Stop::ClientGone)),
            }
        })
        .await
    }

    /// Reads more of a request's body under the deadline.
    pub(super) async fn more_body(&mut self) -> Result<(), Stop> {
        poll_fn(
            |cx| match self.input.poll_fill(&mut self.stream, usize::MAX, cx) {
                Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Err(Stop::ClientGone)),
                Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
                Poll::Pending => self
                    .late
                    .poll(cx)
                    .map(|()| Err(Refusal::BodyTimeout.into())),
            },
        )
        .await
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "deadlines of a door are reckoned at the door"
)]
pub(super) fn after(duration: Duration) -> tokio::time::Instant {
    tokio::time::Instant::now() + duration
}

/// Whoever does not take a last answer within this does without.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long a connection without a request yet is waited for when we are going away.
const FRESH: Duration = Duration::from_secs(1);
/// How long one that has been used is.
const PARTING: Duration = Duration::from_secs(2);
#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounting::Counting;
    use crate::tls::TlsStream;
    use tokio::net::TcpStream;

    type Client = Box<TlsStream<Counting<TcpStream>>>;

    fn size_of_output<A, F>(_: fn(A) -> F) -> usize {
        size_of::<F>()
    }

    fn never<T>() -> T {
        unreachable!("only its type is looked at")
    }

    fn connection(_: ()) -> impl Sized {
        serve::<Client>(
            never(),
            never(),
            "https",
            never(),
            never(),
            never(),
            never(),
        )
    }

    fn exchange(connection: &'static mut Connection<Client>) -> impl Sized {
        connection.exchange(never())
    }

    fn send_out(connection: &'static mut Connection<Client>) -> impl Sized {
        let bill: &'static mut Bill<'static> = never();
        connection.send_out(never(), never(), never(), bill)
    }

    fn answer(connection: &'static mut Connection<Client>) -> impl Sized {
        let bill: &'static mut Bill<'static> = never();
        connection.answer(never(), never(), bill)
    }

    #[test]
    fn a_held_poll_keeps_little_more_than_two_kilobytes_of_futures() {
        let kept = [
            size_of_output(connection),
            size_of_output(exchange),
            size_of_output(answer),
            size_of::<OnTheWay>(),
            size_of::<Plan>(),
        ];

        assert!(kept.iter().sum::<usize>() <= 2432, "{kept:?}");
    }

    #[test]
    fn every_stage_fits_what_the_allocator_keeps_at_hand() {
        // glibc serves up to 1032 bytes from a list per thread, and more at several times the cost.
        for stage in [
            size_of_output(exchange),
            size_of_output(send_out),
            size_of_output(answer),
        ] {
            assert!(stage <= 1032, "{stage}");
        }
    }
}
