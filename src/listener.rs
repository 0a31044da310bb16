//! Where clients arrive: sockets, TLS, PROXY protocol.
