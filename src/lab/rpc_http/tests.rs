use super::client::{self, RpcOutlook, Trouble};
use super::server::{self, RpcServer};
use crate::ids::UserName;
use crate::lab::mailbox_server::Users;
use crate::lab::outlook::wire::Target;
use crate::lab::tap::Tap;
use crate::lab::{Authority, LAB_SIZED_OPERATION};
use crate::mapi::bodies::ExecuteRequest;
use crate::mapi::bodies::rops::{write_chain, write_payload};
use crate::rpch::pdu::Seal;
use std::time::Duration;
use tokio::time::timeout;

const MAILBOX: &str = "00000000-0000-4000-8000-000000000001@contoso.test";

async fn server(change: impl FnOnce(&mut server::Options)) -> RpcServer {
    let mut options = server::Options::new("MBX1");
    change(&mut options);
    RpcServer::spawn(options).await.unwrap()
}

fn options(server: &RpcServer) -> client::Options {
    let target = Target {
        address: server.address(),
        host: "mail.contoso.test".to_owned(),
        tls: None,
    };
    client::Options::new(target, "user1@contoso.test", "example", MAILBOX)
}

/// An Execute that asks for an answer of so many bytes.
fn sized(bytes: u32) -> ExecuteRequest {
    let mut operation = vec![LAB_SIZED_OPERATION];
    operation.extend(bytes.to_le_bytes());
    ExecuteRequest::of(write_chain(&[write_payload(&operation, &[])]))
}

async fn eventually(is_so: impl Fn() -> bool) {
    let looking = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    let found = timeout(Duration::from_secs(10), looking).await;
    found.expect("it never was so");
}

#[tokio::test]
async fn a_session_executes_over_two_connections_and_ends() {
    let server = server(|_| ()).await;
    let outlook = RpcOutlook::open(options(&server)).await.unwrap();

    outlook.log_on().await.unwrap();
    let answer = outlook.execute(&sized(300_000)).await.unwrap();

    assert_eq!(answer.rop_buffer.len(), 300_000);
    assert_eq!(server.connections_open(), 2);
    assert_eq!((server.sessions_opened(), server.executes()), (1, 3));
    outlook.disconnect().await.unwrap();
    assert!(matches!(
        outlook.execute(&sized(100)).await,
        Err(Trouble::Fault(_))
    ));
    drop(outlook);
    eventually(|| server.connections_open() == 0 && server.virtual_connections() == 0).await;
}

#[tokio::test]
async fn tls_changes_nothing() {
    let authority = Authority::new("lab").unwrap();
    let tls = authority.server_config(&["mail.contoso.test"]).unwrap();
    let server = server(|options| options.tls = Some(tls)).await;
    let mut options = options(&server);
    options.target.tls = Some(authority.client_config().unwrap());

    let outlook = RpcOutlook::open(options).await.unwrap();

    let answer = outlook.execute(&sized(100_000)).await.unwrap();
    assert_eq!(answer.rop_buffer.len(), 100_000);
}

#[tokio::test]
async fn a_wait_is_held_beside_executes_until_something_happens() {
    let server = server(|_| ()).await;
    let outlook = RpcOutlook::open(options(&server)).await.unwrap();
    let wait = outlook.notification_wait();
    tokio::pin!(wait);
    assert!(
        timeout(Duration::from_millis(50), &mut wait).await.is_err(),
        "nothing has happened"
    );
    outlook.execute(&sized(1000)).await.unwrap();
    assert_eq!(server.waits_held(), 1);

    server.wake();

    assert!(wait.await.unwrap());
    assert_eq!(server.connections_open(), 2);
}

#[tokio::test]
async fn a_wait_ends_by_itself_when_its_time_is_over() {
    let server = server(|options| options.wait_limit = Duration::from_millis(20)).await;
    let outlook = RpcOutlook::open(options(&server)).await.unwrap();

    assert!(!outlook.notification_wait().await.unwrap());
}

#[tokio::test]
async fn small_windows_slow_nobody_to_a_halt() {
    let server = server(|options| options.window = 8192).await;
    let mut options = options(&server);
    options.window = 8192;
    let outlook = RpcOutlook::open(options).await.unwrap();

    for _ in 0..5 {
        let mut request = sized(200_000);
        // Many fragments on the way in as well.
        request.auxiliary = vec![7; 60_000];
        let answer = outlook.execute(&request).await.unwrap();
        assert_eq!(answer.rop_buffer.len(), 200_000);
    }
}

#[tokio::test]
async fn both_channels_are_replaced_in_mid_work_and_nothing_is_lost() {
    let server = server(|options| options.out_lifetime = 100_000).await;
    let mut options = options(&server);
    options.in_lifetime = 50_000;
    let outlook = RpcOutlook::open(options).await.unwrap();
    outlook.log_on().await.unwrap();

    for round in 0..40 {
        let mut request = sized(50_000);
        request.auxiliary = vec![7; 10_000];
        let answer = outlook.execute(&request).await;
        assert_eq!(answer.unwrap().rop_buffer.len(), 50_000, "round {round}");
    }

    assert!(outlook.successors() > 10, "{}", outlook.successors());
    assert_eq!(server.sessions_opened(), 1);
    // The predecessors are gone.
    eventually(|| server.connections_open() <= 3).await;
}

#[tokio::test]
async fn a_lost_connection_is_a_lost_session() {
    let server = server(|_| ()).await;
    let outlook = RpcOutlook::open(options(&server)).await.unwrap();

    server.cut_connections();

    let lost = outlook.execute(&sized(100)).await;
    assert!(matches!(lost, Err(Trouble::Lost(_))), "{lost:?}");
    eventually(|| server.virtual_connections() == 0).await;
    RpcOutlook::open(options(&server)).await.unwrap();
    assert_eq!(server.sessions_opened(), 2);
}

#[tokio::test]
async fn a_wrong_password_opens_nothing() {
    let known = [(UserName::new("user1@contoso.test"), "another".to_owned())];
    let server = server(|options| options.users = Users::Listed(known.into())).await;

    let refused = RpcOutlook::open(options(&server)).await;

    assert!(
        matches!(&refused, Err(Trouble::Lost(why)) if why.contains("401")),
        "{refused:?}"
    );
    assert_eq!(server.virtual_connections(), 0);
}

#[tokio::test]
async fn a_sealed_session_is_answered_sealed() {
    let server = server(|_| ()).await;
    let tap = Tap::default();
    let mut options = options(&server);
    options.tap = Some(tap.clone());
    options.seal = Some(Seal {
        service: 10,
        level: 6,
        signature: 16,
    });
    let outlook = RpcOutlook::open(options).await.unwrap();
    tap.take();

    // 100 bytes of operations in a stub of 164; padded to 176.
    outlook.execute(&sized(100)).await.unwrap();

    let heard: Vec<usize> = tap.take().iter().map(|talk| talk.received.len()).collect();
    assert_eq!(heard, [24 + 176 + 8 + 16, 0]);
}
