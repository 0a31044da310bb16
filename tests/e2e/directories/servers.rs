//! What becomes of a mailbox server's answers that are none, or not for the client; each byte by hand.

use crate::accounts::{samples, sum};
use crate::rig::{Asked, Puppet};
use crate::support::{End, Raw, TestSite, credentials, eventually, start, status};
use mapigate::lab::site::HOST;

/// A site whose server is a puppet. The preset has no health pages.
async fn site(puppet: &Puppet) -> TestSite {
    let directories = "{ preset: gromox, paths: [{ path: /owa, from: everywhere, websocket: true }, { path: /ews, body: 100B }] }";
    start(puppet.plan("").section("virtual_directories", directories)).await
}

fn request(line: &str, fields: &str) -> Vec<u8> {
    format!(
        "{line} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {}\r\n{fields}\r\n",
        credentials(1)
    )
    .into_bytes()
}

/// A request that the server answers with these bytes: what the client gets, and how it ends.
async fn answered(line: &str, fields: &str, answer: &[u8]) -> (String, End) {
    let puppet = Puppet::new().await;
    let site = site(&puppet).await;
    let mut raw = Raw::open(&site).await;
    let fields = format!("{fields}Connection: close\r\n");
    raw.send(&request(line, &fields)).await;
    let mut asked: Asked = puppet.asked().await;
    asked.say(answer).await;
    drop(asked);
    raw.rest().await
}

const GET: &str = "GET /ews/x";

#[tokio::test]
async fn what_is_no_answer_is_502_and_nothing_of_it_is_passed_on() {
    for answer in [
        &b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nevil"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nevil",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\nevil",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nevil\r\n",
        b"SSH-2.0-evil\r\n\r\n",
        b"",
    ] {
        let (text, end) = answered(GET, "", answer).await;
        assert_eq!((status(&text), end), (502, End::Clean), "{text}");
        assert!(!text.contains("evil"), "{text}");
    }
}

#[tokio::test]
async fn a_tunnel_is_not_opened_to_another_protocol() {
    let asks = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n";
    // `Connection: close` beside it is nothing a WebSocket says.
    let other = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\nevil";
    let (text, _) = answered("GET /owa/ws", asks, other).await;
    assert_eq!(status(&text), 502, "{text}");
    let refused = b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno";
    let (text, _) = answered("GET /owa/ws", asks, refused).await;
    assert_eq!(status(&text), 426, "{text}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let (text, end) = answered(GET, "", answer).await;
        assert_eq!((status(&text), end), (200, End::Broken), "{text}");
    }
    let until_close = b"HTTP/1.1 200 OK\r\n\r\nabc";
    let (text, end) = answered(GET, "", until_close).await;
    assert!(text.ends_with("\r\n\r\nabc"), "{text}");
    assert_eq!(end, End::Clean);
}

#[tokio::test]
async fn a_word_to_a_front_end_is_not_passed_on() {
    let elsewhere =
        b"HTTP/1.1 555 Elsewhere\r\nX-DBMountedOnServer: mbx9\r\nContent-Length: 0\r\n\r\n";
    let (text, _) = answered(GET, "", elsewhere).await;
    assert_eq!(status(&text), 503, "{text}");
    assert!(!text.contains("mbx9"), "{text}");
}

#[tokio::test]
async fn a_refused_password_is_asked_for_again_in_our_words() {
    let refused = b"HTTP/1.1 401 No\r\nWWW-Authenticate: Negotiate\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n";
    let (text, _) = answered(GET, "", refused).await;
    assert_eq!(status(&text), 401, "{text}");
    let challenges: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("WWW-Auth"))
        .collect();
    assert_eq!(challenges.len(), 1, "{text}");
    assert!(challenges[0].contains("Basic"), "{text}");
}

#[tokio::test]
async fn interim_answers_stay_here_and_a_request_that_was_taken_is_not_repeated() {
    let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </mbx1>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
    let (text, _) = answered(GET, "", answer).await;
    assert_eq!(status(&text), 204, "{text}");
    assert!(
        !text.contains("103") && !text.contains("Content-Length"),
        "{text}"
    );

    let puppet = Puppet::new().await;
    let site = site(&puppet).await;
    let mut raw = Raw::open(&site).await;
    raw.send(&request(
        "POST /ews/x",
        "Content-Length: 3\r\nConnection: close\r\n\r\nabc",
    ))
    .await;
    drop(puppet.asked().await);
    let (text, _) = raw.rest().await;
    assert_eq!(status(&text), 502, "{text}");
    let again = tokio::time::timeout(std::time::Duration::from_millis(300), puppet.asked());
    assert!(again.await.is_err(), "it came a second time");
}

#[tokio::test]
async fn an_upload_is_passed_on_as_it_comes_and_ends_with_an_early_answer() {
    let puppet = Puppet::new().await;
    let site = site(&puppet).await;
    let mut raw = Raw::open(&site).await;
    raw.send(&request("POST /ews/x", "Transfer-Encoding: chunked\r\n"))
        .await;
    raw.send(b"5\r\nfirst\r\n").await;
    let mut asked = puppet.asked().await;
    assert!(
        asked.head.contains("Transfer-Encoding: chunked\r\n"),
        "{}",
        asked.head
    );
    while !asked.body.ends_with(b"first\r\n") {
        asked.some().await;
    }
    raw.send(b"6\r\nsecond\r\n").await;
    while !asked.body.ends_with(b"second\r\n") {
        asked.some().await;
    }
    asked
        .say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        .await;
    let text = raw.until("no").await;
    assert_eq!(status(&text), 413, "{text}");
    raw.rest().await;
    asked.closed().await;
}

/// Sends an upload in chunks, each after the one before has arrived.
async fn upload(puppet: &Puppet, raw: &mut Raw, chunks: &[&str]) -> Asked {
    raw.send(&request("POST /ews/x", "Transfer-Encoding: chunked\r\n"))
        .await;
    let mut asked = None;
    for chunk in chunks {
        let framed = format!("{:x}\r\n{chunk}\r\n", chunk.len());
        raw.send(framed.as_bytes()).await;
        let asked: &mut Asked = match &mut asked {
            Some(asked) => asked,
            None => asked.insert(puppet.asked().await),
        };
        while !asked.body.ends_with(framed.as_bytes()) {
            asked.some().await;
        }
    }
    asked.unwrap()
}

#[tokio::test]
async fn the_framing_of_an_upload_in_chunks_is_no_payload_on_its_account() {
    let puppet = Puppet::new().await;
    let site = site(&puppet).await;
    let mut raw = Raw::open(&site).await;
    let mut asked = upload(&puppet, &mut raw, &["first", "second", "3rd"]).await;
    raw.send(b"0\r\n\r\n").await;
    while !asked.body.ends_with(b"0\r\n\r\n") {
        asked.some().await;
    }
    asked
        .say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    raw.until("ok").await;

    // Size and two line ends for each of three chunks, and the last one.
    for (leg, direction) in [("client", "received"), ("server", "sent")] {
        let labels = [
            format!("leg=\"{leg}\""),
            format!("direction=\"{direction}\""),
        ];
        eventually("the request is booked", || async {
            let bytes = samples(&site, "mapigate_bytes_total").await;
            let booked = |kind: &str| sum(&bytes, &[&labels[0], &labels[1], kind]);
            booked("kind=\"payload\"") == 14.0 && booked("kind=\"framing\"") == 20.0
        })
        .await;
    }
}

#[tokio::test]
async fn chunks_that_come_late_count_against_the_same_limit_as_the_first() {
    let puppet = Puppet::new().await;
    let site = site(&puppet).await;
    let mut raw = Raw::open(&site).await;
    // 99 bytes of the 100, most of them behind the first piece; their framing does not count.
    let (forty, nineteen) = ("x".repeat(40), "y".repeat(19));
    let mut asked = upload(&puppet, &mut raw, &[&forty, &forty, &nineteen]).await;

    raw.send(b"2\r\nno\r\n").await;

    let (text, _) = raw.rest().await;
    assert!(!text.contains("200 OK"), "{text}");
    assert!(asked.body.ends_with(b"y\r\n"));
    asked.closed().await;
}

#[tokio::test]
async fn a_connection_on_which_somebody_was_refused_serves_nobody_else() {
    let puppet = Puppet::new().await;
    let site = site(&puppet).await;
    let mut raw = Raw::open(&site).await;
    raw.send(&request(GET, "")).await;
    let mut refuses = puppet.asked().await;
    refuses
        .say(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"mbx\"\r\nContent-Length: 2\r\n\r\nno")
        .await;
    raw.until("401").await;
    refuses.closed().await;

    // One that was answered well serves the next.
    let mut again = Raw::open(&site).await;
    again.send(&request(GET, "")).await;
    let mut asked = puppet.asked().await;
    asked
        .say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    again.until("ok").await;
    again.send(&request(GET, "")).await;
    asked.next().await.unwrap();
}
