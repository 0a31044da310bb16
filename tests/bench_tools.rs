//! The bench's own arithmetic: a figure that is wrong there is wrong in the README.
//!
//! A program with `harness = false` cannot hold tests, so its files are taken in here.
#![allow(
    dead_code,
    reason = "only the arithmetic is tested; the rest is used by the bench"
)]
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the files are the bench's, which says why"
)]

#[path = "../benches/end_to_end/answer.rs"]
mod answer;
#[path = "../benches/end_to_end/cpu.rs"]
mod cpu;
#[path = "../benches/end_to_end/report.rs"]
mod report;

// What `report` knows of its neighbours.
#[path = "../benches/end_to_end/client.rs"]
mod client;
#[path = "../benches/end_to_end/launch.rs"]
mod launch;
#[path = "../benches/end_to_end/load.rs"]
mod load;
#[path = "../benches/end_to_end/plan.rs"]
mod plan;
#[path = "../benches/end_to_end/polls.rs"]
mod polls;

use answer::Answer;
use cpu::{CpuReading, Watched, family, pss, stat_fields};
use load::Found;
use report::{Results, Spread, Work, cpu_us, verdicts};
use std::collections::BTreeMap;

fn found(requests: u64, cpu_ns: u64) -> Found {
    Found {
        requests,
        cpu_ns,
        seconds: 1.0,
        ..Found::default()
    }
}

#[test]
fn a_thread_that_ended_takes_nothing_from_the_sum() {
    let before: CpuReading = [(1, 1_000), (2, 5_000)].into_iter().collect();
    let after: CpuReading = [(1, 1_700)].into_iter().collect();

    assert_eq!(after.since(&before), 700);
}

#[test]
fn a_thread_that_began_counts_in_full() {
    let before: CpuReading = [(1, 1_000)].into_iter().collect();
    let after: CpuReading = [(1, 1_001), (7, 300)].into_iter().collect();

    assert_eq!(after.since(&before), 301);
}

#[test]
fn work_of_this_process_is_seen() {
    let watched = Watched::new(std::process::id()).unwrap();
    let before = watched.cpu().unwrap();

    let begin = std::time::Instant::now();
    let mut sum = 0_u64;
    while begin.elapsed() < std::time::Duration::from_millis(60) {
        sum = std::hint::black_box(sum.wrapping_add(1));
    }

    let spent = watched.cpu().unwrap().since(&before);
    assert!(spent > 1_000_000, "{spent} ns");
    assert!(watched.memory().unwrap() > 100_000);
}

#[test]
fn children_of_children_belong_to_the_family() {
    let parents = BTreeMap::from([(10, 1), (11, 10), (12, 11), (20, 1), (13, 10)]);

    let mut found = family(10, &parents);
    found.sort_unstable();

    assert_eq!(found, [10, 11, 12, 13]);
}

#[test]
fn a_command_name_with_blanks_and_brackets_does_not_shift_the_fields() {
    let stat = "42 (a (b) c) S 7 42 42 0 -1";

    let fields: Vec<&str> = stat_fields(stat).take(2).collect();

    assert_eq!(fields, ["S", "7"]);
}

#[test]
fn the_pss_line_is_not_mistaken_for_its_parts() {
    let rollup = "00400000-7fff Rss:\nRss:  900 kB\nPss_Anon:  5 kB\nPss:             123 kB\n";

    assert_eq!(pss(rollup), Some(123 * 1024));
    assert_eq!(pss("Rss: 5 kB\n"), None);
}

#[test]
fn the_median_is_the_middle_or_the_mean_of_two() {
    let odd = Spread::of([3.0, 1.0, 2.0].into_iter()).unwrap();
    let even = Spread::of([4.0, 1.0, 2.0, f64::NAN, 8.0].into_iter()).unwrap();

    assert_eq!(
        odd,
        Spread {
            median: 2.0,
            min: 1.0,
            max: 3.0
        }
    );
    assert_eq!(
        even,
        Spread {
            median: 3.0,
            min: 1.0,
            max: 8.0
        }
    );
    assert_eq!(Spread::of(std::iter::empty()), None);
}

#[test]
fn ratios_are_taken_round_by_round() {
    let mut results = Results::default();
    // The machine slowed down by a factor of two; the ratio did not move.
    for (round, slow) in [(1, 1), (2, 2)] {
        results.add(
            Work::Execute,
            "nginx",
            round,
            found(1000, 30_000_000 * slow),
        );
        results.add(
            Work::Execute,
            "mapigate",
            round,
            found(1000, 18_000_000 * slow),
        );
    }
    // A round without nginx says nothing.
    results.add(Work::Execute, "mapigate", 3, found(1000, 90_000_000));

    let ratio = results.ratio(Work::Execute, "mapigate").unwrap();

    assert!(
        (ratio.median - 0.6).abs() < 1e-9 && (ratio.max - 0.6).abs() < 1e-9,
        "{ratio:?}"
    );
    assert!((cpu_us(&found(1000, 18_000_000)) - 18.0).abs() < 1e-9);
}

#[test]
fn a_missed_target_is_said_and_a_figure_without_nginx_is_not_judged() {
    let mut results = Results::default();
    results.add(Work::Execute, "mapigate", 1, found(10, 100));
    assert!(verdicts(&results).is_empty());

    results.add(Work::Execute, "nginx", 1, found(10, 100));
    let verdicts = verdicts(&results);

    assert_eq!(verdicts.len(), 1);
    assert!(verdicts.iter().all(|verdict| !verdict.kept));
}

#[test]
fn errors_dead_polls_and_failures_all_count() {
    let mut results = Results {
        failures: 1,
        ..Results::default()
    };
    results.add(
        Work::Execute,
        "nginx",
        1,
        Found {
            errors: 2,
            ..found(1, 1)
        },
    );
    results.polls.insert(
        "nginx".to_owned(),
        vec![polls::Found {
            dead: 4,
            ..polls::Found::default()
        }],
    );

    assert_eq!(results.errors(), 7);
}

#[test]
fn a_chunked_answer_is_read_whole_wherever_it_is_cut() {
    let wire: &[u8] =
        b"HTTP/1.1 200 OK\r\nX-ResponseCode: 0\r\nSet-Cookie: MapiContext=a1; path=/mapi\r\n\
        Transfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n3;x=y\r\nabc\r\n0\r\nX-T: 1\r\n\r\n";
    for cut in 0..wire.len() {
        let (first, second) = wire.split_at(cut);
        let mut answer = Answer::default();

        assert!(!answer.feed(first).unwrap(), "cut at {cut}");
        assert!(answer.feed(second).unwrap(), "cut at {cut}");

        assert_eq!(answer.body_bytes(), 13);
        assert_eq!(answer.cookies(), ["MapiContext=a1"]);
    }
}

#[test]
fn an_answer_that_is_not_good_is_an_error() {
    let refused = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    let code = b"HTTP/1.1 200 OK\r\nX-ResponseCode: 10\r\nContent-Length: 0\r\n\r\n";
    let surplus = b"HTTP/1.1 200 OK\r\nX-ResponseCode: 0\r\nContent-Length: 1\r\n\r\nab";

    for wire in [&refused[..], code, surplus] {
        assert!(Answer::default().feed(wire).is_err());
    }
}
