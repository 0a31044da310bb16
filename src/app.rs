//! The whole, put together.
