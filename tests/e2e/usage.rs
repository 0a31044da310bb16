//! Who used how much, and the stamp on answers, for real requests.

use crate::rig::{Hand, Puppet, chunk, chunked_head, in_time};
use crate::support::{Ask, TestSite, answer, basic, brisk, eventually, last_words, start};
use mapigate::lab::outlook::wire::Answer;
use mapigate::lab::site::{DATABASE, HOST, mailbox, user};
use mapigate::mapi::{Flavour, RequestType};
use serde_json::Value;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

const LOGGING: &str = "{ access: access.log, format: json }";

/// What the administrator is told.
async fn told(site: &TestSite, query: &str) -> Value {
    let admin = site.gate().unwrap().admin();
    let page = admin.get(&format!("/usage.json?{query}")).await.unwrap();
    assert_eq!(page.status, 200, "{}", page.text);
    serde_json::from_str(&page.text).unwrap()
}

/// Waits until so many requests are in the lists and in the access log.
async fn counted(site: &TestSite, requests: usize) {
    eventually("all requests are counted", || async {
        let list = told(site, "").await;
        list["total"]["requests"] == requests && site.access_lines().unwrap().len() == requests
    })
    .await;
}

/// Requests, nanoseconds, bytes in, bytes out.
type Figures = [u64; 4];

fn nanoseconds(microseconds: &Value) -> u64 {
    let nanoseconds = microseconds.as_f64().unwrap() * 1000.0;
    format!("{nanoseconds:.0}").parse().unwrap()
}

fn figures(told: &Value) -> Figures {
    [
        told["requests"].as_u64().unwrap(),
        nanoseconds(&told["cpu_us"]),
        told["bytes_in"].as_u64().unwrap(),
        told["bytes_out"].as_u64().unwrap(),
    ]
}

/// What the access log says of each name in this field; nobody's is under the empty name.
fn logged(site: &TestSite, field: &str) -> BTreeMap<String, Figures> {
    let mut sums: BTreeMap<String, Figures> = BTreeMap::new();
    for line in site.access_lines().unwrap() {
        // A mailbox counts where it was found.
        let is_known = field != "mailbox" || line.get("route").is_some();
        let name = line[field].as_str().filter(|_| is_known).unwrap_or("");
        let used = [
            1,
            nanoseconds(&line["cpu_us"]),
            line["tls_in"].as_u64().unwrap(),
            line["tls_out"].as_u64().unwrap(),
        ];
        let sum = sums.entry(name.to_owned()).or_default();
        sum.iter_mut()
            .zip(used)
            .for_each(|(sum, used)| *sum += used);
    }
    sums
}

#[tokio::test]
async fn the_lists_agree_with_the_access_log_to_the_byte_and_the_nanosecond() {
    let plan = brisk(Flavour::Exchange)
        .section("logging", LOGGING)
        .section("accounting", "{ cpu_every: 1 }");
    let site = start(plan).await;
    for number in 1..=3 {
        let outlook = site.outlook(number).unwrap();
        outlook.connect().await.unwrap();
        for _ in 0..number {
            outlook.execute(&vec![7; 3_000 * number]).await.unwrap();
        }
        outlook.disconnect().await.unwrap();
    }
    // Held, and answered; held, and dropped by its client; no credentials, wrong ones, no request at all.
    let mut hand = Hand::connected(&site, 2).await;
    let head = hand.begin_wait().await;
    site.server("MBX1").unwrap().wake(Some(&user(2)));
    hand.rest(head).await;
    let mut leaving = Hand::connected(&site, 4).await;
    leaving.begin_wait().await;
    drop(leaving);
    answer(&site, &Ask::new(1, "PING").without("Authorization")).await;
    let wrong = format!("Authorization: {}", basic(&user(1), "wrong"));
    let ask = Ask::new(1, "PING").without("Authorization").with(wrong);
    answer(&site, &ask).await;
    last_words(&site, b"nonsense\r\n\r\n").await;
    let elsewhere =
        Ask::new(1, "PING").line("POST /mapi/emsmdb/?MailboxId=nobody@contoso.test HTTP/1.1");
    answer(&site, &elsewhere).await;
    counted(&site, 3 * 2 + 6 + 2 + 2 + 4).await;

    for (by, field) in [
        ("user", "user"),
        ("mailbox", "mailbox"),
        ("database", "database"),
    ] {
        let list = told(&site, &format!("by={by}&sort=requests&top=100")).await;
        let mut exact = logged(&site, field);
        let nobody = exact.remove("").unwrap_or_default();
        assert_eq!(figures(&list["unnamed"]), nobody, "{by}");
        let rows = list["rows"].as_array().unwrap();
        let told: BTreeMap<String, Figures> = rows
            .iter()
            .map(|row| (row["name"].as_str().unwrap().to_owned(), figures(row)))
            .collect();
        assert_eq!(told, exact, "{by}");
        assert!(rows.iter().all(|row| row["overestimate_max"] == 0));
    }
    assert_eq!(told(&site, "").await["rows"].as_array().unwrap().len(), 4);
    let databases = told(&site, "by=database").await;
    assert_eq!(databases["rows"][0]["name"], DATABASE);
    let mailboxes = told(&site, "by=mailbox&sort=requests").await;
    assert_eq!(mailboxes["rows"][0]["name"], mailbox(2));
    let page = site.gate().unwrap().admin().get("/").await.unwrap();
    assert!(page.text.contains(&user(3)) && page.text.contains(DATABASE));
}

#[tokio::test]
async fn a_client_is_called_what_it_calls_itself_in_letters_that_harm_nobody() {
    let site = start(brisk(Flavour::Exchange).section("logging", LOGGING)).await;
    let bare = || Ask::new(1, "PING").without("X-ClientApplication");
    let agent =
        "User-Agent: Microsoft Office/16.0 (Windows NT 10.0; MAPI 16.0.17126; Pro; and more of it)";
    for ask in [
        Ask::new(1, "PING").with(agent),
        bare().with(agent),
        bare(),
        bare().with("User-Agent: <script>\u{202e}"),
    ] {
        answer(&site, &ask).await;
    }
    counted(&site, 4).await;

    let list = told(&site, "by=client").await;

    let mut names: Vec<&str> = list["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    let cut = "Microsoft Office/16.0 (Windows NT 10.0; MAPI 16.0.17126; Pro; an";
    assert_eq!(names, ["<script>\u{fffd}", cut, "Outlook/16.0.0.0"]);
    assert_eq!(list["unnamed"]["requests"], 1);
    let page = site.gate().unwrap().admin().get("/").await.unwrap();
    assert!(page.text.contains("&lt;script&gt;") && !page.text.contains("<script"));
}

#[tokio::test]
async fn invented_clients_hide_no_true_one_and_add_nothing_to_the_metrics() {
    let plan = brisk(Flavour::Exchange)
        .section("logging", LOGGING)
        .section("accounting", "{ usage_entries: 10 }");
    let site = start(plan).await;
    let admin = site.gate().unwrap().admin();
    let outlook = site.outlook(1).unwrap();
    outlook.connect().await.unwrap();
    // Accounts show once there is something on them; here it is about names.
    let series = |text: &str| -> BTreeSet<String> {
        let named = text.lines().filter(|line| {
            let accounts = ["bytes_total", "cpu_seconds_total", "request_cpu_phase"];
            let is_account = |name: &&str| line.starts_with(&format!("mapigate_{name}"));
            !line.starts_with('#') && !accounts.iter().any(is_account)
        });
        named
            .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
            .collect()
    };
    let before = series(&admin.get("/metrics").await.unwrap().text);
    let mut hand = Hand::new(&site, 2).await;

    for number in 0..300 {
        // The last of several counts.
        hand.headers = format!("X-ClientApplication: Invented/{number}.{number}\r\n");
        let answer = hand.ask(RequestType::Ping).await;
        assert_eq!(answer.head.status, 200);
        if number % 3 == 0 {
            outlook.execute(b"rops").await.unwrap();
        }
    }

    counted(&site, 401).await;
    let list = told(&site, "by=client&sort=requests&top=10").await;
    assert_eq!(list["rows"][0]["name"], "Outlook/16.0.17126.20132");
    assert_eq!(list["rows"][0]["requests"], 101);
    assert!(list["names"].as_u64().unwrap() <= 40, "{list}");
    assert!(list["unlisted_max"].as_f64().unwrap() <= 300.0 / 9.0);
    let metrics = admin.get("/metrics").await.unwrap().text;
    let more: Vec<_> = series(&metrics).difference(&before).cloned().collect();
    assert!(more.is_empty(), "{more:?}");
    assert!(!metrics.contains("Invented") && !metrics.contains(&user(1)));
}

fn stamps(answer: &Answer) -> Vec<String> {
    let stamps = answer.head.all("x-deviceinfo");
    stamps.map(str::to_owned).collect()
}

#[tokio::test]
async fn answers_are_stamped_where_the_site_wants_it_and_only_there() {
    let site = start(brisk(Flavour::Exchange)).await;
    let bare = answer(&site, &Ask::new(1, "PING").with("X-DeviceInfo: lb7;in")).await;
    assert_eq!(stamps(&bare), Vec::<String>::new());
    // What a device before us said passes on to the server.
    let heads = site.server("MBX1").unwrap().heads();
    let head = String::from_utf8(heads.last().unwrap().clone()).unwrap();
    assert!(head.contains("\r\nX-DeviceInfo: lb7;in\r\n"), "{head}");

    let config = site.folder().join("mapigate.yaml");
    let mut text = std::fs::read_to_string(&config).unwrap();
    text.push_str("\naccounting: { cpu_every: 1, device_info: on, device_id: front1 }\n");
    std::fs::write(&config, text).unwrap();
    site.gate().unwrap().admin().reload().await.unwrap();
    let stamped = answer(&site, &Ask::new(1, "PING")).await;

    let stamps = stamps(&stamped);
    let [stamp] = stamps.as_slice() else {
        panic!("{stamps:?}")
    };
    let parts: Vec<&str> = stamp.split(';').collect();
    let [id, server, queue, cpu] = parts.as_slice() else {
        panic!("{stamp}")
    };
    assert_eq!((*id, *server), ("front1", "MBX1"));
    let queue: f64 = queue.strip_prefix("q=").unwrap().parse().unwrap();
    assert!((0.0..10_000.0).contains(&queue), "{stamp}");
    let cpu: u64 = cpu.strip_prefix("cpu=").unwrap().parse().unwrap();
    assert!((1..1_000_000).contains(&cpu), "{stamp}");
    assert!(stamp.len() <= 64);
}

#[tokio::test]
async fn a_stamp_from_behind_us_stays_and_ours_comes_beside_it_where_both_have_room() {
    let puppet = Puppet::new().await;
    let plan = puppet
        .plan("")
        .section("accounting", "{ device_info: on, device_id: front1 }");
    let site = start(plan).await;
    let mut hand = Hand::new(&site, 1).await;
    hand.send(RequestType::Connect).await;
    let mut asked = puppet.asked().await;

    for (theirs, ours) in [("lb7;rack3", 1), (&*"x".repeat(50), 0)] {
        let head = chunked_head(RequestType::Connect, Duration::from_secs(1));
        let head = String::from_utf8(head).unwrap();
        let line = format!("\r\nX-DeviceInfo: {theirs}\r\nTransfer-Encoding");
        asked
            .say(head.replace("\r\nTransfer-Encoding", &line).as_bytes())
            .await;
        asked
            .say(&chunk(
                b"PROCESSING\r\nDONE\r\nX-ElapsedTime: 1\r\n\r\n\0\0\0\0",
            ))
            .await;
        asked.say(b"0\r\n\r\n").await;

        let stamps = stamps(&in_time("an answer", hand.answer()).await);

        assert_eq!(stamps.len(), 1 + ours, "{stamps:?}");
        assert_eq!(stamps[0], theirs);
        assert!(stamps.join(", ").len() <= 64 && stamps[ours..].len() == 1);
        hand.send(RequestType::Connect).await;
        asked = asked.next().await.unwrap();
    }
    assert!(asked.head.contains(&format!("Host: {HOST}")));
}
