//! Kerberos below the other virtual directories: the same logon, the same bindings.

use crate::client::{Client, end_point, negotiate, ping};
use crate::lab::DOMAIN;
use crate::site::{AdSite, Offer, start_with};
use mapigate::lab::outlook::wire::Answer;
use mapigate::lab::site::HOST;

const DIRECTORIES: [(&str, &str); 7] = [
    ("POST", "/ews/exchange.asmx"),
    ("GET", "/owa/"),
    ("GET", "/ecp/"),
    ("GET", "/oab/x"),
    ("POST", "/Microsoft-Server-ActiveSync?Cmd=Sync"),
    ("POST", "/powershell/"),
    ("GET", "/api/v2.0/me"),
];

async fn site(keys: &str) -> AdSite {
    let open = "{ preset: exchange2019, paths: [{ path: /ecp, from: everywhere }, { path: /powershell, from: everywhere }] }";
    let offer = Offer {
        negotiate: keys.to_owned(),
        ..Offer::of("negotiate")
    };
    start_with(offer, |plan| plan.section("virtual_directories", open)).await
}

fn request((method, path): (&str, &str), authorization: Option<&str>) -> Vec<u8> {
    let shown = authorization.map_or(String::new(), |value| format!("Authorization: {value}\r\n"));
    format!("{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n{shown}Content-Length: 0\r\n\r\n")
        .into_bytes()
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body()).unwrap()
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_proof_that_is_bound_to_another_certificate_opens_no_directory() {
    let site = site("").await;
    let (ours, theirs) = (site.binding(), end_point(b"somebody in the middle"));

    for directory in DIRECTORIES {
        for (binding, status) in [(&theirs, 401), (&ours, 200)] {
            let value = negotiate(&Client::new("alice").word(Some(binding)));
            let mut line = site.line().await;
            let answer = line.ask(&request(directory, Some(&value))).await.unwrap();
            assert_eq!(
                answer.head.status,
                status,
                "{directory:?}: {}",
                text(&answer)
            );
            let is_alice = text(&answer).contains(&format!("user=alice@{DOMAIN}"));
            assert_eq!(is_alice, status == 200, "{directory:?}");
        }
    }
    assert_eq!(site.served().len(), DIRECTORIES.len());
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_connection_that_is_proven_is_proven_for_mapi_and_every_directory() {
    let site = site("").await;
    let mut line = site.line().await;
    let value = negotiate(&Client::new("alice").word(None));

    let first = line.ask(&ping(Some(&value))).await.unwrap();
    assert_eq!(first.head.status, 200);
    for directory in DIRECTORIES {
        let answer = line.ask(&request(directory, None)).await.unwrap();
        assert_eq!(answer.head.status, 200, "{directory:?}: {}", text(&answer));
        assert!(text(&answer).contains(&format!("user=alice@{DOMAIN}")));
    }
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn without_bindings_such_a_proof_opens_every_directory() {
    let site = site("    channel_binding: off\n").await;
    let theirs = end_point(b"somebody in the middle");

    for directory in DIRECTORIES {
        let value = negotiate(&Client::new("alice").word(Some(&theirs)));
        let mut line = site.line().await;
        let answer = line.ask(&request(directory, Some(&value))).await.unwrap();
        assert_eq!(answer.head.status, 200, "{directory:?}");
    }
}
