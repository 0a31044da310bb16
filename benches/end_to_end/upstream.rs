//! Mailbox servers that cost almost nothing: two plain ports served by one thread.
//!
//! They speak just enough MAPI over HTTP to be proxied: cookies, codes, chunked answers, held polls. The
//! first four bytes of a body tell them what is wanted: KiB of the answer to an Execute, milliseconds between
//! the PENDINGs of a NotificationWait.

use crate::client::{PENDING, PROCESSING};
use crate::launch::{self, Cores, Process, Start};
use anyhow::{Context as _, Result};
use memchr::memmem;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::IoSlice;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

/// First argument that makes this program the mailbox servers.
pub(crate) const NAME: &str = "__upstream";
/// Bytes of a chunk of a large answer.
const CHUNK: usize = 16 * 1024;
/// The largest answer we make; the number comes from our own generators.
const ANSWER_KIB_MAX: u32 = 64 * 1024;

/// Starts both servers; returns their ports.
pub(crate) fn start(cores: Cores) -> Result<(Process, [u16; 2])> {
    let own = std::env::current_exe()?.display().to_string();
    let mut process = Process::start(&Start {
        name: "mailbox servers",
        command: &[own, NAME.to_owned()],
        core: cores.load,
        boost: cores.boost,
        gently: false,
        log: None,
    })?;
    let line = process.line()?;
    let ports =
        serde_json::from_str(&line).with_context(|| format!("ports expected, not {line:?}"))?;
    Ok((process, ports))
}

/// Serves until killed.
pub(crate) fn run(_: &[String]) -> Result<()> {
    launch::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let first = TcpListener::bind("127.0.0.1:0").await?;
        let second = TcpListener::bind("127.0.0.1:0").await?;
        println!(
            "[{},{}]",
            first.local_addr()?.port(),
            second.local_addr()?.port()
        );
        let bodies = Rc::new(Bodies::default());
        tokio::try_join!(accept(&first, &bodies), accept(&second, &bodies))?;
        Ok(())
    })
}

async fn accept(listener: &TcpListener, bodies: &Rc<Bodies>) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let bodies = Rc::clone(bodies);
        // A connection that breaks is the proxy's affair; the generator counts what it missed.
        tokio::task::spawn_local(async move {
            Connection {
                stream,
                taken: Vec::new(),
                bodies,
            }
            .serve()
            .await
        });
    }
}

/// Answer bodies with their framing, made once for each size.
#[derive(Debug, Default)]
struct Bodies {
    by_kib: RefCell<BTreeMap<u32, Rc<Vec<u8>>>>,
    contexts: Cell<u64>,
}

impl Bodies {
    fn of(&self, kib: u32) -> Rc<Vec<u8>> {
        let mut made = self.by_kib.borrow_mut();
        Rc::clone(made.entry(kib).or_insert_with(|| Rc::new(chunked(kib))))
    }

    fn next_context(&self) -> u64 {
        self.contexts.set(self.contexts.get() + 1);
        self.contexts.get()
    }
}

/// `kib` KiB in chunks of 16 KiB, the last chunk included. [MS-OXCMAPIHTTP] 2.2.2.2: meta-tags, then the body.
fn chunked(kib: u32) -> Vec<u8> {
    let mut body = [
        PROCESSING,
        b"DONE\r\nX-ElapsedTime: 3\r\nX-StartTime: Sat, 21 Nov 2026 19:47:18 GMT\r\n\r\n",
    ]
    .concat();
    let size = kib.min(ANSWER_KIB_MAX) as usize * 1024;
    body.extend((body.len()..size).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8));
    let mut wire = Vec::with_capacity(size + size / 1024 + 16);
    for chunk in body.chunks(CHUNK) {
        wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}

/// A connection from a proxy.
struct Connection {
    stream: TcpStream,
    taken: Vec<u8>,
    bodies: Rc<Bodies>,
}

/// What matters of a request.
struct Request {
    kind: String,
    id: Vec<u8>,
    info: Vec<u8>,
    context: Option<Vec<u8>>,
    number: u32,
}

impl Connection {
    async fn serve(mut self) -> Result<()> {
        while let Some(request) = self.next().await? {
            match request.kind.as_str() {
                "" => {
                    let page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n200 OK";
                    self.stream.write_all(page).await?;
                }
                "NotificationWait" => {
                    self.send(&head(&request, &self.bodies), &framed(PROCESSING))
                        .await?;
                    return self
                        .hold(Duration::from_millis(u64::from(request.number.max(10))))
                        .await;
                }
                "Execute" => {
                    let body = self.bodies.of(request.number.max(1));
                    self.send(&head(&request, &self.bodies), &body).await?;
                }
                _ => {
                    let body = self.bodies.of(1);
                    self.send(&head(&request, &self.bodies), &body).await?;
                }
            }
        }
        Ok(())
    }

    /// The next whole request; `None` at the end of the connection.
    async fn next(&mut self) -> Result<Option<Request>> {
        loop {
            if let Some((request, used)) = parse(&self.taken)? {
                self.taken.drain(..used);
                return Ok(Some(request));
            }
            if !self.read().await? {
                return Ok(None);
            }
        }
    }

    /// Reads what is there; false at the end.
    async fn read(&mut self) -> Result<bool> {
        let mut buffer = [0; 8192];
        loop {
            self.stream.readable().await?;
            match self.stream.try_read(&mut buffer) {
                Ok(read) => {
                    self.taken.extend(buffer.iter().take(read));
                    return Ok(read > 0);
                }
                Err(cause) if cause.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(cause) => return Err(cause.into()),
            }
        }
    }

    /// Head and body in one write, as far as the socket takes them.
    async fn send(&mut self, head: &[u8], body: &[u8]) -> Result<()> {
        let sent = self
            .stream
            .write_vectored(&[IoSlice::new(head), IoSlice::new(body)])
            .await?;
        let more = head.get(sent..).unwrap_or_default();
        self.stream.write_all(more).await?;
        let more = body
            .get(sent.saturating_sub(head.len())..)
            .unwrap_or_default();
        self.stream.write_all(more).await?;
        Ok(())
    }

    /// A PENDING each `period`, until the other side goes.
    async fn hold(mut self, period: Duration) -> Result<()> {
        let mut ticks = tokio::time::interval(period);
        ticks.tick().await;
        let pending = framed(PENDING);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.stream.write_all(&pending).await?,
                // Nothing may come but the end.
                more = self.read() => if !more? { return Ok(()) },
            }
        }
    }
}

fn framed(chunk: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()
}

fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = parsed.parse(bytes)? else {
        return Ok(None);
    };
    let mut request = Request {
        kind: String::new(),
        id: Vec::new(),
        info: Vec::new(),
        context: None,
        number: 0,
    };
    let mut length = 0;
    for header in parsed.headers.iter() {
        let name = header.name;
        if name.eq_ignore_ascii_case("content-length") {
            length = std::str::from_utf8(header.value)?.parse()?;
        } else if name.eq_ignore_ascii_case("x-requesttype") {
            request.kind = String::from_utf8_lossy(header.value).into_owned();
        } else if name.eq_ignore_ascii_case("x-requestid") {
            request.id = header.value.to_vec();
        } else if name.eq_ignore_ascii_case("x-clientinfo") {
            request.info = header.value.to_vec();
        } else if name.eq_ignore_ascii_case("cookie")
            && let Some(at) = memmem::find(header.value, b"MapiContext=")
        {
            let value = header.value.get(at + 12..).unwrap_or_default();
            request.context = value.split(|byte| *byte == b';').next().map(<[u8]>::to_vec);
        }
    }
    let Some(body) = bytes.get(head..head + length) else {
        return Ok(None);
    };
    if let Some(number) = body.first_chunk() {
        request.number = u32::from_le_bytes(*number);
    }
    Ok(Some((request, head + length)))
}

/// About 500 bytes of head, like a mailbox server's. A context is made for whoever has none.
fn head(request: &Request, bodies: &Bodies) -> Vec<u8> {
    let mut head = Vec::with_capacity(640);
    head.extend_from_slice(
        b"HTTP/1.1 200 OK\r\nCache-Control: private\r\nTransfer-Encoding: chunked\r\n",
    );
    head.extend_from_slice(b"Content-Type: application/mapi-http\r\nSet-Cookie: MapiContext=");
    match &request.context {
        Some(context) if request.kind != "Connect" => head.extend_from_slice(context),
        _ => head.extend_from_slice(
            format!("MAPIAAAAAIvL7c3qw5Ts{:016x}", bodies.next_context()).as_bytes(),
        ),
    }
    head.extend_from_slice(b"; path=/mapi/emsmdb; secure; HttpOnly\r\n");
    head.extend_from_slice(
        b"Set-Cookie: MapiSequence=AAAAAG9vb28=; path=/mapi/emsmdb; secure; HttpOnly\r\n",
    );
    for (name, value) in [
        ("X-RequestType: ", request.kind.as_bytes()),
        ("X-RequestId: ", &request.id),
        ("X-ClientInfo: ", &request.info),
    ] {
        head.extend_from_slice(name.as_bytes());
        head.extend_from_slice(value);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(
        b"X-ResponseCode: 0\r\nX-ExpirationInfo: 900000\r\nX-PendingPeriod: 15000\r\n\
          X-ServerApplication: Exchange/15.01.2507.039\r\nDate: Sat, 21 Nov 2026 19:47:18 GMT\r\n\r\n",
    );
    head
}
