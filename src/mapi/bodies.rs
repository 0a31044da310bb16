//! The binary bodies of MAPI over HTTP, read and written byte for byte.
//!
//! All integers are little-endian. Every body ends with an auxiliary buffer behind its 32-bit size.
//! `[MS-OXCMAPIHTTP] 2.2.4, 2.2.5`

mod fields;
pub mod nspi;
pub mod rops;

use fields::{Reader, put_buffer, put_u32, put_wide, put_zeroed};

pub use fields::{Wide, wide};

/// Why bytes are not the body they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The body ends inside a field.
    #[error("the body ends inside {0}")]
    Short(&'static str),
    /// A string has no terminating zero.
    #[error("{0} has no terminating zero")]
    Unterminated(&'static str),
    /// A field holds a value the specification does not allow.
    #[error("{0} has an impossible value")]
    Impossible(&'static str),
    /// Bytes follow the last field.
    #[error("{0} bytes follow the last field")]
    Trailing(usize),
}

/// A body that can be read from bytes and written to them; reading what was written gives the same value.
pub trait Body: Sized {
    /// Appends the body's bytes.
    fn write(&self, to: &mut Vec<u8>);

    /// Reads the fields; what follows them is the caller's business.
    ///
    /// # Errors
    /// Whatever keeps the bytes from being this body.
    fn read_fields(from: &mut Reader<'_>) -> Result<Self, BodyError>;

    /// The body's bytes.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        self.write(&mut bytes);
        bytes
    }

    /// Reads a whole body. Never allocates more than the bytes at hand.
    ///
    /// # Errors
    /// Whatever keeps the bytes from being this body, and nothing but this body.
    fn decode(bytes: &[u8]) -> Result<Self, BodyError> {
        let mut from = Reader::new(bytes);
        let body = Self::read_fields(&mut from)?;
        match from.left() {
            0 => Ok(body),
            trailing => Err(BodyError::Trailing(trailing)),
        }
    }
}

/// An answer: the fields of success behind `StatusCode` 0, or a failure. `[MS-OXCMAPIHTTP] 2.2.4.1.2`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// `StatusCode` is 0; the operation's own result is the `error_code` within.
    Success(T),
    /// The operation was not performed.
    Failure {
        /// Not 0.
        status_code: u32,
        /// The auxiliary buffer.
        auxiliary: Vec<u8>,
    },
}

impl<T: Body> Body for Answer<T> {
    fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::Success(fields) => {
                put_u32(to, 0);
                fields.write(to);
            }
            Self::Failure {
                status_code,
                auxiliary,
            } => {
                put_u32(to, *status_code);
                put_buffer(to, auxiliary);
            }
        }
    }

    fn read_fields(from: &mut Reader<'_>) -> Result<Self, BodyError> {
        match from.u32("StatusCode")? {
            0 => Ok(Self::Success(T::read_fields(from)?)),
            status_code => Ok(Self::Failure {
                status_code,
                auxiliary: from.buffer("AuxiliaryBuffer")?,
            }),
        }
    }
}

/// Opens a session context. `[MS-OXCMAPIHTTP] 2.2.4.1.1`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectRequest {
    /// The user's distinguished name, without its terminating zero.
    pub user_dn: Vec<u8>,
    /// 0 normal, 1 asks for administrator's rights. `[MS-OXCRPC] 3.1.4.1`
    pub flags: u32,
    /// The code page strings are read in.
    pub code_page: u32,
    /// The locale that sorts.
    pub lcid_sort: u32,
    /// The locale of everything else.
    pub lcid_string: u32,
    /// The auxiliary buffer.
    pub auxiliary: Vec<u8>,
}

impl ConnectRequest {
    /// What a client of the western code page 1252 and locale 1033 sends.
    pub fn of(user_dn: &str) -> Self {
        Self {
            user_dn: user_dn.as_bytes().to_vec(),
            flags: 0,
            code_page: 1252,
            lcid_sort: 0x409,
            lcid_string: 0x409,
            auxiliary: Vec::new(),
        }
    }
}

impl Body for ConnectRequest {
    fn write(&self, to: &mut Vec<u8>) {
        put_zeroed(to, &self.user_dn);
        for number in [self.flags, self.code_page, self.lcid_sort, self.lcid_string] {
            put_u32(to, number);
        }
        put_buffer(to, &self.auxiliary);
    }

    fn read_fields(from: &mut Reader<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            user_dn: from.zeroed("UserDn")?,
            flags: from.u32("Flags")?,
            code_page: from.u32("DefaultCodePage")?,
            lcid_sort: from.u32("LcidSort")?,
            lcid_string: from.u32("LcidString")?,
            auxiliary: from.buffer("AuxiliaryBuffer")?,
        })
    }
}

/// A session context was opened, or the mailbox refuses (`error_code`). `[MS-OXCMAPIHTTP] 2.2.4.1.2`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectSuccess {
    /// MAPI's own result.
    pub error_code: u32,
    /// How often the client may poll, in milliseconds.
    pub polls_max: u32,
    /// How often the client retries.
    pub retry_count: u32,
    /// How long it waits in between, in milliseconds.
    pub retry_delay: u32,
    /// Prefix of distinguished names, without its terminating zero.
    pub dn_prefix: Vec<u8>,
    /// The user's name for people.
    pub display_name: Wide,
    /// The auxiliary buffer.
    pub auxiliary: Vec<u8>,
}

impl Body for ConnectSuccess {
    fn write(&self, to: &mut Vec<u8>) {
        for number in [
            self.error_code,
            self.polls_max,
            self.retry_count,
            self.retry_delay,
        ] {
            put_u32(to, number);
        }
        put_zeroed(to, &self.dn_prefix);
        put_wide(to, &self.display_name);
        put_buffer(to, &self.auxiliary);
    }

    fn read_fields(from: &mut Reader<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            error_code: from.u32("ErrorCode")?,
            polls_max: from.u32("PollsMax")?,
            retry_count: from.u32("RetryCount")?,
            retry_delay: from.u32("RetryDelay")?,
            dn_prefix: from.zeroed("DnPrefix")?,
            display_name: from.wide("DisplayName")?,
            auxiliary: from.buffer("AuxiliaryBuffer")?,
        })
    }
}

/// Remote operations to be executed. `[MS-OXCMAPIHTTP] 2.2.4.2.1`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecuteRequest {
    /// 1 no compression, 2 no XOR, 4 chained answers allowed. `[MS-OXCRPC] 3.1.4.2`
    pub flags: u32,
    /// One or more [`rops`] blocks.
    pub rop_buffer: Vec<u8>,
    /// Bytes of operations the answer may hold.
    pub max_rop_out: u32,
    /// The auxiliary buffer.
    pub auxiliary: Vec<u8>,
}

impl ExecuteRequest {
    /// The request around a ready ROP buffer, with the sizes a client asks for.
    pub fn of(rop_buffer: Vec<u8>) -> Self {
        Self {
            flags: 3,
            rop_buffer,
            max_rop_out: 0x1_0008,
            auxiliary: Vec::new(),
        }
    }
}

impl Body for ExecuteRequest {
    fn write(&self, to: &mut Vec<u8>) {
        put_u32(to, self.flags);
        put_buffer(to, &self.rop_buffer);
        put_u32(to, self.max_rop_out);
        put_buffer(to, &self.auxiliary);
    }

    fn read_fields(from: &mut Reader<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            flags: from.u32("Flags")?,
            rop_buffer: from.buffer("RopBuffer")?,
            max_rop_out: from.u32("MaxRopOut")?,
            auxiliary: from.buffer("AuxiliaryBuffer")?,
        })
    }
}

/// What the operations returned. `[MS-OXCMAPIHTTP] 2.2.4.2.2`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecuteSuccess {
    /// MAPI's own result.
    pub error_code: u32,
    /// Reserved, 0.
    pub flags: u32,
    /// One or more [`rops`] blocks; empty where `error_code` is not 0.
    pub rop_buffer: Vec<u8>,
    /// The auxiliary buffer.
    pub auxiliary: Vec<u8>,
}

impl Body for ExecuteSuccess {
    fn write(&self, to: &mut Vec<u8>) {
        put_u32(to, self.error_code);
        put_u32(to, self.flags);
        put_buffer(to, &self.rop_buffer);
        put_buffer(to, &self.auxiliary);
    }

    fn read_fields(from: &mut Reader<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            error_code: from.u32("ErrorCode")?,
            flags: from.u32("Flags")?,
            rop_buffer: from.buffer("RopBuffer")?,
            auxiliary: from.buffer("AuxiliaryBuffer")?,
        })
    }
}

/// A number and the auxiliary buffer: the request of `NotificationWait` (flags) and of `Unbind` (reserved).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plain {
    /// Reserved, 0.
    pub number: u32,
    /// The auxiliary buffer.
    pub auxiliary: Vec<u8>,
}

impl Body for Plain {
    fn write(&self, to: &mut Vec<u8>) {
        put_u32(to, self.number);
        put_buffer(to, &self.auxiliary);
    }

    fn read_fields(from: &mut Reader<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            number: from.u32("Flags")?,
            auxiliary: from.buffer("AuxiliaryBuffer")?,
        })
    }
}

/// Asks to be told when something happens. `[MS-OXCMAPIHTTP] 2.2.4.4.1`
pub type NotificationWaitRequest = Plain;

/// Something happened, or five minutes passed. `[MS-OXCMAPIHTTP] 2.2.4.4.2`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotificationWaitSuccess {
    /// MAPI's own result.
    pub error_code: u32,
    /// 1 when an `Execute` has something to fetch.
    pub event_pending: u32,
    /// The auxiliary buffer.
    pub auxiliary: Vec<u8>,
}

impl Body for NotificationWaitSuccess {
    fn write(&self, to: &mut Vec<u8>) {
        put_u32(to, self.error_code);
        put_u32(to, self.event_pending);
        put_buffer(to, &self.auxiliary);
    }

    fn read_fields(from: &mut Reader<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            error_code: from.u32("ErrorCode")?,
            event_pending: from.u32("EventPending")?,
            auxiliary: from.buffer("AuxiliaryBuffer")?,
        })
    }
}

/// Ends a session context. `[MS-OXCMAPIHTTP] 2.2.4.3.1` gives it an auxiliary buffer, 3.1.5.4 says it has
/// no body at all: both are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DisconnectRequest {
    /// The auxiliary buffer.
    pub auxiliary: Vec<u8>,
}

impl Body for DisconnectRequest {
    fn write(&self, to: &mut Vec<u8>) {
        put_buffer(to, &self.auxiliary);
    }

    fn read_fields(from: &mut Reader<'_>) -> Result<Self, BodyError> {
        if from.left() == 0 {
            return Ok(Self::default());
        }
        Ok(Self {
            auxiliary: from.buffer("AuxiliaryBuffer")?,
        })
    }
}

/// The context is gone: the answer to `Disconnect` and to `Unbind` (whose `error_code` 1 means success).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndSuccess {
    /// MAPI's own result.
    pub error_code: u32,
    /// The auxiliary buffer.
    pub auxiliary: Vec<u8>,
}

impl Body for EndSuccess {
    fn write(&self, to: &mut Vec<u8>) {
        put_u32(to, self.error_code);
        put_buffer(to, &self.auxiliary);
    }

    fn read_fields(from: &mut Reader<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            error_code: from.u32("ErrorCode")?,
            auxiliary: from.buffer("AuxiliaryBuffer")?,
        })
    }
}

#[cfg(test)]
mod tests;
