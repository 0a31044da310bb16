//! What keeps two users off one server connection, and how a test takes it away to see that it is needed.
//!
//! There are two: the pool keeps the connections of each identity apart, and a connection that is about to
//! carry another identity than before is closed (the fence). In builds for tests the environment variable
//! `MAPIGATE_TEST_WITHOUT` takes away the first (`lanes`) or both (`fence`); a release has no such code.

/// The pool keeps identities apart.
pub(super) fn lanes_stand() -> bool {
    #[cfg(debug_assertions)]
    return !matches!(without(), Some("lanes" | "fence"));
    #[cfg(not(debug_assertions))]
    true
}

/// A connection is not used for a second identity.
pub(super) fn fence_stands() -> bool {
    stands(|| "fence")
}

/// True while the defence of this word stands: always, but in a test that takes it away.
#[inline]
pub(crate) fn stands(word: impl FnOnce() -> &'static str) -> bool {
    #[cfg(debug_assertions)]
    return without() != Some(word());
    #[cfg(not(debug_assertions))]
    {
        let _of_tests_alone = word;
        true
    }
}

/// What a test has taken away, by its word.
#[cfg(debug_assertions)]
fn without() -> Option<&'static str> {
    static WITHOUT: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    WITHOUT
        .get_or_init(|| std::env::var("MAPIGATE_TEST_WITHOUT").ok())
        .as_deref()
}
