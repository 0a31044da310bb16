//! What single rules cost: the ones every request passes through.
//!
//! `cargo bench --bench rules`; beside the times it prints what a session costs in memory.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench may fail aloud, and prints what it measured"
)]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use mapigate::accounting::Usage;
use mapigate::accounting::usage::{Names, Used};
use mapigate::config::settings::{Database, HealthSettings, RouteCookie, SealKey};
use mapigate::health::{HealthTable, HealthView};
use mapigate::ids::{DatabaseName, MailboxId, ServerName, UserName};
use mapigate::mapi::{Endpoint, RequestType};
use mapigate::placement::Placement;
use mapigate::relay::head::{self, Fields, Forwarding, Gate};
use mapigate::routing::{Pin, Question, decide};
use mapigate::seal::{Sealer, Ticket};
use mapigate::sessions::{Opened, Session, SessionKey, SessionTable};
use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime};
use zeroize::Zeroizing;

const LIFETIME: Duration = Duration::from_secs(20 * 60);

fn server(number: usize) -> ServerName {
    ServerName::new(format!("MBX{number}"))
}

fn database(number: usize) -> DatabaseName {
    DatabaseName::new(format!("DB{number:03}"))
}

/// A large site: 24 servers, 500 databases with three copies each.
fn site(now: Instant) -> (Placement, HealthView, BTreeSet<ServerName>) {
    let home = |number: usize| Database {
        copies: (0..3).map(|copy| server((number + copy) % 24)).collect(),
        active: server(number % 24),
    };
    let databases: BTreeMap<_, _> = (0..500).map(|n| (database(n), home(n))).collect();
    let second = Duration::from_secs(1);
    let settings = HealthSettings {
        interval: second,
        timeout: second,
        fall: 3,
        rise: 2,
        panic_threshold: 50,
        page: None,
        rpc_page: None,
        probe: None,
    };
    let servers: BTreeSet<ServerName> = (0..24).map(server).collect();
    let watched = servers.iter().map(|server| (server.clone(), 1));
    let health = HealthTable::new(&settings, watched, now).view();
    (Placement::new(&databases), health, servers)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the roof of a bench asks the clock"
)]
fn clock() -> Instant {
    Instant::now()
}

fn routing(bench: &mut Criterion) {
    let (placement, health, capable) = site(clock());
    let (database, server) = (database(333), server(333 % 24));
    let pinned = Question {
        request_type: RequestType::Execute,
        carries_context: true,
        session: Some(Pin {
            database: &database,
            server: &server,
        }),
        database: Some(&database),
        tried: &[],
    };
    let decide = |question| decide(question, &placement, &health, |name| capable.contains(name));
    bench.bench_function("decide", |timer| timer.iter(|| decide(black_box(&pinned))));

    let elsewhere = ServerName::new("MBX99");
    let moved = Question {
        session: Some(Pin {
            database: &database,
            server: &elsewhere,
        }),
        ..pinned
    };
    bench.bench_function("decide_moved", |timer| {
        timer.iter(|| decide(black_box(&moved)));
    });
}

fn sessions(bench: &mut Criterion) {
    const ENTRIES: u32 = 1_000_000;
    let now = clock();
    // Names are shared with the rest of the process, as they are in service.
    let session = Session {
        mailbox: MailboxId::new("01234567-89ab-cdef-0123-456789abcdef@contoso.test"),
        database: database(333),
        server: server(21),
        user: UserName::new("user123456@contoso.test"),
    };
    let before = resident_bytes();
    let table = SessionTable::new(ENTRIES as usize + 1, [7; 16], now);
    for number in 0..ENTRIES {
        // Opened in the course of a quarter of an hour.
        let now = now + LIFETIME * 3 / 4 * number / ENTRIES;
        let key = table.key(Endpoint::Emsmdb, &cookie(number));
        assert_eq!(
            table.open(key, session.clone(), now, LIFETIME),
            Opened::Kept
        );
    }
    let each = |bytes: usize| bytes as f64 / f64::from(ENTRIES);
    println!(
        "a session costs {:.0} bytes by arithmetic, {:.0} bytes resident, at {ENTRIES} sessions",
        each(table.memory_bytes()),
        each(resident_bytes().saturating_sub(before)),
    );

    let mut random = fastrand::Rng::with_seed(1);
    let mut any_key = || table.key(Endpoint::Emsmdb, &cookie(random.u32(..ENTRIES)));
    bench.bench_function("session_find_at_1m_entries", |timer| {
        timer.iter_batched(
            &mut any_key,
            |key: SessionKey| table.find(key, now),
            BatchSize::SmallInput,
        );
    });
    bench.bench_function("session_touch_at_1m_entries", |timer| {
        timer.iter_batched(
            &mut any_key,
            |key: SessionKey| table.touch(key, now, LIFETIME),
            BatchSize::SmallInput,
        );
    });
    let last = cookie(ENTRIES);
    bench.bench_function("session_open_and_close_at_1m_entries", |timer| {
        timer.iter(|| {
            let key = table.key(Endpoint::Emsmdb, black_box(&last));
            table.open(key, session.clone(), now, LIFETIME);
            table.close(key)
        });
    });
    bench.bench_function("session_key", |timer| {
        timer.iter(|| table.key(Endpoint::Emsmdb, black_box(&last)));
    });
}

/// A context cookie as long as a real one.
fn cookie(number: u32) -> [u8; 32] {
    let mut cookie = [b'x'; 32];
    cookie[..4].copy_from_slice(&number.to_le_bytes());
    cookie
}

fn seals(bench: &mut Criterion) {
    let sealer = Sealer::new(&RouteCookie {
        name: "mapigate".to_owned(),
        keys: vec![SealKey {
            id: 1,
            key: Zeroizing::new([7; 32]),
        }],
    });
    let user = UserName::new("user123456@contoso.test");
    let ticket = Ticket {
        database: database(333),
        server: server(21),
        mailbox: MailboxId::new("01234567-89ab-cdef-0123-456789abcdef@contoso.test"),
        issued: 1_800_000_000,
    };
    let value = sealer.seal(&ticket, Endpoint::Emsmdb, &user).unwrap();
    bench.bench_function("seal", |timer| {
        timer.iter(|| sealer.seal(black_box(&ticket), Endpoint::Emsmdb, &user));
    });
    bench.bench_function("open", |timer| {
        timer.iter(|| sealer.open(black_box(value.as_bytes()), Endpoint::Emsmdb, &user));
    });
}

/// Memory of this process that is in RAM.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse::<usize>().ok()).unwrap() * 1024
}

/// Reads the head of an Execute as Outlook writes it, and writes the one a server gets.
fn parse_head(bench: &mut Criterion) {
    const OUTLOOK: &[u8] = b"POST /mapi/emsmdb/?MailboxId=416c6368-656d-794a-6f45-57615272456e@contoso.com HTTP/1.1\r\n\
        Host: mail.contoso.com\r\n\
        Authorization: Basic dXNlcjFAY29udG9zby5jb206Y29ycmVjdCBob3JzZQ==\r\n\
        Content-Type: application/mapi-http\r\n\
        User-Agent: Microsoft Office/16.0 (Windows NT 10.0; MAPI 16.0.17126; Pro)\r\n\
        X-RequestType: Execute\r\n\
        X-RequestId: {E2EA6C1C-E61B-49E9-9CFB-38184F907552}:57\r\n\
        X-ClientInfo: {2EF33C39-49C8-421C-B876-CDF7F2AC3AA0}:1\r\n\
        X-ClientApplication: Outlook/16.0.17126.20132\r\n\
        Cookie: MapiContext=MAPIAAAAAKKM1s7HwPXH9cT21eDQ4dPi1uPS6tHwwfDC8MHx; MapiSequence=0-EbcDeFgHiJ==\r\n\
        Content-Length: 2048\r\n\r\n";
    let gate = Gate {
        head_max: 65_536,
        route_cookie: Some("MapigateRoute"),
        has_vdirs: false,
    };
    let forwarding = Forwarding {
        client: "192.0.2.7",
        scheme: "https",
        authorization: None,
        own: None,
        user: None,
        strip_session_cookies: false,
        route_cookie: Some("MapigateRoute"),
    };
    bench.bench_function("parse_head", |b| {
        b.iter(|| {
            let mut room = Fields::new();
            let read = head::read(black_box(OUTLOOK), gate, &mut room)
                .unwrap()
                .unwrap();
            black_box(read.length)
        });
    });
    let mut out = Vec::with_capacity(4096);
    bench.bench_function("parse_and_write_head", |b| {
        b.iter(|| {
            out.clear();
            let mut room = Fields::new();
            let read = head::read(black_box(OUTLOOK), gate, &mut room)
                .unwrap()
                .unwrap();
            read.write(&forwarding, &mut out);
            black_box(out.len())
        });
    });
}

/// Charges a request to its user, mailbox, client version and database, as often as a worker hands over:
/// every 10,000 requests are a busy second of one.
fn usage(bench: &mut Criterion) {
    let used = Used {
        requests: 1,
        cpu_ns: 19_000,
        bytes_in: 2_300,
        bytes_out: 4_500,
    };
    for (name, users, clients) in [
        ("usage_of_200_users", 200, 8),
        ("usage_of_2000_users", 2_000, 8),
        ("usage_of_20000_users", 20_000, 8),
        ("usage_of_invented_clients", 200, 1_000_000),
    ] {
        let usage = Usage::new(1000, SystemTime::UNIX_EPOCH);
        let user = |number: u32| format!("user{number}@contoso.test");
        let mailbox =
            |number: u32| format!("{number:08x}-89ab-cdef-0123-456789abcdef@contoso.test");
        let client = |number: u32| format!("Outlook/16.0.17126.{number}");
        let people: Vec<_> = (0..users).map(|n| (user(n), mailbox(n))).collect();
        let clients: Vec<_> = (0..clients).map(client).collect();
        let databases: Vec<_> = (0..50).map(|n| database(n).to_string()).collect();
        let mut random = fastrand::Rng::with_seed(1);
        let mut requests = 0;
        bench.bench_function(name, |timer| {
            timer.iter(|| {
                let number = random.usize(..people.len());
                let (user, mailbox) = people.get(number).unwrap();
                let names = Names {
                    user,
                    mailbox,
                    client: random.choice(&clients).unwrap().as_bytes(),
                    database: databases.get(number % databases.len()).unwrap(),
                };
                usage.charge(black_box(&names), used);
                requests += 1;
                if requests % 10_000 == 0 {
                    usage.hand_over();
                }
            });
        });
    }
}

criterion_group!(rules, parse_head, routing, sessions, seals, usage);
criterion_main!(rules);
