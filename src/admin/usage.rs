//! Who used how much, as `/usage.json` and the page tell it.

use super::decoded;
use super::status::date;
use crate::accounting::Usage;
use crate::accounting::usage::{Dimension, List, Row, Used, Weight};
use serde::Serialize;
use serde_json::Number;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// What is asked of the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    by: Dimension,
    sort: Weight,
    top: usize,
}

impl Question {
    /// Reads a query; what it does not say is `by=user&sort=cpu&top=20`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn read(query: &str) -> Result<Self, String> {
        let mut question = Self {
            by: Dimension::User,
            sort: Weight::Cpu,
            top: 20,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value).unwrap_or_default();
            match key {
                "by" => question.by = word(key, &value, Dimension::ALL, Dimension::as_str)?,
                "sort" => question.sort = word(key, &value, Weight::ALL, Weight::as_str)?,
                "top" => {
                    let top = value.parse().ok().filter(|top| *top > 0);
                    question.top = top.ok_or("top: a whole number from 1 on")?;
                }
                _ => return Err("by, sort and top may be asked for".to_owned()),
            }
        }
        Ok(question)
    }

    /// The answer. No more names than a list has entries: those behind them prove nothing.
    pub(super) fn answer(self, usage: &Usage) -> Answer {
        let entries = usage.entries();
        let list = usage.list(self.by, self.sort, self.top.min(entries));
        let since = usage.since().duration_since(UNIX_EPOCH).unwrap_or_default();
        Answer {
            by: self.by.as_str(),
            sort: self.sort.as_str(),
            since: date(i64::try_from(since.as_secs()).unwrap_or(i64::MAX)),
            entries,
            names: list.names,
            total: list.total.into(),
            unnamed: list.unnamed.into(),
            listed: list.listed.into(),
            listed_share: share(&list, self.sort),
            unlisted_max: figure(list.unlisted_max, self.sort),
            rows: list.rows.iter().map(|row| told(row, self.sort)).collect(),
        }
    }
}

fn word<T: Copy, const N: usize>(
    key: &str,
    value: &str,
    all: [T; N],
    as_str: fn(T) -> &'static str,
) -> Result<T, String> {
    let found = all.into_iter().find(|known| as_str(*known) == value);
    found.ok_or_else(|| format!("{key}: {}", all.map(as_str).join(", ")))
}

/// Everything `/usage.json` says.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    by: &'static str,
    sort: &'static str,
    since: String,
    entries: usize,
    names: usize,
    total: Figures,
    unnamed: Figures,
    listed: Figures,
    listed_share: f64,
    unlisted_max: Number,
    rows: Vec<Told>,
}

/// What somebody used.
#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    requests: u64,
    cpu_us: f64,
    bytes_in: u64,
    bytes_out: u64,
}

impl From<Used> for Figures {
    fn from(used: Used) -> Self {
        Self {
            requests: used.requests,
            cpu_us: microseconds(used.cpu_ns),
            bytes_in: used.bytes_in,
            bytes_out: used.bytes_out,
        }
    }
}

#[derive(Debug, Serialize)]
struct Told {
    name: Arc<str>,
    #[serde(flatten)]
    counted: Figures,
    estimate: Number,
    overestimate_max: Number,
}

fn told(row: &Row, by: Weight) -> Told {
    Told {
        name: Arc::clone(&row.name),
        counted: row.used.into(),
        estimate: figure(row.estimate, by),
        overestimate_max: figure(row.overestimate_max, by),
    }
}

/// The part of everything that a list's rows account for; 1 where nothing was used.
pub(super) fn share(list: &List, by: Weight) -> f64 {
    match list.total.of(by) {
        0 => 1.0,
        total => list.listed.of(by) as f64 / total as f64,
    }
}

/// A weight in the unit its list is read in: processor time in microseconds.
fn figure(weight: u64, by: Weight) -> Number {
    match by {
        Weight::Cpu => Number::from_f64(microseconds(weight)).unwrap_or_else(|| weight.into()),
        Weight::Requests | Weight::Bytes => weight.into(),
    }
}

fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_says_what_it_wants_or_nothing() {
        let plain = Question {
            by: Dimension::User,
            sort: Weight::Cpu,
            top: 20,
        };
        assert_eq!(Question::read(""), Ok(plain));
        assert_eq!(
            Question::read("by=client&sort=bytes&top=3"),
            Ok(Question {
                by: Dimension::Client,
                sort: Weight::Bytes,
                top: 3
            })
        );
        for dimension in Dimension::ALL {
            let query = format!("by={}", dimension.as_str());
            assert_eq!(Question::read(&query).map(|q| q.by), Ok(dimension));
        }
    }

    #[test]
    fn a_wrong_question_is_told_what_there_is() {
        for (query, words) in [
            ("by=server", "by: user, mailbox, client, database"),
            ("sort=name", "sort: requests, cpu, bytes"),
            ("sort", "sort: requests, cpu, bytes"),
            ("top=0", "top: a whole number from 1 on"),
            ("top=-1", "top: a whole number from 1 on"),
            ("by=user&order=cpu", "by, sort and top may be asked for"),
        ] {
            assert_eq!(Question::read(query), Err(words.to_owned()), "{query}");
        }
    }
}
