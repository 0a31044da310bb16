//! `mapigate revoke`: a running process forgets what it believes, and whom it suspects.

use super::ask::{AdminAddress, ask};
use super::say::say;
use std::fmt::Write as _;
use std::process::ExitCode;

/// What `mapigate revoke` is asked.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct RevokeArgs {
    /// Login name of the user; with --all, nobody's
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub user: Option<String>,

    /// Everybody
    #[arg(long)]
    pub all: bool,

    #[command(flatten)]
    admin: AdminAddress,
}

const EXIT_CODES: &str = "\
The next request of the user is verified anew, as after a password was changed or an account disabled.
Wrong passwords that the lockout guard has counted are forgotten: a right one is looked at again.

Exit codes: 0 done, 1 nothing is known of this user, 2 no answer.";

/// Asks, and prints the answer.
#[expect(clippy::print_stderr, reason = "a command speaks to its caller")]
pub fn run(args: &RevokeArgs) -> ExitCode {
    let path = match &args.user {
        Some(user) => format!("/revoke?user={}", escaped(user)),
        None => "/revoke".to_owned(),
    };
    match ask(args.admin.address, "POST", &path) {
        Ok((200, words)) => {
            say(words.trim_end());
            ExitCode::SUCCESS
        }
        Ok((status, words)) => {
            eprintln!("mapigate: {}", words.trim_end());
            ExitCode::from(if matches!(status, 400 | 404) { 1 } else { 2 })
        }
        Err(error) => {
            eprintln!("mapigate: no answer from {}: {error}", args.admin);
            ExitCode::from(2)
        }
    }
}

/// A name as it may stand in a query.
fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'@' => {
                text.push(char::from(byte));
            }
            _ => {
                let _always = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_can_be_asked_about() {
        assert_eq!(escaped("user1@contoso.test"), "user1@contoso.test");
        assert_eq!(
            escaped(r"CONTOSO\M\u{fc}ller &c"),
            "CONTOSO%5CM%5Cu%7Bfc%7Dller%20%26c"
        );
        assert_eq!(escaped("M\u{fc}ller"), "M%C3%BCller");
    }
}
