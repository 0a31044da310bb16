//! What a process and its children have used: CPU time to the nanosecond, memory as the kernel shares it out.

use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A process with all its descendants, as they are when it is made.
#[derive(Debug)]
pub(crate) struct Watched {
    pids: Vec<u32>,
}

/// CPU time of each thread at one moment, nanoseconds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuReading(BTreeMap<u32, u64>);

impl Watched {
    /// Looks the descendants of `root` up.
    pub(crate) fn new(root: u32) -> Result<Self> {
        let mut parents = BTreeMap::new();
        for entry in fs::read_dir("/proc").context("/proc")?.flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            if let Ok(stat) = fs::read_to_string(entry.path().join("stat"))
                && let Some(parent) = stat_fields(&stat)
                    .nth(1)
                    .and_then(|field| field.parse().ok())
            {
                parents.insert(pid, parent);
            }
        }
        Ok(Self {
            pids: family(root, &parents),
        })
    }

    /// CPU time used so far, thread by thread, kernel time included.
    pub(crate) fn cpu(&self) -> Result<CpuReading> {
        let mut reading = CpuReading::default();
        for pid in &self.pids {
            let tasks = fs::read_dir(format!("/proc/{pid}/task"))
                .with_context(|| format!("process {pid} is gone"))?;
            for task in tasks.flatten() {
                // A thread may end between the listing and the reading.
                if let Some(tid) = task.file_name().to_str().and_then(|name| name.parse().ok())
                    && let Some(spent) = thread_ns(&task.path())
                {
                    reading.0.insert(tid, spent);
                }
            }
        }
        Ok(reading)
    }

    /// Proportional set size in bytes: what is shared is counted in parts.
    pub(crate) fn memory(&self) -> Result<u64> {
        let mut sum = 0;
        for pid in &self.pids {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
                .with_context(|| format!("memory of process {pid}"))?;
            sum += pss(&rollup).with_context(|| format!("no Pss line for process {pid}"))?;
        }
        Ok(sum)
    }
}

impl CpuReading {
    /// Nanoseconds used since an earlier reading. A thread that has ended meanwhile counts as nothing
    /// rather than less than nothing; one that has begun meanwhile counts in full.
    pub(crate) fn since(&self, earlier: &Self) -> u64 {
        self.0
            .iter()
            .map(|(tid, now)| now.saturating_sub(earlier.0.get(tid).copied().unwrap_or(0)))
            .sum()
    }
}

impl FromIterator<(u32, u64)> for CpuReading {
    fn from_iter<T: IntoIterator<Item = (u32, u64)>>(threads: T) -> Self {
        Self(threads.into_iter().collect())
    }
}

/// `root` and everybody below it.
pub(crate) fn family(root: u32, parents: &BTreeMap<u32, u32>) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(
            parents
                .iter()
                .filter(|&(_, p)| *p == parent)
                .map(|(child, _)| *child),
        );
        next += 1;
    }
    found
}

/// Bytes of the `Pss:` line.
pub(crate) fn pss(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Time on the CPU of one thread. The scheduler's own figure counts nanoseconds; where the kernel was built
/// without it, the clock ticks of `stat` (10 ms each on Linux) must do.
fn thread_ns(task: &Path) -> Option<u64> {
    if let Ok(text) = fs::read_to_string(task.join("schedstat"))
        && let Some(spent) = text.split(' ').next().and_then(|field| field.parse().ok())
    {
        return Some(spent);
    }
    let stat = fs::read_to_string(task.join("stat")).ok()?;
    let ticks: Vec<u64> = stat_fields(&stat)
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse().ok())
        .collect();
    Some(ticks.iter().sum::<u64>() * 10_000_000)
}

/// The fields after the command's name, which may contain blanks and brackets: the state comes first.
pub(crate) fn stat_fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(") ")
        .map_or("", |(_, rest)| rest)
        .split(' ')
}
