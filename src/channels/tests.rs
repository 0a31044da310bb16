#![expect(clippy::disallowed_methods, reason = "tests begin somewhere in time")]

use super::*;
use proptest::prelude::*;
use std::convert::Infallible;

const ONE: Cookie = Cookie([1; 16]);
const TWO: Cookie = Cookie([2; 16]);

fn table(capacity: usize) -> (Arc<ChannelTable>, Instant) {
    let start = Instant::now();
    let table = ChannelTable::new(capacity, [7; 16], start);
    (Arc::new(table), start)
}

struct Somebody {
    user: UserName,
    mailbox: MailboxId,
}

impl Somebody {
    fn new(name: &str) -> Self {
        Self {
            user: UserName::new(name),
            mailbox: MailboxId::new(format!("box-of-{name}")),
        }
    }

    fn claims(&self, connection: Cookie, verb: Verb) -> Claim<'_> {
        Claim {
            connection,
            verb,
            user: &self.user,
            mailbox: &self.mailbox,
        }
    }
}

/// Joins where the map says `active` holds the mailbox.
fn join(
    table: &Arc<ChannelTable>,
    claim: Claim<'_>,
    now: Instant,
    active: &str,
) -> Result<(Seat, String), NoSeat<&'static str>> {
    let decide = |home: Option<&ServerName>| match home {
        Some(home) if home.as_str() != active => Err("moved"),
        _ => Ok((ServerName::new(active), ())),
    };
    let (seat, server, ()) = table.join(claim, now, decide)?;
    Ok((seat, server.to_string()))
}

#[test]
fn both_directions_and_their_successors_go_to_the_server_of_the_first() {
    let (table, now) = table(10);
    let user = Somebody::new("user1");

    let (out, server) = join(&table, user.claims(ONE, Verb::Out), now, "MBX1").unwrap();
    assert_eq!(server, "MBX1");
    assert!(!out.has_partner());
    out.establish();
    for verb in [Verb::In, Verb::Out, Verb::In] {
        // Whatever somebody else would choose.
        let decide = |_: Option<&ServerName>| Ok::<_, Infallible>((ServerName::new("MBX2"), ()));
        let (seat, server, ()) = table.join(user.claims(ONE, verb), now, decide).unwrap();
        assert_eq!(server.as_str(), "MBX1");
        seat.establish();
    }

    assert!(out.has_partner());
    assert_eq!(table.len(), 1);
}

#[test]
fn another_user_or_another_mailbox_does_not_join() {
    let (table, now) = table(10);
    let (user, other) = (Somebody::new("user1"), Somebody::new("user2"));
    let seat = join(&table, user.claims(ONE, Verb::Out), now, "MBX1").unwrap();
    seat.0.establish();

    let theirs = join(&table, other.claims(ONE, Verb::In), now, "MBX1");
    assert_eq!(theirs.unwrap_err(), NoSeat::Foreign);
    let claim = Claim {
        mailbox: &other.mailbox,
        ..user.claims(ONE, Verb::In)
    };
    assert_eq!(
        join(&table, claim, now, "MBX1").unwrap_err(),
        NoSeat::Foreign
    );

    assert!(!seat.0.has_partner());
    drop(seat);
    let late = join(&table, other.claims(ONE, Verb::In), now, "MBX1");
    assert_eq!(late.unwrap_err(), NoSeat::Foreign);
}

#[test]
fn a_virtual_connection_whose_database_moved_takes_nobody_in() {
    let (table, now) = table(10);
    let user = Somebody::new("user1");
    let seat = join(&table, user.claims(ONE, Verb::Out), now, "MBX1").unwrap();
    seat.0.establish();

    let late = join(&table, user.claims(ONE, Verb::In), now, "MBX2");

    assert_eq!(late.unwrap_err(), NoSeat::Decided("moved"));
    let (_, server) = join(&table, user.claims(TWO, Verb::In), now, "MBX2").unwrap();
    assert_eq!(server, "MBX2");
}

#[test]
fn a_channel_that_reached_nobody_leaves_no_trace() {
    let (table, now) = table(10);
    let user = Somebody::new("user1");

    drop(join(&table, user.claims(ONE, Verb::Out), now, "MBX1").unwrap());

    assert!(table.is_empty());
    let (_, server) = join(&table, user.claims(ONE, Verb::Out), now, "MBX2").unwrap();
    assert_eq!(server, "MBX2");
}

#[test]
fn one_without_channels_is_forgotten_and_one_with_a_channel_is_not() {
    let (table, now) = table(10);
    let user = Somebody::new("user1");
    let kept = join(&table, user.claims(ONE, Verb::Out), now, "MBX1").unwrap();
    let left = join(&table, user.claims(TWO, Verb::Out), now, "MBX1").unwrap();
    kept.0.establish();
    left.0.establish();
    drop(left);

    table.sweep(now + LINGER - Duration::from_secs(1));
    assert_eq!(table.len(), 2);
    // It comes back, and leaves again later.
    let again = join(&table, user.claims(TWO, Verb::Out), now, "MBX1").unwrap();
    table.sweep(now + LINGER);
    assert_eq!(table.len(), 2);
    drop(again);
    table.sweep(now + 2 * LINGER);
    assert_eq!(table.len(), 1);

    table.sweep(now + 100 * LINGER);
    assert_eq!(table.len(), 1);
    drop(kept);
    table.sweep(now + 101 * LINGER);
    assert!(table.is_empty());
}

#[test]
fn a_full_table_pushes_nobody_out_who_is_in_use() {
    let (table, now) = table(1);
    let user = Somebody::new("user1");
    let seat = join(&table, user.claims(ONE, Verb::Out), now, "MBX1").unwrap();
    seat.0.establish();

    let second = join(&table, user.claims(TWO, Verb::Out), now, "MBX1");
    assert_eq!(second.unwrap_err(), NoSeat::Full);
    assert!(join(&table, user.claims(ONE, Verb::In), now, "MBX1").is_ok());

    drop(seat);
    assert!(join(&table, user.claims(TWO, Verb::Out), now, "MBX1").is_ok());
}

#[test]
fn all_channels_of_one_virtual_connection_end_at_one_moment() {
    let (table, now) = table(10);
    let user = Somebody::new("user1");
    let of = |cookie, verb| {
        join(&table, user.claims(cookie, verb), now, "MBX1")
            .unwrap()
            .0
    };
    let (out, incoming, other) = (of(ONE, Verb::Out), of(ONE, Verb::In), of(TWO, Verb::Out));

    assert!((out.share() - incoming.share()).abs() < f64::EPSILON);
    assert!((out.share() - other.share()).abs() > f64::EPSILON);
    assert!((0.0..=1.0).contains(&out.share()));
}

#[test]
fn channels_that_come_at_once_never_get_two_servers() {
    for _ in 0..200 {
        let (table, now) = table(10);
        let user = Somebody::new("user1");
        let servers: Vec<String> = std::thread::scope(|scope| {
            let comers = [(Verb::In, "MBX1"), (Verb::Out, "MBX2"), (Verb::In, "MBX3")];
            let joining = comers.map(|(verb, mine)| {
                let (table, user) = (&table, &user);
                scope.spawn(move || {
                    let decide =
                        |_: Option<&ServerName>| Ok::<_, Infallible>((ServerName::new(mine), ()));
                    let joined = table.join(user.claims(ONE, verb), now, decide);
                    let (seat, server, ()) = joined.unwrap();
                    seat.establish();
                    (seat, server.to_string())
                })
            });
            let joined = joining.map(|thread| thread.join().unwrap());
            joined.into_iter().map(|(_seat, server)| server).collect()
        });
        assert!(
            servers.iter().all(|server| *server == servers[0]),
            "{servers:?}"
        );
    }
}

/// What may happen to a table.
#[derive(Clone, Copy, Debug)]
enum Act {
    Join {
        cookie: u8,
        user: u8,
        verb: Verb,
        active: u8,
    },
    Establish(usize),
    Leave(usize),
    Sweep(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let verb = prop_oneof![Just(Verb::In), Just(Verb::Out)];
    let act = prop_oneof![
        4 => (0..4_u8, 0..2_u8, verb, 0..3_u8).prop_map(|(cookie, user, verb, active)| Act::Join { cookie, user, verb, active }),
        2 => any::<usize>().prop_map(Act::Establish),
        2 => any::<usize>().prop_map(Act::Leave),
        1 => (0..60_u64).prop_map(Act::Sweep),
    ];
    proptest::collection::vec(act, 1..80)
}

proptest! {
    #[test]
    fn channels_open_at_once_under_one_cookie_are_one_users_at_one_server(acts in acts()) {
        let (table, mut now) = table(3);
        let users = [Somebody::new("user1"), Somebody::new("user2")];
        let mut open: Vec<(u8, u8, String, Seat)> = Vec::new();
        for act in acts {
            match act {
                Act::Join { cookie, user, verb, active } => {
                    let claim = users[usize::from(user)].claims(Cookie([cookie; 16]), verb);
                    if let Ok((seat, server)) = join(&table, claim, now, &format!("MBX{active}")) {
                        for (other, whose, place, _) in &open {
                            if *other == cookie {
                                prop_assert_eq!((whose, place), (&user, &server));
                            }
                        }
                        open.push((cookie, user, server, seat));
                    }
                }
                Act::Establish(which) => {
                    if let Some((.., seat)) = open.get(which % open.len().max(1)) {
                        seat.establish();
                    }
                }
                Act::Leave(which) if !open.is_empty() => drop(open.remove(which % open.len())),
                Act::Leave(_) => {}
                Act::Sweep(seconds) => {
                    now += Duration::from_secs(seconds);
                    table.sweep(now);
                }
            }
            prop_assert!(table.len() <= 3);
        }
        for (.., seat) in &open {
            seat.establish();
        }
        open.clear();
        table.sweep(now + 2 * LINGER);
        prop_assert!(table.is_empty());
    }
}
