//! Requests that a mailbox server holds for the longest there is, in simulated time over the real door.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "a door begins by the clock, and hours pass by one that jumps"
)]

#[path = "../outlook_anywhere/door.rs"]
mod door;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use door::Door;
use mapigate::lab::site::{HOST, PASSWORD, user};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const MINUTE: Duration = Duration::from_secs(60);

/// Before a server that holds what it is asked for as many minutes as the query says: without a word below
/// `/Microsoft-Server-ActiveSync`, after the beginning of its answer elsewhere.
async fn door() -> Door {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut lines = JoinSet::new();
        loop {
            let (line, _) = listener.accept().await.unwrap();
            // Acknowledgements come by a clock that does not jump: nothing may wait for one.
            line.set_nodelay(true).unwrap();
            lines.spawn(serve(line));
        }
    });
    let more = "virtual_directories: { preset: exchange2019 }\n\
                limits: { requests_per_user: 10000 }\n";
    let door = Door::before(address, more).await;
    // The password is known from here on: nothing is verified beside the clock.
    let mut line = Line::to(&door).await;
    line.ask("/ews/x?Minutes=0").await;
    assert!(line.rest().await.contains("last"));
    door
}

async fn serve(mut line: TcpStream) -> Option<()> {
    loop {
        let asked = head(&mut line).await?;
        let minutes = asked.split("Minutes=").nth(1)?;
        let minutes: u32 = minutes.split(' ').next()?.parse().ok()?;
        if asked.contains("ActiveSync") {
            sleep(minutes * MINUTE).await;
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast";
            line.write_all(answer).await.ok()?;
            continue;
        }
        let begins = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
        line.write_all(begins).await.ok()?;
        sleep(minutes * MINUTE).await;
        line.write_all(b"4\r\nlast\r\n0\r\n\r\n").await.ok()?;
    }
}

/// The next head, and the body of two bytes behind it.
async fn head(line: &mut TcpStream) -> Option<String> {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\nxx") {
        seen.push(line.read_u8().await.ok()?);
    }
    String::from_utf8(seen).ok()
}

/// A client.
struct Line(TcpStream);

impl Line {
    async fn to(door: &Door) -> Self {
        Self(TcpStream::connect(door.address).await.unwrap())
    }

    async fn ask(&mut self, target: &str) {
        let credentials = STANDARD.encode(format!("{}:{PASSWORD}", user(1)));
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Basic {credentials}\r\nContent-Length: 2\r\n\r\nxx"
        );
        self.0.write_all(head.as_bytes()).await.unwrap();
    }

    /// Everything up to the last word of an answer, or to the end of the connection.
    async fn rest(&mut self) -> String {
        let mut seen = Vec::new();
        let mut piece = [0; 1024];
        loop {
            let text = String::from_utf8_lossy(&seen).into_owned();
            if text.contains("\r\n\r\nlast")
                || text.ends_with("0\r\n\r\n")
                || text.contains("</html>")
            {
                return text;
            }
            match self.0.read(&mut piece).await {
                Ok(0) | Err(_) => return text,
                Ok(count) => seen.extend_from_slice(piece.get(..count).unwrap()),
            }
        }
    }
}

/// How long something takes by the clock that jumps, in minutes.
async fn minutes<T>(future: impl Future<Output = T>) -> (T, f64) {
    let began = Instant::now();
    let done = future.await;
    (done, began.elapsed().as_secs_f64() / 60.0)
}

const PING: &str =
    "/Microsoft-Server-ActiveSync?Cmd=Ping&User=user1&DeviceId=x&DeviceType=y&Minutes=";
const SILENT: &str = "mapigate_refusals_total{reason=\"server_silent\"}";
const EVENTS: &str = "/ews/exchange.asmx?Minutes=";

#[tokio::test]
async fn a_ping_of_activesync_is_held_for_59_minutes() {
    let door = door().await;
    let mut phone = Line::to(&door).await;
    tokio::time::pause();

    phone.ask(&format!("{PING}59")).await;
    let (answer, took) = minutes(phone.rest()).await;

    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!((59.0..59.1).contains(&took), "{took}");
    assert_eq!(door.sample(SILENT), "0");
}

#[tokio::test]
async fn a_ping_that_nobody_answers_is_ended_in_words_when_the_directorys_patience_is_over() {
    let door = door().await;
    let mut phone = Line::to(&door).await;
    tokio::time::pause();

    // The policy has 61 minutes, and one more is too many.
    phone.ask(&format!("{PING}62")).await;
    let (answer, took) = minutes(phone.rest()).await;

    assert!((61.0..61.1).contains(&took), "{took}");
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    let words = "The mailbox server did not answer in time.";
    assert!(answer.contains(words), "{answer}");
    assert_eq!(door.sample(SILENT), "1");
}

#[tokio::test]
async fn events_of_ews_are_streamed_over_30_minutes_of_silence() {
    let door = door().await;
    let mut client = Line::to(&door).await;
    tokio::time::pause();

    client.ask(&format!("{EVENTS}30")).await;
    let (answer, took) = minutes(client.rest()).await;

    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("first"), "{answer}");
    assert!(answer.ends_with("last\r\n0\r\n\r\n"), "{answer}");
    assert!((30.0..30.1).contains(&took), "{took}");
    assert_eq!(door.sample(SILENT), "0");
}

#[tokio::test]
async fn a_stream_of_ews_that_falls_silent_is_broken_off_when_the_directorys_patience_is_over() {
    let door = door().await;
    let mut client = Line::to(&door).await;
    tokio::time::pause();

    // The policy has 31 minutes, and one more is too many.
    client.ask(&format!("{EVENTS}32")).await;
    let (answer, took) = minutes(client.rest()).await;

    assert!((31.0..31.1).contains(&took), "{took}");
    // Its head has passed: no answer of ours can follow, and half of one must not look whole.
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("first\r\n"), "{answer}");
    assert_eq!(door.sample(SILENT), "1");
}

#[tokio::test]
async fn held_pings_cost_little_memory_each() {
    let door = door().await;
    let hold = async |count: usize| {
        let mut phones = Vec::new();
        for _ in 0..count {
            let mut phone = Line::to(&door).await;
            phone.ask(&format!("{PING}59")).await;
            phones.push(phone);
        }
        sleep(MINUTE).await;
        phones
    };
    tokio::time::pause();

    // What is there once, and what the first of them brings along, counts for none of them.
    let some = hold(100).await;
    let before = resident();
    let many = hold(400).await;
    let each = resident().saturating_sub(before) / many.len();

    eprintln!("{each} bytes for a held ping, its client and its server in this process too");
    assert!(each < 32 * 1024, "{each}");
    for mut phone in some.into_iter().chain(many) {
        assert!(phone.rest().await.starts_with("HTTP/1.1 200 OK\r\n"));
    }
}

/// Bytes of this process in memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.unwrap().split_whitespace().nth(1).unwrap();
    1024 * kilobytes.parse::<usize>().unwrap()
}
