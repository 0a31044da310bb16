//! A Python with impacket, in a folder of the build's own.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::OnceCell;

/// The release that is known to work; of those after it nobody has promised anything.
const RELEASE: &str = "impacket==0.13.1";

/// A Python that has impacket; `None`, and loudly, where PyPI cannot be reached.
pub(crate) async fn python() -> Option<PathBuf> {
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

pub(crate) async fn run(program: &Path, arguments: &[&str], seconds: u64) -> Option<Output> {
    let running = Command::new(program)
        .args(arguments)
        .kill_on_drop(true)
        .output();
    let ended = tokio::time::timeout(Duration::from_secs(seconds), running).await;
    ended.ok()?.ok()
}

/// An NSPI bind and unbind by impacket: what it printed.
pub(crate) async fn nspi_bind(python: &Path, words: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/outlook_anywhere/nspi_bind.py");
    let script = script.to_string_lossy();
    let arguments = [&[&*script], words].concat();
    run(python, &arguments, 60)
        .await
        .expect("impacket ends in time")
}
