//! The lockout guard, by itself against a model of a domain, and through the authenticator.

use super::super::basic::WRONG;
use super::super::tests::{OFFERED, START, Site, asker, at, basic};
use super::super::{Asker, AuthStep, Authenticator, Memo};
use super::*;
use crate::config::settings::{IpNet, SourceGuard};
use proptest::prelude::*;
use std::net::Ipv4Addr;

const WINDOW: Duration = Duration::from_secs(600);
const DENIED: Denied = Denied::Credentials(WRONG);

fn terms() -> LockoutGuard {
    LockoutGuard {
        user_failures: 3,
        user_window: WINDOW,
        per_source: Some(SourceGuard {
            failures: 30,
            window: WINDOW,
            v4_prefix: 32,
            v6_prefix: 64,
            exempt: vec![IpNet {
                address: Ipv4Addr::LOCALHOST.into(),
                prefix: 8,
            }],
        }),
        delay: Duration::from_secs(3),
        delays_max: 2,
    }
}

fn site(accounts: &[(&str, &str)]) -> Site {
    let mut site = Site::with(accounts);
    site.settings.lockout_guard = Some(terms());
    site
}

/// One login from an address of its own, on a connection of its own.
async fn log_on(
    auth: &Authenticator,
    user: &str,
    password: &str,
    now: Instant,
) -> Result<bool, Denied> {
    log_on_from(auth, [192, 0, 2, 1].into(), user, password, now).await
}

/// True: without asking the verifier.
async fn log_on_from(
    auth: &Authenticator,
    source: IpAddr,
    user: &str,
    password: &str,
    now: Instant,
) -> Result<bool, Denied> {
    let value = basic(user, password);
    let asker = Asker {
        source,
        ..asker(Some(&value), OFFERED, at(now))
    };
    match auth.step(&asker, &mut Memo::default()) {
        AuthStep::Granted(_) => Ok(true),
        AuthStep::Verify(verification) => verification.run().await.map(|_| false),
        AuthStep::Deny(_, denied) => Err(denied),
        AuthStep::Challenge(reason) => panic!("{reason}"),
        AuthStep::Shake(handshake) => panic!("{handshake:?}"),
    }
}

#[tokio::test]
async fn of_a_thousand_wrong_passwords_the_verifier_is_asked_about_three() {
    let site = site(&[("user1", "secret1"), ("user2", "secret2")]);
    let auth = site.start();

    for number in 0..1000 {
        let denied = log_on(&auth, "user1", &format!("guess{number}"), *START).await;
        let expected = match number < 3 {
            true => DENIED,
            false => Denied::Guarded(Guarded::User),
        };
        assert_eq!(denied, Err(expected), "{number}");
    }

    assert_eq!(auth.tally().judged, 3);
    assert_eq!(log_on(&auth, "user2", "secret2", *START).await, Ok(false));
}

#[tokio::test]
async fn a_thousand_wrong_passwords_at_once_ask_the_verifier_about_three_as_well() {
    let site = site(&[("user1", "secret1")]);
    let auth = Arc::new(site.start());
    let guesses: Vec<_> = (0..1000_u32)
        .map(|number| {
            let auth = Arc::clone(&auth);
            let from = IpAddr::V4((0x0a00_0000 + number).into());
            tokio::spawn(async move {
                let guess = format!("guess{number}");
                log_on_from(&auth, from, "user1", &guess, *START).await
            })
        })
        .collect();

    for guess in guesses {
        assert!(guess.await.unwrap().is_err());
    }
    assert_eq!(auth.tally().judged, 3);
}

#[tokio::test]
async fn one_stale_password_shown_for_hours_is_one_wrong_password() {
    let site = site(&[("user1", "secret1")]);
    let auth = site.start();
    let mut asked = Vec::new();

    for minute in 0..60 {
        let now = *START + Duration::from_secs(60 * minute);
        assert_eq!(log_on(&auth, "user1", "stale", now).await, Err(DENIED));
        asked.push(auth.tally().judged);
    }

    // Once a window, though the negative cache forgets it every minute.
    assert_eq!(asked.last(), Some(&6));
    let later = *START + Duration::from_secs(3600);
    assert_eq!(log_on(&auth, "user1", "secret1", later).await, Ok(false));
}

#[tokio::test]
async fn what_is_believed_goes_on_while_strangers_guess_and_may_be_asked_about_again() {
    let mut site = site(&[("user1", "secret1")]);
    site.settings.cache_ttl = Duration::from_secs(60);
    let auth = site.start();
    assert_eq!(log_on(&auth, "user1", "secret1", *START).await, Ok(false));
    for number in 0..10 {
        let _refused = log_on(&auth, "user1", &format!("guess{number}"), *START).await;
    }

    let believed = log_on(&auth, "user1", "secret1", *START).await;
    let later = *START + Duration::from_secs(61);
    let stranger = log_on(&auth, "user1", "other", later).await;
    let asked_anew = log_on(&auth, "user1", "secret1", later).await;

    assert_eq!(believed, Ok(true));
    assert_eq!(stranger, Err(Denied::Guarded(Guarded::User)));
    assert_eq!(asked_anew, Ok(false));
}

#[tokio::test]
async fn a_password_that_was_changed_is_not_vouched_for_any_more() {
    let site = site(&[("user1", "old")]);
    let auth = site.start();
    assert_eq!(log_on(&auth, "user1", "old", *START).await, Ok(false));
    site.write(&[("user1", "new")]);
    let auth = site.reload(&auth);
    for number in 0..3 {
        let _refused = log_on(&auth, "user1", &format!("guess{number}"), *START).await;
    }
    let judged = auth.tally().judged;

    assert_eq!(log_on(&auth, "user1", "old", *START).await, Err(DENIED));
    let soon = *START + Duration::from_secs(61);
    let again = log_on(&auth, "user1", "old", soon).await;

    assert_eq!(again, Err(Denied::Guarded(Guarded::User)));
    assert_eq!(auth.tally().judged, judged + 1);
}

#[tokio::test]
async fn a_right_password_lets_the_user_err_anew() {
    let site = site(&[("user1", "secret1")]);
    let auth = site.start();
    for _ in 0..3 {
        for guess in ["a", "b"] {
            auth.memory.beliefs.forget_all();
            assert_eq!(log_on(&auth, "user1", guess, *START).await, Err(DENIED));
        }
        assert_eq!(log_on(&auth, "user1", "secret1", *START).await, Ok(false));
    }
}

#[tokio::test]
async fn an_unknown_user_is_guarded_like_a_known_one() {
    let site = site(&[("user1", "secret1")]);
    let auth = site.start();
    for number in 0..6 {
        let guess = format!("guess{number}");
        let known = log_on(&auth, "user1", &guess, *START).await;
        let unknown = log_on(&auth, "nobody", &guess, *START).await;
        assert_eq!(known, unknown);
    }
}

#[tokio::test]
async fn a_spray_from_one_address_ends_there_and_nowhere_else() {
    let site = site(&[("user1", "secret1")]);
    let auth = site.start();
    for number in 0..40 {
        let denied = log_on(&auth, &format!("person{number}"), "Winter2026", *START).await;
        let expected = match number < 30 {
            true => DENIED,
            false => Denied::Guarded(Guarded::Source),
        };
        assert_eq!(denied, Err(expected), "{number}");
    }

    let elsewhere = log_on_from(&auth, [192, 0, 2, 2].into(), "user1", "secret1", *START).await;
    let later = log_on(&auth, "user1", "secret1", *START + WINDOW).await;

    assert_eq!(elsewhere, Ok(false));
    assert_eq!(later, Ok(false));
    assert_eq!(auth.sweep_guard(*START).trips, [0, 1]);
}

#[tokio::test]
async fn an_exempt_address_is_many_people_and_counts_for_none() {
    let site = site(&[("user1", "secret1")]);
    let auth = site.start();
    for number in 0..40 {
        let user = format!("person{number}");
        let denied = log_on_from(&auth, [127, 0, 0, 1].into(), &user, "x", *START).await;
        assert_eq!(denied, Err(DENIED), "{number}");
    }
}

#[tokio::test]
async fn nobody_is_suspected_for_showing_nothing_or_nonsense() {
    let site = site(&[("user1", "secret1")]);
    let auth = site.start();
    for _ in 0..100 {
        for value in [
            None,
            Some(&b"Basic %%%"[..]),
            Some(b"Basic dXNlcjE6"),
            Some(b"Digest x"),
        ] {
            let step = auth.step(&asker(value, OFFERED, at(*START)), &mut Memo::default());
            assert!(!matches!(step, AuthStep::Verify(_)));
        }
    }

    assert_eq!(auth.sweep_guard(*START), GuardFacts::default());
    assert_eq!(log_on(&auth, "user1", "secret1", *START).await, Ok(false));
}

#[tokio::test]
async fn who_is_revoked_may_err_anew() {
    let site = site(&[("user1", "secret1")]);
    let auth = site.start();
    for number in 0..4 {
        let _refused = log_on(&auth, "user1", &format!("guess{number}"), *START).await;
    }
    assert_eq!(auth.sweep_guard(*START).users, (1, 1));

    auth.revoke(&UserName::new("user1@contoso.test"));

    assert_eq!(log_on(&auth, "user1", "secret1", *START).await, Ok(false));
}

#[tokio::test]
async fn a_reload_with_the_same_terms_forgets_no_guess() {
    let mut site = site(&[("user1", "secret1")]);
    let auth = site.start();
    for number in 0..4 {
        let _refused = log_on(&auth, "user1", &format!("guess{number}"), *START).await;
    }

    let same = site.reload(&auth);
    let kept = log_on(&same, "user1", "guess9", *START).await;
    site.settings.lockout_guard = None;
    let off = site.reload(&auth);

    assert_eq!(kept, Err(Denied::Guarded(Guarded::User)));
    assert_eq!(log_on(&off, "user1", "guess9", *START).await, Err(DENIED));
}

#[test]
fn so_many_answers_are_held_back_and_no_more() {
    let guard = Guard::new(&terms());
    let (first, second) = (guard.delay(), guard.delay());
    assert!(first.is_some() && second.is_some() && guard.delay().is_none());
    assert_eq!(guard.sweep(*START).delayed, 2);

    drop(first);

    assert!(guard.delay().is_some());
}

#[test]
fn another_name_of_the_account_counts_against_the_account() {
    let guard = Arc::new(Guard::new(&terms()));
    let account = UserName::new("user1@contoso.test");
    let mut asked = 0;
    for (number, name) in [
        "user1",
        r"contoso\user1",
        "u.one@contoso.test",
        "user.1",
        "u1",
    ]
    .into_iter()
    .enumerate()
    {
        let guess = suspicion(&guard, number as u64, *START);
        guess.begin(&UserName::new(name)).unwrap();
        if guess.begin(&account).is_ok() {
            asked += 1;
            guess.refused(DENIED);
        }
    }
    assert_eq!(asked, 3);
}

#[test]
fn a_full_table_forgets_those_nobody_guessed_at_for_long_first() {
    let rule = Rule {
        failures: 2,
        window: WINDOW,
        forgets: Forgets::All,
    };
    let mut table = Table::new(rule, 100);
    let guess = |lot| Guess { lot, serial: 1 };
    let tripped = table.key("tripped");
    table
        .count(tripped, *START)
        .refuse(rule, guess(1), DENIED, *START);
    table
        .count(tripped, *START)
        .refuse(rule, guess(2), DENIED, *START);
    for number in 0..10_000_u64 {
        let now = *START + Duration::from_millis(number);
        let key = table.key(number);
        table
            .count(key, now)
            .refuse(rule, guess(number), DENIED, now);
        let (known, _) = table.sweep(now);
        assert!(known <= 100);
    }

    assert!(
        table
            .known(tripped)
            .is_some_and(|count| count.is_tripped(rule))
    );
    let newest = table.key(9_999_u64);
    assert!(table.known(newest).is_some());
}

#[test]
fn a_full_table_is_not_looked_through_again_for_the_next_name() {
    let rule = Rule {
        failures: 2,
        window: WINDOW,
        forgets: Forgets::All,
    };
    let mut table = Table::new(rule, 800);
    let refuse = |table: &mut Table, number: u64, now| {
        let (key, guess) = (
            table.key(number),
            Guess {
                lot: number,
                serial: 1,
            },
        );
        table.count(key, now).refuse(rule, guess, DENIED, now);
    };
    // One will be over when the table is full; the others are all young.
    refuse(&mut table, 0, *START);
    let young = *START + Duration::from_secs(1);
    for number in 1..800 {
        refuse(&mut table, number, young);
    }

    let later = *START + WINDOW;
    refuse(&mut table, 800, later);

    assert_eq!(table.sweep(later).0, 701);
    let newest = table.key(800_u64);
    assert!(table.known(newest).is_some());
}

#[test]
fn a_source_is_a_network_of_the_length_that_is_set() {
    let mut source = terms().per_source.unwrap();
    let of = |text: &str, source: &SourceGuard| network(text.parse().unwrap(), source).to_string();
    assert_eq!(of("192.0.2.77", &source), "192.0.2.77");
    assert_eq!(of("2001:db8:1:2:3:4:5:6", &source), "2001:db8:1:2::");
    (source.v4_prefix, source.v6_prefix) = (24, 48);
    assert_eq!(of("192.0.2.77", &source), "192.0.2.0");
    assert_eq!(of("2001:db8:1:2:3:4:5:6", &source), "2001:db8:1::");
}

fn suspicion(guard: &Arc<Guard>, lot: u64, now: Instant) -> Suspicion {
    let digest = Digest::of_lot(lot);
    Suspicion::new(
        Some(guard),
        [192, 0, 2, 1].into(),
        (&digest, 1),
        false,
        now,
        None,
    )
}

/// Looks at each line that is told whether others could use the tables meanwhile.
struct Listener(Arc<Guard>, Arc<AtomicU64>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Listener {
    fn on_event(&self, _: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        assert!(self.0.users.try_lock().is_some(), "users");
        let sources = self.0.sources.as_ref().unwrap();
        assert!(sources.try_lock().is_some(), "sources");
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn nobody_waits_for_the_log_while_it_is_told_who_was_guessed_at() {
    use tracing_subscriber::layer::SubscriberExt as _;
    let (guard, lines) = (Arc::new(Guard::new(&terms())), Arc::default());
    let listener = Listener(Arc::clone(&guard), Arc::clone(&lines));
    let log = tracing_subscriber::registry().with(listener);

    tracing::subscriber::with_default(log, || {
        for lot in 0..30 {
            let guess = suspicion(&guard, lot, *START);
            let user = UserName::new(format!("user{}", lot / 3));
            guess.begin(&user).unwrap();
            guess.refused(DENIED);
        }
    });

    let (users, sources) = (10, 1);
    assert_eq!(lines.load(Ordering::Relaxed), users + sources);
}

/// How Active Directory counts: to zero after so long without a wrong one, or with a right one.
#[derive(Default)]
struct Domain {
    wrong: usize,
    last: Option<Instant>,
}

impl Domain {
    fn asked(&mut self, is_right: bool, now: Instant) {
        let is_over = |last| now.saturating_duration_since(last) >= WINDOW;
        if is_right || self.last.is_some_and(is_over) {
            self.wrong = 0;
        }
        if !is_right {
            self.wrong += 1;
            self.last = Some(now);
        }
    }
}

proptest! {
    #[test]
    fn a_domain_never_counts_more_than_the_guard_lets_through(
        steps in proptest::collection::vec((0_u64..12, 0_u64..400, any::<bool>()), 1..200),
        failures in 1_usize..6,
    ) {
        let guard = Arc::new(Guard::new(&LockoutGuard {
            user_failures: failures,
            per_source: None,
            ..terms()
        }));
        let user = UserName::new("user1");
        let (mut domain, mut now) = (Domain::default(), *START);
        let mut under_way = Vec::new();
        for (lot, seconds, waits) in steps {
            now += Duration::from_secs(seconds);
            let guess = suspicion(&guard, lot, now);
            guard.sweep(now);
            // Credential 0 is the right one.
            if guess.begin(&user).is_ok() {
                if waits {
                    under_way.push((lot, guess));
                    continue;
                }
                domain.asked(lot == 0, now);
                if lot == 0 { guess.cleared() } else { guess.refused(DENIED) }
            }
            for (lot, guess) in under_way.drain(..) {
                domain.asked(lot == 0, now);
                if lot == 0 { guess.cleared() } else { guess.refused(DENIED) }
            }
            prop_assert!(domain.wrong <= failures, "{}", domain.wrong);
        }
        drop(under_way);
        let facts = guard.sweep(now + WINDOW);
        prop_assert_eq!(facts.users, (0, 0));
    }
}
