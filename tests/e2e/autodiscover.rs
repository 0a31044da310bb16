//! Where clients are told their mailbox is, and who is told nothing.

use crate::rig::{Puppet, in_time};
use crate::support::{
    Ask, TestSite, answer, basic, brisk, eventually, last_words, nobody_was_reached, start, status,
};
use mapigate::lab::outlook::wire::Answer;
use mapigate::lab::site::{DOMAIN, HOST, Plan, mailbox, user};
use mapigate::mapi::Flavour;

/// A client that reads the mapiHttp block, as Outlook since 2013 SP1.
const CAPABLE: &[&str] = &[
    "X-MapiHttpCapability: 1",
    "X-ClientCanHandle: Negotiate, ExHttpInfo",
];
/// One that does not, as Outlook 2010.
const INCAPABLE: &[&str] = &[];

const SCHEMA: &str =
    "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a";

fn body_for(address: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><Autodiscover xmlns=\"http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006\"><Request><EMailAddress>{address}</EMailAddress><AcceptableResponseSchema>{SCHEMA}</AcceptableResponseSchema></Request></Autodiscover>"
    )
}

/// A question of user 1.
fn ask(fields: &[&str], body: impl Into<Vec<u8>>) -> Ask {
    let mut ask = Ask::new(1, "")
        .line("POST /AutoDiscover/autodiscover.XML HTTP/1.1")
        .without("X-RequestType")
        .without("X-RequestId")
        .without("X-ClientInfo")
        .without("X-ClientApplication")
        .without("Content-Type")
        .with("Content-Type: text/xml")
        .with("User-Agent: Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0; Pro)")
        .body(body);
    for field in fields {
        ask = ask.with(*field);
    }
    ask
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body()).unwrap()
}

/// The kinds of the blocks of an answer, in order.
fn blocks(xml: &str) -> Vec<&str> {
    let found = xml.split("<Protocol").skip(1);
    found
        .filter_map(|block| {
            let attribute = block
                .strip_prefix(" Type=\"")
                .and_then(|rest| rest.split('"').next());
            attribute.or_else(|| block.strip_prefix("><Type>")?.split('<').next())
        })
        .collect()
}

async fn told(site: &TestSite, fields: &[&str]) -> String {
    let answer = answer(site, &ask(fields, body_for(&user(1)))).await;
    assert_eq!(answer.head.status, 200, "{}", text(&answer));
    assert_eq!(
        answer.head.header("cache-control"),
        Some("private, no-store")
    );
    assert_eq!(
        answer.head.header("content-type"),
        Some("text/xml; charset=utf-8")
    );
    for absent in ["set-cookie", "x-feserver", "server", "x-responsecode"] {
        assert_eq!(answer.head.header(absent), None, "{absent}");
    }
    text(&answer)
}

fn says_mapi_http(xml: &str) {
    assert_eq!(blocks(xml).first(), Some(&"mapiHttp"), "{xml}");
    assert!(!blocks(xml).contains(&"EXPR"), "{xml}");
    let url = format!(
        "<InternalUrl>https://{HOST}/mapi/emsmdb/?MailboxId={}</InternalUrl>",
        mailbox(1)
    );
    assert!(xml.contains(&url), "{url} not in {xml}");
    let url = format!(
        "<InternalUrl>https://{HOST}/mapi/nspi/?MailboxId={}</InternalUrl>",
        mailbox(1)
    );
    assert!(xml.contains(&url), "{url} not in {xml}");
}

fn says_outlook_anywhere(xml: &str) {
    assert!(
        !xml.contains("mapiHttp") && !xml.contains("/mapi/"),
        "{xml}"
    );
    let old: Vec<_> = blocks(xml)
        .into_iter()
        .filter(|kind| *kind != "EXHTTP")
        .collect();
    assert_eq!(old, ["EXCH", "EXPR"], "{xml}");
    assert!(
        xml.contains(&format!("<Type>EXPR</Type><Server>{HOST}</Server>")),
        "{xml}"
    );
}

/// Two servers, of which the second does not speak MAPI over HTTP.
fn mixed(flavour: Flavour, mode: &str) -> Plan {
    let mut plan = brisk(flavour).section("autodiscover", &format!("{{ mode: {mode} }}"));
    plan.servers[1].mapi_http = false;
    plan
}

async fn follows_the_active_copy(flavour: Flavour, mode: &str) {
    let mut site = start(mixed(flavour, mode)).await;

    says_mapi_http(&told(&site, CAPABLE).await);
    says_outlook_anywhere(&told(&site, INCAPABLE).await);

    site.move_database("MBX2").await.unwrap();
    says_outlook_anywhere(&told(&site, CAPABLE).await);
    says_outlook_anywhere(&told(&site, INCAPABLE).await);

    site.move_database("MBX1").await.unwrap();
    says_mapi_http(&told(&site, CAPABLE).await);
    let contents = site
        .gate()
        .unwrap()
        .admin()
        .get("/metrics")
        .await
        .unwrap()
        .text;
    for (what, count) in [("mapi_http", 2), ("outlook_anywhere", 3)] {
        let line = format!(
            "mapigate_autodiscover_requests_total{{dialect=\"pox\",told=\"{what}\"}} {count}"
        );
        assert!(contents.contains(&line), "{line}");
    }
}

#[tokio::test]
async fn the_answer_of_an_exchange_server_follows_header_and_active_copy() {
    follows_the_active_copy(Flavour::Exchange, "proxy").await;
}

#[tokio::test]
async fn the_answer_of_gromox_which_tells_everybody_everything_does_too() {
    follows_the_active_copy(Flavour::Gromox, "proxy").await;
}

#[tokio::test]
async fn our_own_answer_follows_header_and_active_copy() {
    follows_the_active_copy(Flavour::Exchange, "answer").await;
}

#[tokio::test]
async fn no_answer_names_a_mailbox_server_and_its_url_opens_the_mailbox() {
    for mode in ["proxy", "answer"] {
        let site = start(mixed(Flavour::Gromox, mode)).await;
        for fields in [
            CAPABLE,
            INCAPABLE,
            &["X-MapiHttpCapability: 2"],
            &["X-MapiHttpCapability: 0"],
        ] {
            let xml = told(&site, fields).await.to_lowercase();
            assert!(
                !xml.contains("mbx") && !xml.contains("127.0.0.1"),
                "{mode}: {xml}"
            );
        }
        let xml = told(&site, CAPABLE).await;
        let path = xml
            .split(&format!("https://{HOST}"))
            .nth(1)
            .unwrap()
            .split('<')
            .next()
            .unwrap();
        let connect = Ask::new(1, "Connect")
            .line(format!("POST {path} HTTP/1.1"))
            .body(crate::rig::body_of(mapigate::mapi::RequestType::Connect));
        assert_eq!(answer(&site, &connect).await.code(), Some(0), "{mode}");
    }
}

#[tokio::test]
async fn switches_of_organisation_and_mailbox_decide_and_the_outside_can_be_shut_out() {
    for mode in ["proxy", "answer"] {
        let settings = format!("{{ mode: {mode}, mapi_http: false }}");
        let site = start(brisk(Flavour::Exchange).section("autodiscover", &settings)).await;
        says_outlook_anywhere(&told(&site, CAPABLE).await);
        let file = site.folder().join("mailboxes.yaml");
        let mailboxes = std::fs::read_to_string(&file).unwrap();
        let switched = "display_name: User 1, mapi_http: true,";
        std::fs::write(
            &file,
            mailboxes.replacen("display_name: User 1,", switched, 1),
        )
        .unwrap();
        site.gate().unwrap().admin().reload().await.unwrap();
        says_mapi_http(&told(&site, CAPABLE).await);
    }

    let outside = "{ mode: answer, block_external: true, internal_networks: [10.0.0.0/8] }";
    let site = start(brisk(Flavour::Exchange).section("autodiscover", outside)).await;
    let names = format!("[{{ host: {HOST}, external_url: 'https://{HOST}/mapi' }}]");
    assert_eq!(
        blocks(&told(&site, &["X-MapiHttpCapability: 1"]).await),
        Vec::<&str>::new()
    );
    let inside = "{ mode: proxy, block_external: true, internal_networks: [127.0.0.0/8] }";
    let site = start(
        brisk(Flavour::Exchange)
            .section("autodiscover", inside)
            .section("names", &names),
    )
    .await;
    let xml = told(&site, CAPABLE).await;
    says_mapi_http(&xml);
    assert!(!xml.contains("ExternalUrl"), "{xml}");
}

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

fn soap_for(users: &[String]) -> String {
    let users: String = users
        .iter()
        .map(|user| format!("<a:User><a:Mailbox>{user}</a:Mailbox></a:User>"))
        .collect();
    format!(
        "<soap:Envelope xmlns:soap=\"http://schemas.xmlsoap.org/soap/envelope/\" xmlns:a=\"http://schemas.microsoft.com/exchange/2010/Autodiscover\"><soap:Body><a:GetUserSettingsRequestMessage><a:Request><a:Users>{users}</a:Users><a:RequestedSettings><a:Setting>InternalEwsUrl</a:Setting><a:Setting>MapiHttpEnabled</a:Setting><a:Setting>ExternalMailboxServer</a:Setting></a:RequestedSettings></a:Request></a:GetUserSettingsRequestMessage></soap:Body></soap:Envelope>"
    )
}

#[tokio::test]
async fn soap_is_answered_in_both_modes_and_follows_the_active_copy() {
    for mode in ["proxy", "answer"] {
        let settings = format!("{{ mode: {mode}, ews_url: 'https://{HOST}/EWS/Exchange.asmx' }}");
        let mut plan = mixed(Flavour::Exchange, mode).section("autodiscover", &settings);
        plan.users = 3;
        let mut site = start(plan).await;
        let soap = |users: &[String]| {
            ask(&[], soap_for(users)).line("POST /autodiscover/Autodiscover.svc HTTP/1.1")
        };
        let enabled = "<Name>MapiHttpEnabled</Name><Value>True</Value>";

        let both = text(&answer(&site, &soap(&[user(1), user(2)])).await);
        assert_eq!(both.matches(enabled).count(), 2, "{mode}: {both}");
        assert_eq!(
            both.matches(&format!("<Value>https://{HOST}/EWS/Exchange.asmx</Value>"))
                .count(),
            2,
            "{mode}: {both}"
        );
        assert!(!both.to_lowercase().contains("mbx"), "{both}");
        let stranger = text(&answer(&site, &soap(&[format!("nobody@{DOMAIN}")])).await);
        assert!(
            stranger.contains("<ErrorCode>InvalidUser</ErrorCode>"),
            "{stranger}"
        );
        let fault = answer(
            &site,
            &ask(&[], "<x/>").line("POST /autodiscover/autodiscover.svc HTTP/1.1"),
        )
        .await;
        assert!(fault.head.status == 500 && text(&fault).contains("<faultcode>"));

        site.move_database("MBX2").await.unwrap();
        let moved = text(&answer(&site, &soap(&[user(1)])).await);
        assert!(
            moved.contains("<Name>MapiHttpEnabled</Name><Value>False</Value>"),
            "{mode}: {moved}"
        );
    }
}

#[tokio::test]
async fn v2_json_tells_anybody_the_same_and_asks_nobody() {
    let site = start(brisk(Flavour::Exchange)).await;
    let get = |target: &str| {
        let ask = ask(&[], Vec::new())
            .without("Authorization")
            .without("Content-Type");
        ask.line(format!("GET {target} HTTP/1.1"))
    };
    let mut seen = Vec::new();
    for target in [
        format!(
            "/autodiscover/autodiscover.json?Email={}&Protocol=AutodiscoverV1&RedirectCount=1",
            user(1)
        ),
        format!("/Autodiscover/Autodiscover.json?Protocol=autodiscoverv1&Email=nobody%40{DOMAIN}"),
        format!(
            "/autodiscover/autodiscover.json/v1.0/{}?Protocol=AutodiscoverV1",
            user(1)
        ),
    ] {
        let answer = answer(&site, &get(&target)).await;
        assert_eq!(answer.head.status, 200, "{target}");
        seen.push(text(&answer));
    }
    let expected = format!(
        "{{\"Protocol\":\"AutodiscoverV1\",\"Url\":\"https://{HOST}/autodiscover/autodiscover.xml\"}}"
    );
    assert!(seen.iter().all(|text| *text == expected), "{seen:?}");
    let mapi = answer(
        &site,
        &get("/autodiscover/autodiscover.json?Email=a@b&Protocol=mapiHttp"),
    )
    .await;
    assert_eq!(mapi.head.status, 400);
    assert!(text(&mapi).contains("ProtocolNotSupported"));
    nobody_was_reached(&site).await;
}

#[tokio::test]
async fn mailboxes_of_other_domains_are_sent_to_their_own_autodiscover() {
    let there = "https://autodiscover.fabrikam.test/autodiscover/autodiscover.xml";
    for mode in ["proxy", "answer"] {
        let settings = format!("{{ mode: {mode}, redirects: {{ fabrikam.test: '{there}' }} }}");
        let site = start(brisk(Flavour::Exchange).section("autodiscover", &settings)).await;
        let answer = answer(&site, &ask(CAPABLE, body_for("anybody@fabrikam.test"))).await;
        assert!(text(&answer).contains(&format!(
            "<Action>redirectUrl</Action><RedirectUrl>{there}</RedirectUrl>"
        )));
        nobody_was_reached(&site).await;
    }
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
async fn the_access_log_tells_of_it() {
    let site = start(brisk(Flavour::Exchange)).await;
    let mut line = crate::support::line(&site.target().unwrap()).await;
    for _ in 0..2 {
        let asked = ask(CAPABLE, body_for(&user(1)));
        in_time("an answer", line.ask(&asked.bytes()))
            .await
            .unwrap();
    }

    eventually("two lines", || async {
        site.access_lines().unwrap().len() == 2
    })
    .await;
    // What a client sends with the end of its handshake counts as handshake: the second line has it all.
    let line = site.access_lines().unwrap().remove(1);
    for (field, value) in [
        ("endpoint", "autodiscover"),
        ("type", "pox"),
        ("server", "MBX1"),
        ("ending", "ok"),
        ("user", &user(1)),
    ] {
        assert_eq!(line[field], value, "{line}");
    }
    for (field, least) in [
        ("server_out", 400),
        ("server_in", 400),
        ("body_in", 300),
        ("body_out", 300),
    ] {
        assert!(line[field].as_u64().unwrap() > least, "{field}: {line}");
    }
}

#[tokio::test]
async fn the_address_book_names_the_front_door_and_not_its_server() {
    use mapigate::mapi::bodies::nspi::{BindRequest, UrlRequest, UrlSuccess};
    use mapigate::mapi::bodies::{Answer as Success, Body as _, wide};
    for flavour in [Flavour::Exchange, Flavour::Gromox] {
        let site = start(brisk(flavour)).await;
        let mut line = crate::support::line(&site.target().unwrap()).await;
        let mut cookies: Vec<(String, String)> = Vec::new();
        let url = UrlRequest {
            dn: wide("/o=Contoso/cn=MBX1"),
            ..UrlRequest::default()
        };
        for (kind, body, path) in [
            ("Bind", BindRequest::default().encode(), ""),
            ("GetMailboxUrl", url.encode(), "/mapi/emsmdb/"),
            ("GetAddressBookUrl", url.encode(), "/mapi/nspi/"),
        ] {
            let pairs: Vec<_> = cookies
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            let mut asked = Ask::new(1, kind)
                .line(format!(
                    "POST /mapi/nspi/?MailboxId={} HTTP/1.1",
                    mailbox(1)
                ))
                .body(body);
            if !pairs.is_empty() {
                asked = asked.with(format!("Cookie: {}", pairs.join("; ")));
            }

            let answer = in_time("an answer", line.ask(&asked.bytes()))
                .await
                .unwrap();

            assert_eq!(answer.code(), Some(0), "{kind}");
            for cookie in answer.head.all("set-cookie") {
                let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
                cookies.retain(|(known, _)| known != name);
                cookies.push((name.to_owned(), value.to_owned()));
            }
            if path.is_empty() {
                continue;
            }
            let tagged = answer.tagged().unwrap();
            let Success::Success(found) = Success::<UrlSuccess>::decode(&tagged.body).unwrap()
            else {
                panic!("{kind} failed");
            };
            let expected = format!("https://{HOST}{path}?MailboxId={}", mailbox(1));
            assert_eq!(found.url.to_string(), expected);
        }
    }
}
