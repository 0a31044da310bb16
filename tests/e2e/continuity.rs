//! Restarts, reloads, drains, upgrades and other nodes: sessions and connections go on.

use crate::rig::{Hand, broken, in_time, timed};
use crate::support::{TestSite, brisk, eventually, line, log_with, start};
use mapigate::lab::crowd::Work;
use mapigate::lab::outlook::Target;
use mapigate::lab::site::HOST;
use mapigate::lab::{Crowd, Outlook};
use mapigate::mapi::{Endpoint, Flavour, RequestType};
use rustix::process::Signal;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const BOTH: [Flavour; 2] = [Flavour::Exchange, Flavour::Gromox];

/// The same client at whatever runs now.
fn moved_to(site: &TestSite, before: &Outlook, number: usize) -> Outlook {
    let outlook = site.outlook(number).unwrap();
    for endpoint in [Endpoint::Emsmdb, Endpoint::Nspi] {
        outlook.set_cookies(endpoint, before.cookies(endpoint));
    }
    outlook
}

/// The route of the last Execute in the access log, once there are so many.
async fn last_route(site: &TestSite, count: usize) -> String {
    let executes = || {
        let mut lines = site.access_lines().unwrap();
        lines.retain(|line| line["type"] == "Execute");
        lines
    };
    eventually("the access log has it", || async {
        executes().len() >= count
    })
    .await;
    executes().last().unwrap()["route"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn sessions_go_on_after_a_kill_and_a_start() {
    for (cookie, route) in [
        ("{ keys_file: cookie.keys }", "pinned"),
        ("{ enabled: false }", "stateless"),
    ] {
        for flavour in BOTH {
            let sessions = format!("{{ route_cookie: {cookie} }}");
            let mut site = start(brisk(flavour).section("sessions", &sessions)).await;
            let outlook = site.outlook(1).unwrap();
            outlook.connect().await.unwrap();
            outlook.bind().await.unwrap();
            outlook.execute(b"before").await.unwrap();
            last_route(&site, 1).await;

            site.take_gate().unwrap().kill().unwrap();
            site.start_gate(false).await.unwrap();
            let outlook = moved_to(&site, &outlook, 1);
            outlook.execute(b"after").await.unwrap();

            assert_eq!(outlook.ping(Endpoint::Nspi).await.unwrap(), 0);
            assert_eq!(outlook.counters().reconnects, 0);
            assert_eq!(last_route(&site, 2).await, route);
            // What was stateless once is known from then on.
            outlook.execute(b"again").await.unwrap();
            assert_eq!(last_route(&site, 3).await, "pinned");
        }
    }
}

#[tokio::test]
async fn another_node_with_the_same_keys_goes_on_with_a_session() {
    let mut site = start(brisk(Flavour::Exchange)).await;
    let outlook = site.outlook(1).unwrap();
    outlook.connect().await.unwrap();
    outlook.execute(b"here").await.unwrap();

    let first = site.take_gate().unwrap();
    site.start_gate(false).await.unwrap();
    assert_ne!(first.address(), site.gate().unwrap().address());
    let there = moved_to(&site, &outlook, 1);
    there.execute(b"there").await.unwrap();
    assert_eq!(last_route(&site, 2).await, "pinned");
    // And back, with the cookies as they are by now.
    outlook.set_cookies(Endpoint::Emsmdb, there.cookies(Endpoint::Emsmdb));
    outlook.execute(b"here again").await.unwrap();

    let reconnects = outlook.counters().reconnects + there.counters().reconnects;
    assert_eq!(reconnects, 0);
    assert_eq!(
        site.server("MBX1").unwrap().requests(RequestType::Connect),
        1
    );
}

/// A PROXY protocol v2 head for a client at this address.
fn proxy_head(client: [u8; 4]) -> Vec<u8> {
    let mut head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    head.extend(client);
    head.extend([10, 0, 0, 1, 0x9c, 0x40, 1, 0xbb]);
    head
}

#[tokio::test]
async fn a_session_survives_lost_connections_and_changed_addresses() {
    let listener =
        "  - address: 127.0.0.1:0\n    plain_http: true\n    proxy_protocol_from: [127.0.0.1/32]\n";
    let site = start(brisk(Flavour::Exchange).section("listeners", listener)).await;
    let target = Target {
        tls: None,
        ..site.target().unwrap()
    };
    let mut cookies = Vec::new();
    for last in 1..=5 {
        let mut line = line(&target).await;
        line.send(&proxy_head([192, 0, 2, last])).await.unwrap();
        let mut hand = Hand::on(line, 1);
        hand.cookies = cookies;
        if last == 1 {
            assert_eq!(hand.ask(RequestType::Connect).await.code(), Some(0));
        }
        assert_eq!(hand.ask(RequestType::Execute).await.code(), Some(0));
        cookies = hand.cookies;
    }
    assert_eq!(
        site.server("MBX1").unwrap().requests(RequestType::Connect),
        1
    );
    assert_eq!(last_route(&site, 5).await, "pinned");
    let lines = site.access_lines().unwrap();
    let client = lines.last().unwrap()["client"].as_str().unwrap();
    assert!(client.starts_with("192.0.2.5"), "{client}");

    // Who should send a head and does not is not served.
    let mut bare = TcpStream::connect(target.address).await.unwrap();
    bare.write_all(b"GET /mapi/healthcheck.htm HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _reset = in_time("the end", bare.read_to_end(&mut answer)).await;
    assert_eq!(answer, b"");
}

#[tokio::test]
async fn tls_begins_behind_a_proxy_head() {
    let listener = "  - address: 127.0.0.1:0\n    certificates: [{ chain: mail.pem, key: mail.key }]\n    proxy_protocol_from: [127.0.0.0/8]\n";
    let site = start(brisk(Flavour::Exchange).section("listeners", listener)).await;

    let mut tcp = TcpStream::connect(site.gate().unwrap().address())
        .await
        .unwrap();
    tcp.write_all(&proxy_head([192, 0, 2, 1])).await.unwrap();
    let mut tls = handshake(tcp, HOST, site.client_config()).await;
    let page = ask_page(&mut tls).await;

    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
}

async fn handshake(tcp: TcpStream, name: &str, config: Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let mut config = (*config).clone();
    // A resumed session would show the certificate of the first one.
    config.resumption = Resumption::disabled();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    in_time("a handshake", connector.connect(name, tcp))
        .await
        .unwrap()
}

async fn ask_page(tls: &mut TlsStream<TcpStream>) -> String {
    let ask = format!("GET /mapi/healthcheck.htm HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    tls.write_all(ask.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = in_time("a page", tls.read(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

fn certificate(tls: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    tls.get_ref().1.peer_certificates().unwrap()[0].clone()
}

async fn dial(site: &TestSite, name: &str) -> TlsStream<TcpStream> {
    let tcp = TcpStream::connect(site.gate().unwrap().address()).await;
    handshake(tcp.unwrap(), name, site.client_config()).await
}

#[tokio::test]
async fn new_handshakes_see_the_new_certificate_and_old_connections_stay() {
    let site = start(brisk(Flavour::Exchange)).await;
    let mut old = dial(&site, HOST).await;

    let renewed = site.authority().server(&[HOST]).unwrap();
    renewed.write(site.folder(), "mail").unwrap();
    site.gate().unwrap().admin().reload().await.unwrap();
    let new = dial(&site, HOST).await;

    assert_ne!(certificate(&old), certificate(&new));
    assert!(ask_page(&mut old).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn the_name_a_client_asks_for_chooses_the_certificate() {
    const OTHER: &str = "outlook.contoso.test";
    let site = start(brisk(Flavour::Exchange)).await;
    let other = site.authority().server(&[OTHER]).unwrap();
    other.write(site.folder(), "outlook").unwrap();
    change_config(&site, |text| {
        text.replace(
            "key: mail.key }",
            "key: mail.key }, { chain: outlook.pem, key: outlook.key }",
        )
        .replace(
            &format!("- host: {HOST}\n"),
            &format!("- host: {HOST}\n  - host: {OTHER}\n"),
        )
    });
    site.gate().unwrap().admin().reload().await.unwrap();

    // The client refuses a certificate of another name.
    let (mail, outlook) = (dial(&site, HOST).await, dial(&site, OTHER).await);

    assert_ne!(certificate(&mail), certificate(&outlook));
}

fn change_config(site: &TestSite, change: impl Fn(String) -> String) {
    let path = site.folder().join("mapigate.yaml");
    fs::write(&path, change(fs::read_to_string(&path).unwrap())).unwrap();
}

#[tokio::test]
async fn an_expired_session_gets_the_servers_code_10_and_opens_anew() {
    for flavour in BOTH {
        let plan = brisk(flavour)
            .each(|server| server.lifetime = Duration::from_millis(300))
            .section(
                "sessions",
                "{ grace: 0s, route_cookie: { keys_file: cookie.keys } }",
            );
        let site = start(plan).await;
        let mut hand = Hand::connected(&site, 1).await;
        tokio::time::sleep(Duration::from_millis(500)).await;

        let answer = hand.ask(RequestType::Execute).await;

        assert_eq!(answer.code(), Some(10), "{flavour:?}");
        assert_eq!(
            site.server("MBX1").unwrap().requests(RequestType::Execute),
            1
        );
        assert_eq!(hand.ask(RequestType::Connect).await.code(), Some(0));
        assert_eq!(hand.ask(RequestType::Execute).await.code(), Some(0));
    }
}

fn crowd(site: &TestSite, clients: usize) -> Crowd {
    let everybody = (1..=clients).map(|number| site.outlook_options(number).unwrap());
    let work = Work {
        pause: Duration::from_millis(20),
        ..Work::default()
    };
    Crowd::start(everybody.collect(), &work)
}

#[tokio::test]
async fn a_hundred_reloads_under_load_cost_no_request_and_no_connection() {
    let site = start(brisk(Flavour::Exchange)).await;
    let crowd = crowd(&site, 20);
    let server = site.server("MBX1").unwrap();
    eventually("everybody waits", || async {
        server.counters().waits_held == 20
    })
    .await;
    let gate = site.gate().unwrap();
    let accepted = "mapigate_connections_accepted_total";
    let before = gate.admin().metric(accepted).await.unwrap();
    let executes = crowd.report().executes_ok;

    for turn in 0..100 {
        if turn % 2 == 0 {
            gate.signal(Signal::HUP).unwrap();
        } else {
            gate.admin().reload().await.unwrap();
        }
    }
    eventually("it has been under load", || async {
        crowd.report().executes_ok > executes + 100
    })
    .await;

    assert_eq!(gate.admin().metric(accepted).await.unwrap(), before);
    assert_eq!(server.counters().waits_aborted, 0);
    let reloads = "mapigate_reloads_total{outcome=\"accepted\"}";
    assert!(gate.admin().metric(reloads).await.unwrap() >= 50.0);
    let (report, sent) = crowd.stop(Duration::from_secs(5)).await;
    let failed = report.executes_failed + report.executes_unknown + report.resent;
    assert_eq!(
        (failed, report.waits_lost, report.reconnects),
        (0, 0, 0),
        "{report}"
    );
    assert_eq!(report.connections, 40, "{report}");
    assert_eq!(broken(&site, &sent), []);
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_says_why() {
    let site = start(brisk(Flavour::Exchange)).await;
    let outlook = site.outlook(1).unwrap();
    outlook.connect().await.unwrap();
    let admin = site.gate().unwrap().admin();
    let good = fs::read_to_string(site.folder().join("mapigate.yaml")).unwrap();

    change_config(&site, |text| text.replace("listeners:", "listners:"));
    let page = admin.post("/reload").await.unwrap();

    assert_eq!(page.status, 422);
    assert!(
        page.text.contains("did you mean listeners?"),
        "{}",
        page.text
    );
    let successful = "mapigate_config_last_reload_successful";
    assert_eq!(admin.metric(successful).await.unwrap(), 0.0);
    assert_eq!(
        admin.metric("mapigate_config_generation").await.unwrap(),
        1.0
    );
    let log = log_with(&site, "the old one stays in force").await;
    assert!(log.contains("mapigate.yaml:2:1") && log.contains("the old one stays in force"));
    outlook.execute(b"as before").await.unwrap();

    change_config(&site, |_| good.clone());
    admin.reload().await.unwrap();
    assert_eq!(admin.metric(successful).await.unwrap(), 1.0);
}

#[tokio::test]
async fn a_moved_database_counts_for_the_next_request_after_the_acknowledgement() {
    let mut site = start(brisk(Flavour::Exchange)).await;
    let crowd = crowd(&site, 10);
    let outlook = site.outlook(11).unwrap();
    outlook.connect().await.unwrap();
    for turn in 0..10 {
        let to = ["MBX2", "MBX1"][turn % 2];
        site.move_database(to).await.unwrap();
        let reply = outlook.execute(b"after").await.unwrap();
        assert_eq!(reply.served_by(), to);
    }
    let (report, mut sent) = crowd.stop(Duration::from_secs(5)).await;
    sent.extend(outlook.sent());
    assert!(report.executes_ok > 0);
    assert_eq!(broken(&site, &sent), []);
}

#[tokio::test]
async fn a_changed_file_is_noticed_without_being_told() {
    let site = start(brisk(Flavour::Exchange).section("reload", "{ watch: true }")).await;
    let path = site.folder().join("databases.yaml");
    let text = fs::read_to_string(&path).unwrap();

    let beside = site.folder().join("databases.next");
    fs::write(&beside, text.replace("active: MBX1", "active: MBX2")).unwrap();
    fs::rename(&beside, &path).unwrap();
    site.server("MBX2").unwrap().set_active("DB07", true);

    let admin = site.gate().unwrap().admin();
    eventually("it is read", || async {
        admin.metric("mapigate_config_generation").await.unwrap() == 2.0
    })
    .await;
    Hand::connected(&site, 1).await;
    assert_eq!(
        site.server("MBX2").unwrap().requests(RequestType::Connect),
        1
    );
}

#[tokio::test]
async fn a_drain_ends_polls_in_band_and_lets_executes_finish() {
    for flavour in BOTH {
        let mut site = start(brisk(flavour)).await;
        let mut hand = Hand::connected(&site, 1).await;
        let head = hand.begin_wait().await;
        let mut idle = Hand::connected(&site, 3).await;
        let outlook = site.outlook(2).unwrap();
        outlook.connect().await.unwrap();
        let late = tokio::spawn({
            let outlook = outlook.clone();
            let delay = [("X-Lab-Delay", "1500".to_owned())];
            async move { outlook.execute_with(b"late", &delay).await }
        });
        eventually("it is under way", || async {
            site.server("MBX1").unwrap().requests(RequestType::Execute) == 1
        })
        .await;

        let mut gate = site.take_gate().unwrap();
        gate.signal(Signal::TERM).unwrap();
        let (exit, took) = timed(async {
            let answer = hand.rest(head).await;
            let tagged = answer.tagged().unwrap();
            assert_eq!((tagged.code(), tagged.body), (Some(0), vec![0; 16]));
            // Who comes now is sent elsewhere and not kept waiting.
            eventually("newcomers are refused", || async {
                TcpStream::connect(gate.address()).await.is_err()
            })
            .await;
            // Who is here has its answer, and learns that it is the last.
            let answer = idle.ask(RequestType::Ping).await;
            assert_eq!(
                (answer.code(), answer.head.header("connection")),
                (Some(0), Some("close"))
            );
            late.await.unwrap().unwrap();
            gate.ended(Duration::from_secs(10)).await.unwrap()
        })
        .await;

        assert!(exit.success(), "{exit}");
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert_eq!(broken(&site, &outlook.sent()), []);
    }
}

#[tokio::test]
async fn an_upgrade_of_the_binary_costs_no_request() {
    let mut site = start(brisk(Flavour::Exchange)).await;
    let target = site.target().unwrap();
    let crowd = crowd(&site, 10);
    let (goes_on, done) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let newcomers = tokio::spawn({
        let (goes_on, done) = (goes_on.clone(), done.clone());
        async move {
            while goes_on.load(Ordering::Relaxed) {
                let mut hand = Hand::on(line(&target).await, 11);
                assert_eq!(hand.ask(RequestType::Connect).await.code(), Some(0));
                done.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let has_done = |more: u64| {
        let (done, goal) = (done.clone(), done.load(Ordering::Relaxed) + more);
        move || {
            let done = done.clone();
            async move { done.load(Ordering::Relaxed) >= goal }
        }
    };
    eventually("clients come", has_done(5)).await;

    let mut old = site.take_gate().unwrap();
    let socket = site.folder().join("upgrade.sock");
    let (started, ()) = tokio::join!(site.start_gate(true), async {
        eventually("the new process waits", || async { socket.exists() }).await;
        old.signal(Signal::QUIT).unwrap();
    });
    started.unwrap();
    assert_eq!(site.gate().unwrap().address(), old.address());
    let exit = old.ended(Duration::from_secs(10)).await.unwrap();
    eventually("clients come to the new one", has_done(5)).await;
    goes_on.store(false, Ordering::Relaxed);
    newcomers.await.unwrap();
    let (report, sent) = crowd.stop(Duration::from_secs(5)).await;

    assert!(exit.success(), "{exit}");
    let failed = report.executes_failed + report.executes_unknown;
    assert_eq!(
        (failed, report.reconnects, report.waits_lost),
        (0, 0, 0),
        "{report}"
    );
    assert_eq!(broken(&site, &sent), []);
}

#[tokio::test]
async fn the_route_cookie_of_a_long_session_is_sealed_anew_now_and_then() {
    let site = start(brisk(Flavour::Exchange)).await;
    let outlook = site.outlook(1).unwrap();
    outlook.connect().await.unwrap();
    let sealed = || {
        let cookies = outlook.cookies(Endpoint::Emsmdb);
        cookies
            .into_iter()
            .find(|(name, _)| name == "MapigateRoute")
            .unwrap()
            .1
    };
    let first = sealed();

    // One in 32: that a thousand in a row are not is as likely as a broken random number generator.
    let mut executes = 0;
    while sealed() == first && executes < 1000 {
        outlook.execute(b"rops").await.unwrap();
        executes += 1;
    }

    assert_ne!(sealed(), first);
    assert_eq!(outlook.counters().reconnects, 0);
}
