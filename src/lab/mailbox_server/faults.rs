//! The wrong things a simulated server does on command, each a counted number of times.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use crate::mapi::RequestType;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// FIN.
    Close,
    /// RST.
    Reset,
}

/// Where in an exchange it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// On accept, before a byte is read.
    Accept,
    /// With the head read and the body not: nothing is executed.
    MidRequest,
    /// With the whole request read and executed, before a byte of the answer.
    BeforeHead,
    /// Inside the answer's head.
    MidHead,
    /// Right behind the answer's head.
    AfterHead,
    /// Behind the first PROCESSING.
    AfterProcessing,
    /// Inside the last chunk, or inside a counted body.
    MidBody,
    /// Behind a whole answer that promised to keep the connection.
    Idle,
}

/// One wrong thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The connection ends.
    End(Ending, Place),
    /// Reads the request, executes it, answers nothing and keeps the connection.
    HangBeforeHead,
    /// Answers head and PROCESSING, then nothing any more.
    HangAfterProcessing,
    /// A held request gets its first PROCESSING and never a PENDING; it still ends.
    NoPending,
    /// One byte of the answer at a time.
    Drip,
    /// The answer sets a context cookie that no server issued.
    WrongCookie,
    /// The answer sets the context cookie of another live context.
    ForeignCookie,
    /// This HTTP status instead of executing.
    Status(u16),
    /// 413 before the body is read; the connection closes.
    AnswerEarly,
    /// Two `Content-Length` in the answer.
    TwoLengths,
    /// `Content-Length` and `Transfer-Encoding` in the answer.
    LengthAndChunked,
    /// A header of 128 KiB in the answer.
    OversizeHead,
    /// A zero byte in the answer's head.
    NulInHead,
    /// Bytes that are not HTTP instead of the answer.
    Garbage,
    /// `100 Continue` before the answer though nobody asked.
    ContinueFirst,
    /// The body compressed though nobody asked.
    Gzip,
    /// A whole answer, then an unsolicited `408` on the idle connection.
    Unsolicited,
}

/// The words of the control port and the tests.
const WORDS: &[(&str, Fault)] = &[
    ("close-on-accept", Fault::End(Ending::Close, Place::Accept)),
    ("reset-on-accept", Fault::End(Ending::Reset, Place::Accept)),
    (
        "close-mid-request",
        Fault::End(Ending::Close, Place::MidRequest),
    ),
    (
        "reset-mid-request",
        Fault::End(Ending::Reset, Place::MidRequest),
    ),
    (
        "close-before-head",
        Fault::End(Ending::Close, Place::BeforeHead),
    ),
    (
        "reset-before-head",
        Fault::End(Ending::Reset, Place::BeforeHead),
    ),
    ("close-mid-head", Fault::End(Ending::Close, Place::MidHead)),
    ("reset-mid-head", Fault::End(Ending::Reset, Place::MidHead)),
    (
        "close-after-head",
        Fault::End(Ending::Close, Place::AfterHead),
    ),
    (
        "reset-after-head",
        Fault::End(Ending::Reset, Place::AfterHead),
    ),
    (
        "close-after-processing",
        Fault::End(Ending::Close, Place::AfterProcessing),
    ),
    (
        "reset-after-processing",
        Fault::End(Ending::Reset, Place::AfterProcessing),
    ),
    ("close-mid-chunk", Fault::End(Ending::Close, Place::MidBody)),
    ("reset-mid-chunk", Fault::End(Ending::Reset, Place::MidBody)),
    ("close-idle", Fault::End(Ending::Close, Place::Idle)),
    ("reset-idle", Fault::End(Ending::Reset, Place::Idle)),
    ("hang-before-head", Fault::HangBeforeHead),
    ("hang-after-processing", Fault::HangAfterProcessing),
    ("no-pending", Fault::NoPending),
    ("drip", Fault::Drip),
    ("wrong-cookie", Fault::WrongCookie),
    ("foreign-cookie", Fault::ForeignCookie),
    ("status-401", Fault::Status(401)),
    ("status-500", Fault::Status(500)),
    ("status-503", Fault::Status(503)),
    ("status-555", Fault::Status(555)),
    ("answer-early", Fault::AnswerEarly),
    ("two-lengths", Fault::TwoLengths),
    ("length-and-chunked", Fault::LengthAndChunked),
    ("oversize-head", Fault::OversizeHead),
    ("nul-in-head", Fault::NulInHead),
    ("garbage", Fault::Garbage),
    ("continue-first", Fault::ContinueFirst),
    ("gzip", Fault::Gzip),
    ("unsolicited", Fault::Unsolicited),
];

impl Fault {
    /// Every fault with its word.
    pub fn all() -> impl Iterator<Item = (&'static str, Self)> {
        WORDS.iter().copied()
    }
}

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(word: &str) -> Result<Self, UnknownFault> {
        Self::all()
            .find(|(known, _)| *known == word)
            .map(|(_, fault)| fault)
            .ok_or_else(|| UnknownFault(word.to_owned()))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::all().find(|(_, fault)| fault == self) {
            Some((word, _)) => f.write_str(word),
            None => write!(f, "{self:?}"),
        }
    }
}

/// A word that names no fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no fault is called {0:?}")]
pub struct UnknownFault(String);

/// Faults to come, in order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    planned: VecDeque<Planned>,
}

#[derive(Debug)]
struct Planned {
    fault: Fault,
    left: u64,
    only: Option<RequestType>,
}

impl Plan {
    pub(super) fn add(&mut self, fault: Fault, count: u64, only: Option<RequestType>) {
        if count > 0 {
            self.planned.push_back(Planned {
                fault,
                left: count,
                only,
            });
        }
    }

    pub(super) fn clear(&mut self) {
        self.planned.clear();
    }

    /// Faults not taken yet.
    pub(super) fn left(&self) -> u64 {
        self.planned.iter().map(|planned| planned.left).sum()
    }

    /// The fault for a connection just accepted.
    pub(super) fn take_on_accept(&mut self) -> Option<Fault> {
        self.take(|planned| matches!(planned.fault, Fault::End(_, Place::Accept)))
    }

    /// The fault for a request of this type.
    pub(super) fn take_for(&mut self, kind: RequestType) -> Option<Fault> {
        self.take(|planned| {
            !matches!(planned.fault, Fault::End(_, Place::Accept))
                && planned.only.is_none_or(|only| only == kind)
        })
    }

    fn take(&mut self, fits: impl Fn(&Planned) -> bool) -> Option<Fault> {
        let position = self.planned.iter().position(fits)?;
        let planned = self.planned.get_mut(position)?;
        let fault = planned.fault;
        planned.left -= 1;
        if planned.left == 0 {
            self.planned.remove(position);
        }
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_word_that_reads_back() {
        for (word, fault) in Fault::all() {
            assert_eq!(word.parse(), Ok(fault));
            assert_eq!(fault.to_string(), word);
        }
        assert!("be-nice".parse::<Fault>().is_err());
    }

    #[test]
    fn a_fault_is_taken_as_often_as_planned_and_only_by_its_type() {
        let mut plan = Plan::default();
        plan.add(Fault::Drip, 2, Some(RequestType::Execute));

        assert_eq!(plan.take_for(RequestType::Ping), None);
        assert_eq!(plan.take_for(RequestType::Execute), Some(Fault::Drip));
        assert_eq!(plan.take_for(RequestType::Execute), Some(Fault::Drip));
        assert_eq!(plan.take_for(RequestType::Execute), None);
        assert_eq!(plan.left(), 0);
    }

    #[test]
    fn faults_on_accept_do_not_hit_requests() {
        let mut plan = Plan::default();
        plan.add(Fault::End(Ending::Reset, Place::Accept), 1, None);

        assert_eq!(plan.take_for(RequestType::Execute), None);
        assert!(plan.take_on_accept().is_some());
    }
}
