//! PDUs of connection-oriented DCE/RPC: the head all have, and the fragments of requests and answers.
//! `[C706] 12.6, [MS-RPCE] 2.2.2`

use super::BadPdu;
use super::bytes::{Fields, put_u16, put_u32};

/// Bytes every PDU begins with.
pub const HEAD_BYTES: usize = 16;
/// Bytes in front of the stub data of a request or answer.
pub const CALL_HEAD_BYTES: usize = 24;
/// The longest fragment that is usually agreed on.
pub const FRAGMENT_MAX: u16 = 5840;
/// Stub data of a fragment other than the last is a multiple of this. `[C706] 12.6.3.1`
const STUB_STEP: usize = 8;
/// Stub data of a sealed fragment is padded to a multiple of this. `[MS-RPCE] 2.2.2.11`
const SEALED_STEP: usize = 16;
/// Bytes of `sec_trailer`. `[MS-RPCE] 2.2.2.11`
pub const TRAILER_BYTES: usize = 8;

/// The first fragment of a call.
pub const FIRST: u8 = 1;
/// The last fragment of a call.
pub const LAST: u8 = 2;
/// First and last.
pub const WHOLE: u8 = FIRST | LAST;
/// Several calls may be under way on one connection.
pub const MULTIPLEX: u8 = 0x10;
/// An object's UUID follows the opnum.
const OBJECT: u8 = 0x80;

/// What a PDU is for. Unknown kinds are carried as numbers. `[C706] 12.6.4`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind(pub u8);

impl Kind {
    /// Calls a procedure.
    pub const REQUEST: Self = Self(0);
    /// What it returned.
    pub const RESPONSE: Self = Self(2);
    /// That it was not performed.
    pub const FAULT: Self = Self(3);
    /// Begins a connection.
    pub const BIND: Self = Self(11);
    /// It began.
    pub const BIND_ACK: Self = Self(12);
    /// Adds an interface.
    pub const ALTER_CONTEXT: Self = Self(14);
    /// It was added.
    pub const ALTER_CONTEXT_RESPONSE: Self = Self(15);
    /// RPC over HTTP's own. `[MS-RPCH] 2.2.3.6.1`
    pub const RTS: Self = Self(20);
}

/// Version, kind, flags and representation of data: the part of the head that says how to read the rest.
const LITTLE_ENDIAN: [u8; 4] = [0x10, 0, 0, 0];

/// The head every PDU begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What it is for.
    pub kind: Kind,
    /// [`FIRST`], [`LAST`] and others.
    pub flags: u8,
    /// Bytes of the PDU, head included.
    pub length: u16,
    /// Bytes of the authentication value at its end.
    pub auth_length: u16,
    /// Which call it belongs to.
    pub call_id: u32,
}

impl Head {
    /// A PDU of one fragment, as long as its head.
    pub fn whole(kind: Kind, call_id: u32) -> Self {
        Self {
            kind,
            flags: WHOLE,
            length: 16,
            auth_length: 0,
            call_id,
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        let mut to = bytes.iter_mut();
        let fields = [5, 0, self.kind.0, self.flags]
            .into_iter()
            .chain(LITTLE_ENDIAN)
            .chain(self.length.to_le_bytes())
            .chain(self.auth_length.to_le_bytes())
            .chain(self.call_id.to_le_bytes());
        for (byte, field) in to.by_ref().zip(fields) {
            *byte = field;
        }
        bytes
    }

    /// Reads the head of a PDU, which may not be there as a whole.
    ///
    /// # Errors
    /// Fewer than 16 bytes, another version than 5.0, another byte order than little-endian ASCII, or a length
    /// shorter than the head.
    pub fn read(bytes: &[u8]) -> Result<Self, BadPdu> {
        let mut from = Fields::new(bytes);
        if from.array::<2>("rpc_vers")? != [5, 0] {
            return Err(BadPdu::Impossible("rpc_vers"));
        }
        let (kind, flags) = (Kind(from.u8("PTYPE")?), from.u8("pfc_flags")?);
        if from.array::<4>("packed_drep")? != LITTLE_ENDIAN {
            return Err(BadPdu::Impossible("packed_drep"));
        }
        let length = from.u16("frag_length")?;
        if usize::from(length) < HEAD_BYTES {
            return Err(BadPdu::Impossible("frag_length"));
        }
        Ok(Self {
            kind,
            flags,
            length,
            auth_length: from.u16("auth_length")?,
            call_id: from.u32("call_id")?,
        })
    }
}

/// Writes the length of a finished PDU into its head.
pub(super) fn set_length(pdu: &mut [u8]) {
    let length = u16::try_from(pdu.len()).unwrap_or(u16::MAX).to_le_bytes();
    for (byte, value) in pdu.iter_mut().skip(8).zip(length) {
        *byte = value;
    }
}

/// The authentication value behind each fragment of a sealed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The authentication service: 10 NTLM, 9 Negotiate, 16 Kerberos. `[MS-RPCE] 2.2.1.1.7`
    pub service: u8,
    /// 5 integrity, 6 privacy. `[MS-RPCE] 2.2.1.1.8`
    pub level: u8,
    /// Bytes of the signature: 16 with NTLM.
    pub signature: u16,
}

/// Which way a call's fragments go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A request: the number of the procedure.
    Request(u16),
    /// An answer.
    Response,
}

/// A call's stub data, ready to be cut into fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which way.
    pub way: Way,
    /// Which call.
    pub call_id: u32,
    /// Which interface, by its number in the bind.
    pub context: u16,
    /// The longest fragment the other side takes.
    pub fragment_max: u16,
    /// Behind each fragment.
    pub seal: Option<Seal>,
}

impl Call {
    /// Stub data that a full fragment holds: at least 8 bytes, whatever the longest fragment is.
    pub fn stub_max(&self) -> usize {
        let room = usize::from(self.fragment_max).saturating_sub(CALL_HEAD_BYTES);
        let (room, step) = match self.seal {
            None => (room, STUB_STEP),
            Some(seal) => (
                room.saturating_sub(TRAILER_BYTES + usize::from(seal.signature)),
                SEALED_STEP,
            ),
        };
        (room - room % step).max(STUB_STEP)
    }

    /// The fragments, each a PDU. Signatures are zeros: the lab weighs them, it does not sign. Costs a copy.
    pub fn fragments(&self, stub: &[u8]) -> Vec<Vec<u8>> {
        let most = self.stub_max();
        let count = stub.len().div_ceil(most).max(1);
        (0..count)
            .map(|index| {
                let rest = stub.get(index * most..).unwrap_or_default();
                let piece = rest.get(..most).unwrap_or(rest);
                let first = if index == 0 { FIRST } else { 0 };
                let last = if index + 1 == count { LAST } else { 0 };
                self.fragment(first | last, piece, rest.len())
            })
            .collect()
    }

    fn fragment(&self, flags: u8, stub: &[u8], left: usize) -> Vec<u8> {
        let kind = match self.way {
            Way::Request(_) => Kind::REQUEST,
            Way::Response => Kind::RESPONSE,
        };
        let mut head = Head::whole(kind, self.call_id);
        head.flags = flags;
        head.auth_length = self.seal.map_or(0, |seal| seal.signature);
        let mut pdu = Vec::with_capacity(usize::from(self.fragment_max));
        pdu.extend_from_slice(&head.encode());
        put_u32(&mut pdu, u32::try_from(left).unwrap_or(u32::MAX));
        put_u16(&mut pdu, self.context);
        // An answer has a count of cancels and a reserved byte where a request has its procedure.
        put_u16(
            &mut pdu,
            match self.way {
                Way::Request(procedure) => procedure,
                Way::Response => 0,
            },
        );
        pdu.extend_from_slice(stub);
        if let Some(seal) = self.seal {
            let padding = stub.len().next_multiple_of(SEALED_STEP) - stub.len();
            pdu.resize(pdu.len() + padding, 0);
            let padding = u8::try_from(padding).unwrap_or(0);
            pdu.extend_from_slice(&[seal.service, seal.level, padding, 0]);
            put_u32(&mut pdu, 0);
            pdu.resize(pdu.len() + usize::from(seal.signature), 0);
        }
        set_length(&mut pdu);
        pdu
    }
}

/// One fragment of a call, as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Its head.
    pub head: Head,
    /// Which way.
    pub way: Way,
    /// Which interface, by its number in the bind.
    pub context: u16,
    /// Bytes that come, by the sender's estimate. Not to be believed.
    pub alloc_hint: u32,
    /// The stub data, padding removed.
    pub stub: &'a [u8],
    /// What is behind it.
    pub seal: Option<Seal>,
}

impl<'a> Fragment<'a> {
    /// Reads a whole PDU that is a fragment.
    ///
    /// # Errors
    /// Another kind of PDU, a length that is not that of the bytes, an authentication value beyond the PDU.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, BadPdu> {
        let head = Head::read(bytes)?;
        if usize::from(head.length) != bytes.len() {
            return Err(BadPdu::Impossible("frag_length"));
        }
        let mut from = Fields::new(bytes);
        from.take(HEAD_BYTES, "head")?;
        let alloc_hint = from.u32("alloc_hint")?;
        let context = from.u16("p_cont_id")?;
        let number = from.u16("opnum")?;
        let way = match head.kind {
            Kind::REQUEST => Way::Request(number),
            Kind::RESPONSE => Way::Response,
            _ => return Err(BadPdu::Impossible("PTYPE")),
        };
        if head.kind == Kind::REQUEST && head.flags & OBJECT != 0 {
            from.take(16, "object")?;
        }
        let (stub, seal) = match head.auth_length {
            0 => (from.take(from.left(), "stub")?, None),
            signature => {
                let behind = TRAILER_BYTES + usize::from(signature);
                let length = from.left().checked_sub(behind);
                let stub = from.take(length.ok_or(BadPdu::Short("sec_trailer"))?, "stub")?;
                let seal = Seal {
                    service: from.u8("auth_type")?,
                    level: from.u8("auth_level")?,
                    signature,
                };
                let padding = usize::from(from.u8("auth_pad_length")?);
                let length = stub.len().checked_sub(padding);
                let stub = stub.get(..length.ok_or(BadPdu::Impossible("auth_pad_length"))?);
                (stub.unwrap_or_default(), Some(seal))
            }
        };
        Ok(Self {
            head,
            way,
            context,
            alloc_hint,
            stub,
            seal,
        })
    }

    /// It is the last of its call.
    pub fn is_last(&self) -> bool {
        self.head.flags & LAST != 0
    }
}

/// That a call was not performed. `[C706] 12.6.4.7`
pub fn fault(call_id: u32, context: u16, status: u32) -> Vec<u8> {
    let mut pdu = Head::whole(Kind::FAULT, call_id).encode().to_vec();
    put_u32(&mut pdu, 0);
    put_u16(&mut pdu, context);
    put_u16(&mut pdu, 0);
    put_u32(&mut pdu, status);
    put_u32(&mut pdu, 0);
    set_length(&mut pdu);
    pdu
}

/// The status in a fault.
///
/// # Errors
/// Another kind of PDU, or one that ends before its status.
pub fn fault_status(bytes: &[u8]) -> Result<u32, BadPdu> {
    if Head::read(bytes)?.kind != Kind::FAULT {
        return Err(BadPdu::Impossible("PTYPE"));
    }
    let mut from = Fields::new(bytes);
    from.take(CALL_HEAD_BYTES, "head")?;
    from.u32("status")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn call(way: Way, seal: Option<Seal>) -> Call {
        Call {
            way,
            call_id: 7,
            context: 1,
            fragment_max: FRAGMENT_MAX,
            seal,
        }
    }

    const NTLM: Seal = Seal {
        service: 10,
        level: 6,
        signature: 16,
    };

    #[test]
    fn a_full_fragment_holds_5816_bytes_and_a_sealed_one_5792() {
        assert_eq!(call(Way::Response, None).stub_max(), 5840 - 24);
        assert_eq!(
            call(Way::Response, Some(NTLM)).stub_max(),
            5840 - 24 - 8 - 16
        );
    }

    #[test]
    fn fifty_kilobytes_are_nine_fragments_and_216_bytes_of_heads() {
        let stub = vec![1; 50 << 10];

        let fragments = call(Way::Response, None).fragments(&stub);

        assert_eq!(fragments.len(), 9);
        let bytes: usize = fragments.iter().map(Vec::len).sum();
        assert_eq!(bytes - stub.len(), 9 * 24);
        assert_eq!(fragments[0].len(), 5840);
        let hints: Vec<u32> = fragments
            .iter()
            .map(|pdu| Fragment::decode(pdu).unwrap().alloc_hint)
            .collect();
        assert_eq!(hints[..2], [51_200, 51_200 - 5_816]);
    }

    #[test]
    fn a_sealed_fragment_is_padded_to_sixteen_and_the_padding_is_not_payload() {
        let fragments = call(Way::Request(11), Some(NTLM)).fragments(&[9; 17]);

        assert_eq!(fragments[0].len(), 24 + 32 + 8 + 16);
        let read = Fragment::decode(&fragments[0]).unwrap();
        assert_eq!(read.stub, [9; 17]);
        assert_eq!(read.way, Way::Request(11));
        assert_eq!(read.head.auth_length, 16);
    }

    #[test]
    fn a_call_without_arguments_is_one_empty_fragment() {
        let fragments = call(Way::Request(6), None).fragments(&[]);

        assert_eq!(fragments.len(), 1);
        assert_eq!(fragments[0].len(), CALL_HEAD_BYTES);
        assert!(Fragment::decode(&fragments[0]).unwrap().is_last());
    }

    #[test]
    fn an_objects_uuid_is_passed_over() {
        let mut pdu = call(Way::Request(3), None).fragments(&[7; 20])[0].clone();
        pdu[3] |= OBJECT;

        assert_eq!(Fragment::decode(&pdu).unwrap().stub, [7; 4]);
    }

    #[test]
    fn a_fault_carries_its_status() {
        let pdu = fault(3, 0, 0x1c01_0002);

        assert_eq!(pdu.len(), 32);
        assert_eq!(fault_status(&pdu), Ok(0x1c01_0002));
        assert!(fault_status(&call(Way::Response, None).fragments(&[])[0]).is_err());
    }

    proptest! {
        #[test]
        fn what_is_cut_into_fragments_comes_together_again(
            stub in proptest::collection::vec(any::<u8>(), 0..4000),
            fragment_max in 0u16..600,
            is_sealed: bool,
            is_request: bool,
        ) {
            let call = Call {
                fragment_max,
                ..call(
                    if is_request { Way::Request(11) } else { Way::Response },
                    is_sealed.then_some(NTLM),
                )
            };
            let mut read = Vec::new();
            let fragments = call.fragments(&stub);
            for (index, pdu) in fragments.iter().enumerate() {
                let fragment = Fragment::decode(pdu).unwrap();
                prop_assert_eq!(fragment.head.flags & FIRST != 0, index == 0);
                prop_assert_eq!(fragment.is_last(), index + 1 == fragments.len());
                prop_assert_eq!((fragment.way, fragment.seal), (call.way, call.seal));
                read.extend_from_slice(fragment.stub);
            }
            prop_assert_eq!(read, stub);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Fragment::decode(&bytes);
            let _ = fault_status(&bytes);
            // And behind a good beginning, where the rest is looked at.
            let mut good = [5, 0, 0, 3, 0x10, 0, 0, 0].to_vec();
            good.extend_from_slice(&bytes);
            let _ = Fragment::decode(&good);
        }
    }
}
