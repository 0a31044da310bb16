//! A ticket that somebody made with the key of a stolen keytab.

use crate::client::negotiate;
use crate::evidence::site_of_each;
use crate::lab::{Lab, LabService, REALM};
use crate::python::{python, run};
use mapigate::gss::Client;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The newest key of a service, in hexadecimal digits.
fn key(service: &LabService<'_>) -> String {
    let mut klist = Command::new("klist");
    let output = klist.args(["-K", "-e", "-k"]).arg(&service.keytab).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let mut lines = text.lines().filter(|line| line.contains("aes256"));
    let (_, key) = lines.next().unwrap().rsplit_once("(0x").unwrap();
    key.trim_end_matches(')').to_owned()
}

/// A ticket of alice's to this service that no KDC has seen, with a certificate of privileges that makes her an
/// administrator. `None` where there is no impacket.
async fn forged(service: &LabService<'_>, folder: &Path) -> Option<PathBuf> {
    let python = python().await?;
    let ticketer = python.with_file_name("ticketer.py");
    let script = format!(
        "cd {} && exec {} {} -aesKey {} -domain-sid S-1-5-21-1-2-3 -domain {REALM} -spn HTTP/{} \
         -user-id 500 -groups 512,519 alice",
        folder.display(),
        python.display(),
        ticketer.display(),
        key(service),
        service.host
    );
    let output = run(Path::new("sh"), &["-c", &script], 60).await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}");
    Some(folder.join("alice.ccache"))
}

#[tokio::test]
#[ignore = "needs a domain controller: make test-ad"]
async fn a_ticket_made_with_a_stolen_key_is_handed_on_to_no_server() {
    let (lab, folder) = (Lab::find(), tempfile::tempdir().unwrap());
    let service = lab.service("HTTP/mbx1.contoso.test", folder.path());
    let Some(tickets) = forged(&service, folder.path()).await else {
        return;
    };
    let site = site_of_each(&service).await;
    let cache = format!("FILE:{}", tickets.display());
    let mut client = Client::with_tickets(&cache, &service.host).unwrap();
    let word = negotiate(&client.say(None, None).unwrap().unwrap());

    let answer = site.shown(&word).await;

    // The key is all that a door can judge by; the KDC looks at what it has signed itself.
    assert_eq!(answer.head.status, 503);
    let why = site.reasons(1).await.pop().unwrap();
    let words = "no ticket for the server: ticket to the server: ";
    assert!(why.starts_with(words), "{why}");
    let proven = "mapigate_auth_total{outcome=\"verified\",scheme=\"negotiate\"}";
    let admin = site.gate().unwrap().admin();
    assert!(admin.metric(proven).await.unwrap() >= 1.0);
    assert_eq!(site.server("MBX1").unwrap().counters().requests, 0);
}
