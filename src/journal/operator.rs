//! The operator's log on its way to standard error.

use super::lane::Lane;
use crate::metrics::Tally;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

/// Takes lines and has a thread of its own write them: whoever has something to say, perhaps under a lock,
/// never waits for the reader of standard error. Lines that find no room are counted and lost, and when lines
/// flow again one of them says how many. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OperatorLog(Arc<Lane>);

impl OperatorLog {
    /// Starts the thread. `dropped` counts lines that are lost.
    ///
    /// # Errors
    /// The system gives no thread or no descriptor.
    pub fn start(dropped: Tally) -> io::Result<Self> {
        let sink = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        // Lines are few, and somebody may be looking: each is written at once.
        let sink: Box<dyn Write + Send> = Box::new(sink);
        let lane = Lane::gathering(Duration::ZERO, "operator", Some(sink), ROOM, dropped)?;
        Ok(Self(Arc::new(lane)))
    }

    /// Waits until every line added so far is written, at most this long; true if it was done.
    pub fn flush(&self, at_most: Duration) -> bool {
        self.0.flush(at_most)
    }

    /// Writes what is there, waiting at most this long, and ends the thread; true if it was done.
    pub fn close(&self, at_most: Duration) -> bool {
        self.0.close(at_most)
    }
}

/// Each call takes a whole line, its end included.
impl Write for OperatorLog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes of lines that may wait: all problems of a large configuration, several times.
const ROOM: usize = 256 * 1024;
