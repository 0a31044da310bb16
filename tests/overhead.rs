//! The comparison of both protocols as an administrator runs it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "figures that are not there are the test's failure"
)]

use serde_json::Value;
use std::process::Command;

const README: &str = include_str!("../README.md");

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("no count: {value}"))
}

/// The sum of all kinds of one direction.
fn sum(kinds: &Value) -> u64 {
    kinds.as_object().unwrap().values().map(number).sum()
}

#[test]
fn both_protocols_carry_the_same_work_and_every_byte_is_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("overhead.svg");

    let output = Command::new(env!("CARGO_BIN_EXE_mapigate"))
        .args(["overhead", "--quick", "--json", "--svg"])
        .arg(&picture)
        .output()
        .unwrap();

    let progress = String::from_utf8(output.stderr).unwrap();
    let facts: Value = serde_json::from_slice(&output.stdout).expect(&progress);
    assert!(output.status.success(), "{progress}");
    assert!(progress.lines().count() > 10, "{progress}");

    let works = facts["work"].as_array().unwrap();
    let payloads: Vec<u64> = works.iter().map(|work| number(&work["payload"])).collect();
    assert_eq!(
        payloads,
        [2 << 10, 50 << 10, 1 << 20, 10 << 20, 10 << 20],
        "{progress}"
    );
    for work in works {
        let rows = work["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 5);
        for row in rows {
            let payload = number(&row["sent"]["payload"]) + number(&row["received"]["payload"]);
            assert_eq!(payload, number(&work["payload"]), "{row}");
            let wire = number(&row["wire"]);
            assert_eq!(sum(&row["sent"]) + sum(&row["received"]), wire, "{row}");
            assert_eq!(wire, number(&row["carried"]), "{row}");
            // TLS 1.3 adds 22 bytes to each record.
            let tls = number(&row["sent"]["tls"]) + number(&row["received"]["tls"]);
            assert_eq!(tls, 22 * number(&row["records"]), "{row}");
            if row["is_measured"] == true && row["protocol"] == "mapi_http" {
                assert_eq!(wire, number(&row["mapigate_counted"]), "{row}");
                assert_eq!(row["requests"], work["executes"]);
            }
        }
        // What RPC over HTTP spends on an Execute of this size is known beforehand.
        if number(&work["executes"]) == 1 {
            let rpc = &rows[0];
            let (asked, answered) = (
                number(&rpc["sent"]["payload"]),
                number(&rpc["received"]["payload"]),
            );
            let kinds = |kind: &str| number(&rpc["sent"][kind]) + number(&rpc["received"][kind]);
            let expected = mapigate::lab::overhead::rpc::execute_bytes(asked, answered);
            // An acknowledgement of flow control may fall into it.
            let over = kinds("framing") + kinds("fields") - expected;
            assert!(over == 0 || over == 56, "{over} bytes: {rpc}");
        }
    }
    assert_eq!(facts["check"]["computed"], facts["check"]["measured"]);
    readme_says(works);

    let connections = facts["connections"].as_array().unwrap();
    let of = |protocol: &str| {
        let found = connections.iter().find(|c| c["protocol"] == protocol);
        let found = found.unwrap();
        (number(&found["long"]), number(&found["short_peak"]))
    };
    assert_eq!(of("rpc_http"), (2, 0));
    assert_eq!(of("mapi_http"), (1, 1));
    let interrupted = facts["interrupted"].as_array().unwrap();
    assert_eq!(number(&interrupted[0]["executes"]), 320);
    assert_eq!(number(&interrupted[1]["executes"]), 160);
    assert_eq!(facts["published"].as_array().unwrap().len(), 5);
    assert!(
        std::fs::read_to_string(picture)
            .unwrap()
            .ends_with("</svg>\n")
    );
}

/// The README's table of overheads is what was measured: numbers in cookies make some bytes of difference, and what a
/// window of RPC/HTTP had room for makes some records.
fn readme_says(works: &[Value]) {
    for work in works {
        let name = work["name"].as_str().unwrap();
        let line = README
            .lines()
            .find(|line| line.starts_with(&format!("| {name} |")));
        let cells: Vec<&str> = line.unwrap().split('|').map(str::trim).collect();
        let (executes, percents) = (cells[2], &cells[3..8]);
        assert_eq!(executes, number(&work["executes"]).to_string(), "{name}");
        for (row, cell) in work["rows"].as_array().unwrap().iter().zip(percents) {
            let said: f64 = cell.strip_suffix(" %").unwrap().parse().unwrap();
            let measured = row["overhead_percent"].as_f64().unwrap();
            let difference = (said - measured).abs();
            assert!(difference < 0.1 + measured / 50.0, "{name}: {cell}, {row}");
        }
    }
}

#[test]
fn rounds_that_are_none_are_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_mapigate"))
        .args(["overhead", "--rounds", "0"])
        .output()
        .unwrap();

    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
}
