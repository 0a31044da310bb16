//! What is written where, and whether it can be.

use super::super::problem::{Complaint, quoted};
use super::super::section::Section;
use super::super::settings::{AccessLog, HttpProxyLog, Logging};
use rustix::fs::{Access, access};
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

pub(super) fn logging(top: &Section<'_>) -> Logging {
    let section = top.section("logging");
    let access = match section.text("access").as_deref() {
        None | Some("stdout") => AccessLog::Stdout,
        Some("off") => AccessLog::Off,
        Some(path) => AccessLog::File(access_file(&section, path)),
    };
    Logging {
        level: section.text("level").unwrap_or_default(),
        json: section.text("format").as_deref() == Some("json"),
        access,
        http_proxy: section
            .written_section("http_proxy")
            .and_then(|section| http_proxy(&section)),
        access_buffer: section.amount("access_buffer"),
    }
}

/// The file need not exist, but it must be possible to make it.
fn access_file(section: &Section<'_>, path: &str) -> PathBuf {
    let file = section.source.resolve(path);
    let folder = parent(&file);
    let shown = quoted(&file.display().to_string());
    let complaint = if file.is_dir() {
        Some(Complaint::new(
            format!("{shown} is a folder"),
            "name a file in it",
        ))
    } else if !folder.is_dir() {
        Some(no_folder(&folder))
    } else if is_pipe(&file) {
        // Not opened: that would wait for a reader, and his next word would be that we have left.
        writable(&file, Access::WRITE_OK)
    } else if file.exists() {
        let opened = std::fs::OpenOptions::new().append(true).open(&file);
        opened.err().map(|cause| not_writable(&shown, cause.kind()))
    } else {
        None
    };
    if let Some(complaint) = complaint {
        section.desk.error(&section.place("access"), complaint);
    }
    file
}

fn http_proxy(section: &Section<'_>) -> Option<HttpProxyLog> {
    let (file_size, total_size) = (section.number("file_size"), section.number("total_size"));
    if section.is_sound("file_size") && section.is_sound("total_size") && total_size / 2 < file_size
    {
        let complaint = Complaint::new(
            "`total_size` has room for fewer than two files of `file_size`",
            "raise it, or lower `file_size`",
        );
        section.desk.error(&section.place("total_size"), complaint);
    }
    Some(HttpProxyLog {
        folder: log_folder(section)?,
        file_size,
        keep: section.duration("keep"),
        total_size,
    })
}

/// The folder need not exist, but it must be possible to make it, and files in it.
fn log_folder(section: &Section<'_>) -> Option<PathBuf> {
    let folder = section.file("folder")?;
    let parent = parent(&folder);
    let shown = quoted(&folder.display().to_string());
    let complaint = if folder.is_dir() {
        writable(&folder, Access::WRITE_OK | Access::EXEC_OK)
    } else if folder.exists() {
        let cure = "name a folder, or a path where one can be made";
        Some(Complaint::new(format!("{shown} is no folder"), cure))
    } else if !parent.is_dir() {
        Some(no_folder(&parent))
    } else {
        None
    };
    if let Some(complaint) = complaint {
        section.desk.error(&section.place("folder"), complaint);
    }
    Some(folder)
}

fn is_pipe(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|facts| facts.file_type().is_fifo())
}

/// What is wrong where we may not use it so.
fn writable(path: &Path, how: Access) -> Option<Complaint> {
    let cause = access(path, how).err()?;
    let shown = quoted(&path.display().to_string());
    Some(not_writable(&shown, io::Error::from(cause).kind()))
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn no_folder(folder: &Path) -> Complaint {
    let folder = quoted(&folder.display().to_string());
    Complaint::new(
        format!("there is no folder {folder}"),
        "make the folder, and give it to the user mapigate runs as",
    )
}

fn not_writable(shown: &str, cause: io::ErrorKind) -> Complaint {
    Complaint::new(
        format!("{shown} cannot be written ({cause})"),
        "let the user mapigate runs as write it",
    )
}
