//! What MAPI over HTTP looks like on the wire: the room's front door.

pub mod bodies;
pub mod build;
pub mod cookies;
pub mod framing;
pub mod request;
pub mod response;
pub mod tags;

pub use build::{Build, Capable};
pub use cookies::CookieNames;
pub use request::{Endpoint, RequestType};
pub use response::{Flavour, ResponseCode};
