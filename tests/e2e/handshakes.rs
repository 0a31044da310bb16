//! NTLM in the words of a helper that the test wrote: half handshakes, wrong passwords, helpers that die or hang.

use crate::support::{Ask, TestSite, basic, brisk, eventually, line, log_with, start_in};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mapigate::ids::UserName;
use mapigate::lab::mailbox_server::{Service, Users};
use mapigate::lab::outlook::wire::{Answer, Line};
use mapigate::lab::site::{HOST, PASSWORD, user};
use mapigate::mapi::Flavour;
use std::time::{Duration, Instant};

/// A helper that takes `right` for a password, does not know `wrong`, dies of `die`, and falls silent at `hang`.
const HELPER: &str = r#"while read verb token; do
  if [ "$verb" = YR ]; then echo "TT AQID"; continue; fi
  case "$(printf %s "$token" | base64 -d | tr -d '\000')" in
    *right*) printf '%s\n' 'AF CONTOSO\user1' ;;
    *wrong*) echo "NA NT_STATUS_LOGON_FAILURE" ;;
    *die*) exit 1 ;;
    *hang*) exec sleep 600 ;;
    *) echo "BH NT_STATUS_NO_LOGON_SERVERS" ;;
  esac
done"#;

const FIRST: &[u8] = b"NTLMSSP\0\x01\0\0\0\x05\x82\x08\0";

/// A site that offers NTLM by that helper, and Basic.
async fn site(ntlm: &str, auth: &str) -> TestSite {
    let folder = tempfile::tempdir().unwrap();
    let helper = folder.path().join("helper.sh");
    std::fs::write(&helper, HELPER).unwrap();
    let service = UserName::new("svc@contoso.test");
    let plan = brisk(Flavour::Exchange)
        .each(|server| {
            server.users = Users::Listed([(service.clone(), "service secret".to_owned())].into());
            server.service = Some(Service {
                user: service.clone(),
                header: "X-Remote-User".to_owned(),
            });
        })
        .section(
            "backend_identity",
            "{ mode: basic_service, user: svc@contoso.test, password: service secret }",
        )
        .section(
            "names",
            &format!("[{{ host: {HOST}, authentication: [ntlm, basic] }}]"),
        )
        .section(
            "auth",
            &format!(
                "{{ basic: {{ password_file: users.htpasswd, default_domain: contoso.test }}, \
                 ntlm: {{ helper: [sh, {}], realm_map: {{ CONTOSO: contoso.test }}{ntlm} }}{auth} }}",
                helper.display()
            ),
        );
    start_in(folder, plan).await
}

fn bare() -> Ask {
    Ask::new(1, "PING").without("Authorization")
}

fn ntlm(message: &[u8]) -> Vec<u8> {
    let value = format!("Authorization: NTLM {}", STANDARD.encode(message));
    bare().with(value).bytes()
}

/// The last message of `CONTOSO\USER`, with this for a proof. `[MS-NLMP] 2.2.1.3`
fn last(user: &str, proof: &str) -> Vec<u8> {
    let wide = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let mut head = b"NTLMSSP\0\x03\0\0\0".to_vec();
    let mut tail = Vec::new();
    for part in [
        Vec::new(),
        proof.as_bytes().to_vec(),
        wide("CONTOSO"),
        wide(user),
        Vec::new(),
        Vec::new(),
    ] {
        let length = u16::try_from(part.len()).unwrap().to_le_bytes();
        let place = u32::try_from(64 + tail.len()).unwrap().to_le_bytes();
        head.extend([&length[..], &length, &place].concat());
        tail.extend(part);
    }
    head.extend([1, 0, 0, 0]);
    [head, tail].concat()
}

async fn sign_on(line: &mut Line, user: &str, proof: &str) -> Answer {
    let first = line.ask(&ntlm(FIRST)).await.unwrap();
    assert_eq!(first.head.status, 401);
    line.ask(&ntlm(&last(user, proof))).await.unwrap()
}

async fn metric(site: &TestSite, sample: &str) -> f64 {
    let admin = site.gate().unwrap().admin();
    admin.metric(sample).await.unwrap()
}

/// An answer without the number of its request.
fn words(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let body = String::from_utf8(answer.body()).unwrap();
    let (before, _) = body.split_once(" (").unwrap();
    let headers = answer.head.headers.clone();
    (answer.head.status, headers, before.to_owned())
}

#[tokio::test]
async fn half_handshakes_of_one_address_are_bounded_and_the_refusal_is_explained() {
    let site = site(
        ", pool: 8",
        ", handshakes: { per_source: 3, exempt: [] }, lockout_guard: off",
    )
    .await;
    let target = site.target().unwrap();
    let mut halves = Vec::new();
    for _ in 0..3 {
        let mut half = line(&target).await;
        assert_eq!(half.ask(&ntlm(FIRST)).await.unwrap().head.status, 401);
        halves.push(half);
    }

    let mut other = line(&target).await;
    let refused = other.ask(&ntlm(FIRST)).await.unwrap();

    assert_eq!(refused.head.status, 503);
    assert_eq!(refused.head.header("Retry-After"), Some("1"));
    // Who does not shake hands is not in the way, on the same connection and from the same address.
    let password = format!("Authorization: {}", basic(&user(1), PASSWORD));
    let by_password = other.ask(&bare().with(password).bytes()).await.unwrap();
    assert_eq!(by_password.head.status, 200);
    eventually("the log and the counters say so", || async {
        let why = "too many handshakes of this address are half done";
        let lines = site.access_lines().unwrap();
        let mut whys = lines
            .iter()
            .map(|line| line["why"].as_str().unwrap_or_default().to_owned());
        whys.any(|line| line.contains(why))
            && metric(&site, "mapigate_auth_handshakes_open").await == 3.0
            && metric(
                &site,
                r#"mapigate_auth_handshakes_refused_total{by="source"}"#,
            )
            .await
                == 1.0
    })
    .await;
    // A handshake that ends, well or by its connection's end, makes room.
    let mut half = halves.pop().unwrap();
    let ended = half.ask(&ntlm(&last("user1", "right"))).await.unwrap();
    assert_eq!(ended.head.status, 200);
    assert_eq!(sign_on(&mut other, "user1", "right").await.head.status, 200);
    drop(halves);
    eventually("their places are free again", || async {
        metric(&site, "mapigate_auth_handshakes_open").await == 0.0
    })
    .await;
}

#[tokio::test]
async fn who_begins_handshakes_and_leaves_is_refused_and_passwords_are_not() {
    let site = site(
        ", pool: 8",
        ", handshakes: { left_per_minute: 3, exempt: [] }, lockout_guard: off",
    )
    .await;
    let target = site.target().unwrap();
    // Who goes on is not counted.
    for _ in 0..5 {
        let mut whole = line(&target).await;
        let answer = sign_on(&mut whole, "user1", "right").await;
        assert_eq!(answer.head.status, 200);
    }
    for _ in 0..3 {
        let mut left = line(&target).await;
        assert_eq!(left.ask(&ntlm(FIRST)).await.unwrap().head.status, 401);
    }
    eventually("they have left", || async {
        metric(&site, "mapigate_auth_handshakes_open").await == 0.0
    })
    .await;

    let mut other = line(&target).await;
    let refused = other.ask(&ntlm(FIRST)).await.unwrap();

    assert_eq!(refused.head.status, 503);
    let password = format!("Authorization: {}", basic(&user(1), PASSWORD));
    let by_password = other.ask(&bare().with(password).bytes()).await.unwrap();
    assert_eq!(by_password.head.status, 200);
    eventually("the log says why", || async {
        let why = "too many handshakes of this address were begun and left";
        let lines = site.access_lines().unwrap();
        let mut whys = lines.iter().filter_map(|line| line["why"].as_str());
        whys.any(|line| line.contains(why))
    })
    .await;
}

#[tokio::test]
async fn a_user_who_is_guessed_at_by_ntlm_is_held_back_as_by_basic() {
    let site = site("", ", lockout_guard: { delay: 300ms }").await;
    let target = site.target().unwrap();
    let mut guesser = line(&target).await;
    let mut owner = line(&target).await;
    assert_eq!(sign_on(&mut owner, "user1", "right").await.head.status, 200);
    for number in 0..3 {
        let wrong = sign_on(&mut guesser, "user1", &format!("wrong{number}")).await;
        assert_eq!(wrong.head.status, 401);
    }

    let began = Instant::now();
    let by_ntlm = sign_on(&mut guesser, "USER1", "right").await;
    assert!(began.elapsed() >= Duration::from_millis(300));
    let password = format!("Authorization: {}", basic(&user(1), PASSWORD));
    let by_basic = guesser.ask(&bare().with(password).bytes()).await.unwrap();

    assert_eq!(by_ntlm.head.status, 401);
    assert_eq!(words(&by_ntlm), words(&by_basic));
    let guarded = r#"mapigate_auth_total{outcome="guarded",scheme="ntlm"}"#;
    assert_eq!(metric(&site, guarded).await, 1.0);
    // What was proven before is not asked about.
    let owners = owner.ask(&bare().bytes()).await.unwrap();
    assert_eq!(owners.head.status, 200);
    let log = log_with(&site, "too many wrong passwords for this user").await;
    assert!(log.contains("too many wrong passwords for this user"));
}

#[tokio::test]
async fn a_helper_that_dies_or_hangs_in_mid_handshake_is_answered_503_and_others_go_on() {
    let site = site(", pool: 2, handshake_timeout: 500ms", "").await;
    let target = site.target().unwrap();
    for proof in ["die", "hang", "down", "die", "hang", "down"] {
        let mut one = line(&target).await;

        let answer = sign_on(&mut one, "user1", proof).await;
        let mut other = line(&target).await;
        let another = sign_on(&mut other, "user1", "right").await;

        assert_eq!(answer.head.status, 503, "{proof}");
        assert!(answer.head.header("Retry-After").is_some());
        assert_eq!(another.head.status, 200, "after {proof}");
        assert_eq!(other.ask(&bare().bytes()).await.unwrap().head.status, 200);
    }
    let log = log_with(&site, "an NTLM helper cannot judge").await;
    assert!(log.contains("an NTLM helper failed"), "{log}");
    assert!(log.contains("an NTLM helper cannot judge"), "{log}");
    let lines = site.access_lines().unwrap();
    for why in [
        "the NTLM helper failed",
        "the NTLM helper does not answer",
        "winbind or the domain controller does not answer",
    ] {
        let mut whys = lines.iter().filter_map(|line| line["why"].as_str());
        assert!(whys.any(|line| line.contains(why)), "{why}");
    }
}
