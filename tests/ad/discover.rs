//! Autodiscover in answers of our own, made of what a domain knows of its people.

use crate::lab::{DOMAIN, Lab};
use crate::ldap::{Between, Directory, Mailbox, Wire, eventually, ldap, plan, start_planned};

const SCHEMA: &str = "http://schemas.microsoft.com/exchange/autodiscover/outlook";

/// A site that answers Autodiscover itself.
async fn start(access: &str, ldap: &str) -> Directory {
    start_planned(plan(access, ldap).section("autodiscover", "{ mode: answer }")).await
}

/// A mailbox whose owner has a display name and a name in the address book.
fn named<'a>(lab: &'a Lab, database: &str) -> (Mailbox<'a>, String) {
    let mailbox = Mailbox::new(lab, database);
    let name = &mailbox.user.name;
    let dn = format!(
        "/o=Contoso/ou=Exchange Administrative Group (FYDIBOHF23SPDLT)/cn=Recipients/cn={name}"
    );
    mailbox.modify(&format!(
        "replace: displayName\ndisplayName: Front & {name}\n-\n\
         replace: legacyExchangeDN\nlegacyExchangeDN: {dn}\n-\n"
    ));
    (mailbox, dn)
}

/// What a user is told: the status, and the words without the time and number of an error.
async fn told(site: &Directory, who: &Mailbox<'_>, asked: &str) -> (u16, String) {
    let body = format!(
        "<Autodiscover xmlns=\"{SCHEMA}/requestschema/2006\"><Request>{asked}\
         <AcceptableResponseSchema>{SCHEMA}/responseschema/2006a</AcceptableResponseSchema></Request></Autodiscover>"
    );
    let words = [
        "-H",
        "Content-Type: text/xml",
        "-H",
        "X-MapiHttpCapability: 1",
        "-d",
        &body,
    ];
    let path = "/autodiscover/autodiscover.xml";
    let (status, text) = site.page_with(&who.credentials(), path, &words).await;
    match text.split_once("<Error ") {
        Some((before, rest)) => (
            status,
            format!("{before}{}", rest.split_once('>').unwrap().1),
        ),
        None => (status, text),
    }
}

fn by_address(address: &str) -> String {
    format!("<EMailAddress>{address}</EMailAddress>")
}

const LDAPS: &str = "ldaps://dc1.contoso.test";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn outlook_is_told_what_the_domain_knows_of_its_user() {
    let lab = Lab::find();
    let (owner, dn) = named(&lab, "DB01");
    let site = start("listed", &ldap(&lab, LDAPS, "")).await;
    let name = owner.user.name.clone();

    let (status, own) = told(&site, &owner, &by_address(&owner.upn())).await;

    assert_eq!(status, 200);
    for word in [
        format!("<DisplayName>Front &amp; {name}</DisplayName>"),
        format!("<LegacyDN>{dn}</LegacyDN>"),
        format!("<AutoDiscoverSMTPAddress>{name}@{DOMAIN}</AutoDiscoverSMTPAddress>"),
        format!("/mapi/emsmdb/?MailboxId={}<", owner.id()),
    ] {
        assert!(own.contains(&word), "{word} not in {own}");
    }
    // By another address of the user, and by the name in the address book.
    let alias = by_address(&format!("{name}.alias@{DOMAIN}"));
    let by_dn = format!("<LegacyDN>{dn}</LegacyDN>");
    for asked in [alias, by_dn] {
        assert_eq!(
            told(&site, &owner, &asked).await,
            (200, own.clone()),
            "{asked}"
        );
    }
    // A new name is told as soon as the change is seen.
    owner.modify("replace: displayName\ndisplayName: Another name\n-\n");
    eventually("the new name is told", || async {
        let (_, text) = told(&site, &owner, &by_address(&owner.upn())).await;
        text.contains("<DisplayName>Another name<")
    })
    .await;
    assert_eq!(site.asked_of_servers(), 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_delegate_is_told_and_for_others_there_is_nobody() {
    let lab = Lab::find();
    let [(owner, _), (delegate, _), (stranger, _)] = [(); 3].map(|()| named(&lab, "DB02"));
    owner.modify(&format!(
        "add: secretary\nsecretary: {}\n-\n",
        delegate.dn()
    ));
    let site = start("listed", &ldap(&lab, LDAPS, "")).await;
    // Remembered, because the owner is here.
    assert_eq!(told(&site, &owner, &by_address(&owner.upn())).await.0, 200);

    let (_, to_delegate) = told(&site, &delegate, &by_address(&owner.upn())).await;
    assert!(to_delegate.contains(&owner.id()), "{to_delegate}");
    let to_stranger = told(&site, &stranger, &by_address(&owner.upn())).await;
    let of_nobody = told(
        &site,
        &stranger,
        &by_address(&format!("nobody.at.all@{DOMAIN}")),
    )
    .await;
    assert_eq!(to_stranger, of_nobody);
    assert!(of_nobody.1.contains("<ErrorCode>500<"), "{of_nobody:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a domain controller: make test-ad"]
async fn while_no_domain_controller_answers_nobody_learns_whom_we_remember() {
    let lab = Lab::find();
    let [(owner, _), (stranger, _)] = [(); 2].map(|()| named(&lab, "DB01"));
    let between = Between::start().await;
    let site = start("listed", &ldap(&lab, &between.url(), "")).await;
    for who in [&owner, &stranger] {
        assert_eq!(told(&site, who, &by_address(&who.upn())).await.0, 200);
    }

    between.be(Wire::Cut);

    assert_eq!(told(&site, &owner, &by_address(&owner.upn())).await.0, 200);
    let nobody = format!("nobody.at.all@{DOMAIN}");
    for address in [owner.upn(), nobody] {
        assert_eq!(
            told(&site, &stranger, &by_address(&address)).await.0,
            503,
            "{address}"
        );
    }
    between.be(Wire::Whole);
    eventually("the directory answers again", || async {
        told(&site, &stranger, &by_address(&owner.upn())).await.0 == 200
    })
    .await;
}
