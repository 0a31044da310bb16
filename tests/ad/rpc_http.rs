//! Outlook Anywhere by NTLM, with a client that others wrote.

use crate::lab::PASSWORD;
use crate::python::{nspi_bind, python};
use crate::site::{NTLM, Offer, eventually, start_with};
use mapigate::ids::UserName;
use mapigate::lab::mailbox_server::Users;
use mapigate::lab::rpc_http::{RpcServer, server};
use mapigate::lab::site::HOST;

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn impackets_client_proves_itself_by_ntlm_and_binds_the_address_book() {
    let Some(python) = python().await else { return };
    let mut options = server::Options::new("MBX1");
    let service = ("svc@contoso.test", "service secret");
    let listed = [(UserName::new(service.0), service.1.to_owned())];
    options.users = Users::Listed(listed.into_iter().collect());
    let mailbox_server = RpcServer::spawn(options).await.unwrap();
    let servers = format!(
        "{{ MBX1: {{ address: '{}', tls: off, flavour: exchange }} }}",
        mailbox_server.address()
    );
    let offer = Offer {
        ntlm: Some(NTLM),
        ..Offer::of("ntlm, basic")
    };
    let site = start_with(offer, |plan| {
        plan.section("servers", &servers)
            .section("health", "{ interval: 1h, panic_threshold: 0 }")
    })
    .await;
    let port = site.target().unwrap().address.port().to_string();
    let mailbox = "00000000-0000-4000-8000-000000000001@contoso.test";
    let bind = |password: &'static str, domain: &'static str| {
        let words = [HOST, &port, "alice", password, mailbox, "ntlm", domain].map(str::to_owned);
        let python = python.clone();
        async move {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            nspi_bind(&python, &words).await
        }
    };

    let bound = bind(PASSWORD, "CONTOSO").await;

    let errors = String::from_utf8_lossy(&bound.stderr);
    assert!(bound.status.success(), "{errors}");
    let said: serde_json::Value = serde_json::from_slice(&bound.stdout).unwrap();
    assert_eq!(
        (&said["scheme"], &said["bound"]),
        (&"NTLM".into(), &0.into())
    );
    let heads = mailbox_server.heads();
    assert_eq!(heads.len(), 2);
    for head in heads {
        let head = String::from_utf8(head).unwrap();
        assert!(
            head.contains("X-Remote-User: alice@contoso.test\r\n"),
            "{head}"
        );
        assert!(!head.contains("NTLM"), "{head}");
    }
    eventually("both channels in the log", || async {
        let lines = site.access_lines().unwrap();
        let proven = lines
            .iter()
            .filter(|line| line["user"] == "alice@contoso.test");
        proven.count() >= 2
    })
    .await;
}
