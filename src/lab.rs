//! Simulated mailbox servers, Outlooks and an identity provider, and the judge who compares their books.
//!
//! The same code serves the demo, the tests and the benches. It shares the wire's *words* with the rest
//! of the house ([`crate::mapi`]), but none of its HTTP: two readings of one protocol find more mistakes
//! than one.

pub mod authority;
pub mod checker;
pub mod conformance;
pub mod crowd;
pub mod demo;
pub mod identity_provider;
pub mod mailbox_server;
pub mod network;
pub mod outlook;
pub mod overhead;
pub mod rpc_http;
pub mod site;
mod work;

pub use authority::Authority;
pub use crowd::Crowd;
pub use identity_provider::IdentityProvider;
pub use mailbox_server::MailboxServer;
pub use outlook::Outlook;

pub use crate::outlook::{tap, wire};

pub(crate) use crate::outlook::session::guid;

/// Microseconds since 1970: the one clock the journals of servers and clients share.
#[expect(
    clippy::disallowed_methods,
    reason = "journals of several processes meet in the checker, so they need the wall clock"
)]
pub fn unix_micros() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
        })
}

/// The first 16 bytes of the SHA-256 of a body: what an answer must repeat to prove whose answer it is.
pub fn digest(bytes: &[u8]) -> [u8; 16] {
    let whole = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut half = [0; 16];
    for (to, from) in half.iter_mut().zip(whole.as_ref()) {
        *to = *from;
    }
    half
}

/// Bytes in lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The operation the lab's own Executes consist of: reserved by the protocol, so no server takes it for another.
/// Behind it stands whatever the caller wants executed. The answer carries it again, then the [`digest`] of the
/// request's body, then the server's name behind its length, then filler up to the size asked for.
pub const LAB_OPERATION: u8 = 0xf5;
/// As [`LAB_OPERATION`], and asks for an answer of so many bytes: they follow as a 32-bit number. Reserved likewise.
/// Where a header would ask for the size, it would be weighed with the protocol's own.
pub const LAB_SIZED_OPERATION: u8 = 0xf6;
