//! What a real server said once, said again to a probe.

use super::{all_good_but, at, finding, report};
use crate::captures::exchange::{self, Recorded};
use mapigate::config::settings::Secret;
use mapigate::probe::{Credential, Known, Probe, Step};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Answers by what gromox 3.10 answered to the same request.
async fn parrot() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(speak(client));
        }
    });
    address
}

async fn speak(mut client: TcpStream) {
    let all = exchange::gromox();
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = memchr::memmem::find(&buffer, b"\r\n\r\n") {
                break end;
            }
            if client.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
        let field = |name: &str| {
            let mut lines = head.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        let length: usize = field("Content-Length").unwrap().parse().unwrap();
        while buffer.len() < end + 4 + length {
            client.read_buf(&mut buffer).await.unwrap();
        }
        let body: Vec<u8> = buffer.drain(..end + 4 + length).skip(end + 4).collect();
        let name = match (field("X-RequestType").unwrap(), field("Authorization")) {
            (_, None) => "01-unauthenticated",
            ("PING", _) => "04-ping-without-session",
            ("Connect", _) => "07-connect",
            ("Execute", _) if body.get(18) == Some(&0xfe) => "08-execute-roplogon",
            ("Execute", _) => "20-execute-registernotification",
            ("NotificationWait", _) => "22-notificationwait-woken",
            ("Disconnect", _) => "25-disconnect",
            ("Bind", _) => "29-nspi-bind",
            ("ResolveNames", _) => "31-nspi-resolvenames",
            ("QueryRows", _) => "32-nspi-queryrows",
            ("Unbind", _) => "35-nspi-unbind",
            (kind, _) => panic!("{kind}"),
        };
        let recorded = all.iter().find(|recorded| recorded.name == name).unwrap();
        client.write_all(&bytes(recorded)).await.unwrap();
    }
}

fn bytes(recorded: &Recorded) -> Vec<u8> {
    let mut head = format!("{}\r\n", recorded.status);
    for (name, value) in &recorded.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend(&recorded.wire);
    // Pages of HTML are left out of the recording.
    if let Some(length) = recorded.answered("Content-Length")
        && recorded.wire.is_empty()
    {
        bytes.extend(vec![b' '; length.parse().unwrap()]);
    }
    bytes
}

#[tokio::test]
async fn what_a_real_gromox_says_is_understood() {
    let url = "http://mbx1.org.test";
    let probe = at(url, parrot().await);
    let id = "75736572-3140-6f72-672e-746501000000@org.test";
    let dn =
        "/o=Gromox default/ou=Exchange Administrative Group (FYDIBOHF23SPDLT)/cn=Recipients/cn=x";
    let mut probe = Probe {
        mailbox: Some(Known::at(&probe.place, id, dn)),
        user: "user1".to_owned(),
        address: "user1@org.test".to_owned(),
        credential: Credential::Password(Secret::new("secret".to_owned())),
        ..probe
    };
    let unheard = [Step::Autodiscover, Step::AutodiscoverJson, Step::RpcEcho];
    probe.steps.retain(|step| !unheard.contains(step));

    let report = report(&probe).await;

    all_good_but(&report, &unheard);
    assert_eq!(
        finding(&report, Step::Wait).words,
        "woken: there is something to collect"
    );
    let connect = finding(&report, Step::Connect);
    assert!(
        connect.words.ends_with("cookies sid, sequence"),
        "{}",
        connect.words
    );
}
