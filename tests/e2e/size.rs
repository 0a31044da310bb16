//! A plan from a running site, against what the kernel and the Outlooks counted in the same time.

use crate::support::{PROGRAM, TestSite, brisk, eventually, start};
use mapigate::capacity::{Assumptions, Class, Inputs};
use mapigate::lab::crowd::{Crowd, Work};
use mapigate::mapi::Flavour;
use serde_json::Value;
use std::process::Output;
use std::time::{Duration, Instant};
use tokio::process::Command;

const USERS: usize = 16;
/// Of what was counted elsewhere; a window's ends are a few Executes off.
const TOLERANCE: f64 = 0.1;

async fn size(arguments: &[&str]) -> Output {
    let run = Command::new(PROGRAM)
        .arg("size")
        .args(arguments)
        .kill_on_drop(true)
        .output();
    let run = tokio::time::timeout(Duration::from_secs(60), run).await;
    run.unwrap().unwrap()
}

async fn plan(arguments: &[&str]) -> Value {
    let output = size(&[arguments, &["--json"]].concat()).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn number(plan: &Value, path: &str) -> f64 {
    let found = plan.pointer(path).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("{path} in {plan}"))
}

fn near(what: &str, found: f64, expected: f64) {
    let difference = (found - expected).abs();
    assert!(
        difference <= TOLERANCE * expected.abs(),
        "{what}: {found}, not {expected}"
    );
}

/// Everybody executes some ten times a second, and holds a poll.
async fn crowded() -> (TestSite, Crowd, String) {
    let mut plan = brisk(Flavour::Exchange).section("accounting", "{ cpu_every: 1 }");
    plan.users = USERS;
    let site = start(plan).await;
    let options = (1..=USERS).map(|number| site.outlook_options(number).unwrap());
    let work = Work {
        pause: Duration::from_millis(100),
        ..Work::default()
    };
    let crowd = Crowd::start(options.collect(), &work);
    let admin = site.gate().unwrap().admin();
    eventually("everybody holds a poll", || async move {
        admin.metric("mapigate_held_polls").await.unwrap() == USERS as f64
    })
    .await;
    let url = format!("http://{}/metrics", admin.address());
    (site, crowd, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_from_a_running_site_agrees_with_what_others_counted() {
    let (site, crowd, url) = crowded().await;
    let gate = site.gate().unwrap();

    let (began, executes, cpu) = (
        Instant::now(),
        crowd.report().executes_ok,
        gate.cpu().unwrap(),
    );
    let from_site = plan(&["--from", &url, "--window", "5s", "--front-ends", "1"]).await;
    let seconds = began.elapsed().as_secs_f64();
    let executes = (crowd.report().executes_ok - executes) as f64 / seconds;
    let cores = (gate.cpu().unwrap() - cpu).as_secs_f64() / seconds;
    crowd.stop(Duration::from_secs(5)).await;

    assert_eq!(number(&from_site, "/users"), USERS as f64);
    near(
        "Executes",
        number(&from_site, "/parts/0/per_second"),
        executes,
    );
    near("cores", number(&from_site, "/busy_cores"), cores);

    // The same rate as a profile: 2 KB up and 4 KB down in each of a message's twenty Executes.
    let rate = number(&from_site, "/rates/requests/0");
    let assumed = Assumptions {
        executes_per_message: 20.0,
        message_kb: 120.0,
        sent_share: 1.0 / 3.0,
        address_book_per_message: 0.0,
        ..Assumptions::default()
    };
    let messages = rate / 20.0 * assumed.working_hours * 3600.0 / assumed.peak_factor;
    let mut built_in = Inputs::of_profile(USERS as f64, messages, assumed);
    built_in.front_ends = 1;
    let by_profile = built_in.plan();
    near(
        "Executes by profile",
        number(&from_site, "/parts/0/per_second"),
        by_profile.parts[0].per_second.unwrap(),
    );
    for (path, expected) in [
        ("/bandwidth/client_in", by_profile.bandwidth.client_in),
        ("/bandwidth/client_out", by_profile.bandwidth.client_out),
        ("/bandwidth/server_in", by_profile.bandwidth.server_in),
        ("/bandwidth/server_out", by_profile.bandwidth.server_out),
        ("/held_polls", by_profile.held_polls),
        ("/connections", by_profile.connections),
    ] {
        near(path, number(&from_site, path), expected);
    }

    // With the site's costs, the arithmetic is the same to the last digit but for what is not in a profile.
    let mut same = built_in;
    same.rates.requests[Class::Execute.index()] = rate;
    same.costs.requests[Class::Execute.index()] = number(&from_site, "/costs/requests/0");
    let executes = same.plan().parts[0].cores;
    assert!((executes - number(&from_site, "/parts/0/cores")).abs() < 1e-9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_scrape_and_the_time_since_the_start_are_planned_from_as_well() {
    let (site, crowd, url) = crowded().await;
    let admin = site.gate().unwrap().admin();
    let done = crowd.report().executes_ok + 200;
    eventually("some work is done", || async {
        crowd.report().executes_ok >= done
    })
    .await;

    let file = site.folder().join("metrics.txt");
    std::fs::write(&file, admin.get("/metrics").await.unwrap().text).unwrap();
    let since_start = ["--users", "16000", "--front-ends", "1"];
    let file = file.to_str().unwrap();
    let from_file = plan(&[&since_start[..], &["--from", file]].concat()).await;
    let from_url = plan(&[&since_start[..], &["--from", &url, "--window", "0s"]].concat()).await;
    let both = plan(&[&since_start[..], &["--from", file, "--from", file]].concat()).await;
    crowd.stop(Duration::from_secs(5)).await;

    for plan in [&from_file, &from_url, &both] {
        assert_eq!(number(plan, "/held_polls"), 16_000.0);
        // A thousand times the users, a thousand times the requests' cores.
        let rate = number(plan, "/rates/requests/0");
        let cost = number(plan, "/costs/requests/0");
        let cores = number(plan, "/parts/0/cores");
        assert!((cores - 16_000.0 * rate * cost).abs() < 1e-6, "{cores}");
        assert!(rate > 0.5 && cost > 1e-6, "{rate} {cost}");
    }
    // Two front ends of the same kind are one site of twice the users.
    assert_eq!(from_file.pointer("/rates"), both.pointer("/rates"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_can_be_planned_from_is_said_with_a_cure() {
    let site = start(brisk(Flavour::Exchange)).await;
    let admin = site.gate().unwrap().admin().address();
    let other = site.folder().join("other.txt");
    std::fs::write(&other, "process_cpu_seconds_total 1\n").unwrap();
    let nowhere = site.folder().join("nowhere");
    // Bound and never listening: nobody else gets it, nobody answers.
    let held = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    held.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let closed = held.local_addr().unwrap().as_socket().unwrap();

    for (from, code, words) in [
        (format!("http://{admin}/metrics"), 1, "no traffic yet"),
        (
            format!("http://{admin}/status.json"),
            1,
            "not in the text format of Prometheus",
        ),
        (format!("http://{admin}/nothing"), 1, "answered 404"),
        (format!("http://{closed}"), 2, "no answer from"),
        (other.to_str().unwrap().to_owned(), 1, "not of mapigate"),
        (nowhere.to_str().unwrap().to_owned(), 1, "No such file"),
        ("https://127.0.0.1:9080".to_owned(), 2, "speak http"),
    ] {
        let output = size(&["--from", &from, "--window", "200ms"]).await;

        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{from}: {said}");
        assert!(said.contains(words), "{from}: {said}");
        assert!(output.stdout.is_empty());
    }
}
