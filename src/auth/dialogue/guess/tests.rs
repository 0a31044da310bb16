//! Passwords by NTLM and the guard, through the authenticator.

use super::super::tests::{START, ntlm, settings};
use super::super::{Handshake, Shaken};
use super::*;
use crate::auth::ntlm::claim::tests::{last, utf16};
use crate::auth::tests::basic;
use crate::auth::{Asker, AuthStep, Authenticator, Guarded, Memo};
use crate::config::settings::{AuthSettings, BasicAuth, BasicVerify, LockoutGuard, SourceGuard};
use std::collections::BTreeMap;

/// A helper in the words of `ntlm_auth`, with a domain behind it: a proof is right, wrong, or not to be judged now.
const DOMAIN: &str = r#"while read verb token; do
  if [ "$verb" = YR ]; then echo "TT AQID"; continue; fi
  case "$(printf %s "$token" | base64 -d | tr -d '\000')" in
    *rightproof*) printf '%s\n' 'AF CONTOSO\alice' ;;
    *wrongproof*) echo "NA NT_STATUS_LOGON_FAILURE" ;;
    *) echo "BH NT_STATUS_NO_LOGON_SERVERS" ;;
  esac
done"#;

const FIRST: &[u8] = b"NTLMSSP\0\x01";
const OFFERED: &[Scheme] = &[Scheme::Ntlm, Scheme::Basic];
const HELD: Denied = Denied::Guarded(Guarded::User);
const WRONG: Denied = Denied::Credentials("wrong name or password");

fn guarded() -> AuthSettings {
    let mut settings = settings();
    let ntlm = settings.ntlm.as_mut().unwrap();
    ntlm.helper = ["sh", "-c", DOMAIN].map(str::to_owned).into();
    settings.lockout_guard = Some(LockoutGuard {
        user_failures: 3,
        user_window: Duration::from_secs(600),
        per_source: None,
        delay: Duration::ZERO,
        delays_max: 0,
    });
    settings
}

fn start(settings: &AuthSettings) -> Authenticator {
    Authenticator::new(settings, None).unwrap()
}

async fn say(
    auth: &Authenticator,
    memo: &mut Memo,
    source: IpAddr,
    message: &[u8],
) -> Result<Shaken, Denied> {
    let value = ntlm(message);
    let asker = Asker {
        authorization: Some(&value),
        offered: OFFERED,
        source,
        now: *START,
    };
    let shake: Box<Handshake> = match auth.step(&asker, memo) {
        AuthStep::Shake(shake) => shake,
        AuthStep::Deny(_, denied) => return Err(denied),
        other => panic!("{other:?}"),
    };
    shake.run(memo).await
}

const HERE: [u8; 4] = [192, 0, 2, 1];

/// One login on a connection of its own.
async fn log_on(auth: &Authenticator, name: (&str, &str), proof: &str) -> Result<String, Denied> {
    let mut memo = Memo::over_tls(None);
    say(auth, &mut memo, HERE.into(), FIRST).await?;
    let message = last(&utf16(name.0), &utf16(name.1), proof.as_bytes());
    match say(auth, &mut memo, HERE.into(), &message).await? {
        Shaken::Proven(identity) => Ok(identity.user.as_str().to_owned()),
        Shaken::More => panic!("there is no third message"),
    }
}

fn names(domain: &str, user: &str, home: Option<&str>) -> Vec<String> {
    let realms = Realms::new(&BTreeMap::from([
        ("CONTOSO".to_owned(), "contoso.test".to_owned()),
        ("PARTNER".to_owned(), "partner.test".to_owned()),
    ]));
    let [domain, user] = [domain, user].map(str::to_owned);
    let guessed = Guessed::of(&Claim { domain, user }, &realms, home);
    let names = guessed.into_iter().flat_map(|one| one.names);
    names.map(|name| name.as_str().to_owned()).collect()
}

#[test]
fn every_way_to_write_a_name_is_counted_as_one_of_ours() {
    let home = Some("contoso.test");
    for (domain, user) in [
        ("CONTOSO", "Alice"),
        ("", "alice"),
        ("", "Alice@Contoso.test"),
        ("ELSEWHERE", "alice@contoso.test"),
    ] {
        assert_eq!(names(domain, user, home), ["alice@contoso.test"], "{user}");
    }
    assert_eq!(
        names("WORKGROUP", "Alice", home),
        [r"workgroup\alice", "alice@contoso.test"]
    );
    assert_eq!(
        names("", r"CONTOSO\alice", home),
        [r"contoso\alice", "alice@contoso.test"]
    );
    assert_eq!(names("PARTNER", "alice", home), ["alice@partner.test"]);
    // Two domains, and nobody has said which is home.
    assert_eq!(names("", "alice", None), ["alice"]);
    for alike in ["\u{e0}lic\u{e9}", "\u{ff41}lice"] {
        let counted = names("CONTOSO", alike, home);
        assert!(
            counted.contains(&"alice@contoso.test".to_owned()),
            "{alike}"
        );
    }
    for nobody in [" alice", "alice ", ""] {
        assert!(names("CONTOSO", nobody, home).is_empty(), "{nobody:?}");
    }
}

#[tokio::test]
async fn of_a_hundred_wrong_passwords_by_ntlm_the_domain_is_asked_about_three() {
    let auth = start(&guarded());
    let spellings = [
        ("CONTOSO", "alice"),
        ("", "alice@contoso.test"),
        ("LAPTOP-7", "ALICE"),
        ("", "alice"),
    ];
    let mut outcomes = Vec::new();

    for number in 0..100 {
        let name = spellings[number % spellings.len()];
        // The very same password: for every challenge another proof is made of it.
        let proof = format!("wrongproof{number}");
        outcomes.push(log_on(&auth, name, &proof).await.unwrap_err());
    }

    assert_eq!(outcomes[..3], [WRONG; 3]);
    assert!(outcomes[3..].iter().all(|denied| *denied == HELD));
    // A hundred first messages, three last ones.
    assert_eq!(auth.tally().judged, 103);
    let right = log_on(&auth, ("CONTOSO", "alice"), "rightproof").await;
    assert_eq!(right, Err(HELD));
    let other = log_on(&auth, ("CONTOSO", "bob"), "wrongproof").await;
    assert_eq!(other, Err(WRONG));
}

#[tokio::test]
async fn wrong_passwords_by_basic_and_by_ntlm_are_counted_together() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    std::fs::write(&file, "").unwrap();
    let mut settings = guarded();
    settings.basic = Some(BasicAuth {
        realm: "mail".to_owned(),
        verify: BasicVerify::File(file),
        default_domain: Some("contoso.test".to_owned()),
    });
    let auth = start(&settings);
    let by_basic = async |password: &str| {
        let value = basic("alice", password);
        let asker = Asker {
            authorization: Some(&value),
            offered: OFFERED,
            source: HERE.into(),
            now: *START,
        };
        match auth.step(&asker, &mut Memo::default()) {
            AuthStep::Verify(verification) => verification.run().await.map(drop),
            AuthStep::Deny(_, denied) => Err(denied),
            other => panic!("{other:?}"),
        }
    };

    assert_eq!(by_basic("one").await, Err(WRONG));
    assert_eq!(
        log_on(&auth, ("CONTOSO", "alice"), "wrongproof").await,
        Err(WRONG)
    );
    assert_eq!(by_basic("two").await, Err(WRONG));

    assert_eq!(by_basic("three").await, Err(HELD));
    assert_eq!(log_on(&auth, ("", "alice"), "rightproof").await, Err(HELD));
}

#[tokio::test]
async fn a_right_password_begins_anew_and_what_nobody_could_judge_is_not_counted() {
    let auth = start(&guarded());
    let alice = ("CONTOSO", "alice");
    for _ in 0..5 {
        let down = log_on(&auth, alice, "downproof").await;
        assert!(matches!(down, Err(Denied::Busy(_))), "{down:?}");
    }

    for _ in 0..3 {
        for number in 0..2 {
            let proof = format!("wrongproof{number}");
            assert_eq!(log_on(&auth, alice, &proof).await, Err(WRONG));
        }
        let right = log_on(&auth, alice, "rightproof").await;
        assert_eq!(right.unwrap(), "alice@contoso.test");
    }
}

#[tokio::test]
async fn a_programs_many_connections_sign_on_at_once_though_any_might_be_wrong() {
    let auth = Arc::new(start(&guarded()));

    let tasks: Vec<_> = (0..12)
        .map(|_| {
            let auth = Arc::clone(&auth);
            tokio::spawn(async move { log_on(&auth, ("CONTOSO", "alice"), "rightproof").await })
        })
        .collect();

    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), "alice@contoso.test");
    }
}

#[tokio::test]
async fn wrong_passwords_at_once_ask_the_domain_about_three_as_well() {
    let auth = Arc::new(start(&guarded()));
    let tasks: Vec<_> = (0..12)
        .map(|number| {
            let auth = Arc::clone(&auth);
            let proof = format!("wrongproof{number}");
            tokio::spawn(async move { log_on(&auth, ("CONTOSO", "alice"), &proof).await })
        })
        .collect();

    let mut asked = 0;
    for task in tasks {
        asked += usize::from(task.await.unwrap() == Err(WRONG));
    }

    assert_eq!(asked, 3);
    assert_eq!(auth.tally().judged, 12 + 3);
}

#[tokio::test]
async fn who_names_nobody_is_refused_before_the_domain_is_asked() {
    let auth = start(&guarded());

    let denied = log_on(&auth, ("CONTOSO", ""), "rightproof").await;

    let why = Denied::Credentials("malformed handshake: it names nobody");
    assert_eq!(denied, Err(why));
    assert_eq!(auth.tally().judged, 1);
}

#[tokio::test]
async fn a_source_that_has_guessed_too_much_gets_no_helper_any_more() {
    let mut settings = guarded();
    settings.lockout_guard.as_mut().unwrap().per_source = Some(SourceGuard {
        failures: 4,
        window: Duration::from_secs(600),
        v4_prefix: 32,
        v6_prefix: 64,
        exempt: Vec::new(),
    });
    let auth = start(&settings);
    for number in 0..4 {
        let user = format!("user{number}");
        let wrong = log_on(&auth, ("CONTOSO", &user), "wrongproof").await;
        assert_eq!(wrong, Err(WRONG));
    }

    let mut memo = Memo::over_tls(None);
    let here = say(&auth, &mut memo, HERE.into(), FIRST).await;
    let elsewhere = say(&auth, &mut memo, [192, 0, 2, 2].into(), FIRST).await;

    assert_eq!(here.unwrap_err(), Denied::Guarded(Guarded::Source));
    assert!(matches!(elsewhere, Ok(Shaken::More)));
}

#[tokio::test]
async fn handshakes_that_nobody_goes_on_with_hold_their_source_up_and_nobody_else() {
    let mut settings = guarded();
    settings.handshakes.per_source = 2;
    settings.ntlm.as_mut().unwrap().pool = 8;
    let auth = start(&settings);
    let mut halves = Vec::new();
    for _ in 0..2 {
        let mut memo = Memo::over_tls(None);
        say(&auth, &mut memo, HERE.into(), FIRST).await.unwrap();
        halves.push(memo);
    }

    let third = log_on(&auth, ("CONTOSO", "alice"), "rightproof").await;
    let other = say(
        &auth,
        &mut Memo::over_tls(None),
        [192, 0, 2, 2].into(),
        FIRST,
    )
    .await;

    let why = Denied::Busy("too many handshakes of this address are half done");
    assert_eq!(third, Err(why));
    assert!(matches!(other, Ok(Shaken::More)));
    assert_eq!(auth.handshakes().refused, [1, 0]);
    // One ends well, and its place is free again.
    let message = last(&utf16("CONTOSO"), &utf16("alice"), b"rightproof");
    let mut memo = halves.pop().unwrap();
    let ended = say(&auth, &mut memo, HERE.into(), &message).await;
    assert!(matches!(ended, Ok(Shaken::Proven(_))));
    assert!(
        log_on(&auth, ("CONTOSO", "alice"), "rightproof")
            .await
            .is_ok()
    );
}
