//! Keys come, go and are missing.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Fetches whenever it is asked to, and counts.
fn provider(auth: &Authenticator, set: fn() -> Option<Vec<u8>>) -> Arc<AtomicUsize> {
    let (ring, count) = (ring(auth), Arc::new(AtomicUsize::new(0)));
    let fetches = Arc::clone(&count);
    tokio::spawn(async move {
        loop {
            ring.wanted().await;
            fetches.fetch_add(1, Ordering::Relaxed);
            let fetch = ring.fetch();
            if let Some(set) = set() {
                fetch.put(&set).unwrap();
            }
        }
    });
    count
}

#[tokio::test]
async fn a_storm_of_unknown_keys_makes_one_fetch_in_thirty_seconds() {
    let auth = of(issuer());
    let fetches = provider(&auth, || Some(key_set(&[&FIRST, &CURVE])));
    let made_up = |number: usize| {
        let header = json!({ "alg": "RS256", "kid": format!("made up {number}") });
        SECOND.sign_as(&header, &claims("user1@contoso.test"))
    };
    let last = ASK_EVERY - Duration::from_millis(1);

    for number in 0..200 {
        let passed = last * u32::try_from(number).unwrap() / 200;
        let outcome = ask(&auth, &made_up(number), &mut Memo::default(), passed).await;
        assert_eq!(*outcome.why(), wrong::KEY);
    }
    assert_eq!(fetches.load(Ordering::Relaxed), 1);
    // Nobody else is disturbed.
    assert_eq!(once(&auth, &user1()).await.user(), "user1@contoso.test");

    let outcome = ask(&auth, &made_up(200), &mut Memo::default(), ASK_EVERY).await;
    assert_eq!(*outcome.why(), wrong::KEY);
    assert_eq!(fetches.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_new_key_is_fetched_once_for_all_who_bring_it() {
    let auth = Arc::new(of(issuer()));
    let fetches = provider(&auth, || Some(key_set(&[&SECOND, &CURVE])));
    let tokens = (0..50).map(|number| SECOND.sign(&claims(&format!("user{number}@contoso.test"))));

    let many: Vec<_> = tokens
        .map(|token| {
            let auth = Arc::clone(&auth);
            tokio::spawn(async move { once(&auth, &token).await.user().to_owned() })
        })
        .collect();
    for (number, one) in many.into_iter().enumerate() {
        assert_eq!(one.await.unwrap(), format!("user{number}@contoso.test"));
    }

    assert_eq!(fetches.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_token_is_refused_with_a_new_key_only_until_the_key_is_there() {
    let auth = of(issuer());
    provider(&auth, || Some(key_set(&[&FIRST])));
    let token = SECOND.sign(&claims("user1@contoso.test"));
    assert_eq!(*once(&auth, &token).await.why(), wrong::KEY);

    put(&auth, &[&FIRST, &SECOND]);

    assert_eq!(once(&auth, &token).await.user(), "user1@contoso.test");
}

#[tokio::test]
async fn what_a_withdrawn_key_proved_is_believed_no_more() {
    let auth = of(issuer());
    let (old, other) = (user1(), CURVE.sign(&claims("user2@contoso.test")));
    let (mut memo1, mut memo2) = (Memo::default(), Memo::default());
    for _ in 0..2 {
        ask(&auth, &old, &mut memo1, Duration::ZERO).await;
        ask(&auth, &other, &mut memo2, Duration::ZERO).await;
    }
    provider(&auth, || Some(key_set(&[&CURVE, &SECOND])));

    put(&auth, &[&CURVE, &SECOND]);

    let withdrawn = ask(&auth, &old, &mut memo1, Duration::ZERO).await;
    assert_eq!(*withdrawn.why(), wrong::KEY);
    let kept = ask(&auth, &other, &mut memo2, Duration::ZERO).await;
    assert!(matches!(kept, Outcome::Remembered(_)));
}

#[tokio::test]
async fn the_same_keys_again_change_nothing() {
    let auth = of(issuer());
    let (token, mut memo) = (user1(), Memo::default());
    ask(&auth, &token, &mut memo, Duration::ZERO).await;
    let serial = ring(&auth).serial();

    put(&auth, &[&CURVE, &FIRST]);

    assert_eq!(ring(&auth).serial(), serial);
    let again = ask(&auth, &token, &mut memo, Duration::ZERO).await;
    assert!(matches!(again, Outcome::Remembered(_)));
}

#[tokio::test]
async fn a_provider_that_is_down_stops_only_keys_that_nobody_knows() {
    let auth = of(issuer());
    let fetches = provider(&auth, || None);

    let unknown = once(&auth, &SECOND.sign(&claims("user2@contoso.test"))).await;
    let again = once(&auth, &SECOND.sign(&claims("user3@contoso.test"))).await;

    // Nobody can tell, so nobody says no: the client may try again.
    assert!(unknown.is_busy() && again.is_busy());
    assert_eq!(fetches.load(Ordering::Relaxed), 1);
    assert_eq!(once(&auth, &user1()).await.user(), "user1@contoso.test");
}

#[expect(clippy::disallowed_methods, reason = "the clock is paused")]
#[tokio::test(start_paused = true)]
async fn a_slow_provider_is_waited_for_a_while() {
    let auth = Arc::new(of(issuer()));
    let began = tokio::time::Instant::now();

    let waiting: Vec<_> = (0..100)
        .map(|number| {
            let token = SECOND.sign(&claims(&format!("user{number}@contoso.test")));
            let auth = Arc::clone(&auth);
            tokio::spawn(async move { once(&auth, &token).await.is_busy() })
        })
        .collect();
    let mut busy = 0;
    for one in waiting {
        busy += usize::from(one.await.unwrap());
    }

    assert_eq!((busy, began.elapsed()), (100, PATIENCE));
}

#[test]
fn a_lying_key_set_changes_nothing() {
    let auth = of(issuer());
    let mut weak = FIRST.jwk();
    weak["n"] = json!(URL_SAFE_NO_PAD.encode([0xc5; 128]));
    let mut for_encryption = FIRST.jwk();
    for_encryption["use"] = json!("enc");
    let mut wrapping = FIRST.jwk();
    wrapping["alg"] = json!("RSA-OAEP");
    let secret = json!({ "kty": "oct", "kid": "s", "k": "c2VjcmV0", "alg": "HS256" });
    for document in [
        b"".to_vec(),
        b"<html>log in</html>".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        br#"{"keys":{}}"#.to_vec(),
        br#"{"keys":[]}"#.to_vec(),
        br#"{"keys":[1,null,"x",[],{}]}"#.to_vec(),
        json!({ "keys": [secret] }).to_string().into_bytes(),
        json!({ "keys": [weak, for_encryption, wrapping] })
            .to_string()
            .into_bytes(),
        format!(r#"{{"keys":{}"#, "[".repeat(100_000)).into_bytes(),
    ] {
        assert!(ring(&auth).fetch().put(&document).is_err(), "{document:?}");
        assert_eq!(ring(&auth).count(), 2);
    }
}

#[tokio::test]
async fn a_token_without_a_key_name_is_held_against_the_only_key() {
    let auth = of(issuer());
    provider(&auth, || Some(key_set(&[&FIRST, &CURVE])));
    let token = FIRST.sign_as(&json!({ "alg": "RS256" }), &claims("user1@contoso.test"));
    assert_eq!(*once(&auth, &token).await.why(), wrong::KEY);

    put(&auth, &[&FIRST]);

    assert_eq!(once(&auth, &token).await.user(), "user1@contoso.test");
}

#[tokio::test]
async fn a_reload_keeps_the_keys_and_forgets_what_other_rules_proved() {
    let before = of(issuer());
    let (token, mut memo) = (user1(), Memo::default());
    ask(&before, &token, &mut memo, Duration::ZERO).await;
    ask(&before, &token, &mut memo, Duration::ZERO).await;

    let same = Authenticator::new(&settings(vec![issuer()]), Some(&before)).unwrap();
    let remembered = ask(&same, &token, &mut memo, Duration::ZERO).await;
    let narrowed = TokenIssuer {
        domains: vec!["fabrikam.test".to_owned()],
        ..issuer()
    };
    let other = Authenticator::new(&settings(vec![narrowed]), Some(&same)).unwrap();
    let refused = ask(&other, &token, &mut memo, Duration::ZERO).await;
    let gone = Authenticator::new(&settings(Vec::new()), Some(&other)).unwrap();
    let nobodys = ask(&gone, &token, &mut memo, Duration::ZERO).await;

    assert!(matches!(remembered, Outcome::Remembered(_)));
    assert_eq!(*refused.why(), wrong::FOREIGN_USER);
    assert_eq!(*nobodys.why(), wrong::ISSUER);
}

#[tokio::test]
async fn two_issuers_are_held_against_their_own_keys_and_rules() {
    let partner = TokenIssuer {
        issuer: "https://id.fabrikam.test".to_owned(),
        domains: vec!["fabrikam.test".to_owned()],
        keys: KeySource {
            issuer: "https://id.fabrikam.test".to_owned(),
            ..issuer().keys
        },
        ..issuer()
    };
    let auth = Authenticator::new(&settings(vec![issuer(), partner]), None).unwrap();
    let rings: Vec<_> = auth.key_rings().collect();
    rings[0].fetch().put(&key_set(&[&FIRST])).unwrap();
    rings[1].fetch().put(&key_set(&[&SECOND])).unwrap();
    let partners = |user: &str| {
        let mut claims = claims(user);
        claims["iss"] = json!("https://id.fabrikam.test");
        claims
    };

    let own = once(&auth, &SECOND.sign(&partners("x@fabrikam.test"))).await;
    assert_eq!(own.user(), "x@fabrikam.test");
    let ours = once(&auth, &SECOND.sign(&partners("user1@contoso.test"))).await;
    assert_eq!(*ours.why(), wrong::FOREIGN_USER);
    // Ours by name, with the partner's key under the name of ours.
    let header = json!({ "alg": "RS256", "kid": FIRST.name });
    let forged = once(
        &auth,
        &SECOND.sign_as(&header, &claims("user1@contoso.test")),
    )
    .await;
    assert_eq!(*forged.why(), wrong::SIGNATURE);
}

#[test]
fn keys_in_a_file_need_nobody_to_fetch_them() {
    let in_file = |text: Vec<u8>| TokenIssuer {
        keys: KeySource {
            place: KeyPlace::File {
                path: "keys.json".into(),
                text,
            },
            ..issuer().keys
        },
        ..issuer()
    };
    let good = Authenticator::new(&settings(vec![in_file(key_set(&[&FIRST]))]), None).unwrap();
    let bad = Authenticator::new(&settings(vec![in_file(b"{}".to_vec())]), None).unwrap_err();

    assert_eq!(ring(&good).count(), 1);
    assert!(matches!(ring(&good).ask(*START), Missing::Unknown));
    assert!(bad.to_string().contains(ISSUER), "{bad}");
}
