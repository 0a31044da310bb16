//! What a simulated server does with an Execute: a few real operations, and the lab's own.

use std::time::Duration;

use super::Server;
use super::contexts::Visit;
use crate::lab::work::{LOGON, Operations, REGISTER_NOTIFICATION, logon, one, registered};
use crate::mapi::bodies::{ExecuteRequest, ExecuteSuccess};

/// More operations the simulator knows by their number. `[MS-OXCROPS] 2.2.2`
const RELEASE: u8 = 0x01;
const CREATE_MESSAGE: u8 = 0x06;
const SAVE_CHANGES_MESSAGE: u8 = 0x0c;
const NOTIFY: u8 = 0x2a;

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
        let asked = Operations::read(&request.rop_buffer);
        let (operations, handles) = (&asked.bytes, &asked.handles);
        let success = |rop_buffer| ExecuteSuccess {
            error_code: 0,
            flags: 0,
            rop_buffer,
            auxiliary: Vec::new(),
        };
        let object = handles.first().copied().unwrap_or(0);
        let events = self.contexts.collect(&visit.cookie);
        match operations.first().copied() {
            Some(LOGON) => success(match self.options.refuses_logon {
                None => one(&logon(&visit.mailbox), &[0]),
                Some(code) => one(
                    &[&[LOGON, 0][..], &code.to_le_bytes()].concat(),
                    &[u32::MAX],
                ),
            }),
            Some(REGISTER_NOTIFICATION) => {
                self.contexts.register(&visit.cookie);
                success(registered(object))
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
                _ => success(one(&[], handles)),
            },
            None if events > 0 => success(one(&notify(), &[])),
            _ => {
                let wished = wishes.answer_bytes.unwrap_or(self.options.answer_bytes);
                success(asked.own_answer(&self.options.name, body, wished))
            }
        }
    }
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
