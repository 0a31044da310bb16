//! Passwords that only the mailbox server knows: it is asked before anything of the client's goes anywhere.

use crate::support::{Ask, TestSite, basic, brisk, eventually, line, start};
use mapigate::ids::UserName;
use mapigate::lab::mailbox_server::Users;
use mapigate::lab::outlook::wire::Answer;
use mapigate::lab::site::{PASSWORD, Plan, user};
use mapigate::mapi::Flavour;

const AUTH: &str = "{ basic: { verify: backend, default_domain: contoso.test }, \
                    lockout_guard: { delay: 0s, per_source: { exempt: [127.0.0.0/8] } } }";

/// Servers that know their users' passwords, and a front end that knows none.
fn knowing(flavour: Flavour) -> Plan {
    brisk(flavour)
        .each(|server| {
            let users = (1..=20).map(|number| (UserName::new(user(number)), PASSWORD.to_owned()));
            server.users = Users::Listed(users.collect());
        })
        .section("auth", AUTH)
}

fn ping(number: usize, password: &str) -> Vec<u8> {
    let authorization = format!("Authorization: {}", basic(&user(number), password));
    let ask = Ask::new(number, "PING").without("Authorization");
    ask.with(authorization).bytes()
}

async fn ask(site: &TestSite, bytes: &[u8]) -> Answer {
    let mut line = line(&site.target().unwrap()).await;
    line.ask(bytes).await.unwrap()
}

/// Agents of the requests that the servers saw, in order.
fn agents(site: &TestSite) -> Vec<String> {
    let heads = site.servers().flat_map(|server| server.heads());
    let agent = |head: Vec<u8>| {
        let head = String::from_utf8(head).unwrap();
        let found = head
            .lines()
            .find_map(|line| line.strip_prefix("User-Agent: ").map(str::to_owned));
        found.unwrap_or_default()
    };
    heads.map(agent).collect()
}

fn wrong(site: &TestSite) -> u64 {
    site.servers()
        .map(|server| server.counters().wrong_passwords)
        .sum()
}

async fn metric(site: &TestSite, sample: &str) -> f64 {
    site.gate().unwrap().admin().metric(sample).await.unwrap()
}

#[tokio::test]
async fn a_password_is_judged_by_the_server_once_and_remembered() {
    for flavour in [Flavour::Exchange, Flavour::Gromox] {
        let site = start(knowing(flavour)).await;

        for _ in 0..3 {
            assert_eq!(ask(&site, &ping(1, PASSWORD)).await.head.status, 200);
        }

        // What anybody gets, what the password gets, and then the user's own requests alone.
        let own = agents(&site)
            .iter()
            .filter(|agent| *agent == "mapigate-login")
            .count();
        assert_eq!((own, agents(&site).len()), (2, 5), "{flavour:?}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_refused_here_and_nothing_of_the_request_reaches_a_server() {
    let site = start(knowing(Flavour::Exchange)).await;

    for _ in 0..5 {
        let answer = ask(&site, &ping(1, "guess")).await;
        assert_eq!(answer.head.status, 401);
        assert!(
            answer
                .head
                .all("WWW-Authenticate")
                .any(|c| c.starts_with("Basic "))
        );
    }

    assert_eq!(wrong(&site), 1);
    assert!(agents(&site).iter().all(|agent| agent == "mapigate-login"));
    let log = std::fs::read_to_string(site.folder().join("mapigate.log")).unwrap();
    assert!(!log.contains("guess"));
}

#[tokio::test]
async fn the_guard_keeps_guesses_from_the_server() {
    let site = start(knowing(Flavour::Gromox)).await;
    for number in 0..20 {
        let guess = format!("guess {number}");
        assert_eq!(ask(&site, &ping(1, &guess)).await.head.status, 401);
    }

    assert_eq!(wrong(&site), 3);
    // Nobody else is disturbed.
    assert_eq!(ask(&site, &ping(2, PASSWORD)).await.head.status, 200);
}

#[tokio::test]
async fn many_requests_with_one_new_password_ask_the_server_once() {
    let site = start(knowing(Flavour::Exchange)).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let target = site.target().unwrap();
        tasks.spawn(async move {
            let mut line = line(&target).await;
            line.ask(&ping(1, PASSWORD)).await.unwrap().head.status
        });
    }

    while let Some(status) = tasks.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }

    let own = agents(&site).into_iter();
    assert_eq!(own.filter(|agent| agent == "mapigate-login").count(), 2);
}

#[tokio::test]
async fn while_no_server_answers_a_new_login_gets_503_and_a_known_one_keeps_its_password() {
    let mut site = start(knowing(Flavour::Exchange)).await;
    assert_eq!(ask(&site, &ping(1, PASSWORD)).await.head.status, 200);
    for name in ["MBX1", "MBX2"] {
        site.kill_server(name).await.unwrap();
    }

    let known = ask(&site, &ping(1, PASSWORD)).await;
    let new = ask(&site, &ping(2, PASSWORD)).await;

    // Neither is told that the password is wrong.
    assert_eq!((known.head.status, new.head.status), (503, 503));
    let busy = "mapigate_auth_total{outcome=\"busy\",scheme=\"basic\"}";
    assert_eq!(metric(&site, busy).await, 1.0);
    eventually("the reason in the log", || async {
        let lines = site.access_lines().unwrap();
        let refused = lines.iter().find(|line| line["refusal"] == "unjudged");
        refused.is_some_and(|line| {
            line["why"]
                .to_string()
                .contains("password not judged: the mailbox server")
        })
    })
    .await;
}
