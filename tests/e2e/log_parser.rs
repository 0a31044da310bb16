//! The files for Log Parser, beside the access log, for real requests.

use crate::rig::Hand;
use crate::support::{
    Ask, TestSite, answer, basic, brisk, eventually, last_words, start, start_in,
};
use mapigate::lab::site::{Site, user};
use mapigate::mapi::{Flavour, RequestType};
use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use time::macros::format_description;

type Row = BTreeMap<String, String>;

const LOGGING: &str = "{ access: access.log, http_proxy: { folder: HttpProxy }, format: json }";

/// Every row of every file so far, by field; a row of another length fails.
fn rows(site: &Site) -> Vec<Row> {
    let mut rows = Vec::new();
    for protocol in ["Mapi", "Unknown"] {
        let folder = site.folder().join("HttpProxy").join(protocol);
        let files = std::fs::read_dir(folder).into_iter().flatten();
        for file in files {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            assert!(
                name.starts_with("HttpProxy_20") && name.ends_with("-1.LOG"),
                "{name}"
            );
            rows.extend(rows_of(&path));
        }
    }
    rows
}

fn rows_of(path: &Path) -> Vec<Row> {
    let text = std::fs::read_to_string(path).unwrap();
    // The last row may be half written yet.
    let whole = text
        .rfind("\r\n")
        .map_or("", |end| text.get(..end + 2).unwrap());
    let mut reader = csv::ReaderBuilder::new()
        .comment(Some(b'#'))
        .from_reader(whole.as_bytes());
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

/// Waits until both logs have this many requests.
async fn both_have(site: &TestSite, count: usize) {
    eventually("both logs are written", || async {
        site.access_lines().unwrap().len() >= count && rows(site).len() >= count
    })
    .await;
}

/// What the JSON line calls a field, and the row. What they call the same is not here.
const NAMES: [(&str, &str); 12] = [
    ("id", "RequestId"),
    ("user", "AuthenticatedUser"),
    ("type", "RequestType"),
    ("request_id", "MapiRequestId"),
    ("client_info", "MapiClientInfo"),
    ("mailbox", "MailboxId"),
    ("database", "DatabaseGuid"),
    ("server", "TargetServer"),
    ("status", "HttpStatus"),
    ("code", "ResponseCode"),
    ("refusal", "ErrorCode"),
    ("why", "GenericErrors"),
];

/// Compares every field of the JSON line, and every figure that the row has besides.
fn same(json: &serde_json::Value, row: &Row) {
    for (key, value) in json.as_object().unwrap() {
        let known = NAMES.iter().find(|(name, _)| name == key);
        let field = known.map_or(key.as_str(), |(_, field)| field);
        let shown = match value {
            serde_json::Value::String(text) if key == "time" => {
                assert!(row["GenericInfo"].contains(&format!("BeginRequest={text};")));
                continue;
            }
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let there = &row[field];
        let is_figure = value.is_number();
        let agrees = match (is_figure, there.parse::<f64>()) {
            (true, Ok(there)) => Some(there) == shown.parse().ok(),
            _ => *there == shown,
        };
        assert!(agrees, "{key}: {shown} and {there}");
    }
    // The other way round: where the row says something, the JSON line has said it.
    for (name, field) in NAMES {
        assert_eq!(
            row[field].is_empty(),
            json.get(name).is_none(),
            "{field}: {json}"
        );
    }
    let whole = |field: &str| row[field].parse::<f64>().unwrap().floor();
    assert_eq!(whole("TotalRequestTime"), whole("total_ms"));
    assert_eq!(row["RequestBytes"], row["body_in"]);
    assert_eq!(row["ResponseBytes"], row["body_out"]);
}

#[tokio::test]
async fn the_row_and_the_json_line_of_a_request_carry_the_same_figures() {
    let plan = brisk(Flavour::Exchange)
        .section("logging", LOGGING)
        .section("accounting", "{ cpu_every: 1 }");
    let site = start(plan).await;
    let outlook = site.outlook(1).unwrap();
    outlook.connect().await.unwrap();
    for size in [10, 3000, 100_000] {
        outlook.execute(&vec![7; size]).await.unwrap();
    }
    let mut hand = Hand::connected(&site, 2).await;
    let head = hand.begin_wait().await;
    site.server("MBX1").unwrap().wake(Some(&user(2)));
    hand.rest(head).await;
    hand.ask(RequestType::Disconnect).await;
    let agent = "User-Agent: Micro\"soft\", Office/16.0 (Windows NT 10.0; Outlook 16.0.17126; Pro)";
    let wrong = basic(&user(3), "wrong");
    let asks = [
        Ask::new(1, "PING").with(agent),
        Ask::new(1, "Nonsense").with("X-Extra: a,b"),
        Ask::new(1, "PING").without("Authorization"),
        Ask::new(3, "PING")
            .without("Authorization")
            .with(format!("Authorization: {wrong}")),
        Ask::new(1, "Execute"),
    ];
    for ask in &asks {
        answer(&site, ask).await;
    }
    for ask in [
        Ask::new(1, "PING").with("Host: twice"),
        Ask::new(1, "PING").line("POST /nowhere HTTP/1.1"),
        Ask::new(1, "PING").line("GET /mapi/healthcheck.htm HTTP/1.1"),
        Ask::new(1, "PING")
            .without("X-RequestId")
            .with("X-RequestId: a\"b,\u{1b}[2J=é"),
    ] {
        last_words(&site, &ask.with("Connection: close").bytes()).await;
    }

    let (connects, executes, by_hand, refused) = (1, 3, 3, 4);
    let count = connects + executes + by_hand + asks.len() + refused;
    both_have(&site, count).await;

    let lines = site.access_lines().unwrap();
    let rows = rows(&site);
    assert_eq!((lines.len(), rows.len()), (count, count));
    for line in &lines {
        let of_it = rows
            .iter()
            .find(|row| line["id"] == row["RequestId"].as_str());
        same(line, of_it.unwrap());
    }
    let with_agent = rows.iter().find(|row| row["UserAgent"].contains('"'));
    let with_agent = with_agent.unwrap();
    assert_eq!(with_agent["UserAgent"], agent.split_once(": ").unwrap().1);
    assert_eq!(with_agent["UrlHost"], "mail.contoso.test");
    let waits = rows
        .iter()
        .filter(|row| row["RequestType"] == "NotificationWait");
    assert_eq!(waits.count(), 1);
    let cpu: f64 = rows
        .iter()
        .map(|row| row["cpu_us"].parse::<f64>().unwrap())
        .sum();
    assert!(cpu > 0.0);
}

#[tokio::test]
async fn a_disk_that_is_full_costs_rows_for_log_parser_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("HttpProxy/Mapi");
    std::fs::create_dir_all(&files).unwrap();
    // Whatever the clock does meanwhile.
    for days in 0..2 {
        let day = OffsetDateTime::from(SystemTime::now() + Duration::from_secs(days * 86_400));
        let day = day
            .format(format_description!("[year][month][day]"))
            .unwrap();
        symlink("/dev/full", files.join(format!("HttpProxy_{day}-1.LOG"))).unwrap();
    }
    let logging = "{ access: access.log, access_buffer: 8KiB, http_proxy: { folder: HttpProxy }, format: json }";
    let plan = brisk(Flavour::Exchange).section("logging", logging);
    let site = start_in(folder, plan).await;
    let outlook = site.outlook(1).unwrap();
    outlook.connect().await.unwrap();

    // Never more lines at once than the buffer has room for: rows are to be lost for the disk alone.
    for count in 2..42 {
        outlook.execute(b"rops").await.unwrap();
        if count % 4 == 0 {
            eventually("the access log keeps up", || async {
                site.access_lines().unwrap().len() == count
            })
            .await;
        }
    }

    assert_eq!(outlook.counters().reconnects, 0);
    let admin = site.gate().unwrap().admin();
    eventually("lost rows are counted", || async {
        let lost = admin.metric("mapigate_http_proxy_log_dropped_total").await;
        lost.unwrap() > 0.0
    })
    .await;
    let log = || std::fs::read_to_string(site.folder().join("mapigate.log")).unwrap();
    let told = || log().matches("HttpProxy log cannot be written").count();
    eventually("the operator is told", || async { told() > 0 }).await;
    assert_eq!(told(), 1);
    eventually("the access log is whole", || async {
        site.access_lines().unwrap().len() == 41
    })
    .await;
}

#[tokio::test]
async fn a_reload_switches_the_files_on_and_off() {
    let site = start(brisk(Flavour::Exchange)).await;
    let config = site.folder().join("mapigate.yaml");
    let without = std::fs::read_to_string(&config).unwrap();
    let with = without.replace("{ access: access.log, format: json }", LOGGING);
    assert_ne!(with, without);
    let outlook = site.outlook(1).unwrap();
    outlook.connect().await.unwrap();
    let admin = site.gate().unwrap().admin();

    std::fs::write(&config, with).unwrap();
    admin.reload().await.unwrap();
    outlook.execute(b"rops").await.unwrap();
    eventually("a row is written", || async { rows(&site).len() == 1 }).await;
    std::fs::write(&config, without).unwrap();
    admin.reload().await.unwrap();
    outlook.execute(b"rops").await.unwrap();

    eventually("the last line is written", || async {
        site.access_lines().unwrap().len() == 3
    })
    .await;
    assert_eq!(rows(&site).len(), 1);
}
