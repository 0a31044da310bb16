//! How a channel begins, and which virtual connection it belongs to.

use super::command::Command;
use super::{Cookie, HEAD_BYTES, NONE, RECYCLE, Rts, VERSION};
use crate::rpch::bytes::Fields;
use crate::rpch::pdu::{self, Kind};

/// The virtual connection that the first bytes of a channel belong to; `None` where they are no beginning of one, or
/// fewer than [`PEEK_BYTES`](super::PEEK_BYTES). Reads nothing behind the cookie, and allocates nothing. `[MS-RPCH] 2.2.4.2, 2.2.4.5`
pub fn virtual_connection(first: &[u8]) -> Option<Cookie> {
    let head = pdu::Head::read(first).ok()?;
    let mut from = Fields::new(first.get(HEAD_BYTES..)?);
    let begins = head.kind == Kind::RTS
        && from.u32("CommandType").ok()? == 6
        && from.u32("Version").ok()? == VERSION
        && from.u32("CommandType").ok()? == 3;
    let cookie = from.array("Cookie").ok()?;
    begins.then_some(Cookie(cookie))
}

/// How a channel begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// `CONN/A1`.
    Out {
        /// The virtual connection.
        connection: Cookie,
        /// The channel.
        channel: Cookie,
        /// Room of the client, in bytes.
        window: u32,
    },
    /// `CONN/B1`.
    In {
        /// The virtual connection.
        connection: Cookie,
        /// The channel.
        channel: Cookie,
        /// Bytes it may carry.
        lifetime: u32,
        /// Milliseconds between signs of life.
        keepalive: u32,
        /// Virtual connections of one group go to one server.
        group: Cookie,
    },
    /// `OUT_R1/A3`, `OUT_R2/A3`.
    OutSuccessor {
        /// The virtual connection.
        connection: Cookie,
        /// The channel that ends.
        predecessor: Cookie,
        /// The channel that takes over.
        channel: Cookie,
        /// Room of the client, in bytes.
        window: u32,
    },
    /// `IN_R1/A1`, `IN_R2/A1`.
    InSuccessor {
        /// The virtual connection.
        connection: Cookie,
        /// The channel that ends.
        predecessor: Cookie,
        /// The channel that takes over.
        channel: Cookie,
    },
}

impl Beginning {
    /// What a PDU begins; `None` where it begins nothing.
    pub fn of(rts: &Rts) -> Option<Self> {
        use Command as C;
        match (rts.flags, rts.commands.as_slice()) {
            (
                NONE,
                [
                    C::Version(VERSION),
                    C::Cookie(connection),
                    C::Cookie(channel),
                    C::ReceiveWindowSize(window),
                ],
            ) => Some(Self::Out {
                connection: *connection,
                channel: *channel,
                window: *window,
            }),
            (
                NONE,
                [
                    C::Version(VERSION),
                    C::Cookie(connection),
                    C::Cookie(channel),
                    C::ChannelLifetime(lifetime),
                    C::ClientKeepalive(keepalive),
                    C::AssociationGroupId(group),
                ],
            ) => Some(Self::In {
                connection: *connection,
                channel: *channel,
                lifetime: *lifetime,
                keepalive: *keepalive,
                group: *group,
            }),
            (
                RECYCLE,
                [
                    C::Version(VERSION),
                    C::Cookie(connection),
                    C::Cookie(predecessor),
                    C::Cookie(channel),
                    C::ReceiveWindowSize(window),
                ],
            ) => Some(Self::OutSuccessor {
                connection: *connection,
                predecessor: *predecessor,
                channel: *channel,
                window: *window,
            }),
            (
                RECYCLE,
                [
                    C::Version(VERSION),
                    C::Cookie(connection),
                    C::Cookie(predecessor),
                    C::Cookie(channel),
                ],
            ) => Some(Self::InSuccessor {
                connection: *connection,
                predecessor: *predecessor,
                channel: *channel,
            }),
            _ => None,
        }
    }
}
