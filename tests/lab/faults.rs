//! Each wrong thing on command: seen as such by a client, executed at most once, and over afterwards.

use mapigate::lab::checker::{self, History};
use mapigate::lab::mailbox_server::{Fault, Mode, Place};
use mapigate::lab::outlook::Trouble;
use mapigate::mapi::{Flavour, RequestType};

use crate::{BOTH, options, outlook_options, server};

#[tokio::test]
async fn after_every_fault_an_outlook_goes_on_and_nothing_ran_twice() {
    for flavour in BOTH {
        for (word, fault) in Fault::all() {
            let mut options = options(flavour);
            options.mode = Mode::Naive;
            options.drip_interval = std::time::Duration::ZERO;
            options.answer_bytes = 64;
            let server = server(options).await;
            let mut options = outlook_options(&server, "user1@contoso.test");
            // Hanging servers are left soon.
            options.answer_timeout = std::time::Duration::from_millis(300);
            let outlook = mapigate::lab::Outlook::new(options);
            outlook.connect().await.unwrap();

            if word.ends_with("on-accept") {
                outlook.drop_connections().await;
                server.fault(fault, 1, None);
            } else {
                server.fault(fault, 1, Some(RequestType::Execute));
            }
            let during = outlook.execute(b"under fault").await;
            let seen = match &during {
                Ok(_) => "fine",
                Err(Trouble::Lost(_)) => "lost",
                Err(Trouble::Status(_)) => "status",
                Err(Trouble::Wrong(_)) => "wrong",
                Err(_) => "other",
            };
            if let Some(expected) = expected(fault) {
                assert_eq!(seen, expected, "{flavour:?} {word}: {during:?}");
            }
            let after = outlook.execute(b"after").await;

            assert!(after.is_ok(), "{flavour:?} {word}: {after:?}");
            assert_eq!(server.counters().faults_left, 0, "{flavour:?} {word}");
            let broken = checker::check(
                &outlook.sent(),
                &server.executed(),
                |_| None,
                &History::default(),
            );
            assert!(broken.is_empty(), "{flavour:?} {word}: {broken:?}");
        }
    }
}

/// What an Outlook sees of it; a lenient one, because it is the proxy that must be strict.
fn expected(fault: Fault) -> Option<&'static str> {
    match fault {
        // Whether anything was sent before the connection ended is a race.
        Fault::End(_, Place::Accept) => None,
        Fault::End(_, Place::Idle) => Some("fine"),
        Fault::End(..) | Fault::HangBeforeHead | Fault::HangAfterProcessing => Some("lost"),
        Fault::Garbage | Fault::LengthAndChunked => Some("lost"),
        Fault::Status(503) => Some("fine"),
        Fault::Status(_) | Fault::AnswerEarly => Some("status"),
        Fault::Gzip => Some("wrong"),
        _ => Some("fine"),
    }
}

#[tokio::test]
async fn a_server_killed_in_the_middle_executed_what_its_journal_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("executed.jsonl");
    let mut options = options(Flavour::Gromox);
    options.journal = mapigate::lab::mailbox_server::Journal::in_file(&path).unwrap();
    let server = server(options).await;
    let outlook = mapigate::lab::Outlook::new(outlook_options(&server, "user1@contoso.test"));
    outlook.connect().await.unwrap();
    outlook.execute(b"one").await.unwrap();
    server.kill().await;

    let text = std::fs::read_to_string(path).unwrap();
    let entry: mapigate::lab::mailbox_server::Executed =
        serde_json::from_str(text.lines().next().unwrap()).unwrap();

    assert_eq!(text.lines().count(), 1);
    assert_eq!(entry.nonce, outlook.sent()[0].nonce);
}
