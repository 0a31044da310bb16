//! `mapigate auth test` as an administrator meets it: what it prints is what the README shows.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "these are tests, helpers included; tokens are good from now on"
)]

use mapigate::lab::Authority;
use mapigate::lab::authority::CertifiedUser;
use mapigate::lab::identity_provider::Keys;
use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

const README: &str = include_str!("../README.md");

const CONFIGURATION: &str = "\
version: 1
listeners:
  - address: 127.0.0.1:0
    certificates: [{ chain: mail.pem, key: mail.key }]
    client_certificates: { ca: ca.pem, crl: [users.crl] }
names:
  - host: mail.contoso.com
    authentication: [bearer, certificate, basic]
    paths: [{ path: /mapi/nspi, authentication: [bearer] }]
servers: { MBX1: { address: mbx1.contoso.com:443 } }
databases: { DB07: { copies: [MBX1] } }
directory: { file: mailboxes.yaml }
auth:
  basic: { password_file: users.htpasswd, default_domain: contoso.com }
  bearer: { issuers: [{ issuer: https://id.contoso.com, audiences: [https://mail.contoso.com/], keys_file: id.jwks.json }] }
backend_identity: { mode: basic_service, user: svc@contoso.com, password: secret }
sessions: { route_cookie: { enabled: false } }
";

/// A folder with a configuration, two users' credentials of every kind, and what is wrong with the second.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let authority = Authority::new("Contoso users").unwrap();
    authority.write(folder.path()).unwrap();
    let own = authority.server(&["mail.contoso.com"]).unwrap();
    own.write(folder.path(), "mail").unwrap();
    let now = mapigate::lab::authority::Validity::NOW;
    write("users.crl", &authority.revocation_list(&[7], now).unwrap());
    for (file, upn, serial) in [
        ("user1.pem", "user1@contoso.com", 1),
        ("lost.pem", "user1@contoso.com", 7),
    ] {
        let certified = CertifiedUser {
            upn: Some(upn),
            serial,
            ..CertifiedUser::default()
        };
        write(file, &authority.user(&certified).unwrap().certificate);
    }
    let keys = Keys::new().unwrap();
    write("id.jwks.json", &keys.published().unwrap().to_string());
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    for (file, audience) in [
        ("user1.jwt", "https://mail.contoso.com/"),
        ("other.jwt", "https://files.contoso.com/"),
    ] {
        let claims = json!({
            "iss": "https://id.contoso.com", "aud": audience, "upn": "user1@contoso.com",
            "iat": since, "nbf": since, "exp": since + 3600,
        });
        write(file, &keys.sign(&claims, &json!({})).unwrap());
    }
    let hash = bcrypt::hash("secret1", 4).unwrap();
    write("users.htpasswd", &format!("user1:{hash}\n"));
    write(
        "mailboxes.yaml",
        "mailboxes:\n  - id: 00000000-0000-4000-8000-000000000001@contoso.com\n    database: DB07\n    addresses: [user1@contoso.com]\n",
    );
    write("mapigate.yaml", CONFIGURATION);
    write("right", "secret1\n");
    write("wrong", "secret2\n");
    folder
}

fn test(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mapigate"))
        .args(["auth", "test", "--config", "mapigate.yaml"])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Without what differs from one time to the next.
fn timeless(text: &str) -> String {
    let mut words: Vec<&str> = text.split(' ').collect();
    for at in 1..words.len() {
        let [before, word] = [at - 1, at].map(|at| words.get(at).copied().unwrap_or_default());
        let is_count = word.starts_with("ms") || word.starts_with("letters)");
        if is_count
            && before
                .trim_start_matches('(')
                .bytes()
                .all(|b| b.is_ascii_digit())
        {
            words.splice(at - 1..at, ["N"]);
        }
    }
    words.join(" ")
}

#[test]
fn a_good_and_a_bad_case_of_each_scheme_read_as_the_readme_shows() {
    let folder = folder();
    let shown = timeless(README);
    let mut missing = Vec::new();
    for (arguments, code) in [
        (&["--user", "user1", "--password-file", "right"][..], 0),
        (&["--user", "user1", "--password-file", "wrong"], 1),
        (&["--token-file", "user1.jwt"], 0),
        (&["--token-file", "other.jwt"], 1),
        (&["--cert", "user1.pem"], 0),
        (&["--cert", "lost.pem"], 1),
    ] {
        let output = test(folder.path(), arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        for secret in ["secret1", "secret2", "dXNlcjE6", "eyJ"] {
            assert!(!text.contains(secret), "{text}");
        }
        let command = format!("$ mapigate auth test {}\n", arguments.join(" "));
        if !shown.contains(&timeless(&format!("{command}{text}"))) {
            missing.push(format!("{command}{text}"));
        }
    }
    assert!(
        missing.is_empty(),
        "the README lacks\n{}",
        missing.join("\n")
    );
}

#[test]
fn what_is_not_offered_on_a_path_is_not_tried_and_programs_read_the_same() {
    let folder = folder();
    let arguments = [
        "--path",
        "nspi",
        "--json",
        "--user",
        "user1",
        "--password-file",
        "right",
    ];

    let output = test(folder.path(), &arguments);

    assert_eq!(output.status.code(), Some(1));
    let read: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(read.pointer("/0/scheme").unwrap(), "basic");
    assert_eq!(read.pointer("/0/is_good").unwrap(), false);
    assert_eq!(
        read.pointer("/0/steps/1/found").unwrap(),
        "mail.contoso.com/mapi/nspi accepts bearer"
    );
}

#[test]
fn a_client_that_has_no_ticket_is_not_taken_for_one_that_was_refused() {
    let folder = folder();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let keytab = root.join("tests/bad_configs/files/mail.keytab");
    let mapped = format!("  negotiate: {{ keytab: {} }}\n", keytab.display());
    let configuration = CONFIGURATION
        .replace("authentication: [bearer, ", "authentication: [negotiate, ")
        .replace("auth:\n", &format!("auth:\n{mapped}"));
    fs::write(folder.path().join("mapigate.yaml"), configuration).unwrap();

    let output = test(folder.path(), &["--tickets", "FILE:/nonexistent/tickets"]);

    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("negotiate: not good\n"), "{text}");
    assert!(text.contains("  client    has nothing to show: "), "{text}");
    assert!(!text.contains("verdict"), "{text}");
}

#[test]
fn where_nothing_can_be_tried_the_exit_code_is_two() {
    let folder = folder();

    let nothing = test(folder.path(), &[]);
    fs::write(folder.path().join("mapigate.yaml"), "version: 2\n").unwrap();
    let wrong = test(folder.path(), &["--cert", "user1.pem"]);

    assert_eq!(
        (nothing.status.code(), wrong.status.code()),
        (Some(2), Some(2))
    );
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("nothing to try"));
}
