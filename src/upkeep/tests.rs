#![expect(clippy::disallowed_methods, reason = "tests begin somewhere in time")]

use super::world::{runtime, server, settings};
use super::*;
use crate::config::settings::{AccessLog, CopiesFrom, HealthProbe, Secret};
use crate::config::{SeenFile, Settings};
use crate::health::Observation;
use crate::ids::{DatabaseName, Epoch, Generation, ServerName};
use crate::ldap::double::{self, Double, Says};
use parking_lot::Mutex;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const SOON: Duration = Duration::from_secs(10);

/// A process without doors: the loops run, and the configuration is what the test says.
struct House {
    runtime: Arc<Runtime>,
    reloader: Reloader,
    next: Arc<Mutex<Result<Settings, Vec<String>>>>,
}

impl House {
    fn with(settings: Settings) -> Self {
        Self::reading(settings, || {})
    }

    /// `meanwhile`: what happens each time after the files were looked at, while they are being read.
    fn reading(settings: Settings, meanwhile: impl Fn() + Send + Sync + 'static) -> Self {
        let (runtime, seen) = runtime(settings.clone());
        let next = Arc::new(Mutex::new(Ok(settings)));
        let file = Arc::clone(&next);
        let load: Loader = Arc::new(move || {
            let mut settings: Settings = file.lock().clone()?;
            for file in &mut settings.files {
                *file = SeenFile::look(&file.path);
            }
            meanwhile();
            Ok((settings, Vec::new()))
        });
        let (upkeep, reloader) = Upkeep::new(
            Arc::clone(&runtime),
            seen,
            load,
            Fronts::new(),
            Instant::now(),
        );
        tokio::spawn(upkeep.run());
        Self {
            runtime,
            reloader,
            next,
        }
    }

    async fn eventually(&self, is_so: impl Fn(&Runtime) -> bool) {
        let deadline = Instant::now() + SOON;
        while !is_so(&self.runtime) {
            assert!(Instant::now() < deadline, "it did not come true");
            tokio::task::yield_now().await;
        }
    }

    fn is_up(&self, server: &str) -> bool {
        self.runtime
            .snapshot()
            .health
            .is_up(&ServerName::new(server))
    }
}

/// Without checks, so that only what the test reports counts.
fn unchecked() -> Settings {
    let mut settings = settings();
    settings.health.interval = Duration::from_secs(3600);
    settings.servers.clear();
    settings
}

fn moved(mut settings: Settings) -> Settings {
    let database = settings
        .databases
        .get_mut(&DatabaseName::new("DB1"))
        .unwrap();
    database.active = ServerName::new("MBX2");
    settings
}

#[tokio::test]
async fn an_acknowledged_reload_is_the_world_new_requests_see() {
    let house = House::with(settings());
    *house.next.lock() = Ok(moved(settings()));

    let reloaded = house.reloader.request().await;

    let world = house.runtime.snapshot();
    assert!(reloaded.is_ok);
    assert_eq!(
        (reloaded.generation, world.generation),
        (Generation(2), Generation(2))
    );
    let active = world.placement.active(&DatabaseName::new("DB1"));
    assert_eq!(active, Some(&ServerName::new("MBX2")));
    assert_eq!(world.placement.epoch(), Epoch(2));
}

#[tokio::test]
async fn a_moved_database_wakes_held_polls_and_an_unmoved_one_does_not() {
    let house = House::with(unchecked());
    let asks = house.runtime.asks();

    house.reloader.request().await;
    assert!(!asks.has_changed().unwrap());

    *house.next.lock() = Ok(moved(unchecked()));
    house.reloader.request().await;
    assert!(asks.has_changed().unwrap());
}

#[tokio::test]
async fn a_reload_to_copies_of_a_directory_that_is_silent_is_refused() {
    let house = House::with(settings());
    let mut next = settings();
    next.copies_from = CopiesFrom::Directory {
        active: BTreeMap::new(),
    };
    next.directory.ldap = Some(Arc::new(crate::ldap::people_of_tests::settings()));
    next.databases.clear();
    *house.next.lock() = Ok(next.clone());

    let reloaded = house.reloader.request().await;

    let words = "databases.copies_from: no server of the directory can be used";
    assert_eq!(reloaded.problems, [words]);
    let world = house.runtime.snapshot();
    assert!(world.placement.home(&DatabaseName::new("DB1")).is_some());

    // At a start there is nothing to lose.
    let house = House::with(next.clone());
    assert!(house.runtime.snapshot().placement.homes().is_awaited());
    assert!(house.reloader.request().await.is_ok);
}

/// Databases are where this directory says; `DB2` has its first copy on `first`.
fn told_by(directory: &Double) -> Settings {
    let mut settings = unchecked();
    settings.servers = world::settings().servers;
    settings.databases.clear();
    settings.copies_from = CopiesFrom::Directory {
        active: BTreeMap::new(),
    };
    settings.directory.ldap = Some(directory.settings());
    settings
}

fn says(first: &str, second: &str) -> Says {
    Says {
        copies: vec![
            double::copy("DB2", first, 1),
            double::copy("DB2", second, 2),
        ],
        ..Says::default()
    }
}

#[tokio::test]
async fn a_directory_that_answers_again_is_followed_and_one_that_does_not_changes_nothing() {
    let silent = Says {
        is_silent: true,
        ..Says::default()
    };
    let directory = Double::start(silent.clone()).await;
    let house = House::with(told_by(&directory));
    let active = |runtime: &Runtime| {
        let world = runtime.snapshot();
        let active = world.placement.active(&DatabaseName::new("DB2"));
        active.map(ToString::to_string)
    };
    let trouble = |runtime: &Runtime| runtime.snapshot().copies.trouble.is_some();
    house.eventually(trouble).await;
    assert_eq!(active(&house.runtime), None);

    directory.say(says("MBX1", "MBX2"));
    house
        .eventually(|runtime| active(runtime).as_deref() == Some("MBX1"))
        .await;
    let asks = house.runtime.asks();
    for odd in [
        Says::default(),
        Says {
            code: 4,
            ..says("MBX2", "MBX1")
        },
        silent,
    ] {
        directory.say(odd);
        house.eventually(trouble).await;
        assert_eq!(active(&house.runtime).as_deref(), Some("MBX1"));
        directory.say(says("MBX1", "MBX2"));
        house.eventually(|runtime| !trouble(runtime)).await;
    }
    assert!(!asks.has_changed().unwrap());

    directory.say(says("MBX2", "MBX1"));
    house
        .eventually(|runtime| active(runtime).as_deref() == Some("MBX2"))
        .await;
    house.eventually(|_| asks.has_changed().unwrap()).await;
}

#[tokio::test]
async fn a_reload_to_another_directory_is_followed() {
    let directory = Double::start(says("MBX1", "MBX2")).await;
    let other = Double::start(says("MBX2", "MBX1")).await;
    let house = House::with(settings());
    let active = |runtime: &Runtime| {
        let world = runtime.snapshot();
        let active = world.placement.active(&DatabaseName::new("DB2"));
        active.map(ToString::to_string)
    };
    *house.next.lock() = Ok(told_by(&directory));

    assert!(house.reloader.request().await.is_ok);
    // Whoever asks afterwards finds every database.
    assert_eq!(active(&house.runtime).as_deref(), Some("MBX1"));

    *house.next.lock() = Ok(told_by(&other));
    assert!(house.reloader.request().await.is_ok);
    assert!(active(&house.runtime).is_some());
    house
        .eventually(|runtime| active(runtime).as_deref() == Some("MBX2"))
        .await;
}

#[tokio::test]
async fn a_wrong_configuration_keeps_the_old_generation_in_force() {
    let house = House::with(settings());
    let before = house.runtime.snapshot();
    *house.next.lock() = Err(vec!["mapigate.yaml:3:1: unknown key".to_owned()]);

    let reloaded = house.reloader.request().await;

    assert!(!reloaded.is_ok);
    assert_eq!(reloaded.problems, ["mapigate.yaml:3:1: unknown key"]);
    assert_eq!(reloaded.generation, Generation(1));
    assert!(Arc::ptr_eq(
        &before.settings,
        &house.runtime.snapshot().settings
    ));
    assert_eq!(*house.reloader.last(), reloaded);
    let text = house.runtime.metrics.render();
    assert!(text.contains("mapigate_config_last_reload_successful 0"));
    assert!(text.contains("mapigate_reloads_total{outcome=\"rejected\"} 1"));
}

#[tokio::test]
async fn a_storm_of_reloads_is_answered_by_a_few() {
    let house = House::with(settings());
    let storm: Vec<_> = (0..50)
        .map(|_| {
            let reloader = house.reloader.clone();
            tokio::spawn(async move { reloader.request().await })
        })
        .collect();

    for asked in storm {
        assert!(asked.await.unwrap().is_ok);
    }

    assert!(house.runtime.snapshot().generation <= Generation(4));
}

#[tokio::test]
async fn what_needs_a_restart_is_said_and_the_rest_takes_effect() {
    let house = House::with(settings());
    let mut next = moved(settings());
    next.workers = 8;
    *house.next.lock() = Ok(next);

    let reloaded = house.reloader.request().await;

    assert!(reloaded.is_ok);
    assert_eq!(
        reloaded.problems,
        ["workers changed and takes effect when mapigate is restarted"]
    );
    assert_eq!(house.runtime.snapshot().placement.epoch(), Epoch(2));
}

#[tokio::test]
async fn log_rotation_works_with_a_wrong_configuration_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let mut wanted = settings();
    wanted.logging.access = AccessLog::File(path.clone());
    let house = House::with(wanted);
    std::fs::rename(&path, folder.path().join("access.log.1")).unwrap();
    *house.next.lock() = Err(vec!["wrong".to_owned()]);

    house.reloader.request().await;

    assert!(path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_the_access_log_who_left_does_not_hold_a_reload_up() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("access.pipe");
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, &pipe, FileType::Fifo, mode, 0).unwrap();
    let reader = open(&pipe, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap();
    let mut wanted = settings();
    wanted.logging.access = AccessLog::File(pipe.clone());
    let house = House::with(wanted.clone());
    *house.next.lock() = Ok(moved(wanted));

    drop(reader);
    let reloaded = tokio::time::timeout(SOON, house.reloader.request()).await;
    // Whoever waits all the same is let go.
    let _reader = open(&pipe, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap();

    let reloaded = reloaded.expect("in time");
    assert!(reloaded.is_ok);
    let words = "logging.access: nobody reads this pipe, start its reader first; lines keep going where they went";
    assert_eq!(reloaded.problems, [words]);
    assert_eq!(house.runtime.snapshot().placement.epoch(), Epoch(2));
    let reloaded = house.reloader.request().await;
    assert_eq!(reloaded.problems, Vec::<String>::new());
}

#[tokio::test]
async fn a_changed_file_is_read_where_the_configuration_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mapigate.yaml");
    std::fs::write(&file, "version: 1").unwrap();
    let mut watched = settings();
    watched.watch_files = true;
    watched.files = vec![SeenFile::look(&file)];
    let house = House::with(watched);
    tokio::task::yield_now().await;

    std::fs::write(&file, "version: 1 # other").unwrap();

    house
        .eventually(|runtime| runtime.snapshot().generation >= Generation(2))
        .await;
}

#[tokio::test]
async fn a_file_that_is_written_while_a_reload_reads_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("databases.yaml");
    std::fs::write(&file, "MBX1").unwrap();
    let mut watched = settings();
    watched.watch_files = true;
    watched.files = vec![SeenFile::look(&file)];
    let times = AtomicUsize::new(0);
    let house = House::reading(watched, move || {
        if times.fetch_add(1, Relaxed) == 0 {
            std::fs::write(&file, "MBX2").unwrap();
        }
    });

    let reloaded = house.reloader.request().await;

    assert_eq!(reloaded.generation, Generation(2));
    house
        .eventually(|runtime| runtime.snapshot().generation == Generation(3))
        .await;
}

#[tokio::test]
async fn a_server_nobody_answers_at_is_marked_down() {
    let house = House::with(settings());

    house
        .eventually(|runtime| !runtime.snapshot().health.is_up(&ServerName::new("MBX1")))
        .await;

    let world = house.runtime.snapshot();
    assert_eq!(
        world.health.reason(&ServerName::new("MBX1")),
        Some("connection refused")
    );
    let text = house.runtime.metrics.render();
    assert!(text.contains("mapigate_backend_up{server=\"MBX1\"} 0"));
}

/// A server that answers every request with this status line, after reading its head.
async fn answering(status: &'static str, wanted: &'static str) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = socket.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                if connection.read_buf(&mut head).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            let is_wanted = String::from_utf8_lossy(&head).contains(wanted);
            let line = if is_wanted { status } else { "500 Unwanted" };
            let answer = format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n");
            let _ = connection.write_all(answer.as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn a_page_that_does_not_answer_200_marks_a_server_down() {
    let mut settings = settings();
    settings.health.page = Some("/health".to_owned());
    let (good, bad) = (
        answering("200 OK", "GET /health ").await,
        answering("302 No", "GET").await,
    );
    settings.servers.extend([
        (ServerName::new("MBX1"), server("MBX1", good)),
        (ServerName::new("MBX2"), server("MBX2", bad)),
    ]);
    let house = House::with(settings);

    house
        .eventually(|runtime| !runtime.snapshot().health.is_up(&ServerName::new("MBX2")))
        .await;

    assert!(house.is_up("MBX1"));
    let world = house.runtime.snapshot();
    assert_eq!(
        world.health.reason(&ServerName::new("MBX2")),
        Some("health page failed")
    );
}

#[tokio::test]
async fn a_probe_is_content_with_any_answer_but_401_and_500() {
    let mut settings = settings();
    settings.health.probe = Some(HealthProbe {
        user: "probe".to_owned(),
        password: Secret::new("secret".to_owned()),
    });
    let good = answering("404 Not Here", "Authorization: Basic cHJvYmU6c2VjcmV0\r\n").await;
    let bad = answering("401 No", "X-RequestType: PING\r\n").await;
    settings.servers.extend([
        (ServerName::new("MBX1"), server("MBX1", good)),
        (ServerName::new("MBX2"), server("MBX2", bad)),
    ]);
    let house = House::with(settings);

    house
        .eventually(|runtime| !runtime.snapshot().health.is_up(&ServerName::new("MBX2")))
        .await;

    assert!(house.is_up("MBX1"));
}

/// A site whose MBX1 takes connections and says nothing, is hardly ever checked, and is down after so many
/// failures.
async fn with_a_deaf_server(fall: u32) -> (Settings, ServerName, TcpListener) {
    let (name, deaf) = (
        ServerName::new("MBX1"),
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
    );
    let mut quiet = settings();
    quiet.health.interval = Duration::from_secs(3600);
    quiet.health.fall = fall;
    quiet
        .servers
        .insert(name.clone(), server("MBX1", deaf.local_addr().unwrap()));
    (quiet, name, deaf)
}

#[tokio::test]
async fn failures_that_requests_see_mark_a_server_down_and_wake_its_polls() {
    let (mut quiet, name, _deaf) = with_a_deaf_server(3).await;
    quiet.health.timeout = Duration::from_secs(3600);
    let house = House::with(quiet);
    let asks = house.runtime.asks();

    for _ in 0..3 {
        house.runtime.observe(&name, Observation::Reset);
    }

    house
        .eventually(|runtime| !runtime.snapshot().health.is_up(&name))
        .await;
    assert!(asks.has_changed().unwrap());
}

#[tokio::test]
async fn requests_see_that_a_server_begins_to_fail_and_that_it_made_up_for_it() {
    let (quiet, name, _deaf) = with_a_deaf_server(10).await;
    let house = House::with(quiet);
    assert!(house.runtime.snapshot().health.is_steady(&name));

    house.runtime.observe(&name, Observation::Reset);
    house
        .eventually(|runtime| !runtime.snapshot().health.is_steady(&name))
        .await;
    house.runtime.observe(&name, Observation::Answered);

    house
        .eventually(|runtime| runtime.snapshot().health.is_steady(&name))
        .await;
    assert!(house.is_up("MBX1"));
}

#[tokio::test]
async fn an_answer_right_behind_a_failure_makes_up_for_it() {
    let (quiet, name, _deaf) = with_a_deaf_server(2).await;
    let house = House::with(quiet);

    // Upkeep has had no time to hear of the failure when the answer comes.
    for _ in 0..3 {
        house.runtime.observe(&name, Observation::Reset);
        house.runtime.observe_answered(&name);
    }
    house.runtime.observe(&name, Observation::Reset);

    house
        .eventually(|runtime| !runtime.snapshot().health.is_steady(&name))
        .await;
    assert!(house.is_up("MBX1"));
}

#[tokio::test]
async fn a_reload_keeps_what_is_known_of_the_servers() {
    let house = House::with(settings());
    let name = ServerName::new("MBX1");
    house
        .eventually(|runtime| !runtime.snapshot().health.is_up(&name))
        .await;

    house.reloader.request().await;

    assert!(!house.is_up("MBX1"));
}
