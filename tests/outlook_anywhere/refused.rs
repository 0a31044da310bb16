//! What is refused, and that nobody behind us hears of it.

use crate::hand::{Head, Line, ONE, a1, b1, refused};
use crate::house::House;
use mapigate::lab::site::mailbox;
use mapigate::rpch::{Rts, Verb};
use tokio::io::AsyncWriteExt;

const GIB: u64 = 1 << 30;

#[tokio::test]
async fn a_first_pdu_cut_anywhere_reaches_no_server() {
    let house = House::new().await;

    for (verb, length, first) in [(Verb::In, GIB, b1(ONE)), (Verb::Out, 76, a1(ONE))] {
        for cut in 0..first.len() {
            let head = Head::new(verb, 1, length);
            let mut line = Line::channel(&house, &head, &first[..cut]).await;
            line.0.shutdown().await.unwrap();
            assert_eq!(line.rest().await, "", "{verb} {cut}");
        }
    }

    house.nobody_was_reached();
    house.counts("mapigate_virtual_connections", 0.0).await;
}

#[tokio::test]
async fn what_begins_no_channel_is_told_so_in_the_protocols_words() {
    let house = House::new().await;
    let ping = Rts::ping().encode();
    let group = Rts::in_r_a1(ONE, ONE, ONE).encode();

    for (verb, length, first) in [
        (Verb::In, GIB, b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        (Verb::In, GIB, vec![0; 104]),
        (Verb::In, GIB, ping),
        // The other direction's.
        (Verb::In, GIB, a1(ONE)),
        (Verb::Out, 120, b1(ONE)),
        (Verb::Out, 76, group),
        // A successor's length, and no successor.
        (Verb::Out, 120, a1(ONE)),
    ] {
        let answer = refused(&house, &Head::new(verb, 1, length), &first).await;
        assert!(
            answer.starts_with("HTTP/1.1 503 RPC Error: 6c0\r\n"),
            "{verb}: {answer}"
        );
    }

    house.nobody_was_reached();
    house
        .counts("mapigate_refusals_total{reason=\"bad_channel\"}", 7.0)
        .await;
}

#[tokio::test]
async fn a_first_pdu_that_does_not_come_is_not_waited_for() {
    let house = House::with(
        |_| (),
        |plan| plan.section("limits", "{ head_timeout: 300ms }"),
    )
    .await;

    let head = Head::new(Verb::In, 1, GIB);
    let answer = refused(&house, &head, &b1(ONE)[..47]).await;

    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    house.nobody_was_reached();
}

#[tokio::test]
async fn anothers_virtual_connection_cannot_be_joined() {
    let house = House::new().await;
    let mut out = Line::channel(&house, &Head::new(Verb::Out, 1, 76), &a1(ONE)).await;
    out.answer(28).await;

    for (head, first) in [
        (Head::new(Verb::In, 2, GIB), b1(ONE)),
        (Head::new(Verb::Out, 2, 76), a1(ONE)),
        // The same user, another mailbox.
        (
            Head::to(Verb::In, &format!("?{}:6001", mailbox(3)), 1, GIB),
            b1(ONE),
        ),
    ] {
        let answer = refused(&house, &head, &first).await;
        assert!(
            answer.starts_with("HTTP/1.1 503 RPC Error: 6ba\r\n"),
            "{answer}"
        );
    }

    assert_eq!(house.servers[0].heads().len(), 1);
    house
        .counts("mapigate_refusals_total{reason=\"foreign_channel\"}", 3.0)
        .await;
    // Its owner is not disturbed.
    let mut into = Line::channel(&house, &Head::new(Verb::In, 1, GIB), &b1(ONE)).await;
    let (.., body) = out.answer_more(44).await;
    assert_eq!(body.len(), 44);
    into.send(&Rts::ping().encode()).await;
}

#[tokio::test]
async fn other_verbs_lengths_destinations_and_paths_are_refused() {
    let house = House::new().await;
    let own = format!("?{}:6001", mailbox(1));
    for (line, status) in [
        (format!("GET /rpc/rpcproxy.dll{own} HTTP/1.1"), "405"),
        (format!("POST /rpc/rpcproxy.dll{own} HTTP/1.1"), "405"),
        ("HEAD /rpc/rpcproxy.dll HTTP/1.1".to_owned(), "405"),
        (
            format!("rpc_in_data /rpc/rpcproxy.dll{own} HTTP/1.1"),
            "405",
        ),
        (
            format!("RPC_CONNECT /rpc/rpcproxy.dll{own} HTTP/1.1"),
            "405",
        ),
        (format!("RPC_IN_DATA /mapi/emsmdb/{own} HTTP/1.1"), "405"),
        (
            "RPC_IN_DATA /autodiscover/autodiscover.xml HTTP/1.1".to_owned(),
            "405",
        ),
        (format!("RPC_IN_DATA /rpc/{own} HTTP/1.1"), "404"),
        (
            format!("RPC_IN_DATA /rpc/../rpc/rpcproxy.dll{own} HTTP/1.1"),
            "404",
        ),
        (
            format!("RPC_IN_DATA /rpc/rpcproxy.dll{own} HTTP/1.0"),
            "400",
        ),
        (
            "RPC_IN_DATA /rpc/rpcproxy.dll?localhost:593 HTTP/1.1".to_owned(),
            "400",
        ),
        (
            "RPC_IN_DATA /rpc/rpcproxy.dll?mbx1:6001 HTTP/1.1".to_owned(),
            "400",
        ),
        (
            format!("RPC_IN_DATA /rpc/rpcproxy.dll?{}:593 HTTP/1.1", mailbox(1)),
            "400",
        ),
        (
            format!(
                "RPC_IN_DATA /rpc/rpcproxy.dll?{}%2f:6001 HTTP/1.1",
                mailbox(1)
            ),
            "400",
        ),
        (
            "RPC_IN_DATA /rpc/rpcproxy.dll?nobody@nowhere.test:6001 HTTP/1.1".to_owned(),
            "404",
        ),
    ] {
        let mut head = Head::new(Verb::In, 1, 0);
        head.line.clone_from(&line);
        let answer = refused(&house, &head, &[]).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{line}: {answer}"
        );
        if line.starts_with("GET") {
            assert!(
                answer.contains("Allow: RPC_IN_DATA, RPC_OUT_DATA\r\n"),
                "{answer}"
            );
        }
    }
    for (verb, length) in [
        (Verb::In, 17),
        (Verb::In, (128 << 10) - 1),
        (Verb::In, (2 << 30) + 1),
        (Verb::Out, 77),
        (Verb::Out, GIB),
    ] {
        let answer = refused(&house, &Head::new(verb, 1, length), &[]).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 "),
            "{verb} {length}: {answer}"
        );
    }
    let chunked = Head::new(Verb::In, 1, 0)
        .without("Content-Length")
        .field("Transfer-Encoding: chunked");
    let answer = refused(&house, &chunked, &[]).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    house.nobody_was_reached();
}

#[tokio::test]
async fn who_does_not_say_who_asks_is_challenged_before_a_byte_of_the_body() {
    let house = House::new().await;
    let head = Head::new(Verb::In, 1, GIB)
        .without("Authorization")
        .field("Expect: 100-continue");

    let answer = refused(&house, &head, &[]).await;

    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(answer.contains("WWW-Authenticate: Basic"), "{answer}");
    house.nobody_was_reached();
}

#[tokio::test]
async fn a_path_has_schemes_of_its_own() {
    let names = "- host: mail.contoso.test\n    authentication: [basic]\n    paths: [{ path: /rpc, authentication: [certificate] }]";
    let listeners = "- address: 127.0.0.1:0\n    certificates: [{ chain: mail.pem, key: mail.key }]\n    client_certificates: { ca: ca.pem, mode: request }";
    let service = "{ mode: basic_service, user: front, password: secret, user_header: X-User }";
    let house = House::with(
        |_| (),
        |plan| {
            plan.section("names", &format!("  {names}\n"))
                .section("listeners", &format!("  {listeners}\n"))
                .section("backend_identity", service)
        },
    )
    .await;

    let answer = refused(&house, &Head::new(Verb::Out, 1, 0), &[]).await;

    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

#[tokio::test]
async fn where_it_is_off_there_is_no_such_path() {
    let off = |plan: mapigate::lab::site::Plan| {
        plan.section("autodiscover", "{ outlook_anywhere: false }")
    };
    let house = House::with(|_| (), off).await;

    let answer = refused(&house, &Head::new(Verb::Out, 1, 76), &a1(ONE)).await;

    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    house.nobody_was_reached();
}

#[tokio::test]
async fn a_server_that_does_not_speak_it_is_not_asked() {
    let only_mapi = |plan: mapigate::lab::site::Plan| {
        let servers =
            plan.sections["servers"].replace("exchange", "exchange, capability: [mapi_http]");
        plan.section("servers", &servers)
    };
    let house = House::with(|_| (), only_mapi).await;
    let head = Head::new(Verb::Out, 1, 76).field("Expect: 100-continue");

    // Without a byte of the body.
    let answer = refused(&house, &head, &[]).await;

    assert!(
        answer.starts_with("HTTP/1.1 503 RPC Error: 6ba\r\n"),
        "{answer}"
    );
    assert!(answer.contains("Retry-After: "), "{answer}");
    house.nobody_was_reached();
}

#[tokio::test]
async fn a_user_has_so_many_channels_and_a_site_so_many_virtual_connections() {
    let few = |plan: mapigate::lab::site::Plan| {
        plan.section("limits", "{ requests_per_user: 2, virtual_connections: 3 }")
    };
    let house = House::with(|_| (), few).await;
    let mut open = Vec::new();
    for (number, cookie) in [(1, 1), (1, 2), (2, 3)] {
        let first = a1(mapigate::rpch::Cookie([cookie; 16]));
        let mut line = Line::channel(&house, &Head::new(Verb::Out, number, 76), &first).await;
        line.answer(28).await;
        open.push(line);
    }

    for number in [1, 3] {
        let first = a1(mapigate::rpch::Cookie([9; 16]));
        let answer = refused(&house, &Head::new(Verb::Out, number, 76), &first).await;
        assert!(
            answer.starts_with("HTTP/1.1 503 RPC Error: 6bb\r\n"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_channel_without_a_partner_ends_with_its_server_and_leaves_nothing() {
    let brisk = |server: &mut mapigate::lab::rpc_http::server::Options| {
        server.partner_timeout = std::time::Duration::from_millis(200);
    };
    let house = House::with(brisk, |plan| plan).await;

    let mut out = Line::channel(&house, &Head::new(Verb::Out, 1, 76), &a1(ONE)).await;
    let text = out.rest().await;

    assert!(text.starts_with("HTTP/1.1 200 Success\r\n"), "{text}");
    assert_eq!(house.servers[0].virtual_connections(), 0);
    house
        .counts("mapigate_channels_open{direction=\"out\"}", 0.0)
        .await;
}
