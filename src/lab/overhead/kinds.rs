//! What bytes on the wire are there for, and what they cost beside the payload.

use serde::Serialize;
use std::ops::{Add, AddAssign};

/// Plaintext that one TLS record holds at most. `[RFC8446] 5.1`
const RECORD_MAX: u64 = 1 << 14;
/// Bytes TLS 1.3 adds to a record: head 5, content type 1, tag 16. `[RFC8446] 5.2`
pub const RECORD_BYTES: u64 = 22;

/// Bytes of one direction by what they are there for. Every byte is in one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Kinds {
    /// Request lines, status lines and headers, line ends included, but for the next two.
    pub lines: u64,
    /// The lines `Authorization`.
    pub authorization: u64,
    /// The lines `Cookie` and `Set-Cookie`.
    pub cookies: u64,
    /// MAPI over HTTP: chunk sizes, meta tags, headers behind DONE. RPC over HTTP: heads of fragments, binds, RTS
    /// PDUs, signatures.
    pub framing: u64,
    /// Binary fields around the payload: flags, sizes, handles, alignment.
    pub fields: u64,
    /// ROP buffers: the same bytes in both protocols.
    pub payload: u64,
    /// What TLS adds to records that carry any of these.
    pub tls: u64,
}

impl Kinds {
    /// All of them: what is on the wire.
    pub fn wire(&self) -> u64 {
        self.plain() + self.tls
    }

    /// All of them inside of TLS.
    pub fn plain(&self) -> u64 {
        self.headers() + self.framing + self.fields + self.payload
    }

    /// HTTP heads.
    pub fn headers(&self) -> u64 {
        self.lines + self.authorization + self.cookies
    }

    /// Everything between heads and payload, and TLS.
    pub fn around(&self) -> u64 {
        self.framing + self.fields + self.tls
    }

    /// Bytes on the wire beside the payload, in percent of it; 0 without payload.
    #[expect(
        clippy::cast_precision_loss,
        reason = "bytes of minutes of work are far below the 2^53 that a double counts"
    )]
    pub fn overhead_percent(&self) -> f64 {
        match self.payload {
            0 => 0.0,
            payload => (self.wire() - payload) as f64 * 100.0 / payload as f64,
        }
    }
}

impl Add for Kinds {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            lines: self.lines + other.lines,
            authorization: self.authorization + other.authorization,
            cookies: self.cookies + other.cookies,
            framing: self.framing + other.framing,
            fields: self.fields + other.fields,
            payload: self.payload + other.payload,
            tls: self.tls + other.tls,
        }
    }
}

impl AddAssign for Kinds {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// What was said for some work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// By the client.
    pub sent: Kinds,
    /// To the client.
    pub received: Kinds,
    /// HTTP requests begun.
    pub requests: u64,
    /// Of each request that was sent as a whole: bytes in all, and of its line `Authorization`.
    pub sizes: Vec<(u64, u64)>,
}

impl Said {
    /// Both directions.
    pub fn total(&self) -> Kinds {
        self.sent + self.received
    }

    /// The same work with lines `Authorization` of another length: of so many bytes on every request, or on none.
    /// A request is written at once, so its records follow from its length.
    #[must_use]
    pub fn with_authorization(&self, line: u64) -> Self {
        let mut said = self.clone();
        for (bytes, old) in &mut said.sizes {
            let new = *bytes - *old + line;
            said.sent.authorization = said.sent.authorization - *old + line;
            said.sent.tls = said.sent.tls + record_bytes(new) - record_bytes(*bytes);
            (*bytes, *old) = (new, line);
        }
        said
    }
}

impl Said {
    /// The same work without a header of so many bytes that every request has among its lines.
    #[must_use]
    pub fn without(&self, line: u64) -> Self {
        let mut said = self.clone();
        for (bytes, _) in &mut said.sizes {
            said.sent.lines -= line;
            said.sent.tls = said.sent.tls + record_bytes(*bytes - line) - record_bytes(*bytes);
            *bytes -= line;
        }
        said
    }
}

/// Bytes TLS adds to plaintext that is written at once.
pub fn record_bytes(plain: u64) -> u64 {
    plain.div_ceil(RECORD_MAX) * RECORD_BYTES
}

/// How much more `this` is than `that`, in percent; 0 where that is nothing.
#[expect(
    clippy::cast_precision_loss,
    reason = "bytes and nanoseconds of minutes are far below the 2^53 that a double counts"
)]
pub fn more_percent(this: u64, that: u64) -> f64 {
    match that {
        0 => 0.0,
        that => (this as f64 / that as f64 - 1.0) * 100.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> Kinds {
        Kinds {
            lines: 500,
            authorization: 60,
            cookies: 340,
            framing: 50,
            fields: 28,
            payload: 2_000,
            tls: 22,
        }
    }

    #[test]
    fn overhead_is_everything_but_payload() {
        // 500 + 60 + 340 + 50 + 28 + 22 = 1000 bytes beside 2000.
        assert_eq!(kinds().wire(), 3_000);
        assert_eq!(kinds().headers(), 900);
        assert_eq!(kinds().around(), 100);
        assert!((kinds().overhead_percent() - 50.0).abs() < 1e-9);
        assert!(Kinds::default().overhead_percent().abs() < 1e-9);
        assert!((more_percent(3_036, 3_000) - 1.2).abs() < 1e-9);
    }

    #[test]
    fn a_longer_credential_adds_its_length_to_each_request_and_a_record_where_it_reaches_one() {
        let said = Said {
            sent: kinds(),
            received: kinds(),
            requests: 2,
            sizes: vec![(1_000, 30), (16_000, 30)],
        };

        let bearer = said.with_authorization(1_800);

        // Each request grows by 1770; the second to 17,770 bytes, which are two records.
        assert_eq!(bearer.sent.authorization, 2 * 1_800);
        assert_eq!(bearer.sent.tls, 22 + 22);
        assert_eq!(bearer.total().wire(), said.total().wire() + 2 * 1_770 + 22);
        assert_eq!(bearer.received, said.received);
        assert_eq!(bearer.with_authorization(30), said);
        // A header of the same length beside the old line weighs the same.
        let mut padded = bearer;
        padded.sent.authorization = 2 * 30;
        padded.sent.lines += 2 * 1_770;
        padded.sizes = vec![(2_770, 30), (17_770, 30)];
        assert_eq!(padded.without(1_770), said);
    }

    #[test]
    fn records_hold_sixteen_kibibytes() {
        assert_eq!(record_bytes(0), 0);
        assert_eq!(record_bytes(1), 22);
        assert_eq!(record_bytes(16_384), 22);
        assert_eq!(record_bytes(16_385), 44);
    }
}
