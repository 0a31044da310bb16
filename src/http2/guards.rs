//! What keeps a request of HTTP/2 from being more than one of HTTP/1.1, and how a test takes it away to see
//! that it is needed.
//!
//! In builds for tests the environment variable `MAPIGATE_TEST_WITHOUT` takes one guard away; a release has
//! no such code.

/// One of the guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// A request is for the name its connection was made for.
    Authority,
    /// `Host` says what `:authority` says.
    Host,
    /// What came by TLS says so.
    Scheme,
    /// Values have nothing around them that a reader would take off.
    Values,
    /// Nobody may keep us busy with nothing.
    Flood,
}

/// True in every release.
pub(super) fn stands(guard: Guard) -> bool {
    crate::backend::stands(|| guard.word())
}

impl Guard {
    fn word(self) -> &'static str {
        match self {
            Self::Authority => "http2_authority",
            Self::Host => "http2_host",
            Self::Scheme => "http2_scheme",
            Self::Values => "http2_values",
            Self::Flood => "http2_flood",
        }
    }
}
