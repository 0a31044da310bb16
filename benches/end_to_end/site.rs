//! What every proxy is given: a certificate, a thousand users, two mailbox servers, a core.

use crate::client::{HOST, User};
use crate::launch::{self, Cores, Process};
use crate::plan::Plan;
use crate::upstream;
use anyhow::{Context as _, Result};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The place of the bench.
#[derive(Debug)]
pub(crate) struct Site {
    /// Ports of the mailbox servers.
    pub(crate) servers: [u16; 2],
    /// Where processes run.
    pub(crate) cores: Cores,
    /// Files a process may open.
    pub(crate) files_max: u64,
    _servers: Process,
    folder: Folder,
}

#[derive(Debug)]
enum Folder {
    Passing(TempDir),
    Kept(PathBuf),
}

impl Site {
    /// Writes the files and starts the mailbox servers.
    pub(crate) fn build(plan: &Plan) -> Result<Self> {
        let files_max = launch::raise_file_limit();
        let cores = Cores::find(plan.boost)?;
        let folder = tempfile::Builder::new()
            .prefix("mapigate-bench-")
            .tempdir()
            .context("temporary folder")?;
        let folder = if plan.keep {
            Folder::Kept(folder.keep())
        } else {
            Folder::Passing(folder)
        };
        let (process, servers) = upstream::start(cores)?;
        let site = Self {
            servers,
            cores,
            files_max,
            _servers: process,
            folder,
        };
        site.write_certificate()?;
        site.write_people(plan.users)?;
        if plan.keep {
            println!("configurations and logs: {}", site.folder().display());
        }
        Ok(site)
    }

    /// A file of the site's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// The folder itself.
    pub(crate) fn folder(&self) -> &Path {
        match &self.folder {
            Folder::Passing(folder) => folder.path(),
            Folder::Kept(folder) => folder,
        }
    }

    /// Writes a file of the site's folder; there are keys among them, so only we may read it.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("{}", path.display()))?;
        Ok(path)
    }

    /// How many polls the limits of open files allow: each takes two files of a proxy.
    pub(crate) fn polls_max(&self) -> u32 {
        u32::try_from(self.files_max.saturating_sub(1000) / 2).unwrap_or(u32::MAX)
    }

    /// ECDSA P-256, as most sites have today.
    fn write_certificate(&self) -> Result<()> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let certificate =
            rcgen::CertificateParams::new(vec![HOST.to_owned()])?.self_signed(&key)?;
        self.write("site.pem", &certificate.pem())?;
        self.write("site.key", &key.serialize_pem())?;
        // HAProxy wants both in one file.
        self.write("site-both.pem", &(certificate.pem() + &key.serialize_pem()))?;
        Ok(())
    }

    /// Passwords, mailboxes and the key of the route cookie, for mapigate.
    fn write_people(&self, users: usize) -> Result<()> {
        let mut passwords = String::new();
        let mut mailboxes = String::from("mailboxes:\n");
        for user in (0..users).map(User) {
            // The cheapest bcrypt there is: verifying is not what this bench measures.
            writeln!(
                passwords,
                "{}:{}",
                user.login(),
                bcrypt::hash(user.password(), 4)?
            )?;
            writeln!(
                mailboxes,
                "  - {{ id: {}@contoso.test, database: DB{}, logins: [{}] }}",
                user.mailbox(),
                user.0 % 2 + 1,
                user.login()
            )?;
        }
        self.write("users.htpasswd", &passwords)?;
        self.write("mailboxes.yaml", &mailboxes)?;
        Ok(())
    }
}

/// An address nobody listens on at the moment.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
