use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

const MINUTE: Duration = Duration::from_secs(60);
const LIFETIME: Duration = Duration::from_secs(20 * 60);

#[expect(
    clippy::disallowed_methods,
    reason = "some first instant is needed; nothing waits for it"
)]
fn start() -> Instant {
    Instant::now()
}

fn table(capacity: usize) -> (SessionTable, Instant) {
    let start = start();
    (SessionTable::new(capacity, [7; 16], start), start)
}

fn session(user: &str) -> Session {
    Session {
        mailbox: MailboxId::new("0189@contoso.test"),
        database: DatabaseName::new("DB07"),
        server: ServerName::new("MBX1"),
        user: UserName::new(user),
    }
}

/// Records in the wheels, the stale ones included.
fn records(table: &SessionTable) -> usize {
    let shards = table.shards.iter();
    shards.map(|lane| lane.0.read().records()).sum()
}

#[test]
fn what_was_opened_is_found_until_it_is_closed() {
    let (table, now) = table(10);
    let key = table.key(Endpoint::Emsmdb, b"cookie");

    assert_eq!(table.find(key, now), None);
    assert_eq!(
        table.open(key, session("user1"), now, LIFETIME),
        Opened::Kept
    );
    assert_eq!(table.find(key, now).as_deref(), Some(&session("user1")));
    assert_eq!(table.close(key).as_deref(), Some(&session("user1")));
    assert_eq!(table.find(key, now), None);
    assert_eq!(table.close(key), None);
    assert!(table.is_empty());
}

#[test]
fn the_endpoints_and_the_processes_keep_their_cookies_apart() {
    let (table, now) = table(10);
    let other = SessionTable::new(10, [8; 16], now);

    assert_ne!(
        table.key(Endpoint::Emsmdb, b"cookie"),
        table.key(Endpoint::Nspi, b"cookie")
    );
    assert_ne!(
        table.key(Endpoint::Emsmdb, b"cookie"),
        other.key(Endpoint::Emsmdb, b"cookie")
    );
    assert_eq!(
        format!("{:?}", table.key(Endpoint::Nspi, b"x")),
        "SessionKey(…)"
    );
}

#[test]
fn an_expired_session_is_not_found_even_before_it_is_swept() {
    let (table, now) = table(10);
    let key = table.key(Endpoint::Emsmdb, b"cookie");
    table.open(key, session("user1"), now, LIFETIME);

    assert!(
        table
            .find(key, now + LIFETIME - Duration::from_millis(1))
            .is_some()
    );
    assert!(table.find(key, now + LIFETIME).is_none());
    assert!(!table.touch(key, now + LIFETIME, LIFETIME));
    assert_eq!(table.len(), 1);
    assert_eq!(table.sweep(now + LIFETIME), 1);
    assert_eq!((table.len(), records(&table)), (0, 0));
}

#[test]
fn a_touched_session_lives_on_and_is_swept_at_its_later_end() {
    let (table, now) = table(10);
    let key = table.key(Endpoint::Emsmdb, b"cookie");
    table.open(key, session("user1"), now, LIFETIME);

    for minute in 1..600 {
        let now = now + minute * MINUTE;
        assert!(table.touch(key, now, LIFETIME));
        assert_eq!(table.sweep(now), 0);
    }

    let end = now + 599 * MINUTE + LIFETIME;
    assert_eq!(table.sweep(end - Duration::from_secs(1)), 0);
    assert_eq!(table.sweep(end), 1);
}

#[test]
fn touching_never_shortens_a_life() {
    let (table, now) = table(10);
    let key = table.key(Endpoint::Emsmdb, b"cookie");
    table.open(key, session("user1"), now, LIFETIME);

    assert!(table.touch(key, now, MINUTE));

    assert!(table.find(key, now + LIFETIME - MINUTE).is_some());
}

#[test]
fn a_sweep_after_a_long_pause_drops_the_dead_and_keeps_the_living() {
    let (table, now) = table(10);
    let (dead, alive) = (
        table.key(Endpoint::Nspi, b"dead"),
        table.key(Endpoint::Nspi, b"alive"),
    );
    table.open(dead, session("user1"), now, LIFETIME);
    table.open(alive, session("user1"), now, 500 * LIFETIME);

    let later = now + 400 * LIFETIME;
    assert_eq!(table.sweep(later), 1);
    assert!(table.find(alive, later).is_some());
    assert_eq!(table.sweep(now + 499 * LIFETIME), 0);
    assert_eq!(table.sweep(now + 500 * LIFETIME), 1);
    assert_eq!(records(&table), 0);
}

#[test]
fn a_full_table_keeps_those_in_use_and_not_the_newcomer() {
    let (table, now) = table(2);
    let keys: Vec<SessionKey> = (0..3u8)
        .map(|i| table.key(Endpoint::Emsmdb, &[i]))
        .collect();
    table.open(keys[0], session("user1"), now, LIFETIME);
    table.open(keys[1], session("user2"), now, LIFETIME);

    assert_eq!(
        table.open(keys[2], session("flood"), now, LIFETIME),
        Opened::Full
    );

    assert!(table.find(keys[0], now).is_some() && table.find(keys[1], now).is_some());
    assert!(table.find(keys[2], now).is_none());
    assert_eq!(table.len(), 2);
}

#[test]
fn a_full_table_drops_expired_sessions_for_a_newcomer() {
    let (table, now) = table(2);
    let keys: Vec<SessionKey> = (0..3u8)
        .map(|i| table.key(Endpoint::Emsmdb, &[i]))
        .collect();
    table.open(keys[0], session("user1"), now, MINUTE);
    table.open(keys[1], session("user2"), now, LIFETIME);

    let later = now + MINUTE;
    assert_eq!(
        table.open(keys[2], session("user3"), later, LIFETIME),
        Opened::Kept
    );

    assert!(table.find(keys[1], later).is_some() && table.find(keys[2], later).is_some());
    assert_eq!(table.len(), 2);
}

#[test]
fn a_session_that_is_known_is_renewed_in_a_full_table() {
    let (table, now) = table(1);
    let key = table.key(Endpoint::Emsmdb, b"cookie");
    table.open(key, session("user1"), now, LIFETIME);
    let moved = Session {
        server: ServerName::new("MBX2"),
        ..session("user1")
    };

    assert_eq!(table.open(key, moved.clone(), now, LIFETIME), Opened::Kept);

    assert_eq!(table.find(key, now).as_deref(), Some(&moved));
    assert_eq!((table.len(), records(&table)), (1, 1));
}

#[test]
fn nobody_takes_over_a_cookie_another_user_has_in_use() {
    let (table, now) = table(10);
    let key = table.key(Endpoint::Emsmdb, b"cookie");
    table.open(key, session("user1"), now, LIFETIME);

    assert_eq!(
        table.open(key, session("user2"), now, LIFETIME),
        Opened::Foreign
    );
    assert_eq!(table.find(key, now).as_deref(), Some(&session("user1")));
    assert_eq!(
        table.open(key, session("user2"), now + LIFETIME, LIFETIME),
        Opened::Kept
    );
    assert_eq!(table.len(), 1);
}

#[test]
fn a_lower_cap_keeps_who_is_there_and_lets_nobody_in() {
    let (table, now) = table(2);
    let keys: Vec<SessionKey> = (0..3u8)
        .map(|i| table.key(Endpoint::Emsmdb, &[i]))
        .collect();
    table.open(keys[0], session("user1"), now, LIFETIME);
    table.open(keys[1], session("user2"), now, LIFETIME);

    table.set_capacity(1);
    table.close(keys[1]);

    assert_eq!(
        table.open(keys[2], session("user3"), now, LIFETIME),
        Opened::Full
    );
    assert!(table.find(keys[0], now).is_some());
    assert_eq!(table.capacity(), 1);
}

#[test]
fn sessions_are_counted_by_database_without_the_expired() {
    let (table, now) = table(10);
    for (cookie, database, lifetime) in [
        (1u8, "DB1", LIFETIME),
        (2, "DB1", LIFETIME),
        (3, "DB1", MINUTE),
        (4, "DB2", LIFETIME),
    ] {
        let session = Session {
            database: DatabaseName::new(database),
            ..session("user1")
        };
        let key = table.key(Endpoint::Emsmdb, &[cookie]);
        table.open(key, session, now, lifetime);
    }

    let counts = table.count_by_database(now + MINUTE);

    let expected = [(DatabaseName::new("DB1"), 2), (DatabaseName::new("DB2"), 1)];
    assert_eq!(counts, BTreeMap::from(expected));
}

#[test]
fn sessions_that_come_and_go_leave_nothing_behind() {
    let (table, now) = table(10);

    for cookie in 0..200_000u32 {
        let key = table.key(Endpoint::Emsmdb, &cookie.to_le_bytes());
        table.open(key, session("user1"), now, LIFETIME);
        table.close(key);
    }

    assert!(table.is_empty());
    assert!(records(&table) <= 65 * SHARDS, "{}", records(&table));
}

#[test]
fn memory_of_a_flood_is_given_back() {
    let (table, now) = table(300_000);
    let empty = table.memory_bytes();
    for cookie in 0..300_000u32 {
        let key = table.key(Endpoint::Emsmdb, &cookie.to_le_bytes());
        table.open(key, session("user1"), now, LIFETIME);
    }

    assert_eq!(table.sweep(now + LIFETIME), 300_000);

    assert!(table.memory_bytes() <= empty + SHARDS * 70_000);
}

#[test]
fn an_entry_costs_at_most_200_bytes() {
    let (table, now) = table(usize::MAX);
    let shared = session("user1");
    for cookie in 0..300_000u32 {
        let key = table.key(Endpoint::Emsmdb, &cookie.to_le_bytes());
        // Spread over a quarter of an hour, as real ones are.
        let now = now + Duration::from_millis(u64::from(cookie) * 3);
        table.open(key, shared.clone(), now, LIFETIME);
        if cookie >= 50_000 && cookie % 5_000 == 0 {
            let each = table.memory_bytes() / table.len();
            assert!(each <= 200, "{each} bytes each at {}", table.len());
        }
    }
}

#[test]
fn many_threads_at_once_lose_and_gain_nothing() {
    let (table, now) = table(1_000);
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let table = &table;
            scope.spawn(move || {
                for turn in 0..20_000u32 {
                    let cookie = [thread, (turn % 251) as u8];
                    let key = table.key(Endpoint::Emsmdb, &cookie);
                    let user = format!("user{thread}");
                    assert_eq!(table.open(key, session(&user), now, LIFETIME), Opened::Kept);
                    assert_eq!(table.find(key, now).unwrap().user.as_str(), user);
                    if turn % 64 == 0 {
                        table.sweep(now);
                    }
                    assert!(table.close(key).is_some());
                }
            });
        }
    });
    assert_eq!(table.len(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Open(u8, u8, u64),
    Touch(u8, u64),
    Close(u8),
    Sweep,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..12u8, 0..2u8, 0..2_000u64).prop_map(|(k, u, l)| Step::Open(k, u, l)),
        2 => (0..12u8, 0..4_000u64).prop_map(|(k, l)| Step::Touch(k, l)),
        2 => (0..12u8).prop_map(Step::Close),
        1 => Just(Step::Sweep),
        3 => (0..900u64).prop_map(Step::Wait),
        1 => (0..9_000u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    /// The table against a plain map that forgets nothing by itself.
    #[test]
    fn the_table_agrees_with_a_plain_map(steps in steps(), capacity in 1..12usize) {
        let (table, start) = table(capacity);
        let mut model: HashMap<u8, (u8, u64)> = HashMap::new();
        let mut second = 0;
        for step in steps {
            let now = start + Duration::from_secs(second);
            let key = |k: u8| table.key(Endpoint::Emsmdb, &[k]);
            let is_live = |known: &(u8, u64)| second < known.1;
            match step {
                Step::Open(k, user, lifetime) => {
                    let lifetime_ = Duration::from_secs(lifetime);
                    let opened = table.open(key(k), session(&user.to_string()), now, lifetime_);
                    let live = model.values().filter(|known| is_live(known)).count();
                    match model.get(&k).filter(|known| is_live(known)) {
                        Some(known) if known.0 != user => prop_assert_eq!(opened, Opened::Foreign),
                        None if live == capacity => prop_assert_eq!(opened, Opened::Full),
                        // Expired ones of this very second may have to wait for the next.
                        None if opened == Opened::Full => prop_assert!(model.len() >= capacity),
                        _ => prop_assert_eq!(opened, Opened::Kept),
                    }
                    if opened == Opened::Kept {
                        let before = model.get(&k).map_or(0, |known| known.1);
                        model.insert(k, (user, before.max(second + lifetime)));
                    }
                }
                Step::Touch(k, lifetime) => {
                    let touched = table.touch(key(k), now, Duration::from_secs(lifetime));
                    let known = model.get_mut(&k).filter(|known| second < known.1);
                    prop_assert_eq!(touched, known.is_some());
                    if let Some(known) = known {
                        known.1 = known.1.max(second + lifetime);
                    }
                }
                Step::Close(k) => {
                    let closed = table.close(key(k));
                    let known = model.remove(&k);
                    if known.is_some_and(|known| is_live(&known)) {
                        prop_assert!(closed.is_some());
                    }
                }
                Step::Sweep => {
                    table.sweep(now);
                    model.retain(|_, known| second < known.1);
                    prop_assert_eq!(table.len(), model.len());
                    prop_assert!(records(&table) <= model.len() + 65 * SHARDS);
                }
                Step::Wait(seconds) => second += seconds,
            }
            prop_assert!(table.len() <= capacity);
            let now = start + Duration::from_secs(second);
            for k in 0..12 {
                let found = table.find(key(k), now).map(|found| found.user.as_str().to_owned());
                let known = model.get(&k).filter(|known| second < known.1);
                prop_assert_eq!(found, known.map(|known| known.0.to_string()));
            }
        }
        table.sweep(start + Duration::from_secs(second + 10_000));
        prop_assert_eq!((table.len(), records(&table)), (0, 0));
    }
}
