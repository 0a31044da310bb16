//! What the answer to the lab's own operation proves: whose it is, and who executed it.

use crate::lab::{LAB_OPERATION, hex};
use crate::mapi::bodies::ExecuteSuccess;
use crate::mapi::bodies::rops::{read_chain, read_payload};

/// What the answer to the lab's own operation proves.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    pub(super) digest: String,
    pub(super) server: String,
}

impl Proof {
    pub(super) fn read(body: &ExecuteSuccess) -> Option<Self> {
        let blocks = read_chain(&body.rop_buffer).ok()?;
        let (operations, _) = read_payload(&blocks.first()?.payload).ok()?;
        let rest = operations.strip_prefix(&[LAB_OPERATION])?;
        let (digest, rest) = rest.split_at_checked(16)?;
        let (length, rest) = rest.split_first()?;
        let name = rest.get(..usize::from(*length))?;
        Some(Self {
            digest: hex(digest),
            server: String::from_utf8_lossy(name).into_owned(),
        })
    }
}
