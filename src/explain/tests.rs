#![expect(clippy::disallowed_methods, reason = "tests begin somewhere in time")]

use super::*;
use crate::config;
use crate::ids::DatabaseName;
use crate::ldap::{Asked, people_of_tests};
use crate::placement::{Copies, Held, Holder, Reading};
use std::path::Path;
use std::time::SystemTime;

mod directories;

const CONFIG: &str = "\
version: 1
listeners:
  - { address: '127.0.0.1:8080', plain_http: true }
names:
  - host: mail.contoso.test
    external_url: https://outside.contoso.test/mapi
    authentication: [basic]
  - { host: old.contoso.test, autodiscover: off }
servers:
  MBX1: { address: '127.0.0.1:1', tls: off }
  MBX2: { address: '127.0.0.1:2', tls: off, version: 14.3.123.4, url_name: old.contoso.test }
databases:
  DB1: { copies: [MBX1, MBX2] }
  DB2: { copies: [MBX1, MBX2], active: MBX2 }
directory: { file: mailboxes.yaml, default_databases: { fabrikam.test: DB1 } }
autodiscover: { internal_networks: [10.0.0.0/8], block_external: true, redirects: { elsewhere.test: https://autodiscover.elsewhere.test/autodiscover/autodiscover.xml } }
auth: { basic: { password_file: users.htpasswd, default_domain: contoso.test } }
sessions: { route_cookie: { enabled: false } }
";

const MAILBOXES: &str = "\
mailboxes:
  - { id: 00000000-0000-4000-8000-000000000001@contoso.test, addresses: [alice@contoso.test], database: DB1, display_name: Alice }
  - { id: 00000000-0000-4000-8000-000000000002@contoso.test, addresses: [bob@contoso.test], logins: [rob], database: DB2 }
  - { id: 00000000-0000-4000-8000-000000000003@contoso.test, addresses: [carol@contoso.test], database: DB1, mapi_http: false, access: listed }
";

fn world(folder: &Path) -> Snapshot {
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("mailboxes.yaml", MAILBOXES);
    let hash = bcrypt::hash("secret", 4).unwrap();
    write("users.htpasswd", &format!("alice@contoso.test:{hash}\n"));
    write("mapigate.yaml", CONFIG);
    let loaded = config::load(&folder.join("mapigate.yaml"), 1_800_000_000);
    Snapshot::build(loaded.unwrap().settings, None).unwrap()
}

fn told(question: &Question) -> Explanation {
    let folder = tempfile::tempdir().unwrap();
    let world = world(folder.path());
    explained(
        &world,
        question,
        Health::Watched,
        &Findings::default(),
        Instant::now(),
    )
    .unwrap()
}

fn about(subject: &str) -> Explanation {
    told(&Question::about(subject))
}

/// Words and reason of a topic, in one text.
fn fact(explanation: &Explanation, topic: &str) -> String {
    match explanation.of(topic) {
        Some(fact) => format!(
            "{} | {}",
            fact.words,
            fact.why.as_deref().unwrap_or_default()
        ),
        None => panic!("no {topic}: {}", explanation.text()),
    }
}

#[test]
fn a_user_is_followed_from_the_name_to_the_limits() {
    let told = about("alice");

    assert!(told.is_served, "{}", told.text());
    for (topic, words) in [
        ("name", "mail.contoso.test | the first under `names`"),
        ("path", "/mapi/emsmdb/: mailboxes"),
        ("authentication", "basic | `names[].authentication`"),
        ("user", "alice@contoso.test | a password file has the name"),
        (
            "mailbox",
            "00000000-0000-4000-8000-000000000001@contoso.test, Alice | the mailbox file",
        ),
        ("access", "the mailbox server decides"),
        ("database", "DB1"),
        (
            "copies",
            "on MBX1, MBX2; active on MBX1 | `databases` says so",
        ),
        (
            "server",
            "MBX1 at 127.0.0.1:1, exchange | it holds the active copy; up",
        ),
        ("route", "a new session goes to MBX1"),
        ("autodiscover", "the mailbox server answers"),
        ("offer", "MAPI over HTTP (version 1)"),
        ("urls", "https://mail.contoso.test/mapi"),
        ("hand-off", "the same credential"),
        ("limits", "64 requests of a user at once, 10000 at MBX1"),
    ] {
        let fact = fact(&told, topic);
        assert!(fact.contains(words), "{topic}: {fact}");
    }
}

#[test]
fn a_mailbox_and_its_url_lead_to_the_same_server() {
    let id = "00000000-0000-4000-8000-000000000001@contoso.test";
    let mailbox = about(id);
    let url = about(&format!(
        "https://mail.contoso.test/mapi/NSPI/?MailboxId={id}"
    ));

    assert!(mailbox.is_served && url.is_served);
    assert_eq!(fact(&mailbox, "server"), fact(&url, "server"));
    assert!(fact(&url, "path").starts_with("/mapi/nspi/: the address book"));
}

#[test]
fn what_is_refused_is_told_with_what_the_client_gets_and_what_to_do() {
    for (subject, topic, words) in [
        (
            "https://other.test/mapi/emsmdb/",
            "name",
            ["HTTP 421", "add it to `names`"],
        ),
        (
            "https://mial.contoso.test/mapi/emsmdb/",
            "name",
            ["HTTP 421", "did you mean mail.contoso.test"],
        ),
        (
            "/owa/../mapi/emsmdb/",
            "path",
            [
                "HTTP 404, X-ResponseCode 3",
                "there is no `virtual_directories`",
            ],
        ),
        (
            "/mapi/emsmdb/?MailboxId=nonsense",
            "path",
            ["HTTP 400", "/mapi/emsmdb/"],
        ),
        (
            "alicia@contoso.test",
            "mailbox",
            ["HTTP 404", "did you mean alice@contoso.test"],
        ),
        (
            "00000000-0000-4000-8000-000000000009@contoso.test",
            "mailbox",
            ["There is no such mailbox", "did you mean 00000000-"],
        ),
        (
            "bob@contoso.test",
            "route",
            ["server MBX2 is not capable", "X-ResponseCode 16"],
        ),
        (
            "https://old.contoso.test/autodiscover/autodiscover.xml",
            "autodiscover",
            ["HTTP 404", "autodiscover.mode is off"],
        ),
    ] {
        let told = about(subject);
        let fact = fact(&told, topic);
        assert!(!told.is_served, "{subject}: {}", told.text());
        assert!(
            words.iter().all(|words| fact.contains(words)),
            "{subject}: {fact}"
        );
    }
}

#[test]
fn every_condition_of_the_offer_is_told() {
    let ask = |subject, client, from| {
        let typed = Typed {
            subject,
            client,
            from,
            ..Typed::default()
        };
        told(&Question::read(typed).unwrap())
    };
    for (subject, client, from, offer) in [
        (
            "alice",
            None,
            None,
            "MAPI over HTTP (version 1), Outlook Anywhere to those who do not read that, by internal URLs only | the client is an Outlook of today; autodiscover.mapi_http is on; MBX1 speaks MAPI over HTTP; autodiscover.block_external is on",
        ),
        (
            "alice",
            Some("14.0.7113.5000"),
            None,
            "Outlook Anywhere, by internal URLs only | no MAPI over HTTP, because the client is Outlook 14.0.7113.5000, which does not send X-MapiHttpCapability",
        ),
        (
            "alice",
            None,
            Some("192.0.2.1"),
            "no way to connect, by internal URLs only",
        ),
        ("alice", None, Some("10.1.2.3"), "the client is inside"),
        (
            "carol",
            None,
            None,
            "the mailbox' own `mapi_http` is off, whatever the organisation's is",
        ),
    ] {
        let fact = fact(&ask(subject, client, from), "offer");
        assert!(
            fact.contains(offer),
            "{subject} {client:?} {from:?}: {fact}"
        );
    }
    assert!(fact(&about("carol"), "access").starts_with("its owner and those who are listed"));
}

#[test]
fn a_server_with_a_name_of_its_own_is_told_by_that() {
    let here = about("alice");
    assert!(here.of("other name").is_none(), "{}", here.text());

    let there = about("bob");
    let other = fact(&there, "other name");
    let words = "old.contoso.test: Autodiscover tells its URLs | servers.MBX2.url_name";
    assert_eq!(other, words);
    assert!(fact(&there, "urls").starts_with("https://old.contoso.test/mapi "));
}

#[test]
fn a_domain_may_have_a_default_database_or_be_sent_elsewhere() {
    let by_default = about("dave@fabrikam.test");
    assert!(fact(&by_default, "mailbox").contains("default database"));
    assert!(by_default.is_served);

    let elsewhere = about("erin@elsewhere.test");
    assert!(!elsewhere.is_served, "her mailbox is not here");
}

#[test]
fn nothing_is_said_of_health_that_nobody_has_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(folder.path());
    let question = Question::about("alice");
    let told = explained(
        &world,
        &question,
        Health::Unknown,
        &Findings::default(),
        Instant::now(),
    )
    .unwrap();

    assert!(fact(&told, "server").contains("health unknown"));
}

#[test]
fn the_text_has_every_fact_and_no_line_is_too_long() {
    let told = about("alice");
    let text = told.text();

    assert!(
        text.starts_with("alice\n\n  name           mail.contoso.test\n"),
        "{text}"
    );
    for fact in &told.facts {
        assert!(text.contains(&format!("\n  {:<15}", fact.topic)), "{text}");
    }
    assert!(text.lines().all(|line| line.len() <= 110), "{text}");
}

/// alice, whose mailbox a directory service has in `database`, where it tells of these copies.
fn told_by_directory(database: &str, copies: &[(&str, &[&str])]) -> Explanation {
    let folder = tempfile::tempdir().unwrap();
    let (before, rest) = CONFIG.split_once("databases:").unwrap();
    let (_, after) = rest.split_once("autodiscover:").unwrap();
    let ldap =
        "{ urls: ['ldap://127.0.0.1:1'], bind_name: svc, bind_password: secret, base: DC=x }";
    let config = format!(
        "{before}databases:\n  copies_from: directory\n  DB2: {{ active: MBX2 }}\n\
         directory: {{ ldap: {ldap} }}\nautodiscover:{after}"
    );
    let hash = bcrypt::hash("secret", 4).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("users.htpasswd", &format!("alice@contoso.test:{hash}\n"));
    write("mapigate.yaml", &config);
    let loaded = config::load(&folder.path().join("mapigate.yaml"), 1_800_000_000);
    let loaded = loaded.map_err(|problems| problems.to_string()).unwrap();
    let holder = |name: &&str| Holder {
        name: (*name).to_owned(),
        host: None,
    };
    let row = |(name, holders): &(&str, &[&str])| {
        let holders = holders.iter().map(holder).collect();
        (DatabaseName::new(*name), Held::By(holders))
    };
    let copies = Copies(copies.iter().map(row).collect());
    let reading = Reading::default().after(Ok(copies), SystemTime::UNIX_EPOCH);
    let world = Snapshot::build(loaded.settings, None)
        .unwrap()
        .told(reading);
    let alice = people_of_tests::entry(&[
        ("userPrincipalName", "alice@contoso.test"),
        ("objectGUID", "object-of-alice!"),
        ("msExchMailboxGuid", "0123456789abcdef"),
        ("homeMDB", &format!("CN={database},CN=Databases")),
        ("msExchRecipientTypeDetails", "1"),
    ]);
    let now = Instant::now();
    let book = world.book.as_ref().unwrap();
    assert!(book.told(Asked::User("alice@contoso.test"), &[alice], now));
    let (question, findings) = (Question::about("alice"), Findings::default());
    explained(&world, &question, Health::Watched, &findings, now).unwrap()
}

#[test]
fn who_says_where_copies_are_and_which_is_active_is_told() {
    let copies: &[(&str, &[&str])] = &[("DB1", &["MBX1", "MBX2"]), ("DB2", &["MBX1", "MBX2"])];

    let told = told_by_directory("DB1", copies);
    assert_eq!(
        fact(&told, "copies"),
        "on MBX1, MBX2; active on MBX1 | the directory says so (databases.copies_from), and nobody which is active: \
         the first is taken to be; placement epoch 2"
    );
    let told = told_by_directory("DB2", copies);
    assert_eq!(
        fact(&told, "copies"),
        "on MBX1, MBX2; active on MBX2 | the directory says so (databases.copies_from), and `databases` which is \
         active; placement epoch 2"
    );
}

#[test]
fn why_a_database_of_the_directory_has_no_home_is_told() {
    let nothing: &[(&str, &[&str])] = &[("DB9", &["MBX1"])];
    for (copies, words) in [
        (
            &[("DB1", &["EX8"][..])][..],
            "none of its copies is on a server of the configuration",
        ),
        (nothing, "neither the directory nor the configuration knows"),
        (&[], "the directory has not told yet where its copies are"),
    ] {
        let told = told_by_directory("DB1", copies);

        assert!(!told.is_served);
        let fact = fact(&told, "database");
        assert!(fact.contains(words), "{fact}");
    }
    let elsewhere = told_by_directory("DB1", &[("DB1", &["EX8"])]);
    let fact = fact(&elsewhere, "database");
    let difference = "a copy of DB1 is on EX8, which is not in `servers`; no copy of DB1 is on";
    assert!(fact.contains(difference), "{fact}");
}
