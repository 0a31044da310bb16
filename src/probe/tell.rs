//! Reports for people: one as a list of steps, several side by side with the difference in time.

use super::report::{Finding, Report, UNASKED, Verdict};
use super::step::Step;
use crate::prose::wrapped;
use std::fmt::Write as _;

/// One report: a line for each step, and below what is wrong.
pub fn text(report: &Report) -> String {
    let mut text = format!("{}\n\n", report.target);
    for finding in report.findings.iter().filter(|finding| is_asked(finding)) {
        let time = match finding.verdict {
            Verdict::Skipped | Verdict::NotRun => String::new(),
            _ => format!("{:.1} ms", finding.milliseconds),
        };
        let words = match &finding.trouble {
            Some(_) if finding.verdict == Verdict::Failed => "",
            _ => finding.words.as_str(),
        };
        // Writing into memory does not fail, here and below.
        let line = format!(
            "  {:<8} {:<17} {time:>10}  {words}",
            finding.verdict.words(),
            finding.step.as_str()
        );
        let _ = writeln!(text, "{}", line.trim_end());
        explain(&mut text, finding);
    }
    let _ = writeln!(text, "\n{}", sum(report));
    text
}

/// Several reports side by side: verdict and time of each step, the difference of the others to the first, and
/// below what is wrong with each.
pub fn side_by_side(reports: &[Report]) -> String {
    let [first, others @ ..] = reports else {
        return String::new();
    };
    if others.is_empty() {
        return text(first);
    }
    let width = reports
        .iter()
        .map(|report| report.target.chars().count())
        .chain([20])
        .max()
        .unwrap_or_default();
    let mut text = format!("{:<19}", "");
    let _ = write!(text, " {:<width$}", first.target);
    for other in others {
        let _ = write!(text, "  {:<width$} {:>11}", other.target, "difference");
    }
    text.push_str("\n\n");
    let is_in_any = |step: &Step| {
        let mut findings = reports.iter().filter_map(|report| report.of(*step));
        findings.any(is_asked)
    };
    for step in Step::ALL.into_iter().filter(is_in_any) {
        let _ = write!(
            text,
            "  {:<17} {:<width$}",
            step.as_str(),
            cell(first.of(step))
        );
        for other in others {
            let difference = match (first.of(step), other.of(step)) {
                (Some(one), Some(other)) if was_tried(one) && was_tried(other) => {
                    let difference = other.milliseconds - one.milliseconds;
                    // Not -0.0.
                    format!("{:+.1} ms", (difference * 10.0).round() / 10.0 + 0.0)
                }
                _ => String::new(),
            };
            let _ = write!(text, "  {:<width$} {difference:>11}", cell(other.of(step)));
        }
        let end = text.trim_end().len();
        text.truncate(end);
        text.push('\n');
    }
    for report in reports {
        let is_wrong =
            |finding: &&Finding| finding.trouble.is_some() || finding.verdict == Verdict::NotRun;
        let _ = writeln!(text, "\n{}", sum(report));
        for finding in report.findings.iter().filter(is_wrong) {
            let _ = writeln!(
                text,
                "  {:<8} {:<17} {}",
                finding.verdict.words(),
                finding.step.as_str(),
                finding.words
            );
            explain(&mut text, finding);
        }
    }
    text
}

/// What nobody asked for is not told of.
fn is_asked(finding: &Finding) -> bool {
    finding.words != UNASKED
}

fn was_tried(finding: &Finding) -> bool {
    !matches!(finding.verdict, Verdict::Skipped | Verdict::NotRun)
}

fn cell(finding: Option<&Finding>) -> String {
    match finding {
        Some(finding) if was_tried(finding) => format!(
            "{:<8} {:>7.1} ms",
            finding.verdict.words(),
            finding.milliseconds
        ),
        Some(finding) => finding.verdict.words().to_owned(),
        None => String::new(),
    }
}

fn explain(text: &mut String, finding: &Finding) {
    let Some(trouble) = &finding.trouble else {
        return;
    };
    for (label, words) in [
        ("expected", &trouble.expected),
        ("came", &trouble.came),
        ("next", &trouble.next),
    ] {
        let margin = " ".repeat(22);
        let mut lines = String::new();
        let _ = wrapped(&mut lines, &margin, words);
        // The label stands in the margin of the first line.
        let first = format!("{:<11}{label:<11}", "");
        let _ = write!(
            text,
            "{first}{}",
            lines.get(margin.len()..).unwrap_or_default()
        );
    }
}

fn sum(report: &Report) -> String {
    let count = |verdict| {
        let findings = report.findings.iter();
        findings
            .filter(|finding| finding.verdict == verdict && is_asked(finding))
            .count()
    };
    let mut parts = vec![format!("{} ok", count(Verdict::Ok))];
    for verdict in [
        Verdict::Warning,
        Verdict::Failed,
        Verdict::NotRun,
        Verdict::Skipped,
    ] {
        if count(verdict) > 0 {
            parts.push(format!("{} {}", count(verdict), verdict.words()));
        }
    }
    format!(
        "{}: {} in {:.1} s",
        report.target,
        parts.join(", "),
        report.milliseconds / 1000.0
    )
}

#[cfg(test)]
mod tests {
    use super::super::report::Trouble;
    use super::*;

    fn finding(step: Step, verdict: Verdict, milliseconds: f64) -> Finding {
        let trouble = (verdict == Verdict::Failed)
            .then(|| Trouble::new("bread", "a stone", "ask the baker ".repeat(12)));
        Finding {
            step,
            verdict,
            milliseconds,
            words: "words".to_owned(),
            trouble,
        }
    }

    #[test]
    fn a_failure_is_told_with_what_was_expected_what_came_and_what_to_do() {
        let report = Report::new(
            "https://mail.test".to_owned(),
            vec![
                finding(Step::Dns, Verdict::Ok, 0.25),
                finding(Step::Tls, Verdict::Failed, 12.0),
                finding(Step::Authentication, Verdict::NotRun, 0.0),
            ],
        );

        let told = text(&report);

        assert!(
            told.contains("  ok       dns                   0.2 ms  words\n"),
            "{told}"
        );
        assert!(
            told.contains("           expected   bread\n           came       a stone\n"),
            "{told}"
        );
        assert!(
            told.contains("           next       ask the baker"),
            "{told}"
        );
        assert!(told.contains("  not run  authentication"), "{told}");
        assert!(
            told.ends_with("https://mail.test: 1 ok, 1 FAILED, 1 not run in 0.0 s\n"),
            "{told}"
        );
        assert!(
            told.lines()
                .all(|line| line.len() <= 110 && line == line.trim_end()),
            "{told}"
        );
    }

    #[test]
    fn two_reports_stand_side_by_side_with_their_difference() {
        let report = |target: &str, time| {
            Report::new(
                target.to_owned(),
                vec![finding(Step::Dns, Verdict::Ok, time)],
            )
        };

        let told = side_by_side(&[report("https://a", 1.0), report("https://b", 3.5)]);

        assert!(told.contains("+2.5 ms"), "{told}");
        assert!(
            told.contains("https://a: 1 ok in 0.0 s\n\nhttps://b: 1 ok in 0.0 s\n"),
            "{told}"
        );
    }
}
