//! Where a message body ends, and what our own pieces of one look like.
