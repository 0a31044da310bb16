//! The commands an RTS PDU is made of. `[MS-RPCH] 2.2.3.3 to 2.2.3.5`

use super::Cookie;
use crate::rpch::BadPdu;
use crate::rpch::bytes::{Fields, put_u32};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who a PDU is for. `[MS-RPCH] 2.2.3.3`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// The client.
    Client,
    /// The proxy of the IN channel.
    InProxy,
    /// The server.
    Server,
    /// The proxy of the OUT channel.
    OutProxy,
}

impl Forward {
    pub(super) const ALL: [Self; 4] = [Self::Client, Self::InProxy, Self::Server, Self::OutProxy];

    fn number(self) -> u32 {
        match self {
            Self::Client => 0,
            Self::InProxy => 1,
            Self::Server => 2,
            Self::OutProxy => 3,
        }
    }

    fn read(number: u32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|forward| forward.number() == number)
    }
}

/// How far the receiver of a channel has come. `[MS-RPCH] 2.2.3.4`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Bytes of RPC PDUs received on the channel so far. RTS PDUs are not counted.
    pub bytes_received: u32,
    /// Bytes the receiver has room for.
    pub available: u32,
    /// The channel.
    pub channel: Cookie,
}

/// One command of a PDU. `[MS-RPCH] 2.2.3.5`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Room of the receiver, in bytes.
    ReceiveWindowSize(u32),
    /// Flow control.
    FlowControlAck(Ack),
    /// Idle time after which a connection is closed, in milliseconds.
    ConnectionTimeout(u32),
    /// A cookie; what it names depends on its place.
    Cookie(Cookie),
    /// Bytes a channel may carry.
    ChannelLifetime(u32),
    /// Milliseconds between signs of life; 0 is 300,000.
    ClientKeepalive(u32),
    /// [`VERSION`](super::VERSION).
    Version(u32),
    /// Nothing.
    Empty,
    /// Bytes of no meaning.
    Padding(Vec<u8>),
    /// The successor was not established.
    NegativeAnce,
    /// The successor was established.
    Ance,
    /// Where the client is.
    ClientAddress(IpAddr),
    /// Virtual connections of one group go to one server.
    AssociationGroupId(Cookie),
    /// Who the PDU is for.
    Destination(Forward),
    /// Bytes of pings the proxy has sent.
    PingTrafficSentNotify(u32),
}

impl Command {
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::ReceiveWindowSize(bytes) => numbers(to, [0, *bytes]),
            Self::FlowControlAck(ack) => {
                numbers(to, [1, ack.bytes_received, ack.available]);
                to.extend_from_slice(&ack.channel.0);
            }
            Self::ConnectionTimeout(milliseconds) => numbers(to, [2, *milliseconds]),
            Self::Cookie(cookie) => named(to, 3, cookie),
            Self::ChannelLifetime(bytes) => numbers(to, [4, *bytes]),
            Self::ClientKeepalive(milliseconds) => numbers(to, [5, *milliseconds]),
            Self::Version(version) => numbers(to, [6, *version]),
            Self::Empty => numbers(to, [7]),
            Self::Padding(bytes) => {
                numbers(to, [8, u32::try_from(bytes.len()).unwrap_or(u32::MAX)]);
                to.extend_from_slice(bytes);
            }
            Self::NegativeAnce => numbers(to, [9]),
            Self::Ance => numbers(to, [10]),
            Self::ClientAddress(IpAddr::V4(address)) => {
                numbers(to, [11, 0]);
                to.extend_from_slice(&address.octets());
                to.extend_from_slice(&ADDRESS_PADDING);
            }
            Self::ClientAddress(IpAddr::V6(address)) => {
                numbers(to, [11, 1]);
                to.extend_from_slice(&address.octets());
                to.extend_from_slice(&ADDRESS_PADDING);
            }
            Self::AssociationGroupId(cookie) => named(to, 12, cookie),
            Self::Destination(forward) => numbers(to, [13, forward.number()]),
            Self::PingTrafficSentNotify(bytes) => numbers(to, [14, *bytes]),
        }
    }

    pub(super) fn read(from: &mut Fields<'_>) -> Result<Self, BadPdu> {
        Ok(match from.u32("CommandType")? {
            0 => Self::ReceiveWindowSize(from.u32("ReceiveWindowSize")?),
            1 => Self::FlowControlAck(Ack {
                bytes_received: from.u32("BytesReceived")?,
                available: from.u32("AvailableWindow")?,
                channel: Cookie(from.array("ChannelCookie")?),
            }),
            2 => Self::ConnectionTimeout(from.u32("ConnectionTimeout")?),
            3 => Self::Cookie(Cookie(from.array("Cookie")?)),
            4 => Self::ChannelLifetime(from.u32("ChannelLifetime")?),
            5 => Self::ClientKeepalive(from.u32("ClientKeepalive")?),
            6 => Self::Version(from.u32("Version")?),
            7 => Self::Empty,
            8 => {
                let count = from.u32("ConformanceCount")?;
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                Self::Padding(from.take(count, "Padding")?.to_vec())
            }
            9 => Self::NegativeAnce,
            10 => Self::Ance,
            11 => {
                let address = match from.u32("AddressType")? {
                    0 => Ipv4Addr::from(from.array::<4>("ClientAddress")?).into(),
                    1 => Ipv6Addr::from(from.array::<16>("ClientAddress")?).into(),
                    _ => return Err(BadPdu::Impossible("AddressType")),
                };
                from.take(ADDRESS_PADDING.len(), "Padding")?;
                Self::ClientAddress(address)
            }
            12 => Self::AssociationGroupId(Cookie(from.array("AssociationGroupId")?)),
            13 => Self::Destination(
                Forward::read(from.u32("Destination")?).ok_or(BadPdu::Impossible("Destination"))?,
            ),
            14 => Self::PingTrafficSentNotify(from.u32("PingTrafficSent")?),
            _ => return Err(BadPdu::Impossible("CommandType")),
        })
    }
}

/// Bytes behind an address. `[MS-RPCH] 2.2.3.5.12`
const ADDRESS_PADDING: [u8; 12] = [0; 12];

fn numbers<const N: usize>(to: &mut Vec<u8>, numbers: [u32; N]) {
    for number in numbers {
        put_u32(to, number);
    }
}

fn named(to: &mut Vec<u8>, command: u32, cookie: &Cookie) {
    put_u32(to, command);
    to.extend_from_slice(&cookie.0);
}
