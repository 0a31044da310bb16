//! Gathers the status from the world and its tables.

use super::status::{
    CertificateStatus, CopiesStatus, DatabaseStatus, DirectoryServer, ProbeStatus, ReloadStatus,
    ServerStatus, Status, date,
};
use crate::config::settings::CopiesFrom;
use crate::health::Ward;
use crate::probe::{Ran, Report};
use crate::runtime::{Runtime, Snapshot};
use crate::upkeep::Reloader;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// `starting`, `serving` or `draining`.
pub(super) fn phase(runtime: &Runtime) -> &'static str {
    match (runtime.is_leaving(), runtime.is_ready()) {
        (true, _) => "draining",
        (false, true) => "serving",
        (false, false) => "starting",
    }
}

/// The phase, and what it waits for.
pub(super) fn not_ready(runtime: &Runtime) -> String {
    let world = runtime.snapshot();
    let phase = phase(runtime);
    if runtime.is_leaving() || !world.placement.homes().is_awaited() {
        return phase.to_owned();
    }
    let trouble = world.copies.trouble.as_deref();
    let why = trouble.map_or_else(String::new, |trouble| format!(": {trouble}"));
    format!("{phase}; the directory has not told yet where databases are{why}")
}

pub(super) fn status(
    runtime: &Runtime,
    reloader: &Reloader,
    now: Instant,
    wall: SystemTime,
) -> Status {
    let world = runtime.snapshot();
    let metrics = &runtime.metrics;
    let last = reloader.last();
    Status {
        version: env!("CARGO_PKG_VERSION"),
        phase: phase(runtime),
        generation: world.generation.0,
        uptime_seconds: now.saturating_duration_since(runtime.started().0).as_secs(),
        servers: servers(runtime, &world, now),
        health_panics: world.health.panics(),
        databases: databases(&world),
        copies: copies(&world, wall),
        placement_epoch: world.placement.epoch().0,
        mailboxes: world.directory.len(),
        directory: directory(&world),
        directory_entries: world.book.as_ref().map_or(0, |book| book.len()),
        sessions: runtime.sessions.len(),
        sessions_capacity: runtime.sessions.capacity(),
        connections: metrics.connections_open(),
        requests_in_flight: metrics.requests_in_flight(),
        held_polls: metrics.held_polls(),
        access_log_dropped: runtime.journal.dropped(),
        probes: probe_statuses(runtime),
        last_reload: ReloadStatus {
            is_ok: last.is_ok,
            time: date(unix_seconds(last.time)),
            problems: last.problems.clone(),
        },
        certificates: certificates(&world, unix_seconds(wall)),
    }
}

fn servers(runtime: &Runtime, world: &Snapshot, now: Instant) -> Vec<ServerStatus> {
    let health: BTreeMap<_, _> = world.health.iter().collect();
    let started = runtime.started().0;
    let status = |server: &crate::config::settings::Server| {
        let since = health
            .get(&server.name)
            .map_or(started, |health| health.since);
        ServerStatus {
            name: server.name.clone(),
            address: format!("{}:{}", server.host, server.port),
            flavour: server.flavour,
            is_up: world.health.is_up(&server.name),
            is_eligible: world.health.is_eligible(&server.name),
            reason: world.health.reason(&server.name),
            vdirs_down: world
                .settings
                .vdirs
                .iter()
                .map(|(vdir, _)| Ward::Vdir(vdir))
                .chain([Ward::Rpc])
                .filter(|ward| !world.wards.of(*ward).is_up(&server.name))
                .map(Ward::as_str)
                .collect(),
            since_seconds: now.saturating_duration_since(since).as_secs(),
            inflight: runtime.metrics.server_inflight(&server.name),
        }
    };
    world
        .settings
        .servers
        .values()
        .map(|server| status(server))
        .collect()
}

fn databases(world: &Snapshot) -> Vec<DatabaseStatus> {
    let status = |(name, home): (
        &crate::ids::DatabaseName,
        &crate::config::settings::Database,
    )| {
        DatabaseStatus {
            name: name.clone(),
            copies: home.copies.clone(),
            active: home.active.clone(),
            source: world.placement.homes().source(name),
            is_available: world.health.is_eligible(&home.active),
        }
    };
    world.placement.iter().map(status).collect()
}

fn copies(world: &Snapshot, now: SystemTime) -> Option<CopiesStatus> {
    if world.settings.copies_from == CopiesFrom::Configuration {
        return None;
    }
    let age = |at| now.duration_since(at).unwrap_or_default().as_secs();
    let differences = world.placement.homes().differences().iter();
    Some(CopiesStatus {
        read_seconds_ago: world.copies.read_at.map(age),
        trouble: world.copies.trouble.clone(),
        differences: differences.map(ToString::to_string).collect(),
    })
}

fn directory(world: &Snapshot) -> Vec<DirectoryServer> {
    let servers = world.book.iter().flat_map(|book| book.client().states());
    let status = |(url, trouble)| DirectoryServer { url, trouble };
    servers.map(status).collect()
}

fn probe_statuses(runtime: &Runtime) -> Vec<ProbeStatus> {
    let status = |ran: &Arc<Ran>| ProbeStatus {
        name: ran.name.clone(),
        is_good: ran.report.is_good,
        time: date(unix_seconds(ran.at)),
        failed: ran
            .report
            .first_failure()
            .map(|finding| format!("{}: {}", finding.step, finding.words)),
    };
    runtime.probes.all().iter().map(status).collect()
}

/// A probe's whole report, for `/probes.json`.
#[derive(Debug, serde::Serialize)]
pub(super) struct ProbeReport {
    name: String,
    time: String,
    #[serde(flatten)]
    report: Report,
}

/// What came of every probe.
pub(super) fn probes(runtime: &Runtime) -> Vec<ProbeReport> {
    let report = |ran: &Arc<Ran>| ProbeReport {
        name: ran.name.clone(),
        time: date(unix_seconds(ran.at)),
        report: ran.report.clone(),
    };
    runtime.probes.all().iter().map(report).collect()
}

/// Each chain once, however many listeners show it.
fn certificates(world: &Snapshot, now: i64) -> Vec<CertificateStatus> {
    let mut by_file: BTreeMap<&Path, CertificateStatus> = BTreeMap::new();
    for certificate in world
        .settings
        .listeners
        .iter()
        .flat_map(|l| &l.certificates)
    {
        by_file
            .entry(&certificate.chain_file)
            .or_insert_with(|| CertificateStatus {
                names: certificate.names.clone(),
                file: certificate.chain_file.display().to_string(),
                not_after: date(certificate.not_after),
                days_left: (certificate.not_after - now).div_euclid(86_400),
            });
    }
    by_file.into_values().collect()
}

fn unix_seconds(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
