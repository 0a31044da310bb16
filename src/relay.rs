//! The door of MAPI and Autodiscover: one strict HTTP/1.1 connection, request after request.
//!
//! The path of a request, a file each: [`head`] reads and gates it, `admit` finds who asks, whose mailbox
//! it is and which server has it, `forward` sends it, `respond` streams the answer back, `bill` settles.
//! Autodiscover leaves that path at `admit`: `discover` reads the whole request and writes a whole answer.

mod admit;
mod answer;
mod asks;
mod bill;
mod buffer;
mod channel;
mod connection;
mod deadline;
mod device;
mod discover;
mod ends;
mod exchange;
pub mod fields;
mod forward;
pub mod head;
mod hold;
mod in_band;
mod learn;
mod local;
mod public;
mod pinned;
mod refuse;
mod respond;
mod shared;
mod slow;
pub mod target;
pub(crate) mod vdir;
mod urls;

pub(crate) use answer::{AnswerHead, read as read_answer};
pub(crate) use bill::Handshake;
pub use connection::{Stream, serve};
pub(crate) use connection::{book_handshake, serve_shared};
pub use shared::{Shared, Wrong};
