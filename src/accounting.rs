//! What a request costs: CPU by the thread's clock, bytes by counting streams.

pub mod counting;
pub mod meter;

<<<<<<< HEAD
pub use counting::{Bytes, Counting, Wire};
=======
pub use counting::{Counting, Wire, Bytes};
>>>>>>> main
pub use meter::{Metered, cpu_so_far};
