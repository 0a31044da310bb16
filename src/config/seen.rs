//! Files as they were found before they were read.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A file and what told its content from the next when somebody was about to read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenFile {
    /// Where it is.
    pub path: PathBuf,
    /// `None` while it is missing.
    stamp: Option<Stamp>,
}

/// Device, inode, bytes, and when it was written, in seconds and nanoseconds.
type Stamp = (u64, u64, u64, i64, i64);

impl SeenFile {
    /// Looks at a file without reading it. Asked before the reading, so that what is written meanwhile is a change.
    pub fn look(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            stamp: std::fs::metadata(path).ok().map(|facts| {
                (
                    facts.dev(),
                    facts.ino(),
                    facts.size(),
                    facts.mtime(),
                    facts.mtime_nsec(),
                )
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_differs_when_it_comes_is_written_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mapigate.yaml");
        let mut seen = vec![SeenFile::look(&path)];

        std::fs::write(&path, "version: 1").unwrap();
        seen.push(SeenFile::look(&path));
        std::fs::write(&path, "version: 1 # other").unwrap();
        seen.push(SeenFile::look(&path));
        assert_eq!(seen.last(), Some(&SeenFile::look(&path)));
        std::fs::remove_file(&path).unwrap();
        seen.push(SeenFile::look(&path));

        for pair in seen.windows(2) {
            assert_ne!(pair[0], pair[1]);
        }
    }
}
