//! Reads Prometheus' text format, as far as it can be read.
//!
//! A line that is none is counted and left out: what comes from a proxy, a pager or another version may have some.

/// One value of a family.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The family's name, with `_sum`, `_count` or `_bucket` where there is one.
    pub name: String,
    /// Labels in the order of the line.
    pub labels: Vec<(String, String)>,
    /// Its value; finite.
    pub value: f64,
}

impl Sample {
    /// The value of a label; empty where it has none.
    pub fn label(&self, name: &str) -> &str {
        let found = self.labels.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }
}

/// What a scrape says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposition {
    samples: Vec<Sample>,
    unreadable: usize,
}

impl Exposition {
    /// Reads every line. Never fails; [`Self::unreadable`] says how much of it was something else.
    pub fn read(text: &str) -> Self {
        let mut read = Self::default();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match sample(line) {
                // NaN and infinities say that there is nothing to be said.
                Some(sample) if sample.value.is_finite() => read.samples.push(sample),
                Some(_) => {}
                None => read.unreadable += 1,
            }
        }
        read
    }

    /// Every value.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Lines that were neither values nor comments.
    pub fn unreadable(&self) -> usize {
        self.unreadable
    }

    /// The values of a family.
    pub fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples
            .iter()
            .filter(move |sample| sample.name == name)
    }

    /// The sum of a family's values; `None` where there is none.
    pub fn sum(&self, name: &str) -> Option<f64> {
        self.of(name)
            .map(|sample| sample.value)
            .reduce(|a, b| a + b)
    }
}

/// `name{label="value",…} value [time]`
fn sample(line: &str) -> Option<Sample> {
    let end = line.find(|c: char| !is_name(c)).unwrap_or(line.len());
    let (name, rest) = line.split_at_checked(end)?;
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None if rest.starts_with(char::is_whitespace) => (Vec::new(), rest),
        None => return None,
    };
    let mut words = rest.split_whitespace();
    let value = words.next()?.parse().ok()?;
    // A time, in milliseconds, may follow; nothing else.
    if let Some(time) = words.next() {
        time.parse::<f64>().ok()?;
    }
    words.next().is_none().then(|| Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// Labels behind the brace, and what follows the one that closes.
fn labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, behind) = rest.split_once('=')?;
        let name = name.trim();
        if name.is_empty() || !name.chars().all(is_name) {
            return None;
        }
        let (value, behind) = quoted(behind.trim_start().strip_prefix('"')?)?;
        labels.push((name.to_owned(), value));
        rest = behind;
    }
}

/// A value up to its closing quote, escapes undone, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_labels_escapes_and_times_are_read() {
        let text = "# HELP a b\n# TYPE a counter\na 1\nb{x=\"y\",z=\"q\\\"\\\\\\n}\",} 2.5e-3 1395066363000\r\n\nc{ } +Inf\nd NaN\n";

        let read = Exposition::read(text);

        assert_eq!(read.samples().len(), 2);
        assert_eq!(read.unreadable(), 0);
        assert_eq!(read.sum("a"), Some(1.0));
        let b = read.of("b").next().unwrap();
        assert_eq!(
            (b.label("x"), b.label("z"), b.value),
            ("y", "q\"\\\n}", 2.5e-3)
        );
        assert_eq!(b.label("none"), "");
        assert_eq!(read.sum("c"), None);
    }

    #[test]
    fn what_is_something_else_is_counted_and_left_out() {
        for line in [
            "<html>",
            "a",
            "a b",
            "a 1 2 3",
            "a 1 b",
            "9a 1",
            "a{x=1} 1",
            "a{x=\"1\" 1",
            "a{x=\"1} 1",
            "a{=\"1\"} 1",
            "{\"a\": 1}",
            "a{x=\"1\\",
        ] {
            let read = Exposition::read(line);
            assert_eq!((read.samples().len(), read.unreadable()), (0, 1), "{line}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_read_without_a_panic_and_line_by_line(text in "\\PC{0,40}(\n[a-z{}=\",\\\\ 0-9.]{0,40}){0,8}") {
            let read = Exposition::read(&text);
            prop_assert!(read.samples().iter().all(|sample| sample.value.is_finite()));
            prop_assert!(read.samples().len() + read.unreadable() <= text.lines().count());
        }

        #[test]
        fn what_was_written_is_read_back(
            name in "[a-z_:][a-z0-9_:]{0,12}",
            labels in proptest::collection::vec(("[a-z_]{1,8}", "[^\n]{0,12}"), 0..4),
            value in proptest::num::f64::NORMAL,
        ) {
            let shown: Vec<String> = labels
                .iter()
                .map(|(name, value)| {
                    format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\r', " "))
                })
                .collect();
            let line = format!("{name}{{{}}} {value}", shown.join(","));

            let read = Exposition::read(&line);

            let sample = read.samples().first().unwrap();
            prop_assert_eq!(&sample.name, &name);
            prop_assert_eq!(sample.value, value);
            prop_assert_eq!(sample.labels.len(), labels.len());
            for ((name, value), read) in labels.iter().zip(&sample.labels) {
                prop_assert_eq!((name, &value.replace('\r', " ")), (&read.0, &read.1));
            }
        }
    }
}
