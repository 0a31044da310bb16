//! Users in more groups than is good for anybody: their tickets are as large as heads of requests get.

use crate::evidence::shows_tickets;
use crate::lab::{Lab, Member, OF_1120, OF_1700};
use crate::site::{AdSite, Got, Offer, start_with};

/// A site for them, with these `limits`.
async fn limited(limits: &str) -> AdSite {
    Lab::find().enrol_members();
    start_with(Offer::of("negotiate, basic"), |plan| {
        plan.section("limits", limits)
    })
    .await
}

async fn sign_on(site: &AdSite, member: Member, times: usize) -> Got {
    site.kerberos(member.name, times).await
}

/// Bytes of the longest header that curl sent.
fn header(got: &Got) -> usize {
    let sent = got
        .verbose
        .lines()
        .filter_map(|line| line.strip_prefix("> "));
    sent.map(str::len).max().unwrap()
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_user_of_1120_groups_signs_on_with_the_ticket_of_46_kb_that_comes_of_it() {
    let site = limited("{}").await;

    let got = sign_on(&site, OF_1120, 3).await;

    eprintln!("{} bytes of a header", header(&got));
    assert_eq!(got.statuses, [200; 3], "{}", site.log());
    assert!((61_000..66_000).contains(&header(&got)), "{}", header(&got));
    // What follows on the connection is small.
    assert_eq!(got.verbose.matches("> Authorization: ").count(), 1);
    assert_eq!(site.served(), ["member1120@contoso.test"; 3]);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_ticket_of_46_kb_is_handed_on_as_one_of_the_same_size() {
    let lab = Lab::find();
    lab.enrol_members();
    let site = start_with(Offer::of("negotiate, basic"), |plan| {
        let keytab = lab.path("mail.keytab");
        let owner = "member1120@contoso.test";
        shows_tickets(plan, &lab, "svc-mail", &keytab, owner)
    })
    .await;

    let got = sign_on(&site, OF_1120, 1).await;

    assert_eq!(got.statuses, [200], "{}\n{}", got.verbose, site.log());
    let server = site.server("MBX1").unwrap();
    assert!(server.heads().pop().unwrap().len() > 60_000);
    assert_eq!(server.counters().crossed, 0);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_ticket_that_is_larger_than_heads_may_be_is_answered_431_and_the_operator_told_which_limit()
 {
    let site = limited("{ head: 48KiB }").await;

    let (large, small) = tokio::join!(sign_on(&site, OF_1120, 1), site.kerberos("alice", 1));

    assert_eq!((large.status(), small.status()), (431, 200));
    let words = "The request headers are too large.";
    assert!(large.text.contains(words), "{}", large.text);
    let reasons = site.reasons(2).await;
    assert!(reasons.iter().any(|why| why.contains("limits.head")));
    assert_eq!(site.served(), ["alice@contoso.test"]);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_ticket_of_more_than_64_kb_is_answered_401_and_its_user_may_come_by_password() {
    let site = limited("{}").await;

    let large = sign_on(&site, OF_1700, 1).await;
    let words = ["--basic", "-u", "user1@contoso.test:correct horse"];
    let other = site.curl(None, 1, &words).await;

    assert_eq!((large.status(), other.status()), (401, 200));
    assert!(large.text.contains("WWW-Authenticate: Basic "));
    let why = "handshake token longer than 64 KiB";
    assert_eq!(site.reasons(2).await[0], why);
}
