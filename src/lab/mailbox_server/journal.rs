//! The book of what a simulated server executed, written before it executes.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::ids::{DatabaseName, ServerName, UserName};

/// One Execute that a server was about to perform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executed {
    /// Who executed it.
    pub server: ServerName,
    /// `X-RequestId`.
    pub nonce: String,
    /// Who the server took the client for.
    pub user: UserName,
    /// `MailboxId` of the URL, lower case.
    pub mailbox: String,
    /// The database the server believes the mailbox to be in.
    pub database: Option<DatabaseName>,
    /// The context cookie.
    pub context: String,
    /// Which of the server's connections it came by, from 1.
    pub connection: u64,
    /// [`crate::lab::digest`] of the body, in hexadecimal digits.
    pub body: String,
    /// Bytes of the body.
    pub body_bytes: usize,
    /// Microseconds since 1970.
    pub at: u64,
}

/// The book; clones share it, so several servers can write one.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: Vec<Executed>,
    left_out: u64,
    file: Option<File>,
}

impl Journal {
    /// Entries kept in memory; what comes after is counted, and still written to the file.
    pub const ENTRIES_MAX: usize = 1_000_000;

    /// A book that is also appended to this file, one JSON object per line.
    ///
    /// # Errors
    /// When the file cannot be opened for appending.
    pub fn in_file(path: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self {
            inner: Arc::new(Mutex::new(Inner {
                file: Some(file),
                ..Inner::default()
            })),
        })
    }

    /// Writes an entry down.
    ///
    /// # Errors
    /// When the file cannot be written: then nothing may be executed, or the book lies.
    pub fn write(&self, entry: Executed) -> io::Result<()> {
        let mut inner = self.inner.lock();
        if let Some(file) = &mut inner.file {
            let mut line = serde_json::to_vec(&entry)?;
            line.push(b'\n');
            file.write_all(&line)?;
        }
        if inner.entries.len() < Self::ENTRIES_MAX {
            inner.entries.push(entry);
        } else {
            inner.left_out += 1;
        }
        Ok(())
    }

    /// Every entry so far, in order.
    pub fn entries(&self) -> Vec<Executed> {
        self.inner.lock().entries.clone()
    }

    /// Entries kept in memory.
    pub fn len(&self) -> usize {
        self.inner.lock().entries.len()
    }

    /// Nothing was executed yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries that did not fit in memory; a checker must not trust a book with any.
    pub fn left_out(&self) -> u64 {
        self.inner.lock().left_out
    }
}
