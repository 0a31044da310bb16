//! What goes wrong around mapigate: each has a clear answer for the person concerned, and nothing else
//! suffers.

use crate::support::{
    Ask, End, Raw, TestSite, answer, brisk, eventually, last_words, line, start, status,
};
use mapigate::lab::Outlook;
use mapigate::lab::authority::{Authority, Validity, server_config};
use mapigate::lab::mailbox_server::{self, Ending, Fault, MailboxServer, Mode, Place};
use mapigate::lab::outlook::wire::{Answer, Line};
use mapigate::lab::site::Plan;
use mapigate::mapi::bodies::rops::{write_chain, write_payload};
use mapigate::mapi::bodies::{Body as _, ExecuteRequest};
use mapigate::mapi::{Endpoint, Flavour, RequestType};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An Execute of user `number` in a session.
fn execute(number: usize, outlook: &Outlook, id: &str) -> Ask {
    let cookies: Vec<_> = outlook
        .cookies(Endpoint::Emsmdb)
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mut operation = vec![mapigate::lab::LAB_OPERATION];
    operation.extend([7; 16]);
    Ask::new(number, "Execute")
        .without("X-RequestId")
        .with(format!("X-RequestId: {id}"))
        .with(format!("Cookie: {}", cookies.join("; ")))
        .body(ExecuteRequest::of(write_chain(&[write_payload(&operation, &[])])).encode())
}

/// A whole answer, or `None` where it visibly broke off.
async fn whole_answer(line: &mut Line, ask: &Ask) -> Option<Answer> {
    line.send(&ask.bytes()).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(20), line.answer()).await;
    answer
        .unwrap_or_else(|_| panic!("neither an answer nor its end: {ask:?}"))
        .ok()
}

async fn after_a_fault_of_the_server(flavour: Flavour) {
    let plan = brisk(flavour)
        .each(|server| {
            server.mode = Mode::Naive;
            server.drip_interval = Duration::ZERO;
            server.answer_bytes = 64;
        })
        .section("health", "{ interval: 1h }")
        .section("limits", "{ first_byte_timeout: 300ms }");
    let site = start(plan).await;
    let server = site.server("MBX1").unwrap();
    let bystander = site.outlook(2).unwrap();
    bystander.connect().await.unwrap();
    for (word, fault) in Fault::all() {
        let what = format!("{flavour:?} {word}");
        let outlook = site.outlook(1).unwrap();
        outlook.connect().await.unwrap();
        if matches!(fault, Fault::End(_, Place::Accept)) {
            // Kept connections are gone, so that a new one is made.
            server.cut_connections();
            server.fault(fault, 1, None);
        } else {
            server.fault(fault, 1, Some(RequestType::Execute));
        }
        let before = server.executed().len();
        let mut line = line(&site.target().unwrap()).await;

        let id = format!("{{{word}}}:1");
        let answer = whole_answer(&mut line, &execute(1, &outlook, &id)).await;

        let seen = answer
            .as_ref()
            .map(|answer| (answer.head.status, answer.code()));
        match fault {
            Fault::End(_, Place::Accept) => {
                assert!(
                    matches!(seen, Some((200 | 502 | 503, _))),
                    "{what}: {seen:?}"
                );
            }
            Fault::End(_, Place::MidRequest | Place::BeforeHead | Place::MidHead)
            | Fault::TwoLengths
            | Fault::LengthAndChunked
            | Fault::OversizeHead
            | Fault::NulInHead
            | Fault::Garbage => {
                assert!(matches!(seen, Some((502, _))), "{what}: {seen:?}");
            }
            Fault::End(_, Place::AfterHead | Place::AfterProcessing | Place::MidBody)
            | Fault::HangAfterProcessing => assert_eq!(seen, None, "{what}"),
            Fault::HangBeforeHead => assert_eq!(seen, Some((504, None)), "{what}"),
            Fault::Status(555) => assert_eq!(seen, Some((200, Some(10))), "{what}"),
            Fault::Status(code) => assert_eq!(seen, Some((code, None)), "{what}"),
            Fault::AnswerEarly => assert_eq!(seen, Some((413, None)), "{what}"),
            _ => assert!(
                matches!(seen, Some((200, Some(0) | None))),
                "{what}: {seen:?}"
            ),
        }
        if let Some(answer) = answer {
            let public = String::from_utf8_lossy(&answer.body()).into_owned();
            assert!(
                !public.contains("MBX1") || answer.head.status == 200,
                "{public}"
            );
            for challenge in answer.head.all("www-authenticate") {
                assert!(challenge.starts_with("Basic realm="), "{what}: {challenge}");
            }
        }
        let runs = server.executed().len() - before;
        assert!(runs <= 1, "{what} ran {runs} times");

        bystander.execute(b"undisturbed").await.unwrap();
        server.clear_faults();
        outlook.connect().await.unwrap();
        outlook.execute(b"after").await.unwrap();
        outlook.disconnect().await.unwrap();
    }
    let nonces: Vec<_> = server.executed().into_iter().map(|run| run.nonce).collect();
    let different: HashSet<_> = nonces.iter().collect();
    assert_eq!(different.len(), nonces.len());
    assert!(bystander.counters().reconnects == 0);
}

#[tokio::test]
async fn a_server_that_misbehaves_as_exchange_is_seen_to_and_hurts_nobody_else() {
    after_a_fault_of_the_server(Flavour::Exchange).await;
}

#[tokio::test]
async fn a_server_that_misbehaves_as_gromox_is_seen_to_and_hurts_nobody_else() {
    after_a_fault_of_the_server(Flavour::Gromox).await;
}

#[tokio::test]
async fn a_poll_whose_server_breaks_off_ends_in_the_protocols_words_or_visibly() {
    let plan = brisk(Flavour::Exchange)
        .section("health", "{ interval: 1h }")
        .section("limits", "{ first_byte_timeout: 300ms, move_jitter: 10ms }");
    let site = start(plan).await;
    let server = site.server("MBX1").unwrap();
    for ending in [Ending::Close, Ending::Reset] {
        for place in [Place::AfterHead, Place::AfterProcessing, Place::MidBody] {
            let outlook = site.outlook(1).unwrap();
            outlook.connect().await.unwrap();
            server.fault(
                Fault::End(ending, place),
                1,
                Some(RequestType::NotificationWait),
            );
            let mut line = line(&site.target().unwrap()).await;
            let mut ask = execute(1, &outlook, "{wait}:1").body([0; 8]);
            ask.fields
                .retain(|field| !field.starts_with("X-RequestType"));
            let ask = ask.with("X-RequestType: NotificationWait");
            let answer = whole_answer(&mut line, &ask).await;
            // Between two chunks a word of ours is understood; elsewhere it would be read as the server's.
            // A reset may overtake the head, and then the client has had nothing and is told so.
            let told = answer.map(|answer| (answer.head.status, answer.code()));
            let is_clear = matches!(told, None | Some((200, Some(10)) | (502, None)));
            assert!(is_clear, "{place:?}: {told:?}");
        }
    }
}

/// A server that answers every request with the same bytes and ends the connection.
async fn scripted(answer: &'static str, ending: Ending) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while memchr::memmem::find(&head, b"\r\n\r\n").is_none() {
                    if tcp.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                tcp.write_all(answer.as_bytes()).await.unwrap();
                // A reset overtakes what the other side has not read yet.
                tokio::time::sleep(Duration::from_millis(100)).await;
                if ending == Ending::Reset {
                    let _gone = socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
                }
            });
        }
    });
    address
}

async fn site_on(server: SocketAddr) -> TestSite {
    let servers = format!("  MBX1: {{ address: '{server}', tls: off }}\n");
    let plan = Plan::new(Flavour::Exchange, &["MBX1"])
        .section("servers", &servers)
        .section("health", "{ interval: 1h }")
        .section("limits", "{ move_jitter: 10ms }");
    start(plan).await
}

#[tokio::test]
async fn a_poll_that_breaks_off_behind_done_is_not_ended_a_second_time() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nX-ResponseCode: 0\r\nTransfer-Encoding: chunked\r\n\r\n\
                        c\r\nPROCESSING\r\n\r\n";
    for (rest, is_ended_by_us) in [
        ("", true),
        ("9\r\nPENDING\r\n\r\n", true),
        ("3\r\nDON\r\n", false),
        ("6\r\nDONE\r\n\r\n", false),
        ("17\r\nDONE\r\nX-ResponseCode: 0\r\n", false),
        ("1d\r\nDONE\r\nX-ResponseCode: 0\r\n\r\n\0\0\0\0\r\n", false),
    ] {
        let answer = format!("{HEAD}{rest}").leak();
        let site = site_on(scripted(answer, Ending::Close).await).await;
        let ask = Ask::new(1, "NotificationWait").with("Cookie: MapiContext=x");
        let mut line = line(&site.target().unwrap()).await;

        let seen = whole_answer(&mut line, &ask.body([0; 8])).await;

        let code = seen.map(|answer| answer.code());
        assert_eq!(code, is_ended_by_us.then_some(Some(10)), "{rest:?}");
    }
}

#[tokio::test]
async fn an_answer_without_a_length_that_is_reset_does_not_look_complete() {
    for (ending, expected) in [(Ending::Close, End::Clean), (Ending::Reset, End::Broken)] {
        let answer = "HTTP/1.1 200 OK\r\nX-ResponseCode: 0\r\n\r\nPROCESSING\r\nDONE\r\n";
        let site = site_on(scripted(answer, ending).await).await;

        let (text, end) = last_words(&site, &Ask::new(1, "PING").bytes()).await;

        assert!(text.ends_with("DONE\r\n"), "{text}");
        assert_eq!(end, expected, "{ending:?}");
    }
}

#[tokio::test]
async fn a_server_whose_certificate_does_not_do_gets_nothing() {
    let (ours, other) = (
        Authority::new("ours").unwrap(),
        Authority::new("other").unwrap(),
    );
    let folder = tempfile::tempdir().unwrap();
    ours.write(folder.path()).unwrap();
    let ca = folder.path().join("ca.pem");
    let good = ours.server(&["mbx.contoso.test"]).unwrap();
    let expired = ours
        .server_valid(&["mbx.contoso.test"], Validity::EXPIRED)
        .unwrap();
    let misnamed = ours.server(&["elsewhere.contoso.test"]).unwrap();
    let foreign = other.server(&["mbx.contoso.test"]).unwrap();
    let (mut servers, mut keys, mut databases, mut domains) =
        (Vec::new(), String::new(), String::new(), String::new());
    for (name, credential) in [
        ("good", Some(&good)),
        ("expired", Some(&expired)),
        ("misnamed", Some(&misnamed)),
        ("foreign", Some(&foreign)),
        ("plain", None),
    ] {
        let mut options = mailbox_server::Options::new(name, Flavour::Exchange);
        options.tls = credential.map(|credential| server_config(credential, None).unwrap());
        let server = MailboxServer::spawn(options).await.unwrap();
        keys += &format!(
            "  {name}: {{ address: '{}', tls: {{ ca: {}, name: mbx.contoso.test }} }}\n",
            server.address(),
            ca.display()
        );
        databases += &format!("  db_{name}: {{ copies: [{name}] }}\n");
        domains += &format!("    {name}.test: db_{name}\n");
        servers.push(server);
    }
    let plan = brisk(Flavour::Exchange)
        .section("servers", &keys)
        .section("databases", &databases)
        .section("directory", &format!("  default_databases:\n{domains}"))
        .section("health", "{ interval: 1h, panic_threshold: 0 }");
    let site = start(plan).await;
    let ask = |domain: &str| {
        Ask::new(1, "PING").line(format!(
            "POST /mapi/emsmdb/?MailboxId=00000000-0000-4000-8000-000000000001@{domain}.test HTTP/1.1"
        ))
    };

    for server in &servers {
        let name = server.name().as_str();
        let answer = answer(&site, &ask(name)).await;
        let expected = if name == "good" { 200 } else { 503 };
        assert_eq!(answer.head.status, expected, "{name}");
        if expected == 503 {
            assert_eq!(answer.head.header("retry-after"), Some("5"));
            assert_eq!(server.heads().len(), 0, "{name}");
        }
    }
    eventually("the log tells why", || async {
        let lines = site.access_lines().unwrap();
        ["expired", "misnamed", "foreign"].iter().all(|name| {
            let of = |line: &&serde_json::Value| line["server"] == *name;
            let why = lines.iter().find(of).map(|line| line["why"].to_string());
            why.is_some_and(|why| why.contains("TLS"))
        })
    })
    .await;
}

#[tokio::test]
async fn a_dead_server_is_said_to_be_unavailable_and_to_be_tried_again() {
    let mut site = start(brisk(Flavour::Exchange)).await;
    site.kill_server("MBX1").await.unwrap();
    let began = Instant::now();

    let refused = answer(&site, &Ask::new(1, "Connect").body([0; 8])).await;

    assert_eq!(refused.head.status, 503);
    assert_eq!(refused.head.header("retry-after"), Some("5"));
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(site.server("MBX2").unwrap().counters().requests, 0);
    site.revive_server("MBX1").await.unwrap();
    eventually("it is served again", || async {
        answer(&site, &Ask::new(1, "PING")).await.head.status == 200
    })
    .await;
}

#[tokio::test]
async fn mailboxes_and_cookies_nobody_knows_have_their_answers() {
    let site = start(brisk(Flavour::Exchange)).await;
    let unknown = Ask::new(1, "Connect").line(
        "POST /mapi/emsmdb/?MailboxId=00000000-0000-4000-8000-999999999999@contoso.test HTTP/1.1",
    );
    let answered = answer(&site, &unknown).await;
    assert_eq!(answered.head.status, 404);
    assert_eq!(site.server("MBX1").unwrap().counters().requests, 0);

    let long = format!("Cookie: MapiContext={}", "x".repeat(40_000));
    let many = format!("Cookie: {}", "a=b; ".repeat(5000));
    for cookies in [
        "Cookie: ",
        "Cookie: ;;;",
        "Cookie: =",
        "Cookie: MapiContext",
        "Cookie: MapiContext=",
        "Cookie: MapiContext==; MapiSequence===",
        "Cookie: MapiContext=\"quoted; value\"",
        "Cookie: MapiContext=a,b, sid=c",
        "Cookie: $Version=1; MapiContext=a; $Path=/",
        "Cookie: MapiContext=\u{e9}\u{202e}",
        "Cookie: MapigateRoute=%00; MapigateRoute=%00",
        &long,
        &many,
    ] {
        let answered = answer(&site, &Ask::new(1, "Execute").with(cookies).body([0; 8])).await;
        assert_eq!(answered.head.status, 200, "{cookies}");
        assert_ne!(answered.code(), Some(0), "{cookies}");
    }
    assert_eq!(site.server("MBX1").unwrap().counters().executes, 0);
}

#[tokio::test]
async fn a_full_disk_costs_access_lines_and_nothing_else() {
    let plan = brisk(Flavour::Exchange).section(
        "logging",
        "{ access: /dev/full, access_buffer: 4KiB, format: json }",
    );
    let site = start(plan).await;
    let outlook = site.outlook(1).unwrap();
    outlook.connect().await.unwrap();

    for _ in 0..40 {
        outlook.execute(b"rops").await.unwrap();
    }

    assert_eq!(outlook.counters().reconnects, 0);
    let admin = site.gate().unwrap().admin();
    eventually("lost lines are counted", || async {
        admin
            .metric("mapigate_access_log_dropped_total")
            .await
            .unwrap()
            > 0.0
    })
    .await;
    let log = || std::fs::read_to_string(site.folder().join("mapigate.log")).unwrap();
    let told = || log().matches("access log cannot be written").count();
    eventually("the operator is told", || async { told() > 0 }).await;
    assert_eq!(told(), 1);
}

#[tokio::test]
async fn without_descriptors_those_who_are_in_are_served_and_the_rest_wait() {
    let mut plan =
        brisk(Flavour::Exchange).section("health", "{ interval: 200ms, timeout: 200ms, fall: 2 }");
    plan.wrapper = ["prlimit", "--nofile=64"].map(str::to_owned).to_vec();
    let site = start(plan).await;
    let outlook = site.outlook(1).unwrap();
    outlook.connect().await.unwrap();
    outlook.execute(b"rops").await.unwrap();

    let mut crowd = Vec::new();
    for _ in 0..150 {
        crowd.push(
            TcpStream::connect(site.gate().unwrap().address())
                .await
                .unwrap(),
        );
    }
    let log = || std::fs::read_to_string(site.folder().join("mapigate.log")).unwrap();
    eventually("it is short", || async {
        log().contains("cannot accept clients")
    })
    .await;
    let busy = site.gate().unwrap().cpu().unwrap();
    for _ in 0..10 {
        outlook.execute(b"rops").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let busy = site.gate().unwrap().cpu().unwrap() - busy;
    assert!(busy < Duration::from_millis(500), "{busy:?}");
    drop(crowd);

    assert_eq!(answer(&site, &Ask::new(2, "PING")).await.head.status, 200);
    outlook.execute(b"rops").await.unwrap();
    assert_eq!(outlook.counters().reconnects, 0);
    let log = log();
    assert!(!log.contains("server marked down"), "{log}");
    assert!(log.matches("cannot accept clients").count() < 20, "{log}");
}

/// Half-open, reset and abandoned connections, in every state.
async fn storm(site: &TestSite) {
    let address = site.gate().unwrap().address();
    let whole = Ask::new(3, "PING").body([0; 1000]).bytes();
    for number in 0..100 {
        match number % 4 {
            0 => {
                let tcp = TcpStream::connect(address).await.unwrap();
                let _gone = socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
            }
            1 => drop(TcpStream::connect(address).await.unwrap()),
            _ => {
                let mut raw = Raw::open(site).await;
                raw.send(&whole[..whole.len() * (number % 10) / 9]).await;
                raw.reset();
            }
        }
    }
}

#[tokio::test]
async fn a_storm_of_resets_is_weathered() {
    let site = start(brisk(Flavour::Exchange)).await;
    let outlook = site.outlook(1).unwrap();
    outlook.connect().await.unwrap();

    let work = async {
        for _ in 0..50 {
            outlook.execute(b"rops").await.unwrap();
        }
    };
    tokio::join!(storm(&site), storm(&site), work);

    assert_eq!(outlook.counters().reconnects, 0);
    let admin = site.gate().unwrap().admin();
    eventually("nothing is left of it", || async {
        admin.metric("mapigate_requests_inflight").await.unwrap() < 0.5
    })
    .await;
    let up = admin.metric("mapigate_backend_up{server=\"MBX1\"}").await;
    assert!(up.unwrap() > 0.5);
}

#[tokio::test]
async fn an_answer_that_comes_early_is_not_lost_to_a_client_that_is_still_sending() {
    let early = "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let site = site_on(scripted(early, Ending::Close).await).await;
    let mut raw = Raw::open(&site).await;
    let ask = Ask::new(1, "PING").with("Content-Length: 200000");
    raw.send(&ask.body([0; 1000]).bytes()).await;
    let head = raw.until("\r\n\r\n").await;
    raw.send(&[0; 100_000]).await;

    let (_, end) = raw.rest().await;

    assert_eq!(status(&head), 413, "{head}");
    assert_eq!((end, raw.was_reset()), (End::Clean, false));
}
