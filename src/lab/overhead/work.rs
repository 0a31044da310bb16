//! The work both protocols do: the same Executes, byte for byte.

use crate::lab::LAB_SIZED_OPERATION;
use crate::mapi::bodies::ExecuteRequest;
use crate::mapi::bodies::rops::{HEADER_BYTES, write_chain, write_payload};

/// The most that a request or answer carries in either protocol: `pcbOut` ends there. `[MS-OXCRPC] 3.1.4.2`
const ANSWER_MAX: usize = 0x4_0000;
/// What Outlook asks for while it synchronises: one block of operations.
const BLOCK: usize = 32 << 10;
/// Operations of each request, beside their sizes: as many as it takes to fetch something.
const ASKED: usize = 30;

/// Some work: Executes one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// What people call it.
    pub name: &'static str,
    /// Bytes of ROP buffers, both ways together.
    pub payload: usize,
    /// Bytes of one answer at most.
    pub answer_max: usize,
}

impl Work {
    /// The sizes of the published figures and those around them.
    pub const ALL: [Self; 5] = [
        Self::new("2 KB", 2 << 10, ANSWER_MAX),
        Self::new("50 KB", 50 << 10, ANSWER_MAX),
        Self::new("1 MB", 1 << 20, ANSWER_MAX),
        Self::new("10 MB", 10 << 20, ANSWER_MAX),
        Self::new("10 MB sync", 10 << 20, BLOCK),
    ];
    /// The average packet of the published figures.
    pub const AVERAGE: Self = Self::ALL[1];
    /// As much as the published figures call a large transfer, in the pieces Outlook asks for.
    pub const SYNC: Self = Self::ALL[4];

    const fn new(name: &'static str, payload: usize, answer_max: usize) -> Self {
        Self {
            name,
            payload,
            answer_max,
        }
    }

    /// Its Executes. Answers are as long as the operations ask for; nothing is left to chance.
    pub fn executes(&self) -> Vec<ExecuteRequest> {
        let request = HEADER_BYTES + 2 + ASKED;
        let each = request + self.answer_max;
        let count = self.payload.div_ceil(each).max(1);
        (0..count)
            .map(|index| {
                let left = self.payload - (index * each).min(self.payload);
                let answer = left.min(each).saturating_sub(request);
                execute(answer, self.answer_max)
            })
            .collect()
    }
}

/// An Execute that asks for an answer of so many bytes.
fn execute(answer: usize, answer_max: usize) -> ExecuteRequest {
    let mut operation = vec![LAB_SIZED_OPERATION];
    operation.extend(u32::try_from(answer).unwrap_or(u32::MAX).to_le_bytes());
    operation.resize(ASKED, 0);
    ExecuteRequest {
        // No compression, no XOR, and answers of several blocks: the bytes are what they are.
        flags: 7,
        max_rop_out: u32::try_from(answer_max).unwrap_or(u32::MAX),
        ..ExecuteRequest::of(write_chain(&[write_payload(&operation, &[])]))
    }
}

/// What one user does between coming and going, for the processor's account: Executes by size.
pub const USER: [(Work, usize); 2] = [(Work::ALL[0], 100), (Work::AVERAGE, 10)];

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes a server is asked for.
    fn asked(request: &ExecuteRequest) -> usize {
        // RPC_HEADER_EXT 8, RopSize 2, the operation 1.
        let bytes = request.rop_buffer[11..15].try_into().unwrap();
        usize::try_from(u32::from_le_bytes(bytes)).unwrap()
    }

    #[test]
    fn executes_carry_exactly_the_payload() {
        for (work, count) in Work::ALL.into_iter().zip([1, 1, 4, 40, 320]) {
            let executes = work.executes();

            assert_eq!(executes.len(), count, "{}", work.name);
            let payload: usize = executes
                .iter()
                .map(|request| request.rop_buffer.len() + asked(request))
                .sum();
            assert_eq!(payload, work.payload, "{}", work.name);
            assert!(
                executes
                    .iter()
                    .all(|request| asked(request) <= work.answer_max)
            );
        }
    }
}
