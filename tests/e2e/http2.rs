//! HTTP/2 at the front: what it carries, what it sends away, and that nothing of one request reaches another.

mod accounts;
mod attacks;
pub(crate) mod client;
mod floods;

use crate::directories::{Held, curl, curl_as_stranger, start_planned, two_homes};
use crate::rig::{PATIENCE, Puppet, in_time};
use crate::support::{TestSite, credentials, eventually, start, start_in};
use bytes::Bytes;
use client::{Client, END_STREAM, Ending, Frame, Raw, request, rest, send_all, tls};
use h2::Reason;
use http::Request;
use mapigate::lab::Authority;
use mapigate::lab::site::{HOST, Plan, mailbox, user};
use rustix::process::Signal;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const NAMES: &str = "[{ host: mail.contoso.test, http2: true }]";
const EXCHANGE: &str = "{ preset: exchange2019 }";

/// Users 1 and 2 live on MBX1, user 3 on MBX2; the name offers HTTP/2.
fn plan() -> Plan {
    two_homes(EXCHANGE).section("names", NAMES)
}

async fn site() -> TestSite {
    start_planned(plan()).await
}

/// A site whose server is a puppet, without health pages.
async fn site_of(puppet: &Puppet) -> TestSite {
    let directories = "{ preset: gromox }";
    let plan = puppet.plan("").section("virtual_directories", directories);
    start(plan.section("names", NAMES)).await
}

async fn metric(site: &TestSite, line: &str) -> f64 {
    let page = site.gate().unwrap().admin().get("/metrics").await.unwrap();
    let mut lines = page.text.lines();
    let value = lines.find_map(|it| it.strip_prefix(line)?.trim().parse().ok());
    value.unwrap_or_default()
}

async fn line_with(
    site: &TestSite,
    is_it: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    let lines = || site.access_lines().unwrap().into_iter();
    eventually("an access line", || async {
        lines().any(|line| is_it(&line))
    })
    .await;
    lines().find(|line| is_it(line)).unwrap()
}

/// Another name of the site, with a certificate of its own, that does not offer HTTP/2.
const OTHER: &str = "owa.contoso.test";

async fn two_names() -> (TestSite, Authority) {
    let folder = tempfile::tempdir().unwrap();
    let other = Authority::new("other").unwrap();
    let credential = other.server(&[OTHER]).unwrap();
    credential.write(folder.path(), "owa").unwrap();
    let homes = "mailboxes: [{ id: 00000000-0000-4000-8000-000000000001@contoso.test, addresses: [user1@contoso.test], database: DB07 }]";
    std::fs::write(folder.path().join("homes.yaml"), homes).unwrap();
    let plan = plan()
        .section(
            "names",
            &format!("[{{ host: {HOST}, http2: true }}, {{ host: {OTHER} }}]"),
        )
        .section(
            "listeners",
            "[{ address: '127.0.0.1:0', certificates: [{ chain: mail.pem, key: mail.key }, { chain: owa.pem, key: owa.key }] }]",
        );
    (start_in(folder, plan).await, other)
}

/// Asks as user 1 by frames of the test's own, each field as it is written but for capitals; the answer as
/// text, 400 where the stream was broken off.
pub(crate) async fn ask_by_hand(
    site: &TestSite,
    method: &str,
    target: &str,
    fields: &[&str],
) -> String {
    let shows = fields
        .iter()
        .any(|field| field.starts_with("Authorization"));
    let own = credentials(1);
    let pairs = fields.iter().filter_map(|field| field.split_once(": "));
    let mut pairs: Vec<_> = pairs
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    if !shows {
        pairs.push(("authorization".to_owned(), own));
    }
    let pseudo = [
        (":method", method),
        (":scheme", "https"),
        (":authority", HOST),
        (":path", target),
    ];
    let named = pairs.iter().map(|(name, value)| (&**name, &**value));
    let all: Vec<(&[u8], &[u8])> = pseudo
        .into_iter()
        .chain(named)
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect();
    let mut raw = Raw::open(site).await;
    raw.send(&[Frame::head(1, END_STREAM, &all)]).await;
    match raw.ending(1).await {
        Ending::Answered(status, body) => format!("HTTP/2 {status} \r\n\r\n{body}"),
        Ending::Reset(1) | Ending::Farewell(1) => "HTTP/2 400 \r\n\r\n".to_owned(),
        other => panic!("{method} {target} {fields:?}: {other:?}"),
    }
}

/// The head of an answer to user 1, in small letters.
pub(crate) async fn head_of(site: &TestSite, method: &str, path: &str) -> String {
    let mut client = Client::open(site).await;
    let told = client.ask(request(method, path, 1), b"").await.unwrap();
    assert_eq!(told.status, 200, "{path}");
    let lines = told.headers.iter();
    let lines = lines.map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()));
    lines.collect::<String>().to_lowercase()
}

#[tokio::test]
async fn http2_is_agreed_on_only_by_names_that_offer_it() {
    let (site, other) = two_names().await;
    let config = |protocols: &[&[u8]]| {
        let mut config = rustls::ClientConfig::clone(&other.client_config().unwrap());
        config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
        config
    };
    let agreed = |tls: &tokio_rustls::client::TlsStream<tokio::net::TcpStream>| {
        tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)
    };
    let (h2, http11) = (&b"h2"[..], &b"http/1.1"[..]);

    assert_eq!(
        agreed(&tls(&site, HOST, &[h2, http11]).await).as_deref(),
        Some(h2)
    );
    assert_eq!(
        agreed(&tls(&site, HOST, &[http11]).await).as_deref(),
        Some(http11)
    );
    assert_eq!(agreed(&tls(&site, HOST, &[]).await), None);
    let both = client::tls_with(&site, OTHER, config(&[h2, http11]))
        .await
        .unwrap();
    assert_eq!(agreed(&both).as_deref(), Some(http11));
    assert!(client::tls_with(&site, OTHER, config(&[h2])).await.is_err());
}

#[tokio::test]
async fn without_a_word_nobody_is_offered_http2() {
    let site = start_planned(two_homes(EXCHANGE)).await;
    let tls = tls(&site, HOST, &[b"h2", b"http/1.1"]).await;
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn a_request_by_http2_goes_where_it_would_go_by_http11() {
    let site = site().await;

    for (number, server) in [(1, "MBX1"), (3, "MBX2"), (2, "MBX1")] {
        let path = "/EWS/Exchange.asmx?x=%2F&y=a+b";
        let told = curl(&site, number, path, &["--http2", "--data", "<GetFolder/>"]).await;

        assert!(told.head.starts_with("HTTP/2 200"), "{told:?}");
        assert_eq!(told.word("server"), server);
        assert_eq!(told.word("user"), user(number));
        assert_eq!(told.word("target"), path);
        assert_eq!(told.word("bytes"), "12");
        assert!(!told.head.to_lowercase().contains("mbx"), "{}", told.head);
        assert!(
            !told.head.to_lowercase().contains("connection"),
            "{}",
            told.head
        );
    }
    let line = line_with(&site, |line| line["server"] == "MBX2").await;
    assert_eq!(
        (&line["protocol"], &line["endpoint"]),
        (&"h2".into(), &"ews".into())
    );
    assert_eq!(line["route"], "own_mailbox");
    assert!(line["handshake_in"].as_u64().unwrap() > 500, "{line}");
    assert_eq!(metric(&site, "mapigate_http2_connections_total").await, 3.0);
    assert_eq!(metric(&site, "mapigate_http2_streams_total").await, 3.0);

    let told = curl(&site, 1, "/ews/x", &["--http1.1"]).await;
    assert!(told.head.starts_with("HTTP/1.1 200"), "{told:?}");
    let line = line_with(&site, |line| line["path"] == "/ews/x").await;
    assert_eq!(line["protocol"], serde_json::Value::Null);
}

#[tokio::test]
async fn uploads_arrive_whole_counted_or_not_and_their_answer_is_the_servers() {
    let site = site().await;
    let body: Vec<u8> = (0..10_000_000_u32).map(|n| (n % 251) as u8).collect();
    let digest = mapigate::lab::hex(&mapigate::lab::digest(&body));
    let file = site.folder().join("upload.bin");
    std::fs::write(&file, &body).unwrap();
    let data = format!("@{}", file.display());

    for more in [
        &["-H", "Content-Type: text/xml"][..],
        &["-H", "Expect: 100-continue"],
        &["-H", "Content-Length:"],
    ] {
        let mut args = vec!["--http2", "--data-binary", data.as_str()];
        args.extend_from_slice(more);
        let told = curl(&site, 1, "/ews/exchange.asmx", &args).await;
        assert!(told.head.starts_with("HTTP/2 200"), "{told:?}");
        assert_eq!(
            (told.word("bytes"), told.word("digest")),
            ("10000000", digest.as_str())
        );
    }
    let mut client = Client::open(&site).await;
    let told = client
        .ask(request("POST", "/ews/x", 1), &body[..700_000])
        .await
        .unwrap();
    assert_eq!((told.status, told.word("bytes").as_str()), (200, "700000"));
}

#[tokio::test]
async fn a_body_beyond_the_directorys_limit_is_refused_counted_or_not() {
    let small = "{ preset: exchange2019, paths: [{ path: /ews, body: 64KiB }] }";
    let site = start_planned(two_homes(small).section("names", NAMES)).await;
    let body = vec![b'x'; 200 * 1024];
    let mut client = Client::open(&site).await;

    let mut counted = request("POST", "/ews/x", 1);
    counted
        .headers_mut()
        .insert("content-length", body.len().into());
    assert_eq!(
        answer_before_the_end(&mut client, counted, &body).await,
        413
    );
    let uncounted = request("POST", "/ews/x", 1);
    assert_eq!(
        answer_before_the_end(&mut client, uncounted, &body).await,
        413
    );
    let told = client
        .ask(request("POST", "/ews/x", 1), b"small")
        .await
        .unwrap();
    assert_eq!(told.status, 200);
}

/// The status of an answer that may come before the request has been sent.
async fn answer_before_the_end(client: &mut Client, request: Request<()>, body: &[u8]) -> u16 {
    let (answer, mut send) = client.begin(request, true).await.unwrap();
    let body = body.to_vec();
    let sending = tokio::spawn(async move { send_all(&mut send, &body).await });
    let answer = in_time("an answer", answer).await.unwrap();
    let _early = in_time("the rest", sending).await.unwrap();
    answer.status().as_u16()
}

#[tokio::test]
async fn heads_and_empty_answers_are_what_they_are_by_http11() {
    let site = site().await;
    let told = curl(&site, 1, "/oab/x/oab.xml", &["--http2", "-I"]).await;
    assert!(told.head.starts_with("HTTP/2 200"), "{told:?}");
    assert!(
        told.header("content-length")
            .unwrap()
            .parse::<u32>()
            .unwrap()
            > 50
    );

    let options = curl(
        &site,
        1,
        "/Microsoft-Server-ActiveSync",
        &["--http2", "-X", "OPTIONS"],
    )
    .await;
    assert!(
        options.header("ms-asprotocolversions").is_some(),
        "{options:?}"
    );

    let told = curl_as_stranger(&site, "/ews/x", &["--http2"]).await;
    assert_eq!(told.status, 401);
    assert!(
        told.header("www-authenticate")
            .unwrap()
            .starts_with("Basic")
    );
    let told = curl_as_stranger(&site, "/ews/healthcheck.htm", &["--http2"]).await;
    assert_eq!(
        (told.status, told.body.as_str()),
        (200, "200 OK<br/>mail.contoso.test")
    );
    let told = curl(&site, 1, "/nowhere/", &["--http2"]).await;
    assert!(told.head.starts_with("HTTP/2 404"), "{told:?}");
    // A client may say only behind the head that there is no body.
    let mut client = Client::open(&site).await;
    let (answer, mut send) = client
        .begin(request("GET", "/ews/x", 1), true)
        .await
        .unwrap();
    send.send_data(Bytes::new(), true).unwrap();
    assert_eq!(in_time("an answer", answer).await.unwrap().status(), 200);
    let told = client.ask(request("GET", "/ews/x", 1), b"x").await.unwrap();
    assert_eq!(told.status, 400, "{}", told.text());
}

#[tokio::test]
async fn held_requests_are_held_and_told_each_piece_as_it_comes() {
    let mut site = start_planned(plan()).await;
    let mut held = Held::begin(
        &site,
        1,
        "/ews/x",
        &["--http2", "--data", "<GetStreamingEvents/>"],
    );
    held.until("<ConnectionStatus>OK").await;
    for number in 0..3 {
        assert_eq!(site.server("MBX1").unwrap().news(), 1);
        held.until(&format!("<NewMailEvent>{number}<")).await;
    }
    let path =
        "/Microsoft-Server-ActiveSync?Cmd=Ping&User=user1%40contoso.test&DeviceId=x&DeviceType=y";
    let ping = Held::begin(&site, 1, path, &["--http2", "--data", "ping"]);
    eventually("held", || async {
        site.server("MBX1").unwrap().held() == 2
    })
    .await;
    site.server("MBX1").unwrap().news();
    let (text, exit) = ping.end().await;
    assert!(text.starts_with("HTTP/2 200") && exit == 0, "{text}");
    held.until("<NewMailEvent>3<").await;

    site.kill_server("MBX1").await.unwrap();
    let (_, exit) = held.end().await;
    assert_eq!(exit, 92, "curl must see that the stream broke off");
}

#[tokio::test]
async fn what_has_connections_of_its_own_comes_again_by_http11() {
    let site = site().await;
    let path = format!("/mapi/emsmdb/?MailboxId={}", mailbox(1));
    let fields = [
        "-X",
        "POST",
        "-H",
        "X-RequestType: PING",
        "-H",
        "X-RequestId: {A}:1",
        "-H",
        "X-ClientInfo: {B}:1",
        "-H",
        "Content-Type: application/mapi-http",
        "-H",
        "X-ClientApplication: Outlook/16.0.0.0",
        "-d",
        "",
    ];
    let mut args = vec!["--http2"];
    args.extend(fields);

    let told = curl(&site, 1, &path, &args).await;

    assert!(told.head.starts_with("HTTP/1.1 200"), "{told:?}");
    assert_eq!(told.header("x-responsecode"), Some("0"));
    let sent_away = line_with(&site, |line| line["refusal"] == "needs_http11").await;
    assert_eq!(sent_away["endpoint"], "emsmdb");
    assert_eq!(sent_away["type"], "PING");
    assert_eq!(sent_away["protocol"], "h2");
    assert_eq!(
        sent_away["why"],
        "to come again by HTTP/1.1: MAPI over HTTP has connections of its own"
    );
    assert_eq!(sent_away.get("server"), None);
    let again = line_with(&site, |line| line["server"] == "MBX1").await;
    assert_eq!(again.get("protocol"), None);
    let resets = "mapigate_http2_resets_total{by=\"us\",reason=\"http_1_1_required\"}";
    assert_eq!(metric(&site, resets).await, 1.0);
    assert_eq!(
        metric(&site, "mapigate_refusals_total{reason=\"needs_http11\"}").await,
        1.0
    );
}

#[tokio::test]
async fn nothing_that_is_sent_away_reaches_a_server() {
    let site = site().await;
    let mut client = Client::open(&site).await;
    let away = Some(Reason::HTTP_1_1_REQUIRED);
    for kind in [
        "Connect",
        "Execute",
        "NotificationWait",
        "PING",
        "Bind",
        "nonsense",
    ] {
        for endpoint in ["emsmdb", "nspi"] {
            let path = format!("/mapi/{endpoint}/?MailboxId={}", mailbox(1));
            let mut asked = request("POST", &path, 1);
            asked
                .headers_mut()
                .insert("x-requesttype", kind.parse().unwrap());
            assert_eq!(client.reason(asked).await, away, "{kind} {endpoint}");
        }
    }
    for method in ["RPC_IN_DATA", "RPC_OUT_DATA"] {
        for folder in ["rpc", "rpcwithcert"] {
            let path = format!("/{folder}/rpcproxy.dll?{}:6001", mailbox(1));
            assert_eq!(
                client.reason(request(method, &path, 1)).await,
                away,
                "{method} {folder}"
            );
        }
    }
    for shown in ["Negotiate YII=", "NTLM TlRMTVNTUAAB", "negotiate", "ntlm x"] {
        for path in [
            "/ews/x",
            "/owa/",
            "/autodiscover/autodiscover.xml",
            "/ews/healthcheck.htm",
        ] {
            let method = if path.ends_with("xml") { "POST" } else { "GET" };
            let mut asked = request(method, path, 1);
            asked
                .headers_mut()
                .insert("authorization", shown.parse().unwrap());
            assert_eq!(client.reason(asked).await, away, "{shown} {path}");
        }
    }
    for server in site.servers() {
        let heads = server.heads().into_iter();
        let mut texts = heads.map(|head| String::from_utf8_lossy(&head).into_owned());
        assert!(texts.all(|head| head.contains("User-Agent: mapigate-health")));
    }
    // The connection goes on.
    assert_eq!(
        client
            .ask(request("GET", "/ews/x", 1), b"")
            .await
            .unwrap()
            .status,
        200
    );
}

#[tokio::test]
async fn directories_that_offer_ntlm_are_sent_away_and_the_others_are_not() {
    let directories = "{ preset: exchange2019, paths: [{ path: /ews, authentication: [basic] }]  }";
    let names = format!("[{{ host: {HOST}, http2: true, authentication: [ntlm, basic] }}]");
    let auth = "{ basic: { password_file: users.htpasswd, default_domain: contoso.test }, passthrough: { schemes: [ntlm] } }";
    let plan = two_homes(directories)
        .section("names", &names)
        .section("auth", auth);
    let site = start_planned(plan).await;
    let mut client = Client::open(&site).await;
    let away = Some(Reason::HTTP_1_1_REQUIRED);

    assert_eq!(
        client
            .ask(request("GET", "/ews/x", 1), b"")
            .await
            .unwrap()
            .status,
        200
    );
    for path in [
        "/owa/",
        "/api/v2.0/me",
        "/oab/x",
        "/Microsoft-Server-ActiveSync",
    ] {
        let method = if path.starts_with("/M") {
            "POST"
        } else {
            "GET"
        };
        assert_eq!(
            client.reason(request(method, path, 1)).await,
            away,
            "{path}"
        );
    }
    let asked = request("POST", "/autodiscover/autodiscover.xml", 1);
    assert_eq!(client.reason(asked).await, away);
    let told = curl(&site, 1, "/owa/", &["--http2"]).await;
    assert!(told.head.starts_with("HTTP/1.1 200"), "{told:?}");
}

#[tokio::test]
async fn a_reload_that_takes_http2_away_is_heard_on_open_connections() {
    let site = site().await;
    let mut client = Client::open(&site).await;
    assert_eq!(
        client
            .ask(request("GET", "/ews/x", 1), b"")
            .await
            .unwrap()
            .status,
        200
    );
    let file = site.folder().join("mapigate.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("http2: true", "http2: false")).unwrap();
    site.gate().unwrap().admin().reload().await.unwrap();

    let away = Some(Reason::HTTP_1_1_REQUIRED);
    assert_eq!(client.reason(request("GET", "/ews/x", 1)).await, away);
    let tls = tls(&site, HOST, &[b"h2", b"http/1.1"]).await;
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn a_request_for_another_name_is_misdirected_though_the_site_serves_it() {
    let (site, _) = two_names().await;
    let mut client = Client::open(&site).await;
    for (authority, expected) in [
        (HOST.to_owned(), 200),
        (format!("{}:443", HOST.to_uppercase()), 200),
        (OTHER.to_owned(), 421),
        ("evil.test".to_owned(), 421),
        ("contoso.test".to_owned(), 421),
    ] {
        let asked = Request::builder()
            .uri(format!("https://{authority}/ews/x"))
            .header("authorization", credentials(1))
            .body(())
            .unwrap();
        let told = client.ask(asked, b"").await.unwrap();
        assert_eq!(told.status, expected, "{authority}: {}", told.text());
    }
    let line = line_with(&site, |line| line["refusal"] == "misdirected").await;
    assert_eq!(
        (&line["status"], &line["protocol"]),
        (&421.into(), &"h2".into())
    );
}

#[tokio::test]
async fn twenty_users_on_four_connections_never_meet() {
    let mut plan = plan();
    plan.users = 20;
    plan = plan
        .section("directory", "{ file: mailboxes.yaml }")
        .section("databases", "{ file: databases.yaml }");
    let site = Arc::new(start_planned(plan).await);
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Client::open(&site).await);
    }
    let mut asked = tokio::task::JoinSet::new();
    for turn in 0..1000_usize {
        let mut send = clients[turn % 4].send.clone();
        let number = 1 + turn * 7 % 20;
        asked.spawn(async move {
            send = send.ready().await.unwrap();
            let path = format!("/ews/turn{turn}/of{number}");
            let (answer, _) = send
                .send_request(request("GET", &path, number), true)
                .unwrap();
            let answer = answer.await.unwrap();
            assert_eq!(answer.status(), 200);
            let body = rest(answer.into_body()).await.unwrap();
            (path, user(number), String::from_utf8(body).unwrap())
        });
        // As many at once as a connection takes, and no more.
        while asked.len() >= 60 {
            let (path, user, page) = asked.join_next().await.unwrap().unwrap();
            assert!(page.contains(&format!("user={user} ")), "{user}: {page}");
            assert!(page.contains(&format!("target={path} ")), "{path}: {page}");
        }
    }
    while let Some(told) = asked.join_next().await {
        let (path, user, page) = told.unwrap();
        assert!(page.contains(&format!("user={user} ")), "{user}: {page}");
        assert!(page.contains(&format!("target={path} ")), "{path}: {page}");
    }
    assert_eq!(metric(&site, "mapigate_http2_connections_total").await, 4.0);
    assert_eq!(metric(&site, "mapigate_http2_streams_total").await, 1000.0);
    assert_eq!(
        metric(&site, "mapigate_identity_fence_trips_total").await,
        0.0
    );
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let puppet = Puppet::new().await;
        let site = site_of(&puppet).await;
        let mut client = Client::open(&site).await;
        let (told, _) = client
            .begin(request("GET", "/ews/x", 1), false)
            .await
            .unwrap();
        let mut server = puppet.asked().await;
        server.say(answer).await;
        drop(server);

        let told = in_time("an answer", told).await.unwrap();
        assert_eq!(told.status(), 200);
        let broken = rest(told.into_body()).await.unwrap_err();
        assert_eq!(broken.reason(), Some(Reason::INTERNAL_ERROR));
        let line = line_with(&site, |line| line["path"] == "/ews/x").await;
        assert_eq!(line["ending"], "cut");
    }
    let puppet = Puppet::new().await;
    let site = site_of(&puppet).await;
    let mut client = Client::open(&site).await;
    let (told, _) = client
        .begin(request("GET", "/ews/x", 1), false)
        .await
        .unwrap();
    let mut server = puppet.asked().await;
    server.say(b"HTTP/1.1 200 OK\r\n\r\nabc").await;
    drop(server);
    let told = in_time("an answer", told).await.unwrap();
    assert_eq!(rest(told.into_body()).await.unwrap(), b"abc");
}

#[tokio::test]
async fn a_client_that_gives_up_ends_what_it_asked_for() {
    let puppet = Puppet::new().await;
    let site = site_of(&puppet).await;
    let mut client = Client::open(&site).await;

    // Before the answer, in its midst, and in the midst of the request.
    let (told, mut send) = client
        .begin(request("GET", "/ews/a", 1), false)
        .await
        .unwrap();
    let mut server = puppet.asked().await;
    send.send_reset(Reason::CANCEL);
    server.closed().await;
    drop(told);

    let (told, mut send) = client
        .begin(request("GET", "/ews/b", 1), false)
        .await
        .unwrap();
    let mut server = puppet.asked().await;
    server
        .say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        .await;
    let told = in_time("a head", told).await.unwrap();
    send.send_reset(Reason::CANCEL);
    server.closed().await;
    drop(told);

    let (told, mut send) = client
        .begin(request("POST", "/ews/c", 1), true)
        .await
        .unwrap();
    send.send_data(Bytes::from_static(b"half"), false).unwrap();
    let mut server = puppet.asked().await;
    send.send_reset(Reason::CANCEL);
    server.closed().await;
    drop(told);

    for path in ["/ews/a", "/ews/b", "/ews/c"] {
        let line = line_with(&site, |line| line["path"] == path).await;
        assert_eq!(line["ending"], "aborted", "{line}");
    }
    assert_eq!(metric(&site, "mapigate_requests_in_flight").await, 0.0);
}

#[tokio::test]
async fn who_reads_slowly_stalls_nobody_and_nothing_piles_up() {
    let puppet = Puppet::new().await;
    let site = site_of(&puppet).await;
    // As every client does that carries more than one thing.
    let mut builder = h2::client::Builder::new();
    builder.initial_connection_window_size(1 << 20);
    let mut client = Client::open_with(&site, &builder).await;
    let (told, _) = client
        .begin(request("GET", "/ews/slow", 1), false)
        .await
        .unwrap();
    let mut server = puppet.asked().await;
    server
        .say(b"HTTP/1.1 200 OK\r\nContent-Length: 64000000\r\n\r\n")
        .await;
    let slow = in_time("a head", told).await.unwrap().into_body();

    // Nobody reads it: what the server may send ends at windows, ours and the kernel's.
    let mut sent = 0;
    let piece = [7; 64 * 1024];
    while let Ok(wrote) =
        tokio::time::timeout(Duration::from_millis(500), server.write(&piece)).await
    {
        sent += wrote;
        assert!(sent < 30_000_000, "it is taken though nobody reads it");
    }
    // Others on the same connection go on.
    for _ in 0..3 {
        let (told, _) = client
            .begin(request("GET", "/ews/quick", 1), false)
            .await
            .unwrap();
        let mut server = puppet.asked().await;
        server
            .say(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc")
            .await;
        let told = in_time("an answer", told).await.unwrap();
        assert_eq!(rest(told.into_body()).await.unwrap(), b"abc");
    }
    // And it gets all of it when it does read.
    let reading = tokio::spawn(rest(slow));
    let mut left = 64_000_000 - sent;
    while left > 0 {
        let wrote = in_time("room", server.write(&piece[..left.min(piece.len())])).await;
        left -= wrote;
    }
    let body = in_time("the rest", reading).await.unwrap().unwrap();
    assert!(body.len() == 64_000_000 && body.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn a_server_that_does_not_read_makes_its_client_wait_and_no_other() {
    let puppet = Puppet::new().await;
    let site = site_of(&puppet).await;
    let mut client = Client::open(&site).await;
    let (told, mut send) = client
        .begin(request("POST", "/ews/slow", 1), true)
        .await
        .unwrap();
    let sending = tokio::spawn(async move {
        send_all(&mut send, &vec![5; 60_000_000]).await.unwrap();
    });
    let mut server = puppet.asked().await;
    for _ in 0..3 {
        let (told, mut send) = client
            .begin(request("POST", "/ews/quick", 1), true)
            .await
            .unwrap();
        send_all(&mut send, &[1; 50_000]).await.unwrap();
        let mut other = puppet.asked().await;
        while memchr::memmem::find(&other.body, b"\r\n0\r\n\r\n").is_none() {
            other.some().await;
        }
        other
            .say(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            .await;
        assert_eq!(in_time("an answer", told).await.unwrap().status(), 204);
    }
    assert!(
        !sending.is_finished(),
        "it was taken though the server did not read"
    );
    // Chunk heads and ends are beside the body.
    while memchr::memmem::find(
        &server.body[server.body.len().saturating_sub(7)..],
        b"\r\n0\r\n\r\n",
    )
    .is_none()
    {
        server.some().await;
    }
    in_time("the end of the upload", sending).await.unwrap();
    server.say(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(in_time("an answer", told).await.unwrap().status(), 204);
}

#[tokio::test]
async fn going_away_ends_what_is_under_way_and_takes_no_more() {
    let puppet = Puppet::new().await;
    let mut site = site_of(&puppet).await;
    let mut client = Client::open(&site).await;
    let mut idle = Client::open(&site).await;
    assert_eq!(
        idle.ask(request("GET", "/ews/healthcheck.htm", 1), b"")
            .await
            .unwrap()
            .status,
        200
    );
    let (told, _) = client
        .begin(request("GET", "/ews/x", 1), false)
        .await
        .unwrap();
    let mut server = puppet.asked().await;
    let mut gate = site.take_gate().unwrap();
    gate.signal(Signal::TERM).unwrap();

    // The idle one ends, the busy one takes no more and gets its answer.
    in_time("a farewell", idle.end).await.unwrap().unwrap();
    eventually("no more is taken", || async {
        let ready = client.send.clone().ready();
        match tokio::time::timeout(Duration::from_millis(50), ready).await {
            Ok(Ok(mut send)) => send
                .send_request(request("GET", "/ews/y", 1), true)
                .is_err(),
            _ => true,
        }
    })
    .await;
    server
        .say(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
        .await;
    let told = in_time("an answer", told).await.unwrap();
    assert_eq!(rest(told.into_body()).await.unwrap(), b"abc");
    drop(client.send);
    in_time("a farewell", client.end).await.unwrap().unwrap();
    assert!(gate.ended(PATIENCE).await.unwrap().success());
}

#[tokio::test]
async fn an_idle_connection_is_taken_leave_of_and_a_held_request_is_not_idle() {
    let limits = "{ idle_timeout: 1s, head_timeout: 1s }";
    let site = start_planned(plan().section("limits", limits)).await;
    let mut held = Held::begin(
        &site,
        1,
        "/ews/x",
        &["--http2", "--data", "<GetStreamingEvents/>"],
    );
    held.until("<ConnectionStatus>OK").await;
    let mut client = Client::open(&site).await;
    assert_eq!(
        client
            .ask(request("GET", "/ews/x", 1), b"")
            .await
            .unwrap()
            .status,
        200
    );
    // Kept, or the client itself would take leave.
    let _kept = client.send;

    in_time("a farewell", client.end).await.unwrap().unwrap();
    // Who agrees on HTTP/2 and then says nothing is no better.
    let mut silent = tls(&site, HOST, &[b"h2"]).await;
    let mut bytes = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut bytes);
    let _either = in_time("the end", read).await;
    site.server("MBX1").unwrap().news();
    held.until("<NewMailEvent>0<").await;
    assert!(
        metric(
            &site,
            "mapigate_http2_goaways_total{by=\"us\",reason=\"no_error\"}"
        )
        .await
            >= 1.0
    );
}

#[tokio::test]
async fn a_user_has_so_many_requests_whatever_carries_them() {
    let site = start_planned(plan().section("limits", "{ requests_per_user: 3 }")).await;
    let mut client = Client::open(&site).await;
    let path = "/Microsoft-Server-ActiveSync?Cmd=Ping";
    let mut held = Vec::new();
    for _ in 0..3 {
        let (told, mut send) = client.begin(request("POST", path, 1), true).await.unwrap();
        send.send_data(Bytes::from_static(b"ping"), true).unwrap();
        held.push((told, send));
    }
    eventually("held", || async {
        site.server("MBX1").unwrap().held() == 3
    })
    .await;

    let told = client.ask(request("GET", "/ews/x", 1), b"").await.unwrap();
    assert_eq!(
        (told.status, &told.headers["retry-after"]),
        (503, &"1".parse().unwrap())
    );
    assert_eq!(
        client
            .ask(request("GET", "/ews/x", 2), b"")
            .await
            .unwrap()
            .status,
        200
    );
    for (_, send) in &mut held {
        send.send_reset(Reason::CANCEL);
    }
    // They are let go when their clients' word is heard.
    in_time("let go", async {
        while client
            .ask(request("GET", "/ews/x", 1), b"")
            .await
            .unwrap()
            .status
            != 200
        {}
    })
    .await;
}

#[tokio::test]
async fn answers_are_the_same_by_both() {
    let site = site().await;
    for (path, args) in [
        ("/ews/x", &["--data", "a"][..]),
        ("/owa/user3@contoso.test/", &[]),
        (
            "/autodiscover/autodiscover.json?Email=user1@contoso.test&Protocol=Ews",
            &[],
        ),
        ("/owa/../x", &[]),
        ("/ews/x", &["-X", "DELETE"]),
        ("/ecp/", &[]),
    ] {
        let head = |told: &crate::directories::Told| {
            let lines = told.head.lines().skip(1).map(str::to_ascii_lowercase);
            let kept = lines.filter(|line| {
                !line.starts_with("connection:") && !line.starts_with("transfer-encoding:")
            });
            kept.collect::<Vec<_>>()
        };
        // The id in a refusal is the request's own.
        let body =
            |told: &crate::directories::Told| told.body.split(" (").next().unwrap().to_owned();
        let by1 = [&["--http1.1"], args].concat();
        let by2 = [&["--http2"], args].concat();
        let (old, new) = (
            curl(&site, 1, path, &by1).await,
            curl(&site, 1, path, &by2).await,
        );
        assert_eq!((old.status, body(&old)), (new.status, body(&new)), "{path}");
        assert_eq!(head(&old), head(&new), "{path}");
        assert!(new.head.starts_with("HTTP/2"), "{new:?}");
    }
}

#[tokio::test]
async fn autodiscover_is_answered_by_http2() {
    let plan = plan().section("autodiscover", "{ mode: answer }");
    let site = start_planned(plan).await;
    let asks = "<Autodiscover xmlns=\"http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006\"><Request>\
                <EMailAddress>user1@contoso.test</EMailAddress><AcceptableResponseSchema>\
                http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a</AcceptableResponseSchema>\
                </Request></Autodiscover>";
    let path = "/autodiscover/autodiscover.xml";
    let args = [
        "--http2",
        "-H",
        "Content-Type: text/xml",
        "-H",
        "X-MapiHttpCapability: 1",
        "--data",
        asks,
    ];

    let told = curl(&site, 1, path, &args).await;

    assert!(told.head.starts_with("HTTP/2 200"), "{told:?}");
    assert!(told.body.contains("<MailStore>"), "{told:?}");
    let line = line_with(&site, |line| line["endpoint"] == "autodiscover").await;
    assert_eq!(
        (&line["type"], &line["protocol"]),
        (&"pox".into(), &"h2".into())
    );
}
