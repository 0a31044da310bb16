//! The demo as a visitor runs it.

use std::process::Command;

#[test]
fn the_demo_keeps_every_promise_and_says_so_as_one_object() {
    let folder = tempfile::tempdir().unwrap();
    let site = folder.path().join("site");

    let output = Command::new(env!("CARGO_BIN_EXE_mapigate"))
        .args(["demo", "--json", "--folder"])
        .arg(&site)
        .output()
        .unwrap();

    let story = String::from_utf8(output.stderr).unwrap();
    let facts: serde_json::Value = serde_json::from_slice(&output.stdout).expect(&story);
    assert!(output.status.success(), "{story}");
    assert!(!story.contains('\x1b'), "colours in a pipe: {story}");
    let promises = facts["promises"].as_array().unwrap();
    assert_eq!(promises.len(), 10);
    assert!(promises.iter().all(|promise| promise["is_kept"] == true));
    assert_eq!(
        facts["executes"]["ok"],
        facts["executes"]["ok_exactly_once"]
    );
    assert_eq!(facts["code10s"]["most_per_session"], 1);
    assert_eq!(facts["reloads"]["count"], 100);
    assert!(site.join("timeline.svg").exists());
}

#[test]
fn a_folder_that_is_there_already_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();

    let output = Command::new(env!("CARGO_BIN_EXE_mapigate"))
        .args(["demo", "--folder"])
        .arg(folder.path())
        .output()
        .unwrap();

    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.contains("which must be a new one"), "{words}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
