//! The other virtual directories and Outlook Anywhere.

use super::*;

const CONFIG: &str = "\
version: 1
listeners:
  - { address: '127.0.0.1:8080', plain_http: true }
names:
  - host: mail.contoso.test
  - { host: eu.contoso.test, http2: true }
servers:
  MBX1: { address: '127.0.0.1:1', tls: off }
  MBX2: { address: '127.0.0.1:2', tls: off, url_name: eu.contoso.test }
  MBX3: { address: '127.0.0.1:3', tls: off, capability: [mapi_http] }
databases:
  DB1: { copies: [MBX1, MBX2] }
  DB2: { copies: [MBX2] }
  DB3: { copies: [MBX3] }
directory: { file: mailboxes.yaml, default_databases: { fabrikam.test: DB1 } }
autodiscover: { internal_networks: [10.0.0.0/8] }
auth: { basic: { password_file: users.htpasswd, default_domain: contoso.test } }
sessions: { route_cookie: { enabled: false } }
";

const MAILBOXES: &str = "\
mailboxes:
  - { id: 00000000-0000-4000-8000-000000000001@contoso.test, addresses: [alice@contoso.test], database: DB1, display_name: Alice }
  - { id: 00000000-0000-4000-8000-000000000002@contoso.test, addresses: [bob@contoso.test], database: DB2 }
  - { id: 00000000-0000-4000-8000-000000000003@contoso.test, addresses: [carol@contoso.test], database: DB1, access: listed }
  - { id: 00000000-0000-4000-8000-000000000004@contoso.test, addresses: [dave@contoso.test], database: DB3 }
";

const DIRECTORIES: &str = "virtual_directories: { preset: exchange2019, paths: [{ path: /api, from: off }, { path: /owa, authentication: [server] }, \
                           { path: /ews, anchor: [path, header], authentication: [basic] }, { path: /ecp, anchor: [] }] }\n";

/// What is told of a subject at a site with these directories, to somebody who says more.
fn told_of(directories: &str, typed: Typed<'_>) -> Explanation {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("mailboxes.yaml", MAILBOXES);
    let hash = bcrypt::hash("secret", 4).unwrap();
    write("users.htpasswd", &format!("alice@contoso.test:{hash}\n"));
    write("mapigate.yaml", &format!("{CONFIG}{directories}"));
    let loaded = config::load(&folder.path().join("mapigate.yaml"), 1_800_000_000);
    let world = Snapshot::build(loaded.unwrap().settings, None).unwrap();
    let question = Question::read(typed).unwrap();
    let findings = Findings::default();
    explained(
        &world,
        &question,
        Health::Watched,
        &findings,
        Instant::now(),
    )
    .unwrap()
}

fn of(subject: &str) -> Explanation {
    told_of(
        DIRECTORIES,
        Typed {
            subject,
            ..Typed::default()
        },
    )
}

#[test]
fn a_url_is_followed_from_its_directory_to_its_server() {
    let told = told_of(
        DIRECTORIES,
        Typed {
            subject: "https://mail.contoso.test/ews/alice@contoso.test/Exchange.asmx",
            user: Some("bob@contoso.test"),
            ..Typed::default()
        },
    );

    assert!(told.is_served, "{}", told.text());
    for (topic, words) in [
        (
            "path",
            "/ews/alice@contoso.test/Exchange.asmx: Exchange Web Services",
        ),
        ("directory", "served to clients everywhere"),
        (
            "authentication",
            "basic | virtual_directories.paths[].authentication",
        ),
        (
            "takes",
            "GET, HEAD, POST, OPTIONS; bodies of 64.0 MiB; no WebSockets",
        ),
        (
            "anchor",
            "the user's own mailbox, or that of an address in the path (explicit logon), of X-AnchorMailbox |",
        ),
        ("user", "bob@contoso.test"),
        (
            "mailbox",
            "00000000-0000-4000-8000-000000000001@contoso.test, Alice | the mailbox file",
        ),
        ("access", "the mailbox server decides"),
        ("server", "MBX1 at 127.0.0.1:1, exchange"),
        (
            "route",
            "goes to MBX1 | its /ews/healthcheck.htm answers, or it has none",
        ),
        ("hand-off", "the same credential"),
        (
            "limits",
            "31m of silence of the server; 64 requests of a user at once, 10000 at MBX1",
        ),
    ] {
        let fact = fact(&told, topic);
        assert!(fact.contains(words), "{topic}: {fact}");
    }
}

#[test]
fn whose_mailbox_it_is_is_told_as_far_as_the_url_says_it() {
    for (subject, mailbox) in [
        (
            "/ews/exchange.asmx",
            "the own one of whoever signs on | say who: --user NAME",
        ),
        (
            "/Microsoft-Server-ActiveSync?Cmd=Ping&User=alice",
            "000000000001@contoso.test, Alice",
        ),
        (
            "/ews/x@fabrikam.test/",
            "not known beforehand: the mailbox server tells its id",
        ),
        ("/oab/", "the own one of whoever signs on"),
    ] {
        let told = of(subject);
        assert!(told.is_served, "{subject}: {}", told.text());
        assert!(
            fact(&told, "mailbox").contains(mailbox),
            "{subject}: {}",
            told.text()
        );
    }
    let device = of("/Microsoft-Server-ActiveSync?Cmd=Ping&User=CONTOSO%5Calice");
    assert!(fact(&device, "device of").contains("User=CONTOSO\\alice"));
    let own = told_of(
        DIRECTORIES,
        Typed {
            subject: "/oab/",
            user: Some("alice"),
            ..Typed::default()
        },
    );
    assert!(
        fact(&own, "route").starts_with("goes to MBX1"),
        "{}",
        own.text()
    );
}

#[test]
fn what_is_refused_below_a_directory_is_told_with_the_rule() {
    for (subject, topic, words) in [
        ("/api/v2.0/me", "directory", ["HTTP 404:", "it is off"]),
        (
            "/ews/../mapi/emsmdb/",
            "path",
            ["HTTP 400", "a dot segment"],
        ),
        ("/ews//x", "path", ["an empty path segment", "two readers"]),
        (
            "/owa/auth/x.js?X-Rps-CAT=a",
            "path",
            ["query that only a front end may write", "HTTP 400"],
        ),
        (
            "/oab/alice@contoso.test/",
            "path",
            ["a byte that does not belong", "HTTP 400"],
        ),
        (
            "/ecp/alice@contoso.test/",
            "mailbox",
            ["an explicit logon is not taken here", "has no `path`"],
        ),
        (
            "/ews/nobody@contoso.test/",
            "mailbox",
            ["HTTP 404", "There is no such mailbox"],
        ),
        (
            "/elsewhere",
            "path",
            ["HTTP 404", "no such path as /elsewhere"],
        ),
    ] {
        let told = of(subject);
        let fact = fact(&told, topic);
        assert!(!told.is_served, "{subject}: {}", told.text());
        assert!(
            words.iter().all(|words| fact.contains(words)),
            "{subject}: {fact}"
        );
    }
    let typed = |subject| Typed {
        subject,
        ..Typed::default()
    };
    let without = told_of("", typed("/ews/exchange.asmx"));
    assert!(fact(&without, "path").contains("there is no `virtual_directories`"));
}

#[test]
fn a_mailbox_of_others_is_closed_to_who_is_not_listed() {
    let as_whom = |user| {
        let subject = "/ews/carol@contoso.test/";
        told_of(
            DIRECTORIES,
            Typed {
                subject,
                user,
                ..Typed::default()
            },
        )
    };

    let stranger = as_whom(Some("alice"));
    assert!(!stranger.is_served, "{}", stranger.text());
    assert!(fact(&stranger, "mailbox").contains("HTTP 403"));
    for owner in [None, Some("carol")] {
        let told = as_whom(owner);
        assert!(told.is_served, "{}", told.text());
        assert!(fact(&told, "access").starts_with("its owner and those who are listed"));
    }
}

#[test]
fn a_directory_for_clients_inside_is_not_there_for_others() {
    let from = |from| {
        let subject = "/powershell/";
        told_of(
            DIRECTORIES,
            Typed {
                subject,
                from,
                ..Typed::default()
            },
        )
    };

    let outside = from(Some("192.0.2.1"));
    assert!(!outside.is_served);
    let words = fact(&outside, "directory");
    assert!(
        words.contains("HTTP 404") && words.contains("internal_networks"),
        "{words}"
    );
    let inside = from(Some("10.1.2.3"));
    assert!(fact(&inside, "directory").starts_with("served to clients inside, as this one is"));
    assert!(fact(&from(None), "directory").contains("--from ADDRESS"));
}

#[test]
fn a_form_of_the_servers_own_leads_to_any_server() {
    let told = of("/owa/auth/logon.aspx");

    assert!(told.is_served);
    assert!(fact(&told, "authentication").contains("requests of strangers"));
    assert!(fact(&told, "route").starts_with("any server that serves it"));
    assert!(told.of("anchor").is_none());
}

#[test]
fn a_device_is_told_where_it_is_sent() {
    let device = "/Microsoft-Server-ActiveSync?User=bob";
    let there = of(device);
    let words = fact(&there, "other name");
    assert!(words.contains("HTTP 451"), "{words}");
    assert!(
        words.contains("https://eu.contoso.test/Microsoft-Server-ActiveSync"),
        "{words}"
    );
    assert!(
        words.ends_with("servers.MBX2.url_name; it keeps the new name"),
        "{words}"
    );

    let here = of(&format!("https://eu.contoso.test{device}"));
    assert!(
        here.of("other name").is_none() && here.is_served,
        "{}",
        here.text()
    );
    // Whoever uses another protocol stays.
    let web = told_of(
        DIRECTORIES,
        Typed {
            subject: "/ews/",
            user: Some("bob"),
            ..Typed::default()
        },
    );
    assert!(
        web.of("other name").is_none() && web.is_served,
        "{}",
        web.text()
    );
}

#[test]
fn of_a_user_it_is_told_under_which_name_clients_and_devices_are() {
    let bob = of("bob");
    let words = "eu.contoso.test: Autodiscover tells its URLs, and devices that come to mail.contoso.test are sent there with HTTP 451";
    assert_eq!(
        fact(&bob, "other name"),
        format!("{words} | servers.MBX2.url_name")
    );
}

#[test]
fn a_channel_of_outlook_anywhere_is_followed_to_its_server() {
    let url = |number: usize| {
        format!("/rpc/rpcproxy.dll?00000000-0000-4000-8000-{number:012x}@contoso.test:6001")
    };

    let alice = of(&url(1));
    assert!(alice.is_served, "{}", alice.text());
    assert!(fact(&alice, "route").starts_with("a new virtual connection goes to MBX1"));
    let dave = of(&url(4));
    assert!(!dave.is_served);
    assert!(fact(&dave, "route").contains("does not speak Outlook Anywhere"));
    assert!(fact(&of("/rpc/rpcproxy.dll"), "answer").contains("an echo"));
}

#[test]
fn a_health_page_is_told_as_it_would_be_answered() {
    for (subject, answer) in [
        (
            "/ews/healthcheck.htm",
            "HTTP 200 | a mailbox server that is up serves it",
        ),
        ("/rpc/healthcheck.htm", "HTTP 200"),
        ("/mapi/healthcheck.htm", "HTTP 200"),
        ("/api/healthcheck.htm", "HTTP 503 | not served here"),
    ] {
        let told = of(subject);
        assert_eq!(told.is_served, answer.starts_with("HTTP 200"), "{subject}");
        assert!(fact(&told, "answer").starts_with(answer), "{}", told.text());
    }
}

#[test]
fn where_a_name_offers_http2_it_is_told_whether_the_directory_may_be_asked_by_it() {
    let told = of("https://eu.contoso.test/ews/bob@contoso.test/Exchange.asmx");
    assert_eq!(
        fact(&told, "protocol"),
        "HTTP/2 or HTTP/1.1 | names[].http2"
    );

    let elsewhere = of("https://mail.contoso.test/ews/bob@contoso.test/Exchange.asmx");
    assert!(elsewhere.of("protocol").is_none(), "{}", elsewhere.text());
}
