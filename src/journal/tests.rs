use super::*;
use crate::accounting::{HeadBytes, Kind, Kinds};
use crate::ids::{DatabaseName, ServerName};
use crate::metrics::Tally;
use proptest::prelude::*;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, mpsc};
use std::time::UNIX_EPOCH;

pub(super) const SOON: Duration = Duration::from_secs(10);

pub(super) fn entry() -> Entry<'static> {
    Entry {
        time: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        id: RequestId(42),
        client: "192.0.2.7:50123".parse().unwrap(),
        user: "user1@contoso.test",
        scheme: Some(Scheme::Basic),
        endpoint: Some(Endpoint::Emsmdb),
        dialect: None,
        channel: None,
        vdir: None,
        path: b"",
        request_type: Some(RequestType::Execute),
        request_id: b"{E2EA6C1C-E61B-49E9-9CFB-38184F907552}:123456",
        client_info: b"{2EF33C39-49C8-421C-B876-CDF7F2AC3AA0}:123",
        mailbox: b"f7c9a1ce-a2a4-4f04-8c5b-8d8b9b0e0001@contoso.test",
        host: b"mail.contoso.test",
        user_agent: b"Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.17126; Pro)",
        database: "DB07",
        server: "MBX1",
        route: "pinned",
        tries: 1,
        status: 200,
        code: Some(ResponseCode::SUCCESS),
        ending: Outcome::Ok,
        refusal: None,
        auth: Duration::from_nanos(350),
        first_byte: Some(Duration::from_micros(2_345)),
        total: Duration::from_micros(2_901),
        cpu: Some(Duration::from_nanos(19_400)),
        phases: None,
        handshake: None,
        ledger: &LEDGER,
        is_http2: false,
        client_reused: true,
        server_reused: true,
    }
}

static LEDGER: LazyLock<Ledger> = LazyLock::new(|| {
    let leg = |head, payload, wire| {
        let mut kinds = Kinds::of_head(HeadBytes {
            total: head,
            line: 80,
            cookies: 150,
            authorization: 0,
        });
        kinds.add(Kind::Payload, payload);
        kinds.fit(wire, Kind::Tls);
        kinds
    };
    Ledger {
        client_in: leg(700, 2048, 2800),
        client_out: leg(400, 4096, 4540),
        server_in: leg(394, 4096, 4490),
        server_out: leg(702, 2048, 2750),
    }
});

pub(super) fn rendered(entry: &Entry<'_>) -> Vec<u8> {
    let mut line = Vec::new();
    line::render(entry, &mut line);
    line
}

pub(super) fn parsed(line: &[u8]) -> serde_json::Value {
    serde_json::from_slice(line).unwrap_or_else(|e| panic!("{e}: {}", line.escape_ascii()))
}

fn tally() -> Tally {
    Metrics::new("test").access_log_dropped()
}

fn journal(sink: impl Write + Send + 'static, capacity: usize) -> Journal {
    Journal {
        access: Lane::start("access", Some(Box::new(sink)), capacity, tally()).unwrap(),
        proxy: Lane::start("HttpProxy", None, capacity, tally()).unwrap(),
    }
}

/// A sink that fails until told otherwise, taking `first` bytes before the first failure.
struct Disk {
    file: File,
    first: usize,
    is_full: Arc<AtomicBool>,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_full.load(Relaxed) && self.first == 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        let count = if self.first > 0 {
            bytes.len().min(self.first)
        } else {
            bytes.len()
        };
        self.first -= count.min(self.first);
        self.file.write(&bytes[..count])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_request_below_another_directory_tells_its_path_and_its_method() {
    let facts = Entry {
        endpoint: None,
        request_type: None,
        code: None,
        vdir: Some((Vdir::ActiveSync, Verb::Options)),
        path: b"/Microsoft-Server-ActiveSync/\"x",
        ..entry()
    };
    let value = parsed(&rendered(&facts));
    assert_eq!(value["endpoint"], "activesync");
    assert_eq!(value["type"], "OPTIONS");
    assert_eq!(value["path"], "/Microsoft-Server-ActiveSync/\"x");

    assert_eq!(Protocol::of(&facts).as_str(), "Eas");
    let mut line = Vec::new();
    proxy_line::render(&facts, &mut line);
    let line = String::from_utf8(line).unwrap();
    let cells: Vec<_> = line.split(',').take(40).collect();
    assert!(
        cells.contains(&"OPTIONS") && cells.contains(&"Eas"),
        "{line}"
    );
    assert!(!line.contains("?MailboxId="), "{line}");
}

#[test]
fn a_line_says_what_happened() {
    let value = parsed(&rendered(&entry()));

    for (key, expected) in [
        ("time", serde_json::json!("2023-11-14T22:13:20.123Z")),
        ("id", serde_json::json!("0000001a")),
        ("client", serde_json::json!("192.0.2.7:50123")),
        ("type", serde_json::json!("Execute")),
        ("server", serde_json::json!("MBX1")),
        ("code", serde_json::json!(0)),
        ("ending", serde_json::json!("ok")),
        ("first_byte_ms", serde_json::json!(2.345)),
        ("cpu_us", serde_json::json!(19.4)),
        ("tls_out", serde_json::json!(4540)),
        ("server_reused", serde_json::json!(true)),
    ] {
        assert_eq!(value[key], expected, "{key}");
    }
}

#[test]
fn a_refused_head_leaves_out_what_nobody_knows() {
    let refusal = Refusal::Malformed("bare LF");
    let facts = Entry {
        user: "",
        endpoint: None,
        dialect: None,
        request_type: None,
        request_id: b"",
        code: None,
        first_byte: None,
        ending: Outcome::Refused,
        refusal: Some(&refusal),
        ..entry()
    };

    let value = parsed(&rendered(&facts));

    assert_eq!(value["refusal"], "malformed");
    assert_eq!(value["blame"], "client");
    assert_eq!(value["why"], "malformed request head: bare LF");
    for key in [
        "user",
        "endpoint",
        "type",
        "request_id",
        "code",
        "first_byte_ms",
    ] {
        assert!(value.get(key).is_none(), "{key}");
    }
}

#[test]
fn a_refusal_keeps_the_log_in_one_line() {
    let refusal = Refusal::NoEligibleCopy {
        database: DatabaseName::new("D\"\r\n\u{1b}[2J\u{202e}"),
        why: "down",
    };

    let line = rendered(&Entry {
        refusal: Some(&refusal),
        ..entry()
    });

    assert!(
        parsed(&line)["why"]
            .as_str()
            .unwrap()
            .contains("D\"\r\n\u{1b}[2J\u{202e}")
    );
    assert_eq!(
        line.iter().filter(|byte| byte.is_ascii_control()).count(),
        1
    );
}

proptest! {
    #[test]
    fn any_bytes_in_any_field_make_one_line_of_valid_json(
        fields in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 3),
        words in prop::collection::vec("\\PC{0,40}|[\\x00-\\x7f]{0,200}", 5),
        cause in "\\PC{0,300}|[\\x00-\\x9f]{0,300}",
        (millis, micros) in (any::<u64>(), any::<u64>()),
    ) {
        let refusal = Refusal::ServerUnreachable { server: ServerName::new(words[4].clone()), cause };
        let facts = Entry {
            time: UNIX_EPOCH.checked_add(Duration::from_millis(millis >> 8)).unwrap_or(UNIX_EPOCH),
            user: &words[0],
            request_id: &fields[0],
            client_info: &fields[1],
            mailbox: &fields[2],
            database: &words[1],
            server: &words[2],
            route: &words[3],
            refusal: Some(&refusal),
            total: Duration::from_micros(micros),
            ..entry()
        };

        let line = rendered(&facts);

        let value: serde_json::Value = serde_json::from_slice(&line).expect("valid JSON");
        prop_assert!(value.is_object());
        prop_assert_eq!(memchr::memchr_iter(b'\n', &line).count(), 1);
        let ends_well = line.ends_with(b"}\n");
        prop_assert!(ends_well);
        let text = std::str::from_utf8(&line).expect("UTF-8");
        prop_assert!(!text.trim_end_matches('\n').chars().any(char::is_control));
        prop_assert!(line.len() < 8192, "{}", line.len());
    }
}

#[test]
fn a_long_value_is_cut_and_shows_it() {
    let long = vec![b'x'; 5000];

    let value = parsed(&rendered(&Entry {
        client_info: &long,
        ..entry()
    }));

    let shown = value["client_info"].as_str().unwrap();
    assert!(shown.ends_with('…') && shown.chars().count() == 129);
}

#[test]
fn a_flush_leaves_every_line_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let logging = logging_to(&path);
    let journal = Journal::start(&logging, &Metrics::new("test")).unwrap();

    for _ in 0..1000 {
        journal.write(&entry());
    }

    assert!(journal.flush(SOON));
    assert_eq!(
        std::fs::read_to_string(&path).unwrap().lines().count(),
        1000
    );
    assert_eq!(journal.dropped(), 0);
}

#[test]
fn rotation_continues_in_the_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let (path, old) = (
        folder.path().join("access.log"),
        folder.path().join("access.log.1"),
    );
    let logging = logging_to(&path);
    let journal = Journal::start(&logging, &Metrics::new("test")).unwrap();
    journal.write(&entry());
    assert!(journal.flush(SOON));

    std::fs::rename(&path, &old).unwrap();
    journal.reopen(&logging).unwrap();
    journal.write(&entry());
    journal.write(&entry());

    assert!(journal.close(SOON));
    assert_eq!(std::fs::read_to_string(&old).unwrap().lines().count(), 1);
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
}

/// A file on a disk that takes its time to close it.
struct Closing(mpsc::Sender<()>, mpsc::Receiver<()>);

impl Write for Closing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let _ = self.0.send(());
        let _ = self.1.recv();
    }
}

#[test]
fn no_request_waits_for_the_old_file_to_close() {
    let ((closing, begun), (answer, disk)) = (mpsc::channel(), mpsc::channel());
    let journal = Arc::new(journal(Closing(closing, disk), 64 * 1024));
    let requests = Arc::clone(&journal);

    journal.access.reopen(Some(Box::new(io::sink())), 64 * 1024);
    begun.recv_timeout(SOON).unwrap();
    let (written, done) = mpsc::channel();
    std::thread::spawn(move || {
        requests.write(&entry());
        written.send(()).unwrap();
    });

    done.recv_timeout(SOON).expect("written meanwhile");
    answer.send(()).unwrap();
    assert!(journal.flush(SOON));
}

#[test]
fn a_file_that_cannot_be_opened_keeps_the_old_one_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let journal = Journal::start(&logging_to(&path), &Metrics::new("test")).unwrap();

    let wrong = logging_to(&folder.path().join("missing/access.log"));
    assert!(journal.reopen(&wrong).is_err());
    journal.write(&entry());

    assert!(journal.flush(SOON));
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
}

#[test]
fn a_full_disk_holds_no_request_up_and_tears_no_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let is_full = Arc::new(AtomicBool::new(true));
    let disk = Disk {
        file: append_to(&path).unwrap(),
        first: 100,
        is_full: Arc::clone(&is_full),
    };
    let journal = journal(disk, 16 * 1024);

    for _ in 0..1000 {
        journal.write(&entry());
    }
    let lost_while_full = journal.dropped();
    is_full.store(false, Relaxed);

    assert!(journal.flush(SOON));
    assert!(lost_while_full > 900, "{lost_while_full}");
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count() as u64, 1000 - lost_while_full);
    text.lines().for_each(|line| {
        parsed(line.as_bytes());
    });
}

#[test]
fn a_line_torn_by_a_full_disk_is_not_continued_in_another_file() {
    let folder = tempfile::tempdir().unwrap();
    let (full, other) = (
        folder.path().join("full.log"),
        folder.path().join("other.log"),
    );
    let is_full = Arc::new(AtomicBool::new(true));
    let disk = Disk {
        file: append_to(&full).unwrap(),
        first: 100,
        is_full,
    };
    let journal = journal(disk, 16 * 1024);
    journal.write(&entry());
    journal.write(&entry());
    assert!(!journal.flush(Duration::from_millis(200)));

    journal.reopen(&logging_to(&other)).unwrap();

    assert!(journal.flush(SOON));
    let text = std::fs::read_to_string(&other).unwrap();
    assert_eq!((text.lines().count(), journal.dropped()), (1, 1));
    parsed(text.as_bytes());
}

/// A pipe nobody reads: a write into it does not come back before the test lets it.
struct Pipe(mpsc::Receiver<()>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_blocked_pipe_costs_lines_and_no_time() {
    let (unblock, blocked) = mpsc::channel();
    let journal = journal(Pipe(blocked), 16 * 1024);

    for _ in 0..10_000 {
        journal.write(&entry());
    }

    assert!(journal.dropped() > 9_000);
    assert!(!journal.close(Duration::from_millis(50)));
    drop(unblock);
}

#[test]
fn an_access_log_that_is_off_takes_no_lines() {
    let logging = Logging {
        access: AccessLog::Off,
        ..logging_to(Path::new("/nowhere"))
    };
    let journal = Journal::start(&logging, &Metrics::new("test")).unwrap();

    journal.write(&entry());

    assert!(!journal.is_on() && journal.flush(SOON));
    assert_eq!(journal.dropped(), 0);
}

pub(super) fn logging_to(path: &Path) -> Logging {
    Logging {
        level: "info".to_owned(),
        json: false,
        access: AccessLog::File(path.to_owned()),
        http_proxy: None,
        access_buffer: 1 << 20,
    }
}
