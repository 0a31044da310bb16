//! Places keys in tables by their own bytes: for keys that are keyed digests, as random as a hash of them.

use std::hash::{BuildHasherDefault, Hasher};

/// Builds [`OwnBytes`].
pub type ByOwnBytes = BuildHasherDefault<OwnBytes>;

/// Takes the bytes it is given for the hash. Only for keys that nobody outside can choose: whoever can,
/// fills one bucket.
#[derive(Debug, Default)]
pub struct OwnBytes(u64);

impl Hasher for OwnBytes {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 ^= number;
    }

    fn write_u128(&mut self, digest: u128) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "half of a random number is one"
        )]
        let half = digest as u64;
        self.0 ^= half;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    #[test]
    fn digests_keep_apart() {
        let by = ByOwnBytes::default();
        let numbers = (0..1000_u128).map(|number| by.hash_one(number << 7));
        assert_eq!(numbers.collect::<HashSet<_>>().len(), 1000);
        let last_bytes = (0..=255_u8).map(|last| {
            let mut digest = [7; 32];
            digest[31] = last;
            by.hash_one(digest)
        });
        assert_eq!(last_bytes.collect::<HashSet<_>>().len(), 256);
    }
}
