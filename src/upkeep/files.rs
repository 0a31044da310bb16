//! Notices that a file of the configuration changed.

use crate::config::SeenFile;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Watches the folders of some files: an editor or a failover script replaces a file rather than
/// writing into it, and a mounted secret changes by a link somewhere above.
pub(super) struct FileWatch {
    files: Vec<SeenFile>,
    stirred: Arc<Notify>,
    // Dropping it ends the watch.
    _watcher: RecommendedWatcher,
}

impl FileWatch {
    /// Begins to watch files that were found so. Whatever was written since counts as a change.
    ///
    /// # Errors
    /// The system gives no more watches, or a folder is missing.
    pub(super) fn new(files: &[SeenFile]) -> notify::Result<Self> {
        let stirred = Arc::new(Notify::new());
        let waker = Arc::clone(&stirred);
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // Reading a file is no change of it; a lost event might have been one.
                if event.map_or(true, |event| !event.kind.is_access()) {
                    waker.notify_one();
                }
            })?;
        let folders: BTreeSet<&Path> = files.iter().map(|file| folder_of(&file.path)).collect();
        for folder in folders {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        // Nobody watched between their reading and now: to be looked at once at least.
        stirred.notify_one();
        Ok(Self {
            files: files.to_vec(),
            stirred,
            _watcher: watcher,
        })
    }

    /// Waits until a file is not what it was, and has been left alone for a moment.
    pub(super) async fn changed(&mut self) {
        loop {
            self.stirred.notified().await;
            self.settle().await;
            let look = |file: &SeenFile| SeenFile::look(&file.path);
            let files: Vec<SeenFile> = self.files.iter().map(look).collect();
            if files != self.files {
                self.files = files;
                return;
            }
        }
    }

    /// Waits for quiet, but not for ever: a log in the same folder may never be quiet.
    async fn settle(&self) {
        let quiet = async {
            while tokio::time::timeout(QUIET, self.stirred.notified())
                .await
                .is_ok()
            {}
        };
        // Whether it became quiet or not, this is the time to look.
        let _ = tokio::time::timeout(QUIET * 10, quiet).await;
    }
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A file that is being written is left alone until nothing happened for this long.
const QUIET: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_replaced_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mapigate.yaml");
        std::fs::write(&file, "version: 1").unwrap();
        let mut watch = FileWatch::new(&[SeenFile::look(&file)]).unwrap();

        let fresh = folder.path().join("fresh");
        std::fs::write(&fresh, "version: 1 # changed").unwrap();
        std::fs::rename(&fresh, &file).unwrap();

        tokio::time::timeout(SOON, watch.changed())
            .await
            .expect("noticed");
    }

    #[tokio::test]
    async fn what_is_written_between_the_reading_and_the_watch_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mapigate.yaml");
        std::fs::write(&file, "version: 1").unwrap();
        let seen = SeenFile::look(&file);

        std::fs::write(&file, "version: 1 # changed").unwrap();
        let mut watch = FileWatch::new(&[seen]).unwrap();

        tokio::time::timeout(SOON, watch.changed())
            .await
            .expect("noticed");
    }

    #[tokio::test]
    async fn a_neighbour_of_the_file_is_nobodys_business() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mapigate.yaml");
        std::fs::write(&file, "version: 1").unwrap();
        let mut watch = FileWatch::new(&[SeenFile::look(&file)]).unwrap();

        std::fs::write(folder.path().join("access.log"), "line").unwrap();

        assert!(
            tokio::time::timeout(QUIET * 3, watch.changed())
                .await
                .is_err()
        );
    }
}
