//! Requests that are to become two of HTTP/1.1, or another's; frame by frame.

use super::client::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Ending, Frame, HEADERS, Raw, block,
};
use super::plan;
use crate::directories::start_planned;
use crate::support::{TestSite, credentials};
use mapigate::lab::site::HOST;

type Pair<'a> = (&'a [u8], &'a [u8]);

async fn site() -> TestSite {
    start_planned(plan()).await
}

async fn without(guard: &str) -> TestSite {
    let mut plan = plan();
    let variable = "MAPIGATE_TEST_WITHOUT".to_owned();
    plan.environment.push((variable, guard.to_owned()));
    start_planned(plan).await
}

/// A head of user 1 with these fields in it; those whose name is there replace ours, and an empty name
/// takes one out.
fn head<'a>(own: &'a str, method: &'a str, changes: &[Pair<'a>]) -> Vec<Pair<'a>> {
    let usual: [Pair<'a>; 5] = [
        (b":method", method.as_bytes()),
        (b":scheme", b"https"),
        (b":authority", HOST.as_bytes()),
        (b":path", b"/ews/x"),
        (b"authorization", own.as_bytes()),
    ];
    let replaced = usual.map(|(name, value)| {
        let change = changes.iter().find(|(changed, _)| *changed == name);
        (name, change.map_or(value, |change| change.1))
    });
    let is_new = |pair: &&Pair<'a>| !usual.iter().any(|(name, _)| *name == pair.0);
    let more = changes.iter().filter(is_new).copied();
    replaced.into_iter().chain(more).collect()
}

/// How a request with these fields and these frames behind its head ends.
async fn ending(site: &TestSite, method: &str, changes: &[Pair<'_>], behind: &[Frame]) -> Ending {
    let own = credentials(1);
    let flags = if behind.is_empty() { END_STREAM } else { 0 };
    let mut frames = vec![Frame::head(1, flags, &head(&own, method, changes))];
    frames.extend_from_slice(behind);
    let mut raw = Raw::open(site).await;
    raw.send(&frames).await;
    raw.ending(1).await
}

/// 400, or the stream or the connection broken off for it. RFC 9113 section 8.1.1
fn is_refused(ending: &Ending) -> bool {
    ending.status() == 400
        || matches!(
            ending,
            Ending::Reset(1) | Ending::Farewell(1 | 9) | Ending::BrokenOff(1)
        )
}

/// Heads that the servers got, less health checks.
fn reached(site: &TestSite) -> Vec<String> {
    let heads = site.servers().flat_map(|server| server.heads());
    let texts = heads.map(|head| String::from_utf8_lossy(&head).into_owned());
    texts
        .filter(|head| !head.contains("mapigate-health"))
        .collect()
}

const SECOND: &[u8] = b"x\r\n\r\nPOST /ews/evil HTTP/1.1\r\nHost: mail.contoso.test\r\n\r\n";

#[tokio::test]
async fn a_plain_head_of_these_passes() {
    let site = site().await;
    assert_eq!(ending(&site, "GET", &[], &[]).await.status(), 200);
    assert_eq!(reached(&site).len(), 1);
}

#[tokio::test]
async fn what_would_be_a_second_request_is_refused() {
    let site = site().await;
    let cases: &[&[Pair<'_>]] = &[
        // In a value, a name, the path, the method, the authority.
        &[(b"x-a", SECOND)],
        &[(b"x-a", b"y\r\nx-evil: 1")],
        &[(b"x-a", b"y\nx-evil: 1")],
        &[(b"x-a", b"y\rx-evil: 1")],
        &[(b"x-a", b"y\0evil")],
        &[(b"x-a", b"y\x7fevil")],
        &[(b"x-a\r\nx-evil", b"1")],
        &[(b"x-a: evil\r\nx-b", b"1")],
        &[(b"x a", b"evil")],
        &[(b"x-a:", b"evil")],
        &[(b"X-Evil", b"1")],
        &[(b"", b"evil")],
        &[(b"cookie", b"a=b\r\nx-evil: 1")],
        &[(
            b":path",
            b"/ews/x HTTP/1.1\r\nHost: mail.contoso.test\r\nX-Evil: 1\r\n\r\nGET /ews/y",
        )],
        &[(b":path", b"/ews/x y")],
        &[(b":path", b"/ews/x\ty")],
        &[(b":path", b"")],
        &[(b":path", b"*")],
        &[(b":path", b"evil")],
        &[(b":path", b"https://evil.test/ews/x")],
        &[(b":path", b"http://mail.contoso.test/ews/x")],
        &[(b":path", b"/ews/\xc3\xa9vil")],
        &[(b":method", b"GET /ews/evil HTTP/1.1\r\nx:")],
        &[(b":method", b"GE T")],
        &[(b":method", b"")],
        &[(b":authority", b"mail.contoso.test\r\nx-evil: 1")],
        &[(b":authority", b"evil@mail.contoso.test")],
        &[(b":authority", b"mail.contoso.test:evil")],
        &[(b":authority", b"")],
        // Fields of HTTP/1.1's connections.
        &[(b"transfer-encoding", b"chunked")],
        &[(b"transfer-encoding", b"identity")],
        &[(b"connection", b"close, x-evil")],
        &[(b"connection", b"authorization")],
        &[(b"proxy-connection", b"keep-alive")],
        &[(b"keep-alive", b"timeout=5")],
        &[(b"upgrade", b"websocket")],
        &[(b"upgrade", b"h2c"), (b"http2-settings", b"AAMAAABk")],
        &[(b"http2-settings", b"AAMAAABk")],
        &[(b"te", b"gzip")],
        &[(b"te", b"trailers, chunked")],
        // Lengths.
        &[(b"content-length", b"1")],
        &[(b"content-length", b"+0")],
        &[(b"content-length", b"00")],
        &[(b"content-length", b"0"), (b"content-length", b"0")],
        &[(b"content-length", b"0, 5")],
        // Pseudo fields twice, late, unknown, or of an answer.
        &[(b"x-a", b"b"), (b":path", b"/ews/evil"), (b":evil", b"1")],
        &[(b":evil", b"1")],
        &[(b":status", b"200")],
        &[(b":protocol", b"websocket")],
        &[(b"x-a", b"b"), (b":status", b"200")],
        // Another host beside the one that is asked.
        &[(b"host", b"evil.test")],
        &[(b"host", b"mail.contoso.test:444")],
        &[(b"host", HOST.as_bytes()), (b"host", HOST.as_bytes())],
        &[(b":scheme", b"http")],
        &[(b":scheme", b"evil")],
    ];
    for changes in cases {
        for method in ["GET", "POST"] {
            let ending = ending(&site, method, changes, &[]).await;
            let what: Vec<_> = changes
                .iter()
                .map(|(name, value)| {
                    (
                        name.escape_ascii().to_string(),
                        value.escape_ascii().to_string(),
                    )
                })
                .collect();
            assert!(is_refused(&ending), "{what:?}: {ending:?}");
        }
    }
    assert_eq!(reached(&site), Vec::<String>::new());
}

#[tokio::test]
async fn pseudo_fields_are_there_once_and_first() {
    let site = site().await;
    let own = credentials(1);
    let usual = head(&own, "GET", &[]);
    for left_out in 0..3 {
        // Without `:authority` it is refused as well, for want of a Host.
        let fields = usual.iter().copied().enumerate();
        let fields: Vec<_> = fields
            .filter(|(at, _)| *at != left_out)
            .map(|(_, pair)| pair)
            .collect();
        let mut raw = Raw::open(&site).await;
        raw.send(&[Frame::head(1, END_STREAM, &fields)]).await;
        let ending = raw.ending(1).await;
        assert!(is_refused(&ending), "without {left_out}: {ending:?}");
    }
    for doubled in 0..4 {
        let mut fields = usual.clone();
        fields.insert(doubled, usual[doubled]);
        let mut raw = Raw::open(&site).await;
        raw.send(&[Frame::head(1, END_STREAM, &fields)]).await;
        let ending = raw.ending(1).await;
        assert!(is_refused(&ending), "{doubled} twice: {ending:?}");
    }
    for late in 0..4 {
        let mut fields = usual.clone();
        let pair = fields.remove(late);
        fields.push(pair);
        let mut raw = Raw::open(&site).await;
        raw.send(&[Frame::head(1, END_STREAM, &fields)]).await;
        let ending = raw.ending(1).await;
        assert!(is_refused(&ending), "{late} late: {ending:?}");
    }
    assert_eq!(reached(&site), Vec::<String>::new());
}

#[tokio::test]
async fn tunnels_are_not_opened() {
    let site = site().await;
    let own = credentials(1);
    let heads: [&[Pair<'_>]; 3] = [
        &[
            (b":method", b"CONNECT"),
            (b":authority", b"mail.contoso.test:443"),
        ],
        &[
            (b":method", b"CONNECT"),
            (b":protocol", b"websocket"),
            (b":scheme", b"https"),
            (b":path", b"/owa/ws"),
            (b":authority", HOST.as_bytes()),
            (b"authorization", own.as_bytes()),
        ],
        &[
            (b":method", b"CONNECT"),
            (b":scheme", b"https"),
            (b":path", b"/ews/x"),
            (b":authority", HOST.as_bytes()),
        ],
    ];
    for fields in heads {
        let mut raw = Raw::open(&site).await;
        raw.send(&[Frame::head(1, 0, fields)]).await;
        let ending = raw.ending(1).await;
        assert!(is_refused(&ending), "{ending:?}");
    }
    assert_eq!(reached(&site), Vec::<String>::new());
}

#[tokio::test]
async fn a_body_is_as_long_as_it_says_or_nothing_is_answered() {
    let site = site().await;
    let data = |flags, text: &[u8]| Frame::new(DATA, flags, 1, text);
    for (length, behind) in [
        (&b"3"[..], &[data(END_STREAM, b"abcd")][..]),
        (b"3", &[data(0, b"abc"), data(END_STREAM, SECOND)]),
        (b"3", &[data(0, b"ab"), data(END_STREAM, b"")]),
        (b"0", &[data(END_STREAM, b"a")]),
        (
            b"3",
            &[
                data(0, b"ab"),
                Frame::head(1, END_STREAM, &[(b"x-a", b"b")]),
            ],
        ),
    ] {
        let fields: [Pair<'_>; 1] = [(b"content-length", length)];
        let ending = ending(&site, "POST", &fields, behind).await;
        assert!(
            matches!(ending, Ending::Reset(1) | Ending::Farewell(1)),
            "{ending:?}"
        );
    }
    let second = reached(&site);
    assert!(
        second.iter().all(|head| !head.contains("evil")),
        "{second:?}"
    );
    // A second request in a body is a body.
    let told = ending(&site, "POST", &[], &[data(END_STREAM, SECOND)]).await;
    let Ending::Answered(200, page) = told else {
        panic!("{told:?}")
    };
    assert!(page.contains(&format!("bytes={} ", SECOND.len())), "{page}");
    assert!(page.contains("target=/ews/x "), "{page}");
}

#[tokio::test]
async fn fields_behind_a_body_stay_here() {
    let site = site().await;
    let trailers: [Pair<'_>; 2] = [(b"x-commonaccesstoken", b"evil"), (b"content-length", b"7")];
    let behind = [
        Frame::new(DATA, 0, 1, b"abc".as_slice()),
        Frame::head(1, END_STREAM, &trailers),
    ];
    let told = ending(&site, "POST", &[], &behind).await;
    let Ending::Answered(200, page) = told else {
        panic!("{told:?}")
    };
    assert!(page.contains("bytes=3 "), "{page}");
    assert!(reached(&site).iter().all(|head| !head.contains("evil")));
    // Neither are those of a request.
    let again: [Pair<'_>; 2] = [(b":path", b"/ews/evil"), (b"authorization", b"evil")];
    let behind = [
        Frame::new(DATA, 0, 1, b"abc".as_slice()),
        Frame::head(1, END_STREAM, &again),
    ];
    let _either = ending(&site, "POST", &[], &behind).await;
    assert!(reached(&site).iter().all(|head| !head.contains("evil")));
}

#[tokio::test]
async fn a_fragment_is_cut_off_before_anybody_judges_the_path() {
    let site = site().await;
    let told = ending(&site, "GET", &[(b":path", b"/ews/x#/../evil")], &[]).await;
    assert_eq!(told.status(), 200);
    let heads = reached(&site);
    assert!(heads[0].starts_with("GET /ews/x HTTP/1.1\r\n"), "{heads:?}");
}

#[tokio::test]
async fn blanks_around_a_value_are_refused() {
    for (site, expected) in [(site().await, false), (without("http2_values").await, true)] {
        for value in [&b" x"[..], b"x ", b"\tx", b"x\t"] {
            let told = ending(&site, "GET", &[(b"x-a", value)], &[]).await;
            assert_eq!(told.status() == 200, expected, "{value:?}: {told:?}");
        }
    }
}

#[tokio::test]
async fn without_its_guard_another_host_beside_the_authority_passes() {
    let fields: [Pair<'_>; 1] = [(b"host", b"evil.test")];
    let told = ending(&without("http2_host").await, "GET", &fields, &[]).await;
    assert_eq!(told.status(), 200, "{told:?}");
}

#[tokio::test]
async fn without_its_guard_a_request_that_did_not_come_by_tls_passes() {
    let fields: [Pair<'_>; 1] = [(b":scheme", b"http")];
    let told = ending(&without("http2_scheme").await, "GET", &fields, &[]).await;
    assert_eq!(told.status(), 200, "{told:?}");
}

#[tokio::test]
async fn without_its_guard_a_connection_carries_requests_for_another_name() {
    let fields: [Pair<'_>; 1] = [(b":authority", b"owa.contoso.test")];
    let told = ending(&site().await, "GET", &fields, &[]).await;
    assert_eq!(told.status(), 421, "{told:?}");
    // No name of the site, and so the gate says no for reasons of its own.
    let site = without("http2_authority").await;
    let told = ending(&site, "GET", &fields, &[]).await;
    assert_eq!(told.status(), 421, "{told:?}");
    let lines = || site.access_lines().unwrap();
    crate::support::eventually("a line", || async { !lines().is_empty() }).await;
    assert!(lines().iter().all(|line| line["refusal"] != "misdirected"));
}

#[tokio::test]
async fn without_its_guard_what_has_connections_of_its_own_is_served() {
    let site = without("http2_shared").await;
    let path = format!(
        "/mapi/emsmdb/?MailboxId={}",
        mapigate::lab::site::mailbox(1)
    );
    let fields: [Pair<'_>; 6] = [
        (b":path", path.as_bytes()),
        (b"x-requesttype", b"PING"),
        (b"x-requestid", b"{A}:1"),
        (b"x-clientinfo", b"{B}:1"),
        (b"x-clientapplication", b"Outlook/16.0.0.0"),
        (b"content-type", b"application/mapi-http"),
    ];
    let told = ending(&site, "POST", &fields, &[]).await;
    assert_eq!(told.status(), 200, "{told:?}");
}

#[tokio::test]
async fn a_head_in_pieces_is_one_head_and_too_large_a_one_is_none() {
    let site = site().await;
    let own = credentials(1);
    let block = block(&head(&own, "GET", &[]));
    let (first, rest) = block.split_at(20);
    let mut raw = Raw::open(&site).await;
    raw.send(&[
        Frame::new(HEADERS, END_STREAM, 1, first),
        Frame::new(CONTINUATION, END_HEADERS, 1, rest),
    ])
    .await;
    assert_eq!(raw.ending(1).await.status(), 200);

    // Beyond limits.head: said by the number for it.
    let large = vec![b'a'; 131_072];
    let pieces = super::client::block(&head(&own, "GET", &[(b"x-a", &large)]));
    let mut frames: Vec<_> = pieces
        .chunks(16_000)
        .map(|piece| Frame::new(CONTINUATION, 0, 1, piece))
        .collect();
    frames[0].kind = HEADERS;
    frames[0].flags = END_STREAM;
    frames.last_mut().unwrap().flags = END_HEADERS;
    let mut raw = Raw::open(&site).await;
    raw.send(&frames).await;
    assert_eq!(raw.ending(1).await.status(), 431);
    assert_eq!(reached(&site).len(), 1);
}
