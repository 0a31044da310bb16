use super::*;
use crate::auth::{Asker, AuthStep, Authenticator};
use crate::config::settings::{AuthSettings, NtlmAuth};
use proptest::prelude::*;
use std::net::IpAddr;
use std::sync::LazyLock;

fn realms() -> Realms {
    Realms::new(&BTreeMap::from([
        ("CONTOSO.TEST".to_owned(), "contoso.test".to_owned()),
        ("Contoso".to_owned(), "contoso.test".to_owned()),
    ]))
}

fn principal(text: &str) -> Option<String> {
    let user = realms().of_principal(text);
    user.map(|user| user.as_str().to_owned())
}

fn account(text: &str) -> Option<String> {
    let user = realms().of_account(text);
    user.map(|user| user.as_str().to_owned())
}

#[test]
fn both_manners_of_saying_a_user_become_one_name() {
    assert_eq!(
        principal("Alice@CONTOSO.TEST").unwrap(),
        "alice@contoso.test"
    );
    assert_eq!(account("CONTOSO\\Alice\0").unwrap(), "alice@contoso.test");
}

#[test]
fn a_realm_that_is_not_mapped_never_becomes_one_that_is() {
    assert_eq!(
        principal("alice@PARTNER.TEST").unwrap(),
        "alice@partner.test"
    );
    assert_eq!(account("PARTNER\\alice").unwrap(), "partner\\alice");
    assert_eq!(principal(r"alice\@contoso.test@PARTNER.TEST"), None);
    assert_eq!(account("CONTOSO\\alice@partner.test"), None);
    for nobody in [
        "",
        "alice",
        "@CONTOSO.TEST",
        "alice@",
        "a\r\nb@CONTOSO.TEST",
    ] {
        assert_eq!(principal(nobody), None, "{nobody:?}");
    }
    for nobody in ["", "alice", "CONTOSO\\", "CONTOSO\\a\\b", "CONTOSO\\a\0b"] {
        assert_eq!(account(nobody), None, "{nobody:?}");
    }
}

#[test]
fn a_token_of_64_kib_is_read_and_a_longer_one_is_named() {
    let longest = STANDARD.encode(vec![7; TOKEN_BYTES_MAX]);
    assert_eq!(read(longest.as_bytes()).unwrap().len(), TOKEN_BYTES_MAX);
    assert!("Negotiate ".len() + longest.len() <= VALUE_BYTES_MAX);

    let longer = STANDARD.encode(vec![7; TOKEN_BYTES_MAX + 3]);
    assert_eq!(
        read(longer.as_bytes()).unwrap_err(),
        Denied::Credentials("handshake token longer than 64 KiB")
    );
}

#[tokio::test(start_paused = true)]
async fn a_conversation_that_nobody_goes_on_with_is_dropped_when_its_time_is_over() {
    let open = Arc::new(Open::new(&AuthSettings::closed().handshakes));
    let talk = || {
        let talk = Talk::Negotiate(Context::for_tests());
        (talk, open.enter([192, 0, 2, 1].into(), START.0).unwrap())
    };
    let half = || Half::new(Scheme::Negotiate, talk(), Duration::from_secs(10));
    let mut bond = Bond {
        half: Some(half()),
        ..Bond::default()
    };
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert!(matches!(bond.begin(Scheme::Negotiate), Waiting::For(..)));

    bond.half = Some(half());
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(open.facts().open, 0);
    assert!(matches!(bond.begin(Scheme::Negotiate), Waiting::TooLong));

    bond.half = Some(half());
    assert!(matches!(bond.begin(Scheme::Ntlm), Waiting::Nobody));
}

proptest! {
    #[test]
    fn any_names_and_tokens_do_not_panic(text in ".{0,60}", bytes in prop::collection::vec(any::<u8>(), 0..90)) {
        let _ = principal(&text);
        let _ = account(&text);
        let _ = read(&bytes);
    }
}

/// A helper in the words of `ntlm_auth`: the second message is the user.
const OBLIGING: &str = r#"while read verb token; do
  case "$verb $token" in
    YR*) echo "TT AQID" ;;
    "KK TlRMTVNTUAADYm9i") printf '%s\n' 'AF CONTOSO\bob' ;;
    KK*) printf '%s\n' 'AF CONTOSO\alice' ;;
  esac
done"#;

const ALICE: &[u8] = b"NTLMSSP\0\x03alice";
const BOB: &[u8] = b"NTLMSSP\0\x03bob";

const OFFERED: &[Scheme] = &[Scheme::Ntlm, Scheme::Basic];

pub(super) const TTL: Duration = Duration::from_secs(3600);

pub(super) fn settings() -> AuthSettings {
    AuthSettings {
        ntlm: Some(NtlmAuth {
            helper: ["sh", "-c", OBLIGING].map(str::to_owned).into(),
            pool: 2,
            handshake_timeout: Duration::from_secs(10),
            realm_map: BTreeMap::from([("CONTOSO".to_owned(), "contoso.test".to_owned())]),
        }),
        connection_ttl: TTL,
        ..AuthSettings::closed()
    }
}

fn auth() -> Authenticator {
    Authenticator::new(&settings(), None).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "any moment will do")]
pub(super) static START: LazyLock<(Instant, SystemTime)> =
    LazyLock::new(|| (Instant::now(), SystemTime::now()));

pub(super) fn ntlm(message: &[u8]) -> Vec<u8> {
    format!("NTLM {}", STANDARD.encode(message)).into_bytes()
}

fn asker<'a>(
    authorization: Option<&'a [u8]>,
    offered: &'a [Scheme],
    now: (Instant, SystemTime),
) -> Asker<'a> {
    Asker {
        authorization,
        offered,
        source: IpAddr::from([127, 0, 0, 1]),
        now,
    }
}

/// The user that a request is granted as, or why it is not.
async fn ask(
    auth: &Authenticator,
    memo: &mut Memo,
    value: Option<&[u8]>,
    passed: Duration,
) -> Result<String, String> {
    let now = (START.0 + passed, START.1 + passed);
    match auth.step(&asker(value, OFFERED, now), memo) {
        AuthStep::Granted(identity) => Ok(identity.user.as_str().to_owned()),
        AuthStep::Shake(handshake) => match handshake.run(memo).await {
            Ok(Shaken::Proven(identity)) => Ok(identity.user.as_str().to_owned()),
            Ok(Shaken::More) => Err(format!("more: {}", memo.answer().unwrap())),
            Err(denied) => Err(denied.to_string()),
        },
        AuthStep::Challenge(reason) => Err(reason.to_owned()),
        AuthStep::Deny(_, denied) => Err(denied.to_string()),
        AuthStep::Verify(_) => Err("verify".to_owned()),
    }
}

/// Signs on to the end.
async fn sign_on(auth: &Authenticator, memo: &mut Memo, as_whom: &[u8]) -> Result<String, String> {
    let first = ask(auth, memo, Some(&ntlm(b"NTLMSSP\0\x01")), Duration::ZERO).await;
    assert_eq!(first.unwrap_err(), "more: WWW-Authenticate: NTLM AQID\r\n");
    ask(auth, memo, Some(&ntlm(as_whom)), Duration::ZERO).await
}

#[tokio::test]
async fn a_proven_connection_is_its_users_until_its_time_is_over() {
    let (auth, mut memo) = (auth(), Memo::over_tls(None));
    assert_eq!(
        sign_on(&auth, &mut memo, ALICE).await.unwrap(),
        "alice@contoso.test"
    );

    let later = ask(&auth, &mut memo, None, TTL - Duration::from_secs(1)).await;
    assert_eq!(later.unwrap(), "alice@contoso.test");
    let too_late = ask(&auth, &mut memo, None, TTL).await;
    assert_eq!(too_late.unwrap_err(), crate::auth::NO_CREDENTIALS);
    let elsewhere = ask(&auth, &mut Memo::over_tls(None), None, Duration::ZERO).await;
    assert_eq!(elsewhere.unwrap_err(), crate::auth::NO_CREDENTIALS);
}

#[tokio::test]
async fn what_was_shown_on_one_connection_is_worth_nothing_on_another() {
    let (auth, mut memo) = (auth(), Memo::over_tls(None));
    sign_on(&auth, &mut memo, ALICE).await.unwrap();

    let repeated = ask(&auth, &mut memo, Some(&ntlm(ALICE)), Duration::ZERO).await;
    let mut other = Memo::over_tls(None);
    let stolen = ask(&auth, &mut other, Some(&ntlm(ALICE)), Duration::ZERO).await;

    assert_eq!(repeated.unwrap(), "alice@contoso.test");
    assert_eq!(
        stolen.unwrap_err(),
        "malformed handshake: not its beginning"
    );
}

#[tokio::test]
async fn another_sign_on_makes_the_connection_anothers_or_nobodys() {
    let (auth, mut memo) = (auth(), Memo::over_tls(None));
    sign_on(&auth, &mut memo, ALICE).await.unwrap();

    let half = ask(
        &auth,
        &mut memo,
        Some(&ntlm(b"NTLMSSP\0\x01")),
        Duration::ZERO,
    )
    .await;
    assert!(half.is_err());
    assert!(ask(&auth, &mut memo, None, Duration::ZERO).await.is_err());
    assert_eq!(
        sign_on(&auth, &mut memo, BOB).await.unwrap(),
        "bob@contoso.test"
    );
    let basic = ask(&auth, &mut memo, Some(b"Basic eDp5"), Duration::ZERO).await;

    assert_eq!(basic.unwrap_err(), "scheme not offered");
    assert!(ask(&auth, &mut memo, None, Duration::ZERO).await.is_err());
}

#[tokio::test]
async fn a_revoked_user_is_nobody_on_every_connection() {
    let auth = auth();
    let (mut alice, mut bob) = (Memo::over_tls(None), Memo::over_tls(None));
    sign_on(&auth, &mut alice, ALICE).await.unwrap();
    sign_on(&auth, &mut bob, BOB).await.unwrap();

    assert!(auth.revoke(&UserName::new("alice@contoso.test")));
    assert!(ask(&auth, &mut alice, None, Duration::ZERO).await.is_err());
    assert!(ask(&auth, &mut bob, None, Duration::ZERO).await.is_ok());
    auth.revoke_all();
    assert!(ask(&auth, &mut bob, None, Duration::ZERO).await.is_err());
}

#[tokio::test]
async fn a_reload_keeps_who_is_proven_until_the_rules_change() {
    let (first, mut memo) = (auth(), Memo::over_tls(None));
    sign_on(&first, &mut memo, ALICE).await.unwrap();

    let same = Authenticator::new(&settings(), Some(&first)).unwrap();
    let mut changed = settings();
    changed.ntlm.as_mut().unwrap().realm_map.clear();
    let changed = Authenticator::new(&changed, Some(&first)).unwrap();

    assert!(ask(&same, &mut memo, None, Duration::ZERO).await.is_ok());
    assert!(
        ask(&changed, &mut memo, None, Duration::ZERO)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_revocation_reaches_who_was_proven_before_a_reload_that_remembers_otherwise() {
    for everybody in [false, true] {
        let (first, mut memo) = (auth(), Memo::over_tls(None));
        let user = UserName::new(sign_on(&first, &mut memo, ALICE).await.unwrap());
        let lasting = first.lasting(&user);
        let mut changed = settings();
        changed.cache_ttl *= 2;
        let changed = Authenticator::new(&changed, Some(&first)).unwrap();
        assert!(ask(&changed, &mut memo, None, Duration::ZERO).await.is_ok());

        match everybody {
            false => assert!(changed.revoke(&user)),
            true => changed.revoke_all(),
        }

        let asked = ask(&changed, &mut memo, None, Duration::ZERO).await;
        assert!(asked.is_err(), "everybody: {everybody}");
        assert!(!lasting.stands(), "everybody: {everybody}");
    }
}

#[tokio::test]
async fn connections_that_may_be_anybodys_are_never_proven() {
    let auth = auth();
    let mut plain = Memo::default();

    let word = ask(
        &auth,
        &mut plain,
        Some(&ntlm(b"NTLMSSP\0\x01")),
        Duration::ZERO,
    )
    .await;

    assert_eq!(word.unwrap_err(), "scheme not offered");
    assert_eq!(
        auth.challenges(OFFERED, None, plain.is_bindable()).count(),
        0
    );
    assert_eq!(auth.challenges(OFFERED, None, true).count(), 1);
}

#[tokio::test]
async fn a_name_that_does_not_offer_the_scheme_knows_nobody_by_it() {
    let (auth, mut memo) = (auth(), Memo::over_tls(None));
    sign_on(&auth, &mut memo, ALICE).await.unwrap();

    let step = auth.step(&asker(None, &[Scheme::Basic], *START), &mut memo);

    assert!(matches!(step, AuthStep::Challenge(_)), "{step:?}");
}

#[tokio::test]
async fn nothing_of_a_handshake_is_printed() {
    let (auth, mut memo) = (auth(), Memo::over_tls(None));
    let value = ntlm(b"NTLMSSP\0\x01");

    let step = auth.step(&asker(Some(&value), OFFERED, *START), &mut memo);
    let text = format!("{step:?}");
    sign_on(&auth, &mut memo, ALICE).await.unwrap();

    assert!(!text.contains("TlRM"), "{text}");
    let text = format!("{memo:?}");
    assert!(!text.contains("TlRM") && !text.contains("AQID"), "{text}");
}
