//! The accounts of HTTP/2 against what others saw: the kernel's count of processor time, a capture of every
//! packet.

use super::client::{Client, END_STREAM, Frame, PING, Raw, request, rest, send_all};
use super::{line_with, metric, plan, site};
use crate::accounts::{Capture, agree_with, samples, sum};
use crate::directories::start_planned;
use crate::rig::in_time;
use crate::support::{TestSite, eventually};
use bytes::Bytes;
use h2::Reason;
use mapigate::lab::site::mailbox;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Long enough for samples of phases.
const LOAD: Duration = Duration::from_secs(20);

/// What clients do on an ordinary day, and what goes wrong in it.
async fn day(site: Arc<TestSite>, number: usize) -> usize {
    let until = Instant::now() + LOAD;
    let mut answered = 0;
    while Instant::now() < until {
        let mut client = Client::open(&site).await;
        for round in 0..40_usize {
            let size = [0, 10, 3_000, 70_000][round % 4];
            let path = format!("/ews/x?round={round}");
            let told = match size {
                0 => client.ask(request("GET", &path, number), b"").await,
                size => {
                    let mut asked = request("POST", &path, number);
                    if round % 3 == 0 {
                        asked.headers_mut().insert("content-length", size.into());
                    }
                    client.ask(asked, &vec![b'x'; size]).await
                }
            };
            assert_eq!(told.unwrap().status, 200);
            answered += 1;
        }
        trouble(&site, &mut client, number, answered / 40).await;
    }
    answered
}

async fn trouble(site: &TestSite, client: &mut Client, number: usize, round: usize) {
    match round % 7 {
        // Given up: before the answer, and in the midst of the request.
        0 => {
            let path = "/Microsoft-Server-ActiveSync?Cmd=Ping";
            let (_, mut send) = client
                .begin(request("POST", path, number), true)
                .await
                .unwrap();
            send.send_data(Bytes::from_static(b"ping"), true).unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            send.send_reset(Reason::CANCEL);
        }
        1 => {
            let (_, mut send) = client
                .begin(request("POST", "/ews/x", number), true)
                .await
                .unwrap();
            send_all(&mut send, &[b'x'; 5000]).await.unwrap();
            send.send_reset(Reason::CANCEL);
        }
        // Sent away, misdirected, refused.
        2 => {
            let path = format!("/mapi/emsmdb/?MailboxId={}", mailbox(number));
            let why = client.reason(request("POST", &path, number)).await;
            assert_eq!(why, Some(Reason::HTTP_1_1_REQUIRED));
        }
        3 => {
            let mut asked = request("GET", "/ews/x", number);
            *asked.uri_mut() = "https://elsewhere.test/ews/x".parse().unwrap();
            assert_eq!(client.ask(asked, b"").await.unwrap().status, 421);
            let mut asked = request("GET", "/ews/x", number);
            asked.headers_mut().remove("authorization");
            assert_eq!(client.ask(asked, b"").await.unwrap().status, 401);
        }
        // Frames that are nobody's, and a connection that is gone without a word.
        4 => {
            let mut raw = Raw::open(site).await;
            raw.send(&vec![Frame::new(PING, 0, 0, [1; 8]); 300]).await;
            raw.send(&[Frame::head(1, 0, &[(b":method", b"GET")])])
                .await;
            raw.send(&[Frame::new(99, END_STREAM, 7, vec![3; 500])])
                .await;
            in_time("something", raw.next()).await.unwrap();
        }
        5 => {
            let mut raw = Raw::open(site).await;
            raw.send(&vec![Frame::new(PING, 0, 0, [1; 8]); 3000]).await;
            while raw.next().await.is_some() {}
        }
        // An upload that is too large, answered before it has come.
        _ => {
            let (answer, mut send) = client
                .begin(request("POST", "/oab/x", number), true)
                .await
                .unwrap();
            let sending = tokio::spawn(async move { send_all(&mut send, &[b'x'; 100_000]).await });
            let answer = in_time("an answer", answer).await.unwrap();
            assert_eq!(answer.status(), 405);
            rest(answer.into_body()).await.unwrap();
            let _either = sending.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_of_http2_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan()
        .section("health", "{ interval: 1h, timeout: 1s }")
        .section("accounting", "{ cpu_every: 4, cpu_closely_every: 8 }");
    let site = Arc::new(start_planned(plan).await);
    let gate = site.gate().unwrap();
    let clients = gate.address().port();
    let servers: HashSet<u16> = site.servers().map(|it| it.address().port()).collect();
    let ports: HashSet<u16> = servers.iter().copied().chain([clients]).collect();
    // The first checks are over: nothing is under way.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let capture = Capture::start(folder.path(), &ports).await;
    let bytes_before = samples(&site, "mapigate_bytes_total").await;
    let cpu_before = samples(&site, "mapigate_cpu_seconds_total").await;
    let kernel_before = gate.cpu().unwrap();

    let mut days: JoinSet<_> = (1..=3)
        .map(|number| day(Arc::clone(&site), number))
        .collect();
    let mut answered = 0;
    while let Some(day) = days.join_next().await {
        answered += day.unwrap();
    }
    assert!(answered > 1000, "{answered}");
    eventually("all connections are closed", || async {
        metric(&site, "mapigate_connections_open").await == 0.0
            && metric(&site, "mapigate_http2_streams_open").await == 0.0
    })
    .await;
    // Kept connections on which something came unasked are closed within a second, and then booked.
    tokio::time::sleep(Duration::from_secs(3)).await;

    let cpu = samples(&site, "mapigate_cpu_seconds_total").await;
    let kernel = (gate.cpu().unwrap() - kernel_before).as_secs_f64();
    let booked = sum(&cpu, &[]) - sum(&cpu_before, &[]);
    let share = |account: &str| {
        let of = format!("account=\"{account}\"");
        let spent = sum(&cpu, &[&of]) - sum(&cpu_before, &[&of]);
        format!("{account} {spent:.3} s")
    };
    let shares = ["request", "connection", "handshake", "worker"].map(share);
    eprintln!(
        "{answered} answers; processor time: {booked:.3} s on accounts, {kernel:.3} s by the kernel ({})",
        shares.join(", ")
    );
    assert!(
        (booked / kernel - 1.0).abs() < 0.05,
        "{booked} of {kernel}: {cpu:?}"
    );

    let bytes = samples(&site, "mapigate_bytes_total").await;
    let on_account = |labels: &[&str]| sum(&bytes, labels) - sum(&bytes_before, labels);
    for direction in ["received", "sent"] {
        let of = |more: &[&str]| {
            let direction = format!("direction=\"{direction}\"");
            on_account(&[&["leg=\"client\"", direction.as_str()], more].concat())
        };
        let all = of(&[]);
        let ews = of(&["endpoint=\"ews\""]);
        let (tls, beside) = (of(&["kind=\"tls\""]), of(&["kind=\"connection\""]));
        eprintln!(
            "{direction}: {all} bytes, {ews} of requests to /ews, {tls} of TLS, {beside} of connections"
        );
        assert!(ews > all / 2.0 && tls > 0.0 && beside > 0.0);
    }
    let booked = |leg: &str, direction: &str| {
        on_account(&[
            &format!("leg=\"{leg}\""),
            &format!("direction=\"{direction}\""),
        ])
    };
    let _seen = agree_with(capture, clients, &servers, booked).await;
}

#[tokio::test]
async fn a_request_is_billed_for_its_frames() {
    let site = site().await;
    let mut client = Client::open(&site).await;
    let body = vec![b'x'; 1000];
    let told = client
        .ask(request("POST", "/ews/a", 1), &body)
        .await
        .unwrap();
    let line = line_with(&site, |line| line["path"] == "/ews/a").await;
    let number = |key: &str| line[key].as_u64().unwrap_or(0);

    // A frame of the body and its head; both of the answer.
    assert_eq!(number("body_in"), 1000 + 9 + 9, "{line}");
    assert_eq!(number("body_out"), told.body.len() as u64 + 9 + 9, "{line}");
    assert_eq!(
        number("tls_in"),
        number("head_in") + number("body_in"),
        "{line}"
    );
    assert!((60..400).contains(&number("head_in")), "{line}");
    assert!((30..400).contains(&number("head_out")), "{line}");
    // Packed by what went before.
    client
        .ask(request("POST", "/ews/a", 1), &body)
        .await
        .unwrap();
    client
        .ask(request("POST", "/ews/b", 1), &body)
        .await
        .unwrap();
    let again = line_with(&site, |line| line["path"] == "/ews/b").await;
    assert!(
        again["head_in"].as_u64().unwrap() < number("head_in"),
        "{again}"
    );
    assert_eq!(again["client_reused"], true);
    assert_eq!(again.get("handshake_in"), None);
}
