//! mapigate between an Active Directory and curl: what a site's own users do on the first morning.
//!
//! These tests need a domain controller and are ignored without one; `make test-ad` brings one up. Each subject is a
//! module.
#![allow(unreachable_pub, reason = "modules of one test program share")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that meets the unexpected ends there; waiting is by the clock; figures are told"
)]

mod client;
mod command;
mod controller;
mod curl;
mod databases;
mod evidence;
mod expiry;
mod directories;
mod discover;
mod forged;
mod handoff;
mod lab;
mod ldap;
mod left;
mod liar;
mod logons;
mod lying_kdc;
mod many_groups;
mod negotiate;
mod ntlm;
mod outage;
mod people;
mod probe;
#[path = "../outlook_anywhere/python.rs"]
mod python;
mod rpc_http;
mod site;
mod starttls;
mod spray;
mod trouble;
mod winbind;
