use super::*;
use crate::mapi::{Build, Flavour};
use proptest::prelude::*;
use std::fmt::Write as _;

/// A row of the published matrix: a client, and the headers it sends.
struct Outlook {
    name: &'static str,
    capability: Option<&'static [u8]>,
    can_handle: Option<&'static [u8]>,
}

const fn outlook(
    name: &'static str,
    capability: Option<&'static [u8]>,
    can_handle: Option<&'static [u8]>,
) -> Outlook {
    Outlook {
        name,
        capability,
        can_handle,
    }
}

const EXHTTP: Option<&[u8]> = Some(b"Negotiate, ExHttpInfo");

const CLIENTS: [Outlook; 6] = [
    outlook("Outlook 2016 and later", Some(b"2"), EXHTTP),
    outlook("Outlook 2013 SP1", Some(b"1"), EXHTTP),
    outlook("Outlook 2013 RTM", None, EXHTTP),
    outlook(
        "Outlook 2010 SP2 and updates KB2956191 and KB2965295",
        Some(b"1"),
        None,
    ),
    outlook("Outlook 2010 SP2 and earlier", None, None),
    outlook("Outlook 2007", None, None),
];

/// A column: a server by its build, or gromox.
const SERVERS: [(&str, Option<&str>); 8] = [
    ("Exchange SE", Some("15.2.2562.17")),
    ("Exchange 2019", Some("15.2.1544.4")),
    ("Exchange 2016", Some("15.1.225.42")),
    ("Exchange 2013 SP1", Some("15.0.847.32")),
    ("Exchange 2013 RTM", Some("15.0.516.32")),
    ("Exchange 2010 SP3", Some("14.3.123.4")),
    ("Exchange 2007 SP3", Some("8.3.83.6")),
    ("gromox", None),
];

const ON: Rules = Rules {
    organisation: true,
    mailbox: None,
    blocks_external: false,
    outlook_anywhere: true,
};

fn capable(build: Option<&str>) -> Capable {
    let build = build.map(|build| Build::read(build).unwrap());
    Capable::of(Flavour::Exchange, build, None)
}

fn cell(client: &Outlook, build: Option<&str>) -> &'static str {
    let server = match build {
        Some(_) => capable(build),
        None => Capable::of(Flavour::Gromox, None, None),
    };
    let client = Client::read(client.capability, client.can_handle);
    words(offer(client, ON, server, From::Anywhere))
}

fn words(offer: Offer) -> &'static str {
    match (offer.mapi_http, offer.rpc, offer.outlook_anywhere) {
        (Some(_), _, _) => "MAPI over HTTP",
        (None, true, true) => "RPC / Outlook Anywhere",
        (None, true, false) => "RPC",
        (None, false, true) => "Outlook Anywhere",
        (None, false, false) => "nothing",
    }
}

#[test]
fn every_cell_of_the_published_matrix_holds() {
    const MAPI: &str = "MAPI over HTTP";
    const OA: &str = "Outlook Anywhere";
    const BOTH: &str = "RPC / Outlook Anywhere";
    // In the order of SERVERS.
    let capable = [MAPI, MAPI, MAPI, MAPI, OA, BOTH, BOTH, MAPI];
    let incapable = [OA, OA, OA, OA, OA, BOTH, BOTH, OA];
    let expected = [capable, capable, incapable, capable, incapable, incapable];

    for (client, row) in CLIENTS.iter().zip(expected) {
        for ((server, build), expected) in SERVERS.iter().zip(row) {
            assert_eq!(cell(client, *build), expected, "{} x {server}", client.name);
        }
    }
}

#[test]
fn the_matrix_prints_as_it_was_published() {
    let mut table = String::from("| Product |");
    for (server, _) in SERVERS {
        write!(table, " {server} |").unwrap();
    }
    table.push('\n');
    table.push_str(&"|---".repeat(SERVERS.len() + 1));
    table.push_str("|\n");
    for client in &CLIENTS {
        write!(table, "| {} |", client.name).unwrap();
        for (_, build) in SERVERS {
            write!(table, " {} |", cell(client, build)).unwrap();
        }
        table.push('\n');
    }

    show(&table);

    assert_eq!(table.matches("MAPI over HTTP").count(), 3 * 5);
    assert_eq!(table.matches("| Outlook Anywhere").count(), 3 + 3 * 6);
    assert_eq!(table.matches("RPC / Outlook Anywhere").count(), 6 * 2);
}

fn show(table: &str) {
    println!("\n{table}");
}

#[test]
fn switches_of_organisation_and_mailbox_and_the_block_give_the_published_results() {
    let capable = capable(Some("15.1.2507.6"));
    let client = Client::read(Some(b"1"), EXHTTP);
    let result = |organisation, mailbox, blocks_external| {
        let rules = Rules {
            organisation,
            mailbox,
            blocks_external,
            ..ON
        };
        let offer = offer(client, rules, capable, From::Anywhere);
        (words(offer), offer.reach)
    };
    const MAPI: &str = "MAPI over HTTP";
    const OA: &str = "Outlook Anywhere";
    for (organisation, mailbox, is_mapi) in [
        (true, None, true),
        (true, Some(true), true),
        (true, Some(false), false),
        (false, None, false),
        (false, Some(false), false),
        (false, Some(true), true),
    ] {
        let protocol = if is_mapi { MAPI } else { OA };
        assert_eq!(
            result(organisation, mailbox, false),
            (protocol, Reach::Everywhere)
        );
        assert_eq!(
            result(organisation, mailbox, true),
            (protocol, Reach::Internal)
        );
    }
}

#[test]
fn a_failover_to_another_kind_of_server_changes_the_next_answer() {
    let client = Client::read(Some(b"1"), EXHTTP);
    let seen = |build| words(offer(client, ON, capable(Some(build)), From::Anywhere));

    assert_eq!(seen("15.0.847.32"), "MAPI over HTTP");
    assert_eq!(seen("15.0.775.38"), "Outlook Anywhere");
    assert_eq!(seen("15.0.847.32"), "MAPI over HTTP");
}

#[test]
fn a_client_outside_gets_nothing_where_the_outside_is_blocked() {
    let blocks_external = true;
    let client = Client::read(Some(b"1"), None);
    let rules = Rules {
        blocks_external,
        ..ON
    };
    let server = capable(Some("15.2.1544.4"));

    assert_eq!(
        words(offer(client, rules, server, From::Outside)),
        "nothing"
    );
    assert_eq!(
        words(offer(client, rules, server, From::Inside)),
        "MAPI over HTTP"
    );
    assert_eq!(
        words(offer(client, ON, server, From::Outside)),
        "MAPI over HTTP"
    );
    // RPC over TCP never was for the outside.
    let old = capable(Some("14.3.123.4"));
    assert_eq!(
        words(offer(client, ON, old, From::Outside)),
        "Outlook Anywhere"
    );
}

#[test]
fn what_the_administrator_writes_about_a_server_goes_before_its_build() {
    let written = |words: &[&str], build: &str| {
        let speaks = |word: &str| words.contains(&word);
        Capable::of(Flavour::Exchange, Build::read(build), Some(&speaks))
    };
    let none = written(&[], "15.2.1544.4");
    assert!(!none.mapi_http && !none.outlook_anywhere && !none.rpc);
    let one = written(&["outlook_anywhere"], "15.2.1544.4");
    assert!(!one.mapi_http && one.outlook_anywhere);
}

proptest! {
    #[test]
    fn mapi_over_http_is_offered_exactly_where_everybody_wants_and_can(
        number in proptest::option::of(0u32..4), organisation: bool, mailbox in proptest::option::of(any::<bool>()),
        blocks_external: bool, mapi_http: bool, outlook_anywhere: bool, rpc: bool, exhttp: bool, place in 0..3,
    ) {
        let client = Client { mapi_http: number, reads_exhttp: exhttp };
        let rules = Rules { organisation, mailbox, blocks_external, outlook_anywhere: true };
        let server = Capable { mapi_http, outlook_anywhere, rpc };
        let from = [From::Anywhere, From::Inside, From::Outside][usize::try_from(place).unwrap()];

        let made = offer(client, rules, server, from);

        let shut_out = blocks_external && from == From::Outside;
        let expected = number.unwrap_or(0) >= 1 && mailbox.unwrap_or(organisation) && mapi_http && !shut_out;
        prop_assert_eq!(made.mapi_http.is_some(), expected);
        prop_assert!(made.mapi_http.is_none_or(|version| version >= 1 && Some(version) <= number));
        prop_assert_eq!(made.outlook_anywhere, outlook_anywhere && !shut_out);
        prop_assert!(!blocks_external || made.reach == Reach::Internal);
    }
}
