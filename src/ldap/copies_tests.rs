//! What entries of the directory mean for databases, and what lies mean.

use super::super::double::{self, Double, Says};
use super::super::person::tests::{entry, settings};
use super::*;
use proptest::prelude::*;

const DATABASES: &str = "CN=Databases,CN=Group,CN=Configuration,DC=contoso,DC=test";
const SERVERS: &str = "CN=Servers,CN=Group,CN=Configuration,DC=contoso,DC=test";

fn of(dn: &str, attributes: &[(&str, &str)]) -> SearchEntry {
    SearchEntry {
        dn: dn.to_owned(),
        ..entry(attributes)
    }
}

/// A copy on a server, at this place in the order.
fn copy(database: &str, server: &str, preference: &str) -> SearchEntry {
    let link = format!("CN={server},{SERVERS}");
    of(
        &format!("CN={server},CN={database},{DATABASES}"),
        &[
            ("msExchHostServerLink", &link),
            ("msExchActivationPreference", preference),
        ],
    )
}

fn server(name: &str, addresses: &[&str]) -> SearchEntry {
    let addresses: Vec<_> = addresses.iter().map(|a| ("networkAddress", *a)).collect();
    of(&format!("cn={name},{SERVERS}"), &addresses)
}

fn told(copies: &[SearchEntry], servers: &[SearchEntry]) -> Copies {
    read(copies, servers, &settings().copies)
}

/// The names of a database's holders, in order.
fn holders(copies: &Copies, database: &str) -> Vec<String> {
    match copies.0.get(database) {
        Some(Held::By(holders)) => holders.iter().map(|holder| holder.name.clone()).collect(),
        other => panic!("{database}: {other:?}"),
    }
}

#[test]
fn copies_are_in_the_order_of_their_activation() {
    let copies = told(
        &[
            copy("DB1", "MBX3", "3"),
            copy("DB1", "MBX1", "2"),
            copy("DB1", "MBX2", "1"),
            copy("DB2", "MBX9", "10"),
            copy("DB2", "MBX10", "9"),
        ],
        &[],
    );

    assert_eq!(holders(&copies, "DB1"), ["MBX2", "MBX1", "MBX3"]);
    assert_eq!(holders(&copies, "DB2"), ["MBX10", "MBX9"]);
}

#[test]
fn what_is_no_place_in_the_order_comes_last() {
    for odd in [
        "",
        "0",
        "-1",
        "first",
        "99999999999999999999",
        "1.5",
        "\u{663}",
    ] {
        let copies = told(&[copy("DB1", "MBX1", odd), copy("DB1", "MBX2", "7")], &[]);

        assert_eq!(holders(&copies, "DB1"), ["MBX2", "MBX1"], "{odd:?}");
    }
}

#[test]
fn the_host_of_a_server_is_that_of_its_tcp_address() {
    let servers = [
        server("MBX1", &["netbios:MBX1", "NCACN_IP_TCP:mbx1.contoso.test"]),
        server("MBX2", &["mbx2.contoso.test"]),
        server("MBX3", &["netbios:MBX3"]),
    ];
    let names = ["MBX1", "MBX2", "MBX3", "MBX4"];
    let rows = names.map(|name| copy("DB1", name, "1"));

    let copies = told(&rows, &servers);

    let Some(Held::By(holders)) = copies.0.get("DB1") else {
        panic!("{copies:?}");
    };
    let hosts: Vec<_> = holders
        .iter()
        .map(|holder| holder.host.as_deref())
        .collect();
    assert_eq!(
        hosts,
        [
            Some("mbx1.contoso.test"),
            Some("mbx2.contoso.test"),
            None,
            None
        ]
    );
}

#[test]
fn names_with_characters_that_a_dn_escapes_are_read_as_they_are() {
    let copies = told(
        &[
            copy(r"Sales\, \+1 \22A\22", r"MBX\,1", "2"),
            copy(r"Sales\, \+1 \22A\22", "MBX2", "1"),
        ],
        &[],
    );

    assert_eq!(holders(&copies, r#"Sales, +1 "A""#), ["MBX2", "MBX,1"]);
}

#[test]
fn databases_of_one_name_in_two_groups_are_told_apart_from_one_with_two_copies() {
    let other = of(
        "CN=MBX2,CN=db1,CN=Databases,CN=Other Group,DC=contoso,DC=test",
        &[("msExchHostServerLink", "CN=MBX2,CN=Servers")],
    );
    let rows = [copy("DB1", "MBX1", "1"), other, copy("DB2", "MBX1", "1")];

    let copies = told(&rows, &[]);

    assert_eq!(copies.len(), 2);
    let ambiguous: Vec<_> = copies
        .0
        .iter()
        .filter(|(_, held)| **held == Held::Ambiguously)
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(ambiguous, ["DB1"]);
}

#[test]
fn a_copy_on_a_server_that_was_removed_is_no_copy() {
    let gone = of(
        &format!("CN=MBX1,CN=DB1,{DATABASES}"),
        &[(
            "msExchHostServerLink",
            "CN=MBX1\\0ADEL:5c2b6d2e-0b5f-4f7e-9f0a-3f1d5a0c9b11,CN=Deleted Objects,DC=test",
        )],
    );
    let linkless = of(&format!("CN=MBX3,CN=DB2,{DATABASES}"), &[]);

    let copies = told(&[gone, copy("DB1", "MBX2", "2"), linkless], &[]);

    assert_eq!(holders(&copies, "DB1"), ["MBX2"]);
    assert!(holders(&copies, "DB2").is_empty());
}

#[test]
fn an_entry_whose_database_was_removed_or_has_no_name_is_passed_over() {
    let rows = ["CN=MBX1", "", "CN=MBX1,CN=DB1\\0ADEL:1,CN=x", "CN=MBX1,"]
        .map(|dn| of(dn, &[("msExchHostServerLink", "CN=MBX1,CN=Servers")]));

    assert!(told(&rows, &[]).is_empty());
}

fn three() -> Says {
    Says {
        copies: vec![
            double::copy("DB1", "MBX2", 2),
            double::copy("DB1", "MBX1", 1),
            double::copy("DB2", "MBX2", 1),
        ],
        servers: vec![double::server("MBX1", "mbx1.contoso.test")],
        ..Says::default()
    }
}

async fn asked(says: Says) -> Result<Copies, Trouble> {
    let directory = Double::start(says).await;
    let book = Book::new(&directory.settings(), "{upn}", None).unwrap();
    book.copies().await
}

#[tokio::test]
async fn a_directory_is_asked_for_copies_and_for_the_hosts_of_their_servers() {
    let copies = asked(three()).await.unwrap();

    assert_eq!(holders(&copies, "DB1"), ["MBX1", "MBX2"]);
    assert_eq!(holders(&copies, "DB2"), ["MBX2"]);
    let Some(Held::By(holders)) = copies.0.get("DB1") else {
        panic!("{copies:?}");
    };
    assert_eq!(holders[0].host.as_deref(), Some("mbx1.contoso.test"));
}

#[tokio::test]
async fn a_part_of_the_copies_is_no_answer() {
    // More than it gives at once, elsewhere, no such place, no right to read.
    for code in [4, 10, 32, 50] {
        let says = Says { code, ..three() };

        assert_eq!(asked(says).await, Err(Trouble::Answer), "{code}");
    }
}

#[tokio::test]
async fn a_directory_that_never_answers_is_given_up() {
    let silent = Says {
        is_silent: true,
        ..three()
    };

    let told = asked(silent).await;

    // Its only server rests after that.
    assert!(
        matches!(told, Err(Trouble::Late | Trouble::Unreachable)),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_directory_without_copies_tells_none() {
    assert_eq!(asked(Says::default()).await, Ok(Copies::default()));
}

proptest! {
    #[test]
    fn any_entries_make_some_copies(
        rows in prop::collection::vec(("\\PC{0,30}", "\\PC{0,20}", "\\PC{0,6}"), 0..8)
    ) {
        let entries: Vec<_> = rows.iter().map(|(dn, link, number)| {
            of(dn, &[("msExchHostServerLink", link), ("msExchActivationPreference", number)])
        }).collect();
        let servers: Vec<_> = rows.iter().map(|(dn, _, address)| of(dn, &[("networkAddress", address)])).collect();

        let copies = told(&entries, &servers);

        prop_assert!(copies.len() <= rows.len());
        for name in copies.0.keys() {
            prop_assert!(!name.as_str().contains(char::is_control));
        }
    }

    #[test]
    fn the_order_of_the_answer_does_not_matter(
        rows in prop::collection::vec((0..3u8, 0..4u8, 0..4u8), 0..8)
    ) {
        let mut entries: Vec<_> = rows.iter().map(|(database, server, number)| {
            copy(&format!("DB{database}"), &format!("MBX{server}"), &number.to_string())
        }).collect();
        let forwards = told(&entries, &[]);
        entries.reverse();

        prop_assert_eq!(told(&entries, &[]), forwards);
    }
}
