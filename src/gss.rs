//! What the system's Kerberos library is told and asked.
//!
//! The library (MIT's `libgssapi_krb5`) is blocking C: whatever is here that asks a KDC says so, and is
//! for threads that may wait.

mod client;
pub mod credential;
mod delegation;
mod evidence;
mod lanes;
mod names;
mod ticket;

pub use client::{Client, words};
pub use delegation::Delegation;
pub use evidence::Evidence;
pub use names::Names;
pub use ticket::{Ticket, TicketError};
