//! How a channel begins, and which virtual connection it belongs to.

use super::command::Command;
use super::{Cookie, HEAD_BYTES, NONE, RECYCLE, Rts, VERSION};
use crate::rpch::Verb;
use crate::rpch::bytes::Fields;
use crate::rpch::pdu::{self, Kind};
use crate::rpch::verbs::{LIFETIME_MAX, LIFETIME_MIN, OUT_LENGTH, OUT_SUCCESSOR_LENGTH};

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

/// What the first bytes of a channel are, while they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// Too few of them to tell.
    Short,
    /// This.
    Is(Beginning),
    /// Nothing that begins a channel.
    Wrong,
}

/// Reads the PDU a channel begins with as far as it is here. Never wants more than [`FIRST_MAX`] bytes: what cannot
/// become a beginning is wrong as soon as that shows.
pub fn first(bytes: &[u8]) -> First {
    let known = bytes.get(..pdu::HEAD_BYTES).unwrap_or(bytes);
    let begin = [5, 0, Kind::RTS.0, pdu::WHOLE, 0x10, 0, 0, 0];
    if known.iter().zip(begin).any(|(byte, known)| *byte != known) {
        return First::Wrong;
    }
    let Ok(head) = pdu::Head::read(bytes) else {
        return match bytes.len() < pdu::HEAD_BYTES {
            true => First::Short,
            false => First::Wrong,
        };
    };
    let length = usize::from(head.length);
    if !(super::PEEK_BYTES..=FIRST_MAX).contains(&length) {
        return First::Wrong;
    }
    let Some(whole) = bytes.get(..length) else {
        return First::Short;
    };
    let rts = Rts::decode(whole).ok();
    match rts.and_then(|rts| Beginning::of(&rts)) {
        Some(beginning) => First::Is(beginning),
        None => First::Wrong,
    }
}

/// Bytes of the longest PDU that a channel begins with: a `CONN/B1`. `[MS-RPCH] 2.2.4.5`
pub const FIRST_MAX: usize = 104;

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
    /// The virtual connection it belongs to.
    pub fn connection(&self) -> Cookie {
        match self {
            Self::Out { connection, .. }
            | Self::In { connection, .. }
            | Self::OutSuccessor { connection, .. }
            | Self::InSuccessor { connection, .. } => *connection,
        }
    }

    /// True for the Content-Length of a request that begins so. `[MS-RPCH] 2.1.2.1.1, 2.1.2.1.2`
    pub fn fits(&self, length: u64) -> bool {
        match self {
            Self::Out { .. } => length == OUT_LENGTH,
            Self::OutSuccessor { .. } => length == OUT_SUCCESSOR_LENGTH,
            Self::In { .. } | Self::InSuccessor { .. } => {
                (LIFETIME_MIN..=LIFETIME_MAX).contains(&length)
            }
        }
    }

    /// Which way its channel carries.
    pub fn verb(&self) -> Verb {
        match self {
            Self::Out { .. } | Self::OutSuccessor { .. } => Verb::Out,
            Self::In { .. } | Self::InSuccessor { .. } => Verb::In,
        }
    }

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
