//! The client's book: what it sent and how that ended.

use serde::{Deserialize, Serialize};

use crate::ids::UserName;

/// How an Execute ended, as far as the client can know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Code 0 and a body that can be read.
    Ok,
    /// Refused: the client was told that it was not executed.
    Failed(String),
    /// The connection or the proxy failed; it may have been executed.
    Unknown(String),
}

/// One Execute the client sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// `X-RequestId`.
    pub nonce: String,
    /// Whose credentials were sent.
    pub user: UserName,
    /// `MailboxId` of the URL, lower case.
    pub mailbox: String,
    /// [`crate::lab::digest`] of the body, in hexadecimal digits.
    pub body: String,
    /// Microseconds since 1970 before the first byte was sent.
    pub sent: u64,
    /// Microseconds since 1970 when the outcome was known.
    pub ended: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// The code that counts.
    pub code: Option<u32>,
    /// `X-RequestId` of the answer.
    pub echoed: Option<String>,
    /// The digest in the answer to the lab's own operation.
    pub answered: Option<String>,
    /// The server named in that answer.
    pub server: Option<String>,
    /// How often it was sent: more than once only where nothing was executed before.
    pub tries: u32,
}

/// What a client counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// TCP connections made.
    pub connections: u64,
    /// Contexts opened for the first time.
    pub connects: u64,
    /// Contexts opened in the place of lost ones.
    pub reconnects: u64,
    /// Executes that ended well.
    pub executes_ok: u64,
    /// Executes refused.
    pub executes_failed: u64,
    /// Executes whose fate is unknown.
    pub executes_unknown: u64,
    /// Requests sent again as they were because nothing of them had been taken.
    pub resent: u64,
    /// Answers of 503.
    pub busy: u64,
    /// Held requests answered.
    pub waits_ended: u64,
    /// Held requests ended by code 10 behind DONE.
    pub waits_lost: u64,
    /// For each context so far, in order: how many of its requests were answered with code 10.
    pub code10s: Vec<u32>,
    /// For each context so far, in order: how many of its held requests were ended by code 10.
    pub waits_told: Vec<u32>,
    /// Microseconds from each first failure to the next success.
    pub recoveries: Vec<u64>,
    /// Entries that did not fit in the book.
    pub sent_left_out: u64,
    /// Microseconds each good Execute took.
    pub latencies: Vec<u64>,
}

impl Counters {
    /// Microseconds lost in total.
    pub fn lost_time(&self) -> u64 {
        self.recoveries.iter().sum()
    }

    /// Entries of the book kept; a checker must not trust a client that left any out.
    pub const SENT_MAX: usize = 1_000_000;
    /// Latencies kept.
    pub const LATENCIES_MAX: usize = 100_000;
}
