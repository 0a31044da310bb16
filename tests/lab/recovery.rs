//! Outlook finds its way back by the protocol's rules.

use std::time::Duration;

use mapigate::lab::checker::{self, History};
use mapigate::lab::mailbox_server::{Fault, Mode};
use mapigate::lab::outlook::{CookieLines, Outcome, Trouble};
use mapigate::lab::{MailboxServer, Outlook};
use mapigate::mapi::bodies::Body;
use mapigate::mapi::bodies::nspi::{QueryRowsRequest, Stat};
use mapigate::mapi::{Endpoint, Flavour, RequestType};

use crate::{BOTH, eventually, options, outlook, outlook_options, server};

fn nothing_broken(clients: &[&Outlook], server: &MailboxServer) {
    let sent: Vec<_> = clients.iter().flat_map(|client| client.sent()).collect();
    let broken = checker::check(&sent, &server.executed(), |_| None, &History::default());
    assert!(broken.is_empty(), "{broken:?}");
}

#[tokio::test]
async fn a_session_from_connect_to_disconnect() {
    for flavour in BOTH {
        for lines in [CookieLines::One, CookieLines::Each] {
            let server = server(options(flavour)).await;
            let mut options = outlook_options(&server, "user1@contoso.test");
            options.cookie_lines = lines;
            let outlook = Outlook::new(options);

            outlook.connect().await.unwrap();
            outlook.log_on().await.unwrap();
            for _ in 0..5 {
                outlook.execute(b"something").await.unwrap();
            }
            assert_eq!(outlook.ping(Endpoint::Emsmdb).await.unwrap(), 0);
            outlook.disconnect().await.unwrap();

            assert_eq!(server.counters().executes, 7);
            assert_eq!(server.counters().connections, 1);
            assert_eq!(server.counters().contexts, 0);
            nothing_broken(&[&outlook], &server);
        }
    }
}

#[tokio::test]
async fn the_address_book_has_a_session_of_its_own() {
    for flavour in BOTH {
        let server = server(options(flavour)).await;
        let outlook = outlook(&server, "user1@contoso.test");
        outlook.connect().await.unwrap();
        outlook.bind().await.unwrap();

        let query = QueryRowsRequest {
            state: Some(Stat::start()),
            row_count: 50,
            ..QueryRowsRequest::default()
        };
        for _ in 0..2 {
            outlook
                .look_up(RequestType::QueryRows, query.encode())
                .await
                .unwrap();
            outlook.execute(b"between").await.unwrap();
        }
        outlook.unbind().await.unwrap();
        outlook.execute(b"still there").await.unwrap();

        nothing_broken(&[&outlook], &server);
    }
}

#[tokio::test]
async fn one_client_is_told_of_what_another_saved() {
    for flavour in BOTH {
        let server = server(options(flavour)).await;
        let (one, other) = (
            outlook(&server, "user1@contoso.test"),
            outlook(&server, "user1@contoso.test"),
        );
        for client in [&one, &other] {
            client.connect().await.unwrap();
            client.log_on().await.unwrap();
        }

        let wait = tokio::spawn({
            let one = one.clone();
            async move { one.notification_wait().await }
        });
        eventually("held", || server.counters().waits_held == 1).await;
        one.execute(b"meanwhile").await.unwrap();
        other.save_message().await.unwrap();

        assert!(wait.await.unwrap().unwrap().is_event);
        let collected = one.collect().await.unwrap();
        assert!(collected.body.rop_buffer.contains(&0x2a));
    }
}

#[tokio::test]
async fn a_second_held_request_is_rejected_and_the_first_goes_on() {
    for flavour in BOTH {
        let server = server(options(flavour)).await;
        let (one, twin) = (
            outlook(&server, "user1@contoso.test"),
            outlook(&server, "user1@contoso.test"),
        );
        one.connect().await.unwrap();
        twin.set_cookies(Endpoint::Emsmdb, one.cookies(Endpoint::Emsmdb));
        let wait = tokio::spawn({
            let one = one.clone();
            async move { one.notification_wait().await }
        });
        eventually("held", || server.counters().waits_held == 1).await;

        let second = twin.notification_wait().await.unwrap();
        server.wake(Some("user1@contoso.test"));

        assert_eq!((second.error_code, second.is_event), (0x7ee, false));
        assert!(wait.await.unwrap().unwrap().is_event);
    }
}

#[tokio::test]
async fn a_client_that_lost_its_connections_goes_on_with_its_session() {
    for flavour in BOTH {
        let server = server(options(flavour)).await;
        let outlook = outlook(&server, "user1@contoso.test");
        outlook.connect().await.unwrap();

        for _ in 0..5 {
            outlook.execute(b"before").await.unwrap();
            outlook.drop_connections().await;
        }

        assert_eq!(outlook.counters().connections, 5);
        assert_eq!(outlook.counters().reconnects, 0);
        nothing_broken(&[&outlook], &server);
    }
}

#[tokio::test]
async fn a_server_that_was_restarted_costs_one_code_10_and_no_execute() {
    for flavour in BOTH {
        let first = server(options(flavour)).await;
        let outlook = outlook(&first, "user1@contoso.test");
        outlook.connect().await.unwrap();
        outlook.execute(b"before").await.unwrap();

        let successor = server(first.kill().await).await;
        outlook.execute(b"after").await.unwrap();

        let counters = outlook.counters();
        assert_eq!(counters.code10s, [1, 0]);
        assert_eq!((counters.reconnects, counters.executes_ok), (1, 2));
        assert_eq!(counters.recoveries.len(), 1);
        nothing_broken(&[&outlook], &successor);
    }
}

#[tokio::test]
async fn what_failed_while_its_answer_was_read_is_given_up_and_not_sent_again() {
    let mut options = options(Flavour::Gromox);
    options.mode = Mode::Naive;
    let server = server(options).await;
    let outlook = outlook(&server, "user1@contoso.test");
    outlook.connect().await.unwrap();
    let fault: Fault = "reset-before-head".parse().unwrap();
    server.fault(fault, 1, Some(RequestType::Execute));

    let lost = outlook.execute(b"lost").await;
    outlook.execute(b"next").await.unwrap();

    assert!(matches!(lost, Err(Trouble::Lost(_))));
    assert!(matches!(outlook.sent()[0].outcome, Outcome::Unknown(_)));
    assert_eq!(server.counters().executes, 2);
    assert_eq!(outlook.counters().reconnects, 1);
    nothing_broken(&[&outlook], &server);
}

#[tokio::test]
async fn a_busy_server_is_tried_again_with_the_same_request() {
    let server = server(options(Flavour::Exchange)).await;
    let outlook = outlook(&server, "user1@contoso.test");
    outlook.connect().await.unwrap();
    let fault: Fault = "status-503".parse().unwrap();
    server.fault(fault, 2, Some(RequestType::Execute));

    outlook.execute(b"patient").await.unwrap();

    assert_eq!(outlook.sent()[0].tries, 3);
    assert_eq!(server.counters().executes, 1);
    nothing_broken(&[&outlook], &server);
}

#[tokio::test]
async fn a_refused_connection_is_tried_until_the_server_listens_again() {
    let server = server(options(Flavour::Exchange)).await;
    let outlook = outlook(&server, "user1@contoso.test");
    outlook.connect().await.unwrap();
    outlook.drop_connections().await;
    server.listen(false);
    eventually("refused", || {
        std::net::TcpStream::connect(server.address()).is_err()
    })
    .await;

    let execute = tokio::spawn({
        let outlook = outlook.clone();
        async move { outlook.execute(b"stubborn").await }
    });
    eventually("tried", || outlook.counters().resent > 0).await;
    server.listen(true);

    execute.await.unwrap().unwrap();
    assert_eq!(outlook.counters().reconnects, 0);
}

#[tokio::test]
async fn a_moved_database_ends_its_sessions_and_its_held_requests() {
    let mut options = options(Flavour::Exchange);
    options.strict_databases = true;
    options.default_database = Some(mapigate::ids::DatabaseName::new("DB07"));
    options.databases = [mapigate::ids::DatabaseName::new("DB07")].into();
    let server = server(options).await;
    let outlook = outlook(&server, "user1@contoso.test");
    outlook.connect().await.unwrap();
    let wait = tokio::spawn({
        let outlook = outlook.clone();
        async move { outlook.notification_wait().await }
    });
    eventually("held", || server.counters().waits_held == 1).await;

    server.set_active("DB07", false);
    let waited = wait.await.unwrap();
    server.set_active("DB07", true);
    outlook.execute(b"back").await.unwrap();

    assert!(matches!(waited, Err(Trouble::Code(10))));
    assert_eq!(outlook.counters().reconnects, 1);
    assert_eq!(outlook.counters().waits_lost, 1);
}

#[tokio::test]
async fn a_client_that_leaves_a_held_request_is_noticed_and_gromox_lets_it_linger() {
    for (flavour, lingering, expected) in [
        (Flavour::Exchange, 0, 0),
        (Flavour::Gromox, 0, 0),
        (Flavour::Gromox, 60, 0x7ee),
    ] {
        let mut options = options(flavour);
        options.lingering_wait = Duration::from_secs(lingering);
        let server = server(options).await;
        let outlook = outlook(&server, "user1@contoso.test");
        outlook.connect().await.unwrap();
        let wait = || {
            let outlook = outlook.clone();
            tokio::spawn(async move { outlook.notification_wait().await })
        };

        let first = wait();
        eventually("held", || server.counters().waits_held == 1).await;
        first.abort();
        let _ = first.await;
        eventually("noticed", || server.counters().waits_aborted == 1).await;
        let again = wait();
        if expected == 0 {
            eventually("held again", || server.counters().waits_held == 2).await;
            server.wake(None);
        }

        let again = again.await.unwrap().unwrap();
        assert_eq!(again.error_code, expected, "{flavour:?} {lingering}");
    }
}
