//! A sprayed account is not locked: Active Directory's own lockout, five wrong passwords within a minute, beside ours.

use crate::lab::{DOMAIN, Lab, NETBIOS};
use crate::ldap::{Mailbox, SECRET, ldap};
use crate::site::{AdSite, Got, Offer, start_with};
use mapigate::lab::site::Plan;
use std::fs;

/// A scheme that passwords are sprayed with.
#[derive(Clone, Copy, Debug)]
enum By {
    Basic,
    Ntlm,
    /// NTLM inside of Negotiate.
    Inside,
}

/// A site that verifies every kind of password at the domain.
async fn site(lab: &Lab, guard: &str) -> AdSite {
    let keytab = lab.path("mail.keytab");
    let realms = format!("{{ CONTOSO.TEST: {DOMAIN}, {NETBIOS}: {DOMAIN} }}");
    let auth = format!(
        "  basic: {{ verify: ldap_bind, default_domain: {DOMAIN} }}\n  \
         negotiate: {{ keytab: {}, allow_ntlm_in_spnego: true, realm_map: {realms} }}\n  \
         ntlm: {{ realm_map: {realms} }}\n  negative_ttl: 0s\n  lockout_guard: {guard}\n",
        keytab.display()
    );
    let directory = format!(
        "  access: backend\n  ldap:\n{}",
        ldap(lab, "ldaps://127.0.0.1:636", "")
    );
    let change = |plan: Plan| {
        plan.section("auth", &auth)
            .section("directory", &directory)
            .section("databases", "{ DB01: { copies: [MBX1] } }")
    };
    start_with(Offer::of("negotiate, ntlm, basic"), change).await
}

/// curl with this password, as this name, from this address of the loopback.
async fn log_on(site: &AdSite, user: &Mailbox<'_>, by: By, name: &str, password: &str) -> Got {
    static NEXT: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(2);
    let last = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let from = format!("127.0.7.{}", last.max(2));
    let credentials = format!("{name}:{password}");
    let mut words = vec!["--interface", &from];
    let mut environment = Vec::new();
    let file = site.folder().join("ntlm.user").display().to_string();
    match by {
        By::Basic => words.extend(["--basic", "-u", &credentials]),
        By::Ntlm => words.extend(["--ntlm", "-u", &credentials]),
        By::Inside => {
            let (domain, account) = name.split_once('\\').unwrap_or(("", name));
            fs::write(&file, format!("{domain}:{account}:{password}\n")).unwrap();
            words.extend(["--negotiate", "-u", ":"]);
            environment.push(("NTLM_USER_FILE", file.as_str()));
        }
    }
    site.curl_for(&user.id(), None, 1, &words, &environment)
        .await
}

/// A spray of wrong passwords for one user under all names: 24 of them, from as many addresses.
async fn spray(site: &AdSite, user: &Mailbox<'_>, schemes: &[By]) {
    let account = &user.user.name;
    let names = [
        format!("{NETBIOS}\\{account}"),
        user.upn(),
        account.to_uppercase(),
        format!("{account}.alias@{DOMAIN}"),
        format!("{account}.logon@{DOMAIN}"),
        format!("LAPTOP-7\\{account}"),
    ];
    for number in 0..24 {
        let by = schemes[number % schemes.len()];
        let name = &names[(number / schemes.len()) % names.len()];
        let got = log_on(site, user, by, name, &format!("guess {number}")).await;
        assert_eq!(
            got.status(),
            401,
            "{by:?} {name}: {}\n{}",
            got.text,
            site.log()
        );
    }
}

/// Wrong passwords that the domain has counted, and whether it has locked the account.
fn lockout(lab: &Lab, user: &Mailbox<'_>) -> (u64, bool) {
    let wanted = "--attributes=badPwdCount,lockoutTime";
    let output = lab.tool(&["user", "show", &user.user.name, wanted]);
    let text = String::from_utf8(output.stdout).unwrap();
    let read = |attribute: &str| -> u64 {
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(attribute)?.strip_prefix(": "));
        value.map_or(0, |value| value.trim().parse().unwrap())
    };
    (read("badPwdCount"), read("lockoutTime") != 0)
}

/// A user whose logon name, account and address are three names.
fn victim(lab: &Lab) -> Mailbox<'_> {
    let user = Mailbox::new(lab, "DB01");
    let account = &user.user.name;
    user.modify(&format!(
        "replace: userPrincipalName\nuserPrincipalName: {account}.logon@{DOMAIN}\n-\n"
    ));
    user
}

/// Sprays, and sees that the domain has locked nobody: the owner logs on at the domain at once, and here as soon as
/// the guard forgets.
async fn is_not_locked(schemes: &[By]) {
    let lab = Lab::find();
    let site = site(&lab, "{ delay: 0s }").await;
    let user = victim(&lab);

    spray(&site, &user, schemes).await;

    let (counted, is_locked) = lockout(&lab, &user);
    assert!((1..=3).contains(&counted), "{counted}");
    assert!(!is_locked);
    let tickets = site.folder().join("tickets");
    lab.log_on(&user.user.name, SECRET, &tickets);
    let own = format!("{NETBIOS}\\{}", user.user.name);
    for by in [By::Basic, By::Ntlm] {
        let held = log_on(&site, &user, by, &own, SECRET).await;
        assert_eq!(held.status(), 401, "{by:?}");
    }
    // Tickets cannot be guessed at, and are good all the time.
    let words = ["--negotiate", "-u", ":"];
    let kerberos = site
        .curl_for(&user.id(), Some(&tickets), 1, &words, &[])
        .await;
    assert_eq!(kerberos.status(), 200, "{}\n{}", kerberos.text, site.log());
    let admin = site.gate().unwrap().admin();
    admin.post("/revoke").await.unwrap();
    for by in [By::Basic, By::Ntlm, By::Inside] {
        let right = log_on(&site, &user, by, &own, SECRET).await;
        assert_eq!(right.status(), 200, "{by:?} {}\n{}", right.text, site.log());
    }
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn an_account_that_is_sprayed_by_basic_is_not_locked() {
    is_not_locked(&[By::Basic]).await;
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn an_account_that_is_sprayed_by_ntlm_is_not_locked() {
    is_not_locked(&[By::Ntlm]).await;
    is_not_locked(&[By::Inside]).await;
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn an_account_that_is_sprayed_by_every_scheme_is_not_locked() {
    is_not_locked(&[By::Ntlm, By::Basic, By::Inside]).await;
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn without_the_guard_the_domain_locks_whoever_is_sprayed() {
    let lab = Lab::find();
    let site = site(&lab, "off").await;
    for schemes in [&[By::Basic], &[By::Ntlm], &[By::Inside]] {
        let user = victim(&lab);

        spray(&site, &user, schemes).await;

        let (counted, is_locked) = lockout(&lab, &user);
        assert!(is_locked, "{schemes:?} {counted}");
    }
}
