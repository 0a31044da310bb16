//! NTLM as it is.

use crate::client::{ntlm, ping, token};
use crate::lab::{Lab, PASSWORD};
use crate::site::{NTLM, Offer, eventually, start};

fn offer() -> Offer {
    Offer {
        ntlm: Some(NTLM),
        ..Offer::of("ntlm, basic")
    }
}

/// The first message of a client that wants Unicode and NTLM. `[MS-NLMP] 2.2.1.1`
const FIRST: &[u8] = b"NTLMSSP\0\x01\0\0\0\x05\x82\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_password_of_the_domain_opens_mail_once_per_connection() {
    let site = start(offer()).await;

    for name in ["CONTOSO\\alice", "alice@contoso.test"] {
        let got = site.ntlm(&format!("{name}:{PASSWORD}"), 3).await;

        assert_eq!(got.statuses, [401, 200, 200, 200], "{}", got.verbose);
        assert_eq!(got.connections, 1, "{}", got.verbose);
    }
    assert_eq!(site.served(), ["alice@contoso.test"; 6]);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_wrong_password_and_an_unknown_name_read_the_same() {
    let site = start(offer()).await;
    let lab = Lab::find();
    let user = lab.user(PASSWORD);

    let wrong = site.ntlm(&format!("CONTOSO\\{}:wrong", user.name), 1).await;
    let unknown = site.ntlm("CONTOSO\\nobody-at-all:wrong", 1).await;
    let elsewhere = site.ntlm("nobody-at-all@contoso.test:wrong", 1).await;

    assert_eq!(
        [wrong, unknown, elsewhere].map(|got| got.status()),
        [401; 3]
    );
    let reasons = site.reasons(6).await;
    let why = "wrong name or password";
    assert_eq!([1, 3, 5].map(|line| reasons[line].as_str()), [why; 3]);
    assert_eq!(site.served(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_disabled_account_opens_nothing() {
    let site = start(offer()).await;
    let lab = Lab::find();
    let user = lab.user(PASSWORD);
    lab.tool(&["user", "disable", &user.name]);

    let got = site
        .ntlm(&format!("CONTOSO\\{}:{PASSWORD}", user.name), 1)
        .await;

    assert_eq!(got.status(), 401);
    let why = "account is disabled or restricted in the domain";
    assert_eq!(site.reasons(2).await[1], why);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn half_a_handshake_keeps_nobody_waiting_for_longer_than_its_time() {
    let site = start(Offer {
        ntlm: Some("{ pool: 1, handshake_timeout: 1s, realm_map: { CONTOSO: contoso.test } }"),
        ..offer()
    })
    .await;
    let mut half = site.line().await;
    let challenge = half.ask(&ping(Some(&ntlm(FIRST)))).await.unwrap();
    assert_eq!(challenge.head.status, 401);
    assert!(
        token(&challenge, "NTLM")
            .unwrap()
            .starts_with(b"NTLMSSP\0\x02")
    );

    // The only helper is lent.
    let other = site.ntlm(&format!("CONTOSO\\bob:{PASSWORD}"), 1).await;
    let last = [&b"NTLMSSP\0\x03\0\0\0"[..], &[0; 64]].concat();
    let late = half.ask(&ping(Some(&ntlm(&last)))).await.unwrap();

    assert!([200, 503].contains(&other.status()), "{}", other.text);
    eventually("the helper is free again", || async {
        let got = site.ntlm(&format!("CONTOSO\\bob:{PASSWORD}"), 1).await;
        got.status() == 200
    })
    .await;
    assert_eq!(late.head.status, 401);
    assert!(
        site.reasons(4)
            .await
            .iter()
            .any(|why| why == "handshake took too long")
    );
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_message_out_of_turn_is_refused_and_the_connection_stays() {
    let site = start(offer()).await;
    let mut line = site.line().await;
    let last = [&b"NTLMSSP\0\x03\0\0\0"[..], &[0; 64]].concat();

    let out_of_turn = line.ask(&ping(Some(&ntlm(&last)))).await.unwrap();
    let begun = line.ask(&ping(Some(&ntlm(FIRST)))).await.unwrap();
    let nonsense = line.ask(&ping(Some(&ntlm(&last)))).await.unwrap();
    let nobody = line.ask(&ping(None)).await.unwrap();

    assert_eq!(out_of_turn.head.status, 401);
    assert_eq!(begun.head.all("WWW-Authenticate").count(), 1);
    assert!(token(&begun, "NTLM").is_some());
    assert_eq!(nonsense.head.status, 401, "{:?}", site.reasons(3).await);
    assert_eq!(nobody.head.all("WWW-Authenticate").count(), 2);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn where_nobody_can_judge_the_client_is_told_to_come_again_and_the_operator_why() {
    let site = start(Offer {
        ntlm: Some("{ helper: [\"false\"] }"),
        ..offer()
    })
    .await;

    let got = site.ntlm(&format!("CONTOSO\\alice:{PASSWORD}"), 1).await;

    assert_eq!(got.status(), 503, "{}", got.verbose);
    eventually("the operator is told", || async {
        site.log().contains("an NTLM helper failed")
    })
    .await;
}
