//! Passwords and tokens, out of files or from the terminal; they are wiped when dropped.

use anyhow::{Context as _, Result};
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use zeroize::Zeroizing;

/// The first line of a file.
///
/// # Errors
/// The file cannot be read.
pub(super) fn first_line(file: &Path) -> Result<Zeroizing<String>> {
    let text = std::fs::read_to_string(file).map(Zeroizing::new);
    let text = text.with_context(|| file.display().to_string())?;
    Ok(Zeroizing::new(
        text.lines().next().unwrap_or_default().to_owned(),
    ))
}

/// A user's password from standard input: unseen where somebody types it.
///
/// # Errors
/// Nothing can be read there.
pub(super) fn typed(user: &str) -> Result<Zeroizing<String>> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let input = std::io::stdin();
    let mut line = Zeroizing::new(String::new());
    if !input.is_terminal() {
        input.lock().read_line(&mut line)?;
    } else {
        let _told = write!(std::io::stderr(), "Password of {user}: ");
        let before = tcgetattr(&input)?;
        let mut unseen = before.clone();
        unseen.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&input, OptionalActions::Flush, &unseen)?;
        let read = input.lock().read_line(&mut line);
        tcsetattr(&input, OptionalActions::Flush, &before)?;
        let _told = writeln!(std::io::stderr());
        read?;
    }
    Ok(Zeroizing::new(
        line.trim_end_matches(['\r', '\n']).to_owned(),
    ))
}
