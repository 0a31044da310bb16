//! Kerberos, and NTLM inside of Negotiate.

use crate::client::{Client, end_point, negotiate, ping, token};
use crate::lab::{Lab, PASSWORD};
use crate::site::{AdSite, Offer, eventually, start, start_with};
use mapigate::lab::outlook::wire::Answer;
use std::fs;

async fn kerberos() -> AdSite {
    start(Offer::of("negotiate, basic")).await
}

fn with(keys: &str) -> Offer {
    Offer {
        negotiate: format!("    {keys}\n"),
        ..Offer::of("negotiate, basic")
    }
}

fn code(answer: &Answer) -> u16 {
    answer.head.status
}

async fn metric(site: &AdSite, line: &str) {
    let admin = site.gate().unwrap().admin();
    eventually(line, || async {
        admin.get("/metrics").await.unwrap().text.contains(line)
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_ticket_opens_mail_and_the_connection_is_remembered() {
    let site = kerberos().await;

    let got = site.kerberos("alice", 3).await;

    assert_eq!(got.statuses, [200; 3], "{}\n{}", got.verbose, site.log());
    assert_eq!(got.connections, 1, "{}", got.verbose);
    assert_eq!(site.served(), ["alice@contoso.test"; 3]);
    let verified = "mapigate_auth_total{outcome=\"verified\",scheme=\"negotiate\"} 1";
    metric(&site, verified).await;
    let remembered = "mapigate_auth_total{outcome=\"remembered\",scheme=\"negotiate\"} 2";
    metric(&site, remembered).await;
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn who_has_no_ticket_is_offered_the_next_scheme() {
    let site = kerberos().await;

    let nobody = site.curl(None, 1, &[]).await;
    let basic = site
        .curl(
            None,
            1,
            &["--basic", "-u", "user1@contoso.test:correct horse"],
        )
        .await;

    assert_eq!((nobody.status(), basic.status()), (401, 200));
    let challenges: Vec<_> = nobody
        .text
        .lines()
        .filter(|line| line.starts_with("WWW-Authenticate: "))
        .collect();
    assert_eq!(challenges[0], "WWW-Authenticate: Negotiate");
    assert!(challenges[1].starts_with("WWW-Authenticate: Basic "));
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn the_answer_proves_the_server_to_the_client() {
    let site = kerberos().await;
    let mut client = Client::new("alice");

    let answer = site.shown(&negotiate(&client.word(None))).await;

    assert_eq!(code(&answer), 200);
    assert_eq!(answer.head.header("Persistent-Auth"), Some("true"));
    let word = token(&answer, "Negotiate").unwrap();
    assert!(client.believes(&word, None));
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_ticket_that_was_shown_before_is_refused_elsewhere() {
    let site = kerberos().await;
    let value = negotiate(&Client::new("alice").word(None));
    let mut own = site.line().await;
    let request = ping(Some(&value));

    assert_eq!(code(&own.ask(&request).await.unwrap()), 200);
    // Nobody else can speak on it.
    assert_eq!(code(&own.ask(&request).await.unwrap()), 200);
    let stolen = site.shown(&value).await;

    assert_eq!(code(&stolen), 401);
    assert_eq!(site.reasons(3).await[2], "ticket was shown before");
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_proof_that_is_bound_to_another_certificate_is_refused() {
    let site = kerberos().await;
    let (ours, theirs) = (site.binding(), end_point(b"somebody in the middle"));
    let show = |binding: Option<Vec<u8>>| {
        let value = negotiate(&Client::new("alice").word(binding.as_deref()));
        let site = &site;
        async move { code(&site.shown(&value).await) }
    };

    assert_eq!(show(Some(ours)).await, 200);
    assert_eq!(show(None).await, 200);
    assert_eq!(show(Some(theirs)).await, 401);

    let why = "handshake was bound to another server's certificate";
    assert_eq!(site.reasons(3).await[2], why);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn where_a_binding_is_required_a_proof_without_one_is_refused() {
    let site = start(with("channel_binding: require")).await;
    let bound = site.binding();

    let loose = site
        .shown(&negotiate(&Client::new("alice").word(None)))
        .await;
    let value = negotiate(&Client::new("alice").word(Some(&bound)));
    let tied = site.shown(&value).await;

    assert_eq!((code(&loose), code(&tied)), (401, 200));
    assert_eq!(
        site.reasons(2).await[0],
        "handshake without channel binding"
    );
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn where_bindings_are_off_any_is_good() {
    let site = start(with("channel_binding: off")).await;
    let binding = end_point(b"somebody in front");

    let value = negotiate(&Client::new("alice").word(Some(&binding)));

    assert_eq!(code(&site.shown(&value).await), 200);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn the_certificate_of_a_device_in_front_may_be_bound_to_as_well() {
    let lab = Lab::find();
    let device = lab.path("tls/mail.pem");
    let site = start(with(&format!(
        "channel_binding: require\n    persist: false\n    extra_channel_binding_certs: [{}]",
        device.display()
    )))
    .await;
    let pem = fs::read(&device).unwrap();
    let der = <rustls::pki_types::CertificateDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(&pem);
    let bindings = [site.binding(), end_point(&der.unwrap())];

    for binding in &bindings {
        let value = negotiate(&Client::new("alice").word(Some(binding)));
        assert_eq!(code(&site.shown(&value).await), 200);
        // Looking for the right certificate does not use the ticket up, and does not let it be used twice.
        assert_eq!(code(&site.shown(&value).await), 401);
    }
    let other = end_point(b"somebody in the middle");
    let value = negotiate(&Client::new("alice").word(Some(&other)));
    assert_eq!(code(&site.shown(&value).await), 401);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn without_persistence_every_request_needs_a_ticket() {
    let site = start(with("persist: false")).await;
    let mut line = site.line().await;
    let value = negotiate(&Client::new("alice").word(None));

    let first = line.ask(&ping(Some(&value))).await.unwrap();
    let second = line.ask(&ping(None)).await.unwrap();
    let value = negotiate(&Client::new("alice").word(None));
    let third = line.ask(&ping(Some(&value))).await.unwrap();

    assert_eq!([&first, &second, &third].map(code), [200, 401, 200]);
    assert_eq!(first.head.header("Persistent-Auth"), None);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn whoever_signs_on_anew_on_a_connection_is_who_speaks_from_then_on() {
    let site = kerberos().await;
    let mut line = site.line().await;
    let as_user = |user: &str| ping(Some(&negotiate(&Client::new(user).word(None))));
    let mut bad = Client::new("carol").word(None);
    let end = bad.len() - 1;
    bad[end] ^= 1;

    let mut statuses = Vec::new();
    for request in [
        as_user("alice"),
        ping(None),
        as_user("bob"),
        ping(None),
        ping(Some(&negotiate(&bad))),
        ping(None),
        as_user("alice"),
        ping(Some("Basic bm9ib2R5Ondyb25n")),
        ping(None),
    ] {
        statuses.push(code(&line.ask(&request).await.unwrap()));
    }

    assert_eq!(statuses, [200, 200, 200, 200, 401, 401, 200, 401, 401]);
    let served = ["alice", "alice", "bob", "bob", "alice"];
    assert_eq!(
        site.served(),
        served.map(|user| format!("{user}@contoso.test"))
    );
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn who_is_revoked_must_sign_on_anew_on_every_connection() {
    let site = kerberos().await;
    let (mut alice, mut bob) = (site.line().await, site.line().await);
    for (line, user) in [(&mut alice, "alice"), (&mut bob, "bob")] {
        let value = negotiate(&Client::new(user).word(None));
        assert_eq!(code(&line.ask(&ping(Some(&value))).await.unwrap()), 200);
    }

    let admin = site.gate().unwrap().admin();
    let revoked = admin.post("/revoke?user=alice@contoso.test").await.unwrap();

    assert_eq!(revoked.status, 200);
    assert_eq!(code(&alice.ask(&ping(None)).await.unwrap()), 401);
    assert_eq!(code(&bob.ask(&ping(None)).await.unwrap()), 200);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn no_domain_controller_is_needed_to_accept_a_ticket() {
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("krb5.conf");
    let text = fs::read_to_string(Lab::find().path("krb5.conf")).unwrap();
    fs::write(&conf, text.replace("127.0.0.1:", "127.0.0.9:")).unwrap();
    let site = start_with(Offer::of("negotiate"), |mut plan| {
        let name = "KRB5_CONFIG".to_owned();
        plan.environment.retain(|(known, _)| *known != name);
        plan.environment.push((name, conf.display().to_string()));
        plan
    })
    .await;

    assert_eq!(site.kerberos("alice", 1).await.statuses, [200]);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_keytab_of_another_service_opens_nothing_until_it_is_replaced() {
    let lab = Lab::find();
    let folder = tempfile::tempdir().unwrap();
    let keytab = folder.path().join("http.keytab");
    fs::copy(lab.path("mbx.keytab"), &keytab).unwrap();
    let offer = Offer {
        keytab: Some(keytab.clone()),
        ..Offer::of("negotiate")
    };
    let site = start(offer).await;

    let wrong = site
        .shown(&negotiate(&Client::new("alice").word(None)))
        .await;
    let before = site.reasons(1).await;
    fs::copy(lab.path("mail.keytab"), &keytab).unwrap();
    site.gate().unwrap().admin().reload().await.unwrap();
    let right = site
        .shown(&negotiate(&Client::new("alice").word(None)))
        .await;

    assert_eq!((code(&wrong), code(&right)), (401, 200));
    assert_eq!(
        before,
        ["ticket is for a name or key that is not in the keytab"]
    );
    let log = site.log();
    assert!(log.contains("setspn"), "{log}");
    assert!(
        log.contains("the keytab has no `HTTP/mail.contoso.test`"),
        "{log}"
    );
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_keytab_from_before_the_last_password_opens_nothing() {
    let lab = Lab::find();
    let account = lab.user("first password");
    let host = format!("{}.contoso.test", account.name);
    let service = format!("HTTP/{host}");
    lab.tool(&["spn", "add", &service, &account.name]);
    let folder = tempfile::tempdir().unwrap();
    let keytab = folder.path().join("old.keytab");
    let principal = format!("--principal={service}");
    let path = keytab.display().to_string();
    lab.tool(&["domain", "exportkeytab", &path, &principal]);
    let site = start(Offer {
        keytab: Some(keytab),
        ..Offer::of("negotiate")
    })
    .await;
    let mut client = Client::to("alice", PASSWORD, &host);
    assert_eq!(code(&site.shown(&negotiate(&client.word(None))).await), 200);

    let password = "--newpassword=second password";
    lab.tool(&["user", "setpassword", &account.name, password]);
    let mut client = Client::to("alice", PASSWORD, &host);
    let late = site.shown(&negotiate(&client.word(None))).await;

    assert_eq!(code(&late), 401);
    let why = &site.reasons(2).await[1];
    assert!(why.contains("keytab"), "{why}");
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn what_was_changed_on_the_way_or_makes_no_sense_is_refused() {
    let site = kerberos().await;
    let whole = Client::new("alice").word(None);
    let mut changed = whole.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;

    for bad in [
        negotiate(&changed),
        negotiate(&whole[..whole.len() / 2]),
        negotiate(&whole[1..]),
        negotiate(b"\x60"),
        "Negotiate %%%".to_owned(),
        negotiate(&vec![0x60; 65_536]),
    ] {
        let answer = site.shown(&bad).await;
        assert_eq!(code(&answer), 401, "{bad:.60}");
        let challenges: Vec<_> = answer.head.all("WWW-Authenticate").collect();
        assert_eq!(challenges[0], "Negotiate", "{challenges:?}");
    }
    let long = site.shown(&negotiate(&vec![0x60; 70_000])).await;
    assert_eq!(code(&long), 401);
    let why = "handshake token longer than 64 KiB".to_owned();
    assert!(site.reasons(7).await.contains(&why));
    let longer = site.shown(&negotiate(&vec![0x60; 110_000])).await;
    assert_eq!(code(&longer), 431);
    // Nobody else was disturbed.
    assert_eq!(code(&site.shown(&negotiate(&whole)).await), 200);
}

/// curl that knows a password and no ticket speaks NTLM inside of Negotiate.
async fn ntlm_inside(site: &AdSite, password: &str, times: usize) -> crate::site::Got {
    let file = site.folder().join("ntlm.user");
    fs::write(&file, format!("CONTOSO:alice:{password}\n")).unwrap();
    site.curl_with(
        None,
        times,
        &["--negotiate", "-u", ":"],
        &[("NTLM_USER_FILE", &file.display().to_string())],
    )
    .await
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_client_without_a_ticket_speaks_ntlm_inside_where_that_is_allowed() {
    let site = start(with("allow_ntlm_in_spnego: true")).await;

    let got = ntlm_inside(&site, PASSWORD, 3).await;

    assert_eq!(got.status(), 200, "{}\n{}", got.verbose, site.log());
    assert_eq!(got.connections, 1, "{}", got.verbose);
    assert_eq!(site.served(), ["alice@contoso.test"; 3]);
    // A ticket is good there as well.
    assert_eq!(site.kerberos("bob", 1).await.statuses, [200]);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn ntlm_inside_of_negotiate_opens_nothing_where_it_is_not_allowed() {
    let site = kerberos().await;

    let got = ntlm_inside(&site, PASSWORD, 1).await;

    assert_eq!(got.status(), 401, "{}", got.verbose);
    assert_eq!(site.served(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_wrong_password_inside_of_negotiate_is_refused() {
    let site = start(with("allow_ntlm_in_spnego: true")).await;
    let lab = Lab::find();
    let user = lab.user(PASSWORD);
    let file = site.folder().join("ntlm.user");
    fs::write(&file, format!("CONTOSO:{}:wrong\n", user.name)).unwrap();

    let environment = [("NTLM_USER_FILE", file.display().to_string())];
    let environment = environment
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let got = site
        .curl_with(None, 1, &["--negotiate", "-u", ":"], &environment)
        .await;

    assert_eq!(got.status(), 401, "{}", got.verbose);
    let reasons = site.reasons(2).await;
    assert_eq!(reasons.last().unwrap(), "wrong name or password");
}
