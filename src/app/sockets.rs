//! The listening sockets, on their way to a process that takes over from us.

use crate::listener::Sockets;
use anyhow::{Context, ensure};
use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Sends all listening sockets to the process that waits at `path`. Blocks for seconds while nobody
/// waits there.
pub(super) fn send(sockets: &Sockets, path: &Path) -> anyhow::Result<()> {
    let fds = sockets.get().context("no sockets yet")?.lock();
    ensure!(!fds.is_empty(), "no sockets to hand over");
    let path = path.to_str().context("the path is not text")?;
    fds.send_to_sock(path)
        .map(drop)
        .context("nobody took the sockets")
}

/// Where sockets are handed over. Whoever can put a socket there can have ours, so that the default
/// is a folder nobody else writes to: the service's, the user's, or one of our own.
pub(super) fn upgrade_socket(wanted: Option<&Path>) -> anyhow::Result<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let path = match wanted {
        Some(path) => path.to_owned(),
        None => folder("RUNTIME_DIRECTORY")
            .or_else(|| folder("XDG_RUNTIME_DIR"))
            .map_or_else(|| PathBuf::from("/run/mapigate"), PathBuf::from)
            .join("mapigate-upgrade.sock"),
    };
    let length = OsStr::as_bytes(path.as_os_str()).len();
    ensure!(
        length < PATH_MAX,
        "upgrade socket {}: the path is too long",
        path.display()
    );
    Ok(path)
}

/// Makes the folder of the upgrade socket, for nobody but us.
pub(super) fn make_folder(socket: &Path) -> anyhow::Result<()> {
    let Some(folder) = socket
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    else {
        return Ok(());
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("folder of the upgrade socket {}", folder.display()))
}

/// Bytes of a Unix socket's path, by the system's structure.
const PATH_MAX: usize = 108;
