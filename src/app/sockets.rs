//! The listening sockets, on their way to a process that takes over from us.

use anyhow::{Context, ensure};
use async_trait::async_trait;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Keeps hold of the table of listening sockets that Pingora gives to services only.
#[derive(Clone, Default)]
pub(super) struct Sockets(Arc<OnceLock<ListenFds>>);

impl Sockets {
    /// Sends all listening sockets to the process that waits at `path`. Blocks for seconds while
    /// nobody waits there.
    pub(super) fn send(&self, path: &Path) -> anyhow::Result<()> {
        let fds = self.0.get().context("no sockets yet")?.lock();
        ensure!(!fds.is_empty(), "no sockets to hand over");
        let path = path.to_str().context("the path is not text")?;
        fds.send_to_sock(path)
            .map(drop)
            .context("nobody took the sockets")
    }
}

#[async_trait]
impl Service for Sockets {
    async fn start_service(
        &mut self,
        fds: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        _listeners_per_fd: usize,
    ) {
        if let Some(fds) = fds {
            // It is started once.
            let _ = self.0.set(fds);
        }
    }

    fn name(&self) -> &'static str {
        "sockets"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(Vec::new())
    }
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
