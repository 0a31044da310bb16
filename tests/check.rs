//! `mapigate check` as an administrator meets it: exact words, exit codes, examples that work.

#![expect(
    clippy::unwrap_used,
    reason = "these are tests, helpers included; a panic is their way to fail"
)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs mapigate in a copy of the folder, whose files have the modes of a fresh clone: git keeps none.
fn mapigate(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mapigate"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("MAPIGATE_NO_SUCH_VARIABLE")
        .output()
        .unwrap()
}

fn clone_of(folder: &str) -> tempfile::TempDir {
    let clone = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        fs::create_dir_all(clone.path().join(&folder)).unwrap();
        for entry in fs::read_dir(root.join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if root.join(&path).is_dir() {
                folders.push(path);
                continue;
            }
            let copy = clone.path().join(&path);
            fs::copy(root.join(&path), &copy).unwrap();
            fs::set_permissions(copy, fs::Permissions::from_mode(0o644)).unwrap();
        }
    }
    clone
}

fn bad_configs() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad_configs");
    let names = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names
        .filter_map(|name| Some(name.to_str()?.strip_suffix(".yaml")?.to_owned()))
        .collect();
    names.sort();
    assert!(names.len() > 80);
    names
}

#[test]
fn every_bad_config_is_answered_in_its_exact_words() {
    let clone = clone_of("tests/bad_configs");
    let mut wrong = Vec::new();

    for name in bad_configs() {
        let file = format!("tests/bad_configs/{name}.yaml");
        let output = mapigate(clone.path(), &["check", &file]);
        let said = String::from_utf8(output.stdout).unwrap();
        let words = clone.path().join(format!("tests/bad_configs/{name}.txt"));
        let expected = fs::read_to_string(words).unwrap_or_default();
        let exit = i32::from(!name.starts_with("warn_"));
        if said != expected || output.status.code() != Some(exit) {
            wrong.push(format!(
                "--- {name}, exit {:?}\n{said}",
                output.status.code()
            ));
        }
    }

    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_problem_has_a_place_a_snippet_and_a_cure() {
    let clone = clone_of("tests/bad_configs");

    for name in bad_configs() {
        let file = format!("tests/bad_configs/{name}.yaml");
        let output = mapigate(clone.path(), &["check", &file, "--format", "json"]);
        let problems: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let problems = problems.as_array().unwrap();
        assert!(!problems.is_empty(), "{name}");
        for problem in problems {
            assert!(problem["line"].as_u64().unwrap() > 0, "{name}: {problem}");
            assert!(problem["column"].as_u64().unwrap() > 0, "{name}: {problem}");
            assert!(
                problem["snippet"].as_str().unwrap().contains('^'),
                "{name}: {problem}"
            );
            assert!(
                !problem["cure"].as_str().unwrap().is_empty(),
                "{name}: {problem}"
            );
            let severity = problem["severity"].as_str().unwrap();
            assert!(
                ["error", "warning"].contains(&severity),
                "{name}: {problem}"
            );
        }
    }
}

#[test]
fn the_examples_are_good() {
    let clone = clone_of("conf");
    let keys = clone.path().join("conf/cookie.keys");
    fs::set_permissions(keys, fs::Permissions::from_mode(0o600)).unwrap();

    for (name, warnings) in [("minimal", 1), ("reference", 1), ("two-site", 1)] {
        let file = format!("conf/{name}.yaml");
        let output = mapigate(clone.path(), &["check", &file, "--format", "json"]);
        let problems: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{name}: {problems:#}");
        // The route cookie's key: none in the smallest file, the example's in the others.
        assert_eq!(
            problems.as_array().unwrap().len(),
            warnings,
            "{name}: {problems:#}"
        );
        let path = &problems[0]["path"];
        assert_eq!(path, "sessions.route_cookie.keys_file", "{name}");
    }
}

#[test]
fn the_rooms_that_read_what_the_examples_name_take_it() {
    let clone = clone_of("conf");

    for name in ["minimal", "reference", "two-site"] {
        let file = clone.path().join(format!("conf/{name}.yaml"));
        let settings = mapigate::config::load(&file, 1_800_000_000)
            .unwrap()
            .settings;
        let domain = settings.auth.basic.as_ref().unwrap().default_domain.clone();
        let directory = mapigate::directory::Directory::load(
            &settings.directory,
            &settings.databases,
            domain.as_deref(),
        );
        assert!(directory.is_ok(), "{name}: {:?}", directory.err());
        let auth = mapigate::auth::Authenticator::new(&settings.auth, None);
        assert!(auth.is_ok(), "{name}: {:?}", auth.err());
    }
}

#[test]
fn dash_t_checks_as_well() {
    let clone = clone_of("conf");

    let good = mapigate(clone.path(), &["-t", "conf/minimal.yaml"]);
    let missing = mapigate(clone.path(), &["-t", "conf/none.yaml"]);

    let said = String::from_utf8(good.stdout).unwrap();
    assert!(
        said.contains("conf/minimal.yaml is good: 1 listener, 1 name"),
        "{said}"
    );
    assert_eq!(good.status.code(), Some(0));
    let said = String::from_utf8(missing.stdout).unwrap();
    assert!(
        said.starts_with("error: there is no file `conf/none.yaml`"),
        "{said}"
    );
    assert_eq!(missing.status.code(), Some(1));
}

#[test]
fn the_schema_is_printed_as_json_and_as_the_reference() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));

    let schema = mapigate(root, &["schema"]);
    let reference = mapigate(root, &["schema", "--reference"]);

    let schema: serde_json::Value = serde_json::from_slice(&schema.stdout).unwrap();
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
    let written = fs::read(root.join("conf/reference.yaml")).unwrap();
    assert!(
        reference.stdout == written,
        "conf/reference.yaml is out of date"
    );
}

#[test]
fn alerts_speak_of_metrics_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let alerts = fs::read_to_string(root.join("conf/alerts.yaml")).unwrap();
    let mut code = fs::read_to_string(root.join("src/metrics.rs")).unwrap();
    for entry in fs::read_dir(root.join("src/metrics")).unwrap() {
        code.push_str(&fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';

    let named: BTreeSet<&str> = alerts
        .split("mapigate_")
        .skip(1)
        .filter_map(|rest| rest.split(|c| !is_name(c)).next())
        .map(|name| name.trim_end_matches("_bucket"))
        .collect();

    assert!(named.len() > 8);
    for name in named {
        assert!(
            code.contains(&format!("\"{name}\"")),
            "no metric is called mapigate_{name}"
        );
    }
    let rules: serde_yaml::Value = serde_yaml::from_str(&alerts).unwrap();
    assert!(rules["groups"][0]["rules"].as_sequence().unwrap().len() > 8);
}
