//! The README says what is so.

use std::collections::BTreeSet;

const README: &str = include_str!("../README.md");

#[test]
fn the_smallest_configuration_is_the_one_we_ship() {
    let shipped = include_str!("../conf/minimal.yaml");
    let without_comments: String = shipped
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| [line, "\n"])
        .collect();

    let shown = README.split("```yaml\n").nth(1).unwrap();
    let shown = shown.split("```").next().unwrap();

    assert_eq!(shown, without_comments);
    assert_eq!(shown.lines().count(), 12);
}

#[test]
fn every_field_of_the_access_log_is_explained_and_no_other() {
    let source = include_str!("../src/journal/line.rs");
    let source = source.split("#[cfg(test)]").next().unwrap();
    // `text(line, "user", …)` and its kin; the first fields are written with their punctuation.
    let mut written: BTreeSet<&str> = source
        .split('"')
        .filter(|word| word.len() > 1 && word.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'))
        .collect();
    written.extend(["time", "id", "client"]);
    // The values of flags.
    written.remove("true");
    written.remove("false");

    assert_eq!(fields_explained_in("Access log"), written);
}

#[test]
fn every_field_for_log_parser_that_means_something_is_explained_and_no_other() {
    let source = include_str!("../src/journal/proxy_line.rs");
    let (exchanges, ours) = source.split_once("field(\"MapiRequestId\"").unwrap();
    let names = |source: &'static str| {
        let found = source.split("    field(").skip(1);
        found.filter_map(|rest| rest.split('"').nth(1))
    };
    let written: BTreeSet<&str> = names(exchanges).collect();
    assert!(written.len() > 25 && names(ours).count() > 20);

    assert_eq!(fields_explained_in("Log Parser"), written);
}

/// The fields that a section's table names.
fn fields_explained_in(heading: &str) -> BTreeSet<&'static str> {
    let mut sections = README.split("\n## ");
    let section = sections
        .find_map(|section| section.strip_prefix(heading)?.strip_prefix('\n'))
        .unwrap_or_default();
    let rows = section
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    rows.filter(|names| *names != "Field")
        .flat_map(|names| names.split(", "))
        .collect()
}

#[test]
fn every_file_it_links_to_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let links = README
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|link| !link.starts_with("http") && !link.starts_with('#'));

    for link in links {
        assert!(root.join(link).exists(), "{link}");
    }
}

#[test]
fn the_configuration_for_kerberos_is_good() {
    let section = README.split("## Kerberos and NTLM\n").nth(1).unwrap();
    let shown = section.split("```yaml\n").nth(1).unwrap();
    let smallest = include_str!("../conf/minimal.yaml");
    let part = |from: &str, to: &str| {
        let (from, to) = (smallest.find(from).unwrap(), smallest.find(to).unwrap());
        smallest.get(from..to).unwrap()
    };
    let whole = format!(
        "{}{}{}",
        part("version:", "names:"),
        shown.split("```").next().unwrap(),
        part("servers:", "auth:")
    );
    let folder = tempfile::tempdir().unwrap();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for (from, to) in [
        ("conf/mail.pem", "mail.pem"),
        ("conf/mail.key", "mail.key"),
        ("conf/users.htpasswd", "users.htpasswd"),
        ("tests/bad_configs/files/mail.keytab", "http.keytab"),
    ] {
        std::fs::copy(root.join(from), folder.path().join(to)).unwrap();
    }
    std::fs::write(folder.path().join("service.password"), "secret").unwrap();
    let file = folder.path().join("kerberos.yaml");
    std::fs::write(&file, whole).unwrap();

    let loaded = mapigate::config::load(&file, 1_800_000_000).unwrap();

    let auth = mapigate::auth::Authenticator::new(&loaded.settings.auth, None).unwrap();
    let name = loaded.settings.names.first().unwrap();
    assert_eq!(auth.challenges(&name.authentication, None, true).count(), 2);
    assert_eq!(
        auth.challenges(&name.authentication, None, false).count(),
        1
    );
}

#[test]
fn the_configurations_for_tokens_are_good() {
    let section = README.split("## Tokens\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut shown = section.split("```yaml\n").skip(1);
    let mut next = || shown.next().unwrap().split("```").next().unwrap();
    // The first is what differs from the smallest configuration.
    let smallest = include_str!("../conf/minimal.yaml");
    let cut = smallest.find("names:").unwrap();
    let rest = smallest.find("servers:").unwrap();
    let end = smallest.find("auth:").unwrap();
    let part = |from, to| smallest.get(from..to).unwrap();
    let whole = format!("{}{}{}", part(0, cut), next(), part(rest, end));
    let folder = tempfile::tempdir().unwrap();
    for name in ["mail.pem", "mail.key", "users.htpasswd"] {
        let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
        std::fs::copy(shipped.join(name), folder.path().join(name)).unwrap();
    }

    for text in [whole.as_str(), next()] {
        let file = folder.path().join("tokens.yaml");
        std::fs::write(&file, text).unwrap();
        let loaded = mapigate::config::load(&file, 1_800_000_000).unwrap();
        let bearer = loaded.settings.auth.bearer.clone().unwrap();
        assert_eq!(bearer.issuers.len(), 1);
        let auth = mapigate::auth::Authenticator::new(&loaded.settings.auth, None).unwrap();
        let name = loaded.settings.names.first().unwrap();
        assert!(auth.challenges(&name.authentication, None, true).count() >= 1);
    }
}

#[test]
fn the_probe_that_is_shown_tries_every_step_there_is() {
    use mapigate::probe::Step;
    let section = README.split("\n## Probe\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let shown: Vec<&str> = section.split("```\n").collect();
    let steps = |block: &str| -> Vec<String> {
        let verdicts = [
            "  ok  ",
            "  warning  ",
            "  skipped  ",
            "  FAILED  ",
            "  not run  ",
        ];
        let lines = block.lines();
        let told = lines.filter(|line| verdicts.iter().any(|verdict| line.starts_with(verdict)));
        let step = |line: &str| {
            line.get(11..)
                .unwrap()
                .split(' ')
                .next()
                .unwrap()
                .to_owned()
        };
        told.map(step).collect()
    };

    let all = Step::ALL.map(|step| step.to_string());
    assert_eq!(steps(shown[1]), all);
    assert_eq!(steps(shown[3]), all);
    for step in all {
        assert!(shown[5].contains(&format!("\n  {step:<17} ")), "{step}");
    }
}

#[test]
fn the_probe_of_the_readme_is_a_good_configuration() {
    let section = README.split("\n## Probe\n").nth(1).unwrap();
    let shown = section.split("```yaml\n").nth(1).unwrap();
    let shown = shown.split("```").next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let conf = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    for entry in std::fs::read_dir(conf).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    std::fs::write(folder.path().join("probe.password"), "secret").unwrap();
    let file = folder.path().join("probes.yaml");
    std::fs::write(
        &file,
        format!("{}{shown}", include_str!("../conf/minimal.yaml")),
    )
    .unwrap();

    let loaded = mapigate::config::load(&file, 1_800_000_000).unwrap();

    let probe = loaded.settings.probes.first().unwrap();
    assert_eq!(probe.name, "front");
    assert_eq!(probe.address, "probe@contoso.com");
    assert_eq!(probe.every, std::time::Duration::from_secs(300));
}

#[test]
fn the_explanations_that_are_shown_are_those_that_are_given() {
    let section = README.split("\n## Explain\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let blocks = section.split("```\n").skip(1).step_by(2);
    let mut shown = 0;
    for block in blocks {
        let (command, expected) = block.split_once('\n').unwrap();
        let words = command.strip_prefix("$ mapigate ").unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_mapigate"))
            .args(words.split(' '))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
        shown += 1;
    }
    assert_eq!(shown, 3);
}

#[test]
fn the_databases_that_a_directory_tells_are_good_as_shown() {
    let blocks = |title: &str| {
        let section = README.split(title).nth(1).unwrap().to_owned();
        let blocks = section.split("```yaml\n").skip(1).take(2);
        let blocks = blocks.map(|rest| rest.split("```").next().unwrap().to_owned());
        blocks.collect::<Vec<_>>()
    };
    let databases = blocks("### Databases from Active Directory\n");
    let site = blocks("## Active Directory\n");
    // In a list of steps it stands further to the right.
    let directory = site.first().unwrap().replace("\n   ", "\n");
    let whole = format!(
        "version: 1\nlisteners: [{{ address: 127.0.0.1:8080, plain_http: true }}]\nnames: [{{ host: mail.contoso.com }}]\n\
         servers: {{ MBX1: {{ address: mbx1.contoso.com:443 }}, MBX2: {{ address: mbx2.contoso.com:443 }} }}\n\
         {}{}",
        databases.first().unwrap(),
        directory.trim_start()
    );
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("databases.yaml", databases.get(1).unwrap());
    write("ad-ca.pem", include_str!("../conf/mail.pem"));
    write("ldap.password", "secret");
    write("mapigate.yaml", &whole);

    let loaded = mapigate::config::load(&folder.path().join("mapigate.yaml"), 1_800_000_000);

    let settings = loaded
        .map_err(|problems| problems.to_string())
        .unwrap()
        .settings;
    assert_eq!(settings.databases.len(), 1);
    let mapigate::config::settings::CopiesFrom::Directory { active } = settings.copies_from else {
        panic!("copies do not come from the directory");
    };
    let active: Vec<_> = active
        .iter()
        .map(|(name, server)| format!("{name} on {server}"))
        .collect();
    assert_eq!(active, ["DB07 on MBX2"]);
}
