//! Answers made wrong before they are delivered.

use super::Server;
use super::answers::{Payload, Reply, forged_cookie};
use super::faults::Fault;
use crate::mapi::Flavour;

impl Server {
    /// Changes the answer for the faults that are in it; `Some` when the connection cannot go on.
    pub(super) fn spoil(&self, reply: &mut Reply, fault: Fault) -> Option<()> {
        let flavour = self.options.flavour;
        match fault {
            Fault::WrongCookie => {
                let forged = forged_cookie(flavour, None);
                replace_cookie(reply, flavour, forged);
                None
            }
            Fault::ForeignCookie => {
                let own = format!("{}=", flavour.cookies().context);
                let own = reply
                    .headers
                    .iter()
                    .find_map(|(_, value)| value.strip_prefix(&own))
                    .map(|value| value.split(';').next().unwrap_or_default().to_owned());
                let other = self.contexts.another(own.as_deref().unwrap_or_default());
                replace_cookie(reply, flavour, forged_cookie(flavour, other));
                None
            }
            Fault::TwoLengths => {
                count_body(reply);
                reply.headers.push(("Content-Length", "7".to_owned()));
                Some(())
            }
            Fault::LengthAndChunked => {
                count_body(reply);
                reply
                    .headers
                    .push(("Transfer-Encoding", "chunked".to_owned()));
                Some(())
            }
            Fault::OversizeHead => {
                reply.headers.push(("X-Large", "x".repeat(128 * 1024)));
                None
            }
            Fault::Gzip => {
                count_body(reply);
                if let Payload::Counted(body) = &mut reply.body {
                    *body = gzip(body);
                    let length = body.len().to_string();
                    set_header(reply, "Content-Length", length);
                }
                reply.headers.push(("Content-Encoding", "gzip".to_owned()));
                None
            }
            _ => None,
        }
    }
}

fn set_header(reply: &mut Reply, name: &'static str, value: String) {
    reply.headers.retain(|(known, _)| *known != name);
    reply.headers.push((name, value));
}

fn replace_cookie(reply: &mut Reply, flavour: Flavour, forged: String) {
    let own = format!("{}=", flavour.cookies().context);
    match reply
        .headers
        .iter_mut()
        .find(|(name, value)| *name == "Set-Cookie" && value.starts_with(&own))
    {
        Some((_, value)) => *value = forged,
        None => reply.headers.push(("Set-Cookie", forged)),
    }
}

/// Turns chunks into a counted body.
fn count_body(reply: &mut Reply) {
    let body = match &reply.body {
        Payload::Counted(body) => body.clone(),
        Payload::Chunks(pieces) | Payload::Open(pieces) => pieces.concat(),
    };
    reply
        .headers
        .retain(|(name, _)| *name != "Transfer-Encoding");
    set_header(reply, "Content-Length", body.len().to_string());
    reply.body = Payload::Counted(body);
}

/// The bytes in gzip, stored and not deflated: enough for whoever would look inside. RFC 1952, RFC 1951 3.2.4
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let blocks = bytes.chunks(usize::from(u16::MAX));
    let last = blocks.len().saturating_sub(1);
    for (position, block) in blocks.enumerate() {
        let size = u16::try_from(block.len()).unwrap_or(u16::MAX);
        packed.push(u8::from(position == last));
        packed.extend(size.to_le_bytes());
        packed.extend((!size).to_le_bytes());
        packed.extend_from_slice(block);
    }
    let crc = !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| match sum & 1 {
            1 => (sum >> 1) ^ 0xedb8_8320,
            _ => sum >> 1,
        })
    });
    packed.extend(crc.to_le_bytes());
    packed.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    packed
}
