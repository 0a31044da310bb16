//! What front ends of Exchange were talked into, on every directory; and each guard taken away, to see that
//! it is the one that stands between.

use super::{start_planned, two_homes};
use crate::support::{Raw, TestSite, credentials, status};
use mapigate::lab::site::{HOST, Plan};

/// The directories, each with a method it takes.
const DIRECTORIES: [(&str, &str); 7] = [
    ("/ews", "POST"),
    ("/owa", "POST"),
    ("/ecp", "POST"),
    ("/oab", "GET"),
    ("/Microsoft-Server-ActiveSync", "POST"),
    ("/powershell", "POST"),
    ("/api", "POST"),
];

/// Everything is open, to clients inside, and nobody asks for health pages.
fn open() -> Plan {
    let paths = DIRECTORIES
        .map(|(path, _)| format!("{{ path: {path}, from: everywhere, health_page: off }}"));
    two_homes(&format!(
        "{{ preset: exchange2019, paths: [{}] }}",
        paths.join(", ")
    ))
}

async fn standing() -> TestSite {
    start_planned(open()).await
}

/// The same without one of the guards.
async fn without(guard: &str) -> TestSite {
    let mut plan = open();
    plan.environment
        .push(("MAPIGATE_TEST_WITHOUT".to_owned(), guard.to_owned()));
    start_planned(plan).await
}

/// The same where clients may come by HTTP/2.
fn by_http2(plan: Plan) -> Plan {
    plan.section("names", crate::http2::NAMES)
}

async fn standing_by_http2() -> TestSite {
    start_planned(by_http2(open())).await
}

async fn without_by_http2(guard: &str) -> TestSite {
    let mut plan = by_http2(open());
    plan.environment
        .push(("MAPIGATE_TEST_WITHOUT".to_owned(), guard.to_owned()));
    start_planned(plan).await
}

/// A request of user 1, who lives on MBX1, by hand: nothing between the test and the wire. By HTTP/2 where the site
/// offers it.
async fn ask(site: &TestSite, method: &str, target: &str, fields: &[&str]) -> String {
    if site.plan().sections.contains_key("names") {
        return crate::http2::ask_by_hand(site, method, target, fields).await;
    }
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n");
    if !fields
        .iter()
        .any(|field| field.starts_with("Authorization"))
    {
        head.push_str(&format!("Authorization: {}\r\n", credentials(1)));
    }
    for field in fields.iter().filter(|field| **field != "Authorization") {
        head.push_str(field);
        head.push_str("\r\n");
    }
    head.push_str("Content-Length: 0\r\nConnection: close\r\n\r\n");
    let mut raw = Raw::open(site).await;
    raw.send(head.as_bytes()).await;
    raw.rest().await.0
}

/// What the servers got, less health checks.
fn reached(site: &TestSite) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for server in site.servers() {
        let heads = server.heads().into_iter();
        let texts = heads.map(|head| String::from_utf8_lossy(&head).into_owned());
        all.extend(texts.map(|text| (server.name().to_string(), text)));
    }
    all
}

/// Fields by which a front end speaks, in spellings that some server reads. The word is in each value.
const CLAIMS: [&str; 24] = [
    "X-CommonAccessToken: evil",
    "x-commonaccesstoken: evil",
    "X_CommonAccessToken: evil",
    "X-Rps-CAT: evil",
    "X-Rps-Anything: evil",
    "X-WLID-MemberName: evil",
    "X-WLID_MemberName: evil",
    "X-IsFromCafe: evil",
    "X-IsFromBackend: evil",
    "X-SourceCafeServer: evil",
    "X-BEResource: evil",
    "X-AnonResource: evil",
    "X-AnonResource-Backend: evil",
    "X-BackEndCookie: evil",
    "X-BEServer: evil",
    "X-TargetServer: evil",
    "X-ProxyTargetServer: evil",
    "X-Original-URL: /powershell/evil",
    "X-Rewrite-URL: /powershell/evil",
    "X-HTTP-Method-Override: evil",
    "msExchProxyUri: evil",
    "msExchLogonAccount: evil",
    "X-MSExchange-Impersonation: evil",
    "X-Forwarded-For: evil",
];

/// X7: nobody speaks for us. X2: nor does it change where a request goes.
async fn claims_that_pass(site: &TestSite) -> usize {
    for (path, method) in DIRECTORIES {
        for claim in CLAIMS {
            let text = ask(site, method, &format!("{path}/x"), &[claim, claim]).await;
            assert_eq!(status(&text), 200, "{path} {claim}: {text}");
            assert!(
                text.contains("server=MBX1 user=user1@"),
                "{path} {claim}: {text}"
            );
        }
        // To nominate a field would be to have it dropped, ours too.
        for named in [
            "X-Forwarded-For",
            "Authorization",
            "Cookie",
            "Host",
            "Content-Length",
        ] {
            let nomination = format!("Connection: {named}");
            let text = ask(site, method, &format!("{path}/x"), &[&nomination]).await;
            assert_eq!(status(&text), 400, "{path} {nomination}");
        }
    }
    let passed = reached(site).into_iter();
    passed.filter(|(_, head)| head.contains("evil")).count()
}

#[tokio::test]
async fn x2_x7_claims_of_clients_stay_here_on_every_directory() {
    let site = standing().await;
    assert_eq!(claims_that_pass(&site).await, 0);
    assert!(reached(&site).len() >= 7 * 24);
    assert!(reached(&site).iter().all(|(server, _)| server == "MBX1"));
}

#[tokio::test]
async fn x7_without_its_guard_they_pass_on_every_directory() {
    let site = without("claims").await;
    assert!(claims_that_pass(&site).await >= 7 * 20);
}

/// Cookies with which a front end was led to another server.
async fn cookies_that_pass(site: &TestSite) -> usize {
    for (path, method) in DIRECTORIES {
        for name in [
            "X-BEResource",
            "x-beresource",
            "X-AnonResource",
            "X-AnonResource-Backend",
            "X-BackEndCookie",
            "X-BackEndOverrideCookie",
            "SecurityToken",
        ] {
            let value = "evil/autodiscover/autodiscover.xml?a=~1942062522";
            let cookie = format!("Cookie: a=b; {name} ={value}; c=d");
            let text = ask(site, method, &format!("{path}/x"), &[&cookie]).await;
            assert!(
                text.contains("server=MBX1 user=user1@"),
                "{path} {name}: {text}"
            );
        }
    }
    let passed = reached(site).into_iter();
    passed.filter(|(_, head)| head.contains("evil")).count()
}

#[tokio::test]
async fn x1_x2_no_cookie_of_a_client_chooses_a_server_on_any_directory() {
    let site = standing().await;
    assert_eq!(cookies_that_pass(&site).await, 0);
    let heads = reached(&site);
    assert!(
        heads
            .iter()
            .all(|(server, head)| server == "MBX1" && head.contains("Cookie: a=b; c=d\r\n"))
    );
}

#[tokio::test]
async fn x2_without_its_guard_such_cookies_pass_on_every_directory() {
    let site = without("cookies").await;
    assert_eq!(cookies_that_pass(&site).await, 7 * 7);
}

/// X3: who lives elsewhere is named in every place there is.
async fn elsewhere(site: &TestSite) -> usize {
    let mut count = 0;
    for (path, method) in DIRECTORIES {
        for (target, field) in [
            (format!("{path}/x"), "X-AnchorMailbox: user3@contoso.test"),
            (format!("{path}/x"), "X-User-Identity: user3@contoso.test"),
            (
                format!("{path}/x"),
                "Cookie: MapigateRoute=user3@contoso.test; Email=user3@contoso.test",
            ),
            (
                format!("{path}/x?MailboxId=00000000-0000-4000-8000-000000000003@contoso.test"),
                "X: y",
            ),
            (format!("{path}/x?Email=user3%40contoso.test"), "X: y"),
            (format!("{path}/x"), "X-PreferServerAffinity: true"),
        ] {
            let text = ask(site, method, &target, &[field]).await;
            assert_eq!(status(&text), 200, "{target} {field}: {text}");
            assert!(text.contains("user=user1@"), "{target} {field}: {text}");
            count += usize::from(text.contains("server=MBX2"));
        }
    }
    count
}

#[tokio::test]
async fn x3_what_names_another_mailbox_leads_nowhere_unless_the_site_says_so() {
    assert_eq!(elsewhere(&standing().await).await, 0);
}

#[tokio::test]
async fn x3_without_its_guard_a_header_leads_there_on_every_directory() {
    assert_eq!(elsewhere(&without("anchors").await).await, 7);
}

/// Targets that two readers read in two ways, and what led Exchange's front end astray.
fn tricks(path: &str) -> Vec<String> {
    let tails = [
        "/../powershell/",
        "/..;/powershell/",
        "/;/x",
        "/x;jsessionid=1",
        "/%2e%2e/powershell/",
        "/%2E%2E%2Fpowershell/",
        "/x%2f..%2fpowershell",
        "/x%5c..%5cpowershell",
        "/x%252f..",
        "/x\\..\\powershell",
        "//powershell/",
        "/x//y",
        "/./x",
        "/x%00.js",
        "/x%0d%0aX-Evil:%201",
        "/(S(abcdefghijklmnopqrstuvwx))/x",
        "/x./y",
        "/x%20/y",
        "/x::$DATA",
        "/powers~1/x",
        "/%c0%ae%c0%ae/x",
        "/x%ef%bc%8fy",
        "/@evil.test/x",
        "/x/user3@contoso.test",
        "/autodiscover.json@evil.test/x",
        "/%70owershell/",
        "/x?@evil.test/mapi/nspi/?&Email=autodiscover/autodiscover.json%3F@evil.test",
        "/x?X-Rps-CAT=VgEA",
        "/x?x%2Drps%2Dcat=VgEA",
        "/x?X_Rps_CAT=VgEA",
        "/x?a=%0d%0aX-Evil:1%00",
    ];
    tails.map(|tail| format!("{path}{tail}")).to_vec()
}

async fn tricks_that_pass(site: &TestSite) -> usize {
    let mut count = 0;
    for (path, method) in DIRECTORIES {
        for target in tricks(path) {
            let text = ask(site, method, &target, &[]).await;
            let told = status(&text);
            assert!([200, 400, 404].contains(&told), "{target}: {text}");
            count += usize::from(told == 200);
        }
    }
    count
}

/// What is no path of ours alone reaches nobody.
async fn no_other_form_is_passed_on(site: &TestSite) {
    for target in [
        "https://evil.test/ews/x",
        "http://mail.contoso.test@evil.test/ews/x",
        "*",
        "ews/x",
        "//evil.test/ews/x",
    ] {
        let told = status(&ask(site, "POST", target, &[]).await);
        assert!([400, 404].contains(&told), "{target}: {told}");
    }
    assert_eq!(reached(site), Vec::<(String, String)>::new());
}

#[tokio::test]
async fn x4_a_path_that_reads_in_two_ways_is_not_passed_on_by_any_directory() {
    let site = standing().await;
    assert_eq!(tricks_that_pass(&site).await, 0);
    no_other_form_is_passed_on(&site).await;
}

#[tokio::test]
async fn x4_without_its_guard_such_paths_are_passed_on_by_every_directory() {
    let site = without("paths").await;
    let all: usize = DIRECTORIES.map(|(path, _)| tricks(path).len()).iter().sum();
    assert!(tricks_that_pass(&site).await > all * 2 / 3);
}

/// X5, X6: strangers with everything that was ever taken for a logon.
async fn strangers_that_pass(site: &TestSite) -> usize {
    for (path, method) in DIRECTORIES {
        for (tail, field) in [
            ("/x", "X: y"),
            ("/x", "Cookie: SecurityToken=x"),
            (
                "/x",
                "Cookie: cadata=x; cadataKey=y; X-BEResource=localhost~1942062522",
            ),
            ("/x.js", "X: y"),
            ("/themes/x.css", "X: y"),
            ("/auth/x.gif", "X: y"),
            ("/x.aspx", "X-CommonAccessToken: x"),
            ("/auth.owa", "X-Forwarded-For: 127.0.0.1"),
            ("/x", "X-Remote-User: user1@contoso.test"),
            ("/x", "Authorization: Basic"),
            ("/x", "Authorization: Bearer eyJhbGciOiJub25lIn0.e30."),
            ("/x/healthcheck.htm", "X: y"),
        ] {
            let fields = [field, "Authorization"];
            let text = ask(site, method, &format!("{path}{tail}"), &fields).await;
            assert_eq!(status(&text), 401, "{path}{tail} {field}: {text}");
        }
    }
    reached(site).len()
}

#[tokio::test]
async fn x5_x6_strangers_reach_no_server_on_any_directory() {
    let site = standing().await;
    assert_eq!(strangers_that_pass(&site).await, 0);
    for (path, _) in DIRECTORIES {
        let text = ask(
            &site,
            "GET",
            &format!("{path}/healthcheck.htm"),
            &["Authorization"],
        )
        .await;
        assert_eq!(status(&text), 200, "{path}: {text}");
    }
    assert_eq!(
        reached(&site),
        Vec::<(String, String)>::new(),
        "the page is ours"
    );
}

#[tokio::test]
async fn x5_without_its_guard_they_reach_a_server_on_every_directory() {
    assert_eq!(strangers_that_pass(&without("logon").await).await, 7 * 12);
}

/// X8: what answers tell of the inside.
async fn answers_that_tell(site: &TestSite) -> usize {
    let mut count = 0;
    for (path, method) in DIRECTORIES {
        let text = ask(site, method, &format!("{path}/x"), &[]).await;
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        count += usize::from(head.contains("X-BackEndCookie"));
        count += usize::from(head.contains("X-CalculatedBETarget"));
        count += usize::from(head.to_lowercase().contains("mbx1"));
    }
    count
}

#[tokio::test]
async fn x8_answers_of_every_directory_tell_nothing_of_the_inside() {
    assert_eq!(answers_that_tell(&standing().await).await, 0);
}

#[tokio::test]
async fn x8_without_its_guard_they_do_on_every_directory() {
    assert_eq!(answers_that_tell(&without("answers").await).await, 7 * 3);
}

/// X10, and who may come from where: directories for the administrators, asked from outside.
async fn from_outside(guard: Option<&str>, also: fn(Plan) -> Plan) -> usize {
    let mut plan = also(two_homes("{ preset: exchange2019 }"));
    if let Some(guard) = guard {
        let variable = "MAPIGATE_TEST_WITHOUT".to_owned();
        plan.environment.push((variable, guard.to_owned()));
    }
    let plan = plan.section("autodiscover", "{ internal_networks: [10.0.0.0/8] }");
    let site = start_planned(plan).await;
    let mut count = 0;
    for path in ["/ecp/x", "/powershell/x"] {
        for field in [
            "X: y",
            "X-Forwarded-For: 10.0.0.1",
            "X-Real-IP: 10.0.0.1",
            "Forwarded: for=10.0.0.1",
        ] {
            let told = status(&ask(&site, "POST", path, &[field]).await);
            assert!([200, 404].contains(&told), "{path} {field}: {told}");
            count += usize::from(told == 200);
        }
    }
    count
}

#[tokio::test]
async fn an_administrators_directory_is_not_there_for_the_outside_whatever_it_claims() {
    for also in [std::convert::identity, by_http2] {
        assert_eq!(from_outside(None, also).await, 0);
        assert_eq!(from_outside(Some("inside"), also).await, 8);
    }
}

/// X7 in trailers: fields behind a body in chunks, which no gate has seen.
#[tokio::test]
async fn x7_fields_behind_a_body_are_not_passed_on() {
    let site = standing().await;
    for (path, method) in DIRECTORIES
        .into_iter()
        .filter(|(_, method)| *method == "POST")
    {
        for begin in ["", "3\r\nabc\r\n"] {
            let head = format!(
                "{method} {path}/x HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {}\r\n\
                 Transfer-Encoding: chunked\r\n\r\n{begin}0\r\nX-CommonAccessToken: evil\r\n\r\n",
                credentials(1)
            );
            let mut raw = Raw::open(&site).await;
            raw.send(head.as_bytes()).await;
            let (text, _) = raw.rest().await;
            assert_ne!(status(&text), 200, "{path}: {text}");
        }
    }
    assert_eq!(reached(&site), Vec::<(String, String)>::new());
}

/// X1, by the books: every connection went to a configured server, and none was tried to another.
#[tokio::test]
async fn x1_nothing_that_clients_wrote_opened_a_connection_elsewhere() {
    let site = standing().await;
    // Somebody who listens where the clients would have us go.
    let canary = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    canary.set_nonblocking(true).unwrap();
    let there = canary.local_addr().unwrap().to_string();
    for (path, method) in DIRECTORIES {
        for field in [
            "Host: THERE",
            "X-BEResource: THERE/x~1942062522",
            "Cookie: X-BEResource=THERE/x~1942062522; X-AnonResource=true; X-AnonResource-Backend=THERE/x",
            "Cookie: X-BackEndOverrideCookie=THERE~1942062522",
            "X-Original-Host: THERE",
            "X-Forwarded-Host: THERE",
            "X-Original-URL: http://THERE/",
            "X-AnchorMailbox: user1@THERE",
            "msExchProxyUri: http://THERE/",
            "Referer: http://THERE/",
        ] {
            let field = field.replace("THERE", &there);
            let text = ask(&site, method, &format!("{path}/x"), &[&field]).await;
            assert!(
                [200, 400].contains(&status(&text)),
                "{path} {field}: {text}"
            );
        }
    }
    assert!(canary.accept().is_err(), "somebody came");
    let metrics = site
        .gate()
        .unwrap()
        .admin()
        .get("/metrics")
        .await
        .unwrap()
        .text;
    let connections = metrics
        .lines()
        .filter(|line| line.starts_with("mapigate_backend_connections_total"));
    for line in connections.filter(|line| !line.ends_with(" 0")) {
        let known = line.contains("server=\"MBX1\"") || line.contains("server=\"MBX2\"");
        assert!(known && line.contains("outcome=\"ok\""), "{line}");
    }
    for host in [
        "localhost",
        "localhost:1",
        "a@b:444",
        "mbx1.contoso.test",
        "127.0.0.1",
    ] {
        let head = format!(
            "GET /ews/x HTTP/1.1\r\nHost: {host}\r\nAuthorization: {}\r\nConnection: close\r\n\r\n",
            credentials(1)
        );
        let mut raw = Raw::open(&site).await;
        raw.send(head.as_bytes()).await;
        let (text, _) = raw.rest().await;
        assert!([400, 421].contains(&status(&text)), "{host}: {text}");
    }
}

// The same by HTTP/2: each head is translated, and then meets the same guards.

#[tokio::test]
async fn x2_x7_claims_by_http2_stay_here_on_every_directory() {
    let site = standing_by_http2().await;
    assert_eq!(claims_that_pass(&site).await, 0);
    assert!(reached(&site).len() >= 7 * 24);
    assert!(reached(&site).iter().all(|(server, _)| server == "MBX1"));
    let site = without_by_http2("claims").await;
    assert!(claims_that_pass(&site).await >= 7 * 20);
}

#[tokio::test]
async fn x1_x2_no_cookie_by_http2_chooses_a_server_on_any_directory() {
    let site = standing_by_http2().await;
    assert_eq!(cookies_that_pass(&site).await, 0);
    let heads = reached(&site);
    assert!(
        heads
            .iter()
            .all(|(server, head)| server == "MBX1" && head.contains("Cookie: a=b; c=d\r\n"))
    );
    let site = without_by_http2("cookies").await;
    assert_eq!(cookies_that_pass(&site).await, 7 * 7);
}

#[tokio::test]
async fn x3_what_names_another_mailbox_by_http2_leads_nowhere() {
    assert_eq!(elsewhere(&standing_by_http2().await).await, 0);
    assert_eq!(elsewhere(&without_by_http2("anchors").await).await, 7);
}

#[tokio::test]
async fn x4_a_path_by_http2_that_reads_in_two_ways_is_not_passed_on() {
    let site = standing_by_http2().await;
    assert_eq!(tricks_that_pass(&site).await, 0);
    no_other_form_is_passed_on(&site).await;
    let all: usize = DIRECTORIES.map(|(path, _)| tricks(path).len()).iter().sum();
    let site = without_by_http2("paths").await;
    assert!(tricks_that_pass(&site).await > all * 2 / 3);
}

#[tokio::test]
async fn x5_x6_strangers_by_http2_reach_no_server_on_any_directory() {
    assert_eq!(strangers_that_pass(&standing_by_http2().await).await, 0);
    let site = without_by_http2("logon").await;
    assert_eq!(strangers_that_pass(&site).await, 7 * 12);
}

#[tokio::test]
async fn x8_answers_by_http2_tell_nothing_of_the_inside() {
    for (site, expected) in [
        (standing_by_http2().await, 0),
        (without_by_http2("answers").await, 7 * 3),
    ] {
        let mut count = 0;
        for (path, method) in DIRECTORIES {
            let head = crate::http2::head_of(&site, method, &format!("{path}/x")).await;
            for mark in ["x-backendcookie", "x-calculatedbetarget", "mbx1"] {
                count += usize::from(head.contains(mark));
            }
        }
        assert_eq!(count, expected);
    }
}
