//! What a request costs: CPU by the thread's clock, bytes by counting streams; and who it is charged to.

pub mod counting;
pub mod kinds;
pub mod meter;
pub mod phase;
pub mod usage;

pub use counting::{Bytes, Counting, Unbilled, Unread, Wire};
pub use kinds::{HeadBytes, Kind, Kinds, Ledger};
pub use meter::Metered;
pub use phase::{Phase, Times};
pub use usage::Usage;
