//! The failover table, row by row, then every combination at once.

use super::*;
use crate::config::settings::{Database, HealthSettings};
use crate::health::{HealthTable, Observation};
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

#[test]
fn a_session_whose_server_is_active_and_healthy_goes_there() {
    let site = Site::new();
    for kind in within_a_session().chain(CLOSERS) {
        assert_eq!(
            site.decide(&site.of_session(kind)),
            site.to(&site.names.a, RouteReason::Pinned),
            "{kind:?}"
        );
    }
}

#[test]
fn a_session_whose_database_moved_is_gone_for_ping_and_wait_too() {
    let site = Site::new().moved();
    for kind in within_a_session() {
        assert_eq!(site.decide(&site.of_session(kind)), gone(MOVED), "{kind:?}");
    }
}

#[test]
fn a_moved_session_is_gone_even_while_its_new_server_is_down() {
    let site = Site::new().moved().down(&["B"]);
    let question = site.of_session(RequestType::Execute);

    assert_eq!(site.decide(&question), gone(MOVED));
}

#[test]
fn a_session_whose_mailbox_moved_to_a_database_elsewhere_is_gone() {
    let site = Site::new();
    let question = Question {
        database: Some(&site.names.db2),
        ..site.of_session(RequestType::Execute)
    };

    assert_eq!(site.decide(&question), gone(MOVED));
}

#[test]
fn a_session_whose_mailbox_moved_to_a_database_of_the_same_server_stays() {
    let site = Site::new().moved();
    let question = Question {
        session: Some(Pin {
            database: &site.names.db2,
            server: &site.names.b,
        }),
        ..site.stateless(RequestType::Execute)
    };

    assert_eq!(
        site.decide(&question),
        site.to(&site.names.b, RouteReason::Pinned)
    );
}

#[test]
fn a_session_goes_by_its_own_database_where_the_directory_is_silent() {
    let site = Site::new();
    let question = Question {
        database: None,
        ..site.of_session(RequestType::Execute)
    };

    assert_eq!(
        site.decide(&question),
        site.to(&site.names.a, RouteReason::Pinned)
    );
}

#[test]
fn a_session_whose_database_is_no_longer_configured_is_gone() {
    let site = Site::new();
    for (pinned, database) in [
        (&site.names.unknown, None),
        (&site.names.db1, Some(&site.names.unknown)),
    ] {
        let question = Question {
            session: Some(Pin {
                database: pinned,
                server: &site.names.a,
            }),
            database,
            ..site.of_session(RequestType::Execute)
        };
        assert_eq!(site.decide(&question), gone(UNCONFIGURED));
    }
}

#[test]
fn a_session_whose_server_is_no_longer_configured_is_gone() {
    let site = Site::new();
    let removed = ServerName::new("Z");
    let question = Question {
        session: Some(Pin {
            database: &site.names.db1,
            server: &removed,
        }),
        ..site.stateless(RequestType::NotificationWait)
    };

    assert_eq!(site.decide(&question), gone(MOVED));
}

#[test]
fn a_session_whose_server_is_down_waits_for_it_and_goes_to_no_passive_copy() {
    let site = Site::new().down(&["A"]);
    for kind in within_a_session() {
        assert_eq!(
            site.decide(&site.of_session(kind)),
            site.no_copy("connection refused"),
            "{kind:?}"
        );
    }
}

#[test]
fn a_session_whose_server_could_not_be_reached_gets_no_other_copy() {
    let site = Site::new();
    let question = Question {
        tried: std::slice::from_ref(&site.names.a),
        ..site.of_session(RequestType::Execute)
    };

    assert_eq!(site.decide(&question), site.no_copy(UNREACHABLE));
}

#[test]
fn a_session_whose_server_could_not_be_reached_is_gone_once_its_database_moved() {
    let site = Site::new().moved();
    let question = Question {
        tried: std::slice::from_ref(&site.names.a),
        ..site.of_session(RequestType::Execute)
    };

    assert_eq!(site.decide(&question), gone(MOVED));
}

#[test]
fn a_session_unknown_here_goes_to_the_active_copy_of_its_mailbox() {
    let site = Site::new();
    for kind in within_a_session().chain(CLOSERS) {
        assert_eq!(
            site.decide(&site.stateless(kind)),
            site.to(&site.names.a, RouteReason::Stateless),
            "{kind:?}"
        );
    }
}

#[test]
fn a_request_without_a_session_is_the_active_servers_to_answer() {
    let site = Site::new().moved();
    for kind in within_a_session().chain(CLOSERS) {
        assert_eq!(
            site.decide(&site.fresh(kind)),
            site.to(&site.names.b, RouteReason::Stateless),
            "{kind:?}"
        );
    }
}

#[test]
fn an_unknown_session_may_go_on_where_the_database_moved_to_while_it_was_tried() {
    let site = Site::new().moved();
    let question = Question {
        tried: std::slice::from_ref(&site.names.a),
        ..site.stateless(RequestType::Execute)
    };

    assert_eq!(
        site.decide(&question),
        site.to(&site.names.b, RouteReason::Retried)
    );
}

#[test]
fn a_new_session_without_cookies_begins_at_the_active_copy() {
    let site = Site::new();
    for kind in OPENERS {
        assert_eq!(
            site.decide(&site.fresh(kind)),
            site.stripped_to(&site.names.a, RouteReason::ActiveCopy)
        );
    }
}

#[test]
fn a_new_session_shows_its_old_cookies_to_the_server_that_issued_them() {
    let site = Site::new();
    for kind in OPENERS {
        assert_eq!(
            site.decide(&site.of_session(kind)),
            site.to(&site.names.a, RouteReason::ActiveCopy)
        );
    }
}

#[test]
fn a_new_session_hides_its_old_cookies_from_any_other_server() {
    let site = Site::new().moved();
    for kind in OPENERS {
        for question in [site.of_session(kind), site.stateless(kind)] {
            assert_eq!(
                site.decide(&question),
                site.stripped_to(&site.names.b, RouteReason::ActiveCopy)
            );
        }
    }
}

#[test]
fn a_new_session_is_never_placed_by_an_old_one() {
    let site = Site::new();
    for kind in OPENERS {
        let question = Question {
            database: None,
            ..site.of_session(kind)
        };
        assert_eq!(
            site.decide(&question),
            Decision::Refuse(Refusal::UnknownMailbox)
        );
    }
}

#[test]
fn a_new_session_follows_its_database_when_the_first_server_could_not_be_reached() {
    let site = Site::new().moved();
    let question = Question {
        tried: std::slice::from_ref(&site.names.a),
        ..site.fresh(RequestType::Connect)
    };

    assert_eq!(
        site.decide(&question),
        site.stripped_to(&site.names.b, RouteReason::Retried)
    );
}

#[test]
fn a_new_session_is_refused_while_the_active_copy_is_down_or_was_tried() {
    let site = Site::new().down(&["A"]);
    let tried = Site::new();
    for kind in OPENERS {
        assert_eq!(
            site.decide(&site.of_session(kind)),
            site.no_copy("connection refused")
        );
        let question = Question {
            tried: std::slice::from_ref(&tried.names.a),
            ..tried.fresh(kind)
        };
        assert_eq!(tried.decide(&question), tried.no_copy(UNREACHABLE));
    }
}

#[test]
fn a_database_nobody_configured_has_no_eligible_copy() {
    let site = Site::new();
    for kind in [RequestType::Connect, RequestType::Execute] {
        let question = Question {
            database: Some(&site.names.unknown),
            ..site.fresh(kind)
        };
        let database = site.names.unknown.clone();
        assert_eq!(
            site.decide(&question),
            Decision::Refuse(Refusal::NoEligibleCopy {
                database,
                why: HOMELESS
            })
        );
    }
}

#[test]
fn a_mailbox_nobody_knows_is_told_so() {
    let site = Site::new();
    for kind in within_a_session().chain(OPENERS).chain(CLOSERS) {
        let question = Question {
            database: None,
            ..site.stateless(kind)
        };
        assert_eq!(
            site.decide(&question),
            Decision::Refuse(Refusal::UnknownMailbox),
            "{kind:?}"
        );
    }
}

#[test]
fn leaving_a_session_out_of_reach_succeeds_here() {
    let moved = Site::new().moved();
    let down = Site::new().down(&["A"]);
    let site = Site::new();
    for kind in CLOSERS {
        assert_eq!(moved.decide(&moved.of_session(kind)), Decision::EndSession);
        assert_eq!(down.decide(&down.of_session(kind)), Decision::EndSession);
        assert_eq!(down.decide(&down.stateless(kind)), Decision::EndSession);
        let unreachable = Question {
            tried: std::slice::from_ref(&site.names.a),
            ..site.of_session(kind)
        };
        assert_eq!(site.decide(&unreachable), Decision::EndSession);
        let forgotten = Question {
            session: Some(Pin {
                database: &site.names.unknown,
                server: &site.names.a,
            }),
            database: None,
            ..site.stateless(kind)
        };
        assert_eq!(site.decide(&forgotten), Decision::EndSession);
    }
}

#[test]
fn leaving_without_a_session_is_not_a_success() {
    let site = Site::new().down(&["A"]);
    for kind in CLOSERS {
        assert_eq!(
            site.decide(&site.fresh(kind)),
            site.no_copy("connection refused")
        );
    }
}

#[test]
fn a_server_that_does_not_speak_mapi_over_http_says_so_to_all_but_the_leaving() {
    let mut site = Site::new();
    site.incapable.push(site.names.a.clone());
    let server = site.names.a.clone();
    let refusal = Decision::Refuse(Refusal::NotCapable { server });

    for kind in within_a_session().chain(OPENERS) {
        assert_eq!(site.decide(&site.of_session(kind)), refusal, "{kind:?}");
    }
    for kind in CLOSERS {
        assert_eq!(site.decide(&site.of_session(kind)), Decision::EndSession);
    }
}

#[test]
fn when_health_is_not_believed_a_server_marked_down_is_tried() {
    let mut site = Site::new();
    site.health = health(&["A", "B"], 50);
    let question = site.of_session(RequestType::Execute);

    assert_eq!(
        site.decide(&question),
        site.to(&site.names.a, RouteReason::Pinned)
    );
}

/// What must hold whatever comes together.
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
