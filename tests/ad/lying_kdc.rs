//! A KDC that lies about tickets in users' names: who is answered what, and that nobody is taken for somebody else.

use crate::evidence::{site_changed, word};
use crate::handoff::{ask, enrol, line, metric, of, plan, start_in};
use crate::lab::Lab;
use crate::liar::{About, Liar, Lie};
use crate::site::eventually;
use mapigate::lab::mailbox_server::Authenticate;
use mapigate::lab::outlook::wire::Answer;
use mapigate::lab::site::Site;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// A site whose KDC is one that lies.
struct LiedTo {
    site: Site,
    liar: Liar,
    _folder: TempDir,
}

/// With these keys of the hand-off, and a KDC that is asked by UDP first where `udp` is true.
async fn lied_to_with(more: &str, udp: bool) -> LiedTo {
    let lab = Lab::find();
    enrol(&lab);
    let folder = tempfile::tempdir().unwrap();
    let liar = Liar::spawn().await;
    let mut plan = plan(&lab, &format!(", token_per: request{more}")).each(|server| {
        server.authenticate = Authenticate::Requests;
    });
    plan.environment = vec![liar.environment(&lab, folder.path(), udp)];
    let (site, folder) = start_in(folder, plan).await;
    LiedTo {
        site,
        liar,
        _folder: folder,
    }
}

async fn lied_to() -> LiedTo {
    lied_to_with("", false).await
}

impl LiedTo {
    async fn ask(&self, user: usize) -> Answer {
        ask(&self.site, &of(user)).await
    }

    async fn status(&self, user: usize) -> u16 {
        self.ask(user).await.head.status
    }

    /// The reason in the last line of the access log about this user.
    async fn why(&self, user: usize) -> String {
        let name = format!("user{user}@contoso.test");
        let mut found = None;
        eventually("a line of the access log says why", || {
            let lines = self.site.access_lines().unwrap();
            let mut lines = lines.iter().rev();
            let line = lines.find(|line| line["user"] == name.as_str());
            found = line.and_then(|line| line["why"].as_str().map(str::to_owned));
            let is_there = found.is_some();
            async move { is_there }
        })
        .await;
        found.unwrap()
    }

    /// Requests that reached a mailbox server. Nobody ever is there as somebody else.
    fn reached(&self) -> u64 {
        let counters = self.site.servers().map(|server| server.counters());
        let counters: Vec<_> = counters.collect();
        assert!(counters.iter().all(|each| each.crossed == 0));
        counters.iter().map(|each| each.requests).sum()
    }
}

/// The answer asks the client to come again, with the same credentials.
fn again_later(answer: &Answer) {
    assert_eq!(answer.head.status, 503);
    assert!(answer.head.all("retry-after").next().is_some());
    // A proof of ours to who signed on by Kerberos, and no challenge. RFC 4178 4.2.2
    let mut challenges = answer.head.all("www-authenticate");
    assert!(challenges.all(|line| line.starts_with("Negotiate o")));
    let words = String::from_utf8(answer.body()).unwrap();
    let fixed = "Your logon cannot be used at the moment.";
    assert!(
        words.contains(fixed) && !words.contains("ticket"),
        "{words}"
    );
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_kdc_that_answers_with_nonsense_or_half_an_answer_is_answered_503_and_only_where_it_did()
{
    for udp in [false, true] {
        let it = lied_to_with("", udp).await;
        for (user, name, lie, reason) in [
            (6, "user6", Lie::Garbage(b'H'), "Invalid message type"),
            // As an answer begins.
            (8, "user8", Lie::Garbage(0x6d), "ASN.1"),
            (7, "user7", Lie::Half, "ASN.1 encoding ended unexpectedly"),
        ] {
            it.liar.lies(About::User(name), lie);

            let (answer, other) = tokio::join!(it.ask(user), it.status(9));

            again_later(&answer);
            assert_eq!(other, 200);
            let why = it.why(user).await;
            let words = "no ticket for the server: ticket of the user: ";
            assert!(why.starts_with(words), "{why}");
            assert!(why.contains(reason), "{why}");
        }
        assert_eq!((it.liar.lied(), it.reached()), (3, 3));

        it.liar.repents();

        for user in [6, 7, 8] {
            assert_eq!(it.status(user).await, 200);
        }
    }
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn nonsense_about_our_own_account_is_answered_503_until_the_kdc_comes_to_its_senses() {
    let it = lied_to().await;
    for lie in [Lie::Garbage(b'H'), Lie::Half, Lie::Error(6), Lie::Error(25)] {
        it.liar.lies(About::Ourselves, lie);

        again_later(&it.ask(6).await);

        let why = it.why(6).await;
        let words = "no ticket for the server: ticket of our own account: ";
        assert!(why.starts_with(words), "{why}");
        it.liar.repents();
    }
    assert_eq!(it.reached(), 0);
    assert_eq!(it.status(6).await, 200);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn an_error_that_is_false_is_403_where_it_is_about_the_user_and_503_where_it_is_about_nothing_known()
 {
    let it = lied_to().await;
    let mut refused = 0;
    for (user, name, number, status, reason) in [
        (40, "user40", 0, 503, "No error"),
        (6, "user6", 6, 403, "Client not found"),
        (7, "user7", 18, 403, "credentials have been revoked"),
        (8, "user8", 29, 503, ""),
        (9, "user9", 37, 503, "Clock skew too great"),
        (41, "user41", 52, 503, "too big"),
        (42, "user42", 60, 503, "Generic error"),
        (43, "user43", 68, 503, "Realm not local"),
        (44, "user44", 200, 503, ""),
    ] {
        it.liar.lies(About::User(name), Lie::Error(number));

        let (answer, other) = tokio::join!(it.ask(user), it.status(20));

        assert_eq!((answer.head.status, other), (status, 200), "{number}");
        let why = it.why(user).await;
        assert!(why.contains(reason), "{number}: {why}");
        match status {
            403 => {
                refused += 1;
                assert!(why.starts_with("not handed on: ticket of the user: "));
            }
            _ => again_later(&answer),
        }
    }
    assert_eq!(it.reached(), 9);
    let sample = "mapigate_delegation_tickets_total{outcome=\"refused\"}";
    assert_eq!(metric(&it.site, sample).await, f64::from(refused));
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_ticket_of_another_user_is_not_taken_for_this_ones() {
    let it = lied_to().await;
    assert_eq!(it.status(20).await, 200);
    let own = "Decrypt integrity check failed";

    // What another was given before, and what two are given at the same time.
    it.liar
        .lies(About::User("user6"), Lie::Earlier(About::User("user20")));
    it.liar.lies(About::User("user7"), Lie::Exchanged);
    it.liar.lies(About::User("user8"), Lie::Exchanged);
    let answers = tokio::join!(it.ask(6), it.ask(7), it.ask(8));

    for answer in [&answers.0, &answers.1, &answers.2] {
        again_later(answer);
    }
    for user in 6..9 {
        let why = it.why(user).await;
        assert!(why.contains(own), "{why}");
    }
    assert_eq!((it.liar.lied(), it.reached()), (3, 1));

    it.liar.repents();

    for user in 6..9 {
        assert_eq!(it.status(user).await, 200);
    }
    assert_eq!(it.reached(), 4);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_ticket_to_the_server_that_was_given_to_another_user_or_before_is_not_used() {
    let it = lied_to().await;
    assert_eq!(it.status(20).await, 200);

    it.liar
        .lies(About::Server("mbx1"), Lie::Earlier(About::Server("mbx1")));
    let (first, before) = tokio::join!(it.ask(6), it.status(20));

    again_later(&first);
    assert_eq!(before, 200);
    let why = it.why(6).await;
    assert!(
        why.starts_with("no ticket for the server: ticket to the server: "),
        "{why}"
    );
    it.liar.repents();
    it.liar.lies(About::Server("mbx1"), Lie::Exchanged);
    let (one, other) = tokio::join!(it.ask(7), it.ask(8));
    again_later(&one);
    again_later(&other);
    assert_eq!((it.liar.lied(), it.reached()), (3, 2));
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn answers_of_two_gigabytes_and_answers_without_an_end_are_waited_for_no_longer_than_told() {
    let it = lied_to_with(", timeout: 500ms", false).await;
    it.liar
        .lies(About::User("user6"), Lie::Dribble(0x7fff_ffff));
    it.liar.lies(About::User("user7"), Lie::Dribble(4000));
    let began = Instant::now();

    let answers = tokio::join!(it.ask(6), it.ask(7), it.status(20));

    assert!(began.elapsed() < Duration::from_secs(2));
    again_later(&answers.0);
    again_later(&answers.1);
    assert_eq!(answers.2, 200);
    for user in [6, 7] {
        let why = it.why(user).await;
        let words = "no ticket for the server: no ticket within 500ms: the KDC does not answer";
        assert_eq!(why, words);
    }
    assert_eq!(it.reached(), 1);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn while_the_kdc_says_nothing_to_ten_users_those_whose_tickets_are_here_go_on() {
    let it = lied_to_with(", timeout: 1s", false).await;
    for user in [20, 21] {
        assert_eq!(it.status(user).await, 200);
    }
    let mut silent = JoinSet::new();
    for user in 10..20 {
        let name = format!("user{user}");
        it.liar.lies(About::User(name.leak()), Lie::Silence);
        let mut line = line(&it.site).await;
        silent.spawn(async move { line.ask(&of(user)).await.unwrap() });
    }

    eventually("the KDC is asked, and says nothing", || async {
        it.liar.lied() >= 4
    })
    .await;
    let began = Instant::now();
    for _ in 0..5 {
        assert_eq!([it.status(20).await, it.status(21).await], [200, 200]);
    }

    assert!(began.elapsed() < Duration::from_millis(900));
    while let Some(answer) = silent.join_next().await {
        again_later(&answer.unwrap());
    }
    assert_eq!(it.reached(), 12);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn lies_about_tickets_that_clients_brought_are_answered_503_or_403_and_nobody_is_shown_as_another()
 {
    let (lab, folder) = (Lab::find(), tempfile::tempdir().unwrap());
    let service = lab.service("HTTP/mbx1.contoso.test", folder.path());
    let liar = Liar::spawn().await;
    let site = site_changed(&service, "alice@contoso.test", |mut plan| {
        plan.environment = vec![liar.environment(&lab, folder.path(), false)];
        plan
    })
    .await;
    let ask = async |user: &str| site.shown(&word(user, &service)).await;
    let about = About::Server("mbx1");

    for lie in [Lie::Garbage(0x6d), Lie::Half, Lie::Error(60)] {
        liar.lies(about, lie);
        again_later(&ask("alice").await);
        liar.repents();
    }
    liar.lies(about, Lie::Exchanged);
    let (alice, bob) = tokio::join!(ask("alice"), ask("bob"));
    again_later(&alice);
    again_later(&bob);
    for why in site.reasons(5).await {
        let words = "no ticket for the server: ticket to the server: ";
        assert!(why.starts_with(words), "{why}");
    }
    liar.repents();
    liar.lies(about, Lie::Error(13));

    let refused = ask("alice").await;

    assert_eq!(refused.head.status, 403);
    let why = site.reasons(6).await.pop().unwrap();
    assert!(
        why.starts_with("not handed on: ") && why.contains("; without it, "),
        "{why}"
    );
    let counters = site.server("MBX1").unwrap().counters();
    assert_eq!((counters.requests, counters.crossed), (0, 0));
}
