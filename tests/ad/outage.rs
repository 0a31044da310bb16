//! A directory service that is gone, hangs, lies or is somebody else's: who goes on, and who is told what.

use crate::lab::Lab;
use crate::ldap::{Between, Mailbox, SECRET, Wire, ldap, start};
use std::time::{Duration, Instant};

const LDAPS: &str = "ldaps://dc1.contoso.test";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn without_the_directory_who_is_known_works_on_and_nobody_loses_a_password() {
    let lab = Lab::find();
    let [known, new] = [(); 2].map(|()| Mailbox::new(&lab, "DB01"));
    let between = Between::start().await;
    let brisk =
        "    connect_timeout: 500ms\n    operation_timeout: 500ms\n    cache: { ttl: 1s }\n";
    let site = start(&lab, "listed", &ldap(&lab, &between.url(), brisk)).await;
    assert_eq!(
        site.status(&known.credentials(), Some(&known.id())).await,
        200
    );

    for wire in [Wire::Cut, Wire::Stalled, Wire::Lying] {
        between.be(wire);
        // Longer than entries are believed without asking again.
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            let got = site.ping(&known.credentials(), Some(&known.id())).await;
            assert_eq!(got.status, 200, "{wire:?}: {}", got.text);
        }
        let got = site.ping(&new.credentials(), Some(&new.id())).await;
        assert_eq!(got.status, 503, "{wire:?}");
        assert!(
            got.text.contains("The directory is not available"),
            "{}",
            got.text
        );
        assert!(got.text.to_ascii_lowercase().contains("retry-after: 5"));
        assert!(got.took < Duration::from_secs(5), "{:?}", got.took);

        between.be(Wire::Whole);
        site.becomes(200, &new.credentials(), Some(&new.id())).await;
        // So that the new one is unknown again.
        let admin = site.site.gate().unwrap().admin();
        admin.post("/revoke").await.unwrap();
        assert_eq!(
            site.status(&known.credentials(), Some(&known.id())).await,
            200
        );
    }
    assert!(site.log().contains("directory server cannot be used"));
    assert!(site.log().contains("directory server answers again"));
    assert!(
        site.metric("directory_looks_total{outcome=\"stale\"}")
            .await
            >= 1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_directory_that_stalls_holds_up_only_who_needs_it() {
    let lab = Lab::find();
    let [known, new] = [(); 2].map(|()| Mailbox::new(&lab, "DB01"));
    let between = Between::start().await;
    let patient = "    operation_timeout: 2s\n";
    let site = start(&lab, "backend", &ldap(&lab, &between.url(), patient)).await;
    let (credentials, id) = (known.credentials(), known.id());
    assert_eq!(site.status(&credentials, Some(&id)).await, 200);
    between.be(Wire::Stalled);

    let (new_credentials, new_id) = (new.credentials(), new.id());
    let waiting = site.ping(&new_credentials, Some(&new_id));
    let meanwhile = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            let got = site.ping(&credentials, Some(&id)).await;
            assert_eq!(got.status, 200);
            slowest = slowest.max(got.took);
        }
        slowest
    };
    let (waiting, slowest) = tokio::join!(waiting, meanwhile);

    assert_eq!(waiting.status, 503);
    assert!(waiting.took >= Duration::from_secs(1), "{:?}", waiting.took);
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_server_of_the_directory_that_is_gone_is_passed_over() {
    let lab = Lab::find();
    let user = Mailbox::new(&lab, "DB01");
    let between = Between::start().await;
    let both = format!("{}\", \"{LDAPS}", between.url());
    let site = start(&lab, "backend", &ldap(&lab, &both, "")).await;
    assert_eq!(
        site.status(&user.credentials(), Some(&user.id())).await,
        200
    );

    between.be(Wire::Cut);

    let wrong = format!("{}:wrong", user.upn());
    assert_eq!(site.status(&wrong, Some(&user.id())).await, 401);
    assert_eq!(
        site.status(&user.credentials(), Some(&user.id())).await,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_directory_that_cannot_prove_itself_gets_no_password() {
    let lab = Lab::find();
    let user = Mailbox::new(&lab, "DB01");
    // The certificate of the site's own authority, which the directory knows nothing of.
    let stranger =
        ldap(&lab, LDAPS, "").replace(&lab.path("tls/ca.pem").display().to_string(), "ca.pem");
    let site = start(&lab, "backend", &stranger).await;

    let got = site.ping(&user.credentials(), Some(&user.id())).await;

    assert_eq!(got.status, 503);
    assert_eq!(site.work().await, [0.0, 0.0]);
    assert!(site.log().contains("UnknownIssuer"), "{}", site.log());
    assert!(!site.log().contains(SECRET) && !site.log().contains("svc-ldap@"));
}
