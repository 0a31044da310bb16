//! `mapigate lab files`: what a site to try must not share with another.

use anyhow::{Context as _, ensure};
use clap::Args;
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::lab::authority::Authority;
use crate::lab::site::people;

#[derive(Debug, Args)]
pub(super) struct FilesArgs {
    /// Where to write them: ca.pem, cookie.keys, users.htpasswd, mailboxes.yaml and a NAME.pem with its NAME.key
    /// for each certificate. What is there already is replaced, but for cookie.keys.
    #[arg(long)]
    folder: PathBuf,
    /// A server's certificate: mail=mail.contoso.test,localhost, or mbx1 for one whose file is called as its host.
    #[arg(long = "certificate", value_name = "NAME=HOST,...")]
    certificates: Vec<String>,
    /// How many users, user1@contoso.test and up.
    #[arg(long, default_value_t = 20)]
    users: usize,
    /// The password of all of them.
    #[arg(long, env = "MAPIGATE_LAB_PASSWORD", hide_env_values = true)]
    password: String,
    /// Databases that their mailboxes are in, in turn.
    #[arg(long, value_delimiter = ',', default_value = "DB07")]
    databases: Vec<String>,
}

pub(super) fn write(args: &FilesArgs) -> anyhow::Result<ExitCode> {
    let folder = &args.folder;
    fs::create_dir_all(folder).with_context(|| format!("--folder {}", folder.display()))?;
    let authority = Authority::new("lab")?;
    authority.write(folder)?;
    for certificate in &args.certificates {
        let (name, hosts) = certificate
            .split_once('=')
            .unwrap_or((certificate, certificate));
        let is_file_name = !name.is_empty() && !name.contains('/') && !name.starts_with('.');
        ensure!(is_file_name, "--certificate: {name:?} is no name of a file");
        let hosts: Vec<&str> = hosts.split(',').collect();
        let credential = authority
            .server(&hosts)
            .with_context(|| format!("--certificate {certificate}"))?;
        credential.write(folder, name)?;
    }
    let databases: Vec<&str> = args.databases.iter().map(String::as_str).collect();
    people::write(folder, args.users, &args.password, &databases)?;
    people::write_keys(folder)?;
    writeln!(
        io::stdout(),
        "written to {}: certificates good for 30 days, trusted by nobody but who is shown ca.pem",
        folder.display()
    )?;
    Ok(ExitCode::SUCCESS)
}
