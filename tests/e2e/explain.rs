//! What a running process says of itself.

use crate::support::{PROGRAM, TestSite, brisk, eventually, start};
use mapigate::explain::Explanation;
use mapigate::lab::site::{mailbox, user};
use mapigate::mapi::Flavour;
use std::process::Output;
use tokio::process::Command;

async fn explain(args: &[&str]) -> Output {
    Command::new(PROGRAM)
        .arg("explain")
        .args(args)
        .output()
        .await
        .unwrap()
}

fn admin(site: &TestSite) -> String {
    site.gate().unwrap().admin().address().to_string()
}

#[tokio::test]
async fn a_running_process_explains_by_what_is_so_now_and_a_file_by_what_is_written() {
    let site = start(brisk(Flavour::Exchange)).await;
    let site = &site;
    let admin = admin(site);

    let good = explain(&[&user(1), "--admin", &admin]).await;
    let text = String::from_utf8(good.stdout).unwrap();
    assert_eq!(good.status.code(), Some(0), "{text}");
    assert!(
        text.contains("  server         MBX1 at 127.0.0.1:"),
        "{text}"
    );
    assert!(text.contains("it holds the active copy; up"), "{text}");

    // All servers go down: the process knows, the file does not.
    for server in site.servers() {
        server.listen(false);
        server.cut_connections();
    }
    let gate = site.gate().unwrap().admin();
    for server in site.servers() {
        let sample = format!("mapigate_backend_up{{server=\"{}\"}}", server.name());
        eventually("the server counts as down", || async {
            gate.metric(&sample).await.is_ok_and(|up| up < 0.5)
        })
        .await;
    }
    let down = explain(&[&mailbox(1), "--admin", &admin, "--format", "json"]).await;
    let told: Explanation = serde_json::from_slice(&down.stdout).unwrap();
    // With every server down, health is not believed.
    let server = told.of("server").unwrap().why.as_deref().unwrap();
    assert!(server.contains("too many do to be believed"), "{server}");

    let config = site.folder().join("mapigate.yaml");
    let file = explain(&[&user(1), "--config", config.to_str().unwrap()]).await;
    let text = String::from_utf8(file.stdout).unwrap();
    assert!(text.contains("health unknown"), "{text}");
}

#[tokio::test]
async fn a_running_process_explains_its_other_directories_by_what_its_servers_serve() {
    let plan = brisk(Flavour::Exchange).section("virtual_directories", "{ preset: exchange2019 }");
    let site = start(plan).await;
    let (site, who) = (&site, user(1));
    let admin = admin(site);
    let ask = async |subject: &str| {
        let args = [
            subject, "--user", &who, "--admin", &admin, "--format", "json",
        ];
        let told = explain(&args).await;
        serde_json::from_slice::<Explanation>(&told.stdout).unwrap()
    };

    let good = ask("/ews/exchange.asmx").await;
    assert_eq!(good.of("route").unwrap().words, "goes to MBX1");
    let form = ask("/owa/a@b/../x").await;
    assert!(
        !form.is_served && form.text().contains("HTTP 400"),
        "{}",
        form.text()
    );

    site.server("MBX1").unwrap().serve("ews", false);
    eventually("the page is missed", || async {
        let told = ask("/ews/exchange.asmx").await;
        let words = "the server of the active copy does not serve this directory";
        !told.is_served && told.of("route").unwrap().words.contains(words)
    })
    .await;
    assert!(ask("/owa/").await.is_served);
}

#[tokio::test]
async fn whoever_is_not_known_is_told_to_the_administrator_with_the_nearest_names() {
    let site = start(brisk(Flavour::Exchange)).await;
    let admin = admin(&site);

    let unknown = explain(&[
        "usre1@contoso.test",
        "--admin",
        &admin,
        "--client",
        "14.0.7113.5000",
    ])
    .await;
    let text = String::from_utf8(unknown.stdout).unwrap();
    assert_eq!(unknown.status.code(), Some(1), "{text}");
    assert!(text.contains("did you mean user1@contoso.test"), "{text}");

    let wrong = explain(&["x", "--admin", &admin, "--from", "here"]).await;
    assert_eq!(wrong.status.code(), Some(2));
    let words = String::from_utf8(wrong.stderr).unwrap();
    assert!(words.contains("is no IP address"), "{words}");
    let nobody = explain(&["x", "--admin", "127.0.0.1:1"]).await;
    assert_eq!(nobody.status.code(), Some(2));
}
