//! Whole files, from text to settings or problems.

use super::settings::{Access, AccessLog, Authenticates, BackendIdentity, Scheme};
use super::*;
use crate::mapi::Flavour;
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::path::PathBuf;
use std::time::Duration;

const NOW: u64 = 1_800_000_000;
const DAY: i64 = 86_400;

/// A folder with a configuration and what it names.
struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let hash = "$2y$04$abcdefghijklmnopqrstuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu";
        site.write("users.htpasswd", format!("anna@contoso.com:{hash}\n"));
        site.write("cookie.keys", KEYS);
        site.lock("cookie.keys");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn lock(&self, name: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.path(name), mode).unwrap();
    }

    /// A certificate that is valid until so many days after now.
    fn certify(&self, name: &str, hosts: &[&str], days: i64) {
        let key = rcgen::KeyPair::generate().unwrap();
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut wanted = rcgen::CertificateParams::new(hosts).unwrap();
        let moment = |days: i64| {
            let seconds = i64::try_from(NOW).unwrap() + days * DAY;
            time::OffsetDateTime::from_unix_timestamp(seconds).unwrap()
        };
        wanted.not_before = moment(-400);
        wanted.not_after = moment(days);
        let certificate = wanted.self_signed(&key).unwrap();
        self.write(&format!("{name}.pem"), certificate.pem());
        self.write(&format!("{name}.key"), key.serialize_pem());
    }

    fn load(&self, text: impl AsRef<[u8]>) -> Result<Loaded, Problems> {
        self.write("mapigate.yaml", text);
        let environment = |name: &str| (name == "PORT").then(|| "444".to_owned());
        load_with(&self.path("mapigate.yaml"), NOW, &environment)
    }

    fn settings(&self, text: &str) -> Settings {
        let loaded = self
            .load(text)
            .unwrap_or_else(|problems| panic!("{problems}"));
        assert!(loaded.warnings.0.is_empty(), "{}", loaded.warnings);
        loaded.settings
    }

    fn said(&self, text: impl AsRef<[u8]>) -> Vec<String> {
        let problems = match self.load(text) {
            Ok(loaded) => loaded.warnings,
            Err(problems) => problems,
        };
        problems.0.into_iter().map(|problem| problem.what).collect()
    }
}

const KEYS: &str = "# newest first\n2 AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\n\
                    1 AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n";

const SMALL: &str = "version: 1
listeners: [{ address: 127.0.0.1:8080, plain_http: true }]
names: [{ host: Mail.contoso.com }]
servers:
  MBX1: { address: mbx1.contoso.com:443 }
  MBX2: { address: mbx2.contoso.com:443, flavour: gromox }
databases: { DB07: { copies: [MBX2, MBX1] } }
directory: { default_databases: { Contoso.com: DB07 } }
auth: { basic: { password_file: users.htpasswd } }
sessions: { route_cookie: { keys_file: cookie.keys } }
";

fn small_with(from: &str, to: &str) -> String {
    assert!(SMALL.contains(from));
    SMALL.replace(from, to)
}

#[test]
fn a_stamp_on_answers_carries_the_name_given_or_the_machines_own() {
    let site = Site::new();
    let with = |section: &str| {
        let settings = site.settings(&format!("{SMALL}\naccounting: {{ {section} }}\n"));
        settings.accounting
    };

    let named = with("device_info: on, device_id: front1, usage_entries: 0");
    assert_eq!(named.device_info.as_deref(), Some("front1"));
    assert_eq!(named.usage_entries, 0);
    let own = with("device_info: on").device_info.unwrap();
    assert!((1..=24).contains(&own.len()) && !own.contains('.'), "{own}");
}

#[test]
fn a_pipe_for_access_lines_is_not_opened_to_see_whether_it_can_be() {
    let site = std::sync::Arc::new(Site::new());
    let pipe = site.path("access.pipe");
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, &pipe, FileType::Fifo, mode, 0).unwrap();
    let (done, loaded) = std::sync::mpsc::channel();
    let reading = std::sync::Arc::clone(&site);

    std::thread::spawn(move || {
        let loaded = reading.load(format!("{SMALL}logging: {{ access: access.pipe }}\n"));
        done.send(loaded).unwrap();
    });
    let loaded = loaded.recv_timeout(Duration::from_secs(10));

    let settings = loaded.expect("in time").unwrap().settings;
    assert_eq!(settings.logging.access, AccessLog::File(pipe));
}

#[test]
fn a_small_file_is_filled_up_with_defaults() {
    let site = Site::new();

    let settings = site.settings(SMALL);

    assert!(settings.workers >= 1);
    assert_eq!(settings.names[0].host, "mail.contoso.com");
    assert_eq!(
        settings.names[0].internal_url,
        "https://mail.contoso.com/mapi"
    );
    assert_eq!(settings.names[0].external_url, None);
    assert_eq!(settings.names[0].authentication, [Scheme::Basic]);
    let mbx1 = &settings.servers["MBX1"];
    assert_eq!(
        (mbx1.flavour, mbx1.authenticates),
        (Flavour::Exchange, Authenticates::Connections)
    );
    assert_eq!(mbx1.tls.as_ref().unwrap().name, "mbx1.contoso.com");
    assert_eq!(mbx1.tls.as_ref().unwrap().ca, None);
    assert!(mbx1.capable.mapi_http && mbx1.normalize);
    assert_eq!(mbx1.idle_timeout, Duration::from_secs(60));
    let mbx2 = &settings.servers["MBX2"];
    assert_eq!(
        (mbx2.flavour, mbx2.authenticates),
        (Flavour::Gromox, Authenticates::Requests)
    );
    assert_eq!(settings.databases["DB07"].active.as_str(), "MBX2");
    assert_eq!(
        settings.directory.default_databases["contoso.com"].as_str(),
        "DB07"
    );
    assert_eq!(settings.directory.access, Access::Backend);
    assert_eq!(settings.limits.head, 131_072);
    assert_eq!(settings.limits.body, 4 << 20);
    assert_eq!(settings.limits.notification_wait, Duration::from_secs(330));
    assert_eq!(settings.limits.move_jitter, Duration::from_millis(800));
    assert_eq!(settings.health.page, None);
    assert_eq!(settings.health.panic_threshold, 30);
    assert_eq!(settings.backend_identity, BackendIdentity::Passthrough);
    assert_eq!(settings.logging.access, AccessLog::Stdout);
    assert_eq!(settings.accounting.usage_entries, 1000);
    assert_eq!(settings.accounting.device_info, None);
    assert_eq!(
        settings.admin.address,
        Some("127.0.0.1:9080".parse().unwrap())
    );
    assert!(settings.tls.allow_tls12 && !settings.watch_files);
    let cookie = settings.sessions.route_cookie.unwrap();
    assert_eq!(
        cookie.keys.iter().map(|key| key.id).collect::<Vec<_>>(),
        [2, 1]
    );
    assert_eq!(*cookie.keys[1].key, [1; 32]);
}

#[test]
fn every_file_that_was_read_is_named_for_the_file_watch() {
    let site = Site::new();
    site.write(
        "databases.yaml",
        "databases: { DB07: { copies: [MBX1], active: MBX1 } }\n",
    );
    site.write("mailboxes.yaml", "mailboxes: []\n");
    let text = small_with(
        "{ DB07: { copies: [MBX2, MBX1] } }",
        "{ file: databases.yaml }",
    )
    .replace("directory: {", "directory: { file: mailboxes.yaml,");

    let settings = site.settings(&text);

    assert_eq!(settings.databases_file, Some(site.path("databases.yaml")));
    assert_eq!(settings.databases["DB07"].active.as_str(), "MBX1");
    let names = [
        "mapigate.yaml",
        "databases.yaml",
        "mailboxes.yaml",
        "users.htpasswd",
        "cookie.keys",
    ];
    for name in names {
        assert!(
            settings.files.contains(&SeenFile::look(&site.path(name))),
            "{name}"
        );
    }
}

#[test]
fn a_problem_in_the_databases_file_names_that_file_and_its_line() {
    let site = Site::new();
    site.write(
        "databases.yaml",
        "databases:\n  DB07:\n    copies: [MBX1, MBX7]\n",
    );
    let text = small_with(
        "{ DB07: { copies: [MBX2, MBX1] } }",
        "{ file: databases.yaml }",
    );

    let problems = site.load(text).unwrap_err();

    let problem = &problems.0[0];
    assert_eq!(problem.file, site.path("databases.yaml"));
    assert_eq!((problem.line, problem.column), (3, 20));
    assert_eq!(problem.path, "databases.DB07.copies[1]");
}

#[test]
fn a_certificate_is_read_and_matched() {
    let site = Site::new();
    site.certify("mail", &["*.contoso.com"], 90);
    let listener = "[{ address: 0.0.0.0:443, certificates: [{ chain: mail.pem, key: mail.key }] }]";
    let text = small_with("[{ address: 127.0.0.1:8080, plain_http: true }]", listener);

    let settings = site.settings(&text);

    let certificate = &settings.listeners[0].certificates[0];
    assert_eq!(certificate.names, ["*.contoso.com"]);
    assert_eq!(
        certificate.not_after,
        i64::try_from(NOW).unwrap() + 90 * DAY
    );
    assert_eq!(certificate.chain.len(), 1);
}

#[test]
fn a_certificate_is_judged_by_the_time_that_is_given() {
    let site = Site::new();
    let listener = "[{ address: 0.0.0.0:443, certificates: [{ chain: mail.pem, key: mail.key }] }]";
    let text = small_with("[{ address: 127.0.0.1:8080, plain_http: true }]", listener);

    site.certify("mail", &["mail.contoso.com"], 13);
    let soon = site.load(&text).unwrap();
    assert_eq!(soon.warnings.warnings(), 1);
    assert!(soon.warnings.0[0].what.contains("in less than 14 days"));

    site.certify("mail", &["mail.contoso.com"], -1);
    let late = site.load(&text).unwrap_err();
    assert!(late.0[0].what.contains("expired on"));
}

#[test]
fn a_server_has_its_own_authority_and_our_certificate() {
    let site = Site::new();
    site.certify("ca", &["ca"], 90);
    site.certify("proxy", &["proxy"], 90);
    let tls = "tls: { ca: ca.pem, name: Inner, client_certificate: { chain: proxy.pem, key: proxy.key } }";
    let text = small_with(
        "MBX1: { address: mbx1.contoso.com:443 }",
        &format!("MBX1: {{ address: \"10.0.0.1:${{PORT}}\", {tls} }}"),
    );

    let settings = site.settings(&text);

    let server = &settings.servers["MBX1"];
    assert_eq!((server.host.as_str(), server.port), ("10.0.0.1", 444));
    let tls = server.tls.as_ref().unwrap();
    assert_eq!(tls.name, "inner");
    assert_eq!(tls.ca.as_ref().unwrap().len(), 1);
    assert_eq!(tls.client_certificate.as_ref().unwrap().names, ["proxy"]);
}

#[test]
fn a_secret_comes_from_a_file_beside_the_configuration() {
    let site = Site::new();
    site.write("service.password", "hunter2\n");
    site.lock("service.password");
    let identity =
        "backend_identity: { mode: basic_service, user: svc, password: 'file:service.password' }";

    let settings = site.settings(&format!("{SMALL}{identity}\n"));

    let BackendIdentity::BasicService {
        password,
        user_header,
        ..
    } = settings.backend_identity
    else {
        panic!()
    };
    assert_eq!(password.reveal(), "hunter2");
    assert_eq!(user_header, "X-Remote-User");
}

#[test]
fn all_problems_are_told_at_once_by_position() {
    let site = Site::new();
    let text = small_with("address: mbx1.contoso.com:443", "address: mbx1, weight: 3")
        .replace("[MBX2, MBX1]", "[MBX3]")
        .replace("DB07 } }\nauth", "DB8 } }\nauth")
        + "limits: { head: 12, hed: 1 }\n";

    let problems = site.load(text).unwrap_err();

    let told: Vec<_> = problems
        .0
        .iter()
        .map(|problem| problem.path.as_str())
        .collect();
    assert_eq!(
        told,
        [
            "servers.MBX1.address",
            "servers.MBX1.weight",
            "databases.DB07.copies[0]",
            "directory.default_databases.Contoso.com",
            "limits.head",
            "limits.hed",
        ]
    );
    assert!(problems.0.iter().all(|problem| problem.snippet.is_some()));
}

#[test]
fn a_key_that_is_read_is_in_the_table_of_keys() {
    let site = Site::new();

    let said = site.said(reference::switched_on(&reference::text()));

    assert!(
        said.iter().all(|what| !what.contains("table of keys")),
        "{said:?}"
    );
}

#[test]
fn a_wrong_value_never_shows_a_password() {
    let site = Site::new();
    let text = format!("{SMALL}health: {{ probe: {{ user: u, password: [hunter2] }} }}\n");

    let problems = site.load(text).unwrap_err();

    assert!(!problems.to_string().contains("hunter2"), "{problems}");
    assert!(
        !serde_json::to_string(&problems)
            .unwrap()
            .contains("hunter2")
    );
}

#[test]
fn a_file_of_ten_mebibytes_is_too_much() {
    let site = Site::new();

    let said = site.said("#".repeat(desk::YAML_MAX + 1));

    assert!(said[0].ends_with("is larger than 10MiB"), "{said:?}");
}

#[test]
fn a_missing_file_is_one_problem_without_a_place() {
    let problems = load(Path::new("/no/such/file.yaml"), NOW).unwrap_err();

    assert_eq!((problems.0.len(), problems.0[0].line), (1, 0));
    assert!(
        problems
            .to_string()
            .starts_with("error: there is no file `/no/such/file.yaml`")
    );
}

#[test]
fn a_thousand_problems_end_in_a_count() {
    let site = Site::new();
    let flood: String = (0..1000).map(|n| format!("zzz{n}: 1\n")).collect();

    let problems = site.load(format!("{SMALL}{flood}")).unwrap_err();

    assert!(problems.0.len() <= 201);
    assert_eq!(problems.0.last().unwrap().what, "800 more problems");
}

#[test]
fn a_hundred_thousand_databases_load_in_time() {
    let site = Site::new();
    let mut text = String::from("databases:\n");
    for n in 0..100_000 {
        text.push_str(&format!("  DB{n}: {{ copies: [MBX1, MBX2] }}\n"));
    }
    site.write("databases.yaml", text);
    let main = small_with(
        "{ DB07: { copies: [MBX2, MBX1] } }",
        "{ file: databases.yaml }",
    )
    .replace("DB07 } }", "DB7 } }");

    assert_eq!(site.settings(&main).databases.len(), 100_000);
}

proptest! {
    #[test]
    fn any_bytes_are_settings_or_problems(bytes: Vec<u8>) {
        let _ = Site::new().load(bytes);
    }

    #[test]
    fn any_yaml_letters_are_settings_or_problems(text in "[a-z\\[\\]{}:,'\"|>&*!%#?\\- \n\t~0-9é]{0,200}") {
        let _ = Site::new().load(text);
    }

    #[test]
    fn any_mutation_of_the_reference_is_settings_or_problems(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..40, "\\PC{0,6}|[\\[\\]{}:,\n\t '\"&*!|>-]{1,3}"), 1..6),
        switched_on: bool,
    ) {
        let text = reference::text();
        let text = if switched_on { reference::switched_on(&text) } else { text };
        let mut chars: Vec<char> = text.chars().collect();
        for (at, width, insert) in cuts {
            let at = at.index(chars.len());
            let end = (at + width).min(chars.len());
            chars.splice(at..end, insert.chars());
        }
        let text: String = chars.into_iter().collect();
        if let Err(problems) = Site::new().load(text) {
            prop_assert!(problems.errors() > 0);
            let _ = problems.to_string();
        }
    }
}
