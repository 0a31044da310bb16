//! What tokens may and may not do, told through [`Authenticator`] alone.

use super::mint::{AUDIENCE, CURVE, FIRST, ISSUER, NOW, SECOND, Signer, claims, key_set, unsigned};
use super::ring::{ASK_EVERY, PATIENCE};
use super::*;
use crate::auth::{AuthStep, Authenticator, Identity, Memo};
use crate::config::settings::{AuthSettings, KeyPlace, KeySource, RequiredClaim};
use crate::refusal::Diagnosis;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::LazyLock;

mod rotation;

const LEEWAY: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const SECOND_LONG: Duration = Duration::from_secs(1);
const OFFERED: &[Scheme] = &[Scheme::Bearer, Scheme::Basic];

static START: LazyLock<Instant> = LazyLock::new(start);

#[expect(
    clippy::disallowed_methods,
    reason = "a test is where its own time begins"
)]
fn start() -> Instant {
    Instant::now()
}

/// So long after the tests' own beginning, by both clocks.
fn after(passed: Duration) -> (Instant, SystemTime) {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    (*START + passed, wall + passed)
}

fn issuer() -> TokenIssuer {
    TokenIssuer {
        issuer: ISSUER.to_owned(),
        keys: KeySource {
            issuer: ISSUER.to_owned(),
            place: KeyPlace::Url("https://id.contoso.test/keys".to_owned()),
            ca: None,
            refresh: HOUR,
        },
        audiences: vec![
            "https://autodiscover.contoso.test/".to_owned(),
            AUDIENCE.to_owned(),
        ],
        algorithms: vec![Algorithm::RS256, Algorithm::ES256],
        identity_claims: vec!["upn".to_owned(), "preferred_username".to_owned()],
        default_domain: None,
        domains: Vec::new(),
        required_claims: Vec::new(),
        clients: Vec::new(),
    }
}

fn settings(issuers: Vec<TokenIssuer>) -> AuthSettings {
    AuthSettings {
        bearer: Some(BearerAuth {
            challenge: BearerChallenge::default(),
            leeway: LEEWAY,
            issuers,
        }),
        cache_ttl: 24 * HOUR,
        negative_ttl: SECOND_LONG * 60,
        ..AuthSettings::closed()
    }
}

fn of(issuer: TokenIssuer) -> Authenticator {
    let auth = Authenticator::new(&settings(vec![issuer]), None).unwrap();
    put(&auth, &[&FIRST, &CURVE]);
    auth
}

fn ring(auth: &Authenticator) -> Arc<KeyRing> {
    auth.key_rings().next().unwrap().clone()
}

fn put(auth: &Authenticator, signers: &[&Signer]) {
    ring(auth).fetch().put(&key_set(signers)).unwrap();
}

/// Claims of user1 with one of them other, or gone.
fn with(claim: &str, value: Value) -> Value {
    let mut claims = claims("user1@contoso.test");
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(claim)),
        value => claims[claim] = value,
    }
    claims
}

fn user1() -> String {
    FIRST.sign(&claims("user1@contoso.test"))
}

#[derive(Debug)]
enum Outcome {
    Remembered(Arc<Identity>),
    Verified(Arc<Identity>),
    /// At once, or after a verification.
    Denied(Denied),
}

impl Outcome {
    fn user(&self) -> &str {
        match self {
            Self::Remembered(identity) | Self::Verified(identity) => identity.user.as_str(),
            Self::Denied(denied) => panic!("denied: {denied}"),
        }
    }

    fn why(&self) -> &'static Diagnosis {
        match self {
            Self::Denied(Denied::Token(diagnosis)) => diagnosis,
            other => panic!("{other:?}"),
        }
    }

    fn is_busy(&self) -> bool {
        matches!(self, Self::Denied(Denied::Busy(_)))
    }
}

async fn ask(auth: &Authenticator, token: &str, memo: &mut Memo, passed: Duration) -> Outcome {
    let value = format!("Bearer {token}");
    match auth.step(
        &crate::auth::tests::asker(Some(value.as_bytes()), OFFERED, after(passed)),
        memo,
    ) {
        AuthStep::Granted(identity) => Outcome::Remembered(identity),
        AuthStep::Verify(verification) => match verification.run().await {
            Ok(identity) => Outcome::Verified(identity),
            Err(denied) => Outcome::Denied(denied),
        },
        AuthStep::Deny(scheme, denied) => {
            assert_eq!(scheme, Some(Scheme::Bearer));
            Outcome::Denied(denied)
        }
        AuthStep::Challenge(reason) => panic!("challenged: {reason}"),
        AuthStep::Shake(handshake) => panic!("{handshake:?}"),
    }
}

/// On a connection of its own, in the first moment.
async fn once(auth: &Authenticator, token: &str) -> Outcome {
    ask(auth, token, &mut Memo::default(), Duration::ZERO).await
}

async fn refused(auth: &Authenticator, claims: &Value) -> &'static Diagnosis {
    once(auth, &FIRST.sign(claims)).await.why()
}

#[tokio::test]
async fn a_signed_token_is_its_user_and_verified_once() {
    let auth = of(issuer());
    for signer in [&*FIRST, &*CURVE] {
        let token = signer.sign(&claims("User1@Contoso.test"));
        let mut memo = Memo::default();

        let first = ask(&auth, &token, &mut memo, Duration::ZERO).await;
        let second = ask(&auth, &token, &mut memo, Duration::ZERO).await;
        let elsewhere = once(&auth, &token).await;

        let Outcome::Verified(identity) = &first else {
            panic!("{first:?}");
        };
        assert_eq!(identity.user.as_str(), "user1@contoso.test");
        assert_eq!(identity.scheme, Scheme::Bearer);
        assert_eq!(identity.expires, Some(after(HOUR + LEEWAY).1));
        assert!(matches!(second, Outcome::Remembered(_)));
        assert!(matches!(elsewhere, Outcome::Remembered(_)));
    }
    assert_eq!(auth.tally().judged, 2);
}

#[tokio::test]
async fn a_token_without_a_signature_is_refused() {
    let auth = of(issuer());
    for header in [
        json!({ "alg": "none" }),
        json!({ "alg": "None", "kid": FIRST.name }),
        json!({ "alg": "NONE", "typ": "JWT", "kid": FIRST.name }),
        json!({ "alg": "", "kid": FIRST.name }),
    ] {
        let message = unsigned(&header, &claims("user1@contoso.test"));
        assert_eq!(
            *once(&auth, &format!("{message}.")).await.why(),
            wrong::ALGORITHM
        );
    }
    let message = unsigned(
        &json!({ "alg": "RS256", "kid": FIRST.name }),
        &claims("user1@contoso.test"),
    );
    assert_eq!(
        *once(&auth, &format!("{message}.")).await.why(),
        wrong::SIGNATURE
    );
    assert_eq!(*once(&auth, &message).await.why(), wrong::MALFORMED);
}

#[tokio::test]
async fn a_public_key_is_nobodys_secret() {
    let auth = of(issuer());
    for secret in FIRST.public_forms() {
        for algorithm in ["HS256", "RS256", "ES256"] {
            let header = json!({ "alg": algorithm, "kid": FIRST.name });
            let message = unsigned(&header, &claims("user1@contoso.test"));
            let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
            let tag = hmac::sign(&key, message.as_bytes());
            let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag));

            let why = once(&auth, &token).await.why();

            let expected = match algorithm {
                "HS256" => &wrong::ALGORITHM,
                "RS256" => &wrong::SIGNATURE,
                _ => &wrong::OTHER_KEY,
            };
            assert_eq!(why, expected, "{algorithm}");
        }
    }
}

#[tokio::test]
async fn a_key_serves_its_own_algorithm_only() {
    let auth = of(issuer());
    let curve_as_rsa = json!({ "alg": "RS256", "kid": CURVE.name });
    let token = FIRST.sign_as(&curve_as_rsa, &claims("user1@contoso.test"));
    assert_eq!(*once(&auth, &token).await.why(), wrong::OTHER_KEY);
    // The right key under another key's name.
    let named_wrong = json!({ "alg": "RS256", "kid": FIRST.name });
    let token = SECOND.sign_as(&named_wrong, &claims("user1@contoso.test"));
    assert_eq!(*once(&auth, &token).await.why(), wrong::SIGNATURE);
    // Of its family, but not what the issuer may use.
    let other = json!({ "alg": "PS256", "kid": FIRST.name });
    let token = FIRST.sign_as(&other, &claims("user1@contoso.test"));
    assert_eq!(*once(&auth, &token).await.why(), wrong::ALGORITHM);
}

#[tokio::test]
async fn a_key_that_the_token_brings_along_is_not_looked_at() {
    let auth = of(issuer());
    let header = json!({ "alg": "RS256", "kid": FIRST.name, "jwk": SECOND.jwk(), "jku": "https://evil.test/" });
    let token = SECOND.sign_as(&header, &claims("user1@contoso.test"));
    assert_eq!(*once(&auth, &token).await.why(), wrong::SIGNATURE);
}

#[tokio::test]
async fn a_changed_letter_spoils_the_signature() {
    let auth = of(issuer());
    let token = user1();
    let (message, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = message.split_once('.').unwrap();
    let other = URL_SAFE_NO_PAD.encode(claims("user2@contoso.test").to_string());
    assert_eq!(
        *once(&auth, &format!("{header}.{other}.{signature}"))
            .await
            .why(),
        wrong::SIGNATURE
    );
}

#[tokio::test]
async fn issuer_and_audience_must_be_ours_letter_by_letter() {
    let auth = of(issuer());
    for issuer in [
        "https://id.contoso.test/",
        "HTTPS://ID.CONTOSO.TEST",
        "https://evil.test",
        "",
    ] {
        assert_eq!(
            *refused(&auth, &with("iss", json!(issuer))).await,
            wrong::ISSUER,
            "{issuer}"
        );
    }
    for audience in [
        json!("https://mail.contoso.test"),
        json!("https://MAIL.contoso.test/"),
        json!(["https://other.test/"]),
        json!([]),
        json!(5),
        json!({}),
        Value::Null,
    ] {
        assert_eq!(
            *refused(&auth, &with("aud", audience.clone())).await,
            wrong::AUDIENCE,
            "{audience}"
        );
    }
    let one_of_several = with("aud", json!(["https://other.test/", AUDIENCE]));
    assert_eq!(
        once(&auth, &FIRST.sign(&one_of_several)).await.user(),
        "user1@contoso.test"
    );
}

#[tokio::test]
async fn an_expired_token_is_refused_and_the_leeway_is_exact() {
    let auth = of(issuer());
    let leeway = LEEWAY.as_secs();
    let ends = |at: u64| FIRST.sign(&with("exp", json!(at)));

    assert_eq!(*once(&auth, &ends(NOW - 3600)).await.why(), wrong::EXPIRED);
    assert_eq!(
        *once(&auth, &ends(NOW - leeway)).await.why(),
        wrong::EXPIRED
    );
    assert_eq!(
        once(&auth, &ends(NOW - leeway + 1)).await.user(),
        "user1@contoso.test"
    );
    let fraction = FIRST.sign(&with("exp", json!((NOW - leeway) as f64 + 0.5)));
    assert_eq!(once(&auth, &fraction).await.user(), "user1@contoso.test");
    for nonsense in [
        json!("tomorrow"),
        json!(-5),
        json!(1e300),
        json!(true),
        Value::Null,
    ] {
        assert_eq!(
            *refused(&auth, &with("exp", nonsense.clone())).await,
            wrong::NO_EXPIRY,
            "{nonsense}"
        );
    }
}

#[tokio::test]
async fn a_token_of_tomorrow_is_refused_today_and_good_tomorrow() {
    let auth = of(issuer());
    let leeway = LEEWAY.as_secs();
    let begins = |at: u64| FIRST.sign(&with("nbf", json!(at)));

    assert_eq!(
        once(&auth, &begins(NOW + leeway)).await.user(),
        "user1@contoso.test"
    );
    let token = begins(NOW + leeway + 1);
    assert_eq!(*once(&auth, &token).await.why(), wrong::EARLY);
    assert_eq!(
        *once(&auth, &begins(NOW + 86_400)).await.why(),
        wrong::EARLY
    );
    assert_eq!(
        *refused(&auth, &with("nbf", json!("now"))).await,
        wrong::EARLY
    );
    let without = FIRST.sign(&with("nbf", Value::Null));
    assert_eq!(once(&auth, &without).await.user(), "user1@contoso.test");

    // What was too early a second ago is not remembered as wrong.
    let later = ask(&auth, &token, &mut Memo::default(), SECOND_LONG).await;
    assert_eq!(later.user(), "user1@contoso.test");
}

#[tokio::test]
async fn a_token_that_names_nobody_is_refused() {
    let auth = of(issuer());
    for name in [
        json!(""),
        json!(" user1"),
        json!("a\r\nb"),
        json!(7),
        json!(["user1"]),
        Value::Null,
    ] {
        assert_eq!(
            *refused(&auth, &with("upn", name.clone())).await,
            wrong::NO_USER,
            "{name}"
        );
    }
    let mut second = with("upn", Value::Null);
    second["preferred_username"] = json!(r"CONTOSO\User1");
    assert_eq!(
        once(&auth, &FIRST.sign(&second)).await.user(),
        r"contoso\user1"
    );
    // A bad name is not passed over for a better one.
    second["upn"] = json!("");
    assert_eq!(*refused(&auth, &second).await, wrong::NO_USER);
}

#[tokio::test]
async fn an_address_counts_only_where_the_provider_has_verified_it() {
    let auth = of(TokenIssuer {
        identity_claims: vec!["email".to_owned()],
        ..issuer()
    });
    let mut claims = with("email", json!("user1@contoso.test"));
    assert_eq!(*refused(&auth, &claims).await, wrong::NO_USER);
    claims["email_verified"] = json!(false);
    assert_eq!(*refused(&auth, &claims).await, wrong::NO_USER);
    claims["email_verified"] = json!(true);
    assert_eq!(
        once(&auth, &FIRST.sign(&claims)).await.user(),
        "user1@contoso.test"
    );
}

#[tokio::test]
async fn an_issuer_speaks_for_its_own_domains_only() {
    let auth = of(TokenIssuer {
        domains: vec!["contoso.test".to_owned()],
        default_domain: Some("contoso.test".to_owned()),
        ..issuer()
    });
    for stranger in [
        "user1@fabrikam.test",
        r"CONTOSO\user1",
        "user1@contoso.test.evil.test",
        "@",
    ] {
        assert_eq!(
            *refused(&auth, &claims(stranger)).await,
            wrong::FOREIGN_USER,
            "{stranger}"
        );
    }
    assert_eq!(
        once(&auth, &FIRST.sign(&claims("User1"))).await.user(),
        "user1@contoso.test"
    );
}

#[tokio::test]
async fn required_claims_and_clients_are_asked_for() {
    let auth = of(TokenIssuer {
        required_claims: vec![RequiredClaim {
            claim: "scp".to_owned(),
            any_of: vec![
                "MAPI.AccessAsUser.All".to_owned(),
                "full_access_as_user".to_owned(),
            ],
        }],
        clients: vec!["outlook".to_owned()],
        ..issuer()
    });
    let mut claims = with("azp", json!("outlook"));
    for scope in [
        json!("mapi.accessasuser.all"),
        json!("MAPI.AccessAsUser.All.Not"),
        json!([]),
        json!({}),
        Value::Null,
    ] {
        claims["scp"] = scope.clone();
        assert_eq!(*refused(&auth, &claims).await, wrong::CLAIM, "{scope}");
    }
    for scope in [
        json!("openid MAPI.AccessAsUser.All"),
        json!(["x", "full_access_as_user"]),
    ] {
        claims["scp"] = scope;
        assert_eq!(
            once(&auth, &FIRST.sign(&claims)).await.user(),
            "user1@contoso.test"
        );
    }
    for client in [json!("another"), json!(""), Value::Null] {
        claims["azp"] = client;
        assert_eq!(*refused(&auth, &claims).await, wrong::CLIENT);
    }
    // The first that says who the client is counts, not the one that suits.
    claims["azp"] = json!("outlook");
    claims["appid"] = json!("another");
    assert_eq!(*refused(&auth, &claims).await, wrong::CLIENT);
}

#[tokio::test]
async fn a_huge_token_is_refused_unread() {
    let auth = of(issuer());
    let token = FIRST.sign(&with("padding", json!("x".repeat(48 * 1024))));
    assert!(token.len() > 64 * 1024);
    assert_eq!(*once(&auth, &token).await.why(), wrong::TOO_LONG);
    let usual = FIRST.sign(&with("padding", json!("x".repeat(8 * 1024))));
    assert_eq!(once(&auth, &usual).await.user(), "user1@contoso.test");
}

#[tokio::test]
async fn a_token_ends_in_mid_session() {
    let auth = of(issuer());
    let (token, mut memo) = (user1(), Memo::default());
    ask(&auth, &token, &mut memo, Duration::ZERO).await;
    let last = HOUR + LEEWAY - Duration::from_millis(1);

    let before = ask(&auth, &token, &mut memo, last).await;
    let ended = ask(&auth, &token, &mut memo, HOUR + LEEWAY).await;
    let cached = ask(&auth, &token, &mut Memo::default(), HOUR + LEEWAY).await;

    assert!(matches!(before, Outcome::Remembered(_)));
    assert_eq!(*ended.why(), wrong::EXPIRED);
    assert_eq!(*cached.why(), wrong::EXPIRED);
}

#[tokio::test]
async fn one_users_token_on_anothers_connection_is_its_own_users() {
    let auth = of(issuer());
    let (one, two) = (user1(), FIRST.sign(&claims("user2@contoso.test")));
    let mut memo = Memo::default();
    for _ in 0..3 {
        assert_eq!(
            ask(&auth, &one, &mut memo, Duration::ZERO).await.user(),
            "user1@contoso.test"
        );
        assert_eq!(
            ask(&auth, &two, &mut memo, Duration::ZERO).await.user(),
            "user2@contoso.test"
        );
        // The first one's message with the second one's signature.
        let mixed = format!(
            "{}.{}",
            one.rsplit_once('.').unwrap().0,
            two.rsplit_once('.').unwrap().1
        );
        let outcome = ask(&auth, &mixed, &mut memo, Duration::ZERO).await;
        assert_eq!(*outcome.why(), wrong::SIGNATURE);
    }
}

#[tokio::test]
async fn who_is_revoked_is_verified_anew() {
    let auth = of(issuer());
    let (one, two) = (user1(), FIRST.sign(&claims("user2@contoso.test")));
    let (mut memo1, mut memo2) = (Memo::default(), Memo::default());
    for _ in 0..2 {
        ask(&auth, &one, &mut memo1, Duration::ZERO).await;
        ask(&auth, &two, &mut memo2, Duration::ZERO).await;
    }

    assert!(auth.revoke(&UserName::new("user1@contoso.test")));
    assert!(!auth.revoke(&UserName::new("nobody@contoso.test")));
    let revoked = ask(&auth, &one, &mut memo1, Duration::ZERO).await;
    let other = ask(&auth, &two, &mut memo2, Duration::ZERO).await;
    auth.revoke_all();
    let all = ask(&auth, &two, &mut memo2, Duration::ZERO).await;

    assert!(matches!(revoked, Outcome::Verified(_)));
    assert!(matches!(other, Outcome::Remembered(_)));
    assert!(matches!(all, Outcome::Verified(_)));
}

#[test]
fn the_challenge_is_as_exchange_writes_it() {
    let mut settings = settings(vec![issuer()]);
    let lines = |settings: &AuthSettings, refused| {
        let auth = Authenticator::new(settings, None).unwrap();
        auth.challenges(OFFERED, refused, true).collect::<String>()
    };
    assert_eq!(
        lines(&settings, None),
        "WWW-Authenticate: Bearer realm=\"mail\"\r\n"
    );
    let bearer = settings.bearer.as_mut().unwrap();
    bearer.challenge = BearerChallenge {
        client_id: Some("00000002-0000-0ff1-ce00-000000000000".to_owned()),
        trusted_issuers: Some("00000001-0000-0000-c000-000000000000@tenant".to_owned()),
        token_types: Some("app_asserted_user_v1 service_asserted_app_v1".to_owned()),
        authorization_uri: Some(
            "https://login.microsoftonline.com/common/oauth2/authorize".to_owned(),
        ),
    };
    let said = "WWW-Authenticate: Bearer client_id=\"00000002-0000-0ff1-ce00-000000000000\", \
                trusted_issuers=\"00000001-0000-0000-c000-000000000000@tenant\", \
                token_types=\"app_asserted_user_v1 service_asserted_app_v1\", \
                authorization_uri=\"https://login.microsoftonline.com/common/oauth2/authorize\"";
    assert_eq!(lines(&settings, None), format!("{said}\r\n"));
    assert_eq!(
        lines(&settings, Some(Scheme::Bearer)),
        format!("{said}, error=\"invalid_token\"\r\n")
    );
    settings.bearer.as_mut().unwrap().challenge.client_id = Some("a\"\r\nX: y".to_owned());
    assert!(Authenticator::new(&settings, None).is_err());
}

#[tokio::test]
async fn debug_prints_no_token() {
    let auth = of(issuer());
    let (token, mut memo) = (user1(), Memo::default());
    let value = format!("Bearer {token}");
    let step = auth.step(
        &crate::auth::tests::asker(Some(value.as_bytes()), OFFERED, after(Duration::ZERO)),
        &mut memo,
    );
    let before = format!("{step:?}");
    ask(&auth, &token, &mut memo, Duration::ZERO).await;

    let text = format!("{before} {auth:?} {memo:?}");

    for part in token.split('.') {
        assert!(!text.contains(part), "{text}");
    }
}

#[test]
fn any_bytes_behind_the_word_do_not_panic() {
    let auth = of(issuer());
    let now = after(Duration::ZERO);
    proptest!(|(bytes in prop::collection::vec(any::<u8>(), 0..300))| {
        let value = [b"Bearer ".to_vec(), bytes].concat();
        let _ = auth.step(&crate::auth::tests::asker(Some(&value), OFFERED, now), &mut Memo::default());
    });
    proptest!(|(header in "\\PC{0,40}", payload in "\\PC{0,40}", signature in "[A-Za-z0-9_-]{0,20}")| {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let value = format!("Bearer {}.{}.{signature}", part(&header), part(&payload));
        let _ = auth.step(&crate::auth::tests::asker(Some(value.as_bytes()), OFFERED, now), &mut Memo::default());
    });
}

#[test]
fn any_claims_are_judged_without_a_panic() {
    let rules = Rules::new(&issuer(), LEEWAY);
    let keys = keys::Keys::read(&key_set(&[&CURVE]), &keys::Keys::default()).unwrap();
    let key = keys.find(Some(CURVE.name)).unwrap();
    let value = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|n| json!(n)),
        any::<f64>().prop_map(|n| json!(n)),
        "\\PC{0,10}".prop_map(|s| json!(s)),
        Just(json!([])),
        Just(json!({})),
    ];
    let claim = prop::sample::select(vec![
        "exp",
        "nbf",
        "upn",
        "preferred_username",
        "iat",
        "azp",
    ]);
    proptest!(ProptestConfig::with_cases(64), |(claim in claim, value in value)| {
        let token = CURVE.sign(&with(claim, value));
        let _ = rules.verify(token.as_bytes(), Algorithm::ES256, key, after(Duration::ZERO).1);
    });
}
