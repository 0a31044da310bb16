//! Client certificates over real sockets: whose they are, and when they are nobody's any more.

use crate::handoff::{log_on, pass};
use crate::http2::client as http2;
use crate::support::{Ask, TestSite, basic, brisk, eventually, line, start_in, status};
use mapigate::ids::UserName;
use mapigate::lab::Authority;
use mapigate::lab::authority::{CertifiedUser, Credential, Validity};
use mapigate::lab::mailbox_server::{Service, Users};
use mapigate::lab::outlook::Target;
use mapigate::lab::outlook::wire::Line;
use mapigate::lab::site::{HOST, PASSWORD, Plan, mailbox, user};
use mapigate::mapi::Flavour;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

/// A site whose users come with certificates of the authority `users`.
struct Certified {
    site: TestSite,
    users: Authority,
}

const SERVICE: &str = "svc@contoso.test";

async fn certified(mode: &str, authentication: &str) -> Certified {
    certified_as(certified_plan(authentication), mode).await
}

fn certified_plan(authentication: &str) -> Plan {
    let listed = BTreeMap::from([(UserName::new(SERVICE), "service secret".to_owned())]);
    brisk(Flavour::Exchange)
        .each(|server| {
            server.users = Users::Listed(listed.clone());
            server.service = Some(Service {
                user: UserName::new(SERVICE),
                header: "X-Remote-User".to_owned(),
            });
        })
        .section(
            "backend_identity",
            "{ mode: basic_service, user: svc@contoso.test, password: service secret }",
        )
        .section(
            "names",
            &format!("[{{ host: {HOST}, authentication: [{authentication}] }}]"),
        )
}

/// A site of this plan whose listener asks for certificates.
async fn certified_as(plan: Plan, mode: &str) -> Certified {
    let folder = tempfile::tempdir().unwrap();
    let users = Authority::new("Contoso users").unwrap();
    std::fs::write(folder.path().join("users-ca.pem"), users.certificate()).unwrap();
    revoke(&users, folder.path(), &[]);
    let plan = plan.section(
        "listeners",
        &format!(
            "[{{ address: '127.0.0.1:0', certificates: [{{ chain: mail.pem, key: mail.key }}], \
             client_certificates: {{ ca: users-ca.pem, crl: [users.crl], mode: {mode} }} }}]"
        ),
    );
    let site = start_in(folder, plan).await;
    Certified { site, users }
}

/// Writes the list of revoked certificates.
fn revoke(users: &Authority, folder: &Path, serials: &[u64]) {
    let list = users.revocation_list(serials, Validity::NOW).unwrap();
    std::fs::write(folder.join("users.crl"), list).unwrap();
}

/// A client that trusts the site, with this certificate, and that resumes its sessions.
fn client(site: &TestSite, credential: Option<&Credential>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let authority = site.authority().certificate();
    roots
        .add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap())
        .unwrap();
    let builder = ClientConfig::builder_with_provider(mapigate::certs::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let Some(credential) = credential else {
        return Arc::new(builder.with_no_client_auth());
    };
    let chain = CertificateDer::from_pem_slice(credential.certificate.as_bytes()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(credential.key.as_bytes()).unwrap();
    Arc::new(builder.with_client_auth_cert(vec![chain], key).unwrap())
}

impl Certified {
    fn of(&self, number: usize) -> Credential {
        let name = user(number);
        let certified = CertifiedUser {
            upn: Some(&name),
            serial: number as u64,
            ..CertifiedUser::default()
        };
        self.users.user(&certified).unwrap()
    }

    fn target(&self, client: &Arc<ClientConfig>) -> Target {
        let mut target = self.site.target().unwrap();
        target.tls = Some(Arc::clone(client));
        target
    }

    async fn connect(&self, credential: &Credential) -> Line {
        line(&self.target(&client(&self.site, Some(credential)))).await
    }

    /// Whom the servers were told, request by request.
    fn told(&self) -> Vec<String> {
        let heads = self.site.servers().flat_map(|server| server.heads());
        let names = heads.filter_map(|head| {
            let head = String::from_utf8(head).unwrap();
            let (_, rest) = head.split_once("\r\nX-Remote-User: ")?;
            Some(rest.split("\r\n").next()?.to_owned())
        });
        names.collect()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.site.folder().join("mapigate.log")).unwrap()
    }

    async fn metric(&self, sample: &str) -> f64 {
        let admin = self.site.gate().unwrap().admin();
        admin.metric(sample).await.unwrap()
    }

    async fn why(&self, words: &str) {
        eventually(words, || async {
            let lines = self.site.access_lines().unwrap();
            lines
                .iter()
                .any(|line| line["why"].as_str().is_some_and(|why| why.contains(words)))
        })
        .await;
    }

    /// curl, as a person would use it, with this certificate.
    async fn curl(&self, credential: &Credential, more: &[&str]) -> Output {
        let address = self.site.gate().unwrap().address();
        let folder = self.site.folder();
        std::fs::write(folder.join("own.pem"), &credential.certificate).unwrap();
        std::fs::write(folder.join("own.key"), &credential.key).unwrap();
        tokio::process::Command::new("curl")
            .args(["-s", "-S", "-i", "--max-time", "20", "--cacert", "ca.pem"])
            .args(["--cert", "own.pem", "--key", "own.key"])
            .args([
                "--resolve",
                &format!("{HOST}:{}:{}", address.port(), address.ip()),
            ])
            .args(["-X", "POST", "-H", "Content-Type: application/mapi-http"])
            .args(["-H", "X-RequestType: PING", "-H", "X-ClientInfo: {c}:1"])
            .args([
                "-H",
                "X-RequestId: {00000000-0000-4000-8000-000000000000}:1",
            ])
            .args(more)
            .arg(format!(
                "https://{HOST}:{}/mapi/emsmdb/?MailboxId={}",
                address.port(),
                mailbox(1)
            ))
            .current_dir(folder)
            .output()
            .await
            .expect("curl is needed")
    }
}

/// A request that shows nothing.
fn bare() -> Vec<u8> {
    Ask::new(1, "PING").without("Authorization").bytes()
}

fn with_password(number: usize, password: &str) -> Vec<u8> {
    let authorization = format!("Authorization: {}", basic(&user(number), password));
    let ask = Ask::new(1, "PING").without("Authorization");
    ask.with(authorization).bytes()
}

async fn ask(line: &mut Line, request: &[u8]) -> u16 {
    line.ask(request).await.unwrap().head.status
}

#[tokio::test]
async fn a_certificate_counts_for_its_http2_connection_and_for_no_other() {
    let names = format!("[{{ host: {HOST}, http2: true, authentication: [certificate, basic] }}]");
    let plan = certified_plan("certificate")
        .section("names", &names)
        .section("virtual_directories", "{ preset: gromox }");
    let site = certified_as(plan, "request").await;
    let connect = async |credential: Option<&Credential>| {
        let mut config = ClientConfig::clone(&client(&site.site, credential));
        config.alpn_protocols = vec![b"h2".to_vec()];
        http2::Client::with(&site.site, config).await
    };
    let (first, second) = (site.of(1), site.of(2));
    let mut own = connect(Some(&first)).await;
    let mut other = connect(Some(&second)).await;
    let mut nobodys = connect(None).await;
    let bare = || {
        let mut asked = http2::request("GET", "/ews/x", 1);
        asked.headers_mut().remove("authorization");
        asked
    };

    for _ in 0..2 {
        assert_eq!(own.ask(bare(), b"").await.unwrap().status, 200);
        assert_eq!(nobodys.ask(bare(), b"").await.unwrap().status, 401);
        assert_eq!(other.ask(bare(), b"").await.unwrap().status, 200);
    }
    // Who shows a password is that user, once.
    let told = own.ask(http2::request("GET", "/ews/x", 3), b"").await;
    assert_eq!(told.unwrap().status, 200);
    assert_eq!(own.ask(bare(), b"").await.unwrap().status, 200);

    let expected = [1, 2, 1, 2, 3, 1].map(user);
    assert_eq!(site.told(), expected);
}

#[tokio::test]
async fn curl_signs_on_with_a_certificate_and_the_server_is_told_who() {
    let site = certified("request", "certificate, basic").await;

    let good = site.curl(&site.of(1), &[]).await;
    let text = String::from_utf8_lossy(&good.stdout).into_owned();

    assert_eq!(status(&text), 200, "{good:?}");
    assert_eq!(site.told(), [user(1)]);
    assert!(
        site.metric(r#"mapigate_auth_total{outcome="verified",scheme="certificate"}"#)
            .await
            > 0.5
    );
    site.site.access_lines().unwrap();
}

#[tokio::test]
async fn a_revoked_an_expired_and_a_strangers_certificate_end_in_the_handshake() {
    let site = certified("request", "certificate, basic").await;
    revoke(&site.users, site.site.folder(), &[66]);
    site.site.gate().unwrap().admin().reload().await.unwrap();
    let name = user(1);
    let of = |serial, validity| CertifiedUser {
        upn: Some(&name),
        serial,
        validity,
        ..CertifiedUser::default()
    };
    let stranger = Authority::new("Contoso users").unwrap();
    let cases = [
        (site.users.user(&of(66, Validity::NOW)), "revoked"),
        (site.users.user(&of(2, Validity::EXPIRED)), "expired"),
        (stranger.user(&of(3, Validity::NOW)), "not trusted"),
    ];

    for (credential, words) in cases {
        let refused = site.curl(&credential.unwrap(), &[]).await;
        assert!(!refused.status.success(), "{refused:?}");
        eventually(words, || async { site.log().contains(words) }).await;
    }

    assert!(site.told().is_empty());
    let refused = r#"mapigate_tls_handshakes_total{outcome="certificate",resumed="false"}"#;
    assert!((site.metric(refused).await - 3.0).abs() < 0.5);
    let mut other = site.connect(&site.of(2)).await;
    assert_eq!(ask(&mut other, &bare()).await, 200);
}

#[tokio::test]
async fn a_certificate_of_nobody_gets_the_challenges_of_the_others_or_403_where_there_are_none() {
    let nobody = CertifiedUser {
        subject: "user1@contoso.test",
        email: Some("nobody@elsewhere.test"),
        ..CertifiedUser::default()
    };
    for (authentication, expected) in [("certificate, basic", 401), ("certificate", 403)] {
        let site = certified("request", authentication).await;
        let credential = site.users.user(&nobody).unwrap();
        let mut mapped = site.connect(&credential).await;
        let mut without = line(&site.target(&client(&site.site, None))).await;
        let nobody = mapped.ask(&bare()).await.unwrap();
        let nothing = without.ask(&bare()).await.unwrap();

        assert_eq!(
            (nobody.head.status, nothing.head.status),
            (expected, expected)
        );
        let challenges: Vec<_> = nobody.head.all("WWW-Authenticate").collect();
        assert_eq!(challenges.len(), usize::from(expected == 401));
        assert_eq!(nobody.body().len(), nothing.body().len());
        site.why("client certificate of nobody known here").await;
        assert!(site.told().is_empty());
    }
}

#[tokio::test]
async fn credentials_of_a_request_count_before_the_certificate_and_nobody_becomes_the_other() {
    let site = certified("request", "certificate, basic").await;
    let mut line = site.connect(&site.of(1)).await;

    for _ in 0..20 {
        assert_eq!(ask(&mut line, &bare()).await, 200);
        assert_eq!(ask(&mut line, &with_password(2, PASSWORD)).await, 200);
    }
    // A wrong password is not made up for, and an offered scheme is not left for the certificate.
    assert_eq!(ask(&mut line, &with_password(2, "wrong")).await, 401);
    let token = Ask::new(1, "PING").without("Authorization");
    let token = token.with("Authorization: Bearer abc").bytes();
    assert_eq!(ask(&mut line, &token).await, 401);
    assert_eq!(ask(&mut line, &bare()).await, 200);

    let told = site.told();
    assert_eq!(told.len(), 41);
    for (number, name) in told.iter().enumerate() {
        let expected = if number % 2 == 0 { user(1) } else { user(2) };
        assert_eq!(*name, expected, "{number}");
    }
}

#[tokio::test]
async fn two_authorization_headers_are_refused_whatever_the_certificate() {
    let site = certified("request", "certificate, basic").await;
    let mut line = site.connect(&site.of(1)).await;
    let two = Ask::new(1, "PING").with(format!("Authorization: {}", basic(&user(2), PASSWORD)));
    assert_eq!(ask(&mut line, &two.bytes()).await, 400);
    assert!(site.told().is_empty());
}

#[tokio::test]
async fn a_resumed_session_is_the_same_users_until_the_certificate_is_revoked() {
    let site = certified("request", "certificate, basic").await;
    let (one, two) = (
        client(&site.site, Some(&site.of(1))),
        client(&site.site, Some(&site.of(2))),
    );
    for _ in 0..3 {
        for config in [&one, &two] {
            let mut line = line(&site.target(config)).await;
            assert_eq!(ask(&mut line, &bare()).await, 200);
        }
    }
    let resumed = r#"mapigate_tls_handshakes_total{outcome="ok",resumed="true"}"#;
    assert!(site.metric(resumed).await > 3.5);
    let told = site.told();
    assert_eq!(told.iter().filter(|name| **name == user(1)).count(), 3);
    assert_eq!(told.iter().filter(|name| **name == user(2)).count(), 3);
    let (mut held_by_one, mut held_by_two) = (
        line(&site.target(&one)).await,
        line(&site.target(&two)).await,
    );
    assert_eq!(ask(&mut held_by_one, &bare()).await, 200);

    revoke(&site.users, site.site.folder(), &[1]);
    site.site.gate().unwrap().admin().reload().await.unwrap();

    // On the connection that is open, and on a new one with the old ticket.
    assert_eq!(ask(&mut held_by_one, &bare()).await, 401);
    site.why("client certificate revoked").await;
    assert_eq!(ask(&mut held_by_two, &bare()).await, 200);
    let again = Line::connect(&site.target(&one)).await;
    let answered = match again {
        Ok(mut line) => line.ask(&bare()).await.is_ok(),
        Err(_) => false,
    };
    assert!(!answered);
}

#[tokio::test]
async fn where_a_certificate_is_required_nobody_comes_without_not_even_with_an_old_ticket() {
    let site = certified("request", "basic, certificate").await;
    let without = client(&site.site, None);
    let mut early = line(&site.target(&without)).await;
    assert_eq!(ask(&mut early, &with_password(1, PASSWORD)).await, 200);
    let own = site.connect(&site.of(3)).await;
    drop(own);

    let file = site.site.folder().join("mapigate.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("mode: request"));
    std::fs::write(&file, text.replace("mode: request", "mode: require")).unwrap();
    site.site.gate().unwrap().admin().reload().await.unwrap();

    // Nor goes the connection on that was opened before it was required.
    assert_eq!(ask(&mut early, &with_password(1, PASSWORD)).await, 403);
    let late = match Line::connect(&site.target(&without)).await {
        Ok(mut line) => line.ask(&with_password(1, PASSWORD)).await.is_ok(),
        Err(_) => false,
    };
    assert!(!late);
    eventually("the log says why", || async {
        site.log().contains("no client certificate")
    })
    .await;
    let mut with_both = site.connect(&site.of(3)).await;
    assert_eq!(ask(&mut with_both, &with_password(1, PASSWORD)).await, 200);
    assert_eq!(site.told(), [user(1), user(1)]);
    revoke(&site.users, site.site.folder(), &[3]);
    site.site.gate().unwrap().admin().reload().await.unwrap();
    // A good password makes up for no revoked certificate, and the connection ends.
    assert_eq!(ask(&mut with_both, &with_password(1, PASSWORD)).await, 403);
    assert!(with_both.is_dead().await);
}

#[tokio::test]
async fn who_is_revoked_is_out_where_a_certificate_is_required_though_the_server_judges_the_rest() {
    let site = certified_as(pass(""), "require").await;
    let (mut one, mut two) = (
        site.connect(&site.of(1)).await,
        site.connect(&site.of(2)).await,
    );
    assert_eq!(log_on(&mut one, 1, PASSWORD).await, 200);
    assert_eq!(log_on(&mut two, 2, PASSWORD).await, 200);
    let bare = |number| Ask::new(number, "PING").without("Authorization").bytes();
    assert_eq!(ask(&mut one, &bare(1)).await, 200);
    let asked = || {
        let servers = site.site.servers();
        servers
            .map(|server| server.counters().requests)
            .sum::<u64>()
    };
    let before = asked();

    revoke(&site.users, site.site.folder(), &[1]);
    site.site.gate().unwrap().admin().reload().await.unwrap();

    assert_eq!(ask(&mut one, &bare(1)).await, 403);
    site.why("client certificate revoked").await;
    assert_eq!(asked(), before);
    assert!(one.is_dead().await);
    assert_eq!(ask(&mut two, &bare(2)).await, 200);
}

#[tokio::test]
async fn a_path_accepts_what_it_lists_and_challenges_in_its_own_order() {
    let schemes = "certificate, basic], paths: [{ path: /mapi/nspi, authentication: [basic] }, \
                   { path: /mapi/emsmdb, authentication: [certificate] }";
    let site = certified("request", schemes).await;
    let mut line = site.connect(&site.of(1)).await;
    let nspi = |ask: Ask| {
        let line = format!("POST /mapi/nspi/?MailboxId={} HTTP/1.1", mailbox(1));
        ask.line(line).bytes()
    };
    let bare_ask = || Ask::new(1, "PING").without("Authorization");

    assert_eq!(ask(&mut line, &bare()).await, 200);
    let challenged = line.ask(&nspi(bare_ask())).await.unwrap();
    let challenges: Vec<_> = challenged.head.all("WWW-Authenticate").collect();
    assert_eq!(challenged.head.status, 401);
    assert_eq!(challenges, [r#"Basic realm="mail", charset="UTF-8""#]);
    let password = format!("Authorization: {}", basic(&user(1), PASSWORD));
    assert_eq!(ask(&mut line, &nspi(bare_ask().with(password))).await, 200);
    assert_eq!(ask(&mut line, &with_password(1, PASSWORD)).await, 403);
}
