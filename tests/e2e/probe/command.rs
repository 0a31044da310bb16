//! The command as an administrator runs it.

use crate::support::{PROGRAM, TestSite, brisk, start};
use mapigate::lab::site::{HOST, PASSWORD, user};
use mapigate::mapi::Flavour;
use std::process::{Output, Stdio};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

async fn probe(site: &TestSite, password: &str, args: &[&str]) -> Output {
    let gate = site.gate().unwrap().address();
    let ca = site.folder().join("ca.pem");
    let mut child = Command::new(PROGRAM)
        .args(["probe", "--user", &user(1), "--held-wait", "200ms"])
        .args(["--resolve", &format!("{HOST}={gate}"), "--ca"])
        .arg(ca)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // Who does not like its arguments does not read.
    let password = format!("{password}\n");
    let _unread = input.write_all(password.as_bytes()).await;
    drop(input);
    child.wait_with_output().await.unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test]
async fn the_command_says_yes_no_or_that_nothing_could_be_tried() {
    let site = start(brisk(Flavour::Exchange)).await;
    let url = format!("https://{HOST}");

    let good = probe(&site, PASSWORD, &[&url]).await;
    assert_eq!(good.status.code(), Some(0), "{}", text(&good));
    assert!(text(&good).contains("  ok       logon"), "{}", text(&good));

    let bad = probe(&site, "wrong", &[&url, "--format", "json"]).await;
    assert_eq!(bad.status.code(), Some(1));
    let answer: serde_json::Value = serde_json::from_slice(&bad.stdout).unwrap();
    assert_eq!(answer["is_good"], false);
    let findings = answer["reports"][0]["findings"].as_array().unwrap();
    assert_eq!(findings.len(), mapigate::probe::Step::ALL.len());
    let authentication = &findings[2];
    assert_eq!(authentication["step"], "authentication");
    assert_eq!(authentication["verdict"], "failed");
    assert!(
        authentication["next"]
            .as_str()
            .unwrap()
            .contains("auth test")
    );
    assert_eq!(findings[5]["verdict"], "not_run");
    let all = [bad.stdout, bad.stderr].concat();
    assert!(memchr::memmem::find(&all, b"wrong\"").is_none());

    let nothing = probe(&site, PASSWORD, &[]).await;
    assert_eq!(nothing.status.code(), Some(2));
    assert!(
        String::from_utf8(nothing.stderr)
            .unwrap()
            .contains("nothing to try")
    );
    let nonsense = probe(&site, PASSWORD, &["mail.contoso.test"]).await;
    assert_eq!(nonsense.status.code(), Some(2));
}

#[tokio::test]
async fn names_and_servers_of_a_configuration_stand_side_by_side() {
    let mut plan = brisk(Flavour::Exchange);
    plan.back_tls = true;
    let site = start(plan).await;
    // The file asks for a port of the system's choice: the site's own way there is told beside it.
    let config = site.folder().join("mapigate.yaml");
    let config = config.to_str().unwrap();

    let both = probe(&site, PASSWORD, &["--config", config, "--server", "mbx1"]).await;

    let told = text(&both);
    assert_eq!(both.status.code(), Some(0), "{told}");
    let first = told.lines().next().unwrap();
    assert!(first.contains("https://mail.contoso.test"), "{told}");
    assert!(
        first.contains("https://mbx1.contoso.test:") && first.contains("difference"),
        "{told}"
    );
    let logon = told
        .lines()
        .find(|line| line.starts_with("  logon"))
        .unwrap();
    assert_eq!(logon.matches("ok ").count(), 2, "{told}");
}
