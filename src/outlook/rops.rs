//! The operations every Outlook begins with: it logs on to the mailbox, and asks to be told of events.

use crate::mapi::bodies::rops::{
    Block, COMPRESSED, XOR_MAGIC, read_chain, read_payload, write_chain, write_payload,
};

/// Operations by their number. `[MS-OXCROPS] 2.2.2`
pub const LOGON: u8 = 0xfe;
/// Asks to be told of events.
pub const REGISTER_NOTIFICATION: u8 = 0x29;

/// What every Outlook executes after connecting.
pub fn opening(dn: &str) -> [Vec<u8>; 2] {
    [logon(dn), register(0)]
}

/// Logs on to the private mailbox of this distinguished name. `[MS-OXCROPS] 2.2.3.1.1`
pub fn logon(dn: &str) -> Vec<u8> {
    let mut logon = vec![LOGON, 0, 0, 1, 0x0c, 4, 0, 1, 0, 0, 0, 0];
    logon.extend(u16::try_from(dn.len() + 1).unwrap_or(0).to_le_bytes());
    logon.extend_from_slice(dn.as_bytes());
    logon.push(0);
    write_chain(&[write_payload(&logon, &[u32::MAX])])
}

/// Asks for the events of the whole mailbox that was logged on to as this handle. `[MS-OXCROPS] 2.2.14.1.1`
pub fn register(mailbox: u32) -> Vec<u8> {
    let register = [REGISTER_NOTIFICATION, 0, 0, 1, 0xfe, 0, 1];
    write_chain(&[write_payload(&register, &[mailbox, u32::MAX])])
}

/// What came of a logon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoggedOn {
    /// The mailbox is open.
    Open {
        /// Its handle, for further operations.
        handle: u32,
    },
    /// It is not.
    Refused {
        /// Why, in MAPI's numbers.
        code: u32,
        /// The server that is to be asked instead, where the answer names one. `[MS-OXCROPS] 2.2.3.1.4`
        elsewhere: Option<String>,
    },
    /// The answer is compressed, though we asked for none of that: nothing is known.
    Compressed,
}

impl LoggedOn {
    /// Reads the ROP buffer of the answer; `None` for one that answers something else.
    pub fn read(rop_buffer: &[u8]) -> Option<Self> {
        let block = read_chain(rop_buffer).ok()?.into_iter().next()?;
        if block.flags & COMPRESSED != 0 {
            return Some(Self::Compressed);
        }
        let payload = plain(block);
        let (operations, handles) = read_payload(&payload).ok()?;
        let (&operation, rest) = operations.split_first()?;
        let (_index, rest) = rest.split_first()?;
        let (code, rest) = rest.split_first_chunk::<4>()?;
        if operation != LOGON {
            return None;
        }
        Some(match u32::from_le_bytes(*code) {
            0 => Self::Open {
                handle: handles
                    .first_chunk::<4>()
                    .map_or(0, |handle| u32::from_le_bytes(*handle)),
            },
            code => Self::Refused {
                code,
                elsewhere: redirect(rest).filter(|_| code == WRONG_SERVER),
            },
        })
    }
}

/// Flags, then a name behind its length that ends with a zero.
fn redirect(rest: &[u8]) -> Option<String> {
    let [_flags, size, name @ ..] = rest else {
        return None;
    };
    let name = name.get(..usize::from(*size))?;
    let name = name.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(name).into_owned())
}

fn plain(block: Block) -> Vec<u8> {
    let mut payload = block.payload;
    if block.flags & XOR_MAGIC != 0 {
        payload.iter_mut().for_each(|byte| *byte ^= 0xa5);
    }
    payload
}

/// ecWrongServer: the mailbox is elsewhere. `[MS-OXCDATA] 2.4`
pub const WRONG_SERVER: u32 = 0x478;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapi::bodies::rops::LAST;

    fn answer(operations: &[u8], handles: &[u32]) -> Vec<u8> {
        write_chain(&[write_payload(operations, handles)])
    }

    #[test]
    fn a_logon_is_open_with_its_handle_or_refused_with_its_code() {
        let open = answer(&[LOGON, 0, 0, 0, 0, 0, 1, 9, 9], &[7]);
        assert_eq!(LoggedOn::read(&open), Some(LoggedOn::Open { handle: 7 }));

        let refused = answer(&[LOGON, 0, 0x05, 0, 0x07, 0x80], &[u32::MAX]);
        let expected = LoggedOn::Refused {
            code: 0x8007_0005,
            elsewhere: None,
        };
        assert_eq!(LoggedOn::read(&refused), Some(expected));

        let mut elsewhere = vec![LOGON, 0, 0x78, 4, 0, 0, 1, 5];
        elsewhere.extend(b"MBX2\0");
        let expected = LoggedOn::Refused {
            code: WRONG_SERVER,
            elsewhere: Some("MBX2".to_owned()),
        };
        assert_eq!(LoggedOn::read(&answer(&elsewhere, &[])), Some(expected));
    }

    #[test]
    fn an_obfuscated_answer_is_read_and_a_compressed_one_is_said_to_be_so() {
        let mut hidden = answer(&[LOGON, 0, 0, 0, 0, 0], &[3]);
        let (head, payload) = hidden.split_at_mut(8);
        head[2] |= XOR_MAGIC.to_le_bytes()[0];
        payload.iter_mut().for_each(|byte| *byte ^= 0xa5);
        assert_eq!(LoggedOn::read(&hidden), Some(LoggedOn::Open { handle: 3 }));

        hidden[2] = (LAST | COMPRESSED).to_le_bytes()[0];
        assert_eq!(LoggedOn::read(&hidden), Some(LoggedOn::Compressed));
        assert_eq!(LoggedOn::read(&answer(&[1, 0, 0], &[])), None);
        assert_eq!(LoggedOn::read(b"nonsense"), None);
    }
}
