//! A plan in words and columns, for people.

use super::{Bandwidth, Plan, Rush};
use crate::prose::wrapped;
use std::fmt::{self, Write as _};

/// The whole plan.
pub fn text(plan: &Plan) -> String {
    let mut text = String::new();
    // Writing into memory does not fail.
    let _infallible = write(&mut text, plan);
    text
}

fn write(text: &mut String, plan: &Plan) -> fmt::Result {
    let all = format!(
        "Front ends for {} users. From {}.",
        count(plan.users),
        plan.source
    );
    wrapped(text, "", &all)?;
    recommendation(text, plan)?;
    busy(text, plan)?;
    rushes(text, plan)?;
    rule(text, plan)?;
    writeln!(text, "What would change it most\n")?;
    for one in &plan.sensitivity {
        writeln!(
            text,
            "  {:<52} {:>10} cores {:>6} %",
            one.what,
            cores(one.needed_cores),
            rounded(one.percent)
        )?;
    }
    let needed = plan.front_ends.needed_each * f64::from(plan.front_ends.count);
    let before = format!(
        "Cores of all front ends before they are rounded up; {} without the change.",
        cores(needed)
    );
    writeln!(text)?;
    wrapped(text, "  ", &before)?;
    writeln!(
        text,
        "\nTaken for granted (change with --assume NAME=VALUE)\n"
    )?;
    for one in &plan.assumptions {
        let value = match one.unit {
            "" => number(one.value),
            unit => format!("{} {unit}", number(one.value)),
        };
        writeln!(text, "  {} = {value}", one.name)?;
        wrapped(text, "      ", &format!("{} ({})", one.meaning, one.source))?;
    }
    Ok(())
}

fn recommendation(text: &mut String, plan: &Plan) -> fmt::Result {
    let sized = &plan.front_ends;
    let each = &sized.each;
    let why = match sized.decided_by {
        "loss" => "for the clients of a lost one to be back in time",
        "morning" => "for the morning",
        _ => "for the peak",
    };
    writeln!(
        text,
        "\n{:<42} {:>14} {:>18}",
        "", "each front end", "all together"
    )?;
    let mut row =
        |what: &str, each: String, all: String| writeln!(text, "{what:<42} {each:>14} {all:>18}");
    row(
        match sized.count {
            1 => "front ends; it may not fail",
            _ => "front ends, of which one may fail",
        },
        String::new(),
        sized.count.to_string(),
    )?;
    row(
        "cores",
        sized.cores_each.to_string(),
        sized.cores.to_string(),
    )?;
    row(
        "memory of the process",
        size(each.process_bytes),
        size(each.process_bytes * f64::from(sized.count)),
    )?;
    row(
        "memory of the kernel, for connections",
        size(each.kernel_bytes),
        size(each.kernel_bytes * f64::from(sized.count)),
    )?;
    row(
        "client connections",
        count(each.connections),
        count(plan.connections),
    )?;
    row(
        "  of them with a held poll",
        count(each.held_polls),
        count(plan.held_polls),
    )?;
    row(
        "connections to mailbox servers",
        count(each.server_connections),
        count(plan.server_connections),
    )?;
    row("sessions", count(each.sessions), count(plan.sessions))?;
    for (what, of) in [
        ("from clients", (|b| b.client_in) as fn(&Bandwidth) -> f64),
        ("to clients", |b| b.client_out),
        ("from mailbox servers", |b| b.server_in),
        ("to mailbox servers", |b| b.server_out),
    ] {
        row(
            &format!("bandwidth {what}"),
            bits(of(&each.bandwidth)),
            bits(of(&plan.bandwidth)),
        )?;
    }
    row(
        "cores busy at the peak",
        cores(each.busy_cores),
        cores(plan.busy_cores),
    )?;
    row(
        "  in percent",
        rounded(each.utilisation_percent),
        rounded(sized.utilisation_percent),
    )?;
    writeln!(text)?;
    let words = format!(
        "Each front end: what it has at the peak while another one is lost, so that the others share its clients. All \
         together: nobody is lost. Cores were needed {why}: {} each, rounded up, at most {} % busy at the peak and \
         {} % while clients come back.",
        cores(sized.needed_each),
        number(plan.target_utilisation_percent),
        plan.assumptions
            .iter()
            .find(|one| one.name == "rush_utilisation_percent")
            .map_or_else(String::new, |one| number(one.value)),
    );
    wrapped(text, "", &words)?;
    let choices: Vec<String> = plan
        .choices
        .iter()
        .map(|choice| format!("{} x {}", choice.count, choice.cores_each))
        .collect();
    writeln!(text, "Front ends times cores: {}.\n", choices.join(", "))
}

fn busy(text: &mut String, plan: &Plan) -> fmt::Result {
    writeln!(
        text,
        "{:<42} {:>14} {:>18}\n",
        "What keeps cores busy at the peak", "a second", "cores"
    )?;
    for part in plan.parts.iter().filter(|part| part.cores > 0.0) {
        let per_second = part.per_second.map(rate).unwrap_or_default();
        writeln!(
            text,
            "  {:<40} {per_second:>14} {:>18}",
            part.what,
            cores(part.cores)
        )?;
    }
    writeln!(
        text,
        "  {:<40} {:>14} {:>18}\n",
        "all requests, all cores",
        rate(plan.requests_per_second),
        cores(plan.busy_cores)
    )
}

fn rushes(text: &mut String, plan: &Plan) -> fmt::Result {
    writeln!(
        text,
        "{:<26} {:>9} {:>9} {:>14} {:>12} {:>12}\n",
        "When many connect", "clients", "within", "handshakes/s", "hashes/s", "more cores"
    )?;
    let mut row = |what: &str, rush: &Rush| {
        writeln!(
            text,
            "  {what:<24} {:>9} {:>7} s {:>14} {:>12} {:>12}",
            count(rush.clients),
            count(rush.seconds),
            rate(rush.handshakes_per_second),
            rate(rush.hashes_per_second),
            cores(rush.busy_cores)
        )
    };
    row("in the morning", &plan.morning)?;
    row("a front end is lost", &plan.loss)?;
    writeln!(text)
}

fn rule(text: &mut String, plan: &Plan) -> fmt::Result {
    let rule = &plan.rule;
    writeln!(
        text,
        "{:<42} {:>14} {:>18}\n",
        "For each core of the mailbox servers", "mapigate", "3:8 rule"
    )?;
    writeln!(
        text,
        "  {:<40} {:>14} {:>18}",
        "mailbox cores busy at the peak",
        cores(rule.mailbox_cores),
        cores(rule.mailbox_cores)
    )?;
    writeln!(
        text,
        "  {:<40} {:>14} {:>18}",
        "cores of front ends busy at the peak",
        cores(plan.busy_cores),
        cores(rule.client_access_cores)
    )?;
    writeln!(
        text,
        "  {:<40} {:>14} {:>18}",
        "for a mailbox core",
        cores(rule.busy_per_mailbox_core),
        cores(rule.rule_per_mailbox_core)
    )?;
    writeln!(
        text,
        "  {:<40} {:>14}\n",
        "cores to have for a mailbox core",
        cores(rule.cores_per_mailbox_core)
    )?;
    wrapped(text, "  ", super::rule::DIFFERENCE)?;
    writeln!(text)
}

/// A whole number with its thousands apart.
pub(super) fn count(number: f64) -> String {
    let digits = format!("{:.0}", super::amount(number));
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three digits that count.
pub(super) fn cores(number: f64) -> String {
    match super::amount(number) {
        large if large >= 99.95 => count(large),
        middle if middle >= 9.995 => format!("{middle:.1}"),
        small if small >= 0.995 => format!("{small:.2}"),
        small if small >= 0.0995 => format!("{small:.3}"),
        0.0 => "0".to_owned(),
        tiny => format!("{tiny:.4}"),
    }
}

fn rate(number: f64) -> String {
    if number >= 99.5 {
        count(number)
    } else {
        format!("{number:.1}")
    }
}

fn rounded(percent: f64) -> String {
    if percent >= 9.95 {
        count(percent)
    } else {
        format!("{percent:.1}")
    }
}

/// As somebody would write it.
fn number(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn size(bytes: f64) -> String {
    let mib = bytes / (1024.0 * 1024.0);
    if mib >= 10_240.0 {
        format!("{} GiB", count(mib / 1024.0))
    } else {
        format!("{} MiB", count(mib))
    }
}

fn bits(bits: f64) -> String {
    let mbit = bits / 1e6;
    if mbit >= 99.5 {
        format!("{} Mbit/s", count(mbit))
    } else {
        format!("{mbit:.1} Mbit/s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::{Assumptions, Inputs};

    fn plan() -> Plan {
        Inputs::of_profile(20_000.0, 100.0, Assumptions::default()).plan()
    }

    #[test]
    fn every_part_and_every_assumption_has_its_line() {
        let plan = plan();
        let text = text(&plan);

        for part in plan.parts.iter().filter(|part| part.cores > 0.0) {
            let line = text
                .lines()
                .find(|line| line.starts_with(&format!("  {} ", part.what)));
            assert!(line.unwrap().ends_with(&cores(part.cores)), "{text}");
        }
        for one in &plan.assumptions {
            assert!(text.contains(&format!("\n  {} = {}", one.name, number(one.value))));
        }
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(count(1_234_567.4), "1,234,567");
        assert_eq!(count(999.6), "1,000");
        assert_eq!(
            [123.4, 12.34, 1.234, 0.1234, 0.012_34, 0.0].map(cores),
            ["123", "12.3", "1.23", "0.123", "0.0123", "0"]
        );
        assert_eq!([8.0, 0.0425, 2.4].map(number), ["8", "0.0425", "2.4"]);
        assert_eq!([5e6, 512e6].map(bits), ["5.0 Mbit/s", "512 Mbit/s"]);
        assert_eq!(size(300.0 * 1024.0 * 1024.0), "300 MiB");
    }
}
