//! The names things go by.
//!
//! Different things get different types, so that mixing them up does not compile. All are cheap to
//! clone: a shared string or a number.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the name as it is written.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The name as it is written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from).map(Self::new)
            }
        }
    };
}

name! {
    /// A mailbox database, as the site calls it: `DB07`.
    DatabaseName
}
name! {
    /// A mailbox server, as the site calls it: `MBX1`.
    ServerName
}
name! {
    /// Who somebody is after authentication, in one canonical spelling (lower case): `user1@contoso.test`.
    UserName
}
name! {
    /// A mailbox, as `MailboxId` in a MAPI URL names it: `<guid>@<domain>`, lower case.
    MailboxId
}

/// True for a character that has no place in a name somebody reads: it moves a cursor, turns the text around
/// it, or breaks the line for some readers.
pub fn disturbs(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The network that counts as one source of traffic: an IPv4 address, and of an IPv6 address the first 64 bits, which is
/// what one household or one machine in a cloud has at least. RFC 6177. Whoever counts by whole IPv6 addresses counts nobody.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) & (u128::MAX << 64)).into(),
        v4 => v4,
    }
}

/// The same of an address as it is written; what is none stays as it is.
pub fn network_of(address: &str) -> String {
    match address.parse::<IpAddr>() {
        Ok(address) => network(address).to_string(),
        Err(_none) => address.to_owned(),
    }
}

/// Counts the worlds a process has lived in: each accepted configuration is the next generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Generation(pub u64);

/// Counts the changes of the placement map. A higher epoch is newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Epoch(pub u64);

/// Our own number for one request; printed short enough to be read over the telephone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub u64);

impl RequestId {
    /// Letters and digits that nobody mistakes for each other (Crockford's base 32).
    const ALPHABET: &'static [u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    /// Characters of the printed form: 40 bits.
    pub const LENGTH: usize = 8;

    /// The printed form, without an allocation.
    pub fn letters(self) -> [u8; Self::LENGTH] {
        let mut letters = [b'0'; Self::LENGTH];
        for (position, letter) in letters.iter_mut().rev().enumerate() {
            let index = (self.0 >> (5 * position)) & 31;
            *letter = Self::ALPHABET.get(index as usize).copied().unwrap_or(b'0');
        }
        letters
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.letters()).unwrap_or("?"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_any_script_disturb_nobody_and_marks_of_direction_do() {
        assert!(!"aß語é <\"'".chars().any(disturbs));
        for c in [
            '\0', '\x1b', '\n', '\u{85}', '\u{202e}', '\u{2067}', '\u{feff}',
        ] {
            assert!(disturbs(c), "{c:?}");
        }
    }

    #[test]
    fn sixty_four_bits_of_ipv6_are_one_network_and_a_mapped_address_is_its_own() {
        let of = |text: &str| network(text.parse().unwrap());

        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[test]
    fn request_ids_print_as_eight_speakable_letters() {
        assert_eq!(RequestId(0).to_string(), "00000000");
        assert_eq!(RequestId(31).to_string(), "0000000z");
        assert_eq!(RequestId(u64::MAX).to_string(), "zzzzzzzz");
    }
}
