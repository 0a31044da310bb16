#![expect(clippy::disallowed_methods, reason = "tests begin somewhere in time")]

use super::*;
use crate::auth::mint::{AUDIENCE, FIRST, ISSUER, SECOND, key_set};
use crate::config::Settings;
use crate::config::settings::{BearerAuth, BearerChallenge, TokenIssuer};
use crate::upkeep::world;
use parking_lot::Mutex;
use serde_json::json;
use std::net::SocketAddr;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const SOON: Duration = Duration::from_secs(10);

/// What a provider answers to a path, as it is on the wire; nothing: it never answers.
type Answers = Arc<Mutex<Box<dyn Fn(&str) -> Option<Vec<u8>> + Send>>>;

/// A provider whose every byte the test writes.
struct Provider {
    address: SocketAddr,
    answers: Answers,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Provider {
    async fn new(answers: impl Fn(&str) -> Option<Vec<u8>> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = Self {
            address: listener.local_addr().unwrap(),
            answers: Arc::new(Mutex::new(Box::new(answers))),
            asked: Arc::default(),
        };
        let (answers, asked) = (provider.answers.clone(), provider.asked.clone());
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                let (answers, asked) = (answers.clone(), asked.clone());
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while memchr::memmem::find(&head, b"\r\n\r\n").is_none() {
                        if tcp.read_buf(&mut head).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let head = String::from_utf8(head).unwrap();
                    let path = head.split(' ').nth(1).unwrap().to_owned();
                    asked.lock().push(path.clone());
                    let answer = answers.lock()(&path);
                    match answer {
                        Some(bytes) => _ = tcp.write_all(&bytes).await,
                        None => std::future::pending().await,
                    }
                });
            }
        });
        provider
    }

    fn answer(&self, answers: impl Fn(&str) -> Option<Vec<u8>> + Send + 'static) {
        *self.answers.lock() = Box::new(answers);
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A world whose tokens are this provider's, with the loop that keeps its keys.
    fn world(&self, place: KeyPlace) -> Kept {
        let (runtime, _seen) = world::runtime(settings(place));
        let (announce, generation) = watch::channel(Generation(1));
        let (known, loop_) = (runtime.clone(), runtime.clone());
        tokio::spawn(keys(loop_, generation));
        Kept {
            ring: known.snapshot().auth.key_rings().next().unwrap().clone(),
            runtime,
            _announce: announce,
        }
    }
}

/// The keys under test.
struct Kept {
    ring: Arc<KeyRing>,
    runtime: Arc<Runtime>,
    _announce: watch::Sender<Generation>,
}

impl Kept {
    /// Waits until so many fetches have ended so.
    async fn fetched(&self, outcome: &str, count: u32) {
        let line = format!(
            r#"mapigate_token_key_fetches_total{{issuer="{ISSUER}",outcome="{outcome}"}} {count}"#
        );
        let until = Instant::now() + SOON;
        while !self.runtime.metrics.render().contains(&line) {
            assert!(Instant::now() < until, "never: {line}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn settings(place: KeyPlace) -> Settings {
    let mut settings = world::settings();
    settings.auth.bearer = Some(BearerAuth {
        challenge: BearerChallenge::default(),
        leeway: Duration::from_secs(60),
        issuers: vec![TokenIssuer {
            issuer: ISSUER.to_owned(),
            keys: source(place),
            audiences: vec![AUDIENCE.to_owned()],
            algorithms: vec![jsonwebtoken::Algorithm::RS256],
            identity_claims: vec!["upn".to_owned()],
            default_domain: None,
            domains: Vec::new(),
            required_claims: Vec::new(),
            clients: Vec::new(),
        }],
    });
    settings
}

fn source(place: KeyPlace) -> KeySource {
    KeySource {
        issuer: ISSUER.to_owned(),
        place,
        ca: None,
        refresh: Duration::from_secs(3600),
    }
}

fn ok(body: &[u8]) -> Option<Vec<u8>> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    Some([head.as_bytes(), body].concat())
}

fn discovery(keys: &str) -> Option<Vec<u8>> {
    let document = json!({ "issuer": ISSUER, "jwks_uri": keys, "scopes_supported": [] });
    ok(document.to_string().as_bytes())
}

#[tokio::test]
async fn keys_come_by_the_discovery_document() {
    let provider = Provider::new(|_| None).await;
    let keys = provider.url("/keys?v=1");
    provider.answer(move |path| match path {
        "/discovery" => discovery(&keys),
        "/keys?v=1" => ok(&key_set(&[&FIRST, &SECOND])),
        _ => None,
    });

    let kept = provider.world(KeyPlace::Discovery(provider.url("/discovery")));
    kept.fetched("ok", 1).await;

    assert_eq!(kept.ring.count(), 2);
    assert_eq!(*provider.asked.lock(), ["/discovery", "/keys?v=1"]);
    let text = kept.runtime.metrics.render();
    assert!(text.contains(&format!(r#"mapigate_token_keys{{issuer="{ISSUER}"}} 2"#)));
}

#[tokio::test]
async fn keys_that_are_known_stay_while_the_provider_lies_or_is_down() {
    let provider = Provider::new(|_| ok(&key_set(&[&FIRST]))).await;
    let kept = provider.world(KeyPlace::Url(provider.url("/keys")));
    kept.fetched("ok", 1).await;

    provider.answer(|_| Some(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_vec()));
    kept.ring.want();
    kept.fetched("failed", 1).await;
    assert_eq!(kept.ring.count(), 1);

    provider.answer(|_| ok(&key_set(&[&FIRST, &SECOND])));
    kept.ring.want();
    kept.fetched("ok", 2).await;
    assert_eq!(kept.ring.count(), 2);
}

#[tokio::test]
async fn a_provider_that_was_down_is_asked_again_by_itself() {
    let provider = Provider::new(|_| Some(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec())).await;
    let kept = provider.world(KeyPlace::Url(provider.url("/keys")));
    kept.fetched("failed", 1).await;

    provider.answer(|_| ok(&key_set(&[&FIRST])));

    kept.fetched("ok", 1).await;
}

#[tokio::test]
async fn a_reload_keeps_the_loop_of_a_provider_that_stays_and_ends_that_of_one_that_goes() {
    let provider = Provider::new(|_| ok(&key_set(&[&FIRST]))).await;
    let place = KeyPlace::Url(provider.url("/keys"));
    let (runtime, _seen) = world::runtime(settings(place.clone()));
    let (announce, generation) = watch::channel(Generation(1));
    let loops = tokio::spawn(keys(runtime.clone(), generation));
    let kept = Kept {
        ring: runtime.snapshot().auth.key_rings().next().unwrap().clone(),
        runtime: runtime.clone(),
        _announce: announce,
    };
    kept.fetched("ok", 1).await;
    let next = |settings: Settings, number: u64| {
        let world = crate::runtime::Snapshot::build(settings, Some(&runtime.snapshot())).unwrap();
        runtime.publish(|_| world.clone());
        kept._announce.send_replace(Generation(number));
    };

    next(settings(place), 2);
    kept.ring.want();
    kept.fetched("ok", 2).await;
    next(world::settings(), 3);
    let until = Instant::now() + SOON;
    while runtime.metrics.render().contains(ISSUER) {
        assert!(Instant::now() < until, "it is still there");
        tokio::task::yield_now().await;
    }
    kept.ring.want();

    assert_eq!(provider.asked.lock().len(), 2);
    drop(kept);
    loops.await.unwrap();
}

/// What the operator reads when a provider answers so.
async fn trouble(answer: Option<Vec<u8>>) -> String {
    let provider = Provider::new(move |_| answer.clone()).await;
    let outcome = fetch(&provider.url("/keys"), None).await;
    outcome.unwrap_err().to_string()
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere =
        "HTTP/1.1 302 Found\r\nLocation: https://evil.test/keys\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(
        trouble(Some(elsewhere.into())).await,
        "answered 302, a redirect, which is not followed; name the last address"
    );
}

#[tokio::test]
async fn a_huge_document_is_not_read_to_its_end() {
    let counted = ok(&vec![b' '; 300 << 10]);
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut chunked = head.as_bytes().to_vec();
    for _ in 0..40 {
        chunked.extend(b"2000\r\n");
        chunked.extend([b' '; 0x2000]);
        chunked.extend(b"\r\n");
    }
    for answer in [counted, Some(chunked)] {
        assert_eq!(
            trouble(answer).await,
            "answered with more than 262144 bytes"
        );
    }
    let head = format!("HTTP/1.1 200 OK\r\nX-Long: {}\r\n", "x".repeat(100 << 10));
    let words = trouble(Some(head.into())).await;
    assert!(words.starts_with("the answer broke off"), "{words}");
}

#[tokio::test]
async fn what_is_no_answer_is_told_apart() {
    for (answer, words) in [
        (
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "answered 404",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
            "the answer broke off",
        ),
        ("SSH-2.0-OpenSSH_9.6\r\n", "the answer broke off"),
        ("", "the answer broke off"),
    ] {
        let said = trouble(Some(answer.into())).await;
        assert!(said.starts_with(words), "{answer}: {said}");
    }
    let nobody = fetch("http://127.0.0.1:1/keys", None).await.unwrap_err();
    assert!(
        nobody.to_string().starts_with("cannot be reached"),
        "{nobody}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_never_answers_is_given_up() {
    assert_eq!(trouble(None).await, "no whole answer within 10s");
}

#[test]
fn a_discovery_document_must_be_the_issuers_own_and_keep_to_its_host() {
    let source = source(KeyPlace::Discovery(String::new()));
    let asked = "https://id.contoso.test/.well-known/openid-configuration";
    let judge = |document: serde_json::Value| {
        keys_url(document.to_string().as_bytes(), &source, asked)
            .map_err(|trouble| trouble.to_string())
    };
    let keys = "https://id.contoso.test/keys";
    assert_eq!(
        judge(json!({ "issuer": ISSUER, "jwks_uri": keys })).unwrap(),
        keys
    );
    // As AD FS writes it.
    let adfs =
        json!({ "issuer": "https://a.test", "access_token_issuer": ISSUER, "jwks_uri": keys });
    assert_eq!(judge(adfs).unwrap(), keys);
    for (document, words) in [
        (
            json!({ "issuer": "https://evil.test", "jwks_uri": keys }),
            "is of the issuer",
        ),
        (json!({ "issuer": ISSUER }), "not a discovery document"),
        (json!("<html>"), "not a discovery document"),
        (
            json!({ "issuer": ISSUER, "jwks_uri": "https://evil.test/keys" }),
            "on another host",
        ),
        (
            json!({ "issuer": ISSUER, "jwks_uri": "http://id.contoso.test/keys" }),
            "on another host",
        ),
        (
            json!({ "issuer": ISSUER, "jwks_uri": "file:///etc/passwd" }),
            "on another host",
        ),
        (
            json!({ "issuer": ISSUER, "jwks_uri": "" }),
            "on another host",
        ),
    ] {
        let said = judge(document.clone()).unwrap_err();
        assert!(said.contains(words), "{document}: {said}");
    }
}

#[test]
fn retries_begin_soon_and_become_rare() {
    let refresh = Duration::from_secs(3600);
    let within = |failures, least: u64, most: u64| {
        let pause = pause(refresh, failures).as_secs_f64();
        assert!(
            pause >= 0.9 * least as f64 && pause <= 1.1 * most as f64,
            "{failures}: {pause}"
        );
    };
    within(0, 3600, 3600);
    within(1, 2, 2);
    within(2, 4, 4);
    within(6, 64, 64);
    within(1_000_000, 64, 64);
}
