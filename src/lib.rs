//! mapigate: the front door of a mail site.
//!
//! The list below is the house from the ground up. A room uses only rooms listed above it;
//! `tests/layers.rs` keeps it so. Start with [`manual`] for the words we use and the life of a request.

// floor 0 · words: values only; no I/O, clock, async, Pingora
pub mod ids;
pub mod mapi;
pub mod rpch;
pub mod autodiscover;
pub mod vdir;
pub mod refusal;
pub mod prose;
pub mod digested;

// floor 1 · tables: each stands alone; time is an argument; no async
pub mod buffers;
pub mod config;
pub mod placement;
pub mod health;
pub mod sessions;
pub mod channels;
pub mod admission;
pub mod accounting;
pub mod metrics;

// floor 2 · decisions: pure functions, simulated with seeds
pub mod routing;
pub mod capability;
pub mod capacity;

// floor 3 · outside: each speaks to one foreign system
pub mod seal;
pub mod gss;
pub mod ldap;
pub mod auth;
pub mod directory;
pub mod certs;
pub mod tls;
pub mod backend;
pub mod outlook;
pub mod probe;

// floor 4 · living state
pub mod journal;
pub mod runtime;
pub mod upkeep;

// floor 5 · doors
pub mod relay;
pub mod http2;
pub mod explain;
pub mod listener;
pub mod admin;
pub mod lab;

// floor 6 · roof
pub mod app;
pub mod commands;
pub mod manual;
