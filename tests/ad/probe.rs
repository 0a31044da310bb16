//! `mapigate probe --tickets`: Outlook's whole way with a ticket of the domain, and why there is none.

use crate::lab::{DOMAIN, Lab, LabUser, PASSWORD};
use crate::site::{AdSite, Offer, eventually, start_with};
use mapigate::ids::UserName;
use mapigate::lab::mailbox_server::Users;
use mapigate::lab::site::HOST;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::Command;

/// Users of the mailbox file who are in the domain too, for as long as a test lasts.
const OWNERS: [&str; 2] = ["user77", "user78"];

/// A site where they have mailboxes, with the keys of this file of the lab.
async fn site(keytab: &str) -> AdSite {
    let offer = Offer {
        keytab: Some(Lab::find().path(keytab)),
        ..Offer::of("negotiate, basic")
    };
    start_with(offer, |mut plan| {
        plan.users = 80;
        plan.sections.remove("directory");
        plan.section("autodiscover", "{ mode: answer }")
            .each(|server| {
                if let Users::Listed(listed) = &mut server.users {
                    let owners = OWNERS.map(|name| UserName::new(format!("{name}@{DOMAIN}")));
                    listed.extend(owners.map(|name| (name, PASSWORD.to_owned())));
                }
            })
    })
    .await
}

impl AdSite {
    /// The exit code and the words of a probe of this user, with the tickets in a file of the site's folder.
    async fn probed(&self, user: &LabUser<'_>, tickets: &str) -> (Option<i32>, String) {
        let address = self.gate().unwrap().address();
        let output = Command::new(env!("CARGO_BIN_EXE_mapigate"))
            .args(["probe", &format!("https://{HOST}"), "--ca", "ca.pem"])
            .args(["--resolve", &format!("{HOST}={address}")])
            .args(["--user", &format!("{}@{DOMAIN}", user.name)])
            .args(["--tickets", &format!("FILE:{tickets}")])
            .args(["--held-wait", "400ms"])
            .envs([self.lab.environment()])
            .current_dir(self.folder())
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let told = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(told).unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }
}

/// A step that failed, as it is told.
fn failed<'a>(told: &'a str, step: &str) -> &'a str {
    let (_, failure) = told.split_once(&format!("FAILED   {step}")).expect(told);
    let (failure, _) = failure.split_once("\n  not run").expect(told);
    failure
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn every_step_goes_well_with_a_ticket_and_the_mailbox_is_opened_as_its_owner() {
    let lab = Lab::find();
    let user = lab.user_called(OWNERS[0], PASSWORD);
    let site = site("mail.keytab").await;
    lab.log_on(&user.name, PASSWORD, &site.file("tickets"));

    let (code, told) = site.probed(&user, "tickets").await;

    assert_eq!(code, Some(0), "{told}\n{}", site.log());
    assert!(told.contains("Negotiate accepted"), "{told}");
    assert!(!told.contains("FAILED") && !told.contains("not run"));
    assert!(!told.contains("YII"), "no ticket is printed: {told}");
    let owner = format!("{}@{DOMAIN}", user.name);
    assert!(site.served().iter().all(|served| *served == owner));
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn without_a_ticket_or_with_one_that_has_ended_the_probe_is_red_and_says_which() {
    let lab = Lab::find();
    let user = lab.user_called(OWNERS[1], PASSWORD);
    let site = site("mail.keytab").await;
    let service = format!("HTTP/{HOST}");
    let words = ["-l", "1s", "-S", &service];
    lab.log_on_with(&words, &user.name, PASSWORD, &site.file("old"));
    std::fs::write(site.file("text"), "no tickets at all").unwrap();
    let began = Instant::now();
    eventually("the ticket has ended", || async {
        began.elapsed() > Duration::from_secs(2)
    })
    .await;

    for (tickets, reason) in [
        ("nothing", "No credentials cache found"),
        ("old", "The referenced credential has expired\n"),
        ("text", "Unsupported credentials cache format"),
    ] {
        let (code, told) = site.probed(&user, tickets).await;

        assert_eq!(code, Some(1), "{told}");
        let failure = failed(&told, "authentication");
        for words in [
            "expected   a ticket for HTTP/mail.contoso.test\n",
            &format!("came       {reason}"),
            "next       get a ticket with kinit",
        ] {
            assert!(failure.contains(words), "{failure}");
        }
    }
    assert!(site.served().is_empty());
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_ticket_that_the_site_has_no_key_for_is_told_with_where_to_look() {
    let lab = Lab::find();
    let site = site("mbx.keytab").await;
    let alice = lab.user(PASSWORD);
    lab.log_on(&alice.name, PASSWORD, &site.file("tickets"));

    let (code, told) = site.probed(&alice, "tickets").await;

    assert_eq!(code, Some(1), "{told}");
    let failure = failed(&told, "authentication");
    assert!(failure.contains("HTTP 401"), "{failure}");
    let cure = "mapigate auth test --tickets";
    assert!(
        failure.contains(cure) && !failure.contains("lockout"),
        "{failure}"
    );
}
