//! What goes wrong in a handshake, for the log, for whoever can cure it, and for the client.

use super::super::Denied;
use libgssapi::error::{Error, MajorFlags};
use std::time::{Duration, Instant};

/// Kinds of trouble. The library tells most of them apart by its text alone: its numbers are given out as it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    Replay,
    Skew,
    Expired,
    NoKey,
    WrongKey,
    Bindings,
    Unreadable,
    Winbind,
    Away,
    Password,
    Nonsense,
    Other,
}

impl Trouble {
    /// `is_ntlm`: winbind was asked and not a key.
    pub(super) fn of(error: &Error, is_ntlm: bool) -> Self {
        Self::read(error.major, &error.to_string(), is_ntlm)
    }

    fn read(major: MajorFlags, text: &str, is_ntlm: bool) -> Self {
        // Codes of routines are numbers and not bits. RFC 2744 3.9.1
        let routine = major.bits() & ROUTINE;
        let is = |flag: MajorFlags| routine == flag.bits();
        let says = |words: &str| text.contains(words);
        if says("ermission denied") && is_ntlm {
            Self::Password
        } else if says("ermission denied") {
            Self::Unreadable
        } else if is(MajorFlags::GSS_S_BAD_BINDINGS) || says("channel bindings") {
            Self::Bindings
        } else if says("replay cache") || says("Replay cache") || says("rcache") {
            Self::Unreadable
        } else if says("replay") || says("Replay") {
            Self::Replay
        } else if says("lock skew") {
            Self::Skew
        } else if says("icket expired") || is(MajorFlags::GSS_S_CREDENTIALS_EXPIRED) {
            Self::Expired
        } else if says("ecrypt integrity check failed") || says("not decrypt") {
            Self::WrongKey
        } else if says("key table") || says("keytab") || says("Wrong principal") {
            Self::NoKey
        } else if says("inbind") || says("WBC_") {
            Self::Winbind
        } else if is(MajorFlags::GSS_S_DEFECTIVE_CREDENTIAL) || is(MajorFlags::GSS_S_UNAUTHORIZED) {
            Self::Password
        } else if is(MajorFlags::GSS_S_DEFECTIVE_TOKEN)
            || is(MajorFlags::GSS_S_BAD_MECH)
            || is(MajorFlags::GSS_S_BAD_MIC)
        {
            Self::Nonsense
        } else {
            Self::Other
        }
    }

    /// What an administrator can do, where that is anything.
    pub(super) fn cure(self) -> Option<&'static str> {
        Some(match self {
            Self::Skew => "set the clocks of this machine and the clients by the same source",
            Self::NoKey => {
                "register the name that clients ask for (setspn) on the account of the keytab, and export it again"
            }
            Self::WrongKey => {
                "the account's password was changed after the keytab was made: export it again"
            }
            Self::Unreadable => {
                "let mapigate read the keytab and write the replay cache; see auth.negotiate"
            }
            Self::Winbind => "see that winbindd runs and that this machine is joined (wbinfo -t)",
            Self::Away => {
                "see that a domain controller can be reached from this machine (wbinfo --ping-dc)"
            }
            Self::Replay
            | Self::Expired
            | Self::Bindings
            | Self::Password
            | Self::Nonsense
            | Self::Other => return None,
        })
    }

    pub(super) fn denied(self) -> Denied {
        let why = match self {
            Self::Replay => "ticket was shown before",
            Self::Skew => "clocks differ by more than Kerberos allows",
            Self::Expired => "ticket has expired",
            Self::NoKey => "ticket is for a name or key that is not in the keytab",
            Self::WrongKey => "ticket cannot be decrypted with the key in the keytab",
            Self::Bindings => "handshake was bound to another server's certificate",
            Self::Password => "wrong name or password",
            Self::Nonsense => "malformed handshake",
            Self::Other => "handshake failed",
            Self::Unreadable => return Denied::Busy("keytab or replay cache cannot be opened"),
            Self::Winbind => return Denied::Busy("winbind does not answer"),
            Self::Away => return Denied::Busy("winbind reaches no domain controller"),
        };
        Denied::Credentials(why)
    }
}

/// When what was told last, so that nobody can flood the log.
#[derive(Debug, Default)]
pub(super) struct Words(Vec<(Trouble, Instant)>);

impl Words {
    /// True where this trouble was not told of late.
    pub(super) fn are_due(&mut self, trouble: Trouble, now: Instant) -> bool {
        let known = self.0.iter_mut().find(|(known, _)| *known == trouble);
        match known {
            Some((_, told)) if now.saturating_duration_since(*told) < QUIET => false,
            Some((_, told)) => {
                *told = now;
                true
            }
            None => {
                self.0.push((trouble, now));
                true
            }
        }
    }
}

/// One kind of trouble is told once in this time.
const QUIET: Duration = Duration::from_secs(60);
/// Where a routine's code is in a status. RFC 2744 3.9.1
const ROUTINE: u32 = 0xff << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_library_says_is_understood() {
        for (text, trouble) in [
            (
                "Unspecified GSS failure. (Request is a replay)",
                Trouble::Replay,
            ),
            (
                "Unspecified GSS failure. (Clock skew too great)",
                Trouble::Skew,
            ),
            (
                "Unspecified GSS failure. (Ticket expired)",
                Trouble::Expired,
            ),
            (
                "Unspecified GSS failure. (No key table entry found matching HTTP/other)",
                Trouble::NoKey,
            ),
            ("(Decrypt integrity check failed)", Trouble::WrongKey),
            (
                "(Incorrect channel bindings were supplied)",
                Trouble::Bindings,
            ),
            ("(Can't open/find replay cache)", Trouble::Unreadable),
        ] {
            let read = Trouble::read(MajorFlags::GSS_S_FAILURE, text, false);
            assert_eq!(read, trouble, "{text}");
        }
        let denied = "Unspecified GSS failure. (Permission denied)";
        let read = |is_ntlm| Trouble::read(MajorFlags::GSS_S_FAILURE, denied, is_ntlm);
        assert_eq!(read(true), Trouble::Password);
        assert_eq!(read(false), Trouble::Unreadable);
    }

    #[test]
    fn one_trouble_is_told_once_a_minute() {
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let now = Instant::now();
        let mut words = Words::default();

        assert!(words.are_due(Trouble::Skew, now));
        assert!(!words.are_due(Trouble::Skew, now + QUIET / 2));
        assert!(words.are_due(Trouble::NoKey, now + QUIET / 2));
        assert!(words.are_due(Trouble::Skew, now + QUIET));
    }
}
