//! Databases move and servers die; sessions find their way and nothing runs twice.

use crate::rig::{Hand, Puppet, body_of, broken, chunk, chunked_head, in_time, timed};
use crate::support::{TestSite, brisk, eventually, start};
use mapigate::lab::crowd::Work;
use mapigate::lab::mailbox_server::{Fault, HealthPage, Mode};
use mapigate::lab::outlook::wire::Answer;
use mapigate::lab::{Crowd, Outlook};
use mapigate::mapi::{Endpoint, Flavour, RequestType};
use std::time::{Duration, Instant};

const BOTH: [Flavour; 2] = [Flavour::Exchange, Flavour::Gromox];
/// What a moved or lost poll may take to end, the way through the test's own process included.
const A_SECOND: Duration = Duration::from_millis(1200);

#[tokio::test]
async fn a_moved_database_costs_one_code_10_and_the_next_session_is_on_the_new_server() {
    for flavour in BOTH {
        let mut site = start(brisk(flavour)).await;
        let outlook = site.outlook(1).unwrap();
        outlook.connect().await.unwrap();
        outlook.bind().await.unwrap();
        let before = outlook.execute(b"before").await.unwrap();

        site.move_database("MBX2").await.unwrap();
        let after = outlook.execute(b"after").await.unwrap();

        assert_eq!((before.served_by(), after.served_by()), ("MBX1", "MBX2"));
        assert_eq!(outlook.counters().code10s, [1, 0]);
        assert_eq!(broken(&site, &outlook.sent()), []);
        // Another server's cookies stay behind: gromox refuses a Connect that brings some.
        for head in site.server("MBX2").unwrap().heads() {
            let head = String::from_utf8(head).unwrap();
            let opens = head.contains("X-RequestType: Connect");
            assert!(!opens || !head.contains("Cookie:"), "{head}");
        }
        // The address book's session is told as well, and only once.
        assert_eq!(outlook.ping(Endpoint::Nspi).await.unwrap(), 10);
        outlook.bind().await.unwrap();
        assert_eq!(outlook.ping(Endpoint::Nspi).await.unwrap(), 0);
    }
}

async fn everybody_is_back_within_two_seconds(flavour: Flavour, back_tls: bool) {
    let mut plan = brisk(flavour).each(|server| {
        server.mode = Mode::Naive;
        server.lingering_wait = Duration::ZERO;
    });
    plan.back_tls = back_tls;
    let mut site = start(plan).await;
    let everybody = (1..=20).map(|number| site.outlook_options(number).unwrap());
    let work = Work {
        pause: Duration::from_millis(20),
        ..Work::default()
    };
    let crowd = Crowd::start(everybody.collect(), &work);
    let done = |member: &Outlook| member.counters().executes_ok;
    eventually("everybody works and waits", || async {
        let held = site.server("MBX1").unwrap().counters().waits_held;
        held >= 20 && crowd.members().iter().all(|member| done(member) > 3)
    })
    .await;

    site.kill_server("MBX1").await.unwrap();
    eventually("somebody is told to wait", || async {
        crowd.report().busy > 0
    })
    .await;
    site.move_database("MBX2").await.unwrap();
    let moved = Instant::now();
    let before: Vec<_> = crowd.members().iter().map(done).collect();
    eventually("everybody works again", || async {
        let members = crowd.members().iter();
        members
            .zip(&before)
            .all(|(member, before)| done(member) > *before)
    })
    .await;
    let back = moved.elapsed();

    let counters: Vec<_> = crowd.members().iter().map(Outlook::counters).collect();
    let (report, sent) = crowd.stop(Duration::from_secs(5)).await;
    assert!(back < Duration::from_secs(2), "{back:?}");
    assert!(
        counters.iter().all(|counters| counters.reconnects == 1),
        "{report}"
    );
    assert!(report.code10s_per_session_max <= 1, "{report}");
    assert_eq!(broken(&site, &sent), []);
}

#[tokio::test]
async fn twenty_outlooks_are_back_within_two_seconds_of_the_map_change() {
    everybody_is_back_within_two_seconds(Flavour::Exchange, false).await;
}

#[tokio::test]
async fn twenty_outlooks_of_gromox_behind_tls_are_back_as_soon() {
    everybody_is_back_within_two_seconds(Flavour::Gromox, true).await;
}

/// The end a poll gets, and that the connection goes on afterwards.
async fn ends_in_band(hand: &mut Hand, head: mapigate::lab::outlook::wire::AnswerHead) -> Answer {
    let (answer, took) = timed(hand.rest(head)).await;
    assert!(took < A_SECOND, "{took:?}");
    let tagged = answer.tagged().expect("DONE");
    assert_eq!((tagged.code(), tagged.body.len()), (Some(10), 0));
    answer
}

#[tokio::test]
async fn a_held_poll_ends_in_band_when_its_database_moves() {
    for flavour in BOTH {
        let mut site = start(brisk(flavour)).await;
        let mut hand = Hand::connected(&site, 1).await;
        let head = hand.begin_wait().await;

        site.move_database("MBX2").await.unwrap();
        ends_in_band(&mut hand, head).await;

        assert_eq!(hand.ask(RequestType::Execute).await.code(), Some(10));
        assert_eq!(hand.ask(RequestType::Connect).await.code(), Some(0));
        assert_eq!(hand.ask(RequestType::Execute).await.code(), Some(0));
        eventually("the old server learns that nobody waits", || async {
            site.server("MBX1").unwrap().counters().waits_aborted == 1
        })
        .await;
    }
}

#[tokio::test]
async fn a_held_poll_ends_in_band_when_its_server_dies() {
    for flavour in BOTH {
        let mut site = start(brisk(flavour)).await;
        let mut hand = Hand::connected(&site, 1).await;
        let head = hand.begin_wait().await;

        site.kill_server("MBX1").await.unwrap();
        ends_in_band(&mut hand, head).await;

        assert_eq!(hand.ask(RequestType::Connect).await.head.status, 503);
        site.move_database("MBX2").await.unwrap();
        assert_eq!(hand.ask(RequestType::Connect).await.code(), Some(0));
        let ended = lines_of(&site, "NotificationWait", 1).await;
        assert_eq!(
            (&ended[0]["ending"], &ended[0]["code"]),
            (&"ended".into(), &10.into())
        );
    }
}

/// The access log's lines of a type, once there are so many.
async fn lines_of(site: &TestSite, kind: &str, count: usize) -> Vec<serde_json::Value> {
    let lines = || {
        let mut lines = site.access_lines().unwrap();
        lines.retain(|line| line["type"] == kind);
        lines
    };
    eventually("the access log has it", || async { lines().len() >= count }).await;
    lines()
}

#[tokio::test]
async fn a_poll_is_ended_between_two_tags_and_never_inside_one() {
    let puppet = Puppet::new().await;
    let mut site = start(puppet.plan("")).await;
    let period = Duration::from_secs(30);
    let (mut hand, asked) = tokio::join!(Hand::connected(&site, 1), puppet.connects(period));
    hand.send(RequestType::NotificationWait).await;
    let mut wait = asked.next().await.unwrap();
    wait.whole().await;
    let mut begun = chunked_head(RequestType::NotificationWait, period);
    begun.extend(chunk(b"PROCESSING\r\n"));
    // A whole chunk, and half a tag.
    begun.extend(chunk(b"PEND"));
    wait.say(&begun).await;
    let head = hand.line.head().await.unwrap();
    assert_eq!(hand.line.piece().await.unwrap().unwrap(), b"PROCESSING\r\n");
    assert_eq!(hand.line.piece().await.unwrap().unwrap(), b"PEND");

    site.move_database("MBX2").await.unwrap();
    // Its moment passes in the middle of the tag; then the rest comes.
    tokio::time::sleep(Duration::from_millis(900)).await;
    wait.say(&chunk(b"ING\r\n")).await;
    let (answer, took) = timed(hand.rest(head)).await;

    let ended = String::from_utf8(answer.body()).unwrap();
    assert!(
        ended.starts_with("ING\r\nDONE\r\nX-ResponseCode: 10\r\n"),
        "{ended:?}"
    );
    assert!(took < Duration::from_millis(300), "{took:?}");
    wait.closed().await;
}

#[tokio::test]
async fn a_poll_that_has_no_answer_yet_is_told_in_a_whole_one() {
    let puppet = Puppet::new().await;
    let mut site = start(puppet.plan("")).await;
    let (mut hand, asked) = tokio::join!(
        Hand::connected(&site, 1),
        puppet.connects(Duration::from_secs(30))
    );
    hand.send(RequestType::NotificationWait).await;
    let mut wait = asked.next().await.unwrap();
    wait.whole().await;

    site.move_database("MBX2").await.unwrap();
    let (answer, took) = timed(hand.answer()).await;

    assert_eq!((answer.head.status, answer.head.code()), (200, Some(10)));
    assert!(took < A_SECOND, "{took:?}");
    wait.closed().await;
}

#[tokio::test]
async fn a_poll_whose_server_stops_inside_a_chunk_breaks_off_visibly() {
    let puppet = Puppet::new().await;
    let mut site = start(puppet.plan("")).await;
    let period = Duration::from_secs(30);
    let (mut hand, asked) = tokio::join!(Hand::connected(&site, 1), puppet.connects(period));
    hand.send(RequestType::NotificationWait).await;
    let mut wait = asked.next().await.unwrap();
    let mut begun = chunked_head(RequestType::NotificationWait, period);
    begun.extend_from_slice(b"c\r\nPROCESSING\r\n\r\n9\r\nPEN");
    wait.say(&begun).await;
    hand.line.head().await.unwrap();
    hand.line.piece().await.unwrap();

    site.move_database("MBX2").await.unwrap();
    let (broken_off, took) = timed(in_time("an end", hand.line.piece())).await;

    assert!(broken_off.is_err());
    assert!(took < Duration::from_millis(2500), "{took:?}");
}

#[tokio::test]
async fn a_frozen_server_is_marked_down_and_its_polls_end() {
    let plan = brisk(Flavour::Exchange).section(
        "health",
        "{ interval: 200ms, timeout: 200ms, page: /mapi/healthcheck.htm }",
    );
    let mut site = start(plan.each(|server| server.mode = Mode::Naive)).await;
    let mut hand = Hand::connected(&site, 1).await;
    let head = hand.begin_wait().await;
    let mut other = hand.beside(&site).await;

    site.server("MBX1").unwrap().freeze(true);
    other.send(RequestType::Execute).await;
    let (answer, took) = timed(hand.rest(head)).await;

    assert_eq!(answer.code(), Some(10));
    // Two checks in a row, and the jitter.
    assert!(took < Duration::from_millis(2000), "{took:?}");
    let (refused, took) = timed(hand.ask(RequestType::Connect)).await;
    assert_eq!(refused.head.status, 503);
    assert!(took < Duration::from_millis(100), "{took:?}");
    site.move_database("MBX2").await.unwrap();
    assert_eq!(hand.ask(RequestType::Connect).await.code(), Some(0));
    // It may have taken the request: nobody else gets it, whatever becomes of it.
    site.server("MBX1").unwrap().freeze(false);
    other.answer().await;
    assert_eq!(site.plan().servers[0].journal.entries().len(), 1);
    assert_eq!(
        site.server("MBX2").unwrap().requests(RequestType::Execute),
        0
    );
}

#[tokio::test]
async fn no_fault_makes_an_execute_run_twice() {
    for flavour in BOTH {
        let plan = brisk(flavour)
            .each(|server| server.mode = Mode::Naive)
            .section("limits", "{ first_byte_timeout: 300ms, pending_missed: 1 }")
            .section("health", "{ interval: 200ms, timeout: 200ms, fall: 1000 }");
        let site = start(plan).await;
        let mut sent = Vec::new();
        for (number, (word, fault)) in Fault::all().enumerate() {
            let outlook = site.outlook(1 + number % 20).unwrap();
            outlook.connect().await.unwrap();
            let server = site.server("MBX1").unwrap();
            server.fault(fault, 1, Some(RequestType::Execute));
            if word.ends_with("on-accept") {
                server.cut_connections();
            }
            // Whatever the client is told of it.
            let _outcome = in_time(word, outlook.execute(word.as_bytes())).await;
            server.clear_faults();
            in_time(word, async {
                while outlook.execute(b"afterwards").await.is_err() {}
            })
            .await;
            sent.extend(outlook.sent());
        }
        assert_eq!(broken(&site, &sent), [], "{flavour:?}");
    }
}

#[tokio::test]
async fn a_kept_connection_that_died_costs_nobody_a_request() {
    let words = ["close-idle", "reset-idle", "unsolicited"];
    for (word, back_tls) in words.iter().flat_map(|word| [(word, false), (word, true)]) {
        let mut plan = brisk(Flavour::Gromox);
        plan.back_tls = back_tls;
        let site = start(plan).await;
        let outlook = site.outlook(1).unwrap();
        outlook.connect().await.unwrap();
        let server = site.server("MBX1").unwrap();
        for _ in 0..5 {
            let before = server.connections_open();
            server.fault(word.parse().unwrap(), 1, Some(RequestType::Execute));
            outlook.execute(b"last on its connection").await.unwrap();
            eventually("the server left it", || async {
                server.connections_open() < before.max(1)
            })
            .await;
        }
        outlook.execute(b"next").await.unwrap();

        let counters = outlook.counters();
        assert_eq!((counters.executes_ok, counters.executes_failed), (6, 0));
        assert_eq!((counters.resent, counters.connections), (0, 1), "{word}");
        assert_eq!(broken(&site, &outlook.sent()), []);
    }
}

#[tokio::test]
async fn a_request_that_reached_nobody_follows_the_map() {
    let plan = brisk(Flavour::Exchange)
        .section("health", "{ interval: 1h, panic_threshold: 0, fall: 1000 }")
        .section("limits", "{ connect_timeout: 700ms }");
    let mut site = start(plan).await;
    let mut pinned = Hand::connected(&site, 1).await;
    let address = site.server("MBX1").unwrap().address();
    site.kill_server("MBX1").await.unwrap();
    // A machine that is gone: the kernel's queue is full, connections just hang.
    let hole = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    hole.set_reuse_address(true).unwrap();
    hole.bind(&address.into()).unwrap();
    hole.listen(0).unwrap();
    let _in_the_queue = std::net::TcpStream::connect(address).unwrap();

    let mut hand = Hand::new(&site, 2).await;
    hand.send(RequestType::Connect).await;
    pinned.send(RequestType::Execute).await;
    eventually("both are on their way", || async {
        let admin = site.gate().unwrap().admin();
        admin.metric("mapigate_requests_in_flight").await.unwrap() == 2.0
    })
    .await;
    site.move_database("MBX2").await.unwrap();

    assert_eq!(hand.answer().await.code(), Some(0));
    assert_eq!(pinned.answer().await.code(), Some(10));
    let lines = lines_of(&site, "Connect", 2).await;
    let retried = lines.iter().find(|line| line["tries"] == 2).unwrap();
    assert_eq!(
        (&retried["server"], &retried["route"]),
        (&"MBX2".into(), &"retried".into())
    );
}

#[tokio::test]
async fn without_an_eligible_copy_the_answer_is_503_and_says_when_to_come_again() {
    let mut site = start(brisk(Flavour::Exchange)).await;
    let mut hand = Hand::connected(&site, 1).await;
    site.kill_server("MBX1").await.unwrap();
    eventually("it is marked down", || async {
        let admin = site.gate().unwrap().admin();
        let up = admin.metric("mapigate_backend_up{server=\"MBX1\"}").await;
        up.unwrap() == 0.0
    })
    .await;

    for kind in [RequestType::Execute, RequestType::Connect] {
        let (answer, took) = timed(hand.ask(kind)).await;
        assert_eq!(answer.head.status, 503);
        assert!(took < Duration::from_millis(50), "{took:?}");
        let retry: u32 = answer.head.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=30).contains(&retry));
        let words = String::from_utf8(answer.body()).unwrap();
        assert!(
            words.contains("<html>") && !words.contains("MBX"),
            "{words}"
        );
    }
    let admin = site.gate().unwrap().admin();
    let sample = "mapigate_refusals_total{reason=\"no_eligible_copy\"}";
    eventually("both are counted", || async {
        admin.metric(sample).await.unwrap() == 2.0
    })
    .await;
}

#[tokio::test]
async fn a_flapping_server_is_not_believed_at_every_turn() {
    let plan = brisk(Flavour::Exchange)
        .each(|server| server.mode = Mode::Naive)
        .section(
            "health",
            "{ interval: 100ms, timeout: 100ms, rise: 1, page: /mapi/healthcheck.htm, panic_threshold: 0 }",
        );
    let site = start(plan).await;
    let outlook = site.outlook(1).unwrap();
    outlook.connect().await.unwrap();
    let server = site.server("MBX1").unwrap();
    let admin = site.gate().unwrap().admin();
    let sees = |is_up: f64| async move {
        let up = admin.metric("mapigate_backend_up{server=\"MBX1\"}").await;
        up.unwrap() == is_up
    };

    server.set_health_page(HealthPage::Failing);
    eventually("down", || sees(0.0)).await;
    server.set_health_page(HealthPage::Served);
    eventually("up", || sees(1.0)).await;
    outlook.execute(b"up").await.unwrap();
    server.set_health_page(HealthPage::Failing);
    eventually("down again", || sees(0.0)).await;
    server.set_health_page(HealthPage::Served);
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        assert!(sees(0.0).await, "up again within ten seconds");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(broken(&site, &outlook.sent()), []);
}

#[tokio::test]
async fn whoever_leaves_when_the_server_is_gone_is_let_go() {
    for moves in [false, true] {
        let mut site = start(brisk(Flavour::Exchange)).await;
        let outlook = site.outlook(1).unwrap();
        outlook.connect().await.unwrap();
        outlook.bind().await.unwrap();

        site.kill_server("MBX1").await.unwrap();
        if moves {
            site.move_database("MBX2").await.unwrap();
        }
        outlook.disconnect().await.unwrap();
        outlook.unbind().await.unwrap();

        for kind in ["Disconnect", "Unbind"] {
            let line = &lines_of(&site, kind, 1).await[0];
            assert_eq!(
                (&line["ending"], &line["code"]),
                (&"local".into(), &0.into())
            );
        }
    }
}

#[tokio::test]
async fn gromox_codes_and_echoes_are_put_right_unless_told_otherwise() {
    for (keys, code, echoed) in [("", 13, true), ("normalize: false", 6, false)] {
        let mut plan = brisk(Flavour::Gromox);
        plan.server_keys = keys.to_owned();
        let site = start(plan).await;
        let mut hand = Hand::new(&site, 1).await;

        let answer = hand.ask(RequestType::Execute).await;

        assert_eq!(answer.code(), Some(code));
        for name in ["x-requesttype", "x-requestid", "x-clientinfo"] {
            assert_eq!(answer.head.header(name).is_some(), echoed, "{name}");
        }
        // The log is in one language whatever the client gets.
        assert_eq!(lines_of(&site, "Execute", 1).await[0]["code"], 13);
        assert!(!body_of(RequestType::Execute).is_empty());
    }
}
