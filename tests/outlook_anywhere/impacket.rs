//! A client that others wrote: impacket's RPC over HTTP.

use crate::house::House;
use mapigate::lab::site::{HOST, PASSWORD, mailbox, user};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::OnceCell;

/// The release that is known to work; of those after it nobody has promised anything.
const RELEASE: &str = "impacket==0.13.1";

/// A Python that has impacket; `None`, and loudly, where PyPI cannot be reached.
async fn python() -> Option<PathBuf> {
    static PYTHON: OnceCell<Option<PathBuf>> = OnceCell::const_new();
    PYTHON.get_or_init(installed).await.clone()
}

async fn installed() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/impacket");
    let python = folder.join("bin/python");
    let has_it = || async {
        let there = run(&python, &["-c", "import impacket.dcerpc.v5.nspi"], 60).await;
        there.is_some_and(|output| output.status.success())
    };
    if has_it().await {
        return Some(python);
    }
    let path = folder.to_string_lossy().into_owned();
    run(Path::new("python3"), &["-m", "venv", &path], 120).await;
    run(&python, &["-m", "pip", "install", "-q", RELEASE], 300).await;
    if has_it().await {
        return Some(python);
    }
    eprintln!(
        "SKIPPED: {RELEASE} cannot be installed from PyPI; its RPC over HTTP client was not tried"
    );
    None
}

async fn run(program: &Path, arguments: &[&str], seconds: u64) -> Option<Output> {
    let running = Command::new(program)
        .args(arguments)
        .kill_on_drop(true)
        .output();
    let ended = tokio::time::timeout(Duration::from_secs(seconds), running).await;
    ended.ok()?.ok()
}

async fn bind(house: &House, python: &Path, number: usize, more: [&str; 2]) -> Output {
    let [password, scheme] = more;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/outlook_anywhere/nspi_bind.py");
    let port = house.target().unwrap().address.port().to_string();
    let arguments = [
        &script.to_string_lossy(),
        HOST,
        &port,
        &user(number),
        password,
        &mailbox(number),
        scheme,
    ];
    run(python, &arguments, 60)
        .await
        .expect("impacket ends in time")
}

#[tokio::test]
async fn impackets_client_binds_the_address_book_through_mapigate() {
    let Some(python) = python().await else { return };
    let house = House::new().await;

    // By Basic, and by its own choice: it asks for NTLM first, is told Basic, and takes that.
    for (number, scheme) in [(1, "basic"), (2, "auto")] {
        let output = bind(&house, &python, number, [PASSWORD, scheme]).await;

        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{scheme}: {errors}");
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said["scheme"], "Basic");
        assert_eq!(said["server"], "mapigate-lab-gal");
        assert_eq!((&said["bound"], &said["unbound"]), (&0.into(), &1.into()));
    }

    assert_eq!(house.servers[0].sessions_opened(), 2);
    assert_eq!(house.servers[1].heads().len(), 0);
}

#[tokio::test]
async fn impackets_client_is_refused_with_a_wrong_password_before_a_server_hears_of_it() {
    let Some(python) = python().await else { return };
    let house = House::new().await;

    let output = bind(&house, &python, 1, ["wrong", "basic"]).await;

    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("401"), "{errors}");
    house.nobody_was_reached();
}
