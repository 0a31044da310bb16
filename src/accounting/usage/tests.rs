#![expect(clippy::disallowed_methods, reason = "tests begin somewhere in time")]

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

fn usage(entries: usize) -> Usage {
    Usage::new(entries, SystemTime::now())
}

fn used(requests: u64, cpu_ns: u64, bytes: u64) -> Used {
    Used {
        requests,
        cpu_ns,
        bytes_in: bytes / 3,
        bytes_out: bytes - bytes / 3,
    }
}

fn client(name: &[u8]) -> Names<'_> {
    Names {
        user: "user1@contoso.test",
        client: name,
        ..Names::default()
    }
}

fn listed(usage: &Usage, dimension: Dimension, by: Weight) -> List {
    usage.hand_over();
    usage.list(dimension, by, usize::MAX)
}

/// What holds for a list against the true figures, whatever was charged.
fn judge(list: &List, by: Weight, exact: &HashMap<Vec<u8>, Used>, entries: usize) {
    let mut total = Used::default();
    exact.values().for_each(|used| total.add(used));
    assert_eq!(list.total, total);
    assert!(list.names <= 4 * entries, "{} names", list.names);
    assert!(
        u128::from(list.unlisted_max) * entries as u128 <= u128::from(total.of(by)),
        "floor {} of {}",
        list.unlisted_max,
        total.of(by)
    );
    let rows: HashMap<&[u8], &Row> = list
        .rows
        .iter()
        .map(|row| (row.name.as_bytes(), row))
        .collect();
    assert_eq!(rows.len(), list.rows.len(), "a name stands there twice");
    for (name, truth) in exact {
        let truth_weight = truth.of(by);
        match rows.get(name.as_slice()) {
            None => assert!(truth_weight <= list.unlisted_max),
            Some(row) => {
                assert!(row.used.of(by) <= truth_weight && truth_weight <= row.estimate);
                assert_eq!(row.estimate - row.overestimate_max, row.used.of(by));
                // The figures beside the order never say too much.
                for weight in Weight::ALL {
                    assert!(row.used.of(weight) <= truth.of(weight));
                }
            }
        }
        if u128::from(truth_weight) * entries as u128 > u128::from(total.of(by)) {
            let first = list.rows.iter().take(entries);
            assert!(
                first.into_iter().any(|row| row.name.as_bytes() == name),
                "a heavy hitter is missing"
            );
        }
    }
    let estimates = list.rows.iter().map(|row| row.estimate);
    assert!(estimates.is_sorted_by(|one, next| one >= next));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_figure_is_right_within_its_own_bound(
        charges in proptest::collection::vec(
            // Low numbers often, high ones seldom; weights of every order that do not go together.
            ((0_u16..40, 0_u16..40), 0_u32..20, 0_u32..20, any::<u8>()),
            1..600,
        ),
        entries in 1_usize..12,
    ) {
        let usage = usage(entries);
        let mut exact: HashMap<Vec<u8>, Used> = HashMap::new();

        for ((one, other), cpu, bytes, turn) in charges {
            let name = format!("client{}", one * other).into_bytes();
            let used = used(1, 1 << cpu, 1 << bytes);
            usage.charge(&client(&name), used);
            exact.entry(name).or_default().add(&used);
            if turn < 30 {
                usage.hand_over();
            }
        }

        for by in Weight::ALL {
            judge(&listed(&usage, Dimension::Client, by), by, &exact, entries);
        }
    }

    #[test]
    fn a_flood_of_invented_clients_hides_nobody_who_weighs_more_than_its_share(
        seed in any::<u64>(),
        invented in 0_u32..6000,
    ) {
        const ENTRIES: usize = 50;
        let usage = usage(ENTRIES);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut exact: HashMap<Vec<u8>, Used> = HashMap::new();
        let mut charge = |name: Vec<u8>, used: Used| {
            usage.charge(&client(&name), used);
            exact.entry(name).or_default().add(&used);
        };
        for _ in 0..invented {
            // No name comes twice, between requests of twenty true ones.
            let letters: [u8; 20] = std::array::from_fn(|_| random.alphanumeric() as u8);
            charge(letters.to_vec(), used(1, 2_000, 900));
            let number = random.u8(..20);
            charge(format!("Outlook/16.0.{number}").into_bytes(), used(1, 20_000, 9_000));
        }

        let list = listed(&usage, Dimension::Client, Weight::Cpu);

        judge(&list, Weight::Cpu, &exact, ENTRIES);
        // Twenty names are true; the others can raise the floor to their own share and no further.
        let rest = u64::from(invented) * 2_000;
        prop_assert!(list.unlisted_max <= rest / (ENTRIES as u64 - 20));
        for name in exact.keys().filter(|name| name.starts_with(b"Outlook/")) {
            if exact[name].cpu_ns > list.unlisted_max {
                prop_assert!(list.rows.iter().any(|row| row.name.as_bytes() == name));
            }
        }
    }
}

#[test]
fn few_names_are_listed_exactly_and_heaviest_first() {
    let usage = usage(10);
    for number in 0..10_u64 {
        let name = format!("Outlook/16.0.{number}");
        for _ in 0..=number {
            usage.charge(&client(name.as_bytes()), used(1, 1_000 - number, 10));
        }
    }

    let list = listed(&usage, Dimension::Client, Weight::Requests);

    assert_eq!(list.total.requests, 55);
    assert_eq!((list.listed, list.unlisted_max), (list.total, 0));
    assert_eq!(&*list.rows[0].name, "Outlook/16.0.9");
    assert_eq!(list.rows[0].used, used(10, 9_910, 100).thirds_of(10));
    assert!(list.rows.iter().all(|row| row.overestimate_max == 0));
    let short = usage.list(Dimension::Client, Weight::Requests, 3);
    assert_eq!((short.rows.len(), short.listed.requests), (3, 27));
}

impl Used {
    /// The same, its bytes split as so many requests of ten bytes split them.
    fn thirds_of(self, requests: u64) -> Self {
        Self {
            bytes_in: 3 * requests,
            bytes_out: 7 * requests,
            ..self
        }
    }
}

#[test]
fn each_order_keeps_its_own_heaviest() {
    let usage = usage(2);
    // One with many requests, one with much work, one with many bytes, and a crowd.
    (0..500).for_each(|_| usage.charge(&client(b"often"), used(1, 1, 1)));
    usage.charge(&client(b"busy"), used(1, 1_000_000, 1));
    usage.charge(&client(b"large"), used(1, 1, 1_000_000));
    for number in 0..100 {
        usage.charge(
            &client(format!("crowd{number}").as_bytes()),
            used(1, 10, 10),
        );
    }

    for (by, first) in [
        (Weight::Requests, "often"),
        (Weight::Cpu, "busy"),
        (Weight::Bytes, "large"),
    ] {
        let list = listed(&usage, Dimension::Client, by);
        assert_eq!(&*list.rows[0].name, first, "{by:?}");
        assert!(list.names <= 8);
    }
}

#[test]
fn a_hundred_thousand_users_take_no_more_room_than_the_cap() {
    let usage = usage(1000);

    for number in 0..100_000 {
        let user = format!("user{number}@contoso.test");
        let names = Names {
            user: &user,
            mailbox: &user,
            ..Names::default()
        };
        usage.charge(&names, used(1, 20_000, 6_000));
    }

    let list = listed(&usage, Dimension::User, Weight::Cpu);
    assert_eq!(list.total.requests, 100_000);
    assert!(list.names <= 4_000 && list.rows.len() == list.names);
    // All are alike: nobody can have had more than a thousandth.
    assert!(list.unlisted_max <= 100_000 * 20_000 / 1000);
    LOCAL.with_borrow(|local| {
        for tally in &local.as_ref().unwrap().tallies {
            assert!(tally.names.len() <= NAMES_MAX && tally.names.capacity() <= NAMES_MAX);
        }
    });
}

#[test]
fn what_a_thread_has_counted_outlives_it() {
    let usage = Arc::new(usage(100));
    let workers: Vec<_> = (0..4)
        .map(|number| {
            let usage = Arc::clone(&usage);
            std::thread::spawn(move || {
                for request in 0..10_000 {
                    let name = format!("client{}", (request * (number + 1)) % 5_000);
                    usage.charge(&client(name.as_bytes()), used(1, 7, 3));
                }
            })
        })
        .collect();

    workers
        .into_iter()
        .for_each(|worker| worker.join().unwrap());

    for dimension in [Dimension::Client, Dimension::User] {
        let list = usage.list(dimension, Weight::Cpu, 10);
        assert_eq!((list.total.requests, list.total.cpu_ns), (40_000, 280_000));
    }
    let users = usage.list(Dimension::User, Weight::Cpu, 10);
    assert_eq!(users.rows[0].used, users.total);
}

#[test]
fn what_is_charged_while_its_thread_ends_is_not_lost() {
    struct Late(Arc<Usage>);
    impl Drop for Late {
        fn drop(&mut self) {
            self.0.charge(&client(b"late"), used(1, 1, 1));
        }
    }
    thread_local! {
        // Begun before the thread's sums, so it ends after them.
        static LATE: RefCell<Option<Late>> = const { RefCell::new(None) };
    }
    let usage = Arc::new(usage(10));

    let theirs = Arc::clone(&usage);
    let worker = std::thread::spawn(move || {
        LATE.set(Some(Late(Arc::clone(&theirs))));
        theirs.charge(&client(b"in time"), used(1, 1, 1));
    });
    worker.join().unwrap();

    let list = usage.list(Dimension::Client, Weight::Requests, 10);
    let names: Vec<&str> = list.rows.iter().map(|row| &*row.name).collect();
    assert_eq!(names, ["in time", "late"]);
}

#[test]
fn a_thread_that_charges_another_ones_lists_hands_over_first() {
    let (one, other) = (usage(10), usage(10));

    one.charge(&client(b"a"), used(1, 1, 1));
    other.charge(&client(b"b"), used(1, 1, 1));

    assert_eq!(one.list(Dimension::Client, Weight::Cpu, 9).rows.len(), 1);
    assert_eq!(other.list(Dimension::Client, Weight::Cpu, 9).rows.len(), 0);
    // Its own is not the other's to hand over.
    one.hand_over();
    assert_eq!(other.list(Dimension::Client, Weight::Cpu, 9).rows.len(), 0);
    assert_eq!(listed(&other, Dimension::Client, Weight::Cpu).rows.len(), 1);
}

#[test]
fn what_has_no_name_is_counted_as_such() {
    let usage = usage(10);
    usage.charge(&Names::default(), used(1, 5, 6));
    usage.charge(&client(b"Outlook"), used(1, 5, 6));

    let clients = listed(&usage, Dimension::Client, Weight::Cpu);
    let databases = listed(&usage, Dimension::Database, Weight::Cpu);

    assert_eq!(clients.unnamed.requests, 1);
    assert_eq!(clients.rows.len(), 1);
    assert_eq!((databases.unnamed.requests, databases.rows.len()), (2, 0));
    assert_eq!(databases.total.requests, 2);
}

#[test]
fn spellings_of_one_harmless_name_are_one_entry() {
    let usage = usage(10);
    let long = "x".repeat(CLIENT_MAX);
    for name in [
        b"evil\x1b[2J".as_slice(),
        b"evil\x07[2J",
        format!("{long}1").as_bytes(),
        format!("{long}2").as_bytes(),
    ] {
        usage.charge(&client(name), used(1, 1, 1));
    }

    let list = listed(&usage, Dimension::Client, Weight::Requests);

    let names: Vec<&str> = list.rows.iter().map(|row| &*row.name).collect();
    assert_eq!(names, ["evil\u{fffd}[2J", &long]);
}

#[test]
fn at_the_end_of_all_numbers_figures_stay_there() {
    let usage = usage(1);
    for name in [b"a", b"b", b"c", b"d", b"e", b"a"] {
        usage.charge(&client(name), used(1, u64::MAX, u64::MAX));
    }

    let list = listed(&usage, Dimension::Client, Weight::Cpu);

    assert_eq!((list.total.cpu_ns, list.total.requests), (u64::MAX, 6));
    assert_eq!(list.rows[0].estimate, u64::MAX);
    assert_eq!(list.rows[0].used.of(Weight::Bytes), u64::MAX);
}

#[test]
fn the_length_changes_under_way_and_nought_forgets() {
    let (usage, later) = (usage(100), SystemTime::now() + Duration::from_secs(60));
    for number in 0..300_u64 {
        let name = format!("client{number}");
        usage.charge(&client(name.as_bytes()), used(1, number, 1));
    }
    usage.hand_over();
    let began = usage.since();

    usage.set_entries(5, later);
    let short = usage.list(Dimension::Client, Weight::Cpu, 5);
    usage.set_entries(0, later);
    usage.charge(&client(b"unseen"), used(1, 1, 1));
    let off = listed(&usage, Dimension::Client, Weight::Cpu);
    usage.set_entries(5, later);
    usage.charge(&client(b"new"), used(1, 1, 1));
    let anew = listed(&usage, Dimension::Client, Weight::Cpu);

    assert!(short.names <= 20 && short.total.requests == 300);
    let names: Vec<&str> = short.rows.iter().map(|row| &*row.name).collect();
    let heaviest = [
        "client299",
        "client298",
        "client297",
        "client296",
        "client295",
    ];
    assert_eq!(names, heaviest);
    assert!(off.total == Used::default() && off.names == 0);
    assert_eq!(anew.total.requests, 1);
    assert!(usage.since() > began);
}
