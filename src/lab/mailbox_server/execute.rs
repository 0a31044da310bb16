//! What a simulated server does with an Execute: a few real operations, and the lab's own.

use std::time::Duration;

use super::Server;
use super::contexts::Visit;
use crate::lab::{LAB_OPERATION, digest};
use crate::mapi::bodies::rops::{
    HEADER_BYTES, PAYLOAD_MAX, read_chain, read_payload, write_chain, write_payload,
};
use crate::mapi::bodies::{ExecuteRequest, ExecuteSuccess};

/// Operations the simulator knows by their number. `[MS-OXCROPS] 2.2.2`
const RELEASE: u8 = 0x01;
const CREATE_MESSAGE: u8 = 0x06;
const SAVE_CHANGES_MESSAGE: u8 = 0x0c;
const REGISTER_NOTIFICATION: u8 = 0x29;
const NOTIFY: u8 = 0x2a;
const LOGON: u8 = 0xfe;

/// A handle index beyond the handle table, as gromox answers it.
const EC_NULL_OBJECT: u32 = 0x8004_0108;

/// What the caller may ask of the answer beyond the body: headers of the lab.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wishes {
    /// `X-Lab-Answer-Bytes`: bytes of the ROP buffer to be returned.
    pub(super) answer_bytes: Option<usize>,
    /// `X-Lab-Delay`: milliseconds to take.
    pub(super) delay: Duration,
}

impl Server {
    /// Performs the operations. `body` is the whole request body, whose digest the answer repeats.
    pub(super) fn execute(
        &self,
        visit: &Visit,
        request: &ExecuteRequest,
        body: &[u8],
        wishes: Wishes,
    ) -> ExecuteSuccess {
        let blocks = read_chain(&request.rop_buffer).unwrap_or_default();
        let payload = blocks.first().map(|block| block.payload.as_slice());
        let (operations, handles) = payload
            .and_then(|payload| read_payload(payload).ok())
            .unwrap_or_default();
        let handles: Vec<u32> = handles
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| u32::from_le_bytes(*bytes))
            .collect();
        let success = |rop_buffer| ExecuteSuccess {
            error_code: 0,
            flags: 0,
            rop_buffer,
            auxiliary: Vec::new(),
        };
        let object = handles.first().copied().unwrap_or(0);
        let events = self.contexts.collect(&visit.cookie);
        match operations.first().copied() {
            Some(LOGON) => success(one(&logon(&visit.mailbox), &[0])),
            Some(REGISTER_NOTIFICATION) => {
                self.contexts.register(&visit.cookie);
                let answer = [REGISTER_NOTIFICATION, 1, 0, 0, 0, 0];
                success(one(&answer, &[object, 1]))
            }
            Some(CREATE_MESSAGE) => {
                self.contexts.event_in(&visit.mailbox, &visit.cookie);
                success(one(&created(operations), &[object, 1]))
            }
            Some(RELEASE) => match operations.get(2) {
                Some(index) if usize::from(*index) >= handles.len() => ExecuteSuccess {
                    error_code: EC_NULL_OBJECT,
                    flags: 0,
                    rop_buffer: Vec::new(),
                    auxiliary: Vec::new(),
                },
                _ => success(one(&[], &handles)),
            },
            None if events > 0 => success(one(&notify(), &[])),
            _ => success(self.own_answer(operations, body, wishes)),
        }
    }

    /// The lab's operation, in as many blocks as the wished size takes.
    fn own_answer(&self, operations: &[u8], body: &[u8], wishes: Wishes) -> Vec<u8> {
        let wished = wishes.answer_bytes.unwrap_or(self.options.answer_bytes);
        let name = self.options.name.as_str().as_bytes();
        let mut first = Vec::new();
        if operations.first() == Some(&LAB_OPERATION) {
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

fn one(operations: &[u8], handles: &[u32]) -> Vec<u8> {
    write_chain(&[write_payload(operations, handles)])
}

/// Logon to a private mailbox: 166 bytes. `[MS-OXCROPS] 2.2.3.1.2`
fn logon(mailbox: &str) -> Vec<u8> {
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

/// The message everybody creates, and the folder it is in.
const MESSAGE: [u8; 8] = [1, 0, 0, 0, 0, 3, 0, 17];
const FOLDER: [u8; 8] = [1, 0, 0, 0, 0, 0, 0, 13];

/// A message was created, and saved where that was asked behind it. `[MS-OXCROPS] 2.2.6.2, 2.2.6.3`
fn created(operations: &[u8]) -> Vec<u8> {
    const CREATE_BYTES: usize = 15;
    let mut answer = vec![CREATE_MESSAGE, 1, 0, 0, 0, 0, 1];
    answer.extend(MESSAGE);
    if operations.get(CREATE_BYTES) == Some(&SAVE_CHANGES_MESSAGE) {
        answer.extend([SAVE_CHANGES_MESSAGE, 1, 0, 0, 0, 0, 1]);
        answer.extend(MESSAGE);
    }
    answer
}

/// A message was created, and its folder has one more. `[MS-OXCROPS] 2.2.14.2`
fn notify() -> Vec<u8> {
    let mut answer = vec![NOTIFY];
    answer.extend(1u32.to_le_bytes()); // notification handle
    answer.push(0); // logon
    answer.extend(0x8004u16.to_le_bytes()); // message, created
    answer.extend(FOLDER);
    answer.extend(MESSAGE);
    answer.extend(0u16.to_le_bytes()); // tags
    answer.push(NOTIFY);
    answer.extend(1u32.to_le_bytes());
    answer.push(0);
    answer.extend(0x3010u16.to_le_bytes()); // folder, modified, with totals
    answer.extend(FOLDER);
    answer.extend(0u16.to_le_bytes()); // tags
    answer.extend(4u32.to_le_bytes()); // messages
    answer.extend(0u32.to_le_bytes()); // unread
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logon_answer_has_166_bytes() {
        assert_eq!(logon("box@contoso.test").len(), 166);
    }
}
