//! Child processes: pinned to a core, ended with us whatever happens, and spoken to in JSON.

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::CpuSet;
use serde::{Serialize, de::DeserializeOwned};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// First argument that makes this program pin itself and become another one.
pub(crate) const RUN: &str = "__run";

/// Where processes run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    /// Generators and mailbox servers.
    pub(crate) load: usize,
    /// The proxy under test.
    pub(crate) proxy: usize,
    /// Raise the priority of all of them.
    pub(crate) boost: bool,
}

impl Cores {
    /// The first and the last core we may use; the same one on a machine that has just one.
    pub(crate) fn find(boost: bool) -> Result<Self> {
        let allowed = rustix::thread::sched_getaffinity(None).context("which cores we may use")?;
        let mut usable = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        let load = usable.next().context("no core to run on")?;
        Ok(Self {
            load,
            proxy: usable.next_back().unwrap_or(load),
            boost,
        })
    }

    /// False if the proxy shares its core with the load.
    pub(crate) fn are_apart(self) -> bool {
        self.load != self.proxy
    }
}

/// A process of ours; ended when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    gently: bool,
}

/// How a program is started.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    /// What to call it.
    pub(crate) name: &'a str,
    /// Program and arguments.
    pub(crate) command: &'a [String],
    /// Its core.
    pub(crate) core: usize,
    /// Raise its priority.
    pub(crate) boost: bool,
    /// End it by SIGTERM: it has children of its own to end.
    pub(crate) gently: bool,
    /// Where its words go; `None`: the standard output is ours to read.
    pub(crate) log: Option<&'a Path>,
}

impl Process {
    /// Starts a program by way of this one, which pins itself first and asks the kernel to end it with us.
    pub(crate) fn start(start: &Start<'_>) -> Result<Self> {
        let own = std::env::current_exe().context("our own program file")?;
        let signal = if start.gently {
            Signal::TERM
        } else {
            Signal::KILL
        };
        let mut command = Command::new(own);
        command
            .arg(RUN)
            .arg(start.core.to_string())
            .arg(signal.as_raw().to_string())
            .arg(if start.boost { "boost" } else { "plain" })
            .args(start.command)
            .stdin(Stdio::null());
        match start.log {
            Some(path) => {
                let log = File::create(path).with_context(|| format!("{}", path.display()))?;
                command.stdout(log.try_clone()?).stderr(log);
            }
            None => {
                command.stdout(Stdio::piped());
            }
        }
        let child = command
            .spawn()
            .with_context(|| format!("starting {}", start.name))?;
        Ok(Self {
            name: start.name.to_owned(),
            child,
            gently: start.gently,
        })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// True while it has not ended by itself.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// One line of its standard output.
    pub(crate) fn line(&mut self) -> Result<String> {
        let output = self
            .child
            .stdout
            .take()
            .with_context(|| format!("{} writes to a file", self.name))?;
        let mut lines = BufReader::new(output);
        let mut line = String::new();
        lines.read_line(&mut line)?;
        self.child.stdout = Some(lines.into_inner());
        if line.is_empty() {
            bail!("{} ended without a word", self.name);
        }
        Ok(line)
    }

    /// Everything it says, once it has ended well within `limit`.
    fn finish(mut self, limit: Duration) -> Result<String> {
        let output = self.child.stdout.take();
        let reader = std::thread::spawn(move || output.map_or_else(String::new, read_all));
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            check_interrupted()?;
            if Instant::now() > deadline {
                bail!("{} did not end within {limit:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        if !status.success() {
            bail!("{} failed ({status})", self.name);
        }
        Ok(reader.join().unwrap_or_default())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_running() {
            return;
        }
        if self.gently
            && let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(3);
            while self.is_running() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a generator of this program on the load's core and reads its answer.
pub(crate) fn ask<A: Serialize, R: DeserializeOwned>(
    cores: Cores,
    name: &'static str,
    question: &A,
    limit: Duration,
) -> Result<R> {
    let own = std::env::current_exe()?.display().to_string();
    let process = Process::start(&Start {
        name,
        command: &[own, name.to_owned(), serde_json::to_string(question)?],
        core: cores.load,
        boost: cores.boost,
        gently: false,
        log: None,
    })?;
    let text = process.finish(limit)?;
    serde_json::from_str(&text).with_context(|| format!("{name} answered {text:?}"))
}

/// The other side of [`ask`]: reads the question from the arguments, prints the answer.
pub(crate) fn answer<A: DeserializeOwned, R: Serialize>(
    arguments: &[String],
    work: impl FnOnce(A) -> Result<R>,
) -> Result<()> {
    let question = arguments.get(1).context("no question")?;
    let found = work(serde_json::from_str(question)?)?;
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}

/// `__run CORE SIGNAL boost|plain PROGRAM ARGUMENTS...`: becomes the program.
pub(crate) fn become_program(arguments: &[String]) -> Result<()> {
    let [_, core, signal, priority, program, rest @ ..] = arguments else {
        bail!("not enough arguments");
    };
    let mut set = CpuSet::new();
    set.set(core.parse()?);
    rustix::thread::sched_setaffinity(None, &set).context("pinning to a core")?;
    // Whoever started us takes us along even if it is killed; the setting survives exec.
    let signal = Signal::from_named_raw(signal.parse()?).context("no such signal")?;
    rustix::process::set_parent_process_death_signal(Some(signal))?;
    if priority == "boost" {
        // A session of its own has a scheduling group of its own. Only root may raise it; a refusal costs nothing.
        let _ = rustix::process::setsid();
        let _ = fs::write("/proc/self/autogroup", "-8");
        let _ = rustix::process::nice(-10);
    }
    Err(Command::new(program).args(rest).exec()).with_context(|| format!("cannot run {program}"))
}

/// Lets us and our children open as many files as the machine allows; returns that number.
pub(crate) fn raise_file_limit() -> u64 {
    let now = rustix::process::getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: now.maximum,
        maximum: now.maximum,
    };
    let _ = rustix::process::setrlimit(Resource::Nofile, wanted);
    rustix::process::getrlimit(Resource::Nofile)
        .current
        .unwrap_or(u64::MAX)
}

/// Set by the first SIGINT or SIGTERM.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on an interrupt ends the bench in good order: the proxies first, then the temporary folder.
pub(crate) fn notice_interrupts() {
    std::thread::spawn(|| {
        use tokio::signal::unix::{SignalKind, signal};
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            INTERRUPTED.store(true, Ordering::Relaxed);
            std::io::Result::Ok(())
        })
    });
}

/// An error once somebody wants the bench to end.
pub(crate) fn check_interrupted() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}

fn read_all(output: ChildStdout) -> String {
    std::io::read_to_string(output).unwrap_or_default()
}
