//! Recorded conversations pass through mapigate as they were, but for what it says it changes.

use crate::captures::exchange::{self, Recorded};
use crate::captures::judge::{Door, expected, public_url};
use crate::captures::replay::{self, DOMAIN, PASSWORD, Replay, USERS, request};
use crate::rig::Puppet;
use crate::support::{TestSite, line, start_in};
use mapigate::lab::site::{DATABASE, HOST, Plan};
use mapigate::mapi::Flavour;
use mapigate::mapi::bodies::nspi::UrlSuccess;
use mapigate::mapi::bodies::{Answer, Body as _, wide};
use std::collections::HashMap;

/// A site in front of the server of the recordings, with its users.
async fn site(plan: Plan) -> TestSite {
    let folder = tempfile::tempdir().unwrap();
    let hash = bcrypt::hash(PASSWORD, 4).unwrap();
    let lines: String = USERS
        .iter()
        .map(|user| format!("{user}@{DOMAIN}:{hash}\n"))
        .collect();
    std::fs::write(folder.path().join("recorded.htpasswd"), lines).unwrap();
    let auth = "{ basic: { password_file: recorded.htpasswd } }";
    let directory = format!("{{ default_databases: {{ {DOMAIN}: {DATABASE} }} }}");
    let plan = plan.section("auth", auth).section("directory", &directory);
    start_in(folder, plan).await
}

async fn passes(all: &[Recorded], normalizes: bool) {
    let mut plan = Plan::new(Flavour::Gromox, &["MBX1"]);
    plan.servers = vec![replay::options("MBX1")];
    plan.server_keys = format!("normalize: {normalizes}");
    let site = site(plan).await;
    let server = site.server("MBX1").unwrap();
    let door = Door::Mapigate { normalizes };
    let replay = Replay::new(server, site.target().unwrap(), door).await;
    replay.run(all).await;
}

#[tokio::test]
async fn the_first_conversation_passes_with_the_servers_own_codes() {
    passes(&exchange::gromox(), false).await;
}

#[tokio::test]
async fn the_first_conversation_passes_in_the_numbers_of_the_specification() {
    passes(&exchange::gromox(), true).await;
}

#[tokio::test]
async fn recorded_waits_are_held_through_mapigate() {
    passes(&exchange::gromox_wait(), false).await;
}

#[tokio::test]
async fn what_a_library_recorded_passes() {
    passes(&exchange::mapi_client(), false).await;
}

/// The server says what was recorded, byte by byte, and the client must get just that.
async fn every_byte_passes(all: Vec<Recorded>, normalizes: bool) {
    let puppet = Puppet::new().await;
    let mut plan = puppet
        .plan(&format!(", normalize: {normalizes}"))
        .section("sessions", "{ route_cookie: { enabled: false } }");
    let servers = plan.sections.get_mut("servers").unwrap();
    *servers = servers.replace("flavour: exchange", "flavour: gromox");
    let site = site(plan).await;
    let mut line = line(&site.target().unwrap()).await;
    let mut passed = 0;
    for recorded in all {
        if recorded.status.contains(" 401 ") || recorded.code() == Some(GROMOX_FOREIGN) {
            continue; // mapigate's own refusals
        }
        let unchanged = HashMap::new();
        let bytes = request(&recorded, HOST, &unchanged, &unchanged);
        let server = async {
            let mut asked = puppet.asked().await;
            asked.whole().await;
            same_request(&recorded, &asked.head, &asked.body);
            asked.say(&raw(&recorded)).await;
        };
        let (answer, ()) = tokio::join!(line.ask(&bytes), server);

        let name = &recorded.name;
        let answer = answer.unwrap();
        let head = expected(&recorded, Door::Mapigate { normalizes });
        assert_eq!(answer.head.headers, head, "{name}");
        if !recorded.wire.is_empty() {
            assert_eq!(answer.pieces, passed_on(&recorded), "{name}");
        }
        passed += 1;
    }
    assert!(passed > 20, "{passed}");
}

/// The chunks a client gets: those of the server, but for the URL that names it.
fn passed_on(recorded: &Recorded) -> Vec<Vec<u8>> {
    let mut pieces = recorded.pieces();
    if matches!(recorded.kind(), "GetMailboxUrl" | "GetAddressBookUrl") {
        let last = pieces.last_mut().unwrap();
        let Answer::Success(mut answer) = Answer::<UrlSuccess>::decode(last).unwrap() else {
            panic!("{}", recorded.name);
        };
        answer.url = wide(&public_url(&answer.url.to_string()));
        *last = Answer::Success(answer).encode();
    }
    pieces
}

/// What was recorded on the wire. A page of HTML that was not kept is as long as it was.
fn raw(recorded: &Recorded) -> Vec<u8> {
    let mut head = format!("{}\r\n", recorded.status);
    for (name, value) in &recorded.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let length = recorded.answered("Content-Length").unwrap_or("0");
    let body = match recorded.wire.is_empty() {
        true => vec![b' '; length.parse().unwrap()],
        false => recorded.wire.clone(),
    };
    [head.as_bytes(), &body].concat()
}

/// The server was asked what the client asked, its header lines in their order.
fn same_request(recorded: &Recorded, head: &str, body: &[u8]) {
    let name = &recorded.name;
    assert_eq!(body, recorded.body, "{name}");
    let mut lines = head.lines();
    for wanted in &recorded.request {
        if !wanted.starts_with("Host: ") {
            assert!(
                lines.any(|line| line == wanted),
                "{name}: {wanted} in {head}"
            );
        }
    }
}

#[tokio::test]
async fn a_recorded_conversation_passes_byte_by_byte() {
    every_byte_passes(exchange::gromox(), false).await;
    every_byte_passes(exchange::gromox_wait(), false).await;
}

#[tokio::test]
async fn of_a_recorded_conversation_only_codes_and_echoes_are_changed() {
    every_byte_passes(exchange::gromox(), true).await;
}

/// gromox' number for a context that is another user's.
const GROMOX_FOREIGN: u32 = 4;
