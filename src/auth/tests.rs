//! What authentication promises, told through [`Authenticator`] alone.

use super::basic::WRONG;
use super::*;
use crate::config::settings::{BasicAuth, BasicVerify};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use std::sync::LazyLock;
use tempfile::TempDir;

const TTL: Duration = Duration::from_secs(600);
const NEGATIVE_TTL: Duration = Duration::from_secs(60);

/// A password file that can be rewritten, and the settings that name it.
pub(super) struct Site {
    _folder: TempDir,
    pub(super) settings: AuthSettings,
}

impl Site {
    pub(super) fn with(accounts: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let site = Self {
            settings: AuthSettings {
                basic: Some(BasicAuth {
                    realm: "mail".to_owned(),
                    verify: BasicVerify::File(folder.path().join("users")),
                    default_domain: Some("contoso.test".to_owned()),
                }),
                cache_ttl: TTL,
                negative_ttl: NEGATIVE_TTL,
                ..AuthSettings::closed()
            },
            _folder: folder,
        };
        site.write(accounts);
        site
    }

    /// Lines of the same account are the same text each time, as they are in a file nobody touched.
    pub(super) fn write(&self, accounts: &[(&str, &str)]) {
        let line = |(user, password): &(&str, &str)| {
            let mut salt = [7; 16];
            salt.iter_mut().zip(user.bytes()).for_each(|(s, b)| *s = b);
            let hash = bcrypt::hash_with_salt(password, 4, salt).unwrap();
            format!("{user}:{hash}\n")
        };
        let text: String = accounts.iter().map(line).collect();
        std::fs::write(self.file(), text).unwrap();
    }

    fn file(&self) -> PathBuf {
        self._folder.path().join("users")
    }

    pub(super) fn start(&self) -> Authenticator {
        Authenticator::new(&self.settings, None).unwrap()
    }

    pub(super) fn reload(&self, running: &Authenticator) -> Authenticator {
        Authenticator::new(&self.settings, Some(running)).unwrap()
    }
}

pub(super) const OFFERED: &[Scheme] = &[Scheme::Basic];

/// What comes from one address.
pub(super) fn asker<'a>(
    authorization: Option<&'a [u8]>,
    offered: &'a [Scheme],
    now: (Instant, SystemTime),
) -> Asker<'a> {
    Asker {
        authorization,
        offered,
        source: std::net::Ipv4Addr::new(192, 0, 2, 1).into(),
        now,
    }
}

/// The same moment by both clocks.
pub(super) fn at(now: Instant) -> (Instant, SystemTime) {
    (now, SystemTime::UNIX_EPOCH + now.duration_since(*START))
}

pub(super) fn basic(user: &str, password: &str) -> Vec<u8> {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))).into_bytes()
}

/// One moment for all tests; later ones are this plus something.
pub(super) static START: LazyLock<Instant> = LazyLock::new(start);

#[expect(
    clippy::disallowed_methods,
    reason = "a test is where its own time begins"
)]
fn start() -> Instant {
    Instant::now()
}

enum Outcome {
    Remembered(Arc<Identity>),
    Verified(Result<Arc<Identity>, Denied>),
    Challenged(&'static str),
}

impl Outcome {
    fn user(self) -> String {
        match self {
            Self::Remembered(identity) | Self::Verified(Ok(identity)) => identity.user.to_string(),
            Self::Verified(Err(denied)) => panic!("denied: {denied}"),
            Self::Challenged(reason) => panic!("challenged: {reason}"),
        }
    }

    fn is_wrong(&self) -> bool {
        match self {
            Self::Verified(Err(Denied::Credentials(reason))) | Self::Challenged(reason) => {
                *reason == WRONG
            }
            _ => false,
        }
    }
}

async fn ask(auth: &Authenticator, value: &[u8], memo: &mut Memo, now: Instant) -> Outcome {
    match auth.step(&asker(Some(value), OFFERED, at(now)), memo) {
        AuthStep::Granted(identity) => Outcome::Remembered(identity),
        AuthStep::Verify(verification) => Outcome::Verified(verification.run().await),
        AuthStep::Deny(_, Denied::Credentials(reason)) | AuthStep::Challenge(reason) => {
            Outcome::Challenged(reason)
        }
        AuthStep::Deny(_, busy) => Outcome::Verified(Err(busy)),
        AuthStep::Shake(handshake) => panic!("{handshake:?}"),
    }
}

/// On a connection of its own.
async fn ask_anew(auth: &Authenticator, value: &[u8], now: Instant) -> Outcome {
    ask(auth, value, &mut Memo::default(), now).await
}

fn reason(auth: &Authenticator, value: Option<&[u8]>) -> &'static str {
    match auth.step(&asker(value, OFFERED, at(*START)), &mut Memo::default()) {
        AuthStep::Deny(_, Denied::Credentials(reason)) | AuthStep::Challenge(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_second_request_of_a_session_costs_no_hash() {
    let site = Site::with(&[("user1", "secret1")]);
    let (auth, value) = (site.start(), basic("user1", "secret1"));
    let mut memo = Memo::default();

    assert_eq!(
        ask(&auth, &value, &mut memo, *START).await.user(),
        "user1@contoso.test"
    );
    for _ in 0..3 {
        let again = ask(&auth, &value, &mut memo, *START).await;
        assert!(matches!(again, Outcome::Remembered(_)));
    }
    let other_connection = ask_anew(&auth, &value, *START).await;

    assert_eq!(other_connection.user(), "user1@contoso.test");
    assert_eq!(auth.tally().judged, 1);
}

#[tokio::test]
async fn every_login_form_is_somebody() {
    let site = Site::with(&[
        ("User1", "a"),
        (r"CONTOSO\user1", "b"),
        ("x@fabrikam.test", "c"),
    ]);
    let auth = site.start();

    for (login, password, user) in [
        ("USER1", "a", "user1@contoso.test"),
        ("user1@contoso.test", "a", "user1@contoso.test"),
        (r"contoso\USER1", "b", r"contoso\user1"),
        ("X@Fabrikam.test", "c", "x@fabrikam.test"),
    ] {
        let outcome = ask_anew(&auth, &basic(login, password), *START).await;
        assert_eq!(outcome.user(), user);
    }
    assert!(
        ask_anew(&auth, &basic(r"contoso\user1", "a"), *START)
            .await
            .is_wrong()
    );
}

#[tokio::test]
async fn a_memo_serves_only_the_credential_it_was_made_for() {
    let site = Site::with(&[("user1", "a"), ("user2", "b")]);
    let auth = site.start();
    let mut memo = Memo::default();
    ask(&auth, &basic("user1", "a"), &mut memo, *START).await;
    ask(&auth, &basic("user1", "a"), &mut memo, *START).await;

    let second = ask(&auth, &basic("user2", "b"), &mut memo, *START).await;
    let wrong = ask(&auth, &basic("user1", "b"), &mut memo, *START).await;
    let none = auth.step(&asker(None, OFFERED, at(*START)), &mut memo);

    assert_eq!(second.user(), "user2@contoso.test");
    assert!(wrong.is_wrong());
    assert!(matches!(none, AuthStep::Challenge(NO_CREDENTIALS)));
}

#[tokio::test]
async fn a_wrong_password_is_hashed_once_and_refused_from_memory_for_a_while() {
    let site = Site::with(&[("user1", "secret1")]);
    let (auth, value) = (site.start(), basic("user1", "stale"));

    assert!(ask_anew(&auth, &value, *START).await.is_wrong());
    let soon = ask_anew(&auth, &value, *START + NEGATIVE_TTL / 2).await;
    assert!(matches!(soon, Outcome::Challenged(WRONG)));
    assert_eq!(auth.tally().judged, 1);

    let later = ask_anew(&auth, &value, *START + NEGATIVE_TTL).await;
    assert!(matches!(later, Outcome::Verified(_)) && later.is_wrong());
    assert_eq!(auth.tally().judged, 2);
}

#[tokio::test]
async fn an_unknown_user_takes_the_same_path_as_a_wrong_password() {
    let site = Site::with(&[("user1", "secret1")]);
    let auth = site.start();
    let mut verdicts = Vec::new();

    for login in ["user1", "nobody"] {
        let value = basic(login, "wrong");
        let first = ask_anew(&auth, &value, *START).await;
        let Outcome::Verified(Err(denied)) = first else {
            panic!("not verified");
        };
        let Outcome::Challenged(again) = ask_anew(&auth, &value, *START).await else {
            panic!("not remembered");
        };
        verdicts.push((denied, again, auth.tally().judged));
    }

    // Even with the password of the account that lends its hash for the time it takes.
    assert!(
        ask_anew(&auth, &basic("nobody", "secret1"), *START)
            .await
            .is_wrong()
    );
    assert_eq!(verdicts[0].0, verdicts[1].0);
    assert_eq!(verdicts[0].1, verdicts[1].1);
    assert_eq!((verdicts[0].2, verdicts[1].2), (1, 2));
}

#[tokio::test]
async fn an_empty_password_file_lets_nobody_in() {
    let auth = Site::with(&[]).start();
    assert!(
        ask_anew(&auth, &basic("user1", "a"), *START)
            .await
            .is_wrong()
    );
}

#[tokio::test]
async fn a_cached_identity_expires() {
    let site = Site::with(&[("user1", "secret1")]);
    let (auth, value) = (site.start(), basic("user1", "secret1"));
    let mut memo = Memo::default();
    ask(&auth, &value, &mut memo, *START).await;
    ask(&auth, &value, &mut memo, *START).await;

    let last = ask(
        &auth,
        &value,
        &mut memo,
        *START + TTL - Duration::from_millis(1),
    )
    .await;
    let expired = ask(&auth, &value, &mut memo, *START + TTL).await;

    assert!(matches!(last, Outcome::Remembered(_)));
    assert!(matches!(expired, Outcome::Verified(Ok(_))));
    assert_eq!(auth.tally().judged, 2);
}

#[tokio::test]
async fn revocation_takes_effect_at_once_on_open_connections() {
    let site = Site::with(&[("user1", "a"), ("user2", "b")]);
    let auth = site.start();
    let (one, two) = (basic("user1", "a"), basic("user2", "b"));
    let (mut memo1, mut memo2) = (Memo::default(), Memo::default());
    for _ in 0..2 {
        ask(&auth, &one, &mut memo1, *START).await;
        ask(&auth, &two, &mut memo2, *START).await;
    }

    assert!(auth.revoke(&UserName::new("user1@contoso.test")));
    assert!(!auth.revoke(&UserName::new("nobody")));
    let revoked = ask(&auth, &one, &mut memo1, *START).await;
    let other = ask(&auth, &two, &mut memo2, *START).await;
    auth.revoke_all();
    let all = ask(&auth, &two, &mut memo2, *START).await;

    assert!(matches!(revoked, Outcome::Verified(Ok(_))));
    assert!(matches!(other, Outcome::Remembered(_)));
    assert!(matches!(all, Outcome::Verified(Ok(_))));
}

#[tokio::test]
async fn a_reload_forgets_only_users_whose_line_changed() {
    let site = Site::with(&[("user1", "a"), ("user2", "b"), ("user3", "c")]);
    let before = site.start();
    let values = [
        basic("user1", "a"),
        basic("user2", "b"),
        basic("user3", "c"),
    ];
    let mut memos = [Memo::default(), Memo::default(), Memo::default()];
    for (value, memo) in values.iter().zip(&mut memos) {
        ask(&before, value, memo, *START).await;
        ask(&before, value, memo, *START).await;
    }

    site.write(&[("user1", "a"), ("user2", "changed")]);
    let after = site.reload(&before);
    let [memo1, memo2, memo3] = &mut memos;

    let same = ask(&after, &values[0], memo1, *START).await;
    assert!(matches!(same, Outcome::Remembered(_)));
    assert!(ask(&after, &values[1], memo2, *START).await.is_wrong());
    assert!(ask(&after, &values[2], memo3, *START).await.is_wrong());
    assert!(ask_anew(&after, &values[1], *START).await.is_wrong());
    // The running configuration, should it stay, goes by its own file.
    assert_eq!(
        ask_anew(&before, &values[1], *START).await.user(),
        "user2@contoso.test"
    );
}

#[tokio::test]
async fn a_new_password_that_was_tried_too_early_works_after_the_reload() {
    let site = Site::with(&[("user1", "old")]);
    let before = site.start();
    let value = basic("user1", "new");
    assert!(ask_anew(&before, &value, *START).await.is_wrong());

    site.write(&[("user1", "new")]);
    let after = site.reload(&before);

    assert_eq!(
        ask_anew(&after, &value, *START).await.user(),
        "user1@contoso.test"
    );
}

#[tokio::test]
async fn other_lifetimes_begin_with_an_empty_memory() {
    let mut site = Site::with(&[("user1", "a")]);
    let before = site.start();
    let value = basic("user1", "a");
    ask_anew(&before, &value, *START).await;

    site.settings.cache_ttl = TTL / 2;
    let after = site.reload(&before);

    assert!(matches!(
        ask_anew(&after, &value, *START).await,
        Outcome::Verified(Ok(_))
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_credential_asked_for_by_many_is_hashed_once() {
    let site = Site::with(&[("user1", "secret1")]);
    let auth = Arc::new(site.start());
    let value = basic("user1", "secret1");

    let many: Vec<_> = (0..50)
        .map(|_| {
            let (auth, value) = (Arc::clone(&auth), value.clone());
            tokio::spawn(async move { ask_anew(&auth, &value, *START).await.user() })
        })
        .collect();
    for one in many {
        assert_eq!(one.await.unwrap(), "user1@contoso.test");
    }

    assert_eq!(auth.tally().judged, 1);
}

#[tokio::test]
async fn a_thousand_wrong_passwords_of_one_user_do_not_disturb_another() {
    let site = Site::with(&[("user2", "b")]);
    let file = &site.file();
    let quick = std::fs::read_to_string(file).unwrap();
    let slow = bcrypt::hash("a", 10).unwrap();
    std::fs::write(file, format!("{quick}user1:{slow}\n")).unwrap();
    let auth = Arc::new(site.start());
    let attackers: Vec<_> = (0..1000)
        .map(|number| {
            let auth = Arc::clone(&auth);
            let value = basic("user1", &format!("guess{number}"));
            tokio::spawn(async move { ask_anew(&auth, &value, *START).await })
        })
        .collect();
    while auth.tally().shed < 900 {
        tokio::task::yield_now().await;
    }
    let judged_before = auth.tally().judged;

    let second = ask_anew(&auth, &basic("user2", "b"), *START).await;

    // The guesses hold one permit of two, so that hardly any of the waiting ones comes first.
    assert_eq!(second.user(), "user2@contoso.test");
    assert!(
        auth.tally().judged - judged_before < 8,
        "{:?}",
        auth.tally()
    );
    attackers.iter().for_each(|attacker| attacker.abort());
}

#[tokio::test]
async fn clients_that_leave_take_no_permit_along() {
    let site = Site::with(&[("user1", "a"), ("user2", "b")]);
    let auth = site.start();

    for number in 0..100 {
        let value = basic("user1", &format!("guess{number}"));
        let AuthStep::Verify(verification) = auth.step(
            &asker(Some(&value), OFFERED, at(*START)),
            &mut Memo::default(),
        ) else {
            panic!("not verified");
        };
        // Polled once, so that the flight has started, then dropped.
        let polled = tokio::time::timeout(Duration::ZERO, verification.run());
        drop(polled.await);
        if number % 2 == 0 {
            tokio::task::yield_now().await;
        }
    }
    while ask_anew(&auth, &basic("user1", "a"), *START)
        .await
        .is_busy()
    {
        tokio::task::yield_now().await;
    }

    assert_eq!(
        ask_anew(&auth, &basic("user2", "b"), *START).await.user(),
        "user2@contoso.test"
    );
}

impl Outcome {
    fn is_busy(&self) -> bool {
        matches!(self, Self::Verified(Err(Denied::Busy(_))))
    }
}

#[tokio::test]
async fn the_first_to_ask_may_leave_and_the_others_get_their_verdict() {
    let site = Site::with(&[("user1", "secret1")]);
    let auth = Arc::new(site.start());
    let value = basic("user1", "secret1");
    let AuthStep::Verify(first) = auth.step(
        &asker(Some(&value), OFFERED, at(*START)),
        &mut Memo::default(),
    ) else {
        panic!("not verified");
    };
    let first = tokio::spawn(first.run());
    tokio::task::yield_now().await;
    let second = ask_anew(&auth, &value, *START);

    first.abort();

    assert_eq!(second.await.user(), "user1@contoso.test");
}

#[test]
fn a_flight_that_ended_with_its_runtime_does_not_strand_the_next_one() {
    let site = Site::with(&[("user1", "secret1")]);
    let auth = site.start();
    let value = basic("user1", "secret1");
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let AuthStep::Verify(first) = auth.step(
        &asker(Some(&value), OFFERED, at(*START)),
        &mut Memo::default(),
    ) else {
        panic!("not verified");
    };
    let stopped = runtime();
    stopped.block_on(async {
        let _ = tokio::time::timeout(Duration::ZERO, first.run()).await;
    });
    stopped.shutdown_background();

    let outcome = runtime().block_on(ask_anew(&auth, &value, *START));

    assert_eq!(outcome.user(), "user1@contoso.test");
}

#[test]
fn a_bare_bearer_is_a_probe_and_not_a_failure() {
    let auth = Site::with(&[("user1", "a")]).start();
    for value in [&b"Bearer"[..], b"bearer ", b"BEARER   ", b" Bearer "] {
        assert_eq!(reason(&auth, Some(value)), BEARER_PROBE);
    }
    assert_eq!(reason(&auth, Some(b"Bearer eyJ0")), "scheme not offered");
    assert_eq!(auth.tally(), Tally::default());
}

#[test]
fn what_is_no_credential_is_challenged_without_a_hash() {
    let auth = Site::with(&[("user1", "a")]).start();
    let long = [b"Basic ".to_vec(), vec![b'A'; 100_000]].concat();

    assert_eq!(reason(&auth, None), NO_CREDENTIALS);
    assert_eq!(reason(&auth, Some(b"  ")), NO_CREDENTIALS);
    assert_eq!(reason(&auth, Some(b"Negotiate YII=")), "scheme not offered");
    assert_eq!(
        reason(&auth, Some(b"Basic")),
        "malformed credentials: no colon"
    );
    assert_eq!(
        reason(&auth, Some(b"Basic ???")),
        "malformed credentials: not base64"
    );
    assert_eq!(
        reason(&auth, Some(&long)),
        "malformed credentials: too long"
    );
    assert_eq!(reason(&auth, Some(&basic("user1", ""))), "empty password");
    assert_eq!(auth.tally(), Tally::default());
}

#[test]
fn challenges_come_one_a_line_in_title_case() {
    let auth = Site::with(&[]).start();

    let lines: String = auth.challenges(&[Scheme::Basic], None, true).collect();

    assert_eq!(
        lines,
        "WWW-Authenticate: Basic realm=\"mail\", charset=\"UTF-8\"\r\n"
    );
    assert_eq!(auth.challenges(&[], None, true).count(), 0);
}

#[test]
fn without_a_scheme_nobody_gets_in() {
    let mut site = Site::with(&[("user1", "a")]);
    site.settings.basic = None;
    let auth = site.start();

    assert_eq!(
        reason(&auth, Some(&basic("user1", "a"))),
        "scheme not offered"
    );
    assert_eq!(auth.challenges(&[Scheme::Basic], None, true).count(), 0);
}

#[test]
fn a_bad_password_file_is_an_error_with_every_problem() {
    let site = Site::with(&[]);
    let file = &site.file();
    std::fs::write(file, "user1:plain\nuser2:$apr1$a$b\n").unwrap();

    let error = Authenticator::new(&site.settings, None).unwrap_err();

    let AuthError::Passwords { problems, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(problems.len(), 2);
    assert!(error.to_string().contains("line 1"), "{error}");
    assert!(!error.to_string().contains("plain"), "{error}");
}

#[tokio::test]
async fn debug_prints_no_credential() {
    let site = Site::with(&[("user1", "hunter2")]);
    let auth = site.start();
    let value = basic("user1", "hunter2");
    let mut memo = Memo::default();
    let step = auth.step(&asker(Some(&value), OFFERED, at(*START)), &mut memo);
    let before = format!("{step:?}");
    ask(&auth, &value, &mut memo, *START).await;
    ask(&auth, &value, &mut memo, *START).await;

    let text = format!("{before} {auth:?} {memo:?}");

    let token = STANDARD.encode("user1@contoso.test:hunter2");
    assert!(
        !text.contains("hunter2") && !text.contains(&token),
        "{text}"
    );
    assert!(!text.contains("$2"), "{text}");
}

#[test]
fn any_bytes_as_authorization_do_not_panic() {
    let auth = Site::with(&[("user1", "a")]).start();
    proptest!(|(value in prop::collection::vec(any::<u8>(), 0..300), word in "(Basic|Bearer|basic)? ?")| {
        let value = [word.into_bytes(), value].concat();
        let _ = auth.step(&asker(Some(&value), OFFERED, at(*START)), &mut Memo::default());
    });
}

#[tokio::test]
async fn a_scheme_that_this_name_does_not_offer_is_not_looked_at() {
    let site = Site::with(&[("user1", "a")]);
    let auth = site.start();
    let (value, mut memo) = (basic("user1", "a"), Memo::default());
    ask(&auth, &value, &mut memo, *START).await;
    ask(&auth, &value, &mut memo, *START).await;

    let elsewhere = auth.step(&asker(Some(&value), &[], at(*START)), &mut memo);

    let AuthStep::Deny(None, Denied::Credentials(reason)) = elsewhere else {
        panic!("{elsewhere:?}");
    };
    assert_eq!(reason, "scheme not offered");
}
