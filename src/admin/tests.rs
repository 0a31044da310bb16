#![expect(clippy::disallowed_methods, reason = "tests begin somewhere in time")]

use super::*;
use crate::accounting::usage::{Names, Used};
use crate::config::Settings;
use crate::upkeep::world::{runtime, settings};
use crate::upkeep::{Fronts, Loader, Upkeep};
use parking_lot::Mutex;
use pingora_core::services::Service;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// An admin door on a real socket, with the loops behind it.
struct House {
    runtime: Arc<Runtime>,
    address: SocketAddr,
    next: Arc<Mutex<Result<Settings, Vec<String>>>>,
    drain: Arc<Notify>,
    closing: Arc<Notify>,
    // The door closes when this is gone.
    _shutdown: watch::Sender<bool>,
}

impl House {
    fn open() -> Self {
        let (runtime, seen) = runtime(settings());
        let next = Arc::new(Mutex::new(Ok(settings())));
        let file = Arc::clone(&next);
        let load: Loader = Arc::new(move || file.lock().clone().map(|s| (s, Vec::new())));
        let (upkeep, reloader) = Upkeep::new(
            Arc::clone(&runtime),
            seen,
            load,
            Fronts::new(),
            Instant::now(),
        );
        tokio::spawn(upkeep.run());
        let (drain, closing) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let admin = Admin::new(Arc::clone(&runtime), reloader, Arc::clone(&drain));
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut door = Door::bind(admin, any, Arc::clone(&closing)).unwrap();
        let (address, (shutdown, watch)) = (door.address(), watch::channel(false));
        tokio::spawn(async move { door.start_service(None, watch, 1).await });
        Self {
            runtime,
            address,
            next,
            drain,
            closing,
            _shutdown: shutdown,
        }
    }

    /// Sends one request as it is written, and returns the whole answer.
    async fn send(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn ask(&self, line: &str) -> String {
        let host = self.address;
        self.send(&format!(
            "{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        ))
        .await
    }
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or(answer)
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

#[tokio::test]
async fn metrics_and_life_are_told_to_whoever_asks() {
    let house = House::open();

    let metrics = house.ask("GET /metrics").await;
    let live = house.ask("GET /live").await;

    assert_eq!(status(&metrics), "200");
    assert!(metrics.contains("text/plain; version=0.0.4"));
    assert!(body(&metrics).contains("mapigate_build_info"));
    assert_eq!((status(&live), body(&live)), ("200", "alive\n"));
}

#[tokio::test]
async fn readiness_begins_with_the_listener_and_ends_with_the_drain() {
    let house = House::open();
    let before = house.ask("GET /ready").await;
    house.runtime.set_listening(true);
    let serving = house.ask("GET /ready").await;
    house.runtime.leave();
    let draining = house.ask("GET /ready").await;

    assert_eq!((status(&before), body(&before)), ("503", "starting\n"));
    assert_eq!((status(&serving), body(&serving)), ("200", "ready\n"));
    assert_eq!((status(&draining), body(&draining)), ("503", "draining\n"));
}

#[tokio::test]
async fn the_status_names_servers_and_databases() {
    let house = House::open();

    let answer = house.ask("GET /status.json").await;
    let page = house.ask("GET /").await;

    let value: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!(value["generation"], 1);
    assert_eq!(value["servers"][1]["name"], "MBX2");
    assert_eq!(value["databases"][0]["active"], "MBX1");
    assert_eq!(value["last_reload"]["is_ok"], true);
    assert!(page.contains("text/html") && body(&page).contains("MBX2"));
    assert!(page.contains("default-src 'none'"));
}

/// Charges requests of a user each.
fn charge(house: &House, users: std::ops::Range<u32>) {
    for number in users {
        let user = format!("user{number}@contoso.test");
        let names = Names {
            user: &user,
            client: b"Outlook/16.0.1",
            database: "DB1",
            ..Names::default()
        };
        let used = Used {
            requests: 1,
            cpu_ns: 1_500 * u64::from(number),
            bytes_in: 2_000,
            bytes_out: 4_000,
        };
        house.runtime.usage.charge(&names, used);
    }
    house.runtime.usage.hand_over();
}

#[tokio::test]
async fn usage_is_told_by_name_with_what_it_is_a_part_of() {
    let house = House::open();
    charge(&house, 1..5);

    let answer = house.ask("GET /usage.json?by=user&sort=cpu&top=2").await;
    let clients = house.ask("GET /usage.json?by=client&sort=requests").await;
    let page = house.ask("GET /").await;

    let value: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
    let told = serde_json::json!({
        "name": "user4@contoso.test", "requests": 1, "cpu_us": 6.0, "bytes_in": 2_000, "bytes_out": 4_000,
        "estimate": 6.0, "overestimate_max": 0.0,
    });
    assert_eq!(value["rows"][0], told);
    assert_eq!(value["rows"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&value["by"], &value["sort"]),
        (&"user".into(), &"cpu".into())
    );
    assert_eq!(
        (&value["names"], &value["entries"]),
        (&4.into(), &100.into())
    );
    assert_eq!(value["total"]["cpu_us"], 15.0);
    assert_eq!(value["listed"]["cpu_us"], 10.5);
    assert_eq!(value["listed_share"], 0.7);
    assert_eq!(value["unlisted_max"], 0.0);
    let value: serde_json::Value = serde_json::from_str(body(&clients)).unwrap();
    assert_eq!(value["rows"][0]["name"], "Outlook/16.0.1");
    assert_eq!(value["rows"][0]["estimate"], 4);
    assert!(body(&page).contains("user4@contoso.test"));
}

#[tokio::test]
async fn a_site_that_lists_nobody_says_so() {
    let house = House::open();
    assert_eq!(status(&house.ask("GET /usage.json?by=server").await), "400");

    house.runtime.usage.set_entries(0, SystemTime::now());

    let answer = house.ask("GET /usage.json").await;
    assert_eq!(status(&answer), "404");
    assert!(body(&answer).contains("accounting.usage_entries"));
}

#[tokio::test]
async fn ten_thousand_users_add_nothing_to_the_metrics() {
    let house = House::open();
    let before = house.ask("GET /metrics").await;

    charge(&house, 0..10_000);

    let after = house.ask("GET /metrics").await;
    // Threads of this very test come and go.
    let series = |text: &str| {
        let lines = body(text).lines().map(str::to_owned);
        lines
            .filter(|line| !line.starts_with("mapigate_cpu_seconds_total"))
            .count()
    };
    assert_eq!(series(&before), series(&after));
    assert!(!after.contains("contoso.test") && !after.contains("Outlook/"));
    let list = house.ask("GET /usage.json?top=5000").await;
    let list: serde_json::Value = serde_json::from_str(body(&list)).unwrap();
    assert_eq!(list["total"]["requests"], 10_000);
    assert_eq!(list["rows"].as_array().unwrap().len(), 100);
    assert!(list["names"].as_u64().unwrap() <= 400);
}

#[tokio::test]
async fn a_reload_changes_how_many_are_listed() {
    let house = House::open();
    charge(&house, 1..50);
    let mut fewer = settings();
    fewer.accounting.usage_entries = 3;
    *house.next.lock() = Ok(fewer);

    house.ask("POST /reload").await;

    let list = house.ask("GET /usage.json").await;
    let list: serde_json::Value = serde_json::from_str(body(&list)).unwrap();
    assert_eq!(list["entries"], 3);
    assert_eq!(list["rows"][0]["name"], "user49@contoso.test");
    assert!(list["names"].as_u64().unwrap() <= 12);
}

#[tokio::test]
async fn a_head_request_gets_the_head() {
    let house = House::open();

    let answer = house.ask("HEAD /live").await;

    assert_eq!((status(&answer), body(&answer)), ("200", ""));
    assert!(
        answer
            .to_ascii_lowercase()
            .contains("content-length: 6\r\n")
    );
}

#[tokio::test]
async fn a_reload_answers_with_its_outcome() {
    let house = House::open();
    let good = house.ask("POST /reload").await;
    *house.next.lock() = Err(vec!["line 3: unknown key".to_owned()]);
    let bad = house.ask("POST /reload").await;

    assert_eq!(status(&good), "200");
    let value: serde_json::Value = serde_json::from_str(body(&good)).unwrap();
    assert_eq!(
        (&value["is_ok"], &value["generation"]),
        (&true.into(), &2.into())
    );
    assert_eq!(status(&bad), "422");
    let value: serde_json::Value = serde_json::from_str(body(&bad)).unwrap();
    assert_eq!(
        (&value["generation"], &value["problems"][0]),
        (&2.into(), &"line 3: unknown key".into())
    );
}

#[tokio::test]
async fn a_drain_is_passed_on() {
    let house = House::open();

    let answer = house.ask("POST /drain").await;

    assert_eq!(status(&answer), "202");
    house.drain.notified().await;
}

#[tokio::test]
async fn what_is_not_listed_is_refused_in_words() {
    let house = House::open();
    let host = house.address;

    for (request, expected) in [
        ("GET /mapi/emsmdb/".to_owned(), "404"),
        ("GET /reload".to_owned(), "405"),
        ("PUT /metrics".to_owned(), "405"),
        ("POST /revoke?user=%00".to_owned(), "400"),
        ("POST /revoke?user=nobody@contoso.test".to_owned(), "404"),
        ("POST /revoke".to_owned(), "200"),
    ] {
        assert_eq!(status(&house.ask(&request).await), expected, "{request}");
    }
    let rebound = "GET / HTTP/1.1\r\nHost: attacker.test\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&house.send(rebound).await), "403");
    let foreign = format!(
        "POST /reload HTTP/1.1\r\nHost: {host}\r\nOrigin: https://attacker.test\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(status(&house.send(&foreign).await), "403");
    assert!(
        house
            .ask("GET /reload")
            .await
            .to_ascii_lowercase()
            .contains("allow: post\r\n")
    );
}

#[tokio::test]
async fn nobody_is_revoked_by_a_word_that_is_not_understood() {
    let house = House::open();

    for query in [
        "name=alice",
        "User=alice",
        "user",
        "user=alice&user=bob",
        "user=alice&all",
        "all=1&user=alice",
        "%75ser=alice",
        "&",
        "user=",
    ] {
        let answer = house.ask(&format!("POST /revoke?{query}")).await;
        assert_eq!(status(&answer), "400", "{query}: {answer}");
    }
    let host = house.address;
    let form = format!(
        "POST /revoke HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10\r\nConnection: close\r\n\r\nuser=alice"
    );
    assert_eq!(status(&house.send(&form).await), "400");
    let empty = format!(
        "POST /revoke HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let everybody = house.send(&empty).await;
    assert_eq!(
        (status(&everybody), body(&everybody)),
        ("200", "everybody is verified anew\n")
    );
}

#[tokio::test]
async fn a_page_of_another_site_may_not_have_anything_explained() {
    let house = House::open();
    let host = house.address;
    let ask = |line: String| {
        let request = format!(
            "GET /explain?subject=alice HTTP/1.1\r\nHost: {host}\r\n{line}\r\nConnection: close\r\n\r\n"
        );
        let house = &house;
        async move { house.send(&request).await }
    };

    for line in [
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        "Origin: https://attacker.test",
    ] {
        assert_eq!(status(&ask(line.to_owned()).await), "403", "{line}");
    }
    for line in [
        "Sec-Fetch-Site: none",
        "Sec-Fetch-Site: same-origin",
        "Accept: */*",
    ] {
        assert_eq!(status(&ask(line.to_owned()).await), "200", "{line}");
    }
}

#[tokio::test]
async fn a_subject_no_name_is_as_long_as_is_refused_in_words() {
    let house = House::open();
    let subject = format!(
        "00000000-0000-4000-8000-000000000001@{}",
        "a".repeat(20_000)
    );

    let answer = house.ask(&format!("GET /explain?subject={subject}")).await;

    assert_eq!(status(&answer), "400");
    assert!(body(&answer).contains("at most 512 are read"), "{answer}");
}

#[test]
fn the_door_answers_others_while_it_searches_for_somebody() {
    let mut reactor = tokio::runtime::Builder::new_current_thread();
    let reactor = reactor
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    reactor.block_on(async {
        let house = Arc::new(House::open());
        let (free, occupied) = std::sync::mpsc::channel::<()>();
        // No search ends before this thread is free.
        let held = tokio::task::spawn_blocking(move || occupied.recv());
        let searching = Arc::clone(&house);
        let mut search =
            tokio::spawn(async move { searching.ask("GET /explain?subject=alice").await });

        for _ in 0..10 {
            assert_eq!(status(&house.ask("GET /live").await), "200");
        }
        let now = std::time::Duration::ZERO;
        assert!(tokio::time::timeout(now, &mut search).await.is_err());

        drop(free);
        assert!(held.await.unwrap().is_err());
        assert_eq!(status(&search.await.unwrap()), "200");
    });
}

#[tokio::test]
async fn a_door_that_was_told_to_close_answers_nobody_any_more() {
    let house = House::open();
    assert_eq!(status(&house.ask("GET /live").await), "200");

    house.closing.notify_one();

    let deadline = Instant::now() + std::time::Duration::from_secs(10);
    while TcpStream::connect(house.address).await.is_ok() {
        assert!(Instant::now() < deadline, "still open");
    }
}

#[test]
fn percent_signs_in_a_name_are_undone() {
    assert_eq!(decoded("a%40b.test+c").as_deref(), Some("a@b.test c"));
    assert_eq!(decoded("%4"), None);
    assert_eq!(decoded("%ff"), None);
}
