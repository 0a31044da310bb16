//! What comes through the gate, byte by byte: hostile heads and bodies against servers that write down
//! what reaches them.

use crate::support::{
    Ask, End, Raw, TestSite, answer, brisk, credentials, eventually, last_words, line,
    nobody_was_reached, start, status,
};
use mapigate::lab::site::{HOST, mailbox};
use mapigate::mapi::{Flavour, RequestType};
use std::time::{Duration, Instant};

async fn site() -> TestSite {
    start(brisk(Flavour::Exchange)).await
}

fn ping() -> Ask {
    Ask::new(1, "PING")
}

/// The head of the last MAPI request that reached MBX1.
fn last_head(site: &TestSite) -> String {
    let heads = site.server("MBX1").unwrap().heads();
    String::from_utf8(heads.last().unwrap().clone()).unwrap()
}

#[tokio::test]
async fn what_two_parsers_may_read_differently_is_refused_and_reaches_nobody() {
    let site = site().await;
    let odd_lines = [
        "POST /mapi/emsmdb/ HTTP/1.0",
        "POST /mapi/emsmdb/ HTTP/1.2",
        "POST /mapi/emsmdb/ HTTP/2.0",
        "POST /mapi/emsmdb/",
        "POST  /mapi/emsmdb/ HTTP/1.1",
        "POST /mapi/ems mdb/ HTTP/1.1",
        " POST /mapi/emsmdb/ HTTP/1.1",
        "POST\t/mapi/emsmdb/ HTTP/1.1",
        "POST /mapi/emsmdb/?a#b HTTP/1.1",
        "POST /mapi/emsmdb/?MailboxId=a@b&mailboxid=c@d HTTP/1.1",
        "POST /mapi/emsmdb/?Mailbox%49d=a@b HTTP/1.1",
        "POST /mapi/emsmdb/?x=%00 HTTP/1.1",
        "POST /mapi/emsmdb/?MailboxId=a@b:444/~1 HTTP/1.1",
    ]
    .map(|line| ping().line(line));
    let odd_fields = [
        "Content-Length: 1\r\nContent-Length: 1",
        "Content-Length: 5, 5",
        "Content-Length: +1",
        "Content-Length: -1",
        "Content-Length: 010",
        "Content-Length: 0x5",
        "Content-Length: ",
        "Content-Length: 5 5",
        "Content-Length : 5",
        "Content-Length: 99999999999999999999",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding:\x0bchunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: identity",
        "Host: mail.contoso.test",
        "Host: a@b:444/~1",
        "Connection: Content-Length",
        "Connection: close, x-auth-user",
        "Connection: Cookie",
        "X-Folded: a\r\n b",
        "X-Folded: a\r\n\tb",
        "X-Null: a\0b",
        "X-Return: a\rb",
        "X-Bare: a\nX-Line: b",
        "X Space: a",
        "X-NoColon",
        ": nameless",
        "Authorization: Basic eDp5",
        "Cookie: MapiContext=1; MapiContext=2",
        "Cookie: MapiContext=1\r\nCookie: MapiContext=2",
        "Cookie: sid=1; SID=2",
        "X-RequestType: Execute",
        "X-RequestId: {A}:1",
    ]
    .map(|field| ping().with(field).body(*b"12345"));
    let long_name = ping().with(format!("{}: 1", "x".repeat(64)));
    let many = (0..200).fold(ping(), |ask, number| ask.with(format!("X-{number}: 1")));

    let cases =
        odd_lines
            .into_iter()
            .chain(odd_fields)
            .chain([ping().without("Host"), long_name, many]);
    for ask in cases {
        // A second request behind it must not be seen either.
        let mut bytes = ask.bytes();
        bytes.extend(ping().bytes());
        let (text, end) = last_words(&site, &bytes).await;
        assert_eq!(status(&text), 400, "{ask:?}: {text}");
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{ask:?}: {text}");
        assert!(text.contains("\r\nConnection: close\r\n"), "{ask:?}");
        assert_eq!(end, End::Clean, "{ask:?}");
    }
    // HTTP/0.9 and what is not HTTP at all.
    for bytes in [
        &b"GET /mapi/healthcheck.htm\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00",
        b"POST /mapi/emsmdb/ HTTP/1.1\nHost: mail.contoso.test\n\n",
        b"\0\0\0\0\r\n\r\n",
    ] {
        let (text, _) = last_words(&site, bytes).await;
        assert_eq!(status(&text), 400, "{bytes:?}: {text}");
    }
    nobody_was_reached(&site).await;
}

#[tokio::test]
async fn no_other_method_or_path_is_opened() {
    let site = site().await;
    let methods = [
        "GET",
        "PUT",
        "DELETE",
        "OPTIONS",
        "TRACE",
        "CONNECT",
        "PATCH",
        "post",
        "RPC_IN_DATA",
        "HEAD",
    ];
    for method in methods {
        let ask = ping().line(format!("{method} /mapi/emsmdb/ HTTP/1.1"));
        let (text, _) = last_words(&site, &ask.bytes()).await;
        assert_eq!(status(&text), 405, "{method}: {text}");
        assert!(text.contains("\r\nAllow: POST\r\n"), "{text}");
    }
    for path in [
        "/",
        "*",
        "/mapi",
        "/mapi/",
        "/mapi/../owa/",
        "/mapi/emsmdb/../nspi/",
        "/mapi/emsmdb/..;/",
        "/mapi/emsmdb/%2e%2e/",
        "/mapi%2femsmdb/",
        "/mapi/emsmdb%00/",
        "/mapi/emsmdb%252f",
        "/mapi\\emsmdb/",
        "//mapi/emsmdb/",
        "/mapi//emsmdb/",
        "/mapi/emsmdb//",
        "/mapi/emsmdb;x=1/",
        "/mapi/emsmdb/x.js",
        "/mapi/emsmdb/x.aspx",
        "/autodiscover/autodiscover.json?@x/mapi/emsmdb",
        "/owa/auth.owa",
        "/ecp/proxyLogon.ecp",
        "/powershell",
        "http://evil.test/mapi/emsmdb/",
        "http://mail.contoso.test/mapi/emsmdb/",
        "mail.contoso.test:443",
        "/mapi/emsmdb/\u{e9}",
    ] {
        let ask = ping().line(format!("POST {path} HTTP/1.1"));
        let (text, _) = last_words(&site, &ask.with("Connection: close").bytes()).await;
        assert!([400, 404].contains(&status(&text)), "{path}: {text}");
    }
    let host = ping().without("Host").with("Host: other.test");
    assert_eq!(answer(&site, &host).await.head.status, 421);
    nobody_was_reached(&site).await;
}

#[tokio::test]
async fn the_answer_to_head_has_no_body_even_where_it_is_a_refusal() {
    let site = site().await;
    for target in ["/mapi/emsmdb/", "/nowhere"] {
        let ask = format!("HEAD {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        let (text, _) = last_words(&site, ask.as_bytes()).await;
        assert!(text.ends_with("\r\n\r\n"), "{text}");
        assert!([404, 405].contains(&status(&text)), "{text}");
    }
}

#[tokio::test]
async fn the_health_page_is_ours() {
    let site = site().await;
    let page = "/mapi/healthcheck.htm";
    let get = |method: &str, version: &str, fields: &str| {
        format!("{method} {page} HTTP/{version}\r\n{fields}\r\n")
    };
    let host = format!("Host: {HOST}\r\nConnection: close\r\n");
    let (text, _) = last_words(&site, get("GET", "1.1", &host).as_bytes()).await;
    assert_eq!(status(&text), 200);
    assert!(text.ends_with(&format!("200 OK<br/>{HOST}")), "{text}");
    let (text, _) = last_words(&site, get("HEAD", "1.1", &host).as_bytes()).await;
    assert!(status(&text) == 200 && text.ends_with("\r\n\r\n"), "{text}");
    let (text, _) = last_words(&site, get("GET", "1.0", "").as_bytes()).await;
    assert_eq!(status(&text), 200);
    nobody_was_reached(&site).await;
}

#[tokio::test]
async fn the_health_page_says_503_where_no_server_is_eligible() {
    let plan = brisk(Flavour::Exchange).section(
        "health",
        "{ interval: 200ms, timeout: 200ms, panic_threshold: 0 }",
    );
    let mut site = start(plan).await;
    site.kill_server("MBX1").await.unwrap();
    site.kill_server("MBX2").await.unwrap();
    let ask =
        format!("GET /mapi/healthcheck.htm HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");

    eventually("the page says so", || async {
        status(&last_words(&site, ask.as_bytes()).await.0) == 503
    })
    .await;
}

#[tokio::test]
async fn nobody_without_credentials_reaches_a_server() {
    let site = site().await;
    let cookies = [
        "",
        "Cookie: SecurityToken=x",
        "Cookie: X-BEResource=[a]@mbx1.contoso.test:444/~1942062522",
        "Cookie: cadata=x; cadataKey=y; cadataIV=z",
        "Cookie: MapiContext=x; MapiSequence=y",
        "Cookie: MapigateRoute=AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ];
    let credentials = [
        "",
        "Authorization: ",
        "Authorization: Bearer",
        "Authorization: NTLM TlRMTVNTUAAB",
        "Authorization: Basic",
        "Authorization: Basic !!!",
    ];
    for method in ["POST", "GET", "HEAD", "PUT", "OPTIONS", "TRACE"] {
        for path in [
            "/mapi/emsmdb/",
            "/mapi/nspi/",
            "/mapi/emsmdb/?MailboxId=a@b",
            "/mapi/healthcheck.htm",
            "/mapi/x.js",
        ] {
            for (cookie, credential) in cookies
                .iter()
                .flat_map(|cookie| credentials.map(|credential| (cookie, credential)))
            {
                let mut ask = Ask::new(1, "Connect")
                    .without("Authorization")
                    .line(format!("{method} {path} HTTP/1.1"));
                ask.fields.extend(
                    [*cookie, credential]
                        .into_iter()
                        .filter(|field| !field.is_empty())
                        .map(str::to_owned),
                );
                let mut raw = Raw::open(&site).await;
                raw.send(&ask.with("Connection: close").bytes()).await;
                let (text, _) = raw.rest().await;
                let expected = match (method, path) {
                    ("POST", "/mapi/healthcheck.htm") => 405,
                    ("POST", "/mapi/x.js") => 404,
                    ("POST", _) => 401,
                    ("GET" | "HEAD", "/mapi/healthcheck.htm") => 200,
                    ("GET" | "HEAD", "/mapi/x.js") => 404,
                    _ => 405,
                };
                assert_eq!(
                    status(&text),
                    expected,
                    "{method} {path} {cookie} {credential}: {text}"
                );
            }
        }
    }
    nobody_was_reached(&site).await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let site = site().await;
    let mut raw = Raw::open(&site).await;
    let one = ping();
    let two = ping()
        .without("X-RequestId")
        .with("X-RequestId: {SECOND}:2");
    let last = ping()
        .without("X-RequestId")
        .with("X-RequestId: {THIRD}:3")
        .with("Connection: close");

    let all = [one.bytes(), two.bytes(), last.bytes()].concat();
    raw.send(&all).await;
    let (text, end) = raw.rest().await;

    let ids: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("X-RequestId: "))
        .collect();
    assert_eq!(
        ids,
        [
            "{E2E00000-0000-4000-8000-000000000000}:1",
            "{SECOND}:2",
            "{THIRD}:3"
        ]
    );
    assert_eq!(end, End::Clean);
    assert_eq!(site.server("MBX1").unwrap().requests(RequestType::Ping), 3);
}

#[tokio::test]
async fn a_refused_body_is_not_taken_for_the_next_request() {
    let site = site().await;
    let mut line = line(&site.target().unwrap()).await;
    let smuggled = ping().bytes();
    let refused = ping().without("Authorization").body(smuggled);

    let first = line.ask(&refused.bytes()).await.unwrap();
    let second = line.ask(&ping().bytes()).await.unwrap();

    assert_eq!((first.head.status, second.head.status), (401, 200));
    assert_eq!(site.server("MBX1").unwrap().requests(RequestType::Ping), 1);
}

#[tokio::test]
async fn slow_heads_and_slow_bodies_end_in_408() {
    let plan = brisk(Flavour::Exchange).section(
        "limits",
        "{ head_timeout: 300ms, body_timeout: 300ms, first_byte_timeout: 5s }",
    );
    let site = start(plan).await;

    let whole = ping().bytes();
    for bytes in [1, 20, whole.len() - 1] {
        let (text, _) = last_words(&site, whole.get(..bytes).unwrap()).await;
        assert_eq!(status(&text), 408, "{bytes}: {text}");
    }
    nobody_was_reached(&site).await;

    // A byte now and then does not buy more time for a head.
    let began = Instant::now();
    let mut raw = Raw::open(&site).await;
    for byte in whole.iter().take(20) {
        raw.send(&[*byte]).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(status(&raw.rest().await.0), 408);
    assert!(began.elapsed() < Duration::from_secs(3));

    let counted = ping().with("Content-Length: 10").body(*b"12345");
    let chunked = ping()
        .with("Transfer-Encoding: chunked")
        .body(*b"5\r\n12345\r\n");
    for ask in [counted, chunked] {
        let (text, _) = last_words(&site, &ask.bytes()).await;
        assert_eq!(status(&text), 408, "{ask:?}: {text}");
    }
}

#[tokio::test]
async fn a_client_that_stalls_in_its_body_does_not_bring_its_server_down() {
    let plan = brisk(Flavour::Exchange)
        .section("health", "{ interval: 1h, fall: 2 }")
        .section(
            "limits",
            "{ body_timeout: 200ms, first_byte_timeout: 600ms }",
        );
    let site = start(plan).await;
    let stalled = ping().with("Content-Length: 100000").body(*b"12345");

    for _ in 0..4 {
        let (text, _) = last_words(&site, &stalled.bytes()).await;
        assert_eq!(status(&text), 408, "{text}");
    }

    assert_eq!(answer(&site, &Ask::new(2, "PING")).await.head.status, 200);
    let admin = site.gate().unwrap().admin();
    let up = admin.metric("mapigate_backend_up{server=\"MBX1\"}");
    assert!(up.await.unwrap() > 0.5);
}

#[tokio::test]
async fn a_slow_upload_that_goes_on_is_not_cut_by_the_servers_deadline() {
    let plan = brisk(Flavour::Exchange).section(
        "limits",
        "{ body_timeout: 500ms, first_byte_timeout: 400ms }",
    );
    let site = start(plan).await;
    let mut raw = Raw::open(&site).await;
    raw.send(
        &ping()
            .with("Content-Length: 10")
            .with("Connection: close")
            .bytes(),
    )
    .await;
    for _ in 0..10 {
        raw.send(b"x").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let (text, _) = raw.rest().await;

    assert_eq!(status(&text), 200, "{text}");
}

#[tokio::test]
async fn half_a_request_does_no_harm() {
    let site = site().await;
    let whole = Ask::new(1, "Connect").body(vec![0; 200]).bytes();
    for bytes in (0..whole.len()).step_by(37) {
        let mut raw = Raw::open(&site).await;
        raw.send(whole.get(..bytes).unwrap()).await;
        if bytes % 2 == 0 {
            raw.reset();
        }
    }
    assert_eq!(answer(&site, &ping()).await.head.status, 200);
    assert_eq!(site.server("MBX1").unwrap().counters().contexts, 0);
}

#[tokio::test]
async fn a_gigabyte_is_refused_by_its_announcement() {
    let site = site().await;
    let began = Instant::now();
    let ask = ping().with("Content-Length: 1073741824").body(*b"begin");
    let (text, end) = last_words(&site, &ask.bytes()).await;

    assert_eq!(status(&text), 413);
    assert!(text.contains("\r\nX-ResponseCode: 9\r\n"), "{text}");
    assert!(text.contains("\r\nX-RequestType: PING\r\n"), "{text}");
    assert!(
        text.contains("\r\nX-RequestId: {E2E00000-0000-4000-8000-000000000000}:1\r\n"),
        "{text}"
    );
    assert_eq!(end, End::Clean);
    assert!(began.elapsed() < Duration::from_secs(3));
    nobody_was_reached(&site).await;

    let most = ping().body(vec![7; 4 << 20]);
    let status_of = answer(&site, &most).await.head.status;
    assert_eq!(status_of, 200);
    let one_more = ping().with("Content-Length: 4194305").bytes();
    assert_eq!(status(&last_words(&site, &one_more).await.0), 413);
}

fn chunks(body: &[u8], size: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    for piece in body.chunks(size) {
        wire.extend(format!("{:X}\r\n", piece.len()).bytes());
        wire.extend(piece);
        wire.extend(b"\r\n");
    }
    wire.extend(b"0\r\n\r\n");
    wire
}

#[tokio::test]
async fn a_chunked_body_reaches_the_server_with_its_length() {
    let site = site().await;
    let body: Vec<u8> = (0..=u8::MAX).cycle().take(100_000).collect();
    for size in [1000, 65_536, 100_000] {
        let ask = ping()
            .with("Transfer-Encoding: chunked")
            .body(chunks(&body, size));
        assert_eq!(answer(&site, &ask).await.head.status, 200);
        let head = last_head(&site);
        assert!(head.contains("\r\nContent-Length: 100000\r\n"), "{head}");
        assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
    }
    let small = ping()
        .with("Transfer-Encoding: chunked")
        .body(chunks(b"byte by byte", 1));
    assert_eq!(answer(&site, &small).await.head.status, 200);
    let trailers = ping()
        .with("Transfer-Encoding: chunked")
        .body(*b"1\r\nx\r\n0\r\nX-Auth-User: root\r\n\r\n");
    assert_eq!(answer(&site, &trailers).await.head.status, 200);
    assert!(!last_head(&site).contains("root"));
}

#[tokio::test]
async fn chunked_bodies_beyond_the_limit_or_the_rules_reach_nobody() {
    let plan = brisk(Flavour::Exchange).section("limits", "{ chunked_body: 64KiB }");
    let site = start(plan).await;
    let chunked = || ping().with("Transfer-Encoding: chunked");
    let over = chunked().body(chunks(&vec![1; 65_537], 4096));
    let (text, _) = last_words(&site, &over.bytes()).await;
    assert_eq!(status(&text), 413, "{text}");
    assert!(text.contains("\r\nX-ResponseCode: 9\r\n"), "{text}");
    for body in [
        &b"5\r\n12345\r\nZZ\r\n"[..],
        b"5 \r\n12345\r\n0\r\n\r\n",
        b"5;ext=1\r\n12345\r\n0\r\n\r\n",
        b"5;\n12345\r\n0\r\n\r\n",
        b"0x5\r\n12345\r\n0\r\n\r\n",
        b"+5\r\n12345\r\n0\r\n\r\n",
        b"5\r\n123456\r\n0\r\n\r\n",
        b"5\n12345\r\n0\r\n\r\n",
        b"\r\n12345\r\n0\r\n\r\n",
        b"-1\r\n\r\n",
        b"fffffffff\r\n",
    ] {
        let (text, _) = last_words(&site, &chunked().body(body).bytes()).await;
        assert_eq!(status(&text), 400, "{body:?}: {text}");
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1);
    }
    nobody_was_reached(&site).await;
}

#[tokio::test]
async fn we_say_continue_ourselves_and_only_to_those_we_let_in() {
    let site = site().await;
    let expecting = ping().with("Expect: 100-continue");
    for (framing, body) in [
        ("Content-Length: 5", &b"12345"[..]),
        ("Transfer-Encoding: chunked", b"5\r\n12345\r\n0\r\n\r\n"),
    ] {
        let mut raw = Raw::open(&site).await;
        let head = expecting.clone().with(framing).with("Connection: close");
        raw.send(&head.bytes()).await;
        assert_eq!(raw.until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        raw.send(body).await;
        assert_eq!(status(&raw.rest().await.0), 200);
        assert!(!last_head(&site).to_lowercase().contains("expect"));
    }

    let stranger = expecting
        .clone()
        .without("Authorization")
        .with("Content-Length: 1000000");
    let (text, _) = last_words(&site, &stranger.bytes()).await;
    assert_eq!(status(&text), 401, "{text}");
    let odd = ping().with("Expect: y 100-continue");
    assert_eq!(status(&last_words(&site, &odd.bytes()).await.0), 417);
}

#[tokio::test]
async fn a_kerberos_ticket_fits_and_a_larger_head_does_not() {
    let site = site().await;
    let padded = |bytes: usize| {
        let ask = ping().with("Connection: close");
        let room = bytes - ask.bytes().len() - "X-Large: \r\n".len();
        ask.with(format!("X-Large: {}", "x".repeat(room)))
    };
    assert_eq!(answer(&site, &padded(64 << 10)).await.head.status, 200);
    let reached = site.server("MBX1").unwrap().counters().requests;

    // The largest ticket there is, of which the gate has no opinion.
    let ticket = ping()
        .without("Authorization")
        .with(format!("Authorization: Negotiate {}", "A".repeat(88 << 10)))
        .with("Connection: close");
    assert_eq!(answer(&site, &ticket).await.head.status, 401);
    let (text, end) = last_words(&site, &padded(129 << 10).bytes()).await;

    assert_eq!((status(&text), end), (431, End::Clean), "{text}");
    assert_eq!(site.server("MBX1").unwrap().counters().requests, reached);
}

/// Every claim a client could try to choose a server or an identity with.
const CLAIMS: &[&str] = &[
    "X-BEResource: [a]@mbx2.contoso.test:444/mapi/emsmdb?#~1942062522",
    "X-AnonResource: true",
    "X-AnonResource-Backend: mbx2.contoso.test/ecp/default.flt?~3",
    "X-BackEndCookie: S-1-5-21=u56Lnp2ejJqBx8",
    "X-BEServer: MBX2",
    "X-TargetServer: MBX2",
    "X-ProxyTargetServer: MBX2",
    "X-AnchorMailbox: user2@contoso.test",
    "X-Forwarded-For: 6.6.6.6",
    "X-Forwarded-Host: mbx2.contoso.test",
    "X-Forwarded-Proto: http",
    "Forwarded: for=6.6.6.6;host=mbx2.contoso.test",
    "X-Real-IP: 6.6.6.6",
    "X-Original-URL: /ecp/",
    "X-Rewrite-URL: /ecp/",
    "X-CommonAccessToken: VgEAVAdXaW5kb3dz",
    "x-commonaccesstoken: VgEAVAdXaW5kb3dz",
    "X_CommonAccessToken: VgEAVAdXaW5kb3dz",
    "X-Rps-CAT: VgEAVAdXaW5kb3dz",
    "X-WLID-MemberName: user2@contoso.test",
    "X-SourceCafeServer: mail.contoso.test",
    "X-IsFromCafe: 1",
    "X-Auth-User: user2",
    "X_Auth_User: user2",
    "X-Remote-User: user2@contoso.test",
    "Remote-User: user2@contoso.test",
    "X-Mapigate-User: user2@contoso.test",
    "msExchLogonAccount: user2",
    "msExchLogonMailbox: user2",
    "Via: 1.1 evil",
    "Upgrade: websocket\r\nConnection: upgrade",
    "TE: trailers\r\nConnection: te",
    "Trailer: X-Auth-User",
    "Keep-Alive: timeout=100",
    "Proxy-Authorization: Basic eDp5",
    "Proxy-Connection: keep-alive",
    "Cookie: X-BEResource=[a]@mbx2.contoso.test:444/~1942062522",
    "Cookie: X-AnonResource=true; X-AnonResource-Backend=mbx2/ecp?~3",
    "Cookie: X-BackEndOverrideCookie=MBX2",
    "Cookie: SecurityToken=1",
    "Cookie: Email=autodiscover/autodiscover.json?a@foo.var",
    "Cookie: MapigateRoute=AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "Cookie: mapigateroute=MBX2",
];

#[tokio::test]
async fn no_claim_changes_the_server_or_a_byte_of_what_it_gets() {
    let site = site().await;
    assert_eq!(answer(&site, &ping()).await.head.status, 200);
    let plain = last_head(&site);
    assert_eq!(
        plain,
        format!(
            "POST /mapi/emsmdb/?MailboxId={} HTTP/1.1\r\nHost: {HOST}\r\nX-RequestType: PING\r\n\
             X-RequestId: {{E2E00000-0000-4000-8000-000000000000}}:1\r\n\
             X-ClientInfo: {{E2E00000-0000-4000-8000-000000000001}}:1\r\n\
             X-ClientApplication: Outlook/16.0.0.0\r\nContent-Type: application/mapi-http\r\n\
             Authorization: {}\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: https\r\n\
             Content-Length: 0\r\n\r\n",
            mailbox(1),
            credentials(1)
        )
    );
    for claim in CLAIMS {
        let answered = answer(&site, &ping().with(*claim)).await;
        assert_eq!(answered.head.status, 200, "{claim}");
        assert_eq!(last_head(&site), plain, "{claim}");
    }
    assert_eq!(
        site.server("MBX1").unwrap().requests(RequestType::Ping),
        CLAIMS.len() as u64 + 1
    );
    assert_eq!(site.server("MBX2").unwrap().counters().requests, 0);
}

#[tokio::test]
async fn cookies_of_several_lines_are_all_read_and_all_sent() {
    let site = site().await;
    let outlook = site.outlook(1).unwrap();
    outlook.connect().await.unwrap();
    let cookies = outlook.cookies(mapigate::mapi::Endpoint::Emsmdb);
    let line = |name: &str| {
        let (name, value) = cookies.iter().find(|(known, _)| known == name).unwrap();
        format!("{name}={value}")
    };
    let (context, sequence) = (line("MapiContext"), line("MapiSequence"));
    let route = line("MapigateRoute");

    let ask = Ask::new(1, "PING")
        .with(format!("Cookie: a=b; {route}"))
        .with(format!("cookie: {sequence}"))
        .with(format!("COOKIE: c=d;{context};e"));
    assert_eq!(answer(&site, &ask).await.head.code(), Some(0));

    let head = last_head(&site);
    let sent: Vec<_> = head
        .lines()
        .filter_map(|line| line.strip_prefix("Cookie: "))
        .collect();
    assert_eq!(
        sent,
        ["a=b", sequence.as_str(), format!("c=d; {context}").as_str()]
    );
}
