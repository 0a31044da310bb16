//! Single fields of a body: bounds-checked reading, appending.

use std::fmt;

use super::BodyError;

/// Reads fields from the front of a body.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    /// Bytes not read yet.
    pub fn left(&self) -> usize {
        self.left.len()
    }

    /// The next `count` bytes.
    pub(super) fn take(
        &mut self,
        count: usize,
        field: &'static str,
    ) -> Result<&'a [u8], BodyError> {
        let (taken, left) = self
            .left
            .split_at_checked(count)
            .ok_or(BodyError::Short(field))?;
        self.left = left;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], BodyError> {
        let (taken, left) = self
            .left
            .split_first_chunk::<N>()
            .ok_or(BodyError::Short(field))?;
        self.left = left;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, BodyError> {
        Ok(u8::from_le_bytes(self.array(field)?))
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, BodyError> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, BodyError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    pub(super) fn guid(&mut self, field: &'static str) -> Result<[u8; 16], BodyError> {
        self.array(field)
    }

    /// 0x00 or 0xFF. Servers take any other value for true; writing it back would change it, so it is refused.
    pub(super) fn flag(&mut self, field: &'static str) -> Result<bool, BodyError> {
        match self.u8(field)? {
            0 => Ok(false),
            0xff => Ok(true),
            _ => Err(BodyError::Impossible(field)),
        }
    }

    /// Bytes behind their 32-bit size.
    pub(super) fn buffer(&mut self, field: &'static str) -> Result<Vec<u8>, BodyError> {
        let size = self.u32(field)?;
        // A size beyond the address space is beyond the body too.
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        Ok(self.take(size, field)?.to_vec())
    }

    /// Bytes up to a zero, which is passed over.
    pub(super) fn zeroed(&mut self, field: &'static str) -> Result<Vec<u8>, BodyError> {
        let end = memchr::memchr(0, self.left).ok_or(BodyError::Unterminated(field))?;
        let text = self.take(end, field)?.to_vec();
        self.take(1, field)?;
        Ok(text)
    }

    /// UTF-16 up to a zero unit, which is passed over.
    pub(super) fn wide(&mut self, field: &'static str) -> Result<Wide, BodyError> {
        let mut units = Vec::new();
        loop {
            match self.u16(field) {
                Ok(0) => return Ok(Wide(units)),
                Ok(unit) => units.push(unit),
                Err(_) => return Err(BodyError::Unterminated(field)),
            }
        }
    }
}

/// UTF-16 as it was on the wire, unpaired surrogates included, without its terminating zero.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Wide(pub Vec<u16>);

impl fmt::Display for Wide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf16_lossy(&self.0))
    }
}

impl fmt::Debug for Wide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// The text in UTF-16. A zero character ends it, as it would on the wire.
pub fn wide(text: &str) -> Wide {
    Wide(text.encode_utf16().take_while(|unit| *unit != 0).collect())
}

pub(super) fn put_u16(to: &mut Vec<u8>, number: u16) {
    to.extend_from_slice(&number.to_le_bytes());
}

pub(super) fn put_u32(to: &mut Vec<u8>, number: u32) {
    to.extend_from_slice(&number.to_le_bytes());
}

pub(super) fn put_flag(to: &mut Vec<u8>, fact: bool) {
    to.push(if fact { 0xff } else { 0 });
}

/// A 32-bit count; nothing we write comes near its end.
pub(super) fn put_count(to: &mut Vec<u8>, count: usize) {
    put_u32(to, u32::try_from(count).unwrap_or(u32::MAX));
}

pub(super) fn put_buffer(to: &mut Vec<u8>, bytes: &[u8]) {
    put_count(to, bytes.len());
    to.extend_from_slice(bytes);
}

pub(super) fn put_zeroed(to: &mut Vec<u8>, text: &[u8]) {
    let end = memchr::memchr(0, text).unwrap_or(text.len());
    to.extend_from_slice(text.get(..end).unwrap_or_default());
    to.push(0);
}

pub(super) fn put_wide(to: &mut Vec<u8>, text: &Wide) {
    for unit in text.0.iter().take_while(|unit| **unit != 0) {
        put_u16(to, *unit);
    }
    put_u16(to, 0);
}
