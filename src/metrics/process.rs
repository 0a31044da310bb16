//! Figures of the process itself, read from the kernel when somebody asks for the metrics.

use super::{Families, clamp};
use prometheus::{Counter, Gauge, IntGauge};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// The families that describe the process.
#[derive(Debug)]
pub(super) struct ProcessFamilies {
    cpu_seconds: Counter,
    resident_bytes: IntGauge,
    open_fds: IntGauge,
    max_fds: IntGauge,
    threads: IntGauge,
    start_time: Gauge,
}

impl ProcessFamilies {
    pub(super) fn new(families: &Families) -> Self {
        Self {
            cpu_seconds: families.float_counter(
                "process_cpu_seconds_total",
                "Processor time of the process, user and system.",
            ),
            resident_bytes: families.gauge(
                "process_resident_memory_bytes",
                "Memory held by the process.",
            ),
            open_fds: families.gauge("process_open_fds", "File descriptors open."),
            max_fds: families.gauge("process_max_fds", "File descriptors allowed."),
            threads: families.gauge("process_threads", "Threads of the process."),
            start_time: families.float(
                "process_start_time_seconds",
                "When the process started, in seconds since 1970.",
            ),
        }
    }

    pub(super) fn set_start(&self, now: f64) {
        self.start_time.set(now);
    }

    pub(super) fn refresh(&self) {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        #[expect(
            clippy::cast_precision_loss,
            reason = "exact up to 285 years of processor time"
        )]
        let total = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        // The kernel keeps the count; a second scrape at the same time may have been here before.
        self.cpu_seconds
            .inc_by((total - self.cpu_seconds.get()).max(0.0));
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        if let Some(kilobytes) = field(&status, "VmRSS:") {
            self.resident_bytes.set(kilobytes.saturating_mul(1024));
        }
        if let Some(threads) = field(&status, "Threads:") {
            self.threads.set(threads);
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            // One of them is the folder being read.
            self.open_fds.set(clamp(entries.count().saturating_sub(1)));
        }
        if let Some(most) = getrlimit(Resource::Nofile).current {
            self.max_fds.set(clamp(most));
        }
    }
}

/// The number behind a name in `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
