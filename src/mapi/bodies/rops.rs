//! The ROP buffer of an Execute: a chain of blocks behind `RPC_HEADER_EXT`. `[MS-OXCRPC] 2.2.2.1`
//!
//! Knows where a block begins and ends, and the first operation in it. The operations themselves are
//! between client and server.

use super::BodyError;
use super::fields::{Reader, put_u16};

/// Bytes one block's payload may hold. `[MS-OXCRPC] 3.1.4.2.1`
pub const PAYLOAD_MAX: usize = 32 * 1024;
/// Bytes of `RPC_HEADER_EXT`.
pub const HEADER_BYTES: usize = 8;

/// The payload is compressed.
pub const COMPRESSED: u16 = 1;
/// Every byte of the payload is XORed with 0xA5.
pub const XOR_MAGIC: u16 = 2;
/// No block follows.
pub const LAST: u16 = 4;

/// One block of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Any of [`COMPRESSED`], [`XOR_MAGIC`], [`LAST`].
    pub flags: u16,
    /// Size of the payload before compression.
    pub size_actual: u16,
    /// The payload as it was on the wire.
    pub payload: Vec<u8>,
}

/// Reads the whole chain.
///
/// # Errors
/// A version other than 0, a payload beyond the end, bytes behind the last block, or no last block.
pub fn read_chain(rop_buffer: &[u8]) -> Result<Vec<Block>, BodyError> {
    let mut from = Reader::new(rop_buffer);
    let mut blocks = Vec::new();
    loop {
        if from.u16("Version")? != 0 {
            return Err(BodyError::Impossible("Version"));
        }
        let flags = from.u16("Flags")?;
        let size = from.u16("Size")?;
        let size_actual = from.u16("SizeActual")?;
        let payload = from.take(usize::from(size), "Payload")?.to_vec();
        blocks.push(Block {
            flags,
            size_actual,
            payload,
        });
        if flags & LAST != 0 {
            break;
        }
    }
    match from.left() {
        0 => Ok(blocks),
        trailing => Err(BodyError::Trailing(trailing)),
    }
}

/// Writes plain payloads as a chain. A payload longer than [`PAYLOAD_MAX`] is cut: callers keep to it.
pub fn write_chain(payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut chain = Vec::new();
    for (position, payload) in payloads.iter().enumerate() {
        let payload = payload
            .get(..payload.len().min(PAYLOAD_MAX))
            .unwrap_or_default();
        let size = u16::try_from(payload.len()).unwrap_or(u16::MAX);
        put_u16(&mut chain, 0);
        put_u16(
            &mut chain,
            if position + 1 == payloads.len() {
                LAST
            } else {
                0
            },
        );
        put_u16(&mut chain, size);
        put_u16(&mut chain, size);
        chain.extend_from_slice(payload);
    }
    chain
}

/// A payload: the size of the operations (which counts itself), the operations, the table of handles.
pub fn write_payload(operations: &[u8], handles: &[u32]) -> Vec<u8> {
    let room = PAYLOAD_MAX.saturating_sub(2 + handles.len() * 4);
    let operations = operations
        .get(..operations.len().min(room))
        .unwrap_or_default();
    let mut payload = Vec::with_capacity(2 + operations.len() + handles.len() * 4);
    put_u16(
        &mut payload,
        u16::try_from(operations.len() + 2).unwrap_or(u16::MAX),
    );
    payload.extend_from_slice(operations);
    for handle in handles {
        payload.extend_from_slice(&handle.to_le_bytes());
    }
    payload
}

/// Operations and handle table of a plain payload.
///
/// # Errors
/// A size that does not count itself or reaches beyond the payload.
pub fn read_payload(payload: &[u8]) -> Result<(&[u8], &[u8]), BodyError> {
    let mut from = Reader::new(payload);
    let size = usize::from(from.u16("RopSize")?);
    let operations = size
        .checked_sub(2)
        .ok_or(BodyError::Impossible("RopSize"))?;
    let operations = from.take(operations, "Rops")?;
    let handles = from.take(from.left(), "ServerObjectHandleTable")?;
    Ok((operations, handles))
}
