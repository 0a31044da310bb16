//! What Outlook does, and what becomes of it.

use crate::hand::{Head, Line, ONE, a1, b1};
use crate::house::{House, eventually};
use mapigate::lab::rpc_http::RpcOutlook;
use mapigate::lab::site::mailbox;
use mapigate::lab::{LAB_OPERATION, LAB_SIZED_OPERATION};
use mapigate::mapi::bodies::ExecuteRequest;
use mapigate::mapi::bodies::rops::{write_chain, write_payload};
use mapigate::rpch::Verb;
use std::time::Duration;

/// An Execute that asks for an answer of so many bytes.
pub(crate) fn sized(bytes: u32) -> ExecuteRequest {
    let mut operation = vec![LAB_SIZED_OPERATION];
    operation.extend(bytes.to_le_bytes());
    ExecuteRequest::of(write_chain(&[write_payload(&operation, &[])]))
}

#[tokio::test]
async fn a_session_executes_over_two_channels_that_the_log_and_the_metrics_know() {
    let house = House::new().await;

    let outlook = house.open(1).await;
    outlook.log_on().await.unwrap();
    let answer = outlook.execute(&sized(300_000)).await.unwrap();

    assert_eq!(answer.rop_buffer.len(), 300_000);
    assert_eq!(house.servers[0].connections_open(), 2);
    assert_eq!(house.servers[1].heads().len(), 0);
    for direction in ["in", "out"] {
        let sample = format!("mapigate_channels_open{{direction=\"{direction}\"}}");
        house.counts(&sample, 1.0).await;
    }
    drop(outlook);
    let lines = house.lines(2).await;
    let of = |kind: &str| lines.iter().find(|line| line["type"] == kind).unwrap();
    for line in [of("in"), of("out")] {
        assert_eq!(line["mailbox"], mailbox(1));
        assert_eq!(
            (&line["server"], &line["database"]),
            (&"MBX1".into(), &"DB07".into())
        );
        assert_eq!(
            (&line["user"], &line["ending"]),
            (&"user1@contoso.test".into(), &"ok".into())
        );
    }
    assert_eq!(of("out")["status"], 200);
    assert!(of("out")["body_out"].as_u64().unwrap() > 300_000);
    assert!(of("in")["body_in"].as_u64().unwrap() > 500);
    let carried = house
        .metric("mapigate_bytes_total{direction=\"sent\",endpoint=\"outlook_anywhere\",kind=\"payload\",leg=\"client\",request_type=\"out\"}")
        .await;
    assert!(carried > 300_000.0);
    house
        .counts("mapigate_channels_open{direction=\"in\"}", 0.0)
        .await;
    eventually("closed at the server", || async {
        house.servers[0].connections_open() == 0
    })
    .await;
}

#[tokio::test]
async fn tens_of_mebibytes_pass_both_ways_while_channels_are_replaced() {
    let house = House::with(|server| server.out_lifetime = 9 << 20, |plan| plan).await;
    let mut options = house.options(1);
    options.in_lifetime = 3 << 20;
    let outlook = RpcOutlook::open(options).await.unwrap();
    let big = write_payload(&vec![LAB_OPERATION; 30_000], &[]);

    for _ in 0..300 {
        let request = ExecuteRequest::of(write_chain(std::slice::from_ref(&big)));
        outlook.execute(&request).await.unwrap();
    }
    for _ in 0..20 {
        let answer = outlook.execute(&sized(1 << 20)).await.unwrap();
        assert_eq!(answer.rop_buffer.len(), 1 << 20);
    }

    assert!(outlook.successors() >= 4, "{}", outlook.successors());
    assert_eq!(house.servers[0].successors(), outlook.successors());
    assert_eq!(house.servers[0].sessions_opened(), 1);
    assert_eq!(house.servers[1].heads().len(), 0);
}

#[tokio::test]
async fn a_failover_drops_both_channels_and_the_client_begins_anew_at_the_other_server() {
    let mut house = House::new().await;
    let outlook = house.open(1).await;
    let other = house.open(2).await;
    outlook.execute(&sized(1000)).await.unwrap();

    house.move_database("MBX2").await.unwrap();

    eventually("both dropped", || async {
        house.servers[0].connections_open() == 0
    })
    .await;
    assert!(outlook.execute(&sized(1000)).await.is_err());
    assert!(other.execute(&sized(1000)).await.is_err());
    let before = house.servers[0].heads().len();
    let outlook = house.open(1).await;
    outlook.execute(&sized(1000)).await.unwrap();
    assert_eq!(house.servers[0].heads().len(), before);
    assert_eq!(house.servers[1].virtual_connections(), 1);
    for direction in ["in", "out"] {
        let sample =
            format!("mapigate_channels_ended_total{{direction=\"{direction}\",reason=\"moved\"}}");
        house.counts(&sample, 2.0).await;
    }
}

#[tokio::test]
async fn a_database_that_moves_between_two_channels_does_not_part_them() {
    let mut house = House::with(
        |_| (),
        |plan| plan.section("limits", "{ move_jitter: 10m }"),
    )
    .await;
    let mut out = Line::channel(&house, &Head::new(Verb::Out, 1, 76), &a1(ONE)).await;
    out.answer(28).await;

    house.move_database("MBX2").await.unwrap();
    let mut into = Line::channel(&house, &Head::new(Verb::In, 1, 1 << 30), &b1(ONE)).await;

    let (head, _) = into.answer(0).await;
    assert!(
        head.starts_with("HTTP/1.1 503 RPC Error: 6ba\r\n"),
        "{head}"
    );
    assert_eq!(house.servers[1].heads().len(), 0);
}

#[tokio::test]
async fn a_drain_ends_idle_channels_and_the_process_goes() {
    let mut house = House::new().await;
    let outlook = house.open(1).await;
    outlook.execute(&sized(1000)).await.unwrap();

    let mut gate = house.take_gate().unwrap();
    gate.signal(rustix::process::Signal::TERM).unwrap();

    let ended = gate.ended(Duration::from_secs(10)).await.unwrap();
    assert!(ended.success());
    assert!(outlook.execute(&sized(1000)).await.is_err());
}

#[tokio::test]
async fn a_server_that_breaks_off_is_seen_on_both_channels() {
    let house = House::new().await;
    let outlook = house.open(1).await;

    house.servers[0].cut_connections();

    assert!(outlook.execute(&sized(1000)).await.is_err());
    drop(outlook);
    let outlook = house.open(1).await;
    outlook.execute(&sized(1000)).await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_is_seen_at_the_server_at_once() {
    let house = House::new().await;
    let outlook = house.open(1).await;

    drop(outlook);

    eventually("closed at the server", || async {
        house.servers[0].connections_open() == 0 && house.servers[0].virtual_connections() == 0
    })
    .await;
}
