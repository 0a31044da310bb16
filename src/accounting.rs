//! What a request costs: CPU by the thread's clock, bytes by counting streams.

pub mod counting;
pub mod meter;

pub use counting::{Bytes, Counting, Wire};
pub use meter::{Metered, cpu_so_far};
