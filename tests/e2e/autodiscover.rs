//! Where clients are told their mailbox is.

mod refused;
mod service;

use crate::rig::in_time;
use crate::support::{Ask, TestSite, answer, brisk, eventually, nobody_was_reached, start};
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

#[tokio::test]
async fn urls_are_those_of_the_name_of_the_server_of_the_active_copy() {
    for mode in ["proxy", "answer"] {
        let names = "[{ host: mail.contoso.test }, { host: mail.mbx1.contoso.test }, { host: mail.mbx2.contoso.test }]";
        let mut plan = brisk(Flavour::Exchange)
            .section("autodiscover", &format!("{{ mode: {mode} }}"))
            .section("names", names);
        plan.more_names = ["mail.mbx1.contoso.test", "mail.mbx2.contoso.test"]
            .map(str::to_owned)
            .into();
        plan.server_keys = "url_name: mail.{server}.contoso.test".to_owned();
        let mut site = start(plan).await;
        let url =
            |server: &str| format!("<InternalUrl>https://mail.{server}.contoso.test/mapi/emsmdb/");

        let before = told(&site, CAPABLE).await;
        assert!(before.contains(&url("mbx1")), "{mode}: {before}");

        site.move_database("MBX2").await.unwrap();

        let after = told(&site, CAPABLE).await;
        assert!(
            after.contains(&url("mbx2")) && !after.contains("mbx1"),
            "{mode}: {after}"
        );
    }
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
