//! The access log, written off the request path.
