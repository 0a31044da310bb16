//! Broken set-ups, each red with its reason.

use super::meddler::{Meddling, meddler, value};
use super::{at, der, fails, finding, of, report};
use crate::support::{TestSite, brisk, eventually, start};
use mapigate::config::settings::Secret;
use mapigate::lab::authority::{Authority, Validity, server_config};
use mapigate::lab::mailbox_server::{MailboxServer, Options, Users};
use mapigate::lab::site::{DOMAIN, HOST, legacy_dn, mailbox};
use mapigate::mapi::Flavour;
use mapigate::probe::{Credential, Known, Probe, Step, Verdict};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[tokio::test]
async fn a_wrong_password_is_told_once_and_nothing_is_tried_with_it_again() {
    let site = start(brisk(Flavour::Exchange)).await;
    let probe = Probe {
        credential: Credential::Password(Secret::new("wrong".to_owned())),
        ..of(&site)
    };

    let report = report(&probe).await;

    fails(
        &report,
        Step::Authentication,
        "Basic of user1@contoso.test is accepted",
        "HTTP 401",
        "mapigate auth test",
    );
    let metrics = site.gate().unwrap().admin();
    let denied = metrics
        .metric("mapigate_auth_total{outcome=\"denied\",scheme=\"basic\"}")
        .await;
    assert!(
        (denied.unwrap() - 1.0).abs() < 0.5,
        "one try, towards a lockout"
    );
}

/// A server with this certificate, by itself.
async fn with_certificate(
    authority: &Authority,
    names: &[&str],
    validity: Validity,
) -> (MailboxServer, Probe) {
    let credential = authority.server_valid(names, validity).unwrap();
    let mut options = Options::new("MBX1", Flavour::Exchange);
    options.tls = Some(server_config(&credential, None).unwrap());
    let server = MailboxServer::spawn(options).await.unwrap();
    let probe = Probe {
        authorities: Some(vec![der(authority)]),
        ..at(&format!("https://{HOST}"), server.address())
    };
    (server, probe)
}

#[tokio::test]
async fn certificates_are_told_by_what_is_wrong_with_them() {
    let authority = Authority::new("site").unwrap();

    let (_server, probe) = with_certificate(&authority, &[HOST], Validity::EXPIRED).await;
    let expired = report(&probe).await;
    fails(
        &expired,
        Step::Tls,
        "good today",
        "which expired on 20",
        "renew it",
    );

    let (_server, probe) =
        with_certificate(&authority, &["other.contoso.test"], Validity::NOW).await;
    let unnamed = report(&probe).await;
    fails(
        &unnamed,
        Step::Tls,
        "a certificate for mail.contoso.test",
        "for other.contoso.test, 127.0.0.1, signed by site",
        "put into the certificate",
    );

    let (_server, probe) = with_certificate(&authority, &[HOST], Validity::NOW).await;
    let another = Authority::new("another").unwrap();
    let probe = Probe {
        authorities: Some(vec![der(&another)]),
        ..probe
    };
    let untrusted = report(&probe).await;
    fails(
        &untrusted,
        Step::Tls,
        "an authority that is trusted here",
        "signed by site",
        "--ca",
    );

    let (server, _probe) = with_certificate(&authority, &[HOST], Validity::NOW).await;
    let plain = report(&at(&format!("http://{HOST}"), server.address())).await;
    assert!(!plain.is_good, "HTTP to a port of TLS");
}

#[tokio::test]
async fn a_name_without_an_address_and_a_port_without_a_listener_are_told_apart() {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let probe = at(&format!("https://{HOST}"), nowhere);
    let refused = report(&probe).await;
    fails(
        &refused,
        Step::Tls,
        "a connection to 127.0.0.1:1",
        "refused",
        "something listens there",
    );

    let probe = Probe {
        place: "https://mail.invalid".parse().unwrap(),
        detours: Vec::new(),
        ..probe
    };
    let unknown = report(&probe).await;
    fails(
        &unknown,
        Step::Dns,
        "an address of mail.invalid",
        "",
        "--resolve mail.invalid=",
    );

    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let probe = at("https://mail.contoso.test", other.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut client, _) = other.accept().await.unwrap();
        client
            .write_all(b"220 mail.contoso.test ESMTP\r\n")
            .await
            .unwrap();
        client.read_to_end(&mut Vec::new()).await.unwrap();
    });
    let no_tls = report(&probe).await;
    fails(
        &no_tls,
        Step::Tls,
        "a TLS handshake",
        "not TLS",
        "plain HTTP, or another protocol",
    );
}

#[tokio::test]
async fn autodiscover_that_is_off_or_knows_no_such_address_is_told() {
    let site = start(brisk(Flavour::Exchange).section("autodiscover", "{ mode: off }")).await;
    let off = report(&of(&site)).await;
    fails(
        &off,
        Step::Autodiscover,
        "settings of user1@contoso.test",
        "HTTP 404",
        "autodiscover.mode",
    );
    let connect = finding(&off, Step::Connect);
    assert_eq!(
        (connect.verdict, connect.words.as_str()),
        (Verdict::NotRun, "needs autodiscover")
    );
    assert_eq!(finding(&off, Step::Logon).words, "needs connect");

    let site = start(brisk(Flavour::Exchange)).await;
    let probe = Probe {
        address: format!("nobody@{DOMAIN}"),
        ..of(&site)
    };
    let unknown = report(&probe).await;
    fails(
        &unknown,
        Step::Autodiscover,
        "settings of nobody@",
        "error 500",
        "in no directory",
    );
}

#[tokio::test]
async fn mapi_that_is_switched_off_is_told() {
    let plan = brisk(Flavour::Exchange).section("autodiscover", "{ mapi_http: false }");
    let site = start(plan).await;
    let switched_off = report(&of(&site)).await;
    fails(
        &switched_off,
        Step::Autodiscover,
        "X-MapiHttpCapability: 1",
        "Outlook Anywhere at mail.contoso.test alone",
        "switched off for the organisation",
    );

    // A client that goes on all the same, as one with an old profile does.
    let site = start(brisk(Flavour::Exchange).each(|server| server.mapi_http = false)).await;
    let probe = knowing(&site, 1);
    let withheld = report(&probe).await;
    assert_eq!(
        finding(&withheld, Step::Autodiscover).verdict,
        Verdict::Failed
    );
    let connect = finding(&withheld, Step::Connect).trouble.as_ref().unwrap();
    assert!(connect.came.contains("X-ResponseCode 16"), "{connect:?}");
    assert!(
        connect.next.contains("MAPI over HTTP is switched off"),
        "{connect:?}"
    );
}

/// A probe that knows the mailbox of user `number` beforehand.
fn knowing(site: &TestSite, number: usize) -> Probe {
    let probe = of(site);
    Probe {
        mailbox: Some(Known::at(
            &probe.place,
            &mailbox(number),
            &legacy_dn(number),
        )),
        ..probe
    }
}

#[tokio::test]
async fn a_server_that_is_down_is_told_by_the_503_and_its_words() {
    let mut site =
        start(brisk(Flavour::Exchange).section("autodiscover", "{ mode: answer }")).await;
    site.kill_server("MBX1").await.unwrap();
    let admin = site.gate().unwrap().admin();
    eventually("the server counts as down", || async move {
        admin
            .metric("mapigate_backend_up{server=\"MBX1\"}")
            .await
            .is_ok_and(|up| up < 0.5)
    })
    .await;

    let down = report(&of(&site)).await;

    fails(
        &down,
        Step::Connect,
        "Connect with HTTP 200",
        "HTTP 503, text/html: \"The mailbox is not available at the moment.",
        "the server of the active copy is down",
    );
    assert_eq!(finding(&down, Step::Autodiscover).verdict, Verdict::Ok);
}

#[tokio::test]
async fn a_mailbox_in_no_directory_is_told() {
    let site = start(brisk(Flavour::Exchange)).await;

    let unknown = report(&knowing(&site, 999)).await;

    fails(
        &unknown,
        Step::Connect,
        "Connect with HTTP 200",
        "\"There is no such mailbox here.",
        "mapigate explain",
    );
}

#[tokio::test]
async fn a_server_that_holds_no_active_copy_is_told() {
    let site = start(brisk(Flavour::Exchange).each(|server| server.strict_databases = true)).await;
    // The map says MBX1; the site has activated another copy and told nobody.
    site.server("MBX1").unwrap().set_active("DB07", false);

    let passive = report(&of(&site)).await;

    fails(
        &passive,
        Step::Connect,
        "Connect",
        "X-ResponseCode 10",
        "a database that moved",
    );
}

#[tokio::test]
async fn a_refused_logon_and_a_missing_address_book_are_told() {
    let site =
        start(brisk(Flavour::Exchange).each(|server| server.refuses_logon = Some(0x8007_0005)))
            .await;
    let denied = report(&of(&site)).await;
    fails(
        &denied,
        Step::Logon,
        "a logon to the mailbox",
        "0x80070005: access denied",
        "may not open this mailbox",
    );
    // The session is closed all the same, and the address book is no worse for it.
    assert_eq!(finding(&denied, Step::Disconnect).verdict, Verdict::Ok);
    assert_eq!(finding(&denied, Step::Resolve).verdict, Verdict::Ok);

    let site = start(brisk(Flavour::Exchange).each(|server| server.address_book = false)).await;
    let no_book = report(&of(&site)).await;
    fails(
        &no_book,
        Step::Bind,
        "Bind with HTTP 200",
        "HTTP 404",
        "does not know the path",
    );
    assert_eq!(finding(&no_book, Step::Logon).verdict, Verdict::Ok);
}

/// A site without TLS, and a probe through a proxy that meddles.
async fn behind(meddling: Meddling) -> (TestSite, Probe) {
    let site = start(brisk(Flavour::Exchange).section(
        "listeners",
        "[{ address: '127.0.0.1:0', plain_http: true }]",
    ))
    .await;
    let proxy = meddler(site.gate().unwrap().address(), meddling).await;
    let probe = Probe {
        mailbox: Some(Known::at(
            &format!("http://{HOST}").parse().unwrap(),
            &mailbox(1),
            &legacy_dn(1),
        )),
        // What Autodiscover says would lead past the proxy.
        follows: false,
        ..at(&format!("http://{HOST}"), proxy)
    };
    (site, probe)
}

#[tokio::test]
async fn a_proxy_that_strips_cookies_either_way_is_told() {
    let (_site, probe) = behind((
        |_| {},
        |_, answer| {
            answer
                .head
                .headers
                .retain(|(name, _)| !name.eq_ignore_ascii_case("set-cookie"));
        },
    ))
    .await;
    let no_set_cookie = report(&probe).await;
    fails(
        &no_set_cookie,
        Step::Connect,
        "Set-Cookie",
        "without any cookie",
        "strips Set-Cookie",
    );

    let (_site, probe) = behind((
        |lines| lines.retain(|line| !line.starts_with("Cookie:")),
        |_, _| {},
    ))
    .await;
    let no_cookie = report(&probe).await;
    fails(
        &no_cookie,
        Step::Logon,
        "Execute",
        "X-ResponseCode 13",
        "strips Cookie headers",
    );
}

#[tokio::test]
async fn a_page_in_place_of_mapi_is_told() {
    let (_site, probe) = behind((
        |_| {},
        |lines, answer| {
            if matches!(value(lines, "x-requesttype"), Some("Connect")) {
                answer
                    .head
                    .headers
                    .retain(|(name, _)| name.eq_ignore_ascii_case("date"));
                answer
                    .head
                    .headers
                    .push(("Content-Type".to_owned(), "text/html".to_owned()));
                answer.pieces =
                    vec![b"<html><title>Intranet</title><body>Welcome</body></html>".to_vec()];
            }
        },
    ))
    .await;

    let page = report(&probe).await;

    fails(
        &page,
        Step::Connect,
        "X-ResponseCode 0",
        "HTTP 200, text/html: \"Intranet Welcome\", and no X-ResponseCode",
        "does not speak MAPI over HTTP",
    );
}

#[tokio::test]
async fn a_proxy_that_keeps_a_held_answer_back_is_told() {
    let (_site, probe) = behind((|_| {}, |_, _| {})).await;

    let buffered = report(&probe).await;

    fails(
        &buffered,
        Step::Wait,
        "PROCESSING at once",
        "not even a head within",
        "response buffering",
    );
}

#[tokio::test]
async fn a_proxy_that_writes_challenges_in_small_letters_is_warned_of() {
    let (_site, probe) = behind((
        |_| {},
        |_, answer| {
            for (name, _) in &mut answer.head.headers {
                *name = name.to_ascii_lowercase();
            }
        },
    ))
    .await;
    let probe = Probe {
        steps: Step::with_needs([Step::Authentication]),
        ..probe
    };

    let small = report(&probe).await;

    let authentication = finding(&small, Step::Authentication);
    assert_eq!(authentication.verdict, Verdict::Warning);
    assert!(
        authentication
            .trouble
            .as_ref()
            .unwrap()
            .next
            .contains("small letters")
    );
    assert!(small.is_good, "it works, mostly");
}

#[tokio::test]
async fn a_server_that_never_answers_costs_a_step_its_timeout_and_no_more() {
    let options = Options {
        users: Users::Any,
        ..Options::new("MBX1", Flavour::Exchange)
    };
    let server = MailboxServer::spawn(options).await.unwrap();
    server.freeze(true);
    let probe = Probe {
        timeout: Duration::from_millis(300),
        ..at("http://mbx1.contoso.test", server.address())
    };

    let silent = report(&probe).await;

    fails(
        &silent,
        Step::Authentication,
        "an answer within 300ms",
        "none",
        "what is slow",
    );
    assert!(silent.milliseconds < 2000.0);
}

#[tokio::test]
async fn a_scheme_that_is_not_offered_is_told_before_anything_is_shown() {
    let site = start(brisk(Flavour::Exchange)).await;
    let probe = Probe {
        credential: Credential::Token(Secret::new("token".to_owned())),
        ..of(&site)
    };

    let unoffered = report(&probe).await;

    fails(
        &unoffered,
        Step::Authentication,
        "Bearer among the challenges",
        "offers Basic",
        "names[].authentication",
    );
    assert!(
        !unoffered
            .findings
            .iter()
            .any(|finding| finding.words.contains("token\""))
    );
}
