//! The gromox flavour answers recorded requests as gromox did: code, headers in their order, framing, bodies.

use std::collections::HashMap;

use mapigate::lab::mailbox_server::{Authenticate, Options};
use mapigate::lab::outlook::Target;
use mapigate::lab::outlook::wire::Line;
use mapigate::mapi::bodies::nspi::QueryRowsSuccess;
use mapigate::mapi::bodies::rops::read_chain;
use mapigate::mapi::bodies::{Answer, Body, ConnectRequest, ExecuteRequest};
use tokio::time::Instant;

use crate::captures::exchange::{self, Recorded};
use crate::captures::judge::Door;
use crate::captures::replay::{self, Replay};
use crate::server;

/// Asks a server like this one everything; by the test's clock, so that a request is held as long as it was.
async fn answered_the_same(options: Options, all: &[Recorded]) {
    let server = server(options).await;
    let target = Target {
        address: server.address(),
        host: server.address().to_string(),
        tls: None,
    };
    Replay::new(&server, target, Door::None)
        .await
        .run(all)
        .await;
}

#[tokio::test(start_paused = true)]
async fn recorded_requests_are_answered_as_gromox_answered_them() {
    let all = exchange::gromox();
    assert_eq!(all.len(), 34);

    answered_the_same(replay::options("MBX1"), &all).await;
}

#[tokio::test(start_paused = true)]
async fn recorded_waits_are_held_and_answered_as_gromox_did() {
    let all = exchange::gromox_wait();
    assert_eq!(all.len(), 30);

    answered_the_same(replay::options("MBX1"), &all).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_library_recorded_is_answered_as_gromox_answered_it() {
    let all = exchange::mapi_client();
    assert_eq!(all.len(), 24);

    answered_the_same(replay::options("MBX1"), &all).await;
}

#[tokio::test(start_paused = true)]
async fn curl_is_challenged_as_gromox_challenged_it() {
    let mut options = replay::options("MBX3");
    options.authenticate = Authenticate::Connections;
    let all = exchange::curl();
    assert_eq!(all.len(), 3);

    for recorded in all {
        // A connection each: what one has proved must not help the next.
        answered_the_same(options.clone(), &[recorded]).await;
    }
}

#[tokio::test(start_paused = true)]
#[expect(clippy::disallowed_methods, reason = "by the test's clock")]
async fn a_quiet_wait_shows_every_27_seconds_that_it_lives() {
    let server = server(replay::options("MBX1")).await;
    let target = Target {
        address: server.address(),
        host: server.address().to_string(),
        tls: None,
    };
    let all = exchange::gromox_wait();
    let named = |name: &str| all.iter().find(|known| known.name == name).unwrap();
    let (connect, wait) = (named("07-connect"), named("23-notificationwait-held"));
    let mut line = Line::connect(&target).await.unwrap();
    let none = HashMap::new();
    let opened = line.ask(&replay::request(connect, "", &none, &none)).await;
    let mut living = HashMap::new();
    for (name, value) in exchange::set_cookies(&opened.unwrap().head.headers) {
        living.insert(wait.cookie(&name).unwrap(), value);
    }

    let began = Instant::now();
    line.send(&replay::request(wait, "", &living, &none))
        .await
        .unwrap();
    line.head().await.unwrap();
    let mut pieces = Vec::new();
    while let Some(piece) = line.piece().await.unwrap() {
        pieces.push((began.elapsed().as_secs(), piece));
    }

    let (last, between) = pieces.split_last().unwrap();
    let (first, pendings) = between.split_first().unwrap();
    assert_eq!(*first, (0, b"PROCESSING\r\n".to_vec()));
    let every_27 = (1..=11).map(|count| (27 * count, b"PENDING".to_vec()));
    assert_eq!(pendings, every_27.collect::<Vec<_>>());
    assert_eq!(last.0, 300);
    assert!(
        last.1
            .starts_with(b"PROCESSING\r\nDONE\r\nX-ElapsedTime: 300\r\n")
    );
    assert!(last.1.ends_with(&[0; 16]), "no event");
}

#[test]
fn recorded_bodies_read_and_write_back_the_same() {
    let all = [
        exchange::gromox(),
        exchange::gromox_wait(),
        exchange::mapi_client(),
    ];
    let mut executes = 0;
    for recorded in all.concat() {
        match recorded.kind() {
            "Connect" => {
                let body = ConnectRequest::decode(&recorded.body).unwrap();
                assert_eq!(body.encode(), recorded.body);
            }
            "Execute" if recorded.body.len() > 2 => {
                let body = ExecuteRequest::decode(&recorded.body).unwrap();
                assert_eq!(body.encode(), recorded.body);
                read_chain(&body.rop_buffer).unwrap();
                executes += 1;
            }
            _ => {}
        }
        if recorded.status.contains("200 OK") && recorded.kind() == "QueryRows" {
            let body = recorded.pieces().pop().unwrap();
            let read = Answer::<QueryRowsSuccess>::decode(&body).unwrap();
            assert_eq!(read.encode(), body);
        }
    }
    assert!(executes > 40, "{executes}");
}
