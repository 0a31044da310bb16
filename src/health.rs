//! Which servers are up: observations in, flips out.
