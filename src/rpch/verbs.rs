//! The two HTTP requests of a virtual connection: their verbs, where they want to go, and what their length says.

use std::fmt;

/// Content-Length of an OUT channel that begins a virtual connection: a `CONN/A1`. `[MS-RPCH] 2.1.2.1.2`
pub const OUT_LENGTH: u64 = 76;
/// Content-Length of an OUT channel that takes over from another: `OUT_R1/A3` and the 24 bytes behind it.
/// `[MS-RPCH] 2.1.2.1.2`
pub const OUT_SUCCESSOR_LENGTH: u64 = 120;
/// The longest body that only asks whether anybody is there. `[MS-RPCH] 2.1.2.1.5`
pub const ECHO_LENGTH_MAX: u64 = 0x10;
/// Shortest lifetime of a channel, in bytes. `[MS-RPCH] 2.1.2.1.1`
pub const LIFETIME_MIN: u64 = 128 << 10;
/// Longest lifetime of a channel, in bytes. `[MS-RPCH] 2.1.2.1.1`
pub const LIFETIME_MAX: u64 = 2 << 30;
/// The lifetime everybody uses, in bytes.
pub const LIFETIME: u32 = 1 << 30;

/// Which way a channel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// `RPC_IN_DATA`: from the client to the server.
    In,
    /// `RPC_OUT_DATA`: from the server to the client.
    Out,
}

impl Verb {
    /// The method as it is on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::In => "RPC_IN_DATA",
            Self::Out => "RPC_OUT_DATA",
        }
    }

    /// Both, in the order of their indices.
    pub const ALL: [Self; 2] = [Self::In, Self::Out];

    /// The word used in logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }

    /// Position in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Reads a method; they are written in capitals. `[RFC9110] 9.1`
    pub fn read(method: &[u8]) -> Option<Self> {
        [Self::In, Self::Out]
            .into_iter()
            .find(|verb| verb.as_str().as_bytes() == method)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What logs and metrics call all this where MAPI over HTTP has an endpoint.
pub const ENDPOINT: &str = "outlook_anywhere";

/// The folder a channel's URL names. Servers may ask for other credentials in one than in the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folder {
    /// `/rpc`
    Rpc,
    /// `/rpcwithcert`
    RpcWithCert,
}

impl Folder {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Rpc, Self::RpcWithCert];

    /// The one spelling of its path that we send to a server.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Rpc => "/rpc/rpcproxy.dll",
            Self::RpcWithCert => "/rpcwithcert/rpcproxy.dll",
        }
    }
}

/// What answers behind a port. A closed list: a door that let its clients choose any port would connect them to
/// anything. `[MS-OXCRPC] 2.1, [MS-OXABREF] 2.1, [MS-OXNSPI] 2.1`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// 6001: the mailbox store.
    Store,
    /// 6002: who tells where the address book is.
    Referral,
    /// 6004: the address book.
    Directory,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Store, Self::Referral, Self::Directory];

    /// Its port.
    pub const fn port(self) -> u16 {
        match self {
            Self::Store => 6001,
            Self::Referral => 6002,
            Self::Directory => 6004,
        }
    }

    /// What is behind a port.
    pub fn of_port(port: u16) -> Option<Self> {
        let mut known = Self::ALL.into_iter();
        known.find(|service| service.port() == port)
    }
}

/// Where a channel wants to go: the query of its URL. `[MS-RPCH] 2.2.2`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination<'a> {
    /// A mailbox, `guid@domain`, or the name of a server.
    pub server: &'a str,
    /// 6001 store, 6002 referral, 6004 directory.
    pub port: u16,
}

impl<'a> Destination<'a> {
    /// Reads `server:port`. Says nothing about whether we know the server.
    pub fn read(query: &'a str) -> Option<Self> {
        let (server, port) = query.rsplit_once(':')?;
        // One spelling of a number: whoever reads it behind us must not find another.
        let canonical = !port.starts_with('0') && port.bytes().all(|byte| byte.is_ascii_digit());
        if server.is_empty() || !canonical {
            return None;
        }
        let port = port.parse().ok()?;
        Some(Self { server, port })
    }
}

/// What a request with one of the two verbs is about, by its length alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Asks whether anybody is there; the answer is an echo PDU of 20 bytes.
    Echo,
    /// A channel; what kind says the PDU it begins with.
    Channel,
}

impl Opening {
    /// Judges a Content-Length; `None` is a length no client of the protocol sends. `[MS-RPCH] 2.1.2.1`
    pub fn of(verb: Verb, content_length: u64) -> Option<Self> {
        match (verb, content_length) {
            (_, 0..=ECHO_LENGTH_MAX) => Some(Self::Echo),
            (Verb::In, LIFETIME_MIN..=LIFETIME_MAX)
            | (Verb::Out, OUT_LENGTH | OUT_SUCCESSOR_LENGTH) => Some(Self::Channel),
            _ => None,
        }
    }
}

/// A Win32 error in the reason phrase of a 503: `RPC Error: 6ba`. `[MS-RPCH] 2.1.2.1.3`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RpcError(pub u32);

impl RpcError {
    /// The server is not to be had.
    pub const SERVER_UNAVAILABLE: Self = Self(0x6ba);
    /// The server is too busy.
    pub const SERVER_TOO_BUSY: Self = Self(0x6bb);
    /// What was said is not the protocol.
    pub const PROTOCOL_ERROR: Self = Self(0x6c0);
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RPC Error: {:x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_read_as_written_and_in_capitals_only() {
        assert_eq!(Verb::read(b"RPC_IN_DATA"), Some(Verb::In));
        assert_eq!(Verb::read(b"RPC_OUT_DATA"), Some(Verb::Out));
        assert_eq!(Verb::read(b"rpc_in_data"), None);
        assert_eq!(Verb::read(b"POST"), None);
    }

    #[test]
    fn a_destination_is_a_mailbox_or_a_server_and_a_port() {
        let mailbox = Destination::read("00000000-0000-4000-8000-000000000001@contoso.test:6001");
        assert_eq!(
            mailbox,
            Some(Destination {
                server: "00000000-0000-4000-8000-000000000001@contoso.test",
                port: 6001
            })
        );
        for wrong in [
            "",
            "mbx1",
            ":6001",
            "mbx1:",
            "mbx1:+6001",
            "mbx1:66001",
            "mbx1:06001",
        ] {
            assert_eq!(Destination::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn behind_three_ports_there_is_something() {
        let known: Vec<u16> = (0..=u16::MAX)
            .filter(|port| Service::of_port(*port).is_some())
            .collect();
        assert_eq!(known, [6001, 6002, 6004]);
    }

    #[test]
    fn an_error_reads_as_clients_look_for_it() {
        assert_eq!(RpcError::SERVER_UNAVAILABLE.to_string(), "RPC Error: 6ba");
    }

    #[test]
    fn the_length_tells_an_echo_from_a_channel() {
        assert_eq!(Opening::of(Verb::In, 0), Some(Opening::Echo));
        assert_eq!(Opening::of(Verb::Out, 0x10), Some(Opening::Echo));
        assert_eq!(Opening::of(Verb::In, 1 << 30), Some(Opening::Channel));
        assert_eq!(Opening::of(Verb::Out, 76), Some(Opening::Channel));
        assert_eq!(Opening::of(Verb::Out, 120), Some(Opening::Channel));
        for (verb, length) in [
            (Verb::In, 0x11),
            (Verb::In, (128 << 10) - 1),
            (Verb::In, (2 << 30) + 1),
            (Verb::Out, 77),
            (Verb::Out, 1 << 30),
        ] {
            assert_eq!(Opening::of(verb, length), None, "{verb} {length}");
        }
    }
}
