//! Reads a PROXY protocol version 2 head, and not a byte more.
//!
//! Source: haproxy.org, "The PROXY protocol", version 2.

use ppp::v2::{Addresses, Command, Header};
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Signature, version, family, length.
const FIXED: usize = 16;
/// Addresses and the fields after them; nobody sends nearly as much.
const REST_MAX: usize = 1024;

/// The client that the peer speaks for; `None` where the peer speaks for itself (a health check).
///
/// # Errors
/// The head is not one, or is longer than it could honestly be.
pub(super) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<SocketAddr>> {
    let bad = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut head = [0; FIXED + REST_MAX];
    let (fixed, rest) = head.split_at_mut(FIXED);
    stream.read_exact(fixed).await?;
    let length = match fixed {
        [.., high, low] => usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    };
    let rest = rest
        .get_mut(..length)
        .ok_or_else(|| bad("PROXY head too long"))?;
    stream.read_exact(rest).await?;
    let whole = head.get(..FIXED + length).unwrap_or_default();
    let header = Header::try_from(whole).map_err(|_not_one| bad("no PROXY protocol v2 head"))?;
    Ok(match (header.command, header.addresses) {
        (Command::Local, _) => None,
        (Command::Proxy, Addresses::IPv4(pair)) => {
            Some((pair.source_address, pair.source_port).into())
        }
        (Command::Proxy, Addresses::IPv6(pair)) => {
            Some((pair.source_address, pair.source_port).into())
        }
        (Command::Proxy, _) => return Err(bad("PROXY head without addresses")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ppp::v2::{Builder, IPv4, Protocol, Version};

    fn head(command: Command) -> Vec<u8> {
        let addresses = IPv4::new([192, 0, 2, 7], [10, 0, 0, 1], 40000, 443);
        Builder::with_addresses(Version::Two | command, Protocol::Stream, addresses)
            .build()
            .unwrap()
    }

    #[tokio::test]
    async fn the_client_is_told_and_the_next_byte_is_left_alone() {
        let wire = [head(Command::Proxy), b"\x16rest".to_vec()].concat();
        let mut stream = &wire[..];
        let client = read(&mut stream).await.unwrap();
        assert_eq!(client, Some("192.0.2.7:40000".parse().unwrap()));
        assert_eq!(stream, b"\x16rest");
    }

    #[tokio::test]
    async fn a_peer_may_speak_for_itself() {
        assert_eq!(read(&mut &head(Command::Local)[..]).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_no_head_is_refused() {
        let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        assert!(read(&mut &tls[..]).await.is_err());
        let mut long = head(Command::Proxy);
        long[14] = 0xff;
        assert!(read(&mut &long[..]).await.is_err());
        assert!(read(&mut &head(Command::Proxy)[..20]).await.is_err());
    }
}
