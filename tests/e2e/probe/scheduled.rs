//! Probes that mapigate runs itself.

use crate::support::{TestSite, brisk, eventually, log_with, start_in};
use mapigate::lab::site::{HOST, PASSWORD, user};
use mapigate::mapi::Flavour;
use std::net::TcpListener;

/// A site with a port of its own, so that its configuration can name it.
async fn site() -> TestSite {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("probe.password"),
        format!("{PASSWORD}\n"),
    )
    .unwrap();
    let listeners = format!(
        "[{{ address: '127.0.0.1:{port}', certificates: [{{ chain: mail.pem, key: mail.key }}] }}]"
    );
    let plan = brisk(Flavour::Exchange)
        .section("listeners", &listeners)
        .section("probes", &probes(port, "front"));
    start_in(folder, plan).await
}

fn probes(port: u16, name: &str) -> String {
    format!(
        "[{{ name: {name}, url: 'https://{HOST}', connect_to: '127.0.0.1:{port}', ca: ca.pem, user: {}, password: 'file:probe.password', every: 1s, held_wait: 100ms }}]",
        user(1)
    )
}

async fn metric(site: &TestSite, series: &str) -> Option<f64> {
    let text = site
        .gate()
        .unwrap()
        .admin()
        .get("/metrics")
        .await
        .unwrap()
        .text;
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.map(|value| value.trim().parse().unwrap())
}

#[tokio::test]
async fn a_probe_of_the_configuration_tells_its_steps_until_a_reload_takes_it_away() {
    let site = site().await;
    let site = &site;
    let good = "mapigate_probe_success{probe=\"front\",step=\"logon\"}";
    eventually("the probe went well", || async move {
        metric(site, good).await == Some(1.0)
    })
    .await;
    let took = metric(
        site,
        "mapigate_probe_duration_seconds{probe=\"front\",step=\"wait\"}",
    )
    .await;
    assert!(
        took.is_some_and(|took| (0.1..5.0).contains(&took)),
        "{took:?}"
    );
    let page = site.gate().unwrap().admin().get("/").await.unwrap().text;
    assert!(
        page.contains("<td>front<td class=\"good\">every step went well"),
        "{page}"
    );
    let reports = site
        .gate()
        .unwrap()
        .admin()
        .get("/probes.json")
        .await
        .unwrap()
        .text;
    let reports: serde_json::Value = serde_json::from_str(&reports).unwrap();
    assert_eq!(reports[0]["name"], "front");
    assert_eq!(reports[0]["is_good"], true);
    assert!(!reports.to_string().contains(PASSWORD));

    // The mailbox servers stop being reachable.
    for server in site.servers() {
        server.listen(false);
        server.cut_connections();
    }
    eventually("the probe failed", || async move {
        metric(site, good).await == Some(0.0)
    })
    .await;
    let log = log_with(site, "probe failed").await;
    let line = log
        .lines()
        .find(|line| line.contains("probe failed"))
        .unwrap();
    assert!(
        line.contains("\"probe\":\"front\"") && line.contains("\"next\":"),
        "{line}"
    );
    assert!(!log.contains(PASSWORD));

    let config = site.folder().join("mapigate.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("name: front", "name: door")).unwrap();
    let reloaded = site.gate().unwrap().admin().post("/reload").await.unwrap();
    assert_eq!(reloaded.status, 200, "{}", reloaded.text);
    eventually("the other is told", || async move {
        metric(site, "mapigate_probe_success{probe=\"door\",step=\"dns\"}").await == Some(1.0)
    })
    .await;
    assert_eq!(metric(site, good).await, None);
}
