//! What the directory and the configuration together make of databases.

use super::*;
use crate::config::settings::{Authenticates, ServerTls};
use crate::mapi::{Capable, Flavour};
use proptest::prelude::*;
use std::time::Duration;

fn server(name: &str, host: &str, tls_name: Option<&str>) -> (ServerName, Arc<Server>) {
    let tls = tls_name.map(|name| ServerTls {
        ca: None,
        name: name.to_owned(),
        client_certificate: None,
    });
    let server = Server {
        name: ServerName::new(name),
        host: host.to_owned(),
        port: 443,
        tls,
        url_name: None,
        flavour: Flavour::Exchange,
        version: None,
        capable: Capable::of(Flavour::Exchange, None, None),
        authenticates: Authenticates::Requests,
        health_weight: 1,
        idle_connections_max: 1,
        idle_timeout: Duration::from_secs(1),
        requests_max: 1,
        normalize: true,
    };
    (server.name.clone(), Arc::new(server))
}

/// MBX1 and MBX2 by their names, MBX3 by its host, MBX4 by the name of its certificate.
fn servers() -> BTreeMap<ServerName, Arc<Server>> {
    BTreeMap::from([
        server("MBX1", "192.0.2.1", None),
        server("MBX2", "192.0.2.2", None),
        server("third", "mbx3.contoso.test", None),
        server("fourth", "192.0.2.4", Some("MBX4.contoso.test")),
    ])
}

fn holder(name: &str) -> Holder {
    Holder {
        name: name.to_owned(),
        host: Some(format!("{}.Contoso.test", name.to_lowercase())),
    }
}

fn copies(rows: &[(&str, &[&str])]) -> Copies {
    let row = |(name, holders): &(&str, &[&str])| {
        let holders = holders.iter().map(|name| holder(name)).collect();
        (DatabaseName::new(*name), Held::By(holders))
    };
    Copies(rows.iter().map(row).collect())
}

fn listed(rows: &[(&str, &[&str], &str)]) -> BTreeMap<DatabaseName, Database> {
    let row = |(name, copies, active): &(&str, &[&str], &str)| {
        let database = Database {
            copies: copies.iter().copied().map(ServerName::new).collect(),
            active: ServerName::new(*active),
        };
        (DatabaseName::new(*name), database)
    };
    rows.iter().map(row).collect()
}

fn active(rows: &[(&str, &str)]) -> BTreeMap<DatabaseName, ServerName> {
    let row = |(name, server): &(&str, &str)| (DatabaseName::new(*name), ServerName::new(*server));
    rows.iter().map(row).collect()
}

fn merged(told: &[(&str, &[&str])], chosen: &[(&str, &str)]) -> Homes {
    Homes::merged(
        &listed(&[]),
        active(chosen),
        &servers(),
        Some(&copies(told)),
    )
}

/// `DB: copies; active` of every database.
fn words(homes: &Homes) -> Vec<String> {
    let word = |(name, home): (&DatabaseName, &Database)| {
        let copies: Vec<&str> = home.copies.iter().map(ServerName::as_str).collect();
        format!("{name}: {}; {}", copies.join(" "), home.active)
    };
    homes.databases.iter().map(word).collect()
}

fn told(homes: &Homes) -> Vec<String> {
    homes.differences.iter().map(ToString::to_string).collect()
}

#[test]
fn the_first_copy_is_active_where_nobody_says_another() {
    let homes = merged(&[("DB1", &["MBX2", "MBX1"]), ("DB2", &["MBX1"])], &[]);

    assert_eq!(words(&homes), ["DB1: MBX2 MBX1; MBX2", "DB2: MBX1; MBX1"]);
    assert_eq!(homes.source(&DatabaseName::new("DB1")), Source::Directory);
    assert_eq!(told(&homes), [""; 0]);
}

#[test]
fn the_configuration_says_which_copy_is_active() {
    let homes = merged(&[("DB1", &["MBX1", "MBX2"])], &[("db1", "MBX2")]);

    assert_eq!(words(&homes), ["DB1: MBX1 MBX2; MBX2"]);
    assert_eq!(homes.source(&DatabaseName::new("DB1")), Source::Both);
    assert_eq!(told(&homes), [""; 0]);
}

#[test]
fn a_database_that_the_configuration_lists_is_as_it_says_and_as_the_directory_spells() {
    let told_of = copies(&[("DB1", &["MBX1", "EX9"])]);
    let homes = Homes::merged(
        &listed(&[
            ("db1", &["MBX2"], "MBX2"),
            ("Own", &["MBX1", "MBX2"], "MBX2"),
        ]),
        active(&[]),
        &servers(),
        Some(&told_of),
    );

    assert_eq!(words(&homes), ["DB1: MBX2; MBX2", "Own: MBX1 MBX2; MBX2"]);
    assert_eq!(
        homes.source(&DatabaseName::new("DB1")),
        Source::Configuration
    );
    assert_eq!(told(&homes), [""; 0]);
}

#[test]
fn servers_are_known_by_name_by_host_and_by_the_name_of_their_certificate() {
    let homes = merged(&[("DB1", &["mbx4", "mbx1", "MBX3"])], &[]);

    assert_eq!(words(&homes), ["DB1: fourth MBX1 third; fourth"]);
}

#[test]
fn a_host_that_several_servers_have_names_none_of_them() {
    let two = BTreeMap::from([
        server("one", "mbx3.contoso.test", None),
        server("other", "192.0.2.3", Some("mbx3.contoso.test")),
    ]);

    assert!(server_of(&holder("MBX3"), &two).is_none());
    assert!(server_of(&holder("ONE"), &two).is_some());
}

#[test]
fn a_server_is_a_copy_once_however_often_it_is_told() {
    let homes = merged(&[("DB1", &["MBX1", "mbx1", "MBX2", "MBX1"])], &[]);

    assert_eq!(words(&homes), ["DB1: MBX1 MBX2; MBX1"]);
}

#[test]
fn copies_on_strangers_are_left_out_and_told() {
    let homes = merged(&[("DB1", &["EX9", "MBX2"])], &[]);

    assert_eq!(words(&homes), ["DB1: MBX2; MBX2"]);
    assert_eq!(
        told(&homes),
        ["a copy of DB1 is on EX9, which is not in `servers`"]
    );
}

#[test]
fn a_database_without_a_server_of_ours_has_no_home_and_a_reason() {
    let homes = merged(&[("DB1", &["EX9"]), ("DB2", &[])], &[]);

    assert_eq!(words(&homes), [""; 0]);
    for name in ["DB1", "DB2"] {
        assert_eq!(homes.why_homeless(&DatabaseName::new(name)), ELSEWHERE);
    }
    assert_eq!(homes.why_homeless(&DatabaseName::new("DB3")), UNTOLD);
    assert_eq!(
        told(&homes),
        [
            "a copy of DB1 is on EX9, which is not in `servers`",
            "no copy of DB1 is on a server of `servers`: its mailboxes cannot be reached",
            "no copy of DB2 is on a server of `servers`: its mailboxes cannot be reached",
        ]
    );
}

#[test]
fn databases_of_one_name_have_no_home_unless_the_configuration_lists_it() {
    let name = DatabaseName::new("DB1");
    let both = Copies(BTreeMap::from([(name.clone(), Held::Ambiguously)]));
    let of = |rows: &[(&str, &[&str], &str)]| {
        let chosen = active(&[("DB1", "MBX1")]);
        Homes::merged(&listed(rows), chosen, &servers(), Some(&both))
    };

    let homes = of(&[]);
    assert_eq!(words(&homes), [""; 0]);
    assert_eq!(homes.why_homeless(&name), AMBIGUOUS);

    let homes = of(&[("DB1", &["MBX2"], "MBX2")]);
    assert_eq!(words(&homes), ["DB1: MBX2; MBX2"]);
}

#[test]
fn an_active_copy_that_the_directory_does_not_know_is_believed_and_told() {
    let homes = merged(
        &[("DB1", &["MBX1"]), ("DB2", &["EX9"])],
        &[("DB1", "MBX2"), ("DB2", "MBX2"), ("DB3", "MBX1")],
    );

    assert_eq!(
        words(&homes),
        ["DB1: MBX1 MBX2; MBX2", "DB2: MBX2; MBX2", "DB3: MBX1; MBX1"]
    );
    assert_eq!(
        told(&homes),
        [
            "a copy of DB2 is on EX9, which is not in `servers`",
            "DB1 is active on MBX2 according to the configuration, and the directory knows no copy there",
            "DB2 is active on MBX2 according to the configuration, and the directory knows no copy there",
            "the configuration says where DB3 is active, and the directory does not know it",
        ]
    );
}

#[test]
fn before_the_directory_has_told_what_the_configuration_says_counts() {
    let homes = Homes::merged(
        &listed(&[("Own", &["MBX1"], "MBX1")]),
        active(&[("DB1", "MBX2")]),
        &servers(),
        None,
    );

    assert!(homes.is_awaited());
    assert_eq!(words(&homes), ["DB1: MBX2; MBX2", "Own: MBX1; MBX1"]);
    assert_eq!(homes.why_homeless(&DatabaseName::new("DB2")), AWAITED);
    assert_eq!(told(&homes), [""; 0]);
}

prop_compose! {
    fn any_copies()(rows in prop::collection::btree_map(0..6u8, prop::option::of(prop::collection::vec(0..6u8, 0..5)), 0..6)) -> Copies {
        let held = |holders: Option<Vec<u8>>| match holders {
            Some(holders) => Held::By(holders.iter().map(|n| holder(&format!("MBX{n}"))).collect()),
            None => Held::Ambiguously,
        };
        Copies(rows.into_iter().map(|(n, holders)| (DatabaseName::new(format!("DB{n}")), held(holders))).collect())
    }
}

prop_compose! {
    fn any_active()(rows in prop::collection::btree_map(0..8u8, 1..3u8, 0..5)) -> BTreeMap<DatabaseName, ServerName> {
        let row = |(n, server)| (DatabaseName::new(format!("db{n}")), ServerName::new(format!("MBX{server}")));
        rows.into_iter().map(row).collect()
    }
}

prop_compose! {
    fn any_listed()(rows in prop::collection::btree_map(0..8u8, 1..3u8, 0..3)) -> BTreeMap<DatabaseName, Database> {
        let row = |(n, server)| {
            let server = ServerName::new(format!("MBX{server}"));
            (DatabaseName::new(format!("DB{n}")), Database { copies: vec![server.clone()], active: server })
        };
        rows.into_iter().map(row).collect()
    }
}

proptest! {
    #[test]
    fn every_home_is_on_servers_of_ours_and_what_has_none_says_why(
        listed in any_listed(), active in any_active(), copies in prop::option::of(any_copies())
    ) {
        let servers = servers();
        let homes = Homes::merged(&listed, active.clone(), &servers, copies.as_ref());

        for home in homes.databases.values() {
            prop_assert!(home.copies.contains(&home.active));
            prop_assert!(home.copies.iter().all(|copy| servers.contains_key(copy)));
            let once: BTreeSet<_> = home.copies.iter().collect();
            prop_assert_eq!(once.len(), home.copies.len());
        }
        for (name, home) in &listed {
            prop_assert_eq!(homes.databases.get(name), Some(home));
            prop_assert_eq!(homes.source(name), Source::Configuration);
        }
        for name in copies.iter().flat_map(|copies| copies.0.keys()) {
            let is_home = homes.databases.contains_key(name);
            prop_assert!(is_home || homes.why_homeless(name) != UNTOLD);
        }
        for (name, server) in active.iter().filter(|(name, _)| like(&listed, name).is_none()) {
            let is_one = |held: &Held| matches!(held, Held::By(_));
            let told = copies.as_ref().and_then(|copies| copies.0.get(&spelled(name)));
            if told.is_none_or(is_one) {
                let home = homes.databases.get(&spelled(name)).or(homes.databases.get(name));
                prop_assert_eq!(home.map(|home| &home.active), Some(server));
            }
        }
    }
}

/// As the directory spells it.
fn spelled(name: &DatabaseName) -> DatabaseName {
    DatabaseName::new(name.as_str().to_uppercase())
}
