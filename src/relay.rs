//! The MAPI door: one strict HTTP/1.1 connection, request after request.

pub(crate) mod answer;
pub(crate) mod buffer;
pub(crate) mod deadline;
pub mod fields;
pub mod head;
pub mod target;
