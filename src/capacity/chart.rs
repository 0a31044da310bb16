//! Cores against users as a picture.

use super::Inputs;
use std::fmt::Write as _;

/// An SVG with logarithmic scales: cores that users keep busy at the peak, cores to have, and what the published rule
/// gives. The number of users asked for has a mark.
pub fn svg(inputs: &Inputs) -> String {
    let mut text = String::with_capacity(8 * 1024);
    // Writing into memory does not fail.
    let _infallible = draw(&mut text, inputs);
    text
}

/// What the picture shows.
struct Scale {
    /// Powers of ten of users, and of cores.
    users: (i32, i32),
    cores: (i32, i32),
}

impl Scale {
    fn of(inputs: &Inputs) -> Self {
        let users = super::amount(inputs.users).max(1.0).log10();
        let first = power(users - 1.5);
        let (least, ..) = inputs.at(10_f64.powi(first));
        let (.., most) = inputs.at(10_f64.powi(first + DECADES));
        let (_, whole, _) = inputs.at(10_f64.powi(first + DECADES));
        #[expect(clippy::cast_precision_loss, reason = "a picture is not that fine")]
        let most = most.max(whole as f64).max(1.0);
        Self {
            users: (first, first + DECADES),
            cores: (
                power(least.max(CORES_LEAST).log10()).min(0),
                power(most.log10()) + 1,
            ),
        }
    }

    fn x(&self, users: f64) -> f64 {
        LEFT + share(users, self.users) * (RIGHT - LEFT)
    }

    fn y(&self, cores: f64) -> f64 {
        BOTTOM - share(cores, self.cores) * (BOTTOM - TOP)
    }
}

/// How far a number is on a logarithmic scale.
fn share(number: f64, (first, last): (i32, i32)) -> f64 {
    let (first, last) = (f64::from(first), f64::from(last));
    let at = number.max(f64::MIN_POSITIVE).log10();
    ((at - first) / (last - first)).clamp(0.0, 1.0)
}

/// Rounded down.
fn power(number: f64) -> i32 {
    #[expect(clippy::cast_possible_truncation, reason = "clamped")]
    let whole = number.floor().clamp(-20.0, 20.0) as i32;
    whole
}

fn draw(text: &mut String, inputs: &Inputs) -> std::fmt::Result {
    let scale = Scale::of(inputs);
    let plan = inputs.plan();
    writeln!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">\n\
         <title>{TITLE}</title>\n<style>{STYLE}</style>\n<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"title\" x=\"20\" y=\"28\">{TITLE}</text>\n\
         <text class=\"quiet\" x=\"20\" y=\"48\">At the peak, {} messages a day and user, {}. Both scales are logarithmic.</text>",
        plan.messages,
        match plan.front_ends.count {
            1 => "one front end".to_owned(),
            count => format!("{count} front ends of which one may fail"),
        }
    )?;
    for decade in scale.cores.0..=scale.cores.1 {
        let cores = 10_f64.powi(decade);
        let y = scale.y(cores);
        writeln!(
            text,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{cores} {}</text>",
            LEFT - 8.0,
            y + 4.0,
            if decade == 0 { "core" } else { "cores" },
        )?;
    }
    for decade in scale.users.0..=scale.users.1 {
        let users = 10_f64.powi(decade);
        let x = scale.x(users);
        writeln!(
            text,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{BOTTOM}\"/>\
             <text class=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{} users</text>",
            BOTTOM + 20.0,
            super::table::count(users),
        )?;
    }
    lines(text, inputs, &scale)?;
    let x = scale.x(plan.users);
    writeln!(
        text,
        "<line class=\"asked\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{BOTTOM}\"/>\
         <text class=\"middle quiet\" x=\"{x:.1}\" y=\"{:.1}\">{} users: {} cores busy, {} to have, rule {}</text>\n</svg>",
        BOTTOM + 38.0,
        super::table::count(plan.users),
        super::table::cores(plan.busy_cores),
        plan.front_ends.cores,
        super::table::cores(plan.rule.client_access_cores),
    )
}

fn lines(text: &mut String, inputs: &Inputs, scale: &Scale) -> std::fmt::Result {
    let (first, last) = (f64::from(scale.users.0), f64::from(scale.users.1));
    let steps = 20 * u32::try_from(DECADES).unwrap_or(1);
    let mut paths = [String::new(), String::new(), String::new()];
    for step in 0..=steps {
        let users = 10_f64.powf(first + (last - first) * f64::from(step) / f64::from(steps));
        let (busy, whole, rule) = inputs.at(users);
        #[expect(clippy::cast_precision_loss, reason = "a picture is not that fine")]
        let values = [rule, whole as f64, busy];
        for (path, cores) in paths.iter_mut().zip(values) {
            write!(path, "{:.1},{:.1} ", scale.x(users), scale.y(cores))?;
        }
    }
    for ((path, class, name), place) in paths
        .iter()
        .zip(["a", "b", "c"])
        .zip(NAMES)
        .map(|((path, class), name)| (path, class, name))
        .zip(0_u8..)
    {
        let y = TOP + 18.0 + 20.0 * f64::from(place);
        writeln!(
            text,
            "<g class=\"{class}\"><polyline points=\"{}\"><title>{name}</title></polyline>\
             <polyline points=\"{:.1},{:.1} {:.1},{:.1}\"/></g><text x=\"{:.1}\" y=\"{y:.1}\">{name}</text>",
            path.trim_end(),
            LEGEND,
            y - 4.0,
            LEGEND + 22.0,
            y - 4.0,
            LEGEND + 30.0,
        )?;
    }
    Ok(())
}

const NAMES: [&str; 3] = [
    "3:8 rule, Client Access cores busy",
    "mapigate, cores to have",
    "mapigate, cores busy",
];
const TITLE: &str = "Cores of the front ends against users";
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 430.0;
const LEFT: f64 = 96.0;
const RIGHT: f64 = 800.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 376.0;
const LEGEND: f64 = 110.0;
/// Decades of users in the picture.
const DECADES: i32 = 3;
/// Below this a core may as well be called idle.
const CORES_LEAST: f64 = 1e-3;
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-weight:600;font-size:16px}\
.quiet{fill:#57606a;font-size:12px}.end{text-anchor:end}.middle{text-anchor:middle}.paper{fill:#fff}.grid{stroke:#8884}\
.asked{stroke:#57606a;stroke-dasharray:3 4}polyline{fill:none;stroke-width:2}\
.a polyline{stroke:#8250df;stroke-dasharray:6 4}.b polyline{stroke:#1a7f37}.c polyline{stroke:#0969da}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.quiet{fill:#8d96a0}.paper{fill:#0d1117}\
.a polyline{stroke:#d2a8ff}.b polyline{stroke:#3fb950}.c polyline{stroke:#58a6ff}}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::Assumptions;

    #[test]
    fn every_line_has_a_name_and_the_users_asked_for_a_mark() {
        let picture = svg(&Inputs::of_profile(20_000.0, 100.0, Assumptions::default()));

        for name in NAMES {
            assert_eq!(
                picture.matches(&format!("<title>{name}</title>")).count(),
                1
            );
            assert!(picture.contains(&format!(">{name}</text>")));
        }
        assert!(picture.contains("20,000 users: "));
        assert!(
            picture.contains(">1,000 users</text>") && picture.contains(">100,000 users</text>")
        );
        assert!(picture.ends_with("</svg>\n"));
    }

    #[test]
    fn more_is_higher_and_further_right_and_nothing_leaves_the_picture() {
        let scale = Scale::of(&Inputs::of_profile(20_000.0, 100.0, Assumptions::default()));

        assert!(scale.y(10.0) < scale.y(1.0));
        assert!(scale.x(50_000.0) > scale.x(20_000.0));
        assert!((scale.y(1e30) - TOP).abs() < 1e-6 && (scale.y(0.0) - BOTTOM).abs() < 1e-6);
        assert!((scale.x(0.0) - LEFT).abs() < 1e-6 && (scale.x(1e30) - RIGHT).abs() < 1e-6);
    }
}
