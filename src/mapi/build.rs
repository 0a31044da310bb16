//! Which build of a mailbox server it is, and so what it speaks.

use super::Flavour;
use std::fmt;

/// What a mailbox server speaks with clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capable {
    /// MAPI over HTTP: Exchange 2013 SP1 and later, gromox.
    pub mapi_http: bool,
    /// Outlook Anywhere (RPC over HTTP).
    pub outlook_anywhere: bool,
    /// RPC over TCP: Exchange before 2013.
    pub rpc: bool,
}

impl Capable {
    /// What is known of a server: its build where the site has told it, and the words of `capability` where
    /// they are `written`, which go before.
    pub fn of(
        flavour: Flavour,
        build: Option<Build>,
        written: Option<&dyn Fn(&str) -> bool>,
    ) -> Self {
        let build = build.filter(|_| flavour == Flavour::Exchange);
        Self {
            mapi_http: match written {
                Some(written) => written("mapi_http"),
                None => build.is_none_or(Build::speaks_mapi_http),
            },
            outlook_anywhere: written.is_none_or(|written| written("outlook_anywhere")),
            rpc: build.is_some_and(Build::speaks_rpc),
        }
    }
}

/// A version as Exchange numbers its builds: `15.0.847.32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Build(pub [u16; 4]);

impl Build {
    /// Exchange 2013, the first without RPC over TCP for clients.
    pub const EXCHANGE_2013: Self = Self([15, 0, 0, 0]);
    /// Exchange 2013 Service Pack 1, the first that speaks MAPI over HTTP.
    pub const EXCHANGE_2013_SP1: Self = Self([15, 0, 847, 0]);

    /// Reads `15.0.847.32`; missing parts are 0. `None` for what is no version.
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = [0; 4];
        let mut words = text.split('.');
        for (position, part) in parts.iter_mut().enumerate() {
            match words.next() {
                Some(word) if word.len() <= 5 && word.bytes().all(|c| c.is_ascii_digit()) => {
                    *part = word.parse().ok()?;
                }
                None if position >= 2 => break,
                _ => return None,
            }
        }
        words.next().is_none().then_some(Self(parts))
    }

    /// True where a server of this build speaks MAPI over HTTP.
    pub fn speaks_mapi_http(self) -> bool {
        self >= Self::EXCHANGE_2013_SP1
    }

    /// True where its clients may connect by RPC over TCP, and not by HTTP alone.
    pub fn speaks_rpc(self) -> bool {
        self < Self::EXCHANGE_2013
    }

    /// As `ServerVersion` in Autodiscover has it: version, and build with its top bit set.
    /// `[MS-OXDSCLI] 2.2.4.1.1.2.6.36`
    pub fn to_hex(self) -> String {
        let Self([major, minor, build, _]) = self;
        let packed = 0x7000_8000u32
            | (u32::from(major) & 0x3f) << 22
            | (u32::from(minor) & 0x3f) << 16
            | (u32::from(build) & 0x7fff);
        format!("{packed:08X}")
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([a, b, c, d]) = self;
        write!(f, "{a}.{b}.{c}.{d}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_two_to_four_numbers() {
        assert_eq!(Build::read("15.0.847.32"), Some(Build([15, 0, 847, 32])));
        assert_eq!(Build::read("15.2"), Some(Build([15, 2, 0, 0])));
        for text in [
            "",
            "15",
            "15.",
            "15.0.847.32.1",
            "15.0.x",
            "-1.0",
            "15.99999",
            "2013 SP1",
        ] {
            assert_eq!(Build::read(text), None, "{text:?}");
        }
    }

    #[test]
    fn mapi_over_http_begins_with_2013_sp1_and_rpc_ends_with_2013() {
        for (text, mapi_http, rpc) in [
            ("8.3.83.6", false, true),
            ("14.3.123.4", false, true),
            ("15.0.516.32", false, false),
            ("15.0.847.32", true, false),
            ("15.1.225.42", true, false),
            ("15.2.1544.4", true, false),
        ] {
            let build = Build::read(text).unwrap();
            assert_eq!(
                (build.speaks_mapi_http(), build.speaks_rpc()),
                (mapi_http, rpc),
                "{text}"
            );
        }
    }

    #[test]
    fn clients_read_a_build_in_eight_hexadecimal_digits() {
        // What servers of these builds write.
        for (text, hex) in [
            ("15.0.847.32", "73C0834F"),
            ("15.1.2507.6", "73C189CB"),
            ("14.3.123.4", "7383807B"),
        ] {
            assert_eq!(Build::read(text).unwrap().to_hex(), hex);
        }
    }
}
