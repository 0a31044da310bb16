//! Outlook Anywhere in the lab: a mailbox server and an Outlook that speak RPC over HTTP with each other.
//!
//! Two TCP connections for each virtual connection, a request that never ends on one and an answer that never ends on
//! the other; DCE/RPC on both, flow control between them, and a channel replaced when it has carried its lifetime.
//! They share the wire's words with the rest of the house ([`crate::rpch`]), and their HTTP with the rest of the lab.

pub mod client;
pub mod server;
pub mod stubs;

mod window;

pub use client::RpcOutlook;
pub use server::RpcServer;

#[cfg(test)]
mod tests;
