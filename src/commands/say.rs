//! What commands say to who called them.

use std::fmt::Display;
use std::io::{self, Write as _};

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Writes a line to standard output. A reader that left, as `head` does, has read enough: that is no error.
pub(super) fn say(words: impl Display) {
    let _enough = writeln!(io::stdout().lock(), "{words}");
}
