//! Those who connect and say nothing, or next to nothing, beside those who want mail.

use crate::rig::in_time;
use crate::support::{TestSite, brisk, eventually, start};
use mapigate::lab::site::HOST;
use mapigate::mapi::Flavour;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// A place for four handshakes, two of one address, for longer than a test waits.
const FOUR: &str = "{ handshakes_max: 4, handshakes_per_address: 2, handshake_timeout: 60s }";

async fn site(tls: &str) -> TestSite {
    start(brisk(Flavour::Exchange).section("tls", tls)).await
}

/// A connection from 127.0.0.`last`.
async fn from(site: &TestSite, last: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let address = SocketAddr::from(([127, 0, 0, last], 0));
    socket.bind(address).unwrap();
    let to = site.gate().unwrap().address();
    in_time("a connection", socket.connect(to)).await.unwrap()
}

/// So many connections that have all said this and are accepted.
async fn crowd(site: &TestSite, last: u8, count: usize, says: &[u8]) -> Vec<TcpStream> {
    let mut crowd = Vec::new();
    for _ in 0..count {
        let mut tcp = from(site, last).await;
        tcp.write_all(says).await.unwrap();
        crowd.push(tcp);
    }
    let admin = site.gate().unwrap().admin();
    eventually("the crowd is in", || async {
        let open = admin.metric("mapigate_connections_open").await.unwrap();
        open >= count as f64
    })
    .await;
    crowd
}

/// Asks for the health page behind a whole handshake.
async fn is_served(site: &TestSite, tcp: TcpStream) {
    let name = ServerName::try_from(HOST).unwrap();
    let connector = TlsConnector::from(site.client_config());
    let tls = in_time("a handshake", connector.connect(name, tcp)).await;
    let mut tls = tls.unwrap();
    let ask = format!("GET /mapi/healthcheck.htm HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    tls.write_all(ask.as_bytes()).await.unwrap();
    let mut answer = [0; 13];
    in_time("a page", tls.read_exact(&mut answer))
        .await
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 ");
}

#[tokio::test]
async fn silent_connections_take_no_place_of_a_handshake() {
    let site = site(FOUR).await;

    let _silent = crowd(&site, 1, 12, b"").await;

    is_served(&site, from(&site, 1).await).await;
}

#[tokio::test]
async fn who_begins_handshakes_and_stops_keeps_no_other_address_waiting() {
    let site = site(FOUR).await;

    let _stopped = crowd(&site, 1, 12, b"\x16").await;

    is_served(&site, from(&site, 2).await).await;
}

#[tokio::test]
async fn who_waits_in_vain_for_a_place_of_his_address_is_counted_as_crowded() {
    let tls = "{ handshakes_per_address: 1, handshake_timeout: 200ms }";
    let site = site(tls).await;
    let admin = site.gate().unwrap().admin();
    let count = async |outcome: &str| {
        let sample =
            format!("mapigate_tls_handshakes_total{{outcome=\"{outcome}\",resumed=\"false\"}}");
        admin.metric(&sample).await.unwrap()
    };

    let _stopped = {
        let mut stopped = Vec::new();
        for _ in 0..3 {
            let mut tcp = from(&site, 1).await;
            tcp.write_all(b"\x16").await.unwrap();
            stopped.push(tcp);
        }
        stopped
    };

    eventually("all three are cut", || async {
        count("timeout").await + count("crowded").await >= 3.0
    })
    .await;
    assert!(count("timeout").await >= 1.0);
    assert!(count("crowded").await >= 1.0);
}

#[tokio::test]
async fn behind_a_proxy_head_a_silent_client_takes_no_place_and_each_client_is_its_own() {
    let listener = "  - address: 127.0.0.1:0\n    certificates: [{ chain: mail.pem, key: mail.key }]\n    proxy_protocol_from: [127.0.0.0/8]\n";
    let plan = brisk(Flavour::Exchange)
        .section("tls", FOUR)
        .section("listeners", listener);
    let site = start(plan).await;
    let head = |last: u8| {
        let mut head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        head.extend([192, 0, 2, last, 10, 0, 0, 1, 0x9c, 0x40, 1, 0xbb]);
        head
    };

    let _silent = crowd(&site, 1, 12, &head(1)).await;
    let _stopped = crowd(&site, 1, 12, &[head(2), b"\x16".to_vec()].concat()).await;
    let mut other = from(&site, 1).await;
    other.write_all(&head(3)).await.unwrap();

    is_served(&site, other).await;
}
