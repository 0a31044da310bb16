//! PDUs that keep the two channels of a virtual connection together. `[MS-RPCH] 2.2.3, 2.2.4`

mod beginning;
mod command;

pub use beginning::{Beginning, FIRST_MAX, First, first, virtual_connection};
pub use command::{Ack, Command, Forward};

use super::BadPdu;
use super::bytes::{Fields, put_u16};
use super::pdu::{self, Kind};
use std::fmt;

/// Bytes before the first command. `[MS-RPCH] 2.2.3.6.1`
pub const HEAD_BYTES: usize = 20;
/// Bytes after which the virtual connection of a channel is known.
pub const PEEK_BYTES: usize = 48;
/// The only version there is. `[MS-RPCH] 2.2.3.5.7`
pub const VERSION: u32 = 1;

/// No flag: `CONN/…`, `IN_R1/A4` and other steps of a sequence.
pub const NONE: u16 = 0;
/// Nothing but a sign of life.
pub const PING: u16 = 1;
/// Outside of any sequence: flow control, keep-alive.
pub const OTHER: u16 = 2;
/// A channel is about to be replaced.
pub const RECYCLE: u16 = 4;
/// About the IN channel.
pub const IN: u16 = 8;
/// About the OUT channel.
pub const OUT: u16 = 0x10;
/// The last PDU of its channel.
pub const EOF: u16 = 0x20;
/// The answer to a request that asked whether anybody is there.
pub const ECHO: u16 = 0x40;

/// 16 bytes that name a virtual connection, a channel or a group. Whoever knows one can join, so it is not shown.
/// `[MS-RPCH] 2.2.3.1`
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cookie(pub [u8; 16]);

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(…)")
    }
}

/// A whole PDU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rts {
    /// Any of the flags of this room.
    pub flags: u16,
    /// At most as many as 64 KiB hold.
    pub commands: Vec<Command>,
}

impl Rts {
    /// The PDU's bytes. Commands beyond 64 KiB would not be readable: callers keep to a handful.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = pdu::Head::whole(Kind::RTS, 0).encode().to_vec();
        put_u16(&mut bytes, self.flags);
        put_u16(
            &mut bytes,
            u16::try_from(self.commands.len()).unwrap_or(u16::MAX),
        );
        for command in &self.commands {
            command.write(&mut bytes);
        }
        pdu::set_length(&mut bytes);
        bytes
    }

    /// Reads a whole PDU. Never allocates more than the bytes at hand.
    ///
    /// # Errors
    /// Whatever keeps the bytes from being one PDU, and nothing but this PDU.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadPdu> {
        let head = pdu::Head::read(bytes)?;
        if head.kind != Kind::RTS {
            return Err(BadPdu::Impossible("PTYPE"));
        }
        if head.flags != pdu::WHOLE || head.call_id != 0 || head.auth_length != 0 {
            return Err(BadPdu::Impossible("the head of an RTS PDU"));
        }
        let mut from = Fields::new(bytes);
        from.take(pdu::HEAD_BYTES, "head")?;
        if usize::from(head.length) != bytes.len() {
            return Err(BadPdu::Impossible("frag_length"));
        }
        let flags = from.u16("Flags")?;
        let count = from.u16("NumberOfCommands")?;
        let mut commands = Vec::new();
        for _ in 0..count {
            commands.push(Command::read(&mut from)?);
        }
        from.end()?;
        Ok(Self { flags, commands })
    }

    fn of(flags: u16, commands: &[Command]) -> Self {
        Self {
            flags,
            commands: commands.to_vec(),
        }
    }

    /// `CONN/A1`: the first bytes on an OUT channel. `[MS-RPCH] 2.2.4.2`
    pub fn conn_a1(connection: Cookie, channel: Cookie, window: u32) -> Self {
        Self::of(
            NONE,
            &[
                Command::Version(VERSION),
                Command::Cookie(connection),
                Command::Cookie(channel),
                Command::ReceiveWindowSize(window),
            ],
        )
    }

    /// `CONN/B1`: the first bytes on an IN channel. `[MS-RPCH] 2.2.4.5`
    pub fn conn_b1(
        connection: Cookie,
        channel: Cookie,
        lifetime: u32,
        keepalive: u32,
        group: Cookie,
    ) -> Self {
        Self::of(
            NONE,
            &[
                Command::Version(VERSION),
                Command::Cookie(connection),
                Command::Cookie(channel),
                Command::ChannelLifetime(lifetime),
                Command::ClientKeepalive(keepalive),
                Command::AssociationGroupId(group),
            ],
        )
    }

    /// `CONN/A3`: the OUT channel is there. `[MS-RPCH] 2.2.4.4`
    pub fn conn_a3(timeout: u32) -> Self {
        Self::of(NONE, &[Command::ConnectionTimeout(timeout)])
    }

    /// `CONN/C2`: both are there. `[MS-RPCH] 2.2.4.9`
    pub fn conn_c2(window: u32, timeout: u32) -> Self {
        Self::of(
            NONE,
            &[
                Command::Version(VERSION),
                Command::ReceiveWindowSize(window),
                Command::ConnectionTimeout(timeout),
            ],
        )
    }

    /// `IN_R1/A1` and `IN_R2/A1`: the first bytes on an IN channel that takes over. `[MS-RPCH] 2.2.4.10`
    pub fn in_r_a1(connection: Cookie, predecessor: Cookie, successor: Cookie) -> Self {
        Self::of(
            RECYCLE,
            &[
                Command::Version(VERSION),
                Command::Cookie(connection),
                Command::Cookie(predecessor),
                Command::Cookie(successor),
            ],
        )
    }

    /// `IN_R2/A4`: the successor may be used. `[MS-RPCH] 2.2.4.21`
    pub fn in_r2_a4() -> Self {
        Self::of(NONE, &[Command::Destination(Forward::Client)])
    }

    /// `IN_R1/A5` and `IN_R2/A5`: the last bytes on an IN channel. `[MS-RPCH] 2.2.4.14`
    pub fn in_r_a5(successor: Cookie) -> Self {
        Self::of(NONE, &[Command::Cookie(successor)])
    }

    /// `OUT_R1/A2` and `OUT_R2/A2`: the OUT channel wants a successor. `[MS-RPCH] 2.2.4.24`
    pub fn out_r_a2() -> Self {
        Self::of(RECYCLE, &[Command::Destination(Forward::Client)])
    }

    /// `OUT_R1/A3` and `OUT_R2/A3`: the first bytes on an OUT channel that takes over. `[MS-RPCH] 2.2.4.25`
    pub fn out_r_a3(
        connection: Cookie,
        predecessor: Cookie,
        successor: Cookie,
        window: u32,
    ) -> Self {
        Self::of(
            RECYCLE,
            &[
                Command::Version(VERSION),
                Command::Cookie(connection),
                Command::Cookie(predecessor),
                Command::Cookie(successor),
                Command::ReceiveWindowSize(window),
            ],
        )
    }

    /// `OUT_R2/A6`: the successor may be used. `[MS-RPCH] 2.2.4.39`
    pub fn out_r2_a6() -> Self {
        Self::of(
            NONE,
            &[Command::Destination(Forward::Client), Command::Ance],
        )
    }

    /// `OUT_R2/A7`: the client has it. `[MS-RPCH] 2.2.4.40`
    pub fn out_r2_a7(successor: Cookie) -> Self {
        Self::of(
            OUT,
            &[
                Command::Destination(Forward::Server),
                Command::Cookie(successor),
                Command::Version(VERSION),
            ],
        )
    }

    /// `OUT_R2/C1`: the last bytes of the request of a successor. `[MS-RPCH] 2.2.4.45`
    pub fn out_r2_c1() -> Self {
        Self::of(PING, &[Command::Empty])
    }

    /// `OUT_R2/B3`: the last bytes on an OUT channel. `[MS-RPCH] 2.2.4.44`
    pub fn out_r2_b3() -> Self {
        Self::of(EOF, &[Command::Ance])
    }

    /// Flow control on the channel's own way back. `[MS-RPCH] 2.2.4.50`
    pub fn flow_control(ack: Ack) -> Self {
        Self::of(OTHER, &[Command::FlowControlAck(ack)])
    }

    /// Flow control over the other channel. `[MS-RPCH] 2.2.4.51`
    pub fn flow_control_to(forward: Forward, ack: Ack) -> Self {
        Self::of(
            OTHER,
            &[Command::Destination(forward), Command::FlowControlAck(ack)],
        )
    }

    /// A sign of life. `[MS-RPCH] 2.2.4.49`
    pub fn ping() -> Self {
        Self::of(PING, &[])
    }

    /// The answer to a request that asked whether anybody is there. `[MS-RPCH] 2.2.4.48`
    pub fn echo() -> Self {
        Self::of(ECHO, &[])
    }

    /// The acknowledgement in it, with or without a destination.
    pub fn ack(&self) -> Option<Ack> {
        self.commands.iter().find_map(|command| match command {
            Command::FlowControlAck(ack) => Some(*ack),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests;
