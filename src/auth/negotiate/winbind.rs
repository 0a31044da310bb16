//! Whether winbind reaches a domain controller.
//!
//! The plug-in for NTLM says one thing of a wrong password and of a domain controller that is away: `EACCES`, and
//! throws winbind's own code away. So winbind is asked by itself after a refusal, and the client told to come again
//! where nobody could judge its password. Only winbind's clear no counts: where it cannot be asked, or says nothing,
//! the refusal stands, because the guard against guessing counts nothing else.

use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout};

/// Asks winbind, for many at once and not often.
pub(super) struct Winbind {
    command: Vec<&'static str>,
    last: Mutex<Option<Said>>,
}

/// What winbind said when it was asked last.
struct Said {
    asked_at: Instant,
    reaches: Option<bool>,
}

impl Winbind {
    pub(super) fn new() -> Self {
        Self::asked_by(vec!["wbinfo", "--ping-dc"])
    }

    fn asked_by(command: Vec<&'static str>) -> Self {
        Self {
            command,
            last: Mutex::new(None),
        }
    }

    /// True where winbind reaches a controller of its own domain now; `None`: it cannot be asked. Starts a process,
    /// at most one at a time and four in a second, for everybody who has asked before it started.
    #[expect(
        clippy::disallowed_methods,
        reason = "a foreign process is asked no oftener than the clock says"
    )]
    pub(super) async fn reaches_a_controller(&self) -> Option<bool> {
        let refused_at = Instant::now();
        let mut last = self.last.lock().await;
        if let Some(said) = &*last {
            if said.asked_at > refused_at {
                return said.reaches;
            }
            sleep_until(said.asked_at + SPACING).await;
        }
        let asked_at = Instant::now();
        let reaches = self.ask().await;
        *last = Some(Said { asked_at, reaches });
        reaches
    }

    async fn ask(&self) -> Option<bool> {
        let (program, words) = self.command.split_first()?;
        let child = Command::new(program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .status();
        let status = match timeout(PATIENCE, child).await {
            Ok(Ok(status)) => status.code(),
            Ok(Err(_)) | Err(_) => None,
        };
        match status {
            Some(0) => Some(true),
            Some(1) => Some(false),
            _ => None,
        }
    }
}

/// Between two questions.
const SPACING: Duration = Duration::from_millis(250);
/// Winbind answers in some milliseconds, or hangs as long as its controller does.
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a foreign process takes real time"
)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::task::JoinSet;

    fn shell(script: &'static str) -> Winbind {
        Winbind::asked_by(vec!["sh", "-c", script])
    }

    #[tokio::test]
    async fn only_a_clear_no_of_winbind_is_a_no() {
        for (script, reaches) in [
            ("exit 0", Some(true)),
            ("exit 1", Some(false)),
            ("exit 127", None),
            ("kill -9 $$", None),
        ] {
            assert_eq!(shell(script).reaches_a_controller().await, reaches);
        }
        let missing = Winbind::asked_by(vec!["/no/such/wbinfo"]);
        assert_eq!(missing.reaches_a_controller().await, None);
    }

    #[tokio::test]
    async fn winbind_that_says_nothing_is_not_waited_for() {
        let silent = shell("exec sleep 60");
        let began = Instant::now();

        assert_eq!(silent.reaches_a_controller().await, None);

        assert!(began.elapsed() < PATIENCE * 3);
    }

    #[tokio::test]
    async fn a_hundred_who_were_refused_at_once_are_told_by_two_processes_at_most() {
        let folder = tempfile::tempdir().unwrap();
        let counted = folder.path().join("asked");
        let script = format!("echo x >> {}; exit 1", counted.display());
        let winbind = Arc::new(shell(script.leak()));

        let mut told = JoinSet::new();
        for _ in 0..100 {
            let winbind = Arc::clone(&winbind);
            told.spawn(async move { winbind.reaches_a_controller().await });
        }

        assert_eq!(told.join_all().await, vec![Some(false); 100]);
        let asked = std::fs::read_to_string(counted).unwrap().lines().count();
        assert!((1..=2).contains(&asked), "{asked}");
    }
}
