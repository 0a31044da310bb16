//! The plan of a profile as an administrator sees it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "figures that are not there are the test's failure"
)]

use serde_json::Value;
use std::process::{Command, Output, Stdio};

const README: &str = include_str!("../README.md");
const ASKED: [&str; 4] = ["--users", "20000", "--profile", "100"];

fn size(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mapigate"))
        .arg("size")
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn a_reader_that_left_is_no_error() {
    let mut plan = Command::new(env!("CARGO_BIN_EXE_mapigate"))
        .arg("size")
        .args(ASKED)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(plan.stdout.take());
    let output = plan.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

fn text(arguments: &[&str]) -> String {
    let output = size(arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A number in the text, its thousands together.
fn first_number(words: &str) -> Option<f64> {
    words
        .split_whitespace()
        .find_map(|word| word.replace(',', "").parse().ok())
}

/// The last number of the line that begins so.
fn last_number(text: &str, begin: &str) -> f64 {
    let line = text
        .lines()
        .find(|line| line.trim_start().starts_with(begin));
    let line = line.unwrap_or_else(|| panic!("{begin} in {text}"));
    let backwards: Vec<&str> = line.split_whitespace().rev().collect();
    first_number(&backwards.join(" ")).unwrap()
}

#[test]
fn text_and_json_say_the_same() {
    let plan: Value = serde_json::from_str(&text(&[&ASKED[..], &["--json"]].concat())).unwrap();
    let text = text(&ASKED);
    let number = |path: &str| plan.pointer(path).and_then(Value::as_f64).unwrap();

    for (begin, path, unit) in [
        ("cores  ", "/front_ends/cores", 1.0),
        ("client connections", "/connections", 1.0),
        ("of them with a held poll", "/held_polls", 1.0),
        ("connections to mailbox servers", "/server_connections", 1.0),
        ("sessions  ", "/sessions", 1.0),
        ("bandwidth from clients", "/bandwidth/client_in", 1e6),
        ("bandwidth to clients", "/bandwidth/client_out", 1e6),
        (
            "bandwidth from mailbox servers",
            "/bandwidth/server_in",
            1e6,
        ),
        ("bandwidth to mailbox servers", "/bandwidth/server_out", 1e6),
        ("cores busy at the peak", "/busy_cores", 1.0),
        ("all requests, all cores", "/busy_cores", 1.0),
        ("in the morning", "/morning/busy_cores", 1.0),
        ("a front end is lost", "/loss/busy_cores", 1.0),
        ("mailbox cores busy", "/rule/mailbox_cores", 1.0),
        ("cores of front ends busy", "/rule/client_access_cores", 1.0),
        ("for a mailbox core", "/rule/rule_per_mailbox_core", 1.0),
        ("cores to have for", "/rule/cores_per_mailbox_core", 1.0),
    ] {
        let (said, meant) = (last_number(&text, begin), number(path) / unit);
        // Three digits are shown.
        assert!(
            (said - meant).abs() <= 0.006 * meant,
            "{begin}: {said}, {meant}"
        );
    }
    for part in plan["parts"].as_array().unwrap() {
        let cores = part["cores"].as_f64().unwrap();
        if cores > 0.0 {
            let said = last_number(&text, part["what"].as_str().unwrap());
            assert!((said - cores).abs() <= 0.006 * cores + 5e-5, "{part}");
        }
    }
    for one in plan["assumptions"].as_array().unwrap() {
        let line = format!("  {} = ", one["name"].as_str().unwrap());
        assert!(text.contains(&line), "{line}");
    }
}

#[test]
fn the_parts_are_the_whole() {
    let plan: Value = serde_json::from_str(&text(&[&ASKED[..], &["--json"]].concat())).unwrap();

    let parts = plan["parts"].as_array().unwrap().iter();
    let sum: f64 = parts.map(|part| part["cores"].as_f64().unwrap()).sum();
    assert!((sum - plan["busy_cores"].as_f64().unwrap()).abs() < 1e-9);
    // 20,000 users, 100 messages, peak of two in eight hours, 20 Executes each.
    let executes = plan["parts"][0]["per_second"].as_f64().unwrap();
    assert!((executes - 20_000.0 * 100.0 * 20.0 * 2.0 / 28_800.0).abs() < 1e-6);
}

#[test]
fn what_is_assumed_differently_changes_the_plan() {
    let cores = |more: &[&str]| {
        let plan = text(&[&ASKED[..], more, &["--json"]].concat());
        let plan: Value = serde_json::from_str(&plan).unwrap();
        plan["front_ends"]["cores"].as_u64().unwrap()
    };

    let before = cores(&[]);
    assert!(cores(&["--assume", "hash_ms=73"]) > 4 * before);
    assert!(cores(&["--assume", "executes_per_message=400"]) > before);
    assert!(cores(&["--utilisation", "5"]) > before);
    assert!(cores(&["--front-ends", "1"]) <= before);
}

#[test]
fn wrong_words_are_refused_and_nothing_is_printed() {
    for wrong in [
        &["--profile", "100"][..],
        &["--users", "0"],
        &["--users", "20000", "--utilisation", "101"],
        &["--users", "20000", "--assume", "hash=1"],
        &["--users", "20000", "--assume", "hash_ms=-1"],
        &["--users", "20000", "--window", "10s"],
        &["--users", "20000", "--svg", "/nonexistent/size.svg"],
    ] {
        let output = size(wrong);

        assert!(!output.status.success(), "{wrong:?}");
        assert!(
            output.stdout.is_empty() && !output.stderr.is_empty(),
            "{wrong:?}"
        );
    }
}

#[test]
fn the_readme_shows_what_is_printed() {
    let section = README.split("\n## How large\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let shown = section.split("```text\n").nth(1).unwrap();
    let shown = shown.split("```").next().unwrap();
    let printed = text(&ASKED);

    // The README leaves the list of assumptions out.
    assert!(printed.starts_with(shown), "{printed}");
    assert!(shown.lines().count() > 40);
    for one in mapigate::capacity::Assumptions::default().list() {
        let name = format!("`{}`", one.name);
        assert!(section.contains(&name), "{name}");
    }
}

#[test]
fn the_picture_in_docs_is_the_one_that_is_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("size.svg");

    text(&[&ASKED[..], &["--svg", picture.to_str().unwrap()]].concat());

    let drawn = std::fs::read_to_string(picture).unwrap();
    assert_eq!(drawn, include_str!("../docs/size.svg"));
}
