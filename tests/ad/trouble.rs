//! winbind that is down or hangs, clocks that differ, tickets as large as they get: who is told what, and that nobody
//! else is disturbed.

use crate::client::{Client, negotiate, ping};
use crate::expiry::allowing;
use crate::lab::{NETBIOS, PASSWORD};
use crate::liar::element;
use crate::site::{AdSite, Got, NTLM, Offer, eventually, start, start_by};
use crate::winbind::{Between, with_sockets_in};
use std::fs;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

/// NTLM in both manners, and tickets.
fn offer() -> Offer {
    Offer {
        ntlm: Some("{ handshake_timeout: 2s, pool: 2, realm_map: { CONTOSO: contoso.test } }"),
        negotiate: "    allow_ntlm_in_spnego: true\n    threads: 2\n    handshake_timeout: 2s\n"
            .to_owned(),
        ..Offer::of("negotiate, ntlm")
    }
}

async fn ntlm(site: &AdSite) -> Got {
    site.ntlm(&format!("{NETBIOS}\\alice:{PASSWORD}"), 1).await
}

/// NTLM inside of Negotiate.
async fn inside(site: &AdSite) -> Got {
    let file = site.folder().join("ntlm.user").display().to_string();
    fs::write(&file, format!("{NETBIOS}:alice:{PASSWORD}\n")).unwrap();
    let environment = [("NTLM_USER_FILE", file.as_str())];
    site.curl_with(None, 1, &["--negotiate", "-u", ":"], &environment)
        .await
}

async fn told(site: &AdSite, why: &str) {
    eventually(why, || async {
        let lines = site.access_lines().unwrap();
        let mut whys = lines.iter().filter_map(|line| line["why"].as_str());
        whys.any(|line| line.contains(why))
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn while_winbind_is_down_passwords_are_answered_503_and_tickets_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = with_sockets_in(folder.path()) else {
        return;
    };
    let site = start_by(&program, offer(), |plan| plan).await;

    for _ in 0..3 {
        let (raw, framed) = (ntlm(&site).await, inside(&site).await);
        assert_eq!(raw.status(), 503, "{}\n{}", raw.text, site.log());
        assert_eq!(framed.status(), 503, "{}\n{}", framed.text, site.log());
        assert_eq!(site.kerberos("bob", 1).await.statuses, [200]);
    }

    told(&site, "winbind or the domain controller does not answer").await;
    told(&site, "winbind does not answer").await;
    let log = site.log();
    assert!(log.contains("wbinfo -t"), "{log}");
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn while_winbind_hangs_passwords_are_answered_503_in_time_and_tickets_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = with_sockets_in(folder.path()) else {
        return;
    };
    // Connections are taken by the kernel, and nobody reads them.
    let silent = UnixListener::bind(folder.path().join("winbindd/pipe")).unwrap();
    let site = start_by(&program, offer(), |plan| plan).await;

    for _ in 0..3 {
        let began = Instant::now();
        let (raw, framed, ticket) =
            tokio::join!(ntlm(&site), inside(&site), site.kerberos("bob", 1));
        assert_eq!(raw.status(), 503, "{}", site.log());
        assert_eq!(framed.status(), 503, "{}", site.log());
        assert_eq!(ticket.statuses, [200]);
        assert!(
            began.elapsed() < Duration::from_secs(8),
            "{:?}",
            began.elapsed()
        );
    }
    let began = Instant::now();
    assert_eq!(site.kerberos("alice", 1).await.statuses, [200]);
    assert!(began.elapsed() < Duration::from_secs(2));

    told(&site, "the NTLM helper does not answer").await;
    told(&site, "winbind does not answer").await;
    drop(silent);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn while_winbind_reaches_no_controller_right_passwords_are_answered_503_and_not_counted() {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = with_sockets_in(folder.path()) else {
        return;
    };
    let winbind = Between::spawn(folder.path());
    let guarded = Offer {
        auth: "  lockout_guard: { per_user: { failures: 3, window: 10m } }\n",
        ..offer()
    };
    let site = start_by(&program, guarded, |plan| plan).await;
    assert_eq!(inside(&site).await.status(), 200, "{}", site.log());
    winbind.loses_the_controller(true);

    for _ in 0..5 {
        let (raw, framed) = (ntlm(&site).await, inside(&site).await);
        assert_eq!(
            (raw.status(), framed.status()),
            (503, 503),
            "{}",
            site.log()
        );
        assert!(framed.text.contains("Retry-After: "), "{}", framed.text);
        assert_eq!(site.kerberos("bob", 1).await.statuses, [200]);
    }
    told(&site, "winbind reaches no domain controller").await;
    assert!(site.log().contains("wbinfo --ping-dc"), "{}", site.log());

    winbind.loses_the_controller(false);

    assert_eq!(inside(&site).await.status(), 200, "{}", site.log());
    assert_eq!(ntlm(&site).await.status(), 200, "{}", site.log());
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_ticket_of_a_clock_that_differs_too_much_is_refused_and_the_operator_told_the_cure() {
    let (site, _folder) = allowing(2).await;
    let (made, late) = (Instant::now(), Client::new("alice").word(None));
    eventually("its time is over", || async {
        made.elapsed() > Duration::from_secs(4)
    })
    .await;

    let late = site.shown(&negotiate(&late)).await;
    let fresh = site
        .shown(&negotiate(&Client::new("alice").word(None)))
        .await;

    assert_eq!((late.head.status, fresh.head.status), (401, 200));
    told(&site, "clocks differ by more than Kerberos allows").await;
    assert!(site.log().contains("set the clocks of this machine"));
}

/// A token for our own name, with a ticket of so many bytes that nobody can read. RFC 4120 5.5.1, RFC 4121 4.1
fn heavy(bytes: usize) -> Vec<u8> {
    let number = |tag: u8, value: u8| element(tag, &[&element(2, &[&[value]])]);
    let text = |text: &str| element(0x1b, &[text.as_bytes()]);
    let sealed = |bytes: usize| {
        let cipher = element(0xa2, &[&element(4, &[&vec![7; bytes]])]);
        element(0x30, &[&number(0xa0, 18), &cipher])
    };
    let names = element(0x30, &[&text("HTTP"), &text("mail.contoso.test")]);
    let service = element(0x30, &[&number(0xa0, 2), &element(0xa1, &[&names])]);
    let ticket = element(
        0x30,
        &[
            &number(0xa0, 5),
            &element(0xa1, &[&text("CONTOSO.TEST")]),
            &element(0xa2, &[&service]),
            &element(0xa3, &[&sealed(bytes)]),
        ],
    );
    let request = element(
        0x30,
        &[
            &number(0xa0, 5),
            &number(0xa1, 14),
            &element(0xa2, &[&element(3, &[&[0; 5]])]),
            &element(0xa3, &[&element(0x61, &[&ticket])]),
            &element(0xa4, &[&sealed(200)]),
        ],
    );
    let kerberos = element(6, &[b"\x2a\x86\x48\x86\xf7\x12\x01\x02\x02"]);
    element(0x60, &[&kerberos, &[1, 0], &element(0x6e, &[&request])])
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_made_up_ticket_of_64_kb_is_refused_like_a_small_one_and_holds_up_nobody() {
    let site = start(Offer::of("negotiate, basic")).await;
    let (small, large) = (heavy(1000), heavy(65_000));
    assert!((65_000..65_536).contains(&large.len()), "{}", large.len());
    let began = Instant::now();

    for token in [&small, &large, &large, &large] {
        let answer = site.shown(&negotiate(token)).await;
        assert_eq!(answer.head.status, 401);
    }
    let good = site
        .shown(&negotiate(&Client::new("alice").word(None)))
        .await;

    assert_eq!(good.head.status, 200);
    assert!(began.elapsed() < Duration::from_secs(5));
    let reasons = site.reasons(5).await;
    assert!(reasons[0].starts_with("ticket "), "{reasons:?}");
    assert_eq!(reasons[..4], vec![reasons[0].clone(); 4]);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn two_authorization_headers_are_refused_and_the_ticket_in_them_is_not_used_up() {
    let site = start(Offer {
        ntlm: Some(NTLM),
        ..Offer::of("negotiate, ntlm, basic")
    })
    .await;
    let value = negotiate(&Client::new("alice").word(None));
    let one = String::from_utf8(ping(Some(&value))).unwrap();
    let two = one.replacen(
        "Content-Type:",
        "Authorization: Basic dXNlcjFAY29udG9zby50ZXN0OmNvcnJlY3QgaG9yc2U=\r\nContent-Type:",
        1,
    );
    let mut line = site.line().await;

    let refused = line.ask(two.as_bytes()).await.unwrap();

    assert_eq!(refused.head.status, 400);
    assert!(site.served().is_empty());
    assert_eq!(site.shown(&value).await.head.status, 200);
    assert_eq!(site.served(), ["alice@contoso.test"]);
}
