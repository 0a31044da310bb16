//! The logs, written off the request path: JSON lines of requests, files as Exchange's front end writes them, and the
//! way out of the operator's log.

mod folder;
mod lane;
mod line;
mod operator;
mod proxy_line;
mod values;
mod writer;

pub use operator::OperatorLog;

use crate::accounting::{Bytes, Ledger, Times};
use crate::autodiscover::Dialect;
use crate::config::settings::{AccessLog, HttpProxyLog, Logging, Scheme};
use crate::ids::RequestId;
use crate::mapi::{Endpoint, RequestType, ResponseCode};
use crate::metrics::{Metrics, Outcome};
use crate::refusal::Refusal;
use crate::rpch;
use crate::vdir::{Vdir, Verb};
use folder::Folder;
use lane::Lane;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// What is known of a request when it has ended. Everything is borrowed: nothing is kept for the
/// log while a request is under way. Empty texts are left out of the line.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// When its first byte arrived.
    pub time: SystemTime,
    /// Our number for it, which refusals show to the client.
    pub id: RequestId,
    /// Who connected; behind a trusted PROXY protocol peer, who it spoke for.
    pub client: SocketAddr,
    /// Who asked, after authentication.
    pub user: &'a str,
    /// What proved it.
    pub scheme: Option<Scheme>,
    /// Its endpoint; `None` where the head named none.
    pub endpoint: Option<Endpoint>,
    /// Autodiscover, and how it was asked.
    pub dialect: Option<Dialect>,
    /// A channel of Outlook Anywhere, and which way it carried.
    pub channel: Option<rpch::Verb>,
    /// Another virtual directory, and the method it was asked with.
    pub vdir: Option<(Vdir, Verb)>,
    /// The path of such a request, without its query.
    pub path: &'a [u8],
    /// Its type; `None` where the head was not read that far.
    pub request_type: Option<RequestType>,
    /// `X-RequestId` as the client wrote it.
    pub request_id: &'a [u8],
    /// `X-ClientInfo` as the client wrote it.
    pub client_info: &'a [u8],
    /// `MailboxId` of the target, as the client wrote it.
    pub mailbox: &'a [u8],
    /// The host name asked for; told only where [`Journal::tells_programs`].
    pub host: &'a [u8],
    /// `User-Agent` as the client wrote it; told only where [`Journal::tells_programs`].
    pub user_agent: &'a [u8],
    /// The database it was for.
    pub database: &'a str,
    /// The server it went to.
    pub server: &'a str,
    /// Why there: a word of `RouteReason`.
    pub route: &'a str,
    /// Servers tried.
    pub tries: u32,
    /// The HTTP status the client was given; 0 where it was given none.
    pub status: u16,
    /// The response code the client was given.
    pub code: Option<ResponseCode>,
    /// How it ended.
    pub ending: Outcome,
    /// Why we ended it, where we did.
    pub refusal: Option<&'a Refusal>,
    /// Spent on verifying a password; zero where it was remembered.
    pub auth: Duration,
    /// From the last byte sent to the server to the first byte of its answer.
    pub first_byte: Option<Duration>,
    /// From the first byte of the request to the last byte of the answer.
    pub total: Duration,
    /// Processor time it took us; `None` where it was not measured.
    pub cpu: Option<Duration>,
    /// Where that went, for a request that was looked at closely.
    pub phases: Option<&'a Times>,
    /// Processor time and bytes of the connection's handshake, for its first request.
    pub handshake: Option<(Duration, Bytes)>,
    /// Bytes by leg, direction and kind.
    pub ledger: &'a Ledger,
    /// It came by HTTP/2.
    pub is_http2: bool,
    /// The client's connection had carried a request before.
    pub client_reused: bool,
    /// The server's connection had carried a request before.
    pub server_reused: bool,
}

/// The logs of requests. One per process; dropping it does not flush, [`Self::close`] does.
#[derive(Debug)]
pub struct Journal {
    access: Lane,
    proxy: Lane,
}

impl Journal {
    /// Opens the targets and starts a writer's thread for each.
    ///
    /// # Errors
    /// A file or folder cannot be opened, or the system gives us no thread.
    pub fn start(logging: &Logging, metrics: &Metrics) -> io::Result<Self> {
        let room = logging.access_buffer;
        let access = open(&logging.access)?;
        let proxy = open_folder(logging.http_proxy.as_ref())?;
        Ok(Self {
            access: Lane::start("access", access, room, metrics.access_log_dropped())?,
            proxy: Lane::start("HttpProxy", proxy, room, metrics.http_proxy_log_dropped())?,
        })
    }

    /// False where lines go nowhere; then nobody need gather facts for one.
    pub fn is_on(&self) -> bool {
        self.access.is_on() || self.proxy.is_on()
    }

    /// True where lines tell the client's program and the host it asked for.
    pub fn tells_programs(&self) -> bool {
        self.proxy.is_on()
    }

    /// Adds a request's lines. Never waits; a line that finds no room is counted and lost.
    pub fn write(&self, entry: &Entry<'_>) {
        LINE.with_borrow_mut(|line| {
            if self.access.is_on() {
                line.clear();
                line::render(entry, line);
                self.access.add(line);
            }
            if self.proxy.is_on() {
                line.clear();
                line.push(Protocol::of(entry).tag());
                proxy_line::render(entry, line);
                self.proxy.add(line);
            }
        });
    }

    /// Opens the targets anew, as log rotation asks; for a path that may block, not on a worker.
    /// A change of `logging` takes effect too.
    ///
    /// # Errors
    /// A file or folder cannot be opened; its lines keep going where they went.
    pub fn reopen(&self, logging: &Logging) -> io::Result<()> {
        let room = logging.access_buffer;
        let access = open(&logging.access).map(|sink| self.access.reopen(sink, room));
        let proxy = open_folder(logging.http_proxy.as_ref());
        access.and(proxy.map(|sink| self.proxy.reopen(sink, room)))
    }

    /// Waits until every line added so far is written, at most this long for each log; true if it was done.
    pub fn flush(&self, at_most: Duration) -> bool {
        let access = self.access.flush(at_most);
        self.proxy.flush(at_most) && access
    }

    /// Writes what is there, waiting at most this long for each log, and ends the writers' threads.
    pub fn close(&self, at_most: Duration) -> bool {
        let access = self.access.close(at_most);
        self.proxy.close(at_most) && access
    }

    /// Lines lost since the start.
    pub fn dropped(&self) -> u64 {
        self.access.dropped() + self.proxy.dropped()
    }
}

/// Which of Exchange's protocols a request belongs to: the folder of its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Mapi,
    Autodiscover,
    RpcHttp,
    Ews,
    Owa,
    Ecp,
    Oab,
    Eas,
    PowerShell,
    Api,
    /// The head was not read that far, or asked for nothing we serve.
    Unknown,
}

impl Protocol {
    const ALL: [Self; 11] = [
        Self::Mapi,
        Self::Autodiscover,
        Self::RpcHttp,
        Self::Ews,
        Self::Owa,
        Self::Ecp,
        Self::Oab,
        Self::Eas,
        Self::PowerShell,
        Self::Api,
        Self::Unknown,
    ];

    fn of(entry: &Entry<'_>) -> Self {
        if entry.channel.is_some() {
            return Self::RpcHttp;
        }
        match (entry.endpoint, entry.dialect, entry.vdir) {
            (Some(Endpoint::Emsmdb | Endpoint::Nspi), ..) => Self::Mapi,
            (None, Some(_), _) => Self::Autodiscover,
            (None, None, Some((vdir, _))) => match vdir {
                Vdir::Ews => Self::Ews,
                Vdir::Owa => Self::Owa,
                Vdir::Ecp => Self::Ecp,
                Vdir::Oab => Self::Oab,
                Vdir::ActiveSync => Self::Eas,
                Vdir::PowerShell => Self::PowerShell,
                Vdir::Api => Self::Api,
            },
            (None, None, None) => Self::Unknown,
        }
    }

    /// The folder's name, and the field `Protocol`.
    fn as_str(self) -> &'static str {
        match self {
            Self::Mapi => "Mapi",
            Self::Autodiscover => "Autodiscover",
            Self::RpcHttp => "RpcHttp",
            Self::Ews => "Ews",
            Self::Owa => "Owa",
            Self::Ecp => "Ecp",
            Self::Oab => "OAB",
            Self::Eas => "Eas",
            Self::PowerShell => "PowerShell",
            Self::Api => "Rest",
            Self::Unknown => "Unknown",
        }
    }

    /// What stands before a line on its way to the folders.
    fn tag(self) -> u8 {
        b'0' + self as u8
    }

    fn of_tag(tag: u8) -> Option<Self> {
        Self::ALL.get(usize::from(tag.checked_sub(b'0')?)).copied()
    }
}

/// Where a writer's thread writes; `None`: nowhere.
type Sink = Option<Box<dyn Write + Send>>;

fn open_folder(target: Option<&HttpProxyLog>) -> io::Result<Sink> {
    Ok(match target {
        None => None,
        Some(target) => Some(Box::new(Folder::open(target)?)),
    })
}

fn open(target: &AccessLog) -> io::Result<Sink> {
    Ok(match target {
        AccessLog::Off => None,
        // A descriptor of its own: the standard library's buffer would keep half a block back.
        AccessLog::Stdout => Some(Box::new(File::from(
            io::stdout().as_fd().try_clone_to_owned()?,
        ))),
        AccessLog::File(path) => Some(Box::new(append_to(path)?)),
    })
}

/// Opens a file or a named pipe; a pipe must have a reader, for whom nobody waits.
fn append_to(path: &Path) -> io::Result<File> {
    // Lines name users and addresses: not for everybody on the machine.
    let opened = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(code) if code == Errno::NXIO.raw_os_error() => io::Error::new(
            error.kind(),
            "nobody reads this pipe, start its reader first",
        ),
        _ => error,
    })?;
    if file.metadata()?.file_type().is_fifo() {
        // The writer's thread may wait for a slow reader: it is there for that.
        let flags = fcntl_getfl(&file)?;
        fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    }
    Ok(file)
}

thread_local! {
    /// A worker renders its lines here: the buffer belongs to the thread, not to a connection.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

#[cfg(test)]
mod folder_tests;
#[cfg(test)]
mod proxy_tests;
#[cfg(test)]
mod tests;
