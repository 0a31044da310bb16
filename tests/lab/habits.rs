//! Habits of servers outside of MAPI: limits, idle connections, credentials, request framing.

use std::time::Duration;

use base64::Engine as _;
use mapigate::ids::UserName;
use mapigate::lab::MailboxServer;
use mapigate::lab::mailbox_server::{Authenticate, HealthPage, Users};
use mapigate::mapi::Flavour;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::{options, server};

fn basic(user: &str, password: &str) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Authorization: Basic {text}\r\n")
}

fn ping(more: &str) -> String {
    format!(
        "POST /mapi/emsmdb/?MailboxId=x@y HTTP/1.1\r\nHost: x\r\nX-RequestType: PING\r\n\
         X-RequestId: {{x}}:1\r\nX-ClientInfo: {{x}}:1\r\nX-ClientApplication: Outlook/16.0\r\n{more}\r\n"
    )
}

/// Sends bytes and reads until the server is silent or gone.
async fn say(tcp: &mut TcpStream, bytes: &[u8]) -> String {
    tcp.write_all(bytes).await.unwrap();
    heard(tcp).await
}

async fn heard(tcp: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let patience = Duration::from_millis(if all.is_empty() { 5_000 } else { 50 });
        match tokio::time::timeout(patience, tcp.read(&mut piece)).await {
            Ok(Ok(count @ 1..)) => all.extend_from_slice(&piece[..count]),
            _ => return String::from_utf8_lossy(&all).into_owned(),
        }
    }
}

async fn line(server: &MailboxServer) -> TcpStream {
    TcpStream::connect(server.address()).await.unwrap()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[tokio::test]
async fn gromox_writes_an_unsolicited_408_on_an_idle_connection() {
    let mut options = options(Flavour::Gromox);
    options.idle_timeout = Duration::from_millis(20);
    let server = server(options).await;

    let words = heard(&mut line(&server).await).await;

    assert!(words.starts_with("HTTP/1.1 408 Request Timeout\r\n"));
    assert!(words.contains("Content-Length: 17\r\n"));
}

#[tokio::test]
async fn gromox_refuses_what_it_cannot_read_and_closes() {
    let server = server(options(Flavour::Gromox)).await;
    let large = "x".repeat(66_000);
    let long = "x".repeat(8_100);
    for (request, expected) in [
        (ping("Transfer-Encoding: chunked\r\n"), "400"),
        (ping(&format!("X-Large: {large}\r\n")), "400"),
        (format!("POST /{long} HTTP/1.1\r\n\r\n"), "414"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "400"),
    ] {
        let answer = say(&mut line(&server).await, request.as_bytes()).await;

        assert_eq!(status(&answer), expected);
        assert!(answer.contains("Connection: close\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn gromox_believes_the_last_of_two_lengths_and_answers_what_is_behind() {
    let server = server(options(Flavour::Gromox)).await;
    let inner = ping(&basic("user1", "x"));
    let outer = format!("Content-Length: {}\r\nContent-Length: 0\r\n", inner.len());
    let request = format!(
        "{}{inner}",
        ping(&format!("{outer}{}", basic("user1", "x")))
    );

    let answer = say(&mut line(&server).await, request.as_bytes()).await;

    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2);
    assert_eq!(server.heads().len(), 2);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_old_versions_closed() {
    let server = server(options(Flavour::Gromox)).await;
    let good = ping(&basic("user1", "x"));

    let both = say(&mut line(&server).await, format!("{good}{good}").as_bytes()).await;
    let old = good.replace("HTTP/1.1", "HTTP/1.0");
    let mut tcp = line(&server).await;
    let answer = say(&mut tcp, old.as_bytes()).await;

    assert_eq!(both.matches("X-ResponseCode: 6").count(), 2);
    assert_eq!(status(&answer), "200");
    assert_eq!(tcp.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn the_401st_connection_is_turned_away_before_anything() {
    let mut options = options(Flavour::Gromox);
    options.connections_max = 2;
    let server = server(options).await;
    let (_first, _second) = (line(&server).await, line(&server).await);
    crate::eventually("two", || server.connections_open() == 2).await;

    let words = heard(&mut line(&server).await).await;

    assert!(words.starts_with("HTTP/1.1 503 L-202 Service Unavailable\r\n"));
}

#[tokio::test]
async fn ten_failures_on_one_connection_lock_out_the_user_of_the_tenth() {
    let mut options = options(Flavour::Gromox);
    options.users = Users::Listed(
        ["carol", "dave"]
            .map(|user| (UserName::new(user), "good".to_owned()))
            .into(),
    );
    let server = server(options).await;
    let mut tcp = line(&server).await;
    for _ in 0..9 {
        let answer = say(&mut tcp, ping(&basic("dave", "bad")).as_bytes()).await;
        assert_eq!(status(&answer), "401");
    }
    say(&mut tcp, ping(&basic("carol", "bad")).as_bytes()).await;

    let mut other = line(&server).await;
    let carol = say(&mut other, ping(&basic("carol", "good")).as_bytes()).await;
    let dave = say(&mut other, ping(&basic("dave", "good")).as_bytes()).await;

    assert_eq!((status(&carol), status(&dave)), ("401", "200"));
}

#[tokio::test]
async fn credentials_are_good_for_a_request_or_for_a_connection() {
    for (authenticate, expected) in [
        (Authenticate::Requests, "401"),
        (Authenticate::Connections, "200"),
    ] {
        let mut options = options(Flavour::Gromox);
        options.authenticate = authenticate;
        let server = server(options).await;
        let mut tcp = line(&server).await;

        let first = say(&mut tcp, ping(&basic("user1", "x")).as_bytes()).await;
        let second = say(&mut tcp, ping("").as_bytes()).await;

        assert_eq!((status(&first), status(&second)), ("200", expected));
    }
}

#[tokio::test]
async fn the_health_page_is_exchanges_and_can_fail() {
    let page = b"GET /mapi/healthcheck.htm HTTP/1.1\r\nHost: x\r\n\r\n";
    let exchange = server(options(Flavour::Exchange)).await;
    let gromox = server(options(Flavour::Gromox)).await;

    let served = say(&mut line(&exchange).await, page).await;
    let missing = say(&mut line(&gromox).await, page).await;
    exchange.set_health_page(HealthPage::Failing);
    let failing = say(&mut line(&exchange).await, page).await;

    assert!(served.ends_with("200 OK<br/>MBX1"), "{served}");
    assert_eq!(status(&missing), "404");
    assert_eq!(status(&failing), "500");
}

#[tokio::test]
async fn exchange_reads_chunked_bodies_and_needs_a_length_otherwise() {
    let server = server(options(Flavour::Exchange)).await;
    let chunked = ping(&format!(
        "Transfer-Encoding: chunked\r\n{}",
        basic("user1", "x")
    ));
    let mut tcp = line(&server).await;

    let read = say(
        &mut tcp,
        format!("{chunked}3\r\nabc\r\n0\r\n\r\n").as_bytes(),
    )
    .await;
    let none = say(&mut tcp, ping(&basic("user1", "x")).as_bytes()).await;

    assert_eq!((status(&read), status(&none)), ("200", "411"));
}
