//! The two kinds of channels: heads, the PDUs that begin them, and what runs on them.

use super::Server;
use super::line::Line;
use super::virtual_connection::{Next, Virtual};
use crate::ids::UserName;
use crate::lab::mailbox_server::answers::http_date;
use crate::lab::mailbox_server::http::{Head, Inbound};
use crate::lab::wire::Wire;
use crate::rpch::pdu;
use crate::rpch::rts::Beginning;
use crate::rpch::verbs::LIFETIME;
use crate::rpch::{Cookie, Destination, Opening, Rts, Verb};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, WriteHalf, split};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

/// A request may take so long to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);

/// Serves one TCP connection to its end.
pub(super) async fn serve(server: Arc<Server>, tcp: TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let wire = match &server.options.tls {
        None => Wire::Plain(tcp),
        Some(config) => {
            let tls = TlsAcceptor::from(Arc::clone(config)).accept(tcp).await?;
            Wire::Tls(Box::new(tls.into()))
        }
    };
    let mut inbound = Inbound::new(wire);
    loop {
        let Ok(head) = inbound.head(HEAD_TIMEOUT).await else {
            return Ok(());
        };
        match speak(&server, inbound, &head).await? {
            Some(again) => inbound = again,
            None => return Ok(()),
        }
    }
}

/// Serves one request. The connection comes back where it can carry another.
pub(super) async fn speak(
    server: &Arc<Server>,
    mut inbound: Inbound,
    head: &Head,
) -> io::Result<Option<Inbound>> {
    server.record(&head.raw);
    let Some((verb, to, opening)) = asked(head) else {
        refuse(&mut inbound.wire, "404 Not Found").await?;
        return Ok(None);
    };
    let Some(user) = server.user(head.text("authorization")) else {
        challenge(&mut inbound.wire, server).await?;
        return Ok(Some(inbound));
    };
    if opening == Opening::Echo {
        inbound.body(content_length(head)).await?;
        let echo = Rts::echo().encode();
        inbound.wire.write_all(&success(echo.len())).await?;
        inbound.wire.write_all(&echo).await?;
        inbound.wire.flush().await?;
        return Ok(Some(inbound));
    }
    if head.header("expect").is_some() {
        let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
        inbound.wire.write_all(go_on).await?;
        inbound.wire.flush().await?;
    }
    let first = read_pdu(&mut inbound).await?;
    let beginning = Rts::decode(&first).ok();
    let beginning = beginning.and_then(|rts| Beginning::of(&rts));
    match (verb, beginning) {
        (Verb::Out, Some(beginning)) => out(server, inbound, &user, beginning).await,
        (Verb::In, Some(beginning)) => incoming(server, inbound, &user, &to, beginning).await,
        (_, None) => refuse(&mut inbound.wire, "503 RPC Error: 6c0").await,
    }?;
    Ok(None)
}

/// What a request is about; `None` where it is not of this protocol.
fn asked(head: &Head) -> Option<(Verb, String, Opening)> {
    let verb = Verb::read(head.method.as_bytes())?;
    let (path, query) = head.target.split_once('?')?;
    let is_ours = ["/rpc/rpcproxy.dll", "/rpcwithcert/rpcproxy.dll"]
        .iter()
        .any(|known| path.eq_ignore_ascii_case(known));
    let to = Destination::read(query).filter(|_| is_ours)?;
    let opening = Opening::of(verb, u64::try_from(content_length(head)).ok()?)?;
    Some((verb, to.server.to_owned(), opening))
}

fn content_length(head: &Head) -> usize {
    let digits = head.text("content-length").unwrap_or_default();
    digits.parse().unwrap_or(usize::MAX)
}

/// The next PDU, as long as its head says.
pub(super) async fn read_pdu(inbound: &mut Inbound) -> io::Result<Vec<u8>> {
    let mut bytes = inbound.body(pdu::HEAD_BYTES).await?;
    let head = pdu::Head::read(&bytes).map_err(io::Error::other)?;
    let left = usize::from(head.length).saturating_sub(pdu::HEAD_BYTES);
    bytes.extend(inbound.body(left).await?);
    Ok(bytes)
}

/// The head of an OUT channel, with the reason phrase clients look for. `[MS-RPCH] 2.1.2.1.4`
fn success(length: usize) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 Success\r\nCache-Control: private\r\nContent-Length: {length}\r\n\
         Content-Type: application/rpc\r\nServer: Microsoft-IIS/10.0\r\nPersistent-Auth: true\r\nDate: {}\r\n\r\n",
        http_date()
    )
    .into_bytes()
}

async fn refuse(wire: &mut Wire, status: &str) -> io::Result<()> {
    let words = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    wire.write_all(words.as_bytes()).await?;
    wire.shutdown().await
}

async fn challenge(wire: &mut Wire, server: &Server) -> io::Result<()> {
    let words = format!(
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"{}\"\r\nContent-Length: 0\r\n\r\n",
        server.options.name
    );
    wire.write_all(words.as_bytes()).await?;
    wire.flush().await
}

/// An OUT channel, from its first PDU to its end.
async fn out(
    server: &Arc<Server>,
    inbound: Inbound,
    user: &UserName,
    beginning: Beginning,
) -> io::Result<()> {
    let options = &server.options;
    let timeout = u32::try_from(options.connection_timeout.as_millis()).unwrap_or(u32::MAX);
    let (Beginning::Out { connection, .. } | Beginning::OutSuccessor { connection, .. }) =
        beginning
    else {
        let mut inbound = inbound;
        return refuse(&mut inbound.wire, "503 RPC Error: 6c0").await;
    };
    let found = server.virtual_connection(connection, user);
    let (taken, channel, is_successor) = match (&found, beginning) {
        (
            Some(found),
            Beginning::Out {
                channel, window, ..
            },
        ) => (found.out_arrived(channel, window), channel, false),
        (
            Some(found),
            Beginning::OutSuccessor {
                predecessor,
                channel,
                window,
                ..
            },
        ) => (
            found.out_offered(predecessor, channel, window),
            channel,
            true,
        ),
        _ => (false, Cookie([0; 16]), false),
    };
    let (Some(found), true) = (found, taken) else {
        let mut inbound = inbound;
        return refuse(&mut inbound.wire, "503 RPC Error: 6c0").await;
    };
    let (wire, _ahead) = inbound.into_parts();
    let (mut read, mut write) = split(wire);
    let lifetime = usize::try_from(LIFETIME).unwrap_or(usize::MAX);
    let mut first = success(lifetime);
    if is_successor {
        server.successors.fetch_add(1, Ordering::Relaxed);
    } else {
        first.extend(Rts::conn_a3(timeout).encode());
    }
    let mut loss = Loss::of(server, connection);
    let mut ended = found.ended();
    let outcome = tokio::select! {
        outcome = async {
            write.write_all(&first).await?;
            write.flush().await?;
            if !is_successor {
                whole(&found, options.partner_timeout).await?;
                found.say(&Rts::conn_c2(options.window, timeout));
            }
            let lifetime = options.out_lifetime;
            carry(&found, channel, lifetime, options.connection_timeout / 2, &mut write).await
        } => outcome,
        () = gone(&mut read) => Err(io::ErrorKind::ConnectionAborted.into()),
        _ = ended.wait_for(|ended| *ended) => Ok(Carried::Ended),
    };
    loss.is_none = matches!(outcome, Ok(Carried::Replaced));
    Ok(())
}

/// A channel that ends takes the virtual connection with it, unless it was replaced.
struct Loss {
    server: Arc<Server>,
    connection: Cookie,
    is_none: bool,
}

impl Loss {
    fn of(server: &Arc<Server>, connection: Cookie) -> Self {
        Self {
            server: Arc::clone(server),
            connection,
            is_none: false,
        }
    }
}

impl Drop for Loss {
    fn drop(&mut self) {
        if !self.is_none {
            self.server.end(self.connection);
        }
    }
}

/// Waits until the other channel is there.
async fn whole(found: &Virtual, within: Duration) -> io::Result<()> {
    let mut news = found.news();
    let both = news.wait_for(|_| found.is_whole());
    match tokio::time::timeout(within, both).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Why an OUT channel has nothing more to say.
enum Carried {
    /// Another took over.
    Replaced,
    /// The virtual connection is gone.
    Ended,
}

/// Writes what there is to write, until another channel takes over.
async fn carry(
    found: &Virtual,
    channel: Cookie,
    lifetime: u32,
    ping: Duration,
    write: &mut WriteHalf<Wire>,
) -> io::Result<Carried> {
    let mut news = found.news();
    loop {
        news.mark_unchanged();
        match found.next(channel, lifetime) {
            Next::Write(bytes) => {
                write.write_all(&bytes).await?;
                write.flush().await?;
            }
            Next::Finish(bytes) => {
                write.write_all(&bytes).await?;
                write.shutdown().await?;
                return Ok(Carried::Replaced);
            }
            Next::Wait => match tokio::time::timeout(ping, news.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Ok(Carried::Ended),
                // Nothing for half of the time that was announced: a sign of life. [MS-RPCH] 3.2.1.2.1
                Err(_) => {
                    write.write_all(&Rts::ping().encode()).await?;
                    write.flush().await?;
                    found.pinged();
                }
            },
        }
    }
}

/// Returns when the client has closed its side. What it still says is the end of its request.
async fn gone(read: &mut tokio::io::ReadHalf<Wire>) {
    let mut piece = [0; 256];
    while read.read(&mut piece).await.is_ok_and(|count| count > 0) {}
}

/// An IN channel, from its first PDU to its end.
async fn incoming(
    server: &Arc<Server>,
    mut inbound: Inbound,
    user: &UserName,
    mailbox: &str,
    beginning: Beginning,
) -> io::Result<()> {
    let (connection, found, is_taken) = match beginning {
        Beginning::In {
            connection,
            channel,
            ..
        } => {
            let found = server.virtual_connection(connection, user);
            let is_taken = found
                .as_ref()
                .is_some_and(|found| found.in_arrived(channel));
            (connection, found, is_taken)
        }
        Beginning::InSuccessor {
            connection,
            predecessor,
            channel,
        } => {
            let found = server.virtual_connection(connection, user);
            let is_taken = match &found {
                Some(found) if found.in_offered(predecessor, channel) => {
                    // What was said on the predecessor is heard first.
                    let mut news = found.news();
                    let mut ended = found.ended();
                    tokio::select! {
                        heard = news.wait_for(|_| found.hears(channel)) => heard.is_ok(),
                        _ = ended.wait_for(|ended| *ended) => false,
                    }
                }
                _ => false,
            };
            server
                .successors
                .fetch_add(u64::from(is_taken), Ordering::Relaxed);
            (connection, found, is_taken)
        }
        Beginning::Out { .. } | Beginning::OutSuccessor { .. } => {
            return refuse(&mut inbound.wire, "503 RPC Error: 6c0").await;
        }
    };
    let (Some(found), true) = (found, is_taken) else {
        return refuse(&mut inbound.wire, "503 RPC Error: 6c0").await;
    };
    let mut loss = Loss::of(server, connection);
    let mut ended = found.ended();
    let mut line = Line::of(server, &found, mailbox);
    tokio::select! {
        outcome = line.listen(&mut inbound) => loss.is_none = outcome.is_ok(),
        _ = ended.wait_for(|ended| *ended) => {}
    }
    Ok(())
}
