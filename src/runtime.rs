//! The world now, and the tables that outlive it.
