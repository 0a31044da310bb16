//! What authentication and the directory cost a request, and how long a large site takes to load.
#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot start says so by stopping"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "a bench is where its own time begins"
)]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mapigate::auth::{AuthStep, Authenticator, HandOff, Identity, Memo, Scheme};
use mapigate::config::settings::{
    Access, AuthSettings, BackendIdentity, BasicAuth, Database, DirectorySettings,
};
use mapigate::directory::Directory;
use mapigate::ids::{DatabaseName, ServerName, UserName};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

const MAILBOXES: u32 = 100_000;

fn authentication(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("users");
    let mut lines = String::new();
    let hash = bcrypt::hash("correct horse 1", 4).unwrap();
    for number in 0..10_000 {
        writeln!(lines, "user{number}@contoso.test:{hash}").unwrap();
    }
    std::fs::write(&password_file, lines).unwrap();
    let settings = AuthSettings {
        basic: Some(BasicAuth {
            realm: "mail".to_owned(),
            password_file,
            default_domain: None,
        }),
        bearer: None,
        cache_ttl: Duration::from_secs(3600),
        negative_ttl: Duration::from_secs(3600),
        cache_capacity: 200_000,
        verifications_max: 2,
    };
    let auth = Authenticator::new(&settings, None).unwrap();
    let now = (Instant::now(), SystemTime::now());
    let offered = &[Scheme::Basic];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let values: Vec<Vec<u8>> = (0..1000)
        .map(|number| {
            let clear = format!("user{number}@contoso.test:correct horse 1");
            format!("Basic {}", STANDARD.encode(clear)).into_bytes()
        })
        .collect();
    for value in &values {
        if let AuthStep::Verify(verification) =
            auth.step(Some(value), offered, &mut Memo::default(), now)
        {
            runtime.block_on(verification.run()).unwrap();
        }
    }
    let wrong = format!("Basic {}", STANDARD.encode("user1@contoso.test:stale")).into_bytes();
    if let AuthStep::Verify(verification) =
        auth.step(Some(&wrong), offered, &mut Memo::default(), now)
    {
        runtime.block_on(verification.run()).unwrap_err();
    }

    let mut memo = Memo::default();
    let first = values.first().unwrap();
    auth.step(Some(first), offered, &mut memo, now);
    criterion.bench_function("auth_same_connection", |bencher| {
        bencher.iter(|| auth.step(black_box(Some(first)), offered, &mut memo, now));
    });
    let mut turn = values.iter().cycle();
    criterion.bench_function("auth_new_connection_of_1000_users", |bencher| {
        bencher.iter(|| {
            auth.step(
                turn.next().map(Vec::as_slice),
                offered,
                &mut Memo::default(),
                now,
            )
        });
    });
    criterion.bench_function("auth_stale_password", |bencher| {
        bencher.iter(|| auth.step(black_box(Some(&wrong)), offered, &mut Memo::default(), now));
    });
    let handoff = HandOff::new(&BackendIdentity::Passthrough).unwrap();
    let identity = Identity {
        user: UserName::new("user1@contoso.test"),
        scheme: Scheme::Basic,
        expires: None,
    };
    criterion.bench_function("handoff_identity_key", |bencher| {
        bencher.iter(|| handoff.identity_key(&identity, black_box(Some(first))));
    });
}

fn directory(criterion: &mut Criterion) {
    let settings = DirectorySettings {
        file: None,
        default_databases: BTreeMap::new(),
        access: Access::Backend,
    };
    let databases: BTreeMap<DatabaseName, Database> = (0..40)
        .map(|number| {
            let active = ServerName::new(format!("MBX{}", number % 4));
            let copies = vec![active.clone()];
            let name = DatabaseName::new(format!("DB{number:02}"));
            (name, Database { copies, active })
        })
        .collect();
    let mut text = "mailboxes:\n".to_owned();
    for number in 0..MAILBOXES {
        write!(
            text,
            r"  - id: 416c6368-656d-794a-6f45-{number:012x}@contoso.test
    addresses: [user{number}@contoso.test, u.{number}@contoso.test]
    logins: [user{number}, 'CONTOSO\user{number}']
    database: DB{:02}
    access: listed
    users: [assistant{}@contoso.test]
",
            number % 40,
            number % 100
        )
        .unwrap();
    }
    let parse = || {
        let file = Path::new("mailboxes.yaml");
        Directory::parse(
            text.as_bytes(),
            file,
            &settings,
            &databases,
            Some("contoso.test"),
        )
    };

    let mut group = criterion.benchmark_group("directory");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.sample_size(10);
    group.bench_function("load_100k", |bencher| bencher.iter(parse));
    group.finish();
    let site = parse().unwrap();
    let user = UserName::new("user7@contoso.test");
    let mut number = 0;
    let ids: Vec<String> = (0..MAILBOXES)
        .map(|number| format!("416c6368-656d-794a-6f45-{number:012x}@contoso.test"))
        .collect();
    criterion.bench_function("directory_mailbox_and_may_open_of_100k", |bencher| {
        bencher.iter(|| {
            number = (number + 7919) % ids.len();
            let home = site.mailbox(ids.get(number)?)?;
            Some(site.may_open(&home, &user))
        });
    });
}

criterion_group!(benches, authentication, directory);
criterion_main!(benches);
