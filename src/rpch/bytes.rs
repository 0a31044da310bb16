//! Fields of a PDU, read and written in little-endian order.

use super::BadPdu;

/// Reads fields from the front of a PDU.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    left: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    pub(super) fn left(&self) -> usize {
        self.left.len()
    }

    pub(super) fn take(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], BadPdu> {
        let (taken, left) = self
            .left
            .split_at_checked(count)
            .ok_or(BadPdu::Short(field))?;
        self.left = left;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], BadPdu> {
        let (taken, left) = self
            .left
            .split_first_chunk::<N>()
            .ok_or(BadPdu::Short(field))?;
        self.left = left;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, BadPdu> {
        Ok(u8::from_le_bytes(self.array(field)?))
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, BadPdu> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, BadPdu> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    pub(super) fn end(&self) -> Result<(), BadPdu> {
        match self.left.len() {
            0 => Ok(()),
            trailing => Err(BadPdu::Trailing(trailing)),
        }
    }
}

pub(super) fn put_u16(to: &mut Vec<u8>, number: u16) {
    to.extend_from_slice(&number.to_le_bytes());
}

pub(super) fn put_u32(to: &mut Vec<u8>, number: u32) {
    to.extend_from_slice(&number.to_le_bytes());
}
