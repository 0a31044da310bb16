//! What came of the probes that are run from time to time.

use super::report::Report;
use crate::config::settings::ScheduledProbe;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

/// The last report of each probe of the configuration, by name; there are no others.
#[derive(Debug, Default)]
pub struct Table(Mutex<BTreeMap<String, Arc<Ran>>>);

/// A probe that was run.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its name.
    pub name: String,
    /// What came of it.
    pub report: Report,
    /// When it ended.
    pub at: SystemTime,
}

impl Table {
    /// A probe has ended.
    pub fn ran(&self, name: &str, report: Report, at: SystemTime) {
        let ran = Ran {
            name: name.to_owned(),
            report,
            at,
        };
        self.0.lock().insert(name.to_owned(), Arc::new(ran));
    }

    /// Forgets those that are not among these.
    pub fn keep(&self, probes: &[Arc<ScheduledProbe>]) {
        let is_there = |name: &String| probes.iter().any(|probe| probe.name == *name);
        self.0.lock().retain(|name, _| is_there(name));
    }

    /// All, by name.
    pub fn all(&self) -> Vec<Arc<Ran>> {
        self.0.lock().values().cloned().collect()
    }
}
