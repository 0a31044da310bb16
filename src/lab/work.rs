//! What a simulated mailbox server answers to operations, whichever protocol brought them.

use crate::ids::ServerName;
use crate::lab::{LAB_OPERATION, LAB_SIZED_OPERATION, digest};
use crate::mapi::bodies::rops::{
    HEADER_BYTES, PAYLOAD_MAX, read_chain, read_payload, write_chain, write_payload,
};

pub(super) use crate::outlook::rops::{LOGON, REGISTER_NOTIFICATION};

/// Operations of one request: those of the first block, and the handles behind them.
#[derive(Clone, Debug, Default)]
pub(super) struct Operations {
    pub(super) bytes: Vec<u8>,
    pub(super) handles: Vec<u32>,
}

impl Operations {
    /// Reads a ROP buffer; one that cannot be read has no operations.
    pub(super) fn read(rop_buffer: &[u8]) -> Self {
        let blocks = read_chain(rop_buffer).unwrap_or_default();
        let payload = blocks.first().map(|block| block.payload.as_slice());
        let (bytes, handles) = payload
            .and_then(|payload| read_payload(payload).ok())
            .unwrap_or_default();
        let handles = handles.as_chunks::<4>().0.iter();
        Self {
            bytes: bytes.to_vec(),
            handles: handles.map(|bytes| u32::from_le_bytes(*bytes)).collect(),
        }
    }

    /// Bytes that the lab's own operation asks to be answered with.
    fn wish(&self) -> Option<usize> {
        let rest = self.bytes.strip_prefix(&[LAB_SIZED_OPERATION])?;
        let (bytes, _) = rest.split_first_chunk()?;
        // As much as a client may ask for, and a little more for trying it out.
        usize::try_from(u32::from_le_bytes(*bytes).min(64 << 20)).ok()
    }

    /// The answer of the lab's own operation, in as many blocks as its size takes: the size the operation
    /// itself asks for, or else `wished`. `body` is what the answer repeats the digest of.
    pub(super) fn own_answer(&self, server: &ServerName, body: &[u8], wished: usize) -> Vec<u8> {
        let wished = self.wish().unwrap_or(wished);
        let name = server.as_str().as_bytes();
        let mut first = Vec::new();
        if let Some(&(LAB_OPERATION | LAB_SIZED_OPERATION)) = self.bytes.first() {
            first.push(LAB_OPERATION);
            first.extend(digest(body));
            first.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
            first.extend(name.iter().take(usize::from(u8::MAX)));
        }
        // Each block costs its header and the size of its operations.
        let overhead = HEADER_BYTES + 2;
        let per_block = PAYLOAD_MAX - 2;
        let mut left = wished.saturating_sub(overhead).max(first.len());
        let mut payloads = Vec::new();
        loop {
            let mut rops = std::mem::take(&mut first);
            rops.resize(left.min(per_block), LAB_OPERATION);
            left -= rops.len();
            payloads.push(write_payload(&rops, &[]));
            if left <= overhead {
                break;
            }
            left -= overhead;
        }
        write_chain(&payloads)
    }
}

/// One block of operations and handles.
pub(super) fn one(operations: &[u8], handles: &[u32]) -> Vec<u8> {
    write_chain(&[write_payload(operations, handles)])
}

/// Logon to a private mailbox: 166 bytes. `[MS-OXCROPS] 2.2.3.1.2`
pub(super) fn logon(mailbox: &str) -> Vec<u8> {
    let mut answer = vec![LOGON, 0, 0, 0, 0, 0, 1];
    for folder in 1u8..=13 {
        answer.extend([1, 0, 0, 0, 0, 0, 0, folder]);
    }
    answer.push(7);
    answer.extend(digest(mailbox.as_bytes()));
    answer.extend(5u16.to_le_bytes());
    answer.extend(digest(b"replica"));
    answer.extend([0; 8 + 8 + 4]);
    answer
}

/// Asks to be told of events: the answer. `[MS-OXCROPS] 2.2.14.1`
pub(super) fn registered(object: u32) -> Vec<u8> {
    one(&[REGISTER_NOTIFICATION, 1, 0, 0, 0, 0], &[object, 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logon_answer_has_166_bytes() {
        assert_eq!(logon("box@contoso.test").len(), 166);
    }

    #[test]
    fn an_answer_is_as_long_as_the_operation_asks() {
        let server = ServerName::new("MBX1");
        for wished in [100, 2048, 32 << 10, 51_169, 256 << 10] {
            let mut operation = vec![LAB_SIZED_OPERATION];
            operation.extend(u32::try_from(wished).unwrap().to_le_bytes());
            let asked = Operations::read(&one(&operation, &[]));

            let answer = asked.own_answer(&server, b"body", 7);

            assert_eq!(answer.len(), wished);
            assert!(read_chain(&answer).is_ok());
        }
    }

    #[test]
    fn an_operation_that_asks_for_no_size_gets_the_servers_own() {
        let asked = Operations::read(&one(&[LAB_OPERATION, 1, 2], &[]));

        assert_eq!(
            asked
                .own_answer(&ServerName::new("MBX1"), b"body", 512)
                .len(),
            512
        );
    }
}
