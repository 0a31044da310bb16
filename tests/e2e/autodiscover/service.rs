//! Answers of our own about people of a directory service.

use super::*;
use crate::ldap::{Person, Service};

const DN: &str =
    "/o=Contoso/ou=Exchange Administrative Group (FYDIBOHF23SPDLT)/cn=Recipients/cn=one";

/// User `number` with a mailbox, who is also called `alias{number}`.
fn person(number: usize, delegate: Option<usize>) -> Person {
    let name = user(number);
    let alias = format!("alias{number}@{DOMAIN}");
    let guid = mailbox(number).split_once('@').unwrap().0.to_owned();
    let mut attributes = vec![
        ("userPrincipalName", name.clone()),
        ("proxyAddresses", format!("SMTP:{alias}")),
        ("objectGUID", format!("object {number}")),
        ("msExchMailboxGuid", guid.clone()),
        ("homeMDB", "DB07".to_owned()),
        ("msExchRecipientTypeDetails", "1".to_owned()),
        ("displayName", format!("User & {number}")),
        ("legacyExchangeDN", DN.replace("one", &number.to_string())),
    ];
    attributes.extend(delegate.map(|other| {
        let other = user(other);
        ("delegate", format!("cn={other},dc=contoso,dc=test"))
    }));
    Person {
        names: vec![name, alias, guid],
        attributes,
    }
}

/// A site that answers from a directory service of three people; the third lets the first in.
async fn site(access: &str) -> (Service, TestSite) {
    let people = vec![person(1, None), person(2, None), person(3, Some(1))];
    let service = Service::start(people).await;
    let plan = mixed(Flavour::Exchange, "answer").section("directory", &service.section(access));
    let site = start(plan).await;
    (service, site)
}

/// What user 1 is told of an address: status, and the words without the time and number of an error.
async fn words(site: &TestSite, address: &str) -> (u16, String) {
    let answer = answer(site, &ask(CAPABLE, body_for(address))).await;
    let text = text(&answer);
    let told = match text.split_once("<Error ") {
        Some((before, rest)) => format!("{before}{}", rest.split_once('>').unwrap().1),
        None => text,
    };
    (answer.head.status, told)
}

#[tokio::test]
async fn an_answer_is_made_of_what_the_directory_service_knows_and_follows_the_active_copy() {
    let (_service, mut site) = site("listed").await;

    let xml = told(&site, CAPABLE).await;

    says_mapi_http(&xml);
    for word in [
        "<DisplayName>User &amp; 1</DisplayName>".to_owned(),
        format!("<LegacyDN>{}</LegacyDN>", DN.replace("one", "1")),
        format!("<AutoDiscoverSMTPAddress>alias1@{DOMAIN}</AutoDiscoverSMTPAddress>"),
    ] {
        assert!(xml.contains(&word), "{word} not in {xml}");
    }
    // By another of the user's addresses it is the same mailbox.
    assert_eq!(words(&site, &format!("ALIAS1@{DOMAIN}")).await, (200, xml));
    let both = soap_for(&[user(1), user(3)]);
    let soap = ask(&[], both).line("POST /autodiscover/autodiscover.svc HTTP/1.1");
    let enabled = "<Name>MapiHttpEnabled</Name><Value>True</Value>";
    let told_both = text(&answer(&site, &soap).await);
    assert_eq!(told_both.matches(enabled).count(), 2, "{told_both}");
    nobody_was_reached(&site).await;

    site.move_database("MBX2").await.unwrap();

    says_outlook_anywhere(&told(&site, CAPABLE).await);
}

#[tokio::test]
async fn outlook_is_answered_by_its_own_name_in_the_address_book_and_by_no_other() {
    let (_service, site) = site("backend").await;
    let by_dn = |number: &str| {
        let dn = DN.replace("one", number);
        let body = body_for("x").replace(
            "<EMailAddress>x</EMailAddress>",
            &format!("<LegacyDN>{dn}</LegacyDN>"),
        );
        ask(CAPABLE, body)
    };

    says_mapi_http(&text(&answer(&site, &by_dn("1")).await));
    let other = text(&answer(&site, &by_dn("2")).await);
    assert!(other.contains("<ErrorCode>500</ErrorCode>"), "{other}");
}

#[tokio::test]
async fn what_the_directory_service_knows_is_explained() {
    let (_service, site) = site("listed").await;
    let admin = site.gate().unwrap().admin().address().to_string();
    for subject in [user(1), format!("alias1@{DOMAIN}"), mailbox(1)] {
        let told = tokio::process::Command::new(crate::support::PROGRAM)
            .args(["explain", &subject, "--admin", &admin])
            .output()
            .await
            .unwrap();
        let text = String::from_utf8(told.stdout).unwrap();
        let is_owner_known = !subject.starts_with("0000");
        let words = match is_owner_known {
            true => format!("{}, User & 1", mailbox(1)),
            false => "there is one; its owner and delegates alone may open it".to_owned(),
        };
        assert!(text.contains(&words), "{subject}: {text}");
        assert!(told.status.success(), "{text}");
    }
}

#[tokio::test]
async fn an_address_of_somebody_else_reads_and_costs_like_one_that_does_not_exist() {
    let (service, site) = site("listed").await;
    says_mapi_http(&told(&site, CAPABLE).await);
    let mut seen = Vec::new();

    for address in [
        user(2),
        format!("alias2@{DOMAIN}"),
        format!("nobody@{DOMAIN}"),
        user(2),
    ] {
        let before = service.searches();
        let told = words(&site, &address).await;
        seen.push((told, service.searches() - before));
    }

    assert!(
        seen[0].0.1.contains("<ErrorCode>500</ErrorCode>"),
        "{seen:?}"
    );
    assert_eq!(seen[0].1, 1);
    assert!(seen.iter().all(|one| *one == seen[0]), "{seen:?}");
    // Whom the directory lets in is told.
    assert!(words(&site, &user(3)).await.1.contains("mapiHttp"));
}

#[tokio::test]
async fn while_the_directory_is_away_who_is_known_is_answered_and_nothing_shows_who_else_there_is()
{
    for (access, of_others) in [("listed", [503, 503, 503]), ("backend", [200, 503, 503])] {
        let (service, site) = site(access).await;
        says_mapi_http(&told(&site, CAPABLE).await);
        // Remembered from here on.
        words(&site, &user(2)).await;

        service.stop();

        says_mapi_http(&told(&site, CAPABLE).await);
        for (address, status) in [user(2), user(3), format!("nobody@{DOMAIN}")]
            .iter()
            .zip(of_others)
        {
            let answer = answer(&site, &ask(CAPABLE, body_for(address))).await;
            assert_eq!(answer.head.status, status, "{access} {address}");
            let is_told_when = answer.head.header("retry-after").is_some();
            assert_eq!(is_told_when, status == 503, "{access} {address}");
        }
    }
}

#[tokio::test]
async fn one_request_for_many_addresses_costs_so_many_searches_and_the_rest_is_told_to_come_again()
{
    let (service, site) = site("listed").await;
    let nobodies = (0..60).map(|number| format!("nobody{number}@{DOMAIN}"));
    let users: Vec<_> = [user(1)].into_iter().chain(nobodies).collect();
    let soap = ask(&[], soap_for(&users)).line("POST /autodiscover/autodiscover.svc HTTP/1.1");
    let before = service.searches();

    let told = text(&answer(&site, &soap).await);

    assert!(service.searches() - before <= 16, "{}", service.searches());
    let count = |code: &str| {
        told.matches(&format!("<ErrorCode>{code}</ErrorCode>"))
            .count()
    };
    // The first is of the whole answer.
    assert_eq!(count("NoError"), 2, "{told}");
    assert!(count("ServerBusy") >= 40, "{told}");
    assert_eq!(count("InvalidUser") + count("ServerBusy"), 60, "{told}");
}
