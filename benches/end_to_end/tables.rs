//! Prints what was found as markdown, and writes it as JSON.

use crate::load::Found;
use crate::plan::Plan;
use crate::polls;
use crate::report::{Results, Spread, Verdict, Work, per_second, verdicts};
use anyhow::{Context as _, Result};
use serde_json::json;
use std::collections::BTreeMap;

/// Prints the tables.
pub(crate) fn print(plan: &Plan, results: &Results) {
    println!("\n# mapigate beside its peers\n");
    if plan.smoke {
        println!(
            "A smoke run: it shows that everything works; its windows are too short to compare by.\n"
        );
    }
    let (before_polls, after_polls): (Vec<_>, Vec<_>) =
        Work::ALL.into_iter().partition(|work| !work.is_handshake());
    let tables = |works: Vec<Work>| {
        for work in works {
            if let Some(rows) = results.works.get(&work) {
                println!("{}", table(work, rows, results));
            }
        }
    };
    tables(before_polls);
    if !results.polls.is_empty() {
        println!("{}", poll_table(results));
    }
    tables(after_polls);
    let verdicts = verdicts(results);
    if !verdicts.is_empty() {
        println!("## Targets\n\n{}", verdict_table(&verdicts, plan.smoke));
    }
    for (work, lost) in results.lost_lines.iter().filter(|(_, lost)| **lost > 0) {
        println!(
            "note: {}: mapigate lost {lost} access lines, so it costs more than this",
            work.title()
        );
    }
    for note in &results.notes {
        println!("note: {note}");
    }
    println!("again: {}", plan.command());
}

fn table(work: Work, rows: &BTreeMap<String, BTreeMap<u32, Found>>, results: &Results) -> String {
    let handshakes = work.is_handshake();
    let mut lines = vec![if work == Work::Returning {
        cells(&["proxy", "clients", "resumed", "percent", "errors"])
    } else if handshakes {
        cells(&[
            "proxy",
            "CPU us each",
            "ratio to nginx",
            "a second",
            "core used",
            "p50 ms",
            "p99 ms",
            "resumed",
            "errors",
        ])
    } else {
        cells(&[
            "proxy",
            "CPU us/request",
            "ratio to nginx",
            "seen req/s",
            "core used",
            "p50 ms",
            "p99 ms",
            "errors",
        ])
    }];
    let mut order: Vec<&String> = rows.keys().collect();
    order.sort_by(|a, b| {
        let cost = |peer: &str| {
            results
                .cpu(work, peer)
                .map_or(f64::MAX, |spread| spread.median)
        };
        cost(a).total_cmp(&cost(b))
    });
    for peer in order {
        let Some(rounds) = rows.get(peer) else {
            continue;
        };
        let median = |figure: fn(&Found) -> f64| {
            Spread::of(rounds.values().map(figure)).map_or(f64::NAN, |s| s.median)
        };
        let sum = |figure: fn(&Found) -> u64| rounds.values().map(figure).sum::<u64>();
        let resumed = format!("{}/{}", sum(|f| f.resumed), sum(|f| f.requests));
        let errors = sum(|f| f.errors).to_string();
        let mut row = vec![peer.clone()];
        if work == Work::Returning {
            let percent = results.resumed_percent(peer).unwrap_or_default();
            row.extend([
                sum(|f| f.requests).to_string(),
                sum(|f| f.resumed).to_string(),
                format!("{percent:.1}"),
                errors,
            ]);
        } else {
            row.push(
                results
                    .cpu(work, peer)
                    .map_or_else(String::new, |spread| spread.words(1)),
            );
            row.push(
                results
                    .ratio(work, peer)
                    .map_or_else(|| "-".to_owned(), |spread| spread.words(2)),
            );
            row.push(format!("{:.0}", median(per_second)));
            row.push(format!(
                "{:.2}",
                median(|f| f.cpu_ns as f64 / 1e9 / f.seconds)
            ));
            row.push(format!("{:.2}", median(|f| f.p50_ms)));
            row.push(format!("{:.1}", median(|f| f.p99_ms)));
            if handshakes {
                row.push(resumed);
            }
            row.push(errors);
        }
        lines.push(row);
    }
    format!("## {}\n\n{}", work.title(), aligned(&lines))
}

fn poll_table(results: &Results) -> String {
    let mut lines = vec![cells(&[
        "proxy",
        "polls",
        "KB RSS per poll",
        "CPU us per PENDING",
        "setup CPU us each",
        "PENDINGs",
        "dead",
    ])];
    for (peer, rounds) in &results.polls {
        let spread = |figure: fn(&polls::Found) -> f64| {
            Spread::of(rounds.iter().map(figure)).map_or_else(String::new, |spread| spread.words(1))
        };
        lines.push(vec![
            peer.clone(),
            rounds
                .first()
                .map_or_else(String::new, |found| found.polls.to_string()),
            results
                .poll_kb(peer)
                .map_or_else(String::new, |kb| kb.words(1)),
            spread(|found| found.pending_ns / 1000.0),
            spread(|found| found.setup_ns / 1000.0),
            rounds
                .iter()
                .map(|found| found.pendings)
                .sum::<u64>()
                .to_string(),
            rounds
                .iter()
                .map(|found| found.dead)
                .sum::<u64>()
                .to_string(),
        ]);
    }
    format!("## C: held polls\n\n{}", aligned(&lines))
}

fn verdict_table(verdicts: &[Verdict], smoke: bool) -> String {
    let mut lines = vec![cells(&["target", "found", ""])];
    for verdict in verdicts {
        let mark = match verdict.kept {
            _ if smoke => "too short to judge",
            true => "pass",
            false => "MISSED",
        };
        lines.push(vec![
            verdict.promise.clone(),
            format!("{:.2}", verdict.found),
            mark.to_owned(),
        ]);
    }
    aligned(&lines)
}

fn cells(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// A markdown table that is also straight on a terminal; the first line is its head.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            lines
                .iter()
                .filter_map(|line| line.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
                .max(3)
        })
        .collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let padded: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"))
            .collect();
        text += &format!("| {} |\n", padded.join(" | "));
        if number == 0 {
            let dashes: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
            text += &format!("| {} |\n", dashes.join(" | "));
        }
    }
    text
}

/// Writes all readings and what follows from them, where the plan says so.
pub(crate) fn write_json(plan: &Plan, results: &Results) -> Result<()> {
    let Some(path) = &plan.json else {
        return Ok(());
    };
    let mut summary = BTreeMap::new();
    for (work, peers) in &results.works {
        for peer in peers.keys() {
            let figures =
                json!({ "cpu_us": results.cpu(*work, peer), "ratio": results.ratio(*work, peer) });
            summary.insert(format!("{work:?}/{peer}"), figures);
        }
    }
    for peer in results.polls.keys() {
        summary.insert(
            format!("Polls/{peer}"),
            json!({ "kb_per_poll": results.poll_kb(peer) }),
        );
    }
    let all = json!({
        "command": plan.command(),
        "smoke": plan.smoke,
        "summary": summary,
        "targets": verdicts(results),
        "readings": results,
    });
    std::fs::write(path, serde_json::to_string_pretty(&all)?)
        .with_context(|| format!("{}", path.display()))?;
    println!("figures: {}", path.display());
    Ok(())
}
