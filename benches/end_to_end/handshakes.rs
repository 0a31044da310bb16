//! Generator of part D: connect, handshake, ticket, goodbye.

use crate::client::{self, Tickets};
use crate::cpu::Watched;
use crate::launch;
use crate::load::Found;
use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;
use rustls::{ClientConfig, ClientConnection, HandshakeKind};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::timeout;

/// First argument that makes this program the generator.
pub(crate) const NAME: &str = "__handshakes";
/// A visit that takes longer has failed.
const VISIT_TIMEOUT: Duration = Duration::from_secs(5);
/// A ticket that has not come this long after the handshake will not come.
const TICKET_TIMEOUT: Duration = Duration::from_millis(300);

/// What to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    /// The proxy.
    pub(crate) address: SocketAddr,
    /// Its process.
    pub(crate) pid: u32,
    /// What the clients do.
    pub(crate) habit: Habit,
    /// Clients at work at once.
    pub(crate) clients: usize,
    /// Load before the window.
    pub(crate) warm_up: Duration,
    /// The window.
    pub(crate) window: Duration,
}

/// What clients do with their tickets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Habit {
    /// Throw them away: every handshake is a full one.
    Forget,
    /// Come back again and again.
    Return,
    /// This many different clients come once, and when all have been here, once more.
    ReturnOnce(usize),
}

/// Runs the handshakes.
pub(crate) fn run(question: Question) -> Result<Found> {
    launch::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        match question.habit {
            Habit::ReturnOnce(clients) => come_and_return(&question, clients).await,
            _ => again_and_again(question).await,
        }
    })
}

/// What the loops count together.
#[derive(Default)]
struct Tally {
    latency: Option<Histogram<u64>>,
    resumed: u64,
    errors: u64,
    first_error: Option<String>,
    over: bool,
}

async fn again_and_again(question: Question) -> Result<Found> {
    let tally = Rc::new(RefCell::new(Tally::default()));
    let mut loops = JoinSet::new();
    for _ in 0..question.clients {
        let (tally, habit, address) = (Rc::clone(&tally), question.habit, question.address);
        loops.spawn_local(async move {
            let keep = client::tls(Some(Arc::new(Tickets::default())))?;
            while !tally.borrow().over {
                let config = match habit {
                    Habit::Forget => client_without_memory(&keep),
                    _ => Arc::clone(&keep),
                };
                let begin = Instant::now();
                let visit = visit(address, config).await;
                let took = begin.elapsed();
                let mut tally = tally.borrow_mut();
                match visit {
                    Ok(resumed) => {
                        if let Some(latency) = tally.latency.as_mut() {
                            latency.saturating_record(took.as_micros() as u64);
                            tally.resumed += u64::from(resumed);
                        }
                    }
                    Err(cause) => {
                        tally.errors += 1;
                        tally
                            .first_error
                            .get_or_insert_with(|| format!("{cause:#}"));
                    }
                }
            }
            anyhow::Ok(())
        });
    }
    tokio::time::sleep(question.warm_up).await;

    let watched = Watched::new(question.pid)?;
    tally.borrow_mut().latency = Some(Histogram::new_with_bounds(1, 60_000_000, 3)?);
    let (before, start) = (watched.cpu()?, Instant::now());
    tokio::time::sleep(question.window).await;
    let (after, end) = (watched.cpu()?, Instant::now());
    let counted = tally.borrow_mut().latency.take().context("a histogram")?;
    tally.borrow_mut().over = true;
    while let Some(ended) = loops.join_next().await {
        ended??;
    }
    let tally = tally.borrow();
    Ok(Found {
        requests: counted.len(),
        seconds: (end - start).as_secs_f64(),
        cpu_ns: after.since(&before),
        p50_ms: counted.value_at_quantile(0.5) as f64 / 1000.0,
        p99_ms: counted.value_at_quantile(0.99) as f64 / 1000.0,
        errors: tally.errors,
        first_error: tally.first_error.clone(),
        resumed: tally.resumed,
    })
}

/// Each client has tickets of its own, so the proxy must not confuse or forget them.
async fn come_and_return(question: &Question, clients: usize) -> Result<Found> {
    let configs: Vec<_> = (0..clients)
        .map(|_| client::tls(Some(Arc::new(Tickets::default()))))
        .collect::<Result<_>>()?;
    let mut found = Found::default();
    for again in [false, true] {
        let mut waiting = configs.iter().cloned();
        let mut visits = JoinSet::new();
        loop {
            while visits.len() < question.clients
                && let Some(config) = waiting.next()
            {
                visits.spawn_local(visit(question.address, config));
            }
            let Some(ended) = visits.join_next().await else {
                break;
            };
            match ended? {
                Ok(resumed) if again => {
                    found.requests += 1;
                    found.resumed += u64::from(resumed);
                }
                Ok(_) => {}
                Err(cause) => {
                    found.errors += 1;
                    found
                        .first_error
                        .get_or_insert_with(|| format!("{cause:#}"));
                }
            }
        }
    }
    Ok(found)
}

/// The same client with an empty memory; it still takes a ticket, as every real client does.
fn client_without_memory(like: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = like.clone();
    config.resumption = rustls::client::Resumption::store(Arc::new(Tickets::default()));
    Arc::new(config)
}

/// One visit up to the first ticket; true if it resumed a session.
async fn visit(address: SocketAddr, config: Arc<ClientConfig>) -> Result<bool> {
    timeout(VISIT_TIMEOUT, async {
        let tcp = TcpStream::connect(address).await.context("connecting")?;
        tcp.set_nodelay(true)?;
        let mut tls = ClientConnection::new(config, client::server_name()?)?;
        while tls.is_handshaking() {
            flush(&tcp, &mut tls).await?;
            read(&tcp, &mut tls).await?;
        }
        flush(&tcp, &mut tls).await?;
        let ticket = async {
            while tls.tls13_tickets_received() == 0 {
                read(&tcp, &mut tls).await?;
            }
            anyhow::Ok(())
        };
        // A proxy without tickets is no failure; its clients will be seen not to resume.
        if let Ok(outcome) = timeout(TICKET_TIMEOUT, ticket).await {
            outcome?;
        }
        tls.send_close_notify();
        flush(&tcp, &mut tls).await?;
        Ok(tls.handshake_kind() == Some(HandshakeKind::Resumed))
    })
    .await
    .context("no handshake in time")?
}

async fn read(tcp: &TcpStream, tls: &mut ClientConnection) -> Result<()> {
    let mut buffer = [0; 8192];
    loop {
        tcp.readable().await?;
        match tcp.try_read(&mut buffer) {
            Ok(0) => bail!("connection closed in the handshake"),
            Ok(read) => {
                let mut wire = buffer.get(..read).unwrap_or_default();
                while !wire.is_empty() {
                    tls.read_tls(&mut wire)?;
                    tls.process_new_packets()?;
                }
                return Ok(());
            }
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => {}
            Err(cause) => return Err(cause.into()),
        }
    }
}

async fn flush(tcp: &TcpStream, tls: &mut ClientConnection) -> Result<()> {
    while tls.wants_write() {
        match tls.write_tls(&mut Writer(tcp)) {
            Ok(_) => {}
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => tcp.writable().await?,
            Err(cause) => return Err(cause.into()),
        }
    }
    Ok(())
}

/// Lets rustls write into a socket of tokio's.
struct Writer<'a>(&'a TcpStream);

impl io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
