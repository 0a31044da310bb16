//! What docker/ holds works with this program: its commands, its configuration, the metrics it draws.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "waiting for a process has a deadline; what is not in a file of ours fails the test"
)]

use serde_yaml::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PASSWORD: &str = "correct horse";
const SOON: Duration = Duration::from_secs(30);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// The command of each service that runs our image.
fn commands() -> BTreeMap<String, Vec<String>> {
    let mut compose: Value = serde_yaml::from_str(&text("docker/compose.yaml")).unwrap();
    compose.apply_merge().unwrap();
    // A merged mapping may itself be the result of a merge.
    compose.apply_merge().unwrap();
    let services = compose["services"].as_mapping().unwrap();
    let ours = services
        .iter()
        .filter(|(_, service)| service["image"].as_str() == Some("mapigate"));
    ours.map(|(name, service)| {
        let words = service["command"].as_sequence().unwrap().iter();
        let words = words.map(|word| word.as_str().unwrap().to_owned());
        (name.as_str().unwrap().to_owned(), words.collect())
    })
    .collect()
}

fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn mapigate(words: &[String], site: &Path) -> Command {
    let words = words
        .iter()
        .map(|word| word.replace("/site", site.to_str().unwrap()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_mapigate"));
    command
        .args(words)
        .env("MAPIGATE_LAB_PASSWORD", PASSWORD)
        .stderr(Stdio::null());
    command
}

#[test]
fn the_composition_without_its_engine_serves_every_outlook() {
    let commands = commands();
    let folder = tempfile::tempdir().unwrap();
    let site = folder.path();
    let made = mapigate(&commands["files"], site)
        .stdout(Stdio::null())
        .status();
    assert!(made.unwrap().success());

    let mut config = text("docker/site/mapigate.yaml").replace("/site/", "");
    let mut running = Vec::new();
    for name in ["mbx1", "mbx2", "mbx3"] {
        let words: Vec<String> = commands[name]
            .iter()
            .map(|word| word.replace("0.0.0.0:8443", "127.0.0.1:0"))
            .collect();
        let mut server = mapigate(&words, site)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(server.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        running.push(Running(server));
        let told: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address = told["address"].as_str().unwrap();
        config = config.replace(&format!("{name}:8443"), address);
    }
    let (door, admin) = (free_port(), free_port());
    config = config
        .replace("address: 0.0.0.0:8443", &format!("address: {door}"))
        .replace("address: 0.0.0.0:9080", &format!("address: {admin}"));
    fs::write(site.join("mapigate.yaml"), config).unwrap();
    fs::write(
        site.join("databases.yaml"),
        text("docker/site/databases.yaml"),
    )
    .unwrap();
    let words: Vec<String> = commands["mapigate"]
        .iter()
        .map(|word| word.replace("/etc/mapigate", "/site"))
        .collect();
    let gate = mapigate(&words, site)
        .arg("--upgrade-socket")
        .arg(site.join("upgrade.sock"))
        .stdout(Stdio::null())
        .spawn();
    running.push(Running(gate.unwrap()));

    let began = Instant::now();
    let asks = ["ready".to_owned(), format!("--admin={admin}")];
    while !mapigate(&asks, site).status().unwrap().success() {
        assert!(began.elapsed() < SOON, "mapigate does not become ready");
        std::thread::sleep(Duration::from_millis(50));
    }

    let mut words = commands["outlook"].clone();
    let seconds = words.iter().position(|word| word == "--seconds").unwrap();
    "2".clone_into(&mut words[seconds + 1]);
    let told = mapigate(&words, site)
        .arg(format!("--address={door}"))
        .arg("--json")
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(report["connected"], 20, "{report}");
    assert!(
        report["executes_ok"].as_u64().unwrap() >= 20,
        "each Outlook works: {report}"
    );
}

#[test]
fn nobody_ready_is_exit_code_2() {
    let nobody = free_port();
    let asks = ["ready".to_owned(), format!("--admin={nobody}")];
    let told = mapigate(&asks, Path::new("/nowhere")).status().unwrap();
    assert_eq!(told.code(), Some(2));
}

/// Each family in the README's table: its labels, and the values that its row names.
fn families() -> BTreeMap<String, (String, BTreeSet<String>, String)> {
    let readme = text("README.md");
    let rows = readme.lines().filter_map(|row| row.strip_prefix("| `"));
    rows.filter_map(|row| {
        let (head, rest) = row.split_once("` | ")?;
        let (kind, words) = rest.split_once(" | ")?;
        if !matches!(kind, "counter" | "gauge" | "histogram") {
            return None;
        }
        let (name, labels) = head.split_once('{').unwrap_or((head, ""));
        let labels = labels.trim_end_matches('}').split(',');
        let labels = labels.filter(|label| !label.is_empty()).map(str::to_owned);
        Some((
            name.to_owned(),
            (kind.to_owned(), labels.collect(), words.to_owned()),
        ))
    })
    .collect()
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// What is wrong with a query that is drawn or alarms: families, labels or values that are not ours.
fn wrong_in(
    query: &str,
    families: &BTreeMap<String, (String, BTreeSet<String>, String)>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut known = BTreeSet::from(["instance", "job", "le"]);
    let names = query.split(|letter| !is_word(letter));
    let names = names.filter(|word| word.starts_with("mapigate_") || word.starts_with("process_"));
    for name in names {
        let family = families.get_key_value(name).or_else(|| {
            let parts = ["_bucket", "_sum", "_count"].iter();
            let base = parts.filter_map(|part| name.strip_suffix(part)).next()?;
            let found = families.get_key_value(base);
            found.filter(|(_, (kind, ..))| kind == "histogram")
        });
        match family {
            Some((_, (_, labels, _))) => known.extend(labels.iter().map(String::as_str)),
            None => wrong.push(format!("no family {name}")),
        }
    }
    let grouped = query.split(" by (").skip(1);
    let grouped = grouped.flat_map(|rest| rest.split(')').next().unwrap_or("").split(','));
    let mut labels: Vec<&str> = grouped.map(str::trim).collect();
    let matchers = query.split('{').skip(1);
    for matcher in matchers.flat_map(|rest| rest.split('}').next().unwrap_or("").split(',')) {
        labels.push(matcher.split(['=', '!']).next().unwrap_or("").trim());
    }
    wrong.extend(
        labels
            .into_iter()
            .filter(|label| !label.is_empty() && !known.contains(label))
            .map(|label| format!("no label {label}")),
    );
    wrong
}

#[test]
fn every_query_of_the_dashboard_asks_for_what_there_is() {
    let families = families();
    assert!(families.len() > 60, "the table of metrics is read");
    let board: serde_json::Value =
        serde_json::from_str(&text("docker/grafana/dashboards/mapigate.json")).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let mut queries = 0;
    for panel in panels {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let wrong = wrong_in(query, &families);
            assert!(wrong.is_empty(), "{}: {query}: {wrong:?}", panel["title"]);
            let legend = target["legendFormat"].as_str().unwrap();
            for label in legend.split("{{").skip(1) {
                let label = label.split("}}").next().unwrap();
                let is_there = query.contains(&format!("({label}"))
                    || query.contains(&format!(", {label}"))
                    || label == "instance";
                assert!(is_there, "{}: the legend has {label}", panel["title"]);
            }
            queries += 1;
        }
    }
    assert!(queries > 25, "{queries}");
}

#[test]
fn a_query_for_what_there_is_not_is_seen() {
    let families = families();
    let one = wrong_in(
        "sum by (user) (rate(mapigate_mapi_requests_totals[1m]))",
        &families,
    );
    assert_eq!(
        one,
        ["no family mapigate_mapi_requests_totals", "no label user"]
    );
    let other = wrong_in("mapigate_backend_up_sum{mailbox=\"x\"}", &families);
    assert_eq!(
        other,
        ["no family mapigate_backend_up_sum", "no label mailbox"]
    );
}

#[test]
fn what_the_composition_mounts_is_there() {
    let compose = text("docker/compose.yaml");
    let mounts = compose
        .split(['"', ' ', '['])
        .filter(|word| word.starts_with('.') && word.contains(":/"));
    let mut count = 0;
    for mount in mounts {
        let path = mount.split(':').next().unwrap();
        assert!(root().join("docker").join(path).exists(), "{mount}");
        count += 1;
    }
    assert_eq!(count, 5, "all mounts are looked at");
}
