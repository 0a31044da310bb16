//! One helper process: a line in, a line out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use zeroize::Zeroizing;

/// A running helper. Dropping it ends the process; inside of a tokio runtime its end is waited for elsewhere.
pub(super) struct Helper {
    child: Option<Child>,
    to: ChildStdin,
    from: ChildStdout,
    #[cfg(test)]
    pub(super) started_by: std::thread::ThreadId,
}

/// What a helper says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// A message for the client.
    Challenge(Zeroizing<Vec<u8>>),
    /// The client is this Windows account.
    Proven(String),
    /// It is not; the helper's own words.
    Refused(String),
}

impl Helper {
    /// Starts it. Blocks for about a millisecond, and for some more where memory is short.
    ///
    /// # Errors
    /// The program is missing, or the system gives no process.
    pub(super) fn start(command: &[String]) -> io::Result<Self> {
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::NotFound)?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (to, from) = pipes.ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self {
            child: Some(child),
            to,
            from,
            #[cfg(test)]
            started_by: std::thread::current().id(),
        })
    }

    /// The number of its process.
    #[cfg(test)]
    pub(super) fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Says a word and waits for the reply, not longer than `patience`. Blocks.
    ///
    /// # Errors
    /// The helper has ended, is silent, or says what it should not: it is of no use any more.
    pub(super) fn ask(
        &mut self,
        verb: &str,
        token: &[u8],
        patience: Duration,
    ) -> io::Result<Reply> {
        let mut line = Zeroizing::new(String::with_capacity(token.len() * 4 / 3 + 16));
        line.push_str(verb);
        line.push(' ');
        STANDARD.encode_string(token, &mut line);
        line.push('\n');
        if line.len() > LINE_BYTES_MAX {
            return Ok(Reply::Refused("NTLMSSP message too long".to_owned()));
        }
        // It fits into the pipe: it is the only line in it.
        self.to.write_all(line.as_bytes())?;
        self.to.flush()?;
        let reply = self.line(patience)?;
        read(&reply).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a foreign process is waited for by the clock"
    )]
    fn line(&mut self, patience: Duration) -> io::Result<Zeroizing<Vec<u8>>> {
        let until = Instant::now() + patience;
        let mut line = Zeroizing::new(Vec::with_capacity(LINE_BYTES_MAX));
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(|_long| io::ErrorKind::TimedOut)?;
            let mut watched = [PollFd::new(&self.from, PollFlags::IN)];
            match poll(&mut watched, Some(&left)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let mut piece = Zeroizing::new([0; 1024]);
            let count = self.from.read(&mut piece[..])?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            line.extend_from_slice(piece.get(..count).unwrap_or_default());
            if line.last() == Some(&b'\n') {
                line.pop();
                return Ok(line);
            }
            if line.len() > LINE_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        // A process that is not waited for stays a name; and it takes its time to end, which nobody's requests are to
        // wait for.
        let _ended = child.kill();
        let mut reap = move || {
            let _reaped = child.wait();
        };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(reap)),
            Err(_none) => reap(),
        }
    }
}

/// Reads a reply; `None` for what is none.
fn read(line: &[u8]) -> Option<Reply> {
    let line = std::str::from_utf8(line).ok()?;
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let rest = rest.trim_end();
    match verb {
        "TT" => {
            let token = STANDARD.decode(rest).ok()?;
            Some(Reply::Challenge(Zeroizing::new(token)))
        }
        "AF" if !rest.is_empty() => Some(Reply::Proven(rest.to_owned())),
        "NA" | "BH" => Some(Reply::Refused(rest.to_owned())),
        _ => None,
    }
}

/// The longest line either way; a message of NTLM is some hundred bytes. Less than a pipe takes at once.
const LINE_BYTES_MAX: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shell(script: &str) -> Helper {
        Helper::start(&["sh".to_owned(), "-c".to_owned(), script.to_owned()]).unwrap()
    }

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn a_helper_is_asked_line_by_line() {
        let mut helper = shell("read a; echo TT AQID; read b; printf '%s\\n' 'AF CONTOSO\\alice'");

        let first = helper.ask("YR", b"one", LONG).unwrap();
        let second = helper.ask("KK", b"two", LONG).unwrap();

        assert_eq!(first, Reply::Challenge(Zeroizing::new(vec![1, 2, 3])));
        assert_eq!(second, Reply::Proven("CONTOSO\\alice".to_owned()));
    }

    #[test]
    fn a_helper_that_is_silent_ends_or_babbles_is_an_error_in_time() {
        let silent = shell("read a; exec sleep 60").ask("YR", b"x", Duration::from_millis(50));
        let ended = shell("read a").ask("YR", b"x", LONG);
        let babble = shell("read a; echo what").ask("YR", b"x", LONG);

        assert_eq!(silent.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(babble.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_helper_that_is_missing_cannot_be_started() {
        let error = Helper::start(&["/no/such/helper".to_owned()])
            .err()
            .unwrap();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_helper_that_is_dropped_leaves_no_process_behind() {
        let helper = shell("exec sleep 600");
        let process = format!("/proc/{}", helper.id());
        assert!(std::path::Path::new(&process).exists());

        drop(helper);

        let gone = async {
            while std::path::Path::new(&process).exists() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(LONG, gone).await.unwrap();
    }

    proptest! {
        #[test]
        fn any_reply_is_read_without_a_panic(line in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = read(&line);
        }
    }
}
