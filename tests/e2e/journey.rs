//! The main road: connect, execute, wait, disconnect; on both flavours.

use crate::support::{brisk, eventually, start};
use mapigate::mapi::{Flavour, RequestType};

async fn a_session_runs_from_connect_to_disconnect(flavour: Flavour, back_tls: bool) {
    let mut plan = brisk(flavour);
    plan.back_tls = back_tls;
    let site = start(plan).await;
    let outlook = site.outlook(1).unwrap();

    outlook.connect().await.unwrap();
    outlook.log_on().await.unwrap();
    for _ in 0..5 {
        outlook.execute(b"rops").await.unwrap();
    }
    let (waited, ()) = tokio::join!(outlook.notification_wait(), async {
        let active = site.server("MBX1").unwrap();
        eventually("a poll is held", || async {
            active.requests(RequestType::NotificationWait) == 1
        })
        .await;
        active.wake(None);
    });
    assert!(waited.unwrap().is_event);
    outlook.collect().await.unwrap();
    outlook.bind().await.unwrap();
    outlook.unbind().await.unwrap();
    outlook.disconnect().await.unwrap();

    let active = site.server("MBX1").unwrap();
    assert_eq!(active.requests(RequestType::Connect), 1);
    assert_eq!(active.requests(RequestType::Disconnect), 1);
    assert_eq!(
        site.server("MBX2").unwrap().requests(RequestType::Execute),
        0
    );
}

#[tokio::test]
async fn a_session_runs_on_exchange() {
    a_session_runs_from_connect_to_disconnect(Flavour::Exchange, false).await;
}

#[tokio::test]
async fn a_session_runs_on_gromox() {
    a_session_runs_from_connect_to_disconnect(Flavour::Gromox, false).await;
}

#[tokio::test]
async fn a_session_runs_with_tls_to_the_servers() {
    a_session_runs_from_connect_to_disconnect(Flavour::Exchange, true).await;
}
