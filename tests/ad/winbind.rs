//! What stands between mapigate and winbind.

use crate::lab::Lab;
use crate::site::PROGRAM;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

/// Where winbind has its sockets: for everybody, and for those it trusts with the words of others.
fn places() -> [(&'static str, PathBuf); 2] {
    let trusted = Lab::find().path("state/winbindd_privileged");
    [
        ("winbindd", "/run/samba/winbindd".into()),
        ("privileged", trusted),
    ]
}

/// mapigate that sees folders of this one, `winbindd` and `privileged`, in the place of those with winbind's sockets, and
/// nobody else does. `None` where this machine does not let us show it any.
pub(crate) fn with_sockets_in(folder: &Path) -> Option<PathBuf> {
    let mount = "mount -t tmpfs none /run/samba/winbindd";
    let mut tried = Command::new("unshare");
    let tried = tried.args(["-m", "sh", "-c", mount]).output();
    if !tried.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "SKIPPED: this machine allows no mounts of a process' own; winbind stays as it is"
        );
        return None;
    }
    let mut mounts = String::new();
    for (name, place) in places() {
        let sockets = folder.join(name);
        fs::create_dir(&sockets).unwrap();
        mounts.push_str(&format!(
            "mount --bind {} {} && ",
            sockets.display(),
            place.display()
        ));
    }
    let script = folder.join("mapigate");
    let text =
        format!("#!/bin/sh\nexec unshare -m sh -c '{mounts}exec \"$0\" \"$@\"' {PROGRAM} \"$@\"\n");
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    Some(script)
}

/// Winbind as it is, but for what it says of its domain controller. It goes with the test.
pub(crate) struct Between {
    is_away: Arc<AtomicBool>,
    _work: JoinSet<()>,
}

impl Between {
    /// Behind the sockets that [`with_sockets_in`] has made room for in this folder.
    pub(crate) fn spawn(folder: &Path) -> Self {
        let is_away = Arc::<AtomicBool>::default();
        let mut work = JoinSet::new();
        for (name, place) in places() {
            let listener = UnixListener::bind(folder.join(name).join("pipe")).unwrap();
            let (real, is_away) = (place.join("pipe"), Arc::clone(&is_away));
            work.spawn(async move {
                let mut talks = JoinSet::new();
                while let Ok((client, _)) = listener.accept().await {
                    let (real, is_away) = (real.clone(), Arc::clone(&is_away));
                    talks.spawn(async move {
                        // Whoever asked goes when it likes.
                        let _either_way = talk(client, &real, &is_away).await;
                    });
                }
            });
        }
        Self {
            is_away,
            _work: work,
        }
    }

    /// From now on winbind reaches its domain controller, or does not.
    pub(crate) fn loses_the_controller(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::Relaxed);
    }
}

/// Question and answer in turn: each answer begins with its length, and whether it is an error. Samba's
/// `winbindd_struct_protocol.h`
async fn talk(mut client: UnixStream, real: &Path, is_away: &AtomicBool) -> io::Result<()> {
    let mut winbind = UnixStream::connect(real).await?;
    let (mut question, mut piece) = (Vec::new(), [0; 8192]);
    loop {
        let mut length = [0; 4];
        tokio::select! {
            read = client.read(&mut piece) => {
                let count = read?;
                if count == 0 {
                    return Ok(());
                }
                question.extend_from_slice(&piece[..count]);
                winbind.write_all(&piece[..count]).await?;
            }
            read = winbind.read_exact(&mut length) => {
                read?;
                let mut answer = length.to_vec();
                answer.resize(usize::try_from(u32::from_ne_bytes(length)).unwrap(), 0);
                winbind.read_exact(&mut answer[4..]).await?;
                // Of a password there is a name in the question, of the controller its own in the answer.
                let is_about = |bytes: &[u8], name: &[u8]| memchr::memmem::find(bytes, name).is_some();
                let needs_it = is_about(&question, b"alice") || is_about(&answer, b"dc1.contoso.test");
                if needs_it && is_away.load(Ordering::Relaxed) {
                    answer[4..8].fill(0);
                    answer[8..12].copy_from_slice(&NO_LOGON_SERVERS.to_ne_bytes());
                }
                client.write_all(&answer).await?;
                question.clear();
            }
        }
    }
}

/// `STATUS_NO_LOGON_SERVERS`. `[MS-ERREF] 2.3.1`
const NO_LOGON_SERVERS: u32 = 0xc000_005e;
