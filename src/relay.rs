//! The MAPI door: one strict HTTP/1.1 connection, request after request.
//!
//! The path of a request, a file each: [`head`] reads and gates it, `admit` finds who asks, whose mailbox
//! it is and which server has it, `forward` sends it, `respond` streams the answer back, `bill` settles.

mod admit;
mod answer;
mod asks;
mod bill;
mod buffer;
mod connection;
mod deadline;
mod device;
mod ends;
mod exchange;
pub mod fields;
mod forward;
pub mod head;
mod hold;
mod in_band;
mod learn;
mod local;
mod pinned;
mod refuse;
mod respond;
mod slow;
pub mod target;

pub use connection::{Stream, serve};
