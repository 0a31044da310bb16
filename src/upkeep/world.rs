//! A small world for tests: two servers, one database, nobody listening.

#![expect(clippy::disallowed_methods, reason = "tests begin somewhere in time")]

use crate::channels::ChannelTable;
use crate::config::Settings;
use crate::config::settings::{
    Access, AccessLog, Accounting, Admin, AuthSettings, Authenticates, Autodiscover,
    BackendIdentity, CopiesFrom, Database, DirectorySettings, HealthSettings, Limits, Logging,
    Server, SessionSettings, Tls, Vdirs,
};
use crate::ids::{DatabaseName, ServerName};
use crate::journal::Journal;
use crate::mapi::{Capable, Flavour};
use crate::metrics::Metrics;
use crate::runtime::{Runtime, Sighting, Snapshot};
use crate::sessions::SessionTable;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;

pub(crate) fn runtime(settings: Settings) -> (Arc<Runtime>, mpsc::Receiver<Sighting>) {
    let metrics = Metrics::new("test");
    let journal = Journal::start(&settings.logging, &metrics).unwrap();
    let started = (Instant::now(), SystemTime::now());
    let sessions = SessionTable::new(settings.sessions.capacity, [7; 16], started.0);
    let channels = ChannelTable::new(settings.limits.virtual_connections, [7; 16], started.0);
    let first = Snapshot::build(settings, None).unwrap();
    Runtime::new(first, (sessions, channels), metrics, journal, started)
}

pub(crate) fn server(name: &str, address: SocketAddr) -> Arc<Server> {
    Arc::new(Server {
        name: ServerName::new(name),
        host: address.ip().to_string(),
        port: address.port(),
        tls: None,
        flavour: Flavour::Exchange,
        version: None,
        url_name: None,
        capable: Capable::of(Flavour::Exchange, None, None),
        authenticates: Authenticates::Requests,
        health_weight: 100,
        idle_connections_max: 4,
        idle_timeout: Duration::from_secs(60),
        requests_max: 100,
        normalize: true,
    })
}

/// `DB1` has copies on `MBX1` and `MBX2` and is active on `MBX1`. Both are at ports nobody hears.
pub(crate) fn settings() -> Settings {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let servers = [server("MBX1", nowhere), server("MBX2", nowhere)];
    let database = Database {
        copies: vec![ServerName::new("MBX1"), ServerName::new("MBX2")],
        active: ServerName::new("MBX1"),
    };
    let second = Duration::from_secs(1);
    Settings {
        source: PathBuf::from("mapigate.yaml"),
        workers: 1,
        listeners: Vec::new(),
        tls: Tls {
            allow_tls12: true,
            handshake_timeout: second,
            handshakes_max: 10,
            handshakes_per_address: 10,
            ticket_rotation: 3600 * second,
        },
        names: Vec::new(),
        servers: servers
            .into_iter()
            .map(|server| (server.name.clone(), server))
            .collect(),
        databases: BTreeMap::from([(DatabaseName::new("DB1"), database)]),
        copies_from: CopiesFrom::Configuration,
        databases_file: None,
        directory: DirectorySettings {
            file: None,
            ldap: None,
            default_databases: BTreeMap::new(),
            access: Access::Backend,
        },
        autodiscover: Autodiscover {
            mapi_http: true,
            block_external: false,
            internal_networks: Vec::new(),
            outlook_anywhere: true,
            own_only: false,
            ews_url: None,
            oab_url: None,
            activesync_url: None,
            redirects: BTreeMap::new(),
        },
        vdirs: Vdirs::default(),
        auth: AuthSettings::closed(),
        backend_identity: BackendIdentity::Passthrough,
        sessions: SessionSettings {
            capacity: 1000,
            grace: second,
            default_expiration: second,
            route_cookie: None,
        },
        limits: Limits {
            head: 65_536,
            body: 1 << 20,
            chunked_body: 1 << 20,
            head_timeout: second,
            body_timeout: second,
            idle_timeout: second,
            connect_timeout: second,
            first_byte_timeout: second,
            pending_missed: 3,
            default_pending_period: second,
            notification_wait: second,
            connections: 100,
            virtual_connections: 100,
            requests_per_user: 10,
            move_jitter: second,
            drain: second,
        },
        health: HealthSettings {
            interval: Duration::from_millis(50),
            timeout: second,
            fall: 2,
            rise: 1,
            panic_threshold: 0,
            page: None,
            rpc_page: None,
            probe: None,
        },
        logging: Logging {
            level: "info".to_owned(),
            json: false,
            access: AccessLog::Off,
            http_proxy: None,
            access_buffer: 1 << 20,
        },
        accounting: Accounting {
            cpu: None,
            usage_entries: 100,
            device_info: None,
        },
        probes: Vec::new(),
        admin: Admin { address: None },
        watch_files: false,
        files: Vec::new(),
    }
}
