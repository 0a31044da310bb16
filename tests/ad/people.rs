//! People of the directory by their certificates, and by the addresses that Autodiscover is asked for.

use crate::lab::{Lab, NETBIOS};
use crate::ldap::{Between, Directory, Mailbox, Wire, eventually, ldap, plan, start_in};
use crate::site::{PING, curl, url};
use mapigate::lab::Authority;
use mapigate::lab::authority::CertifiedUser;
use mapigate::lab::site::HOST;

const URL: &str = "ldaps://dc1.contoso.test:636";

/// A site that asks for certificates of an authority of its own.
struct People {
    site: Directory,
    users: Authority,
}

async fn start(access: &str, ldap: &str) -> People {
    let folder = tempfile::tempdir().unwrap();
    let users = Authority::new("Contoso users").unwrap();
    std::fs::write(folder.path().join("users-ca.pem"), users.certificate()).unwrap();
    let plan = plan(access, ldap)
        .section(
            "listeners",
            "[{ address: '127.0.0.1:0', certificates: [{ chain: mail.pem, key: mail.key }], \
             client_certificates: { ca: users-ca.pem, mode: request } }]",
        )
        .section(
            "names",
            &format!("[{{ host: {HOST}, authentication: [certificate, basic] }}]"),
        );
    People {
        site: start_in(folder, plan).await,
        users,
    }
}

impl People {
    async fn curl(&self, path: &str, words: &[&str]) -> (u16, String) {
        let site = &self.site.site;
        let mut command = curl(site);
        command.arg("-i").args(words).arg(url(site, path));
        let output = command.output().await.expect("curl is needed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let status = text
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3));
        (status.map_or(0, |code| code.parse().unwrap()), text)
    }

    /// A PING for a mailbox with a certificate of these names.
    async fn certified(&self, names: &CertifiedUser<'_>, mailbox: &str) -> u16 {
        let credential = self.users.user(names).unwrap();
        for (name, text) in [("u.pem", credential.certificate), ("u.key", credential.key)] {
            std::fs::write(self.site.folder.path().join(name), text).unwrap();
        }
        let words = [&["--cert", "u.pem", "--key", "u.key"], &PING[..]].concat();
        self.curl(&format!("/mapi/emsmdb/?MailboxId={mailbox}"), &words)
            .await
            .0
    }

    /// What this user is told of an address; true where a server was asked.
    async fn told(&self, who: &Mailbox<'_>, address: &str) -> (String, bool) {
        let schema = "http://schemas.microsoft.com/exchange/autodiscover/outlook";
        let body = format!(
            "<Autodiscover xmlns=\"{schema}/requestschema/2006\"><Request><EMailAddress>{address}</EMailAddress>\
             <AcceptableResponseSchema>{schema}/responseschema/2006a</AcceptableResponseSchema></Request></Autodiscover>"
        );
        let credentials = who.credentials();
        let words = [
            "--basic",
            "-u",
            &credentials,
            "-H",
            "Content-Type: text/xml",
            "-d",
            &body,
        ];
        let before = self.heads().len();
        let (status, text) = self.curl("/autodiscover/autodiscover.xml", &words).await;
        assert_eq!(status, 200, "{text}");
        // What differs from answer to answer.
        let words = text.split("<Error").last().unwrap_or_default().to_owned();
        let words = words.split_once("Id=").map_or(words.clone(), |(_, rest)| {
            rest.split_once('>')
                .map_or(String::new(), |(_, rest)| rest.to_owned())
        });
        (words, self.heads().len() > before)
    }

    fn heads(&self) -> Vec<String> {
        let heads = self.site.site.servers().flat_map(|server| server.heads());
        heads.map(|head| String::from_utf8(head).unwrap()).collect()
    }

    /// The user that a server was told of last.
    fn served(&self) -> String {
        let heads = self.heads();
        let user = heads.last().unwrap().lines();
        let mut user = user.filter_map(|line| line.strip_prefix("X-Remote-User: "));
        user.next().unwrap_or_default().to_owned()
    }
}

/// The security identifier of an account.
fn sid(name: &str) -> String {
    let output = std::process::Command::new("wbinfo")
        .arg("-n")
        .arg(format!("{NETBIOS}\\{name}"))
        .output()
        .expect("wbinfo is needed");
    let text = String::from_utf8(output.stdout).unwrap();
    text.split(' ').next().unwrap().to_owned()
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_certificate_is_its_holders_by_identifier_principal_name_and_address() {
    let lab = Lab::find();
    let (owner, other) = (Mailbox::new(&lab, "DB01"), Mailbox::new(&lab, "DB01"));
    let people = start("listed", &ldap(&lab, URL, "")).await;
    let (upn, sid) = (owner.upn(), sid(&owner.user.name));
    let alias = format!("{}.alias@contoso.test", owner.user.name);
    assert!(sid.starts_with("S-1-5-21-"), "{sid}");
    let by_sid = CertifiedUser {
        sid: Some(&sid),
        ..CertifiedUser::default()
    };
    let by_upn = CertifiedUser {
        upn: Some(&upn),
        ..CertifiedUser::default()
    };
    let by_address = CertifiedUser {
        email: Some(&alias),
        ..CertifiedUser::default()
    };

    for names in [&by_sid, &by_upn, &by_address] {
        let own = people.certified(names, &owner.id()).await;
        assert_eq!((own, people.served()), (200, upn.clone()), "{names:?}");
        let foreign = people.certified(names, &other.id()).await;
        assert_eq!(foreign, 403, "{names:?}");
    }
    // The domain knows who has this identifier: nobody, whatever name stands beside it.
    let stranger = CertifiedUser {
        sid: Some("S-1-5-21-9-9-9-9999"),
        upn: Some(&upn),
        ..CertifiedUser::default()
    };
    assert_eq!(people.certified(&stranger, &owner.id()).await, 401);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_disabled_account_is_out_though_its_certificate_is_good() {
    let lab = Lab::find();
    let owner = Mailbox::new(&lab, "DB01");
    let people = start("listed", &ldap(&lab, URL, "")).await;
    let (upn, sid) = (owner.upn(), sid(&owner.user.name));
    let names = CertifiedUser {
        sid: Some(&sid),
        upn: Some(&upn),
        ..CertifiedUser::default()
    };
    let own = owner.id();
    assert_eq!(people.certified(&names, &own).await, 200);

    lab.tool(&["user", "disable", &owner.user.name]);

    eventually("the holder is out", || async {
        people.certified(&names, &own).await == 401
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn while_no_directory_answers_a_certificate_nobody_knows_gets_503() {
    let lab = Lab::find();
    let (known, new) = (Mailbox::new(&lab, "DB01"), Mailbox::new(&lab, "DB01"));
    let between = Between::start().await;
    let people = start("listed", &ldap(&lab, &between.url(), "")).await;
    let mut statuses = Vec::new();
    let ask = async |whose: &Mailbox<'_>| {
        let upn = whose.upn();
        let names = CertifiedUser {
            upn: Some(&upn),
            ..CertifiedUser::default()
        };
        people.certified(&names, &whose.id()).await
    };
    assert_eq!(ask(&known).await, 200);

    between.be(Wire::Cut);

    for whose in [&known, &new] {
        statuses.push(ask(whose).await);
    }
    assert_eq!(statuses, [200, 503]);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn autodiscover_finds_an_address_of_somebody_elses_where_servers_decide() {
    let lab = Lab::find();
    let (asker, other) = (Mailbox::new(&lab, "DB01"), Mailbox::new(&lab, "DB02"));
    let people = start("backend", &ldap(&lab, URL, "")).await;

    for (whose, server) in [(&asker, "MBX1"), (&other, "MBX2")] {
        for address in [
            whose.upn(),
            format!("{}.ALIAS@contoso.test", whose.user.name),
        ] {
            let before = people.site.site.server(server).unwrap().heads().len();
            assert!(people.told(&asker, &address).await.1, "{address}");
            let after = people.site.site.server(server).unwrap().heads().len();
            assert_eq!(
                (after, people.served()),
                (before + 1, asker.upn()),
                "{address}"
            );
        }
    }
    assert!(!people.told(&asker, "nobody@contoso.test").await.1);
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn autodiscover_tells_nobody_which_addresses_of_others_there_are() {
    let lab = Lab::find();
    let (asker, other) = (Mailbox::new(&lab, "DB01"), Mailbox::new(&lab, "DB01"));
    let people = start("listed", &ldap(&lab, URL, "")).await;
    assert!(people.told(&asker, &asker.upn()).await.1);
    // Remembered, because he is here himself.
    assert!(people.told(&other, &other.upn()).await.1);
    let searches = || async {
        let sample = "mapigate_ldap_operations_total{operation=\"search\",outcome=\"ok\"}";
        let admin = people.site.site.gate().unwrap().admin();
        admin.metric(sample).await.unwrap()
    };
    let mut seen = Vec::new();

    for address in [other.upn(), "nobody@contoso.test".to_owned()] {
        for _ in 0..2 {
            let before = searches().await;
            let told = people.told(&asker, &address).await;
            seen.push((told, searches().await - before >= 1.0));
        }
    }

    assert!(!seen[0].0.1 && seen[0].1, "{seen:?}");
    assert!(seen.iter().all(|one| *one == seen[0]), "{seen:?}");
}
