//! Clients that keep us busy with nothing.

use super::client::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Ending, Frame, GOAWAY, HEADERS, PING, PRIORITY,
    RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE,
};
use super::{NAMES, metric, plan, site_of};
use crate::directories::start_planned;
use crate::rig::Puppet;
use crate::support::{TestSite, credentials, eventually, start};
use mapigate::lab::site::HOST;

const ENHANCE_YOUR_CALM: u32 = 11;

async fn site() -> TestSite {
    start_planned(plan()).await
}

fn head(stream: u32, flags: u8, path: &str) -> Frame {
    let own = credentials(1);
    Frame::head(
        stream,
        flags,
        &[
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", HOST.as_bytes()),
            (b":path", path.as_bytes()),
            (b"authorization", own.as_bytes()),
        ],
    )
}

/// The code of the farewell that so many of these frames get; `None`: they are borne.
async fn farewell(site: &TestSite, frames: impl Iterator<Item = Frame>) -> Option<u32> {
    let mut raw = Raw::open(site).await;
    let frames: Vec<_> = frames.collect();
    for some in frames.chunks(200) {
        raw.send(some).await;
    }
    // Behind them a request, whose answer says that they were borne.
    raw.send(&[head(1_000_001, END_STREAM, "/ews/x")]).await;
    match raw.ending(1_000_001).await {
        Ending::Farewell(code) => Some(code),
        Ending::Answered(200, _) => None,
        other => panic!("{other:?}"),
    }
}

fn repeated(frame: Frame, times: usize) -> impl Iterator<Item = Frame> {
    std::iter::repeat_n(frame, times)
}

#[tokio::test]
async fn frames_that_ask_for_nothing_are_borne_in_hundreds_and_not_in_thousands() {
    let site = site().await;
    for frame in [
        Frame::new(PING, 0, 0, [7; 8]),
        Frame::new(SETTINGS, 0, 0, []),
        Frame::new(WINDOW_UPDATE, 0, 0, [0, 0, 0, 1]),
        Frame::new(PRIORITY, 0, 1, [0, 0, 0, 0, 7]),
        Frame::new(99, 0, 0, b"whatever".as_slice()),
    ] {
        let kind = frame.kind;
        assert_eq!(
            farewell(&site, repeated(frame.clone(), 500)).await,
            None,
            "{kind}"
        );
        let told = farewell(&site, repeated(frame, 5000)).await;
        assert_eq!(told, Some(ENHANCE_YOUR_CALM), "{kind}");
    }
    let calm = "mapigate_http2_goaways_total{by=\"us\",reason=\"enhance_your_calm\"}";
    assert_eq!(metric(&site, calm).await, 5.0);
}

#[tokio::test]
async fn without_its_guard_they_are_borne_in_thousands() {
    let mut plan = plan();
    let variable = "MAPIGATE_TEST_WITHOUT".to_owned();
    plan.environment.push((variable, "http2_flood".to_owned()));
    let site = start_planned(plan).await;
    let told = farewell(&site, repeated(Frame::new(PING, 0, 0, [7; 8]), 5000)).await;
    assert_eq!(told, None);
}

#[tokio::test]
async fn requests_that_are_given_up_at_once_end_the_connection_and_spare_the_servers() {
    let puppet = Puppet::new().await;
    let site = site_of(&puppet).await;
    let mut raw = Raw::open(&site).await;
    let cancel = [0, 0, 0, 8];
    let mut told = None;
    'all: for round in 0..50_u32 {
        let streams = (0..100).map(|number| round * 200 + number * 2 + 1);
        let frames = streams.flat_map(|stream| {
            [
                head(stream, END_STREAM, "/ews/x"),
                Frame::new(RST_STREAM, 0, stream, cancel),
            ]
        });
        raw.send(&frames.collect::<Vec<_>>()).await;
        while let Ok(frame) =
            tokio::time::timeout(std::time::Duration::from_millis(20), raw.next()).await
        {
            match frame {
                Some(frame) if frame.kind == GOAWAY => told = Some(frame.code()),
                Some(_) => {}
                None => break 'all,
            }
        }
    }
    assert_eq!(told, Some(ENHANCE_YOUR_CALM));
    let came = metric(&site, "mapigate_http2_streams_total").await;
    assert!(came <= 400.0, "{came}");
    let reached = metric(
        &site,
        "mapigate_backend_connections_total{outcome=\"ok\",server=\"MBX1\"}",
    )
    .await;
    assert!(reached <= 300.0, "{reached}");
}

#[tokio::test]
async fn a_head_without_an_end_is_not_waited_for() {
    let site = site().await;
    let mut raw = Raw::open(&site).await;
    raw.send(&[Frame::new(HEADERS, 0, 1, [])]).await;
    let mut told = None;
    for _ in 0..200 {
        raw.send(&vec![Frame::new(CONTINUATION, 0, 1, []); 50])
            .await;
        if let Ok(frame) =
            tokio::time::timeout(std::time::Duration::from_millis(10), raw.next()).await
        {
            match frame {
                Some(frame) if frame.kind == GOAWAY => told = Some(frame.code()),
                Some(_) => {}
                None => break,
            }
        }
    }
    assert_eq!(told, Some(ENHANCE_YOUR_CALM));
}

#[tokio::test]
async fn frames_of_a_body_that_bring_nothing_end_it() {
    let site = site().await;
    let empty = repeated(Frame::new(DATA, 0, 1, []), 5000);
    let own = credentials(1);
    let fields: [(&[u8], &[u8]); 5] = [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":authority", HOST.as_bytes()),
        (b":path", b"/ews/x"),
        (b"authorization", own.as_bytes()),
    ];
    let begun = Frame::new(HEADERS, END_HEADERS, 1, super::client::block(&fields));
    let mut raw = Raw::open(&site).await;
    raw.send(&[begun]).await;
    raw.send(&empty.collect::<Vec<_>>()).await;
    let told = raw.ending(1).await;
    assert!(
        matches!(told, Ending::Farewell(ENHANCE_YOUR_CALM)),
        "{told:?}"
    );
}

#[tokio::test]
async fn no_more_streams_are_open_than_are_allowed() {
    let puppet = Puppet::new().await;
    // Held by the server, and not by a limit of their user's.
    let plan = puppet
        .plan("")
        .section("limits", "{ requests_per_user: 1000 }");
    let plan = plan.section("virtual_directories", "{ preset: gromox }");
    let site = start(plan.section("names", NAMES)).await;
    let mut raw = Raw::open(&site).await;
    let streams = (0..150_u32).map(|number| head(number * 2 + 1, END_STREAM, "/ews/x"));
    raw.send(&streams.collect::<Vec<_>>()).await;
    let mut refused = 0;
    while refused < 50 {
        let frame = raw.next().await.unwrap();
        if frame.kind == RST_STREAM {
            assert_eq!(frame.code(), 7);
            refused += 1;
        }
    }
    eventually("a hundred are open", || async {
        metric(&site, "mapigate_http2_streams_open").await == 100.0
    })
    .await;
    let reason = "mapigate_http2_resets_total{by=\"us\",reason=\"refused_stream\"}";
    assert_eq!(metric(&site, reason).await, 50.0);
}
