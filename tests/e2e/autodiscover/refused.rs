//! Who is told nothing, and what is no question.

use super::{CAPABLE, ask, body_for, says_mapi_http, text, told};
use crate::rig::{Puppet, in_time};
use crate::support::{
    Raw, answer, basic, brisk, eventually, last_words, nobody_was_reached, start, status,
};
use mapigate::lab::site::{DOMAIN, HOST, mailbox, user};
use mapigate::mapi::Flavour;

/// An answer without what differs between two of the same.
fn without_marks(xml: &str) -> String {
    let (before, rest) = xml.split_once("<Error Time=\"").unwrap();
    let (_marks, after) = rest.split_once("\"><ErrorCode>").unwrap();
    format!("{before}{after}")
}

#[tokio::test]
async fn an_address_that_is_not_there_reads_like_one_that_is_not_yours() {
    for settings in [
        "{ mode: proxy, other_mailboxes: own }",
        "{ mode: answer, other_mailboxes: own }",
    ] {
        let site = start(brisk(Flavour::Exchange).section("autodiscover", settings)).await;
        let mut seen = Vec::new();
        for address in [
            user(2),
            format!("nobody@{DOMAIN}"),
            "someone@elsewhere.test".to_owned(),
            "nonsense".to_owned(),
        ] {
            let answer = answer(&site, &ask(CAPABLE, body_for(&address))).await;
            assert_eq!(answer.head.status, 200);
            seen.push(without_marks(&text(&answer)));
        }
        assert!(seen.iter().all(|text| *text == seen[0]), "{seen:#?}");
        assert!(seen[0].contains("500</ErrorCode>"));
        // Not even how long it takes tells: nobody was asked.
        nobody_was_reached(&site).await;
        told(&site, CAPABLE).await;
    }
    let listed = brisk(Flavour::Exchange)
        .section("autodiscover", "{ mode: answer }")
        .section("directory", "{ file: mailboxes.yaml, access: listed }");
    let site = start(listed).await;
    let theirs = answer(&site, &ask(CAPABLE, body_for(&user(2)))).await;
    let nobodys = answer(&site, &ask(CAPABLE, body_for(&format!("nobody@{DOMAIN}")))).await;
    assert_eq!(
        without_marks(&text(&theirs)),
        without_marks(&text(&nobodys))
    );
    // The mailbox server decides who opens what: then everybody may look for everybody.
    let site = start(brisk(Flavour::Exchange).section("autodiscover", "{ mode: answer }")).await;
    let theirs = answer(&site, &ask(CAPABLE, body_for(&user(2)))).await;
    assert!(text(&theirs).contains(&mailbox(2)));
}

#[tokio::test]
async fn who_has_not_proved_who_he_is_learns_nothing() {
    let site = start(brisk(Flavour::Exchange)).await;
    for credential in [
        None,
        Some(basic(&user(1), "wrong")),
        Some("Bearer".to_owned()),
    ] {
        let mut ask = ask(CAPABLE, body_for(&user(1))).without("Authorization");
        if let Some(credential) = credential {
            ask = ask.with(format!("Authorization: {credential}"));
        }
        let answer = answer(&site, &ask).await;
        assert_eq!(answer.head.status, 401);
        assert!(
            answer
                .head
                .header("www-authenticate")
                .unwrap()
                .starts_with("Basic ")
        );
    }
    nobody_was_reached(&site).await;
}

#[tokio::test]
async fn an_address_used_as_a_lever_moves_nothing() {
    let site = start(brisk(Flavour::Exchange)).await;
    for target in [
        "/autodiscover/autodiscover.json?@evil.test/mapi/nspi/?&Email=autodiscover/autodiscover.json%3F@evil.test",
        "/autodiscover/autodiscover.json?@evil.test/autodiscover/autodiscover.xml?&Email=autodiscover/autodiscover.json%3f@evil.test",
        "/autodiscover/autodiscover.json@evil.test/mapi/emsmdb/?MailboxId=x@y",
        "/autodiscover/autodiscover.json?a=a@evil.test/ecp/&Email=autodiscover/autodiscover.json@evil.test",
        "/autodiscover/autodiscover.json/v1.0/a@b/../../../mapi/nspi/?Protocol=Ews",
        "/autodiscover/autodiscover.json?Email=a@b&X-Rps-CAT=VgEAVAd3&Protocol=Ews",
        "/autodiscover/autodiscover.xml?@evil.test/powershell/?X-Rps-CAT=x",
        "/autodiscover/autodiscover.xml@evil.test",
        "/autodiscover/autodiscover.svc?x=y@evil.test",
    ] {
        for method in ["GET", "POST"] {
            let bytes = ask(CAPABLE, body_for(&user(1)))
                .line(format!("{method} {target} HTTP/1.1"))
                .with("Connection: close")
                .bytes();
            let (text, _) = last_words(&site, &bytes).await;
            assert!(
                [400, 404, 405].contains(&status(&text)),
                "{method} {target}: {text}"
            );
        }
    }
    nobody_was_reached(&site).await;
}

#[tokio::test]
async fn bodies_that_are_no_request_are_told_so_and_the_connection_goes_on() {
    let site = start(brisk(Flavour::Exchange)).await;
    let bomb = format!(
        "<!DOCTYPE a [{}]><Autodiscover><Request><EMailAddress>&z;</EMailAddress></Request></Autodiscover>",
        ('a'..='y')
            .map(|c| format!(
                "<!ENTITY {} \"&{c};&{c};&{c};&{c};\">",
                char::from(c as u8 + 1)
            ))
            .collect::<String>()
    );
    let outside = "<!DOCTYPE a [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><Autodiscover><Request><EMailAddress>&x;</EMailAddress></Request></Autodiscover>";
    let latin = body_for("us\u{e9}r@x").replace("utf-8", "iso-8859-1");
    let mut wide = vec![0xff, 0xfe];
    wide.extend(body_for(&user(1)).encode_utf16().flat_map(u16::to_le_bytes));
    let mut line = crate::support::line(&site.target().unwrap()).await;
    for body in [
        Vec::new(),
        b"{}".to_vec(),
        bomb.into_bytes(),
        outside.into(),
        latin.into_bytes(),
        wide,
        body_for("&nbsp;").into_bytes(),
        "<a>".repeat(5000).into_bytes(),
        b"<Autodiscover><Request/></Autodiscover>".to_vec(),
    ] {
        let shown = String::from_utf8_lossy(&body).into_owned();
        let answer = in_time("an answer", line.ask(&ask(CAPABLE, body).bytes()))
            .await
            .unwrap();
        assert_eq!(answer.head.status, 200, "{shown}");
        assert!(
            text(&answer).contains("<ErrorCode>600</ErrorCode>"),
            "{shown}: {}",
            text(&answer)
        );
        assert!(!text(&answer).contains("root:"));
    }
    let mut marked = vec![0xef, 0xbb, 0xbf];
    marked.extend(body_for(&user(1)).bytes());
    let answer_to_marked = in_time("an answer", line.ask(&ask(CAPABLE, marked).bytes()))
        .await
        .unwrap();
    says_mapi_http(&text(&answer_to_marked));
    let huge = ask(CAPABLE, vec![b' '; 256 * 1024 + 1]);
    let (words, _) = last_words(&site, &huge.bytes()).await;
    assert_eq!(status(&words), 413);
    // Without a length it is measured first.
    let whole = body_for(&user(1));
    let chunked = format!("{:x}\r\n{whole}\r\n0\r\n\r\n", whole.len());
    let answer_to_chunked = answer(
        &site,
        &ask(CAPABLE, chunked).with("Transfer-Encoding: chunked"),
    )
    .await;
    says_mapi_http(&text(&answer_to_chunked));
    let looked = ask(&[], Vec::new()).line("GET /autodiscover/autodiscover.xml HTTP/1.1");
    assert!(text(&answer(&site, &looked).await).contains("<ErrorCode>600</ErrorCode>"));
}

#[tokio::test]
async fn a_name_that_answers_nothing_has_nothing_at_this_address() {
    let names = format!("[{{ host: {HOST}, autodiscover: off }}]");
    let site = start(brisk(Flavour::Exchange).section("names", &names)).await;
    let refused = answer(&site, &ask(CAPABLE, body_for(&user(1)))).await;
    assert_eq!(refused.head.status, 404);
    nobody_was_reached(&site).await;
}

#[tokio::test]
async fn a_server_that_is_down_or_talks_nonsense_is_no_answer() {
    let mut site = start(brisk(Flavour::Exchange)).await;
    site.kill_server("MBX1").await.unwrap();
    let refused = answer(&site, &ask(CAPABLE, body_for(&user(1)))).await;
    assert_eq!(refused.head.status, 503);
    assert!(refused.head.header("retry-after").is_some());

    let puppet = Puppet::new().await;
    let site = start(puppet.plan("")).await;
    let page = |status: &str, fields: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    };
    let whole = |kind: &str| body_for("a@b").replace("Request>", &format!("{kind}>"));
    for (said, expected) in [
        (page("200 OK", "", "<html>MBX1</html>"), 502),
        (
            page("200 OK", "Content-Encoding: gzip\r\n", &whole("Response")),
            502,
        ),
        (
            page("200 OK", "", &format!("<!DOCTYPE a>{}", whole("Response"))),
            502,
        ),
        (page("200 OK", "", &" ".repeat(1024 * 1024 + 1)), 502),
        (
            page(
                "500 Internal Server Error",
                "X: MBX1\r\n",
                "<html>MBX1 stack trace</html>",
            ),
            500,
        ),
        (
            page(
                "401 Unauthorized",
                "WWW-Authenticate: Basic realm=\"MBX1\"\r\n",
                "",
            ),
            401,
        ),
        ("nonsense\r\n\r\n".to_owned(), 502),
    ] {
        let bytes = ask(CAPABLE, body_for(&user(1)))
            .with("Connection: close")
            .bytes();
        let (answered, ()) = tokio::join!(last_words(&site, &bytes), async {
            let mut asked = puppet.asked().await;
            asked.whole().await;
            asked.say(said.as_bytes()).await;
        });
        assert_eq!(status(&answered.0), expected, "{}", answered.0);
        assert!(!answered.0.contains("MBX1"), "{}", answered.0);
    }
    let there = page(
        "302 Found",
        "Location: http://mbx1.contoso.test:444/autodiscover/autodiscover.xml?x\r\n",
        "",
    );
    let bytes = ask(CAPABLE, body_for(&user(1)))
        .with("Connection: close")
        .bytes();
    let (answered, head) = tokio::join!(last_words(&site, &bytes), async {
        let mut asked = puppet.asked().await;
        asked.whole().await;
        asked.say(there.as_bytes()).await;
        asked.head.clone()
    });
    assert!(
        answered.0.contains(&format!(
            "\r\nLocation: https://{HOST}/autodiscover/autodiscover.xml?x\r\n"
        )),
        "{}",
        answered.0
    );
    assert!(
        head.starts_with("POST /autodiscover/autodiscover.xml HTTP/1.1\r\n"),
        "{head}"
    );
    for line in [
        "X-MapiHttpCapability: 1\r\n",
        "X-Forwarded-For: 127.0.0.1\r\n",
        "Authorization: Basic ",
    ] {
        assert!(head.contains(line), "{line} not in {head}");
    }
}

#[tokio::test]
async fn a_server_gets_no_field_that_says_who_somebody_is_or_what_to_pack() {
    let site = start(brisk(Flavour::Exchange)).await;
    let fields = [
        "X-AnchorMailbox: victim@contoso.test",
        "X-CommonAccessToken: x",
        "X-BEResource: MBX2",
        "Cookie: X-BEResource=localhost~1942062522; MapiContext=x",
        "Accept-Encoding: gzip",
        "X-Forwarded-For: 10.9.9.9",
        "X_Auth_User: victim",
    ];
    told(&site, &fields).await;
    let heads = site.server("MBX1").unwrap().heads();
    let head = heads
        .iter()
        .map(|head| String::from_utf8_lossy(head))
        .find(|head| head.contains("autodiscover"));
    let head = head.unwrap().to_lowercase();
    for word in [
        "victim",
        "beresource",
        "commonaccess",
        "cookie",
        "gzip",
        "10.9.9.9",
    ] {
        assert!(!head.contains(word), "{word} in {head}");
    }
}

#[tokio::test]
async fn a_client_that_waits_for_a_word_before_its_body_gets_one() {
    let site = start(brisk(Flavour::Exchange)).await;
    let bytes = ask(CAPABLE, body_for(&user(1)))
        .with("Expect: 100-continue")
        .bytes();
    let head = memchr::memmem::find(&bytes, b"\r\n\r\n").unwrap() + 4;
    let mut raw = Raw::open(&site).await;

    raw.send(&bytes[..head]).await;
    assert_eq!(raw.until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    raw.send(&bytes[head..]).await;

    let (text, _) = raw.rest().await;
    assert!(status(&text) == 200 && text.contains("mapiHttp"), "{text}");
}

#[tokio::test]
async fn who_asks_without_tls_is_sent_to_where_there_is_some() {
    let plain = "[{ address: '127.0.0.1:0', plain_http: true }]";
    let site = start(brisk(Flavour::Exchange).section("listeners", plain)).await;
    let mut target = site.target().unwrap();
    target.tls = None;
    let mut line = crate::support::line(&target).await;
    let get = ask(&[], Vec::new())
        .without("Authorization")
        .line("GET /autodiscover/autodiscover.xml HTTP/1.1");

    let sent = in_time("an answer", line.ask(&get.bytes())).await.unwrap();

    assert_eq!(sent.head.status, 302);
    let there = format!("https://{HOST}/autodiscover/autodiscover.xml");
    assert_eq!(sent.head.header("location"), Some(there.as_str()));
    nobody_was_reached(&site).await;
}

#[tokio::test]
async fn one_user_cannot_fill_the_memory_with_bodies_that_never_end() {
    let limits = "{ requests_per_user: 2 }";
    let site = start(brisk(Flavour::Exchange).section("limits", limits)).await;
    let bytes = ask(CAPABLE, vec![b' '; 200 * 1024])
        .with("Expect: 100-continue")
        .bytes();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut raw = Raw::open(&site).await;
        raw.send(&bytes[..bytes.len() - 200 * 1024]).await;
        // From here on it is waited for.
        raw.until("100 Continue\r\n\r\n").await;
        raw.send(&bytes[bytes.len() - 200 * 1024..][..100 * 1024])
            .await;
        held.push(raw);
    }

    let third = ask(CAPABLE, body_for(&user(1))).with("Connection: close");
    assert_eq!(status(&last_words(&site, &third.bytes()).await.0), 503);
    drop(held);
    eventually("the next is answered", || async {
        let asked = ask(CAPABLE, body_for(&user(1))).with("Connection: close");
        status(&last_words(&site, &asked.bytes()).await.0) == 200
    })
    .await;
}
