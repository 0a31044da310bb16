//! What authentication and the directory cost a request, and how long a large site takes to load.
#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot start says so by stopping"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "a bench is where its own time begins"
)]

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ldap3::SearchEntry;
use libgssapi::context::{ClientCtx, CtxFlags};
use libgssapi::credential::{Cred, CredUsage};
use libgssapi::name::Name;
use libgssapi::oid::{GSS_MECH_SPNEGO, GSS_NT_HOSTBASED_SERVICE, GSS_NT_USER_NAME, OidSet};
use mapigate::accounting::meter::thread_cpu_ns;
use mapigate::auth::{
    Asker, AuthStep, Authenticator, Certified, HandOff, Identity, Memo, Presented, Scheme,
};
use mapigate::config::settings::{
    Access, Attributes, AuthSettings, Authenticates, BackendIdentity, BasicAuth, BasicVerify,
    BearerAuth, BearerChallenge, BindingRule, CertificateName, ClientCertificates, CopyNames,
    Database, DatabaseForm, DirectorySettings, GuidForm, KeyPlace, KeySource, LdapSettings,
    NegotiateAuth, NtlmAuth, Secret, TokenIssuer,
};
use mapigate::directory::{Directory, Whose};
use mapigate::ids::{DatabaseName, ServerName, UserName};
use mapigate::lab::Authority;
use mapigate::lab::authority::{CertifiedUser, Validity};
use mapigate::lab::identity_provider::Keys;
use mapigate::ldap::{Asked, Book, Findings};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

const MAILBOXES: u32 = 100_000;

fn asker<'a>(
    authorization: Option<&'a [u8]>,
    offered: &'a [Scheme],
    now: (Instant, SystemTime),
) -> Asker<'a> {
    Asker {
        authorization,
        offered,
        source: std::net::Ipv4Addr::LOCALHOST.into(),
        now,
    }
}

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
            verify: BasicVerify::File(password_file),
            default_domain: None,
        }),
        cache_capacity: 200_000,
        ..AuthSettings::closed()
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
            auth.step(&asker(Some(value), offered, now), &mut Memo::default())
        {
            runtime.block_on(verification.run()).unwrap();
        }
    }
    let wrong = format!("Basic {}", STANDARD.encode("user1@contoso.test:stale")).into_bytes();
    if let AuthStep::Verify(verification) =
        auth.step(&asker(Some(&wrong), offered, now), &mut Memo::default())
    {
        runtime.block_on(verification.run()).unwrap_err();
    }

    let mut memo = Memo::default();
    let first = values.first().unwrap();
    auth.step(&asker(Some(first), offered, now), &mut memo);
    criterion.bench_function("auth_same_connection", |bencher| {
        bencher.iter(|| auth.step(&asker(black_box(Some(first)), offered, now), &mut memo));
    });
    second_request("basic", || {
        auth.step(&asker(black_box(Some(first)), offered, now), &mut memo);
    });
    let mut turn = values.iter().cycle();
    criterion.bench_function("auth_new_connection_of_1000_users", |bencher| {
        bencher.iter(|| {
            let value = turn.next().map(Vec::as_slice);
            auth.step(&asker(value, offered, now), &mut Memo::default())
        });
    });
    criterion.bench_function("auth_stale_password", |bencher| {
        bencher.iter(|| {
            auth.step(
                &asker(black_box(Some(&wrong)), offered, now),
                &mut Memo::default(),
            )
        });
    });
    let handoff = HandOff::new(&BackendIdentity::Passthrough, None).unwrap();
    let identity = Identity {
        user: UserName::new("user1@contoso.test"),
        scheme: Scheme::Basic,
        expires: None,
        evidence: None,
    };
    criterion.bench_function("handoff_identity_key", |bencher| {
        bencher.iter(|| {
            handoff.lane(
                Authenticates::Connections,
                &identity,
                black_box(Some(first)),
            )
        });
    });
}

/// A token of the size that Entra ID gives, and what its first and its further requests cost.
fn tokens(criterion: &mut Criterion) {
    let keys = Keys::new().unwrap();
    let issuer = "https://id.contoso.test";
    let settings = AuthSettings {
        bearer: Some(BearerAuth {
            challenge: BearerChallenge::default(),
            leeway: Duration::from_secs(60),
            issuers: vec![TokenIssuer {
                issuer: issuer.to_owned(),
                keys: KeySource {
                    issuer: issuer.to_owned(),
                    place: KeyPlace::File {
                        path: "keys.json".into(),
                        text: keys.published().unwrap().to_string().into_bytes(),
                    },
                    ca: None,
                    refresh: Duration::from_secs(3600),
                },
                audiences: vec!["https://mail.contoso.test/".to_owned()],
                algorithms: vec![jsonwebtoken::Algorithm::RS256],
                identity_claims: vec!["upn".to_owned()],
                default_domain: None,
                domains: vec!["contoso.test".to_owned()],
                required_claims: Vec::new(),
                clients: Vec::new(),
            }],
        }),
        cache_capacity: 200_000,
        ..AuthSettings::closed()
    };
    let auth = Authenticator::new(&settings, None).unwrap();
    let now = (Instant::now(), SystemTime::now());
    let since = now.1.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let claims = json!({
        "iss": issuer, "aud": "https://mail.contoso.test/", "upn": "user1@contoso.test",
        "exp": since.as_secs() + 7200, "padding": "x".repeat(700),
    });
    let value = format!("Bearer {}", keys.sign(&claims, &json!({})).unwrap()).into_bytes();
    assert!((1500..1600).contains(&value.len()), "{}", value.len());
    let offered = &[Scheme::Bearer, Scheme::Basic];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let step = |memo: &mut Memo| auth.step(&asker(black_box(Some(&value)), offered, now), memo);

    criterion.bench_function("token_1500_read_and_verified", |bencher| {
        bencher.iter(|| {
            auth.revoke_all();
            let AuthStep::Verify(verification) = step(&mut Memo::default()) else {
                return None;
            };
            runtime.block_on(verification.run()).ok()
        });
    });
    let mut memo = Memo::default();
    // Where only some benches run, nobody has shown it yet.
    if let AuthStep::Verify(verification) = step(&mut memo) {
        runtime.block_on(verification.run()).unwrap();
        step(&mut memo);
    }
    assert!(matches!(step(&mut memo), AuthStep::Granted(_)));
    criterion.bench_function("token_1500_same_connection", |bencher| {
        bencher.iter(|| step(&mut memo));
    });
    second_request("bearer", || _ = step(&mut memo));
    criterion.bench_function("token_1500_new_connection", |bencher| {
        bencher.iter(|| step(&mut Memo::default()));
    });
    let handoff = HandOff::new(&BackendIdentity::Passthrough, None).unwrap();
    let AuthStep::Granted(identity) = step(&mut memo) else {
        return;
    };
    criterion.bench_function("token_1500_handoff_identity_key", |bencher| {
        bencher.iter(|| {
            handoff.lane(
                Authenticates::Connections,
                &identity,
                black_box(Some(&value)),
            )
        });
    });
    // The first look at a token made up in somebody's name: what a storm of them costs each.
    let header = json!({ "kid": "made up" });
    let made_up = format!("Bearer {}", keys.sign(&claims, &header).unwrap()).into_bytes();
    criterion.bench_function("token_1500_of_an_unknown_key", |bencher| {
        bencher.iter(|| {
            let asker = asker(black_box(Some(&made_up)), offered, now);
            auth.step(&asker, &mut Memo::default())
        });
    });
}

#[expect(
    clippy::print_stdout,
    reason = "criterion has no word for what was left out, nor for processor time"
)]
#[expect(clippy::panic, reason = "a handshake that fails is no measurement")]
/// What a proven connection costs, and, where a domain controller is at hand, what proving it costs.
fn connections(criterion: &mut Criterion) {
    let helper = "while read verb rest; do case $verb in YR) echo TT AQID;; *) echo 'AF CONTOSO\\user1';; esac; done";
    let mut settings = AuthSettings {
        ntlm: Some(NtlmAuth {
            helper: ["sh", "-c", helper].map(str::to_owned).into(),
            pool: 1,
            handshake_timeout: Duration::from_secs(10),
            realm_map: BTreeMap::new(),
        }),
        ..AuthSettings::closed()
    };
    let now = (Instant::now(), SystemTime::now());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let offered = &[Scheme::Negotiate, Scheme::Ntlm];
    let auth = Authenticator::new(&settings, None).unwrap();
    let mut memo = Memo::over_tls(None);
    for message in [b"NTLMSSP\0\x01", b"NTLMSSP\0\x03"] {
        let value = format!("NTLM {}", STANDARD.encode(message));
        if let AuthStep::Shake(word) =
            auth.step(&asker(Some(value.as_bytes()), offered, now), &mut memo)
        {
            runtime.block_on(word.run(&mut memo)).unwrap();
        }
    }
    assert!(matches!(
        auth.step(&asker(None, offered, now), &mut memo),
        AuthStep::Granted(_)
    ));
    criterion.bench_function("proven_connection", |bencher| {
        bencher.iter(|| auth.step(black_box(&asker(None, offered, now)), &mut memo));
    });
    second_request("ntlm", || {
        auth.step(black_box(&asker(None, offered, now)), &mut memo);
    });

    let Some(lab) = std::env::var_os("MAPIGATE_AD_LAB").map(std::path::PathBuf::from) else {
        println!(
            "kerberos_ticket_accepted is left out: MAPIGATE_AD_LAB names no lab of tests/ad/up.sh"
        );
        return;
    };
    settings.negotiate = Some(NegotiateAuth {
        keytab: lab.join("mail.keytab"),
        replay_cache: None,
        realm_map: BTreeMap::new(),
        channel_binding: BindingRule::Accept,
        extra_channel_bindings: Vec::new(),
        allow_ntlm_in_spnego: false,
        persist: true,
        keeps_tickets: false,
        threads: 4,
        handshake_timeout: Duration::from_secs(10),
    });
    let auth = Authenticator::new(&settings, None).unwrap();
    let spnego = OidSet::singleton(GSS_MECH_SPNEGO).unwrap();
    let user = Name::new(b"alice@CONTOSO.TEST", Some(GSS_NT_USER_NAME)).unwrap();
    let credential = Cred::acquire_with_password(
        Some(&user),
        "P@ssw0rd.1",
        None,
        CredUsage::Initiate,
        Some(&spnego),
    );
    let credential = credential.unwrap();
    let value = || {
        let service = Name::new(b"HTTP@mail.contoso.test", Some(GSS_NT_HOSTBASED_SERVICE)).unwrap();
        let mut client = ClientCtx::new(
            Some(credential.clone()),
            service,
            CtxFlags::GSS_C_MUTUAL_FLAG,
            Some(GSS_MECH_SPNEGO),
        );
        let token = client.step(None, None).unwrap().unwrap();
        format!("Negotiate {}", STANDARD.encode(&*token)).into_bytes()
    };
    let mut cpu = (0, 0);
    criterion.bench_function("kerberos_ticket_accepted", |bencher| {
        bencher.iter_batched(
            value,
            |value| {
                let mut memo = Memo::over_tls(None);
                let step = auth.step(&asker(Some(&value), offered, now), &mut memo);
                let AuthStep::Shake(word) = step else {
                    panic!("{step:?}");
                };
                runtime.block_on(word.run(&mut memo)).unwrap();
                cpu = (cpu.0 + auth.take_cpu_ns(), cpu.1 + 1);
            },
            BatchSize::PerIteration,
        );
    });
    judge(
        "kerberos_ticket_accepted",
        cpu.0 / cpu.1.max(1),
        FIRST_TICKET_NS,
    );
    let value = value();
    let mut memo = Memo::over_tls(None);
    let AuthStep::Shake(word) = auth.step(&asker(Some(&value), offered, now), &mut memo) else {
        panic!("a ticket that is not heard");
    };
    runtime.block_on(word.run(&mut memo)).unwrap();
    second_request("negotiate", || {
        let step = auth.step(black_box(&asker(None, offered, now)), &mut memo);
        assert!(matches!(step, AuthStep::Granted(_)));
    });
}

/// Whose a connection's certificate is: looked at for the first request, remembered for the others.
fn certificates(criterion: &mut Criterion) {
    let authority = Authority::new("Contoso users").unwrap();
    let user = CertifiedUser {
        upn: Some("user1@contoso.test"),
        ..CertifiedUser::default()
    };
    let credential = authority.user(&user).unwrap();
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let list = authority.revocation_list(&[66], Validity::NOW).unwrap();
    let clients = ClientCertificates {
        authorities: vec![der(&authority.certificate()).to_vec()],
        revocation_lists: vec![
            CertificateRevocationListDer::from_pem_slice(list.as_bytes())
                .unwrap()
                .to_vec(),
        ],
        is_required: false,
    };
    let trust = mapigate::certs::trust(&clients).unwrap();
    let trusts = Arc::new(ArcSwap::from_pointee(Some(Arc::new(trust))));
    let chain = [der(&credential.certificate)];
    let shown = Presented::new(&chain, &trusts, None);
    let mut settings = AuthSettings::closed();
    settings.certificate.map = CertificateName::ALL.to_vec();
    let auth = Authenticator::new(&settings, None).unwrap();
    let directory = Directory::parse(
        b"mailboxes:\n  - { id: 416c6368-656d-794a-6f45-000000000001@contoso.test, database: DB1, addresses: [user1@contoso.test] }\n",
        Path::new("mailboxes.yaml"),
        &DirectorySettings {
            file: None,
            ldap: None,
            default_databases: BTreeMap::new(),
            access: Access::Backend,
        },
        &BTreeMap::from([(
            DatabaseName::new("DB1"),
            Database {
                copies: vec![ServerName::new("MBX1")],
                active: ServerName::new("MBX1"),
            },
        )]),
        Some("contoso.test"),
    )
    .unwrap();
    let now = SystemTime::now();
    let findings = Findings::default();
    let register = directory.register(&findings, Instant::now());
    let look = |memo: &mut Memo| {
        let found = auth.by_certificate(black_box(&shown), memo, &register, 1, now);
        match found.unwrap() {
            Certified::Known(identity, is_new) => (identity, is_new),
            Certified::Ask(_) => unreachable!("a file knows without being asked"),
        }
    };

    criterion.bench_function("certificate_new_connection", |bencher| {
        bencher.iter(|| look(&mut Memo::default()));
    });
    let mut memo = Memo::default();
    look(&mut memo);
    criterion.bench_function("certificate_same_connection", |bencher| {
        bencher.iter(|| look(&mut memo));
    });
    second_request("certificate", || {
        let (_, is_new) = look(&mut memo);
        assert!(!is_new);
    });
}

/// Processor time of the second and further requests of a session.
fn second_request(scheme: &str, mut request: impl FnMut()) {
    const TIMES: u64 = 200_000;
    let before = thread_cpu_ns();
    for _ in 0..TIMES {
        request();
    }
    let spent = thread_cpu_ns().saturating_sub(before) / TIMES;
    judge(
        &format!("second request by {scheme}"),
        spent,
        SECOND_REQUEST_NS,
    );
}

#[expect(
    clippy::print_stdout,
    reason = "criterion has no word for processor time, nor for a goal"
)]
fn judge(what: &str, spent: u64, goal: u64) {
    let verdict = if spent <= goal { "kept" } else { "MISSED" };
    println!("{what}: {spent} ns of processor time, goal {goal} ns: {verdict}");
}

/// What a request of a session may cost that is not its first, whatever the scheme.
const SECOND_REQUEST_NS: u64 = 2_000;
/// What judging a ticket may cost.
const FIRST_TICKET_NS: u64 = 120_000;

fn directory(criterion: &mut Criterion) {
    let settings = DirectorySettings {
        file: None,
        ldap: None,
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

/// The GUID of a mailbox, in the order of its text.
fn guid(number: u32) -> [u8; 16] {
    let mut guid = *b"\x41\x6c\x63\x68\x65\x6d\x79\x4a\x6f\x45\0\0\0\0\0\0";
    let digits = u128::from_be_bytes(guid) | u128::from(number);
    guid = digits.to_be_bytes();
    guid
}

fn entry(number: u32) -> SearchEntry {
    let mut attrs: HashMap<String, Vec<String>> = HashMap::new();
    for (name, value) in [
        ("upn", format!("user{number}@contoso.test")),
        ("account", format!("user{number}")),
        ("object", format!("object {number}")),
        ("database", format!("CN=DB{:02},CN=Databases", number % 40)),
    ] {
        attrs.insert(name.to_owned(), vec![value]);
    }
    let address = |name: &str| format!("smtp:{name}{number}@contoso.test");
    attrs.insert("addresses".to_owned(), vec![address("user"), address("u.")]);
    let text = format!("416c6368-656d-794a-6f45-{number:012x}");
    attrs.insert("guid".to_owned(), vec![text]);
    SearchEntry {
        dn: format!("CN=User {number},CN=Users,DC=contoso,DC=test"),
        attrs,
        bin_attrs: HashMap::new(),
    }
}

fn ldap_settings() -> LdapSettings {
    let name = |name: &str| Some(name.to_owned());
    LdapSettings {
        servers: Vec::new(),
        starttls: false,
        ca: None,
        bind_name: String::new(),
        bind_password: Secret::new(String::new()),
        base: "DC=contoso,DC=test".to_owned(),
        people: "(objectCategory=person)".to_owned(),
        netbios_domain: name("contoso"),
        attributes: Attributes {
            upn: name("upn"),
            account: name("account"),
            addresses: name("addresses"),
            mail: None,
            sid: None,
            object: name("object"),
            mailbox_guid: name("guid"),
            guid_form: GuidForm::Text,
            archive_guid: None,
            database: name("database"),
            database_form: DatabaseForm::Dn,
            archive_database: None,
            recipient_type: None,
            control: None,
            disabled_bit: 0,
            password_changed: None,
            display_name: name("displayName"),
            legacy_dn: name("legacyExchangeDN"),
            delegates: None,
            changed: None,
        },
        copies: CopyNames {
            base: None,
            class: String::new(),
            server: String::new(),
            preference: None,
            server_class: None,
            server_address: None,
        },
        recipient_types: Vec::new(),
        ttl: Duration::from_secs(3600),
        negative_ttl: Duration::from_secs(3600),
        stale_on_error: Duration::from_secs(3600),
        capacity: 300_000,
        refresh: Duration::from_secs(3600),
        search_connections: 1,
        bind_connections: 1,
        connect_timeout: Duration::from_secs(1),
        operation_timeout: Duration::from_secs(1),
    }
}

/// What a request pays for an owner and a mailbox that the directory service has been asked for before.
fn directory_service(criterion: &mut Criterion) {
    let settings = Arc::new(ldap_settings());
    let book = Book::new(&settings, "{upn}", None).unwrap();
    let now = Instant::now();
    for number in 0..MAILBOXES {
        let entry = [entry(number)];
        let upn = format!("user{number}@contoso.test");
        assert!(book.told(Asked::User(&upn), &entry, now));
        assert!(book.told(Asked::Mailbox(guid(number)), &entry, now));
    }
    let place = DirectorySettings {
        file: None,
        ldap: Some(settings),
        default_databases: BTreeMap::new(),
        access: Access::Listed,
    };
    let home = |name: &str| {
        let active = ServerName::new("MBX1");
        let copies = vec![active.clone()];
        (DatabaseName::new(name), Database { copies, active })
    };
    let databases = (0..40)
        .map(|number| home(&format!("DB{number:02}")))
        .collect();
    let site = Directory::of_service(&place, &databases, book);
    let asked: Vec<(UserName, String)> = (0..MAILBOXES)
        .map(|number| {
            let user = UserName::new(format!("user{number}@contoso.test"));
            (
                user,
                format!("416c6368-656d-794a-6f45-{number:012x}@contoso.test"),
            )
        })
        .collect();
    let mut number = 0;
    criterion.bench_function("directory_service_owner_and_mailbox_of_100k", |bencher| {
        bencher.iter(|| {
            number = (number + 7919) % asked.len();
            let (user, id) = asked.get(number)?;
            let whose = site.whose(Some(id), Some(user), &Findings::default(), now);
            assert!(matches!(whose, Whose::Mailbox(..)), "{whose:?}");
            Some(whose)
        });
    });
}

criterion_group!(
    benches,
    authentication,
    tokens,
    connections,
    certificates,
    directory,
    directory_service
);
criterion_main!(benches);
