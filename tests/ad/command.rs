//! `mapigate auth test` against a domain: what it prints is what the README shows.

use crate::lab::{DOMAIN, Lab, NETBIOS, REALM};
use crate::ldap::{Mailbox, SECRET, ldap};
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const README: &str = include_str!("../../README.md");

/// A folder with a configuration for the lab's domain, a right password and a wrong one.
fn folder(lab: &Lab) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    for file in ["mail.pem", "mail.key"] {
        fs::copy(lab.path("tls").join(file), folder.path().join(file)).unwrap();
    }
    let realms = format!("{{ {REALM}: {DOMAIN}, {NETBIOS}: {DOMAIN} }}");
    write(
        "mapigate.yaml",
        &format!(
            "version: 1\nlisteners:\n  - address: 127.0.0.1:0\n    certificates: [{{ chain: mail.pem, key: mail.key }}]\n\
             names:\n  - host: mail.{DOMAIN}\n    authentication: [negotiate, ntlm, basic]\n\
             servers: {{ MBX1: {{ address: mbx1.{DOMAIN}:443 }} }}\ndatabases: {{ DB01: {{ copies: [MBX1] }} }}\n\
             directory:\n  access: backend\n  ldap:\n{}\
             auth:\n  basic: {{ verify: ldap_bind, default_domain: {DOMAIN} }}\n  \
             negotiate: {{ keytab: {}, realm_map: {realms} }}\n  ntlm: {{ realm_map: {realms} }}\n\
             backend_identity: {{ mode: basic_service, user: svc@{DOMAIN}, password: secret }}\n\
             sessions: {{ route_cookie: {{ enabled: false }} }}\n",
            ldap(lab, "ldaps://127.0.0.1:636", ""),
            lab.path("mail.keytab").display()
        ),
    );
    write("right", &format!("{SECRET}\n"));
    write("wrong", "a wrong one\n");
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

/// The exit code and the words about this user's right password, by a ticket that is got with it.
fn by_negotiate(folder: &Path, user: &Mailbox<'_>) -> (Option<i32>, String) {
    let name = &user.user.name;
    let words = ["--scheme", "negotiate", "--user", name];
    let output = test(
        folder,
        &[&words[..], &["--password-file", "right"]].concat(),
    );
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), text)
}

/// As the README writes it: its own names, and no figures that differ from one time to the next.
fn as_shown(text: &str, user: &Mailbox<'_>) -> String {
    let text = text
        .replace(
            &user.id(),
            "00000000-0000-4000-8000-000000000001@contoso.com",
        )
        .replace(&user.user.name, "user1")
        .replace(DOMAIN, "contoso.com")
        .replace(REALM, "CONTOSO.COM");
    let mut words: Vec<&str> = text.split(' ').collect();
    for at in 1..words.len() {
        let is_count = words[at].starts_with("ms") || words[at].starts_with("bytes");
        if is_count && words[at - 1].bytes().all(|byte| byte.is_ascii_digit()) {
            words[at - 1] = "N";
        }
    }
    words.join(" ")
}

#[test]
#[ignore = "needs a domain controller: make test-ad"]
fn a_good_and_a_bad_case_of_each_scheme_of_the_domain_read_as_the_readme_shows() {
    let lab = Lab::find();
    let folder = folder(&lab);
    let user = Mailbox::new(&lab, "DB01");
    let shown = as_shown(README, &user);
    let account = format!("{NETBIOS}\\{}", user.user.name);
    let upn = user.upn();
    let mut missing = Vec::new();
    for (scheme, name) in [("basic", &account), ("negotiate", &upn), ("ntlm", &account)] {
        for (file, code) in [("right", 0), ("wrong", 1)] {
            let arguments = ["--scheme", scheme, "--user", name, "--password-file", file];
            let output = test(folder.path(), &arguments);
            let text = String::from_utf8(output.stdout).unwrap();
            assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
            for secret in [SECRET, "a wrong one", "YII", "TlRM"] {
                assert!(!text.contains(secret), "{text}");
            }
            let name = match name.contains('\\') {
                true => format!("'{name}'"),
                false => name.clone(),
            };
            let scheme = match scheme {
                "basic" => String::new(),
                scheme => format!("--scheme {scheme} "),
            };
            let command =
                format!("$ mapigate auth test {scheme}--user {name} --password-file {file}");
            let wanted = as_shown(&format!("{command}\n{text}"), &user);
            if !shown.contains(&wanted) {
                missing.push(wanted);
            }
        }
    }
    assert!(
        missing.is_empty(),
        "the README lacks\n{}",
        missing.join("\n")
    );
}

#[test]
#[ignore = "needs a domain controller: make test-ad"]
fn tickets_that_kinit_has_got_are_tried_as_they_are() {
    let lab = Lab::find();
    let folder = folder(&lab);
    let user = Mailbox::new(&lab, "DB01");
    lab.log_on(&user.user.name, SECRET, &folder.path().join("tickets"));

    let output = test(folder.path(), &["--tickets", "FILE:tickets"]);

    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("proves the server to the client"), "{text}");
    assert!(text.contains(&user.id()), "{text}");
}

#[test]
#[ignore = "needs a domain controller: make test-ad"]
fn a_proof_is_bound_to_the_certificate_where_that_is_required() {
    let lab = Lab::find();
    let folder = folder(&lab);
    let path = folder.path().join("mapigate.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let strict = text.replace("mail.keytab, ", "mail.keytab, channel_binding: require, ");
    fs::write(&path, strict.replace("[negotiate, ntlm, ", "[negotiate, ")).unwrap();
    let user = Mailbox::new(&lab, "DB01");

    let (code, text) = by_negotiate(folder.path(), &user);

    assert_eq!(code, Some(0), "{text}");
}

#[test]
#[ignore = "needs a domain controller: make test-ad"]
fn a_keytab_of_another_service_is_what_the_verdict_names() {
    let lab = Lab::find();
    let folder = folder(&lab);
    let path = folder.path().join("mapigate.yaml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("mail.keytab", "mbx.keytab")).unwrap();
    let user = Mailbox::new(&lab, "DB01");

    let (code, text) = by_negotiate(folder.path(), &user);

    assert_eq!(code, Some(1), "{text}");
    let verdict = "refused: ticket is for a name or key that is not in the keytab";
    assert!(text.contains(verdict), "{text}");
}
