//! Binds: which interfaces a connection is for, and the longest fragments. `[C706] 12.6.4.3, 12.6.4.4`

use super::BadPdu;
use super::bytes::{Fields, put_u16, put_u32};
use super::pdu::{self, Head, Kind};

/// An interface or a way to write data: a UUID as it is on the wire, and a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syntax {
    /// First three fields little-endian.
    pub uuid: [u8; 16],
    /// Major version, minor version.
    pub version: (u16, u16),
}

/// NDR, the one way everybody writes data. `[C706] 14`
pub const NDR: Syntax = Syntax {
    uuid: [
        0x04, 0x5d, 0x88, 0x8a, 0xeb, 0x1c, 0xc9, 0x11, 0x9f, 0xe8, 0x08, 0x00, 0x2b, 0x10, 0x48,
        0x60,
    ],
    version: (2, 0),
};
/// The mailbox store. `[MS-OXCRPC] 1.9`
pub const EMSMDB: Syntax = Syntax {
    uuid: [
        0x00, 0xdb, 0xf1, 0xa4, 0x47, 0xca, 0x67, 0x10, 0xb3, 0x1f, 0x00, 0xdd, 0x01, 0x06, 0x62,
        0xda,
    ],
    version: (0, 81),
};
/// Being told of events in the mailbox store. `[MS-OXCRPC] 1.9`
pub const ASYNC_EMSMDB: Syntax = Syntax {
    uuid: [
        0x4a, 0x57, 0x61, 0x52, 0x72, 0x45, 0x6e, 0x20, 0xb2, 0x68, 0x6b, 0x19, 0x92, 0x13, 0xb4,
        0xe4,
    ],
    version: (0, 1),
};

/// The address book. `[MS-OXNSPI] 1.9`
pub const NSPI: Syntax = Syntax {
    uuid: [
        0x18, 0x5a, 0xcc, 0xf5, 0x64, 0x42, 0x1a, 0x10, 0x8c, 0x59, 0x08, 0x00, 0x2b, 0x2f, 0x84,
        0x26,
    ],
    version: (56, 0),
};

impl Syntax {
    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.uuid);
        put_u16(to, self.version.0);
        put_u16(to, self.version.1);
    }

    fn read(from: &mut Fields<'_>) -> Result<Self, BadPdu> {
        Ok(Self {
            uuid: from.array("if_uuid")?,
            version: (from.u16("if_version")?, from.u16("if_version")?),
        })
    }
}

/// One interface of a bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The number calls name it by.
    pub id: u16,
    /// The interface.
    pub interface: Syntax,
    /// Ways to write data that the client knows.
    pub transfers: Vec<Syntax>,
}

/// A bind, or an alter-context, which has the same form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// [`Kind::BIND`] or [`Kind::ALTER_CONTEXT`].
    pub kind: Kind,
    /// Flags of the head: [`pdu::WHOLE`], perhaps with [`pdu::MULTIPLEX`].
    pub flags: u8,
    /// Which call.
    pub call_id: u32,
    /// The longest fragments sent and received.
    pub fragment_max: (u16, u16),
    /// 0, or a group this connection joins.
    pub group: u32,
    /// The interfaces; at most 255.
    pub contexts: Vec<Context>,
}

impl Bind {
    /// The PDU's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = head(self.kind, self.flags, self.call_id);
        put_u16(&mut bytes, self.fragment_max.0);
        put_u16(&mut bytes, self.fragment_max.1);
        put_u32(&mut bytes, self.group);
        put_u32(&mut bytes, count(self.contexts.len()).into());
        for context in &self.contexts {
            put_u16(&mut bytes, context.id);
            put_u16(&mut bytes, count(context.transfers.len()).into());
            context.interface.write(&mut bytes);
            for transfer in &context.transfers {
                transfer.write(&mut bytes);
            }
        }
        pdu::set_length(&mut bytes);
        bytes
    }

    /// Reads a whole PDU without authentication. Never allocates more than the bytes at hand.
    ///
    /// # Errors
    /// Another kind of PDU, or bytes that are not one.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadPdu> {
        let (head, mut from) = begun(bytes)?;
        if ![Kind::BIND, Kind::ALTER_CONTEXT].contains(&head.kind) {
            return Err(BadPdu::Impossible("PTYPE"));
        }
        let fragment_max = (from.u16("max_xmit_frag")?, from.u16("max_recv_frag")?);
        let group = from.u32("assoc_group_id")?;
        let count = from.u32("n_context_elem")?.to_le_bytes();
        let mut contexts = Vec::new();
        for _ in 0..first(count) {
            let id = from.u16("p_cont_id")?;
            let transfers = from.u16("n_transfer_syn")?.to_le_bytes();
            let interface = Syntax::read(&mut from)?;
            let transfers = (0..first(transfers))
                .map(|_| Syntax::read(&mut from))
                .collect::<Result<_, _>>()?;
            contexts.push(Context {
                id,
                interface,
                transfers,
            });
        }
        from.end()?;
        Ok(Self {
            kind: head.kind,
            flags: head.flags,
            call_id: head.call_id,
            fragment_max,
            group,
            contexts,
        })
    }
}

/// What became of one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// 0 accepted, 2 rejected.
    pub result: u16,
    /// Why it was rejected.
    pub reason: u16,
    /// How data is written.
    pub transfer: Syntax,
}

/// The answer to a bind or an alter-context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindAck {
    /// [`Kind::BIND_ACK`] or [`Kind::ALTER_CONTEXT_RESPONSE`].
    pub kind: Kind,
    /// As the bind had.
    pub flags: u8,
    /// Which call.
    pub call_id: u32,
    /// The longest fragments sent and received.
    pub fragment_max: (u16, u16),
    /// The group this connection is in.
    pub group: u32,
    /// The server's port in digits with a terminating zero; nothing in the answer to an alter-context.
    pub address: Vec<u8>,
    /// In the order of the interfaces.
    pub verdicts: Vec<Verdict>,
}

impl BindAck {
    /// The PDU's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = head(self.kind, self.flags, self.call_id);
        put_u16(&mut bytes, self.fragment_max.0);
        put_u16(&mut bytes, self.fragment_max.1);
        put_u32(&mut bytes, self.group);
        put_u16(
            &mut bytes,
            u16::try_from(self.address.len()).unwrap_or(u16::MAX),
        );
        bytes.extend_from_slice(&self.address);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        put_u32(&mut bytes, count(self.verdicts.len()).into());
        for verdict in &self.verdicts {
            put_u16(&mut bytes, verdict.result);
            put_u16(&mut bytes, verdict.reason);
            verdict.transfer.write(&mut bytes);
        }
        pdu::set_length(&mut bytes);
        bytes
    }

    /// Reads a whole PDU without authentication.
    ///
    /// # Errors
    /// Another kind of PDU, or bytes that are not one.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadPdu> {
        let (head, mut from) = begun(bytes)?;
        if ![Kind::BIND_ACK, Kind::ALTER_CONTEXT_RESPONSE].contains(&head.kind) {
            return Err(BadPdu::Impossible("PTYPE"));
        }
        let fragment_max = (from.u16("max_xmit_frag")?, from.u16("max_recv_frag")?);
        let group = from.u32("assoc_group_id")?;
        let length = usize::from(from.u16("sec_addr length")?);
        let address = from.take(length, "sec_addr")?.to_vec();
        // The list begins at a multiple of four from the PDU's first byte.
        let read = bytes.len() - from.left();
        from.take(read.next_multiple_of(4) - read, "pad2")?;
        let results = from.u32("n_results")?.to_le_bytes();
        let verdicts = (0..first(results))
            .map(|_| {
                Ok(Verdict {
                    result: from.u16("result")?,
                    reason: from.u16("reason")?,
                    transfer: Syntax::read(&mut from)?,
                })
            })
            .collect::<Result<_, BadPdu>>()?;
        // Some servers pad behind the list.
        Ok(Self {
            kind: head.kind,
            flags: head.flags,
            call_id: head.call_id,
            fragment_max,
            group,
            address,
            verdicts,
        })
    }
}

fn head(kind: Kind, flags: u8, call_id: u32) -> Vec<u8> {
    let head = Head {
        flags,
        ..Head::whole(kind, call_id)
    };
    head.encode().to_vec()
}

fn begun(bytes: &[u8]) -> Result<(Head, Fields<'_>), BadPdu> {
    let head = Head::read(bytes)?;
    if usize::from(head.length) != bytes.len() {
        return Err(BadPdu::Impossible("frag_length"));
    }
    if head.auth_length != 0 {
        return Err(BadPdu::Impossible("auth_length"));
    }
    let mut from = Fields::new(bytes);
    from.take(pdu::HEAD_BYTES, "head")?;
    Ok((head, from))
}

/// A count of one byte, reserved bytes behind it.
fn count(of: usize) -> u8 {
    u8::try_from(of).unwrap_or(u8::MAX)
}

/// The count in the first byte; the rest is reserved.
fn first<const N: usize>(bytes: [u8; N]) -> u8 {
    bytes.first().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn uuids_are_written_as_their_text_says() {
        fn text(syntax: &Syntax) -> String {
            let u = syntax.uuid;
            let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02X}")).collect::<String>();
            let turned = |bytes: &[u8]| bytes.iter().rev().copied().collect::<Vec<u8>>();
            format!(
                "{}-{}-{}-{}-{}",
                hex(&turned(&u[..4])),
                hex(&turned(&u[4..6])),
                hex(&turned(&u[6..8])),
                hex(&u[8..10]),
                hex(&u[10..])
            )
        }
        assert_eq!(text(&EMSMDB), "A4F1DB00-CA47-1067-B31F-00DD010662DA");
        assert_eq!(text(&ASYNC_EMSMDB), "5261574A-4572-206E-B268-6B199213B4E4");
        assert_eq!(text(&NDR), "8A885D04-1CEB-11C9-9FE8-08002B104860");
    }

    fn syntax() -> impl Strategy<Value = Syntax> {
        (any::<[u8; 16]>(), any::<(u16, u16)>())
            .prop_map(|(uuid, version)| Syntax { uuid, version })
    }

    proptest! {
        #[test]
        fn what_was_written_reads_the_same(
            call_id: u32,
            fragment_max: (u16, u16),
            group: u32,
            contexts in proptest::collection::vec(
                (any::<u16>(), syntax(), proptest::collection::vec(syntax(), 0..3)), 0..4),
            address in proptest::collection::vec(any::<u8>(), 0..9),
            alters: bool,
        ) {
            let bind = Bind {
                kind: if alters { Kind::ALTER_CONTEXT } else { Kind::BIND },
                flags: pdu::WHOLE | pdu::MULTIPLEX,
                call_id,
                fragment_max,
                group,
                contexts: contexts
                    .iter()
                    .cloned()
                    .map(|(id, interface, transfers)| Context { id, interface, transfers })
                    .collect(),
            };
            prop_assert_eq!(&Bind::decode(&bind.encode()).unwrap(), &bind);
            let ack = BindAck {
                kind: Kind::BIND_ACK,
                flags: pdu::WHOLE,
                call_id,
                fragment_max,
                group,
                address,
                verdicts: contexts
                    .iter()
                    .map(|(id, transfer, _)| Verdict { result: *id, reason: 0, transfer: *transfer })
                    .collect(),
            };
            prop_assert_eq!(&BindAck::decode(&ack.encode()).unwrap(), &ack);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80), kind in 11u8..16) {
            let mut pdu = vec![5, 0, kind, 3, 0x10, 0, 0, 0];
            pdu.extend_from_slice(&u16::try_from(16 + bytes.len()).unwrap().to_le_bytes());
            pdu.extend_from_slice(&[0, 0, 1, 0, 0, 0]);
            pdu.extend_from_slice(&bytes);
            let _ = Bind::decode(&pdu);
            let _ = BindAck::decode(&pdu);
        }
    }
}
