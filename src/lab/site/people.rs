//! Who is at a site: users, mailboxes, and the key that seals what they are given.

use super::{legacy_dn, mailbox, user};
use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes the passwords and the mailboxes of users 1 and up, whose mailboxes are in each database in turn.
///
/// # Errors
/// A file cannot be written.
pub fn write(folder: &Path, users: usize, password: &str, databases: &[&str]) -> Result<()> {
    // One hash for all, of the least cost there is: a lab measures the door, not the hash.
    let hash = bcrypt::hash(password, 4)?;
    let (mut passwords, mut mailboxes) = (String::new(), String::from("mailboxes:\n"));
    for (number, database) in (1..=users).zip(databases.iter().cycle()) {
        let name = user(number);
        writeln!(passwords, "{name}:{hash}")?;
        writeln!(
            mailboxes,
            "  - {{ id: {}, addresses: [{name}], logins: [user{number}], database: {database}, display_name: User {number}, legacy_dn: '{}' }}",
            mailbox(number),
            legacy_dn(number)
        )?;
    }
    fs::write(folder.join("users.htpasswd"), passwords)?;
    fs::write(folder.join("mailboxes.yaml"), mailboxes)?;
    Ok(())
}

/// Writes a key that seals route cookies, where there is none.
///
/// # Errors
/// The file cannot be written.
pub fn write_keys(folder: &Path) -> Result<()> {
    let path = folder.join("cookie.keys");
    if path.exists() {
        return Ok(());
    }
    let mut key = [0; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_unspecified| anyhow::anyhow!("no random bytes"))?;
    let mut file = fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&path)?;
    std::io::Write::write_all(
        &mut file,
        format!("1 {}\n", STANDARD.encode(key)).as_bytes(),
    )?;
    Ok(())
}
