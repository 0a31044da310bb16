//! Wrong passwords by the hundred: what they cost the guesser, and what they do not cost the guessed at.

use crate::support::{Ask, TestSite, basic, brisk, eventually, line, log_with, start};
use mapigate::lab::site::{PASSWORD, Plan, user};
use mapigate::mapi::Flavour;
use std::time::{Duration, Instant};

/// The guard as it is by default, but for what the test says, and this host counts as a source.
fn guarded(terms: &str) -> Plan {
    let auth = format!(
        "{{ basic: {{ password_file: users.htpasswd, default_domain: contoso.test }}, lockout_guard: {{ {terms} }} }}"
    );
    brisk(Flavour::Exchange).section("auth", &auth)
}

fn ping(name: &str, password: &str) -> Vec<u8> {
    let authorization = format!("Authorization: {}", basic(name, password));
    let ask = Ask::new(1, "PING").without("Authorization");
    ask.with(authorization).bytes()
}

async fn metric(site: &TestSite, sample: &str) -> f64 {
    let admin = site.gate().unwrap().admin();
    admin.metric(sample).await.unwrap()
}

#[tokio::test]
async fn a_thousand_wrong_passwords_lock_nobody_out_and_disturb_nobody_else() {
    let site = start(guarded("delay: 0s")).await;
    let target = site.target().unwrap();
    let mut owner = line(&target).await;
    let mut other = line(&target).await;
    assert_eq!(
        owner
            .ask(&ping(&user(1), PASSWORD))
            .await
            .unwrap()
            .head
            .status,
        200
    );
    let mut guesser = line(&target).await;
    let mut bodies = Vec::new();

    for number in 0..1000 {
        let guess = ping(&user(1), &format!("guess {number}"));
        let answer = guesser.ask(&guess).await.unwrap();
        assert_eq!(answer.head.status, 401);
        assert_eq!(answer.head.all("WWW-Authenticate").count(), 1);
        bodies.push(answer.body().len());
        if number % 100 == 0 {
            let believed = owner.ask(&ping(&user(1), PASSWORD)).await.unwrap();
            let stranger = other.ask(&ping(&user(2), PASSWORD)).await.unwrap();
            assert_eq!((believed.head.status, stranger.head.status), (200, 200));
        }
    }

    assert!(bodies.iter().all(|length| *length == bodies[0]));
    let verified = metric(&site, "mapigate_auth_verifications_total").await;
    assert!(verified <= 5.0, "{verified}");
    let guarded = r#"mapigate_auth_total{outcome="guarded",scheme="basic"}"#;
    assert!((metric(&site, guarded).await - 997.0).abs() < 0.5);
    let trips = r#"mapigate_auth_guard_trips_total{by="user"}"#;
    eventually("the trip is counted", || async {
        metric(&site, trips).await > 0.5
    })
    .await;
    let log = log_with(&site, "too many wrong passwords").await;
    let told = log
        .lines()
        .filter(|line| line.contains("too many wrong passwords"));
    let told: Vec<_> = told.collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains(&user(1)) && told[0].contains("127.0.0.1"),
        "{}",
        told[0]
    );
    assert!(!log.contains("guess "));
    let lines = site.access_lines().unwrap();
    let why = |line: &serde_json::Value| line["why"].as_str().unwrap_or_default().to_owned();
    let whys: Vec<_> = lines.iter().map(why).collect();
    assert!(
        whys.iter()
            .any(|why| why.contains("too many wrong passwords of this user")),
        "{whys:?}"
    );
}

#[tokio::test]
async fn a_known_and_an_unknown_user_are_answered_alike_before_and_after_the_guard_trips() {
    let site = start(guarded("delay: 0s")).await;
    let mut line = line(&site.target().unwrap()).await;
    let mut seen = Vec::new();
    for name in [user(1), "nobody@contoso.test".to_owned()] {
        let mut answers = Vec::new();
        for number in 0..6 {
            let answer = line
                .ask(&ping(&name, &format!("guess {number}")))
                .await
                .unwrap();
            let body = String::from_utf8(answer.body()).unwrap();
            let (before, _) = body.split_once(" (").unwrap();
            answers.push((
                answer.head.status,
                answer.head.headers.clone(),
                before.to_owned(),
            ));
        }
        assert!(
            answers.iter().all(|answer| *answer == answers[0]),
            "{answers:#?}"
        );
        seen.push(answers);
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn the_right_password_waits_for_the_guard_unless_it_was_right_before_or_the_user_is_revoked()
{
    let site = start(guarded("delay: 0s")).await;
    let mut line = line(&site.target().unwrap()).await;
    for number in 0..3 {
        line.ask(&ping(&user(1), &format!("guess {number}")))
            .await
            .unwrap();
    }
    let right = ping(&user(1), PASSWORD);
    assert_eq!(line.ask(&right).await.unwrap().head.status, 401);

    let admin = site.gate().unwrap().admin();
    let revoked = std::process::Command::new(crate::support::PROGRAM)
        .args(["revoke", &user(1), "--admin", &admin.address().to_string()])
        .output()
        .unwrap();

    assert!(revoked.status.success(), "{revoked:?}");
    assert_eq!(line.ask(&right).await.unwrap().head.status, 200);
    for number in 0..3 {
        line.ask(&ping(&user(1), &format!("guess {number}")))
            .await
            .unwrap();
    }
    assert_eq!(line.ask(&right).await.unwrap().head.status, 200);
}

#[tokio::test]
async fn answers_to_a_guesser_come_late_and_so_many_at_most_are_held() {
    let site = start(guarded("delay: 1s, delays_max: 3")).await;
    let target = site.target().unwrap();
    let mut guesser = line(&target).await;
    for number in 0..3 {
        let began = Instant::now();
        guesser
            .ask(&ping(&user(1), &format!("guess {number}")))
            .await
            .unwrap();
        assert!(began.elapsed() < Duration::from_secs(1));
    }
    let began = Instant::now();
    let asked = (0..12).map(|number| {
        let target = target.clone();
        tokio::spawn(async move {
            let mut line = line(&target).await;
            let began = Instant::now();
            let answer = line.ask(&ping(&user(1), &format!("late {number}"))).await;
            assert_eq!(answer.unwrap().head.status, 401);
            began.elapsed() >= Duration::from_secs(1)
        })
    });
    let mut late = 0;
    for asked in asked.collect::<Vec<_>>() {
        late += usize::from(asked.await.unwrap());
    }

    assert!((3..12).contains(&late), "{late}");
    assert!(began.elapsed() < Duration::from_secs(8));
    let held = metric(&site, r#"mapigate_auth_guard_delays_total{outcome="held"}"#).await;
    let shed = metric(&site, r#"mapigate_auth_guard_delays_total{outcome="shed"}"#).await;
    assert!(
        held >= 3.0 && (held + shed - 12.0).abs() < 0.5,
        "{held} {shed}"
    );
}

#[tokio::test]
async fn a_spray_over_many_users_is_ended_by_its_source() {
    let site = start(guarded(
        "delay: 0s, per_source: { failures: 5, exempt: [] }, per_user: { failures: 2 }",
    ))
    .await;
    let mut line = line(&site.target().unwrap()).await;
    assert_eq!(
        line.ask(&ping(&user(9), PASSWORD))
            .await
            .unwrap()
            .head
            .status,
        200
    );
    for number in 1..=20 {
        let answer = line.ask(&ping(&user(number), "Winter2026")).await.unwrap();
        assert_eq!(answer.head.status, 401);
    }

    let fresh = line.ask(&ping(&user(2), PASSWORD)).await.unwrap();
    let believed = line.ask(&ping(&user(9), PASSWORD)).await.unwrap();

    assert_eq!((fresh.head.status, believed.head.status), (401, 200));
    let verified = metric(&site, "mapigate_auth_verifications_total").await;
    assert!((verified - 6.0).abs() < 0.5, "{verified}");
    let log = log_with(&site, "too many wrong passwords from this address").await;
    assert!(log.contains("too many wrong passwords from this address"));
}
