//! Keyed marks: 16 bytes that stand for a name, a GUID or a DN of any length.
//!
//! The key is new with each process, and nobody outside can choose two names with one mark.

use siphasher::sip128::SipHasher24;
use std::hash::{Hash, Hasher};

/// The mark of something asked for, or of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark(u128);

impl Mark {
    /// A number as random as the mark, and independent of its hash.
    pub(super) fn lot(self) -> usize {
        usize::try_from(self.0 >> 96).unwrap_or(0)
    }
}

/// What is marked; the same bytes as something else get another mark.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of {
    User,
    Sid,
    Mailbox,
    Object,
    Dn,
}

/// Makes marks.
#[derive(Clone)]
pub(super) struct Marker([u8; 16]);

impl Marker {
    /// With a key of 16 random bytes.
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self(key)
    }

    pub(super) fn mark(&self, of: Of, bytes: &[u8]) -> Mark {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write_u8(of as u8);
        hasher.write(bytes);
        Mark(siphasher::sip128::Hasher128::finish128(&hasher).as_u128())
    }

    /// The mark of a DN, whose letters count without their case. RFC 4517 4.2.15
    pub(super) fn dn(&self, dn: &str) -> Mark {
        self.mark(Of::Dn, dn.to_lowercase().as_bytes())
    }
}

impl std::fmt::Debug for Marker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Marker(…)")
    }
}

impl Hash for Mark {
    fn hash<H: Hasher>(&self, state: &mut H) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "half of a random number is one"
        )]
        state.write_u64(self.0 as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_in_another_role_have_another_mark() {
        let marker = Marker::new([7; 16]);

        let user = marker.mark(Of::User, b"user1");
        assert_eq!(user, marker.mark(Of::User, b"user1"));
        assert_ne!(user, marker.mark(Of::Sid, b"user1"));
        assert_ne!(user, Marker::new([8; 16]).mark(Of::User, b"user1"));
        assert_eq!(marker.dn("CN=A,DC=b"), marker.dn("cn=a,dc=B"));
    }
}
