//! The files as Exchange's front end writes them, read back by another reader.

use super::tests::{SOON, entry, logging_to, parsed, rendered};
use super::*;
use crate::config::settings::HttpProxyLog;
use crate::ids::{DatabaseName, ServerName};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

/// What Exchange 2016 and later name the fields of these files.
const EXCHANGE_FIELDS: &str = "DateTime,RequestId,MajorVersion,MinorVersion,BuildVersion,RevisionVersion,\
    ClientRequestId,Protocol,UrlHost,UrlStem,ProtocolAction,AuthenticationType,IsAuthenticated,AuthenticatedUser,\
    Organization,AnchorMailbox,UserAgent,ClientIpAddress,ServerHostName,HttpStatus,BackEndStatus,ErrorCode,Method,\
    ProxyAction,TargetServer,TargetServerVersion,RoutingType,RoutingHint,BackEndCookie,ServerLocatorHost,\
    ServerLocatorLatency,RequestBytes,ResponseBytes,TargetOutstandingRequests,AuthModulePerfContext,\
    HttpPipelineLatency,CalculateTargetBackEndLatency,GlsLatencyBreakup,TotalGlsLatency,\
    AccountForestLatencyBreakup,TotalAccountForestLatency,ResourceForestLatencyBreakup,\
    TotalResourceForestLatency,ADLatency,SharedCacheLatencyBreakup,TotalSharedCacheLatency,\
    ActivityContextLifeTime,ModuleToHandlerSwitchingLatency,ClientReqStreamLatency,BackendReqInitLatency,\
    BackendReqStreamLatency,BackendProcessingLatency,BackendRespInitLatency,BackendRespStreamLatency,\
    ClientRespStreamLatency,KerberosAuthHeaderLatency,HandlerCompletionLatency,RequestHandlerLatency,\
    HandlerToModuleSwitchingLatency,ProxyTime,CoreLatency,RoutingLatency,HttpProxyOverhead,TotalRequestTime,\
    RouteRefresherLatency,UrlQuery,BackEndGenericInfo,GenericInfo,GenericErrors,EdgeTraceId,DatabaseGuid,\
    UserADObjectGuid,PartitionEndpointLookupLatency,RoutingStatus";

type Row = BTreeMap<String, String>;

fn line(entry: &Entry<'_>) -> Vec<u8> {
    let mut line = Vec::new();
    proxy_line::render(entry, &mut line);
    line
}

/// Every row of a file, by field. A row of another length fails.
fn rows(text: &[u8]) -> Vec<Row> {
    let mut reader = csv::ReaderBuilder::new()
        .comment(Some(b'#'))
        .from_reader(text);
    let names = reader.headers().unwrap().clone();
    let row = |record: csv::Result<csv::StringRecord>| {
        let record = record.unwrap();
        let pairs = names.iter().zip(record.iter());
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    reader.records().map(row).collect()
}

fn row(entry: &Entry<'_>) -> Row {
    let file = [proxy_line::heads("").as_bytes(), &line(entry)].concat();
    let mut rows = rows(&file);
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

fn number(text: &str) -> f64 {
    text.parse().unwrap_or_else(|_| panic!("{text}"))
}

/// Every figure of the JSON line stands in the row, under its own name or Exchange's.
fn same_figures(json: &serde_json::Value, row: &Row) {
    for (key, value) in json.as_object().unwrap() {
        let name = match key.as_str() {
            "id" => "RequestId",
            "user" => "AuthenticatedUser",
            "type" => "RequestType",
            "request_id" => "MapiRequestId",
            "client_info" => "MapiClientInfo",
            "mailbox" => "MailboxId",
            "database" => "DatabaseGuid",
            "server" => "TargetServer",
            "status" => "HttpStatus",
            "code" => "ResponseCode",
            "refusal" => "ErrorCode",
            "why" => "GenericErrors",
            "time" => {
                let begin = format!("BeginRequest={};", value.as_str().unwrap());
                assert!(row["GenericInfo"].starts_with(&begin));
                continue;
            }
            own => own,
        };
        let there = &row[name];
        match value {
            serde_json::Value::Number(figure) => {
                let none = name == "HttpStatus" && there.is_empty();
                let there = if none { 0.0 } else { number(there) };
                assert!((figure.as_f64().unwrap() - there).abs() < 1e-9, "{key}");
            }
            serde_json::Value::Bool(flag) => assert_eq!(*there, flag.to_string(), "{key}"),
            other => assert_eq!(other.as_str(), Some(there.as_str()), "{key}"),
        }
    }
    assert_eq!(row["RequestBytes"], row["body_in"]);
    assert_eq!(row["ResponseBytes"], row["body_out"]);
    assert_eq!(
        number(&row["TotalRequestTime"]),
        number(&row["total_ms"]).floor()
    );
    if !row["first_byte_ms"].is_empty() {
        assert_eq!(
            number(&row["ProxyTime"]),
            number(&row["first_byte_ms"]).floor()
        );
    }
}

#[test]
fn exchanges_fields_stand_first_and_in_its_order() {
    let heads = proxy_line::heads("2026-11-21T10:00:00.000Z");

    let lines: Vec<_> = heads.split("\r\n").collect();
    let names = lines[0];
    assert!(names.starts_with(&format!("{EXCHANGE_FIELDS},MapiRequestId,")));
    assert_eq!(lines[1], "#Software: mapigate");
    assert_eq!(lines[3], "#Log-type: HttpProxy Logs");
    assert_eq!(lines[4], "#Date: 2026-11-21T10:00:00.000Z");
    assert_eq!(lines[5], format!("#Fields: {names}"));
    assert_eq!(lines[6..], [""]);
}

#[test]
fn a_row_says_what_exchange_would_say() {
    let row = row(&entry());

    for (name, value) in [
        ("DateTime", "2023-11-14T22:13:20.125Z"),
        ("RequestId", "0000001a"),
        (
            "ClientRequestId",
            "R:{E2EA6C1C-E61B-49E9-9CFB-38184F907552}:123456;RT:Execute;\
             CI:{2EF33C39-49C8-421C-B876-CDF7F2AC3AA0}:123;CID:<null>",
        ),
        ("Protocol", "Mapi"),
        ("UrlHost", "mail.contoso.test"),
        ("UrlStem", "/mapi/emsmdb/"),
        ("AuthenticationType", "Basic"),
        ("IsAuthenticated", "true"),
        ("AuthenticatedUser", "user1@contoso.test"),
        (
            "AnchorMailbox",
            "MailboxGuid~f7c9a1ce-a2a4-4f04-8c5b-8d8b9b0e0001",
        ),
        (
            "UserAgent",
            "Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.17126; Pro)",
        ),
        ("ClientIpAddress", "192.0.2.7"),
        ("HttpStatus", "200"),
        ("BackEndStatus", "200"),
        ("Method", "POST"),
        ("ProxyAction", "Proxy"),
        ("TargetServer", "MBX1"),
        ("RoutingHint", "MailboxGuidWithDomain"),
        ("RequestBytes", "2048"),
        ("ProxyTime", "2"),
        ("TotalRequestTime", "2"),
        (
            "UrlQuery",
            "?MailboxId=f7c9a1ce-a2a4-4f04-8c5b-8d8b9b0e0001@contoso.test",
        ),
        ("BackEndCookie", ""),
        ("ADLatency", ""),
    ] {
        assert_eq!(row[name], value, "{name}");
    }
}

#[test]
fn a_refused_head_leaves_empty_what_nobody_knows() {
    let refusal = Refusal::Malformed("bare LF, \"quoted\"");
    let facts = Entry {
        user: "",
        scheme: None,
        endpoint: None,
        request_type: None,
        request_id: b"",
        client_info: b"",
        mailbox: b"",
        server: "",
        code: None,
        status: 400,
        first_byte: None,
        ending: Outcome::Refused,
        refusal: Some(&refusal),
        ..entry()
    };

    let row = row(&facts);

    assert_eq!(row["ErrorCode"], "malformed");
    assert!(row["GenericErrors"].ends_with("bare LF, \"quoted\""));
    assert_eq!(
        (&*row["Protocol"], &*row["IsAuthenticated"]),
        ("Unknown", "false")
    );
    for name in [
        "ClientRequestId",
        "BackEndStatus",
        "Method",
        "AnchorMailbox",
        "ProxyTime",
    ] {
        assert_eq!(row[name], "", "{name}");
    }
    same_figures(&parsed(&rendered(&facts)), &row);
}

#[test]
fn what_a_spreadsheet_would_take_for_a_formula_is_text() {
    for agent in ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)"] {
        let row = row(&Entry {
            user_agent: agent.as_bytes(),
            ..entry()
        });
        assert_eq!(row["UserAgent"], format!("'{agent}"));
    }
}

proptest! {
    #[test]
    fn any_bytes_in_any_field_make_one_row_with_every_field(
        fields in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 5),
        words in prop::collection::vec("\\PC{0,40}|[\\x00-\\x7f]{0,200}|[,\"\r\n]{0,9}", 5),
        cause in "\\PC{0,300}|[\\x00-\\x9f]{0,300}",
        (millis, micros) in (any::<u64>(), any::<u64>()),
    ) {
        let refusal = Refusal::ServerUnreachable { server: ServerName::new(words[4].clone()), cause };
        let facts = Entry {
            time: UNIX_EPOCH.checked_add(Duration::from_millis(millis >> 20)).unwrap_or(UNIX_EPOCH),
            user: &words[0],
            request_id: &fields[0],
            client_info: &fields[1],
            mailbox: &fields[2],
            host: &fields[3],
            user_agent: &fields[4],
            database: &words[1],
            server: &words[2],
            route: &words[3],
            refusal: Some(&refusal),
            total: Duration::from_micros(micros >> 20),
            ..entry()
        };

        let line = line(&facts);

        let row = row(&facts);
        prop_assert_eq!(row.len(), proxy_line::heads("").lines().next().unwrap().split(',').count());
        prop_assert!(line.ends_with(b"\r\n"));
        let text = std::str::from_utf8(&line[..line.len() - 2]).expect("UTF-8");
        prop_assert!(!text.chars().any(char::is_control));
        prop_assert!(text.len() < 8192, "{}", text.len());
    }

    #[test]
    fn readable_values_are_read_back_as_they_were(
        agent in "[ -~]{0,128}",
        user in "[a-z0-9.,\"@ ]{0,100}",
    ) {
        let row = row(&Entry { user_agent: agent.as_bytes(), user: &user, ..entry() });

        let is_formula = agent.starts_with(['=', '+', '-', '@']);
        prop_assert_eq!(row["UserAgent"].strip_prefix('\'').filter(|_| is_formula).unwrap_or(&row["UserAgent"]), &agent);
        let is_formula = user.starts_with('@');
        prop_assert_eq!(row["AuthenticatedUser"].strip_prefix('\'').filter(|_| is_formula).unwrap_or(&row["AuthenticatedUser"]), &user);
    }

    #[test]
    fn both_lines_of_a_request_carry_the_same_figures(
        counts in prop::collection::vec(any::<u32>(), 8),
        times in prop::collection::vec(0_u64..1 << 50, 4),
        (tries, status) in (any::<u32>(), 200_u16..600),
        (first_byte, is_refused, reused) in (any::<bool>(), any::<bool>(), any::<bool>()),
    ) {
        let refusal = Refusal::NoEligibleCopy { database: DatabaseName::new("DB07"), why: "down, it is" };
        let bytes = |at: usize| Bytes { received: counts[at].into(), sent: counts[at + 1].into() };
        let facts = Entry {
            tries,
            status,
            auth: Duration::from_nanos(times[0]),
            first_byte: first_byte.then_some(Duration::from_nanos(times[1])),
            total: Duration::from_nanos(times[2]),
            cpu: Duration::from_nanos(times[3]),
            head: bytes(0),
            body: bytes(2),
            tls: bytes(4),
            backend: bytes(6),
            refusal: is_refused.then_some(&refusal),
            client_reused: reused,
            ..entry()
        };

        same_figures(&parsed(&rendered(&facts)), &row(&facts));
    }
}

fn target(folder: &Path) -> HttpProxyLog {
    HttpProxyLog {
        folder: folder.join("HttpProxy"),
        file_size: 64 * 1024,
        keep: Duration::from_secs(30 * 24 * 3600),
        total_size: 1 << 20,
    }
}

fn logging(target: &HttpProxyLog) -> Logging {
    Logging {
        access: AccessLog::Off,
        http_proxy: Some(target.clone()),
        ..logging_to(Path::new(""))
    }
}

fn start(target: &HttpProxyLog) -> Journal {
    Journal::start(&logging(target), &Metrics::new("test")).unwrap()
}

/// The entry on another day.
fn on(day: u64, entry: Entry<'static>) -> Entry<'static> {
    Entry {
        time: UNIX_EPOCH + Duration::from_secs(day * 24 * 3600 + 43_200),
        ..entry
    }
}

fn files(target: &HttpProxyLog) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(target.folder.join("Mapi"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn names(target: &HttpProxyLog) -> Vec<String> {
    let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    files(target).into_iter().map(name).collect()
}

fn read(target: &HttpProxyLog, name: &str) -> Vec<Row> {
    rows(&fs::read(target.folder.join(name)).unwrap())
}

#[test]
fn every_day_and_protocol_has_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    let journal = start(&target);
    let unknown = Entry {
        endpoint: None,
        ..on(20_000, entry())
    };

    for facts in [
        on(20_000, entry()),
        unknown,
        on(20_000, entry()),
        on(20_001, entry()),
        // Ended before midnight, written after it.
        on(20_000, entry()),
        on(20_001, entry()),
    ] {
        journal.write(&facts);
    }

    assert!(journal.close(SOON));
    assert_eq!(
        names(&target),
        ["HttpProxy_20241004-1.LOG", "HttpProxy_20241005-1.LOG"]
    );
    assert_eq!(read(&target, "Mapi/HttpProxy_20241004-1.LOG").len(), 2);
    assert_eq!(read(&target, "Mapi/HttpProxy_20241005-1.LOG").len(), 3);
    assert_eq!(read(&target, "Unknown/HttpProxy_20241004-1.LOG").len(), 1);
    let first = fs::read_to_string(&files(&target)[0]).unwrap();
    assert!(first.contains("\r\n#Date: 2024-10-04T12:00:00.002Z\r\n"));
}

#[test]
fn a_full_file_is_followed_by_the_next_of_its_day_and_the_oldest_go() {
    let folder = tempfile::tempdir().unwrap();
    let target = HttpProxyLog {
        total_size: 256 * 1024,
        ..target(folder.path())
    };
    let foreign = target.folder.join("Mapi/notes.LOG");
    fs::create_dir_all(foreign.parent().unwrap()).unwrap();
    fs::write(&foreign, vec![b'x'; 300_000]).unwrap();
    let journal = start(&target);

    for _ in 0..600 {
        journal.write(&on(20_000, entry()));
        assert!(journal.flush(SOON));
    }

    assert!(foreign.exists());
    fs::remove_file(&foreign).unwrap();
    let left = names(&target);
    let sizes: Vec<_> = files(&target)
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .collect();
    assert!(sizes.iter().sum::<u64>() <= target.total_size, "{sizes:?}");
    assert!(
        sizes.iter().all(|size| *size < target.file_size + 1024),
        "{sizes:?}"
    );
    assert!(
        left.len() >= 3 && !left.contains(&"HttpProxy_20241004-1.LOG".to_owned()),
        "{left:?}"
    );
    for name in left {
        assert!(!read(&target, &format!("Mapi/{name}")).is_empty());
    }
}

#[test]
fn files_that_are_too_old_go() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    let journal = start(&target);

    for day in [20_000, 20_001, 20_029, 20_030] {
        journal.write(&on(day, entry()));
        assert!(journal.flush(SOON));
    }

    assert_eq!(
        names(&target),
        [
            "HttpProxy_20241005-1.LOG",
            "HttpProxy_20241102-1.LOG",
            "HttpProxy_20241103-1.LOG"
        ]
    );
}

#[test]
fn a_restart_goes_on_with_the_file_unless_its_last_line_is_torn() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    for _ in 0..2 {
        let journal = start(&target);
        journal.write(&on(20_000, entry()));
        assert!(journal.close(SOON));
    }
    let whole = files(&target);
    assert_eq!(read(&target, "Mapi/HttpProxy_20241004-1.LOG").len(), 2);

    let bytes = fs::read(&whole[0]).unwrap();
    fs::write(&whole[0], &bytes[..bytes.len() - 9]).unwrap();
    let journal = start(&target);
    journal.write(&on(20_000, entry()));

    assert!(journal.close(SOON));
    assert_eq!(names(&target).len(), 2);
    assert_eq!(read(&target, "Mapi/HttpProxy_20241004-2.LOG").len(), 1);
}

#[test]
fn files_that_were_moved_away_are_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    let journal = start(&target);
    journal.write(&on(20_000, entry()));
    assert!(journal.flush(SOON));
    fs::rename(&target.folder, folder.path().join("moved")).unwrap();

    journal.reopen(&logging(&target)).unwrap();
    journal.write(&on(20_000, entry()));

    assert!(journal.flush(SOON));
    assert_eq!(read(&target, "Mapi/HttpProxy_20241004-1.LOG").len(), 1);
    let off = Logging {
        http_proxy: None,
        ..logging(&target)
    };
    journal.reopen(&off).unwrap();
    assert!(!journal.is_on() && !journal.tells_programs());
}

/// Puts something else in the place of the day's file.
fn in_place_of_the_file(target: &HttpProxyLog, what: &Path) -> PathBuf {
    let path = target.folder.join("Mapi/HttpProxy_20241004-1.LOG");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(what, &path).unwrap();
    path
}

#[test]
fn a_full_disk_costs_rows_and_no_time() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    let full = in_place_of_the_file(&target, Path::new("/dev/full"));
    let logging = Logging {
        access_buffer: 16 * 1024,
        ..logging(&target)
    };
    let journal = Journal::start(&logging, &Metrics::new("test")).unwrap();

    for _ in 0..1000 {
        journal.write(&on(20_000, entry()));
    }
    let lost = journal.dropped();
    assert!(lost > 900, "{lost}");
    fs::remove_file(full).unwrap();
    journal.reopen(&logging).unwrap();

    assert!(journal.flush(SOON));
    let rows = read(&target, "Mapi/HttpProxy_20241004-1.LOG");
    assert_eq!(rows.len() as u64, 1000 - lost);
}

#[test]
fn a_pipe_that_nobody_reads_costs_rows_and_no_time() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    let pipe = folder.path().join("pipe");
    let status = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(status.unwrap().success());
    in_place_of_the_file(&target, &pipe);
    let logging = Logging {
        access_buffer: 16 * 1024,
        ..logging(&target)
    };
    let journal = Journal::start(&logging, &Metrics::new("test")).unwrap();

    for _ in 0..1000 {
        journal.write(&on(20_000, entry()));
    }

    assert!(journal.dropped() > 900);
    assert!(!journal.close(Duration::from_millis(50)));
}
