//! The MAPI door: one strict HTTP/1.1 connection, request after request.
