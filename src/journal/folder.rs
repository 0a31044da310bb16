//! Files by protocol and day, as Exchange lays them out: `Mapi/HttpProxy_20261121-1.LOG`.
//!
//! A new file begins with every day (UTC) and where the last has grown to its size; the oldest go when
//! they are too old or too many. Knows no clock: a line's own date says what day it is.

use super::Protocol;
use super::proxy_line::heads;
use crate::config::settings::HttpProxyLog;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use time::Date;

/// Takes lines, each behind the tag of its protocol. A write takes lines of one file only.
pub(super) struct Folder {
    target: HttpProxyLog,
    files: Vec<Growing>,
    /// Whose line is half written: what comes next is the rest of it, without a tag.
    torn: Option<Protocol>,
    /// Lines on their way, tags removed.
    run: Vec<u8>,
}

/// The file a protocol's lines go to.
struct Growing {
    protocol: Protocol,
    file: File,
    day: Date,
    bytes: u64,
    path: PathBuf,
}

impl Folder {
    /// Makes the folder where it is missing. Files are opened when there is something to write.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub(super) fn open(target: &HttpProxyLog) -> io::Result<Self> {
        make(&target.folder)?;
        Ok(Self {
            target: target.clone(),
            files: Vec::new(),
            torn: None,
            run: Vec::new(),
        })
    }

    /// Sees to it that this line of this day has a file to go to. Returns the bytes it has room for.
    fn prepare(&mut self, protocol: Protocol, day: Date, line: &[u8]) -> io::Result<u64> {
        let size_max = self.target.file_size;
        let mut day = day;
        if let Some(at) = self.place(protocol) {
            let file = self.files.swap_remove(at);
            if file.takes(day) && file.bytes < size_max {
                let room = size_max - file.bytes;
                self.files.push(file);
                return Ok(room);
            }
            if file.takes(day) {
                // A late line does not bring yesterday back.
                day = file.day;
            }
        }
        let file = Growing::open(&self.target, protocol, day, date_of(line))?;
        let room = size_max.saturating_sub(file.bytes);
        self.files.push(file);
        self.prune(day);
        Ok(room)
    }

    fn place(&self, protocol: Protocol) -> Option<usize> {
        self.files.iter().position(|file| file.protocol == protocol)
    }

    /// Gathers lines for the file of the first, tags removed, up to its end or [`RUN_MAX`].
    fn gather(&mut self, bytes: &[u8], protocol: Protocol, day: Option<Date>, room: u64) {
        self.run.clear();
        let mut rest = bytes;
        let mut is_rest_of_line = self.torn.is_some();
        while !rest.is_empty() && self.run.len() < RUN_MAX {
            if !is_rest_of_line {
                let is_more = !self.run.is_empty();
                let fits = (self.run.len() as u64) < room;
                if is_more && !(fits && of(rest) == Some(protocol) && day_of(rest) == day) {
                    return;
                }
                rest = rest.get(1..).unwrap_or_default();
            }
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            let (line, behind) = rest.split_at(end);
            self.run.extend_from_slice(line);
            rest = behind;
            is_rest_of_line = false;
        }
    }

    /// Removes files that are too old, and the oldest where all together are too large. What cannot be
    /// removed is told, and stays.
    fn prune(&self, today: Date) {
        let mut kept = Vec::new();
        for protocol in Protocol::ALL {
            kept.extend(closed_files(&self.target.folder.join(protocol.as_str())));
        }
        kept.retain(|old| self.files.iter().all(|file| file.path != old.path));
        kept.sort_by_key(|old| (old.day, old.number));
        // Files that still grow count with the size they may grow to.
        let growing = self
            .target
            .file_size
            .saturating_mul(self.files.len() as u64);
        let room = self.target.total_size.saturating_sub(growing);
        let mut bytes: u64 = kept.iter().map(|old| old.bytes).sum();
        let days = i64::try_from(self.target.keep.as_secs() / DAY).unwrap_or(i64::MAX);
        for old in kept {
            let age = today.to_julian_day() - old.day.to_julian_day();
            if i64::from(age) < days && bytes <= room {
                continue;
            }
            match fs::remove_file(&old.path) {
                Ok(()) => bytes -= old.bytes,
                Err(error) => {
                    let file = old.path.display();
                    tracing::warn!(%file, %error, "an old log file cannot be removed");
                }
            }
        }
    }
}

impl Write for Folder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (protocol, day) = match self.torn {
            Some(protocol) => (protocol, None),
            None => {
                // Only lines of ours come here; one without its tag would be a mistake, not a disk's fault.
                let protocol = of(bytes).unwrap_or(Protocol::Unknown);
                (protocol, day_of(bytes))
            }
        };
        let room = match day {
            Some(day) => self.prepare(protocol, day, bytes)?,
            None => 0,
        };
        self.gather(bytes, protocol, day, room);
        let found = self.files.iter_mut().find(|file| file.protocol == protocol);
        let growing = found.ok_or(ErrorKind::NotFound)?;
        let count = growing.file.write(&self.run)?;
        growing.bytes += count as u64;
        let written = self.run.get(..count).unwrap_or_default();
        let taken = count + tags_before(written, self.torn.is_some());
        if let Some(last) = written.last() {
            self.torn = (*last != b'\n').then_some(protocol);
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Growing {
    /// Goes on with the day's last file, or begins the next.
    fn open(
        target: &HttpProxyLog,
        protocol: Protocol,
        day: Date,
        first_line: &str,
    ) -> io::Result<Self> {
        let folder = target.folder.join(protocol.as_str());
        make(&folder)?;
        let of_day = closed_files(&folder).filter(|old| old.day == day);
        let mut number = of_day.map(|old| old.number).max().unwrap_or(1);
        loop {
            let path = folder.join(file_name(day, number));
            match Self::open_one(&path, protocol, day, first_line) {
                Ok(file) if file.bytes < target.file_size && file.ends_well()? => return Ok(file),
                Ok(_) => number += 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn open_one(path: &Path, protocol: Protocol, day: Date, first_line: &str) -> io::Result<Self> {
        // Lines name users and addresses: not for everybody on the machine.
        let mut options = OpenOptions::new();
        options.append(true).mode(0o640);
        let mut file = match options.clone().create_new(true).open(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => options.open(path)?,
            opened => opened?,
        };
        if file.metadata()?.len() == 0
            && let Err(error) = file.write_all(heads(first_line).as_bytes())
        {
            // Half a head would be taken for lines.
            let _ = file.set_len(0);
            return Err(error);
        }
        Ok(Self {
            protocol,
            bytes: file.metadata()?.len(),
            file,
            day,
            path: path.to_owned(),
        })
    }

    /// True where no line is half written, as after a power cut.
    fn ends_well(&self) -> io::Result<bool> {
        if !fs::metadata(&self.path)?.is_file() {
            return Ok(true);
        }
        let mut file = File::open(&self.path)?;
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        Ok(last == *b"\n")
    }

    /// True for its own day and for lines of the day before that come late. A clock that was set further
    /// back gets the file of its day.
    fn takes(&self, day: Date) -> bool {
        day == self.day || Some(day) == self.day.previous_day()
    }
}

/// A file of ours that does not grow any more, or grew before we began.
struct Closed {
    path: PathBuf,
    day: Date,
    number: u32,
    bytes: u64,
}

/// The files of ours in a folder; nothing else in it is touched.
fn closed_files(folder: &Path) -> impl Iterator<Item = Closed> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let (day, number) = read_name(entry.file_name().to_str()?)?;
        Some(Closed {
            path: entry.path(),
            day,
            number,
            bytes: entry.metadata().ok()?.len(),
        })
    })
}

fn file_name(day: Date, number: u32) -> String {
    format!("HttpProxy_{}-{number}.LOG", iso(day).replace('-', ""))
}

fn read_name(name: &str) -> Option<(Date, u32)> {
    let (day, number) = name
        .strip_prefix("HttpProxy_")?
        .strip_suffix(".LOG")?
        .split_once('-')?;
    let parts = (day.get(..4)?, day.get(4..6)?, day.get(6..)?);
    let day = read_day(&format!("{}-{}-{}", parts.0, parts.1, parts.2))?;
    let number = number.parse().ok()?;
    // Not ours where we would write it otherwise, as with a leading zero.
    (file_name(day, number) == name).then_some((day, number))
}

fn iso(day: Date) -> String {
    let month = u8::from(day.month());
    format!("{:04}-{month:02}-{:02}", day.year(), day.day())
}

fn read_day(text: &str) -> Option<Date> {
    let (year, rest) = text.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let month: u8 = month.parse().ok()?;
    Date::from_calendar_date(
        year.parse().ok()?,
        month.try_into().ok()?,
        day.parse().ok()?,
    )
    .ok()
}

/// The protocol a line is for.
fn of(line: &[u8]) -> Option<Protocol> {
    Protocol::of_tag(*line.first()?)
}

/// The time a line begins with, behind its tag.
fn date_of(line: &[u8]) -> &str {
    let end = memchr::memchr(b',', line).unwrap_or(line.len());
    let date = line.get(1..end).unwrap_or_default();
    std::str::from_utf8(date).unwrap_or_default()
}

/// The day of it.
fn day_of(line: &[u8]) -> Option<Date> {
    read_day(date_of(line).get(..10)?)
}

/// How many tags stood before these bytes and between them.
fn tags_before(written: &[u8], begins_in_line: bool) -> usize {
    let Some((_, but_last)) = written.split_last() else {
        return 0;
    };
    let first = usize::from(!begins_in_line);
    first + memchr::memchr_iter(b'\n', but_last).count()
}

fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o750).create(folder)
}

/// Bytes written at once.
const RUN_MAX: usize = 64 * 1024;
/// Seconds.
const DAY: u64 = 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn names_read_back_and_others_are_not_ours() {
        let day = read_day("2026-11-21").unwrap();

        assert_eq!(file_name(day, 12), "HttpProxy_20261121-12.LOG");
        assert_eq!(read_name("HttpProxy_20261121-12.LOG"), Some((day, 12)));
        for name in [
            "HttpProxy_20261121-012.LOG",
            "HttpProxy_20261121-1.log",
            "HttpProxy_20261321-1.LOG",
            "HttpProxy_2026112-1.LOG",
            "HttpProxy_2026112100-1.LOG",
            "HttpProxy_20261121-.LOG",
            "HttpProxy_20261121-1.LOG.gz",
            "access.log",
        ] {
            assert_eq!(read_name(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn wherever_a_write_breaks_off_no_byte_is_lost_or_doubled(
            lines in prop::collection::vec(("[01]", "[a-z]{0,20}"), 1..9),
            (cut, at) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
            is_torn in any::<bool>(),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let target = HttpProxyLog {
                folder: folder.path().to_owned(),
                file_size: 1 << 20,
                keep: Duration::from_secs(DAY),
                total_size: 1 << 21,
            };
            let mut sink = Folder::open(&target).unwrap();
            let mut bytes = Vec::new();
            for (tag, text) in &lines {
                bytes.extend(format!("{tag}2026-11-21T00:00:00.000Z,{text}\r\n").into_bytes());
            }
            let protocol = of(&bytes).unwrap();
            if is_torn {
                // The beginning of the first line was written before.
                let first = memchr::memchr(b'\n', &bytes).unwrap();
                bytes.drain(..1 + at.index(first));
                sink.torn = Some(protocol);
            }
            let day = (!is_torn).then(|| day_of(&bytes).unwrap());

            sink.gather(&bytes, protocol, day, 1 << 20);
            let count = 1 + cut.index(sink.run.len());
            let written = &sink.run[..count];
            let taken = count + tags_before(written, is_torn);

            let mut untagged = Vec::new();
            let mut is_in_line = is_torn;
            for byte in &bytes[..taken] {
                if is_in_line {
                    untagged.push(*byte);
                }
                is_in_line = *byte != b'\n';
            }
            prop_assert_eq!(untagged, written);
            let ends_behind_a_tag = !is_torn && taken == 1;
            prop_assert!(!ends_behind_a_tag);
        }
    }
}
