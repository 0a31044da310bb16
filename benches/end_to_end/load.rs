//! Generator of parts A and B: a closed loop of Executes over connections that stay open.
//!
//! All proxies are driven in one run, in turns of a fraction of a second: what the neighbours on a shared
//! machine do meanwhile happens to all of them alike, and their ratios hold where their times do not.
//!
//! Written against epoll and rustls by hand, one thread, because it shares its core with the mailbox
//! servers and must still be faster than the proxy it drives.

use crate::answer::Answer;
use crate::client::{self, BODY_BYTES, User};
use crate::cpu::Watched;
use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustls::{ClientConfig, ClientConnection};
use serde::{Deserialize, Serialize};
use std::io::{BufRead as _, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// First argument that makes this program the generator.
pub(crate) const NAME: &str = "__load";
/// A generator that meets more failures than this has no figures worth reporting.
const ERRORS_MAX: u64 = 1000;
/// An answer that takes longer counts as failed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Who is driven.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Target {
    /// The proxy.
    pub(crate) address: SocketAddr,
    /// Its process, whose CPU time is read at both ends of a turn.
    pub(crate) pid: u32,
    /// How its clients sign on.
    pub(crate) sign_on: SignOn,
}

/// How clients sign on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SignOn {
    /// Every request shows a password.
    Basic,
    /// The first request of a connection shows a ticket, the others nothing.
    Negotiate,
}

/// What to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    /// The proxies, in the order of their turns.
    pub(crate) targets: Vec<Target>,
    /// Connections, each with a user of its own as long as there are enough.
    pub(crate) connections: usize,
    /// Users there are.
    pub(crate) users: usize,
    /// KiB of each answer's body.
    pub(crate) answer_kib: u32,
    /// Load on each before anything is counted.
    pub(crate) warm_up: Duration,
    /// All turns of one proxy together.
    pub(crate) window: Duration,
    /// Turns of each.
    pub(crate) turns: u32,
}

/// What was seen of one proxy.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    /// Whole answers.
    pub(crate) requests: u64,
    /// Length of the window, seconds.
    pub(crate) seconds: f64,
    /// CPU time of the proxy, nanoseconds.
    pub(crate) cpu_ns: u64,
    /// Half of the answers took no longer, milliseconds.
    pub(crate) p50_ms: f64,
    /// All but one in a hundred took no longer.
    pub(crate) p99_ms: f64,
    /// Requests that failed, warm-up included.
    pub(crate) errors: u64,
    /// What the first failure was.
    pub(crate) first_error: Option<String>,
    /// Handshakes that resumed a session (part D).
    pub(crate) resumed: u64,
}

/// What was found of each proxy, or why there are no figures.
pub(crate) type Findings = Vec<std::result::Result<Found, String>>;

/// Drives all of them, turn by turn.
pub(crate) fn run(question: Question) -> Result<Findings> {
    let question = Arc::new(question);
    let driven = question.targets.iter();
    let mut driven: Vec<Result<Driven>> = driven
        .map(|&target| Driven::open(&question, target))
        .collect();
    for _ in 0..question.turns {
        for place in &mut driven {
            if let Ok(one) = place
                && let Err(cause) = one.turn(question.window / question.turns)
            {
                *place = Err(cause);
            }
        }
    }
    let found = |one: Result<Driven>| one.map(Driven::found).map_err(|cause| format!("{cause:#}"));
    Ok(driven.into_iter().map(found).collect())
}

/// One proxy under load, and what its turns have cost.
struct Driven {
    engine: Engine,
    watched: Watched,
    seconds: f64,
    cpu_ns: u64,
}

impl Driven {
    fn open(question: &Arc<Question>, target: Target) -> Result<Self> {
        let mut engine = Engine::open(Arc::clone(question), target)?;
        engine.run_for(question.warm_up)?;
        engine.latency.reset();
        Ok(Self {
            engine,
            watched: Watched::new(target.pid)?,
            seconds: 0.0,
            cpu_ns: 0,
        })
    }

    /// Load for so long; ends with the answer to the last request, so that all of its cost is counted.
    fn turn(&mut self, length: Duration) -> Result<()> {
        let (before, start) = (self.watched.cpu()?, Instant::now());
        self.engine.run_for(length)?;
        self.seconds += start.elapsed().as_secs_f64();
        self.cpu_ns += self.watched.cpu()?.since(&before);
        Ok(())
    }

    fn found(self) -> Found {
        let latency = &self.engine.latency;
        Found {
            requests: latency.len(),
            seconds: self.seconds,
            cpu_ns: self.cpu_ns,
            p50_ms: latency.value_at_quantile(0.5) as f64 / 1000.0,
            p99_ms: latency.value_at_quantile(0.99) as f64 / 1000.0,
            errors: self.engine.errors,
            first_error: self.engine.first_error,
            resumed: 0,
        }
    }
}

/// All connections to one proxy and what they share.
struct Engine {
    question: Arc<Question>,
    target: Target,
    epoll: OwnedFd,
    tls: Arc<ClientConfig>,
    lines: Vec<Line>,
    buffer: Vec<u8>,
    latency: Histogram<u64>,
    errors: u64,
    first_error: Option<String>,
}

/// One connection with its next request, ready to send.
struct Line {
    tcp: TcpStream,
    tls: ClientConnection,
    request: Vec<u8>,
    answer: Answer,
    sent: Instant,
}

impl Engine {
    fn open(question: Arc<Question>, target: Target) -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        // A large answer is read in large pieces; a small one fits into one read anyway.
        let mut engine = Self {
            epoll,
            tls: client::tls(None)?,
            lines: Vec::new(),
            buffer: vec![0; 256 * 1024],
            latency: Histogram::new_with_bounds(1, 60_000_000, 3)?,
            errors: 0,
            first_error: None,
            target,
            question,
        };
        for number in 0..engine.question.connections {
            let line = engine.connect(number)?;
            engine.watch(number, &line)?;
            engine.lines.push(line);
        }
        Ok(engine)
    }

    fn watch(&self, number: usize, line: &Line) -> Result<()> {
        epoll::add(
            &self.epoll,
            &line.tcp,
            EventData::new_u64(number as u64),
            EventFlags::IN,
        )?;
        Ok(())
    }

    /// A connection with a session: TLS, then a Connect whose cookies every Execute carries.
    fn connect(&self, number: usize) -> Result<Line> {
        let user = User(number % self.question.users);
        let mut tcp = TcpStream::connect(self.target.address)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let mut tls = ClientConnection::new(Arc::clone(&self.tls), client::server_name()?)?;
        let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
        let (first, further) = match self.target.sign_on {
            SignOn::Basic => (user.basic(), user.basic()),
            SignOn::Negotiate => (user.negotiate()?, String::new()),
        };
        stream.write_all(&client::request(user, &first, "Connect", &[], 0, 196))?;
        let mut answer = Answer::default();
        let mut buffer = [0; 4096];
        loop {
            let read = stream.read(&mut buffer).context("answer to a Connect")?;
            if read == 0 {
                bail!("connection closed instead of an answer to Connect");
            }
            if answer.feed(buffer.get(..read).unwrap_or_default())? {
                break;
            }
        }
        let mut cookies = Vec::new();
        client::remember(&mut cookies, answer.cookies());
        tcp.set_nonblocking(true)?;
        let request = client::request(
            user,
            &further,
            "Execute",
            &cookies,
            self.question.answer_kib,
            BODY_BYTES,
        );
        Ok(Line {
            tcp,
            tls,
            request,
            answer: Answer::default(),
            sent: Instant::now(),
        })
    }

    /// Each connection asks again and again for so long, and once more waits for its answer.
    fn run_for(&mut self, length: Duration) -> Result<()> {
        let mut waiting = 0;
        for number in 0..self.lines.len() {
            match self.lines.get_mut(number).map_or(Ok(()), Line::send) {
                Ok(()) => waiting += 1,
                Err(cause) => waiting += self.failed(number, &cause, true),
            }
        }
        let deadline = Instant::now() + length;
        let mut events = Vec::with_capacity(256);
        while waiting > 0 {
            events.clear();
            let wait = Duration::from_millis(100);
            match epoll::wait(
                &self.epoll,
                spare_capacity(&mut events),
                Some(&wait.try_into()?),
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(cause) => return Err(cause).context("epoll"),
            }
            let now = Instant::now();
            let goes_on = now < deadline;
            if now > deadline + ANSWER_TIMEOUT {
                bail!("{waiting} requests without an answer after {ANSWER_TIMEOUT:?}");
            }
            for event in &events {
                let number = usize::try_from(event.data.u64())?;
                let Some(line) = self.lines.get_mut(number) else {
                    continue;
                };
                match line.read(&mut self.buffer, u64::from(self.question.answer_kib) * 1024) {
                    Ok(Some(took)) => {
                        self.latency.saturating_record(took.as_micros() as u64);
                        waiting -= 1;
                        if goes_on {
                            match line.send() {
                                Ok(()) => waiting += 1,
                                Err(cause) => waiting += self.failed(number, &cause, true),
                            }
                        }
                    }
                    Ok(None) => {}
                    Err(cause) => {
                        waiting -= 1;
                        waiting += self.failed(number, &cause, goes_on);
                    }
                }
            }
            if self.errors > ERRORS_MAX {
                bail!(
                    "more than {ERRORS_MAX} failures; the first: {:?}",
                    self.first_error
                );
            }
        }
        Ok(())
    }

    /// Counts a failure and replaces the connection, so that the load stays the same. Returns how many
    /// requests are under way on the new one.
    fn failed(&mut self, number: usize, cause: &anyhow::Error, asks: bool) -> usize {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| format!("{cause:#}"));
        let replaced = self.connect(number).and_then(|mut line| {
            if asks {
                line.send()?;
            }
            self.watch(number, &line)?;
            Ok(line)
        });
        match (replaced, self.lines.get_mut(number)) {
            (Ok(line), Some(place)) => {
                *place = line;
                usize::from(asks)
            }
            // The next turn finds it broken again.
            _ => {
                self.errors += 1;
                0
            }
        }
    }
}

impl Line {
    fn send(&mut self) -> Result<()> {
        self.sent = Instant::now();
        self.answer.clear();
        self.tls.writer().write_all(&self.request)?;
        while self.tls.wants_write() {
            // 2.7 KB after a whole answer: the socket is empty, so it takes them at once.
            self.tls
                .write_tls(&mut self.tcp)
                .context("sending a request")?;
        }
        Ok(())
    }

    /// Reads what is there; the time since sending once the answer is complete.
    fn read(&mut self, buffer: &mut [u8], body: u64) -> Result<Option<Duration>> {
        let read = match self.tcp.read(buffer) {
            Ok(0) => bail!("connection closed before the answer"),
            Ok(read) => read,
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(cause) => return Err(cause).context("reading an answer"),
        };
        let mut wire = buffer.get(..read).unwrap_or_default();
        let mut done = false;
        while !wire.is_empty() {
            self.tls.read_tls(&mut wire)?;
            let mut left = self.tls.process_new_packets()?.plaintext_bytes_to_read();
            let mut reader = self.tls.reader();
            while left > 0 {
                let plain = reader.fill_buf()?;
                let length = plain.len();
                done = self.answer.feed(plain)?;
                reader.consume(length);
                left -= length;
            }
        }
        if done && self.answer.body_bytes() != body {
            bail!(
                "{} bytes of body instead of {body}",
                self.answer.body_bytes()
            );
        }
        Ok(done.then(|| self.sent.elapsed()))
    }
}
