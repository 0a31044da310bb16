//! `mapigate assertion-helper`: tells a mailbox server, line by line, whom our assertions name.
//!
//! gromox starts such a helper for a connection (`gss_program`) and speaks as Samba's `ntlm_auth` is spoken
//! to: it writes `YR` and the token of `Authorization: Negotiate` in base64, and reads `AF` and the user's
//! name, or `NA`.

use crate::auth::handoff::assertion::Verifier;
use clap::Args;
use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

/// What the helper must know.
#[derive(Debug, Args)]
pub struct HelperArgs {
    /// PEM file with the public keys of our assertions, as `openssl pkey -pubout` writes them
    #[arg(long, value_name = "FILE")]
    keys: PathBuf,
    /// The server's name under `servers` of mapigate's configuration
    #[arg(long, value_name = "NAME")]
    server: String,
    /// `backend_identity.assertion.issuer`
    #[arg(long, default_value = "mapigate")]
    issuer: String,
}

/// Answers until its input ends.
///
/// # Errors
/// Its output was closed.
pub fn run(args: &HelperArgs) -> anyhow::Result<ExitCode> {
    answer(args, io::stdin().lock(), io::stdout().lock(), now)?;
    Ok(ExitCode::SUCCESS)
}

fn answer(
    args: &HelperArgs,
    from: impl BufRead,
    mut to: impl Write,
    now: impl Fn() -> SystemTime,
) -> io::Result<()> {
    for line in from.lines() {
        // Read anew each time: keys may be added while a connection lives.
        let told = std::fs::read(&args.keys)
            .map_err(|error| error.to_string())
            .and_then(|pem| {
                let verifier = Verifier::new(&pem, &args.server, &args.issuer)?;
                let line = line.map_err(|error| error.to_string())?;
                let token = line.strip_prefix("YR ").ok_or("not a request")?;
                let user = verifier.user_of_base64(token.trim(), now());
                user.map_err(|why| why.to_string())
            });
        match told {
            Ok(user) => writeln!(to, "AF {user}")?,
            Err(why) => writeln!(to, "NA {why}")?,
        }
        to.flush()?;
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a command asks the clock for the rooms below"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_assertion_is_answered_na_and_the_helper_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let args = HelperArgs {
            keys: folder.path().join("nothing.pub"),
            server: "MBX1".to_owned(),
            issuer: "mapigate".to_owned(),
        };
        let mut said = Vec::new();

        answer(&args, &b"YR x\nKK y\n"[..], &mut said, || {
            SystemTime::UNIX_EPOCH
        })
        .unwrap();

        let said = String::from_utf8(said).unwrap();
        assert_eq!(said.lines().count(), 2);
        assert!(said.lines().all(|line| line.starts_with("NA ")), "{said}");
    }
}
