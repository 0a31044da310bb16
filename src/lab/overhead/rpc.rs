//! Weighs what was said over RPC over HTTP, kind by kind.

use super::kinds::{Kinds, Said};
use crate::lab::rpc_http::stubs;
use crate::lab::tap::Talk;
use crate::rpch::pdu::{CALL_HEAD_BYTES, Fragment, Head, Kind, Way};
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;

/// Calls by their number: what is called, and the stub data of its two ways that have come.
#[derive(Debug, Default)]
struct Call {
    context: u16,
    procedure: Option<u16>,
    asked: Vec<u8>,
    answered: Vec<u8>,
}

/// Weighs channels between two moments at which nothing was under way but held waits.
///
/// # Errors
/// Something that is no PDU, or was cut off.
pub(super) fn weigh(talks: &[Talk]) -> Result<Said> {
    let mut said = Said::default();
    let mut calls = BTreeMap::new();
    for talk in talks {
        let heads = stream(&talk.sent, &mut said.sent, &mut calls).context("what was sent")?;
        if heads {
            said.requests += 1;
            said.sizes.push((said_bytes(talk), authorization(talk)));
        }
    }
    for talk in talks {
        stream(&talk.received, &mut said.received, &mut calls).context("what was received")?;
    }
    for (number, call) in calls {
        let is_execute = (call.context, call.procedure) == (STORE, Some(stubs::RPC_EXT2));
        let (asked, answered) = match is_execute {
            true => {
                let (_, request) = stubs::read_execute_request(&call.asked)
                    .with_context(|| format!("call {number}"))?;
                let answer = stubs::read_execute_answer(&call.answered)
                    .with_context(|| format!("the answer to call {number}"))?;
                (request.rop_buffer.len(), answer.rop_buffer.len())
            }
            false => (0, 0),
        };
        said.sent.payload += asked as u64;
        said.sent.fields += (call.asked.len() - asked) as u64;
        said.received.payload += answered as u64;
        said.received.fields += (call.answered.len() - answered) as u64;
    }
    Ok(said)
}

/// The interface of the mailbox store in the client's bind.
const STORE: u16 = 0;

/// Bytes of the first write on a channel: the head and the PDU behind it.
fn said_bytes(talk: &Talk) -> u64 {
    let head = memchr::memmem::find(&talk.sent, b"\r\n\r\n").map_or(0, |end| end + 4);
    let first = talk
        .sent
        .get(head..)
        .and_then(|rest| Head::read(rest).ok())
        .map_or(0, |first| usize::from(first.length));
    (head + first) as u64
}

/// Bytes of the line `Authorization` of a channel.
fn authorization(talk: &Talk) -> u64 {
    let mut kinds = Kinds::default();
    // What cannot be read was an error before.
    let _read = head(&talk.sent, &mut kinds);
    kinds.authorization
}

/// Weighs one direction of one channel; true where it begins with a head.
fn stream(bytes: &[u8], kinds: &mut Kinds, calls: &mut BTreeMap<u32, Call>) -> Result<bool> {
    let mut left = bytes;
    let begins = left.starts_with(b"RPC_") || left.starts_with(b"HTTP");
    while left.starts_with(b"RPC_") || left.starts_with(b"HTTP") {
        left = head(left, kinds)?;
    }
    while !left.is_empty() {
        let head = Head::read(left)?;
        let (pdu, rest) = left
            .split_at_checked(usize::from(head.length))
            .context("a PDU that is cut off")?;
        left = rest;
        kinds.framing += match head.kind {
            Kind::REQUEST | Kind::RESPONSE => {
                let fragment = Fragment::decode(pdu)?;
                let call = calls.entry(head.call_id).or_default();
                match fragment.way {
                    Way::Request(procedure) => {
                        (call.context, call.procedure) = (fragment.context, Some(procedure));
                        call.asked.extend_from_slice(fragment.stub);
                    }
                    Way::Response => call.answered.extend_from_slice(fragment.stub),
                }
                pdu.len() - fragment.stub.len()
            }
            Kind::FAULT => bail!("a fault"),
            // RTS PDUs, binds and their answers are nothing but framing.
            _ => pdu.len(),
        } as u64;
    }
    Ok(begins)
}

/// Weighs the head of a channel; returns what follows it.
fn head<'a>(bytes: &'a [u8], kinds: &mut Kinds) -> Result<&'a [u8]> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n").context("a head without end")? + 4;
    let (lines, rest) = bytes.split_at(end);
    for line in std::str::from_utf8(lines)?.split_inclusive("\r\n") {
        let name = line.split(':').next().unwrap_or_default();
        let bytes = line.len() as u64;
        match name.eq_ignore_ascii_case("authorization") {
            true => kinds.authorization += bytes,
            false => kinds.lines += bytes,
        }
    }
    Ok(rest)
}

/// Bytes of heads and fields that an Execute costs in RPC over HTTP, in both directions, without signatures and flow
/// control: what is weighed must be that.
pub fn execute_bytes(asked: u64, answered: u64) -> u64 {
    const STUB_MAX: u64 = 5_840 - CALL_HEAD_BYTES as u64;
    // Handle, flags, size, cbIn, pcbOut, an empty array's size, cbAuxIn, pcbAuxOut.
    let request = asked.next_multiple_of(4) - asked + 20 + 4 + 4 + 4 + 4 + 4 + 4 + 4;
    // Handle, flags, three sizes, pcbOut, three sizes, pcbAuxOut, pulTransTime, the code.
    let answer = answered.next_multiple_of(4) - answered + 20 + 4 + 12 + 4 + 12 + 4 + 4 + 4;
    let fragments = (asked + request).div_ceil(STUB_MAX) + (answered + answer).div_ceil(STUB_MAX);
    request + answer + fragments * CALL_HEAD_BYTES as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::rpc_http::stubs::Handle;
    use crate::mapi::bodies::{ExecuteRequest, ExecuteSuccess};
    use crate::rpch::pdu::{self, FRAGMENT_MAX};
    use crate::rpch::rts::Ack;
    use crate::rpch::{Cookie, Rts};

    fn fragments(way: Way, stub: &[u8]) -> Vec<u8> {
        let call = pdu::Call {
            way,
            call_id: 3,
            context: STORE,
            fragment_max: FRAGMENT_MAX,
            seal: None,
        };
        call.fragments(stub).concat()
    }

    fn execute(asked: usize, answered: usize) -> [Talk; 2] {
        let request = ExecuteRequest::of(vec![1; asked]);
        let answer = ExecuteSuccess {
            error_code: 0,
            flags: 0,
            rop_buffer: vec![2; answered],
            auxiliary: Vec::new(),
        };
        let handle = Handle::default();
        let sent = fragments(
            Way::Request(stubs::RPC_EXT2),
            &stubs::execute_request(&handle, &request),
        );
        let received = fragments(Way::Response, &stubs::execute_answer(&handle, &answer));
        [
            Talk {
                sent,
                received: Vec::new(),
            },
            Talk {
                sent: Vec::new(),
                received,
            },
        ]
    }

    #[test]
    fn an_execute_is_weighed_as_counted_by_hand() {
        let said = weigh(&execute(32, 2_000)).unwrap();

        let asked = Kinds {
            framing: 24,
            fields: 48,
            payload: 32,
            ..Kinds::default()
        };
        let answered = Kinds {
            framing: 24,
            fields: 64,
            payload: 2_000,
            ..Kinds::default()
        };
        assert_eq!((said.sent, said.received), (asked, answered));
        assert_eq!(said.requests, 0);
        assert_eq!(execute_bytes(32, 2_000), 24 + 48 + 24 + 64);
    }

    #[test]
    fn fifty_kilobytes_come_in_nine_fragments() {
        let said = weigh(&execute(32, 51_168)).unwrap();

        // 51,168 and 64 bytes of fields in pieces of 5816: nine heads.
        assert_eq!(said.received.framing, 9 * 24);
        assert_eq!(
            said.total().wire() - said.total().payload,
            execute_bytes(32, 51_168)
        );
    }

    #[test]
    fn heads_of_channels_and_control_are_told_apart() {
        let first = Rts::conn_a1(Cookie([1; 16]), Cookie([2; 16]), 65_536).encode();
        let mut sent = b"RPC_OUT_DATA /rpc HTTP/1.1\r\nAuthorization: Basic eDp5\r\n\r\n".to_vec();
        sent.extend(&first);
        let received = [
            b"HTTP/1.1 200 Success\r\n\r\n".to_vec(),
            Rts::ping().encode(),
        ]
        .concat();
        let ack = Rts::flow_control(Ack {
            bytes_received: 0,
            available: 0,
            channel: Cookie([2; 16]),
        });
        let all = sent.len() as u64;
        sent.extend(ack.encode());

        let said = weigh(&[Talk { sent, received }]).unwrap();

        assert_eq!(said.sent.lines, 28 + 2);
        assert_eq!(said.sent.authorization, 27);
        assert_eq!(said.sent.framing, 76 + 48);
        assert_eq!(said.received.lines, 24);
        assert_eq!(said.received.framing, 20);
        assert_eq!(said.requests, 1);
        assert_eq!(said.sizes, [(all, 27)]);
    }

    #[test]
    fn a_fault_and_half_a_pdu_are_not_weighed() {
        for sent in [pdu::fault(1, 0, 5), Rts::ping().encode()[..19].to_vec()] {
            let talk = Talk {
                sent,
                received: Vec::new(),
            };
            assert!(weigh(&[talk]).is_err());
        }
    }
}
