//! The failover table, row by row.

use super::*;

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
