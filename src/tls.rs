//! TLS towards clients: rustls shakes hands and makes the keys, the records are sealed and opened here.
//!
//! A session of rustls keeps a 4 KiB read buffer for life and copies every byte twice on its way through
//! vectors of its own. Between two requests ours owns no buffer at all: it borrows one when bytes come
//! and gives it back when they are read, seals from the caller's memory straight into what is sent, and
//! opens records where they arrived. Key updates, alerts, limits of keys and both TLS versions are ours
//! to keep then; secrets never leave this room.

mod accept;
mod incoming;
mod record;
mod stream;

pub use accept::{Accepted, accept, accept_begun, accept_by_name, begin};
pub use stream::TlsStream;

#[cfg(test)]
mod tests;
