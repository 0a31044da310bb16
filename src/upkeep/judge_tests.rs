#![expect(clippy::disallowed_methods, reason = "tests begin somewhere in time")]

use super::super::world::{server, settings};
use super::*;
use crate::auth::{Asker, AuthStep, Memo, Scheme};
use crate::config::settings::{BasicAuth, BasicVerify};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::net::SocketAddr;
use std::time::SystemTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const ASKS: &str = "401 No\r\nWWW-Authenticate: Basic realm=\"mail\"";

/// Heads that a server read.
type Heads = Arc<Mutex<Vec<String>>>;

/// A server that answers as `answer` says, which gets name and password.
async fn serving(
    answer: impl Fn(Option<&str>) -> &'static str + Send + 'static,
) -> (SocketAddr, Heads) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let heads = Heads::default();
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = socket.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                if connection.read_buf(&mut head).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            let head = String::from_utf8(head).unwrap();
            let shown = head
                .lines()
                .find_map(|line| line.strip_prefix("Authorization: Basic "));
            let login = shown.map(|token| String::from_utf8(STANDARD.decode(token).unwrap()));
            let words = answer(login.map(Result::unwrap).as_deref());
            seen.lock().push(head);
            let answer = format!("HTTP/1.1 {words}\r\nContent-Length: 0\r\n\r\n");
            let _left = connection.write_all(answer.as_bytes()).await;
        }
    });
    (address, heads)
}

/// A world whose one database is on this server.
fn world(address: SocketAddr) -> Arc<Snapshot> {
    let mut settings = settings();
    let name = ServerName::new("MBX1");
    settings.servers.insert(name, server("MBX1", address));
    settings.auth.basic = Some(BasicAuth {
        realm: "mail".to_owned(),
        verify: BasicVerify::Backend,
        default_domain: Some("contoso.test".to_owned()),
    });
    let world = Arc::new(Snapshot::build(settings, None).unwrap());
    appoint_judge(&world);
    world
}

async fn show(world: &Snapshot, login: &str) -> Result<String, Denied> {
    let value = format!("Basic {}", STANDARD.encode(login));
    let asker = Asker {
        authorization: Some(value.as_bytes()),
        offered: &[Scheme::Basic],
        source: std::net::Ipv4Addr::LOCALHOST.into(),
        now: (Instant::now(), SystemTime::now()),
    };
    let identity = match world.auth.step(&asker, &mut Memo::default()) {
        AuthStep::Granted(identity) => Ok(identity),
        AuthStep::Verify(verification) => verification.run().await,
        AuthStep::Deny(_, denied) => Err(denied),
        other => panic!("{other:?}"),
    };
    identity.map(|identity| identity.user.to_string())
}

#[tokio::test]
async fn the_server_is_asked_under_the_name_that_is_believed() {
    let (address, heads) = serving(|login| match login {
        Some("user1@contoso.test:right") => "200 OK",
        _ => ASKS,
    })
    .await;
    let world = world(address);

    assert_eq!(
        show(&world, "USER1:right").await.unwrap(),
        "user1@contoso.test"
    );
    assert_eq!(
        show(&world, "user1:wrong").await.unwrap_err(),
        Denied::Credentials("wrong name or password")
    );

    let heads = heads.lock();
    // What anybody gets, the right and the wrong password.
    assert_eq!(heads.len(), 3);
    for head in heads.iter() {
        assert!(
            head.starts_with("POST /mapi/emsmdb/?MailboxId=00000000-0000-0000-0000-000000000000@contoso.test HTTP/1.1\r\n"),
            "{head}"
        );
        assert!(head.contains("X-RequestType: PING\r\n"), "{head}");
        assert!(head.contains("Connection: close\r\n"), "{head}");
    }
}

#[tokio::test]
async fn a_name_that_anybody_made_up_writes_nothing_but_itself() {
    let (address, heads) = serving(|_| ASKS).await;

    let name = "user1@x HTTP/1.1 y?z&a";
    assert!(
        show(&world(address), &format!("{name}:guess"))
            .await
            .is_err()
    );

    for head in heads.lock().iter() {
        let line = head.lines().next().unwrap();
        assert!(line.ends_with("-000000000000@invalid HTTP/1.1"), "{line}");
    }
}

#[tokio::test]
async fn a_server_that_lets_in_who_shows_nothing_is_not_believed() {
    let (address, heads) = serving(|_| "200 OK").await;

    let denied = show(&world(address), "user1:right").await.unwrap_err();

    assert_eq!(denied, Denied::Unjudged(LETS_IN));
    // The password went nowhere.
    assert_eq!(heads.lock().len(), 1);
}

#[tokio::test]
async fn a_server_that_takes_no_basic_says_nothing_about_passwords() {
    let (address, heads) = serving(|_| "401 No\r\nWWW-Authenticate: Negotiate").await;

    let denied = show(&world(address), "user1:right").await.unwrap_err();

    assert_eq!(denied, Denied::Unjudged(NO_BASIC));
    assert_eq!(heads.lock().len(), 1);
}

#[tokio::test]
async fn an_answer_that_is_neither_yes_nor_no_is_not_remembered() {
    for other in [
        "302 Elsewhere",
        "403 No",
        "404 No",
        "429 Later",
        "503 Later",
    ] {
        let (address, heads) = serving(move |login| match login {
            Some(_) => other,
            None => ASKS,
        })
        .await;
        let world = world(address);

        for _ in 0..2 {
            let denied = show(&world, "user1:right").await.unwrap_err();
            assert_eq!(denied, Denied::Unjudged(NEITHER), "{other}");
        }
        assert_eq!(heads.lock().len(), 3, "{other}");
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_no_wrong_password() {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));

    let denied = show(&world(nowhere), "user1:right").await.unwrap_err();

    assert_eq!(denied, Denied::Unjudged(SILENT));
}
