//! The sealed route cookie.
