//! Bytes pass as they come: at once, unchanged, unbuffered, and each for itself.

use crate::rig::{Asked, Hand, PATIENCE, Puppet, chunk, chunked_head, in_time, timed};
use crate::support::{TestSite, brisk, eventually, start};
use mapigate::lab::digest;
use mapigate::mapi::{Flavour, RequestType};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_millis(100);
const PERIOD: Duration = Duration::from_secs(30);

/// A session at a puppet, and the connection it was opened on.
async fn session(site: &TestSite, puppet: &Puppet, number: usize) -> (Hand, Asked) {
    tokio::join!(Hand::connected(site, number), puppet.connects(PERIOD))
}

/// Memory of mapigate that is in use, in KiB.
fn memory(site: &TestSite) -> usize {
    let status = format!("/proc/{}/status", site.gate().unwrap().id());
    let status = fs::read_to_string(status).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let digits = line.unwrap().split_whitespace().nth(1).unwrap();
    digits.parse().unwrap()
}

#[tokio::test]
async fn every_tag_reaches_the_client_as_soon_as_it_is_sent() {
    let puppet = Puppet::new().await;
    let site = start(puppet.plan("")).await;
    let (mut hand, asked) = session(&site, &puppet, 1).await;
    hand.send(RequestType::NotificationWait).await;
    let mut wait = asked.next().await.unwrap();
    wait.whole().await;

    let mut begun = chunked_head(RequestType::NotificationWait, PERIOD);
    begun.extend(chunk(b"PROCESSING\r\n"));
    wait.say(&begun).await;
    let (piece, took) = timed(async {
        hand.line.head().await.unwrap();
        hand.line.piece().await.unwrap()
    })
    .await;
    assert_eq!(piece.unwrap(), b"PROCESSING\r\n");
    assert!(took < SOON, "{took:?}");
    for _ in 0..20 {
        wait.say(&chunk(b"PENDING\r\n")).await;
        let (piece, took) = timed(hand.line.piece()).await;
        assert_eq!(piece.unwrap().unwrap(), b"PENDING\r\n");
        assert!(took < SOON, "{took:?}");
    }
}

#[tokio::test]
async fn a_server_that_shows_no_life_for_three_periods_is_given_up() {
    let puppet = Puppet::new().await;
    let site = start(puppet.plan("")).await;
    let (mut hand, asked) = session(&site, &puppet, 1).await;
    hand.send(RequestType::NotificationWait).await;
    let mut wait = asked.next().await.unwrap();
    wait.whole().await;
    let period = Duration::from_millis(800);
    let mut begun = chunked_head(RequestType::NotificationWait, period);
    begun.extend(chunk(b"PROCESSING\r\n"));
    wait.say(&begun).await;
    let head = hand.line.head().await.unwrap();

    let (answer, took) = timed(hand.rest(head)).await;

    assert_eq!(answer.tagged().unwrap().code(), Some(10));
    assert!((period * 3 - SOON..period * 4).contains(&took), "{took:?}");
    wait.closed().await;
    let ended = "mapigate_polls_ended_total{reason=\"silent\"}";
    let admin = site.gate().unwrap().admin();
    assert_eq!(admin.metric(ended).await.unwrap(), 1.0);
}

#[tokio::test]
async fn a_poll_ends_at_its_limit_as_if_nothing_had_happened() {
    for flavour in [Flavour::Exchange, Flavour::Gromox] {
        let plan = brisk(flavour)
            .each(|server| server.lingering_wait = Duration::ZERO)
            .section("limits", "{ notification_wait: 1s }");
        let site = start(plan).await;
        let mut hand = Hand::connected(&site, 1).await;
        let head = hand.begin_wait().await;

        let (answer, took) = timed(hand.rest(head)).await;

        let tagged = answer.tagged().unwrap();
        assert_eq!((tagged.code(), tagged.body), (Some(0), vec![0; 16]));
        assert!((900..1300).contains(&took.as_millis()), "{took:?}");
        // The connection and the session go on, and nobody holds the old poll any more.
        assert_eq!(hand.ask(RequestType::Execute).await.code(), Some(0));
        hand.begin_wait().await;
        let server = site.server("MBX1").unwrap();
        eventually("it is held again", || async {
            server.counters().waits_held == 2
        })
        .await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_poll_along() {
    let site = start(brisk(Flavour::Exchange)).await;
    let mut hand = Hand::connected(&site, 1).await;
    hand.begin_wait().await;
    let mut next = hand.beside(&site).await;
    let server = site.server("MBX1").unwrap();

    let left = Instant::now();
    drop(hand);
    eventually("the server knows", || async {
        server.counters().waits_aborted == 1
    })
    .await;
    assert!(
        left.elapsed() < Duration::from_secs(1),
        "{:?}",
        left.elapsed()
    );

    let head = next.begin_wait().await;
    server.wake(None);
    let tagged = next.rest(head).await.tagged().unwrap();
    // StatusCode, ErrorCode (0x7EE: one is held already), EventPending.
    assert_eq!(tagged.body[4..12], [0, 0, 0, 0, 1, 0, 0, 0]);
}

#[tokio::test]
async fn chunks_pass_as_they_are_however_small_and_oddly_written() {
    let puppet = Puppet::new().await;
    let site = start(puppet.plan("")).await;
    let (mut hand, mut asked) = session(&site, &puppet, 1).await;
    let payload =
        b"PROCESSING\r\nPENDING\r\nPENDING\r\nDONE\r\nX-ResponseCode: 0\r\n\r\nA\nbody\r\n\0\xff";
    for step in [1, 3, 7, payload.len()] {
        hand.send(RequestType::Execute).await;
        asked = asked.next().await.unwrap();
        asked.whole().await;
        let mut body = Vec::new();
        for (number, piece) in payload.chunks(step).enumerate() {
            // Leading zeros and capitals are allowed. RFC 9112 section 7.1
            let size = match number % 2 {
                0 => format!("{:X}\r\n", piece.len()),
                _ => format!("00{:x}\r\n", piece.len()),
            };
            body.extend(size.into_bytes());
            body.extend_from_slice(piece);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\nX-Trailer: yes\r\n\r\n");
        let mut answer = chunked_head(RequestType::Execute, PERIOD);
        answer.extend(body);
        // Each byte is a packet.
        for byte in &answer {
            asked.say(&[*byte]).await;
            tokio::task::yield_now().await;
        }

        let got = hand.answer().await;

        assert_eq!(got.body(), payload);
        assert_eq!(got.pieces.len(), payload.len().div_ceil(step));
    }
}

#[tokio::test]
async fn dripped_answers_of_both_flavours_are_whole() {
    for flavour in [Flavour::Exchange, Flavour::Gromox] {
        let plan = brisk(flavour).each(|server| server.drip_interval = Duration::ZERO);
        let site = start(plan).await;
        let outlook = site.outlook(1).unwrap();
        outlook.connect().await.unwrap();
        let server = site.server("MBX1").unwrap();
        server.fault("drip".parse().unwrap(), 3, Some(RequestType::Execute));
        for _ in 0..3 {
            outlook.execute(b"drop by drop").await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_large_answer_is_exact_and_waits_for_a_slow_client_in_nobodys_memory() {
    const SIZE: usize = 10 << 20;
    let puppet = Puppet::new().await;
    let site = start(puppet.plan("").section("workers", "1")).await;
    let (mut hand, asked) = session(&site, &puppet, 1).await;
    hand.send(RequestType::Execute).await;
    let mut asked = asked.next().await.unwrap();
    asked.whole().await;
    let before = memory(&site);
    let payload: Vec<u8> = (0..SIZE).map(|_| fastrand::u8(..)).collect();
    let expected = digest(&payload);
    let sent = Arc::new(AtomicUsize::new(0));
    let sender = tokio::spawn({
        let sent = sent.clone();
        async move {
            asked.say(&chunked_head(RequestType::Execute, PERIOD)).await;
            for piece in payload.chunks(60_000) {
                asked.say(&chunk(piece)).await;
                sent.fetch_add(piece.len(), Ordering::Relaxed);
            }
            asked.say(b"0\r\n\r\n").await;
        }
    });
    // Nobody reads: the server is held back before it has sent everything.
    let mut last = usize::MAX;
    while last != sent.load(Ordering::Relaxed) {
        last = sent.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    assert!(last < SIZE, "all of it is in somebody's memory");
    let while_stuck = memory(&site);

    // Another client of the same worker feels nothing.
    let (_, took) = timed(session(&site, &puppet, 2)).await;
    assert!(took < Duration::from_millis(300), "{took:?}");
    let answer = tokio::time::timeout(PATIENCE, hand.line.answer()).await;
    let body = answer.unwrap().unwrap().body();
    sender.await.unwrap();

    assert_eq!((body.len(), digest(&body)), (SIZE, expected));
    let grown = memory(&site).max(while_stuck).saturating_sub(before);
    assert!(grown < 3 * 1024, "{grown} KiB");
}

#[tokio::test]
async fn both_directions_flow_at_once() {
    let puppet = Puppet::new().await;
    let site = start(puppet.plan("")).await;
    let (mut hand, asked) = session(&site, &puppet, 1).await;
    let (first, second) = (vec![b'a'; 30_000], vec![b'b'; 70_000]);
    let mut bytes = hand.head(RequestType::Execute, first.len() + second.len());
    bytes.extend_from_slice(&first);
    hand.line.send(&bytes).await.unwrap();
    let mut asked = asked.next().await.unwrap();

    // The answer begins before the request has ended.
    let mut begun = chunked_head(RequestType::Execute, PERIOD);
    begun.extend(chunk(b"PROCESSING\r\n"));
    asked.say(&begun).await;
    let head = in_time("a head", hand.line.head()).await.unwrap();
    let piece = in_time("a piece", hand.line.piece()).await.unwrap();
    assert_eq!(piece.unwrap(), b"PROCESSING\r\n");
    hand.line.send(&second).await.unwrap();
    asked.whole().await;
    asked.say(&chunk(b"DONE\r\n\r\n")).await;
    asked.say(b"0\r\n\r\n").await;

    assert_eq!(hand.rest(head).await.body(), b"DONE\r\n\r\n");
    assert_eq!(asked.body, [first, second].concat());
    // And the connections of both sides are as good as before.
    hand.send(RequestType::Execute).await;
    asked.next().await.unwrap();
}

#[tokio::test]
async fn a_large_request_is_passed_on_while_it_comes() {
    const SIZE: usize = 4 << 20;
    let puppet = Puppet::new().await;
    let site = start(puppet.plan("")).await;
    let (mut hand, asked) = session(&site, &puppet, 1).await;
    let body: Vec<u8> = (0..SIZE).map(|_| fastrand::u8(..)).collect();
    let before = memory(&site);

    let mut bytes = hand.head(RequestType::Execute, SIZE);
    let (first, second) = body.split_at(SIZE / 4);
    bytes.extend_from_slice(first);
    hand.line.send(&bytes).await.unwrap();
    let mut asked = asked.next().await.unwrap();
    while asked.body.len() < first.len() {
        asked.some().await;
    }
    tokio::join!(
        async { hand.line.send(second).await.unwrap() },
        asked.whole()
    );
    asked.say(&chunked_head(RequestType::Execute, PERIOD)).await;
    asked.say(b"0\r\n\r\n").await;

    assert_eq!(hand.answer().await.head.status, 200);
    assert_eq!(digest(&asked.body), digest(&body));
    let grown = memory(&site).saturating_sub(before);
    assert!(grown < 3 * 1024, "{grown} KiB");
}

#[tokio::test]
async fn a_client_that_stops_in_mid_request_is_not_the_servers_fault() {
    let puppet = Puppet::new().await;
    let plan = puppet
        .plan("")
        .section(
            "limits",
            "{ first_byte_timeout: 200ms, body_timeout: 400ms }",
        )
        .section("health", "{ interval: 1h, fall: 1, panic_threshold: 0 }");
    let site = start(plan).await;
    let (mut hand, asked) = session(&site, &puppet, 1).await;

    // Slow, but never still for too long: longer in all than a server may take.
    let mut bytes = hand.head(RequestType::Execute, 50);
    bytes.extend_from_slice(&[0; 10]);
    hand.line.send(&bytes).await.unwrap();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        hand.line.send(&[0; 10]).await.unwrap();
    }
    let mut asked = asked.next().await.unwrap();
    asked.whole().await;
    asked.say(&chunked_head(RequestType::Execute, PERIOD)).await;
    asked.say(b"0\r\n\r\n").await;
    assert_eq!(hand.answer().await.head.status, 200);

    // Still.
    let mut bytes = hand.head(RequestType::Execute, 50);
    bytes.extend_from_slice(&[0; 10]);
    hand.line.send(&bytes).await.unwrap();
    let (answer, took) = timed(hand.answer()).await;

    assert_eq!(answer.head.status, 408);
    assert!(took < Duration::from_secs(1), "{took:?}");
    let admin = site.gate().unwrap().admin();
    let up = admin.metric("mapigate_backend_up{server=\"MBX1\"}").await;
    assert_eq!(up.unwrap(), 1.0);
    // A server that is silent is another matter.
    let mut other = Hand::new(&site, 2).await;
    other.send(RequestType::Connect).await;
    let _silent = puppet.asked().await;
    assert_eq!(other.answer().await.head.status, 504);
}
