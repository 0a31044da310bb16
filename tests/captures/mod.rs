//! Conversations that were recorded with a real server, held again.

pub(crate) mod exchange;
pub(crate) mod judge;
pub(crate) mod replay;
