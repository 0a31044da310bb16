//! Hours of a channel's life in simulated time: door, clients and servers in one runtime whose clock jumps.

use crate::door::Door;
use crate::hand::{ONE, a1, b1};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mapigate::ids::UserName;
use mapigate::lab::outlook::Target;
use mapigate::lab::rpc_http::{RpcOutlook, RpcServer, client, server};
use mapigate::lab::site::{HOST, PASSWORD, mailbox, user};
use mapigate::rpch::{Rts, Verb};
use mapigate::runtime::Snapshot;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant as Clock;

const MINUTE: Duration = Duration::from_secs(60);

impl Door {
    fn options(&self) -> client::Options {
        let target = Target {
            address: self.address,
            host: HOST.to_owned(),
            tls: None,
        };
        client::Options::new(target, &user(1), PASSWORD, &mailbox(1))
    }

    /// A channel by hand.
    async fn channel(&self, verb: Verb, length: u64, first: &[u8]) -> TcpStream {
        let credentials = STANDARD.encode(format!("{}:{PASSWORD}", user(1)));
        let head = format!(
            "{verb} /rpc/rpcproxy.dll?{}:6001 HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Basic {credentials}\r\n\
             Content-Length: {length}\r\n\r\n",
            mailbox(1)
        );
        let mut tcp = TcpStream::connect(self.address).await.unwrap();
        tcp.write_all(&[head.as_bytes(), first].concat())
            .await
            .unwrap();
        tcp
    }

    /// Lets a password be known, so that nothing is verified beside the clock.
    async fn warm(&self, server: &RpcServer) {
        drop(RpcOutlook::open(self.options()).await.unwrap());
        while server.connections_open() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

async fn lab(change: impl FnOnce(&mut server::Options)) -> RpcServer {
    let mut options = server::Options::new("MBX1");
    change(&mut options);
    RpcServer::spawn(options).await.unwrap()
}

#[tokio::test]
async fn an_idle_virtual_connection_lives_for_hours_by_its_signs_of_life() {
    let server = lab(|_| ()).await;
    let door = Door::before(server.address(), "").await;
    door.warm(&server).await;
    let outlook = RpcOutlook::open(door.options()).await.unwrap();
    outlook.log_on().await.unwrap();
    tokio::time::pause();

    for hours in 1..=6 {
        tokio::time::sleep(30 * MINUTE).await;
        outlook.log_on().await.unwrap();
        // One a minute from the server, as it announced.
        assert!(server.pings() >= 28 * hours, "{}", server.pings());
    }

    assert_eq!(server.sessions_opened(), 2);
    assert_eq!(server.connections_open(), 2);
    assert_eq!(door.sample("mapigate_channels_open{direction=\"in\"}"), "1");
    assert_eq!(door.sample("mapigate_virtual_connections"), "0");
}

#[tokio::test]
async fn a_client_that_says_nothing_for_three_of_its_intervals_is_given_up() {
    let server = lab(|_| ()).await;
    let door = Door::before(server.address(), "").await;
    door.warm(&server).await;
    let mut out = door.channel(Verb::Out, 76, &a1(ONE)).await;
    let mut head = [0; 64];
    out.read_exact(&mut head).await.unwrap();
    let mut into = door.channel(Verb::In, 1 << 30, &b1(ONE)).await;
    while server.virtual_connections() == 0 || server.connections_open() < 2 {
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    let began = Clock::now();

    // Almost three intervals: still there.
    tokio::time::sleep(14 * MINUTE).await;
    assert_eq!(server.connections_open(), 2);
    let mut text = Vec::new();
    into.read_to_end(&mut text).await.unwrap();

    let took = began.elapsed();
    assert!(took <= 16 * MINUTE, "{took:?}");
    let text = String::from_utf8_lossy(&text);
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    let silent = "mapigate_channels_ended_total{direction=\"in\",reason=\"silent\"}";
    assert_eq!(door.sample(silent), "1");
}

#[tokio::test]
async fn a_server_that_says_nothing_for_three_of_its_intervals_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let silent = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut heard = vec![0; 4096];
        let _some = tcp.read(&mut heard).await.unwrap();
        let head = b"HTTP/1.1 200 Success\r\nContent-Length: 1073741824\r\n\r\n";
        // Ten minutes, and then not a word.
        let first = Rts::conn_a3(600_000).encode();
        tcp.write_all(&[&head[..], &first].concat()).await.unwrap();
        // Its partner, which keeps the virtual connection whole.
        let (partner, _) = listener.accept().await.unwrap();
        let _end = tcp.read(&mut heard).await;
        drop(partner);
    });
    let door = Door::before(address, "").await;
    let mut out = door.channel(Verb::Out, 76, &a1(ONE)).await;
    let mut head = [0; 80];
    out.read_exact(&mut head).await.unwrap();
    let mut into = door.channel(Verb::In, 1 << 30, &b1(ONE)).await;
    while door.sample("mapigate_channels_open{direction=\"in\"}") != "1" {
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    let began = Clock::now();
    let talks = tokio::spawn(async move {
        loop {
            tokio::time::sleep(2 * MINUTE).await;
            if into.write_all(&Rts::ping().encode()).await.is_err() {
                return;
            }
        }
    });

    let mut rest = Vec::new();
    let _broken = out.read_to_end(&mut rest).await;

    let took = began.elapsed();
    assert!((29 * MINUTE..=31 * MINUTE).contains(&took), "{took:?}");
    let silent_out = "mapigate_channels_ended_total{direction=\"out\",reason=\"silent\"}";
    assert_eq!(door.sample(silent_out), "1");
    silent.await.unwrap();
    talks.abort();
}

#[tokio::test]
async fn a_channel_without_a_partner_is_ended_where_its_server_does_not_end_it() {
    let patient = |options: &mut server::Options| options.partner_timeout = 60 * MINUTE;
    let server = lab(patient).await;
    let door = Door::before(server.address(), "").await;
    door.warm(&server).await;
    let mut out = door.channel(Verb::Out, 76, &a1(ONE)).await;
    let mut head = [0; 64];
    out.read_exact(&mut head).await.unwrap();
    tokio::time::pause();
    let began = Clock::now();

    let mut rest = Vec::new();
    let _broken = out.read_to_end(&mut rest).await;

    let took = began.elapsed();
    assert!((25..=35).contains(&took.as_secs()), "{took:?}");
    let alone = "mapigate_channels_ended_total{direction=\"out\",reason=\"no_partner\"}";
    assert_eq!(door.sample(alone), "1");
    while server.connections_open() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_user_who_is_revoked_loses_the_channels_that_are_open_within_five_minutes() {
    let server = lab(|_| ()).await;
    let door = Door::before(server.address(), "").await;
    door.warm(&server).await;
    let outlook = RpcOutlook::open(door.options()).await.unwrap();
    outlook.log_on().await.unwrap();
    tokio::time::pause();
    tokio::time::sleep(20 * MINUTE).await;
    outlook.log_on().await.unwrap();

    let user = UserName::new(user(1));
    assert!(door.runtime.snapshot().auth.revoke(&user));
    tokio::time::sleep(5 * MINUTE).await;

    while server.connections_open() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(outlook.log_on().await.is_err());
    // Whichever is looked at first takes the other with it.
    let revoked = ["in", "out"].map(|way| {
        let sample = "mapigate_channels_ended_total{direction=\"WAY\",reason=\"revoked\"}";
        door.sample(&sample.replace("WAY", way))
    });
    assert!(revoked.contains(&"1".to_owned()), "{revoked:?}");
}

#[tokio::test]
async fn channels_that_are_open_end_when_outlook_anywhere_is_switched_off() {
    let server = lab(|_| ()).await;
    let door = Door::before(server.address(), "").await;
    door.warm(&server).await;
    let outlook = RpcOutlook::open(door.options()).await.unwrap();
    tokio::time::pause();
    tokio::time::sleep(20 * MINUTE).await;
    outlook.log_on().await.unwrap();

    let before = door.runtime.snapshot();
    let mut settings = (*before.settings).clone();
    settings.autodiscover.outlook_anywhere = false;
    let next = Snapshot::build(settings, Some(&before)).unwrap();
    door.runtime.publish(|_| next.clone());
    tokio::time::sleep(5 * MINUTE).await;

    while server.connections_open() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(outlook.log_on().await.is_err());
}

#[tokio::test]
async fn an_echo_is_over_in_its_time_however_slowly_its_sides_go_on() {
    // A server that waits for the whole body, for as long as it takes.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        let _end = tcp.read_to_end(&mut heard).await;
    });
    let door = Door::before(address, "limits: { first_byte_timeout: 8m }\n").await;
    let echo = door.channel(Verb::In, 16, b"x").await;
    let (mut from, mut to) = echo.into_split();
    while door.sample("mapigate_requests_in_flight") != "1" {
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    let began = Clock::now();
    let talks = tokio::spawn(async move {
        for _ in 0..12 {
            tokio::time::sleep(MINUTE).await;
            if to.write_all(b"x").await.is_err() {
                return;
            }
        }
    });

    let mut text = Vec::new();
    let _broken = from.read_to_end(&mut text).await;

    let took = began.elapsed();
    assert!(7 * MINUTE < took && took <= 9 * MINUTE, "{took:?}");
    assert!(
        text.starts_with(b"HTTP/1.1 408 "),
        "{}",
        String::from_utf8_lossy(&text)
    );
    server.await.unwrap();
    talks.abort();
}
