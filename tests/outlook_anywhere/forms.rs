//! What servers are told and what clients are: heads, reason phrases, the word to go on.

use crate::hand::{Head, Line, ONE, Puppet, a1, b1};
use crate::house::{House, eventually, section, start};
use mapigate::lab::site::{HOST, PASSWORD, Plan, mailbox, user};
use mapigate::mapi::Flavour;
use mapigate::rpch::{Rts, Verb};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn plan(puppet: &Puppet) -> Plan {
    let addresses = [puppet.address(), "127.0.0.1:9".to_owned()];
    Plan::new(Flavour::Exchange, &["MBX1", "MBX2"])
        .section("servers", &section(&addresses, ""))
        .section("health", "{ interval: 1h, panic_threshold: 0 }")
}

#[tokio::test]
async fn a_server_gets_the_verb_the_destination_and_no_claim_of_the_clients() {
    let puppet = Puppet::new().await;
    let (site, _folder) = start(plan(&puppet)).await;
    let mut line = Line::open(&site).await;
    let head = Head::new(Verb::In, 1, 1 << 30)
        .field("Pragma: SessionId=a")
        .field("X-CommonAccessToken: x")
        .field("X-IsFromCafe: 1")
        .field("X-Forwarded-For: 10.0.0.1")
        .field("X-AnchorMailbox: other@contoso.test")
        .field("X_Remote_User: x")
        .field("Proxy-Authorization: x");

    line.send(&[head.bytes(), b1(ONE), vec![7; 9]].concat())
        .await;

    let (_stream, head, body) = puppet.asked(113).await;
    let begin = format!(
        "RPC_IN_DATA /rpc/rpcproxy.dll?{}:6001 HTTP/1.1\r\n",
        mailbox(1)
    );
    assert!(head.starts_with(&begin), "{head}");
    for there in [
        "\r\nPragma: No-cache\r\n",
        "\r\nPragma: SessionId=a\r\n",
        "\r\nAccept: application/rpc\r\n",
        "\r\nUser-Agent: MSRPC\r\n",
        "\r\nContent-Length: 1073741824\r\n",
        "\r\nX-Forwarded-For: 127.0.0.1\r\n",
        "\r\nAuthorization: Basic ",
    ] {
        assert_eq!(head.matches(there).count(), 1, "{there} in {head}");
    }
    for gone in [
        "CommonAccess",
        "IsFromCafe",
        "10.0.0.1",
        "Anchor",
        "Remote",
        "Proxy-",
        "Expect",
    ] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }
    assert_eq!(body, [b1(ONE), vec![7; 9]].concat());
}

#[tokio::test]
async fn whoever_waits_to_be_told_to_go_on_is_told_once_and_before_a_server_is_asked() {
    let puppet = Puppet::new().await;
    let (site, _folder) = start(plan(&puppet)).await;
    let mut line = Line::open(&site).await;
    let head = Head::new(Verb::Out, 1, 76).field("Expect: 100-continue");

    line.send(&head.bytes()).await;
    let (told, _) = line.answer(0).await;
    assert_eq!(told, "HTTP/1.1 100 Continue\r\n\r\n");
    let first = a1(ONE);
    line.send(&first[..40]).await;
    line.send(&first[40..]).await;

    let (mut server, head, body) = puppet.asked(76).await;
    assert!(!head.contains("Expect"), "{head}");
    assert_eq!(body, first);
    // A server that says it as well is not heard twice.
    server
        .write_all(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 Success\r\nContent-Type: application/rpc\r\nContent-Length: 1073741824\r\n\r\n")
        .await
        .unwrap();
    let (head, _) = line.answer(0).await;
    assert!(head.starts_with("HTTP/1.1 200 Success\r\n"), "{head}");
    assert!(head.contains("Content-Length: 1073741824\r\n"), "{head}");
    assert!(!head.contains("Connection: close"), "{head}");
}

#[tokio::test]
async fn an_error_in_mid_stream_reaches_the_client_with_its_reason() {
    let puppet = Puppet::new().await;
    let (site, _folder) = start(plan(&puppet)).await;
    let mut line = Line::open(&site).await;
    line.send(&[Head::new(Verb::In, 1, 1 << 30).bytes(), b1(ONE)].concat())
        .await;
    let (mut server, ..) = puppet.asked(104).await;
    line.send(&Rts::ping().encode()).await;

    server
        .write_all(b"HTTP/1.1 503 RPC Error: 6be\r\nContent-Length: 4\r\n\r\nlost")
        .await
        .unwrap();

    let (head, body) = line.answer(4).await;
    assert!(
        head.starts_with("HTTP/1.1 503 RPC Error: 6be\r\n"),
        "{head}"
    );
    assert_eq!(body, b"lost");
}

#[tokio::test]
async fn the_last_bytes_of_an_in_channel_arrive_before_its_end() {
    let puppet = Puppet::new().await;
    let (site, _folder) = start(plan(&puppet)).await;
    let mut line = Line::open(&site).await;
    line.send(&[Head::new(Verb::In, 1, 1 << 30).bytes(), b1(ONE)].concat())
        .await;
    let (mut server, _, mut body) = puppet.asked(104).await;

    let last = vec![9; 3 << 20];
    let reading = async {
        while server.read_buf(&mut body).await.unwrap() > 0 {}
        body.len()
    };
    let writing = async {
        line.send(&last).await;
        line.0.shutdown().await.unwrap();
    };
    let (arrived, ()) = tokio::join!(reading, writing);

    assert_eq!(arrived, 104 + last.len());
}

#[tokio::test]
async fn an_answer_in_chunks_passes_as_a_gateway_in_front_of_the_server_sends_it() {
    let puppet = Puppet::new().await;
    let (site, _folder) = start(plan(&puppet)).await;
    let mut line = Line::open(&site).await;
    line.send(&[Head::new(Verb::Out, 1, 76).bytes(), a1(ONE)].concat())
        .await;
    let (mut server, ..) = puppet.asked(76).await;

    let mut answer = b"HTTP/1.1 200 Success\r\nTransfer-Encoding: chunked\r\n\r\n1c\r\n".to_vec();
    answer.extend(Rts::conn_a3(120_000).encode());
    answer.extend(b"\r\n");
    server.write_all(&answer).await.unwrap();

    let (head, body) = line.answer(34).await;
    assert!(head.contains("Transfer-Encoding: chunked\r\n"), "{head}");
    assert_eq!(body.len(), 34);
}

#[tokio::test]
async fn an_echo_is_answered_by_the_server_it_names_and_by_us_where_it_names_none() {
    let house = House::new().await;
    let echo = Rts::echo().encode();
    let mut line = Line::open(&house).await;
    for verb in Verb::ALL {
        line.send(&Head::to(verb, "", 1, 0).bytes()).await;
        let (head, body) = line.answer(20).await;
        assert!(head.starts_with("HTTP/1.1 200 Success\r\n"), "{head}");
        assert!(head.contains("Content-Type: application/rpc\r\n"), "{head}");
        assert_eq!(body, echo);
    }
    house.nobody_was_reached();

    for (verb, length) in [(Verb::In, 0), (Verb::Out, 16)] {
        let head = Head::new(verb, 1, length).bytes();
        let body = vec![0; usize::try_from(length).unwrap()];
        line.send(&[head, body].concat()).await;
        let (head, body) = line.answer(20).await;
        assert!(head.starts_with("HTTP/1.1 200 Success\r\n"), "{head}");
        assert_eq!(body, echo);
    }
    // One kept connection did for both.
    assert_eq!(house.servers[0].heads().len(), 2);
    assert_eq!(house.servers[0].connections_open(), 1);
}

#[tokio::test]
async fn a_service_account_logs_on_in_the_users_place() {
    let puppet = Puppet::new().await;
    let handoff = format!(
        "{{ mode: basic_service, user: '{}', password: '{PASSWORD}', user_header: X-Remote-User }}",
        user(9)
    );
    let plan = plan(&puppet).section("backend_identity", &handoff);
    let (site, _folder) = start(plan).await;
    let mut line = Line::open(&site).await;

    let head = Head::new(Verb::Out, 1, 76).field("X-Remote-User: admin");
    line.send(&[head.bytes(), a1(ONE)].concat()).await;

    let (_stream, head, _) = puppet.asked(76).await;
    assert_eq!(
        head.matches("X-Remote-User: user1@contoso.test\r\n")
            .count(),
        1,
        "{head}"
    );
    assert!(!head.contains("admin"), "{head}");
    assert_eq!(head.matches("Authorization: Basic ").count(), 1, "{head}");
}

#[tokio::test]
async fn a_challenge_of_the_server_is_answered_with_ours_and_credentials_are_forgotten() {
    let puppet = Puppet::new().await;
    let (site, _folder) = start(plan(&puppet)).await;
    let mut line = Line::open(&site).await;
    line.send(&[Head::new(Verb::Out, 1, 76).bytes(), a1(ONE)].concat())
        .await;
    let (mut server, ..) = puppet.asked(76).await;

    server
        .write_all(
            b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n",
        )
        .await
        .unwrap();

    let (head, _) = line.answer(0).await;
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    assert!(head.contains("WWW-Authenticate: Basic"), "{head}");
    assert!(!head.contains("NTLM"), "{head}");
}

#[tokio::test]
async fn a_channel_never_takes_a_kept_connection_and_never_leaves_one() {
    let house = House::new().await;
    let mut line = Line::open(&house).await;
    line.send(&Head::new(Verb::In, 1, 0).bytes()).await;
    line.answer(20).await;
    assert_eq!(house.servers[0].connections_open(), 1);

    let mut out = Line::channel(&house, &Head::new(Verb::Out, 1, 76), &a1(ONE)).await;
    out.answer(28).await;
    assert_eq!(house.servers[0].connections_open(), 2);
    drop(out);

    eventually("the channel's connection closed", || async {
        house.servers[0].connections_open() == 1
    })
    .await;
    let _known = HOST;
}

#[tokio::test]
async fn what_only_the_server_can_judge_goes_to_it_on_a_connection_of_the_clients_own() {
    let puppet = Puppet::new().await;
    let plan = plan(&puppet)
        .section(
            "names",
            &format!("  - host: {HOST}\n    authentication: [ntlm, basic]\n"),
        )
        .section(
            "auth",
            "{ basic: { password_file: users.htpasswd }, passthrough: { schemes: [ntlm] } }",
        );
    let (site, _folder) = start(plan).await;
    let mut line = Line::open(&site).await;
    let ntlm = |word: &str, length| {
        Head::new(Verb::In, 1, length)
            .without("Authorization")
            .field(&format!("Authorization: NTLM {word}"))
    };

    // As Windows does: half a logon without a body, the other half with the channel.
    line.send(&ntlm("TlRMTVNTUAAB", 0).bytes()).await;
    let (mut server, head, _) = puppet.asked(0).await;
    assert!(
        head.contains("Authorization: NTLM TlRMTVNTUAAB\r\n"),
        "{head}"
    );
    server
        .write_all(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: NTLM TlRMTVNTUAAC\r\nContent-Length: 0\r\n\r\n")
        .await
        .unwrap();
    let (head, _) = line.answer(0).await;
    assert!(
        head.contains("WWW-Authenticate: NTLM TlRMTVNTUAAC\r\n"),
        "{head}"
    );
    assert!(!head.contains("Connection: close"), "{head}");
    line.send(&[ntlm("TlRMTVNTUAAD", 1 << 30).bytes(), b1(ONE)].concat())
        .await;

    let mut bytes = Vec::new();
    while !bytes.ends_with(&b1(ONE)) {
        let read = tokio::time::timeout(crate::house::PATIENCE, server.read_buf(&mut bytes)).await;
        assert!(read.unwrap().unwrap() > 0, "ended");
    }
    let head = String::from_utf8_lossy(&bytes);
    assert!(
        head.contains("Authorization: NTLM TlRMTVNTUAAD\r\n"),
        "{head}"
    );
    // Both end together.
    drop(line);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(crate::house::PATIENCE, server.read_to_end(&mut rest)).await;
    ended.unwrap().unwrap();
}
