//! Who is let in, whose session it is, and what of it others may see.

use crate::rig::Hand;
use crate::support::{
    Ask, TestSite, answer, basic, brisk, credentials, eventually, last_words, line, start, status,
};
use mapigate::ids::UserName;
use mapigate::lab::Outlook;
use mapigate::lab::checker::{self, History};
use mapigate::lab::mailbox_server::{Authenticate, Mode, Service, Users};
use mapigate::lab::site::{DOMAIN, PASSWORD, Plan, user};
use mapigate::mapi::bodies::rops::{write_chain, write_payload};
use mapigate::mapi::bodies::{Body as _, ExecuteRequest};
use mapigate::mapi::{Endpoint, Flavour, RequestType};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

const EMSMDB: Endpoint = Endpoint::Emsmdb;

/// Every wrong password is looked at.
const UNGUARDED: &str = "{ lockout_guard: off, basic: { password_file: users.htpasswd, default_domain: contoso.test } }";

/// The cookie of this name that a client would send.
fn cookie(outlook: &Outlook, name: &str) -> String {
    let cookies = outlook.cookies(EMSMDB);
    let found = cookies.iter().find(|(known, _)| known == name);
    found.unwrap_or_else(|| panic!("no {name}")).1.clone()
}

/// Every cookie a client would send, as one header line.
fn cookie_line(outlook: &Outlook) -> String {
    let pairs: Vec<_> = outlook
        .cookies(EMSMDB)
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    format!("Cookie: {}", pairs.join("; "))
}

async fn connected(site: &TestSite, number: usize) -> Outlook {
    let outlook = site.outlook(number).unwrap();
    outlook.connect().await.unwrap();
    outlook
}

/// Requests that have reached any server.
fn reached(site: &TestSite) -> u64 {
    site.servers()
        .map(|server| server.counters().requests)
        .sum()
}

/// An Execute of the lab's own operation.
fn execute() -> Vec<u8> {
    let mut operation = vec![mapigate::lab::LAB_OPERATION];
    operation.extend([7; 16]);
    ExecuteRequest::of(write_chain(&[write_payload(&operation, &[])])).encode()
}

/// The text of an answer without what differs from one request to the next.
fn without_id(text: &str) -> String {
    let (before, rest) = text.rsplit_once(" (").unwrap();
    let (_id, after) = rest.split_once(')').unwrap();
    format!("{before}{after}")
}

#[tokio::test]
async fn every_reason_not_to_be_let_in_reads_the_same() {
    let site = start(brisk(Flavour::Exchange)).await;
    let ask = |authorization: &str| {
        let ask = Ask::new(1, "Connect")
            .without("Authorization")
            .with("Connection: close");
        match authorization {
            "" => ask,
            value => ask.with(format!("Authorization: {value}")),
        }
    };
    let mut seen = Vec::new();
    for authorization in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer abc",
        "Negotiate YII=",
        "NTLM TlRMTVNTUAAB",
        "Basic",
        "Basic !!!",
        "Basic bm9jb2xvbg==",
        &basic(&user(1), "wrong"),
        &basic(&user(1), "wrong"),
        &basic(&user(1), ""),
        &basic("nobody@contoso.test", PASSWORD),
        &basic("nobody@elsewhere.test", "x"),
        &basic("a\r\nb", "x"),
        &format!("Basic {}", "QUFB".repeat(3000)),
    ] {
        let (text, _) = last_words(&site, &ask(authorization).bytes()).await;
        assert_eq!(status(&text), 401, "{authorization}: {text}");
        seen.push(without_id(&text));
    }
    assert!(seen.iter().all(|text| *text == seen[0]), "{seen:#?}");
    let challenges: Vec<_> = seen[0]
        .lines()
        .filter(|line| line.to_lowercase().starts_with("www-authenticate"))
        .collect();
    assert_eq!(
        challenges,
        [r#"WWW-Authenticate: Basic realm="mail", charset="UTF-8""#]
    );
    assert_eq!(reached(&site), 0);

    // Letters of a name have no case, the domain is the default one, and a good password is good.
    for name in [user(1), user(1).to_uppercase(), "user1".to_owned()] {
        let good = Ask::new(1, "PING").without("Authorization");
        let good = good.with(format!("Authorization: {}", basic(&name, PASSWORD)));
        let before = reached(&site);
        // What the server itself thinks of that spelling is its business.
        let _answer = answer(&site, &good).await;
        assert_eq!(reached(&site), before + 1, "{name}");
    }
    let two = Ask::new(1, "PING").with(format!("Authorization: {}", credentials(1)));
    assert_eq!(status(&last_words(&site, &two.bytes()).await.0), 400);
}

#[tokio::test]
async fn an_unknown_name_takes_as_long_as_a_wrong_password() {
    let site = start(brisk(Flavour::Exchange).section("auth", UNGUARDED)).await;
    let mut line = line(&site.target().unwrap()).await;
    let mut medians = Vec::new();
    for name in [user(1), format!("nobody@{DOMAIN}")] {
        let mut times = Vec::new();
        for number in 0..15 {
            let authorization = basic(&name, &format!("wrong {number}"));
            let ask = Ask::new(1, "Connect").without("Authorization");
            let ask = ask.with(format!("Authorization: {authorization}"));
            let began = Instant::now();
            let answer = line.ask(&ask.bytes()).await.unwrap();
            times.push(began.elapsed());
            assert_eq!(answer.head.status, 401);
        }
        times.sort();
        medians.push(times[7]);
    }
    let (less, more) = (medians[0].min(medians[1]), medians[0].max(medians[1]));
    assert!(
        more < 4 * less || more < Duration::from_millis(20),
        "{medians:?}"
    );
}

#[tokio::test]
async fn every_request_of_a_connection_is_judged_by_itself() {
    let plan = brisk(Flavour::Exchange).each(|server| {
        server.mode = Mode::Naive;
        server.authenticate = Authenticate::Connections;
    });
    let site = start(plan).await;
    let (one, two) = (connected(&site, 1).await, connected(&site, 2).await);
    let ask = |number: usize, outlook: &Outlook, authorization: String| {
        Ask::new(number, "Execute")
            .without("Authorization")
            .with(format!("Authorization: {authorization}"))
            .with(cookie_line(outlook))
            .body(execute())
    };
    let mut line = line(&site.target().unwrap()).await;
    for _ in 0..5 {
        let mut status = async |ask: Ask| {
            let answer = line.ask(&ask.bytes()).await.unwrap();
            (answer.head.status, answer.code())
        };
        assert_eq!(status(ask(1, &one, credentials(1))).await, (200, Some(0)));
        assert_eq!(status(ask(2, &two, credentials(2))).await, (200, Some(0)));
        let wrong = basic(&user(1), "wrong");
        assert_eq!(status(ask(1, &one, wrong)).await, (401, None));
        // Changed in mid-connection: the session is still the other's.
        assert_eq!(status(ask(2, &one, credentials(2))).await, (200, Some(10)));
    }
    let stranger = ask(1, &one, credentials(1)).without("Authorization");
    assert_eq!(line.ask(&stranger.bytes()).await.unwrap().head.status, 401);

    let executed = site.server("MBX1").unwrap().executed();
    let users: Vec<_> = executed.iter().map(|run| run.user.as_str()).collect();
    assert_eq!(users, [user(1).as_str(), user(2).as_str()].repeat(5));
}

#[tokio::test]
async fn anothers_context_cookie_opens_nothing_and_reaches_nobody() {
    for flavour in [Flavour::Exchange, Flavour::Gromox] {
        let site = start(brisk(flavour)).await;
        let (victim, thief) = (connected(&site, 1).await, connected(&site, 2).await);
        let name = flavour.cookies().context;
        let other = match flavour {
            Flavour::Exchange => Flavour::Gromox.cookies().context,
            Flavour::Gromox => Flavour::Exchange.cookies().context,
        };
        let (stolen, own) = (cookie(&victim, name), cookie(&thief, name));
        let before = reached(&site);

        for cookies in [
            format!("Cookie: {name}={stolen}"),
            format!("Cookie: {}={stolen}", name.to_uppercase()),
            format!("Cookie: {name}\t = {stolen}"),
            format!("Cookie: {other}={stolen}"),
            // One's own under the name of the other flavour, to be let through with another's.
            format!("Cookie: {other}={own}; {name}={stolen}"),
            format!("Cookie: {name}={stolen}; {other}={own}"),
            format!("Cookie: {name}={stolen}\r\nCookie: {other}={own}"),
        ] {
            for kind in ["Execute", "NotificationWait", "Disconnect", "PING"] {
                let ask = Ask::new(2, kind).with(cookies.as_str()).body(execute());
                let answer = answer(&site, &ask).await;
                assert_eq!(
                    (answer.head.status, answer.head.code()),
                    (200, Some(10)),
                    "{flavour:?} {kind} {cookies}"
                );
                assert_eq!(answer.head.header("x-requesttype"), Some(kind));
            }
        }
        assert_eq!(reached(&site), before, "{flavour:?}");

        // Connect begins anew, without the cookie.
        let cookies = vec![(other.to_owned(), own), (name.to_owned(), stolen.clone())];
        thief.set_cookies(EMSMDB, cookies);
        thief.connect().await.unwrap();
        let heads = site.server("MBX1").unwrap().heads();
        let head = String::from_utf8_lossy(heads.last().unwrap()).into_owned();
        assert!(!head.contains(&stolen), "{head}");
        thief.execute(b"mine").await.unwrap();
        victim.execute(b"still mine").await.unwrap();
    }
}

/// User 2's mailbox, open to user 1 as well or not, and what the running configuration knows of it.
async fn share(site: &TestSite, is_shared: bool) {
    let path = site.folder().join("mailboxes.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let (own, shared) = (
        "logins: [user2],",
        "logins: [user2], users: [user1@contoso.test],",
    );
    let text = match is_shared {
        true => text.replace(own, shared),
        false => text.replace(shared, own),
    };
    std::fs::write(&path, text).unwrap();
    site.gate().unwrap().admin().reload().await.unwrap();
}

#[tokio::test]
async fn a_session_with_anothers_mailbox_ends_with_the_right_to_it_whichever_is_named() {
    let plan = Plan::new(Flavour::Gromox, &["MBX1"])
        .section("directory", "{ file: mailboxes.yaml, access: listed }");
    let site = start(plan).await;
    share(&site, true).await;
    let mut hand = Hand::new(&site, 1).await;
    hand.mailbox = 2;
    let opened = hand.ask(RequestType::Connect).await;
    assert_eq!((opened.head.status, opened.code()), (200, Some(0)));
    // While the right stands, either name will do.
    for named in [2, 1] {
        hand.mailbox = named;
        let answer = hand.ask(RequestType::Execute).await;
        assert_eq!(
            (answer.head.status, answer.code()),
            (200, Some(0)),
            "{named}"
        );
    }

    share(&site, false).await;

    let before = reached(&site);
    for named in [1, 2] {
        hand.mailbox = named;
        let answer = hand.ask(RequestType::Execute).await;
        assert_eq!(answer.head.status, 403, "{named}");
    }
    assert_eq!(reached(&site), before, "no server is asked");
}

#[tokio::test]
async fn a_route_cookie_that_is_not_ours_and_the_users_own_is_ignored() {
    let mut site = start(brisk(Flavour::Exchange)).await;
    let stranger = start(brisk(Flavour::Exchange)).await;
    let elsewhere = cookie(&connected(&stranger, 1).await, "MapigateRoute");
    let own = cookie(&connected(&site, 1).await, "MapigateRoute");
    let anothers = cookie(&connected(&site, 2).await, "MapigateRoute");
    // Without a memory of the session only the cookie tells; that it is believed shows in who answers.
    site.take_gate().unwrap().kill().unwrap();
    site.start_gate(false).await.unwrap();
    site.move_database("MBX2").await.unwrap();
    let ask = |route: &str| {
        Ask::new(1, "Execute")
            .with(format!(
                "Cookie: MapiContext=unknown; MapigateRoute={route}"
            ))
            .body(execute())
    };

    let code = answer(&site, &ask(&own)).await.code();
    let by_us = reached(&site);
    assert_eq!(code, Some(10));

    let mut flipped = own.clone().into_bytes();
    let last = flipped.last_mut().unwrap();
    *last = if *last == b'A' { b'B' } else { b'A' };
    let flipped = String::from_utf8(flipped).unwrap();
    let forged = [
        elsewhere.as_str(),
        &anothers,
        &flipped,
        own.get(1..).unwrap(),
        own.get(..own.len() - 1).unwrap(),
        &format!("{own}A"),
        &own.to_lowercase(),
        "MBX1",
        "",
        "AQ",
        &"A".repeat(4000),
    ];
    for (number, route) in forged.iter().enumerate() {
        let answer = answer(&site, &ask(route)).await;
        assert_eq!(answer.head.status, 200);
        assert_eq!(reached(&site), by_us + number as u64 + 1, "{route}");
    }
    let heads = site.server("MBX2").unwrap().heads();
    for head in heads {
        assert!(!String::from_utf8_lossy(&head).contains("MapigateRoute"));
    }
}

#[tokio::test]
async fn a_service_account_stands_for_the_users_and_no_password_goes_on() {
    let (service, secret) = ("svc@contoso.test", "service secret");
    let listed = BTreeMap::from([(UserName::new(service), secret.to_owned())]);
    let plan = brisk(Flavour::Exchange)
        .each(|server| {
            server.users = Users::Listed(listed.clone());
            server.service = Some(Service {
                user: UserName::new(service),
                header: "X-Site-User".to_owned(),
            });
        })
        .section(
            "backend_identity",
            "{ mode: basic_service, user: svc@contoso.test, password: '${SECRET}', user_header: X-Site-User }",
        );
    let mut plan = plan;
    plan.environment = vec![("SECRET".to_owned(), secret.to_owned())];
    let site = start(plan).await;

    let outlook = connected(&site, 1).await;
    outlook.execute(b"mine").await.unwrap();
    let claim = Ask::new(2, "PING")
        .with("X-Site-User: user1@contoso.test")
        .with("x_site_user: user1@contoso.test");
    assert_eq!(answer(&site, &claim).await.head.status, 200);

    let server = site.server("MBX1").unwrap();
    assert_eq!(server.executed()[0].user.as_str(), user(1));
    let heads: Vec<_> = server
        .heads()
        .into_iter()
        .map(|head| String::from_utf8(head).unwrap())
        .collect();
    for head in &heads {
        assert!(head.contains(&format!(
            "\r\nAuthorization: {}\r\n",
            basic(service, secret)
        )));
        for number in [1, 2] {
            assert!(!head.contains(&credentials(number)), "{head}");
        }
    }
    let last = heads.last().unwrap().to_lowercase();
    assert_eq!(last.matches("site-user: ").count(), 1, "{last}");
    assert!(last.contains("\r\nx-site-user: user2@contoso.test\r\n"));
    assert!(!last.contains("x_site_user"), "{last}");
}

#[tokio::test]
async fn a_connection_that_has_carried_one_user_never_carries_another() {
    let plan = brisk(Flavour::Exchange).each(|server| {
        server.authenticate = Authenticate::Connections;
        server.answer_bytes = 64;
    });
    let site = start(plan).await;
    let mut users = Vec::new();
    for number in 1..=20 {
        users.push(connected(&site, number).await);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for outlook in users.clone() {
        tasks.spawn(async move {
            for number in 0..50 {
                if fastrand::u8(..10) == 0 {
                    outlook.drop_connections().await;
                }
                outlook
                    .execute(format!("{number}").as_bytes())
                    .await
                    .unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }

    let executed = site.server("MBX1").unwrap().executed();
    assert_eq!(executed.len(), 1000);
    let mut owner: HashMap<u64, UserName> = HashMap::new();
    for run in &executed {
        let first = owner.entry(run.connection).or_insert(run.user.clone());
        assert_eq!(*first, run.user, "connection {}", run.connection);
    }
    assert!(owner.len() >= 20);
    let sent: Vec<_> = users.iter().flat_map(Outlook::sent).collect();
    let broken = checker::check(&sent, &executed, |_| None, &History::default());
    assert!(broken.is_empty(), "{broken:?}");
    let admin = site.gate().unwrap().admin();
    let trips = admin.metric("mapigate_identity_fence_trips_total").await;
    assert_eq!(trips.unwrap().to_string(), "0");
}

/// The access log's text, once it has this many lines.
async fn access_log(site: &TestSite, lines: usize) -> String {
    let path = site.folder().join("access.log");
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    eventually("the access log is written", || async {
        read().lines().count() >= lines
    })
    .await;
    read()
}

#[tokio::test]
async fn no_password_credential_or_cookie_shows_in_a_log_or_a_metric() {
    let plan = brisk(Flavour::Exchange).section(
        "logging",
        "{ access: access.log, http_proxy: { folder: HttpProxy }, format: json, level: debug }",
    );
    let mut site = start(plan).await;
    let outlook = connected(&site, 1).await;
    outlook.execute(b"rops").await.unwrap();
    let mut secrets = vec![PASSWORD.to_owned(), "horse".to_owned()];
    secrets.extend(outlook.cookies(EMSMDB).into_iter().map(|(_, value)| value));
    outlook.execute(b"rops").await.unwrap();
    secrets.extend(outlook.cookies(EMSMDB).into_iter().map(|(_, value)| value));
    for number in 1..=3 {
        secrets.push(credentials(number).replace("Basic ", ""));
    }
    let wrong = basic(&user(3), "Wr0ngSecret");
    secrets.extend(["Wr0ngSecret".to_owned(), wrong.replace("Basic ", "")]);
    let cookies = cookie_line(&outlook);
    let hostile = [
        Ask::new(2, "Execute")
            .with(cookies.as_str())
            .body(execute()),
        Ask::new(2, "Connect")
            .with(cookies.as_str())
            .body(execute()),
        Ask::new(1, "Execute")
            .with(cookies.as_str())
            .with("X-Bad: \u{7f}"),
        Ask::new(1, "Execute")
            .with(cookies.as_str())
            .with("Host: again"),
        Ask::new(1, "Execute").with(format!("{cookies}; MapiContext=two")),
        Ask::new(1, "Execute")
            .with(cookies.as_str())
            .line("POST /nowhere HTTP/1.1"),
        Ask::new(1, "Nonsense").with(cookies.as_str()),
        Ask::new(1, "PING")
            .without("Authorization")
            .with(format!("Authorization: {wrong}")),
        Ask::new(1, "PING").with(format!("Authorization: {wrong}")),
    ];
    for ask in &hostile {
        let _text = last_words(&site, &ask.clone().with("Connection: close").bytes()).await;
    }
    site.kill_server("MBX1").await.unwrap();
    let _refused = answer(&site, &Ask::new(1, "Execute").with(cookies.as_str())).await;

    let gate = site.gate().unwrap().admin();
    let mut shown = access_log(&site, hostile.len() + 4).await;
    for protocol in ["Mapi", "Unknown"] {
        let files = std::fs::read_dir(site.folder().join("HttpProxy").join(protocol)).unwrap();
        for file in files {
            let rows = std::fs::read_to_string(file.unwrap().path()).unwrap();
            assert!(rows.lines().count() > 6, "{rows}");
            shown += &rows;
        }
    }
    shown += &std::fs::read_to_string(site.folder().join("mapigate.log")).unwrap();
    for page in ["/metrics", "/status.json", "/ready"] {
        shown += &gate.get(page).await.unwrap().text;
    }
    assert!(shown.contains("foreign_session") && shown.contains(&user(1)));
    for secret in secrets.iter().filter(|secret| secret.len() > 3) {
        assert!(!shown.contains(secret.as_str()), "{secret} is in {shown}");
    }
}

#[tokio::test]
async fn whatever_clients_write_an_access_line_is_one_line_of_json() {
    let site = start(brisk(Flavour::Exchange)).await;
    let long = "x".repeat(30_000);
    let texts = [
        r#""}{"user":"admin","x":""#,
        r"\",
        r"\n\r\u0000",
        "\u{202e}\u{2028}\u{feff}\u{e9}",
        "\t tab",
        "</script><script>alert(1)</script>",
        "%0d%0aSet-Cookie:x=y",
        "{}:1",
        &long,
    ];
    let raw: [&[u8]; 4] = [b"\xff\xfe\x80", b"\xc3\x28", b"\xed\xa0\x80", b"\xf0\x9f"];
    let mut sent = 0;
    for field in [
        "X-RequestId",
        "X-ClientInfo",
        "User-Agent",
        "X-ClientApplication",
    ] {
        for text in texts.iter().map(|text| text.as_bytes()).chain(raw) {
            let ask = Ask::new(1, "PING").without(field).with("Connection: close");
            let mut bytes = ask.bytes();
            let at = bytes.len() - 2;
            bytes.splice(at..at, [field.as_bytes(), b": ", text, b"\r\n"].concat());
            let (answered, _) = last_words(&site, &bytes).await;
            assert_eq!(status(&answered), 200, "{answered}");
            sent += 1;
        }
    }
    for id in ["a\"b@c", "a%0ab@c", "%1b[31m@x", "../..@x", "a@b@c", &long] {
        let ask = Ask::new(1, "PING").line(format!("POST /mapi/emsmdb/?MailboxId={id} HTTP/1.1"));
        let (answered, _) = last_words(&site, &ask.with("Connection: close").bytes()).await;
        assert!([400, 404, 414].contains(&status(&answered)), "{answered}");
        sent += 1;
    }

    let text = access_log(&site, sent).await;

    assert_eq!(text.lines().count(), sent);
    assert!(
        !text
            .bytes()
            .any(|byte| byte.is_ascii_control() && byte != b'\n')
    );
    for line in site.access_lines().unwrap() {
        assert!(line.to_string().len() < 4096);
        assert_ne!(line["user"], "admin");
    }
    assert_eq!(site.server("MBX1").unwrap().requests(RequestType::Ping), 52);
}
