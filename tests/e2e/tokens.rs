//! Tokens of an identity provider, over real sockets from its keys to the mailbox server.

use crate::support::{Ask, TestSite, basic, brisk, eventually, last_words, start_in, status};
use mapigate::ids::UserName;
use mapigate::lab::IdentityProvider;
use mapigate::lab::identity_provider::{Fault, Options};
use mapigate::lab::mailbox_server::{Service, Tokens, Users};
use mapigate::lab::site::{HOST, PASSWORD, Plan, mailbox, user};
use mapigate::lab::{Authority, unix_micros};
use mapigate::mapi::Flavour;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Output;
use std::time::Duration;

/// A site whose users come with tokens of this provider.
struct Tokened {
    site: TestSite,
    provider: IdentityProvider,
}

/// The same with a plan of the test's own and more keys for the issuer, as in a flow mapping.
async fn tokened_as(plan: Plan, authentication: &str, more: &str) -> Tokened {
    let folder = tempfile::tempdir().unwrap();
    // Its own authority: the site's is made when the site starts.
    let authority = Authority::new("identity").unwrap();
    std::fs::write(folder.path().join("id-ca.pem"), authority.certificate()).unwrap();
    let provider = IdentityProvider::spawn(Options {
        tls: Some(authority.server_config(&["127.0.0.1"]).unwrap()),
        ..Options::default()
    })
    .await
    .unwrap();
    let keys = provider.keys();
    let plan = plan
        .each(|server| {
            if matches!(server.tokens, Tokens::None) {
                server.tokens = Tokens::Signed(keys.clone());
            }
        })
        .section(
            "names",
            &format!("[{{ host: {HOST}, authentication: [{authentication}] }}]"),
        )
        .section(
            "auth",
            &format!(
                "{{ basic: {{ password_file: users.htpasswd, default_domain: contoso.test }}, \
                 negative_ttl: 1s, bearer: {{ challenge: {{ authorization_uri: '{0}/authorize' }}, issuers: \
                 [{{ issuer: '{0}', ca: id-ca.pem, audiences: ['https://mail.contoso.test/'], \
                 domains: [contoso.test]{more} }}] }} }}",
                provider.issuer()
            ),
        );
    let site = start_in(folder, plan).await;
    let tokened = Tokened { site, provider };
    tokened.fetched("ok", 1).await;
    tokened
}

async fn tokened() -> Tokened {
    tokened_as(brisk(Flavour::Exchange), "bearer, basic", "").await
}

impl Tokened {
    fn token(&self, number: usize) -> String {
        self.provider.token(&user(number)).unwrap()
    }

    /// Claims of user `number` with one of them other.
    fn with(&self, number: usize, claim: &str, value: Value) -> String {
        let mut claims = self.provider.claims(&user(number));
        claims[claim] = value;
        self.provider.sign(&claims, &json!({})).unwrap()
    }

    async fn answer(&self, number: usize, token: &str) -> (u16, String) {
        let (text, _) = last_words(&self.site, &ping(number, token).bytes()).await;
        (status(&text), text)
    }

    /// Waits until fetches of the keys have ended so, so often.
    async fn fetched(&self, outcome: &str, times: u32) {
        let line = format!(
            "mapigate_token_key_fetches_total{{issuer=\"{}\",outcome=\"{outcome}\"}} {times}",
            self.provider.issuer()
        );
        self.shows(&line).await;
    }

    async fn shows(&self, line: &str) {
        let admin = self.site.gate().unwrap().admin();
        eventually(line, || async {
            admin.get("/metrics").await.unwrap().text.contains(line)
        })
        .await;
    }

    /// The reason in the last access line, once there are so many lines.
    async fn why(&self, lines: usize) -> String {
        eventually("the access log is written", || async {
            self.site.access_lines().unwrap().len() >= lines
        })
        .await;
        let lines = self.site.access_lines().unwrap();
        lines.last().unwrap()["why"].as_str().unwrap().to_owned()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.site.folder().join("mapigate.log")).unwrap()
    }

    /// curl, as a person would use it.
    async fn curl(&self, number: usize, arguments: &[&str]) -> Output {
        let address = self.site.gate().unwrap().address();
        let port = address.port();
        tokio::process::Command::new("curl")
            .args(["-s", "-i", "--max-time", "20", "--cacert", "ca.pem"])
            .args(["--resolve", &format!("{HOST}:{port}:{}", address.ip())])
            .args(["-X", "POST", "-H", "Content-Type: application/mapi-http"])
            .args(["-H", "X-RequestType: PING", "-H", "X-ClientInfo: {c}:1"])
            .args([
                "-H",
                "X-RequestId: {00000000-0000-4000-8000-000000000000}:1",
            ])
            .args(["-H", "X-ClientApplication: Outlook/16.0.0.0"])
            .args(arguments)
            .arg(format!(
                "https://{HOST}:{port}/mapi/emsmdb/?MailboxId={}",
                mailbox(number)
            ))
            .current_dir(self.site.folder())
            .output()
            .await
            .expect("curl is needed")
    }
}

fn ping(number: usize, token: &str) -> Ask {
    Ask::new(number, "PING")
        .without("Authorization")
        .with(format!("Authorization: Bearer {token}"))
        .with("Connection: close")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn curl_signs_on_with_a_token_by_discovery_and_after_a_rotation() {
    let tokened = tokened().await;
    let token = tokened.token(1);

    let good = tokened.curl(1, &["--oauth2-bearer", &token]).await;
    assert!(text(&good).starts_with("HTTP/1.1 200 OK\r\n"), "{good:?}");
    let head = String::from_utf8(tokened.site.server("MBX1").unwrap().heads().pop().unwrap());
    assert!(
        head.unwrap()
            .contains(&format!("Authorization: Bearer {token}\r\n"))
    );

    // A new key that nobody has seen, and the old one withdrawn, as after a break-in.
    tokened.provider.keys().rotate(false).unwrap();
    let fresh = tokened.token(2);
    let rotated = tokened.curl(2, &["--oauth2-bearer", &fresh]).await;
    assert!(
        text(&rotated).starts_with("HTTP/1.1 200 OK\r\n"),
        "{rotated:?}"
    );
    let withdrawn = tokened.curl(1, &["--oauth2-bearer", &token]).await;
    assert!(
        text(&withdrawn).starts_with("HTTP/1.1 401 "),
        "{withdrawn:?}"
    );
    assert_eq!(tokened.provider.keys_asked(), 2);

    let wrong = tokened.curl(1, &["-u", "user1@contoso.test:wrong"]).await;
    assert!(text(&wrong).starts_with("HTTP/1.1 401 "), "{wrong:?}");
    let password = format!("user1@contoso.test:{PASSWORD}");
    let basic = tokened.curl(1, &["-u", &password]).await;
    assert!(text(&basic).starts_with("HTTP/1.1 200 OK\r\n"), "{basic:?}");
}

#[tokio::test]
async fn challenges_come_in_the_order_of_the_name_and_a_probe_is_no_failure() {
    let tokened = tokened().await;
    let bearer = format!(
        "WWW-Authenticate: Bearer client_id=\"00000002-0000-0ff1-ce00-000000000000\", \
         token_types=\"app_asserted_user_v1 service_asserted_app_v1\", authorization_uri=\"{}/authorize\"",
        tokened.provider.issuer()
    );
    let basic = "WWW-Authenticate: Basic realm=\"mail\", charset=\"UTF-8\"";
    let lines = |text: &str, name: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(str::to_owned).collect()
    };

    for probe in [
        "Authorization: Bearer",
        "Authorization: bearer ",
        "X-No: credentials",
    ] {
        let ask = ping(1, "").without("Authorization").with(probe);
        let (text, _) = last_words(&tokened.site, &ask.bytes()).await;
        assert_eq!(status(&text), 401);
        assert_eq!(
            lines(&text, "WWW-Authenticate"),
            [bearer.as_str(), basic],
            "{text}"
        );
        assert!(lines(&text, "x-ms-diagnostics").is_empty());
    }
    tokened
        .shows("mapigate_auth_total{outcome=\"challenged\",scheme=\"none\"} 3")
        .await;

    let (status, text) = tokened.answer(1, "not.a.token").await;
    assert_eq!(status, 401);
    let refused = format!("{bearer}, error=\"invalid_token\"");
    assert_eq!(lines(&text, "WWW-Authenticate"), [refused.as_str(), basic]);
    assert_eq!(
        lines(&text, "x-ms-diagnostics"),
        [
            "x-ms-diagnostics: 2000000;reason=\"The token is malformed.\";error_category=\"invalid_token\""
        ]
    );
    tokened
        .shows("mapigate_auth_total{outcome=\"denied\",scheme=\"bearer\"} 1")
        .await;
}

#[tokio::test]
async fn each_bad_token_is_told_what_is_wrong_and_reaches_nobody() {
    let tokened = tokened().await;
    let now = unix_micros() / 1_000_000;
    let none = |header: Value| {
        let signed = tokened
            .provider
            .sign(&tokened.provider.claims(&user(1)), &header)
            .unwrap();
        format!("{}.", signed.rsplit_once('.').unwrap().0)
    };
    let long = "x".repeat(20_000);
    let cases = [
        (
            none(json!({ "alg": "none" })),
            "invalid_signature",
            "its algorithm is not one of the issuer's",
        ),
        (
            none(json!({ "alg": "HS256" })),
            "invalid_signature",
            "its algorithm is not one of the issuer's",
        ),
        (none(json!({})), "invalid_signature", "wrong signature"),
        (
            tokened.with(1, "iss", json!("https://evil.test")),
            "invalid_issuer",
            "of an issuer that is not configured",
        ),
        (
            tokened.with(1, "aud", json!("https://evil.test/")),
            "invalid_resource",
            "for another audience",
        ),
        (
            tokened.with(1, "exp", json!(now - 61)),
            "invalid_lifetime",
            "expired",
        ),
        (
            tokened.with(1, "nbf", json!(now + 120)),
            "invalid_lifetime",
            "not yet valid",
        ),
        (
            tokened.with(1, "exp", Value::Null),
            "invalid_lifetime",
            "without an expiry",
        ),
        (
            tokened.with(1, "upn", json!(17)),
            "invalid_user",
            "without a claim that names a user",
        ),
        (
            tokened.with(1, "upn", json!("user1@fabrikam.test")),
            "invalid_user",
            "names a user of another domain than the issuer's",
        ),
        (
            tokened.with(1, "padding", json!(long)),
            "invalid_token",
            "longer than 16 KiB",
        ),
        ("abc".to_owned(), "invalid_token", "not a signed token"),
    ];
    let before = tokened.site.server("MBX1").unwrap().counters().requests;
    for (lines, (token, category, why)) in cases.iter().enumerate() {
        let (status, text) = tokened.answer(1, token).await;
        assert_eq!(status, 401, "{why}: {text}");
        assert!(
            text.contains(&format!("error_category=\"{category}\"")),
            "{why}: {text}"
        );
        assert!(text.contains("Authentication is required."), "{text}");
        assert_eq!(
            tokened.why(lines + 1).await,
            format!("token refused: {why}")
        );
    }
    assert_eq!(
        tokened.site.server("MBX1").unwrap().counters().requests,
        before
    );

    // At the edges of the leeway they are good.
    for token in [
        tokened.with(1, "exp", json!(now - 30)),
        tokened.with(1, "nbf", json!(now + 30)),
    ] {
        assert_eq!(tokened.answer(1, &token).await.0, 200);
    }
    let two =
        ping(1, &tokened.token(1)).with(format!("Authorization: Bearer {}", tokened.token(2)));
    assert_eq!(
        status(&last_words(&tokened.site, &two.bytes()).await.0),
        400
    );
    let huge = ping(1, &"x".repeat(140_000));
    assert_eq!(
        status(&last_words(&tokened.site, &huge.bytes()).await.0),
        431
    );
}

#[tokio::test]
async fn every_request_of_a_connection_is_its_own_tokens_user() {
    let tokened = tokened().await;
    let (one, two) = (tokened.token(1), tokened.token(2));
    let mut line = crate::support::line(&tokened.site.target().unwrap()).await;
    for _ in 0..3 {
        for (number, token) in [(1, &one), (2, &two)] {
            let ask = Ask::new(number, "PING")
                .without("Authorization")
                .with(format!("Authorization: Bearer {token}"));
            assert_eq!(line.ask(&ask.bytes()).await.unwrap().head.status, 200);
        }
        let mixed = format!(
            "{}.{}",
            one.rsplit_once('.').unwrap().0,
            two.rsplit_once('.').unwrap().1
        );
        let ask = Ask::new(1, "PING")
            .without("Authorization")
            .with(format!("Authorization: Bearer {mixed}"));
        assert_eq!(line.ask(&ask.bytes()).await.unwrap().head.status, 401);
    }
    eventually("the access log is written", || async {
        tokened.site.access_lines().unwrap().len() >= 9
    })
    .await;
    let lines = tokened.site.access_lines().unwrap();
    let users: Vec<_> = lines
        .iter()
        .map(|line| line["user"].as_str().unwrap_or("-"))
        .collect();
    assert_eq!(users, [user(1).as_str(), user(2).as_str(), "-"].repeat(3));
}

#[tokio::test]
async fn a_token_that_ends_in_mid_session_is_refused_from_then_on() {
    let tokened = tokened_as(brisk(Flavour::Exchange), "bearer", "").await;
    let now = unix_micros() / 1_000_000;
    // Good for three seconds of its leeway.
    let token = tokened.with(1, "exp", json!(now - 57));
    let mut line = crate::support::line(&tokened.site.target().unwrap()).await;
    let ask = Ask::new(1, "PING")
        .without("Authorization")
        .with(format!("Authorization: Bearer {token}"));

    assert_eq!(line.ask(&ask.bytes()).await.unwrap().head.status, 200);
    let mut last = 200;
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while last == 200 && std::time::Instant::now() < until {
        let answer = line.ask(&ask.bytes()).await.unwrap();
        last = answer.head.status;
        if last == 401 {
            let said = answer.head.header("x-ms-diagnostics").unwrap();
            assert!(said.contains("invalid_lifetime"), "{said}");
        }
    }

    assert_eq!(last, 401);
    assert!(unix_micros() / 1_000_000 >= now + 3);
}

#[tokio::test]
async fn a_storm_of_unknown_keys_asks_the_provider_once_and_disturbs_nobody() {
    let tokened = tokened().await;
    let good = tokened.token(1);
    for number in 0..50 {
        let claims = tokened.provider.claims(&user(2));
        let kid = format!("made up {number}");
        let token = tokened
            .provider
            .sign(&claims, &json!({ "kid": kid }))
            .unwrap();
        let (status, text) = tokened.answer(2, &token).await;
        assert_eq!(status, 401, "{text}");
        assert!(
            text.contains("The signing key of the token is not known."),
            "{text}"
        );
    }
    assert_eq!(
        tokened.why(50).await,
        "token refused: signed with a key that its issuer does not have"
    );
    assert_eq!(tokened.answer(1, &good).await.0, 200);
    // At the start, and for the first of them.
    assert_eq!(tokened.provider.keys_asked(), 2);
}

#[tokio::test]
async fn a_provider_that_lies_or_is_down_disturbs_only_new_keys() {
    let mut sites = tokio::task::JoinSet::new();
    for (fault, words) in [
        (Fault::Down, "answered 503"),
        (Fault::Slow, ""),
        (Fault::Huge, "answered with more than 262144 bytes"),
        (Fault::Html, "not a discovery document"),
        (
            Fault::Redirect,
            "answered 302, a redirect, which is not followed",
        ),
        (Fault::Issuer, "the discovery document is of the issuer"),
    ] {
        sites.spawn(disturbed(fault, words));
    }
    while let Some(done) = sites.join_next().await {
        done.unwrap();
    }
}

async fn disturbed(fault: Fault, words: &str) {
    let tokened = tokened().await;
    let old = tokened.token(1);
    tokened.provider.fault(fault);
    tokened.provider.keys().rotate(true).unwrap();
    let new = tokened.token(2);

    let (status, text) = tokened.answer(2, &new).await;

    assert_eq!(status, 503, "{fault:?}: {text}");
    assert!(text.contains("Retry-After: 1"), "{text}");
    assert_eq!(
        tokened.why(1).await,
        "too busy: the keys of the token's issuer cannot be fetched"
    );
    assert_eq!(tokened.answer(1, &old).await.0, 200, "{fault:?}");
    if fault == Fault::Slow {
        // Said when it is given up, which takes longer than the client was kept waiting.
        return;
    }
    let log = tokened.log();
    let said = log
        .lines()
        .filter(|line| line.contains("not fetched"))
        .count();
    assert!(log.contains(words) && said == 1, "{fault:?}: {log}");

    // It is asked again by itself, soon.
    tokened.provider.fault(Fault::None);
    tokened.fetched("ok", 2).await;
    assert_eq!(tokened.answer(2, &new).await.0, 200, "{fault:?}");
}

#[tokio::test]
async fn keys_rotate_under_load_without_a_refusal() {
    let tokened = tokened().await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 1..=8 {
        let tokens: Vec<_> = (0..3).map(|_| tokened.provider.keys()).collect();
        let claims = tokened.provider.claims(&user(number));
        let target = tokened.site.target().unwrap();
        let keys = tokens.into_iter().next().unwrap();
        tasks.spawn(async move {
            let mut line = crate::support::line(&target).await;
            for turn in 0..40 {
                // A token of its own each time, by whatever key signs now.
                let mut claims = claims.clone();
                claims["jti"] = json!(turn);
                let token = keys.sign(&claims, &json!({})).unwrap();
                let ask = Ask::new(number, "PING")
                    .without("Authorization")
                    .with(format!("Authorization: Bearer {token}"));
                let answer = line.ask(&ask.bytes()).await.unwrap();
                assert_eq!(answer.head.status, 200, "user {number}, turn {turn}");
                tokio::task::yield_now().await;
            }
        });
    }
    tokened.provider.keys().rotate(true).unwrap();
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(tokened.provider.keys_asked(), 2);
}

#[tokio::test]
async fn a_service_account_stands_for_users_with_tokens() {
    let (service, secret) = ("svc@contoso.test", "service secret");
    let listed = BTreeMap::from([(UserName::new(service), secret.to_owned())]);
    let mut plan = brisk(Flavour::Gromox)
        .each(|server| {
            server.users = Users::Listed(listed.clone());
            server.service = Some(Service {
                user: UserName::new(service),
                header: "X-Remote-User".to_owned(),
            });
        })
        .section(
            "backend_identity",
            "{ mode: basic_service, user: svc@contoso.test, password: '${SECRET}' }",
        );
    plan.environment = vec![("SECRET".to_owned(), secret.to_owned())];
    let tokened = tokened_as(plan, "bearer", "").await;
    let token = tokened.token(1);

    assert_eq!(tokened.answer(1, &token).await.0, 200);

    let heads = tokened.site.server("MBX1").unwrap().heads();
    let head = String::from_utf8(heads.last().unwrap().clone()).unwrap();
    assert!(
        head.contains(&format!("Authorization: {}\r\n", basic(service, secret))),
        "{head}"
    );
    assert!(
        head.contains("\r\nX-Remote-User: user1@contoso.test\r\n"),
        "{head}"
    );
    assert!(!head.contains(&token), "{head}");
}

#[tokio::test]
async fn a_name_takes_only_the_schemes_it_offers() {
    let tokened = tokened_as(brisk(Flavour::Exchange), "bearer", "").await;
    let password = Ask::new(1, "PING").with("Connection: close");
    let (text, _) = last_words(&tokened.site, &password.bytes()).await;
    assert_eq!(status(&text), 401);
    assert!(!text.contains("Basic"), "{text}");
    assert_eq!(
        tokened.why(1).await,
        "not authenticated: scheme not offered"
    );
    assert_eq!(tokened.answer(1, &tokened.token(1)).await.0, 200);
}

#[tokio::test]
async fn no_token_is_written_anywhere() {
    let plan = brisk(Flavour::Exchange).section(
        "logging",
        "{ access: access.log, format: json, level: debug }",
    );
    let tokened = tokened_as(plan, "bearer", "").await;
    let (good, bad) = (tokened.token(1), tokened.with(1, "aud", json!("x")));
    for token in [&good, &bad] {
        let _answer = tokened.answer(1, token).await;
    }
    tokened.why(2).await;

    let folder = tokened.site.folder();
    let mut shown = std::fs::read_to_string(folder.join("access.log")).unwrap() + &tokened.log();
    let admin = tokened.site.gate().unwrap().admin();
    for page in ["/metrics", "/status.json"] {
        shown += &admin.get(page).await.unwrap().text;
    }
    assert!(shown.contains("token_refused") && shown.contains(&user(1)));
    for token in [good, bad] {
        for part in token.split('.').skip(1) {
            assert!(!shown.contains(part), "{shown}");
        }
    }
}

#[tokio::test]
async fn the_programs_own_provider_serves_curl() {
    let mut child = tokio::process::Command::new(crate::support::PROGRAM)
        .args(["lab", "identity-provider", "--lifetime", "5m"])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut out = tokio::io::BufReader::new(child.stdout.take().unwrap());
    tokio::io::AsyncBufReadExt::read_line(&mut out, &mut said)
        .await
        .unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    let issuer = said["issuer"].as_str().unwrap();
    let address: SocketAddr = said["address"].as_str().unwrap().parse().unwrap();
    let curl = async |arguments: &[&str]| {
        let output = tokio::process::Command::new("curl")
            .args(["-s", "--max-time", "20"])
            .args(arguments)
            .output()
            .await
            .expect("curl is needed");
        text(&output)
    };

    let discovery: Value =
        serde_json::from_str(&curl(&[&format!("{issuer}/.well-known/openid-configuration")]).await)
            .unwrap();
    let token = curl(&[&format!("http://{address}/token?user=user1@contoso.test")]).await;
    let rotated = curl(&["-X", "POST", &format!("{issuer}/rotate")]).await;

    assert_eq!(discovery["issuer"], issuer);
    assert_eq!(discovery["jwks_uri"], format!("{issuer}/keys"));
    assert_eq!(token.trim().split('.').count(), 3);
    let rotated: Value = serde_json::from_str(&rotated).unwrap();
    assert_eq!(rotated["keys"].as_array().unwrap().len(), 2);
    child.kill().await.unwrap();
}
