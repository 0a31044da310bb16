//! A site to decide about, and what must hold in every combination.

mod failover;

use super::*;
use crate::config::settings::{Database, HealthSettings};
use crate::health::{HealthTable, Observation};
use crate::placement::HOMELESS;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Two servers, `A` and `B`. `DB1` has copies on both and is active on `A`, `DB2` lives on `B` alone.
struct Site {
    placement: Placement,
    health: HealthView,
    incapable: Vec<ServerName>,
    names: Names,
}

struct Names {
    a: ServerName,
    b: ServerName,
    db1: DatabaseName,
    db2: DatabaseName,
    unknown: DatabaseName,
}

fn databases(active: &str) -> BTreeMap<DatabaseName, Database> {
    let home = |copies: &[&str], active: &str| Database {
        copies: copies.iter().copied().map(ServerName::new).collect(),
        active: ServerName::new(active),
    };
    BTreeMap::from([
        (DatabaseName::new("DB1"), home(&["A", "B"], active)),
        (DatabaseName::new("DB2"), home(&["B"], "B")),
    ])
}

#[expect(
    clippy::disallowed_methods,
    reason = "some first instant is needed; nothing waits for it"
)]
fn health(down: &[&str], panic_threshold: u32) -> HealthView {
    let second = Duration::from_secs(1);
    let settings = HealthSettings {
        interval: second,
        timeout: second,
        fall: 1,
        rise: 1,
        panic_threshold,
        page: None,
        rpc_page: None,
        probe: None,
    };
    let now = Instant::now();
    let servers = ["A", "B"].map(|server| (ServerName::new(server), 1));
    let mut table = HealthTable::new(&settings, servers, now);
    for server in down {
        table.observe(&ServerName::new(*server), Observation::Refused, now);
    }
    table.view()
}

impl Site {
    fn new() -> Self {
        Self {
            placement: Placement::new(&databases("A")),
            health: health(&[], 0),
            incapable: Vec::new(),
            names: Names {
                a: ServerName::new("A"),
                b: ServerName::new("B"),
                db1: DatabaseName::new("DB1"),
                db2: DatabaseName::new("DB2"),
                unknown: DatabaseName::new("DB9"),
            },
        }
    }

    /// `DB1` is active on `B` now.
    fn moved(mut self) -> Self {
        self.placement = self.placement.next(&databases("B"));
        self
    }

    fn down(mut self, servers: &[&str]) -> Self {
        self.health = health(servers, 0);
        self
    }

    fn decide<'a>(&'a self, question: &Question<'a>) -> Decision<'a> {
        decide(question, &self.placement, &self.health, |server| {
            !self.incapable.contains(server)
        })
    }

    /// A request about a mailbox in `DB1` whose session was opened on `A`.
    fn of_session(&self, request_type: RequestType) -> Question<'_> {
        Question {
            session: Some(Pin {
                database: &self.names.db1,
                server: &self.names.a,
            }),
            ..self.stateless(request_type)
        }
    }

    /// The same with a context cookie nobody here knows.
    fn stateless(&self, request_type: RequestType) -> Question<'_> {
        Question {
            request_type,
            carries_context: true,
            session: None,
            database: Some(&self.names.db1),
            tried: &[],
        }
    }

    /// The same without any cookie.
    fn fresh(&self, request_type: RequestType) -> Question<'_> {
        Question {
            carries_context: false,
            ..self.stateless(request_type)
        }
    }

    fn to<'a>(&'a self, server: &'a ServerName, reason: RouteReason) -> Decision<'a> {
        Decision::Forward {
            server,
            database: &self.names.db1,
            reason,
            strip_session_cookies: false,
        }
    }

    fn stripped_to<'a>(&'a self, server: &'a ServerName, reason: RouteReason) -> Decision<'a> {
        Decision::Forward {
            server,
            database: &self.names.db1,
            reason,
            strip_session_cookies: true,
        }
    }

    fn no_copy(&self, why: &'static str) -> Decision<'_> {
        let database = self.names.db1.clone();
        Decision::Refuse(Refusal::NoEligibleCopy { database, why })
    }
}

fn gone(why: &'static str) -> Decision<'static> {
    Decision::Refuse(Refusal::SessionGone(why))
}

/// Everything a client does within a session.
fn within_a_session() -> impl Iterator<Item = RequestType> {
    let all = RequestType::ALL.iter().copied();
    all.filter(|kind| !kind.opens_session() && !kind.closes_session())
}

const OPENERS: [RequestType; 2] = [RequestType::Connect, RequestType::Bind];
const CLOSERS: [RequestType; 2] = [RequestType::Disconnect, RequestType::Unbind];

/// What must hold whatever comes together.
#[test]
fn a_request_without_sessions_goes_home_or_nowhere() {
    let wards = |down: &[&str]| health(down, 0);
    let home_of =
        |site: &Site, database: &DatabaseName, wards: &HealthView, tried: &[ServerName]| {
            home(database, &site.placement, &site.health, wards, tried).cloned()
        };
    let site = Site::new();
    let names = &site.names;
    let (all, none) = (wards(&[]), &[][..]);

    assert_eq!(home_of(&site, &names.db1, &all, none), Ok(names.a.clone()));
    assert_eq!(home_of(&site, &names.db2, &all, none), Ok(names.b.clone()));
    let why = |refused: Result<ServerName, Refusal>| match refused {
        Err(Refusal::NoEligibleCopy { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(why(home_of(&site, &names.unknown, &all, none)), HOMELESS);
    let tried = [names.a.clone()];
    assert_eq!(why(home_of(&site, &names.db1, &all, &tried)), UNREACHABLE);
    assert_eq!(
        why(home_of(&site, &names.db1, &wards(&["A"]), none)),
        OUT_OF_SERVICE
    );
    assert_eq!(
        home_of(&site, &names.db2, &wards(&["A"]), none),
        Ok(names.b.clone())
    );
    let down = Site::new().down(&["A"]);
    assert_eq!(
        why(home_of(&down, &names.db1, &all, none)),
        "connection refused"
    );
    let moved = Site::new().moved();
    assert_eq!(
        home_of(&moved, &names.db1, &wards(&["A"]), none),
        Ok(names.b.clone())
    );
}

#[test]
fn in_every_combination_only_the_active_copy_is_chosen() {
    let sites = [
        Site::new(),
        Site::new().moved(),
        Site::new().down(&["A"]),
        Site::new().moved().down(&["B"]),
        Site::new().down(&["A", "B"]),
    ];
    let removed = ServerName::new("Z");
    let mut forwarded = 0;
    for site in &sites {
        let Names {
            a,
            b,
            db1,
            db2,
            unknown,
        } = &site.names;
        let homes = [None, Some(db1), Some(db2), Some(unknown)];
        let mut pins = vec![None];
        for database in [db1, db2, unknown] {
            pins.extend([a, b, &removed].map(|server| Some(Pin { database, server })));
        }
        let tries: [&[ServerName]; 3] = [&[], std::slice::from_ref(a), std::slice::from_ref(b)];
        for request_type in RequestType::ALL.iter().copied() {
            for (database, session, tried, carries_context) in homes
                .into_iter()
                .flat_map(|home| pins.iter().map(move |pin| (home, *pin)))
                .flat_map(|(home, pin)| tries.map(|tried| (home, pin, tried)))
                .flat_map(|(home, pin, tried)| [true, false].map(|c| (home, pin, tried, c)))
            {
                let question = Question {
                    request_type,
                    carries_context,
                    session,
                    database,
                    tried,
                };
                let decision = site.decide(&question);
                check(site, &question, &decision);
                forwarded += usize::from(matches!(decision, Decision::Forward { .. }));
            }
        }
    }
    assert!(forwarded > 1_000);
}

fn check(site: &Site, question: &Question<'_>, decision: &Decision<'_>) {
    let kind = question.request_type;
    match decision {
        Decision::Forward {
            server,
            database,
            strip_session_cookies,
            ..
        } => {
            assert!(site.placement.is_active(database, server));
            assert!(question.database.is_none_or(|home| home == *database));
            assert!(site.health.is_eligible(server) && !question.tried.contains(server));
            let is_issuer = question.session.is_some_and(|pin| pin.server == *server);
            assert!(kind.opens_session() || question.session.is_none() || is_issuer);
            assert_eq!(*strip_session_cookies, kind.opens_session() && !is_issuer);
        }
        Decision::EndSession => assert!(kind.closes_session()),
        Decision::Refuse(Refusal::SessionGone(_)) => {
            assert!(question.session.is_some());
            assert!(!kind.opens_session() && !kind.closes_session());
        }
        Decision::Refuse(_) => {}
    }
}

#[test]
fn a_channel_goes_to_the_active_copy_or_follows_its_virtual_connection_or_goes_nowhere() {
    let placement = |active| Placement::new(&databases(active));
    let [a, b] = ["A", "B"].map(ServerName::new);
    let db1 = DatabaseName::new("DB1");
    let up = health(&[], 0);
    let all = |_: &ServerName| true;
    let on_a = placement("A");
    let on_b = placement("B");

    let first = channel(&db1, None, &[], &on_a, &up, &up, all);
    assert_eq!(first, Ok((&a, RouteReason::ActiveCopy)));
    let second = channel(&db1, Some(&a), &[], &on_a, &up, &up, all);
    assert_eq!(second, Ok((&a, RouteReason::Pinned)));
    let tried = [a.clone()];
    let retried = channel(&db1, None, &tried, &on_b, &up, &up, all);
    assert_eq!(retried, Ok((&b, RouteReason::Retried)));

    // Whatever is healthy: it cannot be moved, and a passive copy serves nobody.
    let moved = channel(&db1, Some(&a), &[], &on_b, &up, &up, all);
    assert_eq!(moved, Err(Refusal::ChannelGone(MOVED)));
    let unknown = DatabaseName::new("DB9");
    for refused in [
        channel(&unknown, None, &[], &on_a, &up, &up, all),
        channel(&db1, None, &tried, &on_a, &up, &up, all),
        channel(&db1, None, &[], &on_a, &health(&["A"], 0), &up, all),
        channel(&db1, Some(&a), &[], &on_a, &health(&["A"], 0), &up, all),
        channel(&db1, None, &[], &on_a, &up, &health(&["A"], 0), all),
        channel(&db1, None, &[], &on_a, &up, &up, |server| *server != a),
    ] {
        assert!(
            matches!(refused, Err(Refusal::NoEligibleCopy { .. })),
            "{refused:?}"
        );
    }
}
