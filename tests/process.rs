//! The process as its supervisor sees it: signals, exit codes, reloads, hand-over.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(
    clippy::disallowed_methods,
    reason = "waiting for a process has a deadline"
)]

use parking_lot::Mutex;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

/// A folder with a small site in it, and free ports for it.
struct Site {
    folder: tempfile::TempDir,
    mapi: SocketAddr,
    admin: SocketAddr,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (mapi, admin) = (free_port(), free_port());
        let site = Self {
            folder,
            mapi,
            admin,
        };
        // An account nobody signs in with.
        let users =
            "nobody@contoso.test:$2b$04$abcdefghijklmnopqrstuuE5C7fZ6p4kHyhmLqSgzn8YpBzvYy9b2\n";
        fs::write(site.path("users.htpasswd"), users).unwrap();
        site.write_config("MBX1");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_config(&self, active: &str) {
        let text = format!(
            "version: 1\n\
             listeners: [{{ address: '{mapi}', plain_http: true }}]\n\
             names: [{{ host: mail.contoso.test }}]\n\
             servers:\n  MBX1: {{ address: '127.0.0.1:9', tls: off }}\n  MBX2: {{ address: '127.0.0.1:9', tls: off }}\n\
             databases: {{ DB1: {{ copies: [MBX1, MBX2], active: {active} }} }}\n\
             directory: {{ default_databases: {{ contoso.test: DB1 }} }}\n\
             auth: {{ basic: {{ password_file: users.htpasswd }} }}\n\
             logging: {{ access: access.log }}\n\
             admin: {{ address: '{admin}' }}\n",
            mapi = self.mapi,
            admin = self.admin,
        );
        fs::write(self.path("mapigate.yaml"), text).unwrap();
    }

    fn start(&self, extra: &[&str]) -> Process {
        Process::new(self.command(extra).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn command(&self, extra: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mapigate"));
        command
            .arg("run")
            .arg("--config")
            .arg(self.path("mapigate.yaml"))
            .arg("--upgrade-socket")
            .arg(self.path("upgrade.sock"))
            .args(extra);
        command
    }

    fn serving(&self) -> Process {
        let process = self.start(&[]);
        eventually("ready", || {
            self.ask("GET", "/ready")
                .is_some_and(|a| a.contains(" 200 "))
        });
        process
    }

    /// One request to the admin address; the whole answer.
    fn ask(&self, method: &str, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.admin).ok()?;
        stream.set_read_timeout(Some(SOON)).ok()?;
        let host = self.admin;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn status(&self) -> serde_json::Value {
        let answer = self.ask("GET", "/status.json").unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    fn reload_command(&self) -> Output {
        Command::new(env!("CARGO_BIN_EXE_mapigate"))
            .args(["reload", "--admin", &self.admin.to_string()])
            .output()
            .unwrap()
    }
}

/// A running mapigate and its log; killed by its number if the test fails.
struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    fn new(mut child: Child) -> Self {
        let stderr = child.stderr.take().unwrap();
        let mut process = Self::unread(child);
        process.read(stderr);
        process
    }

    /// A process whose log nobody reads yet.
    fn unread(child: Child) -> Self {
        Self {
            child,
            log: Arc::default(),
            reader: None,
        }
    }

    fn read(&mut self, stderr: impl Read + Send + 'static) {
        let into = Arc::clone(&self.log);
        self.reader = Some(std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                into.lock().push_str(&(line + "\n"));
            }
        }));
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn log(&self) -> String {
        self.log.lock().clone()
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// The exit code and the log, once it has ended by itself.
    fn ended(mut self) -> (Option<i32>, String) {
        eventually("the process ended", || self.has_ended());
        self.reader.take().unwrap().join().unwrap();
        (self.child.wait().unwrap().code(), self.log())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already where the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn eventually(what: &str, is_so: impl FnMut() -> bool) {
    let (deadline, mut is_so) = (Instant::now() + SOON, is_so);
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

/// A pipe that nobody reads, and that takes nothing more.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    for block in [4096, 1] {
        while writer.write(&vec![b'.'; block]).is_ok() {}
    }
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

#[test]
fn nothing_waits_for_a_reader_of_the_log_who_stalls_and_what_he_missed_is_told() {
    let site = Site::new();
    let (stalled, full) = full_pipe();
    let child = site.command(&[]).stderr(full).spawn().unwrap();
    let mut process = Process::unread(child);
    eventually("ready", || {
        site.ask("GET", "/ready")
            .is_some_and(|a| a.contains(" 200 "))
    });

    let reloaded = site.ask("POST", "/reload").unwrap();
    assert!(reloaded.contains("\"is_ok\": true"), "{reloaded}");
    let dropped = || {
        let metrics = site.ask("GET", "/metrics").unwrap();
        let mut words = metrics.split_ascii_whitespace();
        words.find(|word| *word == "mapigate_operator_log_dropped_total");
        words.find_map(|word| word.parse::<u64>().ok()).unwrap()
    };
    eventually("lines are lost", || {
        for _ in 0..100 {
            site.ask("POST", "/revoke").unwrap();
        }
        dropped() > 0
    });
    let dropped = dropped();

    process.read(stalled);
    let told = format!("lines of the operator log were lost lines={dropped}\n");
    eventually("it is told", || process.log().contains(&told));
    process.signal(Signal::TERM);
    let (code, log) = process.ended();
    assert_eq!(code, Some(0));
    for words in ["starting", "configuration reloaded", "stopped\n"] {
        assert!(log.contains(words), "{words}");
    }
}

#[test]
fn sigusr1_opens_the_logs_anew_and_reloads_nothing() {
    let site = Site::new();
    let config = fs::read_to_string(site.path("mapigate.yaml")).unwrap();
    let logging = "logging: { access: access.log, http_proxy: { folder: HttpProxy } }";
    let config = config.replace("logging: { access: access.log }", logging);
    fs::write(site.path("mapigate.yaml"), config).unwrap();
    let process = site.serving();
    let probe = || {
        let mut stream = TcpStream::connect(site.mapi).unwrap();
        write!(
            stream,
            "GET /nowhere HTTP/1.1\r\nHost: mail.contoso.test\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    };
    let rows = |name: &str| {
        let files = fs::read_dir(site.path(name)).into_iter().flatten();
        files
            .map(|file| lines(&file.unwrap().path()).saturating_sub(6))
            .sum::<usize>()
    };
    let both_have_one = |log: &str, folder: &str| lines(&site.path(log)) == 1 && rows(folder) == 1;
    let generation = site.status()["generation"].clone();
    probe();
    eventually("the first line", || {
        both_have_one("access.log", "HttpProxy/Unknown")
    });
    fs::rename(site.path("access.log"), site.path("access.log.1")).unwrap();
    fs::rename(site.path("HttpProxy"), site.path("HttpProxy.1")).unwrap();

    process.signal(Signal::USR1);
    eventually("told", || process.log().contains("opened anew"));
    probe();

    eventually("the new line", || {
        both_have_one("access.log", "HttpProxy/Unknown")
    });
    assert!(both_have_one("access.log.1", "HttpProxy.1/Unknown"));
    assert_eq!(site.status()["generation"], generation);
}

#[test]
fn an_idle_process_stops_at_once_when_told_to() {
    let site = Site::new();
    let process = site.serving();
    let told = Instant::now();

    process.signal(Signal::TERM);

    let (code, log) = process.ended();
    assert_eq!(code, Some(0), "{log}");
    assert!(
        told.elapsed() < Duration::from_secs(2),
        "{:?}",
        told.elapsed()
    );
    assert!(log.contains("stopped"), "{log}");
}

#[test]
fn a_drain_asked_for_at_the_admin_address_ends_the_process() {
    let site = Site::new();
    let process = site.serving();

    assert!(site.ask("POST", "/drain").unwrap().contains(" 202 "));

    assert_eq!(process.ended().0, Some(0));
}

#[test]
fn a_wrong_configuration_is_told_with_its_place_and_exit_code_one() {
    let site = Site::new();
    fs::write(site.path("mapigate.yaml"), "version: 1\nlistners: []\n").unwrap();

    let (code, log) = site.start(&[]).ended();

    assert_eq!(code, Some(1));
    assert!(
        log.contains("mapigate.yaml:2:1") && log.contains("listeners"),
        "{log}"
    );
}

#[test]
fn an_address_that_is_taken_is_told_and_ends_the_process() {
    let site = Site::new();
    let _taken = TcpListener::bind(site.mapi).unwrap();

    let (code, log) = site.start(&[]).ended();

    assert_eq!(code, Some(1));
    assert!(log.contains(&site.mapi.to_string()), "{log}");
}

#[test]
fn an_idle_client_does_not_hold_up_the_end() {
    let site = Site::new();
    let process = site.serving();
    let mut client = TcpStream::connect(site.mapi).unwrap();
    write!(
        client,
        "GET /mapi/healthcheck.htm HTTP/1.1\r\nHost: mail.contoso.test\r\n\r\n"
    )
    .unwrap();
    let mut first = [0; 1];
    client.read_exact(&mut first).unwrap();
    let told = Instant::now();

    process.signal(Signal::TERM);

    assert_eq!(process.ended().0, Some(0));
    assert!(
        told.elapsed() < Duration::from_secs(5),
        "{:?}",
        told.elapsed()
    );
}

#[test]
fn once_it_leaves_new_clients_are_refused_and_readiness_says_so() {
    let site = Site::new();
    let process = site.serving();
    let mut client = TcpStream::connect(site.mapi).unwrap();
    // Half a request: the connection is busy until the head's deadline.
    write!(
        client,
        "POST /mapi/emsmdb/ HTTP/1.1\r\nHost: mail.contoso.test\r\n"
    )
    .unwrap();
    eventually("accepted", || site.status()["connections"] == 1);

    process.signal(Signal::TERM);

    eventually("refused", || TcpStream::connect(site.mapi).is_err());
    if let Some(answer) = site.ask("GET", "/ready") {
        assert!(answer.contains(" 503 "), "{answer}");
    }
    drop(client);
    assert_eq!(process.ended().0, Some(0));
}

#[test]
fn a_reload_by_command_moves_the_database_and_says_so() {
    let site = Site::new();
    let _process = site.serving();

    site.write_config("MBX2");
    let output = site.reload_command();

    assert_eq!(output.status.code(), Some(0));
    let words = String::from_utf8(output.stdout).unwrap();
    assert!(words.contains("generation 2 is in force"), "{words}");
    assert_eq!(site.status()["databases"][0]["active"], "MBX2");
}

#[test]
fn a_wrong_reload_keeps_the_old_world_and_exits_with_one() {
    let site = Site::new();
    let _process = site.serving();

    site.write_config("MBX9");
    let output = site.reload_command();

    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(
        words.contains("mapigate.yaml:") && words.contains("generation 1 stays"),
        "{words}"
    );
    let status = site.status();
    assert_eq!(status["databases"][0]["active"], "MBX1");
    assert_eq!(status["last_reload"]["is_ok"], false);
}

#[test]
fn nobody_to_reload_is_exit_code_two() {
    let output = Site::new().reload_command();

    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_hangup_reloads_and_reopens_the_access_log() {
    let site = Site::new();
    let process = site.serving();
    fs::rename(site.path("access.log"), site.path("access.log.1")).unwrap();

    site.write_config("MBX2");
    process.signal(Signal::HUP);

    eventually("reloaded", || site.status()["generation"] == 2);
    eventually("reopened", || site.path("access.log").exists());
    assert_eq!(lines(&site.path("access.log")), 0);
}

#[test]
fn a_hand_over_that_nobody_takes_leaves_the_process_in_service() {
    let site = Site::new();
    let process = site.serving();

    process.signal(Signal::QUIT);

    eventually("it gave up", || process.log().contains("serving on"));
    assert!(site.ask("GET", "/ready").unwrap().contains(" 200 "));
    process.signal(Signal::TERM);
    assert_eq!(process.ended().0, Some(0));
}

#[test]
fn a_new_process_takes_over_and_no_connection_is_refused_meanwhile() {
    let site = Site::new();
    let old = site.serving();

    let new = site.start(&["--upgrade"]);
    eventually("the new process waits", || {
        site.path("upgrade.sock").exists()
    });
    old.signal(Signal::QUIT);
    let mut refused = 0;
    let mut old = old;
    eventually("the old process left", || {
        refused += usize::from(TcpStream::connect(site.mapi).is_err());
        old.has_ended()
    });

    assert_eq!(refused, 0);
    assert!(TcpStream::connect(site.mapi).is_ok());
    eventually("the new process is ready", || {
        site.ask("GET", "/ready")
            .is_some_and(|answer| answer.contains(" 200 "))
    });
    new.signal(Signal::TERM);
    assert_eq!(new.ended().0, Some(0));
}

#[test]
fn a_pid_file_lives_as_long_as_the_process() {
    let site = Site::new();
    let pid_file = site.path("mapigate.pid");
    let process = site.start(&["--pid-file", pid_file.to_str().unwrap()]);
    eventually("ready", || {
        site.ask("GET", "/ready")
            .is_some_and(|a| a.contains(" 200 "))
    });

    let written = fs::read_to_string(&pid_file).unwrap();
    assert_eq!(written.trim(), process.child.id().to_string());
    process.signal(Signal::TERM);
    process.ended();

    assert!(!pid_file.exists());
}
