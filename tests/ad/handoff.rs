//! Tickets in users' names: the mailbox server sees the user whom the KDC let us act for, or nobody.

use crate::lab::{DOMAIN, Lab, PASSWORD as LAB_PASSWORD};
use crate::site::{PROGRAM, up};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mapigate::ids::UserName;
use mapigate::lab::Authority;
use mapigate::lab::identity_provider::{IdentityProvider, Options};
use mapigate::lab::mailbox_server::{Authenticate, Told};
use mapigate::lab::outlook::wire::{Answer, Line};
use mapigate::lab::site::{HOST, PASSWORD, Plan, Site, mailbox, user};
use mapigate::mapi::Flavour;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const USERS: usize = 50;
const LINES: usize = 20;
const REQUESTS: usize = 10_000;
/// The number of alice's mailbox.
const ALICE: usize = 900;

/// Servers that take tickets, and mapigate with the key that may ask for them.
pub(crate) fn plan(lab: &Lab, kerberos: &str) -> Plan {
    let mut plan = Plan::new(Flavour::Exchange, &["MBX1", "MBX2"])
        .each(|server| {
            server.told = Told::Tickets(lab.path("mbx.keytab"));
            server.authenticate = Authenticate::FirstOfConnection;
            let owners = (1..=USERS).map(|number| (mailbox(number), UserName::new(user(number))));
            server.owners = owners.collect();
        })
        .section(
            "backend_identity",
            &format!(
                "{{ mode: kerberos, kerberos: {{ client_keytab: {}, account: svc-mail@CONTOSO.TEST, \
                 service: 'HTTP/{{server}}.contoso.test'{kerberos} }} }}",
                lab.path("mail.keytab").display()
            ),
        );
    plan.users = USERS;
    plan.environment = vec![lab.environment()];
    plan
}

/// Accounts of the lab's users, where they are not there yet. Nobody logs on as them.
pub(crate) fn enrol(lab: &Lab) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| add_users(lab));
}

fn add_users(lab: &Lab) {
    let mut ldif = String::new();
    for number in 1..=USERS {
        ldif.push_str(&format!(
            "dn: CN=user{number},CN=Users,DC=contoso,DC=test\nobjectClass: user\n\
             sAMAccountName: user{number}\nuserPrincipalName: user{number}@{DOMAIN}\n\
             userAccountControl: 66080\n\n"
        ));
    }
    let database = lab.path("private/sam.ldb");
    for entry in ldif.split_inclusive("\n\n") {
        let mut child = Command::new("ldbadd")
            .arg("-H")
            .arg(&database)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ldbadd is needed");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(entry.as_bytes()).unwrap();
        drop(stdin);
        // Failing means that it is there already.
        let _there = child.wait().unwrap();
    }
}

pub(crate) async fn start(plan: Plan) -> (Site, TempDir) {
    start_in(tempfile::tempdir().unwrap(), plan).await
}

pub(crate) async fn start_in(folder: TempDir, plan: Plan) -> (Site, TempDir) {
    let site = up(Path::new(PROGRAM), folder.path(), plan).await;
    (site, folder)
}

pub(crate) async fn line(site: &Site) -> Line {
    Line::connect(&site.target().unwrap()).await.unwrap()
}

fn ping(mailbox: &str, authorization: &str) -> Vec<u8> {
    format!(
        "POST /mapi/emsmdb/?MailboxId={mailbox} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {authorization}\r\n\
         X-RequestType: PING\r\nX-RequestId: {{00000000-0000-4000-8000-000000000000}}:1\r\n\
         X-ClientInfo: {{1}}:1\r\nX-ClientApplication: Outlook/16.0.0.0\r\n\
         Content-Type: application/mapi-http\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

pub(crate) fn of(number: usize) -> Vec<u8> {
    let basic = STANDARD.encode(format!("{}:{PASSWORD}", user(number)));
    ping(&mailbox(number), &format!("Basic {basic}"))
}

pub(crate) async fn ask(site: &Site, bytes: &[u8]) -> Answer {
    line(site).await.ask(bytes).await.unwrap()
}

/// Requests of fifty users in turn on twenty connections: answered, and crossed over.
async fn interleave(site: &Site, requests: usize) -> (usize, u64) {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..LINES {
        let mut line = line(site).await;
        let mut random = fastrand::Rng::with_seed(number as u64);
        tasks.spawn(async move {
            let mut answered = 0;
            for _ in 0..requests / LINES {
                let answer = line.ask(&of(random.usize(1..=USERS))).await.unwrap();
                answered += usize::from(answer.head.status == 200);
            }
            answered
        });
    }
    let mut answered = 0;
    while let Some(done) = tasks.join_next().await {
        answered += done.unwrap();
    }
    let crossed = site.servers().map(|server| server.counters().crossed).sum();
    (answered, crossed)
}

pub(crate) async fn metric(site: &Site, sample: &str) -> f64 {
    site.gate().unwrap().admin().metric(sample).await.unwrap()
}

/// The reason in the last access line.
pub(crate) async fn why(site: &Site) -> String {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let lines = site.access_lines().unwrap();
        if let Some(why) = lines.last().and_then(|line| line["why"].as_str()) {
            return why.to_owned();
        }
        assert!(
            Instant::now() < until,
            "no reason in the access log: {lines:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn fifty_users_on_twenty_connections_never_cross_with_a_ticket_for_each_connection() {
    let lab = Lab::find();
    enrol(&lab);
    let (site, _folder) = start(plan(&lab, "")).await;

    assert_eq!(interleave(&site, REQUESTS).await, (REQUESTS, 0));

    assert_eq!(
        metric(&site, "mapigate_identity_fence_trips_total").await,
        0.0
    );
    let made = metric(&site, "mapigate_delegation_tickets_total{outcome=\"made\"}").await;
    let connections = site.server("MBX1").unwrap().counters().connections;
    eprintln!("{made} tickets, {connections} connections for {REQUESTS} requests");
    assert!(made < 1000.0, "{made}");
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn fifty_users_on_twenty_connections_never_cross_with_a_ticket_for_each_request() {
    let lab = Lab::find();
    enrol(&lab);
    let each = plan(&lab, ", token_per: request").each(|server| {
        server.authenticate = Authenticate::Requests;
    });
    let (site, _folder) = start(each).await;

    assert_eq!(interleave(&site, REQUESTS).await, (REQUESTS, 0));

    let made = metric(&site, "mapigate_delegation_tickets_total{outcome=\"made\"}").await;
    assert_eq!(made, REQUESTS as f64);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn with_the_fence_taken_away_users_cross_with_tickets() {
    let lab = Lab::find();
    enrol(&lab);
    let mut bare = plan(&lab, "");
    bare.environment
        .push(("MAPIGATE_TEST_WITHOUT".to_owned(), "fence".to_owned()));
    let (site, _folder) = start(bare).await;

    let (_, crossed) = interleave(&site, 1000).await;

    assert!(crossed > 100, "{crossed}");
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn with_the_lanes_taken_away_the_fence_keeps_tickets_apart() {
    let lab = Lab::find();
    enrol(&lab);
    let mut bare = plan(&lab, "");
    bare.environment
        .push(("MAPIGATE_TEST_WITHOUT".to_owned(), "lanes".to_owned()));
    let (site, _folder) = start(bare).await;

    assert_eq!(interleave(&site, 1000).await, (1000, 0));
    assert!(metric(&site, "mapigate_identity_fence_trips_total").await > 100.0);
}

/// A site whose users come with tokens, and who signs them.
async fn tokened(lab: &Lab, kerberos: &str) -> (Site, TempDir, IdentityProvider) {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("identity").unwrap();
    std::fs::write(folder.path().join("id-ca.pem"), authority.certificate()).unwrap();
    let provider = IdentityProvider::spawn(Options {
        tls: Some(authority.server_config(&["127.0.0.1"]).unwrap()),
        ..Options::default()
    })
    .await
    .unwrap();
    let plan = plan(lab, kerberos)
        .each(|server| {
            let alice = UserName::new(format!("alice@{DOMAIN}"));
            server.owners.insert(mailbox(ALICE), alice);
        })
        .section(
            "names",
            &format!("[{{ host: {HOST}, authentication: [bearer] }}]"),
        )
        .section(
            "auth",
            &format!(
                "{{ bearer: {{ issuers: [{{ issuer: '{}', ca: id-ca.pem, \
                 audiences: ['https://mail.contoso.test/'], domains: [{DOMAIN}] }}] }} }}",
                provider.issuer()
            ),
        )
        .section("directory", "{ default_databases: { contoso.test: DB07 } }");
    let (site, folder) = start_in(folder, plan).await;
    (site, folder, provider)
}

/// The answer to a user with a token, whatever the name.
async fn with_token(site: &Site, provider: &IdentityProvider, name: &str) -> Answer {
    let token = provider.token(&format!("{name}@{DOMAIN}")).unwrap();
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let answer = ask(site, &ping(&mailbox(ALICE), &format!("Bearer {token}"))).await;
        // The provider's keys may not be here yet.
        if answer.head.status != 401 || Instant::now() > until {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn who_comes_with_a_token_of_a_provider_is_shown_to_the_server_by_a_ticket() {
    let lab = Lab::find();
    let (site, _folder, provider) = tokened(&lab, "").await;

    let answer = with_token(&site, &provider, "alice").await;

    assert_eq!(answer.head.status, 200);
    let server = site.server("MBX1").unwrap();
    let head = String::from_utf8(server.heads().pop().unwrap()).unwrap();
    assert!(
        head.contains("Authorization: Negotiate YI") && !head.contains("Bearer"),
        "{head}"
    );
    // The server read the name out of the ticket and found it to be the mailbox's owner.
    assert_eq!(
        (server.counters().crossed, server.counters().wrong_passwords),
        (0, 0)
    );
    assert_eq!(answer.head.all("www-authenticate").count(), 0);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_user_who_must_not_be_delegated_is_answered_403_with_the_reason_in_the_log() {
    let lab = Lab::find();
    let sensitive = lab.user(LAB_PASSWORD);
    lab.tool(&["user", "sensitive", &sensitive.name, "on"]);
    let (site, _folder, provider) = tokened(&lab, "").await;

    let answer = with_token(&site, &provider, &sensitive.name).await;

    assert_eq!(answer.head.status, 403);
    assert_eq!(
        answer.code(),
        Some(mapigate::mapi::ResponseCode::NO_PRIVILEGE.0)
    );
    let reason = why(&site).await;
    assert!(
        reason.contains("not handed on") && reason.contains("KDC"),
        "{reason}"
    );
    assert_eq!(
        metric(
            &site,
            "mapigate_delegation_tickets_total{outcome=\"refused\"}"
        )
        .await,
        1.0
    );
    // Nobody else is disturbed, and nobody reached the server in this name.
    assert_eq!(with_token(&site, &provider, "alice").await.head.status, 200);
    assert_eq!(site.server("MBX1").unwrap().counters().requests, 1);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_user_whom_the_directory_does_not_know_is_answered_403() {
    let lab = Lab::find();
    let (site, _folder, provider) = tokened(&lab, "").await;

    assert_eq!(
        with_token(&site, &provider, "nobody-at-all")
            .await
            .head
            .status,
        403
    );
    let reason = why(&site).await;
    assert!(reason.contains("Client not found"), "{reason}");
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_server_we_may_not_delegate_to_is_answered_403() {
    let lab = Lab::find();
    enrol(&lab);
    let mut wrong = plan(&lab, "");
    let identity = wrong.sections.get_mut("backend_identity").unwrap();
    *identity = identity.replace("HTTP/{server}.contoso.test", "cifs/dc1.contoso.test");
    let (site, _folder) = start(wrong).await;

    assert_eq!(ask(&site, &of(1)).await.head.status, 403);
    let reason = why(&site).await;
    assert!(reason.contains("fulfill requested option"), "{reason}");
}

/// The lab's Kerberos configuration with another address of the KDC.
pub(crate) fn kdc_at(lab: &Lab, folder: &TempDir, port: u16) -> (String, String) {
    let text = std::fs::read_to_string(lab.path("krb5.conf")).unwrap();
    let mut moved = String::new();
    for line in text.lines() {
        let is_kdc = line.trim_start().starts_with("kdc =");
        moved.push_str(if is_kdc { "" } else { line });
        moved.push('\n');
        if is_kdc {
            moved.push_str(&format!("    kdc = 127.0.0.1:{port}\n"));
        }
    }
    let path = folder.path().join("krb5.conf");
    std::fs::write(&path, moved).unwrap();
    ("KRB5_CONFIG".to_owned(), path.display().to_string())
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_kdc_that_is_down_is_answered_503_with_the_reason_in_the_log() {
    let lab = Lab::find();
    let folder = tempfile::tempdir().unwrap();
    let mut down = plan(&lab, "");
    down.environment = vec![kdc_at(&lab, &folder, 9)];
    let (site, _folder) = start(down).await;

    let answer = ask(&site, &of(1)).await;

    assert_eq!(answer.head.status, 503);
    assert!(answer.head.all("retry-after").next().is_some());
    let reason = why(&site).await;
    assert!(
        reason.contains("no ticket for the server: ticket of our own account"),
        "{reason}"
    );
    let asked = "mapigate_delegation_tickets_total{outcome=\"unavailable\"}";
    assert_eq!(metric(&site, asked).await, 1.0);
    assert_eq!(site.server("MBX1").unwrap().counters().requests, 0);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_kdc_that_says_nothing_keeps_nobody_waiting_longer_than_told() {
    let lab = Lab::find();
    let folder = tempfile::tempdir().unwrap();
    // Connections are taken by the kernel, and nobody reads them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut mute = plan(&lab, ", timeout: 500ms");
    mute.environment = vec![kdc_at(&lab, &folder, silent.local_addr().unwrap().port())];
    let (site, _folder) = start(mute).await;
    let began = Instant::now();

    assert_eq!(ask(&site, &of(1)).await.head.status, 503);

    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    let reason = why(&site).await;
    assert!(reason.contains("no ticket within 500ms"), "{reason}");
}
