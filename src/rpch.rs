//! What RPC over HTTP looks like on the wire, as Outlook Anywhere speaks it: the room's front door.
//!
//! Two HTTP requests make one virtual connection: what the client says goes into the body of one that never ends,
//! what the server says comes out of the answer to the other. On both run PDUs of DCE/RPC ([`pdu`], [`bind`]), and
//! between them those that keep the two together ([`rts`]). `[MS-RPCH] 1.3, 2.1.2`

pub mod bind;
pub mod pdu;
pub mod rts;
pub mod verbs;

mod bytes;

pub use rts::{Cookie, Rts};
pub use verbs::{Destination, Folder, Opening, Service, Verb};

/// Why bytes are not the PDU they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPdu {
    /// The PDU ends inside a field.
    #[error("the PDU ends inside {0}")]
    Short(&'static str),
    /// A field holds a value the specification does not allow.
    #[error("{0} has an impossible value")]
    Impossible(&'static str),
    /// Bytes follow the last field.
    #[error("{0} bytes follow the last field")]
    Trailing(usize),
}
