//! mapigate as a process of its own, and its administrator's door.

use super::Plan;
use super::files::{CONFIG, LOG};
use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A running mapigate. Dropping it kills it.
#[derive(Debug)]
pub struct Gate {
    child: Child,
    address: SocketAddr,
    admin: Admin,
}

/// The administrator's door.
#[derive(Clone, Copy, Debug)]
pub struct Admin(SocketAddr);

impl Gate {
    /// Starts it and waits until it is ready.
    pub(super) async fn start(
        program: &Path,
        folder: &Path,
        plan: &Plan,
        takes_over: bool,
    ) -> Result<Self> {
        let log = fresh_log(folder)?;
        let mut words = plan
            .wrapper
            .iter()
            .map(OsStr::new)
            .chain([program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or(program.as_os_str()));
        command
            .args(words)
            .args(["run", "--config"])
            .arg(folder.join(CONFIG))
            .arg("--upgrade-socket")
            .arg(folder.join("upgrade.sock"))
            .args(takes_over.then_some("--upgrade"))
            .envs(plan.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::from(File::create(&log)?))
            .stderr(Stdio::from(File::options().append(true).open(&log)?));
        let mut child = command
            .spawn()
            .with_context(|| program.display().to_string())?;
        let until = Instant::now() + START_MAX;
        loop {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let found = (
                address_in(&text, "listening"),
                address_in(&text, "admin address open"),
            );
            if let (Some(address), Some(admin)) = found
                && Admin(admin)
                    .get("/ready")
                    .await
                    .is_ok_and(|answer| answer.status == 200)
            {
                return Ok(Self {
                    child,
                    address,
                    admin: Admin(admin),
                });
            }
            if let Some(status) = child.try_wait()? {
                bail!("mapigate ended with {status}:\n{text}");
            }
            if Instant::now() > until {
                let _dying = child.kill();
                let _reaped = child.wait();
                bail!("mapigate is not ready after {START_MAX:?}:\n{text}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its administrator's door.
    pub fn admin(&self) -> Admin {
        self.admin
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(id.ok_or_else(|| anyhow!("no process number"))?, signal)?;
        Ok(())
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// It has not, within this time; it goes on.
    pub async fn ended(&mut self, within: Duration) -> Result<ExitStatus> {
        let until = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > until {
                bail!("mapigate still runs after {within:?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Kills it as `kill -9` does.
    ///
    /// # Errors
    /// The system does not let us.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Processor time it has taken, of all its threads.
    ///
    /// # Errors
    /// It has ended.
    pub fn cpu(&self) -> Result<Duration> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()))?;
        let mut nanoseconds = 0;
        for task in tasks {
            let text = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            let spent = text
                .split(' ')
                .next()
                .and_then(|word| word.parse::<u64>().ok());
            nanoseconds += spent.unwrap_or_default();
        }
        Ok(Duration::from_nanos(nanoseconds))
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// An answer of the administrator's door.
#[derive(Clone, Debug)]
pub struct Page {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub text: String,
}

impl Admin {
    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.0
    }

    /// Reads a page.
    ///
    /// # Errors
    /// It cannot be reached, or does not speak HTTP.
    pub async fn get(&self, path: &str) -> Result<Page> {
        self.ask("GET", path).await
    }

    /// Asks for something to be done.
    ///
    /// # Errors
    /// It cannot be reached, or does not speak HTTP.
    pub async fn post(&self, path: &str) -> Result<Page> {
        self.ask("POST", path).await
    }

    /// Has the configuration read again, and waits until it counts.
    ///
    /// # Errors
    /// It was refused; the words say why.
    pub async fn reload(&self) -> Result<()> {
        let page = self.post("/reload").await?;
        if page.status == 200 {
            Ok(())
        } else {
            Err(anyhow!("reload: {} {}", page.status, page.text))
        }
    }

    /// The status as JSON.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn status(&self) -> Result<serde_json::Value> {
        Ok(serde_json::from_str(&self.get("/status.json").await?.text)?)
    }

    /// One sample of a metric, by its name and labels as they are printed; 0 where there is none.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn metric(&self, sample: &str) -> Result<f64> {
        let page = self.get("/metrics").await?;
        let line = page
            .text
            .lines()
            .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        Ok(line
            .and_then(|value| value.parse().ok())
            .unwrap_or_default())
    }

    async fn ask(&self, method: &str, path: &str) -> Result<Page> {
        let mut stream = TcpStream::connect(self.0).await?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.0
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, text) = answer
            .split_once("\r\n\r\n")
            .ok_or_else(|| anyhow!("no HTTP: {answer}"))?;
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        let is_chunked = head
            .to_ascii_lowercase()
            .contains("transfer-encoding: chunked");
        let text = if is_chunked {
            dechunked(text)
        } else {
            text.to_owned()
        };
        Ok(Page {
            status: status.ok_or_else(|| anyhow!("no status: {head}"))?,
            text,
        })
    }
}

/// The payload of a chunked text.
fn dechunked(mut text: &str) -> String {
    let mut payload = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or_default();
        let Some(piece) = rest.get(..size).filter(|piece| !piece.is_empty()) else {
            break;
        };
        payload.push_str(piece);
        text = rest.get(size + 2..).unwrap_or_default();
    }
    payload
}

/// The address that a line of the JSON log tells with this message.
fn address_in(log: &str, message: &str) -> Option<SocketAddr> {
    log.lines().find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let fields = line.get("fields").unwrap_or(&line);
        let is_it = fields.get("message")?.as_str()? == message;
        fields
            .get("address")?
            .as_str()
            .filter(|_| is_it)?
            .parse()
            .ok()
    })
}

/// A log of this process's own: one that takes over finds its addresses in its own words.
fn fresh_log(folder: &Path) -> Result<PathBuf> {
    let mut number = 0;
    loop {
        let path = folder.join(if number == 0 {
            LOG.to_owned()
        } else {
            format!("{LOG}.{number}")
        });
        match File::create_new(&path) {
            Ok(_) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        }
    }
}

/// Longer than any start takes, on any machine.
const START_MAX: Duration = Duration::from_secs(30);
/// How often it is looked at.
const POLL: Duration = Duration::from_millis(20);
