//! Routing, sessions, seals, health and placement together, without sockets or threads.
//!
//! Servers die and return, answers are lost, databases and mailboxes move, the front end restarts,
//! clients come, go, lose their cookies and show those of others. After each step the invariants are
//! checked. `SIM_SEEDS=10000` lives longer; `SIM_SEED=17` repeats one life.

#![expect(
    clippy::indexing_slicing,
    reason = "indices are drawn from the length of what they index"
)]

mod client;
mod front;
mod judge;
mod server;
mod world;

use mapigate::health::HealthView;
use mapigate::ids::ServerName;
use mapigate::placement::Placement;
use mapigate::refusal::Refusal;
use mapigate::routing::{self, Decision, Question, RouteReason};
use std::time::Instant;
use world::{Seen, live};

pub(crate) type Decide = for<'a> fn(&Question<'a>, &'a Placement, &HealthView) -> Decision<'a>;

/// What the front end goes by; all but [`Rules::RIGHT`] are wrong on purpose.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) decide: Decide,
    pub(crate) ignores_owner: bool,
    pub(crate) repeats_after_reset: bool,
}

impl Rules {
    const RIGHT: Self = Self {
        decide: right,
        ignores_owner: false,
        repeats_after_reset: false,
    };
}

fn right<'a>(
    question: &Question<'a>,
    placement: &'a Placement,
    health: &HealthView,
) -> Decision<'a> {
    routing::decide(question, placement, health, |_| true)
}

#[expect(
    clippy::disallowed_methods,
    reason = "some first instant is needed; the simulated clock counts from it"
)]
fn start() -> Instant {
    Instant::now()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn invariants_hold_in_every_life() {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(200),
    };
    let (start, mut seen) = (start(), Seen::default());
    for seed in seeds.clone() {
        match live(seed, Rules::RIGHT, start) {
            Ok(more) => seen += more,
            Err(broken) => panic!("SIM_SEED={seed} {broken}"),
        }
    }

    println!("{} lives: {seen:?}", seeds.end - seeds.start);
    if seeds.end - seeds.start >= 100 {
        let counts = [
            seen.executed,
            seen.gone_by_move,
            seen.unavailable,
            seen.failed,
            seen.foreign,
            seen.resumed_by_ticket,
            seen.ended_here,
            seen.full,
            seen.moves,
            seen.restarts,
            seen.lost_by_server,
        ];
        assert!(counts.iter().all(|count| *count >= 10), "{seen:?}");
    }
}

#[test]
fn the_same_seed_lives_the_same_life() {
    let (start, again) = (start(), start());
    for seed in 0..10 {
        let first = live(seed, Rules::RIGHT, start).unwrap();
        let second = live(seed, Rules::RIGHT, again).unwrap();
        assert_eq!(format!("{first:?}"), format!("{second:?}"));
    }
}

/// Runs wrong rules until an invariant breaks, and returns what it says.
fn caught(rules: Rules) -> String {
    let start = start();
    (0..200)
        .find_map(|seed| live(seed, rules, start).err())
        .unwrap_or_else(|| "nobody noticed".to_owned())
}

fn caught_deciding(decide: Decide) -> String {
    caught(Rules {
        decide,
        ..Rules::RIGHT
    })
}

fn to<'a>(question: &Question<'a>, server: &'a ServerName) -> Option<Decision<'a>> {
    let database = question.database?;
    Some(Decision::Forward {
        server,
        database,
        reason: RouteReason::Pinned,
        strip_session_cookies: false,
    })
}

#[test]
fn following_the_pin_instead_of_the_placement_is_caught() {
    let told = caught_deciding(|question, placement, health| {
        let pin = question.session.filter(|_| question.tried.is_empty());
        let follow = pin.and_then(|pin| to(question, pin.server));
        follow.unwrap_or_else(|| right(question, placement, health))
    });
    assert!(told.contains("active is"), "{told}");
}

#[test]
fn taking_a_passive_copy_while_the_active_one_is_down_is_caught() {
    let told = caught_deciding(|question, placement, health| {
        let decision = right(question, placement, health);
        let home = question.database.and_then(|home| placement.home(home));
        let (Decision::Refuse(Refusal::NoEligibleCopy { .. }), Some(home)) = (&decision, home)
        else {
            return decision;
        };
        let is_free = |name: &&ServerName| health.is_up(name) && !question.tried.contains(name);
        let passive = home.copies.iter().find(is_free);
        passive
            .and_then(|server| to(question, server))
            .unwrap_or(decision)
    });
    assert!(told.contains("active is"), "{told}");
}

#[test]
fn trying_an_unreachable_server_again_is_caught() {
    let told = caught_deciding(|question, placement, health| {
        let question = Question {
            tried: &[],
            ..*question
        };
        right(&question, placement, health)
    });
    assert!(told.contains("tried again"), "{told}");
}

#[test]
fn ignoring_where_the_directory_says_a_mailbox_lives_is_caught() {
    let told = caught_deciding(|question, placement, health| {
        let pinned = question.session.map(|pin| pin.database);
        let question = Question {
            database: pinned.or(question.database),
            ..*question
        };
        right(&question, placement, health)
    });
    assert!(told.contains("active is"), "{told}");
}

#[test]
fn showing_old_cookies_to_a_new_server_is_caught() {
    let told =
        caught_deciding(
            |question, placement, health| match right(question, placement, health) {
                Decision::Forward {
                    server,
                    database,
                    reason,
                    ..
                } => Decision::Forward {
                    server,
                    database,
                    reason,
                    strip_session_cookies: false,
                },
                other => other,
            },
        );
    assert!(
        told.contains("a new session is told that it is gone"),
        "{told}"
    );
}

#[test]
fn telling_a_new_session_that_its_old_one_is_gone_is_caught() {
    let told = caught_deciding(|question, placement, health| {
        let home = question.database.and_then(|home| placement.active(home));
        match question.session {
            Some(pin) if home != Some(pin.server) => {
                Decision::Refuse(Refusal::SessionGone("moved"))
            }
            _ => right(question, placement, health),
        }
    });
    assert!(
        told.contains("a new session is told that it is gone"),
        "{told}"
    );
}

#[test]
fn refusing_a_moved_session_with_503_is_caught() {
    let told = caught_deciding(|question, placement, health| {
        match (right(question, placement, health), question.database) {
            (Decision::Refuse(Refusal::SessionGone(why)), Some(database)) => {
                let database = database.clone();
                Decision::Refuse(Refusal::NoEligibleCopy { database, why })
            }
            (decision, _) => decision,
        }
    });
    assert!(told.contains("a moved session is not told so"), "{told}");
}

#[test]
fn answering_for_a_server_that_is_there_is_caught() {
    let told =
        caught_deciding(
            |question, placement, health| match right(question, placement, health) {
                Decision::Refuse(Refusal::SessionGone(_)) => Decision::EndSession,
                decision => decision,
            },
        );
    assert!(told.contains("answered here"), "{told}");
}

#[test]
fn losing_the_cookies_of_a_living_session_is_caught() {
    let told =
        caught_deciding(
            |question, placement, health| match right(question, placement, health) {
                Decision::Forward {
                    server,
                    database,
                    reason,
                    ..
                } => Decision::Forward {
                    server,
                    database,
                    reason,
                    strip_session_cookies: true,
                },
                other => other,
            },
        );
    assert!(told.contains("a cookie was lost"), "{told}");
}

#[test]
fn using_the_session_of_another_user_is_caught() {
    let told = caught(Rules {
        ignores_owner: true,
        ..Rules::RIGHT
    });
    assert!(told.contains("uses the session"), "{told}");
}

#[test]
fn sending_a_request_again_that_may_have_been_executed_is_caught() {
    let told = caught(Rules {
        repeats_after_reset: true,
        ..Rules::RIGHT
    });
    assert!(told.contains("executed 2 times"), "{told}");
}

#[test]
fn refusing_everything_is_caught() {
    let told = caught_deciding(|_, _, _| Decision::Refuse(Refusal::ShuttingDown));
    assert!(told.contains("unavailable without a reason"), "{told}");
}
