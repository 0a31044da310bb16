//! What a reading of the directory does to a running process, and what a reload leaves of it.
#![expect(clippy::disallowed_methods, reason = "tests begin somewhere in time")]

use super::super::world::{runtime, settings};
use super::*;
use crate::ids::{DatabaseName, Epoch, ServerName};
use crate::placement::{Held, Holder};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// `DB1` is listed; the copies of all others come from the directory. `MBX1` and `MBX2` are ours.
fn from_directory(active: &[(&str, &str)]) -> Settings {
    let row = |(name, server): &(&str, &str)| (DatabaseName::new(*name), ServerName::new(*server));
    Settings {
        copies_from: CopiesFrom::Directory {
            active: active.iter().map(row).collect(),
        },
        ..settings()
    }
}

fn copies(rows: &[(&str, &[&str])]) -> Copies {
    let holder = |name: &&str| Holder {
        name: (*name).to_owned(),
        host: None,
    };
    let row = |(name, holders): &(&str, &[&str])| {
        let holders = holders.iter().map(holder).collect();
        (DatabaseName::new(*name), Held::By(holders))
    };
    Copies(rows.iter().map(row).collect())
}

fn told(runtime: &Runtime, rows: &[(&str, &[&str])]) {
    take(runtime, Ok(copies(rows)), SystemTime::now());
}

fn active(runtime: &Runtime, database: &str) -> Option<String> {
    let world = runtime.snapshot();
    let active = world.placement.active(&DatabaseName::new(database));
    active.map(ToString::to_string)
}

fn reload(runtime: &Runtime, settings: Settings) {
    let next = Snapshot::build(settings, Some(&runtime.snapshot())).unwrap();
    runtime.publish(|world| next.in_place_of(world));
}

#[tokio::test]
async fn what_the_directory_tells_is_where_requests_go() {
    let (runtime, _seen) = runtime(from_directory(&[("DB3", "MBX2")]));
    assert_eq!(active(&runtime, "DB2"), None);
    assert_eq!(active(&runtime, "DB3").unwrap(), "MBX2");

    told(
        &runtime,
        &[("DB2", &["MBX2", "MBX1"]), ("DB3", &["MBX1", "MBX2"])],
    );

    assert_eq!(active(&runtime, "DB1").unwrap(), "MBX1");
    assert_eq!(active(&runtime, "DB2").unwrap(), "MBX2");
    assert_eq!(active(&runtime, "DB3").unwrap(), "MBX2");
}

#[tokio::test]
async fn a_database_that_moves_wakes_polls_and_raises_the_epoch_and_the_same_word_does_neither() {
    let (runtime, _seen) = runtime(from_directory(&[]));
    told(&runtime, &[("DB2", &["MBX1", "MBX2"])]);
    let epoch = runtime.snapshot().placement.epoch();
    let mut asks = runtime.asks();
    asks.mark_unchanged();

    told(&runtime, &[("DB2", &["MBX1", "MBX2"])]);
    assert_eq!(runtime.snapshot().placement.epoch(), epoch);
    assert!(!asks.has_changed().unwrap());

    told(&runtime, &[("DB2", &["MBX2", "MBX1"])]);
    assert_eq!(runtime.snapshot().placement.epoch(), Epoch(epoch.0 + 1));
    assert!(asks.has_changed().unwrap());
}

#[tokio::test]
async fn a_copy_that_comes_or_goes_beside_the_active_one_wakes_nobody() {
    let (runtime, _seen) = runtime(from_directory(&[]));
    told(&runtime, &[("DB2", &["MBX1"])]);
    let asks = runtime.asks();

    told(&runtime, &[("DB2", &["MBX1", "MBX2"])]);

    assert!(!asks.has_changed().unwrap());
    assert_eq!(runtime.snapshot().placement.epoch(), Epoch(3));
}

#[tokio::test]
async fn a_renamed_database_is_where_the_new_name_is_looked_for() {
    let (runtime, _seen) = runtime(from_directory(&[]));
    told(&runtime, &[("DB2", &["MBX2"])]);
    let asks = runtime.asks();

    told(&runtime, &[("Accounting", &["MBX2"])]);

    assert_eq!(active(&runtime, "DB2"), None);
    assert_eq!(active(&runtime, "Accounting").unwrap(), "MBX2");
    assert!(asks.has_changed().unwrap());
}

#[tokio::test]
async fn while_the_directory_is_silent_or_lies_what_is_known_stays() {
    let (runtime, _seen) = runtime(from_directory(&[]));
    let rows: &[(&str, &[&str])] = &[("DB2", &["MBX2"]), ("DB3", &["MBX1"]), ("DB4", &["MBX1"])];
    told(&runtime, rows);
    let before = runtime.snapshot();

    for answer in [
        Err(Trouble::Late.words().to_owned()),
        Ok(copies(&[])),
        Ok(copies(&[("DB2", &["MBX1"])])),
    ] {
        take(&runtime, answer, SystemTime::now());

        let now = runtime.snapshot();
        assert_eq!(now.placement, before.placement);
        assert_eq!(now.copies.read_at, before.copies.read_at);
        assert!(now.copies.trouble.is_some());
    }
    told(&runtime, rows);
    assert_eq!(runtime.snapshot().copies.trouble, None);
}

#[tokio::test]
async fn nothing_is_ready_before_the_directory_has_told() {
    let (runtime, _seen) = runtime(from_directory(&[]));
    runtime.set_listening(true);

    take(&runtime, Err("no answer".to_owned()), SystemTime::now());
    assert!(runtime.is_open() && !runtime.is_ready());
    // What is listed works at once.
    assert_eq!(active(&runtime, "DB1").unwrap(), "MBX1");

    told(&runtime, &[("DB2", &["MBX1"])]);
    assert!(runtime.is_ready());
}

#[tokio::test]
async fn a_reload_keeps_what_was_told_and_moves_what_it_says() {
    let (runtime, _seen) = runtime(from_directory(&[]));
    told(&runtime, &[("DB2", &["MBX1", "MBX2"])]);

    reload(&runtime, from_directory(&[("DB2", "MBX2")]));
    assert_eq!(active(&runtime, "DB2").unwrap(), "MBX2");
    assert!(runtime.snapshot().copies.read_at.is_some());

    reload(&runtime, settings());
    assert_eq!(active(&runtime, "DB2"), None);
    assert_eq!(runtime.snapshot().copies.copies, None);
    told(&runtime, &[("DB2", &["MBX1", "MBX2"])]);
    assert_eq!(active(&runtime, "DB2"), None, "nobody asks the directory");
}

#[tokio::test]
async fn what_is_told_while_a_reload_is_built_is_not_lost() {
    let (runtime, _seen) = runtime(from_directory(&[]));
    told(&runtime, &[("DB2", &["MBX1"])]);
    let next = from_directory(&[("DB3", "MBX2")]);
    let next = Snapshot::build(next, Some(&runtime.snapshot())).unwrap();

    told(&runtime, &[("DB2", &["MBX2"])]);
    told(&runtime, &[("DB2", &["MBX2"]), ("DB3", &["MBX1"])]);
    let epoch = runtime.snapshot().placement.epoch();
    runtime.publish(|world| next.in_place_of(world));

    assert_eq!(active(&runtime, "DB2").unwrap(), "MBX2");
    assert_eq!(active(&runtime, "DB3").unwrap(), "MBX2");
    assert_eq!(runtime.snapshot().placement.epoch(), Epoch(epoch.0 + 1));
}

#[tokio::test]
async fn the_figures_of_what_is_left_out_are_told() {
    let (runtime, _seen) = runtime(from_directory(&[]));
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);

    let rows = copies(&[("DB2", &["EX8", "MBX1"]), ("DB3", &["EX8", "EX9"])]);
    take(&runtime, Ok(rows), at);

    let text = runtime.metrics.render();
    for sample in [
        "mapigate_copies_read_timestamp_seconds 1800000000",
        "mapigate_copies_left_out 3",
        "mapigate_databases_left_out 1",
    ] {
        assert!(text.contains(sample), "{sample}");
    }
}

#[test]
fn attempts_come_soon_and_then_less_often() {
    let pauses: Vec<u128> = (1..8).map(|n| soon(n).as_millis()).collect();

    assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 4000, 4000]);
}

/// What may happen to the map, in any order.
#[derive(Clone, Debug)]
enum Event {
    Told(Vec<(u8, Vec<u8>)>),
    Silent,
    Reloaded(Vec<(u8, u8)>),
}

fn any_event() -> impl Strategy<Value = Event> {
    let rows = prop::collection::vec((2..5u8, prop::collection::vec(1..4u8, 0..4)), 1..4);
    prop_oneof![
        rows.prop_map(Event::Told),
        Just(Event::Silent),
        prop::collection::vec((2..5u8, 1..3u8), 0..3).prop_map(Event::Reloaded),
    ]
}

fn told_of(rows: &[(u8, Vec<u8>)]) -> Copies {
    let holder = |n: &u8| Holder {
        name: format!("MBX{n}"),
        host: None,
    };
    let row = |(n, holders): &(u8, Vec<u8>)| {
        let holders = holders.iter().map(holder).collect();
        (DatabaseName::new(format!("DB{n}")), Held::By(holders))
    };
    Copies(rows.iter().map(row).collect::<BTreeMap<_, _>>())
}

fn actives(rows: &[(u8, u8)]) -> BTreeMap<DatabaseName, ServerName> {
    let row = |(n, server): &(u8, u8)| {
        let (name, server) = (format!("DB{n}"), format!("MBX{server}"));
        (DatabaseName::new(name), ServerName::new(server))
    };
    rows.iter().map(row).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The map is that of the newest settings and the last good word, whatever came in which order, and its epoch
    /// rises with every difference and with nothing else.
    #[test]
    fn the_order_of_reloads_and_readings_does_not_matter(
        events in prop::collection::vec(any_event(), 1..8)
    ) {
        let reactor = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _entered = reactor.enter();
        let (runtime, _seen) = runtime(from_directory(&[]));
        let mut last = from_directory(&[]);
        let mut reading = crate::placement::Reading::default();
        for event in events {
            let before = runtime.snapshot();
            match event {
                Event::Told(rows) => {
                    let copies = told_of(&rows);
                    reading = reading.after(Ok(copies.clone()), SystemTime::UNIX_EPOCH);
                    take(&runtime, Ok(copies), SystemTime::UNIX_EPOCH);
                }
                Event::Silent => {
                    reading = reading.after(Err(String::new()), SystemTime::UNIX_EPOCH);
                    take(&runtime, Err(String::new()), SystemTime::UNIX_EPOCH);
                }
                Event::Reloaded(rows) => {
                    last.copies_from = CopiesFrom::Directory { active: actives(&rows) };
                    reload(&runtime, last.clone());
                }
            }
            let now = runtime.snapshot();
            let expected = crate::placement::Homes::of(&last, reading.copies.as_deref());
            prop_assert_eq!(now.placement.homes(), &expected);
            let differs = before.placement.iter().ne(now.placement.iter());
            prop_assert_eq!(now.placement.epoch().0, before.placement.epoch().0 + u64::from(differs));
        }
    }
}
