//! What a request costs: CPU by the thread's clock, bytes by counting streams; and who it is charged to.

pub mod counting;
pub mod meter;
pub mod usage;

pub use counting::{Bytes, Counting, Wire};
pub use meter::{Metered, cpu_so_far, glance};
pub use usage::Usage;
