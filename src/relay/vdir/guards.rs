//! What keeps the other virtual directories shut, and how a test takes it away to see that it is needed.
//!
//! In builds for tests the environment variable `MAPIGATE_TEST_WITHOUT` takes one guard away; a release has
//! no such code.

/// One of the guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::relay) enum Guard {
    /// Paths and queries that can be read in two ways are refused.
    Paths,
    /// Header fields by which only a front end speaks stay here.
    Claims,
    /// Cookies that choose a server stay here.
    Cookies,
    /// Nobody reaches a server without a logon.
    Logon,
    /// A header that may not choose a mailbox chooses none.
    Anchors,
    /// What is for clients inside is shown to nobody else.
    Inside,
    /// Answers tell nothing of the site's inside.
    Answers,
    /// What proves a connection, or has one of its own, does not share one.
    Shared,
}

/// True in every release.
pub(in crate::relay) fn stands(guard: Guard) -> bool {
    crate::backend::stands(|| guard.word())
}

impl Guard {
    fn word(self) -> &'static str {
        match self {
            Self::Paths => "paths",
            Self::Claims => "claims",
            Self::Cookies => "cookies",
            Self::Logon => "logon",
            Self::Anchors => "anchors",
            Self::Inside => "inside",
            Self::Answers => "answers",
            Self::Shared => "http2_shared",
        }
    }
}
