//! Generator of parts A and B: a closed loop of Executes over connections that stay open.
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

/// What to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    /// The proxy.
    pub(crate) address: SocketAddr,
    /// Its process, whose CPU time is read at both ends of the window.
    pub(crate) pid: u32,
    /// Connections, each with a user of its own as long as there are enough.
    pub(crate) connections: usize,
    /// Users there are.
    pub(crate) users: usize,
    /// KiB of each answer's body.
    pub(crate) answer_kib: u32,
    /// Load before the window.
    pub(crate) warm_up: Duration,
    /// The window.
    pub(crate) window: Duration,
}

/// What was seen in the window.
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

/// Runs the loop.
pub(crate) fn run(question: Question) -> Result<Found> {
    let mut engine = Engine::open(question)?;
    let begin = Instant::now();
    engine.begin_all();
    engine.run_until(begin + engine.question.warm_up)?;

    let watched = Watched::new(engine.question.pid)?;
    engine.latency.reset();
    let (before, start) = (watched.cpu()?, Instant::now());
    engine.run_until(start + engine.question.window)?;
    let (after, end) = (watched.cpu()?, Instant::now());

    Ok(Found {
        requests: engine.latency.len(),
        seconds: (end - start).as_secs_f64(),
        cpu_ns: after.since(&before),
        p50_ms: engine.latency.value_at_quantile(0.5) as f64 / 1000.0,
        p99_ms: engine.latency.value_at_quantile(0.99) as f64 / 1000.0,
        errors: engine.errors,
        first_error: engine.first_error,
        resumed: 0,
    })
}

/// All connections and what they share.
struct Engine {
    question: Question,
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
    fn open(question: Question) -> Result<Self> {
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
        let mut tcp = TcpStream::connect(self.question.address)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let mut tls = ClientConnection::new(Arc::clone(&self.tls), client::server_name()?)?;
        let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
        stream.write_all(&client::request(user, "Connect", &[], 0, 196))?;
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

    fn begin_all(&mut self) {
        for number in 0..self.lines.len() {
            let outcome = self.lines.get_mut(number).map_or(Ok(()), Line::send);
            if let Err(cause) = outcome {
                self.failed(number, &cause);
            }
        }
    }

    fn run_until(&mut self, deadline: Instant) -> Result<()> {
        let mut events = Vec::with_capacity(256);
        loop {
            let now = Instant::now();
            if now >= deadline {
                return self.check_stuck(now);
            }
            let wait = (deadline - now).min(Duration::from_millis(100));
            events.clear();
            match epoll::wait(
                &self.epoll,
                spare_capacity(&mut events),
                Some(&wait.try_into()?),
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(cause) => return Err(cause).context("epoll"),
            }
            for event in &events {
                let number = usize::try_from(event.data.u64())?;
                let Some(line) = self.lines.get_mut(number) else {
                    continue;
                };
                match line.read(&mut self.buffer, u64::from(self.question.answer_kib) * 1024) {
                    Ok(Some(took)) => {
                        self.latency.saturating_record(took.as_micros() as u64);
                        if let Err(cause) = line.send() {
                            self.failed(number, &cause);
                        }
                    }
                    Ok(None) => {}
                    Err(cause) => self.failed(number, &cause),
                }
            }
            if self.errors > ERRORS_MAX {
                bail!(
                    "more than {ERRORS_MAX} failures; the first: {:?}",
                    self.first_error
                );
            }
        }
    }

    /// Counts requests that wait for an answer in vain.
    fn check_stuck(&mut self, now: Instant) -> Result<()> {
        let stuck = self
            .lines
            .iter()
            .filter(|line| now - line.sent > ANSWER_TIMEOUT)
            .count();
        if stuck > 0 {
            bail!("{stuck} requests without an answer after {ANSWER_TIMEOUT:?}");
        }
        Ok(())
    }

    /// Counts a failure and replaces the connection, so that the load stays the same.
    fn failed(&mut self, number: usize, cause: &anyhow::Error) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| format!("{cause:#}"));
        let replaced = self.connect(number).and_then(|mut line| {
            line.send()?;
            self.watch(number, &line)?;
            Ok(line)
        });
        match (replaced, self.lines.get_mut(number)) {
            (Ok(line), Some(place)) => *place = line,
            // Found stuck, or broken again, at the end.
            _ => self.errors += 1,
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
