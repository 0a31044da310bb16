//! The other virtual directories, driven with the real curl where a client would be.

mod servers;
mod shield;

use crate::rig::in_time;
use crate::support::{Ask, Raw, TestSite, brisk, credentials, eventually, start, start_in};
use mapigate::lab::site::{HOST, PASSWORD, Plan, mailbox, user};
use mapigate::mapi::Flavour;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

/// Users 1 and 2 live on MBX1, user 3 on MBX2.
pub(crate) fn two_homes(directories: &str) -> Plan {
    brisk(Flavour::Exchange)
        .section("directory", "{ file: homes.yaml }")
        .section(
            "databases",
            "{ DB07: { copies: [MBX1] }, DB08: { copies: [MBX2] } }",
        )
        .section("virtual_directories", directories)
}

async fn start_two_homes(directories: &str) -> TestSite {
    start_planned(two_homes(directories)).await
}

pub(crate) async fn start_planned(plan: Plan) -> TestSite {
    let folder = tempfile::tempdir().unwrap();
    let rows = [(1, "DB07"), (2, "DB07"), (3, "DB08")];
    let rows = rows.map(|(number, database)| {
        let (id, name) = (mailbox(number), user(number));
        format!("  - {{ id: {id}, addresses: [{name}], database: {database} }}\n")
    });
    let text = format!("mailboxes:\n{}", rows.concat());
    std::fs::write(folder.path().join("homes.yaml"), text).unwrap();
    start_in(folder, plan).await
}

/// An answer as curl saw it.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Told {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// A word of the lab's page, such as `server=`.
    pub(crate) fn word(&self, name: &str) -> &str {
        let mut words = self.body.split_whitespace();
        words
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or_default()
    }
}

pub(crate) fn curl_command(site: &TestSite, path: &str, args: &[&str]) -> Command {
    let address = site.gate().unwrap().address();
    let mut command = Command::new("curl");
    command
        .args(["-sS", "-N", "--path-as-is", "--globoff", "--max-time", "60"])
        .args(["--cacert", site.folder().join("ca.pem").to_str().unwrap()])
        .args(["--resolve", &format!("{HOST}:{}:127.0.0.1", address.port())])
        .args(args)
        .arg(format!("https://{HOST}:{}{path}", address.port()))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Asks without a logon.
pub(crate) async fn curl_as_stranger(site: &TestSite, path: &str, args: &[&str]) -> Told {
    let mut command = curl_command(site, path, args);
    let output = in_time_for_curl(command.args(["-D", "-"]).output()).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    // Interim answers come before the head.
    let mut rest = text.as_str();
    loop {
        let (head, body) = rest.split_once("\r\n\r\n").unwrap_or((rest, ""));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        if status != 100 {
            return Told {
                status,
                head: head.to_owned(),
                body: body.to_owned(),
            };
        }
        rest = body;
    }
}

async fn in_time_for_curl<T>(future: impl Future<Output = std::io::Result<T>>) -> T {
    let limit = std::time::Duration::from_secs(90);
    tokio::time::timeout(limit, future).await.unwrap().unwrap()
}

/// Asks as user `number`.
pub(crate) async fn curl(site: &TestSite, number: usize, path: &str, args: &[&str]) -> Told {
    let who = format!("{}:{PASSWORD}", user(number));
    let mut all = vec!["-u", who.as_str()];
    all.extend_from_slice(args);
    curl_as_stranger(site, path, &all).await
}

/// A curl that goes on; what it writes is read piece by piece.
pub(crate) struct Held {
    child: Child,
    lines: BufReader<tokio::process::ChildStdout>,
}

impl Held {
    pub(crate) fn begin(site: &TestSite, number: usize, path: &str, args: &[&str]) -> Self {
        let who = format!("{}:{PASSWORD}", user(number));
        let mut child = curl_command(site, path, args)
            .args(["-u", &who, "-D", "-"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    pub(crate) async fn until(&mut self, mark: &str) -> String {
        let mut seen = Vec::new();
        in_time(mark, async {
            while memchr::memmem::find(&seen, mark.as_bytes()).is_none() {
                let more = self.lines.fill_buf().await.unwrap().to_vec();
                assert!(
                    !more.is_empty(),
                    "ended before {mark}: {}",
                    String::from_utf8_lossy(&seen)
                );
                self.lines.consume(more.len());
                seen.extend(more);
            }
        })
        .await;
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// What is left, and curl's exit code.
    pub(crate) async fn end(mut self) -> (String, i32) {
        let mut rest = String::new();
        in_time("the end", self.lines.read_to_string(&mut rest))
            .await
            .unwrap();
        let status = in_time("curl's end", self.child.wait()).await.unwrap();
        (rest, status.code().unwrap_or(-1))
    }
}

async fn metric(site: &TestSite, line: &str) -> Option<String> {
    let admin = site.gate().unwrap().admin();
    let text = admin.get("/metrics").await.unwrap().text;
    let mut lines = text.lines();
    lines
        .find_map(|it| it.strip_prefix(line))
        .map(|rest| rest.trim().to_owned())
}

/// A line of the access log, once it is written.
async fn access_line(
    site: &TestSite,
    is_it: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    let found = || {
        site.access_lines()
            .unwrap()
            .into_iter()
            .find(|line| is_it(line))
    };
    eventually("an access line", || async { found().is_some() }).await;
    found().unwrap()
}

const EXCHANGE: &str = "{ preset: exchange2019 }";

#[tokio::test]
async fn a_request_goes_to_the_server_of_the_users_own_mailbox_as_it_was_written() {
    let site = start_two_homes(EXCHANGE).await;

    for (number, server) in [(1, "MBX1"), (3, "MBX2"), (2, "MBX1")] {
        let path = "/EWS/Exchange.asmx?x=%2F&y=a+b";
        let told = curl(&site, number, path, &["--data", "<GetFolder/>"]).await;

        assert_eq!(told.status, 200, "{told:?}");
        assert_eq!(told.word("server"), server);
        assert_eq!(told.word("user"), user(number));
        assert_eq!(told.word("method"), "POST");
        assert_eq!(told.word("target"), path);
        assert_eq!(told.word("bytes"), "12");
        for inside in [
            "x-feserver",
            "x-beserver",
            "x-calculatedbetarget",
            "x-diaginfo",
            "x-powered-by",
            "server",
        ] {
            assert_eq!(told.header(inside), None, "{inside}");
        }
        assert!(!told.head.to_lowercase().contains("mbx"), "{}", told.head);
        assert!(
            told.head.contains("UserContext=abc; path=/; secure"),
            "{}",
            told.head
        );
    }

    let line = access_line(&site, |line| line["server"] == "MBX2").await;
    assert_eq!(line["endpoint"], "ews");
    assert_eq!(line["type"], "POST");
    assert_eq!(line["path"], "/EWS/Exchange.asmx");
    assert_eq!(line["route"], "own_mailbox");
    assert_eq!(line["mailbox"], mailbox(3));
    let ok = metric(
        &site,
        "mapigate_vdir_requests_total{outcome=\"ok\",vdir=\"ews\"}",
    );
    assert_eq!(ok.await.as_deref(), Some("3"));
}

#[tokio::test]
async fn without_the_section_no_directory_is_there() {
    let site = start(brisk(Flavour::Exchange)).await;

    for path in [
        "/ews/exchange.asmx",
        "/owa/",
        "/ecp/",
        "/oab/x",
        "/Microsoft-Server-ActiveSync",
        "/powershell/",
        "/api/v2.0/me",
        "/ews/healthcheck.htm",
        "/owa/../ews",
        "/other/",
    ] {
        assert_eq!(curl(&site, 1, path, &[]).await.status, 404, "{path}");
    }
    crate::support::nobody_was_reached(&site).await;
}

#[tokio::test]
async fn only_what_the_preset_or_the_site_opens_is_open_and_only_for_its_methods() {
    let site = start_two_homes(
        "{ preset: exchange2013, paths: [{ path: /oab, from: off }, { path: /owa, methods: [GET] }] }",
    )
    .await;

    // The site names no networks inside: nobody is told to be there.
    for path in [
        "/ecp/",
        "/powershell/",
        "/oab/x",
        "/api/v2.0/me",
        "/rpc/",
        "/",
    ] {
        assert_eq!(curl(&site, 1, path, &[]).await.status, 404, "{path}");
    }
    let told = curl(&site, 1, "/owa/", &["--data", "x"]).await;
    assert_eq!((told.status, told.header("allow")), (405, Some("GET")));
    let told = curl(&site, 1, "/ews/", &["-X", "DELETE"]).await;
    assert_eq!(told.header("allow"), Some("GET, HEAD, POST, OPTIONS"));
    assert_eq!(told.header("x-responsecode"), None);
    assert_eq!(curl(&site, 1, "/ews/", &["-X", "TRACE"]).await.status, 405);
    assert_eq!(curl(&site, 1, "/owa/", &[]).await.status, 200);
    for (path, why) in [("/ecp/", "inside_only"), ("/oab/x", "unknown_path")] {
        let line = access_line(&site, |line| line["path"] == path).await;
        assert_eq!(line["refusal"], why);
    }
}

#[tokio::test]
async fn clients_inside_reach_what_is_for_them() {
    let plan = two_homes(EXCHANGE).section("autodiscover", "{ internal_networks: [127.0.0.0/8] }");
    let site = start_planned(plan).await;

    for path in ["/ecp/", "/powershell/?PSVersion=5.1"] {
        let told = curl(&site, 3, path, &["--data", "x"]).await;
        assert_eq!((told.status, told.word("server")), (200, "MBX2"), "{path}");
    }
}

#[tokio::test]
async fn uploads_of_ten_megabytes_arrive_whole_counted_or_in_chunks() {
    let site = start_two_homes(EXCHANGE).await;
    let body: Vec<u8> = (0..10_000_000_u32).map(|n| (n % 251) as u8).collect();
    let file = site.folder().join("upload.bin");
    std::fs::write(&file, &body).unwrap();
    let data = format!("@{}", file.display());
    let digest = mapigate::lab::hex(&mapigate::lab::digest(&body));

    for more in [
        &["-H", "Content-Type: text/xml"][..],
        &["-H", "Transfer-Encoding: chunked"],
        &["-H", "Expect:"],
    ] {
        let mut args = vec!["--data-binary", data.as_str()];
        args.extend_from_slice(more);
        let told = curl(&site, 1, "/ews/exchange.asmx", &args).await;

        assert_eq!(told.status, 200, "{told:?}");
        assert_eq!(told.word("bytes"), "10000000");
        assert_eq!(told.word("digest"), digest);
    }
}

#[tokio::test]
async fn a_body_beyond_the_directorys_own_limit_is_refused_counted_or_in_chunks() {
    let site =
        start_two_homes("{ preset: exchange2019, paths: [{ path: /ews, body: 64KiB }] }").await;
    let body = "x".repeat(200 * 1024);
    let file = site.folder().join("upload.bin");
    std::fs::write(&file, &body).unwrap();
    let data = format!("@{}", file.display());

    let told = curl(&site, 1, "/ews/x", &["--data-binary", &data]).await;
    assert_eq!(told.status, 413);
    let args = ["--data-binary", &data, "-H", "Transfer-Encoding: chunked"];
    let told = curl(&site, 1, "/ews/x", &args).await;
    assert_eq!(told.status, 413, "{told:?}");
    let told = curl(&site, 1, "/ews/x", &["--data-binary", "small"]).await;
    assert_eq!(told.status, 200);
}

#[tokio::test]
async fn a_streaming_subscription_tells_each_news_as_it_comes_and_ends_with_its_database() {
    let mut site = start(brisk(Flavour::Exchange).section("virtual_directories", EXCHANGE)).await;
    let args = ["--data", "<GetStreamingEvents/>"];

    let mut held = Held::begin(&site, 1, "/ews/exchange.asmx", &args);
    held.until("<ConnectionStatus>OK").await;
    for number in 0..3 {
        assert_eq!(site.server("MBX1").unwrap().news(), 1);
        held.until(&format!("<NewMailEvent>{number}<")).await;
    }
    site.move_database("MBX2").await.unwrap();
    let (_, exit) = held.end().await;
    assert_ne!(exit, 0, "the client must see that it broke off");

    let told = curl(&site, 1, "/ews/exchange.asmx", &["--data", "x"]).await;
    assert_eq!(told.word("server"), "MBX2");
    eventually("the leg is closed", || async {
        site.server("MBX1").unwrap().held() == 0
    })
    .await;
}

#[tokio::test]
async fn a_ping_is_held_until_there_is_news_and_told_to_come_again_when_its_database_moves() {
    let mut site = start(brisk(Flavour::Exchange).section("virtual_directories", EXCHANGE)).await;
    let path =
        "/Microsoft-Server-ActiveSync?Cmd=Ping&User=user1%40contoso.test&DeviceId=x&DeviceType=y";
    let is_held = |site: &TestSite, name: &str| site.server(name).unwrap().held() == 1;

    let held = Held::begin(&site, 1, path, &["--data", "ping"]);
    eventually("held", || async { is_held(&site, "MBX1") }).await;
    site.server("MBX1").unwrap().news();
    let (text, exit) = held.end().await;
    assert!(text.starts_with("HTTP/1.1 200") && exit == 0, "{text}");

    let held = Held::begin(&site, 1, path, &["--data", "ping"]);
    eventually("held", || async { is_held(&site, "MBX1") }).await;
    site.move_database("MBX2").await.unwrap();
    let (text, _) = held.end().await;
    assert!(text.starts_with("HTTP/1.1 503"), "{text}");
    assert!(text.contains("Retry-After: 5"), "{text}");

    let options = curl(&site, 1, "/Microsoft-Server-ActiveSync", &["-X", "OPTIONS"]).await;
    assert!(
        options.header("ms-asprotocolversions").is_some(),
        "{options:?}"
    );
}

#[tokio::test]
async fn a_held_request_outlasts_every_other_deadline() {
    let second = std::time::Duration::from_secs(1);
    let plan = two_homes(EXCHANGE).section(
        "limits",
        "{ first_byte_timeout: 500ms, body_timeout: 500ms, idle_timeout: 500ms, head_timeout: 500ms }",
    );
    let site = start_planned(plan).await;

    let mut streams = Held::begin(&site, 1, "/ews/x", &["--data", "<GetStreamingEvents/>"]);
    streams.until("<ConnectionStatus>OK").await;
    let path = "/Microsoft-Server-ActiveSync?Cmd=Ping";
    let mut pings = Held::begin(&site, 1, path, &["--data", "ping"]);
    let quiet = tokio::time::timeout(2 * second, pings.until("HTTP/1.1"));
    assert!(quiet.await.is_err(), "it was not held");

    eventually("both are held", || async {
        site.server("MBX1").unwrap().held() == 2
    })
    .await;
    site.server("MBX1").unwrap().news();
    pings.until("HTTP/1.1 200").await;
    streams.until("<NewMailEvent>0<").await;
}

#[tokio::test]
async fn a_client_that_leaves_a_held_request_closes_its_leg() {
    let site = start_two_homes(EXCHANGE).await;
    let path = "/Microsoft-Server-ActiveSync?Cmd=Ping";

    let held = Held::begin(&site, 1, path, &["--data", "ping"]);
    eventually("held", || async {
        site.server("MBX1").unwrap().held() == 1
    })
    .await;
    drop(held);

    eventually("let go", || async {
        site.server("MBX1").unwrap().held() == 0
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_silent_beyond_the_directorys_patience_has_failed() {
    let site = start_two_homes(
        "{ preset: exchange2019, paths: [{ path: /Microsoft-Server-ActiveSync, timeout: 1s }] }",
    )
    .await;
    let told = curl(
        &site,
        1,
        "/Microsoft-Server-ActiveSync?Cmd=Ping",
        &["--data", "x"],
    )
    .await;
    assert_eq!(told.status, 504);
    // It may have been held for its reasons: nothing else is kept from the server.
    assert_eq!(curl(&site, 1, "/owa/", &[]).await.status, 200);
}

#[tokio::test]
async fn activesync_that_names_another_server_names_us() {
    let site = start_two_homes(EXCHANGE).await;
    let args = ["--data", "x", "-H", "X-Lab-Elsewhere: 1"];
    let told = curl(&site, 1, "/Microsoft-Server-ActiveSync?Cmd=Sync", &args).await;
    let url = format!("https://{HOST}/Microsoft-Server-ActiveSync");
    assert_eq!(
        (told.status, told.header("x-ms-location")),
        (451, Some(url.as_str()))
    );
}

#[tokio::test]
async fn a_device_is_sent_to_the_name_of_its_mailbox_server_and_served_there() {
    let (us, eu) = ("mail.mbx1.contoso.test", "mail.mbx2.contoso.test");
    let mut plan = two_homes(EXCHANGE).section(
        "names",
        &format!("[{{ host: {HOST} }}, {{ host: {us} }}, {{ host: {eu}, internal_url: 'https://{eu}:8443/mapi' }}]"),
    );
    plan.more_names = vec![us.to_owned(), eu.to_owned()];
    plan.server_keys = "url_name: mail.{server}.contoso.test".to_owned();
    let mut site = start_planned(plan).await;
    let device = "/Microsoft-Server-ActiveSync?Cmd=Sync";
    let ask = async |site: &TestSite, number: usize, name: &str, path: &str, args: &[&str]| {
        let host = format!("Host: {name}");
        curl(site, number, path, &[&["-H", &host], args].concat()).await
    };
    let location = |told: &Told| told.header("x-ms-location").map(str::to_owned);

    for (number, asked, server, at) in [
        (
            1,
            HOST,
            "",
            "https://mail.mbx1.contoso.test/Microsoft-Server-ActiveSync",
        ),
        (
            1,
            eu,
            "",
            "https://mail.mbx1.contoso.test/Microsoft-Server-ActiveSync",
        ),
        (1, us, "MBX1", ""),
        (
            3,
            us,
            "",
            "https://mail.mbx2.contoso.test:8443/Microsoft-Server-ActiveSync",
        ),
        (3, eu, "MBX2", ""),
    ] {
        for args in [&["--data", "x"][..], &["-X", "OPTIONS"]] {
            let told = ask(&site, number, asked, device, args).await;
            let expected = match at {
                "" => (200, None),
                at => (451, Some(at.to_owned())),
            };
            assert_eq!((told.status, location(&told)), expected, "{number} {asked}");
            if args.contains(&"--data") {
                assert_eq!(told.word("server"), server);
            }
        }
    }
    // Nobody else understands that.
    for path in ["/ews/exchange.asmx", "/owa/"] {
        let told = ask(&site, 1, eu, path, &[]).await;
        assert_eq!((told.status, told.word("server")), (200, "MBX1"), "{path}");
    }
    // Who does not say who he is learns nothing of where anybody is.
    let host = format!("Host: {eu}");
    let stranger = curl_as_stranger(&site, device, &["--data", "x", "-H", &host]).await;
    assert_eq!((stranger.status, location(&stranger)), (401, None));

    // A server that is down is no reason to go elsewhere.
    site.kill_server("MBX1").await.unwrap();
    eventually("the server counts as down", || async {
        ask(&site, 1, eu, device, &["--data", "x"]).await.status == 503
    })
    .await;
}

#[tokio::test]
async fn an_explicit_logon_chooses_the_server_and_not_the_user() {
    let site = start_two_homes(EXCHANGE).await;

    for path in [
        "/owa/user3@contoso.test/",
        "/owa/user3%40contoso.test/x",
        "/ews/User3@Contoso.test/Exchange.asmx",
    ] {
        let told = curl(&site, 1, path, &[]).await;
        assert_eq!((told.status, told.word("server")), (200, "MBX2"), "{path}");
        assert_eq!((told.word("user"), told.word("target")), (&*user(1), path));
    }
    let told = curl(&site, 1, "/owa/nobody@elsewhere.test/", &[]).await;
    assert_eq!(told.status, 404);
    assert!(
        told.body.contains("There is no such mailbox here."),
        "{told:?}"
    );

    let listed = two_homes(EXCHANGE).section("directory", "{ file: homes.yaml, access: listed }");
    let site = start_planned(listed).await;
    let told = curl(&site, 1, "/owa/user3@contoso.test/", &[]).await;
    assert_eq!(told.status, 403, "{told:?}");
    assert_eq!(
        curl(&site, 3, "/owa/user3@contoso.test/", &[]).await.status,
        200
    );
}

#[tokio::test]
async fn a_header_chooses_a_mailbox_only_where_the_site_lets_it() {
    let header = ["-H", "X-AnchorMailbox: SMTP:User3@contoso.test"];
    let site = start_two_homes(EXCHANGE).await;
    let told = curl(&site, 1, "/ews/x", &header).await;
    assert_eq!(told.word("server"), "MBX1");

    let site =
        start_two_homes("{ preset: exchange2019, paths: [{ path: /ews, anchor: [header] }] }")
            .await;
    let told = curl(&site, 1, "/ews/x", &header).await;
    assert_eq!(told.word("server"), "MBX2");
    let heads = site.server("MBX2").unwrap().heads();
    let heads = String::from_utf8_lossy(&heads.concat()).into_owned();
    assert!(
        heads.contains("X-AnchorMailbox: user3@contoso.test\r\n"),
        "{heads}"
    );
    for (value, status) in [("nobody@elsewhere.test", 404), ("mbx2", 400)] {
        let header = format!("X-AnchorMailbox: {value}");
        let told = curl(&site, 1, "/ews/x", &["-H", &header]).await;
        assert_eq!(told.status, status, "{value}");
    }
    // Only where it is allowed.
    let told = curl(&site, 1, "/owa/", &header).await;
    assert_eq!(told.word("server"), "MBX1");
    assert_eq!(
        curl(&site, 1, "/ews/user3@contoso.test/x", &[])
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn clients_of_web_services_keep_to_a_server_by_a_cookie_that_only_we_can_write() {
    let site =
        start_two_homes("{ preset: exchange2019, paths: [{ path: /ews, anchor: [header] }] }")
            .await;
    let asks = [
        "-H",
        "X-AnchorMailbox: user3@contoso.test",
        "-H",
        "X-PreferServerAffinity: true",
    ];
    let told = curl(&site, 1, "/ews/x", &asks).await;
    let cookie = told.header("set-cookie").unwrap();
    let all: Vec<_> = told
        .head
        .lines()
        .filter(|line| line.contains("X-BackEndOverrideCookie"))
        .collect();
    assert_eq!(all.len(), 1, "{cookie}");
    let value = all[0]
        .split_once('=')
        .unwrap()
        .1
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    assert!(!value.contains("MBX"));

    let with = |value: &str| format!("Cookie: X-BackEndOverrideCookie={value}");
    let server_of = async |number: usize, value: &str| {
        let told = curl(&site, number, "/ews/x", &["-H", &with(value)]).await;
        assert_eq!(told.status, 200);
        told.word("server").to_owned()
    };
    assert_eq!(server_of(1, &value).await, "MBX2");
    // It is one user's, and whole, and nothing that a server would write.
    assert_eq!(server_of(2, &value).await, "MBX1");
    for at in [0, value.len() / 2, value.len() - 2] {
        let mut letters = value.clone().into_bytes();
        letters[at] = if letters[at] == b'A' { b'B' } else { b'A' };
        let tampered = String::from_utf8(letters).unwrap();
        assert_eq!(server_of(1, &tampered).await, "MBX1");
    }
    for forged in ["MBX2~1942062522", "mbx2.contoso.test:443~1", ""] {
        assert_eq!(server_of(1, forged).await, "MBX1");
    }
    for server in site.servers() {
        let heads = String::from_utf8_lossy(&server.heads().concat()).into_owned();
        assert!(!heads.contains("X-BackEndOverrideCookie"), "{heads}");
    }
}

#[tokio::test]
async fn a_directory_that_a_server_takes_out_of_service_gets_no_requests_and_the_others_do() {
    let site = start_two_homes(EXCHANGE).await;
    let page = |path: &'static str| {
        let site = &site;
        async move { curl_as_stranger(site, path, &[]).await }
    };
    let told = page("/ews/healthcheck.htm").await;
    assert_eq!(told.status, 200);
    assert_eq!(told.body, format!("200 OK<br/>{HOST}"));

    site.server("MBX1").unwrap().serve("ews", false);
    eventually("MBX1 does not serve it", || async {
        curl(&site, 1, "/ews/x", &[]).await.status == 503
    })
    .await;
    assert_eq!(curl(&site, 3, "/ews/x", &[]).await.status, 200);
    assert_eq!(curl(&site, 1, "/owa/", &[]).await.status, 200);
    assert_eq!(page("/ews/healthcheck.htm").await.status, 200);
    let up = async |server: &str, vdir: &str| {
        metric(
            &site,
            &format!("mapigate_vdir_up{{server=\"{server}\",vdir=\"{vdir}\"}}"),
        )
        .await
    };
    assert_eq!(up("MBX1", "ews").await.as_deref(), Some("0"));
    assert_eq!(up("MBX1", "owa").await.as_deref(), Some("1"));

    site.server("MBX2").unwrap().serve("ews", false);
    eventually("the page says so", || async {
        let told = page("/ews/healthcheck.htm").await;
        told.status == 503 && told.body.contains("no mailbox server serves it")
    })
    .await;
    assert_eq!(page("/owa/HealthCheck.htm").await.status, 200);
    assert_eq!(page("/autodiscover/healthcheck.htm").await.status, 200);

    site.server("MBX1").unwrap().serve("ews", true);
    eventually("MBX1 serves it again", || async {
        page("/ews/healthcheck.htm").await.status == 200
    })
    .await;
    assert_eq!(curl(&site, 1, "/ews/x", &[]).await.status, 200);
}

#[tokio::test]
async fn outlook_anywhere_has_a_health_page_and_its_own_looks_at_the_servers() {
    let site = start_planned(two_homes(EXCHANGE).section(
        "health",
        "{ interval: 100ms, timeout: 100ms, rpc_page: /rpc/healthcheck.htm, panic_threshold: 0 }",
    ))
    .await;
    let site = &site;
    let page = || curl_as_stranger(site, "/rpc/healthcheck.htm", &[]);
    let echo = async |number: usize| {
        let path = format!("/rpc/rpcproxy.dll?{}:6001", mailbox(number));
        let told = curl(
            site,
            number,
            &path,
            &["-X", "RPC_IN_DATA", "--data", "xxxx"],
        )
        .await;
        told.status
    };
    assert_eq!(
        (page().await.status, echo(1).await, echo(3).await),
        (200, 200, 200)
    );

    site.server("MBX1").unwrap().serve("rpc", false);
    eventually("MBX1 gets no channels", || async { echo(1).await == 503 }).await;
    assert_eq!((page().await.status, echo(3).await), (200, 200));
    assert_eq!(curl(site, 1, "/owa/", &[]).await.status, 200);
    let up = metric(site, "mapigate_vdir_up{server=\"MBX1\",vdir=\"rpc\"}").await;
    assert_eq!(up.as_deref(), Some("0"));

    site.server("MBX2").unwrap().serve("rpc", false);
    eventually("the page says so", || async {
        let told = page().await;
        told.status == 503 && told.body.contains("no mailbox server serves it")
    })
    .await;
    site.server("MBX1").unwrap().serve("rpc", true);
    eventually("MBX1 serves it again", || async { echo(1).await == 200 }).await;
}

#[tokio::test]
async fn where_outlook_anywhere_is_off_its_health_page_says_so() {
    let plan = two_homes(EXCHANGE).section("autodiscover", "{ outlook_anywhere: false }");
    let site = start_planned(plan).await;
    let told = curl_as_stranger(&site, "/rpc/healthcheck.htm", &[]).await;
    assert_eq!(told.status, 503);
    assert!(told.body.contains("not served here"), "{}", told.body);
}

#[tokio::test]
async fn a_health_page_needs_a_server_that_is_up_and_a_directory_that_is_served() {
    let mut site = start_planned(two_homes("{ preset: gromox }").section(
        "health",
        "{ interval: 100ms, timeout: 100ms, panic_threshold: 0 }",
    ))
    .await;
    let told = curl_as_stranger(&site, "/owa/healthcheck.htm", &[]).await;
    assert_eq!(told.status, 503);
    assert!(told.body.contains("not served here"));
    assert_eq!(
        curl_as_stranger(&site, "/ews/healthcheck.htm", &["-0", "--no-alpn"])
            .await
            .status,
        200
    );
    let told = curl_as_stranger(&site, "/ews/healthcheck.htm", &["-I"]).await;
    assert_eq!((told.status, told.body.trim()), (200, ""));

    for name in ["MBX1", "MBX2"] {
        site.kill_server(name).await.unwrap();
    }
    eventually("nobody is up", || async {
        let told = curl_as_stranger(&site, "/ews/healthcheck.htm", &[]).await;
        told.status == 503 && told.body.contains("no mailbox server is up")
    })
    .await;
}

#[tokio::test]
async fn a_head_keeps_its_length_and_a_kept_connection_its_place() {
    let site = start_two_homes(EXCHANGE).await;
    let told = curl(&site, 1, "/oab/x/oab.xml", &["-I"]).await;
    assert_eq!(told.status, 200);
    assert!(
        told.header("content-length")
            .unwrap()
            .parse::<u32>()
            .unwrap()
            > 50
    );

    // One connection of a client carries MAPI and the rest, as WinHTTP does it.
    let mut raw = Raw::open(&site).await;
    let ask = |line: &str| Ask::new(1, "PING").line(format!("{line} HTTP/1.1")).bytes();
    // The end of the lab's page for an empty body.
    let page = "afbf4c8996fb924\r\n";
    let mapi = format!("POST /mapi/emsmdb/?MailboxId={}", mailbox(1));
    for (line, mark) in [
        ("HEAD /oab/x", "\r\n\r\n"),
        ("GET /ews/x", page),
        ("OPTIONS /Microsoft-Server-ActiveSync", "\r\n\r\n"),
        ("GET /owa/", page),
        (mapi.as_str(), "X-ResponseCode: 0"),
    ] {
        raw.send(&ask(line)).await;
        let text = raw.until(mark).await;
        assert!(text.starts_with("HTTP/1.1 200"), "{line}: {text}");
    }
}

#[tokio::test]
async fn a_websocket_is_carried_where_the_directory_has_them() {
    let site = start_two_homes(EXCHANGE).await;
    let ask = |path: &str, upgrade: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {}\r\nConnection: keep-alive, Upgrade\r\n\
             Upgrade: {upgrade}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            credentials(3)
        )
    };
    let frame = |text: &str| {
        let mask = [1, 2, 3, 4];
        let masked = text.bytes().zip(mask.into_iter().cycle());
        let mut bytes = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap()];
        bytes.extend(mask);
        bytes.extend(masked.map(|(byte, mask)| byte ^ mask));
        bytes
    };

    let mut raw = Raw::open(&site).await;
    raw.send(ask("/owa/ws", "websocket").as_bytes()).await;
    // The proof of RFC 6455 section 1.3 for the key of its example.
    let head = raw.until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(
        head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
        "{head}"
    );
    assert!(
        head.contains("Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        "{head}"
    );
    assert!(!head.contains("mbx"), "{head}");
    for word in ["hello", "again"] {
        raw.send(&frame(word)).await;
        raw.until(word).await;
    }
    raw.send(&[0x88, 0x80, 1, 2, 3, 4]).await;
    raw.rest().await;

    // Who is revoked is not heard any more on a tunnel that is open.
    let mut raw = Raw::open(&site).await;
    raw.send(ask("/owa/ws", "websocket").as_bytes()).await;
    raw.until("\r\n\r\n").await;
    let admin = site.gate().unwrap().admin();
    let revoked = admin.post(&format!("/revoke?user={}", user(3))).await;
    assert_eq!(revoked.unwrap().status, 200);
    raw.send(&frame("late")).await;
    raw.rest().await;

    // Another protocol, and a directory without: an ordinary request.
    for (path, upgrade) in [("/owa/ws", "h2c"), ("/ews/ws", "websocket")] {
        let mut raw = Raw::open(&site).await;
        raw.send(ask(path, upgrade).as_bytes()).await;
        let text = raw.until("target=").await;
        assert!(text.starts_with("HTTP/1.1 200"), "{path} {upgrade}: {text}");
    }
    let line = access_line(&site, |line| line["status"] == 101).await;
    assert_eq!(
        (&line["ending"], &line["path"]),
        (&"ok".into(), &"/owa/ws".into())
    );
}

fn forms() -> Plan {
    let directories = "{ preset: exchange2019, paths: [{ path: /owa, authentication: [server] }] }";
    two_homes(directories).each(|server| server.forms = true)
}

#[tokio::test]
async fn the_servers_own_form_signs_a_stranger_on_and_a_cookie_leads_back() {
    let site = start_planned(forms()).await;
    let jar: PathBuf = site.folder().join("jar");
    let jar = jar.to_str().unwrap();
    let cookies = ["-b", jar, "-c", jar];

    let told = curl_as_stranger(&site, "/owa/", &cookies).await;
    let form = format!("https://{HOST}/owa/auth/logon.aspx?reason=0");
    assert_eq!(
        (told.status, told.header("location")),
        (302, Some(form.as_str()))
    );
    assert!(
        told.head.contains("Set-Cookie: MapigateRoute="),
        "{}",
        told.head
    );
    let page = curl_as_stranger(&site, "/owa/auth/logon.aspx", &cookies).await;
    let home = page.body.rsplit(' ').next().unwrap().to_owned();
    assert!(!page.head.contains("MapigateRoute"), "the cookie was good");

    let mut wrong = vec!["--data", "username=user3%40contoso.test&password=wrong"];
    wrong.extend(cookies);
    let told = curl_as_stranger(&site, "/owa/auth.owa", &wrong).await;
    assert!(told.header("location").unwrap().ends_with("reason=2"));
    let mut right = vec![
        "--data",
        "username=user3%40contoso.test&password=correct+horse",
    ];
    right.extend(cookies);
    let told = curl_as_stranger(&site, "/owa/auth.owa", &right).await;
    assert!(
        told.header("location")
            .unwrap()
            .ends_with(&format!("{HOST}/owa/")),
        "{told:?}"
    );
    for _ in 0..3 {
        let told = curl_as_stranger(&site, "/owa/", &cookies).await;
        assert_eq!(told.status, 200, "{told:?}");
        assert_eq!(
            (told.word("user"), told.word("server")),
            (&*user(3), &*home)
        );
    }
}

#[tokio::test]
async fn strangers_share_no_connection_with_anybody_and_show_nothing() {
    let mut plan = forms();
    plan.server_keys = "authenticates: connections".to_owned();
    let plan = plan.each(|server| {
        server.authenticate = mapigate::lab::mailbox_server::Authenticate::FirstOfConnection;
        server.forms = false;
    });
    let site = start_planned(plan).await;

    // The server would take whoever comes on a connection of user 1 for user 1.
    for _ in 0..3 {
        assert_eq!(curl(&site, 1, "/ews/x", &[]).await.status, 200);
        assert_eq!(curl(&site, 3, "/ews/x", &[]).await.status, 200);
        let told = curl_as_stranger(&site, "/owa/", &[]).await;
        assert_eq!(told.status, 401);
        assert_eq!(told.header("www-authenticate"), None);
        // Nor does what a stranger shows prove a connection that strangers share.
        assert_eq!(curl(&site, 1, "/owa/", &[]).await.status, 401);
    }
    let trips = metric(&site, "mapigate_identity_fence_trips_total").await;
    assert_eq!(trips.as_deref(), Some("0"));
}

#[tokio::test]
async fn a_request_without_a_logon_is_challenged_by_what_the_directory_accepts() {
    let site = start_two_homes(EXCHANGE).await;
    for path in ["/ews/x", "/owa/", "/Microsoft-Server-ActiveSync", "/oab/x"] {
        let told = curl_as_stranger(&site, path, &[]).await;
        assert_eq!(
            told.status,
            if path.contains("Sync") { 405 } else { 401 },
            "{path}"
        );
        if told.status == 401 {
            assert_eq!(
                told.header("www-authenticate"),
                Some("Basic realm=\"mail\", charset=\"UTF-8\"")
            );
        }
    }
    let told = curl_as_stranger(&site, "/ews/x", &["-u", "user1@contoso.test:wrong"]).await;
    assert_eq!(told.status, 401);
    assert_eq!(site.server("MBX1").unwrap().counters().wrong_passwords, 0);
}

#[tokio::test]
async fn a_request_that_no_server_took_goes_nowhere_and_one_that_was_taken_is_not_repeated() {
    let mut site = start_planned(
        two_homes(EXCHANGE).section("health", "{ interval: 1h, panic_threshold: 0 }"),
    )
    .await;
    assert_eq!(curl(&site, 1, "/ews/x", &[]).await.status, 200);
    site.kill_server("MBX1").await.unwrap();
    let told = curl(&site, 1, "/ews/x", &["--data", "x"]).await;
    assert_eq!(told.status, 503, "{told:?}");
    assert_eq!(curl(&site, 3, "/ews/x", &[]).await.status, 200);
    site.revive_server("MBX1").await.unwrap();
    eventually("it is back", || async {
        curl(&site, 1, "/ews/x", &[]).await.status == 200
    })
    .await;
}
