//! The files for Log Parser: by day, by size, bounded, and what trouble with them costs.

use super::proxy_tests::{Row, rows};
use super::tests::{SOON, entry, logging_to};
use super::*;
use std::fs;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

fn target(folder: &Path) -> HttpProxyLog {
    HttpProxyLog {
        folder: folder.join("HttpProxy"),
        file_size: 64 * 1024,
        keep: Duration::from_secs(30 * 24 * 3600),
        total_size: 1 << 20,
    }
}

fn logging(target: &HttpProxyLog) -> Logging {
    Logging {
        access: AccessLog::Off,
        http_proxy: Some(target.clone()),
        ..logging_to(Path::new(""))
    }
}

fn start(target: &HttpProxyLog) -> Journal {
    Journal::start(&logging(target), &Metrics::new("test")).unwrap()
}

/// The entry on another day.
fn on(day: u64, entry: Entry<'static>) -> Entry<'static> {
    Entry {
        time: UNIX_EPOCH + Duration::from_secs(day * 24 * 3600 + 43_200),
        ..entry
    }
}

fn files(target: &HttpProxyLog) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(target.folder.join("Mapi"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn names(target: &HttpProxyLog) -> Vec<String> {
    let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    files(target).into_iter().map(name).collect()
}

fn read(target: &HttpProxyLog, name: &str) -> Vec<Row> {
    rows(&fs::read(target.folder.join(name)).unwrap())
}

#[test]
fn every_day_and_protocol_has_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    let journal = start(&target);
    let unknown = Entry {
        endpoint: None,
        dialect: None,
        ..on(20_000, entry())
    };

    for facts in [
        on(20_000, entry()),
        unknown,
        on(20_000, entry()),
        on(20_001, entry()),
        // Ended before midnight, written after it.
        on(20_000, entry()),
        on(20_001, entry()),
    ] {
        journal.write(&facts);
    }

    assert!(journal.close(SOON));
    assert_eq!(
        names(&target),
        ["HttpProxy_20241004-1.LOG", "HttpProxy_20241005-1.LOG"]
    );
    assert_eq!(read(&target, "Mapi/HttpProxy_20241004-1.LOG").len(), 2);
    assert_eq!(read(&target, "Mapi/HttpProxy_20241005-1.LOG").len(), 3);
    assert_eq!(read(&target, "Unknown/HttpProxy_20241004-1.LOG").len(), 1);
    let first = fs::read_to_string(&files(&target)[0]).unwrap();
    assert!(first.contains("\r\n#Date: 2024-10-04T12:00:00.002Z\r\n"));
}

#[test]
fn a_full_file_is_followed_by_the_next_of_its_day_and_the_oldest_go() {
    let folder = tempfile::tempdir().unwrap();
    let target = HttpProxyLog {
        total_size: 256 * 1024,
        ..target(folder.path())
    };
    let foreign = target.folder.join("Mapi/notes.LOG");
    fs::create_dir_all(foreign.parent().unwrap()).unwrap();
    fs::write(&foreign, vec![b'x'; 300_000]).unwrap();
    let journal = start(&target);

    for _ in 0..600 {
        journal.write(&on(20_000, entry()));
        assert!(journal.flush(SOON));
    }

    assert!(foreign.exists());
    fs::remove_file(&foreign).unwrap();
    let left = names(&target);
    let sizes: Vec<_> = files(&target)
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .collect();
    assert!(sizes.iter().sum::<u64>() <= target.total_size, "{sizes:?}");
    assert!(
        sizes.iter().all(|size| *size < target.file_size + 1024),
        "{sizes:?}"
    );
    assert!(
        left.len() >= 3 && !left.contains(&"HttpProxy_20241004-1.LOG".to_owned()),
        "{left:?}"
    );
    for name in left {
        assert!(!read(&target, &format!("Mapi/{name}")).is_empty());
    }
}

#[test]
fn files_that_are_too_old_go() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    let journal = start(&target);

    for day in [20_000, 20_001, 20_029, 20_030] {
        journal.write(&on(day, entry()));
        assert!(journal.flush(SOON));
    }

    assert_eq!(
        names(&target),
        [
            "HttpProxy_20241005-1.LOG",
            "HttpProxy_20241102-1.LOG",
            "HttpProxy_20241103-1.LOG"
        ]
    );
}

#[test]
fn a_restart_goes_on_with_the_file_unless_its_last_line_is_torn() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    for _ in 0..2 {
        let journal = start(&target);
        journal.write(&on(20_000, entry()));
        assert!(journal.close(SOON));
    }
    let whole = files(&target);
    assert_eq!(read(&target, "Mapi/HttpProxy_20241004-1.LOG").len(), 2);

    let bytes = fs::read(&whole[0]).unwrap();
    fs::write(&whole[0], &bytes[..bytes.len() - 9]).unwrap();
    let journal = start(&target);
    journal.write(&on(20_000, entry()));

    assert!(journal.close(SOON));
    assert_eq!(names(&target).len(), 2);
    assert_eq!(read(&target, "Mapi/HttpProxy_20241004-2.LOG").len(), 1);
}

#[test]
fn files_that_were_moved_away_are_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    let journal = start(&target);
    journal.write(&on(20_000, entry()));
    assert!(journal.flush(SOON));
    fs::rename(&target.folder, folder.path().join("moved")).unwrap();

    journal.reopen(&logging(&target)).unwrap();
    journal.write(&on(20_000, entry()));

    assert!(journal.flush(SOON));
    assert_eq!(read(&target, "Mapi/HttpProxy_20241004-1.LOG").len(), 1);
    let off = Logging {
        http_proxy: None,
        ..logging(&target)
    };
    journal.reopen(&off).unwrap();
    assert!(!journal.is_on() && !journal.tells_programs());
}

/// Puts something else in the place of the day's file.
fn in_place_of_the_file(target: &HttpProxyLog, what: &Path) -> PathBuf {
    let path = target.folder.join("Mapi/HttpProxy_20241004-1.LOG");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(what, &path).unwrap();
    path
}

#[test]
fn a_full_disk_costs_rows_and_no_time() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    let full = in_place_of_the_file(&target, Path::new("/dev/full"));
    let logging = Logging {
        access_buffer: 16 * 1024,
        ..logging(&target)
    };
    let journal = Journal::start(&logging, &Metrics::new("test")).unwrap();

    for _ in 0..1000 {
        journal.write(&on(20_000, entry()));
    }
    let lost = journal.dropped();
    assert!(lost > 900, "{lost}");
    fs::remove_file(full).unwrap();
    journal.reopen(&logging).unwrap();

    assert!(journal.flush(SOON));
    let rows = read(&target, "Mapi/HttpProxy_20241004-1.LOG");
    assert_eq!(rows.len() as u64, 1000 - lost);
}

#[test]
fn a_pipe_that_nobody_reads_costs_rows_and_no_time() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    let pipe = folder.path().join("pipe");
    let status = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(status.unwrap().success());
    in_place_of_the_file(&target, &pipe);
    let logging = Logging {
        access_buffer: 16 * 1024,
        ..logging(&target)
    };
    let journal = Journal::start(&logging, &Metrics::new("test")).unwrap();

    for _ in 0..1000 {
        journal.write(&on(20_000, entry()));
    }

    assert!(journal.dropped() > 900);
    assert!(!journal.close(Duration::from_millis(50)));
}
