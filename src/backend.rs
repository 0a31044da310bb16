//! Connections to mailbox servers, kept per worker for the next request.
