//! Every scheme by curl, as a person would use it, on one site: what is right opens mail, what is wrong does not.

use crate::lab::{DOMAIN, Lab, NETBIOS, PASSWORD};
use crate::site::{AdSite, Got, NTLM, Offer, eventually, start_with};
use mapigate::lab::Authority;
use mapigate::lab::authority::{CertifiedUser, Credential};
use mapigate::lab::identity_provider::{IdentityProvider, Options};
use mapigate::lab::site::Plan;
use std::fs;
use tempfile::TempDir;

/// A site that takes everything, and who vouches for its users.
struct Everything {
    site: AdSite,
    provider: IdentityProvider,
    folder: TempDir,
}

async fn everything() -> Everything {
    let lab = Lab::find();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let authority = Authority::new("identity").unwrap();
    fs::write(file("id-ca.pem"), authority.certificate()).unwrap();
    let provider = IdentityProvider::spawn(Options {
        tls: Some(authority.server_config(&["127.0.0.1"]).unwrap()),
        ..Options::default()
    })
    .await
    .unwrap();
    fs::write(
        file("mailboxes.yaml"),
        format!(
            "mailboxes:\n  - id: 00000000-0000-4000-8000-000000000001@{DOMAIN}\n    database: DB07\n    \
             addresses: [alice@{DOMAIN}, user1@{DOMAIN}]\n"
        ),
    )
    .unwrap();
    let bearer = format!(
        "  bearer: {{ issuers: [{{ issuer: '{}', ca: {}, audiences: ['https://mail.contoso.test/'], \
         domains: [{DOMAIN}] }}] }}\n",
        provider.issuer(),
        file("id-ca.pem")
    );
    let listeners = format!(
        "[{{ address: '127.0.0.1:0', certificates: [{{ chain: mail.pem, key: mail.key }}], \
         client_certificates: {{ ca: {}, mode: request }} }}]",
        lab.path("tls/ca.pem").display()
    );
    let directory = format!("{{ file: {}, access: backend }}", file("mailboxes.yaml"));
    let change = |mut plan: Plan| {
        plan.sections.get_mut("auth").unwrap().push_str(&bearer);
        plan.section("listeners", &listeners)
            .section("directory", &directory)
    };
    let offer = Offer {
        ntlm: Some(NTLM),
        ..Offer::of("bearer, negotiate, ntlm, certificate, basic")
    };
    Everything {
        site: start_with(offer, change).await,
        provider,
        folder,
    }
}

impl Everything {
    async fn curl(&self, words: &[&str]) -> Got {
        self.site.curl(None, 1, words).await
    }

    async fn token(&self, token: &str) -> Got {
        self.curl(&["--oauth2-bearer", token]).await
    }

    /// With a certificate and its key.
    async fn certificate(&self, chain: &str, key: &str) -> Got {
        self.curl(&["--cert", chain, "--key", key]).await
    }

    /// The files of a certificate that somebody else than the site's authority has signed.
    fn strangers(&self) -> (String, String) {
        let upn = format!("alice@{DOMAIN}");
        let certified = CertifiedUser {
            upn: Some(&upn),
            ..CertifiedUser::default()
        };
        let authority = Authority::new("Contoso Lab CA").unwrap();
        let Credential { certificate, key } = authority.user(&certified).unwrap();
        let (chain_file, key_file) = ("stranger.pem", "stranger.key");
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        fs::write(path(chain_file), certificate).unwrap();
        fs::write(path(key_file), key).unwrap();
        (path(chain_file), path(key_file))
    }
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn curl_opens_mail_by_negotiate_ntlm_a_token_a_certificate_and_basic() {
    let all = everything().await;
    let token = all.provider.token(&format!("alice@{DOMAIN}")).unwrap();
    eventually("the provider's keys are here", || async {
        all.token(&token).await.status() == 200
    })
    .await;
    let [chain, key] = ["tls/alice.pem", "tls/alice.key"]
        .map(|name| all.site.lab.path(name).display().to_string());
    let before = all.site.served().len();

    let outcomes = [
        all.site.kerberos("alice", 1).await,
        all.site
            .ntlm(&format!("{NETBIOS}\\alice:{PASSWORD}"), 1)
            .await,
        all.token(&token).await,
        all.certificate(&chain, &key).await,
        all.curl(&["--basic", "-u", "user1@contoso.test:correct horse"])
            .await,
    ];

    for got in &outcomes {
        assert_eq!(got.status(), 200, "{}\n{}", got.verbose, all.site.log());
    }
    let alice = format!("alice@{DOMAIN}");
    let served = all.site.served().split_off(before);
    assert_eq!(
        served,
        [&alice, &alice, &alice, &alice, "user1@contoso.test"]
    );
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn curl_opens_nothing_with_what_is_wrong_and_is_told_the_same_by_all_schemes() {
    let all = everything().await;
    let user = Lab::find();
    let user = user.user(PASSWORD);
    let mut other = all.provider.claims(&format!("alice@{DOMAIN}"));
    other["aud"] = "https://files.contoso.test/".into();
    let other = all.provider.sign(&other, &serde_json::json!({})).unwrap();
    let (chain, key) = all.strangers();

    // Of another user, and nobody's: the domain has given no ticket.
    let outcomes = [
        all.curl(&["--negotiate", "-u", ":"]).await,
        all.site
            .ntlm(&format!("{NETBIOS}\\{}:wrong", user.name), 1)
            .await,
        all.token(&other).await,
        all.curl(&["--basic", "-u", "user1@contoso.test:wrong"])
            .await,
    ];
    let stranger = all.certificate(&chain, &key).await;

    for got in &outcomes {
        assert_eq!(got.status(), 401, "{}", got.verbose);
        let mut lines = got.text.lines();
        assert!(
            lines.any(|line| line.starts_with("WWW-Authenticate: Basic ")),
            "{}",
            got.text
        );
    }
    assert!(outcomes[2].text.contains("x-ms-diagnostics: "));
    // The handshake of TLS ends with an alert: there is no answer to speak of.
    assert!(stranger.statuses.is_empty(), "{}", stranger.verbose);
    assert_eq!(all.site.served(), Vec::<String>::new());
    eventually("the operator is told", || async {
        all.site.log().contains("not trusted")
    })
    .await;
}
