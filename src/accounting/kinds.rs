//! What the bytes of a request are.

/// A kind of bytes. Together they are all bytes of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Request or status line, with its line end.
    Line,
    /// Header fields that are none of the next two, and the empty line behind them.
    Headers,
    /// `Cookie` and `Set-Cookie` lines.
    Cookies,
    /// `Authorization` lines.
    Authorization,
    /// Chunk sizes, their line ends, the last chunk. RFC 9112 section 7.1
    Framing,
    /// PROCESSING, PENDING, DONE and the additional headers. `[MS-OXCMAPIHTTP] 2.2.7`
    Tags,
    /// Everything else of a body.
    Payload,
    /// What TLS adds to all that: record heads, tags, alerts in between.
    Tls,
    /// A TLS handshake, and a PROXY protocol head before it.
    Handshake,
    /// What belongs to no request: failed handshakes, farewells, bytes nobody asked for, health checks.
    Connection,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Line,
        Self::Headers,
        Self::Cookies,
        Self::Authorization,
        Self::Framing,
        Self::Tags,
        Self::Payload,
        Self::Tls,
        Self::Handshake,
        Self::Connection,
    ];

    /// Its name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Headers => "headers",
            Self::Cookies => "cookies",
            Self::Authorization => "authorization",
            Self::Framing => "framing",
            Self::Tags => "tags",
            Self::Payload => "payload",
            Self::Tls => "tls",
            Self::Handshake => "handshake",
            Self::Connection => "connection",
        }
    }

    /// Its position in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Bytes of a head by what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadBytes {
    /// All of it, the empty line included.
    pub total: usize,
    /// The first line.
    pub line: usize,
    /// `Cookie` or `Set-Cookie` lines.
    pub cookies: usize,
    /// `Authorization` lines.
    pub authorization: usize,
}

/// Bytes of one request in one direction of one leg. They add up to what was on the wire, once
/// [`Self::fit`] has compared them with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds([u64; Kind::Tls.index() + 1]);

impl Kinds {
    /// A head, and nothing yet behind it.
    pub fn of_head(head: HeadBytes) -> Self {
        let mut kinds = Self::default();
        kinds.add_head(head);
        kinds
    }

    /// Bytes of a kind; 0 for kinds that no request has.
    pub fn of(&self, kind: Kind) -> u64 {
        self.0.get(kind.index()).copied().unwrap_or(0)
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.0
            .iter()
            .fold(0, |sum: u64, bytes| sum.saturating_add(*bytes))
    }

    /// Bytes of the head.
    pub fn head(&self) -> u64 {
        [
            Kind::Line,
            Kind::Headers,
            Kind::Cookies,
            Kind::Authorization,
        ]
        .map(|kind| self.of(kind))
        .iter()
        .sum()
    }

    /// Bytes of the body, chunk framing included.
    pub fn body(&self) -> u64 {
        [Kind::Framing, Kind::Tags, Kind::Payload]
            .map(|kind| self.of(kind))
            .iter()
            .sum()
    }

    /// Each kind and its bytes.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, u64)> {
        Kind::ALL.into_iter().zip(self.0)
    }

    /// Adds to a kind.
    pub fn add(&mut self, kind: Kind, bytes: u64) {
        if let Some(sum) = self.0.get_mut(kind.index()) {
            *sum = sum.saturating_add(bytes);
        }
    }

    /// Adds a head.
    pub fn add_head(&mut self, head: HeadBytes) {
        let rest = head
            .total
            .saturating_sub(head.line + head.cookies + head.authorization);
        for (kind, bytes) in [
            (Kind::Line, head.line),
            (Kind::Headers, rest),
            (Kind::Cookies, head.cookies),
            (Kind::Authorization, head.authorization),
        ] {
            self.add(kind, bytes as u64);
        }
    }

    /// Adds what a piece of a body was found to be. Tags may be recognised only when their line ends:
    /// their first bytes were payload until then.
    pub fn add_body(&mut self, wire: u64, payload: u64, tags: u64) {
        self.add(Kind::Framing, wire.saturating_sub(payload));
        self.add(Kind::Payload, payload);
        let moved = tags.min(self.of(Kind::Payload));
        if let Some(payload) = self.0.get_mut(Kind::Payload.index()) {
            *payload -= moved;
        }
        self.add(Kind::Tags, moved);
    }

    /// Makes the sum what was on the wire. What is missing is `rest`: TLS, or on a plain leg the part of
    /// a body that was not looked at. What is too much was written into a connection that broke before it
    /// took all, and is taken away from the end.
    pub fn fit(&mut self, wire: u64, rest: Kind) {
        let total = self.total();
        self.add(rest, wire.saturating_sub(total));
        let mut surplus = total.saturating_sub(wire);
        for kind in [
            Kind::Tls,
            Kind::Payload,
            Kind::Framing,
            Kind::Tags,
            Kind::Headers,
            Kind::Cookies,
            Kind::Authorization,
            Kind::Line,
        ] {
            if let Some(bytes) = self.0.get_mut(kind.index()) {
                let cut = surplus.min(*bytes);
                *bytes -= cut;
                surplus -= cut;
            }
        }
    }
}

/// A request's bytes: both legs, both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// From the client.
    pub client_in: Kinds,
    /// To the client.
    pub client_out: Kinds,
    /// From the server.
    pub server_in: Kinds,
    /// To the server.
    pub server_out: Kinds,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: HeadBytes = HeadBytes {
        total: 100,
        line: 30,
        cookies: 20,
        authorization: 10,
    };

    #[test]
    fn a_head_is_the_sum_of_its_kinds() {
        let mut kinds = Kinds::default();
        kinds.add_head(HEAD);
        assert_eq!(kinds.of(Kind::Headers), 40);
        assert_eq!((kinds.head(), kinds.total()), (100, 100));
    }

    #[test]
    fn a_tag_recognised_late_was_payload_before() {
        let mut kinds = Kinds::default();
        kinds.add_body(10, 4, 0);
        kinds.add_body(20, 14, 18);
        assert_eq!(
            (
                kinds.of(Kind::Framing),
                kinds.of(Kind::Tags),
                kinds.of(Kind::Payload)
            ),
            (12, 18, 0)
        );
        assert_eq!(kinds.body(), 30);
    }

    proptest! {
        #[test]
        fn fitted_kinds_add_up_to_the_wire_whatever_was_counted(
            payload in 0..100_000_u64, framing in 0..1000_u64, wire in 0..200_000_u64, is_tls in any::<bool>(),
        ) {
            let mut kinds = Kinds::default();
            kinds.add_head(HEAD);
            kinds.add_body(payload + framing, payload, 0);
            let counted = kinds.total();
            kinds.fit(wire, if is_tls { Kind::Tls } else { Kind::Payload });
            prop_assert_eq!(kinds.total(), wire);
            if is_tls && wire >= counted {
                prop_assert_eq!(kinds.of(Kind::Payload), payload);
            }
        }
    }

    #[test]
    fn sums_stop_at_the_largest_number() {
        let mut kinds = Kinds::default();
        kinds.add(Kind::Payload, u64::MAX);
        kinds.add(Kind::Payload, 1);
        kinds.add(Kind::Tls, 1);
        assert_eq!(kinds.total(), u64::MAX);
    }
}
