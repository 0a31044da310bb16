//! Who came with a ticket is shown to the server by that ticket: the account needs no right to act for others.

use crate::client::{Client, negotiate};
use crate::handoff::{enrol, kdc_at};
use crate::lab::{Lab, LabService, PASSWORD, REALM};
use crate::site::{AdSite, Offer, eventually, start_with};
use mapigate::ids::UserName;
use mapigate::lab::mailbox_server::{Authenticate, Told};
use mapigate::lab::site::{Plan, mailbox};
use std::path::Path;
use tempfile::TempDir;

const MBX1: &str = "HTTP/mbx1.contoso.test";

/// The mailbox server takes tickets, and alice owns the mailbox that is asked for.
pub(crate) fn shows_tickets(
    plan: Plan,
    lab: &Lab,
    account: &str,
    keytab: &Path,
    owner: &str,
) -> Plan {
    plan.each(|server| {
        server.told = Told::Tickets(lab.path("mbx.keytab"));
        server.authenticate = Authenticate::FirstOfConnection;
        server.service = None;
        server.owners.insert(mailbox(1), UserName::new(owner));
    })
    .section(
        "backend_identity",
        &format!(
            "{{ mode: kerberos, kerberos: {{ client_keytab: {}, account: {account}@{REALM}, \
             service: 'HTTP/{{server}}.contoso.test', timeout: 5s }} }}",
            keytab.display()
        ),
    )
}

/// A site whose one account accepts tickets and delegates those who brought one.
async fn site_of(service: &LabService<'_>, owner: &str) -> AdSite {
    site_changed(service, owner, |plan| plan).await
}

/// For alice, where every request asks for a ticket.
pub(crate) async fn site_of_each(service: &LabService<'_>) -> AdSite {
    site_changed(service, "alice@contoso.test", |plan| {
        let identity = &plan.sections["backend_identity"];
        let each = identity.replace("timeout: 5s", "timeout: 5s, token_per: request");
        plan.each(|server| server.authenticate = Authenticate::Requests)
            .section("backend_identity", &each)
    })
    .await
}

/// The same with a plan that is changed.
pub(crate) async fn site_changed(
    service: &LabService<'_>,
    owner: &str,
    change: impl FnOnce(Plan) -> Plan,
) -> AdSite {
    let offer = Offer {
        keytab: Some(service.keytab.clone()),
        ..Offer::of("negotiate, basic")
    };
    let lab = Lab::find();
    let (account, keytab) = (&service.account.name, &service.keytab);
    start_with(offer, |plan| {
        change(shows_tickets(plan, &lab, account, keytab, owner))
    })
    .await
}

pub(crate) fn word(user: &str, service: &LabService<'_>) -> String {
    negotiate(&Client::to(user, PASSWORD, &service.host).word(None))
}

fn head(site: &AdSite) -> String {
    let heads = site.server("MBX1").unwrap().heads();
    String::from_utf8(heads.last().unwrap().clone()).unwrap()
}

async fn metric(site: &AdSite, sample: &str) -> f64 {
    site.gate().unwrap().admin().metric(sample).await.unwrap()
}

fn keys() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn an_account_without_protocol_transition_hands_on_who_came_by_kerberos_and_nobody_else() {
    let (lab, folder) = (Lab::find(), keys());
    enrol(&lab);
    let service = lab.service(MBX1, folder.path());
    let site = site_of(&service, "alice@contoso.test").await;
    let shown = word("alice", &service);

    let first = site.shown(&shown).await;

    assert_eq!(first.head.status, 200, "{}", site.log());
    let head = head(&site);
    // Her ticket to the server, and not the one she came with.
    assert!(head.contains("Authorization: Negotiate YI"), "{head}");
    let told: String = shown.chars().skip(10).take(50).collect();
    assert!(!head.contains(&told), "{head}");
    // The server read her name out of it and found her to be the owner.
    let counters = site.server("MBX1").unwrap().counters();
    assert_eq!((counters.crossed, counters.wrong_passwords), (0, 0));

    let words = ["--basic", "-u", "user1@contoso.test:correct horse"];
    let other = site.curl(None, 1, &words).await;

    assert_eq!(other.status(), 403);
    let reason = site.reasons(2).await.pop().unwrap();
    assert!(reason.contains("fulfill requested option"), "{reason}");
    assert_eq!(site.server("MBX1").unwrap().counters().requests, 1);
    // Neither word nor ticket is in what operators read.
    let lines = format!("{}{:?}", site.log(), site.access_lines().unwrap());
    assert!(!lines.contains(&told) && !lines.contains("Negotiate YI"));
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn connections_of_one_user_go_on_with_tickets_when_others_of_hers_have_gone() {
    let (lab, folder) = (Lab::find(), keys());
    let service = lab.service(MBX1, folder.path());
    let site = site_of_each(&service).await;

    let mut kept = site.line().await;
    let request = crate::client::ping(Some(&word("alice", &service)));
    assert_eq!(kept.ask(&request).await.unwrap().head.status, 200);
    for _ in 0..4 {
        let answer = site.shown(&word("alice", &service)).await;
        assert_eq!(answer.head.status, 200);
    }
    let unsaid = crate::client::ping(None);
    assert_eq!(kept.ask(&unsaid).await.unwrap().head.status, 200);

    let made = "mapigate_delegation_tickets_total{outcome=\"made\"}";
    assert_eq!(metric(&site, made).await, 6.0);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_client_whose_ticket_must_not_be_handed_on_is_answered_403_with_both_reasons() {
    let (lab, folder) = (Lab::find(), keys());
    let service = lab.service(MBX1, folder.path());
    let sensitive = lab.user(PASSWORD);
    lab.tool(&["user", "sensitive", &sensitive.name, "on"]);
    let owner = format!("{}@contoso.test", sensitive.name);
    let site = site_of(&service, &owner).await;

    let answer = site.shown(&word(&sensitive.name, &service)).await;

    assert_eq!(answer.head.status, 403);
    let reason = site.reasons(1).await.pop().unwrap();
    assert!(
        reason.contains("not handed on") && reason.contains("; without it, "),
        "{reason}"
    );
    // Nobody else is disturbed.
    assert_eq!(site.shown(&word("alice", &service)).await.head.status, 200);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_ticket_that_is_not_forwardable_is_made_up_for_where_the_account_may_act_for_anybody() {
    let lab = Lab::find();
    let site = start_with(Offer::of("negotiate"), |plan| {
        let keytab = lab.path("mail.keytab");
        shows_tickets(plan, &lab, "svc-mail", &keytab, "alice@contoso.test")
    })
    .await;
    let tickets = site.folder().join("stays");
    lab.log_on_with(&["-F"], "alice", PASSWORD, &tickets);

    let words = ["--negotiate", "-u", ":"];
    let got = site.curl(Some(&tickets), 2, &words).await;

    assert_eq!(got.statuses, [200; 2], "{}\n{}", got.verbose, site.log());
    assert_eq!(site.server("MBX1").unwrap().counters().crossed, 0);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_sign_on_needs_no_kdc_even_where_its_ticket_is_to_be_handed_on() {
    let (lab, folder) = (Lab::find(), keys());
    let service = lab.service(MBX1, folder.path());
    let offer = Offer {
        keytab: Some(service.keytab.clone()),
        ..Offer::of("negotiate")
    };
    let site = start_with(offer, |plan| {
        let owner = "alice@contoso.test";
        let mut plan = shows_tickets(plan, &lab, &service.account.name, &service.keytab, owner);
        plan.environment = vec![kdc_at(&lab, &folder, 9)];
        plan
    })
    .await;

    let answer = site.shown(&word("alice", &service)).await;

    assert_eq!(answer.head.status, 503);
    let reason = site.reasons(1).await.pop().unwrap();
    assert!(reason.contains("ticket of our own account"), "{reason}");
    let proven = "mapigate_auth_total{outcome=\"verified\",scheme=\"negotiate\"}";
    eventually("the sign-on is counted", || async {
        metric(&site, proven).await >= 1.0
    })
    .await;
}
