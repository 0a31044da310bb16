//! Whom the mailbox server takes a request to be from: every way of telling it, and nobody ever mixed up.

use crate::support::{
    Ask, TestSite, basic, brisk, eventually, line, log_with, start, start_in, status,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mapigate::auth::handoff::assertion::Verifier;
use mapigate::ids::UserName;
use mapigate::lab::mailbox_server::authenticator::handshake;
use mapigate::lab::mailbox_server::{Authenticate, Service, Told};
use mapigate::lab::outlook::wire::{Answer, Line};
use mapigate::lab::site::{HOST, PASSWORD, Plan, mailbox, user};
use mapigate::mapi::Flavour;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Users, front connections and requests of a run.
const USERS: usize = 50;
const LINES: usize = 20;
const REQUESTS: usize = 10_000;

/// Connections that look whether the servers are well, in a run without further looks.
const CHECKS: u64 = 4;

/// A request that any user may make of the own mailbox, and that needs no session.
fn ping(number: usize) -> Ask {
    Ask::new(number, "PING")
}

/// Servers that know each user's mailbox.
fn owners(authenticate: Authenticate) -> Plan {
    let mut plan = brisk(Flavour::Exchange).each(|server| {
        let owners = (1..=USERS).map(|number| (mailbox(number), UserName::new(user(number))));
        server.owners = owners.collect();
        server.authenticate = authenticate;
    });
    plan.users = USERS;
    plan
}

/// What came of a run.
struct Run {
    answered: usize,
    crossed: u64,
    trips: f64,
    requests: u64,
    connections: u64,
}

/// Requests of many users in turn on few connections, as a front end's own front end would send them.
async fn interleave(site: &TestSite, requests: usize) -> Run {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..LINES {
        let mut line = line(&site.target().unwrap()).await;
        let mut random = fastrand::Rng::with_seed(number as u64);
        tasks.spawn(async move {
            let mut answered = 0;
            for _ in 0..requests / LINES {
                let who = random.usize(1..=USERS);
                let answer = line.ask(&ping(who).bytes()).await.unwrap();
                answered += usize::from(answer.head.status == 200);
            }
            answered
        });
    }
    let mut answered = 0;
    while let Some(done) = tasks.join_next().await {
        answered += done.unwrap();
    }
    account(site, answered).await
}

async fn account(site: &TestSite, answered: usize) -> Run {
    let counters: Vec<_> = site.servers().map(|server| server.counters()).collect();
    let trips = site.gate().unwrap().admin();
    let trips = trips.metric("mapigate_identity_fence_trips_total").await;
    Run {
        answered,
        crossed: counters.iter().map(|counters| counters.crossed).sum(),
        requests: counters.iter().map(|counters| counters.requests).sum(),
        connections: counters.iter().map(|counters| counters.connections).sum(),
        trips: trips.unwrap(),
    }
}

/// The run as it must go: everybody is answered, nobody has crossed over, and the fence had nothing to do.
async fn nobody_crosses(site: &TestSite) {
    let run = interleave(site, REQUESTS).await;
    assert_eq!(run.answered, REQUESTS);
    assert_eq!(run.requests, REQUESTS as u64);
    assert_eq!((run.crossed, run.trips), (0, 0.0));
    assert!(run.connections < REQUESTS as u64 / 4, "{}", run.connections);
}

/// The same plan without what keeps users apart.
fn without(mut plan: Plan, what: &str) -> Plan {
    plan.environment
        .push(("MAPIGATE_TEST_WITHOUT".to_owned(), what.to_owned()));
    plan
}

/// Keys for assertions in a folder, and what servers need to check them.
fn assertion_keys(folder: &TempDir) -> String {
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(folder.path())
            .stderr(Stdio::null())
            .output()
            .expect("openssl is needed");
        assert!(output.status.success(), "{arguments:?}");
    };
    openssl(&[
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-out",
        "assertion.key",
    ]);
    openssl(&[
        "pkey",
        "-in",
        "assertion.key",
        "-pubout",
        "-out",
        "assertion.pub",
    ]);
    std::fs::read_to_string(folder.path().join("assertion.pub")).unwrap()
}

async fn asserted(
    plan: impl FnOnce(Plan) -> Plan,
    authenticate: Authenticate,
    more: &str,
) -> TestSite {
    let folder = tempfile::tempdir().unwrap();
    let public = assertion_keys(&folder);
    let header = match more.contains("header: X-Assertion") {
        true => "X-Assertion",
        false => "Authorization",
    };
    let mut asserted = owners(authenticate);
    for server in &mut asserted.servers {
        let verifier = Verifier::new(public.as_bytes(), server.name.as_str(), "mapigate").unwrap();
        server.told = Told::Assertions(Arc::new(verifier), header.to_owned());
    }
    let asserted = asserted.section(
        "backend_identity",
        &format!("{{ mode: assertion, assertion: {{ keys: assertion.key{more} }} }}"),
    );
    start_in(folder, plan(asserted)).await
}

#[tokio::test]
async fn fifty_users_on_twenty_connections_never_cross_with_their_own_passwords() {
    let site = start(owners(Authenticate::Connections)).await;
    nobody_crosses(&site).await;
}

#[tokio::test]
async fn fifty_users_on_twenty_connections_never_cross_where_the_first_login_counts_for_all() {
    let site = start(owners(Authenticate::FirstOfConnection)).await;
    nobody_crosses(&site).await;
}

#[tokio::test]
async fn fifty_users_on_twenty_connections_never_cross_behind_a_service_account() {
    let plan = owners(Authenticate::Requests)
        .each(|server| {
            server.users = mapigate::lab::mailbox_server::Users::Any;
            server.service = Some(Service {
                user: UserName::new("svc-mail@contoso.test"),
                header: "X-Remote-User".to_owned(),
            });
        })
        .section(
            "backend_identity",
            "{ mode: basic_service, user: svc-mail@contoso.test, password: secret }",
        );
    let site = start_any(plan).await;
    nobody_crosses(&site).await;
}

/// A site whose servers let the service account in.
async fn start_any(mut plan: Plan) -> TestSite {
    let listed = (1..=USERS).map(|number| (UserName::new(user(number)), PASSWORD.to_owned()));
    let service = (UserName::new("svc-mail@contoso.test"), "secret".to_owned());
    let users: std::collections::BTreeMap<_, _> = listed.chain([service]).collect();
    plan = plan.each(|server| {
        server.users = mapigate::lab::mailbox_server::Users::Listed(users.clone());
    });
    start(plan).await
}

#[tokio::test]
async fn fifty_users_on_twenty_connections_never_cross_with_assertions() {
    let site = asserted(|plan| plan, Authenticate::FirstOfConnection, "").await;
    nobody_crosses(&site).await;
    let head = site.server("MBX1").unwrap().heads().pop().unwrap();
    let head = String::from_utf8(head).unwrap();
    assert!(
        head.contains("Authorization: Bearer ey") && !head.contains("Basic"),
        "{head}"
    );
}

#[tokio::test]
async fn fifty_users_on_twenty_connections_never_cross_with_assertions_as_gromox_takes_them() {
    let gromox = |plan: Plan| plan.each(|server| server.flavour = Flavour::Gromox);
    let site = asserted(
        gromox,
        Authenticate::FirstOfConnection,
        ", scheme: negotiate",
    )
    .await;
    nobody_crosses(&site).await;
}

#[tokio::test]
async fn the_helper_reads_what_a_server_was_shown_and_nothing_else() {
    let gromox = |plan: Plan| plan.each(|server| server.flavour = Flavour::Gromox);
    let site = asserted(gromox, Authenticate::Requests, ", scheme: negotiate").await;
    let mut line = line(&site.target().unwrap()).await;
    assert_eq!(line.ask(&ping(7).bytes()).await.unwrap().head.status, 200);
    let head = String::from_utf8(site.server("MBX1").unwrap().heads().pop().unwrap()).unwrap();
    let shown = head
        .lines()
        .find_map(|line| line.strip_prefix("Authorization: Negotiate "));
    let token = shown.unwrap();
    let says = |server: &str, lines: &str| {
        use std::io::Write as _;
        let mut helper = Command::new(crate::support::PROGRAM)
            .args([
                "assertion-helper",
                "--keys",
                "assertion.pub",
                "--server",
                server,
            ])
            .current_dir(site.folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = helper.stdin.take().unwrap();
        stdin.write_all(lines.as_bytes()).unwrap();
        drop(stdin);
        String::from_utf8(helper.wait_with_output().unwrap().stdout).unwrap()
    };

    let said = says(
        "MBX1",
        &format!("YR {token}\nYR bm90aGluZw==\nYR {token}\n"),
    );
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(
        (lines[0], lines[2]),
        (&*format!("AF {}", user(7)), &*format!("AF {}", user(7)))
    );
    assert!(lines[1].starts_with("NA "), "{said}");
    assert!(says("MBX2", &format!("YR {token}\n")).starts_with("NA "));
}

#[tokio::test]
async fn an_assertion_may_have_a_header_of_its_own_that_clients_cannot_send() {
    let more = ", header: X-Assertion";
    let site = asserted(|plan| plan, Authenticate::Requests, more).await;
    let mut line = line(&site.target().unwrap()).await;

    let forged = ping(1)
        .with("X-Assertion: forged")
        .with("x_assertion: forged");
    assert_eq!(line.ask(&forged.bytes()).await.unwrap().head.status, 200);

    let head = site.server("MBX1").unwrap().heads().pop().unwrap();
    let head = String::from_utf8(head).unwrap();
    assert!(
        !head.contains("forged") && !head.contains("Authorization"),
        "{head}"
    );
    assert_eq!(head.matches("X-Assertion: ey").count(), 1);
}

#[tokio::test]
async fn fifty_users_on_twenty_connections_never_cross_with_a_trusted_header() {
    let mut plan = owners(Authenticate::Requests)
        .each(|server| server.told = Told::Header("X-Remote-User".to_owned()))
        .section("backend_identity", "{ mode: trusted_header }");
    (plan.back_tls, plan.back_certificate) = (true, true);
    let site = start(plan).await;

    nobody_crosses(&site).await;

    let mut line = line(&site.target().unwrap()).await;
    let forged = ping(1)
        .with(format!("X-Remote-User: {}", user(2)))
        .with(format!("x_remote_user: {}", user(2)));
    assert_eq!(line.ask(&forged.bytes()).await.unwrap().head.status, 200);
    assert_eq!(account(&site, 0).await.crossed, 0);
}

#[tokio::test]
async fn with_the_lanes_taken_away_the_fence_trips_and_nobody_crosses() {
    let site = start(without(owners(Authenticate::FirstOfConnection), "lanes")).await;

    let run = interleave(&site, 1000).await;

    assert_eq!((run.answered, run.crossed), (1000, 0));
    assert!(run.trips > 100.0, "{}", run.trips);
    let log = log_with(&site, "identity fence tripped: connection dropped").await;
    assert!(log.contains("identity fence tripped: connection dropped"));
}

#[tokio::test]
async fn with_the_fence_taken_away_users_cross_with_their_own_passwords() {
    let site = start(without(owners(Authenticate::FirstOfConnection), "fence")).await;

    let run = interleave(&site, 1000).await;

    assert!(run.crossed > 100, "{}", run.crossed);
}

#[tokio::test]
async fn with_the_fence_taken_away_users_cross_with_assertions() {
    let down = |plan| without(plan, "fence");
    let site = asserted(down, Authenticate::FirstOfConnection, "").await;

    let run = interleave(&site, 1000).await;

    assert!(run.crossed > 100, "{}", run.crossed);
}

#[tokio::test]
async fn a_server_that_is_wrongly_said_to_judge_each_request_shows_why_it_matters() {
    let mut plan = owners(Authenticate::FirstOfConnection);
    plan.server_keys = "authenticates: requests".to_owned();
    let site = start(plan).await;

    let run = interleave(&site, 1000).await;

    assert!(run.crossed > 100, "{}", run.crossed);
}

// What only the server judges.

pub(super) fn pass(keys: &str) -> Plan {
    owners(Authenticate::Requests)
        .each(|server| server.told = Told::Handshakes)
        .section("health", "{ interval: 1h }")
        .section(
            "names",
            &format!("[{{ host: {HOST}, authentication: [ntlm, negotiate, basic] }}]"),
        )
        .section(
            "auth",
            &format!(
                "{{ basic: {{ password_file: users.htpasswd, default_domain: contoso.test }}, \
                 passthrough: {{ schemes: [ntlm, negotiate]{keys} }} }}"
            ),
        )
}

fn ntlm(number: usize, message: &[u8]) -> Ask {
    ping(number)
        .without("Authorization")
        .with(format!("Authorization: NTLM {}", STANDARD.encode(message)))
}

fn bare(number: usize) -> Ask {
    ping(number).without("Authorization")
}

/// The server's word in a handshake; none where it said something else.
fn second(answer: &Answer) -> Option<Vec<u8>> {
    assert_eq!(answer.head.status, 401);
    let mut words = answer.head.all("www-authenticate");
    let word = words.find_map(|line| line.strip_prefix("NTLM "))?;
    STANDARD.decode(word).ok()
}

/// Logs on as this user; the status of the last answer.
pub(super) async fn log_on(line: &mut Line, number: usize, password: &str) -> u16 {
    let answer = line
        .ask(&ntlm(number, handshake::FIRST).bytes())
        .await
        .unwrap();
    let second = second(&answer).expect("a second word");
    let third = handshake::third(&second, &user(number), password).unwrap();
    let answer = line.ask(&ntlm(number, &third).bytes()).await.unwrap();
    answer.head.status
}

#[tokio::test]
async fn a_handshake_stays_on_one_connection_to_the_server_and_proves_it() {
    let site = start(pass("")).await;
    let mut line = line(&site.target().unwrap()).await;

    assert_eq!(log_on(&mut line, 1, PASSWORD).await, 200);
    for _ in 0..10 {
        assert_eq!(line.ask(&bare(1).bytes()).await.unwrap().head.status, 200);
    }

    let run = account(&site, 0).await;
    assert_eq!(run.crossed, 0);
    assert!(run.connections <= 1 + CHECKS, "{}", run.connections);
    let pinned = || async {
        let admin = site.gate().unwrap().admin();
        admin.metric("mapigate_pinned_connections").await.unwrap()
    };
    assert_eq!(pinned().await, 1.0);
    // Both end together.
    drop(line);
    eventually("the server's connection ends with the client's", || async {
        pinned().await == 0.0 && site.server("MBX1").unwrap().connections_open() == 0
    })
    .await;
}

#[tokio::test]
async fn what_another_connection_proved_proves_nothing_here() {
    let site = start(pass("")).await;
    let target = site.target().unwrap();
    let mut first = line(&target).await;
    assert_eq!(log_on(&mut first, 1, PASSWORD).await, 200);

    let mut other = line(&target).await;
    let answer = other.ask(&bare(1).bytes()).await.unwrap();
    assert_eq!(answer.head.status, 401);
    let offers: Vec<_> = answer.head.all("www-authenticate").collect();
    assert_eq!(offers[..2], ["NTLM", "Negotiate"]);
    assert!(offers[2].starts_with("Basic realm="));
    // Nor does the last word of a handshake that began elsewhere.
    let word = first.ask(&ntlm(1, handshake::FIRST).bytes()).await.unwrap();
    let third = handshake::third(&second(&word).unwrap(), &user(1), PASSWORD).unwrap();
    let answer = other.ask(&ntlm(1, &third).bytes()).await.unwrap();
    assert_eq!(answer.head.status, 401);
    assert_eq!(second(&answer), None);
    assert_eq!(account(&site, 0).await.crossed, 0);
}

#[tokio::test]
async fn who_shows_a_password_on_a_logged_on_connection_is_judged_by_it_alone() {
    let site = start(pass("")).await;
    let mut line = line(&site.target().unwrap()).await;
    assert_eq!(log_on(&mut line, 1, PASSWORD).await, 200);

    let wrong = ping(2)
        .without("Authorization")
        .with(format!("Authorization: {}", basic(&user(2), "wrong")));
    assert_eq!(line.ask(&wrong.bytes()).await.unwrap().head.status, 401);
    assert_eq!(line.ask(&ping(2).bytes()).await.unwrap().head.status, 200);
    // The other user has taken the connection over: the first must log on again.
    assert_eq!(line.ask(&bare(1).bytes()).await.unwrap().head.status, 401);
    assert_eq!(account(&site, 0).await.crossed, 0);
}

#[tokio::test]
async fn a_handshake_left_half_done_is_ended_in_time() {
    let site = start(pass(", handshake_timeout: 300ms")).await;
    let mut line = line(&site.target().unwrap()).await;
    let began = Instant::now();

    let answer = line.ask(&ntlm(1, handshake::FIRST).bytes()).await.unwrap();
    assert!(second(&answer).is_some());
    eventually("both connections end", || async {
        site.server("MBX1").unwrap().connections_open() == 0
    })
    .await;

    assert!(began.elapsed() >= Duration::from_millis(300));
    assert!(line.ask(&bare(1).bytes()).await.is_err());
}

#[tokio::test]
async fn a_wrong_password_is_the_servers_to_refuse() {
    let site = start(pass("")).await;
    let mut line = line(&site.target().unwrap()).await;

    assert_eq!(log_on(&mut line, 1, "wrong").await, 401);
    assert_eq!(log_on(&mut line, 1, PASSWORD).await, 200);

    eventually("the access log is written", || async {
        site.access_lines().unwrap().len() >= 4
    })
    .await;
    let lines = site.access_lines().unwrap();
    assert!(
        lines
            .iter()
            .all(|line| line["user"].as_str().unwrap_or_default().is_empty())
    );
}

#[tokio::test]
async fn when_the_server_closes_the_clients_connection_ends_too() {
    let site = start(pass("")).await;
    let mut line = line(&site.target().unwrap()).await;
    assert_eq!(log_on(&mut line, 1, PASSWORD).await, 200);

    site.server("MBX1").unwrap().cut_connections();

    let end = async {
        while let Ok(answer) = line.ask(&bare(1).bytes()).await {
            // A last answer, where the request was faster than the server's close.
            assert!([401, 502].contains(&answer.head.status));
        }
    };
    tokio::time::timeout(Duration::from_secs(5), end)
        .await
        .unwrap();
}

#[tokio::test]
async fn more_pinned_connections_than_allowed_are_answered_503() {
    let site = start(pass(", connections: 2")).await;
    let target = site.target().unwrap();
    let mut held = Vec::new();
    for number in 1..=2 {
        let mut line = line(&target).await;
        assert_eq!(log_on(&mut line, number, PASSWORD).await, 200);
        held.push(line);
    }

    let mut third = line(&target).await;
    let answer = third.ask(&ntlm(3, handshake::FIRST).bytes()).await.unwrap();
    assert_eq!(answer.head.status, 503);
    // Who needs none is not in the way.
    let mut other = line(&target).await;
    assert_eq!(other.ask(&ping(4).bytes()).await.unwrap().head.status, 200);

    drop(held.pop());
    eventually("a seat is free again", || async {
        let mut line = line(&target).await;
        let answer = line.ask(&ntlm(3, handshake::FIRST).bytes()).await.unwrap();
        answer.head.status == 401
    })
    .await;
}

#[tokio::test]
async fn a_request_that_names_no_mailbox_goes_nowhere() {
    let site = start(pass("")).await;
    let nowhere = ntlm(1, handshake::FIRST)
        .line("POST /mapi/emsmdb/ HTTP/1.1")
        .with("Connection: close");
    let (text, _) = crate::support::last_words(&site, &nowhere.bytes()).await;
    assert_eq!(status(&text), 400, "{text}");
}

#[tokio::test]
async fn fifty_users_log_on_in_turn_on_twenty_connections_and_never_cross() {
    let site = start(pass("")).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..LINES {
        let mut line = line(&site.target().unwrap()).await;
        let mut random = fastrand::Rng::with_seed(number as u64);
        tasks.spawn(async move {
            let (mut answered, mut left) = (0, REQUESTS / LINES);
            while left > 0 {
                let who = random.usize(1..=USERS);
                assert_eq!(log_on(&mut line, who, PASSWORD).await, 200);
                let more = random.usize(1..=20).min(left.saturating_sub(2));
                for _ in 0..more {
                    let answer = line.ask(&bare(who).bytes()).await.unwrap();
                    answered += usize::from(answer.head.status == 200);
                }
                left = left.saturating_sub(2 + more);
            }
            answered
        });
    }
    let mut answered = 0;
    while let Some(done) = tasks.join_next().await {
        answered += done.unwrap();
    }
    let run = account(&site, answered).await;
    assert_eq!((run.crossed, run.trips), (0, 0.0));
    assert!(run.requests >= REQUESTS as u64);
    assert!(
        run.connections <= LINES as u64 + CHECKS,
        "{}",
        run.connections
    );
}
