//! The lab by itself: simulated Outlooks against simulated mailbox servers, over real sockets.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

#[path = "../captures/mod.rs"]
#[allow(dead_code, reason = "what only tests with mapigate in between need")]
mod captures;
mod conformance;
mod faults;
mod habits;
mod recovery;
mod replay;

use std::time::Duration;

use mapigate::lab::mailbox_server::Options as ServerOptions;
use mapigate::lab::outlook::{Options as OutlookOptions, Target};
use mapigate::lab::{Authority, MailboxServer, Outlook};
use mapigate::mapi::Flavour;

const BOTH: [Flavour; 2] = [Flavour::Exchange, Flavour::Gromox];

fn options(flavour: Flavour) -> ServerOptions {
    let mut options = ServerOptions::new("MBX1", flavour);
    options.lingering_wait = Duration::ZERO;
    options
}

async fn server(options: ServerOptions) -> MailboxServer {
    MailboxServer::spawn(options).await.unwrap()
}

fn outlook_options(server: &MailboxServer, user: &str) -> OutlookOptions {
    let target = Target {
        address: server.address(),
        host: server.address().to_string(),
        tls: None,
    };
    let mut options = OutlookOptions::new(
        target,
        user,
        "secret",
        "416c6368-656d-794a-6f45-57615272456e@contoso.test",
    );
    options.numbers = server.options().flavour;
    options.patience = Duration::from_secs(10);
    options.answer_timeout = Duration::from_secs(10);
    options
}

fn outlook(server: &MailboxServer, user: &str) -> Outlook {
    Outlook::new(outlook_options(server, user))
}

/// Waits until something is true, and no longer than a test may take.
async fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let watch = async {
        while !is_true() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), watch)
        .await
        .unwrap_or_else(|_| panic!("never came true: {what}"));
}

#[tokio::test]
async fn an_outlook_works_through_tls_with_a_certificate_of_its_own() {
    let authority = Authority::new("Lab CA").unwrap();
    let mut options = options(Flavour::Exchange);
    options.tls = Some(
        authority
            .strict_server_config(&["mbx1.contoso.test"])
            .unwrap(),
    );
    let server = server(options).await;
    let mut with = outlook_options(&server, "user1@contoso.test");
    with.target.host = "mbx1.contoso.test".to_owned();
    with.patience = Duration::from_millis(100);
    let mut without = with.clone();
    let credential = authority.client("gate").unwrap();
    with.target.tls = Some(authority.client_config_as(&credential).unwrap());
    without.target.tls = Some(authority.client_config().unwrap());

    let (with, without) = (Outlook::new(with), Outlook::new(without));
    with.connect().await.unwrap();
    let reply = with.execute(b"hello").await.unwrap();

    assert_eq!(reply.served_by(), "MBX1");
    assert!(without.connect().await.is_err());
}
